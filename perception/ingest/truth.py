"""Ground truth: annotated boxes to the pipeline's classes and the vehicle's frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from perception.geometry import compose, yaw_of
from perception.ingest.schemas import AnnotatedBox
from perception.messages import CLASSES, Transform, Truth

_CLASS_OF: Final = {
    # nuScenes; as in its detection task, emergency vehicles, trailers, strollers and the like are left out
    "vehicle.car": "car",
    "vehicle.truck": "truck",
    "vehicle.bus.bendy": "bus",
    "vehicle.bus.rigid": "bus",
    "vehicle.motorcycle": "motorcycle",
    "vehicle.bicycle": "bicycle",
    "human.pedestrian.adult": "pedestrian",
    "human.pedestrian.child": "pedestrian",
    "human.pedestrian.construction_worker": "pedestrian",
    "human.pedestrian.police_officer": "pedestrian",
    # DGP and DDAD
    "bus/rv/caravan": "bus",
    "person": "pedestrian",
    "motorcyclist": "motorcycle",
    "bicyclist": "bicycle",
    # KITTI
    "van": "car",
    "person_sitting": "pedestrian",
    "cyclist": "bicycle",
}
"""The pipeline's class of a data set's category, where it is not the same word."""


def label_of(category: str) -> int | None:
    """The label (index into CLASSES) of a data set's category, None for what the pipeline does not track."""
    name = category.strip().lower()
    name = _CLASS_OF.get(name, name)
    return CLASSES.index(name) if name in CLASSES else None


def truth_of(
    stamp_ns: int, boxes: Sequence[tuple[AnnotatedBox, int, Transform]], map_from_base: Transform | None
) -> Truth:
    """The ground truth of one time, from boxes with their labels and their `base_from_frame`."""
    placed = [compose(base_from_frame, box.frame_from_box) for box, _, base_from_frame in boxes]
    return Truth(
        stamp_ns,
        tuple(box.id for box, _, _ in boxes),
        np.array([label for _, label, _ in boxes], dtype=np.int32),
        np.array([base_from_box.translation for base_from_box in placed]).reshape(-1, 3),
        np.array([box.size for box, _, _ in boxes]).reshape(-1, 3),
        np.array([yaw_of(base_from_box.rotation) for base_from_box in placed]),
        map_from_base,
        np.array([box.visibility for box, _, _ in boxes]),
    )
