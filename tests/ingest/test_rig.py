from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perception.config import CONFIGS
from perception.errors import ConfigError
from perception.geometry import apply, inverse, project
from perception.ingest.rig import load_rig
from perception.messages import Camera


def camera(tmp_path: Path, mount: str, extra: str = "") -> Camera:
    path = tmp_path / "rig.yaml"
    path.write_text(
        f"cameras: {{C: {{width: 100, height: 100, fx: 50, fy: 50, cx: 50, cy: 50, mount: {mount}{extra}}}}}\n"
    )
    return load_rig(path).to_rig()["C"]


def seen_at(camera: Camera, *point: float) -> list[float]:
    pixels, depths = project(camera, apply(inverse(camera.base_from_camera), np.array([point])))
    assert depths[0] > 0
    return [round(float(value), 6) for value in pixels[0]]


@pytest.mark.parametrize(
    ("angles", "point", "pixel"),
    [
        ("", (10, 0, 1), [50, 50]),
        ("", (10, 2, 1), [40, 50]),  # what is left of the vehicle is left in the image
        ("", (10, 0, 3), [50, 40]),  # what is above is above
        (", yaw_deg: 90", (0, 10, 1), [50, 50]),
        (", yaw_deg: -90", (0, -10, 1), [50, 50]),
        (", pitch_deg: 45", (10, 0, -9), [50, 50]),
        (", roll_deg: 90", (10, 0, 3), [60 - 20, 50]),  # leaning right, up in the world is left in the image
        (", yaw_deg: 180, pitch_deg: 45", (-10, 0, -9), [50, 50]),
        (", rotation_xyzw: [0.5, -0.5, 0.5, -0.5]", (10, 2, 3), [40, 40]),
    ],
)
def test_a_mount_says_where_the_camera_looks(
    tmp_path: Path, angles: str, point: tuple[float, float, float], pixel: list[float]
) -> None:
    assert seen_at(camera(tmp_path, f"{{translation_m: [0, 0, 1]{angles}}}"), *point) == pixel


@pytest.mark.parametrize(
    ("mount", "extra", "problem"),
    [
        ("{translation_m: [0, 0, .nan]}", "", "cameras.C.mount.translation_m.2: expected a finite number"),
        ("{translation_m: [0, 0, 1], rotation_xyzw: [0, 0, 0, 2]}", "", "its quaternion has length 2, expected 1"),
        (
            "{translation_m: [0, 0, 1], rotation_xyzw: [0, 0, 0, 1], yaw_deg: 3}",
            "",
            "give either rotation_xyzw or yaw_deg, pitch_deg and roll_deg",
        ),
        ("{translation_m: [0, 0, 1], jaw_deg: 3}", "", "unknown key 'cameras.C.mount.jaw_deg'"),
        (
            "{translation_m: [0, 0, 1]}",
            ", distortion_model: plumb_bob, distortion: [1, 2, 3, 4, 5, 6]",
            "plumb_bob has 5",
        ),
        ("{translation_m: [0, 0, 1]}", ", distortion_model: fisheye", "distortion_model: expected 'none'"),
    ],
)
def test_a_rig_that_cannot_be_true_is_refused(tmp_path: Path, mount: str, extra: str, problem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        camera(tmp_path, mount, extra)
    assert problem in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_rig_without_cameras_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rig.yaml").write_text("cameras: {}\n")
    with pytest.raises(ConfigError, match="cameras: "):
        load_rig(tmp_path / "rig.yaml")


def test_the_example_is_a_camera_that_looks_ahead() -> None:
    front = load_rig(CONFIGS / "rigs" / "front.yaml").to_rig()["CAM_FRONT"]
    assert (front.width, front.height) == (1242, 375)
    x, y = seen_at(front, 20.0, 0.0, 0.0)
    assert x == front.intrinsics[0, 2]
    assert front.intrinsics[1, 2] < y < front.height
