"""DINOv2 (Oquab et al. 2023, arXiv:2304.07193), from transformers.

Taps: `block0` and on, each after the network's final layer norm, as the authors' `get_intermediate_layers` and
transformers' backbone do; `block0.keys` and on; class token kept out. The default input of 616 px is 44 x 14, twice the
grid of a picture of 352 px at stride 16, so pooling is exact there; positions are interpolated by the library for any
size.
"""

from functools import partial

from transformers import Dinov2Config, Dinov2Model

from difom_cache.teachers.base import Description, TeacherRequest
from difom_cache.teachers.library import LibraryTeacher, build_library, describe_library
from difom_cache.teachers.network import NetworkTeacher
from difom_cache.teachers.preprocess import IMAGENET_MEAN, IMAGENET_STD
from difom_cache.teachers.tokens import TokenTaps
from difom_cache.teachers.transformers_weights import Family

PATCH_PX = 14


def _config(width: int, depth: int, heads: int, *, swiglu: bool = False, image_px: int = 518) -> Dinov2Config:
    return Dinov2Config(
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        image_size=image_px,
        patch_size=PATCH_PX,
        use_swiglu_ffn=swiglu,
    )


FAMILY = LibraryTeacher(
    family=Family(
        name="dinov2",
        model_class=Dinov2Model,
        part=lambda model: model,
        prefix="",
        configs={
            "small": partial(_config, 384, 12, 6),
            "base": partial(_config, 768, 12, 12),
            "large": partial(_config, 1024, 24, 16),
            "giant": partial(_config, 1536, 40, 24, swiglu=True),
            "tiny": partial(_config, 32, 4, 2, image_px=308),
        },
        repositories={
            "small": "facebook/dinov2-small",
            "base": "facebook/dinov2-base",
            "large": "facebook/dinov2-large",
            "giant": "facebook/dinov2-giant",
            "tiny": "",
        },
        geometry=lambda config: (config.hidden_size, config.num_hidden_layers, config.patch_size),
        others=("classifier.",),
    ),
    default_variant="base",
    input_px={"tiny": 308},
    usual_input_px=616,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    licence="Apache-2.0",
    read=lambda model, _: TokenTaps(
        model,
        model.encoder.layer,
        model.layernorm,
        prefix_tokens=1,
        key_projection=lambda block: block.attention.k_proj,
    ),
)


def build(request: TeacherRequest) -> NetworkTeacher:
    """Return the DINOv2 that `request` asks for; inputs are multiples of 14 px."""
    return build_library(FAMILY, request)


def describe() -> list[Description]:
    """Return every variant."""
    return describe_library(FAMILY)
