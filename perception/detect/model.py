"""What an ONNX detector is: its file, its one image input, its outputs. The same checks for every runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from numpy.typing import NDArray

from perception.errors import ConfigError, ModelError
from perception.stages import InferenceRequest

_MAX_BYTES: Final = 2**31  # what protobuf, and so ONNX, can hold
_MAX_SIDE: Final = 8192
_MAX_BATCH: Final = 64
_LFS_POINTER: Final = b"version https://git-lfs.github.com/spec/"


class Port(NamedTuple):
    """An input as its runtime declares it; a dynamic dimension is None."""

    name: str
    is_float32: bool
    shape: tuple[int | None, ...]


class ImageInput(NamedTuple):
    """The input of a detector: (batch, 3, height, width) float32. `batch` is 1 unless the model insists on more.

    `chosen` where height and width are ``detector.input_size`` and the model would take others.
    """

    name: str
    batch: int
    height: int
    width: int
    chosen: bool = False

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """As a shape."""
        return self.batch, 3, self.height, self.width

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about it."""
        if self.batch == 1:
            return ()
        return (f"the model only takes {self.batch} images at once: one is used, the others are computed for nothing",)


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded detector, for whoever has to make sense of its outputs.

    `input_size` is (width, height). `outputs` are those of a black image, by name and without the batch axis: they
    show shapes that the file leaves open, and whether boxes are in pixels and scores are probabilities.
    """

    path: Path
    input_size: tuple[int, int]
    metadata: Mapping[str, str]
    outputs: Mapping[str, NDArray[Any]]


class Detector(Protocol):
    """A model loaded into a runtime: what `openvino.load` and `onnxruntime.load` give."""

    model: Model
    notes: tuple[str, ...]
    """What was chosen, a line each, to be shown once."""

    def request(self) -> InferenceRequest:
        """Create an inference request with buffers of its own; every camera has one."""

    def close(self) -> None:
        """Release the runtime's threads and memory; no request may be in flight."""


def check_file(path: Path) -> None:
    """Refuse with `ModelError` what is no ONNX file, before a runtime gets to parse it."""
    if not path.is_file():
        raise ModelError(f"{path}: no such model file; name an ONNX detector")
    if path.suffix.lower() != ".onnx":
        raise ModelError(f"{path}: expected an ONNX model (.onnx); export the detector to ONNX first")
    try:
        with path.open("rb") as file:
            head = file.read(len(_LFS_POINTER))
        size = path.stat().st_size
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from None
    if head == _LFS_POINTER:
        raise ModelError(f"{path}: a Git-LFS pointer, not the model itself; run `git lfs pull` where it came from")
    if not 0 < size <= _MAX_BYTES:
        raise ModelError(f"{path}: {size} bytes; an ONNX model has between 1 and {_MAX_BYTES}")


def image_input(path: Path, inputs: Sequence[Port], input_size: tuple[int, int] | None) -> ImageInput:
    """Check that a model takes one image and settle its shape.

    `input_size` is ``detector.input_size``, (width, height), for dimensions that the model leaves open. Raises
    `ModelError` for an input that is not one float32 NCHW image of three channels, `ConfigError` for an `input_size`
    that is missing or contradicts the model.
    """
    seen = ", ".join(f"{port.name} {_dims(port.shape)}" for port in inputs) or "none"
    expected = "expected one float32 image of shape (batch, 3, height, width)"
    if len(inputs) != 1:
        raise ModelError(f"{path}: {len(inputs)} inputs ({seen}); {expected}")
    name, is_float32, shape = inputs[0]
    if len(shape) != 4 or shape[1] not in (3, None):
        raise ModelError(f"{path}: input {seen}; {expected}")
    if not is_float32:
        raise ModelError(f"{path}: input {name} is not float32; {expected}: export without half precision")

    batch, _, height, width = shape
    if input_size is None:
        if width is None or height is None:
            raise ConfigError(
                f"{path}: input {seen} leaves the image size open; "
                "set detector.input_size: [WIDTH, HEIGHT] to what it was trained with"
            )
    elif width not in (input_size[0], None) or height not in (input_size[1], None):
        raise ConfigError(
            f"detector.input_size: {input_size[0]}x{input_size[1]} (width x height), but the input of {path} "
            f"is fixed at {_dims((width, height))}; remove input_size"
        )
    else:
        width, height = input_size
    batch = 1 if batch is None else batch
    if not (0 < batch <= _MAX_BATCH and 0 < width <= _MAX_SIDE and 0 < height <= _MAX_SIDE):
        raise ModelError(
            f"{path}: input {seen} at {width}x{height}; expected at most {_MAX_BATCH} images of {_MAX_SIDE}x{_MAX_SIDE}"
        )
    return ImageInput(name, batch, height, width, chosen=None in shape[2:])


def first_of_batch(outputs: Sequence[NDArray[Any]]) -> tuple[NDArray[Any], ...]:
    """Remove the batch axis from the outputs of one inference: views of its first image.

    Some exports with NMS inside have no such axis. Boxes are (N, 4) at least, so where it is there one output or more
    has three dimensions.
    """
    stacked = max(output.ndim for output in outputs) >= 3
    return tuple(output[0] for output in outputs) if stacked else tuple(outputs)


def unreadable(path: Path, runtime: str, error: Exception) -> ModelError:
    """The error for a file that a runtime refuses, with the end of the runtime's message: the part that says why."""
    return ModelError(
        f"{path}: {runtime} cannot load it ({_reason(error)}); is it a complete ONNX model? export or download it again"
    )


def unusable(path: Path, image: ImageInput, runtime: str, error: Exception) -> ModelError | ConfigError:
    """The error for a model that a runtime has read and cannot run with this input: the size is to blame if chosen."""
    if not image.chosen:
        return unreadable(path, runtime, error)
    return ConfigError(
        f"detector.input_size: {image.width}x{image.height} (width x height) does not suit {path}: {runtime} cannot "
        f"run it so ({_reason(error)}); set what it was trained with, or multiples of its largest stride, often 32"
    )


def black_image(request: InferenceRequest, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Run one inference on zeros, which also warms the runtime up: copies of the outputs by name."""
    request.input[...] = 0
    request.submit()
    return {name: output.copy() for name, output in zip(names, request.collect(), strict=True)}


def _reason(error: Exception) -> str:
    """The last line of a runtime's message."""
    reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
    return reason[0].strip()[-200:]


def _dims(shape: Sequence[int | None]) -> str:
    return "x".join("?" if dimension is None else str(dimension) for dimension in shape)
