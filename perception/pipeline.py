"""The tick: a frame set in, a track set out.

It knows the protocols of `stages` and nothing of how they are implemented: the same code drives worker threads
on two CPU cores and CUDA streams on the vehicle.
"""

from __future__ import annotations

import gc
from collections.abc import Generator, Mapping, Sequence

from perception.budget import Ledger
from perception.clock import Clock
from perception.messages import FrameSet, StageSpan, Tick, TickTimes
from perception.stages import Channel, Fusion, Publisher, Recorder, Source


class Pipeline:
    """Runs the ticks of one drive, or of one day on the vehicle."""

    def __init__(
        self,
        *,
        channels: Mapping[str, Channel],
        fusion: Fusion,
        publishers: Sequence[Publisher],
        recorders: Sequence[Recorder],
        ledger: Ledger,
        clock: Clock,
    ) -> None:
        self._channels = channels
        self._fusion = fusion
        self._publishers = publishers
        self._recorders = recorders
        self._ledger = ledger
        self._clock = clock

    def run(self, source: Source) -> Generator[Tick, None, None]:
        """Yield each tick once it is published, booked and recorded.

        Garbage is collected between ticks only: what start-up left is frozen out of sight of the collector.
        """
        gc.collect()
        gc.freeze()
        gc.disable()
        try:
            for frames in source.frame_sets():
                tick = self.tick(frames)
                age_ns = self._clock.stamp_ns() - frames.stamp_ns
                self._ledger.enter(frames.tick, tick.times, age_ns, frames.missing)
                for recorder in self._recorders:
                    recorder.record(tick)
                yield tick
                gc.collect(1)
        finally:
            gc.enable()
            gc.unfreeze()

    def tick(self, frames: FrameSet) -> Tick:
        """Turn one frame set into a published track set."""
        for frame in frames.frames:
            self._channels[frame.camera].submit(frame)
        collected = [self._channels[frame.camera].collect() for frame in frames.frames]
        detections = tuple(found for found, _ in collected)

        fusing = self._clock.now_ns()
        tracks = self._fusion.update(frames, detections)
        publishing = self._clock.now_ns()
        for publisher in self._publishers:
            publisher.publish(tracks)
        published = self._clock.now_ns()

        spans = (
            *(StageSpan("ingest", frame.camera, *frame.ingest) for frame in frames.frames),
            *(span for _, of_camera in collected for span in of_camera),
            StageSpan("fusion", "", fusing, publishing),
            StageSpan("output", "", publishing, published),
        )
        deadline = None if self._clock.stepped else frames.arrival_ns + self._ledger.budget.end_to_end_ns
        return Tick(frames, detections, tracks, TickTimes(frames.arrival_ns, published, deadline, spans))
