"""Pictures as cameras give them, to images."""

from __future__ import annotations

from typing import Final, cast

import cv2
import numpy as np
from av.video.frame import VideoFrame

from perception.ingest.cameras.camera import RawPicture
from perception.ingest.decode import UndecodableError, check_size, decode_image, frame_to_image
from perception.messages import Camera, Image, Needed, format_of
from perception.pixels import to_bgr

_BYTES_PER_PIXEL: Final = {"yuyv": 2, "uyvy": 2, "nv12": 1, "bgr": 3}
_SHARING_COLOUR: Final = {"yuyv": (2, 1), "uyvy": (2, 1), "nv12": (2, 2)}
_EVERY: Final = 8


def to_image(picture: bytes | RawPicture | VideoFrame, camera: Camera, needed: Needed | None = None) -> Image:
    """A picture to (H, W, 3) uint8 BGR at the size of the camera's calibration, or smaller, as `decode_image`.

    Raw pixels, too, are left in a format in which they may stay. Raises `UndecodableError` with the reason.
    """
    if isinstance(picture, bytes):
        return decode_image(picture, camera, needed)
    if isinstance(picture, VideoFrame):
        return frame_to_image(picture, camera)
    size = (picture.width, picture.height)
    check_size(size, camera)
    if problem := indivisible(picture.format, size):
        raise UndecodableError(problem)
    rows = _rows(picture)
    image = rows if picture.format == "nv12" else rows.reshape(picture.height, picture.width, -1)
    if picture.format == "uyvy":  # no preprocessing takes it
        return cast("Image", cv2.cvtColor(image, cv2.COLOR_YUV2BGR_UYVY))
    return image if needed is not None and format_of(image) in needed.as_they_come else to_bgr(image)


def indivisible(form: str, size: tuple[int, int]) -> str:
    """Why a format cannot have this (width, height), as its pixels share their colour; empty where it can."""
    across, down = _SHARING_COLOUR.get(form, (1, 1))
    if size[0] % across == 0 and size[1] % down == 0:
        return ""
    return f"{form} of {size[0]}x{size[1]}: it needs an even width{' and height' if down > 1 else ''}"


def same(a: bytes | RawPicture | VideoFrame, b: bytes | RawPicture | VideoFrame) -> bool:
    """Whether two pictures are the same to the last bit, which no sensor gives twice; of a video's, in some rows."""
    if isinstance(a, VideoFrame) and isinstance(b, VideoFrame):
        return a.width == b.width and a.height == b.height and np.array_equal(_some_luma(a), _some_luma(b))
    return a == b


def _rows(picture: RawPicture) -> Image:
    """The rows of all planes, without what pads them."""
    height = picture.height * 3 // 2 if picture.format == "nv12" else picture.height
    used = picture.width * _BYTES_PER_PIXEL[picture.format]
    if picture.stride < used or len(picture.data) < height * picture.stride:
        raise UndecodableError(
            f"the {picture.format} picture has {len(picture.data)} bytes, "
            f"{picture.width}x{picture.height} in rows of {picture.stride} are {height * picture.stride}"
        )
    rows = np.frombuffer(picture.data, np.uint8, height * picture.stride).reshape(height, picture.stride)
    return np.ascontiguousarray(rows[:, :used])


def _some_luma(frame: VideoFrame) -> Image:
    plane = frame.planes[0]
    rows: Image = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
    return rows[::_EVERY, : frame.width]
