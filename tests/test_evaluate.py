from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perception import evaluate
from perception.budget import Ledger
from perception.config import Config
from perception.ingest.open_drive import open_drive
from perception.messages import Detections, FrameSet, Tick, TickTimes, Track, TrackSet
from perception.output.jsonl import DetectionsWriter, TracksWriter
from perception.output.summary import write_summary
from perception.truth import RigView, TruthTimeline
from tests.drives import START_NS, ego_pose, write_drive
from tests.output.samples import BUDGET

MS = 1_000_000
CAMERAS = ("CAM_FRONT", "CAM_LEFT", "CAM_BACK", "CAM_RIGHT")


@pytest.fixture(name="drive", scope="module")
def _drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_drive(tmp_path_factory.mktemp("drive") / "drive.mcap", cameras=CAMERAS, ticks=8).path


def write_run(directory: Path, drive_path: Path, offset: tuple[float, float] = (0, 0), late_ms: float = 40) -> Path:
    """A run that found everything, with the tracks' centres off by `offset`, at times between those of the labels."""
    drive = open_drive(drive_path, None)
    timeline, view = TruthTimeline(drive.truth()), RigView(drive.rig)
    tracks, detections = TracksWriter(directory), DetectionsWriter(directory)
    ids: dict[str, int] = {}
    for tick in range(8):
        stamp = START_NS + tick * 100 * MS + round(late_ms * MS)
        pose = ego_pose((stamp - START_NS) * 1e-9)
        truth = timeline.at(stamp, pose)
        assert truth is not None
        found = []
        for name, label, place, size, yaw in zip(
            truth.ids, truth.labels, truth.positions, truth.sizes, truth.yaws, strict=True
        ):
            position = place + np.array([*offset, 0.0])
            track_id = ids.setdefault(name, len(ids) + 1)
            found.append(
                Track(track_id, int(label), 0.9, position, np.zeros(3), size, yaw, np.eye(4), 1.0, 0.0, CAMERAS[:1])
            )
        published = TrackSet(tick, stamp, 0, (), tuple(sorted(found, key=lambda track: track.id)), pose)
        tracks.publish(published)
        in_images = []
        for name in drive.rig:
            seen = view.of_camera(name, truth)
            boxes = seen.boxes[seen.visible].astype(np.float32)
            in_images.append(
                Detections(name, stamp, boxes, np.ones(len(boxes), np.float32), truth.labels[seen.visible])
            )
        detections.record(
            Tick(FrameSet(tick, stamp, 0, (), ()), tuple(in_images), published, TickTimes(0, 0, None, ()))
        )
    tracks.close()
    detections.close()
    config = Config.model_validate({"replay": drive_path})
    write_summary(
        directory, config=config, chosen={}, cameras=[], ledger=Ledger(BUDGET, []), faults=[], files=[], wall_s=1.0
    )
    return directory


def figures_of(run: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert evaluate.main([str(run), "--json", *arguments]) == 0
    printed = capsys.readouterr().out
    assert (run / "evaluation.json").read_text() == printed
    figures = json.loads(printed)
    assert isinstance(figures, dict)
    return figures


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert evaluate.main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ")
    assert output.err.count("\n") == 1
    return output.err


def test_a_perfect_run_is_perfect_at_times_between_the_labels(
    tmp_path: Path, drive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = figures_of(write_run(tmp_path, drive), capsys)
    assert figures["ticks"] == figures["ticks_compared"] == 8
    tracking = figures["tracks"]["tracking"]
    assert (tracking["MOTA"], tracking["IDF1"]) == (1, 1)
    assert tracking["HOTA"] == pytest.approx(1, abs=1e-6)
    assert tracking["objects"] == 3
    assert figures["tracks"]["all"]["error_mean_m"] == pytest.approx(0, abs=1e-3)
    assert figures["detection"]["recall"] == figures["detection"]["precision"] == 1


def test_a_known_offset_is_the_error(tmp_path: Path, drive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = figures_of(write_run(tmp_path, drive, offset=(0.6, -0.8)), capsys)
    everything = figures["tracks"]["all"]
    assert everything["error_mean_m"] == pytest.approx(1.0, abs=1e-3)
    assert everything["error_p90_m"] == pytest.approx(1.0, abs=1e-3)
    assert figures["tracks"]["tracking"]["MOTA"] == 1
    loose = figures_of(tmp_path, capsys, "--match-m", "0.9")
    assert loose["tracks"]["matched"] == 0
    assert loose["tracks"]["tracking"]["MOTA"] == -1


def test_other_classes_are_neither_missed_nor_false(
    tmp_path: Path, drive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = figures_of(write_run(tmp_path, drive), capsys, "--classes", "car,truck")
    assert figures["tracks"]["tracking"]["objects"] == 2
    assert figures["tracks"]["tracking"]["MOTA"] == 1
    assert figures["detection"]["precision"] == 1
    assert figures["rules"]["classes"] == ["car", "truck"]
    none_of_them = figures_of(tmp_path, capsys, "--classes", "bus")
    assert none_of_them["tracks"]["tracking"]["objects"] == 0
    with pytest.raises(SystemExit):
        evaluate.main([str(tmp_path), "--classes", "lorry"])
    assert "no class 'lorry'" in capsys.readouterr().err


def test_tables_show_the_same_figures(tmp_path: Path, drive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main([str(write_run(tmp_path, drive))]) == 0
    text = capsys.readouterr().out
    assert "8 of 8 ticks" in text
    assert "MOTA" in text
    assert "100.0%" in text
    assert "…" not in text
    assert "class right 100.0%" in text


def test_a_drive_without_ground_truth_is_refused(
    tmp_path: Path, drive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = write_drive(tmp_path / "bare.mcap", ticks=2, truth=False).path
    run = write_run(tmp_path / "run", drive)
    assert "bare.mcap: holds no ground truth" in refusal(capsys, str(run), "--drive", str(bare))


def test_a_drive_that_has_moved_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moved = write_drive(tmp_path / "drive.mcap", cameras=CAMERAS, ticks=8).path
    run = write_run(tmp_path / "run", moved)
    elsewhere = moved.rename(tmp_path / "elsewhere.mcap")
    assert "no longer there; say where it is with --drive" in refusal(capsys, str(run))
    assert figures_of(run, capsys, "--drive", str(elsewhere))["ticks_compared"] == 8


def test_another_drive_s_truth_is_refused(tmp_path: Path, drive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path, drive)
    lines = (run / "tracks.jsonl").read_text().replace('"stamp_ns":17', '"stamp_ns":18')
    (run / "tracks.jsonl").write_text(lines)
    assert "none of its 8 ticks lies within" in refusal(capsys, str(run))


@pytest.mark.parametrize("name", ["summary.json", "tracks.jsonl", "detections.jsonl"])
def test_a_run_that_lacks_a_file_is_refused(
    tmp_path: Path, drive: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path, drive)
    (run / name).unlink()
    assert f"{name}: cannot be read" in refusal(capsys, str(run))


def test_a_summary_without_a_drive_is_refused(tmp_path: Path, drive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path, drive)
    (run / "summary.json").write_text("{}")
    assert "does not name the run's drive" in refusal(capsys, str(run))


def test_ticks_without_a_pose_are_left_out(tmp_path: Path, drive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path, drive)
    lines = (run / "tracks.jsonl").read_text().splitlines(keepends=True)
    record = json.loads(lines[3])
    record["map_from_base"] = None
    lines[3] = json.dumps(record) + "\n"
    (run / "tracks.jsonl").write_text("".join(lines))
    figures = figures_of(run, capsys)
    assert (figures["ticks"], figures["ticks_compared"]) == (8, 7)


def test_damage_in_the_drive_is_told_and_the_rest_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = write_drive(tmp_path / "drive.mcap", cameras=CAMERAS, ticks=8).path
    run = write_run(tmp_path / "run", whole)
    whole.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * 0.6)])
    assert evaluate.main([str(run)]) == 0
    output = capsys.readouterr()
    assert "fault: " in output.err
    assert 0 < json.loads((run / "evaluation.json").read_text())["ticks_compared"] < 8


@pytest.mark.parametrize("length", ["0", "-1", "nan", "inf", "far"])
def test_a_length_that_is_none_is_refused(length: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        evaluate.main([str(tmp_path), "--match-m", length])
    assert stopped.value.code == 2
    assert "--match-m" in capsys.readouterr().err
