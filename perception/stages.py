"""The stages of a tick as protocols, in flow order.

An implementation satisfies one by shape alone; `backends.py` is the only module that names implementations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeAlias

from numpy.typing import NDArray

from perception.messages import (
    Candidates,
    Detections,
    Float32,
    Frame,
    FrameSet,
    Image,
    Rig,
    StageSpan,
    Tick,
    TrackSet,
)

Begin: TypeAlias = Callable[[int, Frame], None]
"""Told by a source, on the thread that waits for frame sets: this frame is decoded, and of that tick."""


class Source(Protocol):
    """Ingest: recorded or live cameras, synchronised."""

    rig: Rig

    def frame_sets(self, begin: Begin | None = None) -> Iterator[FrameSet]:
        """Yield the frame sets in time order; in real time, each as soon as its frames are decoded.

        In real time `begin` is told of each frame as soon as it is decoded, before the set is there that holds it.
        Such a set may yet come without it, or not at all.
        """

    def faults(self) -> Sequence[str]:
        """What was wrong with the data so far, a line each, with the place."""

    def close(self) -> None:
        """Stop the workers and close the files."""


class Preprocessor(Protocol):
    """Image to the detector's input tensor."""

    def __call__(self, image: Image, out: Float32) -> None:
        """Letterbox `image` (H, W, 3) uint8 BGR into `out` (3, h, w) float32, in place."""


class InferenceRequest(Protocol):
    """One inference in flight: as a CUDA stream, it is submitted to and collected from."""

    input: Float32
    """The tensor to fill, (3, h, w) float32, bound once."""

    def submit(self) -> None:
        """Start the inference of what `input` holds; returns at once."""

    def collect(self) -> tuple[NDArray[Any], ...]:
        """Wait for it; the raw outputs of one image, batch axis removed, valid until the next `submit`."""

    def cancel(self) -> None:
        """From another thread: end an inference under way soon, whose `collect` then may raise; else do nothing."""


class Head(Protocol):
    """Raw outputs to candidates."""

    def __call__(self, outputs: Sequence[NDArray[Any]]) -> Candidates:
        """Decode the outputs of one image; only candidates over the score threshold are returned."""


class Nms(Protocol):
    """Non-maximum suppression."""

    def __call__(self, candidates: Candidates) -> Candidates:
        """Keep the best of overlapping candidates of one class, by falling score."""


class Channel(Protocol):
    """One camera's path: preprocess, detect, nms."""

    def ready(self) -> bool:
        """Whether it can take a frame: not while one that was cut off is still being worked on."""

    def submit(self, frame: Frame) -> None:
        """Start on a frame; returns at once."""

    def collect(self, until_ns: int | None = None) -> tuple[Detections, tuple[StageSpan, ...]] | None:
        """Wait for the frame submitted last: its detections, and when each stage worked on it.

        None when a stage failed, or when it is not there by `until_ns` on the monotonic clock: then the frame is cut
        off, its result is discarded when it comes, and the channel is not ready until then. Without `until_ns` it waits
        as long as it takes.
        """

    def close(self) -> None:
        """Release what the channel holds."""


class Fusion(Protocol):
    """Detections of all cameras to tracks in the vehicle's frame."""

    def update(self, frames: FrameSet, detections: Sequence[Detections]) -> TrackSet:
        """Advance to the frame set's stamp and take in its detections, in its order; who did not look has none."""


class Publisher(Protocol):
    """Hands the track set to a consumer: inside the deadline, so it must be quick."""

    def publish(self, tracks: TrackSet) -> None:
        """Deliver one track set."""


class Recorder(Protocol):
    """Keeps what a tick did: called after publication, between ticks."""

    def record(self, tick: Tick) -> None:
        """Record one tick."""

    def close(self) -> None:
        """Complete the files and put them under their final names."""
