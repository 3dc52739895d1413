"""The V4L2 layer against the kernel's own header: its layouts, and a camera compiled against it. No hardware."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from perception.ingest.cameras import v4l2_abi
from perception.ingest.cameras.camera import CameraError
from perception.ingest.cameras.v4l2 import V4l2Device

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
HEADER = Path("/usr/include/linux/videodev2.h")
CAPTURES = v4l2_abi.V4L2_CAP_VIDEO_CAPTURE | v4l2_abi.V4L2_CAP_STREAMING

pytestmark = pytest.mark.skipif(
    shutil.which("gcc") is None or not HEADER.exists(), reason=f"needs gcc and {HEADER} (linux-libc-dev)"
)

READ = """
import json, sys, time
from pathlib import Path
from perception.ingest.cameras.camera import CameraError
from perception.ingest.cameras.v4l2 import V4l2Device
from perception.ingest.decode import UndecodableError

device = V4l2Device(Path("/dev/video-double"), "yuyv", (64, 48), 30.0)
seen = []
for _ in range(int(sys.argv[1])):
    stream = device.open()
    for _ in range(int(sys.argv[2])):
        try:
            shot = stream.read()
        except (UndecodableError, CameraError) as error:
            seen.append([type(error).__name__, str(error)])
            if isinstance(error, CameraError):
                break
            continue
        if shot is None:
            seen.append(None)
            continue
        picture = shot.picture
        seen.append([picture.format, picture.width, picture.height, picture.stride, len(picture.data),
                     sorted(set(picture.data)), shot.stamp_ns, shot.arrival_ns])
    stream.close()
print(json.dumps(seen))
"""


def compiled(source: Path, out: Path, *options: str) -> Path:
    subprocess.run(["gcc", "-Wall", "-Werror", *options, "-o", out, source], check=True)
    return out


def test_structures_and_requests_are_the_kernels(tmp_path: Path) -> None:
    structures = {
        name: structure
        for name, structure in vars(v4l2_abi).items()
        if name.startswith("v4l2_") and isinstance(structure, type) and issubclass(structure, ctypes.Structure)
    }
    ours: dict[str, int] = {}
    for name, structure in structures.items():
        ours[f"sizeof(struct {name})"] = ctypes.sizeof(structure)
        for field in structure._fields_:
            ours[f"offsetof(struct {name}, {field[0]})"] = getattr(structure, field[0]).offset
    constants = {name: value for name, value in vars(v4l2_abi).items() if name.startswith(("V4L2_", "VIDIOC_"))}
    ours.update(constants)
    assert len(structures) >= 8
    assert len(constants) >= 20

    printing = "\n".join(f'printf("%llu\\n", (unsigned long long)({expression}));' for expression in ours)
    source = tmp_path / "layout.c"
    source.write_text(
        "#include <stddef.h>\n#include <stdio.h>\n#include <linux/videodev2.h>\n"
        f"int main(void) {{\n{printing}\nreturn 0;\n}}\n"
    )
    printed = subprocess.run([compiled(source, tmp_path / "layout")], check=True, capture_output=True, text=True)
    theirs = dict(zip(ours, map(int, printed.stdout.split()), strict=True))
    assert ours == theirs


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(HERE / "v4l2_double.c", tmp_path_factory.mktemp("v4l2") / "double.so", "-shared", "-fPIC", "-ldl")


def read(double: Path, frames: str, *, reads: int = 10, opened: int = 1, caps: int = CAPTURES) -> list[Any]:
    """What reading the double gives: frames, errors, None where nothing came."""
    done = run(double, READ, [str(opened), str(reads)], frames, caps)
    assert done.returncode == 0, done.stderr
    seen: list[Any] = json.loads(done.stdout)
    return seen


def run(
    double: Path, program: str, arguments: Sequence[str], frames: str = "f", caps: int = CAPTURES
) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "LD_PRELOAD": str(double),
        "DOUBLE_FRAMES": frames,
        "DOUBLE_CAPS": str(caps),
    }
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], env=environment, capture_output=True, text=True, check=False
    )


def test_frames_come_with_their_pixels_and_the_drivers_stamps(double: Path) -> None:
    seen = [shot for shot in read(double, "f", reads=12) if shot is not None]
    assert len(seen) >= 8  # more than the double has buffers, so each was given back
    for number, (pixel_format, width, height, stride, size, values, stamp_ns, arrival_ns) in enumerate(seen, 1):
        assert (pixel_format, width, height, stride, size) == ("yuyv", 64, 48, 160, 160 * 48)
        assert values == [number]
        assert 0 <= arrival_ns - stamp_ns < 5_000_000_000
    stamps = [shot[6] for shot in seen]
    assert stamps == sorted(set(stamps))


def test_a_frame_that_the_driver_marks_as_damaged_is_told_and_the_next_one_comes(double: Path) -> None:
    seen = [shot for shot in read(double, "fef", reads=6) if shot is not None]
    assert seen[1] == ["UndecodableError", "the driver marks it as damaged"]
    assert [shot[0] for shot in seen[:3]] == ["yuyv", "UndecodableError", "yuyv"]


def test_stamps_of_another_clock_are_not_passed_on(double: Path) -> None:
    seen = [shot for shot in read(double, "s", reads=3) if shot is not None]
    assert seen
    assert all(shot[6] is None for shot in seen)


def test_unplugged_is_told_and_plugged_in_again_it_streams(double: Path) -> None:
    seen = [shot for shot in read(double, "ffu", reads=20, opened=2) if shot is not None]
    assert [shot[0] for shot in seen] == ["yuyv", "yuyv", "CameraError"] * 2
    assert seen[2] == ["CameraError", "unplugged"]


@pytest.mark.parametrize(
    ("arguments", "caps", "told"),
    [
        ('"yuyv", (640, 480)', CAPTURES, "it gives 64x48 YUYV, where the calibration says 640x480"),
        ('"mjpeg", (64, 48)', CAPTURES, "it gives 64x48 YUYV, where the calibration says 64x48 and the config mjpeg"),
        ('"yuyv", (64, 48), 25.0', CAPTURES, "its rate cannot be set to 25 Hz"),
        ('"yuyv", (64, 48)', v4l2_abi.V4L2_CAP_STREAMING, "no capture device"),
        ('"yuyv", (64, 48)', v4l2_abi.V4L2_CAP_VIDEO_CAPTURE_MPLANE, "in separate planes only; use source: gstreamer"),
        ('"yuyv", (64, 48)', v4l2_abi.V4L2_CAP_VIDEO_CAPTURE, "does not stream"),
    ],
)
def test_what_a_camera_cannot_do_is_told(double: Path, arguments: str, caps: int, told: str) -> None:
    program = (
        "from pathlib import Path\n"
        "from perception.ingest.cameras.v4l2 import V4l2Device\n"
        f"V4l2Device(Path('/dev/video-double'), {arguments}).open()\n"
    )
    done = run(double, program, [], caps=caps)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "CameraError: /dev/video-double: " in last
    assert told in last


def test_what_is_no_camera_is_told(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match="No such file"):
        V4l2Device(tmp_path / "video0", "mjpeg", (64, 48)).open()
    with pytest.raises(CameraError, match="is no V4L2 device"):
        V4l2Device(Path("/dev/zero"), "mjpeg", (64, 48)).open()
