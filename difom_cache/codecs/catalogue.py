"""Codecs by name."""

from __future__ import annotations

from collections.abc import Mapping

from difom_cache.codecs.base import Codec
from difom_cache.codecs.compact import FEWEST_CHANNELS, CompactBasis, CompactCodec
from difom_cache.codecs.float16 import Float16Codec
from difom_cache.codecs.int8 import Int8Codec
from difom_cache.errors import CodecError, SettingsError, name_nearest
from difom_cache.text import name_some

CODECS = {"float16": Float16Codec, "int8": Int8Codec, "compact": CompactCodec}


def resolve_codec(name: str, channels: int) -> str:
    """Return the codec that a tap of so many channels gets when `name` was asked for.

    Raises:
        SettingsError: there is no codec of this name.
    """
    if name not in CODECS:
        raise SettingsError(name_nearest("codec", name, list(CODECS)))
    return "int8" if name == "compact" and channels < FEWEST_CHANNELS else name


def describe_fallback(asked: str, taps: Mapping[str, int]) -> str:
    """Return one line on the taps (name to channels) that get another codec than the one asked for; "" where none does."""
    others = [name for name, channels in taps.items() if resolve_codec(asked, channels) != asked]
    if not others:
        return ""
    return f"int8 in place of {asked} for taps of fewer than {FEWEST_CHANNELS} channels: {name_some(others)}"


def build_codec(name: str, channels: int, *, basis: CompactBasis | None = None) -> Codec:
    """Return the codec of a tap: `compact` becomes int8 for a tap of fewer than 128 channels (`resolve_codec`).

    Args:
        name: a name in `CODECS`.
        channels: the tap's feature channels.
        basis: the tap's principal directions, from `fit_compact` or from the cache; `compact` needs them.

    Raises:
        SettingsError: there is no codec of this name.
        CodecError: `compact` without a basis, or with one of another tap.
    """
    resolved = resolve_codec(name, channels)
    if resolved != "compact":
        return Float16Codec() if resolved == "float16" else Int8Codec()
    if basis is None:
        raise CodecError(
            f"codec compact needs the principal directions of its tap of {channels} channels; fit them first"
        )
    codec = CompactCodec(basis)
    codec.code_channels(channels)
    return codec
