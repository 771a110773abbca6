"""The only randomness of stage one: view params drawn for one record and one view number."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from difom_cache.base.errors import SettingsError, name_nearest
from difom_cache.views.many_generators import WORDS, draw_uniform
from difom_cache.views.params import COLUMNS, ViewParams


@dataclass(frozen=True)
class ViewPolicy:
    """How far views may go from the plain picture. Every field at its default draws plain views."""

    flips: bool = False
    """Mirror left-right and top-bottom, each for half of the views."""
    quarter_turns: bool = False
    """Turn by 0, 90, 180 or 270 degrees, each for a quarter of the views."""
    smallest_keep_frac: float = 1.0
    """The smallest share of the frame's area that a view may show, before rotation cuts corners off a whole frame."""
    largest_aspect: float = 1.0
    """The largest factor by which a crop's height : width may differ from the frame's, either way."""
    rotate_frac: float = 0.0
    """The share of views that are rotated."""
    largest_angle_deg: float = 0.0
    """Rotated views turn by up to so many degrees either way."""
    pad: bool = False
    """Rotation keeps the scale and leaves corners without picture, instead of zooming in."""
    colour_permille: int = 0
    """Recorded brightness, contrast and saturation change by up to so many thousandths; hue by a tenth of that."""


_DEFAULT = ViewPolicy(
    flips=True,
    quarter_turns=True,
    smallest_keep_frac=0.6,
    largest_aspect=1.2,
    rotate_frac=0.5,
    largest_angle_deg=15.0,
)
POLICIES = {
    "default": _DEFAULT,
    "flips": ViewPolicy(flips=True),
    "pad": ViewPolicy(
        flips=True, quarter_turns=True, smallest_keep_frac=0.6, rotate_frac=0.75, largest_angle_deg=45.0, pad=True
    ),
    "colour": replace(_DEFAULT, colour_permille=200),
    "plain": ViewPolicy(),
}


def policy_named(name: str) -> ViewPolicy:
    """Return the policy of this name.

    Raises:
        SettingsError: there is none.
    """
    if name not in POLICIES:
        raise SettingsError(name_nearest("view policy", name, list(POLICIES)))
    return POLICIES[name]


_NUMBERS = 13  # drawn for each view, always all of them: no choice moves the numbers of another


def _key(seed: int, record_id: str, view: int) -> bytes:
    """Return the key of one view's own generator, so that no other record or view moves its numbers."""
    return hashlib.sha256(f"{seed}\n{view}\n{record_id}".encode()).digest()


def _generator(key: bytes) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(int.from_bytes(key, "big")))


def _draw_crop(policy: ViewPolicy, width: int, height: int, cut: float, u: np.ndarray) -> tuple[int, int, int, int]:
    """Return (top, left, height, width) in source px.

    Args:
        cut: the share of the crop that rotation will leave in sight, in (0, 1].
        u: four numbers in [0, 1): area, aspect, top, left.
    """
    keep = policy.smallest_keep_frac + (1 - policy.smallest_keep_frac) * u[0]
    keep = min(1.0, keep / cut)
    aspect = policy.largest_aspect ** (2 * u[1] - 1)
    # Rounded up, so that a small frame keeps its share as well.
    crop_height = min(height, math.ceil(height * math.sqrt(keep * aspect)))
    crop_width = min(width, math.ceil(width * math.sqrt(keep / aspect)))
    top = int(u[2] * (height - crop_height + 1))
    left = int(u[3] * (width - crop_width + 1))
    return top, left, crop_height, crop_width


def draw_params(policy: ViewPolicy, width: int, height: int, seed: int, record_id: str, view: int) -> ViewParams:
    """Return the numbers of one view; equal arguments give equal numbers. View 0 is the whole frame as it is.

    Args:
        policy: how far the view may go.
        width, height: of the record's picture, px.
        seed: of the plan.
        record_id: unique in the manifest.
        view: view number, from 0.
    """
    if view == 0:
        return ViewParams(0, 0, height, width)
    u = _generator(_key(seed, record_id, view)).random(_NUMBERS)
    angle_mdeg = 0
    if u[0] < policy.rotate_frac:
        angle_mdeg = round((2 * u[1] - 1) * policy.largest_angle_deg * 1000)
    angle = math.radians(angle_mdeg / 1000)
    cut = 1.0 if policy.pad else (math.cos(angle) + abs(math.sin(angle))) ** -2
    return ViewParams(
        *_draw_crop(policy, width, height, cut, u[2:6]),
        flip_h=int(policy.flips and u[6] < 0.5),
        flip_v=int(policy.flips and u[7] < 0.5),
        quarter_turns=int(4 * u[8]) if policy.quarter_turns else 0,
        angle_mdeg=angle_mdeg,
        pad=int(policy.pad),
        brightness_permille=round((2 * u[9] - 1) * policy.colour_permille),
        contrast_permille=round((2 * u[10] - 1) * policy.colour_permille),
        saturation_permille=round((2 * u[11] - 1) * policy.colour_permille),
        hue_permille=round((2 * u[12] - 1) * policy.colour_permille / 10),
    )


def draw_table(
    policy: ViewPolicy, sizes: NDArray[np.int64], seed: int, record_ids: Sequence[str], views: NDArray[np.int64]
) -> NDArray[np.int32]:
    """Return `draw_params(...).to_row()` of many views, (N, P): the same numbers, drawn together.

    Args:
        policy: how far views may go.
        sizes: (N, 2) width and height of each record's picture, px.
        seed: of the plan.
        record_ids: (N,) of the records.
        views: (N,) view numbers.
    """
    rows = np.zeros((len(views), len(COLUMNS)), np.int32)
    rows[:, COLUMNS.index("height")], rows[:, COLUMNS.index("width")] = sizes[:, 1], sizes[:, 0]
    drawn = np.flatnonzero(views)  # view 0 is the whole frame as it is
    for start in range(0, len(drawn), _TOGETHER):
        part = drawn[start : start + _TOGETHER]
        keys = [
            _key(seed, record_ids[row], view) for row, view in zip(part.tolist(), views[part].tolist(), strict=True)
        ]
        u = _draw_numbers(keys)
        width, height = sizes[part].T
        rows[part] = np.stack(_choose(policy, width, height, u), axis=1)
    return rows


_TOGETHER = 1 << 16


def _draw_numbers(keys: Sequence[bytes]) -> NDArray[np.float64]:
    words = np.frombuffer(b"".join(keys), ">u4").reshape(-1, WORDS)[:, ::-1].astype(np.uint32)
    u = draw_uniform(words, _NUMBERS)
    for row in np.flatnonzero(words[:, -1] == 0).tolist():  # one key in 2 ** 32 is shorter
        u[row] = _generator(keys[row]).random(_NUMBERS)
    return u


def _choose(
    policy: ViewPolicy, width: NDArray[np.int64], height: NDArray[np.int64], u: NDArray[np.float64]
) -> list[NDArray[np.int64]]:
    """Return the columns of `COLUMNS` for the numbers of many views (N, 13); to the bit what `draw_params` chooses."""

    def whole(values: NDArray[np.float64]) -> NDArray[np.int64]:
        return values.astype(np.int64)

    def rounded(values: NDArray[np.float64]) -> NDArray[np.int64]:
        return whole(np.rint(values))

    turned = u[:, 0] < policy.rotate_frac
    angle_mdeg = np.where(turned, rounded((2 * u[:, 1] - 1) * policy.largest_angle_deg * 1000), 0)
    cut = np.ones(len(u))
    if not policy.pad:
        # By Python's own functions: NumPy's vector forms of cos, sin and powers may differ in the last bit.
        kinds, place = np.unique(angle_mdeg, return_inverse=True)
        angles = [math.radians(each / 1000) for each in kinds.tolist()]
        cut = np.array([(math.cos(angle) + abs(math.sin(angle))) ** -2 for angle in angles])[place]
    keep = np.minimum(1.0, (policy.smallest_keep_frac + (1 - policy.smallest_keep_frac) * u[:, 2]) / cut)
    aspect = np.array([policy.largest_aspect**each for each in (2 * u[:, 3] - 1).tolist()])
    crop_height = np.minimum(height, whole(np.ceil(height * np.sqrt(keep * aspect))))
    crop_width = np.minimum(width, whole(np.ceil(width * np.sqrt(keep / aspect))))
    return [
        whole(u[:, 4] * (height - crop_height + 1)),
        whole(u[:, 5] * (width - crop_width + 1)),
        crop_height,
        crop_width,
        (policy.flips & (u[:, 6] < 0.5)).astype(np.int64),
        (policy.flips & (u[:, 7] < 0.5)).astype(np.int64),
        whole(4 * u[:, 8]) * policy.quarter_turns,
        angle_mdeg,
        np.full(len(u), int(policy.pad)),
        *(rounded((2 * u[:, 9 + each] - 1) * policy.colour_permille) for each in range(3)),
        rounded((2 * u[:, 12] - 1) * policy.colour_permille / 10),
    ]
