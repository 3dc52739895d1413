"""Cameras of Linux's V4L2: buffers mapped from the driver, time stamps of the driver."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import select
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Literal, cast

from perception.ingest.cameras import v4l2_abi as abi
from perception.ingest.cameras.camera import CameraError, RawPicture, Shot
from perception.ingest.decode import UndecodableError

Format = Literal["mjpeg", "yuyv", "uyvy", "nv12"]

_PIXEL_FORMATS: Final = {
    "mjpeg": abi.V4L2_PIX_FMT_MJPEG,
    "yuyv": abi.V4L2_PIX_FMT_YUYV,
    "uyvy": abi.V4L2_PIX_FMT_UYVY,
    "nv12": abi.V4L2_PIX_FMT_NV12,
}
_BUFFERS: Final = 4
_MAX_BUFFER: Final = 64 * 2**20
_POLL_MS: Final = 200


class V4l2Device:
    """A capture device, such as ``/dev/video0`` or, always the same one, a link in ``/dev/v4l/by-path``.

    It is asked for pictures of `size` (width, height) in `pixel_format`, and refused where it gives others; `fps` is
    asked for too, and what the driver makes of that is its own business.
    """

    def __init__(self, path: Path, pixel_format: Format, size: tuple[int, int], fps: float | None = None) -> None:
        self._path = path
        self._pixel_format = pixel_format
        self._size = size
        self._fps = fps

    def open(self) -> V4l2Stream:
        """Set the format, map the buffers, start streaming; raises `CameraError`."""
        try:
            file = os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise CameraError(f"{self._path}: {error.strerror}") from None
        try:
            _check_capabilities(file)
            pix = _set_format(file, self._pixel_format, self._size)
            if self._fps is not None:
                _set_rate(file, self._fps)
            return V4l2Stream(file, self._pixel_format, pix)
        except (CameraError, OSError) as error:
            os.close(file)
            raise CameraError(f"{self._path}: {_reason(error)}") from None


class V4l2Stream:
    """A device that is streaming. It owns `file`."""

    def __init__(self, file: int, pixel_format: Format, pix: abi.v4l2_pix_format) -> None:
        self._file = file
        self._pixel_format = pixel_format
        self._pix = pix
        self._maps: list[mmap.mmap] = []
        self._poll = select.poll()
        self._poll.register(file, select.POLLIN)
        try:
            for index in range(_request_buffers(file)):
                self._maps.append(_map(file, index))
                _ioctl(file, abi.VIDIOC_QBUF, _buffer(index))
            _ioctl(file, abi.VIDIOC_STREAMON, ctypes.c_int32(abi.V4L2_BUF_TYPE_VIDEO_CAPTURE))
        except BaseException:
            self._unmap()
            raise

    def read(self) -> Shot | None:
        """The oldest picture that the driver has filled, copied out of its buffer; see `Stream`."""
        try:
            if not self._poll.poll(_POLL_MS):
                return None
            buffer = _buffer(0)
            _ioctl(self._file, abi.VIDIOC_DQBUF, buffer)
            arrival_ns = time.monotonic_ns()
            data = self._maps[buffer.index][: buffer.bytesused]
            _ioctl(self._file, abi.VIDIOC_QBUF, _buffer(buffer.index))
        except BlockingIOError:
            return None
        except OSError as error:
            raise CameraError(_reason(error)) from None
        if buffer.flags & abi.V4L2_BUF_FLAG_ERROR or not data:
            raise UndecodableError("the driver marks it as damaged")
        return Shot(self._picture(data), _stamp_ns(buffer), arrival_ns)

    def close(self) -> None:
        """Stop streaming and close the device."""
        with suppress(OSError):  # it may be gone
            _ioctl(self._file, abi.VIDIOC_STREAMOFF, ctypes.c_int32(abi.V4L2_BUF_TYPE_VIDEO_CAPTURE))
        self._unmap()
        with suppress(OSError):
            os.close(self._file)

    def _picture(self, data: bytes) -> bytes | RawPicture:
        if self._pixel_format == "mjpeg":
            return data
        pix = self._pix
        return RawPicture(self._pixel_format, pix.width, pix.height, pix.bytesperline, data)

    def _unmap(self) -> None:
        for mapped in self._maps:
            mapped.close()


def _ioctl(file: int, request: int, argument: Any) -> None:
    """Make a request that fills in its argument; again, where a signal came in between."""
    while True:
        try:
            fcntl.ioctl(file, request, argument)
        except InterruptedError:
            continue
        return


def _check_capabilities(file: int) -> None:
    capability = abi.v4l2_capability()
    _ioctl(file, abi.VIDIOC_QUERYCAP, capability)
    of_device = capability.capabilities & abi.V4L2_CAP_DEVICE_CAPS
    can = capability.device_caps if of_device else capability.capabilities
    name = capability.card.decode(errors="replace")
    if not can & abi.V4L2_CAP_VIDEO_CAPTURE:
        if can & abi.V4L2_CAP_VIDEO_CAPTURE_MPLANE:
            raise CameraError(f"{name} captures in separate planes only; use source: gstreamer with v4l2src")
        raise CameraError(f"{name} is no capture device (one camera may have several nodes; try the next)")
    if not can & abi.V4L2_CAP_STREAMING:
        raise CameraError(f"{name} does not stream into memory")


def _set_format(file: int, pixel_format: Format, size: tuple[int, int]) -> abi.v4l2_pix_format:
    """Ask for a format; the driver answers with the nearest that it can, which must be the very one."""
    wanted = abi.v4l2_format(type=abi.V4L2_BUF_TYPE_VIDEO_CAPTURE)
    pix = cast("abi.v4l2_pix_format", wanted.fmt.pix)
    pix.width, pix.height = size
    pix.pixelformat, pix.field = _PIXEL_FORMATS[pixel_format], abi.V4L2_FIELD_NONE
    _ioctl(file, abi.VIDIOC_S_FMT, wanted)
    if (pix.width, pix.height) != size or pix.pixelformat != _PIXEL_FORMATS[pixel_format]:
        given = pix.pixelformat.to_bytes(4, "little").decode("ascii", "replace")
        raise CameraError(
            f"it gives {pix.width}x{pix.height} {given}, where the calibration says {size[0]}x{size[1]} "
            f"and the config {pixel_format}"
        )
    return pix


def _set_rate(file: int, fps: float) -> None:
    wanted = abi.v4l2_streamparm(type=abi.V4L2_BUF_TYPE_VIDEO_CAPTURE)
    wanted.parm.capture.timeperframe = abi.v4l2_fract(1000, round(1000 * fps))
    try:
        _ioctl(file, abi.VIDIOC_S_PARM, wanted)
    except OSError as error:
        raise CameraError(f"its rate cannot be set to {fps:g} Hz: {_reason(error)}; leave fps out") from None


def _request_buffers(file: int) -> int:
    request = abi.v4l2_requestbuffers(_BUFFERS, abi.V4L2_BUF_TYPE_VIDEO_CAPTURE, abi.V4L2_MEMORY_MMAP)
    _ioctl(file, abi.VIDIOC_REQBUFS, request)
    return min(_BUFFERS, int(request.count))


def _map(file: int, index: int) -> mmap.mmap:
    buffer = _buffer(index)
    _ioctl(file, abi.VIDIOC_QUERYBUF, buffer)
    if buffer.length > _MAX_BUFFER:
        raise CameraError(f"its buffers have {buffer.length} bytes, at most {_MAX_BUFFER} are mapped")
    return mmap.mmap(file, buffer.length, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=buffer.m.offset)


def _buffer(index: int) -> abi.v4l2_buffer:
    return abi.v4l2_buffer(index=index, type=abi.V4L2_BUF_TYPE_VIDEO_CAPTURE, memory=abi.V4L2_MEMORY_MMAP)


def _stamp_ns(buffer: abi.v4l2_buffer) -> int | None:
    """When the driver captured it; None where its stamps are not of the monotonic clock."""
    if buffer.flags & abi.V4L2_BUF_FLAG_TIMESTAMP_MASK != abi.V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC:
        return None
    return int(buffer.timestamp.tv_sec) * 1_000_000_000 + int(buffer.timestamp.tv_usec) * 1000


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        if error.errno == errno.ENOTTY:
            return "is no V4L2 device"
        if error.errno == errno.ENODEV:
            return "unplugged"
        return error.strerror or type(error).__name__
    return str(error)
