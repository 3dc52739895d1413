"""Drawing on images: text, lines and surfaces, and what a camera sees with what was made of it.

Canvases are (H, W, 3) uint8 BGR; colours are red, green, blue; points are pixels and may be fractions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final, Literal

import cv2
import numpy as np

from perception import geometry
from perception.messages import Camera, Detections, Float, Image, Track
from perception.output.palette import CLASS_COLOURS, Colour

BACKGROUND: Final[Colour] = (14, 17, 22)
PANEL: Final[Colour] = (21, 25, 31)
LINE: Final[Colour] = (48, 55, 65)
MUTED: Final[Colour] = (133, 143, 155)
TEXT: Final[Colour] = (226, 231, 237)
WARNING: Final[Colour] = (255, 107, 87)

_UNSEEN: Final = 0.55  # of its brightness
_SUBPIXEL_BITS: Final = 4
_PREDICTED_OPACITY: Final = 0.45
_BRACKET: Final = 0.22  # of a detection's shorter side: how far its corners are drawn
_FRONT: Final = (0, 3, 7, 4)  # of geometry.box_corners

Points = Sequence[Sequence[float]] | Float


def blank(width: int, height: int, colour: Colour = BACKGROUND) -> Image:
    """A canvas of one colour."""
    canvas: Image = np.full((height, width, 3), colour[::-1], np.uint8)
    return canvas


def text(
    canvas: Image,
    string: str,
    at: tuple[float, float],
    *,
    size: int = 13,
    colour: Colour = TEXT,
    weight: int = 400,
    align: Literal["left", "center", "right"] = "left",
) -> float:
    """Write `string` on a baseline that starts, has its middle, or ends at `at`; returns its width."""
    width = text_width(string, size, weight)
    x = at[0] - {"left": 0.0, "center": width / 2, "right": width}[align]
    cv2.putText(canvas, string, (round(x), round(at[1])), colour[::-1], _font(), size, weight)
    return width


def text_width(string: str, size: int = 13, weight: int = 400) -> float:
    """How wide `text` would write it, in pixels."""
    return float(cv2.getTextSize((0, 0), string, (0, 0), _font(), size, weight)[2])


def lines(
    canvas: Image,
    paths: Sequence[Points],
    colour: Colour,
    *,
    width: int = 1,
    opacity: float = 1.0,
    closed: bool = False,
) -> None:
    """Draw smooth polylines."""
    shapes = [_fixed_point(path) for path in paths if len(path) > 1]

    def paint(part: Image, shapes: list[Any]) -> None:
        cv2.polylines(part, shapes, closed, colour[::-1], width, cv2.LINE_AA, _SUBPIXEL_BITS)

    _blend(canvas, shapes, width, opacity, paint)


def surface(canvas: Image, outline: Points, colour: Colour, *, opacity: float = 1.0) -> None:
    """Fill a polygon."""

    def paint(part: Image, shapes: list[Any]) -> None:
        cv2.fillPoly(part, shapes, colour[::-1], cv2.LINE_AA, _SUBPIXEL_BITS)

    _blend(canvas, [_fixed_point(outline)], 1, opacity, paint)


def label(canvas: Image, string: str, at: tuple[float, float], colour: Colour, *, size: int = 12) -> None:
    """A small plate with text, its bottom centred on `at`, kept inside the canvas."""
    width, height = text_width(string, size, 500) + 10, size + 7
    x = float(np.clip(at[0] - width / 2, 1, max(1, canvas.shape[1] - width - 1)))
    y = float(np.clip(at[1] - height, 1, max(1, canvas.shape[0] - height - 1)))
    plate = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
    surface(canvas, plate, BACKGROUND, opacity=0.72)
    text(canvas, string, (x + 5, y + height - 5), size=size, colour=colour, weight=500)


class CameraView:
    """Draws one camera's panel, `width` pixels wide, as high as the image is."""

    def __init__(self, camera: Camera, width: int, height: int) -> None:
        self._camera = camera
        self._size = (width, height)
        self._scale = np.array([width / camera.width, height / camera.height])
        self._planes = geometry.viewing_planes(camera)

    def draw(
        self, image: Image | None, detections: Detections | None, tracks: Sequence[Track], note: str = ""
    ) -> Image:
        """The image with detections as corner brackets and tracks as cuboids; a note where there is no image.

        With a `note`, why nobody looked at it, it is darker.
        """
        if image is None:
            return self._missing()
        canvas: Image = np.asarray(cv2.resize(image, self._size, interpolation=cv2.INTER_AREA), np.uint8)
        if note:
            canvas = np.asarray(cv2.convertScaleAbs(canvas, alpha=_UNSEEN), np.uint8)
        if detections is not None:
            self._draw_detections(canvas, detections)
        distances = {track.id: float(np.hypot(*track.position[:2])) for track in tracks}
        for track in sorted(tracks, key=lambda track: -distances[track.id]):
            self._draw_track(canvas, track)
        self._name(canvas, WARNING if note else TEXT, note)
        return canvas

    def _missing(self) -> Image:
        canvas = blank(*self._size, PANEL)
        middle = (self._size[0] / 2, self._size[1] / 2 + 6)
        text(canvas, "no frame", middle, size=18, colour=WARNING, weight=500, align="center")
        self._name(canvas, MUTED)
        return canvas

    def _name(self, canvas: Image, colour: Colour, note: str = "") -> None:
        label(canvas, f"{self._camera.name}  {note}".rstrip(), (0, 26), colour, size=12)

    def _draw_detections(self, canvas: Image, detections: Detections) -> None:
        boxes = detections.boxes.reshape(-1, 2, 2) * self._scale
        for (low, high), index in zip(boxes, detections.labels, strict=True):
            reach = _BRACKET * float(np.min(high - low))
            lines(canvas, _brackets(low, high, reach), CLASS_COLOURS[index], opacity=0.9)

    def _draw_track(self, canvas: Image, track: Track) -> None:
        corners = geometry.box_corners(track.position, track.size, track.yaw)
        edges = geometry.box_edges(self._camera, self._planes, corners) * self._scale
        if len(edges) == 0:
            return
        low, high = edges.min(axis=(0, 1)), edges.max(axis=(0, 1))
        if (high < 0).any() or (low > self._size).any():
            return
        colour = CLASS_COLOURS[track.label]
        opacity = 1.0 if track.seen_by else _PREDICTED_OPACITY
        front = self._face(corners[list(_FRONT)])
        if front is not None:
            surface(canvas, front, colour, opacity=0.28 * opacity)
        lines(canvas, list(edges), colour, width=2 if high[1] - low[1] > 40 else 1, opacity=opacity)
        label(canvas, str(track.id), ((low[0] + high[0]) / 2, low[1] - 3), colour)

    def _face(self, corners: Float) -> Float | None:
        """A face's pixels, None where it is not wholly in view."""
        points = geometry.apply(geometry.inverse(self._camera.base_from_camera), corners)
        if (points @ self._planes[:, :3].T + self._planes[:, 3] < 0).any():
            return None
        pixels: Float = geometry.project(self._camera, points)[0] * self._scale
        return pixels


def _brackets(low: Float, high: Float, reach: float) -> list[list[tuple[float, float]]]:
    """The four corners of a box, as open lines."""
    (x1, y1), (x2, y2) = low.tolist(), high.tolist()
    return [
        [(x, y + dy * reach), (x, y), (x + dx * reach, y)]
        for x, y, dx, dy in ((x1, y1, 1, 1), (x2, y1, -1, 1), (x2, y2, -1, -1), (x1, y2, 1, -1))
    ]


def _blend(
    canvas: Image, shapes: list[Any], reach: int, opacity: float, paint: Callable[[Image, list[Any]], None]
) -> None:
    """Paint on a copy of the part of the canvas that the shapes touch, and blend it back."""
    if not shapes:
        return
    points = np.concatenate(shapes).reshape(-1, 2) >> _SUBPIXEL_BITS
    low = np.clip(points.min(axis=0) - reach - 1, 0, canvas.shape[1::-1])
    high = np.clip(points.max(axis=0) + reach + 2, 0, canvas.shape[1::-1])
    part = canvas[low[1] : high[1], low[0] : high[0]]
    if part.size == 0:
        return
    layer = part.copy()
    paint(layer, [shape - (low << _SUBPIXEL_BITS).astype(np.int32) for shape in shapes])
    cv2.addWeighted(layer, opacity, part, 1 - opacity, 0, part)


def _fixed_point(points: Points) -> Any:
    """As the integers in which OpenCV takes fractions of a pixel, kept from overflowing."""
    fixed = np.asarray(points, np.float64) * (1 << _SUBPIXEL_BITS)
    return np.clip(np.round(fixed), -(2**20), 2**20).astype(np.int32).reshape(-1, 1, 2)


@lru_cache(maxsize=1)
def _font() -> Any:
    return cv2.FontFace("sans")
