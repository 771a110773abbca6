"""C-RADIOv4 (NVIDIA 2026, arXiv:2601.17237), from transformers' own code; none of the code on the hub is run.

One network taught by SigLIP 2, DINOv3 and SAM 3 together. Taps: `block0` and on, as the residual stream leaves the block:
there is no last norm; `block0.keys` and on; class and register tokens kept out. Inputs are multiples of 16 px; positions
are interpolated by the library for any size, and the default of 704 px is twice the grid of a picture of 352 px at stride
16. Mean and std are subtracted inside the network, from numbers that its checkpoint holds, so that none stand outside.
"""

from functools import partial
from typing import Any

from torch import nn
from transformers import RadioConfig, RadioModel

from difom_cache.teachers.base import Description, TeacherRequest
from difom_cache.teachers.library import LibraryTeacher, build_library, describe_library
from difom_cache.teachers.network import NetworkTeacher
from difom_cache.teachers.tokens import TokenTaps
from difom_cache.teachers.transformers_weights import Family


def _config(width: int, depth: int, heads: int, **further: Any) -> RadioConfig:
    return RadioConfig(hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads, **further)


FAMILY = LibraryTeacher(
    family=Family(
        name="radio",
        model_class=RadioModel,
        part=lambda model: model,
        prefix="",
        configs={"h": partial(_config, 1280, 32, 16), "tiny": partial(_config, 32, 4, 2, max_img_size=352)},
        repositories={"h": "nvidia/C-RADIOv4-H", "tiny": ""},
        geometry=lambda config: (config.hidden_size, config.num_hidden_layers, config.patch_size),
        unused=("layer_scale",),  # the authors have none; the library's are ones
    ),
    default_variant="h",
    input_px={"tiny": 352},
    usual_input_px=704,
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    licence="NVIDIA Open Model License",
    read=lambda model, _: TokenTaps(
        model,
        model.encoder.layer,
        nn.Identity(),
        prefix_tokens=model.config.num_summary_tokens,
        key_projection=lambda block: block.attention.k_proj,
    ),
)


def build(request: TeacherRequest) -> NetworkTeacher:
    """Return the C-RADIO that `request` asks for; inputs are multiples of 16 px."""
    return build_library(FAMILY, request)


def describe() -> list[Description]:
    """Return every variant."""
    return describe_library(FAMILY)
