from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from perception.assume import load_profile
from perception.errors import OutputError, ResultsError
from perception.messages import Decision, StageSpan, Tick
from perception.output.profile import ProfileRecorder
from tests.output.samples import MS, make_rig, make_tick

CAMERAS = tuple(make_rig())


def with_spans(tick: Tick, *spans: StageSpan) -> Tick:
    return replace(tick, times=replace(tick.times, spans=spans))


def test_each_stage_and_camera_has_its_own_quantiles(tmp_path: Path) -> None:
    recorder = ProfileRecorder(tmp_path / "p.yaml", CAMERAS)
    for number in range(100):
        tick = make_tick(number)
        arrival = tick.times.arrival_ns
        frames = tuple(replace(frame, arrival_ns=arrival) for frame in tick.frames.frames)
        tick = replace(tick, frames=replace(tick.frames, frames=frames))
        slow = (number + 1) * MS
        recorder.record(
            with_spans(
                tick,
                StageSpan("ingest", "CAM_FRONT", arrival + 1 * MS, arrival + 3 * MS),
                StageSpan("ingest", "CAM_LEFT", arrival + 1 * MS, arrival + 4 * MS),
                StageSpan("preprocess", "CAM_FRONT", arrival + 6 * MS, arrival + 7 * MS),
                StageSpan("preprocess", "CAM_LEFT", arrival + 4 * MS, arrival + 5 * MS),
                StageSpan("detect", "CAM_FRONT", arrival + 7 * MS, arrival + 7 * MS + slow),
                StageSpan("detect", "CAM_LEFT", arrival + 5 * MS, arrival + 7 * MS),
                StageSpan("nms", "CAM_FRONT", arrival + 8 * MS, arrival + 9 * MS),
                StageSpan("nms", "CAM_LEFT", arrival + 8 * MS, arrival + 9 * MS),
                StageSpan("fusion", "", arrival + 9 * MS, arrival + 11 * MS),
                StageSpan("output", "", arrival + 11 * MS, arrival + 12 * MS),
            )
        )
    recorder.write("a machine, \n8 cores")
    profile = load_profile(tmp_path / "p.yaml")
    front, left = profile.cameras["CAM_FRONT"], profile.cameras["CAM_LEFT"]
    assert front.ingest_ms == pytest.approx([3] * 6, rel=0.01)  # from arrival, not from when a worker took it up
    assert left.ingest_ms == pytest.approx([4] * 6, rel=0.01)
    assert front.queue_ms == pytest.approx([3] * 6, rel=0.01)  # from when its own frame was decoded
    assert left.queue_ms == pytest.approx([0] * 6, abs=0.01)
    assert front.detect_ms == pytest.approx([1, 50, 90, 99, 100, 100], rel=0.01)
    assert profile.default.detect_ms[-1] == 100
    assert profile.default.detect_ms[0] == pytest.approx(1, rel=0.01)
    assert profile.fusion_ms == pytest.approx([2] * 6, rel=0.01)
    assert profile.output_ms == pytest.approx([1] * 6, rel=0.01)
    assert (profile.ticks, profile.machine) == (100, "a machine, 8 cores")


def test_what_is_not_in_it_is_said(tmp_path: Path) -> None:
    recorder = ProfileRecorder(tmp_path / "p.yaml", CAMERAS)
    recorder.record(make_tick(0))
    cut = make_tick(1)
    spans = tuple(s for s in cut.times.spans if s.camera != "CAM_LEFT" or s.stage == "ingest")
    cut = replace(with_spans(cut, *spans), tracks=replace(cut.tracks, decision=Decision(late=("CAM_LEFT",))))
    recorder.record(cut)
    recorder.write("m")
    assert "1 channels were cut off" in load_profile(tmp_path / "p.yaml").about


def test_a_camera_that_never_looked_falls_under_the_default(tmp_path: Path) -> None:
    recorder = ProfileRecorder(tmp_path / "p.yaml", (*CAMERAS, "CAM_BACK"))
    recorder.record(make_tick(0))
    recorder.write("m")
    assert set(load_profile(tmp_path / "p.yaml").cameras) == set(CAMERAS)


def test_a_run_that_did_nothing_has_no_profile(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="nothing to tell"):
        ProfileRecorder(tmp_path / "p.yaml", CAMERAS).write("m")
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_refused_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file/p.yaml: cannot be written"):
        ProfileRecorder(tmp_path / "file" / "p.yaml", CAMERAS)
