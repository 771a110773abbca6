"""A trained network in use: pictures or video in, masks out; the same network as one exported file."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
