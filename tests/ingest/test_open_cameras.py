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
