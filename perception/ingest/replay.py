"""Plays a drive as a source of frame sets, at the pace of a clock."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import (
    Future,
    ThreadPoolExecutor,
    TimeoutError,  # noqa: A004 (Python 3.10 has two)
    as_completed,
    wait,
)
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, NamedTuple

from perception.clock import Clock, seconds_until
from perception.config import SyncConfig
from perception.faults import Faults
from perception.governor import Enforcement, Undisturbed
from perception.ingest.decode import (
    VIDEO_CODECS,
    UndecodableError,
    VideoDecoder,
    decode_image,
    decoders,
    frame_to_image,
)
from perception.ingest.drive import Drive, Packet
from perception.ingest.synchroniser import Group, Grouping, Synchroniser
from perception.messages import NO_IMAGE, Camera, EncodedImage, Frame, FrameSet, Image, Needed, Span
from perception.stages import Begin

_LOOK_AHEAD: Final = 2
_USUAL_PERIOD_NS: Final = 100_000_000
_WAKE_EARLY_S: Final = 0.01
_PAUSE_S: Final = 0.4
_MAX_WAITING: Final = 1000
_STILL: Final = ("jpeg", "png")


class _Ingested(NamedTuple):
    """A packet that has arrived and is decoded; without an image, `problem` says why."""

    image: Image | None
    problem: str
    arrival_ns: int
    span: Span


class _Pending(NamedTuple):
    packet: Packet
    ingested: Future[_Ingested]


class _Set(NamedTuple):
    """A frame set in the making; `closed_ns` is the log time at which no more frames were waited for."""

    tick: int
    frames: tuple[_Pending, ...]
    closed_ns: int


class Replay:
    """A drive as a `Source`.

    The drive is read on a thread of its own, a few frame sets ahead, and images are decoded by `threads` workers.
    In stepped time they are decoded ahead too, and frames arrive when their set is handed over: decoding is no part of
    the tick. In real time a frame arrives when its log time is due; its decoding starts then and is part of the
    tick. A set that lacks cameras is handed over when its window has passed.

    What frame sets hold depends on the drive and the config only, never on the number of threads or on timing: the
    synchroniser is driven by the log times of the recording. A frame that does not decode is missing from its set; so
    is one that has not arrived when `enforcement` wants the set handed over, as it would be from a live camera. Where
    none decodes, all are there with `NO_IMAGE`: such a tick has its tracks too, predicted.

    `needed` is what the channels make of each camera's images; `decode_image` says what is spared. Without it all are
    decoded, at their full size.

    `enforcement` says which images nobody looks at, so that they are not decoded (but for those of videos, where later
    ones need them), and when a set is handed over at the latest: with `NO_IMAGE` for what is not decoded by then.

    `grouping` says which frames make a tick, instead of a synchroniser.

    While the drive pauses, `on_quiet` is told some five times a second for how many seconds; who closes the source then
    ends it.

    With `loop` the drive is played so many times over, its time stamps shifted on each time by its length and one
    period more, so that time and ticks go on evenly; only the vehicle is back where it started.
    """

    def __init__(
        self,
        drive: Drive,
        clock: Clock,
        sync: SyncConfig,
        *,
        threads: int,
        loop: int = 1,
        needed: Mapping[str, Needed] | None = None,
        enforcement: Enforcement | None = None,
        grouping: Grouping[Packet] | None = None,
        on_quiet: Callable[[float], None] = lambda _: None,
    ) -> None:
        self.rig = drive.rig
        self._enforcement = enforcement or Undisturbed(drive.rig)
        self._needed = needed or {}
        self._drive = drive
        self._clock = clock
        self._grouping: Grouping[Packet] = grouping or Synchroniser(tuple(drive.rig), sync)
        self._faults = Faults()
        self._loop = loop
        self._on_quiet = on_quiet
        self._reader = ThreadPoolExecutor(1, "read")
        self._workers = decoders(threads, self.rig.values())
        self._started = threading.Event()
        self._closed = threading.Event()
        self._handed_over = -1  # the tick of the last set that was

    @property
    def duration_s(self) -> float | None:
        """How long the drive lasts, all its loops together; None where only reading it all would tell."""
        if self._drive.time_range_ns is None:
            return None
        first_ns, last_ns = self._drive.time_range_ns
        return self._loop * (last_ns - first_ns) * 1e-9

    def frame_sets(self, begin: Begin | None = None) -> Iterator[FrameSet]:
        """Yield the frame sets in time order, each as soon as it is due and its frames are decoded."""
        sets = self._sets()
        ahead: deque[_Set] = deque()
        reading = self._reader.submit(next, sets, None)
        while True:
            while len(ahead) < _LOOK_AHEAD and (read := reading.result()) is not None:
                ahead.append(read)
                reading = self._reader.submit(next, sets, None)
            if not ahead:
                return
            if not self._started.is_set():
                self._clock.wait_until(min(pending.packet.log_ns for pending in ahead[0].frames))
                self._started.set()
            self._wait_out_pause(ahead[0])
            if self._closed.is_set():
                return
            yield self._hand_over(ahead.popleft(), begin)

    def faults(self) -> Sequence[str]:
        """What was wrong with the data so far, a line each, with the place."""
        return [*self._drive.faults(), *self._grouping.faults(), *self._faults.lines()]

    def close(self) -> None:
        """Stop the workers and close the files."""
        self._closed.set()
        self._started.set()
        self._reader.shutdown(cancel_futures=True)
        self._workers.shutdown(cancel_futures=True)

    def _sets(self) -> Iterator[_Set]:
        """Play the drive as often as asked; the decoding of what is yielded is under way."""
        shift_ns, tick = 0, -1
        for _ in range(self._loop):
            count = first_ns = last_ns = 0
            videos: dict[tuple[str, str], _Video] = {}
            for group in self._groups(shift_ns, videos):
                last_ns = group.stamp_ns
                first_ns = last_ns if count == 0 else first_ns
                count += 1
                tick = tick + 1 if group.tick is None else group.tick
                # In the order in which they arrive: a worker waits for the frame that it is to decode.
                arriving = sorted(group.frames.values(), key=lambda packet: packet.log_ns)
                pending = {packet.camera: _Pending(packet, self._submit(tick, packet, videos)) for packet in arriving}
                yield _Set(tick, tuple(pending[camera] for camera in group.frames), group.closed_ns)
            length_ns = last_ns - first_ns
            shift_ns += length_ns + (length_ns // (count - 1) if count > 1 else _USUAL_PERIOD_NS)

    def _groups(self, shift_ns: int, videos: dict[tuple[str, str], _Video]) -> Iterator[Group[Packet]]:
        for recorded in self._drive.packets():
            packet = _shifted(recorded, shift_ns) if shift_ns else recorded
            if packet.format in VIDEO_CODECS:
                stream = (packet.camera, packet.format)
                if stream not in videos:
                    videos[stream] = _Video(VideoDecoder(packet.format))
                videos[stream].waiting.append(packet)
            yield from self._grouping.add(packet.camera, packet.capture_ns, packet.log_ns, packet)
        yield from self._grouping.flush()

    def _submit(self, tick: int, packet: Packet, videos: dict[tuple[str, str], _Video]) -> Future[_Ingested]:
        """Start the decoding of a packet; a video's picture needs the ones before it, also those that were dropped."""
        camera = self.rig[packet.camera]
        if packet.format not in VIDEO_CODECS:
            decode = partial(_decode, packet, camera, self._needed.get(camera.name))
            return self._workers.submit(self._ingest, packet, decode, wanted_in=tick)
        video = videos[packet.camera, packet.format]
        before = []
        while video.waiting and (waiting := video.waiting.popleft()) is not packet:
            before.append(waiting.data)
        pictures = partial(video.decode, before, packet.data, camera)
        video.last = self._workers.submit(self._ingest, packet, pictures, video.last)
        return video.last

    def _ingest(
        self,
        packet: Packet,
        decode: Callable[[], Image],
        after: Future[_Ingested] | None = None,
        wanted_in: int | None = None,
    ) -> _Ingested:
        """On a worker: wait for the frame to arrive, and decode it, if it is (still) wanted in that tick."""
        arrival_ns = 0 if self._clock.stepped else self._wait_until(packet.log_ns)
        if after is not None:
            wait((after,))
        started_ns = self._clock.now_ns()
        if wanted_in is not None and not self._wants(wanted_in, packet.camera):
            return _Ingested(NO_IMAGE, "", arrival_ns, Span(started_ns, started_ns))
        image, problem = None, ""
        try:
            image = decode()
        except UndecodableError as error:
            problem = str(error)
        return _Ingested(image, problem, arrival_ns, Span(started_ns, self._clock.now_ns()))

    def _wants(self, tick: int, camera: str) -> bool:
        return tick > self._handed_over and camera in self._enforcement.wanted(tick)

    def _wait_until(self, log_ns: int) -> int:
        """As the clock's, but only when the first frame set is ready to go, and no longer than until `close`."""
        self._started.wait()
        self._closed.wait(max(0.0, (self._clock.due_ns(log_ns) - self._clock.now_ns()) * 1e-9 - _WAKE_EARLY_S))
        return self._clock.now_ns() if self._closed.is_set() else self._clock.wait_until(log_ns)

    def _wait_out_pause(self, coming: _Set) -> None:
        """Until shortly before the first frame of a set is due; only in real time is anything due later than now."""
        due_ns = min(self._clock.due_ns(pending.packet.log_ns) for pending in coming.frames)
        began_ns = self._clock.now_ns()
        while not self._closed.is_set() and (due_ns - self._clock.now_ns()) * 1e-9 > _PAUSE_S:
            self._closed.wait(_PAUSE_S / 2)
            self._on_quiet((self._clock.now_ns() - began_ns) * 1e-9)

    def _hand_over(self, coming: _Set, begin: Begin | None) -> FrameSet:
        """The frame set whose time has come."""
        until_ns = self._until_ns(coming)
        self._wait_for(coming, until_ns, begin)
        done = [(pending.packet, self._ingested(pending, until_ns)) for pending in coming.frames]
        handed_over_ns, self._handed_over = self._clock.now_ns(), coming.tick
        sound: list[tuple[Packet, Frame]] = []
        broken: list[tuple[Packet, Frame]] = []
        for packet, ingested in done:
            if ingested is None:
                continue
            arrival_ns = handed_over_ns if self._clock.stepped else ingested.arrival_ns
            if ingested.image is None:
                self._note(packet, ingested.problem)
                broken.append((packet, _frame(packet, NO_IMAGE, arrival_ns, ingested.span)))
            else:
                sound.append((packet, _frame(packet, ingested.image, arrival_ns, ingested.span)))
        frames = tuple(frame for _, frame in sound or broken)
        newest = max((packet for packet, _ in sound or broken), key=lambda packet: packet.capture_ns)
        return FrameSet(
            coming.tick,
            newest.capture_ns,
            newest.capture_ns - min(frame.capture_ns for frame in frames),
            frames,
            tuple(camera for camera in self.rig if all(frame.camera != camera for frame in frames)),
            newest.map_from_base,
            newest.point_cloud,
        )

    def _wait_for(self, coming: _Set, until_ns: int | None, begin: Begin | None) -> None:
        """Wait until a set has closed, or is not waited for any more, and tell of its frames as they are decoded."""
        too_long_ns = 0 if until_ns is None else max(0, self._clock.due_ns(coming.closed_ns) - until_ns)
        closed_ns = coming.closed_ns - too_long_ns
        if begin is None or self._clock.stepped:
            self._clock.wait_until(closed_ns)
            return
        untold = {pending.ingested: pending.packet for pending in coming.frames}
        self._tell_as_decoded(coming.tick, untold, self._clock.due_ns(closed_ns), begin)
        self._clock.wait_until(closed_ns)  # some clocks move only when they are asked to: frames may arrive by this
        self._tell_as_decoded(coming.tick, untold, until_ns, begin)

    def _tell_as_decoded(
        self, tick: int, untold: dict[Future[_Ingested], Packet], until_ns: int | None, begin: Begin
    ) -> None:
        with suppress(TimeoutError):
            for ingested in as_completed(list(untold), seconds_until(until_ns, self._clock.now_ns())):
                packet, (image, _, arrival_ns, span) = untold.pop(ingested), ingested.result()
                if image is not None and image.size:
                    begin(tick, _frame(packet, image, arrival_ns, span))

    def _until_ns(self, coming: _Set) -> int | None:
        """When a set is handed over at the latest, on the monotonic clock; None waits as long as it takes."""
        if self._clock.stepped:
            return None
        return self._enforcement.ingest_until_ns(min(self._clock.due_ns(p.packet.log_ns) for p in coming.frames))

    def _ingested(self, pending: _Pending, until_ns: int | None) -> _Ingested | None:
        """A frame, without its image where it is not decoded by then; None where it has not even arrived."""
        packet, ingested = pending
        try:
            return ingested.result(seconds_until(until_ns, self._clock.now_ns()))
        except TimeoutError:
            if packet.format not in VIDEO_CODECS:
                ingested.cancel()
            arrival_ns = self._clock.due_ns(packet.log_ns)
            arrived = arrival_ns <= self._clock.now_ns()
            return _Ingested(NO_IMAGE, "", arrival_ns, Span(arrival_ns, arrival_ns)) if arrived else None

    def _note(self, packet: Packet, problem: str) -> None:
        where = f"{packet.origin}: {packet.camera}: frame dropped, captured at {packet.capture_ns} ns"
        self._faults.add((packet.camera, problem), f"{where}: {problem}")


@dataclass
class _Video:
    """A camera's video stream: its decoder, the pictures read but not yet given to it, the last one that was."""

    decoder: VideoDecoder
    waiting: deque[Packet] = field(default_factory=lambda: deque(maxlen=_MAX_WAITING))
    last: Future[_Ingested] | None = None

    def decode(self, before: Sequence[bytes], data: bytes, camera: Camera) -> Image:
        for dropped in before:
            with suppress(UndecodableError):
                self.decoder.decode(dropped, camera)
        return self.decoder.decode(data, camera)


def _decode(packet: Packet, camera: Camera, needed: Needed | None) -> Image:
    if packet.picture is not None:
        return frame_to_image(packet.picture, camera)
    return decode_image(packet.data, camera, needed)


def _frame(packet: Packet, image: Image, arrival_ns: int, span: Span) -> Frame:
    encoded = EncodedImage(packet.format, packet.data) if packet.format in _STILL else None
    return Frame(packet.camera, image, packet.capture_ns, arrival_ns, span, packet.map_from_base, encoded)


def _shifted(packet: Packet, shift_ns: int) -> Packet:
    cloud = packet.point_cloud
    return packet._replace(
        capture_ns=packet.capture_ns + shift_ns,
        log_ns=packet.log_ns + shift_ns,
        point_cloud=None if cloud is None else replace(cloud, stamp_ns=cloud.stamp_ns + shift_ns),
    )
