"""The cameras and the LiDAR of the ego vehicle."""

from __future__ import annotations

from typing import Final

import numpy as np

from perception.geometry import rotation_about_z
from perception.messages import Camera, Rig, Transform

_OPTICAL: Final = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
"""``base_from_camera`` rotation of a camera that looks forward."""

_MOUNTS: Final = (
    # name, yaw in degrees (left positive), horizontal field of view in degrees, x, y, z in metres
    ("CAM_FRONT_LEFT", 55.0, 76.0, 1.45, 0.50, 1.55),
    ("CAM_FRONT", 0.0, 74.0, 1.65, 0.0, 1.52),
    ("CAM_FRONT_RIGHT", -55.0, 76.0, 1.45, -0.50, 1.55),
    ("CAM_BACK_LEFT", 112.0, 76.0, 0.85, 0.48, 1.58),
    ("CAM_BACK", 180.0, 100.0, 0.05, 0.0, 1.55),
    ("CAM_BACK_RIGHT", -112.0, 76.0, 0.85, -0.48, 1.58),
)
_HORIZON: Final = 0.42
"""Where the horizon lies in the image's height: the cameras look level, their sensors are shifted."""

BASE_FROM_LIDAR: Final = Transform(np.eye(3), np.array([0.95, 0.0, 1.88]))


def surround_rig(width: int = 640, height: int = 384) -> Rig:
    """Six overlapping pinhole cameras that see all round; lens distortion is taken to be removed already."""
    rig = {}
    for name, yaw, field_of_view, *place in _MOUNTS:
        focal = width / 2 / np.tan(np.deg2rad(field_of_view) / 2)
        intrinsics = np.array([[focal, 0.0, width / 2], [0.0, focal, height * _HORIZON], [0.0, 0.0, 1.0]])
        mount = Transform(rotation_about_z(np.deg2rad(yaw)) @ _OPTICAL, np.array(place))
        rig[name] = Camera(name, width, height, intrinsics, mount)
    return rig
