"""The tick: a frame set in, a track set out, by the deadline.

It knows the protocols of `stages` and nothing of how they are implemented: the same code drives worker threads
on two CPU cores and CUDA streams on the vehicle. What is left out when time is short, the governor decides.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from perception import realtime
from perception.budget import Ledger
from perception.clock import Clock
from perception.governor import Enforcement, Plan, Step
from perception.messages import Decision, Frame, FrameSet, StageSpan, Tick, TickTimes
from perception.stages import Channel, Fusion, Publisher, Recorder, Source

_ALONE_S: Final = 1.0  # for so long the tick may keep the interpreter from the others, while it fuses and publishes
_log = logging.getLogger(__name__)


class Pipeline:
    """Runs the ticks of one drive, or of one day on the vehicle.

    `channels` are those of each level of the ladder. Every frame set gives exactly one published track set. A camera's
    channel starts as soon as its own frame is decoded, where the source tells and the governor allows it.
    """

    def __init__(
        self,
        *,
        channels: Sequence[Mapping[str, Channel]],
        fusion: Fusion,
        enforcement: Enforcement,
        publishers: Sequence[Publisher],
        recorders: Sequence[Recorder],
        ledger: Ledger,
        clock: Clock,
    ) -> None:
        self._channels = channels
        self._fusion = fusion
        self._enforcement = enforcement
        self._publishers = publishers
        self._recorders = recorders
        self._ledger = ledger
        self._clock = clock
        self._begun: dict[str, tuple[int, Frame, Channel]] = {}

    def run(self, source: Source) -> Generator[Tick, None, None]:
        """Yield each tick once it is published, booked and recorded.

        Garbage is collected between ticks only: what start-up left is frozen out of sight of the collector.
        """
        gc.collect()
        gc.freeze()
        gc.disable()
        try:
            with realtime.switching(realtime.SHARING_S):
                for frames in source.frame_sets(self._begin):
                    tick = self.tick(frames)
                    age_ns = self._clock.stamp_ns() - frames.stamp_ns
                    self._ledger.enter(frames.tick, tick.times, age_ns, frames.missing, tick.tracks.decision)
                    for recorder in self._recorders:
                        recorder.record(tick)
                    yield tick
                    gc.collect(1)
        finally:
            gc.enable()
            gc.unfreeze()

    def tick(self, frames: FrameSet) -> Tick:
        """Turn one frame set into a published track set."""
        clock, enforcement = self._clock, self._enforcement
        frames, begun = self._take_begun(frames)
        plan = enforcement.plan(frames, clock.now_ns())
        if begun:  # what has begun may still be in time, and who went first is known
            order = (*begun, *(camera for camera in plan.cameras if camera not in begun))
            plan = plan._replace(dropped=False, cameras=order)
        looking = {} if plan.dropped else self._submit(frames, plan, begun)
        # Last first: when time is up, what has not begun must not begin in the place of what is given up on.
        results = {
            camera: looking[camera].collect(plan.until_ns) for camera in reversed(plan.cameras) if camera in looking
        }
        collected = {camera: results[camera] for camera in looking}
        done = [result for result in collected.values() if result is not None]
        detections = tuple(found for found, _ in done)

        with realtime.switching(_ALONE_S):
            fusing = clock.now_ns()
            tracks = self._fusion.update(frames, detections)
            publishing = clock.now_ns()
            deadline = None if clock.stepped else frames.arrival_ns + self._ledger.budget.end_to_end_ns
            decision = plan.decision or self._decision(frames, plan, collected, deadline, publishing)
            tracks = replace(tracks, decision=decision)
            for publisher in self._publishers:
                publisher.publish(tracks)
            published = clock.now_ns()

        spans = (
            *(StageSpan("ingest", frame.camera, *frame.ingest) for frame in frames.frames if frame.decoded),
            *(span for _, of_camera in done for span in of_camera),
            StageSpan("fusion", "", fusing, publishing),
            StageSpan("output", "", publishing, published),
        )
        times = TickTimes(frames.arrival_ns, published, deadline, spans)
        step = enforcement.learn(frames.tick, plan, decision, times)
        if step is not None:
            self._tell(step)
        return Tick(frames, detections, tracks, times)

    def _begin(self, tick: int, frame: Frame) -> None:
        """Start a camera's channel on a frame whose set is not there yet, if that is allowed."""
        level, cameras = self._enforcement.early(tick)
        channel = self._channels[level][frame.camera]
        if frame.camera in cameras and frame.camera not in self._begun and channel.ready():
            channel.submit(frame)
            self._begun[frame.camera] = (tick, frame, channel)

    def _take_begun(self, frames: FrameSet) -> tuple[FrameSet, dict[str, Channel]]:
        """The channels that have begun on frames of this set, in the order in which they did; others are given up on.

        A set may have been handed over just as a frame was decoded: the channel has its image, so the set gets it too.
        """
        if not self._begun:
            return frames, {}
        captures_ns = {frame.camera: frame.capture_ns for frame in frames.frames}
        begun, decoded = {}, {}
        for camera, (tick, frame, channel) in self._begun.items():
            if tick == frames.tick and captures_ns.get(camera) == frame.capture_ns:
                begun[camera], decoded[camera] = channel, frame
            else:
                channel.collect(0)
        self._begun.clear()
        return replace(frames, frames=tuple(decoded.get(f.camera, f) for f in frames.frames)), begun

    def _submit(self, frames: FrameSet, plan: Plan, begun: Mapping[str, Channel]) -> dict[str, Channel]:
        """Start the channels that look, the most important first; they are given in the order of the frames."""
        channels = self._channels[plan.level]
        looking = {
            frame.camera: channels[frame.camera]
            for frame in frames.frames
            if frame.camera in begun
            or (frame.decoded and frame.camera in plan.cameras and channels[frame.camera].ready())
        }
        of_camera = {frame.camera: frame for frame in frames.frames}
        for camera in plan.cameras:
            if camera in looking and camera not in begun:
                looking[camera].submit(of_camera[camera])
        return looking

    def _decision(
        self, frames: FrameSet, plan: Plan, collected: Mapping[str, Any], deadline_ns: int | None, now_ns: int
    ) -> Decision:
        skipped, late = [], []
        for frame in () if plan.dropped else frames.frames:
            camera = frame.camera
            if camera in collected:
                if collected[camera] is None:
                    late.append(camera)
            elif camera in plan.cameras and not frame.decoded:
                late.append(camera)
            else:
                skipped.append(camera)
        return Decision(
            plan.level,
            plan.dropped,
            tuple(skipped),
            tuple(late),
            deadline_met=deadline_ns is None or now_ns <= deadline_ns,
            age_ns=0 if deadline_ns is None else self._clock.stamp_ns() - frames.stamp_ns,
        )

    def _tell(self, step: Step) -> None:
        rung = self._enforcement.rungs[step.after]
        level = logging.ERROR if step.alarm else logging.WARNING if step.after > step.before else logging.INFO
        _log.log(level, "tick %d: level %d, %s: %s", step.tick, step.after, rung.name, step.reason)
