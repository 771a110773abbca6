"""Stage one: teacher features of augmented pictures, computed once and kept in Zarr.

What stands in `__all__` is the public surface, loaded name by name when first used (PEP 562), so that importing the package
stays quick. Every command is a function of the same name here.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for type checkers and editors; at run time `__getattr__` loads the same names
    from difom_cache.benchmarks.extraction import bench_teacher as bench_teacher
    from difom_cache.benchmarks.random_cache import write_random_cache as write_random_cache
    from difom_cache.data.budget import draw_budget as draw_budget
    from difom_cache.data.check import check_records as check_records
    from difom_cache.data.images import PICTURE_SUFFIXES as PICTURE_SUFFIXES
    from difom_cache.data.images import read_image as read_image
    from difom_cache.data.images import read_mask as read_mask
    from difom_cache.data.images import write_picture as write_picture
    from difom_cache.data.make_manifest import make_manifest as make_manifest
    from difom_cache.data.manifest import Record as Record
    from difom_cache.data.manifest import load_records as load_records
    from difom_cache.data.manifest import read_manifest as read_manifest
    from difom_cache.data.manifest import write_manifest as write_manifest
    from difom_cache.extraction.options import ExtractConfig as ExtractConfig
    from difom_cache.extraction.run import extract as extract
    from difom_cache.files import read_object as read_object
    from difom_cache.files import read_plain as read_plain
    from difom_cache.hardware import name_device as name_device
    from difom_cache.hardware import name_processor as name_processor
    from difom_cache.hardware import resolve_device as resolve_device
    from difom_cache.hardware import torch_threads as torch_threads
    from difom_cache.maintenance.copy import copy as copy
    from difom_cache.maintenance.copy import drop as drop
    from difom_cache.maintenance.copy import finish as finish
    from difom_cache.maintenance.hdf5 import export_hdf5 as export_hdf5
    from difom_cache.maintenance.hdf5 import import_hdf5 as import_hdf5
    from difom_cache.maintenance.info import info as info
    from difom_cache.maintenance.show import show as show
    from difom_cache.maintenance.verify import verify as verify
    from difom_cache.outputs import check_out_file as check_out_file
    from difom_cache.outputs import check_out_folder as check_out_folder
    from difom_cache.outputs import check_outputs as check_outputs
    from difom_cache.painting.sample import paint_sample as paint_sample
    from difom_cache.probing.run import probe as probe
    from difom_cache.probing.score import score_logits as score_logits
    from difom_cache.store.atomic import draft_of as draft_of
    from difom_cache.store.atomic import write_atomic as write_atomic
    from difom_cache.store.identity import format_random_warning as format_random_warning
    from difom_cache.store.layout import NO_MASK as NO_MASK
    from difom_cache.store.layout import PICTURES as PICTURES
    from difom_cache.store.layout import SPLITS as SPLITS
    from difom_cache.store.layout import TapSpec as TapSpec
    from difom_cache.store.reader import Cache as Cache
    from difom_cache.store.reader import open_cache as open_cache
    from difom_cache.teachers.base import NativeTap as NativeTap
    from difom_cache.teachers.base import TapRequest as TapRequest
    from difom_cache.teachers.base import Teacher as Teacher
    from difom_cache.teachers.base import TeacherOrder as TeacherOrder
    from difom_cache.teachers.base import TeacherSpec as TeacherSpec
    from difom_cache.teachers.catalogue import build_teacher as build_teacher
    from difom_cache.teachers.describe import describe_teachers as describe_teachers
    from difom_cache.teachers.fetch import fetch_weights as fetch_weights
    from difom_cache.teachers.network import NetworkFacts as NetworkFacts
    from difom_cache.teachers.network import TapNetwork as TapNetwork
    from difom_cache.teachers.network import assemble as assemble
    from difom_cache.teachers.pooling import area_pool as area_pool
    from difom_cache.teachers.preprocess import IMAGENET_MEAN as IMAGENET_MEAN
    from difom_cache.teachers.preprocess import IMAGENET_STD as IMAGENET_STD
    from difom_cache.teachers.weights import Weights as Weights
    from difom_cache.teachers.weights import digest_tensors as digest_tensors
    from difom_cache.text import format_bytes as format_bytes
    from difom_cache.text import format_seconds as format_seconds
    from difom_cache.text import format_table as format_table
    from difom_cache.text import guard_cell as guard_cell
    from difom_cache.text import guard_line as guard_line
    from difom_cache.text import name_some as name_some
    from difom_cache.text import unguard_cell as unguard_cell
    from difom_cache.views.params import ViewParams as ViewParams
    from difom_cache.views.plan import draw_plan as draw_plan
    from difom_cache.views.replay import replay_image as replay_image
    from difom_cache.views.replay import replay_mask as replay_mask
    from difom_cache.views.replay import replay_valid as replay_valid
    from difom_cache.views.warp import warp_view as warp_view

__version__ = "0.1.0"

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "NO_MASK",
    "PICTURES",
    "PICTURE_SUFFIXES",
    "SPLITS",
    "Cache",
    "ExtractConfig",
    "NativeTap",
    "NetworkFacts",
    "Record",
    "TapNetwork",
    "TapRequest",
    "TapSpec",
    "Teacher",
    "TeacherOrder",
    "TeacherSpec",
    "ViewParams",
    "Weights",
    "area_pool",
    "assemble",
    "bench_teacher",
    "build_teacher",
    "check_out_file",
    "check_out_folder",
    "check_outputs",
    "check_records",
    "copy",
    "describe_teachers",
    "digest_tensors",
    "draft_of",
    "draw_budget",
    "draw_plan",
    "drop",
    "export_hdf5",
    "extract",
    "fetch_weights",
    "finish",
    "format_bytes",
    "format_random_warning",
    "format_seconds",
    "format_table",
    "guard_cell",
    "guard_line",
    "import_hdf5",
    "info",
    "load_records",
    "make_manifest",
    "name_device",
    "name_processor",
    "name_some",
    "open_cache",
    "paint_sample",
    "probe",
    "read_image",
    "read_manifest",
    "read_mask",
    "read_object",
    "read_plain",
    "replay_image",
    "replay_mask",
    "replay_valid",
    "resolve_device",
    "score_logits",
    "show",
    "torch_threads",
    "unguard_cell",
    "verify",
    "warp_view",
    "write_atomic",
    "write_manifest",
    "write_picture",
    "write_random_cache",
]

_HOMES = {
    "Cache": "store.reader",
    "ExtractConfig": "extraction.options",
    "IMAGENET_MEAN": "teachers.preprocess",
    "IMAGENET_STD": "teachers.preprocess",
    "NO_MASK": "store.layout",
    "NativeTap": "teachers.base",
    "NetworkFacts": "teachers.network",
    "PICTURES": "store.layout",
    "PICTURE_SUFFIXES": "data.images",
    "Record": "data.manifest",
    "SPLITS": "store.layout",
    "TapNetwork": "teachers.network",
    "TapRequest": "teachers.base",
    "TapSpec": "store.layout",
    "Teacher": "teachers.base",
    "TeacherOrder": "teachers.base",
    "TeacherSpec": "teachers.base",
    "ViewParams": "views.params",
    "Weights": "teachers.weights",
    "area_pool": "teachers.pooling",
    "assemble": "teachers.network",
    "bench_teacher": "benchmarks.extraction",
    "build_teacher": "teachers.catalogue",
    "check_out_file": "outputs",
    "check_out_folder": "outputs",
    "check_outputs": "outputs",
    "check_records": "data.check",
    "copy": "maintenance.copy",
    "describe_teachers": "teachers.describe",
    "digest_tensors": "teachers.weights",
    "draft_of": "store.atomic",
    "draw_budget": "data.budget",
    "draw_plan": "views.plan",
    "drop": "maintenance.copy",
    "export_hdf5": "maintenance.hdf5",
    "extract": "extraction.run",
    "fetch_weights": "teachers.fetch",
    "finish": "maintenance.copy",
    "format_bytes": "text",
    "format_random_warning": "store.identity",
    "format_seconds": "text",
    "format_table": "text",
    "guard_cell": "text",
    "guard_line": "text",
    "import_hdf5": "maintenance.hdf5",
    "info": "maintenance.info",
    "load_records": "data.manifest",
    "make_manifest": "data.make_manifest",
    "name_device": "hardware",
    "name_processor": "hardware",
    "name_some": "text",
    "open_cache": "store.reader",
    "paint_sample": "painting.sample",
    "probe": "probing.run",
    "read_image": "data.images",
    "read_manifest": "data.manifest",
    "read_mask": "data.images",
    "read_object": "files",
    "read_plain": "files",
    "replay_image": "views.replay",
    "replay_mask": "views.replay",
    "replay_valid": "views.replay",
    "resolve_device": "hardware",
    "score_logits": "probing.score",
    "show": "maintenance.show",
    "torch_threads": "hardware",
    "unguard_cell": "text",
    "verify": "maintenance.verify",
    "warp_view": "views.warp",
    "write_atomic": "store.atomic",
    "write_manifest": "data.manifest",
    "write_picture": "data.images",
    "write_random_cache": "benchmarks.random_cache",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
