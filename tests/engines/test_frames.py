"""Tags and boxes of frames, from recordings that hold them and from recordings that do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foxglove_schemas_protobuf.ImageAnnotations_pb2 import ImageAnnotations

from engines.annotations import Annotations
from engines.frames import cameras, frames
from perception.errors import DriveError
from perception.geometry import IDENTITY
from perception.ingest.open_drive import open_drive
from perception.messages import CLASSES
from tests.drives import SECOND, START_NS, DriveWriter, ego_pose, encode, make_camera, open_writer, render, write_drive

BOXES = {"car": (20, 40, 60, 80, "1.00"), "bus": (100, 40, 180, 120, "0.30"), "tree": (0, 0, 9, 90, "1.00")}


def _outlines() -> ImageAnnotations:
    message = ImageAnnotations()
    for category, (x1, y1, x2, y2, visibility) in BOXES.items():
        outline = _outline(message, category, (x1, y1, x2, y2))
        outline.metadata.add(key="visibility", value=visibility)
    return message


def _outline(message: ImageAnnotations, category: str, box: tuple[int, int, int, int]) -> Any:
    x1, y1, x2, y2 = box
    outline = message.points.add()
    for x, y in ((x1, y1), (x2, y1), (x2, y2), (x1, y2)):
        outline.points.add(x=x, y=y)
    outline.metadata.add(key="category", value=category)
    return outline


def _tags(drive: DriveWriter, channel: int, stamp_ns: int, scene: str) -> None:
    data = json.dumps({"light": "day", "scene": scene}).encode()
    drive.writer.add_message(channel, stamp_ns, data, stamp_ns)


def _write(
    path: Path,
    ticks: int = 5,
    spoil: bytes | None = None,
    *,
    tagged: int | None = None,
    empty_at: int = -1,
    broken_at: int = -1,
) -> Path:
    """One camera at 1 Hz; the vehicle enters a tunnel at the fourth tick.

    Only the first ticks are `tagged`; the image at one has no objects, that at another cannot be decoded.
    """
    camera = make_camera("CAM_FRONT")
    with open_writer(path) as drive:
        schema = drive.writer.register_schema("tags", "jsonschema", b"{}")
        channel = drive.writer.register_channel("/tags", "json", schema)
        for tick in range(ticks):
            stamp = START_NS + tick * SECOND
            drive.transform("map", "base_link", IDENTITY, stamp)
            drive.transform("base_link", "CAM_FRONT", camera.base_from_camera, stamp)
            drive.calibration(camera, stamp)
            image = encode(render(camera, 0.0, seed=tick))
            drive.image("CAM_FRONT", stamp, image[:200] if tick == broken_at else image)
            drive.message("/CAM_FRONT/annotations", ImageAnnotations() if tick == empty_at else _outlines(), stamp)
            if tick < (ticks if tagged is None else tagged):
                _tags(drive, channel, stamp + 3_000_000, "tunnel" if tick >= 3 else "street")
        if spoil is not None:
            drive.writer.add_message(channel, START_NS, spoil, START_NS)
    return path


def test_recorded_tags_and_boxes_are_those_of_the_frame(tmp_path: Path) -> None:
    known = list(frames(_write(tmp_path / "d.mcap"), None, {"weather": {"rain"}}, every=1))
    assert len(known) == 5
    first = known[0]
    assert first.tags["light"] == {"day"}
    assert first.tags["weather"] == {"rain"}
    assert first.tags["camera"] == {"CAM_FRONT"}
    assert first.tags["size"] == {"medium"}  # the bus is too hidden to count
    assert first.truth is not None
    assert [CLASSES[label] for label in first.truth.labels] == ["car", "bus"]
    assert first.truth.ignored.tolist() == [False, True]
    np.testing.assert_array_equal(first.truth.boxes[0], BOXES["car"][:4])


def test_the_mouth_of_a_tunnel_is_a_scene_of_its_own(tmp_path: Path) -> None:
    scenes = [known.tags["scene"] for known in frames(_write(tmp_path / "d.mcap"), None, {}, every=1)]
    assert scenes[0] == {"street"}
    assert "tunnel_mouth" in scenes[3]
    assert scenes[4] >= {"tunnel"}


def test_every_so_many_th_frame_set(tmp_path: Path) -> None:
    assert len(list(frames(_write(tmp_path / "d.mcap"), None, {}, every=2))) == 3


def test_boxes_follow_from_the_truth_in_3d_where_there_are_no_others(tmp_path: Path) -> None:
    written = write_drive(tmp_path / "d.mcap", ticks=3, lidar=False)
    known = next(iter(frames(written.path, None, {}, every=1)))
    assert known.truth is not None
    assert CLASSES.index("car") in known.truth.labels
    assert "light" not in known.tags


@pytest.mark.parametrize("category", ["vehicle.car", "car"])
def test_outlines_of_others_do_not_stand_in_for_the_truth_in_3d(tmp_path: Path, category: str) -> None:
    """nuscenes2mcap draws its boxes on the same topics, at the LiDAR's time and without a visibility."""
    camera = make_camera("CAM_FRONT")
    path = tmp_path / "d.mcap"
    with open_writer(path) as drive:
        for tick in range(3):
            stamp = START_NS + tick * SECOND // 10
            drive.transform("map", "base_link", ego_pose(tick / 10), stamp)
            drive.transform("base_link", "CAM_FRONT", camera.base_from_camera, stamp)
            drive.calibration(camera, stamp)
            drive.annotations(stamp)
            foreign = ImageAnnotations()
            _outline(foreign, category, (20, 40, 60, 80))
            drive.message("/CAM_FRONT/annotations", foreign, stamp + 7_000_000)
            drive.message("/CAM_FRONT/annotations", ImageAnnotations(), stamp + 8_000_000)
            drive.image("CAM_FRONT", stamp + 20_000_000, encode(render(camera, tick / 10)))

    known = list(frames(path, None, {}, every=1))

    assert len(known) == 3
    for frame in known:
        assert frame.truth is not None
        assert {CLASSES[label] for label in frame.truth.labels} >= {"car", "truck", "pedestrian"}


def test_an_image_without_objects_among_ours_is_known_to_have_none(tmp_path: Path) -> None:
    path = _write(tmp_path / "d.mcap", empty_at=2)
    known = list(frames(path, None, {}, every=1))
    assert [len(frame.truth.labels) for frame in known if frame.truth is not None] == [2, 2, 0, 2, 2]


def test_given_tags_are_for_keys_that_the_drive_has_nowhere(tmp_path: Path) -> None:
    """A frame with no tag near it is not what was given either: the drive says what it shows."""
    path = _write(tmp_path / "d.mcap", ticks=5, tagged=3)
    given = {"light": {"day", "night"}, "weather": {"rain"}}
    known = list(frames(path, None, given, every=1))
    assert [frame.tags.get("light") for frame in known] == [{"day"}] * 3 + [None] * 2
    assert [frame.tags["weather"] for frame in known] == [{"rain"}] * 5


def test_an_image_that_cannot_be_decoded_is_left_out(tmp_path: Path) -> None:
    path = _write(tmp_path / "d.mcap", broken_at=1)
    stamps = [frame.frame.capture_ns for frame in frames(path, None, {}, every=1)]
    assert stamps == [START_NS + tick * SECOND for tick in (0, 2, 3, 4)]


@pytest.mark.parametrize("part", [0.55, 0.75, 0.95])
def test_a_recording_ends_where_it_is_damaged(tmp_path: Path, part: float) -> None:
    whole = _write(tmp_path / "whole.mcap", ticks=40)
    expected = list(frames(whole, None, {}, every=1))
    path = tmp_path / "cut.mcap"
    path.write_bytes(whole.read_bytes()[: int(part * whole.stat().st_size)])

    known = list(frames(path, None, {}, every=1))

    assert 0 < len(known) <= len(expected)
    for ours, theirs in zip(known[:-1], expected, strict=False):  # what belongs to the last image may be lost
        assert ours.tags["light"] == theirs.tags["light"]
        assert ours.truth is not None
        assert len(ours.truth.labels) == 2


def test_tags_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    path = _write(tmp_path / "d.mcap", spoil=b"[1, 2]")
    with pytest.raises(DriveError, match=r"a message on /tags cannot be understood: expected a JSON object"):
        Annotations(path, open_drive(path))


def test_cameras_of_one_name_and_two_sizes_are_refused(tmp_path: Path) -> None:
    drives = [
        write_drive(tmp_path / f"{width}.mcap", ticks=1, lidar=False, image_size=(width, 192)).path
        for width in (320, 300)
    ]
    with pytest.raises(DriveError, match="300x192 pixels"):
        cameras(drives, None)
