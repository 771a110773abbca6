"""Networks: one architecture a file, how they are saved and loaded, their catalogue."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
