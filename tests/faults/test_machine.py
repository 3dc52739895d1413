"""What detectors, threads, disks, consumers and operators do to a daemon."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from perception.ingest.open_drive import open_drive
from perception.output.jsonl import read_tracks
from tests.faults.commanded import DIE, HANG, RAISE
from tests.faults.conftest import Row
from tests.faults.disks import Disk
from tests.faults.test_cameras import GRACE, TICKS, assert_only
from tests.faults.vehicle import LEFT, PATIENCE_S, STOP_S, Vehicle, driving, settings

LOAD_S = 5.0
LOAD_DEADLINE_MS = 40.0
LADDER = [
    {"name": "side cameras every other tick", "every": {"CAM_LEFT": 2, "CAM_RIGHT": 2}},
    {"name": "front camera only", "cameras": ["CAM_FRONT"]},
]


def test_detector_raises(vehicle: Vehicle, row: Row) -> None:
    fault = RAISE.format(LEFT)
    seen = vehicle.suffers(lambda: vehicle.command(fault), TICKS, lambda: vehicle.recall(fault))
    assert_only(seen)
    assert seen.cameras("late")[LEFT] >= TICKS - GRACE
    assert seen.told("CAM_LEFT: frame captured at .*: detect failed: RuntimeError: the runtime failed")
    row("the detector raises on one camera", seen)


def test_detector_hangs(vehicle: Vehicle, row: Row) -> None:
    fault = HANG.format(LEFT)
    seen = vehicle.suffers(lambda: vehicle.command(fault), 30, lambda: vehicle.recall(fault))
    assert_only(seen)
    assert seen.cameras("late")[LEFT] >= 1
    assert seen.cameras("skipped")[LEFT] >= 30 - GRACE
    assert seen.told("CAM_LEFT: detect has not returned for 2 s; the camera is left out until it does")
    row("the detector hangs on one camera", seen)


def test_a_worker_dies(vehicle: Vehicle, row: Row) -> None:
    threads = vehicle.metric("process_threads")
    seen = vehicle.suffers(lambda: vehicle.command(DIE), TICKS, lambda: None)
    assert not seen.gaps
    assert sum(seen.without.values()) <= 1 + GRACE
    assert seen.told("thread channel died: MemoryError: no memory for a worker")
    assert vehicle.metric("process_threads") == threads
    row("a worker thread dies in the middle of a frame", seen)


def test_the_disk_is_full(vehicle: Vehicle, disk: Disk, row: Row) -> None:
    def pid() -> int:
        assert vehicle.process is not None
        return vehicle.process.pid

    def told(what: str) -> bool:
        return any(line.startswith(what) for line in vehicle.lines[first:])

    vehicle.up()
    first, recordings = len(vehicle.lines), len(list((disk.path / "out").iterdir()))
    seen = vehicle.suffers(
        lambda: disk.fill(pid()), TICKS, lambda: disk.clear(pid()), until=lambda: told("warning: not recording")
    )
    vehicle.until(lambda: told("recording again"))
    kind = "the disk" if disk.mounted else "the disk, as far as a limit on files can tell,"
    assert_only(seen)
    assert seen.told("not recording: .*(No space left on device|File too large)")
    assert vehicle.metric("perception_ticks_unrecorded_total") > 0
    assert len(list((disk.path / "out").iterdir())) > recordings
    row(f"{kind} is full while it records", seen, recovers="yes, into a new directory when there is room again")


def test_a_consumer_does_not_read(vehicle: Vehicle, row: Row) -> None:
    vehicle.up()
    seen = vehicle.suffers(
        vehicle.stick, TICKS, lambda: None, until=lambda: vehicle.metric("perception_lines_dropped_total") > 0
    )
    assert not seen.gaps
    assert vehicle.stuck is not None
    numbers = _numbers(vehicle.stuck)
    assert numbers[0] in {tracks["tick"] for tracks in seen.sets}
    assert numbers[:10] == list(range(numbers[0], numbers[0] + 10))  # whole lines, from the first
    row("a consumer does not read", seen, logged="nothing; `perception_lines_dropped_total` counts")


def test_the_metrics_port_is_taken(model: Path, deadline_ms: float, tmp_path: Path, row: Row) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        config = settings(model, deadline_ms)
        port = config["health"]["port"] = other.getsockname()[1]
        with driving(tmp_path, config) as vehicle:
            seen = vehicle.suffers(lambda: None, TICKS, lambda: None)
            other.close()
            began = time.monotonic()
            vehicle.until(lambda: any(f"health and metrics: http://127.0.0.1:{port}" in line for line in vehicle.lines))
            seen.recovered_s = time.monotonic() - began
            seen.lines = [line for line in vehicle.lines if "no health and metrics" in line]
            assert len(seen.lines) == 1
            assert seen.told(f"no health and metrics: 127.0.0.1:{port}: Address already in use; tried again every 5 s")
            assert not seen.gaps
            assert vehicle.metric("perception_ticks_total") >= TICKS
            row("the port for metrics is taken", seen)


def test_killed_in_mid_recording(vehicle: Vehicle, disk: Disk, row: Row) -> None:
    vehicle.up()
    vehicle.passes(30)
    assert vehicle.process is not None
    published = vehicle.sets[-1]["tick"]
    vehicle.process.send_signal(signal.SIGKILL)
    vehicle.process.wait()
    recorded = max((disk.path / "out").iterdir())  # by their names, which are times
    tracks = [tracks.tick for tracks in read_tracks(recorded / "tracks.jsonl.partial")]
    assert tracks[-1] >= published - GRACE
    shutil.copy(recorded / "recording.mcap.partial", recorded / "cut.mcap")
    captures = {packet.capture_ns for packet in open_drive(recorded / "cut.mcap", None).packets()}
    assert len(captures) >= 20

    began = time.monotonic()
    vehicle.up()  # as systemd does
    row(
        "SIGKILL in mid-recording",
        published="nothing; the recording is readable up to its last chunk, "
        f"{len(tracks)} of {len(tracks) + published - tracks[-1]} track sets are in `tracks.jsonl.partial`",
        logged="nothing",
        recovers=f"when systemd starts it again: tracks after {time.monotonic() - began:.0f} s",
    )


def test_a_storm_of_sigterm(vehicle: Vehicle, disk: Disk, row: Row) -> None:
    vehicle.up()
    vehicle.passes(TICKS)
    assert vehicle.process is not None
    first = len(vehicle.lines)
    began, sent = time.monotonic(), count()
    while vehicle.process.poll() is None and time.monotonic() < began + STOP_S:
        vehicle.process.send_signal(signal.SIGTERM)
        next(sent)
        time.sleep(0.0005)
    assert vehicle.process.wait(STOP_S) == 0
    took_s = time.monotonic() - began
    lines = vehicle.lines[first:]
    assert [line for line in lines if "stopping" in line] == ["SIGTERM: stopping"]
    assert not list(max((disk.path / "out").iterdir()).glob("*.partial"))
    row(
        "a storm of SIGTERM",
        published="the tick in progress",
        logged="`SIGTERM: stopping`, once",
        recovers=f"it stops: exit code 0 after {took_s:.1f} s and {next(sent)} signals, recordings complete",
    )


@pytest.mark.skipif(shutil.which("stress-ng") is None, reason="needs stress-ng (apt install stress-ng)")
def test_all_cores_are_busy(model: Path, tmp_path: Path, row: Row) -> None:
    load = ["stress-ng", "--cpu", str(os.cpu_count()), "--timeout", f"{LOAD_S:g}", "--quiet"]
    config: dict[str, Any] = settings(model, LOAD_DEADLINE_MS) | {"enforcement": {"ladder": LADDER}}
    with driving(tmp_path, config) as vehicle:
        vehicle.start()
        try:
            vehicle.up()
        except AssertionError:
            pytest.skip("this machine is too busy to begin with")
        seen = vehicle.suffers(lambda: subprocess.run(load, check=True), 0, lambda: None)
        assert not seen.gaps
        assert len(seen.sets) >= LOAD_S / 0.1 / 2
        assert seen.recovered_s is not None  # everything, on level 0
        assert seen.recovered_s < PATIENCE_S
        seen.told("level 1, side cameras every other tick: ")  # where the machine was slow enough for that
        row(f"`stress-ng` on all cores for {LOAD_S:g} s, with a deadline of {LOAD_DEADLINE_MS:g} ms", seen)


def _numbers(consumer: socket.socket) -> list[int]:
    """The ticks of the lines that wait for a consumer."""
    consumer.settimeout(0)
    numbers = []
    with suppress(BlockingIOError):
        while line := consumer.recv(1 << 20):
            numbers.append(json.loads(line)["tick"])
    return numbers
