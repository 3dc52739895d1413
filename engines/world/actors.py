"""Whoever moves, and whoever is parked: what they look like and where they are."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from engines.world.shapes import Look, Shape
from engines.world.town import Lane
from perception.messages import Float


@dataclass(slots=True)
class Actor:
    """An object with ground truth. `moved_m` is how far it has come: it picks the drawing of its stride."""

    id: int
    look: Look
    x: float = 0.0
    y: float = 0.0
    yaw: float = 0.0
    speed: float = 0.0
    moved_m: float = 0.0
    braking: bool = False
    parked: bool = False
    turning: str = ""

    @property
    def shape(self) -> Shape:
        """What it looks like."""
        return self.look.shape

    def pose(self, ahead_s: float) -> tuple[float, float, float]:
        """x, y, heading a moment after the last step of the traffic."""
        reach = self.speed * ahead_s
        return self.x + reach * np.cos(self.yaw), self.y + reach * np.sin(self.yaw), self.yaw

    def drawing(self, ahead_s: float) -> int:
        """Which of the shape's meshes shows it now."""
        count = len(self.shape.meshes)
        if count == 1:
            return 0
        if self.speed < 0.1:
            return 0
        return int((self.moved_m + self.speed * ahead_s) / self.shape.stride_m * count) % count


@dataclass(slots=True)
class Vehicle(Actor):
    """Someone who drives or rides along lanes; `s` is its centre along `lanes[0]`, the lanes ahead follow."""

    lanes: list[Lane] = field(default_factory=list)
    s: float = 0.0
    cruise: float = 11.0
    pull: float = 1.6
    right_m: float = 0.0
    """How far it keeps to the right of its lane's middle."""
    route: list[str] = field(default_factory=list)
    """The turns it wants to take, in order; any turn once they are used up."""

    @property
    def half(self) -> float:
        """Half its length."""
        return float(self.look.shape.size[0]) / 2

    def pose(self, ahead_s: float) -> tuple[float, float, float]:
        """Along its lanes."""
        return self.place(self.speed * ahead_s)

    def place(self, ahead_m: float) -> tuple[float, float, float]:
        """x, y, heading so many metres further on."""
        s, lane = self.s + ahead_m, 0
        while s > self.lanes[lane].path.length and lane + 1 < len(self.lanes):
            s -= self.lanes[lane].path.length
            lane += 1
        x, y, yaw = self.lanes[lane].path.pose(s)
        return x + self.right_m * np.sin(yaw), y - self.right_m * np.cos(yaw), yaw


@dataclass(slots=True)
class Walker(Actor):
    """Someone on foot, on the way from one node of the walkways to another; `offset` is where in the crowd it keeps."""

    node: int = 0
    target: int = 0
    offset: Float = field(default_factory=lambda: np.zeros(2))
    pace: float = 1.3
    crossing: int = -1
    """The crossing it is on or waits at; -1 for none."""
    on_road: bool = False
