"""What training came to: a table in Markdown and curves as a picture, beside the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from engines.accuracy import Accuracy
from engines.train.loop import Epoch
from perception.errors import OutputError
from perception.messages import Image

_PANEL: Final = (420, 300)
_MARGIN: Final = (52, 20, 34, 40)  # left, right, top, bottom
_INK: Final = (60, 60, 60)
_LINE: Final = (180, 90, 20)
_GRID: Final = (225, 225, 225)
_FONT: Final = cv2.FONT_HERSHEY_SIMPLEX


def table(by_condition: Mapping[str, Accuracy]) -> str:
    """Rows: conditions; columns: AP over all, by class and by size, in points of a hundred."""
    first = next(iter(by_condition.values()))
    heads = ["", "images", "objects", "mAP50", "mAP50-95", *first.per_class, *first.per_size]
    rows = [
        [
            name,
            str(a.images),
            str(a.objects),
            *map(_points, (a.map50, a.map50_95, *a.per_class.values(), *a.per_size.values())),
        ]
        for name, a in by_condition.items()
    ]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def draw(history: Sequence[Epoch], path: Path) -> None:
    """One panel for each loss term and each measure, over the epochs."""
    series = {f"loss: {name}": [e.losses[name] for e in history] for name in history[0].losses}
    series |= {f"held out: {name}": [e.measured[name] for e in history] for name in history[0].measured}
    panels = [_panel(title, np.array(values)) for title, values in series.items()]
    blank = np.full_like(panels[0], 255)
    panels += [blank] * (-len(panels) % 3)
    picture = np.vstack([np.hstack(panels[i : i + 3]) for i in range(0, len(panels), 3)])
    if not cv2.imwrite(str(path), picture):
        raise OutputError(f"{path}: the picture of the curves cannot be written; is the folder writable?")


def _points(fraction: float) -> str:
    return "" if np.isnan(fraction) else f"{100 * fraction:.1f}"


def _panel(title: str, values: np.ndarray) -> Image:
    width, height = _PANEL
    left, right, top, bottom = _MARGIN
    panel = np.full((height, width, 3), 255, np.uint8)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    high = high if high > low else low + 1
    cv2.putText(panel, title, (left, top - 12), _FONT, 0.5, _INK, 1, cv2.LINE_AA)
    for share in np.linspace(0, 1, 5):
        y = round(height - bottom - share * (height - top - bottom))
        cv2.line(panel, (left, y), (width - right, y), _GRID)
        cv2.putText(panel, f"{low + share * (high - low):.3g}", (4, y + 4), _FONT, 0.4, _INK, 1, cv2.LINE_AA)
    x = np.linspace(left, width - right, max(len(values), 2))[: len(values)]
    y = height - bottom - (values - low) / (high - low) * (height - top - bottom)
    points = np.round(np.stack([x, y], axis=1)).astype(np.int32)
    cv2.polylines(panel, [points], isClosed=False, color=_LINE, thickness=2, lineType=cv2.LINE_AA)
    cv2.putText(panel, f"epoch 1 to {len(values)}", (left, height - 14), _FONT, 0.4, _INK, 1, cv2.LINE_AA)
    return panel
