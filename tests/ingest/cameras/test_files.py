from __future__ import annotations

import time
from contextlib import closing
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Literal

import av
import pytest
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from perception.ingest.cameras.av import FileDevice
from perception.ingest.cameras.camera import CameraError, Shot, Stream
from perception.ingest.cameras.pixels import to_image
from tests.drives import encode, make_camera, render

MS = 1_000_000
CAMERA = make_camera("CAM", (96, 64))
IMAGES = [render(CAMERA, 0.1 * number, seed=number) for number in range(10)]
JPEGS = [encode(image) for image in IMAGES]
PERIOD_NS = 40 * MS
LENGTH_NS = len(IMAGES) * PERIOD_NS


def write_video(path: Path, codec: Literal["mjpeg", "libx264"]) -> Path:
    """The images, 25 a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = 96, 64
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.time_base = Fraction(1, 25)
        if codec == "libx264":
            stream.options = {"g": "4", "bf": "2", "crf": "18"}
            for number, image in enumerate(IMAGES):
                frame = VideoFrame.from_ndarray(image, format="bgr24")
                frame.pts = number
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        for number, jpeg in enumerate(JPEGS if codec == "mjpeg" else []):
            packet = av.Packet(jpeg)
            packet.pts = packet.dts = number
            packet.time_base, packet.stream, packet.duration = Fraction(1, 25), stream, 1
            packet.is_keyframe = True
            container.mux(packet)
    return path


def read(stream: Stream, count: int) -> list[Shot]:
    shots: list[Shot] = []
    while len(shots) < count:
        shot = stream.read()
        if shot is not None:
            shots.append(shot)
    return shots


def number_of(picture: object) -> int:
    """Which of the images it is."""
    if isinstance(picture, bytes):
        return JPEGS.index(picture)
    assert isinstance(picture, VideoFrame)
    shown = to_image(picture, CAMERA).astype(int)
    return min(range(len(IMAGES)), key=lambda number: abs(shown - IMAGES[number]).sum())


@pytest.mark.parametrize(("codec", "name"), [("mjpeg", "video.avi"), ("libx264", "video.mp4")])
def test_a_file_plays_as_a_broadcast_over_and_over(
    tmp_path: Path, codec: Literal["mjpeg", "libx264"], name: str
) -> None:
    path = write_video(tmp_path / name, codec)
    began_ns = time.monotonic_ns() - 7 * LENGTH_NS - 5 * PERIOD_NS
    with closing(FileDevice(path, began_ns).open()) as stream:
        shots = read(stream, 15)
    for shot in shots:
        assert shot.stamp_ns is not None
        assert 0 <= shot.arrival_ns - shot.stamp_ns < 5_000 * MS
        at, off_ns = divmod(shot.stamp_ns - began_ns + MS, PERIOD_NS)
        assert off_ns <= 2 * MS
        assert number_of(shot.picture) == at % len(IMAGES)
    stamps_ns = [shot.stamp_ns or 0 for shot in shots]
    assert all(a < b for a, b in pairwise(stamps_ns))
    assert stamps_ns[-1] - stamps_ns[0] >= LENGTH_NS  # it began again


def test_what_is_no_video_is_told(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match="No such file"):
        FileDevice(tmp_path / "none.mp4", 0).open()
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    with pytest.raises(CameraError, match="Invalid data"):
        FileDevice(text, 0).open()
    raw = write_video(tmp_path / "video.h264", "libx264")
    with pytest.raises(CameraError, match="expected a video file"):
        FileDevice(raw, 0).open()
    whole = write_video(tmp_path / "video.mkv", "libx264")
    cut = tmp_path / "cut.mkv"
    duration, void = b"\x44\x89\x88", b"\xec\x89\x00"  # heads of Matroska elements of 11 bytes
    cut.write_bytes(whole.read_bytes().replace(duration, void))
    with pytest.raises(CameraError, match="does not tell how long it is"):
        FileDevice(cut, 0).open()
    playlist = tmp_path / "list.m3u8"
    playlist.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:1/x.ts\n")
    with pytest.raises(CameraError):
        FileDevice(playlist, 0).open()
