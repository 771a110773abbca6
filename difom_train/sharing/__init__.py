"""A run for others: its model card, the hub, and a page to try it on."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
