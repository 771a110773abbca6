"""Augmentation as numbers: view parameters are drawn once and replayed for ever."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
