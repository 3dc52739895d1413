from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from perception import backends
from perception.errors import BackendError
from perception.output.jsonl import read_tracks
from perception.run import EXIT_DAMAGED, EXIT_INTERRUPTED, EXIT_REFUSED, main
from tests.drives import START_NS, encode, make_camera, open_writer, render, write_drive
from tests.models import write_colour_detector

CAMERAS = ("CAM_FRONT", "CAM_LEFT", "CAM_BACK", "CAM_RIGHT")


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_drive(tmp_path_factory.mktemp("drive") / "d.mcap", cameras=CAMERAS, ticks=12, rate_hz=10.0).path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colour_detector(tmp_path_factory.mktemp("model") / "colours.onnx")


def replay(drive: Path, model: Path, out: Path, *more: str) -> int:
    command = ["--config", "cpu.yaml", "--replay", str(drive), "--model", str(model), "--out", str(out)]
    return main([*command, *more])


def summary(out: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return record


def test_a_drive_becomes_tracks_with_every_result(drive: Path, model: Path, tmp_path: Path) -> None:
    assert replay(drive, model, tmp_path, "--pace", "stepped", "--video", "--trace", "--record-images") == 0
    names = {path.name for path in tmp_path.iterdir()}
    written = {"tracks.jsonl", "detections.jsonl", "decisions.jsonl", "recording.mcap", "summary.json"}
    assert names == {*written, "trace.json", "video.mp4"}
    assert summary(tmp_path)["ticks"]["published"] == 12
    final = list(read_tracks(tmp_path / "tracks.jsonl"))[-1]
    # The car drives away at 6 m/s from 15 m ahead of where the vehicle started; both cameras see it as one.
    cars = [track for track in final.tracks if track.class_name == "car"]
    assert len(cars) == 1
    assert {track.class_name for track in final.tracks} == {"car", "truck", "pedestrian"}


def test_real_time_replay_takes_as_long_as_the_drive_and_counts_late_ticks(
    drive: Path, model: Path, tmp_path: Path
) -> None:
    began = time.monotonic()
    assert replay(drive, model, tmp_path) == 0
    assert time.monotonic() - began > 1.1
    ticks = summary(tmp_path)["ticks"]
    assert ticks["published"] == 12
    assert ticks["on_time"] + ticks["late"] == 12
    assert summary(tmp_path)["end_to_end"]["count"] == 12


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_stepped_replay_is_exact_whatever_the_threads(drive: Path, model: Path, tmp_path: Path, runtime: str) -> None:
    results = set()
    for run, threads in enumerate(("1", "2", "2")):
        out = tmp_path / str(run)
        options = ["--pace", "stepped", "--threads", threads, "--set", f"detector.runtime={runtime}"]
        assert replay(drive, model, out, *options) == 0
        results.add((out / "tracks.jsonl").read_bytes())
    assert len(results) == 1
    assert b'"class":"car"' in results.pop()


def test_what_was_recorded_replays_to_the_same_tracks(drive: Path, model: Path, tmp_path: Path) -> None:
    assert replay(drive, model, tmp_path / "a", "--pace", "stepped", "--record-images") == 0
    assert replay(tmp_path / "a" / "recording.mcap", model, tmp_path / "b", "--pace", "stepped") == 0
    first, second = (list(read_tracks(tmp_path / run / "tracks.jsonl")) for run in "ab")
    assert [len(tracks.tracks) for tracks in first] == [len(tracks.tracks) for tracks in second]
    assert [tracks.stamp_ns for tracks in first] == [tracks.stamp_ns for tracks in second]


def test_a_run_does_not_write_over_the_recording_it_replays(
    drive: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = tmp_path / "recording.mcap"
    recording.write_bytes(drive.read_bytes())
    assert replay(recording, model, tmp_path, "--pace", "stepped") == EXIT_REFUSED
    assert "--out" in capsys.readouterr().err
    assert recording.read_bytes() == drive.read_bytes()


def test_a_truncated_drive_is_processed_up_to_the_damage(
    drive: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(drive.read_bytes()[: drive.stat().st_size * 2 // 3])
    assert replay(cut, model, tmp_path / "out", "--pace", "stepped") == EXIT_DAMAGED
    assert 0 < summary(tmp_path / "out")["ticks"]["published"] < 12
    assert "cut.mcap" in capsys.readouterr().err


def test_looping_goes_on_in_time(drive: Path, model: Path, tmp_path: Path) -> None:
    assert replay(drive, model, tmp_path, "--pace", "stepped", "--loop", "3") == 0
    stamps = [tracks.stamp_ns for tracks in read_tracks(tmp_path / "tracks.jsonl")]
    assert len(stamps) == 36
    assert stamps == sorted(stamps)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_valid_files(drive: Path, model: Path, tmp_path: Path, number: int) -> None:
    command = [sys.executable, "-m", "perception.run", "--config", "cpu.yaml", "--loop", "100"]
    paths = ["--replay", str(drive), "--model", str(model), "--out", str(tmp_path)]
    process = subprocess.Popen([*command, *paths], stdout=subprocess.DEVNULL)
    partial = tmp_path / "tracks.jsonl.partial"
    deadline = time.monotonic() + 30
    while not (partial.exists() and partial.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, number)
    assert process.wait(timeout=30) == EXIT_INTERRUPTED
    assert not partial.exists()
    published = list(read_tracks(tmp_path / "tracks.jsonl"))
    assert summary(tmp_path)["ticks"]["published"] == len(published) > 0


def test_an_interrupt_is_heard_while_a_recording_pauses(model: Path, tmp_path: Path) -> None:
    drive = tmp_path / "pause.mcap"
    with open_writer(drive) as writer:
        front = make_camera("CAM_FRONT", (96, 64))
        writer.transform("base_link", "CAM_FRONT", front.base_from_camera, START_NS)
        writer.calibration(front, START_NS)
        for at_s in (0.0, 0.1, 0.2, 30.0):
            writer.image("CAM_FRONT", START_NS + round(at_s * 1e9), encode(render(front, at_s)))
    command = [sys.executable, "-m", "perception.run", "--config", "cpu.yaml"]
    out = tmp_path / "out"
    process = subprocess.Popen([*command, "--replay", str(drive), "--model", str(model), "--out", str(out)])
    while not (out / "tracks.jsonl.partial").exists() and process.poll() is None:
        time.sleep(0.05)
    time.sleep(1.0)  # in the pause by now, or before its beginning
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(timeout=10) == EXIT_INTERRUPTED
    assert summary(out)["ticks"]["published"] == len(list(read_tracks(out / "tracks.jsonl"))) > 0


def test_a_refused_run_leaves_the_results_of_the_one_before(drive: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert replay(drive, model, out, "--pace", "stepped") == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    flight = ("--set", "flight.enabled=true", "--set", "flight.directory=/proc/nowhere")
    assert replay(drive, model, out, "--pace", "stepped", *flight) == EXIT_REFUSED
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--config", "nowhere.yaml"], ["nowhere.yaml", "orin.yaml"]),
        (["--set", "nms.iou_treshold=1"], ["iou_treshold", "iou_threshold"]),
        (["--replay", "nowhere.mcap"], ["nowhere.mcap"]),
        (["--model", "nowhere.onnx"], ["nowhere.onnx"]),
        (["--out", "/proc/nowhere"], ["/proc/nowhere", "--out"]),
        (["--set", "detector.names=[sofa, lamp]"], ["sofa, lamp", "detector.classes"]),
        (["--set", "detector.classes={sofa: car}"], ["sofa"]),
        (["--set", "detector.head=yolox"], ["yolox", "3x6"]),
    ],
)
def test_what_cannot_run_is_refused_in_one_line(  # noqa: PLR0917 (fixtures and parameters)
    drive: Path,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    parts: list[str],
) -> None:
    assert replay(drive, model, tmp_path / "out", *arguments) == EXIT_REFUSED
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    for part in parts:
        assert part in error
    assert not list(tmp_path.glob("out/*"))


def test_nothing_to_replay_and_no_model_are_said(drive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", "cpu.yaml", "--set", "replay=null"]) == EXIT_REFUSED
    assert "--replay" in capsys.readouterr().err
    assert main(["--config", "cpu.yaml", "--replay", str(drive), "--set", "detector.model=null"]) == EXIT_REFUSED
    assert "--model" in capsys.readouterr().err


def test_auto_says_why_it_runs_on_the_cpu_and_cuda_refuses() -> None:
    device = backends.choose_device("auto")
    assert device.name == "cpu"
    assert device.reason
    with pytest.raises(BackendError, match="--device cpu"):
        backends.choose_device("cuda")


def test_printing_the_config_runs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", "orin.yaml", "--set", "nms.iou_threshold=0.61", "--print-config"]) == 0
    assert "iou_threshold: 0.61" in capsys.readouterr().out
