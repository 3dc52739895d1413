from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from perception.clock import LiveClock
from perception.config import FileCamera, SyncConfig
from perception.governor import Undisturbed
from perception.ingest.cameras.camera import CameraError
from perception.ingest.live import Live
from perception.messages import Frame, FrameSet, Needed, Rig
from perception.stages import Source
from tests.drives import encode, make_camera, render
from tests.ingest.cameras.devices import MS, ScriptedDevice, until

CAMERAS = ("CAM_FRONT", "CAM_LEFT", "CAM_RIGHT")
RIG: Rig = {name: make_camera(name, (96, 64)) for name in CAMERAS}
PICTURES = [encode(render(RIG["CAM_FRONT"], 0.0, seed=seed)) for seed in range(5)]


class Impatient(Undisturbed):
    """Waits `patience_ms` for the frames of a set, and not for the images of who is not wanted."""

    def __init__(self, patience_ms: int, wanted: Sequence[frozenset[str]] = ()) -> None:
        super().__init__(RIG)
        self._patience_ns = patience_ms * MS
        self._wanted_in = wanted

    def wanted(self, tick: int) -> frozenset[str]:
        return self._wanted_in[tick % len(self._wanted_in)] if self._wanted_in else super().wanted(tick)

    def ingest_until_ns(self, arrival_ns: int) -> int:
        return arrival_ns + self._patience_ns


@dataclass
class Vehicle:
    """Scripted cameras, and what a consumer on a thread of its own was given of them."""

    live: Live
    devices: dict[str, ScriptedDevice]
    sets: list[FrameSet] = field(default_factory=list)
    held: threading.Event = field(default_factory=threading.Event)
    """Cleared, the consumer is busy with the frame set that it was given last."""
    shot: int = 0
    told: list[tuple[int, Frame]] = field(default_factory=list)
    """Which frames it was told of as they were decoded, and of which tick they are."""

    def consume(self) -> None:
        for frames in self.live.frame_sets(lambda tick, frame: self.told.append((tick, frame))):
            self.sets.append(frames)
            self.held.wait()

    def shoot(self, *cameras: str, stamp_ns: int | None = None) -> int:
        """Let cameras capture something new, at one time."""
        stamp_ns = time.monotonic_ns() if stamp_ns is None else stamp_ns
        self.shot += 1
        for name in cameras or CAMERAS:
            self.devices[name].shoot(PICTURES[self.shot % len(PICTURES)], stamp_ns)
        return stamp_ns

    def tick(self, *cameras: str) -> FrameSet:
        """The frame set that comes of one more shot."""
        count = len(self.sets)
        self.shoot(*cameras)
        until(lambda: len(self.sets) > count)
        return self.sets[count]


@pytest.fixture
def vehicle(request: pytest.FixtureRequest) -> Iterator[Vehicle]:
    options: dict[str, Any] = {"enforcement": Impatient(3_000), "window_ms": 3_000, "max_age_ms": 1_000}
    options |= getattr(request, "param", {})
    sync = SyncConfig(window_ms=options.pop("window_ms"))
    camera = FileCamera(source="file", path=Path("-"), max_age_ms=options.pop("max_age_ms"), timeout_s=30)
    devices = {name: ScriptedDevice() for name in CAMERAS}
    live = Live(RIG, devices, dict.fromkeys(CAMERAS, camera), LiveClock(), sync, threads=2, **options)
    vehicle = Vehicle(live, devices)
    vehicle.held.set()
    consumer = threading.Thread(target=vehicle.consume)
    consumer.start()
    yield vehicle
    live.close()
    vehicle.held.set()
    consumer.join(10)
    assert not consumer.is_alive()


def test_a_frame_is_told_of_when_it_is_decoded_though_others_are_waited_for(vehicle: Vehicle) -> None:
    vehicle.tick()
    stamp_ns = vehicle.shoot("CAM_RIGHT")
    until(lambda: len(vehicle.told) == 4)
    assert len(vehicle.sets) == 1
    vehicle.shoot("CAM_FRONT", "CAM_LEFT", stamp_ns=stamp_ns + MS)
    until(lambda: len(vehicle.sets) == 2)
    assert [tick for tick, _ in vehicle.told] == [0, 0, 0, 1, 1, 1]
    assert vehicle.told[3][1] == vehicle.sets[1].frames[2]


def names(frames: FrameSet) -> list[str]:
    return [frame.camera for frame in frames.frames]


def test_frames_of_one_time_become_a_frame_set(vehicle: Vehicle) -> None:
    source: Source = vehicle.live  # it satisfies the protocol
    before_ns = time.time_ns()
    frames = vehicle.tick()
    assert names(frames) == list(source.rig)
    assert (frames.tick, frames.skew_ns, frames.missing) == (0, 0, ())
    assert frames.map_from_base is None
    assert abs(frames.stamp_ns - before_ns) < 10_000 * MS
    now_ns = time.monotonic_ns()
    for frame in frames.frames:
        assert frame.image.shape == (64, 96, 3)
        assert frame.encoded == ("jpeg", PICTURES[1])
        assert frame.capture_ns == frames.stamp_ns
        assert frame.arrival_ns <= frame.ingest.start_ns <= frame.ingest.end_ns <= now_ns
    assert vehicle.tick().tick == 1
    assert vehicle.live.faults() == []


@pytest.mark.parametrize("vehicle", [{"needed": {"CAM_LEFT": Needed((20, 10))}}], indirect=True)
def test_images_are_no_larger_than_they_are_looked_at(vehicle: Vehicle) -> None:
    assert [frame.image.shape for frame in vehicle.tick().frames] == [(64, 96, 3), (32, 48, 3), (64, 96, 3)]


def test_whoever_is_slow_gets_the_latest_frames_and_no_queue_grows(vehicle: Vehicle) -> None:
    vehicle.held.clear()
    vehicle.tick()
    for _ in range(20):
        latest_ns = vehicle.shoot()
        until(lambda: all(device.events.empty() for device in vehicle.devices.values()))
    until(lambda: all(health.frames == 21 for health in vehicle.live.health().values()))
    vehicle.held.set()
    until(lambda: len(vehicle.sets) == 2)
    assert vehicle.sets[1].tick == 1
    assert vehicle.sets[1].missing == ()
    assert vehicle.sets[1].stamp_ns - vehicle.sets[0].stamp_ns > 0
    assert LiveClock().due_ns(vehicle.sets[1].stamp_ns) == pytest.approx(latest_ns, abs=50 * MS)
    assert [health.overwritten for health in vehicle.live.health().values()] == [19, 19, 19]


def test_a_frame_older_than_asked_for_is_not_given(vehicle: Vehicle) -> None:
    vehicle.shoot("CAM_LEFT", stamp_ns=time.monotonic_ns() - 2_000 * MS)
    until(lambda: vehicle.live.health()["CAM_LEFT"].stale == 1)
    assert vehicle.tick().missing == ()
    assert len(vehicle.sets) == 1
    (line,) = vehicle.live.faults()
    assert line.startswith("CAM_LEFT: frame dropped: 20")
    assert line.endswith(" ms old, at most 1000 are allowed (max_age_ms)")


@pytest.mark.parametrize("vehicle", [{"enforcement": Impatient(60_000)}], indirect=True)
def test_a_camera_that_is_gone_is_not_waited_for_and_comes_back_by_itself(vehicle: Vehicle) -> None:
    for _ in range(3):
        assert vehicle.tick().missing == ()
    device = vehicle.devices["CAM_LEFT"]
    device.gone = "no such device"
    device.events.put(CameraError("unplugged"))
    until(lambda: vehicle.live.health()["CAM_LEFT"].state == "lost")
    began = time.monotonic()
    for _ in range(3):
        assert vehicle.tick("CAM_FRONT", "CAM_RIGHT").missing == ("CAM_LEFT",)
    assert time.monotonic() - began < 60  # far less than the window and the patience, three times over
    device.gone = ""
    until(lambda: device.opened == 2)
    vehicle.shoot("CAM_LEFT")  # it may come in a set of its own
    until(lambda: vehicle.live.health()["CAM_LEFT"].state == "streaming")
    until(lambda: vehicle.tick().missing == ())
    assert vehicle.live.health()["CAM_LEFT"].reconnects == 1
    assert vehicle.live.faults()[0] == "CAM_LEFT: lost: unplugged; it is tried again until it is back"


@pytest.mark.parametrize("vehicle", [{"enforcement": Impatient(50)}], indirect=True)
def test_a_camera_that_is_late_is_missing_when_time_is_up(vehicle: Vehicle) -> None:
    until(lambda: vehicle.tick().missing == ())
    frames = vehicle.tick("CAM_FRONT", "CAM_RIGHT")
    assert frames.missing == ("CAM_LEFT",)
    late_ns = LiveClock().due_ns(frames.stamp_ns)
    vehicle.shoot("CAM_LEFT", stamp_ns=late_ns)
    until(lambda: any("after its tick had closed" in line for line in vehicle.live.faults()))
    until(lambda: vehicle.tick().missing == ())
    stamps = [frames.stamp_ns for frames in vehicle.sets]
    assert all(a < b for a, b in pairwise(stamps))
    in_sets = {(frames.tick, frame.camera, frame.capture_ns) for frames in vehicle.sets for frame in frames.frames}
    assert {(tick, frame.camera, frame.capture_ns) for tick, frame in vehicle.told} <= in_sets


@pytest.mark.parametrize("vehicle", [{"window_ms": 90, "max_age_ms": 60_000}], indirect=True)
def test_a_camera_ten_times_slower_leaves_the_others_alone(vehicle: Vehicle) -> None:
    began_ns = time.monotonic_ns() - 5_000 * MS
    for tick in range(31):
        stamp_ns, told = began_ns + tick * 100 * MS, len(vehicle.told)
        if tick % 10 == 0:
            vehicle.shoot("CAM_RIGHT", stamp_ns=stamp_ns)
            # not at one time with the others: once it is not due any more, they do not wait for it
            until(lambda told=told: len(vehicle.told) > told)  # type: ignore[misc]
        vehicle.shoot("CAM_FRONT", "CAM_LEFT", stamp_ns=stamp_ns)
        until(lambda tick=tick: len(vehicle.sets) == tick + 1)  # type: ignore[misc]
    assert {frames.missing for frames in vehicle.sets} == {(), ("CAM_RIGHT",)}
    whole = [frames.tick for frames in vehicle.sets if not frames.missing]
    assert len(whole) == 4


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (PICTURES[0][:500], "the jpeg image is cut short or corrupt"),
        (b"\x00" * 500, "expected a JPEG or PNG image"),
        (encode(render(make_camera("BIG", (192, 128)), 0.0)), "the image is 192x128, where the calibration says 96x64"),
    ],
    ids=["corrupt", "no image", "other size"],
)
def test_a_frame_that_does_not_decode_is_missing_and_told(vehicle: Vehicle, data: bytes, told: str) -> None:
    vehicle.tick()
    for _ in range(2):
        count = len(vehicle.sets)
        now_ns = time.monotonic_ns()
        vehicle.devices["CAM_LEFT"].shoot(data, now_ns)
        vehicle.shoot("CAM_FRONT", "CAM_RIGHT", stamp_ns=now_ns)
        until(lambda count=count: len(vehicle.sets) > count)  # type: ignore[misc]
        assert vehicle.sets[-1].missing == ("CAM_LEFT",)
        data += b"\x00"
    assert vehicle.tick().missing == ()
    (line,) = vehicle.live.faults()
    assert line.startswith("CAM_LEFT: frame dropped: ")
    assert told in line
    assert line.endswith("(and 1 more like it)")


def test_a_set_of_which_nothing_decodes_is_a_tick_all_the_same(vehicle: Vehicle) -> None:
    vehicle.tick()
    now_ns = time.monotonic_ns()
    for device in vehicle.devices.values():
        device.shoot(b"\x00" * 500, now_ns)
    until(lambda: len(vehicle.sets) > 1)
    assert vehicle.sets[-1].missing == ()
    assert not any(frame.decoded for frame in vehicle.sets[-1].frames)
    assert len(vehicle.live.faults()) == len(CAMERAS)


@pytest.mark.parametrize(
    "vehicle",
    [{"enforcement": Impatient(3_000, [frozenset(CAMERAS), frozenset({"CAM_FRONT"})])}],
    indirect=True,
)
def test_images_that_nobody_looks_at_are_not_decoded_but_kept_as_they_came(vehicle: Vehicle) -> None:
    for _ in range(6):
        frames = vehicle.tick()
        assert frames.missing == ()
        wanted = list(CAMERAS) if frames.tick % 2 == 0 else ["CAM_FRONT"]
        assert [frame.camera for frame in frames.frames if frame.decoded] == wanted
        assert all(frame.encoded is not None for frame in frames.frames)


def test_while_nothing_comes_it_says_so_and_can_be_ended() -> None:
    devices = {name: ScriptedDevice(gone="not there") for name in CAMERAS}
    cameras = {name: FileCamera(source="file", path=Path("-")) for name in CAMERAS}
    quiet: list[float] = []

    def on_quiet(seconds: float) -> None:
        quiet.append(seconds)
        if len(quiet) == 3:
            live.close()

    live = Live(RIG, devices, cameras, LiveClock(), SyncConfig(), threads=1, on_quiet=on_quiet)
    assert list(live.frame_sets()) == []
    assert len(quiet) == 3
    assert 0.2 < quiet[0] < quiet[1] < quiet[2]
    assert {health.state for health in live.health().values()} == {"lost"}


def test_all_cameras_may_go_and_come_back(vehicle: Vehicle) -> None:
    vehicle.tick()
    for device in vehicle.devices.values():
        device.gone = "no such device"
        device.events.put(CameraError("unplugged"))
    until(lambda: all(health.state == "lost" for health in vehicle.live.health().values()))
    for device in vehicle.devices.values():
        device.gone = ""
    until(lambda: all(device.opened == 2 for device in vehicle.devices.values()))
    until(lambda: vehicle.tick().missing == ())
    assert [health.reconnects for health in vehicle.live.health().values()] == [1, 1, 1]


def test_a_stepped_wall_clock_does_not_disturb_it(vehicle: Vehicle, monkeypatch: pytest.MonkeyPatch) -> None:
    real_time_ns = time.time_ns
    for hours in (0, 1, -1, 0):
        monkeypatch.setattr(time, "time_ns", lambda hours=hours: real_time_ns() + hours * 3600 * 1000 * MS)
        assert vehicle.tick().missing == ()
    stamps = [frames.stamp_ns for frames in vehicle.sets]
    assert all(0 < b - a < 60_000 * MS for a, b in pairwise(stamps))
    assert vehicle.live.faults() == []
