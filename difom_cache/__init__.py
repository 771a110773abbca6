"""Stage one: teacher features of augmented pictures, computed once and kept in Zarr.

The public names stand in `__init__.pyi`, which type checkers and editors read; each is loaded when it is first used (PEP 562), so
that importing the package stays quick. Every command is a function of the same name here.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
