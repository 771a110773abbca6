"""Stage one: teacher features of augmented pictures, computed once and kept in Zarr.

The public names stand in `__init__.pyi`, which type checkers and editors read; each is loaded when it is first used (PEP 562), so
that importing the package stays quick. Every command is a function of the same name here.
"""

from difom_cache.base.surface import attach

__version__ = "0.1.0"

_MOVED = {
    "difom_cache.base.atomic": "draft_of write_atomic",
    "difom_cache.base.files": "guard_decoder read_object read_plain",
    "difom_cache.base.hardware": "explain_bfloat16 name_device name_processor resolve_device torch_threads",
    "difom_cache.base.outputs": "check_out_file check_out_folder check_outputs",
    "difom_cache.base.progress": "ProgressBar explain_wait say track",
    "difom_cache.base.text": "format_bytes format_seconds format_table guard_cell name_some unguard_cell",
    "difom_cache.data": (
        "DataSource FolderOptions GroupOptions PICTURE_SUFFIXES PixelOptions VIDEO_SUFFIXES VideoFrame VideoReader "
        "check_records describe_frames describe_unknown join_records read_manifest refuse_other_reading "
        "write_picture"
    ),
    "difom_cache.extraction": "ExtractConfig show_records",
    "difom_cache.probing": "LiveProbe",
    "difom_cache.store": "CacheIdentity NO_MASK PICTURES SPLITS TapSpec TeacherIdentity format_random_warning",
    "difom_cache.teachers": (
        "Frames IMAGENET_MEAN IMAGENET_STD NativeTap NetworkFacts Reading TapNetwork TapRequest TeacherRequest "
        "TeacherSpec Weights area_pool assemble cpu_capabilities digest_tensors has_openvino read_outputs "
        "read_weights split_code"
    ),
    "difom_cache.views": "FreshView draw_plan draw_table policy_named replay_valid warp_some warp_view",
}

__getattr__, __dir__, __all__ = attach(__name__, __file__, _MOVED)
