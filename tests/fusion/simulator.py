"""A small world of upright boxes seen by cameras on a moving vehicle: exact in geometry, noisy in its detections."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from perception import geometry
from perception.config import FusionConfig
from perception.messages import CLASSES, Camera, Detections, Float, Frame, FrameSet, Int32, Rig, Span, Transform

CONFIG = FusionConfig()
NO_IMAGE = np.zeros((1, 1, 3), np.uint8)
DISTORTIONS = {
    "none": [],
    "plumb_bob": [-0.12, 0.02, 0.0005, -0.0005, 0.0],
    "rational_polynomial": [0.2, -0.05, 0.0005, -0.0003, 0.001, 0.5, -0.02, 0.002],
    "kannala_brandt": [-0.02, 0.004, -0.001, 0.0001],
}


def camera(
    name: str = "FRONT",
    yaw_deg: float = 0.0,
    model: str = "none",
    position: Sequence[float] = (1.5, 0.0, 1.5),
    pitch_deg: float = 0.0,
) -> Camera:
    """A camera of 75 degrees that looks to `yaw_deg`, and down by `pitch_deg`."""
    optical = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    pitch = np.radians(pitch_deg)
    down = np.array([[np.cos(pitch), 0, np.sin(pitch)], [0, 1, 0], [-np.sin(pitch), 0, np.cos(pitch)]])
    mounting = Transform(geometry.rotation_about_z(np.radians(yaw_deg)) @ down @ optical, np.array(position))
    intrinsics = np.array([[835.0, 0, 640], [0, 835, 360], [0, 0, 1]])
    return Camera(name, 1280, 720, intrinsics, mounting, model, np.array(DISTORTIONS[model]))


def surround(model: str = "none") -> Rig:
    """Six cameras, neighbours overlapping by 15 degrees."""
    yaws = {"FRONT": 0, "LEFT": 60, "REAR_LEFT": 120, "REAR": 180, "REAR_RIGHT": -120, "RIGHT": -60}
    return {name: camera(name, yaw, model, (1.0, 0.0, 1.5)) for name, yaw in yaws.items()}


def usual_size(label: int) -> Float:
    prior = getattr(CONFIG.sizes, CLASSES[label])
    return np.array([prior.length_m, prior.width_m, prior.height_m])


def box_of(taken_by: Camera, base_from_object: Transform, size: Float) -> Float | None:
    """The box (4,) of an upright object around its corners, cut to the image; None where it is out of view."""
    corners = geometry.box_corners(np.zeros(3), size, 0.0)
    in_camera = geometry.compose(geometry.inverse(taken_by.base_from_camera), base_from_object)
    pixels, depth = geometry.project(taken_by, geometry.apply(in_camera, corners))
    if (depth < 0.5).any():
        return None
    limits = np.array([taken_by.width, taken_by.height, taken_by.width, taken_by.height], dtype=np.float64)
    whole = np.concatenate([pixels.min(axis=0), pixels.max(axis=0)])
    cut = np.clip(whole, 0, limits)
    whole_area, area = np.prod(whole[2:] - whole[:2]), np.prod(cut[2:] - cut[:2])
    return cut if area > 0.3 * whole_area and (cut[2:] - cut[:2]).min() > 6 else None


def detections(name: str, boxes: Sequence[Float], labels: Sequence[int], capture_ns: int = 0) -> Detections:
    n = len(boxes)
    return Detections(
        name,
        capture_ns,
        np.array(boxes, np.float32).reshape(n, 4),
        np.full(n, 0.8, np.float32),
        np.array(labels, np.int32),
    )


@dataclass
class Thing:
    """An object on the ground of `map` that moves evenly, unless it stands; its size is the usual one."""

    label: int
    position: tuple[float, float]
    velocity: tuple[float, float] = (0.0, 0.0)
    hidden_s: tuple[float, float] = (0.0, 0.0)

    def pose(self, time_s: float) -> Transform:
        x, y = np.array(self.position) + np.array(self.velocity) * time_s
        yaw = float(np.arctan2(self.velocity[1], self.velocity[0]))
        return Transform(geometry.rotation_about_z(yaw), np.array([x, y, usual_size(self.label)[2] / 2]))


@dataclass
class World:
    """Things, and a vehicle that drives among them on a straight line or an arc."""

    things: list[Thing]
    rig: Rig = field(default_factory=surround)
    ego_speed_mps: float = 0.0
    ego_turn_radps: float = 1e-9
    skew_s: float = 0.0
    pixel_noise: float = 1.0
    miss: float = 0.0
    false_positives: float = 0.0
    has_poses: bool = True
    seed: int = 0

    def ego(self, time_s: float) -> Transform:
        angle = self.ego_turn_radps * time_s
        radius = self.ego_speed_mps / self.ego_turn_radps
        place = np.array([radius * np.sin(angle), radius * (1 - np.cos(angle)), 0.0])
        return Transform(geometry.rotation_about_z(angle), place)

    def ticks(self, duration_s: float, rate_hz: float = 10.0) -> Iterator[tuple[FrameSet, list[Detections]]]:
        rng = np.random.default_rng(self.seed)
        delays = dict(zip(self.rig, rng.permutation(np.linspace(0, self.skew_s, len(self.rig))), strict=True))
        for tick in range(round(duration_s * rate_hz)):
            frames, found = [], []
            for name in self.rig:
                time_s = tick / rate_hz + delays[name]
                capture_ns = round(time_s * 1e9)
                boxes, labels = self._see(self.rig[name], time_s, rng)
                found.append(detections(name, boxes, labels, capture_ns))
                pose = self.ego(time_s) if self.has_poses else None
                frames.append(Frame(name, NO_IMAGE, capture_ns, 0, Span(0, 0), pose))
            stamp_ns = max(frame.capture_ns for frame in frames)
            pose = self.ego(stamp_ns * 1e-9) if self.has_poses else None
            yield FrameSet(tick, stamp_ns, round(self.skew_s * 1e9), tuple(frames), (), pose), found

    def truth(self, stamp_ns: int) -> Float:
        """Centres (N, 3) in `base_link`."""
        base_from_map = geometry.inverse(self.ego(stamp_ns * 1e-9))
        return np.array([geometry.apply(base_from_map, t.pose(stamp_ns * 1e-9).translation) for t in self.things])

    def _see(self, taken_by: Camera, time_s: float, rng: np.random.Generator) -> tuple[list[Float], list[int]]:
        base_from_map = geometry.inverse(self.ego(time_s))
        boxes, labels = [], []
        for thing in self.things:
            box = box_of(taken_by, geometry.compose(base_from_map, thing.pose(time_s)), usual_size(thing.label))
            hidden = thing.hidden_s[0] <= time_s < thing.hidden_s[1]
            if box is None or hidden or rng.random() < self.miss:
                continue
            limits = (taken_by.width, taken_by.height) * 2
            boxes.append(np.clip(box + rng.normal(0, self.pixel_noise, 4), 0, limits))
            labels.append(thing.label)
        for _ in range(rng.poisson(self.false_positives)):
            corner, extent = rng.uniform((0, 300), (1200, 600)), rng.uniform(20, 80, 2)
            boxes.append(np.concatenate([corner, corner + extent]))
            labels.append(int(rng.integers(len(CLASSES))))
        return boxes, labels


def labels_of(*names: str) -> Int32:
    return np.array([CLASSES.index(name) for name in names], np.int32)
