from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from perception import geometry
from perception.messages import Camera, Float, Transform

unit = st.floats(-1, 1)
quaternions = hnp.arrays(np.float64, 4, elements=unit).filter(lambda q: float(np.linalg.norm(q)) > 0.1)
vectors = hnp.arrays(np.float64, 3, elements=st.floats(-100, 100))

DISTORTIONS = {
    "none": [],
    "plumb_bob": [-0.3, 0.1, 0.001, -0.002, -0.02],
    "rational_polynomial": [-0.3, 0.1, 0.001, -0.002, -0.02, 0.05, 0.01, 0.002],
    "kannala_brandt": [-0.02, 0.005, -0.001, 0.0002],
}


def camera(model: str) -> Camera:
    intrinsics = np.array([[500.0, 0, 320], [0, 510, 190], [0, 0, 1]])
    return Camera("A", 640, 384, intrinsics, geometry.IDENTITY, model, np.array(DISTORTIONS[model]))


@given(quaternions)
def test_quaternion_and_rotation_are_inverse(q: Float) -> None:
    rotation = geometry.rotation_from_quaternion(q)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
    again = geometry.rotation_from_quaternion(geometry.quaternion_from_rotation(rotation))
    np.testing.assert_allclose(again, rotation, atol=1e-9)


@given(quaternions, vectors, quaternions, vectors, vectors)
def test_transforms_compose_and_invert(q: Float, t: Float, r: Float, s: Float, point: Float) -> None:
    a_from_b = Transform(geometry.rotation_from_quaternion(q), t)
    b_from_c = Transform(geometry.rotation_from_quaternion(r), s)
    composed = geometry.apply(geometry.compose(a_from_b, b_from_c), point)
    np.testing.assert_allclose(composed, geometry.apply(a_from_b, geometry.apply(b_from_c, point)), atol=1e-8)
    np.testing.assert_allclose(
        geometry.apply(geometry.inverse(a_from_b), geometry.apply(a_from_b, point)), point, atol=1e-8
    )


@pytest.mark.parametrize("model", DISTORTIONS)
def test_rays_undo_projection(model: str) -> None:
    rng = np.random.default_rng(1)
    points = np.column_stack([rng.uniform(-5, 5, 50), rng.uniform(-3, 3, 50), rng.uniform(8, 40, 50)])
    pixels, depth = geometry.project(camera(model), points)
    rays = geometry.rays(camera(model), pixels)
    np.testing.assert_allclose(rays * depth[:, None], points, atol=2e-3)


@pytest.mark.parametrize("distortion", [(-0.3, 0.1, 0.001, -0.002, -0.02), (0.3, 0.1, 0, 0, 0.02, 0.7, 0.2, 0.05)])
def test_rays_undo_projection_at_the_border_of_a_wide_lens_too(distortion: tuple[float, ...]) -> None:
    intrinsics = np.array([[1000.0, 0, 960], [0, 1000, 600], [0, 0, 1]])
    wide = Camera("A", 1920, 1200, intrinsics, geometry.IDENTITY, "rational_polynomial", np.array(distortion))
    angles = np.radians(np.linspace(-42, 42, 29))
    points = np.column_stack([np.tan(angles), 0.5 * np.tan(angles), np.ones(29)])
    back, _ = geometry.project(wide, geometry.rays(wide, geometry.project(wide, points)[0]))
    np.testing.assert_allclose(back, geometry.project(wide, points)[0], atol=0.01)


@pytest.mark.parametrize("model", DISTORTIONS)
def test_no_points_project_to_no_pixels(model: str) -> None:
    pixels, depth = geometry.project(camera(model), np.zeros((0, 3)))
    assert pixels.shape == (0, 2)
    assert depth.shape == (0,)
    assert geometry.rays(camera(model), np.zeros((0, 2))).shape == (0, 3)


def test_a_heading_turns_counter_clockwise_seen_from_above() -> None:
    np.testing.assert_allclose(geometry.rotation_about_z(np.pi / 2) @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    assert geometry.yaw_of(geometry.rotation_about_z(1.2)) == pytest.approx(1.2)


def test_box_corners_start_at_the_front_left_of_the_bottom() -> None:
    corners = geometry.box_corners(np.array([10.0, 0, 1]), np.array([4.0, 2, 1.5]), 0.0)
    np.testing.assert_allclose(corners[0], [12, 1, 0.25])
    np.testing.assert_allclose(corners[4:, 2], 1.75)
    np.testing.assert_allclose(corners.mean(axis=0), [10, 0, 1])
