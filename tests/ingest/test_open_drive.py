from __future__ import annotations

import os
import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from perception.config import CONFIGS
from perception.errors import ConfigError, DriveError
from perception.ingest.decode import decode_image, frame_to_image
from perception.ingest.mcap_drive import McapDrive
from perception.ingest.open_drive import open_drive
from tests.drives import encode, make_camera, render, write_drive

MS = 1_000_000
SIZE = (96, 64)
CAMERA = make_camera("CAM_FRONT", SIZE)


def write_rig(path: Path, *names: str, extra: str = "") -> Path:
    camera = "{width: 96, height: 64, fx: 48, fy: 48, cx: 48, cy: 32, mount: {translation_m: [1, 0, 1.5]}}"
    path.write_text("rate_hz: 20\ncameras:\n" + "".join(f"  {name}: {camera}\n" for name in names) + extra)
    return path


def write_video(path: Path, count: int = 8, rate: int = 25, **options: str) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"preset": "ultrafast", **options})
        stream.width, stream.height = SIZE
        stream.time_base = Fraction(1, rate)
        for i in range(count):
            frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), 20 + 20 * i, np.uint8), format="bgr24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def refusal(path: Path, rig: Path | None = None) -> str:
    with pytest.raises((DriveError, ConfigError)) as refused:
        open_drive(path, rig)
    message = str(refused.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty; expected an MCAP recording, a video file or a folder of images"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "is a Git LFS pointer, not the data itself"),
        (b"#ROSBAG V2.0\n", "is a ROS 1 bag"),
        (b"SQLite format 3\0", "is an SQLite database, perhaps a rosbag2 .db3"),
        (b"\xff\xd8\xff\xe0", "is a JPEG image"),
        (b"<!DOCTYPE html>", "is an HTML page"),
        (b"\x89MCAP1\r\n", "is an MCAP file of a version other than 0"),
        (b"something else entirely", "neither an MCAP recording nor a video"),
        (b"\x89MCAP0\r\n", "nothing to replay"),
    ],
)
def test_a_file_that_is_no_drive_is_refused_with_what_it_is(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "drive.mcap"
    path.write_bytes(content)
    message = refusal(path)
    assert message.startswith(str(path))
    assert expected in message


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "cannot be read: No such file or directory; expected an MCAP" in refusal(tmp_path / "none.mcap")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "is a device or a pipe; expected an MCAP recording" in refusal(tmp_path / "pipe")


def test_a_bare_stream_is_refused_since_it_holds_no_time(tmp_path: Path) -> None:
    assert "neither an MCAP recording nor a video (mov," in refusal(write_video(tmp_path / "drive.h264"))


def test_a_recording_is_known_by_its_contents_not_its_name(tmp_path: Path) -> None:
    written = write_drive(tmp_path / "drive.mcap", image_size=SIZE, ticks=1)
    assert isinstance(open_drive(written.path.rename(tmp_path / "drive.dat")), McapDrive)


# Videos


def test_a_video_is_a_drive_of_one_camera(tmp_path: Path) -> None:
    path = write_video(tmp_path / "drive.mp4")
    drive = open_drive(path, write_rig(tmp_path / "rig.yaml", "CAM_FRONT"))
    packets = list(drive.packets())
    assert [packet.capture_ns for packet in packets] == [40 * MS * i for i in range(8)]
    for i, packet in enumerate(packets):
        assert packet.picture is not None
        image = frame_to_image(packet.picture, drive.rig["CAM_FRONT"])
        assert np.abs(image.astype(int) - (20 + 20 * i)).max() < 10
    assert drive.time_range_ns == (0, 320 * MS)
    assert list(drive.truth()) == []
    assert drive.faults() == []


def test_a_video_with_b_frames_comes_in_the_order_of_capture(tmp_path: Path) -> None:
    path = write_video(tmp_path / "drive.mkv", preset="fast", bf="2")
    drive = open_drive(path, write_rig(tmp_path / "rig.yaml", "CAM_FRONT"))
    assert [packet.capture_ns for packet in drive.packets()] == [40 * MS * i for i in range(8)]


def test_a_damaged_video_is_played_up_to_the_damage(tmp_path: Path) -> None:
    path = write_video(tmp_path / "drive.mkv", count=11, g="1")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    drive = open_drive(path, write_rig(tmp_path / "rig.yaml", "CAM_FRONT"))
    assert 0 < len(list(drive.packets())) < 11


def test_a_video_needs_a_rig_with_one_camera_of_its_size(tmp_path: Path) -> None:
    path = write_video(tmp_path / "drive.mp4")
    assert "are not calibrated: a video or a folder of images holds no calibration; give a rig" in refusal(path)
    assert "a video is one camera, the rig has 2: LEFT, RIGHT" in refusal(
        path, write_rig(tmp_path / "two.yaml", "LEFT", "RIGHT")
    )
    assert "the video is 96x64, where the rig says 1242x375 for CAM_FRONT" in refusal(
        path, CONFIGS / "rigs" / "front.yaml"
    )


# Folders


def write_folder(folder: Path, names: list[str], suffix: str = ".jpg") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        data = encode(render(CAMERA, i / 10, i), "png" if suffix == ".png" else "jpeg")
        (folder / f"{name}{suffix}").write_bytes(data)


def test_a_flat_folder_is_a_drive_of_one_camera(tmp_path: Path) -> None:
    write_folder(tmp_path / "images", ["000", "001", "002"], ".png")
    (tmp_path / "images" / "notes.txt").write_text("no image")
    drive = open_drive(tmp_path / "images", write_rig(tmp_path / "rig.yaml", "CAM_FRONT"))
    packets = list(drive.packets())
    assert [packet.capture_ns for packet in packets] == [0, 50 * MS, 100 * MS]
    assert drive.time_range_ns == (0, 100 * MS)
    for i, packet in enumerate(packets):
        assert packet.format == "png"
        np.testing.assert_array_equal(decode_image(packet.data, drive.rig["CAM_FRONT"]), render(CAMERA, i / 10, i))


def test_folders_of_several_cameras_are_matched_by_image_name(tmp_path: Path) -> None:
    write_folder(tmp_path / "drive" / "LEFT", ["a", "b", "c"])
    write_folder(tmp_path / "drive" / "RIGHT", ["a", "c"], ".png")
    drive = open_drive(tmp_path / "drive", write_rig(tmp_path / "rig.yaml", "LEFT", "RIGHT"))
    packets = [(packet.camera, packet.capture_ns // MS) for packet in drive.packets()]
    assert packets == [("LEFT", 0), ("RIGHT", 0), ("LEFT", 50), ("LEFT", 100), ("RIGHT", 100)]


def test_an_image_that_is_gone_is_reported(tmp_path: Path) -> None:
    write_folder(tmp_path / "images", ["a", "b"])
    drive = open_drive(tmp_path / "images", write_rig(tmp_path / "rig.yaml", "CAM_FRONT"))
    (tmp_path / "images" / "a.jpg").unlink()
    assert len(list(drive.packets())) == 1
    (line,) = drive.faults()
    assert "a.jpg: cannot be read: No such file or directory" in line


def test_folders_that_cannot_be_replayed_say_why(tmp_path: Path) -> None:
    rig = write_rig(tmp_path / "rig.yaml", "LEFT", "RIGHT")
    drive = tmp_path / "drive"
    drive.mkdir()
    assert "nothing to replay: no images (.jpg, .jpeg, .png)" in refusal(drive, rig)
    (drive / "recording.mcap").write_bytes(b"")
    assert "it holds recording.mcap: give that file" in refusal(drive, rig)
    write_folder(drive / "LEFT", ["a"])
    assert "holds no calibration; give a rig file with --rig" in refusal(drive)
    assert "no folder RIGHT with images in it" in refusal(drive, rig)
    write_folder(drive / "RIGHT", ["b"])
    assert "no image name is there for each of LEFT, RIGHT" in refusal(drive, rig)
    write_folder(drive / "RIGHT", ["a"], ".png")
    write_folder(drive / "RIGHT", ["a"])
    assert "a.png: a.jpg is there too; a tick has one image of a camera" in refusal(drive, rig)
    (drive / "RIGHT" / "a.png").unlink()
    shutil.copytree(drive / "LEFT", drive / "REAR")
    assert "camera REAR is not calibrated: add cameras.REAR to the rig file" in refusal(drive, rig)
