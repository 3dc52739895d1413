from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from perception.clock import Clock, RealTimeReplayClock, SteppedClock
from perception.config import SyncConfig
from perception.governor import Undisturbed
from perception.ingest.drive import Drive, Packet
from perception.ingest.open_drive import open_drive
from perception.ingest.replay import Replay
from perception.messages import Frame, FrameSet, Rig, Truth
from perception.stages import Source
from tests.drives import SECOND, START_NS, ego_pose, encode, make_camera, open_writer, render, write_drive
from tests.ingest.test_decode import encode_video

MS = 1_000_000
CAMERAS = ("CAM_FRONT", "CAM_LEFT", "CAM_RIGHT")
SIZE = (96, 64)


@contextmanager
def playing(
    drive: Drive, clock: Clock | None = None, threads: int = 2, loop: int = 1, window_ms: float = 50
) -> Iterator[Replay]:
    replay = Replay(drive, clock or SteppedClock(), SyncConfig(window_ms=window_ms), threads=threads, loop=loop)
    try:
        yield replay
    finally:
        replay.close()


def play(drive: Drive, clock: Clock | None = None, threads: int = 2, loop: int = 1) -> tuple[list[FrameSet], list[str]]:
    with playing(drive, clock, threads, loop) as replay:
        return list(replay.frame_sets()), list(replay.faults())


def signature(sets: Sequence[FrameSet]) -> list[tuple[object, ...]]:
    """What must not depend on timing: everything but arrivals and spans."""
    return [
        (
            s.tick,
            s.stamp_ns,
            s.skew_ns,
            s.missing,
            None if s.map_from_base is None else s.map_from_base.translation.tolist(),
            None if s.point_cloud is None else s.point_cloud.stamp_ns,
            [(f.camera, f.capture_ns, f.image.tobytes(), f.encoded) for f in s.frames],
        )
        for s in sets
    ]


@dataclass
class ListDrive:
    """A drive from memory, which notes how far it was read."""

    rig: Rig
    images: list[Packet]
    read: int = 0
    time_range_ns: tuple[int, int] | None = None
    lines: list[str] = field(default_factory=list)

    def packets(self) -> Iterator[Packet]:
        for packet in self.images:
            self.read += 1
            yield packet

    def truth(self) -> Iterator[Truth]:
        return iter(())

    def faults(self) -> Sequence[str]:
        return self.lines


class Shot(NamedTuple):
    camera: str
    capture_ms: int
    log_ms: int


def list_drive(shots: Sequence[Shot], cameras: Sequence[str] = CAMERAS) -> ListDrive:
    rig = {name: make_camera(name, SIZE) for name in cameras}
    packets = [
        Packet(
            shot.camera,
            START_NS + shot.capture_ms * MS,
            START_NS + shot.log_ms * MS,
            "jpeg",
            encode(render(rig[shot.camera], shot.capture_ms / 1000, number)),
            "memory",
        )
        for number, shot in enumerate(shots)
    ]
    return ListDrive(rig, packets)


@pytest.fixture(scope="module")
def drive_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("drives") / "drive.mcap"
    return write_drive(path, cameras=CAMERAS, ticks=6, image_size=SIZE, skew_ns=2 * MS).path


def test_frame_sets_hold_what_was_recorded(drive_path: Path) -> None:
    sets, faults = play(open_drive(drive_path))
    assert faults == []
    assert [s.tick for s in sets] == list(range(6))
    for tick, s in enumerate(sets):
        stamp = START_NS + tick * 100 * MS
        assert [frame.camera for frame in s.frames] == list(CAMERAS)
        assert [frame.capture_ns for frame in s.frames] == [stamp, stamp + 2 * MS, stamp + 4 * MS]
        assert (s.stamp_ns, s.skew_ns, s.missing) == (stamp + 4 * MS, 4 * MS, ())
        assert s.point_cloud is not None
        assert s.point_cloud.stamp_ns == stamp
        for at_ns, pose in [(s.stamp_ns, s.map_from_base), *((f.capture_ns, f.map_from_base) for f in s.frames)]:
            expected = ego_pose((at_ns - START_NS) / SECOND)
            assert pose is not None
            np.testing.assert_allclose(pose.translation, expected.translation, atol=1e-3)  # the drive is a curve
        for frame in s.frames:
            assert frame.image.shape == (64, 96, 3)
            assert frame.encoded is not None
            assert frame.encoded.format == "jpeg"


def test_frame_sets_do_not_depend_on_threads_or_pace(drive_path: Path) -> None:
    drive = open_drive(drive_path)
    one, two, live = (
        signature(play(drive, clock, threads)[0])
        for clock, threads in ((SteppedClock(), 1), (SteppedClock(), 3), (RealTimeReplayClock(), 2))
    )
    assert one == two == live


def test_in_stepped_time_frames_arrive_when_they_are_handed_over(drive_path: Path) -> None:
    clock = SteppedClock()
    with playing(open_drive(drive_path), clock) as replay:
        before = clock.now_ns()
        for s in replay.frame_sets():
            assert len({frame.arrival_ns for frame in s.frames}) == 1
            assert before < s.arrival_ns <= clock.now_ns()
            assert all(frame.ingest.start_ns < frame.ingest.end_ns <= s.arrival_ns for frame in s.frames)
            assert clock.stamp_ns() == s.stamp_ns  # the last frame's log time is its capture here
            before = clock.now_ns()


def test_in_real_time_frames_arrive_when_they_are_due_and_are_decoded_after(drive_path: Path) -> None:
    clock = RealTimeReplayClock()
    sets, _ = play(open_drive(drive_path), clock)
    frames = [frame for s in sets for frame in s.frames]
    offsets = {frame.arrival_ns - frame.capture_ns for frame in frames}
    assert len(offsets) == 1
    assert all(frame.arrival_ns <= frame.ingest.start_ns < frame.ingest.end_ns for frame in frames)


def test_a_set_that_lacks_a_camera_is_handed_over_when_its_window_has_passed() -> None:
    shots = [
        Shot(camera, at, at) for at in (0, 10_000, 20_000) for camera in CAMERAS if (camera, at) != ("CAM_LEFT", 0)
    ]
    clock = RealTimeReplayClock()
    with playing(list_drive(shots), clock) as replay:
        first = next(replay.frame_sets())
        handed_over_ns = clock.stamp_ns()
    assert first.missing == ("CAM_LEFT",)
    assert [frame.camera for frame in first.frames] == ["CAM_FRONT", "CAM_RIGHT"]
    assert START_NS + 50 * MS <= handed_over_ns < START_NS + 10_000 * MS


def test_in_real_time_each_frame_is_told_of_as_soon_as_it_is_decoded() -> None:
    shots = [Shot(camera, at + i * 300, at + i * 300) for at in (0, 2_000) for i, camera in enumerate(CAMERAS)]
    clock, told, sets = RealTimeReplayClock(), list[tuple[int, Frame, int]](), list[FrameSet]()
    with playing(list_drive(shots), clock, window_ms=1_000) as replay:
        for frames in replay.frame_sets(lambda tick, frame: told.append((tick, frame, clock.stamp_ns()))):
            assert [(frames.tick, frame.camera) for frame in frames.frames] == [(t, f.camera) for t, f, _ in told[-3:]]
            assert told[-3][2] < START_NS + (frames.tick * 2_000 + 600) * MS  # the last had not even arrived
            sets.append(frames)
    same = zip((frame for frames in sets for frame in frames.frames), (frame for _, frame, _ in told), strict=True)
    assert all(a.image is b.image and replace(a, image=b.image) == b for a, b in same)


def test_in_stepped_time_nobody_is_told_beforehand(drive_path: Path) -> None:
    told: list[int] = []
    with playing(open_drive(drive_path)) as replay:
        assert len(list(replay.frame_sets(lambda tick, _: told.append(tick)))) > 1
    assert told == []


class Hurries(Undisturbed):
    """Wants a set handed over soon after its first frame."""

    def ingest_until_ns(self, arrival_ns: int) -> int:
        return arrival_ns + 300 * MS


def hurried(shots: Sequence[Shot], window_ms: float, threads: int = 2) -> Iterator[tuple[FrameSet, int]]:
    """Each frame set, and where the recording stood when it was handed over, in milliseconds."""
    drive, clock = list_drive(shots), RealTimeReplayClock()
    sync = SyncConfig(window_ms=window_ms)
    with closing(Replay(drive, clock, sync, threads=threads, enforcement=Hurries(drive.rig))) as replay:
        for frames in replay.frame_sets():
            yield frames, (clock.stamp_ns() - START_NS) // MS


def test_enforcement_does_not_wait_for_a_missing_camera_until_its_window_has_passed() -> None:
    shots = [Shot("CAM_FRONT", 0, 0), Shot("CAM_RIGHT", 0, 0), *(Shot(camera, 20_000, 20_000) for camera in CAMERAS)]
    first, at_ms = next(hurried(shots, window_ms=10_000))
    assert first.missing == ("CAM_LEFT",)
    assert all(frame.decoded for frame in first.frames)
    assert 300 <= at_ms < 10_000


def test_a_camera_that_comes_after_its_set_was_handed_over_is_missing_and_holds_nobody_up() -> None:
    """The late one is the first in the rig, and there is one worker only."""
    late, *others = CAMERAS
    shots = [*(Shot(camera, 0, 0) for camera in others), Shot(late, 1_500, 1_500)]
    shots += [Shot(camera, 2_000 + i, 2_000 + i) for i, camera in enumerate(CAMERAS)]
    (first, at_ms), (second, _) = hurried(shots, window_ms=1_800, threads=1)
    assert first.missing == (late,)
    assert first.stamp_ns == START_NS
    assert all(frame.decoded for frame in first.frames)
    assert 300 <= at_ms < 1_500
    assert second.missing == ()
    assert all(frame.decoded for frame in second.frames)


def test_a_frame_that_does_not_decode_is_missing_and_reported() -> None:
    drive = list_drive([Shot(camera, at, at) for at in (0, 100, 200) for camera in CAMERAS])
    drive.images[1] = drive.images[1]._replace(data=drive.images[1].data[:200])
    other = encode(render(make_camera("CAM_RIGHT", (64, 48)), 0.0))
    for i in (5, 8):
        drive.images[i] = drive.images[i]._replace(data=other)
    sets, faults = play(drive)
    assert [s.missing for s in sets] == [("CAM_LEFT",), ("CAM_RIGHT",), ("CAM_RIGHT",)]
    cut, size = faults
    assert cut == f"memory: CAM_LEFT: frame dropped, captured at {START_NS} ns: the jpeg image is cut short or corrupt"
    assert "CAM_RIGHT" in size
    assert "the image is 64x48, where the calibration says 96x64 (and 1 more like it)" in size


def test_a_set_without_any_image_is_a_tick_all_the_same() -> None:
    drive = list_drive([Shot("CAM_FRONT", at, at) for at in (0, 100, 200)], ["CAM_FRONT"])
    drive.images[1] = drive.images[1]._replace(data=b"")
    sets, faults = play(drive)
    assert [(s.tick, s.stamp_ns, s.missing) for s in sets] == [(i, START_NS + i * 100 * MS, ()) for i in range(3)]
    assert [[frame.decoded for frame in s.frames] for s in sets] == [[True], [False], [True]]
    assert len(faults) == 1


def test_faults_of_the_drive_and_the_synchroniser_are_passed_on() -> None:
    drive = list_drive([Shot("CAM_FRONT", 0, 0), Shot("CAM_FRONT", 0, 100)], ["CAM_FRONT"])
    drive.lines.append("the drive is damaged")
    _, faults = play(drive)
    assert faults[0] == "the drive is damaged"
    assert "had the same stamp" in faults[1]


def test_looping_goes_on_in_time_at_the_drives_own_rate(drive_path: Path) -> None:
    drive = open_drive(drive_path)
    once, _ = play(drive)
    thrice, faults = play(drive, loop=3)
    assert faults == []
    assert [s.tick for s in thrice] == list(range(18))
    assert {b.stamp_ns - a.stamp_ns for a, b in pairwise(thrice)} == {100 * MS}
    for s, original in zip(thrice, once * 3, strict=True):
        shift = s.stamp_ns - original.stamp_ns
        assert s.skew_ns == original.skew_ns
        assert [f.capture_ns - shift for f in s.frames] == [f.capture_ns for f in original.frames]
        assert s.point_cloud is not None
        assert original.point_cloud is not None
        assert s.point_cloud.stamp_ns - shift == original.point_cloud.stamp_ns


@pytest.mark.parametrize("clock", [SteppedClock(), RealTimeReplayClock()])
def test_the_drive_is_not_read_far_ahead(clock: Clock) -> None:
    drive = list_drive([Shot("CAM_FRONT", at, at) for at in range(0, 1000, 20)], ["CAM_FRONT"])
    with playing(drive, clock) as replay:
        for played, _ in enumerate(replay.frame_sets(), 1):
            assert drive.read <= played + 4
    assert drive.read == 50


@pytest.mark.parametrize(("codec", "video_format"), [("libx264", "h264"), ("libx265", "h265")])
def test_video_in_a_recording_is_decoded_in_order_on_any_number_of_threads(
    tmp_path: Path, codec: str, video_format: str
) -> None:
    path = tmp_path / "drive.mcap"
    rig = {name: make_camera(name, SIZE) for name in CAMERAS[:2]}
    streams = {
        name: encode_video([render(camera, i / 10, i) for i in range(8)], codec, tune="zerolatency")
        for name, camera in rig.items()
    }
    with open_writer(path) as writer:
        for name, camera in rig.items():
            writer.transform("base_link", name, camera.base_from_camera, START_NS)
            writer.calibration(camera, START_NS)
        for i in range(8):
            for name, packets in streams.items():
                writer.video(name, START_NS + (i if i != 3 else 2) * 100 * MS, packets[i], video_format)
    drive = open_drive(path)
    one, faults = play(drive, threads=1, loop=2)
    four, _ = play(drive, threads=4, loop=2)
    assert signature(one) == signature(four)
    assert [s.tick for s in one] == list(range(14))  # a stamp came twice: dropped, but the stream goes on behind it
    assert len(faults) == 2
    for s in one[3:7]:
        i = (s.stamp_ns - START_NS) // (100 * MS)
        for frame in s.frames:
            assert frame.encoded is None
            assert np.abs(frame.image.astype(int) - render(rig[frame.camera], i / 10, i)).mean() < 12


def test_closing_does_not_wait_for_what_is_due_much_later() -> None:
    drive = list_drive([Shot("CAM_FRONT", at, at) for at in (0, 50_000, 100_000)], ["CAM_FRONT"])
    with playing(drive, RealTimeReplayClock()) as replay:
        next(replay.frame_sets())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("decode", "read"))]


def test_closing_unplayed_is_fine(drive_path: Path) -> None:
    with playing(open_drive(drive_path), RealTimeReplayClock()):
        pass


def test_a_replay_is_a_source(drive_path: Path) -> None:
    with playing(open_drive(drive_path)) as replay:
        source: Source = replay
        assert list(source.rig) == list(CAMERAS)
        assert replay.duration_s == pytest.approx(0.504)
