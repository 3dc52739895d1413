from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from perception.errors import ResultsError
from perception.messages import Decision
from perception.output.decisions import DecisionsWriter, read_decisions
from tests.output.samples import make_tick


def test_decisions_come_back_with_the_captures_they_were_about(tmp_path: Path) -> None:
    decision = Decision(2, skipped=("CAM_LEFT",), late=("CAM_FRONT",), deadline_met=False, age_ns=21_000_001)
    first, second = make_tick(0), make_tick(1, missing=("CAM_LEFT",))
    first = replace(first, tracks=replace(first.tracks, decision=decision))
    writer = DecisionsWriter(tmp_path)
    for tick in (first, second):
        writer.record(tick)
    writer.close()
    a, b = read_decisions(tmp_path / "decisions.jsonl")
    assert (a.tick, a.stamp_ns, a.decision) == (0, first.frames.stamp_ns, decision)
    assert a.captures_ns == {frame.camera: frame.capture_ns for frame in first.frames.frames}
    assert list(b.captures_ns) == ["CAM_FRONT"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"tick": 1, "stamp_ns": 1, "frames": {}, "decision": {}}\n', "frames"),
        ('{"tick": 1, "stamp_ns": 1, "frames": {"A": 1.5}, "decision": {}}\n', "A: expected an integer"),
        ('{"tick": 1, "stamp_ns": 1, "frames": {"A": 1}, "decision": {"level": 0}}\n', "dropped"),
        ('{"tick": 1, "sta', "cut off"),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, line: str, problem: str) -> None:
    path = tmp_path / "decisions.jsonl"
    path.write_text(line)
    with pytest.raises(ResultsError, match=f"line 1: damaged: .*{problem}"):
        list(read_decisions(path))
