"""The letterbox: how an image is fitted into the detector's input, and the exact way back.

Positions are continuous: (0, 0) is the outer corner of the top left pixel, so that pixel i covers [i, i + 1) and has
its centre at i + 0.5. Resizing then is a scale without an offset, which is what `cv2.resize` with ``INTER_LINEAR``
does (half-pixel centres, no antialiasing). Every implementation of the stage has to follow this.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from perception.messages import REDUCTIONS, Candidates, Float32, Image


@dataclass(frozen=True, slots=True)
class Letterbox:
    """Where an image lies in the detector's input. All sizes are (width, height) in pixels.

    The image is resized to `resized_size`, its aspect ratio kept as well as whole pixels allow, and its top left corner
    put at (`left`, `top`) of the input.
    """

    image_size: tuple[int, int]
    input_size: tuple[int, int]
    resized_size: tuple[int, int]
    left: int
    top: int

    @classmethod
    def fit(
        cls,
        image_size: tuple[int, int],
        input_size: tuple[int, int],
        pad_position: Literal["center", "bottom_right"],
    ) -> Letterbox:
        """Fit the whole image into the input, as large as it goes; an odd row or column of padding goes to the end."""
        scale = min(input_size[0] / image_size[0], input_size[1] / image_size[1])
        width, height = (
            min(max(round(of_image * scale), 1), of_input)
            for of_image, of_input in zip(image_size, input_size, strict=True)
        )
        if pad_position == "bottom_right":
            return cls(image_size, input_size, (width, height), 0, 0)
        return cls(image_size, input_size, (width, height), (input_size[0] - width) // 2, (input_size[1] - height) // 2)

    def check(self, image: Image) -> None:
        """Raise `ValueError` for an image that is not the camera's: boxes would be mapped back to the wrong places.

        It may come at a half, a quarter or an eighth of its size, as decoders can give it: it is the same picture.
        """
        width, height = self.image_size
        if image.shape not in {(-(-height // by), -(-width // by), 3) for by in REDUCTIONS}:
            raise ValueError(f"image of shape {image.shape}, made for {(height, width, 3)}")

    @property
    def scale(self) -> tuple[float, float]:
        """Input pixels per image pixel along x and y; rounding to whole pixels makes them differ a little."""
        return self.resized_size[0] / self.image_size[0], self.resized_size[1] / self.image_size[1]

    def to_input(self, boxes: Float32) -> Float32:
        """Map boxes (N, 4) as x1 y1 x2 y2 from pixels of the image to pixels of the model's input."""
        mapped: Float32 = boxes * self._scales() + self._offsets()
        return mapped

    def to_image(self, boxes: Float32) -> Float32:
        """Map boxes (N, 4) from pixels of the model's input to pixels of the image, clipped to the image."""
        width, height = self.image_size
        mapped = (boxes - self._offsets()) / self._scales()
        clipped: Float32 = np.clip(mapped, 0, np.array([width, height, width, height], np.float32), out=mapped)
        return clipped

    def candidates_to_image(self, candidates: Candidates) -> Candidates:
        """Map what was found in the model's input, attributes too, to the image: see `to_image`.

        What lies in the padding alone is nothing in the image and is dropped.
        """
        boxes = self.to_image(candidates.boxes)
        inside = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(axis=1))
        if len(inside) < len(boxes):
            candidates, boxes = candidates.take(inside), boxes[inside]
        attributes = candidates.attributes
        if attributes is not None:
            attributes = replace(
                attributes,
                centres=(attributes.centres - self._offsets()[:2]) / self._scales()[:2],
                depths_over_focal=attributes.depths_over_focal * np.float32(self.scale[1]),
            )
        return Candidates(boxes, candidates.scores, candidates.labels, attributes)

    def _scales(self) -> Float32:
        return np.array(self.scale * 2, np.float32)

    def _offsets(self) -> Float32:
        return np.array([self.left, self.top, self.left, self.top], np.float32)
