"""Ctrl-C and SIGTERM at any moment of a run: exit code 1, a line, no traceback, and nothing half-written."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from perception.interrupts import EXIT_INTERRUPTED
from perception.output.jsonl import read_tracks
from tests.drives import write_drive
from tests.models import write_colour_detector

PATIENCE_S = 60.0
BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
RUN = "import runpy, sys; sys.argv[0] = ''; runpy.run_module('perception.run', run_name='__main__')"
FUSION_HANGS = """
import pathlib, time
from perception.fusion.camera_fusion import CameraFusion
update, calls = CameraFusion.update, []
def hang(self, *arguments):
    calls.append(1)
    while len(calls) > 3:
        pathlib.Path({hangs!r}).touch()
        time.sleep(0.1)
    return update(self, *arguments)
CameraFusion.update = hang
"""


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_drive(tmp_path_factory.mktemp("drive") / "d.mcap", image_size=(160, 96), ticks=20).path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colour_detector(tmp_path_factory.mktemp("model") / "colours.onnx", (160, 96))


@pytest.fixture
def command(drive: Path, model: Path, tmp_path: Path) -> list[str]:
    paths = ["--replay", str(drive), "--model", str(model), "--out", str(tmp_path / "out")]
    return ["--config", "cpu.yaml", *paths]


@contextmanager
def running(command: list[str], patch: str = "") -> Iterator[subprocess.Popen[str]]:
    start = ["-c", f"{patch}\n{RUN}"] if patch else ["-m", "perception.run"]
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, *start, *command], stdout=pipe, stderr=pipe, text=True) as process:
        yield process
        process.kill()


def until(process: subprocess.Popen[str], happened: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not happened():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.001)


def has_loaded(process: subprocess.Popen[str], library: str) -> Callable[[], bool]:
    return lambda: library in Path(f"/proc/{process.pid}/maps").read_text()


def lines_of(process: subprocess.Popen[str]) -> list[str]:
    """What it wrote to standard error until it ended."""
    _, errors = process.communicate(timeout=PATIENCE_S)
    return errors.splitlines()


@BOTH
@pytest.mark.parametrize("library", ["numpy", "openvino"], ids=["while it is imported", "while it warms up"])
def test_before_there_is_anything_to_keep(command: list[str], tmp_path: Path, number: int, library: str) -> None:
    with running(command) as process:
        until(process, has_loaded(process, library))
        process.send_signal(number)
        assert lines_of(process) == ["interrupted: nothing was written"]
        assert process.returncode == EXIT_INTERRUPTED
    assert not (tmp_path / "out").exists()


@BOTH
def test_a_burst_in_the_middle_is_one_and_keeps_what_was_there(command: list[str], tmp_path: Path, number: int) -> None:
    tracks = tmp_path / "out" / "tracks.jsonl"
    partial = tracks.with_name("tracks.jsonl.partial")
    with running([*command, "--loop", "1000"]) as process:
        until(process, lambda: partial.exists() and partial.read_bytes().count(b"\n") > 3)
        end = time.monotonic() + 0.5
        while process.poll() is None and time.monotonic() < end:
            process.send_signal(number)
            time.sleep(0.0005)
        *steps, line = lines_of(process)
        assert process.returncode == EXIT_INTERRUPTED
    assert all(step.startswith("tick ") for step in steps)  # on the ladder: the machine may be busy
    count = len(list(read_tracks(tracks)))
    assert line == f"interrupted: the results are of {count} ticks"
    assert (tmp_path / "out" / "summary.json").is_file()
    assert not list(tmp_path.rglob("*.partial"))


def test_while_the_video_is_drawn(command: list[str], tmp_path: Path) -> None:
    with running([*command, "--loop", "20", "--pace", "stepped", "--video"]) as process:
        until(process, (tmp_path / "out" / "video.mp4.partial").exists)
        process.send_signal(signal.SIGINT)
        assert lines_of(process) == ["interrupted: the results are of 400 ticks"]
        assert process.returncode == EXIT_INTERRUPTED
    assert (tmp_path / "out" / "summary.json").is_file()
    assert not (tmp_path / "out" / "video.mp4").exists()
    assert not list(tmp_path.rglob("*.partial"))


def test_who_asks_again_does_not_wait_for_what_hangs(command: list[str], tmp_path: Path) -> None:
    partial = tmp_path / "out" / "tracks.jsonl.partial"
    hangs = tmp_path / "hangs"
    with running(command, FUSION_HANGS.format(hangs=str(hangs))) as process:
        until(process, hangs.exists)
        process.send_signal(signal.SIGINT)
        time.sleep(1.2)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert lines_of(process) == ["interrupted again: what was being written stays as *.partial"]
        assert process.returncode == EXIT_INTERRUPTED
    assert len(list(read_tracks(partial))) == 3
