"""Preprocessing on the GPU with the kernels of letterbox.cu."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np

from perception.cuda import Exchange, Gpu, Launch, Stream, blocks, kernels
from perception.cuda.compaction import KernelsByName
from perception.messages import REDUCTIONS, Frame, Image, ImageFormat, InputSpec
from perception.preprocess.letterbox import Letterbox

_TILE: Final = (32, 8, 1)
_SUFFIX: Final = {"float32": "f32", "float16": "f16"}


def takes(image_size: tuple[int, int]) -> frozenset[ImageFormat]:
    """The formats beside BGR of images (width, height) large: pixels share their chroma in pairs."""
    width, height = image_size
    return frozenset[ImageFormat]({"nv12", "yuyv"}) if width % 2 == height % 2 == 0 else frozenset()


class _Variant(NamedTuple):
    """How images of one shape, and so of one size and format, are taken over and letterboxed."""

    staging: Image
    launch: Launch


class KernelPreprocessor:
    """Letterboxes the images of one camera on its stream; satisfies `GpuPreprocessor`.

    `image_size` is (width, height) of the camera, `target` the device address of the input tensor (3, h, w) of `dtype`,
    float32 or float16. Images are uint8: BGR (H, W, 3), at the camera's size or at a half, a quarter or an eighth of
    it; where its sides are even also NV12 (H * 3 / 2, W) and YUYV (H, W, 2).
    """

    capturable: Final = True

    def __init__(
        self,
        gpu: Gpu,
        stream: Stream,
        known: KernelsByName,
        image_size: tuple[int, int],
        spec: InputSpec,
        *,
        target: int,
        dtype: np.dtype[Any],
    ) -> None:
        self.letterbox = Letterbox.fit(image_size, (spec.width, spec.height), spec.pad_position)
        self._stream = stream
        width, height = image_size
        self._exchange: Exchange = gpu.exchange(3 * width * height)
        grid = blocks(spec.width, _TILE[0]), blocks(spec.height, _TILE[1]), 1
        self._variants: Mapping[tuple[int, ...], _Variant] = {
            shape: _Variant(
                self._exchange.array[: int(np.prod(shape))].reshape(shape),
                known[f"letterbox_{form}_{_SUFFIX[dtype.name]}"].prepare(
                    grid, _TILE, *planes, plan_bytes(self.letterbox, spec, size, pitch), target
                ),
            )
            for shape, form, size, pitch, planes in _formats(image_size, self._exchange.pointer)
        }
        self._variant: _Variant | None = None

    def stage(self, frame: Frame) -> Hashable:
        """Copy the image to pinned memory; gives its shape, which tells size and format."""
        variant = self._variants.get(frame.image.shape)
        if variant is None or frame.image.dtype != np.uint8:  # boxes would be mapped back to the wrong places
            got = f"{frame.image.shape} {frame.image.dtype}"
            raise ValueError(f"image of {got}, made for {next(iter(self._variants))} uint8, reduced, or in YUV")
        np.copyto(variant.staging, frame.image)
        self._variant = variant
        return frame.image.shape

    def enqueue(self) -> None:
        """Put the copy to the GPU, if it takes one, and the letterbox on the stream."""
        if self._variant is None:
            raise RuntimeError("nothing was staged")
        self._exchange.to_device(self._stream, self._variant.staging.nbytes)
        self._variant.launch.enqueue(self._stream)

    def close(self) -> None:
        """Free its memory; the stream must be idle."""
        self._variants, self._variant = {}, None
        self._exchange.close()


def plan_bytes(letterbox: Letterbox, spec: InputSpec, image_size: tuple[int, int], pitch: int) -> bytes:
    """``Letterbox`` of letterbox.cu: how an image of `image_size`, with rows of `pitch` bytes, fills the input.

    `letterbox` is that of the camera: an image of another size is the same picture, so it goes to the same place.
    """
    values = (*image_size, pitch, spec.width, spec.height, *letterbox.resized_size, letterbox.left, letterbox.top)
    gain = (spec.scale / np.array(spec.std)).astype(np.float32)
    bias = (-np.array(spec.mean) / np.array(spec.std)).astype(np.float32)
    record = np.array((*values, spec.channel_order == "rgb", spec.pad_value, gain, bias), kernels.LETTERBOX)
    return record.tobytes()


def _formats(
    image_size: tuple[int, int], pointer: int
) -> list[tuple[tuple[int, ...], str, tuple[int, int], int, tuple[int, ...]]]:
    """Shape, format, (width, height), pitch in bytes and addresses of the planes of all images that may come."""
    width, height = image_size
    reduced = [(-(-width // by), -(-height // by)) for by in REDUCTIONS]
    formats: list[tuple[tuple[int, ...], str, tuple[int, int], int, tuple[int, ...]]] = [
        ((h, w, 3), "bgr", (w, h), 3 * w, (pointer,)) for w, h in reduced
    ]
    if takes(image_size):
        formats.append(((height * 3 // 2, width), "nv12", image_size, width, (pointer, pointer + height * width)))
        formats.append(((height, width, 2), "yuyv", image_size, 2 * width, (pointer,)))
    return formats
