"""What is used of Lightning Fabric, which is loaded without what it only asks about.

Fabric imports torchmetrics to learn its version, and that brings torchvision, SciPy and transformers where they are
installed; and PyTorch's compiler, to tell whether a network has been through it. Together they are more than half of a run's
start. An empty module in the first one's place is enough: Fabric then asks the package's metadata. In the second one's place
stands a class that looks for the compiler when it is asked: where nothing has loaded it, nothing has been compiled.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType

_COMPILER = "torch._dynamo"


class _AskedLater(type):
    """A class whose instances are those of the compiler's class of the same name, which may not be loaded yet."""

    def __instancecheck__(cls, instance: object) -> bool:
        compiler = sys.modules.get(_COMPILER)
        return compiler is not None and isinstance(instance, getattr(compiler, cls.__name__))


class OptimizedModule(metaclass=_AskedLater):
    """What `torch.compile` makes of a network."""


@contextmanager
def _stand_ins() -> Iterator[None]:
    """Put a module in the place of each that is installed and not loaded yet, for as long as the context lasts."""
    modules = {name: ModuleType(name) for name in ("torchmetrics", _COMPILER)}
    modules[_COMPILER].OptimizedModule = OptimizedModule  # type: ignore[attr-defined]
    put = {name: module for name, module in modules.items() if name not in sys.modules and find_spec(name) is not None}
    sys.modules.update(put)
    try:
        yield
    finally:
        for name in put:
            del sys.modules[name]


try:
    with _stand_ins():
        import lightning_fabric  # noqa: F401
except (AttributeError, ImportError):  # a version that needs more of them than their names is loaded below, as it comes
    for _name in [name for name in sys.modules if name.partition(".")[0] == "lightning_fabric"]:
        del sys.modules[_name]

from lightning_fabric import Fabric  # noqa: E402
from lightning_fabric.loggers import CSVLogger, TensorBoardLogger  # noqa: E402
from lightning_fabric.plugins import Precision  # noqa: E402
from lightning_fabric.strategies import DDPStrategy  # noqa: E402

__all__ = ["CSVLogger", "DDPStrategy", "Fabric", "Precision", "TensorBoardLogger"]
