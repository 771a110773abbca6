"""What is used of Lightning Fabric, which is loaded without torchmetrics.

Fabric imports torchmetrics to learn its version, and that brings torchvision, SciPy and transformers where they are installed: a
third of a run's start. An empty module in its place is enough: Fabric then asks the package's metadata.
"""

import sys
from importlib.util import find_spec
from types import ModuleType

_STANDS_IN = "torchmetrics" not in sys.modules and find_spec("torchmetrics") is not None
if _STANDS_IN:
    sys.modules["torchmetrics"] = ModuleType("torchmetrics")
try:
    from lightning_fabric import Fabric
    from lightning_fabric.loggers import CSVLogger, TensorBoardLogger
    from lightning_fabric.plugins import Precision
    from lightning_fabric.strategies import DDPStrategy
finally:
    if _STANDS_IN:
        del sys.modules["torchmetrics"]

__all__ = ["CSVLogger", "DDPStrategy", "Fabric", "Precision", "TensorBoardLogger"]
