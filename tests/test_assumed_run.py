"""``--assume``: a drive in the virtual time of another machine, through the whole pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from perception.assume import load_profile
from perception.config import CONFIGS
from perception.messages import TrackSet
from perception.output.jsonl import read_tracks
from perception.run import EXIT_REFUSED, main
from tests.drives import write_drive
from tests.models import write_colour_detector

CAMERAS = ("CAM_FRONT", "CAM_LEFT", "CAM_BACK", "CAM_RIGHT")
EXAMPLE = CONFIGS / "profiles" / "example-orin.yaml"
FAST = {"ingest_ms": 1.0, "queue_ms": 0.1, "preprocess_ms": 0.2, "detect_ms": 2.0, "nms_ms": 0.1}


@pytest.fixture(name="drive", scope="module")
def _drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_drive(tmp_path_factory.mktemp("drive") / "d.mcap", cameras=CAMERAS, ticks=30, rate_hz=10.0).path


@pytest.fixture(name="model", scope="module")
def _model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colour_detector(tmp_path_factory.mktemp("model") / "colours.onnx")


class Machine:
    """Runs the drive on an assumed machine."""

    def __init__(self, drive: Path, model: Path, out: Path) -> None:
        self.command = ["--config", "cpu.yaml", "--replay", str(drive), "--model", str(model), "--out", str(out)]
        self.out = out

    def run(self, profile: Path, *more: str) -> list[TrackSet]:
        assert main([*self.command, "--assume", str(profile), *more]) == 0
        return list(read_tracks(self.out / "tracks.jsonl"))

    def ideal(self) -> list[TrackSet]:
        return list(read_tracks(self.out / "ideal" / "tracks.jsonl"))

    def summary(self) -> dict[str, Any]:
        record: dict[str, Any] = json.loads((self.out / "summary.json").read_text())
        return record


@pytest.fixture(name="machine")
def _machine(drive: Path, model: Path, tmp_path: Path) -> Machine:
    return Machine(drive, model, tmp_path / "out")


def write_profile(path: Path, changes: dict[str, float], **cameras: dict[str, float]) -> Path:
    """A machine without chance: `FAST` but for the changes, and for what single cameras cost."""
    tree: dict[str, Any] = {"about": "a test", "machine": "none", "ticks": 0}
    tree["default"] = {key: [value] * 6 for key, value in (FAST | changes).items()}
    tree["cameras"] = {name: {key: [value] * 6 for key, value in (FAST | own).items()} for name, own in cameras.items()}
    path.write_text(yaml.safe_dump(tree | {"fusion_ms": [1.0] * 6, "output_ms": [0.5] * 6}))
    return path


def test_the_same_profile_and_seed_give_the_same_bytes_whatever_the_threads(machine: Machine) -> None:
    results = set()
    for threads in ("1", "2", "2"):
        machine.run(EXAMPLE, "--threads", threads)
        results.add((machine.out / "tracks.jsonl").read_bytes())
    assert len(results) == 1
    machine.run(EXAMPLE, "--set", "assume.seed=1")
    assert (machine.out / "tracks.jsonl").read_bytes() not in results


def test_a_fast_machine_is_as_good_as_the_ideal_one(machine: Machine, tmp_path: Path) -> None:
    published = machine.run(write_profile(tmp_path / "p.yaml", {}))
    ideal = machine.ideal()
    assert len(published) == len(ideal) == 30
    for assumed, stepped in zip(published, ideal, strict=True):
        assert assumed.decision.deadline_met
        assert assumed.decision.late == assumed.decision.skipped == ()
        assert assumed.decision.age_ns == pytest.approx(4_400_000, abs=1000)  # 1 + 2.4 + 1: newest frame to publication
        assert [track.id for track in assumed.tracks] == [track.id for track in stepped.tracks]
        for mine, other in zip(assumed.tracks, stepped.tracks, strict=True):
            np.testing.assert_array_equal(mine.position, other.position)
    summary = machine.summary()
    assert (summary["ticks"]["on_time"], summary["ticks"]["late"]) == (30, 0)
    assert summary["end_to_end"]["max_ms"] == pytest.approx(4.9)
    compared = summary["assumed"]["tracks"]
    assert compared["assumed"] == compared["ideal"]
    assert compared["ideal"]["recall"] > 0.5


def test_a_slow_camera_is_cut_off_and_every_tick_is_still_on_time(machine: Machine, tmp_path: Path) -> None:
    slow = write_profile(tmp_path / "p.yaml", {}, CAM_BACK={"detect_ms": 250.0})
    published = machine.run(slow)
    assert all(tracks.decision.deadline_met for tracks in published)
    out_of = {"late": 0, "skipped": 0}
    for tracks in published:
        assert {*tracks.decision.late, *tracks.decision.skipped} <= {"CAM_BACK"}
        out_of["late"] += tracks.decision.late == ("CAM_BACK",)
        out_of["skipped"] += tracks.decision.skipped == ("CAM_BACK",)
    # It works for two and a half periods on each frame it is given: cut off, then not ready twice.
    assert out_of == {"late": 10, "skipped": 20}
    assert machine.summary()["ticks"]["late"] == 0


def test_what_an_assumed_machine_decided_is_had_again(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = write_profile(tmp_path / "p.yaml", {}, CAM_LEFT={"detect_ms": 250.0})
    machine.run(profile, "--profile-out", str(tmp_path / "again.yaml"))
    (tmp_path / "again.yaml").unlink()
    assert main(["--decisions", str(machine.out)]) == 0
    assert "are the same, byte for byte" in capsys.readouterr().out
    assert not (tmp_path / "again.yaml").exists()  # no costs were measured


def test_a_machine_that_is_too_slow_sees_little_and_says_so(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published = machine.run(write_profile(tmp_path / "p.yaml", {"ingest_ms": 30.0}))
    assert all(tracks.decision.deadline_met for tracks in published)
    assert not any(tracks.tracks for tracks in published)
    compared = machine.summary()["assumed"]["tracks"]
    assert compared["assumed"]["recall"] == 0
    assert compared["ideal"]["recall"] > 0.5
    said = capsys.readouterr().out
    assert "Tracks against ground truth" in said
    assert "assumed" in said


def test_the_profile_of_an_assumed_machine_is_the_one_assumed(machine: Machine, tmp_path: Path) -> None:
    source = write_profile(tmp_path / "p.yaml", {}, CAM_LEFT={"detect_ms": 3.0, "queue_ms": 0.5})
    machine.run(source, "--profile-out", str(tmp_path / "again.yaml"))
    given, measured = load_profile(source), load_profile(tmp_path / "again.yaml")
    assert measured.ticks == 30
    for camera in CAMERAS:
        for stage, quantiles in measured.cameras[camera]:
            expected = getattr(given.cameras.get(camera, given.default), stage)
            assert quantiles == pytest.approx(expected, rel=0.01)
    assert measured.fusion_ms == pytest.approx(given.fusion_ms, rel=0.01)
    assert measured.output_ms == pytest.approx(given.output_ms, rel=0.01)


@pytest.mark.parametrize("pace", ["realtime", "stepped"])
def test_every_run_can_write_a_profile(machine: Machine, tmp_path: Path, pace: str) -> None:
    assert main([*machine.command, "--pace", pace, "--profile-out", str(tmp_path / "p.yaml")]) == 0
    profile = load_profile(tmp_path / "p.yaml")
    assert profile.ticks == 30
    assert profile.default.detect_ms[1] > 0


def test_without_ground_truth_the_rest_is_still_told(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drive = write_drive(tmp_path / "d.mcap", cameras=CAMERAS[:2], ticks=5, truth=False).path
    machine = Machine(drive, model, tmp_path / "out")
    assert len(machine.run(EXAMPLE)) == 5
    assert "no ground truth" in machine.summary()["assumed"]["tracks"]["why_not"]
    assert "not compared" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--assume", "nowhere.yaml"], ["nowhere.yaml"]),
        (["--assume", str(EXAMPLE), "--pace", "stepped"], ["assume", "stepped"]),
    ],
)
def test_what_cannot_be_assumed_is_refused(
    machine: Machine, capsys: pytest.CaptureFixture[str], arguments: list[str], parts: list[str]
) -> None:
    assert main([*machine.command, *arguments]) == EXIT_REFUSED
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for part in parts:
        assert part in error
