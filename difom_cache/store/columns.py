"""What an identity says about the arrays of its column, for writer and reader alike."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from difom_cache.codecs.base import Codec
from difom_cache.codecs.catalogue import build_codec
from difom_cache.codecs.compact import CompactBasis
from difom_cache.errors import CacheDamagedError, CodecError
from difom_cache.files import refuse_special
from difom_cache.store.identity import Identity
from difom_cache.store.layout import IDENTITY, NO_MASK, PICTURES, ArraySpec, Column, TapSpec, teacher_folder
from difom_cache.store.writer import write_constant

_IMAGE = {"long_name": "the view, RGB", "units": "grey level, 0 to 255"}
_MASK = {
    "long_name": "polyp of the view",
    "units": "1",
    "flag_values": [0, 1, NO_MASK],
    "flag_meanings": "none polyp record_without_mask",
}
_VALID = {
    "long_name": "where the view shows the frame",
    "units": "1",
    "flag_values": [0, 1],
    "flag_meanings": "outside inside",
}
_SCALE = {"long_name": "size of one step of the code, of a row and channel", "units": "feature units a step"}
BASIS = ("basis_mean", "basis", "basis_kept_variance")


def pictures_column(identity: Identity, rows: int) -> Column:
    """Return the column of stored views: RGB pictures, masks of 0 and 1 (255: the record has none), valid areas."""
    side = identity["picture_px"]
    arrays = [
        ArraySpec("image", (side, side, 3), "uint8", ("row", "y", "x", "rgb"), _IMAGE),
        ArraySpec("mask", (side, side), "uint8", ("row", "y", "x"), _MASK),
    ]
    if identity["pads"]:
        arrays.append(ArraySpec("valid", (side, side), "uint8", ("row", "y", "x"), _VALID))
    return Column(PICTURES, tuple(arrays), rows, identity["block_rows"], identity["compression"])


def teacher_column(identity: Identity, label: str, rows: int) -> Column:
    """Return the column of one teacher: a code for every tap, and its scale where the codec has one."""
    arrays = []
    for tap in identity["taps"]:
        shape = (tap["code_channels"], tap["grid"], tap["grid"])
        about = describe_code(tap)
        arrays.append(ArraySpec(f"{tap['name']}/code", shape, tap["code_dtype"], ("row", "channel", "y", "x"), about))
        if tap["has_scale"]:
            arrays.append(ArraySpec(f"{tap['name']}/scale", shape[:1], "float32", ("row", "channel"), _SCALE))
    return Column(teacher_folder(label), tuple(arrays), rows, identity["block_rows"], identity["compression"])


def describe_code(tap: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a tap's codes: what they are, in which unit, how they become the target, and where a cell lies."""
    unit = "log odds of polyp" if tap["kind"] == "logits" else "feature"
    codec = tap["codec"]["name"]
    decoded = {"float16": "code", "int8": "code * scale", "compact": "basis_mean + basis @ (code * scale)"}
    return {
        "long_name": f"{tap['kind']} of the teacher at {tap['name']}, as codes of {codec}",
        "units": unit if codec == "float16" else "steps of scale",
        "decoded": decoded[codec],
        "decoded_units": unit,
        "stride_px": tap["stride"],
    }


def describe_tap(spec: TapSpec, codec: Codec) -> dict[str, Any]:
    """Return the entry of one tap in its teacher's identity."""
    return {
        "name": spec.name.partition("/")[2],
        "kind": spec.kind,
        "channels": spec.channels,
        "grid": spec.grid,
        "stride": spec.stride,
        "codec": codec.identity(),
        "code_channels": codec.code_channels(spec.channels),
        "code_dtype": codec.code_dtype,
        "has_scale": codec.has_scale,
    }


def tap_specs(identity: Identity, label: str) -> dict[str, TapSpec]:
    """Return the taps that an identity lists, by full name."""
    specs = [
        TapSpec(f"{label}/{t['name']}", t["kind"], t["channels"], t["grid"], t["stride"], t["codec"]["name"])
        for t in identity["taps"]
    ]
    return {spec.name: spec for spec in specs}


def write_basis(folder: Path, basis: CompactBasis) -> CompactBasis:
    """Keep a compact codec's basis beside its tap; return the basis that lies there, ours or an earlier writer's."""
    write_constant(folder / "basis_mean", basis.mean, ("channel",))
    write_constant(folder / "basis", basis.directions, ("channel", "direction"))
    write_constant(folder / "basis_kept_variance", np.array([basis.kept_variance]), ("one",))
    return read_basis(folder)


def read_basis(folder: Path) -> CompactBasis:
    """Return the basis that lies beside a tap.

    Raises:
        CacheDamagedError: it cannot be read.
    """
    try:
        mean, directions, kept = (_read_constant(folder / name) for name in BASIS)
        return CompactBasis(mean.astype(np.float32), directions.astype(np.float32), float(kept[0]))
    except (OSError, ValueError, TypeError, LookupError, AttributeError, CodecError) as error:
        raise CacheDamagedError(f"the compact codec's basis in {folder} cannot be read: {error}") from None


def _read_constant(folder: Path) -> NDArray[Any]:
    for path in folder.iterdir():
        refuse_special(path)
    array = zarr.open_array(folder, mode="r")
    chunk = folder / ".".join(["c", *["0"] * array.ndim])
    if chunk.stat().st_size != array.nbytes:  # zarr would fill up what its metadata promises
        raise ValueError(f"{chunk} has {chunk.stat().st_size} bytes, its zarr.json says {array.nbytes}")
    return np.asarray(array[...])


def open_codec(cache: Path, label: str, tap: Mapping[str, Any]) -> Codec:
    """Return the codec of a tap as its identity describes it.

    Raises:
        CacheDamagedError: the stored basis is not the one that the identity names.
    """
    name = tap["codec"]["name"]
    if name != "compact":
        return _fitting(build_codec(name, tap["channels"]), cache, label, tap)
    folder = cache / teacher_folder(label) / tap["name"]
    basis = read_basis(folder)
    named = str(tap["codec"].get("basis"))
    if basis.digest != named:
        raise CacheDamagedError(
            f"the basis in {folder} has digest {basis.digest[:12]}..., the identity names {named[:12]}...; "
            f"restore it from a copy, or drop the teacher with `difom-cache drop {cache} --teacher {label}`"
        )
    return _fitting(build_codec("compact", tap["channels"], basis=basis), cache, label, tap)


def _fitting(codec: Codec, cache: Path, label: str, tap: Mapping[str, Any]) -> Codec:
    """Return a codec if it makes the codes that the tap's identity speaks of."""
    makes = (codec.code_channels(tap["channels"]), codec.code_dtype, codec.has_scale)
    says = (tap["code_channels"], tap["code_dtype"], tap["has_scale"])
    if makes != says:
        raise CacheDamagedError(
            f"{cache / teacher_folder(label) / IDENTITY}: tap {tap['name']} says (channels, type, scale) of its codes are "
            f"{says}, its codec {codec.identity()['name']} makes {makes}; restore it from a copy of the cache"
        )
    return codec
