"""What surfaces look like where they are not of one colour: the ground, walls with windows, leaves."""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.world import facade, ground
from engines.world.mesh import FACADE, LEAVES
from engines.world.raster import IndexArray, Lens, Surface
from engines.world.view import Eye, Scene
from perception.messages import Float32


def _to_linear() -> Float32:
    value = np.arange(256) / 255.0
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4).astype(np.float32)


_LINEAR: Final = _to_linear()
_GRAIN: Final = (1 + ground.noise_tile(np.random.Generator(np.random.PCG64(3)), ((1, 0.05), (2, 0.02)), 512)).astype(
    np.float32
)
_TEXELS, _STARTS = facade.atlas()
_CHANCE: Final = np.random.Generator(np.random.PCG64(4)).uniform(0, 1, (2, 1024)).astype(np.float32)
_LEAF_NOISE: Final = np.random.Generator(np.random.PCG64(5)).uniform(0.55, 1.3, 4096).astype(np.float32)


def paint_ground(albedo: Float32, scene: Scene, view: Eye, numbers: IndexArray, place: Float32) -> None:
    """The ground wherever no triangle shows: its painting, and close by a grain that the painting is too coarse for."""
    for start, end, level in view.bands:
        bare = numbers[start:end] == 0
        if not bare.any():
            continue
        scale = np.float32(ground.PX_PER_M / 2**level)
        columns, rows = place[0, start:end] * scale - np.float32(0.5), place[1, start:end] * scale - np.float32(0.5)
        texels = cv2.remap(scene.ground[level], columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        linear = cv2.split(cv2.LUT(texels, _LINEAR))
        if level == 0:
            zoom = np.float32(3.7)
            fine = cv2.remap(_GRAIN, columns * zoom, rows * zoom, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
            linear = [plane * fine for plane in linear]
        for k in range(3):
            np.copyto(albedo[k, start:end], linear[k], where=bare)


def paint_facades(
    albedo: Float32, scene: Scene, seen: Surface, numbers: IndexArray, depth: Float32, place: Float32, lens: Lens
) -> tuple[IndexArray, Float32]:
    """Windows and doors on the walls; returns the pixels of walls and what light comes out of their windows (3, n)."""
    lamp = scene.lighting.light
    is_facade = np.append(False, seen.kinds >= FACADE)
    pixels = np.flatnonzero(taken(is_facade, numbers))
    index = numbers.ravel()[pixels] - 1
    x, y, z = (plane.ravel()[pixels] for plane in place)
    t = [np.ascontiguousarray(row)[index] for row in seen.textures.T]
    column = x * t[0] + y * t[1] + t[2]
    storey = z * t[3] + t[4]
    cell_x, cell_y = np.floor(column), np.floor(storey)
    column -= cell_x
    storey -= cell_y
    per_pixel = depth.ravel()[pixels] * np.float32(facade.CELL_PX / 3.0 / lens.focal)  # texels per pixel
    level = np.log2(np.maximum(per_pixel, 1)) + np.float32(0.4)
    level = np.minimum(level, facade.LEVELS - 1).astype(np.int32)
    side = np.right_shift(np.int32(facade.CELL_PX), level)
    style = (seen.kinds - FACADE)[index]
    texel_x, texel_y = (column * side).astype(np.int32), (storey * side).astype(np.int32)
    at = _STARTS[style, level] + np.minimum(texel_y, side - 1) * side + np.minimum(texel_x, side - 1)
    wall, glass, frame = (row[at] for row in _TEXELS)
    cell = (cell_x.astype(np.int32) * 97 + cell_y.astype(np.int32) * 389 + style * 31) & 1023
    chance, second = _CHANCE[0][cell], _CHANCE[1][cell]
    # Glass mirrors the sky, less where curtains and blinds are drawn; brightest at the top of a pane.
    curtain = (chance > 0.68) * (0.10 + 0.25 * second)
    mirror = (0.35 + 0.65 * second) * (0.4 + 0.6 * storey)
    sky_tone = (
        np.array(lamp.horizon, np.float32)
        * 0.22
        / (np.array(lamp.sky, np.float32) + 0.5 * np.array(lamp.sun, np.float32) + 0.01)
    )
    bare = 1 - glass
    for k, plane in enumerate(albedo.reshape(3, -1)):
        painted = plane[pixels] * wall
        painted += frame * (np.float32(0.5) - painted)
        plane[pixels] = painted * bare + (np.float32(0.012) + curtain + mirror * sky_tone[k]) * glass
    if lamp.windows == 0:
        return pixels[:0], np.zeros((3, 0), np.float32)
    shop = style == facade.SHOP
    share = np.float32(0.42 if lamp.windows > 0.08 else 0.12)
    home = (chance < share) * (0.3 + 0.9 * second) * (0.75 + 0.5 * storey)
    # A shop is lit from its ceiling, and there are things in its window.
    shelf = (column * 9).astype(np.int32) * 53 + cell
    goods = 0.3 + 0.7 * (storey > 0.12 + 0.42 * _CHANCE[0][shelf & 1023])
    display = (second > 0.22) * (0.5 + 0.7 * chance) * goods * (0.5 + storey)
    glow = np.where(shop, display, home).astype(np.float32) * glass * np.float32(lamp.windows)
    blue, green = np.where(shop, 0.62, 0.36 + 0.3 * (second > 0.8)), np.where(shop, 0.85, 0.68)
    return pixels, np.stack([glow * blue, glow * green, glow]).astype(np.float32)


def paint_leaves(albedo: Float32, seen: Surface, numbers: IndexArray, place: Float32) -> None:
    """Light and dark leaves, in cells of 14 cm."""
    is_leaf = np.append(False, seen.kinds == LEAVES)
    pixels = np.flatnonzero(taken(is_leaf, numbers))
    if len(pixels) == 0:
        return
    x, y, z = (np.floor(plane.ravel()[pixels] * np.float32(7.0)).astype(np.int32) for plane in place)
    grain = _LEAF_NOISE[(x * 73 + y * 179 + z * 283) & 4095]
    for plane in albedo.reshape(3, -1):
        plane[pixels] *= grain


def taken(row: NDArray[Any], numbers: IndexArray) -> NDArray[Any]:
    """``row[numbers]``, quicker; numbers are known to be in range."""
    out = np.empty(numbers.shape, row.dtype)
    return np.take(row, numbers, out=out, mode="clip")
