"""Launches of nms.cu, and the block in which what is kept of one image comes back to the host."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from perception.config import NmsConfig
from perception.cuda import Exchange, Gpu, Launch, Stream, Workspace, blocks, kernels
from perception.cuda.compaction import Chosen, DeviceList, KernelsByName, select, take
from perception.cuda.resource import Resource
from perception.errors import ConfigError
from perception.messages import Attributes, Candidates
from perception.nms.threshold import float32_at_most

_THREADS: Final = 256
_WORD_BITS: Final = 64
_WALKING: Final = 32
_COUNT_BYTES: Final = 16  # the count, and what keeps the tables behind it aligned


class ResultBlock(Resource):
    """Where the candidates that NMS keeps are written: of a fixed size, so that one copy brings all of it."""

    def __init__(self, gpu: Gpu, most: int, *, has_attributes: bool) -> None:
        boxes_end = _COUNT_BYTES + most * kernels.CANDIDATE.itemsize
        end = boxes_end + (most * kernels.ATTRIBUTES.itemsize if has_attributes else 0)
        self._exchange: Exchange = gpu.exchange(end)
        start = self._exchange.pointer
        self.list = DeviceList(start + _COUNT_BYTES, start + boxes_end if has_attributes else None, start, most)
        host = self._exchange.array
        self._count: NDArray[np.int32] = host[:4].view(np.int32)
        self._candidates: NDArray[Any] = host[_COUNT_BYTES:boxes_end].view(kernels.CANDIDATE)
        self._attributes: NDArray[Any] | None = host[boxes_end:].view(kernels.ATTRIBUTES) if has_attributes else None

    def to_host(self, stream: Stream) -> None:
        """Put its copy to the host on the stream."""
        self._exchange.to_host(stream)

    def read(self) -> Candidates:
        """A copy of what came back; whatever wrote and copied the block is done."""
        count = int(self._count[0])
        found = self._candidates[:count].copy()
        attributes = None if self._attributes is None else _attributes(self._attributes[:count].copy())
        return Candidates(found["box"], found["score"], found["label"], attributes)

    def close(self) -> None:
        """Free it."""
        del self._count, self._candidates, self._attributes
        self._exchange.close()


def suppress(
    found: DeviceList, into: DeviceList, config: NmsConfig, known: KernelsByName, workspace: Workspace
) -> tuple[Launch, ...]:
    """The launches, in order, that leave in `into` what `NumpyNms` would keep of `found`.

    Raises `ConfigError` where ``nms.max_candidates`` is more than the kernels take.
    """
    limit = min(config.max_candidates, found.capacity)
    if limit > kernels.MOST_CANDIDATES:
        raise ConfigError(
            f"nms.max_candidates: {config.max_candidates}; on a GPU at most {kernels.MOST_CANDIDATES} are compared"
        )
    words = blocks(limit, _WORD_BITS)
    keys = workspace.array(found.capacity, np.uint32)
    best = Chosen(workspace.array(limit, np.int32), workspace.array(1, np.int32), limit)
    ordered, origins = workspace.array(limit, kernels.CANDIDATE), workspace.array(limit, np.int32)
    overlaps = workspace.array(limit * words, np.uint64)
    kept = Chosen(workspace.array(into.capacity, np.int32), into.count, into.capacity)
    capacity, most = np.int32(found.capacity), np.int32(limit)

    order_args = (found.candidates, keys, capacity, best.ids, best.count, most, ordered, origins)
    overlap_args = (ordered, best.count, most, float32_at_most(config.iou_threshold), overlaps)
    keep_args = (origins, best.count, most, overlaps, np.int32(kept.limit), kept.ids, kept.count)
    over = (_THREADS, 1, 1)
    return (
        known["nms_keys"].prepare(
            (blocks(found.capacity, _THREADS), 1, 1), over, found.candidates, found.count, capacity, keys
        ),
        select(known, keys, found.capacity, best),
        known["nms_order"].prepare((blocks(limit, _THREADS), 1, 1), over, *order_args),
        known["nms_overlaps"].prepare((words, words, 1), (_WORD_BITS, 1, 1), *overlap_args),
        known["nms_keep"].prepare((1, 1, 1), (_WALKING, 1, 1), *keep_args),
        *take(known, found, kept, into),
    )


def _attributes(rows: NDArray[Any]) -> Attributes:
    return Attributes(
        centres=rows["centre"],
        depths_over_focal=rows["depth_over_focal"],
        depth_stds=rows["depth_std"],
        sizes=rows["size"],
        alphas=rows["alpha"],
    )
