"""The thread that ticks, day in, day out: builds the pipeline of a config, runs it, and builds it anew for another."""

from __future__ import annotations

import gc
import shutil
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final, Literal

from perception import realtime
from perception.assembly import Assembly
from perception.config import Config
from perception.errors import OutputError, PerceptionError
from perception.output.background import Background
from perception.output.decisions import DecisionsWriter
from perception.output.events import Events
from perception.output.flight import FlightRecorder
from perception.output.health import Health
from perception.output.jsonl import DetectionsWriter, TracksWriter
from perception.output.metrics import Metrics
from perception.output.recording import RecordingWriter
from perception.stages import Publisher, Recorder
from perception.systemd import Tell

Outcome = Literal["stopped", "ended", "refused", "failed"]
Quiet = Callable[[float], None]
Assemble = Callable[[Config, Quiet], AbstractContextManager[Assembly[Any]]]

_ROOM_BYTES: Final = 64_000_000


class Ticker:
    """Ticks from `start` until `stop`, the end of the drive, or what cannot be mended.

    `outcome` says how it ended; it is None before. `assemble` makes the parts for a config; its source may call what it
    is given while no frames come, with how long that has been, in seconds. `publishers`, `health` and `metrics` live on
    from config to config. `tell` may be called from any thread.
    """

    def __init__(
        self,
        config: Config,
        assemble: Assemble,
        *,
        publishers: Sequence[Publisher],
        health: Health,
        metrics: Metrics,
        tell: Tell,
    ) -> None:
        self.config = config
        self.outcome: Outcome | None = None
        self._next: Config | None = None
        self._assemble = assemble
        self._publishers = publishers
        self._health = health
        self._metrics = metrics
        self._tell = tell
        self._events: Events | None = None
        self._flight: FlightRecorder | None = None
        self._background: Background | None = None
        self._unrecorded = 0
        self._priority_told = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tick", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def reload(self, config: Config) -> None:
        """Go over to another config after the tick in progress; where it cannot be built, the old one goes on."""
        self._health.begin("reloading")  # from now on, as the ticks still to come are not of that config
        self._next = config

    def stop(self, wait_s: float) -> bool:
        """End after the tick in progress; recordings are closed also where the thread hangs, which returns False."""
        self._stopping.set()
        self._thread.join(wait_s)
        hangs = self._thread.is_alive()
        if hangs:
            for recorder in (self._background, self._flight):
                if recorder is not None:
                    recorder.close()
        return not hangs

    def record_flight(self, reason: str) -> bool:
        """Have the flight recorder keep the last seconds; False where there is none."""
        if self._flight is None:
            return False
        self._flight.trigger(reason)
        return True

    @property
    def unrecorded(self) -> int:
        """How many ticks a recording that should have them does not have."""
        return self._unrecorded + (self._background.lost if self._background else 0)

    def _run(self) -> None:
        try:
            self.outcome = self._run_configs()
        except PerceptionError as error:
            self._tell("error", str(error))
            self.outcome = "refused"
        except Exception:  # noqa: BLE001 (the last one to hear of it)
            self._tell("error", traceback.format_exc())
            self.outcome = "failed"

    def _run_configs(self) -> Outcome:
        proven: Config | None = None
        while True:
            try:
                with self._assemble(self.config, self._while_quiet) as parts:
                    proven = self.config
                    self._tell_choices(parts)
                    self._run_ticks(parts)
            except PerceptionError as error:
                if proven is None or proven is self.config:
                    raise
                self._tell("error", f"config refused, the old one goes on: {error}")
                self.config = proven
                continue
            if self._stopping.is_set():
                return "stopped"
            if self._next is None:
                return "ended"
            self.config, self._next = self._next, None

    def _run_ticks(self, parts: Assembly[Any]) -> None:
        """Run to the end of the source, or until something else is wanted."""
        self._metrics.begin(parts.ledger.budget, parts.rig)
        with self._recorders(parts) as recorders, self._priority():
            pipeline = parts.pipeline(self._publishers, [self._health, self._metrics, *recorders])
            self._health.begin("running")
            with suppress(_LeaveError), closing(pipeline.run(parts.source)) as ticks:
                for _ in ticks:
                    if self._leaving():
                        break
        if not self._stopping.is_set():
            self._health.begin("reloading")

    def _leaving(self) -> bool:
        return self._stopping.is_set() or self._next is not None

    def _while_quiet(self, seconds: float) -> None:
        """No frames come: leave all the same when that is wanted."""
        if self._leaving():
            raise _LeaveError
        self._health.quiet(seconds)
        gc.collect(1)  # as between ticks
        if self._events is not None:
            self._events.quiet(seconds)

    @contextmanager
    def _recorders(self, parts: Assembly[Any]) -> Iterator[list[Recorder]]:
        config = parts.config
        self._events = Events(self._tell, parts.faults)
        self._flight = self._flight_recorder(parts)
        self._background = Background(lambda: _all_day(parts), self._tell) if config.daemon.record else None
        recorders: list[Recorder] = [
            each for each in (self._events, self._flight, self._background) if each is not None
        ]
        try:
            yield recorders
        finally:
            for recorder in recorders:
                recorder.close()
            self._unrecorded, self._background = self.unrecorded, None
            self._flight = None

    def _flight_recorder(self, parts: Assembly[Any]) -> FlightRecorder | None:
        if not parts.config.flight.enabled:
            return None
        try:
            return FlightRecorder(parts.config, parts.rig, self._warn)
        except OutputError as error:
            self._warn(f"no flight recorder: {error}")
            return None

    @contextmanager
    def _priority(self) -> Iterator[None]:
        """Real-time priority for the ticks, and for nothing else that this thread does."""
        with realtime.running_first(self.config.daemon.fifo_priority) as problem:
            if problem and not self._priority_told:
                self._warn(problem)
                self._priority_told = True
            yield

    def _warn(self, text: str) -> None:
        self._tell("warning", text)

    def _tell_choices(self, parts: Assembly[Any]) -> None:
        cameras = ", ".join(f"{camera.name} {camera.width}x{camera.height}" for camera in parts.rig.values())
        deadline_ms = parts.config.budget.end_to_end_ms
        self._tell("info", f"cameras: {cameras}; deadline {deadline_ms:g} ms; {parts.backend.threads} threads")
        for note in parts.backend.notes:
            self._tell("info", note)


class _LeaveError(Exception):
    """Unwinds a source that waits for frames."""


def _all_day(parts: Assembly[Any]) -> list[Recorder]:
    """Recorders in a new directory; raises `OutputError` where there is no room for them."""
    parent = parts.config.output.directory
    try:
        parent.mkdir(parents=True, exist_ok=True)
        free_bytes = shutil.disk_usage(parent).free
    except OSError as error:
        raise OutputError(f"{parent}: cannot be written: {error.strerror}") from None
    if free_bytes < _ROOM_BYTES:
        raise OutputError(f"{parent}: {free_bytes / 1e6:.0f} MB left, at least {_ROOM_BYTES / 1e6:.0f} MB are wanted")
    directory = _unused(parent / f"{datetime.now(timezone.utc):%Y-%m-%dT%H-%M-%SZ}")
    return [
        TracksWriter(directory),
        DetectionsWriter(directory),
        DecisionsWriter(directory),
        RecordingWriter(directory, parts.rig, record_images=parts.config.output.record_images, faults=parts.faults),
    ]


def _unused(path: Path) -> Path:
    """The path, numbered where it exists already: clocks are set back."""
    candidate, number = path, 2
    while candidate.exists():
        candidate, number = path.with_name(f"{path.name}-{number}"), number + 1
    return candidate
