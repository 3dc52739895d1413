"""Live cameras as a source of frame sets."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import (
    Future,
    TimeoutError,  # noqa: A004 (Python 3.10 has two)
    as_completed,
)
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NamedTuple

from av.video.frame import VideoFrame

from perception.clock import LiveClock, seconds_until
from perception.config import LiveCamera, SyncConfig
from perception.faults import Faults
from perception.governor import Enforcement, Undisturbed
from perception.ingest.cameras.camera import Device
from perception.ingest.cameras.feed import CameraHealth, Captured, Feed
from perception.ingest.cameras.mailbox import StaleError
from perception.ingest.cameras.pixels import to_image
from perception.ingest.decode import UndecodableError, decoders
from perception.ingest.synchroniser import Group, Synchroniser
from perception.messages import NO_IMAGE, EncodedImage, Frame, FrameSet, Image, Needed, Rig, Span
from perception.stages import Begin

_WAIT_S: Final = 0.2
_CLOSE_S: Final = 1.0
_WAITED_FOR: Final = ("starting", "streaming")


class _Ingested(NamedTuple):
    """A picture that is decoded; without an image, `problem` says why."""

    image: Image | None
    problem: str
    span: Span


@dataclass(eq=False, slots=True)
class _Pending:
    """A frame on its way; its decoding starts when it is known which tick it belongs to.

    `told` says whether those who want to know of decoded frames have been told.
    """

    camera: str
    capture_ns: int
    captured: Captured
    tick: int = 0
    ingested: Future[_Ingested] | None = None
    told: bool = False

    def done(self) -> bool:
        """Whether it is decoded, and nobody has been told."""
        return not self.told and self.ingested is not None and self.ingested.done()


class Live:
    """The cameras of a vehicle as a `Source`.

    Each camera runs on a thread of its own and leaves its latest frame in a mailbox; `frame_sets` takes the frames from
    there as they arrive, groups them, and has them decoded by `threads` workers. So whoever is slow to ask for the next
    frame set gets the latest frames, and no queue grows. A group is handed over when all cameras are in that are
    expected to be, or when `enforcement` says that it is time, or when the window has passed. A frame that does not
    decode is missing from its set; where none does, all are there with `NO_IMAGE`: such a tick has its tracks too.

    While nothing comes, `frame_sets` waits on, and tells `on_quiet` some five times a second for how many seconds there
    has been no frame set. `close` ends it, from there or from any thread.

    `needed` and `enforcement` are as for `Replay`.
    """

    duration_s: Final = None
    """It goes on."""

    def __init__(
        self,
        rig: Rig,
        devices: Mapping[str, Device],
        cameras: Mapping[str, LiveCamera],
        clock: LiveClock,
        sync: SyncConfig,
        *,
        threads: int,
        needed: Mapping[str, Needed] | None = None,
        enforcement: Enforcement | None = None,
        on_quiet: Callable[[float], None] = lambda _: None,
    ) -> None:
        self.rig = rig
        self._needed = needed or {}
        self._clock = clock
        self._enforcement = enforcement or Undisturbed(rig)
        self._on_quiet = on_quiet
        # what is captured further apart than a tick can wait is not of one tick
        until_ns = self._enforcement.ingest_until_ns(0)
        window_ms = sync.window_ms if until_ns is None else min(sync.window_ms, until_ns * 1e-6)
        self._window_ns = round(window_ms * 1e6)
        self._synchroniser: Synchroniser[_Pending] = Synchroniser(
            tuple(rig), sync.model_copy(update={"window_ms": window_ms})
        )
        self._tick = 0
        self._faults = Faults()
        self._workers = decoders(threads, self.rig.values())
        self._closed = threading.Event()
        self._arrived = threading.Condition()
        self._max_age_ns = {name: round(camera.max_age_ms * 1e6) for name, camera in cameras.items()}
        self._feeds = {
            name: Feed(
                name, devices[name], self._arrived, timeout_s=cameras[name].timeout_s, frozen_s=cameras[name].frozen_s
            )
            for name in rig
        }

    def frame_sets(self, begin: Begin | None = None) -> Iterator[FrameSet]:
        """Start the cameras and yield the frame sets in time order, each as soon as its frames are decoded."""
        for feed in self._feeds.values():
            feed.start()
        last_ns = self._clock.now_ns()
        while not self._closed.is_set():
            self._wait_for_mail()
            groups = self._take_in()
            groups += self._give_up_waiting()
            if not groups:
                self._tell_as_decoded(begin)
            for group in groups:
                frame_set = self._hand_over(group, begin)
                self._tick += 1
                yield frame_set
                last_ns = self._clock.now_ns()
            quiet_s = (self._clock.now_ns() - last_ns) * 1e-9
            if quiet_s > _WAIT_S:
                self._on_quiet(quiet_s)

    def faults(self) -> Sequence[str]:
        """What was wrong so far, a line each."""
        of_feeds = [line for feed in self._feeds.values() for line in feed.faults()]
        return [*of_feeds, *self._synchroniser.faults(), *self._faults.lines()]

    def health(self) -> dict[str, CameraHealth]:
        """How each camera does now."""
        return {name: feed.health() for name, feed in self._feeds.items()}

    def close(self) -> None:
        """Stop the cameras and the workers; a driver that does not return is not waited for."""
        self._closed.set()
        for feed in self._feeds.values():
            feed.stop()
        with self._arrived:
            self._arrived.notify_all()
        end_s = time.monotonic() + _CLOSE_S
        for feed in self._feeds.values():
            feed.join(max(0.0, end_s - time.monotonic()))
        self._workers.shutdown(cancel_futures=True)

    def _wait_for_mail(self) -> None:
        """Until a frame arrives, or the open group need not be kept open any longer."""
        until_ns = self._open_until_ns()
        wait_s = seconds_until(until_ns, self._clock.now_ns())
        with self._arrived:
            news = any(feed.mailbox for feed in self._feeds.values()) or any(
                pending.done() for pending in self._synchroniser.open.values()
            )
            if not news and not self._closed.is_set():
                self._arrived.wait(_WAIT_S if wait_s is None else min(_WAIT_S, wait_s))

    def _open_until_ns(self) -> int | None:
        """When the open group is closed at the latest; None where no group is open."""
        opened_ns = self._synchroniser.opened_ns
        if opened_ns is None:
            return None
        until_ns = self._enforcement.ingest_until_ns(opened_ns)
        latest_ns = opened_ns + self._window_ns
        return latest_ns if until_ns is None else min(until_ns, latest_ns)

    def _take_in(self) -> list[Group[_Pending]]:
        """Take what lies in the mailboxes, start its decoding, and put it into groups; those that are closed by it."""
        mail = []
        for name, feed in self._feeds.items():
            try:
                captured = feed.mailbox.take(self._clock.now_ns(), self._max_age_ns[name])
            except StaleError as error:
                self._faults.add((name, "stale"), f"{name}: frame dropped: {error} (max_age_ms)")
                continue
            if captured is not None:
                mail.append((captured.arrival_ns, name, captured))
        groups: list[Group[_Pending]] = []
        for arrival_ns, name, captured in sorted(mail, key=lambda item: item[0]):
            pending = _Pending(name, self._clock.stamp_of(captured.capture_ns), captured)
            closed = self._synchroniser.add(name, pending.capture_ns, arrival_ns, pending)
            before = len(groups) + sum(group.frames.get(name) is not pending for group in closed)
            pending.tick = self._tick + before
            pending.ingested = self._workers.submit(self._ingest, pending.tick, name, captured)
            pending.ingested.add_done_callback(self._wake)
            groups += closed
        return groups

    def _wake(self, _: Future[_Ingested]) -> None:
        with self._arrived:
            self._arrived.notify_all()

    def _tell_as_decoded(self, begin: Begin | None) -> None:
        """Tell of the frames of the open group, the next to be handed over."""
        for pending in self._synchroniser.open.values():
            if pending.done():
                self._tell(pending, begin)

    def _tell(self, pending: _Pending, begin: Begin | None) -> None:
        pending.told = True
        if begin is None or pending.ingested is None or pending.ingested.result().image is None:
            return  # what does not decode is told of once, with its set
        frame, _ = self._frame(pending)
        if frame.decoded:
            begin(pending.tick, frame)

    def _give_up_waiting(self) -> list[Group[_Pending]]:
        """Close the open group when nobody is expected any more, or it is time."""
        until_ns = self._open_until_ns()
        if until_ns is None:
            return []
        expected = any(self._feeds[name].state in _WAITED_FOR for name in self._synchroniser.due())
        return [] if expected and self._clock.now_ns() < until_ns else self._synchroniser.flush()

    def _ingest(self, tick: int, name: str, captured: Captured) -> _Ingested:
        """On a worker: make an image of a picture, if it is wanted. A video's was being decoded since it arrived."""
        started_ns = captured.arrival_ns if isinstance(captured.picture, VideoFrame) else self._clock.now_ns()
        if name not in self._enforcement.wanted(tick):
            return _Ingested(NO_IMAGE, "", Span(started_ns, self._clock.now_ns()))
        image, problem = None, ""
        try:
            image = to_image(captured.picture, self.rig[name], self._needed.get(name))
        except UndecodableError as error:
            problem = str(error)
        return _Ingested(image, problem, Span(started_ns, self._clock.now_ns()))

    def _hand_over(self, group: Group[_Pending], begin: Begin | None) -> FrameSet:
        """The frame set of a group, when its frames are decoded or it is time."""
        decoding = {p.ingested: p for p in group.frames.values() if p.ingested is not None and not p.told}
        until_ns = self._enforcement.ingest_until_ns(
            min(pending.captured.arrival_ns for pending in group.frames.values())
        )
        with suppress(TimeoutError):
            wait_s = seconds_until(until_ns, self._clock.now_ns())
            for ingested in as_completed(decoding, wait_s):
                self._tell(decoding[ingested], begin)
        settled = [self._frame(pending) for pending in group.frames.values()]
        sound = tuple(frame for frame, broken in settled if not broken)
        frames = sound or tuple(frame for frame, _ in settled)
        captures_ns = [frame.capture_ns for frame in frames]
        present = {frame.camera for frame in frames}
        missing = tuple(name for name in self.rig if name not in present)
        return FrameSet(self._tick, max(captures_ns), max(captures_ns) - min(captures_ns), frames, missing)

    def _frame(self, pending: _Pending) -> tuple[Frame, bool]:
        """A frame as it is now, decoded or not, and whether it does not decode."""
        name, captured, ingested = pending.camera, pending.captured, pending.ingested
        done = _Ingested(NO_IMAGE, "", Span(captured.arrival_ns, captured.arrival_ns))
        if ingested is not None and not ingested.cancel() and ingested.done():
            done = ingested.result()
        broken = done.image is None
        if broken:
            self._faults.add((name, done.problem), f"{name}: frame dropped: {done.problem}")
        image = NO_IMAGE if done.image is None else done.image
        encoded = EncodedImage("jpeg", captured.picture) if isinstance(captured.picture, bytes) else None
        return Frame(name, image, pending.capture_ns, captured.arrival_ns, done.span, encoded=encoded), broken
