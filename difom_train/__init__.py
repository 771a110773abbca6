"""Stage two: light students, trained against cached teacher features.

What stands in `__all__` is the public surface. Every command is a function of the same name here.
"""

from typing import TYPE_CHECKING, Any

from difom_cache.surface import expose

__version__ = "0.1.0"

__all__ = expose(
    __name__,
    {
        "bench_loader": "bench_loader",
        "bench_step": "bench_step",
        "build_student": "students.catalogue",
        "compare": "compare",
        "curves": "curves",
        "evaluate": "evaluate",
        "export": "export",
        "load_student": "students.saved",
        "predict": "predict",
        "train": "train",
    },
)

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Tell type checkers that the names above exist."""
