from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.messages import Candidates
from perception.preprocess.letterbox import Letterbox

PadPosition = Literal["center", "bottom_right"]
sizes = st.tuples(st.integers(1, 4096), st.integers(1, 4096))
positions = st.sampled_from(["center", "bottom_right"])


@given(sizes, sizes, positions)
def test_image_fits_the_input_and_fills_one_side(
    image_size: tuple[int, int], input_size: tuple[int, int], pad_position: PadPosition
) -> None:
    letterbox = Letterbox.fit(image_size, input_size, pad_position)

    width, height = letterbox.resized_size
    assert width == input_size[0] or height == input_size[1]
    assert letterbox.left >= 0
    assert letterbox.left + width <= input_size[0]
    assert letterbox.top >= 0
    assert letterbox.top + height <= input_size[1]


@given(sizes, sizes, positions, st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4))
def test_boxes_come_back_where_they_were(
    image_size: tuple[int, int], input_size: tuple[int, int], pad_position: PadPosition, corners: list[float]
) -> None:
    letterbox = Letterbox.fit(image_size, input_size, pad_position)
    box = np.array([corners], np.float32) * np.array(image_size * 2, np.float32)

    there_and_back = letterbox.to_image(letterbox.to_input(box))

    one_input_pixel = 1 / min(letterbox.scale)  # float32 resolves the input to 1e-3 of a pixel and better
    np.testing.assert_allclose(there_and_back, box, atol=1e-3 * max(one_input_pixel, 1))


@given(sizes, sizes, positions)
def test_whole_image_is_what_was_resized(
    image_size: tuple[int, int], input_size: tuple[int, int], pad_position: PadPosition
) -> None:
    letterbox = Letterbox.fit(image_size, input_size, pad_position)
    (width, height), (left, top) = letterbox.resized_size, (letterbox.left, letterbox.top)

    mapped = letterbox.to_input(np.array([[0, 0, *image_size]], np.float32))

    np.testing.assert_allclose(mapped, [[left, top, left + width, top + height]], rtol=1e-6)


def test_boxes_are_clipped_to_the_image() -> None:
    letterbox = Letterbox.fit((1936, 1216), (416, 416), "bottom_right")

    boxes = letterbox.to_image(np.array([[-50, -50, 500, 500], [10, 300, 20, 400]], np.float32))

    np.testing.assert_array_equal(boxes[0], [0, 0, 1936, 1216])
    assert boxes[1, 1] == boxes[1, 3] == 1216  # it lay in the padding: nothing is left of it


@pytest.mark.parametrize(
    ("pad_position", "left", "top"),
    [("center", 0, (416 - 261) // 2), ("bottom_right", 0, 0)],
)
def test_padding_goes_where_the_model_wants_it(pad_position: PadPosition, left: int, top: int) -> None:
    letterbox = Letterbox.fit((1936, 1216), (416, 416), pad_position)

    assert letterbox == Letterbox((1936, 1216), (416, 416), (416, 261), left, top)


def test_no_boxes_are_no_boxes() -> None:
    letterbox = Letterbox.fit((640, 480), (416, 416), "center")

    assert letterbox.to_image(np.zeros((0, 4), np.float32)).shape == (0, 4)


def test_what_lies_in_the_padding_alone_is_dropped() -> None:
    letterbox = Letterbox.fit((400, 200), (400, 400), "bottom_right")
    boxes = np.array([(10, 250, 60, 390), (10, 150, 60, 390), (10, 20, 60, 90)], np.float32)
    candidates = Candidates(boxes, np.array([0.9, 0.8, 0.7], np.float32), np.array([0, 1, 2], np.int32))

    found = letterbox.candidates_to_image(candidates)

    np.testing.assert_allclose(found.boxes, [(10, 150, 60, 200), (10, 20, 60, 90)])
    np.testing.assert_array_equal(found.labels, [1, 2])
