from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foxglove_schemas_protobuf.CameraCalibration_pb2 import CameraCalibration
from foxglove_schemas_protobuf.CompressedImage_pb2 import CompressedImage
from foxglove_schemas_protobuf.FrameTransforms_pb2 import FrameTransforms
from foxglove_schemas_protobuf.ImageAnnotations_pb2 import ImageAnnotations
from foxglove_schemas_protobuf.Log_pb2 import Log
from foxglove_schemas_protobuf.SceneUpdate_pb2 import SceneUpdate
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from mcap.reader import make_reader

from perception import geometry
from perception.clock import SteppedClock
from perception.config import SyncConfig
from perception.errors import OutputError
from perception.ingest.open_drive import open_drive
from perception.ingest.replay import Replay
from perception.messages import NO_IMAGE, STAGES, Camera, Frame, FrameSet, Rig, Tick
from perception.output.recording import RecordingWriter
from perception.pixels import to_bgr
from tests.drives import START_NS
from tests.output.samples import LEFT_OUT, PERIOD_NS, make_rig, make_tick

Messages = dict[str, list[tuple[int, Any]]]

PROTOBUF: dict[str, Any] = {
    "/tracks": SceneUpdate,
    "/tf": FrameTransforms,
    "/diagnostics": Log,
    "/CAM_FRONT/detections": ImageAnnotations,
    "/CAM_FRONT/camera_info": CameraCalibration,
    "/CAM_FRONT/image_rect_compressed": CompressedImage,
}


def record(directory: Path, ticks: list[Tick], rig: Rig, *, images: bool = False, faults: Any = tuple) -> Path:
    writer = RecordingWriter(directory, rig, record_images=images, faults=faults)
    for tick in ticks:
        writer.record(tick)
    writer.close()
    return directory / "recording.mcap"


def read(path: Path) -> Messages:
    """All messages by topic, checksums checked; those of known types parsed."""
    messages: Messages = {}
    with path.open("rb") as file:
        for schema, channel, message in make_reader(file, validate_crcs=True).iter_messages():
            assert schema is not None
            if channel.message_encoding == "json":
                content: Any = json.loads(message.data)
            elif channel.topic in PROTOBUF:
                content = PROTOBUF[channel.topic].FromString(message.data)
                assert schema.name == content.DESCRIPTOR.full_name
            else:
                content = message.data
            messages.setdefault(channel.topic, []).append((message.log_time, content))
    return messages


@pytest.fixture(name="rig")
def _rig() -> Rig:
    return make_rig()


def test_every_topic_is_there_at_the_time_of_its_data(tmp_path: Path, rig: Rig) -> None:
    messages = read(record(tmp_path, [make_tick(0, rig), make_tick(1, rig)], rig))
    cameras = [f"/{name}/{topic}" for name in rig for topic in ("camera_info", "detections")]
    assert set(messages) == {"/tf", "/tracks", "/latency", "/diagnostics", *cameras}
    for topic in ("/tf", "/tracks", "/latency", *cameras):
        assert [log_time for log_time, _ in messages[topic]] == [START_NS, START_NS + PERIOD_NS]


def test_tracks_are_cubes_with_a_label_and_an_arrow(tmp_path: Path, rig: Rig) -> None:
    tick = make_tick(0, rig, ids=(4, 9))
    ((_, update),) = read(record(tmp_path, [tick], rig))["/tracks"]
    assert [entity.id for entity in update.entities] == ["4", "9"]
    entity, track = update.entities[0], tick.tracks.tracks[0]
    assert entity.frame_id == "base_link"
    assert entity.lifetime.seconds > 0
    (cube,) = entity.cubes
    position, size = cube.pose.position, cube.size
    np.testing.assert_allclose([position.x, position.y, position.z], track.position)
    np.testing.assert_allclose([size.x, size.y, size.z], track.size)
    q = cube.pose.orientation
    assert geometry.yaw_of(geometry.rotation_from_quaternion(np.array([q.x, q.y, q.z, q.w]))) == pytest.approx(
        track.yaw
    )
    assert track.class_name in entity.texts[0].text
    speed = float(np.hypot(*track.velocity[:2]))
    assert entity.arrows[0].shaft_length == pytest.approx(speed)
    assert {pair.key: pair.value for pair in entity.metadata}["category"] == track.class_name


def test_a_track_that_is_gone_is_deleted(tmp_path: Path, rig: Rig) -> None:
    ticks = [make_tick(0, rig, ids=(1, 2)), make_tick(1, rig, ids=(2,)), make_tick(2, rig, ids=(2,))]
    updates = [update for _, update in read(record(tmp_path, ticks, rig))["/tracks"]]
    assert [[deletion.id for deletion in update.deletions] for update in updates] == [[], ["1"], []]


def test_detections_are_closed_outlines_with_a_label(tmp_path: Path, rig: Rig) -> None:
    tick = make_tick(0, rig)
    ((_, annotations),) = read(record(tmp_path, [tick], rig))["/CAM_FRONT/detections"]
    outline = annotations.points[0]
    assert outline.type == outline.LINE_LOOP
    x1, y1, x2, y2 = tick.detections[0].boxes[0].tolist()
    assert [(point.x, point.y) for point in outline.points] == [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]
    assert annotations.texts[0].text == "car 0.90"
    assert annotations.timestamp.ToNanoseconds() == tick.detections[0].capture_ns


@pytest.mark.parametrize("stepped", [False, True])
def test_latency_is_flat_json_that_adds_up(tmp_path: Path, rig: Rig, *, stepped: bool) -> None:
    ticks = [make_tick(0, rig, stepped=stepped), make_tick(1, rig, late=True, stepped=stepped)]
    first, second = (content for _, content in read(record(tmp_path, ticks, rig))["/latency"])
    assert first["end_to_end_ms"] == 6
    assert sum(second[f"{stage}_ms"] for stage in (*STAGES, "waiting")) == 30
    assert second["waiting_ms"] == 24
    assert [first["late"], second["late"]] == [False, not stepped]
    assert first["deadline_ms"] == (None if stepped else 20)


def test_diagnostics_tell_what_went_wrong_once(tmp_path: Path, rig: Rig) -> None:
    found: list[str] = []
    writer = RecordingWriter(tmp_path, rig, record_images=False, faults=lambda: found)
    writer.record(make_tick(0, rig))
    found.append("an image that does not decode")
    writer.record(make_tick(1, rig, missing=("CAM_LEFT",), late=True))
    writer.record(make_tick(2, rig, missing=("CAM_LEFT",)))
    found.insert(0, "the file ends early")
    writer.record(make_tick(3, rig))
    writer.close()
    log = [
        (Log.Level.Name(entry.level), entry.message) for _, entry in read(tmp_path / "recording.mcap")["/diagnostics"]
    ]
    assert log == [
        ("WARNING", "tick 1: CAM_LEFT is missing"),
        ("WARNING", "tick 1: late by 10.00 ms"),
        ("ERROR", "an image that does not decode"),
        ("INFO", "tick 3: CAM_LEFT is back"),
        ("ERROR", "the file ends early"),
        ("INFO", "4 ticks: 1 late, 2 with a camera missing, 0 dropped, 0 with a camera cut off"),
    ]


def test_what_enforcement_did_is_told_and_can_be_plotted(tmp_path: Path, rig: Rig) -> None:
    messages = read(record(tmp_path, [make_tick(i, rig, decision=d) for i, d in enumerate(LEFT_OUT)], rig))
    assert [(Log.Level.Name(entry.level), entry.message) for _, entry in messages["/diagnostics"]] == [
        ("WARNING", "tick 1: level 1 of the ladder, it was 0"),
        ("WARNING", "tick 2: cut off: CAM_FRONT, CAM_LEFT"),
        ("WARNING", "tick 3: dropped, too old to be finished in time"),
        ("INFO", "tick 4: level 0 of the ladder, it was 1"),
        ("INFO", "5 ticks: 0 late, 0 with a camera missing, 1 dropped, 1 with a camera cut off"),
    ]
    latency = [content for _, content in messages["/latency"]]
    assert [content["level"] for content in latency] == [0, 1, 1, 1, 0]
    assert [content["cut_off"] for content in latency] == [0, 0, 2, 0, 0]
    assert [content["skipped"] for content in latency] == [0, 1, 0, 0, 0]
    assert latency[3]["dropped"]
    assert not latency[3]["deadline_met"]
    assert latency[3]["age_ms"] == 25


def test_transforms_are_complete_in_every_message(tmp_path: Path, rig: Rig) -> None:
    for _, message in read(record(tmp_path, [make_tick(0, rig), make_tick(1, rig)], rig))["/tf"]:
        children = [(t.parent_frame_id, t.child_frame_id) for t in message.transforms]
        assert children == [("map", "base_link"), *(("base_link", name) for name in rig)]


def test_schemas_describe_the_messages_by_themselves(tmp_path: Path, rig: Rig) -> None:
    """As a reader does that has never seen Foxglove's schemas."""
    with record(tmp_path, [make_tick(0, rig)], rig).open("rb") as file:
        for schema, channel, message in make_reader(file).iter_messages():
            assert schema is not None
            if channel.message_encoding == "protobuf":
                pool = descriptor_pool.DescriptorPool()
                for description in FileDescriptorSet.FromString(schema.data).file:
                    pool.Add(description)
                kind = message_factory.GetMessageClass(pool.FindMessageTypeByName(schema.name))
                assert kind.FromString(message.data).SerializeToString()


def test_with_images_it_is_a_drive_that_replays_the_same(tmp_path: Path, rig: Rig) -> None:
    distorted = rig["CAM_FRONT"]
    rig["CAM_FRONT"] = Camera(
        distorted.name, distorted.width, distorted.height, distorted.intrinsics, distorted.base_from_camera,
        "plumb_bob", np.array([-0.1, 0.01, 0.001, 0.002, 0.0]),
    )  # fmt: skip
    ticks = [make_tick(i, rig) for i in range(4)]
    drive = open_drive(record(tmp_path, ticks, rig, images=True))
    replay = Replay(drive, SteppedClock(), SyncConfig(), threads=1)
    try:
        sets = list(replay.frame_sets())
        assert replay.faults() == []
    finally:
        replay.close()
    assert len(sets) == len(ticks)
    for name, camera in drive.rig.items():
        assert camera.distortion_model == rig[name].distortion_model
        np.testing.assert_allclose(camera.distortion, rig[name].distortion)
        np.testing.assert_allclose(camera.intrinsics, rig[name].intrinsics)
        np.testing.assert_allclose(camera.base_from_camera.rotation, rig[name].base_from_camera.rotation, atol=1e-12)
        np.testing.assert_allclose(camera.base_from_camera.translation, rig[name].base_from_camera.translation)
    for replayed, tick in zip(sets, ticks, strict=True):
        assert replayed.stamp_ns == tick.frames.stamp_ns
        assert replayed.map_from_base is not None
        assert tick.frames.map_from_base is not None
        np.testing.assert_allclose(replayed.map_from_base.translation, tick.frames.map_from_base.translation)
        for frame, original in zip(replayed.frames, tick.frames.frames, strict=True):
            assert frame.encoded == original.encoded


def test_frames_that_came_as_video_stay_video_and_those_without_bytes_become_jpeg(tmp_path: Path, rig: Rig) -> None:
    tick = make_tick(0, rig)
    front, left = tick.frames.frames
    frames = (
        Frame(front.camera, front.image, front.capture_ns, 0, front.ingest),
        Frame(left.camera, left.image, left.capture_ns, 0, left.ingest, None, front.encoded._replace(format="h264"))
        if front.encoded
        else left,
    )
    changed = FrameSet(0, tick.frames.stamp_ns, 0, frames, ())
    path = record(tmp_path, [Tick(changed, tick.detections, tick.tracks, tick.times)], rig, images=True)
    messages = read(path)
    ((_, image),) = messages["/CAM_FRONT/image_rect_compressed"]
    assert image.format == "jpeg"
    assert image.data.startswith(b"\xff\xd8")
    assert "/CAM_LEFT/video" in messages
    assert "/CAM_LEFT/image_rect_compressed" not in messages


def test_raw_pixels_become_a_jpeg_and_what_nobody_looked_at_is_left_out(tmp_path: Path, rig: Rig) -> None:
    tick = make_tick(0, rig)
    front, left = (replace(frame, encoded=None) for frame in tick.frames.frames)
    grey = np.full((front.image.shape[0], front.image.shape[1], 2), 128, np.uint8)
    frames = replace(tick.frames, frames=(replace(front, image=grey), replace(left, image=NO_IMAGE)))
    messages = read(record(tmp_path, [replace(tick, frames=frames)], rig, images=True))
    ((_, image),) = messages["/CAM_FRONT/image_rect_compressed"]
    decoded = to_bgr(np.frombuffer(image.data, np.uint8))
    assert decoded.shape == front.image.shape
    assert np.abs(decoded.astype(int) - 130).max() <= 2
    assert "/CAM_LEFT/image_rect_compressed" not in messages


def test_it_gets_its_name_when_it_is_whole(tmp_path: Path, rig: Rig) -> None:
    writer = RecordingWriter(tmp_path, rig, record_images=False, faults=tuple)
    writer.record(make_tick(0, rig))
    assert [path.name for path in tmp_path.iterdir()] == ["recording.mcap.partial"]
    writer.close()
    writer.close()
    assert [path.name for path in tmp_path.iterdir()] == ["recording.mcap"]


def test_a_killed_run_leaves_whole_chunks_that_replay(tmp_path: Path, rig: Rig) -> None:
    writer = RecordingWriter(tmp_path, rig, record_images=True, faults=tuple)
    for i in range(33):
        writer.record(make_tick(i, rig, ids=range(1, 20)))
    left = tmp_path / "left.mcap"
    left.write_bytes((tmp_path / "recording.mcap.partial").read_bytes())
    drive = open_drive(left)
    assert 0 < len(list(drive.packets())) < 66
    (fault,) = drive.faults()
    assert f"damaged at byte {left.stat().st_size}," in fault  # nothing of a chunk had stayed behind in the process


def test_a_run_without_ticks_leaves_an_empty_recording(tmp_path: Path, rig: Rig) -> None:
    assert read(record(tmp_path, [], rig)) == {}


def test_a_place_that_cannot_be_written_to_is_one_line(tmp_path: Path, rig: Rig) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"recording\.mcap: cannot be written"):
        RecordingWriter(tmp_path / "file", rig, record_images=False, faults=tuple)
