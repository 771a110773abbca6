"""`difom-cache extract`, readable from run.py downwards: rows, what is missing, columns, blocks, engines, estimates."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
