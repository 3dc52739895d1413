"""The model's class names, and which of the pipeline's classes each stands for."""

from __future__ import annotations

import ast
import difflib
import json
from typing import Any, Final, NamedTuple

import numpy as np

from perception.config import DetectorConfig
from perception.detect.model import Model
from perception.errors import ConfigError, ModelError
from perception.messages import CLASSES, Int32

NOT_MAPPED: Final = -1
_MAX_METADATA: Final = 200_000

_SPELLINGS: Final = {
    "car": ("van", "sedan", "suv", "vehicle", "vehicle.car"),
    "truck": ("lorry", "vehicle.truck"),
    "bus": ("vehicle.bus", "vehicle.bus.bendy", "vehicle.bus.rigid"),
    "motorcycle": ("motorbike", "motor", "motorcyclist", "vehicle.motorcycle"),
    "bicycle": ("bike", "cyclist", "vehicle.bicycle"),
    "pedestrian": (
        "person",
        "people",
        "personsitting",
        "human.pedestrian.adult",
        "human.pedestrian.child",
        "human.pedestrian.constructionworker",
        "human.pedestrian.policeofficer",
    ),
}
"""COCO, BDD100K, KITTI, nuScenes, Waymo and VisDrone, in lower case and without separators.

A cyclist is the vehicle with its rider and so a bicycle. A `rider` (BDD100K, Cityscapes) is the person alone, whose
bicycle is detected beside it and whose feet are off the ground that positions are taken from: left out.
"""

_MEANING: Final = {
    spelling: label for label, name in enumerate(CLASSES) for spelling in (name, *_SPELLINGS[name])
}  # fmt: skip

COCO: Final = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip


class Labels(NamedTuple):
    """`label_of` (C,) is the pipeline's label of each of the model's classes, `NOT_MAPPED` for those left out."""

    label_of: Int32
    notes: tuple[str, ...]


def resolve(model: Model, count: int | None, config: DetectorConfig) -> Labels:
    """Map the model's classes onto CLASSES; `count` is how many its outputs have, None where they do not show it.

    Names come from ``detector.names``, else from the model's metadata, else they are COCO's if there are 80. Raises
    `ConfigError` or `ModelError` where no names are known, where their number is wrong, for a name in
    ``detector.classes`` that the model does not have, and when nothing is left to detect.
    """
    names, source = _names(model, count, config)
    for name in config.classes:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            nearest = f"did you mean {close[0]!r}?" if close else f"it has: {_listed(names)}"
            raise ConfigError(f"detector.classes: {name!r} is no class of {model.path}; {nearest}")
    label_of = np.array([_label(name, config) for name in names], np.int32)
    if not (label_of >= 0).any():
        raise ConfigError(
            f"none of the classes of {model.path} ({_listed(names)}) is known as one of the pipeline's "
            f"({', '.join(CLASSES)}); set detector.classes, for example {{{names[0]}: car}}"
        )
    return Labels(label_of, (f"{len(names)} classes, names from {source}: {_mapping(names, label_of)}",))


def _names(model: Model, count: int | None, config: DetectorConfig) -> tuple[tuple[str, ...], str]:
    if config.names is not None:
        if len(config.names) != count and count is not None:
            raise ConfigError(f"detector.names: {len(config.names)} names, but {model.path} has {count} classes")
        return config.names, "detector.names"
    if "names" in model.metadata:
        names = _parse(model.metadata["names"])
        if not names:
            raise ModelError(
                f"{model.path}: its metadata entry 'names' is no list of class names; set detector.names instead"
            )
        if len(names) != count and count is not None:
            raise ModelError(
                f"{model.path}: {count} classes in its outputs, but {len(names)} names in its metadata: a model for "
                "another task than boxes (masks, key points, rotated boxes)? if not, set detector.names"
            )
        return names, "the model's metadata"
    if count == len(COCO):
        return COCO, "COCO, assumed because there are 80 and the model names none"
    number = "" if count is None else f"all {count} of "
    raise ConfigError(f"{model.path} does not name its classes; set detector.names to {number}them, in order")


def _parse(text: str) -> tuple[str, ...]:
    """Read names from JSON or a Python literal: a list, or a dict by index; empty when it is neither."""
    if len(text) > _MAX_METADATA:
        return ()
    value: Any
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return ()
    if isinstance(value, dict):
        by_index = {str(index): name for index, name in value.items()}
        value = [by_index.get(str(index)) for index in range(len(by_index))]
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        return ()
    return tuple(value)


def _label(name: str, config: DetectorConfig) -> int:
    if name in config.classes:
        chosen = config.classes[name]
        return NOT_MAPPED if chosen is None else CLASSES.index(chosen)
    spelling = name.lower().translate(str.maketrans("", "", " _-"))
    return _MEANING.get(spelling, NOT_MAPPED)


def _mapping(names: tuple[str, ...], label_of: Int32) -> str:
    parts = []
    for label, name in enumerate(CLASSES):
        sources = [names[i] for i in np.flatnonzero(label_of == label)]
        if sources:
            parts.append(name if sources == [name] else f"{name} ({', '.join(sources)})")
    left_out = [names[i] for i in np.flatnonzero(label_of == NOT_MAPPED)]
    return ", ".join(parts) + (f"; left out: {_listed(left_out)}" if left_out else "")


def _listed(names: list[str] | tuple[str, ...]) -> str:
    shown = ", ".join(names[:6])
    return shown if len(names) <= 6 else f"{shown} and {len(names) - 6} more"
