"""What is done about the budget: the decisions of enforcement, as plain functions of what it is told.

Nothing in here looks at a clock or does I/O: the same calls give the same decisions.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from perception.messages import Decision, FrameSet, Rig, TickTimes


class Plan(NamedTuple):
    """What to do with a frame set.

    `level` is the rung of the ladder, `cameras` who may look, in the order in which they go first. Work that is not in
    by `until_ns` on the monotonic clock is cut off; None waits as long as it takes. `decision` is what is published
    with the tracks, where that is settled beforehand.
    """

    level: int
    dropped: bool
    cameras: tuple[str, ...]
    until_ns: int | None
    decision: Decision | None = None


class Enforcement(Protocol):
    """Who decides about ticks: the `Governor`, nobody, or a recording of what was decided."""

    def wanted(self, tick: int) -> frozenset[str]:
        """The cameras that look in a tick: the images of others need not be decoded."""

    def ingest_until_ns(self, arrival_ns: int) -> int | None:
        """When a source hands over a frame set that arrived then, decoded or not; None waits as long as it takes."""

    def plan(self, frames: FrameSet, now_ns: int) -> Plan:
        """What to do with a frame set that is at hand now."""

    def learn(self, plan: Plan, decision: Decision, times: TickTimes) -> None:
        """Take in what became of a tick."""


class Undisturbed:
    """Every camera looks in every tick, however long it takes: stepped replay, or enforcement switched off."""

    def __init__(self, rig: Rig) -> None:
        self._cameras = tuple(rig)

    def wanted(self, tick: int) -> frozenset[str]:  # noqa: ARG002 (the same for all)
        """All."""
        return frozenset(self._cameras)

    def ingest_until_ns(self, arrival_ns: int) -> int | None:  # noqa: ARG002
        """As long as it takes."""
        return None

    def plan(self, frames: FrameSet, now_ns: int) -> Plan:  # noqa: ARG002
        """All of it."""
        return Plan(0, dropped=False, cameras=self._cameras, until_ns=None)

    def learn(self, plan: Plan, decision: Decision, times: TickTimes) -> None:
        """Nothing."""
