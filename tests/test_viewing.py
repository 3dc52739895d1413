from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception import geometry
from perception.messages import Camera, Float
from tests.drives import make_camera

CAMERA = make_camera("CAM", (320, 192), yaw_deg=30.0)


def edges(camera: Camera, x: float, y: float, z: float = 1.0, size: Float | None = None) -> Float:
    corners = geometry.box_corners(np.array([x, y, z]), np.array([4.0, 2.0, 1.5]) if size is None else size, 0.4)
    return geometry.box_edges(camera, geometry.viewing_planes(camera), corners)


def ahead(distance: float, aside: float = 0.0) -> tuple[float, float]:
    """A place before the camera, in `base_link`."""
    base_from_camera = CAMERA.base_from_camera
    x, y, _ = geometry.apply(base_from_camera, np.array([aside, 0.0, distance]))
    return float(x), float(y)


def test_a_box_in_full_view_has_its_twelve_edges_between_its_projected_corners() -> None:
    corners = geometry.box_corners(np.array([*ahead(20), 1.0]), np.array([4.0, 2.0, 1.5]), 0.4)
    found = geometry.box_edges(CAMERA, geometry.viewing_planes(CAMERA), corners)
    pixels, _ = geometry.project(CAMERA, geometry.apply(geometry.inverse(CAMERA.base_from_camera), corners))
    assert found.shape == (12, 2, 2)
    np.testing.assert_allclose(found[0], pixels[[0, 1]])
    np.testing.assert_allclose(found[-1], pixels[[3, 7]])


@pytest.mark.parametrize("place", [ahead(-20), ahead(5, 40), ahead(5, -40)])
def test_a_box_behind_or_beside_the_camera_has_none(place: tuple[float, float]) -> None:
    assert edges(CAMERA, *place).shape == (0, 2, 2)


def test_a_box_around_the_camera_is_cut_off_before_it() -> None:
    found = edges(CAMERA, *ahead(0.5), size=np.array([8.0, 8.0, 2.0]))
    assert 0 < len(found) <= 12
    assert np.isfinite(found).all()


places = st.floats(-60, 60)


@given(places, places)
def test_what_is_cut_off_stays_near_the_image(x: float, y: float) -> None:
    found = edges(CAMERA, x, y)
    assert (found >= np.array([-0.2 * 320, -0.2 * 192]) - 1e-6).all()
    assert (found <= np.array([1.2 * 320, 1.2 * 192]) + 1e-6).all()


def test_a_distorted_camera_shows_nothing_from_beyond_its_view() -> None:
    """Its polynomial would fold a point far aside back into the image."""
    k1 = -0.35
    camera = Camera(
        "CAM", 320, 192, CAMERA.intrinsics, CAMERA.base_from_camera, "plumb_bob", np.array([k1, 0.0, 0.0, 0.0, 0.0])
    )
    far_aside = geometry.apply(camera.base_from_camera, np.array([8.5, 0.0, 5.0]))
    pixels, _ = geometry.project(camera, np.array([[8.5, 0.0, 5.0]]))
    assert 0 < pixels[0, 0] < 320
    assert len(edges(camera, far_aside[0], far_aside[1], size=np.array([0.2, 0.2, 0.2]))) == 0
