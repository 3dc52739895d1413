"""One picture of a tick: a header, the cameras, a bird's-eye view beside them, a list where there is room for one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np

from perception.messages import CLASSES, Detections, FrameSet, Image, Rig, Track, TrackSet
from perception.output import drawing
from perception.output.birdseye import BirdsEye
from perception.output.drawing import CameraView
from perception.output.palette import CLASS_COLOURS, Colour
from perception.pixels import to_bgr

_WIDTH: Final = 1920
_HEIGHT: Final = 1080
_HEADER: Final = 52
_GAP: Final = 6
_MIN_BIRDSEYE: Final = 600
_MIN_BODY: Final = 700
_ROW: Final = 27
_LIST_ROWS: Final = 11
_COLUMNS: Final = (("id", 56), ("class", 92), ("range", 300), ("bearing", 410), ("speed", 540), ("seen by", 600))
_RIGHT_ALIGNED: Final = ("id", "range", "bearing", "speed")


class Panel(NamedTuple):
    """A rectangle of the picture, in pixels."""

    x: int
    y: int
    width: int
    height: int


def arrange(aspects: Sequence[float], width: int, height: int) -> list[Panel]:
    """Rows of panels of one width, as large as they fit: each row's panels share its height, in their own aspects.

    `aspects` are width over height. Tried are a first row of any length, the rest in rows of about the same length: so
    three become one large and two small, six become three rows of two; what counts is the smallest panel.
    """
    best: list[Panel] = []
    for first in range(1, len(aspects) + 1):
        rest = len(aspects) - first
        for rows in range(1 if rest else 0, rest + 1):
            lengths = [first, *(len(part) for part in np.array_split(np.arange(rest), rows or 1) if rest)]
            panels = _rows(aspects, lengths, width, height)
            if not best or _least_area(panels) > _least_area(best):
                best = panels
    return best


def _rows(aspects: Sequence[float], lengths: Sequence[int], width: int, height: int) -> list[Panel]:
    starts = np.cumsum([0, *lengths])
    ratios = np.array([sum(aspects[a:b]) for a, b in pairwise(starts)])
    gaps = _GAP * (np.array(lengths) - 1)
    room = height - _GAP * (len(lengths) - 1)
    across = min(width, int((room + (gaps / ratios).sum()) / (1 / ratios).sum()))
    panels, y = [], 0
    for start, length, ratio, gap in zip(starts, lengths, ratios, gaps, strict=False):
        row_height, x = max(1, int((across - gap) / ratio)), 0
        for aspect in aspects[start : start + length]:
            panels.append(Panel(x, y, max(1, int(aspect * row_height)), row_height))
            x += panels[-1].width + _GAP
        y += row_height + _GAP
    return panels


def _least_area(panels: Sequence[Panel]) -> int:
    return min(panel.width * panel.height for panel in panels)


class Picture:
    """Draws the ticks of one drive, in their order; `width` and `height` are even."""

    def __init__(self, rig: Rig, title: str) -> None:
        self._title = title
        self._start_ns: int | None = None
        aspects = [camera.width / camera.height for camera in rig.values()]
        panels = arrange(aspects, _WIDTH - _MIN_BIRDSEYE - _GAP, _HEIGHT - _HEADER)
        across = max(panel.x + panel.width for panel in panels)
        down = max(panel.y + panel.height for panel in panels)
        with_list = down + _ROW * (_LIST_ROWS + 1)
        body = max(with_list, _MIN_BODY) if with_list <= _HEIGHT - _HEADER else down
        self.width, self.height = _WIDTH, _HEADER + body + body % 2
        self._panels = {name: panel._replace(y=panel.y + _HEADER) for name, panel in zip(rig, panels, strict=True)}
        self._views = {n: CameraView(camera, *self._panels[n][2:]) for n, camera in rig.items()}
        self._list = Panel(0, _HEADER + down + _GAP, across, body - down - _GAP)
        self._birdseye_at = Panel(across + _GAP, _HEADER, _WIDTH - across - _GAP, body)
        self._birdseye = BirdsEye(rig, *self._birdseye_at[2:])
        self._blank = drawing.blank(self.width, self.height)
        self._draw_legend()

    def draw(self, frames: FrameSet, detections: Mapping[str, Detections], published: TrackSet | None) -> Image:
        """The picture of one tick; `published` is None where the run published nothing for it."""
        canvas: Image = self._blank.copy()
        images = {frame.camera: to_bgr(frame.image) for frame in frames.frames}
        nothing = TrackSet(frames.tick, frames.stamp_ns, frames.skew_ns, frames.missing, (), frames.map_from_base)
        tracks = published or nothing
        left_out = _left_out(tracks, self._views)
        for name, view in self._views.items():
            drawn = view.draw(images.get(name), detections.get(name), tracks.tracks, left_out.get(name, ""))
            _place(canvas, self._panels[name], drawn)
        _place(canvas, self._birdseye_at, self._birdseye.draw(tracks, frames.point_cloud))
        self._draw_header(canvas, frames, published)
        if self._list.height >= 3 * _ROW:
            self._draw_list(canvas, tracks.tracks)
        return canvas

    def _draw_legend(self) -> None:
        x = self.width - 16.0
        for name, colour in reversed(list(zip(CLASSES, CLASS_COLOURS, strict=True))):
            x -= drawing.text(self._blank, name, (x, 32), size=14, colour=drawing.MUTED, align="right") + 10
            drawing.surface(self._blank, [(x - 8, 22), (x, 22), (x, 31), (x - 8, 31)], colour)
            x -= 30

    def _draw_header(self, canvas: Image, frames: FrameSet, published: TrackSet | None) -> None:
        if self._start_ns is None:
            self._start_ns = frames.stamp_ns
        x = 16 + drawing.text(canvas, self._title, (16, 33), size=19, weight=600) + 28
        elapsed_s = (frames.stamp_ns - self._start_ns) * 1e-9
        facts = [f"tick {frames.tick}", f"{elapsed_s:.2f} s"]
        facts.append("nothing published" if published is None else f"{len(published.tracks)} tracks")
        for fact in facts:
            x += drawing.text(canvas, fact, (x, 33), size=15, colour=drawing.MUTED) + 24
        for warning in _warnings(published or frames):
            x += drawing.text(canvas, warning, (x, 33), size=15, colour=drawing.WARNING, weight=500) + 24

    def _draw_list(self, canvas: Image, tracks: Sequence[Track]) -> None:
        place = self._list
        canvas[place.y : place.y + place.height, : place.width] = drawing.PANEL[::-1]
        for heading, x in _COLUMNS:
            self._cell(canvas, heading, heading, (x, place.y + _ROW - 6), drawing.MUTED)
        fitting = place.height // _ROW - 1
        nearest = sorted(tracks, key=lambda track: float(np.hypot(*track.position[:2])))
        for row, track in enumerate(nearest[:fitting], start=2):
            y = place.y + row * _ROW - 6
            for (heading, x), value in zip(_COLUMNS, _values(track), strict=True):
                colour = CLASS_COLOURS[track.label] if heading in {"id", "class"} else drawing.TEXT
                self._cell(canvas, heading, value, (x, y), colour if track.seen_by else drawing.MUTED)

    @staticmethod
    def _cell(canvas: Image, heading: str, value: str, at: tuple[float, float], colour: Colour) -> None:
        drawing.text(canvas, value, at, size=14, colour=colour, align="right" if heading in _RIGHT_ALIGNED else "left")


def _left_out(tracks: TrackSet, cameras: Iterable[str]) -> dict[str, str]:
    """What enforcement did to a camera's frame, where it was not looked at."""
    decision = tracks.decision
    if decision.dropped:
        return dict.fromkeys(cameras, "dropped")
    missing = dict.fromkeys(tracks.missing, "missing")  # for that tick: it came later
    return missing | dict.fromkeys(decision.skipped, "left out") | dict.fromkeys(decision.late, "cut off")


def _warnings(of: TrackSet | FrameSet) -> list[str]:
    warnings = [f"missing: {', '.join(of.missing)}"] if of.missing else []
    if isinstance(of, TrackSet):
        decision = of.decision
        warnings += [f"level {decision.level}"] if decision.level else []
        warnings += ["dropped"] if decision.dropped else []
        warnings += [] if decision.deadline_met else ["late"]
    return warnings


def _values(track: Track) -> tuple[str, ...]:
    x, y = track.position[:2]
    seen = ", ".join(track.seen_by) or f"predicted for {track.since_seen_s:.1f} s"
    return (
        str(track.id),
        track.class_name,
        f"{np.hypot(x, y):.1f} m",
        f"{round(np.rad2deg(np.arctan2(y, x))):+d}°",
        f"{np.hypot(*track.velocity[:2]):.1f} m/s",
        seen,
    )


def _place(canvas: Image, panel: Panel, part: Image) -> None:
    canvas[panel.y : panel.y + panel.height, panel.x : panel.x + panel.width] = part
