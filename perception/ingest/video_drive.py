"""A video file as a drive: one camera, calibrated by a rig file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame

from perception.errors import DriveError
from perception.faults import Faults
from perception.ingest.drive import Packet
from perception.ingest.rig import required_rig
from perception.messages import Truth

FORMATS: Final = "mov,mp4,matroska,webm,avi,mpegts"
_OPTIONS: Final = {"protocol_whitelist": "file", "format_whitelist": FORMATS, "max_pixels": str(2**26)}
"""Containers that hold pictures and their time stamps: a playlist could point elsewhere, and is not trusted."""


class VideoDrive:
    """Reads a video file; raises `DriveError` where it is not one, or does not suit the rig.

    Stamps count from 0. As pictures may lie in the file in another order than they are shown in (B-frames), they are
    decoded while reading; what is left for the tick is their conversion to BGR.
    """

    time_range_ns: tuple[int, int] | None

    def __init__(self, path: Path, rig_path: Path | None) -> None:
        self._path = path
        self._faults = Faults()
        with _open(path) as container:
            if not container.streams.video:
                raise DriveError(f"{path}: nothing to replay: the file has no video stream")
            stream = container.streams.video[0]
            size = (stream.width, stream.height)
            duration_us = container.duration
        self.rig = required_rig(path, rig_path).to_rig()
        if len(self.rig) != 1:
            raise DriveError(f"{path}: a video is one camera, the rig has {len(self.rig)}: {', '.join(self.rig)}")
        (camera,) = self.rig.values()
        if size != (camera.width, camera.height):
            raise DriveError(
                f"{path}: the video is {size[0]}x{size[1]}, where the rig says {camera.width}x{camera.height} for "
                f"{camera.name}; calibrate for the size that was recorded"
            )
        self.time_range_ns = None if duration_us is None else (0, duration_us * 1000)

    def faults(self) -> Sequence[str]:
        """What was wrong with the data read so far, a line each, with the place."""
        return self._faults.lines()

    def packets(self) -> Iterator[Packet]:
        """Read and decode the video; see `Drive`."""
        (camera,) = self.rig
        first_ns: int | None = None
        stamp_ns = 0
        try:
            with _open(self._path) as container:
                for frame in container.decode(video=0):
                    shown_ns = _stamp_ns(frame)
                    if shown_ns is None:
                        self._faults.add(
                            ("stamp",), f"{self._path}: picture dropped after {stamp_ns} ns: no time stamp"
                        )
                        continue
                    first_ns = shown_ns if first_ns is None else first_ns
                    stamp_ns = shown_ns - first_ns
                    yield Packet(camera, stamp_ns, stamp_ns, "", b"", str(self._path), picture=frame)
        except (FFmpegError, OSError) as error:
            reason = error.strerror or type(error).__name__
            self._faults.once(f"{self._path}: damaged after {stamp_ns * 1e-9:.3f} s: {reason}; all before it was read")

    def truth(self) -> Iterator[Truth]:
        """Nothing: a video has no ground truth."""
        return iter(())


def open_video(path: Path) -> InputContainer:
    """Open a video file within bounds; raises what PyAV raises."""
    return av.open(str(path), container_options=_OPTIONS, options={"max_pixels": _OPTIONS["max_pixels"]})


def _open(path: Path) -> InputContainer:
    try:
        return open_video(path)
    except (FFmpegError, OSError) as error:
        raise DriveError(
            f"{path}: neither an MCAP recording nor a video ({FORMATS}): {error.strerror or type(error).__name__}"
        ) from None


def _stamp_ns(frame: VideoFrame) -> int | None:
    if frame.pts is None or frame.time_base is None:
        return None
    return round(frame.pts * frame.time_base * 1_000_000_000)
