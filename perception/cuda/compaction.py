"""Launches of select.cu, which detect and nms both choose with: stream compaction, its count on the device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from perception.cuda import Kernel, Launch, blocks, kernels

KernelsByName = Mapping[str, Kernel]

SELECTING: Final = 1024
"""Threads of the one block per image that selects; select.cu takes no more."""

TAKING: Final = 256


@dataclass(frozen=True, slots=True)
class DeviceList:
    """A list of candidates on the GPU, by addresses: the first `count` of `capacity` are there.

    `candidates` are `kernels.CANDIDATE`, `count` is an int32; `attributes` are `kernels.ATTRIBUTES`, None where the
    model has none.
    """

    candidates: int
    attributes: int | None
    count: int
    capacity: int


@dataclass(frozen=True, slots=True)
class Chosen:
    """Rows chosen on the GPU, by addresses: the first `count` (an int32) of the int32 `ids`, of which `limit` fit."""

    ids: int
    count: int
    limit: int


def select(known: KernelsByName, keys: int, rows: int, into: Chosen) -> Launch:
    """Choose the rows with the largest of the uint32 `keys`, as many as fit, in the order of the rows."""
    args = (keys, np.int32(rows), np.int32(into.limit), into.ids, into.count)
    return known["select_best"].prepare((1, 1, 1), (SELECTING, 1, 1), *args)


def take(known: KernelsByName, source: DeviceList, chosen: Chosen, to: DeviceList) -> tuple[Launch, ...]:
    """Copy the chosen rows of a list to another, in which as many fit."""
    tables = [(kernels.CANDIDATE, source.candidates, to.candidates)]
    if source.attributes is not None and to.attributes is not None:
        tables.append((kernels.ATTRIBUTES, source.attributes, to.attributes))
    return tuple(
        known["take"].prepare(
            (blocks(chosen.limit * dtype.itemsize // 4, TAKING), 1, 1),
            (TAKING, 1, 1),
            *(table, np.int32(source.capacity), np.int32(dtype.itemsize // 4)),
            *(chosen.ids, chosen.count, np.int32(chosen.limit), to_table),
        )
        for dtype, table, to_table in tables
    )
