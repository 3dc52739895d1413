"""What the flight recorder wrote of a bad minute, had again at the desk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from perception.output.jsonl import read_tracks
from perception.run import EXIT_REFUSED, main
from tests.drives import write_drive
from tests.models import write_colour_detector
from tests.test_assumed_run import CAMERAS, write_profile


@pytest.fixture(name="bad_minute", scope="module")
def _bad_minute(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run on a machine with one slow camera, and an event of it under ``flight``."""
    directory = tmp_path_factory.mktemp("minute")
    drive = write_drive(directory / "d.mcap", cameras=CAMERAS, ticks=40).path
    model = write_colour_detector(directory / "m.onnx")
    slow = write_profile(directory / "p.yaml", {}, CAM_LEFT={"detect_ms": 150.0})
    command = ["--config", "cpu.yaml", "--replay", str(drive), "--model", str(model), "--out", str(directory / "run")]
    flight = {"enabled": True, "directory": str(directory / "flight"), "before_s": 0.5, "after_s": 0.5}
    flight |= {"overruns": 3, "overruns_within_s": 2.0}
    assert main([*command, "--assume", str(slow), "--set", f"flight={json.dumps(flight)}"]) == 0
    return directory


def lines(path: Path) -> dict[int, list[bytes]]:
    """The lines of a ``.jsonl`` by tick."""
    found: dict[int, list[bytes]] = {}
    for line in path.read_bytes().splitlines():
        found.setdefault(json.loads(line)["tick"], []).append(line)
    return found


def test_an_event_is_had_again_with_the_same_decisions_and_detections(bad_minute: Path, tmp_path: Path) -> None:
    event = next(iter(sorted((bad_minute / "flight").iterdir())))
    described: dict[str, Any] = json.loads((event / "event.json").read_text())
    assert described["reasons"][0]["what"] == "3 overruns in 2 s"
    ticks = range(described["first"]["tick"], described["last"]["tick"] + 1)
    assert len(ticks) == described["ticks"]

    command = ["--config", "cpu.yaml", "--model", str(bad_minute / "m.onnx"), "--decisions", str(event)]
    assert main([*command, "--out", str(tmp_path)]) == 0
    again = list(read_tracks(tmp_path / "tracks.jsonl"))
    then = {tracks.tick: tracks for tracks in read_tracks(bad_minute / "run" / "tracks.jsonl")}
    assert [tracks.tick for tracks in again] == list(ticks)
    assert [tracks.decision for tracks in again] == [then[tick].decision for tick in ticks]
    assert any(tracks.decision.late for tracks in again)
    detections = lines(bad_minute / "run" / "detections.jsonl")
    assert lines(tmp_path / "detections.jsonl") == {tick: detections[tick] for tick in ticks}


def test_an_event_is_had_again_with_the_config_and_the_model_that_it_was_made_with(
    bad_minute: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    event = next(iter(sorted((bad_minute / "flight").iterdir())))
    assert main(["--decisions", str(event), "--out", str(tmp_path)]) == 0
    detections = lines(bad_minute / "run" / "detections.jsonl")
    again = lines(tmp_path / "detections.jsonl")
    assert again == {tick: detections[tick] for tick in again} != {}
    assert "it was" not in capsys.readouterr().out
    assert main(["--decisions", str(event), "--out", str(tmp_path), "--set", "nms.iou_threshold=0.1"]) == 0
    assert "nms.iou_threshold: it was 0.5, and is 0.1" in capsys.readouterr().out


def test_an_event_that_was_never_completed_wants_a_config_named(
    bad_minute: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    event = next(iter(sorted((bad_minute / "flight").iterdir())))
    shutil.copytree(event, tmp_path / "event")
    (tmp_path / "event" / "event.json").unlink()
    assert main(["--decisions", str(tmp_path / "event")]) == EXIT_REFUSED
    assert "holds no config; name that of the run with --config" in capsys.readouterr().err


def test_an_event_replays_as_a_drive(bad_minute: Path, tmp_path: Path) -> None:
    event = next(iter(sorted((bad_minute / "flight").iterdir())))
    command = ["--config", "cpu.yaml", "--model", str(bad_minute / "m.onnx"), "--pace", "stepped"]
    assert main([*command, "--replay", str(event / "recording.mcap"), "--out", str(tmp_path)]) == 0
    ticks = json.loads((event / "event.json").read_text())["ticks"]
    published = list(read_tracks(tmp_path / "tracks.jsonl"))
    assert len(published) == ticks
    assert published[-1].tracks
