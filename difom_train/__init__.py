"""Stage two: light students, trained against cached teacher features.

The public names stand in `__init__.pyi`, which type checkers and editors read; each is loaded when it is first used (PEP 562), so
that importing the package stays quick. Every command is a function of the same name here.
"""

from difom_cache.base.surface import attach

__version__ = "0.1.0"

_MOVED = {
    "difom_train.students": "BOTTLENECK Level build_neck decoder_input_channels",
}

__getattr__, __dir__, __all__ = attach(__name__, __file__, _MOVED)
