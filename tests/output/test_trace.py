from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from perception.messages import Rig, Tick
from perception.output.trace import TraceWriter
from tests.output.samples import LEFT_OUT, make_rig, make_tick

Events = list[dict[str, Any]]


def trace(directory: Path, ticks: list[Tick], rig: Rig) -> Events:
    writer = TraceWriter(directory, rig)
    for tick in ticks:
        writer.record(tick)
    writer.close()
    events = json.loads((directory / "trace.json").read_text())
    assert isinstance(events, list)
    return events


@pytest.fixture(name="rig")
def _rig() -> Rig:
    return make_rig()


def of_phase(events: Events, phase: str) -> Events:
    return [event for event in events if event["ph"] == phase]


def test_a_slice_for_each_span_in_microseconds_on_the_row_of_its_camera(tmp_path: Path, rig: Rig) -> None:
    events = trace(tmp_path, [make_tick(0, rig), make_tick(1, rig)], rig)
    rows = {e["tid"]: e["args"]["name"] for e in of_phase(events, "M") if e["name"] == "thread_name"}
    slices = [(rows[e["tid"]], e["name"], e["ts"], e["dur"]) for e in of_phase(events, "X") if e["args"]["tick"] == 1]
    cameras = [
        (camera, stage, 100_000 + 1000 * start, 1000)
        for camera in rig
        for start, stage in enumerate(("preprocess", "detect", "nms"), 1)
    ]
    assert slices == [
        *cameras,
        ("fusion, output", "fusion", 104_000, 1000),
        ("fusion, output", "output", 105_000, 1000),
    ]


def test_slices_of_a_row_never_overlap(tmp_path: Path, rig: Rig) -> None:
    rows = defaultdict(list)
    for event in of_phase(trace(tmp_path, [make_tick(i, rig, late=True) for i in range(5)], rig), "X"):
        rows[event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    for row in rows.values():
        for (_, end), (start, _) in zip(sorted(row), sorted(row)[1:], strict=False):
            assert start >= end


def test_what_was_left_out_is_marked_and_the_level_is_a_counter(tmp_path: Path, rig: Rig) -> None:
    events = trace(tmp_path, [make_tick(i, rig, decision=d) for i, d in enumerate(LEFT_OUT)], rig)
    marks = [(e["name"], e["tid"], e["args"]["tick"]) for e in of_phase(events, "i") if e["name"] != "deadline"]
    assert marks == [("cut off", 2, 2), ("cut off", 3, 2), ("dropped", 1, 3)]
    assert [event["args"]["level"] for event in of_phase(events, "C")] == [0, 1, 1, 1, 0]
    about = [event["args"] for event in of_phase(events, "b") if event["name"] == "tick"]
    assert about[1]["skipped"] == ["CAM_LEFT"]


def test_what_may_overlap_is_asynchronous_and_ends(tmp_path: Path, rig: Rig) -> None:
    events = trace(tmp_path, [make_tick(0, rig), make_tick(1, rig, missing=("CAM_LEFT",))], rig)
    begun = {(e["cat"], e["id"]): e["ts"] for e in of_phase(events, "b")}
    ended = {(e["cat"], e["id"]): e["ts"] for e in of_phase(events, "e")}
    assert set(begun) == {
        ("tick", 0),
        ("tick", 1),
        ("CAM_FRONT ingest", 0),
        ("CAM_LEFT ingest", 0),
        ("CAM_FRONT ingest", 1),
    }
    assert begun.keys() == ended.keys()
    assert ended["tick", 1] - begun["tick", 1] == 6_000
    assert next(e for e in of_phase(events, "b") if e["id"] == 1)["args"]["missing"] == ["CAM_LEFT"]


def test_deadlines_and_late_ticks_are_marked(tmp_path: Path, rig: Rig) -> None:
    events = trace(tmp_path, [make_tick(0, rig), make_tick(1, rig, late=True)], rig)
    marks = [(e["name"], e["ts"]) for e in of_phase(events, "i")]
    assert marks == [("deadline", 20_000), ("deadline", 120_000), ("late", 130_000)]


def test_stepped_replay_has_no_deadline(tmp_path: Path, rig: Rig) -> None:
    assert of_phase(trace(tmp_path, [make_tick(0, rig, stepped=True)], rig), "i") == []


def test_a_trace_cut_off_between_ticks_lacks_only_its_bracket(tmp_path: Path, rig: Rig) -> None:
    writer = TraceWriter(tmp_path, rig)
    writer.record(make_tick(0, rig))
    partial = tmp_path / "trace.json.partial"
    assert len(of_phase(json.loads(partial.read_text() + "]"), "X")) == 8
    assert not (tmp_path / "trace.json").exists()
    writer.close()
    assert not partial.exists()


def test_no_ticks_is_a_trace_too(tmp_path: Path, rig: Rig) -> None:
    assert of_phase(trace(tmp_path, [], rig), "X") == []
