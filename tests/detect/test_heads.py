"""Every head finds the same objects, whichever way they were written."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.config import DetectorConfig
from perception.detect import onnxruntime, openvino
from perception.detect.model import Model
from perception.detect.recognise import Recognised, recognise
from perception.messages import CLASSES, Candidates
from tests.detect import onnx_models
from tests.detect.layouts import LAYOUTS, SIZE, Object, Outputs

NAMES = ("person", "traffic light", "car")
LABELS = (CLASSES.index("pedestrian"), None, CLASSES.index("car"))
OBJECTS = (
    Object((3.0, 4.0, 20.0, 40.0), 0, 0.9),
    Object((30.0, 8.5, 61.0, 25.25), 2, 0.5),
    Object((-4.0, 50.0, 12.0, 66.0), 2, 0.36),  # reaches out of the image
    Object((10.0, 10.0, 12.0, 14.0), 1, 0.95),  # a class that the pipeline does not have
    Object((40.0, 40.0, 50.0, 60.0), 0, 0.34),  # under the threshold
)
CONFIG = DetectorConfig(names=NAMES, score_threshold=0.35)

layouts = pytest.mark.parametrize("layout", LAYOUTS)


def recognised(outputs: Outputs, config: DetectorConfig = CONFIG) -> Recognised:
    return recognise(Model(Path("m.onnx"), (SIZE, SIZE), {}, {k: o[0] for k, o in outputs.items()}), config)


def decode(layout: str, objects: tuple[Object, ...] = OBJECTS) -> Candidates:
    outputs = LAYOUTS[layout](objects)
    return recognised(outputs).head([output[0] for output in outputs.values()])


def assert_found(found: Candidates, expected: list[Object]) -> None:
    np.testing.assert_allclose(found.boxes, np.array([o.box for o in expected]).reshape(-1, 4), atol=1e-4)
    np.testing.assert_allclose(found.scores, [o.score for o in expected], rtol=1e-5)
    np.testing.assert_array_equal(found.labels, [LABELS[o.class_index] for o in expected])
    assert found.boxes.dtype == found.scores.dtype == np.float32
    assert found.labels.dtype == np.int32


@layouts
def test_finds_the_objects(layout: str) -> None:
    assert_found(decode(layout), list(OBJECTS[:3]))


@layouts
def test_finds_nothing_where_nothing_is(layout: str) -> None:
    assert_found(decode(layout, ()), [])


coordinate = st.floats(0, SIZE - 4, width=32)
objects = st.builds(
    lambda x, y, width, height, index, score: Object((x, y, x + width, y + height), index, score),
    coordinate, coordinate, st.floats(1, 40), st.floats(1, 40), st.integers(0, 2), st.floats(0.4, 0.97),
)  # fmt: skip


@layouts
@given(st.lists(objects, max_size=25))
@settings(max_examples=30)
def test_finds_any_objects(layout: str, given: list[Object]) -> None:
    assert_found(decode(layout, tuple(given)), [o for o in given if LABELS[o.class_index] is not None])


@layouts
@given(st.integers(0, 2**32 - 1), st.integers(0, 120))
@settings(max_examples=40)
def test_what_is_not_finite_is_not_found(layout: str, seed: int, count: int) -> None:
    """Bad values anywhere in the outputs: no warning, nothing that is not finite, and no score of over one."""
    rng = np.random.default_rng(seed)
    outputs = {name: output.copy() for name, output in LAYOUTS[layout](OBJECTS).items()}
    head = recognised(outputs).head
    for output in outputs.values():
        if np.issubdtype(output.dtype, np.floating):
            flat = output.reshape(-1)
            flat[rng.choice(flat.size, min(count, flat.size), replace=False)] = rng.choice(
                np.array([np.nan, np.inf, -np.inf, 1e38, -1e38, 0], np.float32), min(count, flat.size)
            )

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = head([output[0] for output in outputs.values()])

    assert np.isfinite(found.boxes).all()
    assert ((found.scores >= CONFIG.score_threshold) & (found.scores <= 1)).all()
    assert np.isin(found.labels, [label for label in LABELS if label is not None]).all()


@layouts
def test_rows_that_are_not_finite_take_no_others_with_them(layout: str) -> None:
    outputs = {name: output.copy() for name, output in LAYOUTS[layout](OBJECTS).items()}
    head = recognised(outputs).head
    rows = outputs["boxes"][0] if "boxes" in outputs else next(iter(outputs.values()))[0]
    if layout == "yolov8":
        rows = rows.T
    empty = np.flatnonzero(rows[:, 4:].max(axis=1) < 0.1) if layout != "boxes_scores_labels" else np.array([29])
    rows[empty[:5]] = np.nan

    assert_found(head([output[0] for output in outputs.values()]), list(OBJECTS[:3]))


@layouts
def test_infinite_score_is_no_score(layout: str) -> None:
    outputs = {name: output.copy() for name, output in LAYOUTS[layout](OBJECTS[:1]).items()}
    head = recognised(outputs).head
    rows = outputs["scores"][0, :, None] if "scores" in outputs else next(iter(outputs.values()))[0]
    scores = rows.T[:, 4:] if layout == "yolov8" else rows[:, 4:5] if rows.shape[1] > 1 else rows
    scores[scores[:, 0] < 0.3] = np.inf

    assert_found(head([output[0] for output in outputs.values()]), [OBJECTS[0]])


@pytest.mark.parametrize("layout", ["end_to_end", "boxes_scores_labels"])
@pytest.mark.parametrize("index", [-1, 3, 1000])
def test_labels_that_the_model_does_not_have_are_filling(layout: str, index: int) -> None:
    filling = Object((1.0, 1.0, 9.0, 9.0), index, 0.99)

    assert_found(decode(layout, (filling, OBJECTS[0])), [OBJECTS[0]])


@layouts
@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_from_the_onnx_file_to_the_objects(layout: str, runtime: str, tmp_path: Path) -> None:
    path = onnx_models.write(
        tmp_path / "m.onnx", LAYOUTS[layout](OBJECTS), metadata={"names": str(dict(enumerate(NAMES)))}
    )
    module = {"openvino": openvino, "onnxruntime": onnxruntime}[runtime]
    detector = module.load(path, threads=1, cameras=1)
    request = detector.request()

    request.submit()
    found = recognise(detector.model, DetectorConfig(score_threshold=0.35)).head(request.collect())

    assert_found(found, list(OBJECTS[:3]))
