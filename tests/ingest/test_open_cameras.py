from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from perception import config
from perception.config import CONFIGS, Config
from perception.errors import ConfigError
from perception.ingest.cameras.av import FileDevice, RtspDevice
from perception.ingest.cameras.v4l2 import V4l2Device
from perception.ingest.open_cameras import live_rig, open_camera
from tests.drives import make_camera

RIG = CONFIGS / "rigs" / "surround.yaml"
FRONT: dict[str, Any] = {"source": "v4l2", "device": "/dev/video0"}


def written(tmp_path: Path, tree: dict[str, Any]) -> Config:
    path = tmp_path / "live.yaml"
    path.write_text(yaml.safe_dump(tree))
    return config.load(str(path))


def test_the_example_vehicle_has_six_calibrated_cameras() -> None:
    chosen = config.load("vehicle.yaml")
    assert chosen.replay is None
    rig = live_rig(chosen)
    assert list(rig) == list(chosen.cameras)
    assert len(rig) == 6
    for name, camera in rig.items():
        assert isinstance(open_camera(chosen.cameras[name], camera, 0), V4l2Device)


def test_cameras_come_in_the_rigs_order_and_those_not_named_are_left_out(tmp_path: Path) -> None:
    chosen = written(tmp_path, {"rig": str(RIG), "cameras": {"CAM_FRONT": FRONT, "CAM_BACK_LEFT": FRONT}})
    assert list(live_rig(chosen)) == ["CAM_BACK_LEFT", "CAM_FRONT"]


@pytest.mark.parametrize(
    ("source", "size", "told"),
    [
        ({"source": "gstreamer", "launch": "x"}, (96, 63), "nv12 of 96x63: it needs an even width and height; .*bgr"),
        (FRONT | {"format": "nv12"}, (95, 64), "nv12 of 95x64: it needs an even width and height; .*mjpeg"),
        (FRONT | {"format": "yuyv"}, (95, 64), "yuyv of 95x64: it needs an even width; "),
        (FRONT | {"format": "uyvy"}, (95, 64), "uyvy of 95x64: it needs an even width; "),
        (FRONT | {"format": "uyvy"}, (96, 63), None),
        (FRONT, (95, 63), None),
        ({"source": "rtsp", "url": "rtsp://127.0.0.1/stream"}, (95, 63), None),
    ],
)
def test_a_format_that_cannot_have_the_calibrated_size_is_refused_in_one_line(
    tmp_path: Path, source: dict[str, Any], size: tuple[int, int], told: str | None
) -> None:
    width, height = size
    lens = {"width": width, "height": height, "fx": 48, "fy": 48, "cx": 48, "cy": 32}
    rig = {"cameras": {"CAM_FRONT": lens | {"mount": {"translation_m": [1.5, 0.0, 1.5], "yaw_deg": 0.0}}}}
    (tmp_path / "rig.yaml").write_text(yaml.safe_dump(rig))
    chosen = written(tmp_path, {"rig": str(tmp_path / "rig.yaml"), "cameras": {"CAM_FRONT": source}})
    if told is None:
        assert list(live_rig(chosen)) == ["CAM_FRONT"]
        return
    with pytest.raises(ConfigError, match=f"^cameras.CAM_FRONT.format: {told}") as caught:
        live_rig(chosen)
    assert "\n" not in str(caught.value)


def test_each_source_has_its_device(tmp_path: Path) -> None:
    sources = {
        "A": {"source": "rtsp", "url": "rtsp://127.0.0.1/stream"},
        "B": {"source": "file", "path": "videos/front.mp4"},
    }
    chosen = written(tmp_path, {"cameras": sources})
    camera = make_camera("CAM")
    assert isinstance(open_camera(chosen.cameras["A"], camera, 0), RtspDevice)
    assert isinstance(open_camera(chosen.cameras["B"], camera, 0), FileDevice)
    assert chosen.cameras["B"].path == tmp_path / "videos/front.mp4"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("tree", "told"),
    [
        ({}, "there is nothing to run on: name a drive with --replay"),
        ({"cameras": {"CAM_FRONT": FRONT}}, "the cameras are not calibrated: name a rig file"),
        ({"rig": str(RIG), "cameras": {"CAM_ROOF": FRONT}}, "cameras.CAM_ROOF: is not calibrated; "),
        ({"cameras": {"A": FRONT | {"devise": 1}}}, r"unknown key 'cameras.A.v4l2.devise' \(did you mean 'device'\?\)"),
        ({"cameras": {"A": FRONT | {"source": "usb"}}}, "'v4l2', 'gstreamer', 'rtsp', 'file'"),
        ({"cameras": {"A": {"source": "rtsp", "url": "file:///etc/passwd"}}}, "url: String should match"),
        ({"cameras": {"A": {"source": "gstreamer", "launch": "x" * 5000}}}, "launch: String should have at most 4096"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(tmp_path: Path, tree: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        live_rig(written(tmp_path, tree))
    assert "\n" not in str(caught.value)
