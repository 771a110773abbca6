"""Features as IEEE half precision: the plainest code, for logits and for checking the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from difom_cache.base.errors import CodecError
from difom_cache.codecs.base import ArrayOrTensor, UncodableFeatureError, first_not_finite

if TYPE_CHECKING:
    from torch import Tensor

LARGEST = 65504.0


class Float16Codec:
    """Codes are the features rounded to half precision.

    Error: at most |x| * 2**-11 where |x| >= 2**-14, at most 2**-25 below; nothing overflows silently.
    """

    name = "float16"
    code_dtype = "float16"
    has_scale = False
    code_units = ""
    decoded = "code"

    def code_channels(self, channels: int) -> int:
        """Return `channels`."""
        return channels

    def scale_channels(self, channels: int) -> int:
        """Return 0: there is no scale."""
        return 0

    def encode(self, feature: Tensor, *, check: bool = True) -> tuple[Tensor, None]:
        """Return the feature in half precision (`Codec.encode`)."""
        code = feature.half()
        if check:
            self.check_code(code, None)
        return code, None

    def check_code(self, code: Any, scale: Any) -> None:
        """Refuse a code with NaN or infinity: the feature had one, or a value that rounds beyond 65504."""
        place = first_not_finite(code)
        if place is not None:
            problem = (
                f"float16 holds finite values up to {LARGEST:.0f}, the feature has NaN or a larger one; use codec int8"
            )
            raise UncodableFeatureError(*place, problem)

    def decode(self, code: ArrayOrTensor, scale: Any) -> ArrayOrTensor:
        """Return `code` in single precision, exactly (`Codec.decode`)."""
        if scale is not None:
            raise CodecError(f"codec float16 has no scale, found one of shape {tuple(scale.shape)}")
        return code.astype(np.float32) if isinstance(code, np.ndarray) else code.float()

    def identity(self) -> dict[str, Any]:
        """Return the name: nothing else decides the bytes."""
        return {"name": self.name}
