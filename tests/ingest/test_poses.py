from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.geometry import rotation_about_z, yaw_of
from perception.ingest.poses import PoseBuffer
from perception.messages import Transform

MS = 1_000_000
START = 1_700_000_000_000 * MS


def pose(x: float, yaw: float = 0.0) -> Transform:
    return Transform(rotation_about_z(yaw), np.array([x, 0.0, 0.0]))


def driving(period_ms: int = 100, count: int = 5) -> PoseBuffer:
    """10 m/s and 0.5 rad/s from START on."""
    buffer = PoseBuffer()
    for i in range(count):
        seconds = i * period_ms / 1000
        buffer.add(START + i * period_ms * MS, pose(10 * seconds, 0.5 * seconds))
    return buffer


def test_there_is_no_pose_without_poses() -> None:
    assert PoseBuffer().at(START) is None


@pytest.mark.parametrize("at_ms", [0, 30, 100, 250, 399, 400, 500, 600, -100, -200])
def test_poses_are_interpolated_and_a_little_extrapolated(at_ms: int) -> None:
    found = driving().at(START + at_ms * MS)
    assert found is not None
    np.testing.assert_allclose(found.translation, [at_ms / 100, 0, 0], atol=1e-9)
    assert yaw_of(found.rotation) == pytest.approx(0.0005 * at_ms, abs=1e-9)
    np.testing.assert_allclose(found.rotation @ found.rotation.T, np.eye(3), atol=1e-12)


@pytest.mark.parametrize("at_ms", [-201, 601, 5000])
def test_there_is_no_pose_far_outside(at_ms: int) -> None:
    assert driving().at(START + at_ms * MS) is None


def test_a_long_gap_is_not_bridged() -> None:
    buffer = driving()
    buffer.add(START + 10_000 * MS, pose(100.0))
    assert buffer.at(START + 5_000 * MS) is None
    found = buffer.at(START + 500 * MS)
    assert found is not None
    np.testing.assert_allclose(found.translation[0], 5.0)


def test_a_single_pose_holds_for_a_short_time() -> None:
    buffer = PoseBuffer()
    buffer.add(START, pose(3.0))
    for at_ms in (-200, 0, 200):
        found = buffer.at(START + at_ms * MS)
        assert found is not None
        assert found.translation[0] == 3.0
    assert buffer.at(START + 201 * MS) is None


def test_noise_between_close_poses_is_not_extrapolated() -> None:
    buffer = driving()
    buffer.add(START + 401 * MS, pose(4.05, 0.2005))  # 50 m/s, if one believed it
    found = buffer.at(START + 500 * MS)
    assert found is not None
    assert found.translation[0] == pytest.approx(5.0, abs=0.2)


def test_turning_past_half_a_turn_takes_the_short_way() -> None:
    buffer = PoseBuffer()
    buffer.add(START, pose(0.0, np.deg2rad(170)))
    buffer.add(START + 100 * MS, pose(0.0, np.deg2rad(-170)))
    found = buffer.at(START + 50 * MS)
    assert found is not None
    assert abs(yaw_of(found.rotation)) == pytest.approx(np.pi)


def test_the_buffer_stays_bounded_and_keeps_the_newest() -> None:
    buffer = PoseBuffer(max_length=10)
    for i in range(100):
        buffer.add(START + i * MS, pose(float(i)))
    assert len(buffer) == 10
    assert buffer.at(START + 95 * MS) is not None
    newest = buffer.at(START + 99 * MS)
    assert newest is not None
    assert newest.translation[0] == 99.0


@given(st.permutations(list(range(8))), st.integers(0, 700))
def test_the_order_of_arrival_does_not_matter(order: list[int], at_ms: int) -> None:
    buffer = PoseBuffer()
    for i in order:
        buffer.add(START + i * 100 * MS, pose(i * 1.0, i * 0.05))
    found = buffer.at(START + at_ms * MS)
    assert found is not None
    np.testing.assert_allclose(found.translation[0], at_ms / 100, atol=1e-9)
