"""`difom-cache probe`: from a teacher's features and some masks to logits of every view, with no teacher pass."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
