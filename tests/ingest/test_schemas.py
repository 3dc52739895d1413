from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from foxglove_schemas_protobuf.CameraCalibration_pb2 import CameraCalibration
from foxglove_schemas_protobuf.FrameTransform_pb2 import FrameTransform
from foxglove_schemas_protobuf.PackedElementField_pb2 import PackedElementField
from foxglove_schemas_protobuf.PointCloud_pb2 import PointCloud

from perception.ingest import schemas
from perception.ingest.truth import label_of
from perception.messages import CLASSES

K = [500.0, 0.0, 320.0, 0.0, 510.0, 240.0, 0.0, 0.0, 1.0]
P = [480.0, 0.0, 310.0, 0.0, 0.0, 480.0, 230.0, 0.0, 0.0, 0.0, 1.0, 0.0]


def calibration(**fields: Any) -> Any:
    return CameraCalibration(**{"width": 640, "height": 480, "K": K, "P": P, **fields})


def test_a_raw_image_follows_k_and_its_distortion() -> None:
    found = schemas.calibration_of(calibration(distortion_model="plumb_bob", D=[0.1, 0.2, 0, 0, 0]), rectified=False)
    np.testing.assert_array_equal(found.intrinsics.ravel(), K)
    assert found.distortion_model == "plumb_bob"
    np.testing.assert_array_equal(found.distortion, [0.1, 0.2, 0, 0, 0])


def test_a_rectified_image_follows_p_and_has_no_distortion() -> None:
    message = calibration(distortion_model="plumb_bob", D=[0.1, 0.2, 0, 0, 0])
    found = schemas.calibration_of(message, rectified=True)
    np.testing.assert_array_equal(found.intrinsics, [[480, 0, 310], [0, 480, 230], [0, 0, 1]])
    assert found.distortion_model == "none"
    unset = schemas.calibration_of(calibration(P=[0.0] * 12), rectified=True)
    np.testing.assert_array_equal(unset.intrinsics.ravel(), K)


@pytest.mark.parametrize(
    ("model", "coefficients", "expected", "full"),
    [
        ("", [], "none", []),
        ("", [0.0] * 5, "none", []),
        ("", [0.1, 0, 0, 0], "plumb_bob", [0.1, 0, 0, 0, 0]),
        ("", [0.1] * 8, "rational_polynomial", [0.1] * 8),
        ("plumb_bob", [0.1, 0, 0, 0, 0, 0, 0, 0], "plumb_bob", [0.1, 0, 0, 0, 0]),
        ("plumb_bob", [], "none", []),
        ("rational_polynomial", [0.1] * 8, "rational_polynomial", [0.1] * 8),
        ("kannala_brandt", [0.1] * 4, "kannala_brandt", [0.1] * 4),
        ("equidistant", [0.1] * 4, "kannala_brandt", [0.1] * 4),
        ("fisheye", [], "kannala_brandt", [0.0] * 4),
    ],
)
def test_distortion_models(model: str, coefficients: list[float], expected: str, full: list[float]) -> None:
    found, numbers = schemas.distortion_of(model, coefficients)
    assert found == expected
    np.testing.assert_array_equal(numbers, full)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"K": [float("nan"), *K[1:]]}, "matrix K holds nan"),
        ({"K": []}, "matrix K has 0 numbers, expected 9"),
        ({"K": [0.0] * 9}, "focal lengths 0 and 0 px"),
        ({"width": 0}, "image size 0x480"),
        ({"height": 100_000}, "image size 640x100000"),
        ({"D": [float("inf")]}, "distortion D holds inf"),
        ({"distortion_model": "plumb_bob", "D": [0.1] * 6}, "6 distortion coefficients, plumb_bob has 5"),
        ({"distortion_model": "fisheye62", "D": [0.1] * 6}, "distortion model 'fisheye62' with 6 coefficients"),
    ],
)
def test_a_calibration_that_cannot_be_true_is_refused(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        schemas.calibration_of(calibration(**fields), rectified=False)


@pytest.mark.parametrize(
    ("rotation", "problem"),
    [
        ((0, 0, 0, 0), "rotation is not a rotation: its quaternion has length 0, expected 1"),
        ((0, 0, 0, 2), "has length 2"),
        ((0, float("nan"), 0, 1), "rotation holds nan"),
        ((1e300, 0, 0, 1), r"rotation holds 1e\+300"),
    ],
)
def test_a_rotation_that_is_none_is_refused_with_its_frames(rotation: tuple[float, ...], problem: str) -> None:
    message = FrameTransform(parent_frame_id="base_link", child_frame_id="CAM")
    message.rotation.x, message.rotation.y, message.rotation.z, message.rotation.w = rotation
    with pytest.raises(ValueError, match=f"transform base_link -> CAM: .*{problem}"):
        schemas.edge_of(message, 0)


def cloud(dtype: str, fields: list[tuple[str, int]], stride: int, data: bytes) -> Any:
    message = PointCloud(frame_id="/LIDAR", point_stride=stride, data=data)
    kind = PackedElementField.FLOAT64 if dtype == "f8" else PackedElementField.FLOAT32
    for name, offset in fields:
        message.fields.add(name=name, offset=offset, type=kind)
    return message


def test_packed_float32_points_are_a_view_of_the_message() -> None:
    table = np.arange(20, dtype="<f4").reshape(5, 4)
    message = cloud("f4", [("x", 0), ("y", 4), ("z", 8), ("intensity", 12)], 16, table.tobytes())
    sweep = schemas.sweep_of(message, log_ns=7)
    np.testing.assert_array_equal(sweep.points, table[:, :3])
    assert sweep.points.dtype == np.float32
    assert not sweep.points.flags.owndata
    assert (sweep.stamp_ns, sweep.frame) == (7, "LIDAR")


def test_other_layouts_of_points_are_converted() -> None:
    table = np.arange(20, dtype="<f8").reshape(5, 4)
    message = cloud("f8", [("z", 0), ("x", 8), ("y", 24)], 32, table.tobytes())
    np.testing.assert_array_equal(schemas.sweep_of(message, 0).points, table[:, [1, 3, 0]])


@pytest.mark.parametrize(
    ("fields", "stride"), [([("x", 0), ("y", 4)], 12), ([("x", 0), ("y", 4), ("z", 10)], 12), ([], 0)]
)
def test_a_point_cloud_without_points_is_refused(fields: list[tuple[str, int]], stride: int) -> None:
    with pytest.raises(ValueError, match="no float32 or float64 fields x, y, z"):
        schemas.sweep_of(cloud("f4", fields, stride, b"\0" * 48), 0)


def test_bytes_that_are_no_message_are_refused() -> None:
    with pytest.raises(ValueError, match="3 bytes that are not a foxglove"):
        schemas.parse(schemas.POINT_CLOUD, b"\xff\xff\xff")


@pytest.mark.parametrize(
    ("category", "expected"),
    [
        ("vehicle.car", "car"),
        ("Car", "car"),
        ("truck", "truck"),
        ("Bus/RV/Caravan", "bus"),
        ("vehicle.bus.rigid", "bus"),
        ("Motorcycle", "motorcycle"),
        ("Cyclist", "bicycle"),
        ("human.pedestrian.adult", "pedestrian"),
        ("Person", "pedestrian"),
        ("movable_object.barrier", None),
        ("DontCare", None),
    ],
)
def test_categories_of_data_sets(category: str, expected: str | None) -> None:
    label = label_of(category)
    assert (None if label is None else CLASSES[label]) == expected


@pytest.mark.parametrize(
    ("written", "meant"), [("0.25", 0.25), ("v60-80", None), ("7", None), ("nan", None), (None, None)]
)
def test_visibility_is_read_where_it_is_a_part_of_one(written: str | None, meant: float | None) -> None:
    update = schemas.MESSAGES["foxglove.SceneUpdate"]()
    entity = update.entities.add(id="1", frame_id="base_link")
    entity.metadata.add(key="category", value="car")
    if written is not None:
        entity.metadata.add(key="visibility", value=written)
    cube = entity.cubes.add()
    cube.pose.orientation.w = 1.0
    (box,) = schemas.boxes_of(update, 0)
    assert box.visibility == pytest.approx(math.nan if meant is None else meant, nan_ok=True)
