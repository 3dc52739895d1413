from __future__ import annotations

import threading
import time
from collections.abc import Callable

from perception.errors import OutputError
from perception.messages import Tick
from perception.output.background import Background
from tests.output.samples import make_tick


class Recorded:
    """Keeps the ticks' numbers; raises `fault`, or `fault_at_end`, or waits for `gate`, when there is one."""

    def __init__(self) -> None:
        self.ticks: list[int] = []
        self.closed = False
        self.fault: Exception | None = None
        self.fault_at_end: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()

    def record(self, tick: Tick) -> None:
        self.gate.wait(10)
        if self.fault:
            raise self.fault
        self.ticks.append(tick.frames.tick)

    def close(self) -> None:
        if self.fault_at_end:
            raise self.fault_at_end
        self.closed = True


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.005)


def test_all_is_recorded_and_closed() -> None:
    one, two = Recorded(), Recorded()
    background = Background(lambda: [one, two], print)
    for number in range(5):
        background.record(make_tick(number))
    background.close()
    assert one.ticks == two.ticks == [0, 1, 2, 3, 4]
    assert one.closed
    assert two.closed


def test_one_that_hangs_delays_nobody_and_what_is_lost_is_counted() -> None:
    slow = Recorded()
    slow.gate.clear()
    background = Background(lambda: [slow], print, depth=3)
    background.record(make_tick(0))
    until(lambda: background._inbox.qsize() == 0)  # it is being worked on
    for number in range(1, 10):
        background.record(make_tick(number))
    assert background.lost == 6
    slow.gate.set()
    background.close()
    assert slow.ticks == [0, 1, 2, 3]


def test_a_full_disk_is_told_once_and_tried_again() -> None:
    made: list[Recorded] = []
    told: list[tuple[str, str]] = []

    def make() -> list[Recorded]:
        if len(made) == 1:
            made.append(Recorded())
            raise OutputError("d/tracks.jsonl: cannot be written: No space left on device")
        made.append(Recorded())
        return [made[-1]]

    background = Background(make, lambda *line: told.append(line), retry_s=0.0)
    background.record(make_tick(0))
    until(lambda: bool(made) and made[0].ticks == [0])
    made[0].fault = OSError(28, "No space left on device")
    for number in (1, 2, 3):  # refused by the recorder; refused when it is made again; recorded
        background.record(make_tick(number))
    background.close()
    assert made[0].closed
    assert made[2].ticks == [3]
    assert background.lost == 2
    assert len(told) == 2
    assert told[0][0] == "warning"
    assert "No space left" in told[0][1]
    assert told[1] == ("info", "recording again")


def test_one_that_cannot_be_completed_is_told_and_keeps_no_other_from_it() -> None:
    one, two, three = Recorded(), Recorded(), Recorded()
    one.fault_at_end = OutputError("d/tracks.jsonl: cannot be written: No space left on device")
    two.fault_at_end = OSError(5, "Input/output error")
    told: list[tuple[str, str]] = []
    background = Background(lambda: [one, two, three], lambda *line: told.append(line))
    background.record(make_tick(0))
    background.close()
    assert three.closed
    assert [priority for priority, _ in told] == ["warning", "warning"]
    assert "d/tracks.jsonl: cannot be written" in told[0][1]
    assert "Input/output error" in told[1][1]


def test_until_it_is_tried_again_ticks_are_lost() -> None:
    made: list[Recorded] = []

    def make() -> list[Recorded]:
        made.append(Recorded())
        made[-1].fault = OSError(28, "No space left on device")
        return [made[-1]]

    background = Background(make, print, retry_s=60.0)
    for number in range(5):
        background.record(make_tick(number))
    background.close()
    assert len(made) == 1
    assert background.lost == 5
