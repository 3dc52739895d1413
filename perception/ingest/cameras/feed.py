"""A camera's thread: opens it, reads it, opens it again when it fails."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from av.video.frame import VideoFrame

from perception.faults import Faults
from perception.ingest.cameras.camera import CameraError, Device, RawPicture, Shot, Stream
from perception.ingest.cameras.mailbox import Mailbox
from perception.ingest.cameras.pixels import same
from perception.ingest.decode import UndecodableError

State = Literal["starting", "streaming", "frozen", "lost"]

_FIRST_RETRY_S: Final = 0.1
_LAST_RETRY_S: Final = 5.0
_MAX_AGE_NS: Final = 10_000_000_000


class Captured(NamedTuple):
    """A picture with the time of its capture, both times on the machine's monotonic clock."""

    picture: bytes | RawPicture | VideoFrame
    capture_ns: int
    arrival_ns: int


@dataclass(frozen=True, slots=True)
class CameraHealth:
    """How a camera does.

    `frames` came and were put into the mailbox, `dropped` came and were of no use (damaged, repeated, out of order, the
    same picture for too long), `overwritten` and `stale` were put there and nobody took them, or too late.
    `last_arrival_ns` is on the monotonic clock, of the last one of use; None before the first.
    """

    state: State
    last_arrival_ns: int | None
    frames: int
    dropped: int
    overwritten: int
    stale: int
    reconnects: int


class Feed:
    """Keeps one camera running and its latest frame in a mailbox.

    A camera that cannot be opened, that ends, or that gives nothing for `timeout_s` is opened again, after a tenth of a
    second first and twice as long each time, up to five seconds. Frames are dropped, and counted, that are damaged,
    whose capture is not after the one before, or that show the same picture for `frozen_s`. A capture that the device
    does not tell, or that cannot be true, is taken to be the arrival, and `faults` says so.
    """

    def __init__(
        self, name: str, device: Device, arrived: threading.Condition, *, timeout_s: float, frozen_s: float | None
    ) -> None:
        self.mailbox: Mailbox[Captured] = Mailbox(arrived)
        self.state: State = "starting"
        self._name = name
        self._device = device
        self._timeout_ns = round(timeout_s * 1e9)
        self._frozen_ns = None if frozen_s is None else round(frozen_s * 1e9)
        self._faults = Faults()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)  # a driver may never return
        self._frames = self._dropped = self._reconnects = 0
        self._last: Captured | None = None
        self._new_picture_ns = 0

    def start(self) -> None:
        """Open the camera, on its thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; returns at once."""
        self._closed.set()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread to end, but not for a driver that does not return."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def faults(self) -> list[str]:
        """What was wrong so far, a line each."""
        return self._faults.lines()

    def health(self) -> CameraHealth:
        """How the camera does now."""
        return CameraHealth(
            self.state,
            None if self._last is None else self._last.arrival_ns,
            self._frames,
            self._dropped,
            self.mailbox.overwritten,
            self.mailbox.stale,
            self._reconnects,
        )

    def _run(self) -> None:
        retry_s = _FIRST_RETRY_S
        while not self._closed.is_set():
            frames = self._frames
            try:
                with closing(self._device.open()) as stream:
                    self._read(stream)
            except CameraError as error:
                self._lose(str(error))
            except Exception as error:  # noqa: BLE001 (whatever it is that a driver raises, the camera is tried again)
                self._lose(f"{type(error).__name__}: {error}")
            if self._frames > frames:
                retry_s = _FIRST_RETRY_S
            self._closed.wait(retry_s)
            retry_s = min(2 * retry_s, _LAST_RETRY_S)

    def _read(self, stream: Stream) -> None:
        heard_ns = time.monotonic_ns()
        while not self._closed.is_set():
            try:
                shot = stream.read()
            except UndecodableError as error:
                heard_ns = time.monotonic_ns()
                self._drop(str(error))
                continue
            if shot is not None:
                heard_ns = shot.arrival_ns
                self._take_in(shot)
            elif time.monotonic_ns() - heard_ns > self._timeout_ns:
                raise CameraError(f"no frame for {self._timeout_ns * 1e-9:g} s")

    def _take_in(self, shot: Shot) -> None:
        captured = Captured(shot.picture, self._capture_ns(shot), shot.arrival_ns)
        last = self._last
        if last is not None and captured.capture_ns <= last.capture_ns:
            again = captured.capture_ns == last.capture_ns
            self._drop("a frame of the same time again" if again else "a frame that is older than the one before")
            return
        if last is None or not same(captured.picture, last.picture):
            self._new_picture_ns = captured.arrival_ns
        self._last = captured
        if self._frozen_ns is not None and captured.arrival_ns - self._new_picture_ns >= self._frozen_ns:
            self.state = "frozen"
            self._drop(f"frozen: the same picture for {self._frozen_ns * 1e-9:g} s")
            return
        self._reconnects += self.state == "lost"
        self.state = "streaming"
        self._frames += 1
        self.mailbox.put(captured.capture_ns, captured)

    def _capture_ns(self, shot: Shot) -> int:
        """When a shot was captured, as far as that can be believed."""
        if shot.stamp_ns is None:
            self._faults.once(f"{self._name}: the camera does not tell when it captures; arrival is taken for it")
            return shot.arrival_ns
        if not shot.arrival_ns - _MAX_AGE_NS <= shot.stamp_ns <= shot.arrival_ns:
            ahead_s = (shot.stamp_ns - shot.arrival_ns) * 1e-9
            line = f"{self._name}: a frame stamped {ahead_s:+.3f} s from its arrival; arrival is taken for its capture"
            self._faults.add(("stamp",), line)
            return shot.arrival_ns
        return shot.stamp_ns

    def _drop(self, problem: str) -> None:
        self._dropped += 1
        self._faults.add((problem,), f"{self._name}: frame dropped: {problem}")

    def _lose(self, problem: str) -> None:
        if not self._closed.is_set():
            self.state = "lost"
            self._faults.add(("lost", problem), f"{self._name}: lost: {problem}; it is tried again until it is back")
