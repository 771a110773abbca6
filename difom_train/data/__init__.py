"""Cache to batches: which rows, in which order, held where, on which device."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
