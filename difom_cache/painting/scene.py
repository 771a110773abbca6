"""The numbers of one painted frame, drawn in one place.

Lengths are in radii of the colon, angles in radians; the camera looks along +z from near the origin.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Range = tuple[float, float]


@dataclass(frozen=True)
class Style:
    """What a camera, its light and the patients before it have in common; pairs are ranges to draw from.

    Attributes:
        mucosa: RGB of the wall in white light, in [0, 1].
        tint: RGB gain of light and camera.
        exposure: brightness of the middle of the picture.
        field: tangent of half the field of view.
        barrel: lens distortion, 0 = none.
        frame: what the camera leaves black: "octagon", "circle", "corners" or "box".
        vessels: strength of the vessel pattern.
        residue: share of the wall under yellow residue.
        wet: strength of the highlights.
        polyp_px: polyp radius over half the picture's side.
        camouflage: 0 = a polyp of another colour, 1 = of the wall's.
        blur_px: standard deviation of the blur at 256 px.
        noise: standard deviation of the sensor's noise in grey levels.
        interlaced: every other line is from a moment later.
    """

    mucosa: tuple[float, float, float] = (0.86, 0.40, 0.30)
    tint: tuple[Range, Range, Range] = ((0.95, 1.06), (0.90, 1.08), (0.85, 1.05))
    exposure: Range = (0.48, 0.74)
    field: Range = (0.8, 1.05)
    barrel: Range = (0.0, 0.12)
    frame: tuple[str, ...] = ("octagon", "corners", "box")
    vessels: Range = (0.3, 1.0)
    residue: Range = (0.0, 0.12)
    wet: Range = (0.3, 1.0)
    polyp_px: Range = (0.13, 0.48)
    camouflage: Range = (0.0, 0.9)
    blur_px: Range = (0.3, 0.8)
    noise: Range = (1.0, 3.5)
    interlaced: bool = False


@dataclass(frozen=True)
class Tube:
    """The wall: a bent tube with three-lobed folds and bumps. Phases are angles."""

    bend: tuple[float, float]
    bend_rate: float
    bend_phase: tuple[float, float]
    fold_height: float
    fold_period: float
    fold_phase: float
    fold_tilt: tuple[float, float]
    lobe_phase: float
    bump: float
    bump_phase: tuple[float, float, float]


@dataclass(frozen=True)
class Camera:
    """Where the camera stands (x, y), how it is turned, and its lens."""

    offset: tuple[float, float]
    yaw: float
    pitch: float
    roll: float
    field: float
    barrel: float


@dataclass(frozen=True)
class Polyp:
    """A polyp to be set on the wall where the ray through `aim` (x, y in [-1, 1]) meets it.

    `radius` is relative to half the picture's side; `aspect` and `height` are the other half axes over the first.
    """

    aim: tuple[float, float]
    radius: float
    aspect: float
    height: float
    turn: float
    lump: float
    lump_phase: tuple[float, float, float]
    blend: float
    colour: tuple[float, float, float]
    pits: float


@dataclass(frozen=True)
class Look:
    """Everything about light and camera that does not change the geometry."""

    mucosa: tuple[float, float, float]
    tint: tuple[float, float, float]
    exposure: float
    vessels: float
    residue: float
    wet: float
    frame: str
    frame_centre: tuple[float, float]
    blur_px: float
    noise: float
    interlaced: bool
    texture: int
    texture_shift: tuple[float, float]
    noise_seed: int


@dataclass(frozen=True)
class Scene:
    """One frame, as numbers."""

    tube: Tube
    camera: Camera
    polyps: tuple[Polyp, ...]
    look: Look


def draw_scene(style: Style, rng: np.random.Generator, *, polyps: int) -> Scene:
    """Return the numbers of a frame in `style` with so many polyps."""
    tube, camera = _draw_tube(rng), _draw_camera(style, rng)
    look = _draw_look(style, rng)
    return Scene(tube, camera, tuple(_draw_polyp(style, rng) for _ in range(polyps)), look)


def _draw_tube(rng: np.random.Generator) -> Tube:
    return Tube(
        bend=_pair(rng, 0.25, 0.9),
        bend_rate=_between(rng, (0.35, 0.6)),
        bend_phase=_pair(rng, 0.0, 6.28),
        fold_height=_between(rng, (0.08, 0.42)),
        fold_period=_between(rng, (0.9, 1.9)),
        fold_phase=_between(rng, (0.0, 6.28)),
        fold_tilt=_pair(rng, -1.2, 1.2),
        lobe_phase=_between(rng, (0.0, 6.28)),
        bump=_between(rng, (0.02, 0.07)),
        bump_phase=(_between(rng, (0, 6.28)), _between(rng, (0, 6.28)), _between(rng, (0, 6.28))),
    )


def _draw_camera(style: Style, rng: np.random.Generator) -> Camera:
    away, angle = 0.5 * np.sqrt(rng.uniform()), rng.uniform(0, 2 * np.pi)
    # Endoscopists look for polyps at the wall: the lumen is often off centre.
    turn, turn_angle = rng.uniform(0.0, 0.8), rng.uniform(0, 2 * np.pi)
    return Camera(
        offset=(float(away * np.cos(angle)), float(away * np.sin(angle))),
        yaw=float(turn * np.cos(turn_angle)),
        pitch=float(turn * np.sin(turn_angle)),
        roll=_between(rng, (0.0, 6.28)),
        field=_between(rng, style.field),
        barrel=_between(rng, style.barrel),
    )


def _draw_polyp(style: Style, rng: np.random.Generator) -> Polyp:
    camouflage = _between(rng, style.camouflage)
    flat = rng.uniform() < 0.25 + 0.4 * camouflage
    reddish = np.array([1.12, 0.74, 0.72]) if rng.uniform() < 0.6 else np.array([1.12, 1.16, 1.08])
    colour = 1.0 + (1.0 - camouflage) * (reddish - 1.0) + rng.normal(0, 0.015, 3)
    return Polyp(
        aim=_pair(rng, -0.62, 0.62),
        radius=float(np.exp(rng.uniform(*np.log(style.polyp_px)))),
        aspect=_between(rng, (0.7, 1.0)),
        height=_between(rng, (0.4, 0.6) if flat else (0.75, 1.1)),
        turn=_between(rng, (0.0, 6.28)),
        lump=_between(rng, (0.03, 0.11)),
        lump_phase=(_between(rng, (0, 6.28)), _between(rng, (0, 6.28)), _between(rng, (0, 6.28))),
        blend=_between(rng, (0.2, 0.5) if flat else (0.1, 0.25)),
        colour=(float(colour[0]), float(colour[1]), float(colour[2])),
        pits=_between(rng, (0.05, 0.35)) * (1.0 - 0.6 * camouflage),
    )


def _draw_look(style: Style, rng: np.random.Generator) -> Look:
    mucosa: NDArray[np.float64] = np.array(style.mucosa) * rng.normal(1.0, [0.04, 0.07, 0.08])
    red, green, blue = (_between(rng, channel) for channel in style.tint)
    return Look(
        mucosa=(float(mucosa[0]), float(mucosa[1]), float(mucosa[2])),
        tint=(red, green, blue),
        exposure=_between(rng, style.exposure),
        vessels=_between(rng, style.vessels),
        residue=_between(rng, style.residue),
        wet=_between(rng, style.wet),
        frame=style.frame[int(rng.integers(len(style.frame)))],
        frame_centre=_pair(rng, -0.05, 0.05),
        blur_px=_between(rng, style.blur_px),
        noise=_between(rng, style.noise),
        interlaced=style.interlaced,
        texture=int(rng.integers(1 << 30)),
        texture_shift=_pair(rng, 0.0, 1.0),
        noise_seed=int(rng.integers(1 << 62)),
    )


def _between(rng: np.random.Generator, bounds: Range) -> float:
    return float(rng.uniform(*bounds))


def _pair(rng: np.random.Generator, low: float, high: float) -> tuple[float, float]:
    return float(rng.uniform(low, high)), float(rng.uniform(low, high))
