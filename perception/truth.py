"""Ground truth at any time, and what the cameras can see of it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Container, Iterable
from dataclasses import replace
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from perception import geometry
from perception.messages import Camera, Float, Rig, Transform, Truth

LEAST_HEIGHT_PX: Final = 12.0
LEAST_VISIBLE: Final = 0.4
"""What is lower in the image, or less visible behind nearer objects, need not be found."""

_MAX_GAP_NS: Final = 2_000_000_000
_MAX_EXTRAPOLATION_NS: Final = 300_000_000
_RASTER_PX: Final = 4  # occlusion is counted in squares of this size

Bool = NDArray[np.bool_]


class TruthTimeline:
    """Labelled objects at the times between their labels.

    Labels come at their own times, as a rule the LiDAR's, and ticks at others. Between two times of labels at most 2 s
    apart an object that is in both moves straight in `map`; one that is in one of them only, or in the first or last,
    goes on as it was for 0.3 s. In a drive without ego poses all this is done in `base_link`.
    """

    def __init__(self, truths: Iterable[Truth]) -> None:
        ordered = sorted(truths, key=lambda truth: truth.stamp_ns)
        self._in_map = all(truth.map_from_base is not None for truth in ordered)
        self._truths = [_moved(truth, truth.map_from_base if self._in_map else None) for truth in ordered]
        self._stamps = [truth.stamp_ns for truth in ordered]

    def __len__(self) -> int:
        return len(self._truths)

    def at(self, stamp_ns: int, map_from_base: Transform | None) -> Truth | None:
        """The objects in `base_link` at a stamp; None where no label, or no pose for them, is near enough to tell."""
        if self._in_map and map_from_base is None:
            return None
        after = bisect_right(self._stamps, stamp_ns)
        if 0 < after < len(self._stamps) and self._stamps[after] - self._stamps[after - 1] <= _MAX_GAP_NS:
            found = self._between(after - 1, stamp_ns)
        else:
            near = [k for k in (after - 1, after) if 0 <= k < len(self._stamps)]
            near = [k for k in near if abs(stamp_ns - self._stamps[k]) <= _MAX_EXTRAPOLATION_NS]
            if not near:
                return None
            found = self._beyond(near[0], stamp_ns)
        return _moved(found, geometry.inverse(map_from_base) if self._in_map and map_from_base else None)

    def _between(self, before: int, stamp_ns: int) -> Truth:
        first, second = self._truths[before], self._truths[before + 1]
        both = _pairs(first, second)
        straight = _on_a_line(first, second, both, stamp_ns)
        parts = [straight]
        for k, used in ((before, both.a), (before + 1, both.b)):
            if abs(stamp_ns - self._stamps[k]) <= _MAX_EXTRAPOLATION_NS:
                alone = np.setdiff1d(np.arange(len(self._truths[k].ids)), used)
                parts.append(_take(self._beyond(k, stamp_ns), alone))
        return _joined(parts, stamp_ns)

    def _beyond(self, at: int, stamp_ns: int) -> Truth:
        """One time's objects, moved on as they came from, or go to, the next time of labels on its other side."""
        truth = self._truths[at]
        other = at - 1 if stamp_ns >= truth.stamp_ns else at + 1
        if not 0 <= other < len(self._truths) or abs(self._stamps[other] - truth.stamp_ns) > _MAX_GAP_NS:
            return replace(truth, stamp_ns=stamp_ns)
        both = _pairs(truth, self._truths[other])
        moved = _on_a_line(truth, self._truths[other], both, stamp_ns)
        positions, yaws = truth.positions.copy(), truth.yaws.copy()
        positions[both.a], yaws[both.a] = moved.positions, moved.yaws
        return replace(truth, stamp_ns=stamp_ns, positions=positions, yaws=yaws)


class TruthView(NamedTuple):
    """What one camera can see of N objects.

    `boxes` (N, 4) are their extents in its image as x1 y1 x2 y2, cut off at its border, NaN where outside it. `visible`
    (N,) marks those that a detector must find: the centre in the image, high enough, not hidden behind other objects.
    What other things hide them, houses or trees, is known only where the labels tell (`Truth.visibility`).
    """

    boxes: Float
    visible: Bool


class RigView:
    """What the cameras of a rig can see."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._planes = {name: geometry.viewing_planes(camera) for name, camera in rig.items()}

    def of_camera(self, name: str, truth: Truth) -> TruthView:
        """Ground truth as one camera can see it."""
        camera = self._rig[name]
        corners = [geometry.box_corners(*box) for box in zip(truth.positions, truth.sizes, truth.yaws, strict=True)]
        edges = [geometry.box_edges(camera, self._planes[name], box) for box in corners]
        boxes = _extents(camera, edges)
        inside, depths = self._inside(name, truth.positions)
        high_enough = boxes[:, 3] - boxes[:, 1] >= LEAST_HEIGHT_PX  # false for NaN
        shown = (_unhidden(camera, edges, depths) >= LEAST_VISIBLE) & ~(_visibility(truth) < LEAST_VISIBLE)
        return TruthView(boxes, inside & high_enough & shown)

    def visible(self, truth: Truth, missing: Container[str]) -> Bool:
        """Which objects (N,) any camera must find, `missing` ones left out."""
        seen = [self.of_camera(name, truth).visible for name in self._rig if name not in missing]
        return np.asarray(np.any([*seen, np.zeros(len(truth.ids), np.bool_)], axis=0))

    def covered(self, positions: Float, missing: Container[str]) -> Bool:
        """Which points (N, 3) of `base_link` lie in the image of any camera, `missing` ones left out."""
        inside = [self._inside(name, positions)[0] for name in self._rig if name not in missing]
        return np.asarray(np.any([*inside, np.zeros(len(positions), np.bool_)], axis=0))

    def _inside(self, name: str, positions: Float) -> tuple[Bool, Float]:
        """Which points (N, 3) lie in a camera's image, and their depths."""
        camera, planes = self._rig[name], self._planes[name]
        points = geometry.apply(geometry.inverse(camera.base_from_camera), positions)
        pixels, depths = geometry.project(camera, points)
        in_image = ((pixels >= 0) & (pixels < (camera.width, camera.height))).all(axis=1)
        return in_image & (points @ planes[:, :3].T + planes[:, 3] > 0).all(axis=1), depths


def _extents(camera: Camera, edges: list[Float]) -> Float:
    """The rectangles (N, 4) around projected edges, cut off at the image's border, NaN outside it."""
    size = np.array([camera.width, camera.height], np.float64)
    boxes = np.full((len(edges), 4), np.nan)
    for box, segments in zip(boxes, edges, strict=True):
        if len(segments):
            low, high = segments.min(axis=(0, 1)), segments.max(axis=(0, 1))
            if (high > 0).all() and (low < size).all():
                box[:] = (*np.maximum(low, 0), *np.minimum(high, size))
    return boxes


def _unhidden(camera: Camera, edges: list[Float], depths: Float) -> Float:
    """The share (N,) of each object's outline that no nearer object covers: the nearest painted last."""
    shape = (camera.height // _RASTER_PX + 1, camera.width // _RASTER_PX + 1)
    owner = np.full(shape, -1, np.int32)
    areas = np.zeros(len(edges))
    for index in np.argsort(-depths, kind="stable"):
        if len(edges[index]) == 0:
            continue
        mask = np.zeros(shape, np.uint8)
        outline = cv2.convexHull((edges[index].reshape(-1, 2) / _RASTER_PX).astype(np.float32))
        cv2.fillConvexPoly(mask, np.round(outline).astype(np.int32), 1)
        covered = mask.astype(bool)
        areas[index] = covered.sum()
        owner[covered] = index
    left = np.bincount(owner[owner >= 0], minlength=len(edges))
    return left / np.maximum(areas, 1)


class _Pairs(NamedTuple):
    a: NDArray[np.intp]
    b: NDArray[np.intp]


def _pairs(first: Truth, second: Truth) -> _Pairs:
    """Where the same instances stand in two truths."""
    places = {name: place for place, name in enumerate(second.ids)}
    common = [(place, places[name]) for place, name in enumerate(first.ids) if name in places]
    a, b = np.array(common, np.intp).reshape(-1, 2).T
    return _Pairs(a, b)


def _on_a_line(first: Truth, second: Truth, both: _Pairs, stamp_ns: int) -> Truth:
    """Their common instances, on the straight line through both at a stamp."""
    span_ns = second.stamp_ns - first.stamp_ns
    part = (stamp_ns - first.stamp_ns) / span_ns if span_ns else 0.0
    start = _take(first, both.a)
    way = second.positions[both.b] - start.positions
    turn = geometry.wrapped(second.yaws[both.b] - start.yaws)
    nearest = start if part < 0.5 else _take(second, both.b)
    return replace(
        start,
        stamp_ns=stamp_ns,
        positions=start.positions + part * way,
        yaws=start.yaws + part * turn,
        visibility=_visibility(nearest),
    )


def _moved(truth: Truth, a_from_b: Transform | None) -> Truth:
    """The same objects in another frame, None for the same one; both frames stand upright, or nearly so."""
    if a_from_b is None:
        return replace(truth, map_from_base=None)
    positions = geometry.apply(a_from_b, truth.positions)
    return replace(truth, positions=positions, yaws=truth.yaws + geometry.yaw_of(a_from_b.rotation), map_from_base=None)


def _take(truth: Truth, rows: NDArray[np.intp]) -> Truth:
    return replace(
        truth,
        ids=tuple(truth.ids[row] for row in rows),
        labels=truth.labels[rows],
        positions=truth.positions[rows],
        sizes=truth.sizes[rows],
        yaws=truth.yaws[rows],
        visibility=_visibility(truth)[rows],
    )


def _joined(parts: list[Truth], stamp_ns: int) -> Truth:
    return Truth(
        stamp_ns=stamp_ns,
        ids=tuple(name for part in parts for name in part.ids),
        labels=np.concatenate([part.labels for part in parts]),
        positions=np.concatenate([part.positions for part in parts]),
        sizes=np.concatenate([part.sizes for part in parts]),
        yaws=np.concatenate([part.yaws for part in parts]),
        visibility=np.concatenate([_visibility(part) for part in parts]),
    )


def _visibility(truth: Truth) -> Float:
    """(N,), NaN where the labels do not tell."""
    return np.full(len(truth.ids), np.nan) if truth.visibility is None else truth.visibility
