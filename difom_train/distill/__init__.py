"""Features to loss terms: which tap teaches which level, targets, comparison, one kind of distillation a file."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
