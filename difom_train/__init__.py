"""Stage two: light students, trained against cached teacher features.

What stands in `__all__` is the public surface, loaded name by name when first used (PEP 562), so that importing the package
stays quick. Every command is a function of the same name here.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for type checkers and editors; at run time `__getattr__` loads the same names
    from difom_train.benchmarks.loader import bench_loader as bench_loader
    from difom_train.benchmarks.step import bench_step as bench_step
    from difom_train.config import TrainConfig as TrainConfig
    from difom_train.config import read_recipe as read_recipe
    from difom_train.evaluation.evaluate import evaluate as evaluate
    from difom_train.inference.export import export as export
    from difom_train.inference.predict import predict as predict
    from difom_train.reporting.compare import compare as compare
    from difom_train.students.catalogue import build_student as build_student
    from difom_train.students.saved import load_student as load_student
    from difom_train.training.curves import curves as curves
    from difom_train.training.run import train as train

__version__ = "0.1.0"

__all__ = [
    "TrainConfig",
    "bench_loader",
    "bench_step",
    "build_student",
    "compare",
    "curves",
    "evaluate",
    "export",
    "load_student",
    "predict",
    "read_recipe",
    "train",
]

_HOMES = {
    "TrainConfig": "config",
    "bench_loader": "benchmarks.loader",
    "bench_step": "benchmarks.step",
    "build_student": "students.catalogue",
    "compare": "reporting.compare",
    "curves": "training.curves",
    "evaluate": "evaluation.evaluate",
    "export": "inference.export",
    "load_student": "students.saved",
    "predict": "inference.predict",
    "read_recipe": "config",
    "train": "training.run",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
