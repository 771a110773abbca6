"""A student with everything around it that a device would get wrong, and the sizes of pictures that it takes."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

FRAME_PX = (16, 8192)  # least and largest side of a frame that a file for whole frames takes
LARGEST_SIDE_STRIDES = 256  # bound of the dynamic sides, in strides of the student


class Deployed(nn.Module):
    """A student with everything around it that a device would get wrong: layout, scaling, normalisation, sigmoid."""

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = student

    def forward(self, pictures: Tensor) -> Tensor:
        """Return the probability (B, H, W) of pictures (B, H, W, 3) uint8 RGB."""
        pixels = pictures.permute(0, 3, 1, 2).float() / 255  # (B, H, W, 3) -> (B, 3, H, W)
        return torch.sigmoid(self.student(pixels))[:, 0]


class FrameDeployed(nn.Module):
    """The same for whole frames of any size: resized to the student's input as Pillow does it, and back to the frame."""

    def __init__(self, student: nn.Module, input_px: int) -> None:
        super().__init__()
        self.student, self.input_px = student, input_px

    def forward(self, pictures: Tensor) -> Tensor:
        """Return the probability (B, H, W) of frames (B, H, W, 3) uint8 RGB."""
        height, width, side = pictures.shape[1], pictures.shape[2], self.input_px
        pixels = pictures.permute(0, 3, 1, 2).float()  # (B, H, W, 3) -> (B, 3, H, W)
        # Pillow goes along rows, rounds to grey levels, then along columns, and rounds again.
        for size in ((height, side), (side, side)):
            pixels = interpolate(pixels, size=size, mode="bilinear", antialias=True).round()
        logits = self.student(pixels / 255)
        sized = interpolate(logits, size=(height, width), mode="bilinear", align_corners=False)
        return torch.sigmoid(sized)[:, 0]


@dataclass(frozen=True)
class Sizes:
    """Which pictures a file takes: of side `input_px`; of any multiple of `stride`; or whole frames of any size."""

    input_px: int
    stride: int
    dynamic: bool
    whole: bool

    def describe(self) -> str:
        """Return the sides and how pictures come to them, in words."""
        if self.whole:
            least, most = FRAME_PX
            return f"whole frames, sides of {least} to {most} px, resized inside (antialiased bilinear, grey levels)"
        sides = f"sides are multiples of {self.stride}" if self.dynamic else f"{self.input_px} x {self.input_px}"
        return f"{sides}, antialiased bilinear resize of the whole frame"

    def example(self) -> tuple[Tensor, dict[str, Any]]:
        """Return an example input and which of its sides are free."""
        stride, side = self.stride, self.input_px
        free: dict[int, Any] = {0: torch.export.Dim("batch", min=1)}
        if self.whole:
            least, most = FRAME_PX
            free |= {
                1: torch.export.Dim("rows", min=least, max=most),
                2: torch.export.Dim("columns", min=least, max=most),
            }
        elif self.dynamic:
            free[1] = stride * torch.export.Dim("rows", min=1, max=LARGEST_SIDE_STRIDES)
            free[2] = stride * torch.export.Dim("columns", min=1, max=LARGEST_SIDE_STRIDES)
        else:
            return torch.zeros(2, side, side, 3, dtype=torch.uint8), {"pictures": free}
        # Unequal sides, so that no exporter takes height and width for one number.
        return torch.zeros(2, side, side + 2 * stride, 3, dtype=torch.uint8), {"pictures": free}
