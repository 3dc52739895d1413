"""What the network is taught is what the head reads."""

from __future__ import annotations

import numpy as np
import pytest

from engines.train.samples import Labels
from engines.train.targets import Targets, targets
from perception.detect.stock import (
    EDGE_UNIT_PX,
    EDGES,
    REGRESSION,
    SCORES,
    SPREAD,
    StockHead,
    anchors,
    output_shapes,
)
from perception.messages import CLASSES, Candidates

SIZE = (448, 256)
ANCHORS = anchors(*SIZE)


def make_labels(boxes: list[tuple[float, ...]], labels: list[int], ignored: list[bool] | None = None) -> Labels:
    count = len(boxes)
    array = np.array(boxes, np.float32).reshape(-1, 4)
    return Labels(
        boxes=array,
        labels=np.array(labels, np.int32),
        visibility=np.ones(count, np.float32),
        ignored=np.array(ignored or [False] * count, np.bool_),
        centres=(array[:, :2] + array[:, 2:]) / 2 + np.float32(3),
        depths_over_focal=np.linspace(0.02, 0.3, count, dtype=np.float32),
        sizes=np.tile(np.array([4.2, 1.8, 1.5], np.float32), (count, 1)),
        alphas=np.linspace(-2, 2, count, dtype=np.float32),
    )


def edges_of(box: np.ndarray, anchor: np.ndarray) -> np.ndarray:
    distances = np.concatenate([anchor - box[:2], box[2:] - anchor])
    edges: np.ndarray = np.log(np.maximum(distances, 0.5) / EDGE_UNIT_PX)
    return edges


def learned_by_heart(taught: Targets) -> list[np.ndarray]:
    """The outputs of a network that says of every object what it is taught, in the cell nearest to its middle."""
    scores = np.full((len(ANCHORS), SCORES), -9, np.float32)
    regression = np.zeros((len(ANCHORS), REGRESSION), np.float32)
    for box, label, values in zip(taught.boxes, taught.labels, taught.values, strict=True):
        cell = int(np.abs(ANCHORS - (box[:2] + box[2:]) / 2).sum(axis=1).argmin())
        scores[cell, label] = 5
        regression[cell] = values
        regression[cell, EDGES] = edges_of(box, ANCHORS[cell])
        regression[cell, SPREAD] = np.log(0.1)
    shapes = output_shapes(SIZE)
    return [array.reshape(shape) for array, shape in zip((scores, regression), shapes, strict=True)]


def decoded(taught: Targets) -> Candidates:
    return StockHead(SIZE, np.arange(len(CLASSES), dtype=np.int32), 0.9)(learned_by_heart(taught))


def test_the_head_reads_back_what_is_taught() -> None:
    labels = make_labels([(40, 50, 120, 110), (300.5, 100.2, 304.1, 109.7), (0, 0, 448, 256)], [0, 5, 2])
    found = decoded(targets(labels, *SIZE))
    assert found.attributes is not None
    for i, label in enumerate(labels.labels):
        (best,) = np.flatnonzero(found.labels == label)
        np.testing.assert_allclose(found.boxes[best], labels.boxes[i], atol=0.01)
        np.testing.assert_allclose(found.attributes.centres[best], labels.centres[i], atol=0.05)
        assert found.attributes.depths_over_focal[best] == pytest.approx(labels.depths_over_focal[i], rel=1e-4)
        assert found.attributes.depth_stds[best] == pytest.approx(0.1 * np.sqrt(2), rel=1e-4)
        np.testing.assert_allclose(found.attributes.sizes[best], labels.sizes[i], rtol=1e-4)
        assert found.attributes.alphas[best] == pytest.approx(labels.alphas[i], abs=1e-4)


def test_what_is_ignored_is_not_taught_and_silent() -> None:
    taught = targets(make_labels([(100, 100, 140, 140), (10, 10, 30, 30)], [0, 1], ignored=[True, False]), *SIZE)
    assert taught.labels.tolist() == [1]
    inside = ((ANCHORS > 100) & (ANCHORS < 140)).all(axis=1)
    assert taught.silent[inside].all()
    assert 0 < taught.silent.sum() < 150


def test_no_objects_at_all() -> None:
    taught = targets(make_labels([], []), *SIZE)
    assert taught.silent.shape == (len(ANCHORS),)
    assert not taught.silent.any()
    assert taught.values.shape == (0, REGRESSION)
