"""Preprocessing with NVIDIA DALI: one definition of its pipeline, on the CPU and on the GPU.

The letterbox is that of letterbox.py. DALI's linear resize without antialiasing samples at half-pixel centres like
cv2.resize, and crop_mirror_normalize, asked for a window larger than the image, pads, normalises and lays out planes.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Hashable
from typing import Any, Final, Literal

import numpy as np

from perception.errors import BackendError
from perception.messages import REDUCTIONS, Float32, Frame, Image, ImageFormat, InputSpec, Needed, format_of
from perception.pixels import blank, decode
from perception.preprocess.letterbox import Letterbox

TAKES: Final = frozenset[ImageFormat]({"jpeg"})
"""The formats beside BGR that the GPU's takes."""

INPUT: Final = "image"
"""What the pipelines call their input."""

Source = Literal["pixels", "encoded"]
"""What a pipeline is fed: images (H, W, 3) uint8 BGR, or the bytes of a JPEG or PNG."""


def letterbox_pipeline(
    letterbox: Letterbox, spec: InputSpec, source: Source, *, gpu: int | None = None, half: bool = False
) -> Any:
    """Define the pipeline from one image to a detector's input (3, h, w), in float32 or `half` precision.

    It runs on the GPU of that ordinal, in its primary context, and then decodes JPEGs there too; or on the CPU, where
    it needs no driver. Nothing is prefetched: an image is worked on when it is there.
    """
    dali = _dali()
    pipeline = dali.Pipeline(batch_size=1, num_threads=1, device_id=gpu, prefetch_queue_depth=1)
    with pipeline:
        image = _pixels(gpu) if source == "pixels" else _decoded(gpu, letterbox)
        pipeline.set_outputs(_letterbox(image, letterbox, spec, half=half))
    return pipeline


def _dali() -> Any:
    """DALI's package, imported when it is used: that takes its time, and not every machine has it."""
    return importlib.import_module("nvidia.dali")


def _pixels(gpu: int | None) -> Any:
    pixels = _dali().fn.external_source(name=INPUT, dtype=_dali().types.UINT8, ndim=3, layout="HWC")
    return pixels if gpu is None else pixels.gpu()


def _decoded(gpu: int | None, letterbox: Letterbox) -> Any:
    """An image at the size at which the CPU would decode it: linear resizing to a half is the mean of four pixels."""
    fn, types = _dali().fn, _dali().types
    reduction = _reduction(letterbox)
    image = fn.decoders.image(
        fn.external_source(name=INPUT, dtype=types.UINT8, ndim=1),
        device="cpu" if gpu is None else "mixed",
        output_type=types.BGR,
        adjust_orientation=False,  # calibration refers to the sensor's rows and columns
        jpeg_fancy_upsampling=reduction == 1,  # "mixed" then is as OpenCV, which smooths chroma at full size only
    )
    width, height = letterbox.image_size
    for by in REDUCTIONS[1:]:
        if by <= reduction:
            size = -(-height // by), -(-width // by)
            image = fn.resize(image, size=size, interp_type=types.INTERP_LINEAR, antialias=False)
    return image


def _reduction(letterbox: Letterbox) -> int:
    """What a decoder may divide the size of an image by."""
    return Needed(letterbox.resized_size).reduction(letterbox.image_size)


def _letterbox(image: Any, letterbox: Letterbox, spec: InputSpec, *, half: bool) -> Any:
    fn, types = _dali().fn, _dali().types
    width, height = letterbox.resized_size
    mean, std = np.array(spec.mean), np.array(spec.std)
    resized = fn.resize(image, size=(height, width), interp_type=types.INTERP_LINEAR, antialias=False)
    if spec.channel_order == "rgb":
        resized = fn.color_space_conversion(resized, image_type=types.BGR, output_type=types.RGB)
    return fn.crop_mirror_normalize(
        resized,
        crop=(spec.height, spec.width),
        crop_pos_x=_part(letterbox.left, spec.width - width),
        crop_pos_y=_part(letterbox.top, spec.height - height),
        out_of_bounds_policy="pad",
        fill_values=((spec.pad_value * spec.scale - mean) / std).tolist(),
        mean=(mean / spec.scale).tolist(),
        std=(std / spec.scale).tolist(),
        dtype=types.FLOAT16 if half else types.FLOAT,
        output_layout="CHW",
    )


def _part(before: int, padding: int) -> float:
    """Where the window begins, as DALI wants it: as a part of what it is larger by than the image."""
    return before / padding if padding else 0.0


class DaliPreprocessor:
    """On the CPU: letterboxes the images of one camera. It owns buffers, so each camera has its own.

    Arguments and images are those of `OpenCvPreprocessor`, and results equal its to one grey level. It proves the
    pipeline where there is no GPU; OpenCV is several times as fast.
    """

    def __init__(self, image_size: tuple[int, int], spec: InputSpec) -> None:
        self.letterbox = Letterbox.fit(image_size, (spec.width, spec.height), spec.pad_position)
        self._pipeline = letterbox_pipeline(self.letterbox, spec, "pixels")
        self._pipeline.build()

    def __call__(self, image: Image, out: Float32) -> None:
        """Letterbox `image` (H, W, 3) uint8 BGR into `out` (3, h, w) float32, in place."""
        self.letterbox.check(image)
        self._pipeline.feed_input(INPUT, [image])
        (prepared,) = self._pipeline.run()
        np.copyto(out, prepared.at(0))


class DaliGpuPreprocessor:
    """On the GPU: one camera's frames to the input tensor of its engine context; satisfies `GpuPreprocessor`.

    `stream` is the handle of the camera's stream and `target` the device address of the tensor, (3, h, w) of `dtype`,
    float32 or float16. Images are BGR, as for the CPU, or JPEGs: YUV is for `KernelPreprocessor`. A JPEG that DALI
    refuses is decoded on the CPU, which makes something of a damaged one, and where that does not either, is a
    `ValueError`.

    DALI's host threads put the work on streams of its own; the camera's stream waits for it by an event, the host only
    until it is put. For a JPEG that includes what decoding leaves to the host, which on a GPU without a decoder of its
    own is the Huffman codes. So it cannot be captured into a CUDA graph. DALI gives its results where it chose: they
    are copied to the tensor on the device, in the stream's order.

    Raises `BackendError` where DALI decodes no JPEG here. Not verified on hardware.
    """

    capturable: Final = False

    def __init__(
        self,
        image_size: tuple[int, int],
        spec: InputSpec,
        *,
        gpu: int,
        stream: int,
        target: int,
        dtype: np.dtype[Any],
    ) -> None:
        self.letterbox = Letterbox.fit(image_size, (spec.width, spec.height), spec.pad_position)
        self._stream, self._target = stream, ctypes.c_void_p(target)
        half = dtype == np.float16
        self._pixels: Any = letterbox_pipeline(self.letterbox, spec, "pixels", gpu=gpu, half=half)
        self._encoded: Any = letterbox_pipeline(self.letterbox, spec, "encoded", gpu=gpu, half=half)
        self._pixels.build()
        self._encoded.build()
        self._image = blank("jpeg", image_size)
        self._prepared: Any = None
        try:
            self._run(self._encoded, self._image)
        except RuntimeError as error:
            raise BackendError(f"DALI decodes no JPEG here ({error}); use preprocess: kernel") from None

    def stage(self, frame: Frame) -> Hashable:
        """Take over the frame, its pixels or its bytes."""
        self._image = frame.image
        if format_of(self._image) != "jpeg":
            self.letterbox.check(self._image)
        return format_of(self._image)

    def enqueue(self) -> None:
        """Have the staged frame prepared, and the camera's stream wait for that and copy it to the tensor."""
        if format_of(self._image) != "jpeg":
            self._run(self._pixels, self._image)
        else:
            try:
                self._run(self._encoded, self._image)
            except RuntimeError:
                self._run(self._pixels, decode(self._image, _reduction(self.letterbox)))
        self._prepared.copy_to_external(self._target, ctypes.c_void_p(self._stream), non_blocking=True)

    def close(self) -> None:
        """Release its memory; the stream must be idle."""
        self._prepared = self._pixels = self._encoded = None

    def _run(self, pipeline: Any, image: Image) -> None:
        pipeline.feed_input(INPUT, [image])
        # Kept until the next: the copy to the tensor is yet to be made when `enqueue` returns.
        (self._prepared,) = pipeline.run(self._stream)
