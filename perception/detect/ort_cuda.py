"""Detectors on the GPU with ONNX Runtime and its CUDA provider: for machines without TensorRT.

The provider is given the camera's stream and the addresses of the tensors, so nothing is copied and nothing waits. A
session knows one stream only: so each camera has a session, and the weights are on the GPU once per camera.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from perception.cuda import Gpu, Stream, Workspace
from perception.detect.gpu_engine import DeviceTensor, EngineContext
from perception.detect.model import (
    ImageInput,
    Model,
    Port,
    check_file,
    first_of_batch,
    image_input,
    unreadable,
    unusable,
)
from perception.errors import BackendError, ModelError

_ERRORS_ONLY: Final = 3


class Provider(NamedTuple):
    """Who computes: ONNX Runtime's name of it, of the memory it computes in, and its options."""

    name: str
    device: str
    options: Mapping[str, str]
    takes_stream: bool


CUDA: Final = Provider(
    "CUDAExecutionProvider",
    "cuda",
    {
        # TensorFloat-32 rounds float32 to 10 bits: results would not be those of the CPU.
        "use_tf32": "0",
        # By default each session times the algorithms of its convolutions and takes the quickest: the last bits would
        # differ from camera to camera and from run to run.
        "cudnn_conv_algo_search": "HEURISTIC",
        "do_copy_in_default_stream": "1",
    },
    takes_stream=True,
)
CPU: Final = Provider("CPUExecutionProvider", "cpu", {}, takes_stream=False)
"""In host memory that plays the GPU's: for tests on machines without one."""


def load(path: Path, gpu: Gpu, *, input_size: tuple[int, int] | None = None, provider: Provider = CUDA) -> OrtEngine:
    """Load an ONNX detector; satisfies `GpuEngine`.

    `input_size` is ``detector.input_size``. Raises `ModelError` and `ConfigError` as `model.check_file` and
    `model.image_input` do, `ModelError` for a model that ONNX Runtime cannot read or whose outputs have no fixed
    shapes, and `BackendError` where the provider is not there.
    """
    check_file(path)
    if provider.name not in onnxruntime.get_available_providers():
        raise BackendError(
            f"ONNX Runtime {onnxruntime.__version__} here has no {provider.name}; pip install onnxruntime-gpu instead "
            "of onnxruntime, or use detector.runtime: tensorrt"
        )
    onnxruntime.preload_dlls()  # CUDA and cuDNN where pip put them
    with gpu.current():
        return OrtEngine(path, gpu, input_size, provider)


class OrtEngine:
    """A model that ONNX Runtime has read; its contexts each read it again, for a stream of their own."""

    capturable: Final = False  # a run may allocate from the provider's arena

    def __init__(self, path: Path, gpu: Gpu, input_size: tuple[int, int] | None, provider: Provider) -> None:
        self._path = path
        self._gpu = gpu
        self._provider = provider
        self._place = provider.device, gpu.ordinal if provider.takes_stream else 0
        session = self._session(None)
        image = image_input(path, [_port(port) for port in session.get_inputs()], input_size)
        self._image = image
        outputs = _outputs_of_black(path, session, image)
        self._outputs = {name: (output.shape, output.dtype) for name, output in outputs.items()}
        metadata = dict(session.get_modelmeta().custom_metadata_map)
        first = first_of_batch(list(outputs.values()))
        self.model = Model(path, (image.width, image.height), metadata, dict(zip(outputs, first, strict=True)))
        self.notes = (
            f"ONNX Runtime {onnxruntime.__version__} with {provider.name}, a session per camera",
            *image.notes,
        )

    def context(self, stream: Stream) -> EngineContext:
        """Create a session on a stream, and its tensors."""
        return _Context(self._session(stream), self._image, self._outputs, Workspace(self._gpu, stream), self._place)

    def close(self) -> None:
        """Nothing to release: sessions belong to the contexts."""

    def _session(self, stream: Stream | None) -> Any:
        name, options = self._provider.name, dict(self._provider.options)
        if self._provider.takes_stream:
            options["device_id"] = str(self._gpu.ordinal)
            if stream is not None:
                options["user_compute_stream"] = str(stream.handle)
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = _ERRORS_ONLY
        try:
            session = onnxruntime.InferenceSession(str(self._path), settings, providers=[(name, options)])
        except Exception as error:  # noqa: BLE001 (the runtime's errors share no narrower base)
            raise unreadable(self._path, "ONNX Runtime", error) from None
        if session.get_providers()[0] != name:  # it goes on with the CPU on its own
            raise BackendError(
                f"ONNX Runtime {onnxruntime.__version__} cannot start its {name} (it says why above); "
                "are the CUDA and cuDNN here those that it was built with?"
            )
        return session


class _Context:
    """One camera's session, bound to its tensors for good."""

    def __init__(
        self,
        session: Any,
        image: ImageInput,
        outputs: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]],
        workspace: Workspace,
        place: tuple[str, int],
    ) -> None:
        self._session = session
        self._workspace = workspace
        float32 = np.dtype(np.float32)
        self.input = _tensor(image.name, image.shape, float32, workspace)
        self.outputs = tuple(_tensor(name, shape, dtype, workspace) for name, (shape, dtype) in outputs.items())
        self._binding = session.io_binding()
        self._bind(self._binding.bind_input, self.input, place)
        for output in self.outputs:
            self._bind(self._binding.bind_output, output, place)
        self._options = onnxruntime.RunOptions()
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")

    @staticmethod
    def _bind(bind: Any, tensor: DeviceTensor, place: tuple[str, int]) -> None:
        bind(tensor.name, *place, tensor.dtype.type, tensor.shape, tensor.pointer)

    def enqueue(self) -> None:
        """Put one inference on the stream."""
        self._session.run_with_iobinding(self._binding, self._options)

    def close(self) -> None:
        """Release session and tensors."""
        del self._binding, self._session
        self._workspace.close()


def _tensor(name: str, shape: Sequence[int], dtype: np.dtype[Any], workspace: Workspace) -> DeviceTensor:
    return DeviceTensor(name, tuple(shape), dtype, workspace.array(int(np.prod(shape)), dtype))


def _outputs_of_black(path: Path, session: Any, image: ImageInput) -> dict[str, NDArray[Any]]:
    """The outputs of a black image, by name; one of noise must give the same shapes, as tensors are bound for good."""
    names = [port.name for port in session.get_outputs()]
    noise = np.random.default_rng(0).uniform(0, 255, image.shape).astype(np.float32)
    try:
        black, other = (session.run(names, {image.name: batch}) for batch in (np.zeros_like(noise), noise))
    except Exception as error:  # noqa: BLE001
        raise unusable(path, image, "ONNX Runtime", error) from None
    for name, first, second in zip(names, black, other, strict=True):
        if first.shape != second.shape or first.size == 0:
            raise ModelError(
                f"{path}: the shape of output {name} depends on what is in the image, on a GPU it must be fixed; "
                "export the model without NMS inside, or with a fixed number of boxes"
            )
    return dict(zip(names, black, strict=True))


def _port(port: Any) -> Port:
    shape = tuple(dimension if isinstance(dimension, int) else None for dimension in port.shape)
    return Port(port.name, port.type == "tensor(float)", shape)
