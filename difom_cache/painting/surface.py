"""What a camera inside a painted colon meets: points, normals and where the polyps are.

Sphere tracing (Hart 1996): step along each ray by the distance to the nearest surface.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from difom_cache.painting.scene import Camera, Polyp, Scene, Tube

Array = NDArray[np.float32]

_STEPS = 44
_CAUTION = 0.62  # the folds' distance is an estimate that may be too long; shorter steps do not pass through them
_FAR = 9.0  # beyond, no light comes back


@dataclass(frozen=True)
class Surface:
    """Seen from the camera, for N rays.

    Attributes:
        point: (3, N), where each ray ends.
        depth: (N,), along the ray.
        facing: (N,), cosine between the surface's normal and the way back to the camera.
        polyp: (K, N), positive on the K-th polyp, by how far it stands out of the rest.
        angle: (2, N), cosine and sine of the angle around the tube's axis.
    """

    point: Array
    depth: Array
    facing: Array
    polyp: Array
    angle: Array


@dataclass(frozen=True)
class _Placed:
    """A polyp on the wall: its centre, its axes as rows (3, 3), its half axes."""

    centre: Array
    axes: Array
    half_axes: Array
    polyp: Polyp


def trace(scene: Scene, side: int) -> Surface:
    """Return the surface that a side x side grid of rays meets, rows first."""
    across = ((np.arange(side) + 0.5) / side * 2 - 1).astype(np.float32)
    x, y = np.meshgrid(across, across)
    origin = np.array([*scene.camera.offset, 0.0], np.float32)
    placed = [_place(polyp, scene, origin) for polyp in scene.polyps]
    ray = _aim(scene.camera, x.ravel(), y.ravel())
    depth = _march(scene.tube, placed, origin, ray)
    point = origin[:, None] + depth * ray
    facing = -(_normal(scene.tube, placed, point) * ray).sum(axis=0)
    # Rays that graze an edge end beside the surface, on normals that mean nothing: single pixels.
    facing = ndimage.median_filter(facing.reshape(side, side), 3).ravel()
    wall, cosine, sine = _wall(scene.tube, point)
    polyp = np.stack([wall - _polyp(one, point) for one in placed]) if placed else np.zeros((0, depth.size), np.float32)
    return Surface(point, depth, facing, polyp, np.stack([cosine, sine]))


def _aim(camera: Camera, x: Array, y: Array) -> Array:
    """Return the unit rays (3, N) through picture places x, y in [-1, 1]."""
    stretch = camera.field * (1 + camera.barrel * (x * x + y * y))
    ray = np.stack([x * stretch, y * stretch, np.ones_like(x)])
    ray /= np.linalg.norm(ray, axis=0)
    return (_turn(camera) @ ray).astype(np.float32)


def _turn(camera: Camera) -> Array:
    (c1, s1), (c2, s2), (c3, s3) = ((np.cos(a), np.sin(a)) for a in (camera.roll, camera.pitch, camera.yaw))
    roll = np.array([[c1, -s1, 0], [s1, c1, 0], [0, 0, 1]])
    pitch = np.array([[1, 0, 0], [0, c2, -s2], [0, s2, c2]])
    yaw = np.array([[c3, 0, s3], [0, 1, 0], [-s3, 0, c3]])
    return (yaw @ pitch @ roll).astype(np.float32)


def _place(polyp: Polyp, scene: Scene, origin: Array) -> _Placed:
    """Return the polyp standing on the wall where its aim meets it, at most two and a half radii away."""
    aim = np.array(polyp.aim, np.float32)
    ladder: Array = np.linspace(1.0, 2.2, 9, dtype=np.float32)  # towards the rim of the picture the wall comes nearer
    places: Array = np.clip(aim[:, None] * ladder, -0.8, 0.8)
    ray = _aim(scene.camera, places[0], places[1])
    depths = _march(scene.tube, [], origin, ray)
    near = int(np.argmax(depths < 2.5)) if (depths < 2.5).any() else int(np.argmin(depths))
    point = origin[:, None] + depths[near] * ray[:, near : near + 1]
    normal = _normal(scene.tube, [], point)[:, 0]
    size = float(np.clip(polyp.radius * scene.camera.field * depths[near], 0.06, 0.55))
    first = np.cross(normal, [np.cos(polyp.turn), np.sin(polyp.turn), 0.37])
    first /= np.linalg.norm(first)
    axes = np.stack([first, np.cross(normal, first), normal]).astype(np.float32)
    half_axes = np.array([size, size * polyp.aspect, size * polyp.height], np.float32)
    centre = point[:, 0] + normal * half_axes[2] * 0.45
    return _Placed(centre.astype(np.float32), axes, half_axes, polyp)


def _march(tube: Tube, placed: list[_Placed], origin: Array, ray: Array) -> Array:
    depth = np.full(ray.shape[1], 0.02, np.float32)
    for _ in range(_STEPS):
        depth += _CAUTION * _distance(tube, placed, origin[:, None] + depth * ray)
        np.clip(depth, 0.02, _FAR, out=depth)
    return depth


def _normal(tube: Tube, placed: list[_Placed], point: Array) -> Array:
    here, step = _distance(tube, placed, point), np.float32(4e-3)
    normal = np.stack([_distance(tube, placed, point + step * axis[:, None]) - here for axis in np.eye(3, dtype="f4")])
    return normal / np.maximum(np.linalg.norm(normal, axis=0), 1e-6)


def _distance(tube: Tube, placed: list[_Placed], point: Array) -> Array:
    distance = _wall(tube, point)[0]
    for one in placed:
        # Polynomial smooth minimum (Quilez): the polyp rises out of the wall without a crease.
        width = np.float32(one.polyp.blend * one.half_axes[0])
        other = _polyp(one, point)
        mix = np.clip(0.5 + 0.5 * (distance - other) / width, 0, 1)
        distance = distance + mix * (other - distance) - width * mix * (1 - mix)
    return distance


def _wall(tube: Tube, point: Array) -> tuple[Array, Array, Array]:
    """Return the distance to the wall (N,) and cosine and sine of the angle around the tube's axis."""
    x, y, z = point
    start = (math.sin(tube.bend_phase[0]), math.sin(tube.bend_phase[1]))
    x = x - tube.bend[0] * (np.sin(tube.bend_rate * z + tube.bend_phase[0]) - start[0])
    y = y - tube.bend[1] * (np.sin(tube.bend_rate * z + tube.bend_phase[1]) - start[1])
    away = np.sqrt(x * x + y * y) + np.float32(1e-6)
    cosine, sine = x / away, y / away
    # Colonic folds are three-sided: cos 3a = cos a (4 cos^2 a - 3), sin 3a = sin a (3 - 4 sin^2 a).
    triple = cosine * (4 * cosine * cosine - 3), sine * (3 - 4 * sine * sine)
    lobe = math.cos(tube.lobe_phase) * triple[0] + math.sin(tube.lobe_phase) * triple[1]
    wave = np.cos(
        6.2832 / tube.fold_period * z + tube.fold_phase + tube.fold_tilt[0] * cosine + tube.fold_tilt[1] * sine
    )
    ridge = 0.5 + 0.5 * wave
    ridge = ridge * ridge
    ridge = ridge * ridge * ridge
    first, second, third = tube.bump_phase
    bumps = (
        np.sin(2.1 * z + 3 * cosine + first) + np.sin(3.7 * z + 4 * sine + second) + np.sin(5 * cosine * sine + third)
    )
    radius = 1 - tube.fold_height * ridge * (0.75 + 0.25 * lobe) - 0.06 * lobe - tube.bump * bumps
    return radius - away, cosine, sine


def _polyp(one: _Placed, point: Array) -> Array:
    """Return the distance to a lumpy ellipsoid (N,); an estimate, exact on its surface."""
    inside = (one.axes @ (point - one.centre[:, None])) / one.half_axes[:, None]
    a, b, c = one.polyp.lump_phase
    lumps = np.sin(4.1 * inside[0] + a) * np.sin(3.7 * inside[1] + b) + np.sin(3.1 * inside[2] + 2.3 * inside[0] + c)
    away = np.sqrt((inside * inside).sum(axis=0))
    return (away - 1 - one.polyp.lump * lumps) * one.half_axes.min()
