"""The vehicle's pose over time."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Final

import numpy as np

from perception.geometry import quaternion_from_rotation, rotation_from_quaternion
from perception.messages import Float, Transform

_MAX_GAP_NS: Final = 2_000_000_000
_MAX_EXTRAPOLATION_NS: Final = 200_000_000
_MIN_BASELINE_NS: Final = 50_000_000


class PoseBuffer:
    """The latest ego poses, interpolated: `map_from_base` at any stamp between them.

    Between two poses at most 2 s apart the translation is linear and the rotation a slerp (Shoemake 1985). Up to 0.2 s
    outside them the motion goes on as it was; the speed is taken over 50 ms at least, so that noise in poses that
    lie close together is not multiplied. Everywhere else there is no pose.
    """

    def __init__(self, max_length: int = 4096) -> None:
        self._max_length = max_length
        self._stamps: list[int] = []
        self._poses: list[tuple[Float, Float]] = []  # quaternion and translation

    def __len__(self) -> int:
        return len(self._stamps)

    def add(self, stamp_ns: int, map_from_base: Transform) -> None:
        """Take in a pose; a stamp that is there already keeps its first one."""
        place = bisect_left(self._stamps, stamp_ns)
        if place < len(self._stamps) and self._stamps[place] == stamp_ns:
            return
        self._stamps.insert(place, stamp_ns)
        self._poses.insert(place, (quaternion_from_rotation(map_from_base.rotation), map_from_base.translation))
        if len(self._stamps) > self._max_length:
            del self._stamps[0], self._poses[0]

    def at(self, stamp_ns: int) -> Transform | None:
        """The pose at a stamp, None where none is near enough."""
        after = bisect_left(self._stamps, stamp_ns)
        if after < len(self._stamps) and self._stamps[after] == stamp_ns:
            return self._between(after, after, stamp_ns)
        before = after - 1
        if before >= 0 and after < len(self._stamps) and self._stamps[after] - self._stamps[before] <= _MAX_GAP_NS:
            return self._between(before, after, stamp_ns)
        if before >= 0 and stamp_ns - self._stamps[before] <= _MAX_EXTRAPOLATION_NS:
            past = bisect_right(self._stamps, self._stamps[before] - _MIN_BASELINE_NS) - 1
            return self._between(past if past >= 0 and self._near(past, before) else before, before, stamp_ns)
        if after < len(self._stamps) and self._stamps[after] - stamp_ns <= _MAX_EXTRAPOLATION_NS:
            future = bisect_left(self._stamps, self._stamps[after] + _MIN_BASELINE_NS)
            known = future < len(self._stamps) and self._near(after, future)
            return self._between(after, future if known else after, stamp_ns)
        return None

    def _near(self, first: int, second: int) -> bool:
        return self._stamps[second] - self._stamps[first] <= _MAX_GAP_NS

    def _between(self, first: int, second: int, stamp_ns: int) -> Transform:
        """The motion from one pose to another, at a stamp between or beyond them."""
        q0, t0 = self._poses[first]
        if first == second:
            return Transform(rotation_from_quaternion(q0), t0)
        q1, t1 = self._poses[second]
        part = (stamp_ns - self._stamps[first]) / (self._stamps[second] - self._stamps[first])
        return Transform(rotation_from_quaternion(_slerp(q0, q1, part)), t0 + part * (t1 - t0))


def _slerp(q0: Float, q1: Float, part: float) -> Float:
    """The quaternion at `part` of the way along the shorter arc."""
    cosine = float(q0 @ q1)
    if cosine < 0:
        q1, cosine = -q1, -cosine
    if cosine > 1 - 1e-9:  # the arc is too short for its sine: a chord is as good
        return q0 + part * (q1 - q0)
    angle = float(np.arccos(cosine))
    blended: Float = (np.sin((1 - part) * angle) * q0 + np.sin(part * angle) * q1) / np.sin(angle)
    return blended
