"""What the assigner teaches is what the head reads."""

from __future__ import annotations

import numpy as np
import pytest

from engines.train.samples import Labels
from engines.train.targets import Targets, assign
from perception.detect.stock import CELLS, DEPTH_FOCAL, REGRESSION, SCORES, SPREAD, StockHead, output_shapes
from perception.messages import CLASSES, Candidates

SIZE = (448, 256)


def make_labels(boxes: list[tuple[float, ...]], labels: list[int], ignored: list[bool] | None = None) -> Labels:
    count = len(boxes)
    array = np.array(boxes, np.float32).reshape(-1, 4)
    return Labels(
        boxes=array,
        labels=np.array(labels, np.int32),
        visibility=np.ones(count, np.float32),
        ignored=np.array(ignored or [False] * count),
        centres=(array[:, :2] + array[:, 2:]) / 2 + np.float32(3),
        depths_over_focal=np.linspace(0.02, 0.3, count, dtype=np.float32),
        sizes=np.tile(np.array([4.2, 1.8, 1.5], np.float32), (count, 1)),
        alphas=np.linspace(-2, 2, count, dtype=np.float32),
    )


def _as_outputs(targets: Targets) -> list[np.ndarray]:
    """The outputs of a network that learned its targets by heart."""
    heat = np.clip(targets.heat, 1e-4, 1 - 1e-4)
    regression = np.zeros((len(heat), REGRESSION), np.float32)
    regression[targets.cells] = targets.values
    regression[:, SPREAD] = np.log(0.1)
    scores, values = (array.reshape(shape) for array, shape in zip(
        (np.log(heat / (1 - heat)), regression), output_shapes(SIZE), strict=True
    ))  # fmt: skip
    return [scores, values]


def _decoded(targets: Targets, threshold: float = 0.9) -> Candidates:
    return StockHead(SIZE, np.arange(len(CLASSES), dtype=np.int32), threshold)(_as_outputs(targets))


def test_the_head_reads_back_what_was_assigned() -> None:
    labels = make_labels([(40, 50, 120, 110), (300.5, 100.2, 304.1, 109.7), (0, 0, 448, 256)], [0, 5, 2])
    found = _decoded(assign(labels, *SIZE))
    assert found.attributes is not None
    for box, label, centre, depth, size, alpha in zip(
        labels.boxes, labels.labels, labels.centres, labels.depths_over_focal, labels.sizes, labels.alphas, strict=True
    ):
        of_class = np.flatnonzero(found.labels == label)
        best = of_class[np.argmax(found.scores[of_class])]
        np.testing.assert_allclose(found.boxes[best], box, atol=0.01)
        np.testing.assert_allclose(found.attributes.centres[best], centre, atol=0.05)
        assert found.attributes.depths_over_focal[best] == pytest.approx(depth, rel=1e-4)
        assert found.attributes.depth_stds[best] == pytest.approx(0.1 * np.sqrt(2), rel=1e-4)
        np.testing.assert_allclose(found.attributes.sizes[best], size, rtol=1e-4)
        assert found.attributes.alphas[best] == pytest.approx(alpha, abs=1e-4)


def test_every_object_is_taught_with_the_same_weight() -> None:
    labels = make_labels([(10, 10, 200, 200), (300, 20, 306, 30)], [0, 5])
    targets = assign(labels, *SIZE)
    small = targets.values[:, 6] > np.log(DEPTH_FOCAL * 0.1)
    assert targets.weights[small].sum() == pytest.approx(1)
    assert targets.weights[~small].sum() == pytest.approx(1)
    assert targets.objects == 2


def test_a_small_object_keeps_its_cells_before_a_large_one() -> None:
    labels = make_labels([(88, 96, 98, 108), (50, 50, 160, 160)], [5, 0])
    targets = assign(labels, *SIZE)
    assert targets.objects == 2
    assert (_decoded(targets).labels == 5).sum() == 1


def test_what_is_ignored_is_neither_taught_nor_punished() -> None:
    targets = assign(make_labels([(100, 100, 140, 140)], [0], ignored=[True]), *SIZE)
    assert targets.objects == 0
    assert len(targets.cells) == 0
    assert (targets.heat == -1).sum() > 50
    assert (targets.heat <= 0).all()


def test_an_ignored_neighbour_does_not_rub_an_object_out() -> None:
    targets = assign(make_labels([(100, 100, 140, 140), (90, 90, 150, 150)], [0, 1], ignored=[False, True]), *SIZE)
    assert (targets.heat[:, 0] == 1).sum() == 1


def test_no_objects_at_all() -> None:
    targets = assign(make_labels([], []), *SIZE)
    assert targets.heat.shape == (SIZE[0] // 4 * SIZE[1] // 4, SCORES)
    assert targets.heat.size == np.prod(output_shapes(SIZE)[0])
    assert CELLS * output_shapes(SIZE)[0][0] * output_shapes(SIZE)[0][1] == len(targets.heat)
    assert targets.values.shape == (0, REGRESSION)
