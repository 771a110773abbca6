"""Logits at the network's size become a probability at the picture's."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional


@torch.inference_mode()
def prob_at_size(logits: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Return the probability at a picture's own size: logits resized bilinearly, then the sigmoid.

    Args:
        logits: (h, w).
        height: rows wanted.
        width: columns wanted.

    Returns:
        (height, width) in [0, 1].

    Source: DengPingFan/PraNet @ 160e495, MyTest.py.
    """
    grid = torch.from_numpy(np.ascontiguousarray(logits, dtype=np.float32))[None, None]
    sized = functional.interpolate(grid, (height, width), mode="bilinear", align_corners=False)
    return torch.sigmoid_(sized)[0, 0].numpy()
