"""Hand-made ticks for the tests of what is written about them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from perception import geometry
from perception.budget import Budget, Ledger
from perception.messages import (
    CLASSES,
    STAGES,
    UNDISTURBED,
    Decision,
    Detections,
    EncodedImage,
    Frame,
    FrameSet,
    Rig,
    Span,
    StageSpan,
    Tick,
    TickTimes,
    Track,
    TrackSet,
    Transform,
)
from tests.drives import START_NS, encode, make_camera, render

MS = 1_000_000
PERIOD_NS = 100 * MS
BUDGET = Budget(20 * MS, dict.fromkeys(STAGES, 3 * MS))


def make_rig(*names: str) -> Rig:
    cameras = names or ("CAM_FRONT", "CAM_LEFT")
    return {name: make_camera(name, (160, 96), 70.0 * i) for i, name in enumerate(cameras)}


def make_track(track_id: int = 1, **changes: object) -> Track:
    rng = np.random.default_rng(track_id)
    root = rng.normal(size=(4, 4))
    values: dict[str, object] = {
        "id": track_id,
        "label": track_id % len(CLASSES),
        "score": 0.75,
        "position": rng.normal(size=3) * 20,
        "velocity": rng.normal(size=3) * 5,
        "size": rng.uniform(0.5, 5, 3),
        "yaw": float(rng.uniform(-3, 3)),
        "covariance": root @ root.T,
        "age_s": 1.5,
        "since_seen_s": 0.0,
        "seen_by": ("CAM_FRONT",),
    }
    return Track(**(values | changes))  # type: ignore[arg-type]


LEFT_OUT = (
    Decision(),
    Decision(1, skipped=("CAM_LEFT",)),
    Decision(1, late=("CAM_FRONT", "CAM_LEFT")),
    Decision(1, dropped=True, deadline_met=False, age_ns=25 * MS),
    Decision(),
)
"""What enforcement does to five ticks."""


def make_tracks(tick: int = 0, ids: Sequence[int] = (1, 2), **changes: object) -> TrackSet:
    values: dict[str, object] = {
        "tick": tick,
        "stamp_ns": START_NS + tick * PERIOD_NS,
        "skew_ns": 1_234_567,
        "missing": (),
        "tracks": tuple(make_track(i) for i in ids),
        "map_from_base": Transform(geometry.rotation_about_z(0.3), np.array([400_000.5, -20.25, 1.0])),
    }
    return TrackSet(**(values | changes))  # type: ignore[arg-type]


def make_tick(
    tick: int = 0,
    rig: Rig | None = None,
    *,
    missing: tuple[str, ...] = (),
    ids: Sequence[int] = (1, 2),
    late: bool = False,
    stepped: bool = False,
    decision: Decision = UNDISTURBED,
) -> Tick:
    rig = rig or make_rig()
    tracks = make_tracks(tick, ids, missing=missing, decision=decision)
    stamp, pose = tracks.stamp_ns, tracks.map_from_base
    seen = [camera for name, camera in rig.items() if name not in missing]
    images = {camera.name: render(camera, 0.1 * tick) for camera in seen}
    frames = tuple(
        Frame(name, image, stamp, 0, Span(0, 0), pose, EncodedImage("jpeg", encode(image)))
        for name, image in images.items()
    )
    detections = tuple(
        Detections(
            name,
            stamp,
            np.array([[10.123, 20.5, 60.0, 70.25], [1, 2, 30, 40]], np.float32),
            np.array([0.9, 0.4], np.float32),
            np.array([0, 5], np.int32),
        )
        for name in images
    )
    frame_set = FrameSet(tick, stamp, tracks.skew_ns, frames, missing, pose)
    return Tick(frame_set, detections, tracks, make_times(tick, tuple(images), late=late, stepped=stepped))


def make_times(tick: int, cameras: Sequence[str], *, late: bool = False, stepped: bool = False) -> TickTimes:
    """Each stage takes one millisecond, the cameras at once; the tick 6 ms, or 30 when it is late."""
    arrival = 10_000 * MS + tick * PERIOD_NS
    spans = [
        StageSpan(stage, camera, arrival + i * MS, arrival + (i + 1) * MS)
        for camera in cameras
        for i, stage in enumerate(("ingest", "preprocess", "detect", "nms"))
    ]
    spans += [StageSpan(s, "", arrival + i * MS, arrival + (i + 1) * MS) for i, s in ((4, "fusion"), (5, "output"))]
    published = arrival + (30 if late else 6) * MS
    return TickTimes(arrival, published, None if stepped else arrival + 20 * MS, tuple(spans))


def make_ledger(ticks: Sequence[Tick], rig: Rig) -> Ledger:
    ledger = Ledger(BUDGET, rig)
    for tick in ticks:
        ledger.enter(tick.frames.tick, tick.times, 7 * MS, tick.frames.missing, tick.tracks.decision)
    return ledger
