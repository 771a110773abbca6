"""The only randomness of stage one: view params drawn for one record and one view number."""

import hashlib
import math
from dataclasses import dataclass, replace

import numpy as np

from difom_cache.errors import SettingsError, name_nearest
from difom_cache.views.params import ViewParams


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


def _generator(seed: int, record_id: str, view: int) -> np.random.Generator:
    """Return a generator of its own for one view, so that no other record or view moves its numbers."""
    digest = hashlib.sha256(f"{seed}\n{view}\n{record_id}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))


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
    u = _generator(seed, record_id, view).random(13)  # always all of them: no choice moves the numbers of another
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
