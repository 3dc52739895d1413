from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception import geometry
from perception.config import FusionConfig
from perception.fusion.lifting import Lifter
from perception.messages import CLASSES, Attributes, Camera, Detections, Float, Measurements, Transform
from tests.fusion.simulator import CONFIG, DISTORTIONS, box_of, camera, detections, usual_size

CAR, TRUCK, BUS, _, _, PEDESTRIAN = range(len(CLASSES))


def lift(taken_by: Camera, found: Detections, config: FusionConfig = CONFIG) -> Measurements:
    (measurements,) = Lifter({taken_by.name: taken_by}, config).lift([found], [None])
    return measurements


def stand(x: float, y: float, label: int, yaw: float = 0.0) -> Transform:
    return Transform(geometry.rotation_about_z(yaw), np.array([x, y, usual_size(label)[2] / 2]))


def range_std(measurements: Measurements, taken_by: Camera) -> Float:
    sight = measurements.positions[:, :2] - taken_by.base_from_camera.translation[:2]
    sight /= np.linalg.norm(sight, axis=1, keepdims=True)
    variance: Float = np.einsum("ni,nij,nj->n", sight, measurements.covariances[:, :2, :2], sight)
    return np.sqrt(variance)


@pytest.mark.parametrize("model", DISTORTIONS)
@pytest.mark.parametrize("pitch_deg", [0.0, 10.0])
def test_a_box_is_lifted_to_where_it_stands_whatever_the_lens(model: str, pitch_deg: float) -> None:
    taken_by = camera(model=model, yaw_deg=35.0, pitch_deg=pitch_deg)
    for x, y in [(8.0, 2.0), (9.0, 9.0), (20.0, 14.0), (28.0, 6.0)]:
        box = box_of(taken_by, stand(x, y, PEDESTRIAN), usual_size(PEDESTRIAN))
        assert box is not None
        measured = lift(taken_by, detections("FRONT", [box], [PEDESTRIAN]))
        away = np.hypot(x, y)
        np.testing.assert_allclose(measured.positions[0], [x, y, 0.875], atol=0.02 * away)
        assert measured.sizes[0, 2] == pytest.approx(1.75, abs=0.1)
        assert np.isnan(measured.sizes[0, :2]).all()
        assert np.isnan(measured.yaws).all()


@given(
    x=st.floats(5, 70),
    sideways=st.floats(-0.5, 0.5),
    yaw=st.floats(-3.2, 3.2),
    label=st.sampled_from(range(6)),
    height=st.floats(1.2, 2.5),
)
def test_the_error_is_what_the_covariance_says(
    x: float, sideways: float, yaw: float, label: int, height: float
) -> None:
    taken_by = camera(position=(1.5, 0.0, height))
    true = stand(x, sideways * x, label, yaw)
    box = box_of(taken_by, true, usual_size(label))
    if box is None:
        return
    measured = lift(taken_by, detections("FRONT", [box], [label]))
    error = measured.positions[0] - true.translation
    assert error @ np.linalg.solve(measured.covariances[0], error) < 25


@given(
    boxes=st.lists(
        st.tuples(*(st.floats(-1e6, 1e6, width=32) | st.sampled_from([np.nan, np.inf, 0.0, 1280.0]),) * 4), max_size=6
    ),
    label=st.sampled_from(range(6)),
)
@settings(max_examples=200)
def test_whatever_the_boxes_measurements_are_finite_and_their_covariances_positive(
    boxes: list[tuple[float, float, float, float]], label: int
) -> None:
    found = detections("FRONT", [np.array(box) for box in boxes], [label] * len(boxes))
    measured = lift(camera(), found)
    assert np.isfinite(measured.positions).all()
    assert np.isfinite(measured.covariances).all()
    if len(measured):
        assert np.linalg.eigvalsh(measured.covariances).min() > 0
    away = np.linalg.norm(measured.positions[:, :2] - [1.5, 0.0], axis=1)
    assert (away < CONFIG.max_range_m + 10).all()


def test_the_ellipse_is_long_along_the_line_of_sight_and_longer_further_away() -> None:
    taken_by = camera()
    boxes = [box_of(taken_by, stand(x, 0.2 * x, CAR), usual_size(CAR)) for x in (8.0, 20.0, 40.0)]
    measured = lift(taken_by, detections("FRONT", [box for box in boxes if box is not None], [CAR] * 3))
    along = range_std(measured, taken_by)
    assert (np.diff(along) > 0).all()
    assert (along[1:] > 3 * np.sqrt(np.linalg.eigvalsh(measured.covariances[1:, :2, :2])[:, 0])).all()


def test_an_object_at_or_above_the_horizon_is_lifted_by_its_size_alone() -> None:
    taken_by = camera()
    up_a_hill = Transform(np.eye(3), np.array([30.0, 0.0, 3.0]))  # its lower edge is higher than the camera
    box = box_of(taken_by, up_a_hill, usual_size(CAR))
    assert box is not None
    assert box[3] < 360
    measured = lift(taken_by, detections("FRONT", [box], [CAR]))
    assert measured.positions[0, 0] == pytest.approx(30, abs=2 * range_std(measured, taken_by)[0])


@pytest.mark.parametrize("side", [-1, 1])
def test_a_box_cut_at_the_side_is_less_certain_across(side: int) -> None:
    taken_by = camera()
    true = stand(9.0, side * 4.9, CAR)
    whole, box = (box_of(taken_by, place, usual_size(CAR)) for place in (stand(9.0, side * 2.0, CAR), true))
    assert whole is not None
    assert box is not None
    assert (box[0] == 0) if side > 0 else (box[2] == 1280)
    measured = lift(taken_by, detections("FRONT", [whole, box], [CAR, CAR]))
    certain, uncertain = np.linalg.eigvalsh(measured.covariances[:, :2, :2])[:, 0]
    assert uncertain > 3 * certain
    error = (measured.positions[1] - true.translation)[:2]
    assert error @ np.linalg.solve(measured.covariances[1, :2, :2], error) < 9
    assert np.linalg.norm(error) < 2


def test_a_box_cut_below_has_no_ground_contact_and_is_less_certain_in_range() -> None:
    level, lowered = camera(), camera(pitch_deg=12.0)
    true = stand(6.0, 0.0, CAR)
    cut, whole = box_of(level, true, usual_size(CAR)), box_of(lowered, true, usual_size(CAR))
    assert cut is not None
    assert whole is not None
    assert cut[3] == 720
    uncertain = lift(level, detections("FRONT", [cut], [CAR]))
    certain = lift(lowered, detections("FRONT", [whole], [CAR]))
    assert range_std(uncertain, level)[0] > 1.3 * range_std(certain, lowered)[0]
    assert np.isnan(uncertain.sizes[0]).all()
    assert abs(uncertain.positions[0, 0] - 6.0) < 2 * range_std(uncertain, level)[0]


def test_a_box_that_fills_the_image_is_close() -> None:
    measured = lift(camera(), detections("FRONT", [np.array([0, 0, 1280, 720])], [TRUCK]))
    assert 1.5 < measured.positions[0, 0] < 10
    assert range_std(measured, camera())[0] > 0.5


def test_a_box_that_another_may_hide_below_is_less_certain() -> None:
    taken_by = camera()
    near, far = (box_of(taken_by, stand(x, 0.0, CAR), usual_size(CAR)) for x in (10.0, 22.0))
    assert near is not None
    assert far is not None
    free = lift(taken_by, detections("FRONT", [far], [CAR]))
    both = lift(taken_by, detections("FRONT", [far, near], [CAR, CAR]))
    assert range_std(both, taken_by)[0] > 2 * range_std(free, taken_by)[0]
    assert np.isnan(both.sizes[0, 2])
    alone = lift(taken_by, detections("FRONT", [near], [CAR]))
    np.testing.assert_allclose(both.covariances[1], alone.covariances[0])


def test_one_object_labelled_twice_is_lifted_once_by_its_best_label() -> None:
    box = np.array([500, 330, 620, 420.0])
    twice = detections("FRONT", [box, box + 1, box + 200], [TRUCK, CAR, CAR])
    assert lift(camera(), twice).labels.tolist() == [TRUCK, CAR]
    alike = detections("FRONT", [box, box + 1], [CAR, CAR])
    assert len(lift(camera(), alike)) == 2  # what bears one label is for NMS to tell apart


def test_objects_out_of_range_and_improper_boxes_are_left_out() -> None:
    far = np.array([600, 355, 606, 361.0])
    boxes = [far, [500, 400, 500, 450], [500, 400, 480, 450], [np.nan, 400, 600, 450], [500, 400, 600, np.inf]]
    assert len(lift(camera(), detections("FRONT", [np.array(box) for box in boxes], [CAR] * 5))) == 0
    assert len(lift(camera(), detections("FRONT", [], []))) == 0


def told(taken_by: Camera, places: list[Transform], label: int, *, depth_std: float = 0.03) -> Detections:
    """Detections of a detector whose attributes are right."""
    boxes = [box_of(taken_by, place, usual_size(label)) for place in places]
    found = detections(taken_by.name, [box for box in boxes if box is not None], [label] * len(places))
    centres = np.array([place.translation for place in places])
    seen = geometry.apply(geometry.inverse(taken_by.base_from_camera), centres)
    pixels, depths = geometry.project(taken_by, seen)
    headings = np.array([place.rotation[:, 0] for place in places]) @ taken_by.base_from_camera.rotation
    alphas = np.arctan2(-headings[:, 2], headings[:, 0]) - np.arctan2(seen[:, 0], seen[:, 2])
    n = len(places)
    attributes = Attributes(
        centres=pixels.astype(np.float32),
        depths_over_focal=(depths / taken_by.intrinsics[1, 1]).astype(np.float32),
        depth_stds=np.full(n, depth_std, np.float32),
        sizes=np.tile(usual_size(label), (n, 1)).astype(np.float32),
        alphas=alphas.astype(np.float32),
    )
    return replace(found, attributes=attributes)


def deeper(found: Detections, factor: float) -> Detections:
    assert found.attributes is not None
    depths = found.attributes.depths_over_focal * np.float32(factor)
    return replace(found, attributes=replace(found.attributes, depths_over_focal=depths))


@pytest.mark.parametrize("model", DISTORTIONS)
@pytest.mark.parametrize("yaw_deg", [0.0, 120.0])
def test_what_the_detector_says_in_3d_is_taken_over_in_base_link(model: str, yaw_deg: float) -> None:
    taken_by = camera(yaw_deg=yaw_deg, model=model, pitch_deg=5.0)
    ahead = geometry.rotation_about_z(np.radians(yaw_deg))
    places = []
    for x, y, yaw in [(9.0, 1.0, 0.3), (25.0, -6.0, 2.5), (40.0, 10.0, -1.2)]:
        at = ahead @ np.array([x, y, 0]) + np.array([0, 0, usual_size(CAR)[2] / 2])
        places.append(Transform(geometry.rotation_about_z(yaw), at))
    measured = lift(taken_by, told(taken_by, places, CAR))
    for i, place in enumerate(places):
        np.testing.assert_allclose(measured.positions[i, :2], place.translation[:2], atol=0.03 * (9 + 15 * i))
        assert measured.yaws[i] == pytest.approx(geometry.yaw_of(place.rotation), abs=0.01)
        np.testing.assert_allclose(measured.sizes[i], usual_size(CAR), rtol=1e-4)


@pytest.mark.parametrize("edge", [0, 2, 3])
def test_the_heading_of_what_the_border_cuts_is_not_taken_over(edge: int) -> None:
    taken_by = camera()
    found = told(taken_by, [stand(9.0, 0.5, CAR, 0.3)], CAR)
    boxes = found.boxes.copy()
    boxes[0, edge] = (0, 0, taken_by.width, taken_by.height)[edge]
    cut = lift(taken_by, replace(found, boxes=boxes))
    assert np.isnan(cut.yaws).all()
    np.testing.assert_allclose(cut.sizes, lift(taken_by, found).sizes)
    assert lift(taken_by, found).yaws == pytest.approx([0.3], abs=0.01)


def test_a_predicted_depth_weighs_as_much_as_it_says_it_is_worth() -> None:
    taken_by = camera()
    places = [stand(30.0, 2.0, CAR, 0.4)]
    silent = detections("FRONT", list(told(taken_by, places, CAR).boxes), [CAR])
    sure, unsure = (told(taken_by, places, CAR, depth_std=std) for std in (0.02, 10.0))
    stds = [range_std(lift(taken_by, found), taken_by)[0] for found in (sure, unsure, silent)]
    assert stds[0] < 0.5 * stds[2]
    assert stds[0] < stds[1] < 1.05 * stds[2]
    # A wrong depth moves the sure one, and leaves the unsure one where its box puts it.
    moved = [lift(taken_by, deeper(found, 1.2)).positions[0, 0] for found in (sure, unsure)]
    assert moved[0] > 33
    assert moved[1] == pytest.approx(30, abs=1)


@pytest.mark.parametrize("yaw", [0.0, 0.7, np.pi / 2])
def test_a_wrong_heading_does_not_move_a_car_whose_depth_is_told(yaw: float) -> None:
    """Where its box meets the ground is a face of the car, half a length or half a width from its centre."""
    taken_by = camera()
    found = told(taken_by, [stand(9.0, 0.5, CAR, yaw)], CAR, depth_std=0.05)
    assert found.attributes is not None
    turned = replace(found.attributes, alphas=found.attributes.alphas + np.float32(np.pi / 2))
    for attributes in (found.attributes, turned):
        measured = lift(taken_by, replace(found, attributes=attributes))
        assert measured.positions[0, 0] == pytest.approx(9.0, abs=0.35)
        assert abs(measured.positions[0, 0] - 9.0) < 1.5 * range_std(measured, taken_by)[0]


def test_cameras_with_and_without_attributes_go_together() -> None:
    rig = {name: camera(name, yaw) for name, yaw in (("A", 0.0), ("B", 60.0))}
    places = [stand(15.0, 1.0, CAR)]
    with_attributes = told(rig["A"], places, CAR)
    without = detections("B", [np.array([500, 330, 620, 420.0])], [CAR])
    measured = Lifter(rig, CONFIG).lift([with_attributes, without], [None, None])
    assert np.isfinite(measured[0].yaws).all()
    assert np.isnan(measured[1].yaws).all()
    np.testing.assert_array_equal(measured[1].positions, lift(rig["B"], without).positions)


def test_attributes_are_left_aside_where_the_config_says_so() -> None:
    rig = {"A": camera("A", 0.0)}
    found = told(rig["A"], [stand(15.0, 1.0, CAR)], CAR)
    without = Lifter(rig, FusionConfig(attributes=False)).lift([found], [None])
    as_if_silent = Lifter(rig, CONFIG).lift([replace(found, attributes=None)], [None])
    np.testing.assert_array_equal(without[0].positions, as_if_silent[0].positions)
    assert np.isnan(without[0].yaws).all()
    assert not np.isnan(Lifter(rig, CONFIG).lift([found], [None])[0].yaws).any()


def test_cameras_are_lifted_together_as_each_would_be_alone() -> None:
    rig = {name: camera(name, yaw, "plumb_bob") for name, yaw in (("A", 0.0), ("B", 60.0), ("C", -60.0))}
    rng = np.random.default_rng(0)
    found = []
    for name, n in (("A", 3), ("B", 0), ("C", 2)):
        corners = rng.uniform((300, 300), (900, 380), (n, 2))
        found.append(detections(name, list(np.hstack([corners, corners + 70])), [CAR] * n, capture_ns=7))
    pose = Transform(np.eye(3), np.ones(3))
    together = Lifter(rig, CONFIG).lift(found, [pose, None, pose])
    assert [measured.sensor for measured in together] == ["A", "B", "C"]
    for one, measured, of_image in zip(rig.values(), together, found, strict=True):
        alone = lift(one, of_image)
        assert len(measured) == len(of_image)
        np.testing.assert_array_equal(measured.positions, alone.positions)
        np.testing.assert_array_equal(measured.covariances, alone.covariances)
        assert measured.stamp_ns == 7
    assert together[0].map_from_base is pose
    assert together[1].map_from_base is None
    assert Lifter(rig, CONFIG).lift([], []) == []
