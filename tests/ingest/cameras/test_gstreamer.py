"""Real pipelines of GStreamer, where it can be had."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from perception.errors import BackendError, ConfigError
from perception.ingest.cameras.camera import CameraError, RawPicture, Shot
from perception.ingest.cameras.gstreamer import Format, GStreamerDevice, GStreamerStream, load_gstreamer
from perception.ingest.cameras.pixels import to_image
from tests.drives import make_camera

MS = 1_000_000
CAMERA = make_camera("CAM", (98, 64))
"""Rows of BGR that GStreamer pads: 98 times 3 is not a multiple of 4."""

LIVE = "videotestsrc is-live=true pattern={pattern} ! video/x-raw,width=98,height=64,framerate=50/1"


@pytest.fixture(scope="module", autouse=True)
def _gstreamer() -> None:
    try:
        load_gstreamer()
    except BackendError as error:
        pytest.skip(str(error))


def reading(stream: GStreamerStream) -> Iterator[Shot]:
    while True:
        shot = stream.read()
        if shot is not None:
            yield shot


def first(launch: str, pixel_format: Format) -> Shot:
    with closing(GStreamerDevice(launch, pixel_format).open()) as stream:
        return next(reading(stream))


@pytest.mark.parametrize("pixel_format", ["bgr", "nv12", "mjpeg"])
@pytest.mark.parametrize(("pattern", "colour"), [("red", (0, 0, 255)), ("blue", (255, 0, 0))])
def test_pictures_come_in_their_colours(pattern: str, colour: tuple[int, int, int], pixel_format: Format) -> None:
    launch = LIVE.format(pattern=pattern) + (" ! jpegenc" if pixel_format == "mjpeg" else "")
    picture = first(launch, pixel_format).picture
    assert isinstance(picture, bytes if pixel_format == "mjpeg" else RawPicture)
    image = to_image(picture, CAMERA)
    assert image.shape == (64, 98, 3)
    assert np.abs(image.astype(int) - colour).mean() < 18  # jpegenc does not stretch video's range to JPEG's


def test_captures_are_stamped_by_the_source_before_any_conversion() -> None:
    launch = LIVE.format(pattern="ball") + " ! identity sleep-time=30000"  # a slow conversion
    with closing(GStreamerDevice(launch, "bgr").open()) as stream:
        began_ns = time.monotonic_ns()
        shots = [shot for shot, _ in zip(reading(stream), range(8), strict=False)]
    stamps_ns = [shot.stamp_ns for shot in shots if shot.stamp_ns is not None]
    assert len(stamps_ns) == 8
    for shot, stamp_ns in zip(shots, stamps_ns, strict=True):
        assert shot.arrival_ns - stamp_ns > 25 * MS
        assert began_ns - 2_000 * MS < stamp_ns < shot.arrival_ns
    apart_ns = [b - a for a, b in pairwise(stamps_ns)]
    assert all(ns >= 19 * MS for ns in apart_ns)
    assert all(abs(ns - round(ns / (20 * MS)) * 20 * MS) < MS for ns in apart_ns)  # its own pace, with some left out


def test_whoever_reads_slowly_gets_the_latest_picture() -> None:
    with closing(GStreamerDevice(LIVE.format(pattern="ball"), "nv12").open()) as stream:
        shots = reading(stream)
        next(shots)
        time.sleep(0.5)
        late = next(shots)
    assert late.stamp_ns is not None
    assert late.arrival_ns - late.stamp_ns < 300 * MS


def test_the_end_of_a_pipeline_and_a_failing_element_are_told() -> None:
    for launch, told in [
        ("videotestsrc num-buffers=3", "^the pipeline came to its end$"),
        (LIVE.format(pattern="ball") + " ! identity error-after=5", "^identity: Failed after iterations as requested"),
    ]:
        with closing(GStreamerDevice(launch, "bgr").open()) as stream, pytest.raises(CameraError, match=told):
            list(reading(stream))


def test_a_device_that_is_not_there_is_told_alike_each_time(tmp_path: Path) -> None:
    device = GStreamerDevice(f"filesrc location={tmp_path / 'none'} ! jpegdec", "bgr")
    told = set()
    for _ in range(2):
        with pytest.raises(CameraError) as caught, closing(device.open()) as stream:
            next(reading(stream))
        told.add(str(caught.value))
    assert told == {"filesrc: Resource not found."}


@pytest.mark.parametrize(
    ("launch", "told"),
    [
        ("no-such-element", 'no element "no-such-element"'),
        ("videotestsrc ! ! x", "syntax error"),
        ("videotestsrc ! fakesink", "could not link fakesink0 to videoconvert"),
        ("videotestsrc no-such-property=1", 'no property "no-such-property"'),
    ],
)
def test_a_launch_string_that_is_no_pipeline_is_refused_at_once(launch: str, told: str) -> None:
    with pytest.raises(ConfigError, match=r"^launch: .*: not a pipeline: ") as caught:
        GStreamerDevice(launch, "bgr")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_pygobject_it_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['gi'] = None\n"
        "from perception.ingest.cameras import gstreamer\n"
        "gstreamer._DISTRIBUTION = '/nowhere'\n"
        "gstreamer.GStreamerDevice('videotestsrc', 'bgr')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3]
    )
    assert (
        done.stderr.strip()
        .splitlines()[-1]
        .startswith("perception.errors.BackendError: source: gstreamer needs PyGObject and GStreamer")
    )
    assert "apt install python3-gi" in done.stderr
