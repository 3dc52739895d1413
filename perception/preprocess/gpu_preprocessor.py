"""What preprocessing on the GPU is: the kernel of letterbox.cu, or DALI."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol

from perception.messages import Frame
from perception.preprocess.letterbox import Letterbox


class GpuPreprocessor(Protocol):
    """One camera's frames to the input tensor of its engine context, in the order of its stream.

    Made for a stream and for the device tensor (1, 3, h, w) that it writes, so that nothing is copied in between.
    """

    letterbox: Letterbox
    """The geometry, for mapping boxes back."""

    @property
    def capturable(self) -> bool:
        """Whether `enqueue` may be captured into a CUDA graph, and the graph launched again after another `stage`."""

    def stage(self, frame: Frame) -> Hashable:
        """Take a frame over to where the GPU can read it, on the host's time; the one before it is done by now.

        What the work to enqueue depends on, such as the image's size: what was captured with a frame that gave the
        same is right for this one too. `ValueError` for a frame that cannot be taken.
        """

    def enqueue(self) -> None:
        """Put the work on the stream, from what was staged to the input tensor, without waiting for the GPU.

        `ValueError` where what was staged is broken; then nothing is on the stream.
        """

    def close(self) -> None:
        """Release its memory; the stream must be idle."""
