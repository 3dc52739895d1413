"""Tags and boxes of frames, from recordings that hold them and from recordings that do not."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
from foxglove_schemas_protobuf.ImageAnnotations_pb2 import ImageAnnotations

from engines.annotations import Annotations
from engines.frames import cameras, frames, parse_every
from perception.errors import DriveError
from perception.geometry import IDENTITY
from perception.ingest.open_drive import open_drive
from perception.messages import CLASSES
from tests.drives import SECOND, START_NS, DriveWriter, encode, make_camera, open_writer, render, write_drive

BOXES = {"car": (20, 40, 60, 80, "1.00"), "bus": (100, 40, 180, 120, "0.30"), "tree": (0, 0, 9, 90, "1.00")}


def _outlines() -> ImageAnnotations:
    message = ImageAnnotations()
    for category, (x1, y1, x2, y2, visibility) in BOXES.items():
        outline = message.points.add()
        for x, y in ((x1, y1), (x2, y1), (x2, y2), (x1, y2)):
            outline.points.add(x=x, y=y)
        outline.metadata.add(key="category", value=category)
        outline.metadata.add(key="visibility", value=visibility)
    return message


def _tags(drive: DriveWriter, channel: int, stamp_ns: int, scene: str) -> None:
    data = json.dumps({"light": "day", "scene": scene}).encode()
    drive.writer.add_message(channel, stamp_ns, data, stamp_ns)


def _write(path: Path, ticks: int = 5, spoil: bytes | None = None) -> Path:
    """One camera at 1 Hz; the vehicle enters a tunnel at the fourth tick."""
    camera = make_camera("CAM_FRONT")
    with open_writer(path) as drive:
        schema = drive.writer.register_schema("tags", "jsonschema", b"{}")
        channel = drive.writer.register_channel("/tags", "json", schema)
        for tick in range(ticks):
            stamp = START_NS + tick * SECOND
            drive.transform("map", "base_link", IDENTITY, stamp)
            drive.transform("base_link", "CAM_FRONT", camera.base_from_camera, stamp)
            drive.calibration(camera, stamp)
            drive.image("CAM_FRONT", stamp, encode(render(camera, 0.0)))
            drive.message("/CAM_FRONT/annotations", _outlines(), stamp)
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


def test_every_is_a_whole_number_over_zero() -> None:
    assert parse_every("3") == 3
    for text in ("0", "-1", "1.5", "all"):
        with pytest.raises(argparse.ArgumentTypeError, match="expected a whole number over 0"):
            parse_every(text)
