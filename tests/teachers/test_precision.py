"""Float32 is float32: the flags, as far as they can be seen without the hardware that would round."""

import dataclasses

import pytest
import torch
from torch import nn

from difom_cache import build_teacher
from difom_cache.teachers import PLACES, SWITCHES, NetworkTeacher, compute_in


def read_flags() -> list[str]:
    return [place.fp32_precision for place in PLACES]


@pytest.fixture
def tf32_allowed():
    """Let the user's flags allow rounding everywhere, as `set_float32_matmul_precision` and scripts of today do."""
    flags, switches = read_flags(), [read() for read, _, _ in SWITCHES]
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.allow_tf32 = True
    yield read_flags()
    for (_, write, _), held in zip(SWITCHES, switches, strict=True):
        write(held)
    for place, flag in zip(PLACES, flags, strict=True):
        place.fp32_precision = flag


class Spy(nn.Module):
    """A network that notes the flags it runs under."""

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        self.flags = read_flags()
        self.old = (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)
        return {"block3": pixels, "block1": pixels}


def spy(precision: str) -> NetworkTeacher:
    spec = build_teacher("dinov2:tiny@28", weights="random", picture_px=32).spec
    return NetworkTeacher(dataclasses.replace(spec, precision=precision), Spy())


def test_a_teacher_in_float32_rounds_no_product_whatever_the_users_flags(tf32_allowed):
    teacher = spy("float32")
    teacher.features(torch.zeros(1, 3, 28, 28))
    assert teacher.network.flags == ["ieee"] * len(PLACES)
    assert teacher.network.old == (False, False)  # what the compiler and older code look at says the same
    assert read_flags() == tf32_allowed
    assert torch.backends.cudnn.allow_tf32 and torch.get_float32_matmul_precision() == "medium"


def test_a_teacher_in_bfloat16_leaves_the_flags_alone(tf32_allowed):
    teacher = spy("bfloat16")
    teacher.features(torch.zeros(1, 3, 28, 28))
    assert teacher.network.flags == tf32_allowed


def test_flags_come_back_after_a_failure(tf32_allowed):
    with pytest.raises(ZeroDivisionError), compute_in("float32"):
        raise ZeroDivisionError
    assert read_flags() == tf32_allowed


def test_flags_that_contradict_the_older_switch_come_back_too(tf32_allowed):
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # from here on PyTorch refuses to read cudnn.allow_tf32
    before = read_flags()
    with compute_in("float32"):
        assert read_flags() == ["ieee"] * len(PLACES)
    assert read_flags() == before


@pytest.mark.gpu
def test_a_convolution_on_cuda_is_as_exact_as_float32():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 64, 64, 64, generator=generator)
    kernel = torch.randn(64, 64, 3, 3, generator=generator)
    exact = nn.functional.conv2d(x.double(), kernel.double())
    with compute_in("float32"):
        found = nn.functional.conv2d(x.cuda(), kernel.cuda()).cpu()
    assert (found - exact).norm() / exact.norm() < 1e-6  # TF32 keeps 10 bits of mantissa: about 2^-11
