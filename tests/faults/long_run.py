"""Whether it holds for hours: ``python -m tests.faults.long_run [--ticks 36000] [--stall] [--load]``.

The drive is looped at its own pace with enforcement on, as the daemon would run it; what grows, what is late, and what
enforcement itself costs is measured. ``--stall`` stalls one channel for 200 ms in some ticks, at random; ``--load``
keeps all cores busy with stress-ng for the third quarter of the run. Exit codes: 0 all figures are kept, 1 one is
missed, 2 refused.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from statistics import median_low
from typing import Any, Final, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from perception import config, realtime
from perception.assembly import Assembly, assemble_on_drive
from perception.config import Config
from perception.errors import ConfigError, PerceptionError
from perception.governor import Enforcement, Plan, Step
from perception.ingest.replay import Replay
from perception.messages import Decision, FrameSet, Tick, TickTimes
from perception.output.jsonl import TracksWriter
from perception.output.report import stages_table
from perception.output.summary import machine

EXIT_MISSED: Final = 1
EXIT_REFUSED: Final = 2
STALL_S: Final = 0.2
STALLED: Final = 0.1  # of the ticks
WARM_UP: Final = 0.1  # of the run: until then memory may grow
RECOVERY_S: Final = 5.0
QUIET_TICKS: Final = 10
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class Figure(NamedTuple):
    """A figure that was measured, what was wanted, and whether it is that."""

    name: str
    measured: str
    wanted: str
    kept: bool


class Timed:
    """Enforcement that keeps account of what it takes itself, in nanoseconds a tick."""

    def __init__(self, enforcement: Enforcement, ticks: int) -> None:
        self.rungs, self.steps = enforcement.rungs, enforcement.steps
        self.wanted, self.ingest_until_ns = enforcement.wanted, enforcement.ingest_until_ns
        self._spent_ns = np.full(ticks + 1, -1)  # beforehand: what grows is to be what is measured
        self._count = 0
        self._enforcement = enforcement
        self._early_ns = 0

    def early(self, tick: int) -> tuple[int, frozenset[str]]:
        began_ns = time.perf_counter_ns()
        early = self._enforcement.early(tick)
        self._early_ns += time.perf_counter_ns() - began_ns
        return early

    def plan(self, frames: FrameSet, now_ns: int) -> Plan:
        began_ns = time.perf_counter_ns()
        plan = self._enforcement.plan(frames, now_ns)
        self._spent_ns[self._count] = time.perf_counter_ns() - began_ns + self._early_ns
        self._early_ns = 0
        return plan

    def learn(self, tick: int, plan: Plan, decision: Decision, times: TickTimes) -> Step | None:
        began_ns = time.perf_counter_ns()
        step = self._enforcement.learn(tick, plan, decision, times)
        self._spent_ns[self._count] += time.perf_counter_ns() - began_ns
        self._count += 1
        return step

    def usual_ns(self) -> float:
        return float(np.median(self._spent_ns[: self._count]))


@dataclass
class Stalls:
    """Stalls a channel for 200 ms in some ticks, and counts who else had no part in those, and in the others."""

    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(1))
    next: str = ""
    stalled: int = 0
    ticks: list[int] = field(default_factory=lambda: [0, 0])
    others_left_out: list[int] = field(default_factory=lambda: [0, 0])

    def install(self, levels: Sequence[Mapping[str, Any]]) -> None:
        for channel in {id(channel): channel for of_level in levels for channel in of_level.values()}.values():
            channel._request.collect = self._stalling(channel._camera, channel._request.collect)

    def _stalling(self, camera: str, collect: Callable[[], Any]) -> Callable[[], Any]:
        def stalling() -> Any:
            outputs = collect()
            if self.next == camera:
                self.next = ""
                self.stalled += 1
                time.sleep(STALL_S)
            return outputs

        return stalling

    def look(self, tick: Tick, cameras: Sequence[str], chosen: str) -> str:
        """Take in a tick in which a camera was chosen to be stalled, or none; chooses for the next."""
        decision = tick.tracks.decision
        others = len({*decision.late, *decision.skipped} - {chosen})
        self.ticks[bool(chosen)] += 1
        self.others_left_out[bool(chosen)] += others
        self.next = str(self.rng.choice(list(cameras))) if self.rng.random() < STALLED else ""
        return self.next


class Load:
    """All cores busy between two ticks, and what came of the ticks meanwhile and after.

    Recovered is who is back on the level that was usual in as many ticks just before the load as it lasts: its median.
    """

    def __init__(self, begin: int, end: int) -> None:
        self._begin, self._end = begin, end
        self._process: subprocess.Popen[bytes] | None = None
        self._ended_s: float | None = None
        self._quiet = 0
        self._before: list[int] = []
        self.ticks = self.on_time = 0
        self.lowest = 0
        self.recovered_s: float | None = None

    def look(self, number: int, tick: Tick) -> None:
        decision = tick.tracks.decision
        if 2 * self._begin - self._end <= number < self._begin:
            self._before.append(decision.level)
        elif number == self._begin:
            self._process = subprocess.Popen(["stress-ng", "--cpu", str(os.cpu_count()), "--quiet"])
        elif number == self._end:
            self.close()
            self._ended_s = time.monotonic()
        elif self._begin < number < self._end:
            self.ticks += 1
            self.on_time += decision.deadline_met
            self.lowest = max(self.lowest, decision.level)
        elif self._ended_s is not None and self.recovered_s is None:
            self._quiet = self._quiet + 1 if decision.level <= self.usual and decision.deadline_met else 0
            if self._quiet == QUIET_TICKS:
                self.recovered_s = time.monotonic() - self._ended_s

    @property
    def usual(self) -> int:
        return median_low(self._before)

    def close(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
        self._process = None


@dataclass
class Samples:
    """What the process holds, once a second after it is warm: resident bytes, file descriptors, threads."""

    taken: array[int] = field(default_factory=lambda: array("q"))
    _at_s: float = 0.0

    def look(self) -> None:
        if time.monotonic() - self._at_s >= 1.0:
            self._at_s = time.monotonic()
            resident = int(Path("/proc/self/statm").read_bytes().split()[1]) * _PAGE
            self.taken.extend((resident, _entries("/proc/self/fd"), _entries("/proc/self/task")))

    def figures(self) -> Iterator[Figure]:
        resident, files, threads = np.array(self.taken).reshape(-1, 3).T
        tenth = max(1, len(resident) // 10)
        before, after = np.median(resident[:tenth]), np.median(resident[-tenth:])
        growth = after / before - 1
        yield Figure("memory, end against start", f"{growth:+.2%} of {before / 2**20:.0f} MiB", "< 1 %", growth < 0.01)
        # The most of each: one file is closed for a moment whenever the drive begins again.
        for name, counts in (("file descriptors", files), ("threads", threads)):
            first, last = int(counts[:tenth].max()), int(counts[-tenth:].max())
            yield Figure(f"{name}, at most", f"{first} at the start, {last} at the end", "constant", first == last)


def _entries(directory: str) -> int:
    return len(list(Path(directory).iterdir()))


def run(chosen: Config, ticks: int, console: Console, *, stall: bool, load: bool) -> list[Figure]:
    """Run so many ticks, print their account, and give the figures."""
    samples, stalls = Samples(), Stalls() if stall else None
    with ExitStack() as resources:
        parts, timed = resources.enter_context(_assembled(chosen, ticks))
        if stalls is not None:
            stalls.install(parts.backend.channels)
        loaded = resources.enter_context(closing(Load(ticks // 2, 3 * ticks // 4))) if load else None
        tracks = TracksWriter(Path(resources.enter_context(tempfile.TemporaryDirectory())))
        resources.callback(tracks.close)
        priority = chosen.daemon.fifo_priority
        if priority is not None and (problem := realtime.run_first(priority)):
            console.print(problem)
        running = resources.enter_context(closing(parts.pipeline([tracks]).run(parts.source)))
        stalling = ""
        for number, tick in enumerate(track(islice(running, ticks), "", ticks, console=console, transient=True)):
            if number >= WARM_UP * ticks:
                samples.look()
            if stalls is not None:
                stalling = stalls.look(tick, list(parts.rig), stalling)
            if loaded is not None:
                loaded.look(number, tick)
    console.print(stages_table(parts.ledger))
    ledger = parts.ledger
    left_out = f"{ledger.dropped} dropped, {sum(ledger.cut_off.values())} frames cut off"
    console.print(f"{left_out}, ticks on each level: { ({n: use.ticks for n, use in sorted(ledger.levels.items())}) }")
    for fault in parts.faults():
        console.print(f"fault: {fault}", highlight=False)
    cost = timed.usual_ns() * 1e-6
    whole = ledger.end_to_end().measured.p50
    late_wanted = "0" if loaded is None else "0, but for the load"
    late = ledger.late - (0 if loaded is None else loaded.ticks - loaded.on_time)
    return [
        Figure("late ticks", f"{late} of {ledger.ticks}", late_wanted, late == 0),
        *samples.figures(),
        Figure("enforcement, of a tick", f"{cost / whole:.2%} ({cost * 1e3:.0f} µs)", "<= 2 %", cost / whole <= 0.02),
        *([] if stalls is None else _of_stalls(stalls)),
        *([] if loaded is None else _of_load(loaded)),
    ]


def _of_stalls(stalls: Stalls) -> list[Figure]:
    usual, beside = (left / max(1, n) for left, n in zip(stalls.others_left_out, stalls.ticks, strict=True))
    measured = f"{beside:.3f} a tick, {usual:.3f} where none stalls ({stalls.stalled} stalls)"
    kept = stalls.stalled > 0 and beside <= usual + 0.01
    return [Figure("cameras left out beside one that stalls", measured, "no more than usual", kept)]


def _of_load(load: Load) -> list[Figure]:
    share = load.on_time / max(1, load.ticks)
    recovered = "not" if load.recovered_s is None else f"after {load.recovered_s:.1f} s"
    soon = load.recovered_s is not None and load.recovered_s <= RECOVERY_S
    return [
        Figure("by the deadline under load", f"{share:.2%}, down to level {load.lowest}", ">= 99 %", share >= 0.99),
        Figure(f"on level {load.usual} again, as before it", recovered, f"within {RECOVERY_S:g} s", soon),
    ]


@contextmanager
def _assembled(chosen: Config, ticks: int) -> Iterator[tuple[Assembly[Replay], Timed]]:
    with assemble_on_drive(chosen, ticks) as parts:
        timed = Timed(parts.enforcement, ticks)
        yield replace(parts, enforcement=timed), timed


def main() -> int:
    parser = argparse.ArgumentParser("tests.faults.long_run", description="Whether it holds for hours.")
    add = parser.add_argument
    add("--config", default="cpu.yaml", metavar="NAME", help="a file, or a name in configs/ (default: %(default)s)")
    add("--ticks", type=int, default=36_000, metavar="N", help="an hour at 10 Hz, if nothing else is said")
    add("--stall", action="store_true", help="stall one channel for 200 ms, at random")
    add("--load", action="store_true", help="stress-ng on all cores for a quarter of the run")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override any key, such as replay=DRIVE")
    arguments = parser.parse_args()
    console = Console()
    try:
        if arguments.load and shutil.which("stress-ng") is None:
            raise ConfigError("--load needs stress-ng; apt install stress-ng")
        chosen = config.load(arguments.config, [config.parse_override(text) for text in arguments.set])
        figures = run(chosen, arguments.ticks, console, stall=arguments.stall, load=arguments.load)
    except PerceptionError as error:
        console.print(f"error: {error}", soft_wrap=True, highlight=False)
        return EXIT_REFUSED
    here = machine()
    table = Table("figure", "measured", "wanted", "", title=f"{here['cpu']}, {here['cores_allowed']} cores")
    for figure in figures:
        table.add_row(*figure[:3], "kept" if figure.kept else "missed")
    console.print(table)
    return 0 if all(figure.kept for figure in figures) else EXIT_MISSED


if __name__ == "__main__":
    sys.exit(main())
