"""How the image moves while the shutter is open."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from engines.world.raster import Lens
from perception.messages import Float, Float32, Image, Int32

_TAPS: Final = (-0.375, -0.125, 0.125, 0.375)
_LEAST_PX: Final = 1.5
_MOST_PX: Final = 40.0


def flow(lens: Lens, depth: Float32, owners: Int32, velocities: Float, yaw_rate: float) -> Float32:
    """The motion (2, H, W) of each pixel in pixels per second, right and down.

    `velocities` (N + 1, 2) are those of the scene, then of each owner, relative to the camera: along the optical x and
    z, in m/s. `yaw_rate` is the camera's own, in rad/s, about an axis that points up.
    (Longuet-Higgins and Prazdny 1980.)
    """
    height, width = depth.shape
    x = ((np.arange(width) + 0.5 - lens.cx) / lens.focal).astype(np.float32)
    y = ((np.arange(height) + 0.5 - lens.cy) / lens.focal).astype(np.float32)[:, None]
    along_x, along_z = velocities.astype(np.float32).T
    nearness = np.float32(lens.focal) / depth
    towards = along_z[owners] * nearness
    turn = np.float32(lens.focal * yaw_rate)
    return np.stack([along_x[owners] * nearness - x * towards + turn * (1 + x * x), turn * x * y - y * towards])


def blur(image: Image, moved: Float32) -> Image:
    """`image` (H, W, 3) uint8 averaged along what each pixel `moved` (2, H, W), in pixels."""
    if np.abs(moved).max() < _LEAST_PX:
        return image
    height, width = moved.shape[1:]
    moved = np.clip(moved, -_MOST_PX, _MOST_PX)
    columns = np.arange(width, dtype=np.float32)
    rows = np.arange(height, dtype=np.float32)[:, None]
    total = np.zeros(image.shape, np.uint16)
    for part in _TAPS:
        u, v = columns + np.float32(part) * moved[0], rows + np.float32(part) * moved[1]
        total += np.asarray(cv2.remap(image, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8)
    return (total // len(_TAPS)).astype(np.uint8)
