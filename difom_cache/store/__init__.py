"""Bytes on disk, FORMAT.md as code: whoever reads or writes a byte of a cache is here."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
