"""Taps of a vision transformer: `block11` is what leaves the block, `block11.keys` its keys, laid out as a grid.

Keys are what a block's attention compares queries with: the key projection of the tokens, all heads side by side, before
any relative or rotary position. Amir et al. 2021 (arXiv:2112.05814) found that keys of late blocks tell parts of objects
apart better than what leaves the block.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from math import isqrt
from typing import Any

from torch import Tensor, nn

from difom_cache.teachers.base import NativeTap, TapRequest
from difom_cache.teachers.network import TapNetwork

KEYS = ".keys"


def block_number(tap: str) -> int:
    """Return 11 for "block11" and "block11.keys"."""
    return int(tap.removeprefix("block").removesuffix(KEYS))


def is_keys(tap: str) -> bool:
    """Return whether a tap is a block's keys."""
    return tap.endswith(KEYS)


def block_taps(depth: int, channels: int, patch_px: int) -> dict[str, NativeTap]:
    """Return the native taps of a transformer of `depth` blocks: all blocks, then the keys of all."""
    names = [f"block{i}{what}" for what in ("", KEYS) for i in range(depth)]
    return {name: NativeTap(name, channels, patch_px) for name in names}


def token_taps(config: Any) -> dict[str, NativeTap]:
    """Return the native taps of a plain transformer of transformers."""
    return block_taps(config.num_hidden_layers, config.hidden_size, config.patch_size)


def default_token_taps(config: Any) -> tuple[TapRequest, ...]:
    """Return the middle block at stride 16 and the last one at stride 32: the deeper, the coarser, as in students."""
    depth = config.num_hidden_layers
    return TapRequest(f"block{depth // 2 - 1}", 16), TapRequest(f"block{depth - 1}", 32)


class TokenTaps(TapNetwork):
    """A transformer read after chosen blocks: `block0` is the tokens after the first, `block0.keys` its keys.

    Args:
        model: runs `blocks` one after the other.
        blocks: the model's own list of blocks.
        norm: applied to the tokens of every tap; `nn.Identity()` for none.
        prefix_tokens: class and register tokens in front of the patches, which never enter the map.
        key_projection: gives that of a block; taps of keys go through no norm.
        call: further arguments of the model's forward.
    """

    def __init__(
        self,
        model: nn.Module,
        blocks: nn.ModuleList,
        norm: nn.Module,
        prefix_tokens: int,
        key_projection: Callable[[Any], nn.Module] = lambda block: block.attention.k_proj,
        call: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.blocks = blocks
        self.norm = norm
        self.prefix_tokens = prefix_tokens
        self.key_projection = key_projection
        self.call = dict(call or {})

    def keep(self, taps: tuple[str, ...]) -> None:
        """Give these taps from now on, and drop the blocks after the deepest."""
        super().keep(taps)
        deepest = max(block_number(tap) for tap in taps)
        del self.blocks[deepest + 1 :]

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return the map (B, C, h, w) of each kept tap, of normalised pixels (B, 3, S, S)."""
        tokens: dict[str, Tensor] = {}
        with ExitStack() as hooks:  # the model's own `hidden_states` would hold every block's tokens to the end
            for tap in self.taps:
                block = self.blocks[block_number(tap)]
                place = self.key_projection(block) if is_keys(tap) else block
                hooks.enter_context(place.register_forward_hook(partial(_hold, tokens, tap)))
            self.model(pixels, **self.call)
        return {tap: self._as_map(tokens[tap] if is_keys(tap) else self.norm(tokens[tap])) for tap in self.taps}

    def _as_map(self, tokens: Tensor) -> Tensor:
        patches = tokens[:, self.prefix_tokens :]  # (B, h*w, C)
        side = isqrt(int(patches.shape[1]))
        return patches.transpose(1, 2).unflatten(2, (side, side))  # (B, C, h, w)


def _hold(
    tokens: dict[str, Tensor], tap: str, place: nn.Module, given: Any, output: Tensor | tuple[Tensor, ...]
) -> None:
    """Put a module's output down under `tap` (a hook; some releases of transformers give a tuple)."""
    tokens[tap] = output[0] if isinstance(output, tuple) else output
