"""Codecs by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from difom_cache.base.errors import CodecError, SettingsError, name_nearest
from difom_cache.base.text import name_some
from difom_cache.codecs.base import Codec
from difom_cache.codecs.compact import FEWEST_CHANNELS, CompactBasis, CompactCodec
from difom_cache.codecs.float16 import Float16Codec
from difom_cache.codecs.int8 import Int8Codec
from difom_cache.codecs.packed import PackedBasis, PackedCodec

CODECS: dict[str, type[Codec]] = {
    "float16": Float16Codec,
    "int8": Int8Codec,
    "compact": CompactCodec,
    "packed": PackedCodec,
}
"""Name to class; one that also stands in `BASES` is built from its basis."""

BASES: dict[str, Any] = {"compact": CompactBasis, "packed": PackedBasis}
"""What codecs have learnt of a tap before its first code."""


def resolve_codec(name: str, channels: int) -> str:
    """Return the codec that a tap of so many channels gets when `name` was asked for.

    Raises:
        SettingsError: there is no codec of this name.
    """
    if name not in CODECS:
        raise SettingsError(name_nearest("codec", name, list(CODECS)))
    return "int8" if name in BASES and channels < FEWEST_CHANNELS else name


def describe_fallback(asked: str, taps: Mapping[str, int]) -> str:
    """Return one line on the taps (name to channels) that get another codec than the one asked for; "" where none does."""
    others = [name for name, channels in taps.items() if resolve_codec(asked, channels) != asked]
    if not others:
        return ""
    return f"int8 in place of {asked} for taps of fewer than {FEWEST_CHANNELS} channels: {name_some(others)}"


def refuse_compact(codec: str | None) -> None:
    """Raise where a new column would be made in a codec that is only read and finished."""
    if codec == "compact":
        raise SettingsError(
            "--codec compact: packed keeps more of the features in fewer bytes; choose --codec packed. Columns that were "
            "begun in compact are still read and finished"
        )


def build_codec(name: str, channels: int, *, basis: Any = None) -> Codec:
    """Return the codec of a tap: one that has to be fitted becomes int8 for a tap of fewer than 128 channels (`resolve_codec`).

    Args:
        name: a name in `CODECS`.
        channels: the tap's feature channels.
        basis: the tap's principal directions, from `fit_packed` or from the cache; `compact` and `packed` need theirs.

    Raises:
        SettingsError: there is no codec of this name.
        CodecError: such a codec without a basis, or with one of another tap or codec.
    """
    resolved = resolve_codec(name, channels)
    if resolved not in BASES:
        return CODECS[resolved]()
    if basis is None:
        raise CodecError(
            f"codec {resolved} needs the principal directions of its tap of {channels} channels; fit them first"
        )
    if not isinstance(basis, BASES[resolved]):
        raise CodecError(f"codec {resolved} needs a basis of its own, found a {type(basis).__name__}")
    codec: Codec = CODECS[resolved](basis)  # type: ignore[call-arg]
    codec.code_channels(channels)
    return codec
