"""Float32 that is float32: by PyTorch's flags, what goes into a product may be rounded; here they say that it is not.

cuDNN's convolutions round to 10 bits of mantissa unless they are told otherwise (TF32), and a user's
`torch.set_float32_matmul_precision` makes matrix products do the like, on the CPU too.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from operator import attrgetter
from typing import Any

import torch

from difom_cache.teachers.base import Precision

FLAGS = ("cudnn.conv", "cudnn.rnn", "cuda.matmul", "mkldnn.conv", "mkldnn.matmul")
PLACES: tuple[Any, ...] = attrgetter(*FLAGS)(torch.backends) if hasattr(torch.backends.cudnn, "conv") else ()
"""Where PyTorch, from 2.9 on, keeps a flag `fp32_precision`: "ieee", "tf32", "bf16", or "none" for the setting above it."""


SWITCHES: tuple[tuple[Callable[[], Any], Callable[[Any], None], Any], ...] = (
    (partial(getattr, torch.backends.cudnn, "allow_tf32"), partial(setattr, torch.backends.cudnn, "allow_tf32"), False),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest"),
)
"""The older way to say the same, and the only one before PyTorch 2.9: how to read it, how to set it, and what means float32.
PyTorch refuses to read a switch that the flags contradict, so the two are set together."""


@contextmanager
def compute_in(precision: Precision) -> Iterator[None]:
    """Compute products of float32 in float32 inside, and have the user's own flags back afterwards.

    Under bfloat16 the flags stay as they are: autocast rounds what goes into products to fewer bits than any of them.
    """
    if precision != "float32":
        yield
        return
    switches, flags = [_read(read) for read, _, _ in SWITCHES], [place.fp32_precision for place in PLACES]
    try:
        for _, write, exact in SWITCHES:
            write(exact)
        for place in PLACES:
            place.fp32_precision = "ieee"
        yield
    finally:
        for (_, write, _), held in zip(SWITCHES, switches, strict=True):
            if held is not None:
                write(held)
        for place, flag in zip(PLACES, flags, strict=True):
            place.fp32_precision = flag


def _read(switch: Callable[[], Any]) -> Any:
    try:
        return switch()
    except RuntimeError:  # the user's flags contradict it
        return None
