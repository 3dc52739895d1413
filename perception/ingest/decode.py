"""Encoded images to pixels.

Recordings are untrusted: what an image claims to be is read from its header and held against the calibration before
anything is allocated for it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from threading import Barrier
from typing import Final, cast

import av
import numpy as np
from av.codec.context import Flags
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from perception.ingest.formats import image_format, looks_like
from perception.messages import Camera, Image, Needed
from perception.pixels import blank, decode

VIDEO_CODECS: Final = {"h264": "h264", "h265": "hevc"}
"""Foxglove's name of a video format to FFmpeg's of its decoder."""

_MAX_BYTES: Final = 64 * 2**20
_MAX_PIXELS: Final = 2**26
_END_OF_JPEG: Final = b"\xff\xd9"
_END_OF_PNG: Final = b"IEND\xaeB`\x82"
_HUFFMAN_TABLES: Final = b"\xff\xc4"
_START_OF_FRAME: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


class UndecodableError(Exception):
    """An image that cannot be used, with the reason."""


def decode_image(data: bytes, camera: Camera, needed: Needed | None = None) -> Image:
    """Decode a JPEG or PNG to (H, W, 3) uint8 BGR at the size of the camera's calibration.

    Where no more is `needed`, a JPEG of at least four times that size is decoded at a half, a quarter or an eighth of
    its own: fewer coefficients to transform, and bilinear resizing from there still sees every pixel, as it does not
    from the full size. Where a JPEG may stay one, it is checked as far as that goes without decoding it.

    The orientation that EXIF asks for is not applied: calibration refers to the sensor's rows and columns.
    """
    if len(data) > _MAX_BYTES:
        raise UndecodableError(f"{len(data)} bytes, at most {_MAX_BYTES} are decoded")
    form = image_format(data)
    if form is None:
        raise UndecodableError(f"expected a JPEG or PNG image, got one that looks like {looks_like(data)}")
    size = _jpeg_size(data) if form == "jpeg" else _png_size(data)
    if size is None:
        raise UndecodableError(f"the {form} image is cut short or corrupt")
    check_size(size, camera)
    encoded = np.frombuffer(data, np.uint8)
    if needed is not None and form in needed.as_they_come and _HUFFMAN_TABLES in data:  # webcams may leave them out
        return encoded
    try:
        return decode(encoded, needed.reduction(size) if needed is not None and form == "jpeg" else 1)
    except ValueError:
        raise UndecodableError(f"the {form} image does not decode") from None


def decoders(threads: int, cameras: Iterable[Camera]) -> ThreadPoolExecutor:
    """Threads to decode images on, warm: the first decoding of each takes as long as half a tick."""
    pool = ThreadPoolExecutor(threads, "decode")
    images = [blank("jpeg", size) for size in {(camera.width, camera.height) for camera in cameras}]
    together = Barrier(threads)

    def decode_all() -> None:
        together.wait()  # or one thread would do it all
        for image in images:
            decode(image)

    wait([pool.submit(decode_all) for _ in range(threads)])
    return pool


class VideoDecoder:
    """Decodes one camera's video stream, a picture per packet; packets must come in the stream's order."""

    def __init__(self, video_format: str) -> None:
        context = cast("VideoCodecContext", av.CodecContext.create(VIDEO_CODECS[video_format], "r"))
        context.thread_count = 1  # more would hold pictures back
        context.flags |= Flags.low_delay
        context.options = {"max_pixels": str(_MAX_PIXELS)}
        self._context = context
        self._format = video_format
        self._number = 0

    def decode(self, data: bytes, camera: Camera) -> Image:
        """Decode the packet of one picture; as `decode_image`."""
        if not 0 < len(data) <= _MAX_BYTES:  # an empty packet would tell the decoder that nothing more comes
            raise UndecodableError(f"a packet of {len(data)} bytes, at least 1 and at most {_MAX_BYTES} are decoded")
        self._number += 1
        packet = av.Packet(data)
        packet.pts = self._number
        try:
            frames = self._context.decode(packet)
        except (FFmpegError, MemoryError):
            raise UndecodableError(f"the {self._format} packet does not decode") from None
        for frame in frames:
            if frame.pts == self._number:
                return frame_to_image(frame, camera)
        raise UndecodableError(
            f"no picture came out of the {self._format} packet: its key frame is missing, or the stream has B-frames"
        )


def frame_to_image(frame: VideoFrame, camera: Camera) -> Image:
    """A decoded video frame to (H, W, 3) uint8 BGR at the size of the camera's calibration."""
    if frame.is_corrupt:
        raise UndecodableError("a picture that its video stream marks as corrupt")
    check_size((frame.width, frame.height), camera)
    return cast("Image", frame.to_ndarray(format="bgr24"))


def check_size(size: tuple[int, int], camera: Camera) -> None:
    """Raise `UndecodableError` where an image has not the (width, height) that its camera is calibrated for."""
    if size != (camera.width, camera.height):
        raise UndecodableError(
            f"the image is {size[0]}x{size[1]}, where the calibration says {camera.width}x{camera.height}"
        )


def _png_size(data: bytes) -> tuple[int, int] | None:
    """Width and height from the header (PNG specification, 11.2.2); None where the image is cut short."""
    if data[12:16] != b"IHDR" or not data.endswith(_END_OF_PNG):
        return None
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Width and height from the frame header (ITU T.81, B.2.2); None where there is none, or no end of the image."""
    place = 2
    while place + 9 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker in _START_OF_FRAME:
            height, width = struct.unpack_from(">HH", data, place + 5)
            return (width, height) if data.rfind(_END_OF_JPEG, place) >= 0 else None
        # a marker may be preceded by fill bytes; all others but those are followed by the length of their segment
        place += 1 if marker == 0xFF else 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None
