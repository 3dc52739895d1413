from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perception.config import DetectorConfig
from perception.detect.labels import COCO, resolve
from perception.detect.model import Model
from perception.errors import ConfigError, ModelError
from perception.messages import CLASSES


def model(metadata: dict[str, str] | None = None) -> Model:
    return Model(Path("m.onnx"), (64, 64), metadata or {}, {})


def mapped(names: list[str], **config: Any) -> list[str | None]:
    label_of = resolve(model({"names": json.dumps(names)}), len(names), DetectorConfig(**config)).label_of
    return [CLASSES[label] if label >= 0 else None for label in label_of]


@pytest.mark.parametrize(
    "text",
    ["{0: 'car', 1: 'person'}", '{"0": "car", "1": "person"}', "['car', 'person']", '["car", "person"]'],
)
def test_names_in_metadata(text: str) -> None:
    np.testing.assert_array_equal(resolve(model({"names": text}), 2, DetectorConfig()).label_of, [0, 5])


@pytest.mark.parametrize(
    "text",
    [
        *("", "car, person", "{0: 'car', 2: 'person'}", "[1, 2]", "7"),
        *("__import__('os').getcwd()", "[" * 500, "[" * 100_000, "9" * 5000, "['car', '" + "a" * 300_000 + "']"),
    ],
    ids=range(10),
)
def test_names_that_cannot_be_read(text: str) -> None:
    with pytest.raises(ModelError, match=r"'names' is no list of class names; set detector\.names"):
        resolve(model({"names": text}), 2, DetectorConfig())


def test_config_names_come_first() -> None:
    labels = resolve(model({"names": "['cat', 'dog']"}), 2, DetectorConfig(names=("bus", "truck")))

    assert [CLASSES[label] for label in labels.label_of] == ["bus", "truck"]
    assert "names from detector.names" in labels.notes[0]


def test_eighty_unnamed_classes_are_cocos_and_the_note_says_so() -> None:
    labels = resolve(model(), 80, DetectorConfig())

    found = {COCO[i]: CLASSES[label] for i, label in enumerate(labels.label_of) if label >= 0}
    assert found == {
        "person": "pedestrian",
        **{name: name for name in ("bicycle", "car", "motorcycle", "bus", "truck")},
    }
    assert "COCO, assumed" in labels.notes[0]
    assert "pedestrian (person)" in labels.notes[0]
    assert "left out: airplane" in labels.notes[0]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["Car", "Van", "Truck", "Pedestrian", "Person_sitting", "Cyclist", "Tram", "Misc", "DontCare"],  # KITTI
         ["car", "car", "truck", "pedestrian", "pedestrian", "bicycle", None, None, None]),
        (["pedestrian", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle", "traffic light"],  # BDD100K
         ["pedestrian", None, "car", "truck", "bus", None, "motorcycle", "bicycle", None]),
        (["person", "rider", "bike", "motor"], ["pedestrian", None, "bicycle", "motorcycle"]),  # BDD100K, before 2020
        (["vehicle.car", "vehicle.bus.rigid", "human.pedestrian.police_officer", "vehicle.trailer"],  # nuScenes
         ["car", "bus", "pedestrian", None]),
        (["motor-bike", "MOTORBIKE", "traffic_cone"], ["motorcycle", "motorcycle", None]),
    ],
    ids=["kitti", "bdd", "bdd-old", "nuscenes", "spelling"],
)  # fmt: skip
def test_spellings_of_the_data_sets(names: list[str], expected: list[str | None]) -> None:
    assert mapped(names) == expected


def test_config_maps_and_leaves_out() -> None:
    assert mapped(["car", "rider", "forklift"], classes={"rider": "pedestrian", "forklift": "truck", "car": None}) == [
        None,
        "pedestrian",
        "truck",
    ]


def test_class_that_the_model_does_not_have() -> None:
    with pytest.raises(ConfigError, match=r"detector\.classes: 'forklifts' is no class of m\.onnx; did you mean 'for"):
        mapped(["car", "forklift"], classes={"forklifts": "truck"})


def test_model_with_nothing_for_the_pipeline() -> None:
    with pytest.raises(ConfigError, match=r"none of the classes of m\.onnx \(cat, dog\) is known.*classes"):
        mapped(["cat", "dog"])


def test_number_of_names_has_to_fit() -> None:
    with pytest.raises(ConfigError, match=r"detector\.names: 1 names, but m\.onnx has 2 classes"):
        resolve(model(), 2, DetectorConfig(names=("car",)))
    with pytest.raises(ModelError, match="52 classes in its outputs, but 1 names in its metadata"):
        resolve(model({"names": "{0: 'person'}"}), 52, DetectorConfig())


@pytest.mark.parametrize("count", [None, 7])
def test_unnamed_classes(count: int | None) -> None:
    with pytest.raises(ConfigError, match=r"does not name its classes; set detector\.names"):
        resolve(model(), count, DetectorConfig())
