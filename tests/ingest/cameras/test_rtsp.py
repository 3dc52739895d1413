"""A real RTSP server on loopback, where the distribution's can be had."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest
from av.video.frame import VideoFrame

from perception.ingest.cameras import av
from perception.ingest.cameras.av import RtspDevice
from perception.ingest.cameras.camera import CameraError, Shot, Stream
from perception.ingest.cameras.feed import Feed
from perception.ingest.cameras.pixels import to_image
from tests.drives import make_camera
from tests.ingest.cameras.devices import MS, until

PYTHON: Final = "/usr/bin/python3"
SERVER: Final = Path(__file__).with_name("rtsp_server.py")
CAMERA = make_camera("CAM", (320, 240))
SOURCE: Final = "videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=240,framerate=25/1"
H264: Final = f"{SOURCE} ! openh264enc gop-size=10 ! rtph264pay name=pay0 config-interval=-1"
JPEG: Final = f"{SOURCE},format=I420 ! jpegenc ! rtpjpegpay name=pay0"
NEEDED: Final = """
import gi
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
assert all(map(Gst.ElementFactory.find, ["openh264enc", "jpegenc", "rtph264pay"]))
"""


@pytest.fixture(scope="module", autouse=True)
def _rtsp_server() -> None:
    there = shutil.which(PYTHON) is not None
    if not there or subprocess.run([PYTHON, "-c", NEEDED], capture_output=True, check=False).returncode:
        pytest.skip(
            "needs an RTSP server: apt install python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good "
            "gstreamer1.0-plugins-bad"
        )


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def serve(port: int) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """Start the server; what still runs is killed in the end."""
    servers = []

    def start(launch: str) -> subprocess.Popen[bytes]:
        server = subprocess.Popen([PYTHON, SERVER, str(port), launch], stdout=subprocess.PIPE)
        servers.append(server)
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        return server

    yield start
    for server in servers:
        server.kill()
        server.communicate()


def read(stream: Stream, count: int) -> list[Shot]:
    shots = (stream.read() for _ in range(100 * count))
    return [shot for shot, _ in zip((shot for shot in shots if shot is not None), range(count), strict=False)]


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize(("launch", "kind"), [(H264, VideoFrame), (JPEG, bytes)], ids=["h264", "jpeg"])
def test_pictures_come_with_when_they_were_sent(
    port: int, serve: Callable[[str], object], launch: str, kind: type[object], transport: str
) -> None:
    serve(launch)
    device = RtspDevice(f"rtsp://127.0.0.1:{port}/camera", transport, timeout_s=10)  # type: ignore[arg-type]
    with closing(device.open()) as stream:
        shots = read(stream, 12)
    assert len(shots) == 12
    for shot in shots:
        assert isinstance(shot.picture, kind)
        assert to_image(shot.picture, CAMERA).shape == (240, 320, 3)
        assert shot.stamp_ns is not None
        assert shot.stamp_ns <= shot.arrival_ns
    apart_ns = [(b.stamp_ns or 0) - (a.stamp_ns or 0) for a, b in pairwise(shots)]
    assert all(ns > 0 for ns in apart_ns)


def test_it_comes_back_when_the_server_does(port: int, serve: Callable[[str], subprocess.Popen[bytes]]) -> None:
    device = RtspDevice(f"rtsp://127.0.0.1:{port}/camera", "tcp", timeout_s=2)
    feed = Feed("CAM", device, threading.Condition(), timeout_s=2, frozen_s=None)
    feed.start()
    try:
        until(lambda: feed.health().state == "lost")  # nobody serves yet
        server = serve(H264)
        until(lambda: feed.health().frames >= 5)
        for lives in (1, 2):
            server.kill()
            server.wait()
            until(lambda: feed.health().state == "lost")
            frames = feed.health().frames
            server = serve(H264)
            until(lambda frames=frames: feed.health().frames >= frames + 5)  # type: ignore[misc]
            assert feed.health().reconnects == lives + 1
    finally:
        feed.stop()
        feed.join(10)
    assert any("Connection refused" in line for line in feed.faults())


def test_a_server_that_hangs_is_given_up(port: int, serve: Callable[[str], subprocess.Popen[bytes]]) -> None:
    server = serve(H264)
    with closing(RtspDevice(f"rtsp://127.0.0.1:{port}/camera", "tcp", timeout_s=1).open()) as stream:
        read(stream, 3)
        os.kill(server.pid, 19)  # SIGSTOP: it neither sends nor closes
        began = time.monotonic()
        with pytest.raises(CameraError, match="nothing came in time"):
            read(stream, 1000)
    assert 1 <= time.monotonic() - began < 30


def test_a_wrong_path_is_told_and_a_password_is_not(
    port: int, serve: Callable[[str], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(H264)
    monkeypatch.setenv("CAMERA_PASSWORD", "s3cret")
    device = RtspDevice(f"rtsp://driver:${{CAMERA_PASSWORD}}@127.0.0.1:{port}/elsewhere", "tcp", timeout_s=5)
    with pytest.raises(CameraError) as caught:
        device.open()
    assert str(caught.value).startswith("127.0.0.1: ")
    assert "s3cret" not in str(caught.value)
    assert "404" in str(caught.value)


def test_a_silent_peer_is_given_up(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av, "_CONNECT_S", 1.0)
    with socket.create_server(("127.0.0.1", port)):
        began = time.monotonic()
        with pytest.raises(CameraError, match=r"^127\.0\.0\.1: no answer$"):
            RtspDevice(f"rtsp://127.0.0.1:{port}/camera", "tcp", timeout_s=1).open()
    assert time.monotonic() - began < 30


def test_stamps_keep_the_cameras_pace(port: int, serve: Callable[[str], object]) -> None:
    serve(JPEG)
    with closing(RtspDevice(f"rtsp://127.0.0.1:{port}/camera", "tcp", timeout_s=10).open()) as stream:
        shots = read(stream, 30)
    stamps_ns = [shot.stamp_ns or 0 for shot in shots][10:]
    assert abs((stamps_ns[-1] - stamps_ns[0]) - 19 * 40 * MS) < 15 * MS
