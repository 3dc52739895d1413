from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception import geometry
from perception.config import FusionConfig
from perception.errors import MeasurementError
from perception.fusion.tracker import Tracker
from perception.messages import CLASSES, Float, Measurements, Track, Transform
from tests.fusion.simulator import CONFIG, labels_of, usual_size

START_NS = 1_700_000_000_000_000_000
MS = 1_000_000


def look(
    positions: Sequence[Sequence[float]] = (),
    *names: str,
    at_ms: float = 0.0,
    sensor: str = "LIDAR",
    std: float = 0.2,
    score: float = 0.8,
    yaw: float = np.nan,
    size: Sequence[float] = (np.nan,) * 3,
    pose: Transform | None = None,
) -> Measurements:
    n = len(positions)
    return Measurements(
        sensor=sensor,
        stamp_ns=START_NS + round(at_ms * MS),
        positions=np.array(positions, dtype=np.float64).reshape(n, 3),
        covariances=np.tile(np.eye(3) * std**2, (n, 1, 1)),
        sizes=np.tile(np.array(size), (n, 1)),
        yaws=np.full(n, yaw),
        scores=np.full(n, score),
        labels=labels_of(*(names or ("car",) * n)),
        map_from_base=pose,
    )


def feed(tracker: Tracker, *looks: Measurements, at_ms: float | None = None) -> tuple[Track, ...]:
    stamp_ns = max(one.stamp_ns for one in looks) if at_ms is None else START_NS + round(at_ms * MS)
    return tracker.update(looks, stamp_ns, looks[0].map_from_base if looks else None)


def watch(
    tracker: Tracker, until_ms: float, every_ms: float = 100.0, start_ms: float = 0.0, **of_look: Any
) -> tuple[Track, ...]:
    """Look again and again at one object at (20, 2, 0.8), standing unless the look says otherwise."""
    tracks: tuple[Track, ...] = ()
    for at_ms in np.arange(start_ms, until_ms + 1, every_ms):
        tracks = feed(tracker, look([(20.0, 2.0, 0.8)], at_ms=float(at_ms), **of_look))
    return tracks


def test_a_ready_measurement_becomes_a_track() -> None:
    tracker = Tracker(CONFIG)
    (track,) = watch(tracker, 1000, size=(4.2, 1.8, 1.5), yaw=0.3)
    assert track.id == 1
    assert track.class_name == "car"
    assert track.position == pytest.approx([20, 2, 0.8], abs=0.01)
    assert track.velocity == pytest.approx([0, 0, 0], abs=0.01)
    assert track.size == pytest.approx([4.2, 1.8, 1.5])
    assert track.yaw == pytest.approx(0.3)
    assert track.score == pytest.approx(0.8)
    assert track.age_s == pytest.approx(1.0)
    assert track.since_seen_s == 0
    assert track.seen_by == ("LIDAR",)
    assert np.linalg.eigvalsh(track.covariance).min() > 0


def test_what_stands_is_told_better_the_longer_it_is_looked_at() -> None:
    rng = np.random.default_rng(0)
    tracker, offs = Tracker(CONFIG), []
    for step in range(400):
        at = (20 + rng.normal(0, 1), 2 + rng.normal(0, 1), 0.8)
        tracks = feed(tracker, look([at], at_ms=100.0 * step, std=1.0))
        if step >= 20:
            (track,) = tracks
            offs.append([track.position[0] - 20, track.position[1] - 2, *track.velocity[:2]])
    x, y, vx, vy = np.array(offs).T
    assert np.hypot(x, y).mean() < 0.48  # one look is off by 1.25 m
    assert np.hypot(vx, vy).mean() < 0.4


@pytest.mark.parametrize("acceleration_mps2", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("stood_s", [1.0, 5.0, 30.0])
@pytest.mark.parametrize("every_ms", [33.3, 100.0, 400.0])
def test_what_drives_off_after_standing_is_followed(every_ms: float, stood_s: float, acceleration_mps2: float) -> None:
    rng = np.random.default_rng(0)
    tracker, behind_m = Tracker(CONFIG), []
    ids: set[int] = set()
    for at_ms in np.arange(0, (stood_s + 4) * 1000, every_ms):
        driven_s = max(at_ms / 1000 - stood_s, 0.0)
        x = 20 + acceleration_mps2 * driven_s**2 / 2
        at = (x + rng.normal(0, 0.3), 2 + rng.normal(0, 0.3), 0.8)
        tracks = feed(tracker, look([at], at_ms=at_ms, std=0.3))
        ids.update(track.id for track in tracks)
        if driven_s:
            behind_m.append(x - tracks[0].position[0])
    assert ids == {1}
    assert max(behind_m) < 1.2
    assert tracks[0].velocity[0] == pytest.approx(acceleration_mps2 * driven_s, abs=2.5)


@pytest.mark.parametrize("every_ms", [20.0, 33.3, 50.0, 100.0])
def test_confirmation_is_a_matter_of_seconds_whatever_the_rate(every_ms: float) -> None:
    tracker = Tracker(FusionConfig(confirm_s=0.4))
    assert watch(tracker, 350, every_ms) == ()
    assert len(watch(tracker, 550, every_ms, start_ms=350)) == 1


@pytest.mark.parametrize("every_ms", [20.0, 33.3, 50.0, 100.0])
def test_deletion_is_a_matter_of_seconds_whatever_the_rate(every_ms: float) -> None:
    tracker = Tracker(FusionConfig(coast_s=0.8, delete_s=0.8))
    (track,) = watch(tracker, 600, every_ms)
    last_ms = 600 // every_ms * every_ms
    for at_ms in np.arange(last_ms + every_ms, last_ms + 1200, every_ms):
        tracks = feed(tracker, look(at_ms=float(at_ms)))
        if at_ms - last_ms <= 799:
            assert [t.id for t in tracks] == [track.id]
            assert tracks[0].seen_by == ()
            assert tracks[0].since_seen_s == pytest.approx((at_ms - last_ms) / 1000)
        elif at_ms - last_ms > 801:
            assert tracks == ()


def test_an_object_unseen_is_predicted_for_a_while_and_found_again_under_its_id() -> None:
    tracker = Tracker(FusionConfig(coast_s=0.32, delete_s=1.0))
    (track,) = watch(tracker, 600, 50)
    for at_ms in range(650, 1400, 50):
        tracks = feed(tracker, look(at_ms=at_ms))
        assert [t.id for t in tracks] == ([track.id] if at_ms <= 900 else [])
    (found,) = feed(tracker, look([(20.0, 2.0, 0.8)], at_ms=1400))
    assert found.id == track.id


def test_what_nobody_looked_for_is_predicted_until_it_ends() -> None:
    """As when a camera is lost, or not looked through on a rung of the ladder."""
    tracker = Tracker(FusionConfig(coast_s=0.1, delete_s=1.0))
    (track,) = watch(tracker, 600, 50)
    for at_ms in range(650, 1600, 50):
        assert [t.id for t in feed(tracker, at_ms=at_ms)] == [track.id]
    assert feed(tracker, at_ms=1650) == ()


def test_what_is_seen_now_and_then_is_never_published() -> None:
    tracker = Tracker(CONFIG)
    for at_ms in range(0, 3000, 100):
        sighting = [(20.0, 2.0, 0.8)] if at_ms % 300 == 0 else []
        assert feed(tracker, look(sighting, at_ms=at_ms)) == ()


def test_a_new_object_is_not_given_up_before_the_sensor_that_found_it_looks_again() -> None:
    """As the cameras that the ladder lets look in every fourth tick only."""
    tracker = Tracker(CONFIG)
    published = []
    for tick in range(12):
        looks = [look(at_ms=100.0 * tick, sensor="FRONT")]
        if tick % 4 == 0:
            looks.append(look([(20.0, 2.0, 0.8)], at_ms=100.0 * tick, sensor="REAR"))
        published.append(feed(tracker, *looks))
    assert [len(tracks) for tracks in published] == [0] * 4 + [1] * 8
    assert published[6][0].seen_by == ()
    assert published[6][0].since_seen_s == pytest.approx(0.2)


def test_a_new_object_is_given_up_when_the_sensor_that_found_it_looks_and_sees_nothing() -> None:
    tracker = Tracker(CONFIG)
    feed(tracker, look([(20.0, 2.0, 0.8)], at_ms=0, sensor="REAR"))
    feed(tracker, look(at_ms=400, sensor="REAR"))
    assert feed(tracker, look([(20.0, 2.0, 0.8)], at_ms=500, sensor="REAR")) == ()


def test_an_object_unseen_is_predicted_and_found_again_under_its_id() -> None:
    tracker = Tracker(CONFIG)
    for at_ms in range(0, 1000, 100):
        tracks = feed(tracker, look([(10 + at_ms / 100, 0, 0.8)], at_ms=at_ms))
    for at_ms in range(1000, 1500, 100):
        (track,) = feed(tracker, look(at_ms=at_ms))
        assert track.position[0] == pytest.approx(10 + at_ms / 100, abs=1)
        assert track.covariance[0, 0] > tracks[0].covariance[0, 0]
    (track,) = feed(tracker, look([(25, 0, 0.8)], at_ms=1500))
    assert track.id == tracks[0].id
    assert track.velocity[0] == pytest.approx(10, abs=1)
    assert track.yaw == pytest.approx(0, abs=0.1)


def test_two_sensors_that_see_one_object_make_one_track() -> None:
    tracker = Tracker(CONFIG)
    for at_ms in range(0, 600, 100):
        left = look([(20, 2, 0.8)], at_ms=at_ms, sensor="LEFT", std=0.5)
        right = look([(20.4, 2.3, 0.8)], at_ms=at_ms + 20, sensor="RIGHT", std=0.5)
        tracks = feed(tracker, right, left)
    (track,) = tracks
    assert track.seen_by == ("LEFT", "RIGHT")  # in the order of their looks, not of the call


def test_two_objects_side_by_side_stay_two() -> None:
    tracker = Tracker(CONFIG)
    for at_ms in range(0, 2000, 100):
        walked = 10 + at_ms / 1000
        tracks = feed(
            tracker, look([(walked, 0, 0.9), (walked, 0.9, 0.9)], "pedestrian", "pedestrian", at_ms=at_ms, std=0.1)
        )
    assert [track.id for track in tracks] == [1, 2]
    assert tracks[1].position[1] - tracks[0].position[1] == pytest.approx(0.9, abs=0.1)


def test_a_second_measurement_in_the_same_place_starts_no_second_track() -> None:
    tracker = Tracker(CONFIG)
    for at_ms in range(0, 500, 100):
        feed(tracker, look([(20, 2, 0.8)], "bicycle", at_ms=at_ms, std=0.5))
    for at_ms in range(500, 1500, 100):
        rider = look([(20, 2, 0.8), (20.2, 2.1, 0.8)], "bicycle", "pedestrian", at_ms=at_ms, std=0.5)
        assert [track.class_name for track in feed(tracker, rider)] == ["bicycle"]


def test_the_class_is_what_most_of_the_evidence_says() -> None:
    tracker = Tracker(CONFIG)
    names = ["car", "truck", "truck", "car", "truck", "truck", "car", "truck"]
    for step, name in enumerate(names):
        tracks = feed(tracker, look([(20, 2, 0.8)], name, at_ms=100 * step))
    (track,) = tracks
    assert track.class_name == "truck"
    assert track.score == pytest.approx(0.8 * 5 / 8)
    assert track.size == pytest.approx(usual_size(CLASSES.index("truck")))


def test_height_and_size_are_averaged() -> None:
    tracker = Tracker(CONFIG)
    for step in range(30):
        odd = step % 2
        up = look([(20, 2, 0.6 + 0.4 * odd)], at_ms=100 * step, size=(4.0 + odd, 1.8, np.nan))
        (track, *_) = feed(tracker, up) or (None,)
    assert track is not None
    assert track.position[2] == pytest.approx(0.8, abs=0.1)
    assert track.size == pytest.approx([4.5, 1.8, usual_size(track.label)[2]], abs=0.1)


def test_heading_is_measured_else_where_it_moves_else_held() -> None:
    tracker = Tracker(CONFIG)
    for at_ms in range(0, 1500, 100):
        tracks = feed(tracker, look([(20, at_ms / 200, 0.8)], at_ms=at_ms, std=0.1))
    assert tracks[0].yaw == pytest.approx(np.pi / 2, abs=0.1)
    for at_ms in range(1500, 4000, 100):
        tracks = feed(tracker, look([(20, 7.0, 0.8)], at_ms=at_ms, std=0.1))
    assert np.linalg.norm(tracks[0].velocity) < 0.5
    assert tracks[0].yaw == pytest.approx(np.pi / 2, abs=0.1)
    for at_ms in range(4000, 8000, 100):
        tracks = feed(tracker, look([(20, 7.0, 0.8)], at_ms=at_ms, std=0.1, yaw=-3.0))
    assert tracks[0].yaw == pytest.approx(-3.0, abs=0.1)


def test_the_first_heading_measured_is_believed() -> None:
    tracker = Tracker(CONFIG)
    for step in range(20):
        yaw = np.nan if step < 10 else np.pi / 2
        (track, *_) = feed(tracker, look([(20, 7.0, 0.8)], at_ms=100 * step, yaw=yaw)) or (None,)
        if track is not None:
            assert track.yaw == pytest.approx(0.0 if step < 10 else np.pi / 2, abs=0.01)


@pytest.mark.parametrize("reversed_at", [{0, 3, 6, 9}, {1, 2, 7, 11}, {0, 1, 8}])
def test_rears_taken_for_fronts_now_and_then_neither_turn_an_object_nor_set_it_askew(reversed_at: set[int]) -> None:
    tracker = Tracker(CONFIG)
    for step in range(16):
        yaw = 2.8 - np.pi * (step in reversed_at)
        (track, *_) = feed(tracker, look([(20, 7.0, 0.8)], at_ms=100 * step, yaw=yaw)) or (None,)
    assert track is not None
    assert track.yaw == pytest.approx(2.8, abs=0.01)


def test_objects_that_leave_the_range_are_given_up() -> None:
    tracker = Tracker(FusionConfig(max_range_m=50))
    for at_ms in range(0, 1000, 100):
        assert len(feed(tracker, look([(40 + at_ms / 100, 0, 0.8)], at_ms=at_ms))) == (at_ms >= 300)
    assert feed(tracker, look(at_ms=1100)) == ()


def driven(at_ms: float, speed: float = 10.0, turn: float = 0.3) -> Transform:
    angle = turn * at_ms / 1000
    place = np.array([speed / turn * np.sin(angle), speed / turn * (1 - np.cos(angle)), 0.1 * at_ms / 1000])
    return Transform(geometry.rotation_about_z(angle), place)


def drive(tracker: Tracker, in_map: Transform = geometry.IDENTITY) -> list[tuple[Track, ...]]:
    """A vehicle on an arc, past something that stands and something that drives; `in_map` turns the whole world."""
    published = []
    for at_ms in range(0, 1500, 100):
        base_from_map = geometry.inverse(driven(at_ms))
        objects = np.array([[30.0, 5.0, 0.8], [10 + at_ms / 100, -4.0, 0.8]])
        pose = geometry.compose(in_map, driven(at_ms))
        seen = look(
            geometry.apply(base_from_map, objects).tolist(), at_ms=at_ms, pose=pose, yaw=0.7 - 0.3 * at_ms / 1000
        )
        along_x = replace(seen, covariances=np.tile(np.diag([0.25, 0.01, 0.04]), (2, 1, 1)))
        published.append(feed(tracker, along_x))
    return published


def test_what_stands_is_known_to_stand_while_the_vehicle_drives() -> None:
    published = drive(Tracker(CONFIG))
    standing, driving = published[-1]
    assert standing.yaw == pytest.approx(0.7 - 0.3 * 1.4)
    assert np.linalg.norm(standing.velocity) < 0.2
    assert standing.position == pytest.approx(
        geometry.apply(geometry.inverse(driven(1400)), np.array([30.0, 5.0, 0.8])), abs=0.1
    )
    angle = -0.3 * 1.4
    assert driving.velocity[:2] == pytest.approx([10 * np.cos(angle), 10 * np.sin(angle)], abs=0.5)
    assert driving.yaw == pytest.approx(angle, abs=0.05)
    assert driving.velocity[2] == 0


@given(st.floats(-3.1, 3.1), st.floats(-1e5, 1e5), st.floats(-1e5, 1e5))
@settings(max_examples=15, deadline=None)
def test_where_the_map_has_its_origin_makes_no_difference(yaw: float, x: float, y: float) -> None:
    elsewhere = Transform(geometry.rotation_about_z(yaw), np.array([x, y, 12.0]))
    for here, there in zip(drive(Tracker(CONFIG)), drive(Tracker(CONFIG), elsewhere), strict=True):
        assert [track.id for track in here] == [track.id for track in there]
        for one, other in zip(here, there, strict=True):
            np.testing.assert_allclose(one.position, other.position, atol=1e-6)
            np.testing.assert_allclose(one.velocity, other.velocity, atol=1e-6)
            np.testing.assert_allclose(one.covariance, other.covariance, atol=1e-6)
            assert one.yaw == pytest.approx(other.yaw, abs=1e-6)


def test_without_poses_velocity_is_relative_to_the_vehicle() -> None:
    tracker = Tracker(CONFIG)
    for at_ms in range(0, 1500, 100):
        tracks = feed(tracker, look([(40 - at_ms / 100, 3, 0.8)], at_ms=at_ms))
    assert tracks[0].velocity[:2] == pytest.approx([-10, 0], abs=0.5)


def test_tracks_end_where_poses_begin_or_cease() -> None:
    tracker = Tracker(CONFIG)
    (before,) = watch(tracker, 500)
    assert watch(tracker, 700, start_ms=600, pose=geometry.IDENTITY) == ()
    (during,) = watch(tracker, 1200, start_ms=800, pose=geometry.IDENTITY)
    assert during.id > before.id
    assert watch(tracker, 1300, start_ms=1300) == ()


def test_time_may_stand_still() -> None:
    tracker = Tracker(CONFIG)
    (before,) = watch(tracker, 500)
    for _ in range(50):
        (track,) = feed(tracker, look([(20, 2, 0.8)], at_ms=500))
    assert track.id == before.id
    assert track.position == pytest.approx([20, 2, 0.8], abs=0.01)
    assert np.linalg.eigvalsh(track.covariance).min() > 0
    # The same picture fifty times over is hardly more than once.
    assert track.covariance[0, 0] > 0.5 * before.covariance[0, 0]


@pytest.mark.parametrize("jump_ms", [60_000, 10_000_000, -60_000])
def test_a_jump_in_time_ends_all_tracks(jump_ms: int) -> None:
    tracker = Tracker(CONFIG)
    (before,) = watch(tracker, 500)
    assert feed(tracker, look([(20, 2, 0.8)], at_ms=500 + jump_ms)) == ()
    (after,) = watch(tracker, 1000 + jump_ms, start_ms=600 + jump_ms)
    assert after.id > before.id


def test_after_a_jump_in_time_all_is_as_new() -> None:
    tracker, fresh = Tracker(CONFIG), Tracker(CONFIG)
    for at_ms in range(0, 500, 100):
        feed(tracker, *(look([(20, 2, 0.8)], at_ms=at_ms, sensor=sensor) for sensor in ("A", "B")))
    for at_ms in range(-60_000, -59_000, 100):
        looks = [look([(20, 2, 0.8)], at_ms=at_ms, sensor=sensor) for sensor in ("A", "B")]
        after, expected = feed(tracker, *looks), feed(fresh, *looks)
    assert after[0].covariance.tolist() == expected[0].covariance.tolist()


def test_a_look_from_a_moment_ago_still_counts() -> None:
    tracker = Tracker(CONFIG)
    for at_ms in range(0, 1000, 100):
        tracks = feed(tracker, look([(10 + at_ms / 100, 0, 0.8)], at_ms=at_ms))
    late = look([(10 + 8.7, 0, 0.8)], at_ms=870, sensor="LATE")
    (track,) = feed(tracker, late, at_ms=950)
    assert track.id == tracks[0].id
    assert track.seen_by == ("LATE",)
    assert track.position[0] == pytest.approx(19.5, abs=0.2)
    assert track.since_seen_s == pytest.approx(0.05)


def test_nothing_comes_of_nothing() -> None:
    tracker = Tracker(CONFIG)
    assert tracker.update([], START_NS) == ()
    assert feed(tracker, look()) == ()
    (track,) = watch(tracker, 500, start_ms=100)
    assert tracker.update([], START_NS + 600 * MS)[0].id == track.id
    assert tracker.update([], START_NS + 2200 * MS) == ()


def test_errors_that_repeat_do_not_make_a_track_surer_than_one_look_would() -> None:
    """Whatever the frame rate, an error that lasts must stay within the covariance."""
    stds = [np.sqrt(watch(Tracker(CONFIG), 2000, every_ms)[0].covariance[0, 0]) for every_ms in (100, 50, 20)]
    assert stds[2] > 0.8 * stds[0]
    independent = watch(Tracker(FusionConfig(correlation_s=0)), 2000, 20)
    assert np.sqrt(independent[0].covariance[0, 0]) < 0.7 * stds[2]


BAD: list[tuple[str, Any, str]] = [
    ("positions", np.array([[np.nan, 0, 0]]), "position is not finite"),
    ("positions", np.zeros((1, 2)), r"positions have the shape \(1, 2\), expected \(1, 3\)"),
    ("covariances", np.full((1, 3, 3), np.nan), "covariance is not positive definite"),
    ("covariances", np.full((1, 3, 3), np.inf), "covariance is not positive definite"),
    ("covariances", np.zeros((1, 3, 3)), "covariance is not positive definite"),
    ("covariances", np.array([[[1, 2, 0], [2, 1, 0], [0, 0, 1.0]]]), "covariance is not positive definite"),
    ("sizes", np.array([[4.0, -2, 1]]), "size is not positive"),
    ("sizes", np.array([[4.0, np.inf, 1]]), "size is not positive"),
    ("yaws", np.array([np.inf]), "yaw is infinite"),
    ("scores", np.array([np.nan]), "score is not within 0 and 1"),
    ("scores", np.array([1.5]), "score is not within 0 and 1"),
    ("labels", np.array([6], np.int32), "label is not an index"),
    ("labels", np.array([-1], np.int32), "label is not an index"),
    ("labels", np.array([0, 0], np.int32), "labels have the shape"),
    ("map_from_base", Transform(np.eye(3), np.array([np.nan, 0, 0])), "not finite"),
    ("map_from_base", geometry.IDENTITY, "some have an ego pose and some have none"),
]


@pytest.mark.parametrize(
    ("field", "value", "problem"), BAD, ids=[f"{field}-{i}" for i, (field, _, _) in enumerate(BAD)]
)
def test_what_cannot_be_is_refused_and_leaves_no_trace(field: str, value: Any, problem: str) -> None:
    tracker, untouched = Tracker(CONFIG), Tracker(CONFIG)
    watch(tracker, 500)
    watch(untouched, 500)
    good, bad = look([(20, 2, 0.8)], at_ms=600), replace(look([(20, 2, 0.8)], at_ms=600), **{field: value})
    with pytest.raises(MeasurementError, match=problem) as refusal:
        tracker.update([good, bad], bad.stamp_ns)
    assert "\n" not in str(refusal.value)
    assert repr(feed(tracker, good)) == repr(feed(untouched, good))


def test_an_ego_pose_that_is_not_finite_is_refused() -> None:
    with pytest.raises(MeasurementError, match="ego pose"):
        Tracker(CONFIG).update([], START_NS, Transform(np.full((3, 3), np.nan), np.zeros(3)))


@given(st.integers(0, 2**31), st.booleans())
@settings(max_examples=25, deadline=None)
def test_any_sequence_of_measurements_keeps_the_tracks_sound(seed: int, with_poses: bool) -> None:  # noqa: FBT001
    rng = np.random.default_rng(seed)
    tracker, highest, at_ms = Tracker(CONFIG), 0, 0.0
    for _ in range(25):
        at_ms += rng.choice([-20.0, 0.0, 33.0, 100.0, 700.0])
        looks = []
        for sensor in rng.permutation(["A", "B", "C"])[: rng.integers(0, 4)]:
            n = int(rng.integers(0, 6))
            pose = driven(max(at_ms, 0.0)) if with_poses else None
            one = look(
                rng.uniform(-60, 60, (n, 3)).tolist(), at_ms=at_ms + rng.uniform(-30, 0), sensor=str(sensor), pose=pose
            )
            looks.append(replace(one, labels=rng.integers(0, 6, n).astype(np.int32), scores=rng.uniform(0, 1, n)))
        tracks = tracker.update(looks, START_NS + round(at_ms * MS), driven(max(at_ms, 0.0)) if with_poses else None)
        ids = [track.id for track in tracks]
        assert ids == sorted(set(ids))
        for track in tracks:
            assert np.isfinite(np.concatenate([track.position, track.velocity, track.size, [track.yaw]])).all()
            assert np.linalg.eigvalsh(track.covariance).min() > 0
            assert 0 <= track.score <= 1
            assert -np.pi <= track.yaw <= np.pi
            assert track.since_seen_s <= CONFIG.delete_s
            assert track.age_s >= CONFIG.confirm_s
        highest = max([highest, *ids])
    assert highest < 25 * 15


def same(one: Float, other: Float) -> bool:
    return one.tobytes() == other.tobytes()


def test_what_is_published_is_not_changed_by_what_comes_after() -> None:
    tracker = Tracker(CONFIG)
    (track,) = watch(tracker, 500)
    copies = [array.copy() for array in (track.position, track.velocity, track.size, track.covariance)]
    watch(tracker, 1000, start_ms=600, size=(3, 2, 1))
    assert all(map(same, copies, (track.position, track.velocity, track.size, track.covariance)))
