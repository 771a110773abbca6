"""A whole student in one file, to copy: the contract tests run it beside the built-in ones.

In the project, put yours into `difom_train/students/` and name it in `STUDENTS` (students/catalogue.py).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from difom_train.students import (
    BOTTLENECK,
    EncoderDecoder,
    Level,
    StudentSettings,
    build_neck,
    decoder_input_channels,
)


class ShallowStudent(EncoderDecoder):
    """Two scales, one skip connection, one output."""

    def __init__(self, settings: StudentSettings) -> None:
        fine, coarse = settings.width or 16, 2 * (settings.width or 16)
        levels = {"encoder1": Level(fine, 4), BOTTLENECK: Level(coarse, 16), "decoder1": Level(fine, 4)}
        super().__init__(settings, levels, neck=build_neck(settings.neck, coarse))
        self.fine = nn.Conv2d(3, fine, kernel_size=4, stride=4)
        self.coarse = nn.Conv2d(fine, coarse, kernel_size=4, stride=4)
        self.join = nn.Conv2d(fine + decoder_input_channels(settings.neck, coarse), fine, kernel_size=3, padding=1)
        self.head = nn.Conv2d(fine, 1, kernel_size=1)

    def encode(self, pixels: Tensor) -> dict[str, Tensor]:
        fine = torch.relu(self.fine(pixels))
        return {"encoder1": fine, BOTTLENECK: torch.relu(self.coarse(fine))}

    def decode(self, features: dict[str, Tensor], size: Sequence[int]) -> tuple[list[Tensor], dict[str, Tensor]]:
        fine = features["encoder1"]
        below = interpolate(features[BOTTLENECK], size=fine.shape[-2:], mode="bilinear", align_corners=False)
        joined = torch.relu(self.join(torch.cat([fine, below], dim=1)))
        logits = interpolate(self.head(joined), size=(size[0], size[1]), mode="bilinear", align_corners=False)
        return [logits], {"decoder1": joined}

    def encoder_modules(self) -> list[nn.Module]:
        return [self.fine, self.coarse]
