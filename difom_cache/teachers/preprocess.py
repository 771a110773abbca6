"""How pixels become what a teacher was trained on, on the device, the same way for every teacher.

A view is resized to a square without cropping or padding, so a cell of a map lies over the same part of the picture
for every teacher, student and mask. The libraries' own processors differ there: segment-anything and OneFormer keep
the aspect and pad at the right and bottom, DINOv2 and CLIP crop the centre and resize bicubically (what that would change
is measured in docs/measurements.md: nothing that a probe could tell). Mean and std are each teacher's own.
"""

from torch import Tensor

from difom_cache.base.errors import TeacherError

Triple = tuple[float, float, float]

IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)
CLIP_MEAN: Triple = (0.48145466, 0.4578275, 0.40821073)  # openai/CLIP, clip/clip.py
CLIP_STD: Triple = (0.26862954, 0.26130258, 0.27577711)
HALF_MEAN: Triple = (0.5, 0.5, 0.5)
HALF_STD: Triple = (0.5, 0.5, 0.5)


def normalise(pixels: Tensor, mean: Triple | Tensor, std: Triple | Tensor) -> Tensor:
    """Return `pixels` with each channel's `mean` taken off, divided by its `std`.

    Args:
        pixels: float (B, 3, S, S) in [0, 1].
        mean: per channel; (3,) on the pixels' device, or numbers, which are copied there in each call.
        std: per channel, > 0; likewise.
    """
    means, stds = (each if isinstance(each, Tensor) else pixels.new_tensor(each) for each in (mean, std))
    return (pixels - means.to(pixels.dtype)[:, None, None]) / stds.to(pixels.dtype)[:, None, None]


def check_pixels(pixels: Tensor, input_px: int) -> None:
    """Refuse pixels that are not float (B, 3, input_px, input_px)."""
    expected = (3, input_px, input_px)
    if pixels.ndim != 4 or tuple(pixels.shape[1:]) != expected or not pixels.is_floating_point():
        raise TeacherError(
            f"expected floating-point pixels of shape (B, 3, {input_px}, {input_px}), "
            f"found {pixels.dtype} {tuple(pixels.shape)}"
        )
