"""Views made from their numbers: pure, on any device, and the same geometry at every size.

A view is the crop resized with antialiasing, flipped and turned exactly, and resampled once more if it is rotated. The
crop is then first resized to the smallest square in which the rotated view of the asked size fits, so that the resample
keeps the scale. On the CPU the resize computes in integers, as Pillow does, so that every machine writes the same grey
levels.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from difom_cache.base.errors import DataError
from difom_cache.views.params import ViewParams


def to_radians(params: ViewParams) -> float:
    """Return the angle of the rotation, counterclockwise."""
    return math.radians(params.angle_mdeg / 1000)


def spread_of(params: ViewParams) -> float:
    """Return the side of the upright square that holds the rotated view, in sides of the view."""
    if params.pad:
        return 1.0
    angle = to_radians(params)
    return math.cos(angle) + abs(math.sin(angle))


def upright_px(params: ViewParams, size_px: int) -> int:
    """Return the side to which the crop of a view of side `size_px` is resized before it is rotated."""
    return math.ceil(size_px * spread_of(params)) if params.angle_mdeg else size_px


def resize_crop(source: Tensor, params: ViewParams, side_px: int) -> Tensor:
    """Return the crop at `side_px` x `side_px`: (C, H, W) uint8 -> (C, side_px, side_px) float32, whole grey levels."""
    height, width = source.shape[-2:]
    bottom, right = params.top + params.height, params.left + params.width
    if bottom > height or right > width:
        raise DataError(
            f"the view's crop ends at row {bottom}, column {right}, but the picture has {height} rows and {width} "
            "columns; it is not the picture that the view was drawn for"
        )
    crop = source[None, :, params.top : bottom, params.left : right]
    if source.device.type != "cpu":
        crop = crop.float()  # other devices have no integer resize; they come within one grey level of it
    resized = functional.interpolate(crop, (side_px, side_px), mode="bilinear", antialias=True, align_corners=False)
    return resized[0].float().round_()


def flip_and_turn(x: Tensor, params: ViewParams) -> Tensor:
    """Return `x` (C, S, S) mirrored and turned, without resampling."""
    dims = [-1] * params.flip_h + [-2] * params.flip_v
    x = x.flip(dims) if dims else x
    return torch.rot90(x, params.quarter_turns, (-2, -1)) if params.quarter_turns else x


def _rotate(x: Tensor, params: ViewParams, size_px: int) -> Tensor:
    """Return the rotated view, (C, S', S') float32 -> (C, size_px, size_px), border values beyond the border."""
    # Here, as training from stored pictures turns and colours none, and starts without kornia.
    from kornia.geometry.transform import warp_affine

    side_px = x.shape[-1]
    scale = size_px * spread_of(params) / side_px
    cos, sin = scale * math.cos(to_radians(params)), scale * math.sin(to_radians(params))
    old, new = (side_px - 1) / 2, (size_px - 1) / 2  # the centres, where pixel centres have whole coordinates
    matrix = [[cos, sin, new - (cos + sin) * old], [-sin, cos, new - (cos - sin) * old]]
    forward = torch.tensor([matrix], dtype=torch.float32, device=x.device)
    view = warp_affine(x[None], forward, (size_px, size_px), padding_mode="border", align_corners=False)[0]
    return view.clamp_(0, 255)  # the weights of a bilinear sum may add up to a little more than 1


def _replay(source: Tensor, params: ViewParams, size_px: int) -> Tensor:
    """Return the geometry of the view applied, (C, H, W) uint8 -> (C, size_px, size_px) float32 in [0, 255]."""
    if not params.angle_mdeg:
        return flip_and_turn(resize_crop(source, params, size_px), params)
    side_px = upright_px(params, size_px)
    view = _rotate(flip_and_turn(resize_crop(source, params, side_px), params), params, size_px)
    return view if params.wholly_valid else view * replay_valid(params, size_px, device=source.device)


def recolour(image: Tensor, params: ViewParams) -> Tensor:
    """Return `image` (3, S, S) in [0, 1] with the recorded colours."""
    from kornia import enhance  # as above

    image = enhance.adjust_brightness_accumulative(image, 1 + params.brightness_permille / 1000)
    image = enhance.adjust_contrast_with_mean_subtraction(image, 1 + params.contrast_permille / 1000)
    image = enhance.adjust_saturation(image, 1 + params.saturation_permille / 1000)
    return enhance.adjust_hue(image, 2 * math.pi * params.hue_permille / 1000).clamp(0, 1)


def replay_image(image: Tensor, params: ViewParams, size_px: int) -> Tensor:
    """Return the view of a picture.

    Args:
        image: (3, H, W) uint8 RGB, the record's whole frame.
        params: the view.
        size_px: side of the view.

    Returns:
        (3, size_px, size_px) float32 in [0, 1]; 0 where `replay_valid` is 0.

    Raises:
        DataError: the crop does not lie inside the picture.
    """
    view = _replay(image, params, size_px) / 255
    if not params.has_colour:
        return view
    view = recolour(view, params)
    return view if params.wholly_valid else view * replay_valid(params, size_px, device=image.device)


def replay_mask(mask: Tensor, params: ViewParams, size_px: int) -> Tensor:
    """Return the view of a mask: a pixel is 1 where at least half of it was.

    Args:
        mask: (H, W) uint8, 0 or 1.
        params: the view.
        size_px: side of the view.

    Returns:
        (size_px, size_px) uint8, 0 or 1; 0 where `replay_valid` is 0.

    Raises:
        DataError: the crop does not lie inside the mask.
    """
    return (_replay(mask[None] * 255, params, size_px)[0] >= 127.5).byte()


def replay_valid(params: ViewParams, size_px: int, *, device: torch.device | str = "cpu") -> Tensor:
    """Return 1 where the centre of a view's pixel shows a part of the crop, else 0: (size_px, size_px) uint8."""
    if params.wholly_valid:
        return torch.ones((size_px, size_px), dtype=torch.uint8, device=device)
    cos, sin = math.cos(to_radians(params)), math.sin(to_radians(params))
    centre = (torch.arange(size_px, dtype=torch.float64, device=device) + 0.5) / size_px - 0.5
    x, y = centre[None, :], centre[:, None]  # fractions of the view's side, y downwards
    inside = ((x * cos - y * sin).abs() <= 0.5) & ((x * sin + y * cos).abs() <= 0.5)
    return inside.byte()
