"""DINOv2 (Oquab et al. 2023, arXiv:2304.07193), also with registers (Darcet et al. 2023, arXiv:2309.16588), from transformers.

Taps: `block0` and on, each after the network's final layer norm, as the authors' `get_intermediate_layers` and
transformers' backbone do; `block0.keys` and on; class and register tokens kept out. The default input of 616 px is 44 x 14,
twice the grid of a picture of 352 px at stride 16, so pooling is exact there; positions are interpolated by the library for
any size.
"""

from dataclasses import replace
from functools import partial

from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from difom_cache.teachers.library import Family, Size
from difom_cache.teachers.tokens import TokenTaps

REGISTERS = 4


def _config(width: int, depth: int, heads: int, *, swiglu: bool = False, image_px: int = 518) -> Dinov2Config:
    return Dinov2Config(
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        image_size=image_px,
        patch_size=14,
        use_swiglu_ffn=swiglu,
    )


SETTINGS = ["hidden_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size", "use_swiglu_ffn"]


def _register(size: Size) -> Size:
    """Return a size with register tokens: otherwise the plain one."""

    def config() -> Dinov2WithRegistersConfig:
        held = {name: getattr(size.config(), name) for name in SETTINGS}
        return Dinov2WithRegistersConfig(**held, num_register_tokens=REGISTERS)

    return size._replace(config=config, repository=size.repository.replace("dinov2", "dinov2-with-registers"))


FAMILY = Family(
    name="dinov2",
    model_class=Dinov2Model,
    sizes={
        "small": Size(partial(_config, 384, 12, 6), "facebook/dinov2-small"),
        "base": Size(partial(_config, 768, 12, 12), "facebook/dinov2-base"),
        "large": Size(partial(_config, 1024, 24, 16), "facebook/dinov2-large"),
        "giant": Size(partial(_config, 1536, 40, 24, swiglu=True), "facebook/dinov2-giant"),
        "tiny": Size(partial(_config, 32, 4, 2, image_px=308), input_px=308),
    },
    geometry=lambda config: (config.hidden_size, config.num_hidden_layers, config.patch_size),
    read=lambda model, _: TokenTaps(model, model.encoder.layer, model.layernorm, prefix_tokens=1),
    default="base",
    input_px=616,
    licence="Apache-2.0",
    others=("classifier.",),
)

REGISTERED = replace(
    FAMILY,
    name="dinov2_reg",
    model_class=Dinov2WithRegistersModel,
    sizes={name: _register(size) for name, size in FAMILY.sizes.items()},
    read=lambda model, _: TokenTaps(model, model.encoder.layer, model.layernorm, prefix_tokens=1 + REGISTERS),
)
