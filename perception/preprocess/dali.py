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

from perception.messages import Float32, Frame, Image, InputSpec
from perception.preprocess.letterbox import Letterbox

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
        image = _image(source, on_gpu=gpu is not None)
        pipeline.set_outputs(_letterbox(image, letterbox, spec, half=half))
    return pipeline


def _dali() -> Any:
    """DALI's package, imported when it is used: that takes its time, and not every machine has it."""
    return importlib.import_module("nvidia.dali")


def _image(source: Source, *, on_gpu: bool) -> Any:
    fn, types = _dali().fn, _dali().types
    if source == "pixels":
        pixels = fn.external_source(name=INPUT, dtype=types.UINT8, ndim=3, layout="HWC")
        return pixels.gpu() if on_gpu else pixels
    return fn.decoders.image(
        fn.external_source(name=INPUT, dtype=types.UINT8, ndim=1),
        device="mixed" if on_gpu else "cpu",
        output_type=types.BGR,
        adjust_orientation=False,  # calibration refers to the sensor's rows and columns
        jpeg_fancy_upsampling=True,  # chroma on the GPU as on the CPU
    )


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
    float32 or float16. Images are BGR, as for the CPU: YUV is for `KernelPreprocessor`.

    DALI's host threads put the work on streams of its own; the camera's stream waits for it by an event, the host only
    until it is put. So it cannot be captured into a CUDA graph. DALI gives its results where it chose: they are copied
    to the tensor on the device, in the stream's order.

    Not verified on hardware.
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
        source: Source,
    ) -> None:
        self.letterbox = Letterbox.fit(image_size, (spec.width, spec.height), spec.pad_position)
        self._source = source
        self._stream, self._target = stream, ctypes.c_void_p(target)
        half = dtype == np.float16
        self._pipeline: Any = letterbox_pipeline(self.letterbox, spec, source, gpu=gpu, half=half)
        self._pipeline.build()
        self._prepared: Any = None

    def stage(self, frame: Frame) -> Hashable:
        """Copy the frame, its pixels or its encoded bytes, to where DALI reads it."""
        if self._source == "pixels":
            self.letterbox.check(frame.image)
            image = frame.image
        elif frame.encoded is not None:
            image = np.frombuffer(frame.encoded.data, np.uint8)
        else:
            raise ValueError(f"a frame of {frame.camera} that does not come encoded")
        self._pipeline.feed_input(INPUT, [image])
        return self._source

    def enqueue(self) -> None:
        """Have the staged frame prepared, and the camera's stream wait for that and copy it to the tensor."""
        # Kept until the next: the copy is yet to be made when this returns.
        (self._prepared,) = self._pipeline.run(self._stream)
        self._prepared.copy_to_external(self._target, ctypes.c_void_p(self._stream), non_blocking=True)

    def close(self) -> None:
        """Release its memory; the stream must be idle."""
        self._prepared = self._pipeline = None
