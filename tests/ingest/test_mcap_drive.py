from __future__ import annotations

import struct
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import zstandard
from foxglove_schemas_protobuf.FrameTransform_pb2 import FrameTransform
from foxglove_schemas_protobuf.FrameTransforms_pb2 import FrameTransforms
from mcap.data_stream import RecordBuilder
from mcap.records import Chunk
from mcap.writer import CompressionType, Writer

from perception import geometry
from perception.errors import DriveError
from perception.ingest.drive import Packet
from perception.ingest.mcap_drive import McapDrive
from perception.ingest.mcap_file import read_summary
from perception.ingest.open_drive import open_drive
from perception.messages import CLASSES, Transform
from tests.drives import (
    SECOND,
    START_NS,
    THINGS,
    DriveWriter,
    _fill_transform,
    _stamp,
    ego_pose,
    encode,
    make_camera,
    open_writer,
    render,
    write_drive,
)

MS = 1_000_000
CAMERAS = ("CAM_FRONT", "CAM_LEFT")
FRONT = make_camera("CAM_FRONT", (96, 64))


def begin(drive: DriveWriter) -> None:
    """What a drive of `FRONT` needs before its first image."""
    drive.transform("base_link", "CAM_FRONT", FRONT.base_from_camera, START_NS)
    drive.calibration(FRONT, START_NS)


def images(drive: DriveWriter, *stamps_ms: int) -> None:
    for at in stamps_ms:
        drive.image("CAM_FRONT", START_NS + at * MS, encode(render(FRONT, at / 1000)))


def read(path: Path) -> tuple[list[Packet], list[str]]:
    drive = open_drive(path)
    return list(drive.packets()), list(drive.faults())


def test_a_whole_drive(tmp_path: Path) -> None:
    written = write_drive(tmp_path / "drive.mcap", cameras=CAMERAS, ticks=4, image_size=(96, 64))
    drive = open_drive(written.path)
    assert list(drive.rig) == list(CAMERAS)
    for name, camera in drive.rig.items():
        expected = written.rig[name]
        assert (camera.width, camera.height, camera.distortion_model) == (96, 64, "none")
        np.testing.assert_allclose(camera.intrinsics, expected.intrinsics)
        np.testing.assert_allclose(camera.base_from_camera.rotation, expected.base_from_camera.rotation, atol=1e-12)
        np.testing.assert_allclose(camera.base_from_camera.translation, expected.base_from_camera.translation)
    assert drive.time_range_ns == (written.stamps_ns[0], written.stamps_ns[-1])
    packets = list(drive.packets())
    assert [(p.camera, p.capture_ns) for p in packets] == [(c, s) for s in written.stamps_ns for c in CAMERAS]
    for packet in packets:
        pose = ego_pose((packet.capture_ns - START_NS) / SECOND)
        assert packet.map_from_base is not None
        np.testing.assert_allclose(packet.map_from_base.translation, pose.translation, atol=1e-9)
        np.testing.assert_allclose(packet.map_from_base.rotation, pose.rotation, atol=1e-9)
        assert packet.point_cloud is not None
        assert packet.point_cloud.stamp_ns == packet.capture_ns
    assert drive.faults() == []


def test_reading_again_gives_the_same(tmp_path: Path) -> None:
    drive = open_drive(write_drive(tmp_path / "drive.mcap", ticks=3, image_size=(96, 64)).path)
    first, second = list(drive.packets()), list(drive.packets())
    assert [(p.camera, p.capture_ns, p.data) for p in first] == [(p.camera, p.capture_ns, p.data) for p in second]


@pytest.mark.parametrize("frame", ["base_link", "map", "LIDAR"])
def test_ground_truth_in_any_frame_comes_out_in_the_vehicles(tmp_path: Path, frame: str) -> None:
    lidar = Transform(geometry.rotation_about_z(0.3), np.array([1.0, 0.0, 1.8]))
    stamps = [START_NS, START_NS + SECOND]
    with open_writer(tmp_path / "drive.mcap") as drive:
        begin(drive)
        images(drive, 0)
        drive.transform("base_link", "roof", lidar, START_NS)
        drive.transform("roof", "LIDAR", geometry.IDENTITY, START_NS)
        for stamp in stamps:
            drive.transform("map", "base_link", ego_pose((stamp - START_NS) / SECOND), stamp)
            if frame != "LIDAR":
                drive.annotations(stamp, frame)
                continue
            map_from_lidar = geometry.compose(ego_pose((stamp - START_NS) / SECOND), lidar)
            drive.annotations(stamp, "LIDAR", frame_from_map=geometry.inverse(map_from_lidar))
    opened = open_drive(tmp_path / "drive.mcap")
    truths = list(opened.truth())
    assert [truth.stamp_ns for truth in truths] == stamps
    for truth in truths:
        seconds = (truth.stamp_ns - START_NS) / SECOND
        base_from_map = geometry.inverse(ego_pose(seconds))
        assert truth.ids == ("car-1", "truck-1", "person-1")
        assert [CLASSES[label] for label in truth.labels] == ["car", "truck", "pedestrian"]
        centres = np.array([thing.at(seconds) for thing in THINGS[:3]])
        np.testing.assert_allclose(truth.positions, geometry.apply(base_from_map, centres), atol=1e-9)
        np.testing.assert_allclose(truth.sizes, [thing.size for thing in THINGS[:3]])
        np.testing.assert_allclose(truth.yaws, [thing.yaw - 0.08 * seconds for thing in THINGS[:3]], atol=1e-9)
    assert isinstance(opened, McapDrive)
    assert opened.skipped_categories == {"movable_object.barrier": 2}
    assert opened.faults() == []


def test_a_drive_without_ground_truth_has_none(tmp_path: Path) -> None:
    assert list(open_drive(write_drive(tmp_path / "drive.mcap", truth=False).path).truth()) == []


def test_messages_out_of_order_come_in_the_order_of_their_log_times(tmp_path: Path) -> None:
    with open_writer(tmp_path / "drive.mcap", chunk_size=4096) as drive:
        begin(drive)
        images(drive, 0, 300, 100, 200, 900, 600, 1500, 700)
    packets, faults = read(tmp_path / "drive.mcap")
    assert [(p.capture_ns - START_NS) // MS for p in packets] == [0, 100, 200, 300, 600, 700, 900, 1500]
    assert faults == []


def test_a_pose_that_is_recorded_after_the_image_counts(tmp_path: Path) -> None:
    with open_writer(tmp_path / "drive.mcap") as drive:
        begin(drive)
        drive.transform("map", "base_link", ego_pose(0.0), START_NS)
        images(drive, 100)
        drive.transform("map", "base_link", ego_pose(0.2), START_NS + 200 * MS)
    (packet,), _ = read(tmp_path / "drive.mcap")
    assert packet.map_from_base is not None
    np.testing.assert_allclose(packet.map_from_base.translation, ego_pose(0.2).translation / 2, atol=1e-9)


@pytest.mark.parametrize("poses_in_tf", [False, True])
def test_poses_come_from_tf_and_else_from_the_pose_topic(tmp_path: Path, *, poses_in_tf: bool) -> None:
    with open_writer(tmp_path / "drive.mcap") as drive:
        begin(drive)
        drive.pose("base_link", geometry.IDENTITY, START_NS)  # as nuscenes2mcap does
        drive.pose("map", Transform(np.eye(3), np.array([5.0, 0.0, 0.0])), START_NS)
        if poses_in_tf:
            drive.transform("map", "base_link", Transform(np.eye(3), np.array([7.0, 0.0, 0.0])), START_NS)
        images(drive, 0)
    (packet,), faults = read(tmp_path / "drive.mcap")
    assert packet.map_from_base is not None
    assert packet.map_from_base.translation[0] == (7.0 if poses_in_tf else 5.0)
    assert faults == []


def test_transforms_may_come_in_bundles_and_chains(tmp_path: Path) -> None:
    bundle = FrameTransforms()
    for parent, child, transform in (
        ("/base_link", "mount", Transform(np.eye(3), np.array([0.0, 0.0, 1.0]))),
        ("mount", "/CAM_FRONT", FRONT.base_from_camera),
    ):
        message = FrameTransform(parent_frame_id=parent, child_frame_id=child)
        _stamp(message.timestamp, START_NS)
        _fill_transform(message.translation, message.rotation, transform)
        bundle.transforms.append(message)
    with open_writer(tmp_path / "drive.mcap") as drive:
        drive.message("/tf", bundle, START_NS)
        drive.calibration(FRONT, START_NS)
        images(drive, 0)
    camera = open_drive(tmp_path / "drive.mcap").rig["CAM_FRONT"]
    expected = FRONT.base_from_camera.translation + np.array([0, 0, 1])
    np.testing.assert_allclose(camera.base_from_camera.translation, expected)


def test_raw_images_keep_their_distortion(tmp_path: Path) -> None:
    with open_writer(tmp_path / "drive.mcap") as drive:
        drive.transform("base_link", "CAM_FRONT", FRONT.base_from_camera, START_NS)
        drive.calibration(FRONT, START_NS, "kannala_brandt", (0.1, 0.01, 0.0, 0.0))
        drive.image("CAM_FRONT", START_NS, encode(render(FRONT, 0.0)), topic="image_compressed")
    camera = open_drive(tmp_path / "drive.mcap").rig["CAM_FRONT"]
    assert camera.distortion_model == "kannala_brandt"
    np.testing.assert_array_equal(camera.distortion, (0.1, 0.01, 0.0, 0.0))


def test_an_unrectified_image_is_not_taken_for_a_rectified_one(tmp_path: Path) -> None:
    with open_writer(tmp_path / "drive.mcap") as drive:
        drive.transform("base_link", "CAM_FRONT", FRONT.base_from_camera, START_NS)
        drive.calibration(FRONT, START_NS, "kannala_brandt", (0.1, 0.01, 0.0, 0.0))
        drive.image("CAM_FRONT", START_NS, encode(render(FRONT, 0.0)), topic="image_unrectified")
    assert open_drive(tmp_path / "drive.mcap").rig["CAM_FRONT"].distortion_model == "kannala_brandt"


def test_of_raw_and_rectified_images_the_rectified_are_played(tmp_path: Path) -> None:
    with open_writer(tmp_path / "drive.mcap") as drive:
        begin(drive)
        for topic in ("image_compressed", "image_rect_compressed", "zoom"):
            drive.image("CAM_FRONT", START_NS, encode(render(FRONT, 0.0)), topic=topic)
    packets, faults = read(tmp_path / "drive.mcap")
    assert [packet.origin for packet in packets] == ["/CAM_FRONT/image_rect_compressed"]
    assert faults == []


def test_a_sweep_rides_with_images_up_to_half_a_second_later(tmp_path: Path) -> None:
    points = np.ones((3, 3), np.float32)
    with open_writer(tmp_path / "drive.mcap") as drive:
        begin(drive)
        drive.transform("base_link", "LIDAR_TOP", Transform(np.eye(3), np.array([0.0, 0.0, 2.0])), START_NS)
        drive.cloud("LIDAR_TOP", points, START_NS)
        images(drive, -10, 0, 490, 510)
    packets, faults = read(tmp_path / "drive.mcap")
    assert [packet.point_cloud is not None for packet in packets] == [False, True, True, False]
    cloud = packets[1].point_cloud
    assert cloud is not None
    np.testing.assert_array_equal(cloud.points, points)
    assert cloud.base_from_sensor.translation[2] == 2.0
    assert faults == []


def test_sweeps_take_no_more_memory_than_they_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = np.ones((1000, 3), np.float32)
    monkeypatch.setattr("perception.ingest.mcap_drive._MAX_SWEEP_BYTES", 3 * points.nbytes)
    with open_writer(tmp_path / "drive.mcap") as drive:
        begin(drive)
        drive.transform("base_link", "LIDAR_TOP", Transform(np.eye(3), np.array([0.0, 0.0, 2.0])), START_NS)
        for at in range(10):
            drive.cloud("LIDAR_TOP", points, START_NS + at * 100 * MS)
        images(drive, 500, 700, 900)
    packets, _ = read(tmp_path / "drive.mcap")
    assert [packet.point_cloud is not None for packet in packets] == [False, True, True]


def test_a_transform_that_changes_is_reported_and_the_first_is_kept(tmp_path: Path) -> None:
    with open_writer(tmp_path / "drive.mcap") as drive:
        begin(drive)
        images(drive, 0)
        moved = Transform(FRONT.base_from_camera.rotation, FRONT.base_from_camera.translation + 0.01)
        drive.transform("base_link", "CAM_FRONT", moved, START_NS + SECOND)
    _, faults = read(tmp_path / "drive.mcap")
    (line,) = faults
    assert "/tf at log time 1700000001.000000000 s: the transform base_link -> CAM_FRONT changed" in line


def test_bad_messages_on_the_way_are_reported_and_passed_over(tmp_path: Path) -> None:
    nan = Transform(np.eye(3), np.array([np.nan, 0, 0]))
    with open_writer(tmp_path / "drive.mcap") as drive:
        begin(drive)
        images(drive, 0)
        drive.transform("map", "base_link", nan, START_NS + 10 * MS)
        drive.cloud("nowhere", np.zeros((1, 3), np.float32), START_NS + 20 * MS)
        channel = drive._channels["/CAM_FRONT/image_rect_compressed"]
        drive.writer.add_message(channel, START_NS + 30 * MS, b"\xff\xff\xff", START_NS + 30 * MS)
        drive.writer.add_message(channel, 2**63 + 5, b"", 0)
        images(drive, 100)
    packets, faults = read(tmp_path / "drive.mcap")
    assert len(packets) == 2
    assert len(faults) == 4
    for text in (
        "transform map -> base_link: translation holds nan",
        "no transform from base_link to its frame 'nowhere'",
        "3 bytes that are not a foxglove.CompressedImage",
        "log time beyond int64 nanoseconds",
    ):
        assert any(text in line for line in faults)


# What cannot be replayed


def refusal(path: Path, rig: Path | None = None) -> str:
    with pytest.raises(DriveError) as refused:
        open_drive(path, rig)
    message = str(refused.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_a_camera_without_calibration_is_named_with_the_topic_it_lacks(tmp_path: Path) -> None:
    with open_writer(tmp_path / "drive.mcap") as drive:
        images(drive, 0)
    message = refusal(tmp_path / "drive.mcap")
    assert "camera CAM_FRONT is not calibrated: no foxglove.CameraCalibration on /CAM_FRONT/camera_info" in message
    assert "--rig" in message


def test_a_camera_without_a_place_on_the_vehicle_is_named(tmp_path: Path) -> None:
    with open_writer(tmp_path / "drive.mcap") as drive:
        drive.calibration(FRONT, START_NS)
        drive.transform("mast", "CAM_FRONT", FRONT.base_from_camera, START_NS)
        images(drive, 0)
    assert "camera CAM_FRONT: extrinsics: no transform from base_link to 'mast' on /tf" in refusal(
        tmp_path / "drive.mcap"
    )


@pytest.mark.parametrize(
    ("transform", "problem"),
    [
        (Transform(np.eye(3), np.array([np.nan, 0.0, 0.0])), "translation holds nan"),
        (Transform(np.full((3, 3), np.nan), np.zeros(3)), "rotation holds nan"),
    ],
)
def test_nan_in_an_extrinsic_is_refused_with_camera_and_matrix(
    tmp_path: Path, transform: Transform, problem: str
) -> None:
    with open_writer(tmp_path / "drive.mcap") as drive:
        drive.calibration(FRONT, START_NS)
        drive.transform("base_link", "CAM_FRONT", transform, START_NS)
        images(drive, 0)
    message = refusal(tmp_path / "drive.mcap")
    assert f"camera CAM_FRONT: extrinsics: transform base_link -> CAM_FRONT: {problem}" in message


def test_nan_in_an_intrinsic_is_refused_with_camera_and_matrix(tmp_path: Path) -> None:
    bad = make_camera("CAM_FRONT", (96, 64))
    bad.intrinsics[0, 0] = np.nan
    with open_writer(tmp_path / "drive.mcap") as drive:
        drive.calibration(bad, START_NS)
        drive.transform("base_link", "CAM_FRONT", bad.base_from_camera, START_NS)
        images(drive, 0)
    assert "camera CAM_FRONT: calibration on /CAM_FRONT/camera_info: matrix P holds nan" in refusal(
        tmp_path / "drive.mcap"
    )


def test_a_recording_without_images_has_nothing_to_replay(tmp_path: Path) -> None:
    with open_writer(tmp_path / "drive.mcap") as drive:
        begin(drive)
    assert "nothing to replay: no foxglove.CompressedImage" in refusal(tmp_path / "drive.mcap")


def test_calibration_from_a_rig_file_is_taken_instead(tmp_path: Path) -> None:
    rig = tmp_path / "rig.yaml"
    camera = "{width: 96, height: 64, fx: 50, fy: 50, cx: 48, cy: 32, mount: {translation_m: [2, 0, 1]}}"
    rig.write_text(f"cameras: {{CAM_FRONT: {camera}}}\n")
    with open_writer(tmp_path / "drive.mcap") as drive:
        images(drive, 0)
    drive_with_rig = open_drive(tmp_path / "drive.mcap", rig)
    assert drive_with_rig.rig["CAM_FRONT"].intrinsics[0, 0] == 50
    assert len(list(drive_with_rig.packets())) == 1


# Damage


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("intact") / "drive.mcap"
    with path.open("wb") as file:
        writer = Writer(file, chunk_size=8192, enable_data_crcs=True)
        writer.start()
        drive = DriveWriter(writer)
        begin(drive)
        for tick in range(12):
            images(drive, tick * 100)
            drive.transform("map", "base_link", ego_pose(tick / 10), START_NS + tick * 100 * MS)
        writer.finish()  # type: ignore[no-untyped-call]
    return path.read_bytes()


def read_damaged(path: Path, data: bytes) -> tuple[list[bytes | object], list[str]] | str:
    path.write_bytes(data)
    try:
        packets, faults = read(path)
    except DriveError as error:
        return str(error)
    return [packet.data for packet in packets], faults


def test_a_recording_cut_short_anywhere_is_played_up_to_the_cut(tmp_path: Path, intact: bytes) -> None:
    path = tmp_path / "cut.mcap"
    whole = read_damaged(path, intact)
    assert not isinstance(whole, str)
    assert len(whole[0]) == 12
    assert whole[1] == []
    counts: list[int] = []
    for length in (*range(9, len(intact), len(intact) // 80), len(intact) - 1):
        result = read_damaged(path, intact[:length])
        if isinstance(result, str):
            assert "where it is damaged" in result
            assert counts == []
            continue
        packets, faults = result
        assert packets == whole[0][: len(packets)]
        (line,) = faults
        assert f"{path}: damaged at byte " in line
        assert "all before it was read" in line
        counts.append(len(packets))
    assert counts == sorted(counts)
    assert {0 < count < 12 for count in counts} == {True, False}


def test_a_flipped_byte_is_found_and_all_before_it_is_played(tmp_path: Path, intact: bytes) -> None:
    path = tmp_path / "flipped.mcap"
    whole = read_damaged(path, intact)
    assert not isinstance(whole, str)
    (index,) = struct.unpack("<Q", intact[-28:-20])  # what lies before it is data
    played = []
    for place in range(8, len(intact), len(intact) // 60):
        data = bytearray(intact)
        data[place] ^= 0x55
        result = read_damaged(path, bytes(data))
        if isinstance(result, str):
            continue
        packets, faults = result
        assert packets == whole[0][: len(packets)]
        if place < index:
            (line,) = faults
            assert f"{path}: damaged at byte " in line
        played.append(len(packets))
    assert len(played) > 30
    assert {0 < count < 12 for count in played} == {True, False}


def test_damage_before_the_rig_is_known_is_said(tmp_path: Path, intact: bytes) -> None:
    result = read_damaged(tmp_path / "cut.mcap", intact[:100])
    assert isinstance(result, str)
    assert "nothing to replay" in result
    assert "before byte " in result


@pytest.mark.parametrize("claimed", [2**40, 10])
def test_a_chunk_that_lies_about_its_size_takes_no_memory(tmp_path: Path, intact: bytes, claimed: int) -> None:
    bomb = zstandard.compress(b"\0" * 10_000_000)
    record = RecordBuilder()
    Chunk("zstd", bomb, START_NS, START_NS, 0, claimed).write(record)
    data_end = struct.unpack("<Q", intact[-28:-20])[0] - 13
    result = read_damaged(tmp_path / "bomb.mcap", intact[:data_end] + record.end())  # type: ignore[no-untyped-call]
    assert not isinstance(result, str)
    packets, (line,) = result
    assert len(packets) == 12
    assert f"damaged at byte {data_end}" in line


def test_a_chunk_in_the_index_is_not_unpacked(tmp_path: Path, intact: bytes) -> None:
    record = RecordBuilder()
    Chunk("zstd", b"no zstd at all", START_NS, START_NS, 0, 2**40).write(record)
    (index,) = struct.unpack("<Q", intact[-28:-20])
    unchecked = intact[-28:-12] + struct.pack("<I", 0) + intact[-8:]  # the footer without the index's checksum
    path = tmp_path / "bomb.mcap"
    path.write_bytes(intact[:index] + record.end() + intact[index:-28] + unchecked)  # type: ignore[no-untyped-call]
    with path.open("rb") as file:
        summary = read_summary(file)
    assert summary is not None
    assert set(summary.schemas) == {"/tf", "/CAM_FRONT/camera_info", "/CAM_FRONT/image_rect_compressed"}


@pytest.mark.parametrize("compression", [CompressionType.NONE, CompressionType.LZ4, CompressionType.ZSTD])
@pytest.mark.parametrize("chunked", [True, False])
def test_every_layout_of_the_container(tmp_path: Path, compression: CompressionType, *, chunked: bool) -> None:
    path = tmp_path / "drive.mcap"
    with path.open("wb") as file:
        writer = Writer(file, chunk_size=4096, compression=compression, use_chunking=chunked)
        writer.start()
        drive = DriveWriter(writer)
        begin(drive)
        images(drive, 0, 100)
        writer.finish()  # type: ignore[no-untyped-call]
    packets, faults = read(path)
    assert len(packets) == 2
    assert faults == []


def test_without_an_index_the_recording_is_read_all_the_same(tmp_path: Path, intact: bytes) -> None:
    path = tmp_path / "drive.mcap"
    path.write_bytes(intact)
    indexed = open_drive(path)
    path.write_bytes(intact[:-200])
    cut = open_drive(path)
    assert cut.time_range_ns is None
    assert list(cut.rig) == list(indexed.rig)
    assert len(list(cut.packets())) == 12


def test_a_recording_is_read_as_far_as_it_is_played(tmp_path: Path) -> None:
    path = tmp_path / "drive.mcap"
    noise = np.random.default_rng(0)
    with open_writer(path, chunk_size=4096) as drive:
        begin(drive)
        for tick in range(100):
            drive.image("CAM_FRONT", START_NS + tick * 100 * MS, noise.bytes(20_000))
    packets = open_drive(path).packets()
    taken = list(islice(packets, 20))
    with path.open("r+b") as file:  # what lies more than a second ahead may be lost by now
        file.truncate(20_000 * 32)
    rest = list(packets)
    assert [p.log_ns for p in taken] == [START_NS + tick * 100 * MS for tick in range(20)]
    assert 8 <= len(rest) <= 15
