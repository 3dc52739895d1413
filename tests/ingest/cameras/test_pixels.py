from __future__ import annotations

import av
import cv2
import numpy as np
import pytest
from av.video.frame import VideoFrame

from perception.ingest.cameras.camera import RawPicture
from perception.ingest.cameras.pixels import same, to_image
from perception.ingest.decode import UndecodableError
from perception.messages import Image, ImageFormat, Needed, format_of
from perception.pixels import to_bgr
from tests.drives import encode, make_camera, render
from tests.ingest.test_decode import without_huffman_tables

CAMERA = make_camera("CAM", (96, 64))
PICTURE = render(CAMERA, 0.0)
SMOOTH: Image = np.asarray(cv2.GaussianBlur(PICTURE, (0, 0), 3), np.uint8)
"""Without edges, which formats that share colour among pixels would blur."""


def padded(rows: Image, stride: int) -> bytes:
    """Rows with something after each, as drivers align them."""
    out = np.full((len(rows), stride), 201, np.uint8)
    out[:, : rows.shape[1]] = rows
    return out.tobytes()


def yuyv(image: Image) -> Image:
    yuv = cv2.cvtColor(image, cv2.COLOR_BGR2YUV_YUY2)
    return np.asarray(yuv, np.uint8).reshape(len(image), -1)


def nv12(image: Image) -> Image:
    planar = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420), np.uint8)
    height, width = image.shape[:2]
    chroma = planar[height:].reshape(2, -1)
    return np.vstack([planar[:height], chroma.T.reshape(height // 2, width)])


@pytest.mark.parametrize("padding", [0, 32])
@pytest.mark.parametrize(
    ("pixel_format", "rows"),
    [
        ("bgr", SMOOTH.reshape(64, -1)),
        ("yuyv", yuyv(SMOOTH)),
        ("uyvy", yuyv(SMOOTH).reshape(64, -1, 2)[:, :, ::-1].reshape(64, -1)),
        ("nv12", nv12(SMOOTH)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_raw_pixels_become_the_image(pixel_format: str, rows: Image, padding: int) -> None:
    stride = rows.shape[1] + padding
    picture = RawPicture(pixel_format, 96, 64, stride, padded(rows, stride))  # type: ignore[arg-type]
    image = to_image(picture, CAMERA)
    assert image.shape == (64, 96, 3)
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - SMOOTH).mean() < 2

    left = to_image(picture, CAMERA, Needed((96, 64), frozenset[ImageFormat]({"nv12", "yuyv"})))
    assert format_of(left) == ("bgr" if pixel_format == "uyvy" else pixel_format)
    np.testing.assert_array_equal(to_bgr(left), image)


def test_a_raw_picture_that_is_cut_short_or_of_another_size_is_refused() -> None:
    data = padded(yuyv(PICTURE), 192)
    with pytest.raises(UndecodableError, match="has 12287 bytes, 96x64 in rows of 192 are 12288"):
        to_image(RawPicture("yuyv", 96, 64, 192, data[:-1]), CAMERA)
    with pytest.raises(UndecodableError, match="rows of 100"):
        to_image(RawPicture("yuyv", 96, 64, 100, data), CAMERA)
    with pytest.raises(UndecodableError, match="the image is 48x128, where the calibration says 96x64"):
        to_image(RawPicture("yuyv", 48, 128, 96, data), CAMERA)


@pytest.mark.parametrize(
    ("pixel_format", "size", "told"),
    [
        ("nv12", (95, 64), "an even width and height"),
        ("nv12", (96, 63), "an even width and height"),
        ("yuyv", (95, 64), "an even width$"),
        ("uyvy", (95, 64), "an even width$"),
    ],
)
@pytest.mark.parametrize("needed", [None, Needed((96, 64), frozenset[ImageFormat]({"nv12", "yuyv"}))])
def test_raw_pixels_that_share_colour_with_none_are_refused(
    pixel_format: str, size: tuple[int, int], told: str, needed: Needed | None
) -> None:
    picture = RawPicture(pixel_format, *size, 192, bytes(192 * 96))  # type: ignore[arg-type]
    with pytest.raises(UndecodableError, match=f"{pixel_format} of {size[0]}x{size[1]}: it needs {told}"):
        to_image(picture, make_camera("CAM", size), needed)


@pytest.mark.parametrize(("pixel_format", "size"), [("yuyv", (96, 63)), ("uyvy", (96, 63)), ("bgr", (95, 63))])
def test_raw_pixels_of_other_odd_sizes_are_images(pixel_format: str, size: tuple[int, int]) -> None:
    picture = RawPicture(pixel_format, *size, 288, bytes(288 * 64))  # type: ignore[arg-type]
    assert to_image(picture, make_camera("CAM", size)).shape == (size[1], size[0], 3)


def test_a_jpeg_is_decoded_no_larger_than_it_is_looked_at() -> None:
    assert to_image(encode(PICTURE), CAMERA).shape == (64, 96, 3)
    assert to_image(encode(PICTURE), CAMERA, Needed((24, 16))).shape == (32, 48, 3)


def test_a_jpeg_without_huffman_tables_as_many_webcams_send_is_decoded() -> None:
    with_tables = encode(PICTURE)
    without = without_huffman_tables(with_tables)
    assert len(without) < len(with_tables) - 400
    np.testing.assert_array_equal(to_image(without, CAMERA), to_image(with_tables, CAMERA))


def test_the_same_picture_is_told_from_one_that_differs_anywhere() -> None:
    data = encode(PICTURE)
    assert same(data, bytes(bytearray(data)))
    assert not same(data, encode(render(CAMERA, 0.0, seed=1)))
    raw = RawPicture("bgr", 96, 64, 288, PICTURE.tobytes())
    assert same(raw, RawPicture("bgr", 96, 64, 288, PICTURE.tobytes()))
    assert not same(raw, RawPicture("bgr", 96, 64, 288, PICTURE.tobytes()[:-1] + b"\x00"))
    assert not same(raw, data)


def test_pictures_of_a_video_are_the_same_when_their_luma_is() -> None:
    def frame(image: Image) -> VideoFrame:
        return av.VideoFrame.from_ndarray(image, format="bgr24").reformat(format="yuv420p")

    assert same(frame(PICTURE), frame(PICTURE.copy()))
    assert not same(frame(PICTURE), frame(render(CAMERA, 0.0, seed=1)))
    assert not same(frame(PICTURE), frame(PICTURE[:32]))
