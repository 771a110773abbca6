"""A scene becomes a picture and its mask: colour, light, camera."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from difom_cache.painting.scene import Look, Scene
from difom_cache.painting.surface import Surface, trace
from difom_cache.painting.texture import Textures, look_up, look_up_nearest

Array = NDArray[np.float32]

_BLOOD = np.array([0.72, 0.34, 0.36], np.float32)  # what a vessel does to the wall's colour
_RESIDUE = np.array([0.78, 0.62, 0.22], np.float32)


def paint(scene: Scene, textures: Textures, side_px: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return a frame (H, W, 3) RGB and its mask (H, W) of 0 and 1, both side_px wide and high.

    The mask holds what the camera shows of the polyps: what the frame's black corners hide is no polyp.
    """
    coarse = max(16, side_px * 2 // 5)  # the surface is smooth; its detail comes from textures at full size
    surface = _enlarge(trace(scene, coarse), coarse, side_px)
    colour = _light(scene, surface, textures)
    visible = _frame(scene.look, side_px)
    picture = _develop(colour.reshape(3, side_px, side_px), scene.look, visible)
    owner = surface.polyp.max(axis=0) > 0 if len(surface.polyp) else np.zeros(side_px**2, bool)
    mask = owner.reshape(side_px, side_px) & (visible > 0.5)
    return picture, mask.astype(np.uint8)


def _enlarge(surface: Surface, coarse: int, side_px: int) -> Surface:
    def enlarge(values: Array) -> Array:
        planes = [Image.fromarray(plane) for plane in values.reshape(-1, coarse, coarse)]
        big = [np.asarray(plane.resize((side_px, side_px), Image.Resampling.BILINEAR)).ravel() for plane in planes]
        return np.array(big, np.float32).reshape(*values.shape[:-1], side_px**2)

    parts = (surface.point, surface.depth, surface.facing, surface.polyp, surface.angle)
    return Surface(*(enlarge(part) for part in parts))


def _light(scene: Scene, surface: Surface, textures: Textures) -> Array:
    """Return linear light (3, N) that comes back from the surface to the camera."""
    look = scene.look
    u = np.arctan2(surface.angle[1], surface.angle[0]) / 6.2832 + look.texture_shift[0]
    v = surface.point[2] / 6.2832 + look.texture_shift[1]
    vessel, patches = look_up(textures.skins[look.texture % len(textures.skins)], u, v)
    on_polyp = np.clip(surface.polyp * 60, 0, 1).max(axis=0, initial=0)
    # The tube's own coordinates are stretched on what stands out of it.
    fine_u = np.where(on_polyp > 0, (surface.point[0] + 0.4 * surface.point[2]) / 6.2832, u)
    fine_v = np.where(on_polyp > 0, (surface.point[1] + 0.4 * surface.point[2]) / 6.2832, v)
    relief = look_up_nearest(textures.relief, 2 * fine_u, 2 * fine_v)

    wall = np.array(look.mucosa, np.float32)[:, None] * (1 + 0.03 * patches + 0.02 * relief[0])
    wall = wall * (1 - look.vessels * vessel * (1 - on_polyp) * (1 - _BLOOD[:, None]))
    for stand_out, polyp in zip(surface.polyp, scene.polyps, strict=True):
        on = stand_out > 0
        here = np.clip(stand_out[on] * 60, 0, 1)
        grain = look_up_nearest(textures.relief, 4 * fine_u[on], 4 * fine_v[on])[0]
        pits = np.clip(grain - 0.6, 0, 1.5) * polyp.pits
        wall[:, on] *= 1 + here * (np.array(polyp.colour, np.float32)[:, None] * (1 - pits) - 1)
    if look.residue > 0.02:
        share = np.clip((patches + 0.3 * relief[0] - 2.8 + 11 * look.residue) * 1.2, 0, 0.65)
        wall = wall + share * (_RESIDUE[:, None] - wall)
    film = np.clip(patches - 0.2, 0, 1) * np.clip(1.3 - on_polyp, 0.6, 1)
    return _shade(wall, surface, look, relief[1:] * (0.3 + 0.7 * film))


def _shade(wall: Array, surface: Surface, look: Look, slope: Array) -> Array:
    """Return the wall's colour in the light of a lamp beside the lens, and its highlights.

    Args:
        wall: (3, N), colour in white light.
        slope: (2, N), steepness of the fine relief, standard deviation 1.
    """
    facing = surface.facing
    fall = 1 / (0.10 + surface.depth**2)
    soft = np.clip((facing + 0.3) / 1.3, 0.16, 1)  # light creeps around edges under a wet, translucent skin
    light = soft * fall
    light /= np.percentile(light, 66)
    light = light / (1 + 0.18 * light)
    # Wet mucosa glints where the film of mucus, uneven at a finer scale than the surface, faces the lamp.
    aslant = np.sqrt(np.clip(1 - facing * facing, 0, 1))
    gloss = np.clip(facing * (1 - 0.01 * slope[1] ** 2) + 0.13 * aslant * slope[0], 0, 1.01)
    shine = look.wet * (3.0 * gloss**190 + 0.10 * gloss**12) * np.clip(light, 0, 2)
    # Light that the walls throw at each other is red.
    glow = np.array([0.06, 0.018, 0.012], np.float32)[:, None] * np.clip(2.2 - 0.3 * surface.depth, 0.15, 2)
    return look.exposure * 2.2 * (wall * light + shine + glow)


def _frame(look: Look, side_px: int) -> Array:
    """Return how much of each pixel the camera's frame leaves open, (H, W) in [0, 1]."""
    across = (np.arange(side_px, dtype=np.float32) + 0.5) / side_px * 2 - 1
    x, y = np.meshgrid(across, across)
    sx, sy = np.abs(x - look.frame_centre[0]), np.abs(y - look.frame_centre[1])
    if look.frame == "circle":
        inside = 1.04 - np.sqrt(sx**2 + sy**2)
    elif look.frame == "octagon":
        inside = np.minimum(np.minimum(0.9 - sx, 0.9 - sy), (1.46 - sx - sy) / 1.414)
    else:
        inside = np.minimum(np.minimum(0.97 - sx, 0.97 - sy), (1.62 - sx - sy) / 1.414)
    if look.frame == "box":  # the little map of the scope's position, painted black as in published sets
        inside = np.minimum(inside, np.maximum(x + 0.42, 0.34 - y))
    return np.clip(inside * side_px / 4, 0, 1)


def _develop(light: Array, look: Look, visible: Array) -> NDArray[np.uint8]:
    """Return the camera's picture (H, W, 3) of linear light (3, H, W)."""
    rng = np.random.default_rng(look.noise_seed)
    side_px = light.shape[1]
    light = light * np.array(look.tint, np.float32)[:, None, None]
    sharp = 1 - np.exp(-light)  # a sensor that saturates gently
    spread = look.blur_px * side_px / 256
    picture = np.stack([ndimage.gaussian_filter(plane, spread) for plane in sharp])
    bloom = ndimage.gaussian_filter(np.clip(sharp.min(axis=0) - 0.75, 0, 1), side_px / 60)
    picture = np.clip(picture + 0.7 * bloom, 0, 1) ** (1 / 1.25)
    across = np.linspace(-1, 1, side_px, dtype=np.float32)
    picture *= 1 - 0.28 * np.clip((across[:, None] ** 2 + across**2) / 2, 0, 1) ** 1.5
    if look.interlaced:
        picture[:, 1::2] = np.roll(picture[:, 1::2], max(1, side_px // 128), axis=2)
    grain = rng.standard_normal(picture.shape, dtype=np.float32) * (look.noise / 255)
    picture = (picture + grain * (0.5 + 0.5 * picture)) * visible + 0.03 * (1 - visible)
    return np.ascontiguousarray((np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0))
