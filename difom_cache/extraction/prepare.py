"""What a run's columns are before any network is loaded: what they continue, what they hold, how large they become."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from difom_cache.base import disk
from difom_cache.base.errors import CacheIdentityError
from difom_cache.codecs.base import Basis
from difom_cache.codecs.catalogue import BASES, build_codec, refuse_compact, resolve_codec
from difom_cache.codecs.packed import PackedBasis
from difom_cache.data.record import Record
from difom_cache.extraction.begun import NETWORKS, OPENVINO, Begun, find_begun, held_identity, identify_teacher
from difom_cache.extraction.jobs import ViewJob
from difom_cache.extraction.requests import OldColumn, taps_of
from difom_cache.store.columns import describe_tap, pictures_column, read_basis, teacher_column, write_basis
from difom_cache.store.layout import PICTURES, Column, TapSpec, choose_block_rows
from difom_cache.store.ledger import read_markers
from difom_cache.store.schema import CacheIdentity, PicturesIdentity, TeacherIdentity
from difom_cache.store.writer import create_column
from difom_cache.teachers.base import TeacherRequest, TeacherSpec, describe_openvino, has_openvino
from difom_cache.teachers.catalogue import outline_teacher


@dataclass(frozen=True)
class ColumnWork:
    """A column ready for its blocks: where it lies, what it holds, and how a worker builds its teacher."""

    column: Column
    identity: PicturesIdentity | TeacherIdentity
    request: TeacherRequest | None


@dataclass(frozen=True)
class ColumnChoices:
    """What the user chose for a column; None leaves it to this file, or to the identity that is there already."""

    codec: str = "int8"
    batch: int | None = None
    old: OldColumn | None = None
    "A column of another cache that this one shall be mixed with."


def continue_column(
    cache: Path, request: TeacherRequest, records: Sequence[Record], rows: int
) -> tuple[TeacherRequest, str]:
    """Return a request with what its column was begun with, and a line that says which taps these are, or "".

    That is how the outputs of a network are read, and the taps, whatever a teacher's default taps have become since.

    Args:
        cache: the cache's folder.
        request: as the user asks.
        records: frames by which to tell what a network gives, where no column says it.
        rows: of the cache.

    Raises:
        TeacherError: it cannot be told what a network gives.
        CacheIdentityError: other taps or strides are asked for by name; or an unfinished column was begun before outputs
            were told, and took for logits what are none.
    """
    if request.name in NETWORKS and request.readings is None:
        from difom_cache.extraction.frames import settle_readings  # late: it may run the network

        begun = find_begun(cache, outline_teacher(request))
        request = replace(request, readings=settle_readings(cache, begun, request, records, rows))
    root = held_identity(cache, CacheIdentity)
    if root is None or root.picture_px != request.picture_px:
        return request, ""  # no cache, or another one, which is refused by its identity
    spec = outline_teacher(request)
    begun = find_begun(cache, spec)
    if begun.identity is None or not (held := begun.identity.teacher).taps:
        return request, ""
    names, asked = [tap.name for tap in held.taps], [tap.name for tap in spec.taps]
    network = (spec.name, spec.variant, spec.input_px, spec.weights_digest or held.weights_digest)
    if names == asked or network != (held.name, held.variant, held.input_px, held.weights_digest):
        return request, ""  # there is nothing to take, or it is another network, which is refused by its identity
    if request.taps is not None or request.strides is not None:
        raise CacheIdentityError(
            f"{begun.folder} holds the taps {', '.join(names)}, this run asks for {', '.join(asked)}; "
            "leave out --taps and --strides to continue it, or choose another --cache"
        )
    line = f"{begun.folder} is continued with the taps that it holds: {', '.join(names)}"
    return replace(request, taps=taps_of(held, str(begun.folder))), line


def prepare_pictures(
    cache: Path, *, picture_px: int, pads: bool, rows: int, dry: bool, public: bool = False
) -> ColumnWork:
    """Return the column of stored views, with its identity written unless `dry`.

    A column that is complete already is taken as it is, whatever library versions made it.
    """
    widest = picture_px * picture_px * 3
    held = held_identity(cache / PICTURES, PicturesIdentity)
    identity = PicturesIdentity.build(
        picture_px=picture_px,
        pads=pads,
        block_rows=held.block_rows if held else choose_block_rows(rows, widest, 1),
        compression="none",
        libraries=_render_libraries(),
    )
    if held is not None:
        there = pictures_column(held, rows)
        if len(read_markers(cache, there, skip_unreadable=True)) == there.blocks:
            identity = identity.changed(libraries=held.libraries)
    column = pictures_column(identity, rows)
    return ColumnWork(column, identity if dry else create_column(cache, column, identity, public=public), None)


@dataclass(frozen=True)
class Draft:
    """A teacher's column before anything is written: what is asked, what the teacher says, what is begun of it, its taps."""

    request: TeacherRequest
    choices: ColumnChoices
    spec: TeacherSpec
    begun: Begun
    taps: tuple[TapSpec, ...]

    @property
    def old(self) -> TeacherIdentity | None:
        """The identity that this one continues, or shall be mixed with."""
        return self.begun.identity or (self.choices.old.identity if self.choices.old else None)

    @property
    def batch(self) -> int | None:
        """The batch that is settled already, None where a trial finds it."""
        return self.choices.batch or (self.old.batch if self.old else None)

    def lacks(self, bases: Mapping[str, Basis]) -> list[TapSpec]:
        """Return the taps whose codec learns from features, and has not.

        Raises:
            SettingsError: one would be begun in a codec that is only finished.
        """
        new = [tap for tap in self.taps if tap.codec in BASES and tap.name not in bases]
        for tap in new:
            refuse_compact(tap.codec)
        return new

    def identify(self, bases: Mapping[str, Basis], rows: int, batch: int, threads: int) -> TeacherIdentity:
        """Return the identity of the column.

        Args:
            bases: of the taps whose codecs learn.
            rows: of the cache.
            batch: the teacher runs with.
            threads: PyTorch computes with on the CPU, where the column is new.
        """
        codecs = [build_codec(tap.codec, tap.channels, basis=bases.get(tap.name)) for tap in self.taps]
        widest = max(
            codec.code_channels(tap.channels) * tap.grid**2 * np.dtype(codec.code_dtype).itemsize
            for tap, codec in zip(self.taps, codecs, strict=True)
        )
        held, old = self.begun.identity, self.choices.old
        return TeacherIdentity.build(
            teacher=identify_teacher(self.spec, held),
            taps=[describe_tap(tap, codec) for tap, codec in zip(self.taps, codecs, strict=True)],
            block_rows=held.block_rows if held else choose_block_rows(rows, widest, batch),
            compression=old.identity.compression if old else "none",
            device=self.request.device.partition(":")[0],
            **({"backend": describe_openvino()} if self.request.backend == OPENVINO and has_openvino() else {}),
            batch=batch,
            threads=held.threads if held else threads,
            libraries=_render_libraries(),
        )


def draft_column(cache: Path, request: TeacherRequest, choices: ColumnChoices, spec: TeacherSpec) -> Draft:
    """Return the column of one teacher as far as its specification tells."""
    begun = find_begun(cache, spec, choices.old.folder.name if choices.old else None)
    return Draft(request, choices, spec, begun, tuple(describe_taps(spec, begun.label, request.picture_px, choices)))


def outline_column(
    cache: Path, request: TeacherRequest, choices: ColumnChoices, views: Sequence[ViewJob]
) -> ColumnWork:
    """Return the column of one teacher for a dry run: nothing is loaded, fitted or written; what is unknown has its size.

    Raises:
        SettingsError: a column would be begun in a codec that is only finished.
    """
    draft = draft_column(cache, request, choices, outline_teacher(request))
    bases = find_bases(draft.begun, choices.old, draft.taps, dry=True)
    bases |= {tap.name: PackedBasis.placeholder(tap.channels) for tap in draft.lacks(bases)}
    identity = draft.identify(bases, len(views), draft.batch or 1, threads=1)
    return ColumnWork(teacher_column(identity, draft.begun.label, len(views)), identity, request)


def describe_taps(spec: TeacherSpec, label: str, picture_px: int, choices: ColumnChoices) -> list[TapSpec]:
    """Return what a cache keeps of a teacher: logits always as float16, features in the codec that is chosen.

    Taps of `--like` keep the codecs that they have there.
    """
    there = {tap.name: tap.codec.name for tap in choices.old.identity.taps} if choices.old else {}
    specs = []
    for tap in spec.taps:
        native = spec.native[tap.native]
        usual = "float16" if native.kind == "logits" else resolve_codec(choices.codec, native.channels)
        codec = there.get(tap.name, usual)
        grid = tap.grid(picture_px)
        specs.append(TapSpec(f"{label}/{tap.name}", native.kind, native.channels, grid, tap.stride, codec))
    return specs


def find_bases(begun: Begun, old: OldColumn | None, specs: Sequence[TapSpec], *, dry: bool) -> dict[str, Basis]:
    """Return the basis of each tap whose codec has one and which lies there, or in the cache of `--like`."""
    found = {}
    for spec in specs:
        if spec.codec not in BASES:
            continue
        tap = spec.name.partition("/")[2]
        if begun.identity is not None and disk.is_there(begun.folder / tap / "basis"):
            found[spec.name] = read_basis(begun.folder / tap, spec.codec)
        elif old is not None:  # codes of two bases could not be mixed
            theirs = read_basis(old.folder / tap, spec.codec)
            found[spec.name] = theirs if dry else write_basis(begun.folder / tap, spec.codec, theirs)
    return found


def _render_libraries() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "kornia", "pillow")}
