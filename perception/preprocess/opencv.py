"""Preprocessing on the CPU with OpenCV."""

from __future__ import annotations

import cv2
import numpy as np

from perception.messages import Float32, Image, InputSpec
from perception.preprocess.letterbox import Letterbox


class OpenCvPreprocessor:
    """Letterboxes the images of one camera. It owns buffers, so each camera has its own.

    `image_size` is (width, height) of the camera; `letterbox` is the geometry, for mapping boxes back.
    """

    def __init__(self, image_size: tuple[int, int], spec: InputSpec) -> None:
        self.letterbox = Letterbox.fit(image_size, (spec.width, spec.height), spec.pad_position)
        width, height = self.letterbox.resized_size
        left, top = self.letterbox.left, self.letterbox.top
        self._rows, self._columns = slice(top, top + height), slice(left, left + width)
        self._resized = np.empty((height, width, 3), np.uint8)
        self._blue_green_red = [np.empty((height, width), np.uint8) for _ in range(3)]
        self._planes = self._blue_green_red[:: -1 if spec.channel_order == "rgb" else 1]

        std = np.array(spec.std)
        self._gains = (spec.scale / std).astype(np.float32)
        self._biases = (-np.array(spec.mean) / std).astype(np.float32)
        self._pads = (spec.pad_value * self._gains + self._biases).astype(np.float32)[:, None, None]

    def __call__(self, image: Image, out: Float32) -> None:
        """Letterbox `image` (H, W, 3) uint8 BGR into `out` (3, h, w) float32, in place."""
        self.letterbox.check(image)
        cv2.resize(image, self.letterbox.resized_size, dst=self._resized, interpolation=cv2.INTER_LINEAR)
        # Planes first, floats after: three quarters of the bytes to move and twice as fast as blobFromImage.
        cv2.split(self._resized, self._blue_green_red)
        covered = out[:, self._rows, self._columns]
        for plane, target, gain, bias in zip(self._planes, covered, self._gains, self._biases, strict=True):
            if gain == 1:
                np.copyto(target, plane)
            else:
                np.multiply(plane, gain, out=target)
            if bias != 0:
                np.add(target, bias, out=target)
        out[:, : self._rows.start] = self._pads
        out[:, self._rows.stop :] = self._pads
        out[:, self._rows, : self._columns.start] = self._pads
        out[:, self._rows, self._columns.stop :] = self._pads
