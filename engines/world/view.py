"""What a render needs that stays: the scene, and a camera's rays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from engines.world import ground, sky
from engines.world.light import Lighting
from engines.world.raster import FAR_M, Chunks, Lens
from perception.messages import Camera, Float32, Image

_DETAIL: Final = 1.1  # ground texels per pixel at which a coarser level of the ground is taken


class Scene(NamedTuple):
    """What a render needs of a world that does not change."""

    ground: list[Image]
    standing: Chunks
    lighting: Lighting
    panorama: Float32
    wet: bool
    wetness: Float32


@dataclass(frozen=True, slots=True)
class Eye:
    """A camera's rays and whatever else follows from its mounting, worked out once.

    `rays` are planar (3, H, W), in the frame of the vehicle, for a depth of 1 m.
    """

    lens: Lens
    rays: Float32
    ground_depth: Float32
    bands: tuple[tuple[int, int, int], ...]
    """Rows from, to, and which level of the ground they are painted from."""
    sky_column: Float32
    sky_row: Float32
    sky_rows: int
    height_m: float


def prepare_lens(camera: Camera, oversample: int) -> Lens:
    """A camera's intrinsics, for so many samples along each side of a pixel."""
    k = camera.intrinsics * oversample
    return Lens(camera.width * oversample, camera.height * oversample, k[0, 0], k[0, 2], k[1, 2])


def prepare(camera: Camera, oversample: int) -> Eye:
    """Prepare a camera; with so many samples along each side of a pixel."""
    lens = prepare_lens(camera, oversample)
    v, u = np.mgrid[: lens.height, : lens.width] + 0.5
    optical = np.stack([(u - lens.cx) / lens.focal, (v - lens.cy) / lens.focal, np.ones_like(u)])
    rays = np.einsum("ij,jhw->ihw", camera.base_from_camera.rotation, optical)
    height = float(camera.base_from_camera.translation[2])
    with np.errstate(divide="ignore"):
        depth = np.where(rays[2] < 0, height / np.maximum(-rays[2], 1e-9), np.inf)
    depth = np.where(depth < FAR_M, depth, FAR_M * 2).astype(np.float32)
    row_depth = depth[:, lens.width // 2]
    bands = []
    start = int(np.argmax(row_depth < FAR_M))
    first = start
    # A pixel's footprint is long and narrow; the geometric mean of its sides decides the level.
    texels = row_depth / lens.focal * np.sqrt(row_depth / height) * ground.PX_PER_M
    levels = np.clip(np.round(np.log2(np.maximum(texels / _DETAIL, 1))), 0, ground.LEVELS - 1).astype(int)
    for row in range(start, lens.height + 1):
        if row == lens.height or levels[row] != levels[first]:
            bands.append((first, row, int(levels[first])))
            first = row
    column, sky_row = sky.coordinates(np.moveaxis(rays, 0, -1).astype(np.float32), 0.0)
    sky_rows = min(start + 2 * oversample, lens.height)
    return Eye(lens, rays.astype(np.float32), depth, tuple(bands), column, sky_row, sky_rows, height)
