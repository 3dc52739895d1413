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
import threading
from bisect import bisect_right
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from perception.config import Section, load_file

PROBABILITIES: Final = (0.0, 0.5, 0.9, 0.99, 0.999, 1.0)
"""Of what a profile has quantiles."""

CHANNEL: Final = ("queue", "preprocess", "detect", "nms")
"""A camera's path once its frame set is at hand, in flow order."""

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

    `ingest_ms` is from the arrival of its frame to the decoded image, `queue_ms` from there, when all frames of the set
    are at hand, to the begin of preprocessing; the rest is what each stage takes.
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

    The thread that made the clock moves it. To all others, such as those that read ahead, every moment is at hand: they
    are told when it is due and go on.
    """

    stepped = False

    def __init__(self) -> None:
        self._now_ns = 0
        self._owner = threading.get_ident()

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
        """When `stamp_ns` is due; for the thread that moves the clock, it is then."""
        if threading.get_ident() == self._owner:
            self.advance_to(stamp_ns)
        return stamp_ns

    def stamp_ns(self) -> int:
        """Where the data's time line stands."""
        return self._now_ns
