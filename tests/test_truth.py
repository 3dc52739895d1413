from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception import geometry
from perception.messages import Transform, Truth
from perception.truth import RigView, TruthTimeline
from tests.drives import make_camera

SECOND = 1_000_000_000


def ego(seconds: float) -> Transform:
    return Transform(geometry.rotation_about_z(0.2 * seconds), np.array([10 * seconds, 2 * seconds, 0.5]))


def label(seconds: float, boxes: dict[str, tuple[float, float, float]], *, poses: bool = True) -> Truth:
    """Objects given by id as x, y and yaw in `map`, or in `base_link` where there are no poses."""
    base_from_map = geometry.inverse(ego(seconds)) if poses else geometry.IDENTITY
    places = np.array([(x, y, 1.0) for x, y, _ in boxes.values()]).reshape(-1, 3)
    yaws = np.array([yaw for _, _, yaw in boxes.values()]) + geometry.yaw_of(base_from_map.rotation)
    return Truth(
        round(seconds * SECOND),
        tuple(boxes),
        np.zeros(len(boxes), np.int32),
        geometry.apply(base_from_map, places),
        np.full((len(boxes), 3), 2.0),
        yaws,
        ego(seconds) if poses else None,
    )


def in_map(timeline: TruthTimeline, seconds: float) -> dict[str, tuple[float, float, float]] | None:
    pose = ego(seconds)
    truth = timeline.at(round(seconds * SECOND), pose)
    if truth is None:
        return None
    assert truth.stamp_ns == round(seconds * SECOND)
    places = geometry.apply(pose, truth.positions)
    yaws = truth.yaws + geometry.yaw_of(pose.rotation)
    return {name: (place[0], place[1], yaw) for name, place, yaw in zip(truth.ids, places, yaws, strict=True)}


def close(found: dict[str, tuple[float, float, float]] | None, expected: dict[str, tuple[float, float, float]]) -> bool:
    return (
        found is not None
        and found.keys() == expected.keys()
        and all(
            np.allclose(found[name][:2], expected[name][:2])
            and np.isclose(np.cos(found[name][2] - expected[name][2]), 1)
            for name in expected
        )
    )


moving = TruthTimeline(
    [label(t, {"a": (10 + 5 * t, 3.0, 3.0 + 0.1 * t), "b": (0.0, -t, 0.0)}) for t in (0.0, 0.5, 1.0)]
)


@given(st.floats(-0.3, 1.3))
def test_objects_move_straight_between_labels_and_a_little_beyond(seconds: float) -> None:
    expected = {"a": (10 + 5 * seconds, 3.0, 3.0 + 0.1 * seconds), "b": (0.0, -seconds, 0.0)}
    assert close(in_map(moving, seconds), expected)


@pytest.mark.parametrize("seconds", [-0.31, 1.31, 50])
def test_far_from_labels_nothing_is_known(seconds: float) -> None:
    assert in_map(moving, seconds) is None


def test_labels_too_far_apart_are_not_joined() -> None:
    timeline = TruthTimeline([label(0.0, {"a": (0, 0, 0)}), label(5.0, {"a": (50, 0, 0)})])
    assert in_map(timeline, 2.5) is None
    assert close(in_map(timeline, 0.2), {"a": (0, 0, 0)})
    assert close(in_map(timeline, 4.8), {"a": (50, 0, 0)})


def test_an_object_labelled_once_stays_for_a_moment() -> None:
    timeline = TruthTimeline([label(0.0, {"a": (5, 0, 0)}), label(1.0, {"b": (7, 0, 0)})])
    assert close(in_map(timeline, 0.2), {"a": (5, 0, 0)})
    assert close(in_map(timeline, 0.5), {})
    assert close(in_map(timeline, 0.8), {"b": (7, 0, 0)})


def test_the_heading_turns_the_short_way() -> None:
    timeline = TruthTimeline([label(0.0, {"a": (0, 0, np.pi - 0.1)}), label(1.0, {"a": (0, 0, -np.pi + 0.1)})])
    assert close(in_map(timeline, 0.5), {"a": (0, 0, np.pi)})


def test_without_poses_the_vehicle_s_frame_is_used() -> None:
    timeline = TruthTimeline([label(t, {"a": (10 + 5 * t, 0, 0)}, poses=False) for t in (0.0, 1.0)])
    truth = timeline.at(SECOND // 2, None)
    assert truth is not None
    np.testing.assert_allclose(truth.positions[0, :2], [12.5, 0])


def test_a_tick_without_a_pose_is_not_compared_with_truth_in_map() -> None:
    assert moving.at(SECOND // 2, None) is None


CAMERA = make_camera("CAM", (640, 384))
VIEW = RigView({"CAM": CAMERA, "BACK": make_camera("BACK", (640, 384), 180.0)})


def boxes(*places: tuple[float, float], size: float = 2.0) -> Truth:
    positions = np.array([(x, y, size / 2) for x, y in places]).reshape(-1, 3)
    count = len(places)
    return Truth(
        0,
        tuple(map(str, range(count))),
        np.zeros(count, np.int32),
        positions,
        np.full((count, 3), size),
        np.zeros(count),
    )


def test_a_box_in_the_image_is_where_its_corners_are() -> None:
    truth = boxes((20, 0))
    seen = VIEW.of_camera("CAM", truth)
    corners = geometry.box_corners(truth.positions[0], truth.sizes[0], 0.0)
    pixels, _ = geometry.project(CAMERA, geometry.apply(geometry.inverse(CAMERA.base_from_camera), corners))
    np.testing.assert_allclose(seen.boxes[0], [*pixels.min(axis=0), *pixels.max(axis=0)])
    assert seen.visible.tolist() == [True]


def test_what_is_behind_half_out_small_or_hidden_need_not_be_found() -> None:
    truth = boxes((20, 0), (-20, 0), (10, 9.9), (70, 20), (32, 0.5))
    assert VIEW.of_camera("CAM", truth).visible.tolist() == [True, False, False, False, False]
    in_image = ~np.isnan(VIEW.of_camera("CAM", truth).boxes[:, 0])
    assert in_image.tolist() == [True, False, True, True, True]


def test_a_rig_sees_what_any_of_its_cameras_sees() -> None:
    truth = boxes((20, 0), (-20, 0), (0, 20))
    assert VIEW.visible(truth, ()).tolist() == [True, True, False]
    assert VIEW.visible(truth, ("BACK",)).tolist() == [True, False, False]
    assert VIEW.covered(truth.positions, ()).tolist() == [True, True, False]
    assert VIEW.covered(np.zeros((0, 3)), ()).shape == (0,)
    assert VIEW.visible(boxes(), ()).shape == (0,)


def test_what_the_labels_say_is_hidden_need_not_be_found() -> None:
    truth = replace(boxes((20, 0), (20, 5), (20, -5)), visibility=np.array([0.1, 0.9, np.nan]))
    assert VIEW.of_camera("CAM", truth).visible.tolist() == [False, True, True]
    assert VIEW.visible(truth, ()).tolist() == [False, True, True]


def test_between_two_labels_visibility_is_that_of_the_nearer() -> None:
    before = replace(boxes((20, 0)), visibility=np.array([0.1]))
    after = replace(boxes((21, 0)), stamp_ns=SECOND, visibility=np.array([0.9]))
    timeline = TruthTimeline([before, after])
    shown = [timeline.at(round(part * SECOND), None) for part in (0.3, 0.7)]
    assert [found.visibility.tolist() for found in shown if found and found.visibility is not None] == [[0.1], [0.9]]
