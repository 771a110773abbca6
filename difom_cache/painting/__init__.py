"""Painted colonoscopy: numbers of a scene, its surface, its colours, and the camera that looks at it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
