import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.world import raster
from engines.world.raster import Lens
from perception.errors import BackendError

LENS = Lens(96, 64, 50.0, 40.0, 30.0)
FAR = 500.0


def quad(z: float, left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """Two triangles at depth z that cover pixels from left, top to right, bottom."""
    corners = [((u - LENS.cx) * z / LENS.focal, (v - LENS.cy) * z / LENS.focal, z) for u, v in
               ((left, top), (right, top), (right, bottom), (left, bottom))]  # fmt: skip
    a, b, c, d = np.array(corners, np.float32)
    return np.array([[a, b, c], [a, c, d]])


def empty() -> np.ndarray:
    return np.full((LENS.height, LENS.width), FAR, np.float32)


def test_a_quad_covers_the_pixels_whose_middles_it_covers_at_its_depth() -> None:
    depth = empty()
    seen = raster.rasterise(quad(10.0, 12.3, 8.7, 30.6, 20.2), np.array([7, 7]), LENS, depth)[..., 0]
    rows, columns = np.nonzero(seen == 7)
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (12, 30, 9, 19)
    assert np.count_nonzero(seen) == 19 * 11
    np.testing.assert_allclose(depth[seen == 7], 10.0, rtol=1e-4)
    assert depth[0, 0] == pytest.approx(FAR, rel=1e-4)


def test_the_nearer_triangle_wins_in_any_order() -> None:
    near, far = quad(5.0, 10, 10, 40, 40), quad(20.0, 0, 0, 96, 64)
    for first, second, numbers in ((near, far, [1, 1, 2, 2]), (far, near, [2, 2, 1, 1])):
        seen = raster.rasterise(np.concatenate([first, second]), np.array(numbers), LENS, empty())[..., 0]
        assert seen[20, 20] == 1
        assert seen[50, 50] == 2


def test_what_reaches_behind_the_camera_is_cut_off_at_the_near_plane() -> None:
    """A floor from 20 m ahead to 5 m behind fills the image up to its lower edge."""
    a, b, c, d = np.array([[-50, 1, 20], [50, 1, 20], [50, 1, -5], [-50, 1, -5]], np.float32)
    clipped, sources = raster.clip_near(np.array([[a, b, c], [a, c, d]]))
    assert clipped[..., 2].min() > 0.1
    assert set(sources.tolist()) == {0, 1}
    seen = raster.rasterise(clipped, sources + 1, LENS, empty())[..., 0]
    horizon = LENS.cy + LENS.focal / 20
    assert (seen[int(horizon) + 2 :] > 0).all()
    assert (seen[: int(horizon) - 1] == 0).all()


triangles = st.lists(
    st.tuples(st.floats(-30, 30), st.floats(-20, 20), st.floats(2, 60), st.floats(0.05, 8), st.integers(0, 10**6)),
    min_size=1,
    max_size=40,
    unique_by=lambda triangle: triangle[-1],  # of two that are one and the same, either may show
)


@settings(max_examples=25, deadline=None)
@given(triangles, st.integers(0, 6))
def test_leaving_out_what_is_hidden_changes_nothing(
    drawn: list[tuple[float, float, float, float, int]], large: int
) -> None:
    corners = []
    for x, y, z, size, seed in drawn:
        shape = np.random.default_rng(seed).uniform(-size, size, (3, 3))
        corners.append(np.array([x, y, z]) + shape * [1, 1, 0.2])
    soup, _ = raster.clip_near(np.array(corners, np.float32))
    if len(soup) == 0:
        return
    depth, all_depth = empty(), empty()
    seen = raster.visible(soup, np.arange(len(soup)) < large, LENS, depth)
    everything = raster.rasterise(soup, np.arange(1, len(soup) + 1, dtype=np.int32), LENS, all_depth)[..., 0]
    # Of two triangles at the same depth either may show.
    differ = seen != everything.astype(int)
    np.testing.assert_allclose(depth[differ], all_depth[differ], rtol=1e-3)
    assert np.count_nonzero(differ) <= 0.01 * differ.size


def test_an_opencv_without_the_rasteriser_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(cv2, "TriangleRasterizeSettings")
    with pytest.raises(BackendError, match="opencv-python>=5"):
        raster.rasterise(quad(5.0, 0, 0, 9, 9), np.array([1, 1]), LENS, empty())
