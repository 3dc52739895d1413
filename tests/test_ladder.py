from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perception import config, ladder
from perception.config import Config
from perception.errors import ConfigError
from perception.messages import Rig
from tests.drives import make_camera

SURROUND = {
    "BACK_LEFT": 110.0,
    "FRONT_LEFT": 55.0,
    "FRONT": 0.0,
    "FRONT_RIGHT": -55.0,
    "BACK_RIGHT": -110.0,
    "BACK": 180.0,
}


def rig_of(azimuths_deg: dict[str, float]) -> Rig:
    return {name: make_camera(name, (160, 96), azimuth) for name, azimuth in azimuths_deg.items()}


def configured(*rungs: dict[str, Any]) -> Config:
    return Config.model_validate({"enforcement": {"ladder": rungs}, "detector": {"model": "m.onnx"}})


def test_cameras_face_front_side_or_rear_and_the_front_goes_first() -> None:
    rig = rig_of(SURROUND)
    assert {name: ladder.facing(camera) for name, camera in rig.items()} == {
        "BACK_LEFT": "side",
        "FRONT_LEFT": "front",
        "FRONT": "front",
        "FRONT_RIGHT": "front",
        "BACK_RIGHT": "side",
        "BACK": "rear",
    }
    (everything,) = ladder.build(configured(), rig).rungs
    assert list(everything.every) == ["FRONT", "FRONT_LEFT", "FRONT_RIGHT", "BACK_LEFT", "BACK_RIGHT", "BACK"]
    assert set(everything.every.values()) == {1}


def test_a_rung_says_who_looks_and_how_often_by_name_or_direction() -> None:
    wanted = configured(
        {"name": "a", "every": {"side": 2, "BACK": 4}},
        {"name": "b", "cameras": ["front", "BACK"], "every": {"FRONT_LEFT": 3}, "alarm": True},
    )
    _, a, b = ladder.build(wanted, rig_of(SURROUND)).rungs
    assert a.every == {"FRONT": 1, "FRONT_LEFT": 1, "FRONT_RIGHT": 1, "BACK_LEFT": 2, "BACK_RIGHT": 2, "BACK": 4}
    assert b.every == {"FRONT": 1, "FRONT_LEFT": 3, "FRONT_RIGHT": 1, "BACK": 1}
    assert (a.alarm, b.alarm) == (False, True)


def test_a_camera_called_by_a_direction_is_meant_itself() -> None:
    _, rung = ladder.build(configured({"name": "a", "every": {"rear": 2}}), rig_of({"rear": 0.0, "other": 180.0})).rungs
    assert rung.every["rear"] == 2


def test_a_camera_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match="'a': no camera 'TOP' in this rig; known: F, front, side, rear"):
        ladder.build(configured({"name": "a", "cameras": ["TOP"]}), rig_of({"F": 0.0}))


def test_rungs_have_their_own_detectors() -> None:
    wanted = configured(
        {"name": "small", "detector": {"input_size": [320, 192]}},
        {"name": "other", "detector": {"model": "n.onnx"}},
        {"name": "few", "cameras": ["front"]},
    )
    detectors = ladder.build(wanted, rig_of(SURROUND)).detectors
    assert [(detector.model, detector.input_size) for detector in detectors] == [
        (Path("m.onnx"), None),
        (Path("m.onnx"), (320, 192)),
        (Path("n.onnx"), None),
        (Path("m.onnx"), None),
    ]
    assert detectors[1].score_threshold == detectors[0].score_threshold


@pytest.mark.parametrize(
    ("azimuths_deg", "levels"),
    [
        (SURROUND, 6),
        ({"CAM": 0.0}, 4),  # less often, and then with an alarm
        ({"CAM": 180.0}, 4),
        ({"A": 20.0, "B": -20.0}, 4),
        ({"A": 90.0, "B": -90.0}, 4),
    ],
)
def test_the_shipped_ladder_suits_any_rig(azimuths_deg: dict[str, float], levels: int) -> None:
    built = ladder.build(config.load("cpu.yaml"), rig_of(azimuths_deg))
    assert len(built.rungs) == levels
    assert all(rung.every for rung in built.rungs)
    assert built.rungs[-1].alarm
    for above, below in zip(built.rungs, built.rungs[1:], strict=False):
        assert all(every >= above.every[camera] for camera, every in below.every.items())
