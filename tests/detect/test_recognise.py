from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from perception.config import DetectorConfig, InputConfig
from perception.detect.model import Model
from perception.detect.recognise import recognise
from perception.errors import ConfigError, ModelError
from perception.messages import InputSpec
from tests.detect.layouts import LAYOUTS, SIZE, Object

CONFIG = DetectorConfig(names=("car", "bus", "person"))
OBJECTS = (Object((3.0, 4.0, 20.0, 40.0), 0, 0.9),)
HeadName = Literal["yolov5", "yolov8", "yolox", "end_to_end"]


def model(outputs: dict[str, NDArray[Any]], size: tuple[int, int] = (SIZE, SIZE)) -> Model:
    return Model(Path("m.onnx"), size, {}, outputs)


def laid_out(layout: str) -> Model:
    return model({name: output[0] for name, output in LAYOUTS[layout](OBJECTS).items()})


@pytest.mark.parametrize(
    ("layout", "head", "spec"),
    [
        ("yolov5", "yolov5", InputSpec(SIZE, SIZE, "rgb", 1 / 255)),
        ("yolov8", "yolov8", InputSpec(SIZE, SIZE, "rgb", 1 / 255)),
        ("yolox", "yolox", InputSpec(SIZE, SIZE, "bgr", 1.0, pad_position="bottom_right")),
        ("yolox_decoded", "yolox", InputSpec(SIZE, SIZE, "bgr", 1.0, pad_position="bottom_right")),
        ("end_to_end", "end_to_end", InputSpec(SIZE, SIZE, "rgb", 1 / 255)),
        ("boxes_scores_labels", "end_to_end", InputSpec(SIZE, SIZE, "rgb", 1 / 255)),
    ],
)
def test_head_and_its_input_convention(layout: str, head: HeadName, spec: InputSpec) -> None:
    found = recognise(laid_out(layout), CONFIG)
    named = recognise(laid_out(layout), CONFIG.model_copy(update={"head": head}))

    assert found.input_spec == named.input_spec == spec
    assert type(found.head) is type(named.head)
    assert found.notes[0].startswith(f"{head} head")


@pytest.mark.parametrize(
    ("size", "shape", "head"),
    [
        ((416, 416), (3549, 85), "yolox"),
        ((640, 640), (25200, 85), "yolov5"),
        ((640, 640), (84, 8400), "yolov8"),
        ((448, 256), (84, 2352), "yolov8"),
        ((1280, 1280), (102000, 85), "yolov5"),  # P6: stride 64 too
        ((640, 640), (84, 34000), "yolov8"),  # P2: stride 4 too
        ((640, 640), (300, 6), "end_to_end"),
        ((640, 640), (8400, 6), "yolox"),  # of one class
    ],
)
def test_usual_shapes(size: tuple[int, int], shape: tuple[int, int], head: str) -> None:
    output = np.zeros(shape, np.float32)
    names = ("car",) if 6 in shape else tuple(f"car{i}" for i in range(80))
    config = DetectorConfig(names=names, classes={names[0]: "car"})

    assert recognise(model({"output": output}, size), config).notes[0].startswith(f"{head} head")


def test_config_overrides_the_convention_value_by_value() -> None:
    config = CONFIG.model_copy(update={"input": InputConfig(channel_order="rgb", mean=(1, 2, 3), pad_value=0)})

    spec = recognise(laid_out("yolox"), config).input_spec

    assert spec == InputSpec(SIZE, SIZE, "rgb", 1.0, mean=(1, 2, 3), pad_value=0, pad_position="bottom_right")


@pytest.mark.parametrize(
    "outputs",
    [
        {"drivable": np.zeros((2, 64, 64)), "lane": np.zeros((2, 64, 64))},
        {"output": np.zeros((50, 8))},
        {"output": np.zeros((1000,))},
        {"boxes": np.zeros((10, 4)), "scores": np.zeros((10, 80))},
        {"a": np.zeros((10, 4)), "b": np.zeros(10), "c": np.zeros(10)},  # which are the labels?
        {"mask": np.zeros((7, 84)), "prototypes": np.zeros((32, 16, 16))},
    ],
    ids="+".join,
)
def test_unknown_head_is_refused_with_what_was_seen(outputs: dict[str, NDArray[Any]]) -> None:
    with pytest.raises(ModelError, match=r"m\.onnx: no known head has outputs .* 64x64; known.*yolov8") as refusal:
        recognise(model(outputs), CONFIG)

    for name, output in outputs.items():
        assert f"{name} {'x'.join(map(str, output.shape))}" in str(refusal.value)


def test_three_outputs_in_any_order_and_labels_as_floats() -> None:
    outputs = laid_out("boxes_scores_labels").outputs
    shuffled = {
        "scores": outputs["scores"], "class_ids": outputs["labels"].astype(np.float32), "boxes": outputs["boxes"]
    }  # fmt: skip

    head = recognise(model(shuffled), CONFIG).head

    np.testing.assert_allclose(head(list(shuffled.values())).boxes, [OBJECTS[0].box])


def test_head_that_does_not_fit_is_refused() -> None:
    config = CONFIG.model_copy(update={"head": "yolov5"})

    with pytest.raises(ConfigError, match=r"detector\.head: yolov5, .*output0 7x84\) are those of yolov8"):
        recognise(laid_out("yolov8"), config)


@pytest.mark.parametrize("layout", ["yolov5", "yolov8", "end_to_end", "boxes_scores_labels"])
def test_relative_boxes_are_refused(layout: str) -> None:
    outputs = dict(laid_out(layout).outputs)
    name = "boxes" if "boxes" in outputs else next(iter(outputs))
    boxes = outputs[name].copy()
    boxes[(slice(4),) if layout == "yolov8" else (slice(None), slice(4))] /= 2 * SIZE
    outputs[name] = boxes

    with pytest.raises(ModelError, match="expected pixels of the model's input"):
        recognise(model(outputs), CONFIG)


@pytest.mark.parametrize("layout", ["yolov5", "yolov8", "yolox", "end_to_end"])
def test_logits_are_refused(layout: str) -> None:
    (name, output), *_ = laid_out(layout).outputs.items()
    output = output.copy()
    scores = output[4:] if layout == "yolov8" else output[:, 4:]
    scores -= 6

    with pytest.raises(ModelError, match=r"scores of -6.*expected probabilities"):
        recognise(model({name: output}), CONFIG)
