"""A drive: what a recording must give to be replayed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from av.video.frame import VideoFrame

from perception.messages import PointCloud, Rig, Transform, Truth


class Packet(NamedTuple):
    """One image as recorded, with what else was known when it was captured.

    `capture_ns` is the sensor's stamp and `log_ns` the recorder's, when the image arrived there. `format` is ``jpeg``,
    ``png``, or ``h264`` or ``h265`` for a picture of a stream, where order matters; a video file gives its `picture`
    decoded instead. `origin` is the topic or file, for fault lines. `map_from_base` is the ego pose at `capture_ns`,
    `point_cloud` the last sweep up to then.
    """

    camera: str
    capture_ns: int
    log_ns: int
    format: str
    data: bytes
    origin: str
    map_from_base: Transform | None = None
    point_cloud: PointCloud | None = None
    picture: VideoFrame | None = None


class Drive(Protocol):
    """A recording: images, calibration, poses, point clouds, and ground truth where known."""

    rig: Rig
    time_range_ns: tuple[int, int] | None
    """First and last `log_ns`, for a progress bar; None where only reading it all would tell."""

    def packets(self) -> Iterator[Packet]:
        """Read the images in the order of `log_ns`, as they are asked for; each call starts anew.

        Never raises for what is wrong with the data: it ends where the data ends, and `faults` says so.
        """

    def truth(self) -> Iterator[Truth]:
        """Read the ground truth in time order; nothing where the drive has none."""

    def faults(self) -> Sequence[str]:
        """What was wrong with the data read so far, a line each, with the place."""
