"""``--decisions``: a run that was short of time, had again at leisure."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from perception.messages import Detections, FrameSet, Image, TrackSet
from perception.output.decisions import read_decisions
from perception.output.jsonl import read_tracks
from perception.output.picture import Picture
from perception.run import EXIT_REFUSED, main
from tests.drives import write_drive
from tests.models import write_colour_detector

MS = 1_000_000
CAMERAS = ("CAM_FRONT", "CAM_LEFT", "CAM_RIGHT")
Run = Callable[..., Path]


@pytest.fixture(name="model", scope="module")
def _model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colour_detector(tmp_path_factory.mktemp("model") / "colours.onnx")


@pytest.fixture(name="drive", scope="module")
def _drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its last camera comes 40 ms after the first: no tick of 20 ms waits for it."""
    path = tmp_path_factory.mktemp("drive") / "d.mcap"
    return write_drive(path, cameras=CAMERAS, ticks=8, skew_ns=20 * MS).path


@pytest.fixture(name="run")
def _run(drive: Path, model: Path, tmp_path: Path) -> Run:
    def run(*more: str, code: int = 0) -> Path:
        out = tmp_path / "run"
        command = ["--config", "cpu.yaml", "--replay", str(drive), "--model", str(model), "--out", str(out)]
        assert main([*command, *more]) == code
        return out

    return run


def assert_the_same(one: Path, other: Path) -> None:
    for name in ("tracks.jsonl", "detections.jsonl", "decisions.jsonl"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


@pytest.mark.parametrize("loops", ["1", "2"])
def test_a_run_in_real_time_is_had_again_byte_for_byte(
    run: Run, capsys: pytest.CaptureFixture[str], loops: str
) -> None:
    then = run("--loop", loops)
    published = list(read_tracks(then / "tracks.jsonl"))
    assert len(published) == 8 * int(loops)
    assert all("CAM_RIGHT" in tracks.missing for tracks in published)
    assert main(["--decisions", str(then), "--threads", "1"]) == 0
    assert_the_same(then, then / "again")
    assert "are the same, byte for byte" in capsys.readouterr().out


def test_what_was_decided_decides_and_not_the_machine(run: Run) -> None:
    """The record is changed by hand: what it says is what happens."""
    then = run("--pace", "stepped")
    lines = [json.loads(line) for line in (then / "decisions.jsonl").read_text().splitlines()]
    lines[2]["decision"] |= {"level": 1, "late": ["CAM_LEFT"]}
    lines[3]["decision"] |= {"dropped": True}
    (then / "decisions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["--decisions", str(then)]) == 0
    again = list(read_decisions(then / "again" / "decisions.jsonl"))
    assert [decided.decision for decided in again] == [d.decision for d in read_decisions(then / "decisions.jsonl")]
    looked = [json.loads(line) for line in (then / "again" / "detections.jsonl").read_text().splitlines()]
    assert [line["camera"] for line in looked if line["tick"] == 2] == ["CAM_FRONT", "CAM_RIGHT"]
    assert not [line for line in looked if line["tick"] == 3]


def test_what_is_not_as_it_was_is_said(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    then = run("--pace", "stepped")
    assert main(["--decisions", str(then), "--set", "nms.iou_threshold=0.1"]) == 0
    assert "nms.iou_threshold: it was 0.5, and is 0.1" in capsys.readouterr().out


def test_the_video_of_an_event_shows_its_ticks_with_their_tracks(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    then, event = run("--pace", "stepped", "--record-images"), tmp_path / "event"
    event.mkdir()
    (then / "recording.mcap").rename(event / "recording.mcap")
    lines = (then / "decisions.jsonl").read_text().splitlines(keepends=True)
    (event / "decisions.jsonl").write_text("".join(lines[3:]))
    drawn: list[tuple[int, int, int | None]] = []
    draw = Picture.draw

    def watched(self: Picture, frames: FrameSet, found: dict[str, Detections], published: TrackSet | None) -> Image:
        drawn.append((frames.tick, frames.stamp_ns, published.stamp_ns if published else None))
        return draw(self, frames, found, published)

    monkeypatch.setattr(Picture, "draw", watched)
    assert main(["--config", "cpu.yaml", "--decisions", str(event), "--model", str(model), "--video"]) == 0
    assert [tick for tick, _, _ in drawn] == [3, 4, 5, 6, 7]
    assert all(stamp_ns == published_ns for _, stamp_ns, published_ns in drawn)


def test_another_drive_is_refused(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    then = run("--pace", "stepped")
    other = write_drive(tmp_path / "other.mcap", cameras=CAMERAS, ticks=3, skew_ns=20 * MS).path
    assert main(["--decisions", str(then), "--replay", str(other)]) == EXIT_REFUSED
    assert "name the drive of that run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda text: text[:0], "no ticks in it"),
        (lambda text: text + text, "do not ascend"),
        (lambda text: text[:-20], "cut off"),
        (lambda text: text.replace("CAM_LEFT", "CAM_NEW"), "no camera 'CAM_NEW'"),
        (lambda text: text.replace('"level":0', '"level":9'), "on level 9"),
        (lambda text: text.replace('"late":[]', '"late":["CAM_NONE"]'), "no camera 'CAM_NONE'"),
    ],
)
def test_decisions_that_cannot_be_followed_are_refused_in_one_line(
    run: Run, capsys: pytest.CaptureFixture[str], damage: Callable[[str], str], told: str
) -> None:
    then = run("--pace", "stepped")
    decisions = then / "decisions.jsonl"
    decisions.write_text(damage(decisions.read_text()))
    capsys.readouterr()
    assert main(["--decisions", str(then)]) == EXIT_REFUSED
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert told in error
