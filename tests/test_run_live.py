"""`python -m perception.run` on live cameras: files that play as cameras do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from perception.output.jsonl import read_tracks
from perception.run import EXIT_INTERRUPTED, EXIT_REFUSED, main
from tests.drives import write_drive
from tests.ingest.cameras.test_files import write_video
from tests.models import write_colour_detector

CAMERAS = ("CAM_FRONT", "CAM_BACK")
MOUNT = {"translation_m": [0.0, 0.0, 1.5]}
RIG = {"width": 96, "height": 64, "fx": 48.0, "fy": 48.0, "cx": 48.0, "cy": 32.0, "mount": MOUNT}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colour_detector(tmp_path_factory.mktemp("model") / "colours.onnx")


@pytest.fixture
def vehicle(tmp_path: Path, model: Path) -> Path:
    """A vehicle's config whose cameras are videos that are still to be written."""
    (tmp_path / "rig.yaml").write_text(yaml.safe_dump({"cameras": dict.fromkeys(CAMERAS, RIG)}))
    tree = {
        "extends": "cpu.yaml",
        "replay": None,
        "rig": "rig.yaml",
        "detector": {"model": str(model)},
        "output": {"directory": str(tmp_path / "out")},
        "cameras": {name: {"source": "file", "path": f"{name}.avi"} for name in CAMERAS},
    }
    config = tmp_path / "vehicle.yaml"
    config.write_text(yaml.safe_dump(tree))
    return config


def run_until(vehicle: Path, happened: Callable[[], bool], *more: str) -> tuple[int, str]:
    """Run until something happened, and interrupt; the exit code and what was printed."""
    command = [sys.executable, "-m", "perception.run", "--config", str(vehicle), *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    end = time.monotonic() + 60
    while not happened() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    return process.returncode, printed


def test_live_cameras_become_tracks_until_it_is_told_to_stop(vehicle: Path) -> None:
    for name in CAMERAS:
        write_video(vehicle.parent / f"{name}.avi", "mjpeg")
    out = vehicle.parent / "out"
    partial = out / "tracks.jsonl.partial"
    code, printed = run_until(vehicle, lambda: partial.exists() and len(partial.read_text().splitlines()) > 20)
    assert code == EXIT_INTERRUPTED, printed
    assert "live      CAM_BACK by file, CAM_FRONT by file" in printed
    published = list(read_tracks(out / "tracks.jsonl"))
    assert len(published) > 20
    assert all(a.stamp_ns < b.stamp_ns for a, b in pairwise(published))
    assert abs(published[-1].stamp_ns - time.time_ns()) < 120 * 10**9
    assert json.loads((out / "summary.json").read_text())["ticks"]["published"] == len(published)


def test_without_any_camera_it_waits_and_stops_when_told_to(vehicle: Path) -> None:
    started = vehicle.parent / "out" / "tracks.jsonl.partial"
    code, printed = run_until(vehicle, started.exists)
    assert code == EXIT_INTERRUPTED, printed


def test_a_drive_that_is_named_is_replayed_in_place_of_the_cameras(
    vehicle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drive = write_drive(vehicle.parent / "d.mcap", cameras=CAMERAS, ticks=3).path
    assert main(["--config", str(vehicle), "--replay", str(drive), "--set", "rig=null", "--pace", "stepped"]) == 0
    assert "in place of the live cameras" in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--pace", "stepped"], "pace: stepped: is for replays"),
        (["--video"], "output.video: is for replays"),
        (["--set", "cameras={}"], "there is nothing to run on"),
        (["--set", "rig=null"], "the cameras are not calibrated"),
        (["--set", "cameras.CAM_FRONT.path=null"], "cameras.CAM_FRONT.file.path"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    vehicle: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    assert main(["--config", str(vehicle), *arguments]) == EXIT_REFUSED
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert told in line
