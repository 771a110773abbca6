"""How far a teacher's maps are from its library's own forward, measured against that library in float64."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from difom_cache import Teacher
from difom_cache.teachers import normalise

ALLOWED = 3.0
"""Times the library's own float32 error: sums in another order are as good, not equal."""

Maps = dict[str, Tensor]


@torch.no_grad()
def check_parity(
    teacher: Teacher,
    library: nn.Module,
    read: Callable[[nn.Module, Tensor], Maps],
    count: int = 2,
    pixels: Tensor | None = None,
) -> None:
    """Assert that every map of `teacher` is within 3 times the library's float32 error of the library in float64.

    Args:
        teacher: ours, in float32 on the CPU.
        library: the library's own network with the same weights.
        read: gives the library's maps by native tap name, of normalised pixels.
        count: pictures of noise, where `pixels` gives none.
        pixels: float32 (B, 3, S, S) in [0, 1].
    """
    px = teacher.spec.input_px
    if pixels is None:
        pixels = torch.rand(count, 3, px, px, generator=torch.Generator().manual_seed(5))
    found = teacher.features(pixels)
    mean, std = teacher.spec.mean, teacher.spec.std
    single = read(library.eval().float(), normalise(pixels, mean, std))
    exact = read(library.double(), normalise(pixels.double(), mean, std))
    for name, feature in found.items():
        assert feature.shape == exact[name].shape, name
        own = (single[name].double() - exact[name]).square().mean().sqrt()
        error = (feature.double() - exact[name]).square().mean().sqrt()
        assert 0 < own < 1e-3 * exact[name].std(), f"{name}: the reference itself is off by {own:.2e}"
        assert error <= ALLOWED * own, f"{name}: error {error:.2e}, the library's own {own:.2e}"
