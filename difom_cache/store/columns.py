"""What an identity says about the arrays of its column, for writer and reader alike."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difom_cache.base import disk
from difom_cache.base.errors import CacheDamagedError, CacheFormatError, CodecError
from difom_cache.base.files import refuse_special
from difom_cache.codecs.base import Basis, Codec
from difom_cache.codecs.catalogue import BASES, CODECS, build_codec
from difom_cache.store.identity import read_identity
from difom_cache.store.layout import (
    IDENTITY,
    NO_MASK,
    PICTURES,
    ArraySpec,
    Column,
    TapSpec,
    flags,
    list_labels,
    teacher_folder,
)
from difom_cache.store.schema import PicturesIdentity, TapHeld, TeacherIdentity
from difom_cache.store.writer import write_constant

_IMAGE = {"long_name": "the view, RGB", "units": "grey level, 0 to 255"}
_MASK = flags("polyp of the view", none=0, polyp=1, record_without_mask=NO_MASK)
_VALID = flags("where the view shows the frame", outside=0, inside=1)
_SCALE = {"long_name": "size of one step of the code, of a row and channel", "units": "feature units a step"}
BASIS_ARRAYS = {
    "compact": ("basis_mean", "basis", "basis_kept_variance"),
    "packed": ("basis", "basis_step", "basis_bits", "basis_kept_variance"),
}
BASIS = tuple(dict.fromkeys(name for names in BASIS_ARRAYS.values() for name in names))


def pictures_column(identity: PicturesIdentity, rows: int) -> Column:
    """Return the column of stored views: RGB pictures, masks of 0 and 1 (255: the record has none), valid areas."""
    side = identity.picture_px
    arrays = [
        ArraySpec("image", (side, side, 3), "uint8", ("row", "y", "x", "rgb"), _IMAGE),
        ArraySpec("mask", (side, side), "uint8", ("row", "y", "x"), _MASK),
    ]
    if identity.pads:
        arrays.append(ArraySpec("valid", (side, side), "uint8", ("row", "y", "x"), _VALID))
    return Column(PICTURES, tuple(arrays), rows, identity.block_rows, identity.compression)


def list_columns(cache: Path, rows: int) -> Iterator[tuple[Path, Column | CacheFormatError]]:
    """Yield the folder of every column of a cache, and its column, or why its identity says none."""
    folders = [cache / PICTURES, *(cache / teacher_folder(label) for label in list_labels(cache))]
    for folder in filter(disk.is_folder, folders):
        try:
            if folder.name == PICTURES and folder.parent == cache:
                yield folder, pictures_column(read_identity(folder, PicturesIdentity), rows)
            else:
                yield folder, teacher_column(read_identity(folder, TeacherIdentity), folder.name, rows)
        except CacheFormatError as error:
            yield folder, error


def teacher_column(identity: TeacherIdentity, label: str, rows: int) -> Column:
    """Return the column of one teacher: a code for every tap, and its scale where the codec has one.

    Raises:
        CacheFormatError: a tap has a codec that this difom does not know.
    """
    _refuse_unknown(identity, label)
    arrays = []
    for tap in identity.taps:
        shape = (tap.code_channels, tap.grid, tap.grid)
        about = describe_code(tap)
        arrays.append(ArraySpec(f"{tap.name}/code", shape, tap.code_dtype, ("row", "channel", "y", "x"), about))
        if tap.has_scale:
            size = (tap.scales,)
            arrays.append(ArraySpec(f"{tap.name}/scale", size, "float32", ("row", "channel"), describe_scale(tap)))
    return Column(teacher_folder(label), tuple(arrays), rows, identity.block_rows, identity.compression)


def describe_code(tap: TapHeld) -> dict[str, Any]:
    """Return the attributes of a tap's codes: what they are, in which unit, how they become the target, and where a cell lies."""
    unit = "log odds of polyp" if tap.kind == "logits" else "feature"
    codec = CODECS[tap.codec.name]
    return {
        "long_name": f"{tap.kind} of the teacher at {tap.name}, as codes of {tap.codec.name}",
        "units": codec.code_units or unit,
        "decoded": codec.decoded,
        "decoded_units": unit,
        "stride_px": tap.stride,
    }


def describe_scale(tap: TapHeld) -> dict[str, Any]:
    """Return the attributes of a tap's scales."""
    if tap.codec.name != "packed":
        return _SCALE
    return {"long_name": "a row's mean of each channel, then the size of the rest", "units": "feature units"}


def describe_tap(spec: TapSpec, codec: Codec) -> dict[str, Any]:
    """Return the entry of one tap in its teacher's identity."""
    scales = codec.scale_channels(spec.channels)
    own = {"scale_channels": scales} if scales not in (0, codec.code_channels(spec.channels)) else {}
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
        **own,
    }


def tap_specs(identity: TeacherIdentity, label: str) -> dict[str, TapSpec]:
    """Return the taps that an identity lists, by full name.

    Raises:
        CacheFormatError: one has a codec that this difom does not know.
    """
    _refuse_unknown(identity, label)
    specs = [TapSpec(f"{label}/{t.name}", t.kind, t.channels, t.grid, t.stride, t.codec.name) for t in identity.taps]
    return {spec.name: spec for spec in specs}


def _refuse_unknown(identity: TeacherIdentity, label: str) -> None:
    for tap in identity.taps:
        if tap.codec.name not in CODECS:
            raise CacheFormatError(
                f"{label}/{tap.name} is stored in codec {tap.codec.name!r}, which this difom does not know "
                f"({', '.join(CODECS)}); read the cache with the difom version that wrote it"
            )


def write_basis(folder: Path, codec: str, basis: Basis) -> Basis:
    """Keep a codec's basis beside its tap; return the basis that lies there, ours or an earlier writer's."""
    for name, (values, dimensions) in basis.arrays().items():
        write_constant(folder / name, values, dimensions)
    return read_basis(folder, codec)


def read_basis(folder: Path, codec: str) -> Basis:
    """Return the basis of a codec that lies beside a tap.

    Raises:
        CacheDamagedError: it cannot be read.
    """
    try:
        found: Basis = BASES[codec].from_arrays({name: _read_constant(folder / name) for name in BASIS_ARRAYS[codec]})
        return found
    except (OSError, ValueError, TypeError, LookupError, AttributeError, CodecError) as error:
        if isinstance(error, OSError):
            disk.pass_on(error, folder)
        raise CacheDamagedError(f"the {codec} codec's basis in {folder} cannot be read: {error}") from None


def _read_constant(folder: Path) -> NDArray[Any]:
    for path in folder.iterdir():
        refuse_special(path)
    import zarr  # late, as in access.py

    array = zarr.open_array(folder, mode="r")
    chunk = folder / ".".join(["c", *["0"] * array.ndim])
    if chunk.stat().st_size != array.nbytes:  # zarr would fill up what its metadata promises
        raise ValueError(f"{chunk} has {chunk.stat().st_size} bytes, its zarr.json says {array.nbytes}")
    return np.asarray(array[...])


def open_codec(cache: Path, label: str, tap: TapHeld) -> Codec:
    """Return the codec of a tap as its identity describes it.

    Raises:
        CacheDamagedError: the stored basis is not the one that the identity names.
    """
    name = tap.codec.name
    if name not in BASES:
        return _fitting(build_codec(name, tap.channels), cache, label, tap)
    folder = cache / teacher_folder(label) / tap.name
    basis = read_basis(folder, name)
    named = str(tap.codec.basis)
    if basis.digest != named:
        raise CacheDamagedError(
            f"the basis in {folder} has digest {basis.digest[:12]}..., the identity names {named[:12]}...; "
            f"restore it from a copy, or drop the teacher with `difom-cache drop {cache} --teacher {label}`"
        )
    return _fitting(build_codec(name, tap.channels, basis=basis), cache, label, tap)


def _fitting(codec: Codec, cache: Path, label: str, tap: TapHeld) -> Codec:
    """Return a codec if it makes the codes that the tap's identity speaks of."""
    makes = (codec.code_channels(tap.channels), codec.code_dtype, codec.scale_channels(tap.channels))
    says = (tap.code_channels, tap.code_dtype, tap.scales)
    if makes != says:
        raise CacheDamagedError(
            f"{cache / teacher_folder(label) / IDENTITY}: tap {tap.name} says (channels, type, scales) of its codes are "
            f"{says}, its codec {codec.identity()['name']} makes {makes}; restore it from a copy of the cache"
        )
    return codec
