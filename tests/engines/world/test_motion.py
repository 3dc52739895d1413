import numpy as np
import pytest

from engines.world import motion
from engines.world.raster import Lens

LENS = Lens(64, 48, 40.0, 30.0, 20.0)


@pytest.mark.parametrize("yaw_rate", [0.0, 0.4, -0.7])
@pytest.mark.parametrize("velocity", [(0.0, 0.0), (3.0, 0.0), (-2.0, -9.0)])
def test_flow_is_how_fast_the_projection_of_a_point_moves(velocity: tuple[float, float], yaw_rate: float) -> None:
    depth = np.full((48, 64), 7.0, np.float32)
    moved = motion.flow(LENS, depth, np.zeros((48, 64), np.int32), np.array([velocity]), yaw_rate)
    for row, column in ((5, 8), (20, 30), (40, 60)):
        point = np.array([(column + 0.5 - LENS.cx) / LENS.focal, (row + 0.5 - LENS.cy) / LENS.focal, 1.0]) * 7.0
        moment = 1e-5
        c, s = np.cos(yaw_rate * moment), np.sin(yaw_rate * moment)
        later = point + np.array([velocity[0], 0.0, velocity[1]]) * moment
        later = np.array(
            [c * later[0] + s * later[2], later[1], c * later[2] - s * later[0]]
        )  # turning left moves all right
        before, after = (LENS.focal * p[:2] / p[2] for p in (point, later))
        np.testing.assert_allclose(moved[:, row, column], (after - before) / moment, rtol=1e-2, atol=2e-2)


def test_what_moves_is_smeared_and_what_stands_is_not() -> None:
    image = np.zeros((48, 64, 3), np.uint8)
    image[:, 32] = 200
    still = motion.blur(image, np.zeros((2, 48, 64), np.float32))
    np.testing.assert_array_equal(still, image)
    moved = np.zeros((2, 48, 64), np.float32)
    moved[0, :24] = 12.0
    smeared = motion.blur(image, moved)
    np.testing.assert_array_equal(smeared[24:], image[24:])
    assert smeared[10].max() < 80
    assert np.count_nonzero(smeared[10, :, 0]) >= 4
    assert smeared[10].sum() == pytest.approx(image[10].sum(), rel=0.1)
