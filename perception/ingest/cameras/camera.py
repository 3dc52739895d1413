"""A live camera: what a device must give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from av.video.frame import VideoFrame


class CameraError(Exception):
    """Why a camera gives no frames now, in a few words; it is opened again."""


@dataclass(frozen=True, slots=True)
class RawPicture:
    """Pixels as a driver gives them, rows `stride` bytes apart.

    ``yuyv`` and ``uyvy`` are 4:2:2, packed; ``nv12`` is 4:2:0, a plane of luma and then one of both chroma; ``bgr`` is
    8 bits each.
    """

    format: Literal["yuyv", "uyvy", "nv12", "bgr"]
    width: int
    height: int
    stride: int
    data: bytes


class Shot(NamedTuple):
    """A picture as it came, not yet an image: a JPEG, raw pixels, or a decoded picture of a video stream.

    `stamp_ns` is when it was captured as the device tells, on the machine's monotonic clock; None where it does not.
    `arrival_ns` is when its bytes were in memory, on the same clock.
    """

    picture: bytes | RawPicture | VideoFrame
    stamp_ns: int | None
    arrival_ns: int


class Stream(Protocol):
    """An open camera."""

    def read(self) -> Shot | None:
        """Wait for the next picture, a fraction of a second where the device lets itself be asked; None: not yet.

        Raises `UndecodableError` for a picture that is damaged, `CameraError` where no more will come.
        """

    def close(self) -> None:
        """Give the device back."""


class Device(Protocol):
    """A camera that can be opened, again and again."""

    def open(self) -> Stream:
        """Start capturing; raises `CameraError` where that cannot be, now."""
