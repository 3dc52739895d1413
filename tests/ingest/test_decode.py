from __future__ import annotations

import struct
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from perception.ingest.decode import UndecodableError, VideoDecoder, decode_image
from perception.messages import Image, ImageFormat, Needed
from tests.drives import encode, make_camera, render

CAMERA = make_camera("CAM_FRONT", (96, 64))
LEFT_AS_THEY_COME = Needed((96, 64), frozenset[ImageFormat]({"jpeg"}))


def encode_video(images: list[Image], codec: str, **options: str) -> list[bytes]:
    """A packet per image, with parameter sets in the stream."""
    context = av.CodecContext.create(codec, "w")
    assert isinstance(context, av.VideoCodecContext)
    context.height, context.width = images[0].shape[:2]
    context.pix_fmt = "yuv420p"
    context.time_base = Fraction(1, 10)
    context.options = {"preset": "ultrafast", **options}
    if codec == "libx265":
        context.options = {**context.options, "x265-params": "log-level=none"}
    packets = []
    for i, image in enumerate(images):
        frame = av.VideoFrame.from_ndarray(image, format="bgr24")
        frame.pts = i
        packets += context.encode(frame)
    packets += context.encode(None)
    return [bytes(packet) for packet in packets]


def without_huffman_tables(jpeg: bytes) -> bytes:
    """As many webcams send it."""
    data = bytearray(jpeg)
    while (place := data.find(b"\xff\xc4")) >= 0:
        del data[place : place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")]
    return bytes(data)


def scene(seed: int = 0) -> Image:
    return render(CAMERA, 0.1 * seed, seed)


def test_png_is_exact_and_jpeg_is_close() -> None:
    image = scene()
    np.testing.assert_array_equal(decode_image(encode(image, "png"), CAMERA), image)
    decoded = decode_image(encode(image), CAMERA)
    assert decoded.dtype == np.uint8
    assert np.abs(decoded.astype(int) - image).mean() < 8


def test_a_grey_image_becomes_bgr() -> None:
    grey = cv2.cvtColor(scene(), cv2.COLOR_BGR2GRAY)
    decoded = decode_image(encode(grey, "png"), CAMERA)  # type: ignore[arg-type]
    np.testing.assert_array_equal(decoded, np.repeat(grey[..., None], 3, axis=2))


def test_the_orientation_in_exif_is_not_applied() -> None:
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)  # rotate by 90 degrees
    exif = b"Exif\0\0" + tiff
    jpeg = encode(scene())
    rotated = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
    np.testing.assert_array_equal(decode_image(rotated, CAMERA), decode_image(jpeg, CAMERA))


@pytest.mark.parametrize("needed", [None, LEFT_AS_THEY_COME], ids=["decoded", "left"])
@pytest.mark.parametrize("image_format", ["jpeg", "png"])
def test_an_image_cut_short_anywhere_is_refused(image_format: str, needed: Needed | None) -> None:
    data = encode(scene(), image_format)
    for length in {*range(1, 60), *range(60, len(data), len(data) // 40), len(data) - 1}:
        with pytest.raises(UndecodableError):
            decode_image(data[:length], CAMERA, needed)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "looks like empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "unknown: it begins with b'RIFF"),
        (b"\xff\xd8\xff" + b"\0" * 100, "the jpeg image is cut short or corrupt"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, "the png image is cut short or corrupt"),
    ],
)
@pytest.mark.parametrize("needed", [None, LEFT_AS_THEY_COME], ids=["decoded", "left"])
def test_what_is_no_image_is_refused_with_what_it_is(data: bytes, reason: str, needed: Needed | None) -> None:
    with pytest.raises(UndecodableError, match=reason):
        decode_image(data, CAMERA, needed)


@pytest.mark.parametrize("needed", [None, LEFT_AS_THEY_COME], ids=["decoded", "left"])
@pytest.mark.parametrize("image_format", ["jpeg", "png"])
def test_an_image_of_another_size_than_calibrated_is_refused_with_both(
    image_format: str, needed: Needed | None
) -> None:
    other = render(make_camera("CAM_FRONT", (64, 48)), 0.0)
    with pytest.raises(UndecodableError, match="the image is 64x48, where the calibration says 96x64"):
        decode_image(encode(other, image_format), CAMERA, needed)


def test_a_jpeg_that_may_stay_one_does() -> None:
    data = encode(scene())
    assert decode_image(data, CAMERA, LEFT_AS_THEY_COME).tobytes() == data
    assert decode_image(encode(scene(), "png"), CAMERA, LEFT_AS_THEY_COME).shape == (64, 96, 3)
    assert decode_image(without_huffman_tables(data), CAMERA, LEFT_AS_THEY_COME).shape == (64, 96, 3)


def test_a_size_that_only_the_header_claims_is_refused_before_it_is_allocated() -> None:
    data = bytearray(encode(scene(), "png"))
    data[16:24] = struct.pack(">II", 2**31 - 1, 2**31 - 1)
    with pytest.raises(UndecodableError, match="the image is 2147483647x2147483647"):
        decode_image(bytes(data), CAMERA)


@pytest.mark.parametrize(("codec", "video_format"), [("libx264", "h264"), ("libx265", "h265")])
def test_video_gives_a_picture_for_each_packet(codec: str, video_format: str) -> None:
    images = [np.full((64, 96, 3), 20 + 30 * i, np.uint8) for i in range(6)]
    decoder = VideoDecoder(video_format)
    for image, packet in zip(images, encode_video(images, codec, tune="zerolatency"), strict=True):
        decoded = decoder.decode(packet, CAMERA)
        assert np.abs(decoded.astype(int) - image).max() < 8


@pytest.mark.parametrize(("codec", "video_format"), [("libx264", "h264"), ("libx265", "h265")])
def test_video_without_its_key_frame_is_refused_until_the_next(codec: str, video_format: str) -> None:
    options = {"tune": "zerolatency", "g": "3", "keyint_min": "3", "forced-idr": "1"}
    packets = encode_video([scene(i) for i in range(6)], codec, **options)
    decoder = VideoDecoder(video_format)
    for packet in packets[1:3]:
        with pytest.raises(UndecodableError):
            decoder.decode(packet, CAMERA)
    for i in range(3, 6):
        assert np.abs(decoder.decode(packets[i], CAMERA).astype(int) - scene(i)).mean() < 12


def test_video_with_b_frames_never_passes_one_picture_off_as_another() -> None:
    images = [np.full((64, 96, 3), 20 + 30 * i, np.uint8) for i in range(6)]
    decoder = VideoDecoder("h264")
    for packet in encode_video(images, "libx264", preset="fast", bf="2"):
        with pytest.raises(UndecodableError, match="its key frame is missing, or the stream has B-frames"):
            decoder.decode(packet, CAMERA)


def test_garbage_in_a_video_is_refused_and_the_stream_goes_on() -> None:
    images = [scene(i) for i in range(3)]
    first, *_ = encode_video(images, "libx264", tune="zerolatency")
    decoder = VideoDecoder("h264")
    with pytest.raises(UndecodableError, match="the h264 packet does not decode"):
        decoder.decode(b"not a video at all" * 10, CAMERA)
    assert decoder.decode(first, CAMERA).shape == (64, 96, 3)


def test_an_empty_packet_is_refused_and_the_stream_goes_on() -> None:
    first, second = encode_video([scene(i) for i in range(2)], "libx264", tune="zerolatency")
    decoder = VideoDecoder("h264")
    decoder.decode(first, CAMERA)
    with pytest.raises(UndecodableError, match="a packet of 0 bytes"):
        decoder.decode(b"", CAMERA)
    assert decoder.decode(second, CAMERA).shape == (64, 96, 3)


def test_video_of_another_size_is_refused() -> None:
    packets = encode_video([render(make_camera("c", (64, 48)), 0.0)], "libx264", tune="zerolatency")
    with pytest.raises(UndecodableError, match="the image is 64x48, where the calibration says 96x64"):
        VideoDecoder("h264").decode(packets[0], CAMERA)


@pytest.mark.parametrize(
    ("needed", "shape"),
    [
        (None, (64, 96, 3)),
        ((25, 10), (64, 96, 3)),
        ((24, 16), (32, 48, 3)),
        ((12, 8), (16, 24, 3)),
        ((1, 1), (8, 12, 3)),
    ],
)
def test_a_jpeg_is_decoded_no_larger_than_it_is_looked_at(
    needed: tuple[int, int] | None, shape: tuple[int, int, int]
) -> None:
    ramp = np.linspace(0, 255, 96).astype(np.uint8)[None, :, None]
    image = np.broadcast_to(ramp, (64, 96, 3)).copy()
    decoded = decode_image(encode(image), CAMERA, needed and Needed(needed))
    assert decoded.shape == shape
    expected = cv2.resize(image, (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
    assert np.abs(decoded.astype(int) - expected).max() <= 4
    assert decode_image(encode(image, "png"), CAMERA, needed and Needed(needed)).shape == (64, 96, 3)
