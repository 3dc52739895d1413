from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest

from perception.ingest.cameras import feed as feeds
from perception.ingest.cameras.camera import CameraError, Shot
from perception.ingest.cameras.feed import Feed
from perception.ingest.decode import UndecodableError
from tests.ingest.cameras.devices import MS, ScriptedDevice, until


@pytest.fixture
def device() -> ScriptedDevice:
    return ScriptedDevice()


@pytest.fixture
def feed(device: ScriptedDevice) -> Iterator[Feed]:
    feed = Feed("CAM", device, threading.Condition(), timeout_s=30, frozen_s=None)
    yield feed
    feed.stop()
    feed.join(10)


def shown(device: ScriptedDevice, feed: Feed, picture: bytes, stamp_ns: int | None = None) -> Shot:
    """Let the camera give a picture and wait until it is in the mailbox."""
    before = feed.health().frames
    shot = device.shoot(picture, stamp_ns)
    until(lambda: feed.health().frames > before)
    return shot


def dropped(device: ScriptedDevice, feed: Feed, event: Exception | Shot) -> None:
    before = feed.health().dropped
    device.events.put(event)
    until(lambda: feed.health().dropped > before)


def test_the_latest_frame_is_there_with_its_capture_and_arrival(device: ScriptedDevice, feed: Feed) -> None:
    assert (feed.health().state, feed.health().last_arrival_ns) == ("starting", None)
    feed.start()
    shown(device, feed, b"first", time.monotonic_ns() - 130 * MS)
    shot = shown(device, feed, b"second", time.monotonic_ns() - 30 * MS)
    captured = feed.mailbox.take(time.monotonic_ns(), 10_000 * MS)
    assert captured is not None
    assert (captured.picture, captured.capture_ns, captured.arrival_ns) == (b"second", shot.stamp_ns, shot.arrival_ns)
    health = feed.health()
    assert (health.state, health.frames, health.overwritten) == ("streaming", 2, 1)
    assert health.last_arrival_ns == shot.arrival_ns
    assert feed.faults() == []


def test_a_camera_that_is_pulled_comes_back_by_itself(device: ScriptedDevice, feed: Feed) -> None:
    feed.start()
    shown(device, feed, b"before")
    device.gone = "no such device"
    device.events.put(CameraError("unplugged"))
    until(lambda: device.tried >= 3)
    assert feed.health().state == "lost"
    device.gone = ""
    shown(device, feed, b"after")
    health = feed.health()
    assert (health.state, health.reconnects) == ("streaming", 1)
    assert (device.opened, device.closed) == (2, 1)
    lost, missing = feed.faults()
    assert lost == "CAM: lost: unplugged; it is tried again until it is back"
    assert missing.startswith("CAM: lost: no such device; ")
    assert missing.endswith("more like it)")


def test_tries_become_rarer_and_frequent_again_after_success(
    device: ScriptedDevice, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "_FIRST_RETRY_S", 0.004)
    monkeypatch.setattr(feeds, "_LAST_RETRY_S", 0.064)
    waits: list[float] = []
    wait = feed._closed.wait

    def waited(timeout: float | None = None) -> bool:
        waits.append(timeout or 0.0)
        return wait(timeout)

    monkeypatch.setattr(feed._closed, "wait", waited)
    device.gone = "not there"
    feed.start()
    until(lambda: len(waits) >= 7)
    assert waits[:7] == [0.004, 0.008, 0.016, 0.032, 0.064, 0.064, 0.064]
    device.gone = ""
    shown(device, feed, b"picture")
    count = len(waits)
    device.gone = "not there"
    device.events.put(CameraError("unplugged"))
    until(lambda: len(waits) >= count + 3)
    assert waits[count : count + 3] == [0.004, 0.008, 0.016]


def test_a_camera_that_falls_silent_is_opened_again(device: ScriptedDevice) -> None:
    feed = Feed("CAM", device, threading.Condition(), timeout_s=0.1, frozen_s=None)
    feed.start()
    shown(device, feed, b"before")
    until(lambda: device.opened >= 3)
    shown(device, feed, b"after")
    feed.stop()
    feed.join(10)
    assert device.closed == device.opened
    assert feed.faults()[0].startswith("CAM: lost: no frame for 0.1 s; it is tried again")


def test_whatever_a_driver_raises_is_survived(device: ScriptedDevice, feed: Feed) -> None:
    feed.start()
    device.events.put(ZeroDivisionError("oops"))
    shown(device, feed, b"after")
    assert feed.faults() == ["CAM: lost: ZeroDivisionError: oops; it is tried again until it is back"]


def test_frames_that_are_damaged_repeated_or_out_of_order_are_dropped_and_counted(
    device: ScriptedDevice, feed: Feed
) -> None:
    feed.start()
    now_ns = time.monotonic_ns()
    shown(device, feed, b"one", now_ns)
    dropped(device, feed, UndecodableError("the driver marks it as damaged"))
    dropped(device, feed, Shot(b"again", now_ns, time.monotonic_ns()))
    dropped(device, feed, Shot(b"old", now_ns - MS, time.monotonic_ns()))
    dropped(device, feed, Shot(b"older", now_ns - 2 * MS, time.monotonic_ns()))
    captured = feed.mailbox.take(now_ns, 1000 * MS)
    assert captured is not None
    assert captured.picture == b"one"
    shown(device, feed, b"two")
    health = feed.health()
    assert (health.frames, health.dropped, health.reconnects) == (2, 4, 0)
    assert feed.faults() == [
        "CAM: frame dropped: the driver marks it as damaged",
        "CAM: frame dropped: a frame of the same time again",
        "CAM: frame dropped: a frame that is older than the one before (and 1 more like it)",
    ]


def test_a_frozen_camera_gives_no_frames_until_its_picture_changes(device: ScriptedDevice) -> None:
    feed = Feed("CAM", device, threading.Condition(), timeout_s=30, frozen_s=0.5)
    feed.start()
    at_ns = time.monotonic_ns()

    def show(picture: bytes, after_ms: int) -> None:
        device.events.put(Shot(picture, at_ns + after_ms * MS, at_ns + after_ms * MS))

    show(b"a road", 0)
    for after_ms in range(100, 1000, 100):
        show(b"another road", after_ms)
    until(lambda: feed.health().dropped == 4)  # from half a second after it first came
    assert (feed.health().frames, feed.health().state) == (6, "frozen")
    show(b"a third road", 1000)
    until(lambda: feed.health().frames == 7)
    feed.stop()
    feed.join(10)
    assert feed.health().state == "streaming"
    assert feed.faults() == ["CAM: frame dropped: frozen: the same picture for 0.5 s (and 3 more like it)"]


def test_a_capture_that_cannot_be_true_is_taken_to_be_the_arrival(device: ScriptedDevice, feed: Feed) -> None:
    feed.start()
    captures = []
    now_ns = time.monotonic_ns()
    for stamp_ns in (now_ns + 3_600_000 * MS, 12, None):
        shot = Shot(b"picture", stamp_ns, time.monotonic_ns())
        device.events.put(shot)
        until(lambda: bool(feed.mailbox))
        captured = feed.mailbox.take(time.monotonic_ns(), 10**15)
        assert captured is not None
        assert captured.capture_ns == shot.arrival_ns
        captures.append(captured.capture_ns)
    assert all(a < b for a, b in pairwise(captures))
    stamped, untold = feed.faults()
    assert "a frame stamped +3" in stamped
    assert stamped.endswith("arrival is taken for its capture (and 1 more like it)")
    assert untold == "CAM: the camera does not tell when it captures; arrival is taken for it"


def test_a_feed_ends_when_asked_whatever_its_camera_does(device: ScriptedDevice) -> None:
    device.gone = "not there"
    waiting = Feed("A", device, threading.Condition(), timeout_s=30, frozen_s=None)
    reading = Feed("B", ScriptedDevice(), threading.Condition(), timeout_s=30, frozen_s=None)
    unstarted = Feed("C", ScriptedDevice(), threading.Condition(), timeout_s=30, frozen_s=None)
    before = threading.active_count()
    waiting.start()
    reading.start()
    until(lambda: device.tried >= 1)
    for feed in (waiting, reading, unstarted):
        feed.stop()
    for feed in (waiting, reading, unstarted):
        feed.join(10)
    assert threading.active_count() == before
