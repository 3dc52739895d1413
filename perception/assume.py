"""Another machine's latency: what it would have made of a drive, told from a profile of its costs.

The work is done for its results, but takes in *virtual time* what is drawn from the profile: decoding, the channels of
the cameras, fusion and output. Enforcement acts on that time as it does on the vehicle. So the same profile, seed and
drive give the same ticks on any machine, however fast it is.

A cost is a distribution, kept as quantiles. Between them the inverse of its distribution function is taken as linear,
so what is drawn is never beyond what was measured. Draws are keyed, not streamed: each depends on the seed, on what
it is for and on the time stamp of the data only, and not on what else was drawn before it. They do not depend on each
other either: a machine that is slow in everything at once, such as one that throttles, is slower than its profile.
A camera's wait for a worker is one of its costs, so a profile holds for about as many cameras as it was measured with.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Final, Protocol

from pydantic import AfterValidator, Field

from perception.config import Section, load_file
from perception.governor import Enforcement
from perception.messages import NO_IMAGE, Detections, Frame, FrameSet, Span, StageSpan, TrackSet
from perception.stages import Begin, Channel, Fusion, Publisher, Source

PROBABILITIES: Final = (0.0, 0.5, 0.9, 0.99, 0.999, 1.0)
"""Of what a profile has quantiles."""

CHANNEL: Final = ("queue", "preprocess", "detect", "nms")
"""A camera's path once its frame is decoded, in flow order."""

_LONGEST_MS: Final = 60_000.0
_MOST_CAMERAS: Final = 100


def _ascending(quantiles: tuple[float, ...]) -> tuple[float, ...]:
    if list(quantiles) != sorted(quantiles):
        raise ValueError(f"quantiles must not fall from one probability to the next ({_PROBABILITIES})")
    return quantiles


_PROBABILITIES: Final = ", ".join(f"{probability:g}" for probability in PROBABILITIES)
_Milliseconds = Annotated[float, Field(ge=0, le=_LONGEST_MS)]
Quantiles = Annotated[
    tuple[_Milliseconds, _Milliseconds, _Milliseconds, _Milliseconds, _Milliseconds, _Milliseconds],
    AfterValidator(_ascending),
    Field(description=f"milliseconds, at the probabilities {_PROBABILITIES}"),
]


class CameraCosts(Section):
    """What one camera costs.

    `ingest_ms` is from the arrival of its frame to the decoded image, `queue_ms` from there to the begin of
    preprocessing; the rest is what each stage takes.
    """

    ingest_ms: Quantiles
    queue_ms: Quantiles
    preprocess_ms: Quantiles
    detect_ms: Quantiles
    nms_ms: Quantiles


class Profile(Section):
    """What a machine's ticks cost; `default` is for cameras that it does not name."""

    about: Annotated[str, Field(max_length=1000, description="where the figures come from")]
    machine: Annotated[str, Field(max_length=1000)]
    ticks: Annotated[int, Field(ge=0)] = Field(description="how many the quantiles are of")
    default: CameraCosts
    cameras: Annotated[Mapping[str, CameraCosts], Field(max_length=_MOST_CAMERAS)] = Field(default_factory=dict)
    fusion_ms: Quantiles
    output_ms: Quantiles


def load_profile(path: Path) -> Profile:
    """Read a profile; raises `ConfigError`."""
    return load_file(path, Profile)


class Costs:
    """Draws from a profile."""

    def __init__(self, profile: Profile, seed: int) -> None:
        self._profile = profile
        self._seed = seed

    def camera_ns(self, camera: str, stage: str, capture_ns: int) -> int:
        """Of a camera's ``ingest`` or of one of `CHANNEL`, for the frame captured then."""
        of_camera = self._profile.cameras.get(camera, self._profile.default)
        return self._draw(getattr(of_camera, f"{stage}_ms"), f"{stage}/{camera}", capture_ns)

    def tick_ns(self, stage: str, stamp_ns: int) -> int:
        """Of ``fusion`` or ``output``, for the frame set of that stamp."""
        return self._draw(getattr(self._profile, f"{stage}_ms"), stage, stamp_ns)

    def _draw(self, quantiles: tuple[float, ...], what: str, stamp_ns: int) -> int:
        return round(1e6 * quantile(quantiles, uniform(self._seed, what, stamp_ns)))


def quantile(quantiles: tuple[float, ...], probability: float) -> float:
    """The value at a probability in [0, 1): linear between the values at `PROBABILITIES`."""
    above = bisect_right(PROBABILITIES, probability)
    low, high = PROBABILITIES[above - 1], PROBABILITIES[above]
    share = (probability - low) / (high - low)
    return quantiles[above - 1] + share * (quantiles[above] - quantiles[above - 1])


def uniform(seed: int, what: str, stamp_ns: int) -> float:
    """A number in [0, 1) that nothing but these three decide."""
    digest = hashlib.blake2b(f"{seed}/{what}/{stamp_ns}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


class VirtualClock:
    """Time that only passes where something is said to have taken it; it is the time line of the data itself.

    To those who would wait, such as a source that reads ahead, every moment is at hand: they are told when it is due
    and go on.
    """

    stepped = False

    def __init__(self) -> None:
        self._now_ns = 0

    def now_ns(self) -> int:
        """Virtual nanoseconds."""
        return self._now_ns

    def advance_to(self, now_ns: int) -> None:
        """Let time pass until then, if that is still to come."""
        self._now_ns = max(self._now_ns, now_ns)

    def due_ns(self, stamp_ns: int) -> int:  # noqa: ARG002 (nobody needs to wait for anything)
        """Now."""
        return self._now_ns

    def wait_until(self, stamp_ns: int) -> int:
        """When `stamp_ns` is due; never sleeps."""
        return stamp_ns

    def stamp_ns(self) -> int:
        """Where the data's time line stands."""
        return self._now_ns


class Recorded(Source, Protocol):
    """A source that has an end."""

    @property
    def duration_s(self) -> float | None:
        """How long it lasts; None where only reading it all would tell."""


class Assumption:
    """All parts of a pipeline as they would be on another machine."""

    def __init__(self, profile: Profile, seed: int) -> None:
        self.profile = profile
        self.clock = VirtualClock()
        self._costs = Costs(profile, seed)

    def source(self, inner: Recorded, enforcement: Enforcement, window_ns: int) -> AssumedSource:
        """Ingest; `inner` must decode every frame, for `enforcement` decides in virtual time what is not waited for.

        A set that lacks cameras is waited for no longer than `window_ns`.
        """
        return AssumedSource(inner, self._costs, self.clock, enforcement, window_ns)

    def channels(self, levels: Sequence[Mapping[str, Channel]]) -> list[dict[str, Channel]]:
        """The channels of each level of the ladder; levels that share a channel share the assumed one too.

        All levels cost the same: a profile knows one detector.
        """
        assumed = {
            id(inner): AssumedChannel(inner, self._costs, self.clock) for level in levels for inner in level.values()
        }
        return [{camera: assumed[id(inner)] for camera, inner in level.items()} for level in levels]

    def fusion(self, inner: Fusion) -> AssumedFusion:
        """Fusion."""
        return AssumedFusion(inner, self._costs, self.clock)

    def output(self, publishers: Sequence[Publisher]) -> list[Publisher]:
        """All publishers, as one."""
        return [AssumedOutput(publishers, self._costs, self.clock)]


class AssumedSource:
    """A source whose frames are decoded when the profile says so.

    `inner` gives every frame decoded, with its arrival on the virtual clock. Those that enforcement does not want or no
    longer waits for are handed on without their image, and those that arrive later not at all, as a source in real time
    does. A set that lacks cameras is waited for until its window is over.
    """

    def __init__(
        self, inner: Recorded, costs: Costs, clock: VirtualClock, enforcement: Enforcement, window_ns: int
    ) -> None:
        self.rig = inner.rig
        self.duration_s = inner.duration_s
        self._inner = inner
        self._costs = costs
        self._clock = clock
        self._enforcement = enforcement
        self._window_ns = window_ns

    def frame_sets(self, begin: Begin | None = None) -> Iterator[FrameSet]:
        """Yield the frame sets, each when it is decoded in virtual time."""
        for frames in self._inner.frame_sets():
            wanted = self._enforcement.wanted(frames.tick)
            ingested = [replace(frame, ingest=self._ingest(frame)) for frame in frames.frames]
            closed_ns = max(frame.arrival_ns for frame in ingested)
            if frames.missing:
                closed_ns = frames.arrival_ns + self._window_ns
            at_hand_ns = max([closed_ns, *(frame.ingest.end_ns for frame in ingested if frame.camera in wanted)])
            until_ns = self._enforcement.ingest_until_ns(frames.arrival_ns)
            at_hand_ns = at_hand_ns if until_ns is None else min(at_hand_ns, until_ns)
            for frame in sorted(ingested, key=lambda frame: frame.ingest.end_ns):
                if begin is not None and frame.camera in wanted and frame.ingest.end_ns <= at_hand_ns:
                    self._clock.advance_to(frame.ingest.end_ns)
                    begin(frames.tick, frame)
            self._clock.advance_to(at_hand_ns)
            now_ns = self._clock.now_ns()
            yield self._of_those_that_arrived(
                frames,
                [
                    frame
                    if frame.camera in wanted and frame.ingest.end_ns <= now_ns
                    else replace(frame, image=NO_IMAGE)
                    for frame in ingested
                    if frame.arrival_ns <= now_ns
                ],
            )

    def faults(self) -> Sequence[str]:
        """Those of the source within."""
        return self._inner.faults()

    def close(self) -> None:
        """Close the source within."""
        self._inner.close()

    def _of_those_that_arrived(self, frames: FrameSet, arrived: Sequence[Frame]) -> FrameSet:
        newest = max(arrived, key=lambda frame: frame.capture_ns)
        present = {frame.camera for frame in arrived}
        return replace(
            frames,
            stamp_ns=newest.capture_ns,
            skew_ns=newest.capture_ns - min(frame.capture_ns for frame in arrived),
            frames=tuple(arrived),
            missing=tuple(camera for camera in self.rig if camera not in present),
            map_from_base=newest.map_from_base,
        )

    def _ingest(self, frame: Frame) -> Span:
        cost_ns = self._costs.camera_ns(frame.camera, "ingest", frame.capture_ns)
        return Span(frame.arrival_ns, frame.arrival_ns + cost_ns)


class AssumedChannel:
    """A channel that takes as long as the profile says; what it finds is what the channel within finds."""

    def __init__(self, inner: Channel, costs: Costs, clock: VirtualClock) -> None:
        self._inner = inner
        self._costs = costs
        self._clock = clock
        self._spans: tuple[StageSpan, ...] = ()
        self._done_ns = 0

    def ready(self) -> bool:
        """Whether what was submitted last is done, collected or not, in virtual time."""
        return self._done_ns <= self._clock.now_ns()

    def submit(self, frame: Frame) -> None:
        """Start on a frame; returns at once."""
        self._inner.submit(frame)
        costs_ns = [self._costs.camera_ns(frame.camera, stage, frame.capture_ns) for stage in CHANNEL]
        edges_ns = list(accumulate(costs_ns, initial=self._clock.now_ns()))
        spans = zip(CHANNEL, edges_ns[:-1], edges_ns[1:], strict=True)
        self._spans = tuple(StageSpan(stage, frame.camera, start, end) for stage, start, end in spans)[1:]
        self._done_ns = edges_ns[-1]

    def collect(self, until_ns: int | None = None) -> tuple[Detections, tuple[StageSpan, ...]] | None:
        """Let time pass until the frame submitted last is done, or until `until_ns`: then it is cut off, and None."""
        result = self._inner.collect()
        self._clock.advance_to(self._done_ns if until_ns is None else min(self._done_ns, until_ns))
        if result is None or not self.ready():
            return None
        return result[0], self._spans

    def close(self) -> None:
        """Close the channel within."""
        self._inner.close()


class AssumedFusion:
    """A fusion that takes as long as the profile says."""

    def __init__(self, inner: Fusion, costs: Costs, clock: VirtualClock) -> None:
        self._inner = inner
        self._costs = costs
        self._clock = clock

    def update(self, frames: FrameSet, detections: Sequence[Detections]) -> TrackSet:
        """As the fusion within."""
        tracks = self._inner.update(frames, detections)
        self._clock.advance_to(self._clock.now_ns() + self._costs.tick_ns("fusion", frames.stamp_ns))
        return tracks


class AssumedOutput:
    """All publishers together: they take as long as the profile says."""

    def __init__(self, inner: Sequence[Publisher], costs: Costs, clock: VirtualClock) -> None:
        self._inner = inner
        self._costs = costs
        self._clock = clock

    def publish(self, tracks: TrackSet) -> None:
        """Deliver one track set."""
        for publisher in self._inner:
            publisher.publish(tracks)
        self._clock.advance_to(self._clock.now_ns() + self._costs.tick_ns("output", tracks.stamp_ns))
