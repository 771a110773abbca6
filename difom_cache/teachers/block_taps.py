"""Names of the taps of a vision transformer: `block11` is what leaves the block, `block11.keys` its keys.

Keys are what a block's attention compares queries with: the key projection of the tokens, all heads side by side, before
any relative or rotary position. Amir et al. 2021 (arXiv:2112.05814) found that keys of late blocks tell parts of objects
apart better than what leaves the block.
"""

from typing import Any

from difom_cache.teachers.base import NativeTap, TapRequest

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
