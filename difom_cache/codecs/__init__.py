"""Feature to code and back: one codec a file, its error bound in its docstring, and how well codes keep features."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
