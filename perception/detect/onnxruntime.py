"""Detectors on the CPU with ONNX Runtime: the portable alternative, and the reference."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from perception.detect.model import (
    ImageInput,
    Model,
    Port,
    black_image,
    check_file,
    first_of_batch,
    image_input,
    unreadable,
    unusable,
)
from perception.messages import Float32
from perception.stages import InferenceRequest

_ERRORS_ONLY = 3


def load(path: Path, *, threads: int, cameras: int, input_size: tuple[int, int] | None = None) -> OnnxRuntimeDetector:
    """Load an ONNX detector for `cameras` requests at a time on `threads` threads.

    `input_size` is ``detector.input_size``. Raises `ModelError` and `ConfigError` as `model.check_file` and
    `model.image_input` do, `ModelError` for a model that ONNX Runtime cannot read, and either as `model.unusable` does.
    """
    check_file(path)
    streams = min(cameras, threads)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads // streams
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 (the runtime's errors share no narrower base)
        raise unreadable(path, "ONNX Runtime", error) from None
    image = image_input(path, [_port(port) for port in session.get_inputs()], input_size)
    try:
        return OnnxRuntimeDetector(path, session, image, streams)
    except Exception as error:  # noqa: BLE001
        raise unusable(path, image, "ONNX Runtime", error) from None


class OnnxRuntimeDetector:
    """A session that `streams` threads run inferences in; satisfies `model.Detector`."""

    def __init__(self, path: Path, session: Any, image: ImageInput, streams: int) -> None:
        self._session = session
        self._image = image
        self._streams = ThreadPoolExecutor(streams, thread_name_prefix="onnxruntime")
        metadata = dict(session.get_modelmeta().custom_metadata_map)
        outputs = black_image(self.request(), [port.name for port in session.get_outputs()])
        self.model = Model(path, (image.width, image.height), metadata, outputs)
        runtime = f"ONNX Runtime {onnxruntime.__version__} on the CPU"
        threads = streams * session.get_session_options().intra_op_num_threads
        self.notes = (f"{runtime}, streams: {streams}, threads: {threads}", *image.notes)

    def request(self) -> InferenceRequest:
        """Create an inference request with an input buffer of its own."""
        return _Request(self._session, self._image, self._streams)

    def close(self) -> None:
        """Stop the threads."""
        self._streams.shutdown()


class _Request:
    """An inference on one of the streams. The input is not copied; I/O binding gained nothing measurable over `run`."""

    def __init__(self, session: Any, image: ImageInput, streams: Executor) -> None:
        batch = np.zeros(image.shape, np.float32)
        self.input: Float32 = batch[0]
        self._run = session.run
        self._feed = {image.name: batch}
        self._options = onnxruntime.RunOptions()
        self._streams = streams
        self._outputs: Future[Sequence[NDArray[Any]]]

    def submit(self) -> None:
        """Start the inference of what `input` holds; returns at once."""
        self._options.terminate = False
        self._outputs = self._streams.submit(self._run, None, self._feed, self._options)

    def collect(self) -> tuple[NDArray[Any], ...]:
        """Wait for it; the outputs of one image."""
        return first_of_batch(self._outputs.result())

    def cancel(self) -> None:
        """End it before its next layer: `collect` raises then."""
        self._options.terminate = True


def _port(port: Any) -> Port:
    shape = tuple(dimension if isinstance(dimension, int) else None for dimension in port.shape)
    return Port(port.name, port.type == "tensor(float)", shape)
