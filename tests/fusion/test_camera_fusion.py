"""Whole scenes: from exact geometry and noisy boxes to tracks."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest

from perception.fusion.camera_fusion import CameraFusion
from perception.messages import CLASSES, Float, Frame, FrameSet, Track, TrackSet
from tests.fusion.simulator import CONFIG, DISTORTIONS, Thing, World, camera, surround

CAR, _, _, _, _, PEDESTRIAN = range(len(CLASSES))

STREET = [
    Thing(CAR, (25, 6)),  # parked
    Thing(CAR, (40, -6)),
    Thing(CAR, (14, 6)),
    Thing(CAR, (12, 0), (8, 0)),  # ahead, as fast as the vehicle
    Thing(CAR, (60, 3), (-8, 0)),  # oncoming
    Thing(PEDESTRIAN, (18, -8), (1.2, 0)),
    Thing(PEDESTRIAN, (30, 9), (-1.0, 0)),
]


def run(world: World, duration_s: float = 4.0, rate_hz: float = 10.0) -> list[TrackSet]:
    fusion = CameraFusion(world.rig, CONFIG)
    return [fusion.update(frames, found) for frames, found in world.ticks(duration_s, rate_hz)]


def nearest(world: World, published: TrackSet) -> dict[int, Track]:
    """The track that is nearest to each thing, if any is within a quarter of the way to it."""
    truth = world.truth(published.stamp_ns)
    found = {}
    for index, centre in enumerate(truth):
        away = [float(np.linalg.norm((track.position - centre)[:2])) for track in published.tracks]
        if away and min(away) < 0.25 * np.linalg.norm(centre[:2]) + 1:
            found[index] = published.tracks[int(np.argmin(away))]
    return found


def errors(world: World, published: list[TrackSet], settled_s: float = 1.0) -> tuple[Float, Float]:
    """Errors (N, 2) of the tracks seen in their tick, and their squares by the tracks' own covariance."""
    error, squared = [], []
    for tracks in published:
        truth = world.truth(tracks.stamp_ns)
        for index, track in nearest(world, tracks).items():
            if track.age_s > settled_s and track.seen_by:
                error.append((track.position - truth[index])[:2])
                squared.append(error[-1] @ np.linalg.solve(track.covariance[:2, :2], error[-1]))
    return np.array(error), np.array(squared)


def test_errors_are_bounded_by_the_covariance() -> None:
    error, squared = [], []
    for seed in range(4):
        world = World(STREET, ego_speed_mps=8.0, ego_turn_radps=0.05, seed=seed, miss=0.05)
        parts = errors(world, run(world))
        error.append(parts[0])
        squared.append(parts[1])
    nees = np.concatenate(squared)
    assert len(nees) > 400
    # Two coordinates: 2 on average, 1.39 in the median, if the covariance is exact; below, if it is cautious.
    assert 0.1 < np.median(nees) < 1.6
    assert np.mean(nees) < 3
    assert np.mean(nees < 9.21) > 0.97
    assert np.median(np.linalg.norm(np.concatenate(error), axis=1)) < 1.5


def test_an_object_in_the_overlap_of_two_cameras_is_one_track() -> None:
    at = 18.0 * np.array([np.cos(np.radians(30)), np.sin(np.radians(30))])
    world = World([Thing(CAR, (at[0], at[1]))], skew_s=0.04)
    published = run(world, 3.0)
    for tracks in published[5:]:
        assert [track.id for track in tracks.tracks] == [1]
    both = [set(tracks.tracks[0].seen_by) == {"FRONT", "LEFT"} for tracks in published[5:]]
    assert np.mean(both) > 0.9


def test_an_object_keeps_its_id_around_the_vehicle_from_camera_to_camera() -> None:
    world = World([Thing(CAR, (-30, 5), (14, 0))], skew_s=0.03)
    published = run(world, 4.5)
    ids = {track.id for tracks in published for track in tracks.tracks}
    assert ids == {1}
    cameras = {name for tracks in published for track in tracks.tracks for name in track.seen_by}
    assert cameras >= {"REAR", "REAR_LEFT", "LEFT", "FRONT"}


def test_an_object_keeps_its_id_through_half_a_second_of_occlusion() -> None:
    world = World([Thing(CAR, (15, -4), (6, 0), hidden_s=(1.5, 2.0))])
    published = run(world, 3.5)
    hidden = [tracks for tracks in published if 1.5e9 <= tracks.stamp_ns < 2.0e9]
    assert all(tracks.tracks[0].seen_by == () for tracks in hidden)
    assert hidden[-1].tracks[0].since_seen_s == pytest.approx(0.5)
    assert {track.id for tracks in published for track in tracks.tracks} == {1}


@pytest.mark.parametrize("turn", [1e-9, 0.15])
def test_what_stands_has_no_velocity_while_the_vehicle_drives_past(turn: float) -> None:
    standing = [Thing(CAR, (25, 6)), Thing(CAR, (30, -5)), Thing(PEDESTRIAN, (22, -3))]
    world = World(standing, ego_speed_mps=8.0, ego_turn_radps=turn)
    speeds = defaultdict(list)
    for published in run(world, 3.0)[12:]:
        for index, track in nearest(world, published).items():
            speeds[index].append(float(np.linalg.norm(track.velocity)))
    assert len(speeds) == 3
    for of_one in speeds.values():
        assert np.median(of_one) < 1.0


def test_what_moves_is_as_fast_as_it_is() -> None:
    world = World([Thing(CAR, (12, 3.5), (10, 0)), Thing(PEDESTRIAN, (12, -6), (0.0, 1.5))], ego_speed_mps=8.0)
    car, pedestrian = nearest(world, run(world, 3.0)[-1]).values()
    assert car.velocity[:2] == pytest.approx([10, 0], abs=1.5)
    assert car.yaw == pytest.approx(0, abs=0.3)
    assert pedestrian.velocity[:2] == pytest.approx([0, 1.5], abs=0.7)
    assert (car.class_name, pedestrian.class_name) == ("car", "pedestrian")


def test_without_poses_a_standing_vehicle_sees_the_same() -> None:
    with_poses, without = World(STREET, skew_s=0.03), World(STREET, skew_s=0.03, has_poses=False)
    for one, other in zip(run(with_poses), run(without), strict=True):
        assert other.map_from_base is None
        assert [track.id for track in other.tracks] == [track.id for track in one.tracks]
        for track, same in zip(other.tracks, one.tracks, strict=True):
            np.testing.assert_allclose(track.position, same.position, atol=1e-5)
            np.testing.assert_allclose(track.velocity, same.velocity, atol=1e-5)


def test_one_pose_amiss_and_the_tick_is_taken_without_poses() -> None:
    world = World(STREET, ego_speed_mps=5.0)
    fusion = CameraFusion(world.rig, CONFIG)
    for frames, found in world.ticks(1.0):
        assert fusion.update(frames, found).map_from_base is not None
    first = replace(frames.frames[0], map_from_base=None)
    assert fusion.update(replace(frames, frames=(first, *frames.frames[1:])), found).map_from_base is None


def test_captures_at_different_times_are_each_taken_at_their_own() -> None:
    """At 15 m/s, 50 ms of skew taken for none would be 0.75 m of error."""
    passing = [Thing(CAR, (-12, 4), (15, 0)), Thing(PEDESTRIAN, (14, -5))]
    for skew_s in (0.0, 0.05):
        world = World(passing, ego_speed_mps=5.0, skew_s=skew_s, pixel_noise=0.5)
        error, squared = errors(world, run(world, 3.0))
        assert np.median(np.linalg.norm(error, axis=1)) < 0.9
        assert np.median(squared) < 1.6


def test_false_positives_are_not_published() -> None:
    world = World([], ego_speed_mps=5.0, false_positives=0.2, seed=3)
    published = run(world, 20.0)
    assert sum(len(found) for _, of_tick in world.ticks(20.0) for found in of_tick) > 150
    assert sum(len(tracks.tracks) > 0 for tracks in published) <= 2


def test_a_late_camera_is_left_out_and_its_objects_are_predicted() -> None:
    world = World([Thing(CAR, (20, 0)), Thing(CAR, (-20, 0))])
    fusion = CameraFusion(world.rig, CONFIG)
    for frames, found in world.ticks(1.0):
        fusion.update(frames, found)
    rear = [one.camera for one in found].index("REAR")
    frames = replace(frames, stamp_ns=frames.stamp_ns + 100_000_000)
    published = fusion.update(frames, [*found[:rear], *found[rear + 1 :]])
    assert {track.seen_by for track in published.tracks} == {("FRONT",), ()}


def test_what_is_published_says_which_tick_it_is_of() -> None:
    frame = Frame("FRONT", np.zeros((1, 1, 3), np.uint8), 5, 0, (0, 0))  # type: ignore[arg-type]
    frames = FrameSet(7, 5, 3, (frame,), ("REAR",))
    published = CameraFusion(surround(), CONFIG).update(frames, [])
    assert published == TrackSet(7, 5, 3, ("REAR",), (), None)


@pytest.mark.parametrize("model", DISTORTIONS)
def test_lenses_make_no_difference_to_the_tracks(model: str) -> None:
    world = World([Thing(CAR, (16, 5)), Thing(CAR, (-14, -7))], surround(model), pixel_noise=0.3)
    published = run(world, 1.5)[-1]
    assert len(published.tracks) == 2
    for centre, track in zip(world.truth(published.stamp_ns), nearest(world, published).values(), strict=True):
        assert np.linalg.norm((track.position - centre)[:2]) < 1.2


def test_the_same_input_gives_the_same_output_to_the_last_bit() -> None:
    world = World(STREET, ego_speed_mps=8.0, skew_s=0.04, miss=0.1, false_positives=0.3)

    def everything() -> list[bytes]:
        return [
            b"".join(
                (
                    repr((track.id, track.label, track.score, track.yaw, track.age_s, track.seen_by)).encode(),
                    track.position.tobytes(),
                    track.velocity.tobytes(),
                    track.size.tobytes(),
                    track.covariance.tobytes(),
                )
            )
            for published in run(world, 3.0)
            for track in published.tracks
        ]

    first = everything()
    assert len(first) > 100
    assert first == everything()


def test_one_camera_is_a_rig_too() -> None:
    world = World([Thing(CAR, (20, 2))], {"ONLY": camera("ONLY")})
    (track,) = run(world, 1.0)[-1].tracks
    assert track.seen_by == ("ONLY",)


def test_a_tick_in_which_nobody_looked_is_predicted() -> None:
    world = World(STREET, ego_speed_mps=8.0)
    fusion = CameraFusion(world.rig, CONFIG)
    ticks = list(world.ticks(2.0, 10.0))
    for frames, found in ticks[:-1]:
        seen = fusion.update(frames, found)
    predicted = fusion.update(ticks[-1][0], ())
    assert [track.id for track in predicted.tracks] == [track.id for track in seen.tracks]
    assert len(nearest(world, predicted)) == len(nearest(world, seen)) >= 5
    assert all(not track.seen_by and track.since_seen_s > 0 for track in predicted.tracks)


def test_cameras_that_look_in_turn_lose_no_object() -> None:
    world = World(STREET, ego_speed_mps=8.0)
    fusion = CameraFusion(world.rig, CONFIG)
    for tick, (frames, found) in enumerate(world.ticks(4.0, 10.0)):
        published = fusion.update(frames, [of for n, of in enumerate(found) if n % 2 == tick % 2])
    everything = run(world)[-1]
    assert set(nearest(world, published)) == set(nearest(world, everything))
