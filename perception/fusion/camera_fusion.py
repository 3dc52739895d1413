"""The fusion stage: the detections of all cameras to tracks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from perception.config import FusionConfig
from perception.fusion.lifting import Lifter
from perception.fusion.tracker import Tracker
from perception.geometry import IDENTITY
from perception.messages import Attributes, Detections, FrameSet, Rig, TrackSet


class CameraFusion:
    """Lifts each camera's detections at its own capture time and tracks them all together.

    Ego poses are used in the ticks in which every frame has one, and the frame set too.
    """

    def __init__(self, rig: Rig, config: FusionConfig) -> None:
        self._lifter = Lifter(rig, config)
        self._tracker = Tracker(config)
        self._warm_up(rig, Tracker(config))

    def update(self, frames: FrameSet, detections: Sequence[Detections]) -> TrackSet:
        """Advance to the frame set's stamp; a camera without detections in this tick is one that did not look."""
        poses = {frame.camera: frame.map_from_base for frame in frames.frames}
        map_from_base = frames.map_from_base
        if map_from_base is None or any(pose is None for pose in poses.values()):
            map_from_base, poses = None, dict.fromkeys(poses)
        measurements = self._lifter.lift(detections, [poses[found.camera] for found in detections])
        tracks = self._tracker.update(measurements, frames.stamp_ns, map_from_base)
        return TrackSet(frames.tick, frames.stamp_ns, frames.skew_ns, frames.missing, tracks, map_from_base)

    def _warm_up(self, rig: Rig, scratch: Tracker) -> None:
        """Make the first calls of everything, which take ten times as long as later ones, before the first tick."""
        score, label = np.ones(1, np.float32), np.zeros(1, np.int32)
        attributes = Attributes(
            centres=np.full((1, 2), 20, np.float32),
            depths_over_focal=np.full(1, 0.02, np.float32),
            depth_stds=np.full(1, 0.1, np.float32),
            sizes=np.ones((1, 3), np.float32),
            alphas=np.zeros(1, np.float32),
        )
        for stamp_ns in range(0, 500_000_000, 100_000_000):
            detections = [
                Detections(
                    camera.name,
                    stamp_ns,
                    np.array([[0.45, 0.55, 0.5, 0.65]], np.float32) * ((camera.width, camera.height) * 2),
                    score,
                    label,
                    attributes,
                )
                for camera in rig.values()
            ]
            scratch.update(self._lifter.lift(detections, [IDENTITY] * len(rig)), stamp_ns, IDENTITY)
