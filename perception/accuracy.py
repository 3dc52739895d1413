"""How right detections and tracks are, against ground truth of the same time.

Classes are not held against a match but counted beside it, so that a truck taken for a bus is one error, not two.
Objects that need not be found (`TruthView.visible` false) are ignored, as KITTI does: missing them is no error, and
neither is finding them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

import lap
import numpy as np
from numpy.typing import NDArray

from perception.errors import BackendError
from perception.geometry import wrapped
from perception.messages import Detections, Float, Int32, TrackSet, Truth
from perception.truth import LEAST_HEIGHT_PX, Bool, TruthView

RANGE_EDGES_M: Final = (0.0, 20.0, 40.0, 60.0, math.inf)
IOU: Final = 0.5
MATCH_M: Final = 2.0
"""Centres on the ground this far apart are still one object: nuScenes' threshold for true positives."""

Index = NDArray[np.intp]


class DetectionAccuracy:
    """Recall and precision of boxes at an IoU of 0.5, over all images."""

    def __init__(self) -> None:
        self._truth_ranges: list[Float] = []
        self._found_ranges: list[Float] = []
        self._false = 0
        self._same_class = 0

    def add(self, found: Detections, seen: TruthView, truth: Truth, charged: Bool) -> None:
        """Count one image: `seen` is what its camera can see of `truth`, `charged` (M,) what is false if unmatched."""
        boxes, visible = seen
        ranges = _ranges(truth.positions)
        free = visible.copy()
        for box, label, false_if_unmatched in zip(found.boxes, found.labels, charged, strict=True):
            overlaps = iou(box, boxes)
            best = int(np.argmax(np.where(free, overlaps, -1.0))) if len(boxes) else -1
            if best >= 0 and free[best] and overlaps[best] >= IOU:
                free[best] = False
                self._same_class += int(label == truth.labels[best])
            elif false_if_unmatched and box[3] - box[1] >= LEAST_HEIGHT_PX:
                self._false += not (share_inside(box, boxes[~visible]) >= IOU).any()
        self._truth_ranges.append(ranges[visible])
        self._found_ranges.append(ranges[visible & ~free])

    def figures(self) -> dict[str, Any]:
        """As plain values; None where there was nothing to count."""
        truth, found = _flat(self._truth_ranges), _flat(self._found_ranges)
        bins = []
        for low, high in pairwise(RANGE_EDGES_M):
            among, of_them = _within(truth, low, high).sum(), _within(found, low, high).sum()
            bins.append({**_bin(low, high), "truth": int(among), "recall": _ratio(of_them, among)})
        return {
            "truth": len(truth),
            "found": len(found),
            "false": self._false,
            "recall": _ratio(len(found), len(truth)),
            "precision": _ratio(len(found), len(found) + self._false),
            "class_agreement": _ratio(self._same_class, len(found)),
            "by_range": bins,
        }


class TrackAccuracy:
    """Errors of the tracks' centres and headings by range, and what multi-object tracking is judged by.

    Tracks and truth are matched at each tick by their centres' distance on the ground, within `match_m`. The errors are
    over all ranges; MOTA, IDF1 and HOTA over truth within `range_m`.
    """

    def __init__(self, match_m: float, range_m: float) -> None:
        self.match_m = match_m
        self.range_m = range_m
        self._truth_ranges: list[Float] = []
        self._matched_ranges: list[Float] = []
        self._errors: list[Float] = []
        self._turned_deg: list[Float] = []
        self._same_class = 0
        self._ticks: list[tuple[list[str], list[int], Float]] = []

    def add(self, tracks: TrackSet, truth: Truth, visible: Bool, covered: Bool) -> None:
        """Count one tick: `visible` (N,) marks what must be found, `covered` (M,) the tracks that a camera looks at."""
        positions = np.array([track.position for track in tracks.tracks]).reshape(-1, 3)
        ranges, track_ranges = _ranges(truth.positions), _ranges(positions)
        apart = np.linalg.norm(truth.positions[:, None, :2] - positions[None, :, :2], axis=2)
        rows, columns = match(apart, self.match_m)

        counted = visible[rows]
        labels = np.array([track.label for track in tracks.tracks], np.int32)
        self._truth_ranges.append(ranges[visible])
        self._matched_ranges.append(ranges[rows[counted]])
        self._errors.append(np.linalg.norm(truth.positions[rows] - positions[columns], axis=1)[counted])
        yaws = np.array([track.yaw for track in tracks.tracks])
        self._turned_deg.append(_degrees_between(truth.yaws[rows], yaws[columns])[counted])
        self._same_class += int((truth.labels[rows] == labels[columns])[counted].sum())

        wanted = visible & (ranges <= self.range_m)
        charged = covered & (track_ranges <= self.range_m)
        charged[columns] = wanted[rows]
        similarity = np.maximum(0.0, 1.0 - apart / (2 * self.match_m))
        self._ticks.append(
            (
                [truth.ids[row] for row in np.flatnonzero(wanted)],
                [tracks.tracks[column].id for column in np.flatnonzero(charged)],
                similarity[np.ix_(wanted, charged)],
            )
        )

    def figures(self) -> dict[str, Any]:
        """As plain values; None where there was nothing to count. Needs TrackEval, or raises `BackendError`."""
        truth, matched = _flat(self._truth_ranges), _flat(self._matched_ranges)
        errors, turned_deg = _flat(self._errors), _flat(self._turned_deg)
        bins = []
        for low, high in pairwise(RANGE_EDGES_M):
            among, here = _within(truth, low, high).sum(), _within(matched, low, high)
            found = {"truth": int(among), "recall": _ratio(here.sum(), among)}
            bins.append({**_bin(low, high), **found, **_error_figures(errors[here], turned_deg[here])})
        return {
            "truth": len(truth),
            "matched": len(matched),
            "recall": _ratio(len(matched), len(truth)),
            "class_agreement": _ratio(self._same_class, len(matched)),
            "by_range": bins,
            "all": _error_figures(errors, turned_deg),
            "tracking": tracking_figures(self._ticks),
        }


def tracking_figures(ticks: Sequence[tuple[list[str], list[int], Float]]) -> dict[str, Any]:
    """MOTA (Bernardin 2008), IDF1 (Ristani 2016) and HOTA (Luiten 2020) by TrackEval, the reference for all three.

    A tick is the truth's ids (N,), the tracks' ids (M,) and their similarities (N, M) in [0, 1], where 0.5 is what
    still counts as a match for MOTA and IDF1. Raises `BackendError` where TrackEval is not installed.
    """
    try:
        from trackeval.metrics import CLEAR, HOTA, Identity  # noqa: PLC0415 (a second to import, and optional)
    except ImportError:
        raise BackendError(
            "MOTA, IDF1 and HOTA need TrackEval, which is not installed: pip install -e '.[engines]'"
        ) from None
    truth_ids = sorted({name for names, _, _ in ticks for name in names})
    track_ids = sorted({track for _, tracks, _ in ticks for track in tracks})
    data = {
        "num_timesteps": len(ticks),
        "num_gt_ids": len(truth_ids),
        "num_tracker_ids": len(track_ids),
        "num_gt_dets": sum(len(names) for names, _, _ in ticks),
        "num_tracker_dets": sum(len(tracks) for _, tracks, _ in ticks),
        "gt_ids": [_numbers(names, truth_ids) for names, _, _ in ticks],
        "tracker_ids": [_numbers(tracks, track_ids) for _, tracks, _ in ticks],
        "similarity_scores": [similarity for _, _, similarity in ticks],
    }
    if data["num_gt_dets"] == 0:
        return {"truth": 0, "objects": 0}
    clear = CLEAR({"PRINT_CONFIG": False}).eval_sequence(data)
    identity = Identity({"PRINT_CONFIG": False}).eval_sequence(data)
    hota = HOTA().eval_sequence(data)
    return {
        "truth": data["num_gt_dets"],
        "objects": len(truth_ids),
        "MOTA": float(clear["MOTA"]),
        "IDF1": float(identity["IDF1"]),
        **{name: float(np.mean(hota[name])) for name in ("HOTA", "DetA", "AssA", "LocA")},
        "misses": int(clear["CLR_FN"]),
        "false_tracks": int(clear["CLR_FP"]),
        "id_switches": int(clear["IDSW"]),
        "fragmentations": int(clear["Frag"]),
    }


def match(apart: Float, limit: float) -> tuple[Index, Index]:
    """Rows and columns of the one-to-one pairs that cost least, when a pair left apart costs `limit`."""
    if apart.size == 0:
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    columns = lap.lapjv(np.minimum(apart, 2 * limit), extend_cost=True, cost_limit=limit)[1]
    rows = np.flatnonzero(columns >= 0)
    return rows, columns[rows].astype(np.intp)


def iou(box: Any, boxes: Float) -> Float:
    """Intersection over union of a box with boxes (N, 4); 0 for boxes of NaN."""
    shared, area = _shared(box, boxes), (box[2] - box[0]) * (box[3] - box[1])
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    overlaps: Float = np.nan_to_num(shared / np.maximum(area + areas - shared, 1e-9))
    return overlaps


def share_inside(box: Any, boxes: Float) -> Float:
    """The share of a box that lies in each of boxes (N, 4); 0 for boxes of NaN."""
    shares: Float = np.nan_to_num(_shared(box, boxes) / max(float((box[2] - box[0]) * (box[3] - box[1])), 1e-9))
    return shares


def _shared(box: Any, boxes: Float) -> Float:
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    areas: Float = np.prod(np.maximum(sides, 0), axis=1)
    return areas


def _ranges(positions: Float) -> Float:
    """Distances on the ground."""
    ranges: Float = np.hypot(positions[:, 0], positions[:, 1])
    return ranges


def _within(ranges: Float, low: float, high: float) -> Bool:
    return np.asarray((ranges >= low) & (ranges < high))


def _bin(low: float, high: float) -> dict[str, float | None]:
    return {"from_m": low, "to_m": None if math.isinf(high) else high}


def _degrees_between(yaws: Float, others: Float) -> Float:
    """Between headings in radians, at most half a turn: the orientation error of nuScenes."""
    return np.degrees(np.abs(wrapped(yaws - others)))


def _error_figures(errors: Float, turned_deg: Float) -> dict[str, float | None]:
    if len(errors) == 0:
        return dict.fromkeys(("error_mean_m", "error_p50_m", "error_p90_m", "heading_p50_deg"))
    p50, p90 = np.percentile(errors, [50, 90])
    return {
        "error_mean_m": float(errors.mean()),
        "error_p50_m": float(p50),
        "error_p90_m": float(p90),
        "heading_p50_deg": float(np.median(turned_deg)),
    }


def _flat(parts: list[Float]) -> Float:
    return np.concatenate([*parts, np.zeros(0)])


def _ratio(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None


def _numbers(names: Sequence[Any], order: Sequence[Any]) -> Int32 | Index:
    places = {name: place for place, name in enumerate(order)}
    return np.array([places[name] for name in names], np.intp)
