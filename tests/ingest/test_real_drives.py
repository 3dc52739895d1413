from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from perception import geometry
from perception.clock import SteppedClock
from perception.config import SyncConfig
from perception.ingest.open_drive import open_drive
from perception.ingest.replay import Replay
from perception.messages import CLASSES, FrameSet

DRIVES = Path(__file__).resolve().parents[3] / "shared" / "drives"


def play(name: str) -> tuple[list[FrameSet], list[str]]:
    path = DRIVES / name
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    replay = Replay(open_drive(path), SteppedClock(), SyncConfig(), threads=2)
    try:
        return list(replay.frame_sets()), list(replay.faults())
    finally:
        replay.close()


def test_dgp_is_three_sets_of_three_cameras_with_sweeps_and_poses() -> None:
    sets, faults = play("dgp_scene_01.mcap")
    assert faults == []
    assert len(sets) == 3
    for s in sets:
        assert [frame.camera for frame in s.frames] == ["CAMERA_01", "CAMERA_05", "CAMERA_06"]
        assert s.missing == ()
        assert s.skew_ns == 0
        assert s.map_from_base is not None
        assert s.point_cloud is not None
        assert 0.21e9 < s.stamp_ns - s.point_cloud.stamp_ns < 0.212e9
        ground = s.point_cloud.points[np.abs(s.point_cloud.points[:, 2]) < 0.3]
        assert len(ground) > 0.2 * len(s.point_cloud.points)


def test_dgp_ground_truth_lies_where_the_sweep_has_points() -> None:
    sets, _ = play("dgp_scene_01.mcap")
    cloud = sets[0].point_cloud
    assert cloud is not None
    points = geometry.apply(cloud.base_from_sensor, cloud.points.astype(np.float64))
    truth = next(iter(open_drive(DRIVES / "dgp_scene_01.mcap").truth()))
    assert truth.stamp_ns == cloud.stamp_ns
    assert {CLASSES[label] for label in truth.labels} == {"car", "bus", "pedestrian"}
    near = np.linalg.norm(truth.positions, axis=1) < 25
    hit = []
    for position, size, yaw in zip(truth.positions[near], truth.sizes[near], truth.yaws[near], strict=True):
        local = (points - position) @ geometry.rotation_about_z(yaw)
        hit.append(int((np.abs(local) < size / 2).all(axis=1).sum()))
    assert np.median(hit) > 50


def test_kitti_drives_forward() -> None:
    sets, faults = play("kitti_odometry_1.mcap")
    assert faults == []
    assert len(sets) == 51
    assert all(s.point_cloud is None for s in sets)
    poses = [s.map_from_base for s in sets]
    assert all(pose is not None for pose in poses)
    steps = [
        geometry.apply(geometry.inverse(a), b.translation)
        for a, b in pairwise(poses)
        if a is not None and b is not None
    ]
    assert all(0.5 < step[0] < 2.0 and abs(step[1]) < 0.2 for step in steps)
