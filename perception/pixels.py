"""What the bytes of an image are, in pixels: the one way to BGR, whatever `messages.format_of` says that it is."""

from __future__ import annotations

from typing import Final, cast

import cv2
import numpy as np

from perception.messages import Image, ImageFormat, format_of

_FROM_YUV: Final[dict[ImageFormat, int]] = {"nv12": cv2.COLOR_YUV2BGR_NV12, "yuyv": cv2.COLOR_YUV2BGR_YUY2}
_REDUCED: Final = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


def to_bgr(image: Image) -> Image:
    """An image of any format as (H, W, 3) uint8 BGR; itself where it is that. Raises `ValueError` for a broken JPEG."""
    form = format_of(image)
    if form == "bgr":
        return image
    if form == "jpeg":
        return decode(image)
    return cast("Image", cv2.cvtColor(image, _FROM_YUV[form]))


def decode(data: Image, reduction: int = 1) -> Image:
    """The bytes (N,) of a JPEG or PNG to BGR, of a JPEG at its size divided by one of `messages.REDUCTIONS`.

    The orientation that EXIF asks for is not applied: calibration refers to the sensor's rows and columns. Raises
    `ValueError` where it does not decode.
    """
    try:
        image = cv2.imdecode(data, _REDUCED[reduction] | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        image = None
    if image is None:  # OpenCV's types know neither None nor that colour images are uint8
        raise ValueError("the image does not decode")
    return cast("Image", image)


def blank(form: ImageFormat, size: tuple[int, int]) -> Image:
    """An image of zeros, (width, height) large; NV12 and YUYV need even sides."""
    width, height = size
    shapes = {"nv12": (height * 3 // 2, width), "yuyv": (height, width, 2)}
    zeros = np.zeros(shapes.get(form, (height, width, 3)), np.uint8)
    return zeros if form != "jpeg" else np.asarray(cv2.imencode(".jpg", zeros)[1], np.uint8).ravel()
