"""The stages as launches of kernels, as a channel on the GPU makes them: what one leaves, the next takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from perception.config import NmsConfig
from perception.cuda import kernels
from perception.messages import InputSpec
from perception.nms.threshold import float32_at_most
from perception.preprocess.kernel import plan_bytes
from perception.preprocess.letterbox import Letterbox
from tests.kernels.grid import Grid, blocks, buffer

Table = NDArray[Any]
_TILE: Final = (32, 4, 1)
_THREADS: Final = (64, 1, 1)
_SELECTING: Final = (96, 1, 1)


def letterbox_plan(image_size: tuple[int, int], pitch: int, spec: InputSpec) -> Any:
    """The argument of the kernels of letterbox.cu."""
    fit = Letterbox.fit(image_size, (spec.width, spec.height), spec.pad_position)
    return np.frombuffer(bytearray(plan_bytes(fit, spec, image_size, pitch)), kernels.LETTERBOX)[0]


def letterbox(grid: Grid, kernel: str, planes: Sequence[Table], plan: Any, dtype: Any) -> Table:
    """The detector's input (3, h, w)."""
    width, height = int(plan["input_width"]), int(plan["input_height"])
    out = buffer(3 * height * width, dtype)
    grid.launch(kernel, (blocks(width, _TILE[0]), blocks(height, _TILE[1]), 1), _TILE, *planes, plan, out)
    return out.reshape(3, height, width)


def decode(
    grid: Grid, kernel: str, args: Sequence[Any], *, images: int, rows: int, limit: int, tables: Sequence[Any] = ()
) -> tuple[list[Table], Table]:
    """Decode and compact: the candidates (images, limit), the other `tables` beside them, and the counts (images,)."""
    found = [buffer(images * rows, dtype).reshape(images, rows) for dtype in (kernels.CANDIDATE, *tables)]
    keys = buffer(images * rows, np.uint32)
    grid.launch(kernel, (blocks(rows, _THREADS[0]), images, 1), _THREADS, *args, *found, keys)
    selected, count = select(grid, keys.reshape(images, rows), limit)
    return [take(grid, table, selected, count) for table in found], count


def select(grid: Grid, keys: Table, limit: int, threads: tuple[int, int, int] = _SELECTING) -> tuple[Table, Table]:
    """The rows (images, limit) with the largest `keys` (images, rows), and how many there are (images,)."""
    images, rows = keys.shape
    selected, count = buffer(images * limit, np.int32), buffer(images, np.int32)
    grid.launch("select_best", (images, 1, 1), threads, keys, np.int32(rows), np.int32(limit), selected, count)
    return selected.reshape(images, limit), count


def take(grid: Grid, table: Table, ids: Table, count: Table) -> Table:
    """Rows `ids` (images, limit) of `table` (images, rows)."""
    (images, rows), limit, words = table.shape, ids.shape[1], table.itemsize // 4
    taken = buffer(images * limit, table.dtype)
    sizes, dims = (np.int32(rows), np.int32(words)), (blocks(limit * words, _THREADS[0]), images, 1)
    grid.launch("take", dims, _THREADS, table, *sizes, ids, count, np.int32(limit), taken)
    return taken.reshape(images, limit)


def suppress(grid: Grid, candidates: Table, count: Table, config: NmsConfig) -> tuple[Table, Table]:
    """The indices (images, max_detections) of the `candidates` (images, capacity) that are kept, and how many."""
    (images, capacity), limit, most = candidates.shape, config.max_candidates, config.max_detections
    words = blocks(limit, 64)
    n, m = np.int32(capacity), np.int32(limit)

    keys = buffer(images * capacity, np.uint32)
    grid.launch("nms_keys", (blocks(capacity, _THREADS[0]), images, 1), _THREADS, candidates, count, n, keys)
    selected, left = select(grid, keys.reshape(images, capacity), limit)

    ordered, origins = buffer(images * limit, kernels.CANDIDATE), buffer(images * limit, np.int32)
    args = (candidates, keys, n, selected, left, m, ordered, origins)
    grid.launch("nms_order", (blocks(limit, _THREADS[0]), images, 1), _THREADS, *args)

    overlaps, threshold = buffer(images * limit * words, np.uint64), float32_at_most(config.iou_threshold)
    grid.launch("nms_overlaps", (words, words, images), (64, 1, 1), ordered, left, m, threshold, overlaps)

    kept, kept_count = buffer(images * most, np.int32), buffer(images, np.int32)
    walk = (origins, left, m, overlaps, np.int32(most), kept, kept_count)
    grid.launch("nms_keep", (images, 1, 1), (32, 1, 1), *walk)
    return kept.reshape(images, most), kept_count
