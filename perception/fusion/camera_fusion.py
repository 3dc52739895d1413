"""The fusion stage: the detections of all cameras to tracks."""

from __future__ import annotations

from collections.abc import Sequence

from perception.config import FusionConfig
from perception.fusion.lifting import Lifter
from perception.fusion.tracker import Tracker
from perception.messages import Detections, FrameSet, Rig, TrackSet


class CameraFusion:
    """Lifts each camera's detections at its own capture time and tracks them all together.

    Ego poses are used in the ticks in which every frame has one, and the frame set too.
    """

    def __init__(self, rig: Rig, config: FusionConfig) -> None:
        self._lifter = Lifter(rig, config)
        self._tracker = Tracker(config)

    def update(self, frames: FrameSet, detections: Sequence[Detections]) -> TrackSet:
        """Advance to the frame set's stamp; a camera without detections in this tick is one that did not look."""
        poses = {frame.camera: frame.map_from_base for frame in frames.frames}
        map_from_base = frames.map_from_base
        if map_from_base is None or any(pose is None for pose in poses.values()):
            map_from_base, poses = None, dict.fromkeys(poses)
        measurements = self._lifter.lift(detections, [poses[found.camera] for found in detections])
        tracks = self._tracker.update(measurements, frames.stamp_ns, map_from_base)
        return TrackSet(frames.tick, frames.stamp_ns, frames.skew_ns, frames.missing, tracks, map_from_base)
