"""What capturing takes of the kernel's <linux/videodev2.h>: its structures and requests, as 64-bit Linux lays them out.

The names are the header's, so that its documentation (the kernel's "Video for Linux API") applies word for word.
"""

from __future__ import annotations

import ctypes
from ctypes import c_char, c_int32, c_long, c_uint8, c_uint32, c_uint64
from typing import Any, ClassVar, Final

_Fields = list[tuple[str, Any]]

V4L2_BUF_TYPE_VIDEO_CAPTURE: Final = 1
V4L2_MEMORY_MMAP: Final = 1
V4L2_FIELD_NONE: Final = 1

V4L2_CAP_VIDEO_CAPTURE: Final = 0x00000001
V4L2_CAP_VIDEO_CAPTURE_MPLANE: Final = 0x00001000
V4L2_CAP_STREAMING: Final = 0x04000000
V4L2_CAP_DEVICE_CAPS: Final = 0x80000000

V4L2_BUF_FLAG_ERROR: Final = 0x00000040
V4L2_BUF_FLAG_TIMESTAMP_MASK: Final = 0x0000E000
V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC: Final = 0x00002000


def v4l2_fourcc(code: str) -> int:
    """A pixel format's number."""
    return int.from_bytes(code.encode(), "little")


V4L2_PIX_FMT_MJPEG: Final = v4l2_fourcc("MJPG")
V4L2_PIX_FMT_YUYV: Final = v4l2_fourcc("YUYV")
V4L2_PIX_FMT_UYVY: Final = v4l2_fourcc("UYVY")
V4L2_PIX_FMT_NV12: Final = v4l2_fourcc("NV12")


class v4l2_capability(ctypes.Structure):  # noqa: N801 (the header's name, as all here)
    """What a device is and can do."""

    _fields_: ClassVar[_Fields] = [
        ("driver", c_char * 16),
        ("card", c_char * 32),
        ("bus_info", c_char * 32),
        ("version", c_uint32),
        ("capabilities", c_uint32),
        ("device_caps", c_uint32),
        ("reserved", c_uint32 * 3),
    ]


class v4l2_pix_format(ctypes.Structure):  # noqa: N801
    """The size and pixel format of a picture."""

    _fields_: ClassVar[_Fields] = [
        ("width", c_uint32),
        ("height", c_uint32),
        ("pixelformat", c_uint32),
        ("field", c_uint32),
        ("bytesperline", c_uint32),
        ("sizeimage", c_uint32),
        ("colorspace", c_uint32),
        ("priv", c_uint32),
        ("flags", c_uint32),
        ("ycbcr_enc", c_uint32),
        ("quantization", c_uint32),
        ("xfer_func", c_uint32),
    ]


class _FormatUnion(ctypes.Union):
    _fields_: ClassVar[_Fields] = [("pix", v4l2_pix_format), ("raw_data", c_uint64 * 25)]  # it holds pointers too


class v4l2_format(ctypes.Structure):  # noqa: N801
    """A format to set or get."""

    _fields_: ClassVar[_Fields] = [("type", c_uint32), ("fmt", _FormatUnion)]


class v4l2_fract(ctypes.Structure):  # noqa: N801
    """A fraction."""

    _fields_: ClassVar[_Fields] = [("numerator", c_uint32), ("denominator", c_uint32)]


class v4l2_captureparm(ctypes.Structure):  # noqa: N801
    """How fast to capture."""

    _fields_: ClassVar[_Fields] = [
        ("capability", c_uint32),
        ("capturemode", c_uint32),
        ("timeperframe", v4l2_fract),
        ("extendedmode", c_uint32),
        ("readbuffers", c_uint32),
        ("reserved", c_uint32 * 4),
    ]


class _ParmUnion(ctypes.Union):
    _fields_: ClassVar[_Fields] = [("capture", v4l2_captureparm), ("raw_data", c_uint8 * 200)]


class v4l2_streamparm(ctypes.Structure):  # noqa: N801
    """Streaming parameters to set or get."""

    _fields_: ClassVar[_Fields] = [("type", c_uint32), ("parm", _ParmUnion)]


class v4l2_requestbuffers(ctypes.Structure):  # noqa: N801
    """How many buffers are wanted, and how many were given."""

    _fields_: ClassVar[_Fields] = [
        ("count", c_uint32),
        ("type", c_uint32),
        ("memory", c_uint32),
        ("capabilities", c_uint32),
        ("flags", c_uint8),
        ("reserved", c_uint8 * 3),
    ]


class timeval(ctypes.Structure):  # noqa: N801
    """Seconds and microseconds."""

    _fields_: ClassVar[_Fields] = [("tv_sec", c_long), ("tv_usec", c_long)]


class v4l2_timecode(ctypes.Structure):  # noqa: N801
    """A time code of the film industry."""

    _fields_: ClassVar[_Fields] = [
        ("type", c_uint32),
        ("flags", c_uint32),
        ("frames", c_uint8),
        ("seconds", c_uint8),
        ("minutes", c_uint8),
        ("hours", c_uint8),
        ("userbits", c_uint8 * 4),
    ]


class _MemoryUnion(ctypes.Union):
    _fields_: ClassVar[_Fields] = [("offset", c_uint32), ("userptr", c_uint64), ("fd", c_int32)]


class v4l2_buffer(ctypes.Structure):  # noqa: N801
    """One of the buffers that device and program pass back and forth."""

    _fields_: ClassVar[_Fields] = [
        ("index", c_uint32),
        ("type", c_uint32),
        ("bytesused", c_uint32),
        ("flags", c_uint32),
        ("field", c_uint32),
        ("timestamp", timeval),
        ("timecode", v4l2_timecode),
        ("sequence", c_uint32),
        ("memory", c_uint32),
        ("m", _MemoryUnion),
        ("length", c_uint32),
        ("reserved2", c_uint32),
        ("request_fd", c_int32),
    ]


_WRITE, _READ = 1, 2


def _request(direction: int, number: int, argument: type[Any]) -> int:
    """The number of an ioctl, as <asm-generic/ioctl.h> puts it together."""
    return direction << 30 | ctypes.sizeof(argument) << 16 | ord("V") << 8 | number


VIDIOC_QUERYCAP: Final = _request(_READ, 0, v4l2_capability)
VIDIOC_S_FMT: Final = _request(_READ | _WRITE, 5, v4l2_format)
VIDIOC_REQBUFS: Final = _request(_READ | _WRITE, 8, v4l2_requestbuffers)
VIDIOC_QUERYBUF: Final = _request(_READ | _WRITE, 9, v4l2_buffer)
VIDIOC_QBUF: Final = _request(_READ | _WRITE, 15, v4l2_buffer)
VIDIOC_DQBUF: Final = _request(_READ | _WRITE, 17, v4l2_buffer)
VIDIOC_STREAMON: Final = _request(_WRITE, 18, c_int32)
VIDIOC_STREAMOFF: Final = _request(_WRITE, 19, c_int32)
VIDIOC_S_PARM: Final = _request(_READ | _WRITE, 22, v4l2_streamparm)
