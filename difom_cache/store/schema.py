"""What stands in the JSON files of a cache, checked where it enters: types, ranges and names (FORMAT.md, section 6).

Keys that are not named here may be there; readers ignore them. Everything that becomes a file name is one plain name, so
that a cache from elsewhere cannot make a command read or write outside its folder.
"""

import json
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, TypeAdapter, ValidationError

from difom_cache.base.atomic import FileDigest
from difom_cache.base.errors import CacheFormatError, DifomError
from difom_cache.base.files import explain, read_plain
from difom_cache.store.layout import FORMAT_VERSION, canonical

_MOST_JSON_BYTES = 1 << 28
_MOST_ROWS = 2**31 - 1  # rows/record is int32
_MOST_PX = 1 << 16


def check_plain_name(name: str) -> str:
    """Return `name` if it can be nothing but the name of a file or folder in its place."""
    if not name or name[0] in ".-" or "/" in name or "\\" in name or not name.isprintable() or len(name.encode()) > 200:
        raise ValueError("expected one plain name, without / and not beginning with a dot or dash")
    return name


PlainName = Annotated[str, AfterValidator(check_plain_name)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]
Several = Annotated[int, Field(ge=1, le=_MOST_ROWS)]
Side = Annotated[int, Field(ge=1, le=_MOST_PX)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


RESTORE = "restore it from a copy of the cache"


class _Checked(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="allow", protected_namespaces=())


class Identity(_Checked):
    """What decides the content of a cache, or of one column in it; never changed once it lies there.

    Its fields are what this difom reads. Whatever else stood in the file, such as a key of a newer version, is kept: `to_dict`
    gives back what was read, to the last bit.
    """

    format: int
    _held: dict[str, Any] = PrivateAttr(default_factory=dict)

    @classmethod
    def from_dict(cls, value: dict[str, Any], where: str) -> Self:
        """Return the identity that was read from `where`.

        Raises:
            CacheFormatError: it is of another format version, or a value in it cannot be.
        """
        found = value.get("format")
        if found != FORMAT_VERSION:
            raise CacheFormatError(
                f"{where} is of format version {found}, this difom reads version {FORMAT_VERSION}; "
                "use the difom version that wrote it, or extract again into a new folder"
            )
        identity = check_model(value, cls, where, CacheFormatError, RESTORE)
        identity._held = value
        return identity

    @classmethod
    def build(cls, **values: Any) -> Self:
        """Return the identity of these values, in the format of this difom."""
        plain = json.loads(canonical({"format": FORMAT_VERSION, **values}))
        return cls.from_dict(plain, f"a new {cls.__name__}")

    def to_dict(self) -> dict[str, Any]:
        """Return what identity.json holds."""
        return deepcopy(self._held)

    def changed(self, **values: Any) -> Self:
        """Return an identity with other values."""
        return self.build(**(self._held | values))


class PlanHeld(_Checked):
    """How the views were drawn."""

    policy: str
    seed: int
    views: Several
    digest: Sha256
    params: Annotated[list[str], Field(min_length=1)]


class CacheIdentity(Identity):
    """identity.json of a cache."""

    replay: int
    picture_px: Side
    rows: Several
    records: Several
    records_sha256: Sha256
    plan: PlanHeld
    reading: Annotated[int, Field(ge=2)] | None = None


class ColumnIdentity(Identity):
    """What every column's identity.json holds."""

    block_rows: Several
    compression: Literal["none", "zstd"]
    libraries: dict[str, str]


class PicturesIdentity(ColumnIdentity):
    """pictures/identity.json."""

    picture_px: Side
    pads: bool


class CodecHeld(_Checked):
    """A tap's codec."""

    name: str
    basis: str | None = None
    directions: Side | None = None


class TapHeld(_Checked):
    """One tap of a teacher."""

    name: PlainName
    kind: Literal["feature", "logits"]
    channels: Side
    grid: Side
    stride: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    codec: CodecHeld
    code_channels: Side
    code_dtype: Literal["int8", "uint8", "float16", "float32"]
    has_scale: bool
    scale_channels: Side | None = None

    @property
    def scales(self) -> int:
        """Channels of its scale; 0 where the codec has none."""
        return (self.scale_channels or self.code_channels) if self.has_scale else 0


class BuiltTapHeld(_Checked):
    """A tap that a teacher was built with, of which a column may keep fewer."""

    name: str


class SpecHeld(_Checked):
    """The teacher itself, as far as readers look at it."""

    name: str
    variant: str
    input_px: Side
    weights_digest: str
    precision: str
    libraries: dict[str, str]
    weights: Literal["random"] | None = None
    taps: list[BuiltTapHeld] = Field(default_factory=list)
    options: dict[str, Any] = Field(default_factory=dict)


class OutputHeld(_Checked):
    """What an output of a network from elsewhere was read as."""

    values: Literal["logits", "prob", "prob255", "mask"]
    channel: Count | None
    by: Literal["graph", "frames", "FILE.json"]
    span: Annotated[list[Finite], Field(min_length=2, max_length=2)] | None
    frames: Count


def _check_distinct(taps: list[TapHeld]) -> list[TapHeld]:
    if len({tap.name for tap in taps}) < len(taps):
        raise ValueError("expected each tap once")
    return taps


class ReadHeld(_Checked):
    """A column that a probe has read."""

    digest: Sha256
    taps: Annotated[list[PlainName], Field(min_length=1)]


class ProbeHeld(_Checked):
    """What decides a probe's logits."""

    reads: Annotated[dict[PlainName, ReadHeld], Field(min_length=1)]
    masks: Several
    masks_sha256: Sha256
    labels: Annotated[float, Field(gt=0, le=1)]
    labels_seed: Count
    folds: Annotated[int, Field(ge=2, le=_MOST_ROWS)]
    head: str
    fit: dict[str, float]


class SeenMasks(_Checked):
    """masks.json of a teacher."""

    masks: list[Sha256]


class TeacherSource(_Checked):
    """source.json of a teacher: what built it.

    Attributes:
        teacher: "NAME[:VARIANT]@PX"; a file or run folder by its whole path.
        weights: as they were asked for: "hub", "random" or a whole path.
        found: where they were then found.
    """

    teacher: str
    weights: str
    found: str


class BackendHeld(_Checked):
    """What runs a teacher's network, where PyTorch does not."""

    name: str
    version: str


class TeacherIdentity(ColumnIdentity):
    """teachers/<label>/identity.json."""

    teacher: SpecHeld
    taps: Annotated[list[TapHeld], Field(min_length=1), AfterValidator(_check_distinct)]
    device: str
    backend: BackendHeld | None = None
    batch: Several
    threads: Several
    probe: ProbeHeld | None = None


class FidelitySums(_Checked):
    """What a tap's codec lost in a block; sums over positions."""

    positions: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    squared_error: Finite
    squares: Finite
    squares_about_mean: Finite
    cosine_distance: Finite
    histogram: dict[Annotated[str, Field(pattern="^([0-9]|[1-9][0-9]|1[0-5][0-9]|16[0-7])$")], Count]


class DoneMarker(_Checked):
    """ticks/<block>.json: one finished block, its rows, and what its files must then contain.

    `files` is keyed by the array's path in its column; `moments` is the digest of the block's statistics, None for
    pictures; `fidelity` holds mergeable sums for each tap (FORMAT.md, section 6).
    """

    model_config = ConfigDict(extra="forbid")

    block: Count
    start: Count
    stop: Count
    files: dict[str, FileDigest]
    moments: FileDigest | None
    fidelity: dict[str, FidelitySums]


DamagedHeld = dict[str, list[Count]]
IDENTITIES: dict[str, type[Identity]] = {
    "cache": CacheIdentity,
    "pictures": PicturesIdentity,
    "teacher": TeacherIdentity,
}
AnyModel = TypeVar("AnyModel", bound=BaseModel)


def read_checked(path: Path, schema: Any, error: type[DifomError], hint: str) -> Any:
    """Return the JSON value in the file `path`, which fits `schema`.

    Args:
        path: a plain file.
        schema: a model of this module, or any type that pydantic knows.
        error: raised where the file cannot be used; its message names the file, the key, what was expected and `hint`.
        hint: what to do.

    Raises:
        FileNotFoundError: there is no such file.
    """
    try:
        text = read_plain(path, most_bytes=_MOST_JSON_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as problem:
        raise error(f"{path} cannot be read: {explain(problem)}; {hint}") from None
    return check_value(parse_json(text, str(path), error, hint), schema, str(path), error, hint)


def read_model(path: Path, model: type[AnyModel], error: type[DifomError], hint: str) -> AnyModel:
    """Return the model that the file `path` holds; raises as `read_checked`."""
    return check_model(read_checked(path, Any, error, hint), model, str(path), error, hint)


def parse_json(text: bytes | str, where: str, error: type[DifomError], hint: str) -> Any:
    """Return the JSON value in `text`; `where` names it in the message of `error`."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as problem:
        raise error(f"{where} cannot be read as JSON ({problem}); {hint}") from None


def check_value(value: Any, schema: Any, where: str, error: type[DifomError], hint: str) -> Any:
    """Return `value` if it fits `schema`; `where` names it in the message of `error`."""
    try:
        TypeAdapter(schema).validate_python(value, strict=True)
    except ValidationError as problem:
        raise error(_explain(problem, where, hint)) from None
    return value


def check_model(value: Any, model: type[AnyModel], where: str, error: type[DifomError], hint: str) -> AnyModel:
    """Return `value` as a model if it fits; `where` names it in the message of `error`."""
    try:
        return model.model_validate(value, strict=True)
    except ValidationError as problem:
        raise error(_explain(problem, where, hint)) from None


def _explain(problem: ValidationError, where: str, hint: str) -> str:
    """Return one line on the first thing that does not fit."""
    first = problem.errors(include_url=False, include_context=False, include_input=False)[0]
    key = ".".join(map(str, first["loc"]))
    what = f"{key}: " if key else ""
    return f"{where} cannot be read: {what}{first['msg'].removeprefix('Value error, ')}; {hint}"


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")
