"""A detector at work on drives, outside the pipeline: the same preprocessing, head and suppression as in it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from perception.config import DetectorConfig, NmsConfig
from perception.detect import openvino, recognise
from perception.messages import Candidates, Float32, Frame, InputSpec
from perception.nms.numpy import NumpyNms
from perception.preprocess.opencv import OpenCvPreprocessor
from perception.stages import Head, InferenceRequest


class Tensors:
    """Images of several cameras as the detector's input, (1, 3, h, w) float32."""

    def __init__(self, sizes: Mapping[str, tuple[int, int]], spec: InputSpec) -> None:
        self._preprocessors = {camera: OpenCvPreprocessor(size, spec) for camera, size in sizes.items()}
        self._shape = (1, 3, spec.height, spec.width)

    def __call__(self, frame: Frame) -> Float32:
        """A new tensor for a frame."""
        tensor = np.empty(self._shape, np.float32)
        self._preprocessors[frame.camera](frame.image, tensor[0])
        return tensor

    def to_image(self, camera: str, found: Candidates) -> Candidates:
        """What was found in the input, in pixels of the camera's image."""
        return self._preprocessors[camera].letterbox.candidates_to_image(found)


class Runner:
    """One model on the CPU, for one image at a time; `spec` is how it wants them, `inferences_s` what each took."""

    def __init__(self, model: Path, config: DetectorConfig, nms: NmsConfig, threads: int) -> None:
        self._detector = openvino.load(model, threads=threads, cameras=1, input_size=config.input_size)
        recognised = recognise.recognise(self._detector.model, config)
        self.spec: InputSpec = recognised.input_spec
        self._head: Head = recognised.head
        self._request: InferenceRequest = self._detector.request()
        self._nms = NumpyNms(nms)
        self.inferences_s: list[float] = []

    def __call__(self, tensor: Float32) -> Candidates:
        """What is in one image, in pixels of the input."""
        self._request.input[...] = tensor[0]
        began = time.perf_counter()
        self._request.submit()
        outputs = self._request.collect()
        self.inferences_s.append(time.perf_counter() - began)
        return self._nms(self._head(outputs))

    def close(self) -> None:
        """Release the runtime."""
        self._detector.close()
