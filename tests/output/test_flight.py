from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foxglove_schemas_protobuf.Log_pb2 import Log
from hypothesis import given
from hypothesis import strategies as st
from mcap.reader import make_reader

from perception.clock import SteppedClock
from perception.config import Config, FlightConfig, SyncConfig
from perception.errors import OutputError
from perception.ingest.open_drive import open_drive
from perception.ingest.replay import Replay
from perception.messages import NO_IMAGE, Decision, FrameSet, Tick
from perception.output import flight
from perception.output.decisions import read_decisions
from perception.output.flight import FlightRecorder
from perception.output.ring import Ring, size_of
from perception.output.shelf import surplus
from perception.output.triggers import Triggers
from tests.drives import START_NS
from tests.output.samples import PERIOD_NS, make_rig, make_tick

RIG = make_rig()


def decided(tick: Tick, decision: Decision) -> Tick:
    return replace(tick, tracks=replace(tick.tracks, decision=decision))


def at(tick: Tick, stamp_ns: int) -> Tick:
    return replace(tick, frames=replace(tick.frames, stamp_ns=stamp_ns))


def make_config(directory: Path, **changes: Any) -> Config:
    values = {"enabled": True, "directory": directory, "before_s": 1.0, "after_s": 0.5, "camera_lost_s": 60.0}
    return Config(flight=FlightConfig(**(values | changes)))


class Vehicle:
    """A flight recorder with ticks at 10 Hz going in, as fast as they can be made."""

    def __init__(self, directory: Path, **changes: Any) -> None:
        self.directory = directory
        self.told: list[str] = []
        self.recorder = FlightRecorder(make_config(directory, **changes), RIG, self.told.append)
        self.tick = 0

    def drive(self, ticks: int, change: Callable[[Tick], Tick] = lambda tick: tick, **of_tick: Any) -> None:
        for _ in range(ticks):
            self.recorder.record(change(make_tick(self.tick, RIG, **of_tick)))
            self.tick += 1

    def events(self) -> list[Path]:
        """Close the recorder; the directories of its events, oldest first."""
        self.recorder.close()
        return sorted(self.directory.iterdir())


@pytest.fixture(name="vehicle")
def _vehicle(tmp_path: Path) -> Iterator[Vehicle]:
    vehicle = Vehicle(tmp_path)
    yield vehicle
    vehicle.recorder.close()


def replayed(recording: Path) -> list[FrameSet]:
    replay = Replay(open_drive(recording), SteppedClock(), SyncConfig(), threads=1)
    try:
        return list(replay.frame_sets())
    finally:
        replay.close()


def stamps(event: Path) -> list[int]:
    return [frames.stamp_ns for frames in replayed(event / "recording.mcap")]


def of_ticks(*ticks: int) -> list[int]:
    return [START_NS + tick * PERIOD_NS for tick in range(*ticks)]


def described(event: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((event / "event.json").read_text())
    return record


# --- what an event holds


def test_an_event_is_what_was_before_it_and_after_it(vehicle: Vehicle) -> None:
    vehicle.drive(30)
    vehicle.recorder.trigger("SIGUSR1")
    vehicle.drive(20)
    (event,) = vehicle.events()
    assert event.name == "000001-20231114T221322Z-sigusr1"
    assert stamps(event) == of_ticks(19, 35)
    assert described(event)["reasons"] == [{"what": "SIGUSR1", "tick": 29, "stamp_ns": START_NS + 29 * PERIOD_NS}]
    assert described(event)["ticks"] == 16
    assert described(event)["first"]["tick"] == 19
    assert described(event)["last"]["tick"] == 34
    assert (described(event)["ticks_lost"], described(event)["cut_short"]) == (0, None)
    assert vehicle.told == [f"flight recorder: SIGUSR1: 16 ticks in {event}"]


def test_it_replays_with_the_frames_as_they_came_the_rig_and_the_poses(vehicle: Vehicle) -> None:
    vehicle.drive(5)
    vehicle.recorder.trigger("POST")
    vehicle.drive(5)
    (event,) = vehicle.events()
    drive = open_drive(event / "recording.mcap")
    for name, camera in RIG.items():
        np.testing.assert_allclose(drive.rig[name].base_from_camera.translation, camera.base_from_camera.translation)
        np.testing.assert_allclose(drive.rig[name].intrinsics, camera.intrinsics)
    for number, frames in enumerate(replayed(event / "recording.mcap")):
        original = make_tick(number, RIG).frames
        assert [frame.encoded for frame in frames.frames] == [frame.encoded for frame in original.frames]
        assert frames.map_from_base is not None
        assert original.map_from_base is not None
        np.testing.assert_allclose(frames.map_from_base.translation, original.map_from_base.translation)


def test_it_holds_tracks_detections_and_what_happened(vehicle: Vehicle) -> None:
    vehicle.drive(5)
    vehicle.drive(1, lambda tick: decided(tick, Decision(level=1)))
    vehicle.drive(1, lambda tick: decided(tick, Decision(level=1)))
    (event,) = vehicle.events()
    assert [decided.decision.level for decided in read_decisions(event / "decisions.jsonl")] == [0] * 5 + [1] * 2
    with (event / "recording.mcap").open("rb") as file:
        messages = [(c.topic, m.log_time, m.data) for _, c, m in make_reader(file, validate_crcs=True).iter_messages()]
    assert {topic for topic, _, _ in messages} >= {"/tracks", "/CAM_FRONT/detections", "/latency", "/tf"}
    log = [(at, Log.FromString(data).message) for topic, at, data in messages if topic == "/diagnostics"]
    assert (START_NS + 5 * PERIOD_NS, "flight recorder: ladder 0 to 1") in log


def test_frames_that_did_not_come_as_images_become_jpeg(vehicle: Vehicle) -> None:
    def raw(tick: Tick) -> Tick:
        front, left = tick.frames.frames
        assert left.encoded is not None
        of_a_stream = replace(left, encoded=left.encoded._replace(format="h264"))
        return replace(tick, frames=replace(tick.frames, frames=(replace(front, encoded=None), of_a_stream)))

    vehicle.drive(3, raw)
    vehicle.recorder.trigger("SIGUSR1")
    (event,) = vehicle.events()
    frames = replayed(event / "recording.mcap")
    assert len(frames) == 3
    original = make_tick(2, RIG).frames.frames[0].image
    assert np.abs(frames[2].frames[0].image.astype(int) - original).mean() < 5
    assert [len(of_tick.frames) for of_tick in frames] == [2, 2, 2]


def test_a_frame_of_which_there_is_nothing_is_left_out(vehicle: Vehicle) -> None:
    def undecoded(tick: Tick) -> Tick:
        front, left = tick.frames.frames
        nothing = replace(left, image=NO_IMAGE, encoded=None)
        return replace(tick, frames=replace(tick.frames, frames=(front, nothing)))

    vehicle.drive(2, undecoded)
    vehicle.recorder.trigger("SIGUSR1")
    (event,) = vehicle.events()
    with (event / "recording.mcap").open("rb") as file:
        topics = {channel.topic for _, channel, _ in make_reader(file).iter_messages()}
    assert "/CAM_FRONT/image_rect_compressed" in topics
    assert "/CAM_LEFT/image_rect_compressed" not in topics


def test_another_event_meanwhile_makes_it_longer_but_not_for_ever(tmp_path: Path) -> None:
    vehicle = Vehicle(tmp_path, longest_s=1.0)
    vehicle.drive(10)
    for _ in range(4):
        vehicle.recorder.trigger("again")
        vehicle.drive(4)
    first, *others = vehicle.events()
    assert stamps(first) == of_ticks(0, 20)
    assert [reason["tick"] for reason in described(first)["reasons"]] == [9, 13, 17]
    assert len(others) == 1  # what came after the longest time
    assert stamps(others[0])[-1] == START_NS + 25 * PERIOD_NS


def test_closing_completes_an_event_and_says_that_it_was_cut_short(vehicle: Vehicle) -> None:
    vehicle.drive(3)
    vehicle.recorder.trigger("SIGUSR1")
    vehicle.drive(1)
    (event,) = vehicle.events()
    assert stamps(event) == of_ticks(4)
    assert "closed" in described(event)["cut_short"]
    vehicle.recorder.close()


def test_when_no_more_frames_come_it_is_an_event_that_ends_by_itself(tmp_path: Path) -> None:
    vehicle = Vehicle(tmp_path, camera_lost_s=0.1, after_s=0.1)
    vehicle.drive(3)
    deadline = time.monotonic() + 20
    while not list(tmp_path.glob("*/event.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    (event,) = sorted(tmp_path.iterdir())
    assert stamps(event) == of_ticks(3)
    assert described(event)["reasons"][0]["what"] == "no frames for 0.1 s"
    assert len(vehicle.events()) == 1


def test_without_a_tick_there_is_nothing_to_write(vehicle: Vehicle) -> None:
    vehicle.recorder.trigger("POST")
    assert vehicle.events() == []
    assert "nothing to write yet" in vehicle.told[0]


def test_a_reason_from_outside_can_only_name_its_directory(vehicle: Vehicle) -> None:
    vehicle.drive(1)
    vehicle.recorder.trigger("../../etc " + "x" * 10_000)
    (event,) = vehicle.events()
    assert re.fullmatch(r"000001-\w+-etc-x{35,40}", event.name)
    assert len(described(event)["reasons"][0]["what"]) == 200


def test_a_signal_handler_may_ask_for_an_event(vehicle: Vehicle) -> None:
    previous = signal.signal(signal.SIGUSR1, lambda *_: vehicle.recorder.trigger("SIGUSR1"))
    try:
        for _ in range(20):
            vehicle.drive(1)
            os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, previous)
    events = vehicle.events()
    assert sum(len(described(event)["reasons"]) for event in events) == 20


# --- why there is one


def reasons(ticks: list[Tick], **changes: Any) -> dict[int, list[str]]:
    """What `Triggers` said, by the number of the tick."""
    triggers = Triggers(make_config(Path("nowhere"), **changes).flight)
    found = {tick.frames.tick: triggers.look(tick) for tick in ticks}
    return {number: said for number, said in found.items() if said}


@pytest.mark.parametrize(
    "decision",
    [Decision(dropped=True), Decision(late=("CAM_LEFT",)), Decision(deadline_met=False)],
    ids=["dropped", "cut off", "late"],
)
def test_a_burst_of_overruns_is_one_event_until_it_is_quiet(decision: Decision) -> None:
    bad = {3, 4, 5, 6, 7, 8, 40, 41, 42, 60, 80}
    ticks = [make_tick(i, RIG) for i in range(100)]
    ticks = [decided(tick, decision) if tick.frames.tick in bad else tick for tick in ticks]
    said = ["3 overruns in 1 s"]
    assert reasons(ticks, overruns=3, overruns_within_s=1.0) == {5: said, 42: said}


def test_ticks_that_missed_their_deadline_are_overruns() -> None:
    ticks = [make_tick(i, RIG, late=i == 2) for i in range(4)]
    assert list(reasons(ticks, overruns=1)) == [2]


def test_each_step_of_the_ladder_is_an_event() -> None:
    levels = (1, 1, 2, 2, 1, 0)
    ticks = [decided(make_tick(i, RIG), Decision(level=level)) for i, level in enumerate(levels)]
    assert reasons(ticks) == {2: ["ladder 1 to 2"], 4: ["ladder 2 to 1"], 5: ["ladder 1 to 0"]}


def test_a_camera_that_stays_away_is_one_event_until_it_is_back() -> None:
    away = {1, 2, *range(5, 30), *range(31, 60)}
    ticks = [make_tick(i, RIG, missing=("CAM_LEFT",) if i in away else ()) for i in range(60)]
    said = ["CAM_LEFT missing for 1 s"]
    assert reasons(ticks, camera_lost_s=1.0) == {15: said, 41: said}


# --- what it may cost


@given(
    sizes=st.lists(st.integers(0, 100), max_size=30),
    quota=st.integers(0, 1000),
)
def test_the_oldest_events_go_and_no_more_than_need_to(sizes: list[int], quota: int) -> None:
    events = {f"{number:06d}-t-r": size for number, size in enumerate(sizes, start=999_990)}
    gone = surplus(dict(reversed(events.items())), quota)
    assert gone == list(events)[: len(gone)]
    left = sum(sizes[len(gone) :])
    assert left <= quota or len(gone) >= len(sizes) - 1
    if gone:
        assert left + sizes[len(gone) - 1] > quota


@given(
    steps=st.lists(st.tuples(st.integers(-3, 3), st.booleans(), st.booleans()), max_size=60),
    capacity=st.integers(0, 12),
)
def test_the_ring_gives_an_event_every_tick_once_or_counts_it(
    steps: list[tuple[int, bool, bool]], capacity: int
) -> None:
    template = make_tick(0, RIG)
    ring = Ring(5, capacity * size_of(template))
    wanted: list[int] = []
    taken: list[int] = []
    stamp = 0
    for number, (step, is_wanted, takes) in enumerate(steps):
        stamp += step
        tick = replace(template, frames=replace(template.frames, tick=number, stamp_ns=START_NS + stamp))
        ring.add(tick, wanted=is_wanted or bool(wanted))
        if is_wanted or wanted:
            wanted.append(number)
        if takes and (oldest := ring.take()):
            taken.append(oldest.frames.tick)
        assert len(ring) <= capacity
    while oldest := ring.take():
        taken.append(oldest.frames.tick)
    assert taken == sorted(set(taken))
    assert set(taken) <= set(wanted)
    assert len(taken) + ring.lost == len(wanted)


def test_events_stay_within_the_quota_and_others_are_not_touched(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_bytes(bytes(10_000_000))
    (tmp_path / "000001-20200101T000000Z-left").mkdir()
    (tmp_path / "000001-20200101T000000Z-left" / "recording.mcap.partial").write_bytes(bytes(500_000))
    vehicle = Vehicle(tmp_path, quota_mb=0.15, before_s=0.3, after_s=0.2)
    vehicle.drive(1)
    for _ in range(12):
        vehicle.recorder.trigger("x")
        vehicle.drive(8)
    *events, notes = vehicle.events()
    assert notes.name == "notes"
    assert (notes / "mine.txt").stat().st_size == 10_000_000
    assert 1 < len(events) < 12
    assert sum(path.stat().st_size for event in events for path in event.iterdir()) <= 150_000
    numbers = [int(event.name[:6]) for event in events]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert numbers[0] > 2


def test_an_event_larger_than_the_quota_ends_there(tmp_path: Path) -> None:
    vehicle = Vehicle(tmp_path, quota_mb=0.1, after_s=20.0)
    vehicle.drive(1)
    vehicle.recorder.trigger("x")
    vehicle.drive(100)
    (event,) = vehicle.events()
    assert "quota_mb" in described(event)["cut_short"]
    assert 2 < described(event)["ticks"] < 100


def test_memory_is_bounded_and_what_it_costs_is_said(tmp_path: Path) -> None:
    tick_bytes = size_of(make_tick(0, RIG)) - sum(f.image.nbytes for f in make_tick(0, RIG).frames.frames)
    vehicle = Vehicle(tmp_path, before_s=10.0, memory_mb=tick_bytes * 16 / 0.75 / 1e6)
    for _ in range(50):
        vehicle.drive(1)
        time.sleep(0.002)
    vehicle.recorder.trigger("x")
    (event,) = vehicle.events()
    assert 5 < described(event)["ticks"] <= 20
    assert described(event)["last"]["tick"] == 49


def test_ticks_that_never_fit_are_said(tmp_path: Path) -> None:
    vehicle = Vehicle(tmp_path, memory_mb=0.001)
    vehicle.drive(3)
    vehicle.recorder.trigger("x")
    assert vehicle.events() == []
    assert "3 ticks did not fit into flight.memory_mb" in vehicle.told[0]


# --- what may go wrong


@contextmanager
def full_disk(bytes_left: int) -> Iterator[None]:
    """No file of this process may grow larger: writing is refused by the system, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_told_once_and_the_next_event_is_tried_again(tmp_path: Path) -> None:
    vehicle = Vehicle(tmp_path, before_s=0.3, after_s=0.2)
    vehicle.drive(1)
    with full_disk(5_000):
        for _ in range(3):
            vehicle.recorder.trigger("full")
            vehicle.drive(30)
        settle(vehicle)
    assert len(vehicle.told) == 1
    assert "cannot be written" in vehicle.told[0]
    vehicle.recorder.trigger("room again")
    vehicle.drive(10)
    *failed, event = vehicle.events()
    assert len(failed) == 3
    assert event.name.endswith("room-again")
    assert len(stamps(event)) == 6
    assert {path.name for path in failed[0].iterdir()} == {"recording.mcap.partial", "decisions.jsonl.partial"}


def test_what_waits_for_an_event_that_fails_does_not_follow_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, _: bytes) -> None:
        raise OutputError(f"{path}: cannot be written: No space left on device")

    vehicle = Vehicle(tmp_path, before_s=3.0, longest_s=1.0)
    with monkeypatch.context() as disk:
        disk.setattr(flight, "write_whole", refuse)
        vehicle.drive(30)
        vehicle.recorder.trigger("full")
        vehicle.drive(13)  # it is still being written, and as long as it may be
        vehicle.recorder.trigger("too late for it")
        vehicle.drive(20)
        settle(vehicle)
    assert len(vehicle.told) == 1
    vehicle.recorder.trigger("room again")
    vehicle.drive(40)
    whole = [event.name for event in vehicle.events() if (event / "event.json").exists()]
    assert len(whole) == 1
    assert whole[0].endswith("room-again")


def settle(vehicle: Vehicle) -> None:
    """Wait until the recorder's thread has taken in all that was handed over."""
    deadline = time.monotonic() + 20
    while not vehicle.recorder._inbox.empty() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)


def test_a_directory_that_cannot_be_had_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file: cannot be written"):
        FlightRecorder(make_config(tmp_path / "file"), RIG, print)


KILLED = """
import sys, time
from pathlib import Path
from tests.output.samples import make_tick
from tests.output.test_flight import RIG, Vehicle
vehicle = Vehicle(Path(sys.argv[1]), after_s=1000.0, longest_s=1000.0)
vehicle.drive(1)
vehicle.recorder.trigger("killed")
while True:
    vehicle.drive(1)
    time.sleep(0.001)
"""


def test_a_killed_process_leaves_a_file_that_replays_up_to_the_last_chunk(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)])
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and sum(p.stat().st_size for p in tmp_path.glob("*/*.partial")) < 1_000_000:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (event,) = tmp_path.iterdir()
    partial = event / "recording.mcap.partial"
    drive = open_drive(partial)
    packets = list(drive.packets())
    assert [fault for fault in drive.faults() if "damaged at byte" not in fault] == []
    (offset,) = (int(text) for fault in drive.faults() for text in re.findall(r"at byte (\d+)", fault))
    # All but the rest of a record that was cut off could be read: whole chunks reach the file at once.
    assert partial.stat().st_size - offset < 300_000
    assert sum(len(packet.data) for packet in packets) > 0.7 * offset
    seen = of_ticks((len(packets) + 1) // 2)
    assert [packet.capture_ns for packet in packets[::2]] == seen
    assert [decided.stamp_ns for decided in read_decisions(event / "decisions.jsonl.partial")][: len(seen)] == seen
    # The next start goes on from there.
    again = Vehicle(tmp_path)
    again.drive(1)
    again.recorder.trigger("x")
    assert [path.name[:6] for path in again.events()] == ["000001", "000002"]
