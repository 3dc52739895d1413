from __future__ import annotations

from dataclasses import replace

import pytest

from perception.messages import Decision, Tick
from perception.output import events
from perception.output.events import Events
from tests.output.samples import make_tick


class Told:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.faults: list[str] = []
        self.events = Events(lambda priority, text: self.lines.append(f"{priority}: {text}"), lambda: self.faults)

    def after(self, tick: Tick) -> list[str]:
        self.lines.clear()
        self.events.record(tick)
        return self.lines


def decided(tick: Tick, decision: Decision) -> Tick:
    return replace(tick, tracks=replace(tick.tracks, decision=decision))


def test_a_camera_is_told_when_it_is_lost_and_when_it_is_back() -> None:
    told = Told()
    assert told.after(make_tick(0)) == []
    assert told.after(make_tick(1, missing=("CAM_LEFT",))) == ["warning: CAM_LEFT is missing"]
    assert told.after(make_tick(2, missing=("CAM_LEFT",))) == []
    lines = [told.after(make_tick(number))[:] for number in range(3, 15)]
    assert [line for line in lines if line] == [["info: CAM_LEFT is back"]]
    assert lines[10]  # when it was there for a second


def test_a_camera_that_comes_and_goes_does_not_fill_the_log() -> None:
    told = Told()
    lines = [
        line for number in range(60) for line in told.after(make_tick(number, missing=("CAM_LEFT",) * (number % 2)))
    ]
    assert lines == ["warning: CAM_LEFT is missing"]


def test_late_ticks_are_summed_up_every_ten_seconds() -> None:
    told = Told()
    late = Decision(deadline_met=False)
    lines = [told.after(decided(make_tick(number, late=True), late))[:] for number in range(105)]
    assert lines[0] == ["warning: 1 tick late, by up to 10.00 ms"]
    assert [number for number, line in enumerate(lines) if line] == [0, 101]
    assert lines[101] == ["warning: 101 ticks late, by up to 10.00 ms"]
    told.lines.clear()
    told.events.close()
    assert told.lines == ["warning: 3 ticks late, by up to 10.00 ms"]


def test_a_fault_is_told_again_when_there_were_more_but_not_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told()
    told.faults = ["CAM_FRONT: frame dropped: not a JPEG"]
    assert told.after(make_tick(0)) == ["warning: CAM_FRONT: frame dropped: not a JPEG"]
    told.faults = ["CAM_FRONT: frame dropped: not a JPEG (and 4 more like it)", "CAM_LEFT: gone"]
    assert told.after(make_tick(1)) == ["warning: CAM_LEFT: gone"]
    monkeypatch.setattr(events, "_AGAIN_NS", 0)
    assert told.after(make_tick(2)) == [f"warning: {told.faults[0]}"]
    assert told.after(make_tick(3)) == []
