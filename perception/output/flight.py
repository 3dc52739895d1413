"""The flight recorder: the last seconds in memory, and on disk what was around an event.

An event is a directory that replays as a drive and as a run:

| file | what it holds |
|---|---|
| ``recording.mcap`` | as a run's with its images: frames as they came, detections, tracks, latency, diagnostics |
| ``decisions.jsonl`` | what enforcement did to its ticks |
| ``event.json`` | the reasons, when it was, how much is missing, and the config and the model that it was made with |

A process that is killed leaves ``recording.mcap.partial``, which replays up to its last whole chunk. Point clouds are
not kept: no tick is made of them.
"""

from __future__ import annotations

import json
import os
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

from perception import __version__
from perception.config import Config, FlightConfig
from perception.errors import OutputError
from perception.hashing import fingerprint
from perception.messages import NO_IMAGE, Frame, FrameSet, Rig, Tick
from perception.output.decisions import DecisionsWriter
from perception.output.files import unwritable, write_whole
from perception.output.recording import RecordingWriter, as_jpeg
from perception.output.ring import Ring, size_of
from perception.output.shelf import Shelf
from perception.output.triggers import Triggers

EVENT: Final = "event.json"
_LONGEST_REASON: Final = 200
_INBOX_SHARE: Final = 0.25
_TICKS_PER_TICK: Final = 2
_CLOSE_S: Final = 1.0
_STILL: Final = ("jpeg", "png")


class _Trigger(NamedTuple):
    what: str


class _Stop(NamedTuple):
    by_s: float


_Inbox: TypeAlias = "queue.SimpleQueue[Tick | _Trigger | _Stop]"


class FlightRecorder:
    """Keeps the last ticks in memory and writes those around an event to disk, on a thread of its own.

    `record` only hands a tick over. A disk that hangs delays no tick; what does not fit into memory meanwhile is lost,
    and counted. The thread writes no more than two ticks for each one that comes in, right after that, when the
    pipeline has nothing to do before the next frames: so no tick waits long for the interpreter either. It keeps the
    priority of its process, as a thread that is put off while it holds the interpreter puts off everyone.

    `tell` is given a line for each event written, and one when writing fails, until it succeeds again. Raises
    `OutputError` where the directory cannot be had.
    """

    def __init__(self, config: Config, rig: Rig, tell: Callable[[str], None]) -> None:
        self._room = config.flight.memory_mb * 1e6 * _INBOX_SHARE
        self._handed_over = 0
        self._inbox: _Inbox = queue.SimpleQueue()
        self._worker = _Worker(config, rig, tell, self._inbox)
        self._thread = threading.Thread(target=self._worker.run, name="flight", daemon=True)
        self._thread.start()

    def record(self, tick: Tick) -> None:
        """Hand over one tick; returns at once."""
        frames = tuple(_without_pixels(frame) for frame in tick.frames.frames)
        light = replace(tick, frames=replace(tick.frames, frames=frames, point_cloud=None))
        size = size_of(light)
        if self._handed_over - self._worker.taken + size > self._room:
            self._worker.refused += 1
            return
        self._handed_over += size
        self._inbox.put(light)

    def trigger(self, reason: str) -> None:
        """Ask for an event, in a few words why; from any thread, and from a signal handler too."""
        self._inbox.put(_Trigger(reason[:_LONGEST_REASON]))

    def close(self) -> None:
        """Complete the event that is being written, as far as that takes no longer than a second."""
        self._inbox.put(_Stop(time.monotonic() + _CLOSE_S))
        self._thread.join(2 * _CLOSE_S)


class _Worker:
    """The thread's side: all that comes in goes through the ring, and around events to disk."""

    def __init__(self, whole: Config, rig: Rig, tell: Callable[[str], None], inbox: _Inbox) -> None:
        config = whole.flight
        self.taken = 0
        """Bytes out of the inbox; `FlightRecorder.record` knows those into it, so neither needs a lock."""
        self.refused = 0
        """Ticks for which there was no room in the inbox; counted by `FlightRecorder.record`."""
        self._config = config
        self._origin = {"config": whole.model_dump(mode="json"), "model": fingerprint(whole.detector.model)}
        self._rig = rig
        self._tell = tell
        self._inbox = inbox
        self._shelf = Shelf(config.directory, round(config.quota_mb * 1e6))
        self._ring = Ring(round(config.before_s * 1e9), round(config.memory_mb * 1e6 * (1 - _INBOX_SHARE)))
        self._triggers = Triggers(config)
        self._newest: FrameSet | None = None
        self._event: _Event | None = None
        self._postponed = ""
        self._lost_before = 0
        self._silent = True
        self._failing = False
        self._stopped = False

    def run(self) -> None:
        """Take in what comes until told to stop."""
        while not self._stopped:
            self._step()

    def _step(self) -> None:
        try:
            self._take_next()
        except OutputError as error:
            self._give_up(error)

    def _take_next(self) -> None:
        try:
            item = self._inbox.get(timeout=self._patience_s())
        except queue.Empty:
            self._on_silence()
            return
        if isinstance(item, _Stop):
            self._stop(item.by_s)
        elif isinstance(item, _Trigger):
            self._on_event(item.what)
        else:
            self._take_in(item)
            self._write(_TICKS_PER_TICK)

    def _patience_s(self) -> float | None:
        """How long ticks may fail to come; when they already do, how long an event goes on without them."""
        if not self._silent:
            return self._config.camera_lost_s
        return self._config.after_s if self._event else None

    def _on_silence(self) -> None:
        """There is time to write all there is."""
        if self._silent:
            self._finish("no more frames came")
        else:
            self._silent = True
            self._on_event(f"no frames for {self._config.camera_lost_s:g} s")
            self._write(len(self._ring))

    def _stop(self, by_s: float) -> None:
        self._stopped = True
        while self._event is not None and self._ring.wanted and time.monotonic() < by_s:
            self._write(1)
        self._finish("the recorder was closed")

    def _take_in(self, tick: Tick) -> None:
        self._silent = False
        self.taken += size_of(tick)
        frames = tuple(_as_encoded(frame) for frame in tick.frames.frames if frame.encoded or frame.decoded)
        kept = replace(tick, frames=replace(tick.frames, frames=frames))
        self._newest = kept.frames
        self._ring.add(kept, wanted=self._event is not None)
        for what in self._triggers.look(kept):
            self._on_event(what)

    def _on_event(self, what: str) -> None:
        """Begin an event with all that is in memory, or make the one under way longer."""
        if self._newest is None:
            too_large = f"; {self.refused} ticks did not fit into flight.memory_mb" if self.refused else ""
            self._tell(f"flight recorder: {what}: there is nothing to write yet{too_large}")
            return
        reason = _Reason(what, self._newest.tick, self._newest.stamp_ns)
        if self._event is None:
            self._lost_before = self._lost
            self._event = _Event(self._shelf.place(what, reason.stamp_ns), self._rig, self._config, reason)
            self._ring.want_all()
        elif not self._event.extend(reason):
            self._postponed = self._postponed or what

    def _write(self, most: int) -> None:
        """Write so many ticks of the event under way, or fewer where it is over."""
        for _ in range(most):
            tick = self._ring.take()
            if self._event is None or tick is None:
                return
            if not self._event.covers(tick):
                self._finish()
                return
            self._event.write(tick)
            if not self._shelf.make_room(self._event.directory):
                self._finish("flight.quota_mb holds no more")

    def _finish(self, cut_short: str = "") -> None:
        """Complete the event under way, if there is one."""
        if self._event is None:
            return
        event = self._event
        event.close(self._lost - self._lost_before, cut_short, self._origin)
        self._shelf.make_room(event.directory)
        self._event = None
        self._ring.want_none()
        self._failing = False
        self._tell(f"flight recorder: {event.line()}")
        postponed, self._postponed = self._postponed, ""
        if postponed:
            self._on_event(postponed)

    def _give_up(self, error: OutputError) -> None:
        """Leave the event under way as it is: what is in memory stays there, and the next event is tried again."""
        if self._event is not None:
            self._event.abandon()
        self._event, self._postponed = None, ""
        self._ring.want_none()
        if not self._failing:
            self._tell(f"flight recorder: {error}; it goes on in memory")
        self._failing = True

    @property
    def _lost(self) -> int:
        return self._ring.lost + self.refused


class _Reason(NamedTuple):
    """What happened, and in which tick."""

    what: str
    tick: int
    stamp_ns: int


class _Event:
    """An event on its way to the disk; raises `OutputError` where that refuses."""

    def __init__(self, directory: Path, rig: Rig, config: FlightConfig, reason: _Reason) -> None:
        self.directory = directory
        self._rig = rig
        self._reasons = [reason]
        self._untold = [reason]
        self._after_ns = round(config.after_s * 1e9)
        self._until_ns = reason.stamp_ns + self._after_ns
        self._limit_ns = reason.stamp_ns + round(config.longest_s * 1e9)
        self._ticks = 0
        self._first: FrameSet | None = None
        self._last: FrameSet | None = None
        self._recording = RecordingWriter(directory, rig, record_images=True, faults=tuple)
        self._decisions = DecisionsWriter(directory)

    def extend(self, reason: _Reason) -> bool:
        """Go on until after this too; False when it would get too long for it."""
        if reason.stamp_ns > self._limit_ns:
            return False
        self._reasons.append(reason)
        self._untold.append(reason)
        self._until_ns = min(max(self._until_ns, reason.stamp_ns + self._after_ns), self._limit_ns)
        return True

    def covers(self, tick: Tick) -> bool:
        """Whether a tick is part of it; where time jumps back, an event ends."""
        after_ns = -1 if self._last is None else self._last.stamp_ns
        return after_ns < tick.frames.stamp_ns <= self._until_ns

    def write(self, tick: Tick) -> None:
        """Write the next tick, and in the log what happened in it."""
        self._decisions.record(tick)  # first: a process that is killed here leaves no frames without what was decided
        self._recording.record(tick)
        while self._untold and self._untold[0].tick <= tick.frames.tick:
            self._recording.note("WARNING", f"flight recorder: {self._untold.pop(0).what}")
        self._ticks += 1
        self._first = self._first or tick.frames
        self._last = tick.frames

    def close(self, ticks_lost: int, cut_short: str, origin: dict[str, Any]) -> None:
        """Complete the files, so that they outlive a loss of power too."""
        self._recording.close()
        self._decisions.close()
        write_whole(self.directory / EVENT, _json(self._record(ticks_lost, cut_short) | origin))
        for path in (*self.directory.iterdir(), self.directory, self.directory.parent):
            _sync(path)

    def abandon(self) -> None:
        """Leave the files as they are."""
        self._recording.abandon()
        self._decisions.abandon()

    def line(self) -> str:
        """What was written, and why, in a line."""
        return f"{self._reasons[0].what}: {self._ticks} ticks in {self.directory}"

    def _record(self, ticks_lost: int, cut_short: str) -> dict[str, Any]:
        return {
            "reasons": [reason._asdict() for reason in self._reasons],
            "ticks": self._ticks,
            "first": _place(self._first),
            "last": _place(self._last),
            "ticks_lost": ticks_lost,
            "cut_short": cut_short or None,
            "cameras": list(self._rig),
            "perception": __version__,
        }


def _place(frames: FrameSet | None) -> dict[str, int] | None:
    return None if frames is None else {"tick": frames.tick, "stamp_ns": frames.stamp_ns}


def _json(record: dict[str, Any]) -> bytes:
    return (json.dumps(record, indent=2, allow_nan=False) + "\n").encode()


def _sync(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise unwritable(path, error) from None


def _without_pixels(frame: Frame) -> Frame:
    """A frame that came as an image keeps only that; a piece of a video stream could not be read without the others."""
    if frame.encoded is not None and frame.encoded.format in _STILL:
        return replace(frame, image=NO_IMAGE)
    return replace(frame, encoded=None)


def _as_encoded(frame: Frame) -> Frame:
    return frame if frame.encoded else replace(frame, image=NO_IMAGE, encoded=as_jpeg(frame.image))
