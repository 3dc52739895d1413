"""Cameras through PyAV: network cameras that speak RTSP, and video files that play as a camera would."""

from __future__ import annotations

import os
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import urlsplit

import av
from av.codec.context import Flags
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame

from perception.ingest.cameras.camera import CameraError, Shot
from perception.ingest.cameras.stream_time import StreamTime
from perception.ingest.decode import UndecodableError
from perception.ingest.video_drive import FORMATS, open_video

_MAX_BYTES: Final = 64 * 2**20
_LIMITS: Final = {"max_pixels": str(2**26)}
_RTSP_OPTIONS: Final = {
    "protocol_whitelist": "rtsp,rtp,udp,tcp,tls",
    "analyzeduration": "1000000",
    "probesize": "1000000",
    "fflags": "nobuffer",
}
_CONNECT_S: Final = 5.0
_WAIT_NS: Final = 200_000_000
_LATE_NS: Final = 50_000_000


class RtspDevice:
    """A network camera.

    What ``$NAME`` or ``${NAME}`` stands for in `url` is taken from the environment, so that no password need be in a
    config. Nothing for `timeout_s` ends the stream. Pictures are decoded as they come, as each may need the ones before
    it; but JPEGs are not, and keep their bytes. Their capture is when they were sent, as `StreamTime` tells.
    """

    def __init__(self, url: str, transport: Literal["tcp", "udp"], timeout_s: float) -> None:
        self._url = url
        self._transport = transport
        self._timeout_s = timeout_s

    def open(self) -> RtspStream:
        """Connect; raises `CameraError`, after five seconds at the latest."""
        url = os.path.expandvars(self._url)
        options = {**_RTSP_OPTIONS, "rtsp_transport": self._transport}
        began = time.monotonic()
        try:
            container = av.open(url, format="rtsp", options=options, timeout=(_CONNECT_S, self._timeout_s))
        except (FFmpegError, OSError) as error:
            in_time = time.monotonic() - began < _CONNECT_S  # FFmpeg calls its being interrupted invalid data
            raise CameraError(f"{_host(url)}: {_reason(error) if in_time else 'no answer'}") from None
        return RtspStream(container)


class RtspStream:
    """A connection to a network camera. It owns `container`."""

    def __init__(self, container: InputContainer) -> None:
        self._video = _Video(container)
        self._time = StreamTime()

    def read(self) -> Shot:
        """The next picture, which is waited for until the connection times out; see `Stream`."""
        shown = self._video.next()
        if shown is None:
            raise CameraError("the other end closed the stream")
        stamp_ns = None if shown.stamp_ns is None else self._time.sent_ns(shown.stamp_ns, shown.arrival_ns)
        return Shot(shown.picture, stamp_ns, shown.arrival_ns)

    def close(self) -> None:
        """Disconnect."""
        self._video.close()


class FileDevice:
    """A video file that plays over and over, for trying a vehicle's configuration at a desk.

    It is as a broadcast that began at `began_ns` of the monotonic clock: whoever opens it sees what is on then, so that
    files which began together stay together.
    """

    def __init__(self, path: Path, began_ns: int) -> None:
        self._path = path
        self._began_ns = began_ns

    def open(self) -> FileStream:
        """Find the place in the file that is on now; raises `CameraError`."""
        try:
            container = open_video(self._path)
        except (FFmpegError, OSError) as error:
            raise CameraError(f"{self._path}: {_reason(error)}; expected a video file ({FORMATS})") from None
        if not container.duration:
            container.close()
            raise CameraError(f"{self._path}: the file does not tell how long it is; put the video into an MP4")
        return FileStream(container, container.duration * 1000, self._began_ns)


class FileStream:
    """A file that plays. It owns `container`."""

    def __init__(self, container: InputContainer, length_ns: int, began_ns: int) -> None:
        self._container = container
        self._video = _Video(container)
        self._length_ns = length_ns
        now_ns = time.monotonic_ns()
        at_ns = (now_ns - began_ns) % self._length_ns
        self._pass_ns = now_ns - at_ns - (container.start_time or 0) * 1000
        self._next: _Shown | None = None
        self._seek(at_ns)

    def read(self) -> Shot | None:
        """The next picture, when it is due; see `Stream`."""
        if self._next is None:
            self._next = self._video.next()
        if self._next is None:
            self._pass_ns += self._length_ns
            self._seek(0)
            return None
        due_ns = self._pass_ns + (self._next.stamp_ns or 0)
        wait_ns = due_ns - time.monotonic_ns()
        time.sleep(min(max(0, wait_ns), _WAIT_NS) * 1e-9)
        if wait_ns > _WAIT_NS:
            return None
        shown, self._next = self._next, None
        return None if wait_ns < -_LATE_NS else Shot(shown.picture, due_ns, time.monotonic_ns())

    def close(self) -> None:
        """Close the file."""
        self._video.close()

    def _seek(self, at_ns: int) -> None:
        """Go to the last key frame before."""
        try:
            self._container.seek(at_ns // 1000 + (self._container.start_time or 0))
        except FFmpegError as error:
            raise CameraError(_reason(error)) from None
        self._video.restart()


class _Shown(NamedTuple):
    """A picture as it is shown: JPEGs as they are, others decoded; the stream's stamp; when its packet arrived."""

    picture: bytes | VideoFrame
    stamp_ns: int | None
    arrival_ns: int


class _Video:
    """The first video stream of a container, a picture at a time."""

    def __init__(self, container: InputContainer) -> None:
        self._container = container
        if not container.streams.video:
            container.close()
            raise CameraError("it has no video stream")
        self._stream = container.streams.video[0]
        context = self._stream.codec_context
        context.thread_count = 1  # more would hold pictures back
        context.flags |= Flags.low_delay
        context.options = _LIMITS
        self._still = context.name == "mjpeg"
        self.restart()

    def restart(self) -> None:
        """Begin anew, at the place that was sought."""
        self._packets = self._container.demux(self._stream)
        self._shown: deque[_Shown] = deque()

    def next(self) -> _Shown | None:
        """The next picture; None at the end. Raises as `Stream.read`."""
        while not self._shown:
            try:
                packet = next(self._packets, None)
            except (FFmpegError, OSError) as error:
                raise CameraError(_reason(error)) from None
            if packet is None:
                return None
            self._take_in(packet, time.monotonic_ns())
        return self._shown.popleft()

    def close(self) -> None:
        with suppress(FFmpegError, OSError):
            self._container.close()

    def _take_in(self, packet: Packet[Any], arrival_ns: int) -> None:
        if packet.size > _MAX_BYTES:
            raise UndecodableError(f"{packet.size} bytes, at most {_MAX_BYTES} are decoded")
        if self._still:
            if packet.size:  # the last one, which asks a decoder for what it holds back, is empty
                self._shown.append(_Shown(bytes(packet), _stamp_ns(packet), arrival_ns))
            return
        try:
            self._shown.extend(_Shown(frame, _stamp_ns(frame), arrival_ns) for frame in packet.decode())
        except (FFmpegError, MemoryError):
            raise UndecodableError(f"the {self._stream.codec_context.name} packet does not decode") from None


def _stamp_ns(shown: Packet[Any] | VideoFrame) -> int | None:
    if shown.pts is None or shown.time_base is None:
        return None
    return round(shown.pts * shown.time_base * 1_000_000_000)


def _host(url: str) -> str:
    """What may be told of a URL that may have a password in it."""
    try:
        return urlsplit(url).hostname or "no host"
    except ValueError:
        return "no URL"


def _reason(error: Exception) -> str:
    """In a few words, and without the URL that FFmpeg's own message repeats."""
    if isinstance(error, av.error.ExitError):
        return "nothing came in time"
    return getattr(error, "strerror", None) or type(error).__name__
