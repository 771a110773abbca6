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

from difom_cache.teachers.library import Family, Size
from difom_cache.teachers.tokens import TokenTaps


def _config(width: int, depth: int, heads: int, **further: Any) -> RadioConfig:
    return RadioConfig(hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads, **further)


FAMILY = Family(
    name="radio",
    model_class=RadioModel,
    sizes={
        "h": Size(partial(_config, 1280, 32, 16), "nvidia/C-RADIOv4-H"),
        "tiny": Size(partial(_config, 32, 4, 2, max_img_size=352), input_px=352),
    },
    geometry=lambda config: (config.hidden_size, config.num_hidden_layers, config.patch_size),
    read=lambda model, _: TokenTaps(model, model.encoder.layer, nn.Identity(), model.config.num_summary_tokens),
    default="h",
    input_px=704,
    licence="NVIDIA Open Model License",
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    unused=("layer_scale",),  # the authors have none; the library's are ones
)
