"""Stage one: teacher features of augmented pictures, computed once and kept in Zarr.

What stands in `__all__` is the public surface. Every command is a function of the same name here.
"""

from typing import TYPE_CHECKING, Any

from difom_cache.surface import expose

__version__ = "0.1.0"

__all__ = expose(
    __name__,
    {
        "Cache": "store.reader",
        "NativeTap": "teachers.base",
        "NetworkFacts": "teachers.network",
        "PICTURE_SUFFIXES": "images",
        "Record": "manifest",
        "TapNetwork": "teachers.network",
        "TapRequest": "teachers.base",
        "TapSpec": "store.layout",
        "Teacher": "teachers.base",
        "TeacherOrder": "teachers.base",
        "TeacherSpec": "teachers.base",
        "ViewParams": "views.params",
        "Weights": "teachers.weights",
        "area_pool": "area",
        "assemble": "teachers.network",
        "bench_teacher": "bench",
        "build_teacher": "teachers.catalogue",
        "check_records": "check",
        "copy": "manage",
        "describe_teachers": "teachers.describe",
        "digest_tensors": "teachers.weights",
        "draw_plan": "views.plan",
        "drop": "manage",
        "export_hdf5": "hdf5",
        "extract": "extract",
        "fetch_weights": "teachers.fetch",
        "finish": "manage",
        "import_hdf5": "hdf5",
        "info": "info",
        "load_records": "manifest",
        "make_manifest": "make_manifest",
        "open_cache": "store.reader",
        "paint_sample": "sample",
        "read_image": "images",
        "read_manifest": "manifest",
        "read_mask": "images",
        "replay_image": "views.replay",
        "replay_mask": "views.replay",
        "replay_valid": "views.replay",
        "show": "show",
        "verify": "verify",
        "write_manifest": "manifest",
        "write_random_cache": "store.random_cache",
    },
)

if TYPE_CHECKING:  # functions that share their file's name, which a type checker would take for the file
    from difom_cache.extract import extract as extract
    from difom_cache.info import info as info
    from difom_cache.show import show as show
    from difom_cache.verify import verify as verify

    def __getattr__(name: str) -> Any:
        """Tell type checkers that the names above exist."""
