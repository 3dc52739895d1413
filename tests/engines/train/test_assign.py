"""Which cells of the network are taught which object."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is in the extra `train` only")

from engines.train.assign import Assignment, assign, boxes_at  # noqa: E402
from engines.train.targets import Targets, targets  # noqa: E402
from perception.detect.stock import CELL_PX, SCORES  # noqa: E402
from tests.engines.train.test_targets import ANCHORS, SIZE, edges_of, make_labels  # noqa: E402


def assigned(taught: Targets, said: np.ndarray | None = None, logits: np.ndarray | None = None) -> Assignment:
    """Assignment of the cells of a network that says `said` (cells, 4), nothing if left out."""
    boxes = np.zeros((len(ANCHORS), 4), np.float32) if said is None else said
    scores = np.zeros((len(ANCHORS), SCORES), np.float32) if logits is None else logits
    tensors = [torch.from_numpy(array) for array in (scores, boxes, ANCHORS, taught.boxes, taught.labels)]
    found: Assignment = assign(*tensors[:4], tensors[4].long())
    return found


def test_boxes_are_read_as_the_head_reads_them() -> None:
    box, anchor = np.array((40, 50, 121, 110), np.float32), np.array((62, 94), np.float32)
    edges = torch.from_numpy(edges_of(box, anchor)[None])
    np.testing.assert_allclose(boxes_at(edges, torch.from_numpy(anchor[None]))[0], box, rtol=1e-5)


@pytest.mark.parametrize("x", [300.0, 301.3, 302.0, 303.9])
def test_the_smallest_object_is_taught_to_the_cell_about_its_middle(x: float) -> None:
    """Also by a network that says nothing sensible yet."""
    found = assigned(targets(make_labels([(x, 100, x + 2, 108)], [5]), *SIZE))
    assert 1 <= len(found.cells) <= 4
    assert (np.abs(ANCHORS[found.cells] - (x + 1, 104)) <= (CELL_PX / 2 + 0.01, 4)).all()


def test_the_cells_that_say_it_best_are_taught_and_how_well() -> None:
    box = np.array((80, 60, 160, 120), np.float32)
    taught = targets(make_labels([tuple(box)], [0]), *SIZE)
    said = np.tile(box + 20, (len(ANCHORS), 1))  # an overlap of a third everywhere
    inside = np.flatnonzero(((box[:2] < ANCHORS) & (box[2:] > ANCHORS)).all(axis=1))
    exact, outside = inside[7:10], np.flatnonzero(ANCHORS[:, 0] > 200)[0]
    said[exact] = box
    said[outside] = box
    found = assigned(taught, said)
    assert len(found.cells) == 10
    assert set(exact.tolist()) < set(found.cells.tolist())
    assert outside not in found.cells
    quality = dict(zip(found.cells.tolist(), found.quality.tolist(), strict=True))
    assert all(quality[cell] == pytest.approx(1) for cell in exact)
    assert all(quality[cell] < 0.01 for cell in quality if cell not in exact)


def test_of_cells_with_the_same_box_those_that_know_the_class_are_taught() -> None:
    box = np.array((80, 60, 160, 120), np.float32)
    said = np.tile(box, (len(ANCHORS), 1))
    inside = np.flatnonzero(((box[:2] < ANCHORS) & (box[2:] > ANCHORS)).all(axis=1))
    logits = np.full((len(ANCHORS), SCORES), -3, np.float32)
    logits[inside[20:30], 4] = 3
    found = assigned(targets(make_labels([tuple(box)], [4]), *SIZE), said, logits)
    assert set(found.cells.tolist()) == set(inside[20:30].tolist())


def test_a_cell_that_two_objects_want_answers_for_the_one_it_overlaps_more() -> None:
    small, large = (88, 96, 98, 108), (50, 50, 160, 160)
    taught = targets(make_labels([large, small], [0, 5]), *SIZE)
    said = np.tile(np.array(large, np.float32), (len(ANCHORS), 1))
    in_small = np.flatnonzero(((small[:2] < ANCHORS) & (small[2:] > ANCHORS)).all(axis=1))
    said[in_small] = small
    found = assigned(taught, said)
    assert set(found.cells[found.objects == 1].tolist()) == set(in_small.tolist())
    assert len(set(found.cells.tolist())) == len(found.cells)
