"""Rigs from YAML: the cameras of drives that hold no calibration, such as videos and folders of images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import Field, model_validator

from perception.config import Positive, Section, Three, load_file
from perception.errors import DriveError
from perception.ingest.schemas import MAX_SIDE, distortion_of, rotation_of
from perception.messages import Camera, Float, Rig, Transform

_OPTICAL_AXES: Final = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
"""``body_from_optical``: a camera body looks along x with z up (REP-103), its optical frame along z with y down."""

_Side = Annotated[int, Field(gt=0, le=MAX_SIDE)]


class MountConfig(Section):
    """Where a camera is on the vehicle: its place, and either its heading or its optical frame's rotation."""

    translation_m: Three = Field(description="of the camera in base_link: x forward, y left, z up from the ground")
    yaw_deg: float = Field(0.0, description="of the camera's body about z: positive looks left")
    pitch_deg: float = Field(0.0, description="then about its y: positive looks down")
    roll_deg: float = Field(0.0, description="then about its x: positive leans right")
    rotation_xyzw: tuple[float, float, float, float] | None = Field(
        None, description="instead of the three angles: the quaternion that turns the optical frame into base_link"
    )

    @model_validator(mode="after")
    def _one_rotation(self) -> MountConfig:
        if self.rotation_xyzw is not None:
            if self.model_fields_set & {"yaw_deg", "pitch_deg", "roll_deg"}:
                raise ValueError("give either rotation_xyzw or yaw_deg, pitch_deg and roll_deg")
            rotation_of(self.rotation_xyzw)
        return self

    def base_from_camera(self) -> Transform:
        """The extrinsics."""
        if self.rotation_xyzw is not None:
            rotation = rotation_of(self.rotation_xyzw)
        else:
            rotation = _rotation(self.yaw_deg, self.pitch_deg, self.roll_deg) @ _OPTICAL_AXES
        return Transform(rotation, np.array(self.translation_m))


class CameraConfig(Section):
    """One camera; lengths in pixels."""

    width: _Side
    height: _Side
    fx: Positive
    fy: Positive
    cx: float
    cy: float
    distortion_model: Literal["none", "plumb_bob", "rational_polynomial", "kannala_brandt"] = "none"
    distortion: tuple[float, ...] = ()
    mount: MountConfig

    @model_validator(mode="after")
    def _known_distortion(self) -> CameraConfig:
        distortion_of(self.distortion_model, self.distortion)
        return self

    def to_camera(self, name: str) -> Camera:
        """As the pipeline knows it."""
        intrinsics = np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])
        model, coefficients = distortion_of(self.distortion_model, self.distortion)
        return Camera(name, self.width, self.height, intrinsics, self.mount.base_from_camera(), model, coefficients)


class RigConfig(Section):
    """The cameras of a vehicle by name, in the order in which they are shown."""

    cameras: Annotated[Mapping[str, CameraConfig], Field(min_length=1)]
    rate_hz: Annotated[Positive, Field(le=1000)] = Field(
        10.0, description="of a folder of images; recordings and videos have time stamps of their own"
    )

    def to_rig(self) -> Rig:
        """As the pipeline knows it."""
        return {name: camera.to_camera(name) for name, camera in self.cameras.items()}


def load_rig(path: Path) -> RigConfig:
    """Read a rig file; raises `ConfigError`."""
    return load_file(path, RigConfig)


def required_rig(drive: Path, path: Path | None) -> RigConfig:
    """Read the rig file of a drive that holds no calibration; raises `DriveError` where none is given."""
    if path is None:
        raise DriveError(
            f"{drive}: its cameras are not calibrated: a video or a folder of images holds no calibration; "
            "give a rig file with --rig (configs/rigs/front.yaml is an example)"
        )
    return load_rig(path)


def _rotation(yaw_deg: float, pitch_deg: float, roll_deg: float) -> Float:
    """Rz(yaw) Ry(pitch) Rx(roll): the fixed-axis roll, pitch, yaw of REP-103."""
    (cz, sz), (cy, sy), (cx, sx) = (
        (math.cos(math.radians(angle)), math.sin(math.radians(angle))) for angle in (yaw_deg, pitch_deg, roll_deg)
    )
    about_z = np.array([[cz, -sz, 0.0], [sz, cz, 0.0], [0.0, 0.0, 1.0]])
    about_y = np.array([[cy, 0.0, sy], [0.0, 1.0, 0.0], [-sy, 0.0, cy]])
    about_x = np.array([[1.0, 0.0, 0.0], [0.0, cx, -sx], [0.0, sx, cx]])
    rotation: Float = about_z @ about_y @ about_x
    return rotation
