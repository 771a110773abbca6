"""Segment-anything's attention, fused: the library's sums without three passes over an array of logits.

The library adds decomposed relative positions to the attention logits, softmaxes them and multiplies: at 1024 px
that is 4096 x 4096 for each head. Here the positions become the additive mask of PyTorch's fused attention, for a few
heads at a time, so that the mask stays small. Source: segment_anything/modeling/image_encoder.py, `Attention` and
`add_decomposed_rel_pos`.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from segment_anything.modeling.image_encoder import Attention, ImageEncoderViT
from torch import Tensor, nn

# One head of 4096 tokens in float32 on the CPU: 0.88 s a block, against 1.29 s for all twelve heads at once and
# 1.71 s for the library (vit_b, batch 1, two cores of a Xeon VM). On CUDA the mask only has to fit.
MASK_BYTES = {"cpu": 64 << 20, "cuda": 1 << 30}


class FusedAttention(nn.Module):
    """The attention of one block, on the parameters of the library's own, under the same names."""

    def __init__(self, plain: Attention) -> None:
        super().__init__()
        self.num_heads = plain.num_heads
        self.qkv = plain.qkv
        self.proj = plain.proj
        self.rel_pos_h = plain.rel_pos_h
        self.rel_pos_w = plain.rel_pos_w

    def forward(self, x: Tensor) -> Tensor:
        """Return the attended tokens, (B, h, w, C) like `x`."""
        batch, height, width, channels = x.shape
        qkv = self.qkv(x).reshape(batch, height * width, 3, self.num_heads, -1)
        # n = B * heads; each of q, k, v is (1, n, h*w, C / heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).reshape(3, 1, batch * self.num_heads, height * width, -1).unbind(0)
        rows = relative_positions(height, self.rel_pos_h)  # (h, h, c): row of the query, row of the key
        columns = relative_positions(width, self.rel_pos_w)  # (w, w, c)
        mask_bytes = q.element_size() * (height * width) ** 2
        step = max(1, MASK_BYTES.get(x.device.type, 1 << 30) // mask_bytes)
        parts = [
            F.scaled_dot_product_attention(q, k, v, attn_mask=position_bias(q, rows, columns))
            for q, k, v in zip(*(each.split(step, dim=1) for each in (q, k, v)), strict=True)
        ]
        attended = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        attended = attended.reshape(batch, self.num_heads, height * width, -1).transpose(1, 2)
        return self.proj(attended.reshape(batch, height, width, channels))


def relative_positions(size: int, table: Tensor) -> Tensor:
    """Return the embedding of each place relative to each other one, (size, size, c), of a table (2 n - 1, c).

    The library's `get_rel_pos`, whose indices lie on the host: a GPU would be waited for in every block.
    """
    longest = 2 * size - 1
    if len(table) != longest:
        resized = F.interpolate(table.T[None], size=longest, mode="linear")
        table = resized[0].T
    return table[_relative_places(size, table.device)]


@lru_cache(maxsize=64)
def _relative_places(size: int, device: torch.device) -> Tensor:
    places = torch.arange(size)
    return (places[:, None] - places[None, :] + size - 1).to(device)


def position_bias(q: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return what the relative positions add to the attention logits.

    Args:
        q: (1, n, h*w, c), not yet scaled.
        rows: (h, h, c), by row of the query and row of the key.
        columns: (w, w, c), likewise.

    Returns:
        (1, n, h*w, h*w) in the dtype of `q`.
    """
    _, heads, tokens, channels = q.shape
    grid = q.reshape(heads, len(rows), len(columns), channels)
    by_row = torch.einsum("nhwc,hkc->nhwk", grid, rows).to(q.dtype)
    by_column = torch.einsum("nhwc,wkc->nhwk", grid, columns).to(q.dtype)
    bias = by_row[..., :, None] + by_column[..., None, :]  # (n, h, w, h, w)
    return bias.reshape(1, heads, tokens, tokens)


def fuse_attention(encoder: ImageEncoderViT) -> ImageEncoderViT:
    """Put fused attention into every block of the library's encoder, and return the encoder."""
    for block in encoder.blocks:
        block.attn = FusedAttention(block.attn)
    return encoder
