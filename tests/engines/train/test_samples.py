from __future__ import annotations

import cv2
import numpy as np
import pytest

from engines.train.samples import Placement, place
from tests.engines.train.test_targets import make_labels

SIZE = (448, 256)
BOX = (200, 150, 260, 190)


def _image() -> np.ndarray:
    image = np.zeros((384, 640, 3), np.uint8)
    cv2.rectangle(image, BOX[:2], (BOX[2] - 1, BOX[3] - 1), (255, 255, 255), cv2.FILLED)
    return image


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("scale", "x", "y"), [(0.6667, 10.7, 0.0), (1.0, -150.0, -80.0), (0.5, 60.0, 30.0)])
def test_boxes_stay_on_their_objects(scale: float, x: float, y: float, mirrored: bool) -> None:  # noqa: FBT001
    image, labels = place(_image(), make_labels([BOX], [0]), Placement(scale, x, y, mirrored), *SIZE)
    ys, xs = np.nonzero(image[..., 0] > 180)
    seen = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    np.testing.assert_allclose(labels.boxes[0], seen, atol=1.01)


def test_a_mirrored_object_heads_the_other_way() -> None:
    labels = make_labels([BOX, BOX], [0, 0])
    labels.alphas[:] = [0.0, -np.pi / 2]  # to the right, and away
    _, placed = place(_image(), labels, Placement(1.0, 0.0, 0.0, mirrored=True), 640, 384)
    np.testing.assert_allclose(np.cos(placed.alphas), [-1, 0], atol=1e-6)
    np.testing.assert_allclose(np.sin(placed.alphas), [0, -1], atol=1e-6)


def test_enlarging_brings_objects_nearer() -> None:
    labels = make_labels([BOX], [0])
    _, placed = place(_image(), labels, Placement(0.5, 0.0, 0.0, mirrored=False), *SIZE)
    assert placed.depths_over_focal[0] == pytest.approx(2 * labels.depths_over_focal[0])  # focal length halves


def test_what_is_cut_off_is_ignored_or_gone() -> None:
    labels = make_labels([(0, 100, 100, 200), (300, 100, 400, 200), (600, 100, 640, 200)], [0, 0, 0])
    _, placed = place(_image(), labels, Placement(1.0, -90.0, 0.0, mirrored=False), *SIZE)
    assert placed.ignored.tolist() == [True, False]
    np.testing.assert_allclose(placed.boxes, [(0, 100, 10, 200), (210, 100, 310, 200)])
