"""A spinning LiDAR: beams cast into the town.

A beam meets what a camera in its place would see in its direction, so the rasteriser finds all hits at once: four small
depth images, one for each side, read along the beams.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from engines.world import raster
from engines.world.raster import Chunks, Lens, Pose, Surface
from engines.world.rig import BASE_FROM_LIDAR
from perception.geometry import rotation_about_z
from perception.messages import Float, Float32

RANGE_M: Final = 80.0
_SIDE_PX: Final = 384
_RISE_PX: Final = 256
_OPTICAL: Final = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
_NOISE_M: Final = 0.02
_LOST: Final = 0.06
"""The share of echoes that do not come back."""


class Lidar:
    """`rings` beams from -24 to +4 degrees, `azimuths` times a turn."""

    def __init__(self, rings: int = 20, azimuths: int = 180) -> None:
        elevation = np.deg2rad(np.linspace(-24.0, 4.0, rings))
        azimuth = np.arange(azimuths) * 2 * np.pi / azimuths
        e, a = (grid.ravel() for grid in np.meshgrid(elevation, azimuth, indexing="ij"))
        self._beams = np.stack([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)], axis=1)
        focal = _SIDE_PX / 2
        self._lens = Lens(_SIDE_PX, _RISE_PX, focal, _SIDE_PX / 2, _RISE_PX / 2)
        self._side = np.round(a / (np.pi / 2)).astype(int) % 4

    def sweep(
        self, base_pose: tuple[float, float, float], standing: Chunks, moving: Surface, rng: np.random.Generator
    ) -> Float32:
        """Points (n, 3) in the sensor's frame; the vehicle is at x, y, heading."""
        points: list[Float] = []
        for side in range(4):
            beams = self._beams[self._side == side]
            ranges = self._ranges(base_pose, side, beams, standing, moving)
            ranges = ranges + rng.normal(0, _NOISE_M, len(ranges))
            back = (ranges < RANGE_M) & (ranges > 1.0) & (rng.random(len(ranges)) > _LOST)
            points.append(beams[back] * ranges[back, None])
        return np.concatenate(points).astype(np.float32)

    def _ranges(
        self, base_pose: tuple[float, float, float], side: int, beams: Float, standing: Chunks, moving: Surface
    ) -> Float:
        x, y, heading = base_pose
        sensor = rotation_about_z(side * np.pi / 2) @ _OPTICAL
        turn = rotation_about_z(heading)
        place = turn @ BASE_FROM_LIDAR.translation + np.array([x, y, 0.0])
        pose = Pose(turn @ sensor, place)
        lens = self._lens
        seen = raster.concatenate(
            [standing.surface.chosen(standing.facing(pose, lens, RANGE_M)), moving.chosen(raster.towards(moving, pose))]
        )
        corners = raster.in_camera(seen.corners, pose)
        corners, _ = raster.clip_near(corners[raster.inside(corners, lens)])
        rows = (np.arange(lens.height) + 0.5 - lens.cy) / lens.focal
        ground = np.where(rows > 0, place[2] / np.maximum(rows, 1e-6), raster.FAR_M * 2)
        depth = np.repeat(np.minimum(ground, raster.FAR_M * 2)[:, None], lens.width, 1).astype(np.float32)
        numbers = raster.rasterise(corners, np.ones(len(corners), np.int32), lens, depth)[..., 0]
        optical = beams @ sensor
        u, v = (
            np.clip(lens.focal * optical[:, i] / optical[:, 2] + c, 0, n - 1).astype(int)
            for i, c, n in ((0, lens.cx, lens.width), (1, lens.cy, lens.height))
        )
        # Where a beam meets the ground is known exactly; a pixel's depth would put steps into it.
        exact = np.where(beams[:, 2] < -1e-6, -place[2] / np.minimum(beams[:, 2], -1e-6), np.inf)
        hit: Float = np.where(numbers[v, u] > 0, depth[v, u] / optical[:, 2], exact)
        return hit
