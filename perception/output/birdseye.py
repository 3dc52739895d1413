"""The bird's-eye view: the vehicle, what its cameras cover, and the tracks around it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

import numpy as np

from perception import geometry
from perception.messages import Camera, Float, Image, PointCloud, Rig, Track, TrackSet, Transform
from perception.output import drawing
from perception.output.palette import CLASS_COLOURS, Colour

_HALF_WIDTH_M: Final = 32.0
_RING_STEP_M: Final = 10
_FURTHEST_RING_M: Final = 120
_TRAIL_NS: Final = 4_000_000_000
_MIN_SPEED_MPS: Final = 0.5
_EGO: Final = ((3.9, -0.95), (3.9, 0.95), (-0.9, 0.95), (-0.9, -0.95))  # a car around the middle of its rear axle
_EGO_COLOUR: Final[Colour] = (226, 231, 237)
_CLOUD_LOW_M, _CLOUD_HIGH_M = 0.3, 3.0
_CLOUD_GROUND: Final = (30, 35, 42)
_CLOUD_OBJECTS: Final = (78, 88, 100)


class BirdsEye:
    """Draws the panel; it remembers where the tracks were, in `map`."""

    def __init__(self, rig: Rig, width: int, height: int) -> None:
        self._scale = width / (2 * _HALF_WIDTH_M)
        # With no camera that looks back, there is more to show ahead.
        looks_back = any(camera.base_from_camera.rotation[0, 2] < -0.2 for camera in rig.values())
        self._origin = np.array([width / 2, height * (0.62 if looks_back else 0.86)])
        self._trails: dict[int, deque[tuple[int, Float]]] = {}
        self._ground = drawing.blank(width, height, drawing.PANEL)
        self._draw_views(rig)
        self._draw_rings()

    def draw(self, tracks: TrackSet, cloud: PointCloud | None) -> Image:
        """The panel at one tick."""
        canvas: Image = self._ground.copy()
        if cloud is not None:
            self._draw_cloud(canvas, cloud)
        self._remember(tracks)
        if tracks.map_from_base is not None:
            self._draw_trails(canvas, tracks, geometry.inverse(tracks.map_from_base))
        self._draw_ego(canvas)
        for track in tracks.tracks:
            self._draw_track(canvas, track)
        for track in tracks.tracks:
            self._draw_id(canvas, track)
        return canvas

    def _pixels(self, points: Float) -> Float:
        """Pixels (N, 2) of points (N, 2 or 3) in `base_link`: ahead is up, left is left."""
        pixels: Float = self._origin - self._scale * points[:, 1::-1]
        return pixels

    def _draw_rings(self) -> None:
        angles = np.linspace(0, 2 * np.pi, 181)
        circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        for radius in range(_RING_STEP_M, _FURTHEST_RING_M + 1, _RING_STEP_M):
            major = radius % (2 * _RING_STEP_M) == 0
            drawing.lines(self._ground, [self._pixels(radius * circle)], drawing.LINE, opacity=0.9 if major else 0.4)
            if major:
                x, y = self._pixels(np.array([[radius, 0.0]]))[0]
                drawing.text(self._ground, f"{radius} m", (x + 6, y - 5), size=12, colour=drawing.MUTED)

    def _draw_views(self, rig: Rig) -> None:
        for camera in rig.values():
            wedge = self._pixels(_field_of_view(camera))
            drawing.surface(self._ground, wedge, (86, 180, 233), opacity=0.05)
            drawing.lines(self._ground, [wedge[[1, 0, -1]]], (86, 180, 233), opacity=0.22)

    def _draw_ego(self, canvas: Image) -> None:
        drawing.surface(canvas, self._pixels(np.array(_EGO)), _EGO_COLOUR, opacity=0.9)
        nose = np.array([[3.3, 0.0], [2.3, 0.6], [2.3, -0.6]])
        drawing.surface(canvas, self._pixels(nose), drawing.PANEL)

    def _draw_cloud(self, canvas: Image, cloud: PointCloud) -> None:
        points = geometry.apply(cloud.base_from_sensor, cloud.points.astype(np.float64))
        pixels = self._pixels(points)
        height, width = canvas.shape[:2]
        inside = ((pixels >= 0) & (pixels < (width - 1, height - 1))).all(axis=1) & (points[:, 2] < _CLOUD_HIGH_M)
        x, y = pixels[inside].astype(np.intp).T
        above = points[inside, 2] > _CLOUD_LOW_M
        canvas[y[~above], x[~above]] = np.maximum(canvas[y[~above], x[~above]], _CLOUD_GROUND[::-1])
        canvas[y[above], x[above]] = np.maximum(canvas[y[above], x[above]], _CLOUD_OBJECTS[::-1])

    def _remember(self, tracks: TrackSet) -> None:
        if tracks.map_from_base is None:
            return
        for track in tracks.tracks:
            trail = self._trails.setdefault(track.id, deque())
            trail.append((tracks.stamp_ns, geometry.apply(tracks.map_from_base, track.position)))
        shown = {track.id for track in tracks.tracks}
        self._trails = {track_id: trail for track_id, trail in self._trails.items() if track_id in shown}
        for trail in self._trails.values():
            while trail[0][0] < tracks.stamp_ns - _TRAIL_NS:
                trail.popleft()

    def _draw_trails(self, canvas: Image, tracks: TrackSet, base_from_map: Transform) -> None:
        for track in tracks.tracks:
            points = np.array([position for _, position in self._trails[track.id]])
            path = self._pixels(geometry.apply(base_from_map, points))
            # In three pieces, so that it fades towards its end.
            for part, opacity in zip(np.array_split(np.arange(len(path)), 3), (0.2, 0.4, 0.65), strict=True):
                if len(part):
                    drawing.lines(canvas, [path[part[0] : part[-1] + 2]], CLASS_COLOURS[track.label], opacity=opacity)

    def _draw_id(self, canvas: Image, track: Track) -> None:
        x, y = self._pixels(track.position[None])[0]
        y -= 0.5 * float(np.max(track.size[:2])) * self._scale + 4
        if 0 < x < canvas.shape[1] and 0 < y < canvas.shape[0]:
            drawing.label(canvas, str(track.id), (x, y), CLASS_COLOURS[track.label])

    def _draw_track(self, canvas: Image, track: Track) -> None:
        colour = CLASS_COLOURS[track.label]
        footprint = self._pixels(geometry.box_corners(track.position, track.size, track.yaw)[:4])
        seen = bool(track.seen_by)
        drawing.surface(canvas, footprint, colour, opacity=0.4 if seen else 0.12)
        drawing.lines(canvas, [footprint], colour, closed=True, opacity=1.0 if seen else 0.5)
        middle, front = footprint.mean(axis=0), footprint[[0, 3]].mean(axis=0)
        drawing.lines(canvas, [np.stack([middle, front])], colour, opacity=1.0 if seen else 0.5)
        if np.hypot(*track.velocity[:2]) >= _MIN_SPEED_MPS:
            self._draw_arrow(canvas, middle, -self._scale * track.velocity[1::-1], colour)

    @staticmethod
    def _draw_arrow(canvas: Image, start: Float, along: Float, colour: Colour) -> None:
        """The way of one second."""
        end = start + along
        direction = along / np.linalg.norm(along)
        side = np.array([-direction[1], direction[0]])
        head: Sequence[Float] = (end + 4 * direction, end - 4 * direction + 4 * side, end - 4 * direction - 4 * side)
        drawing.lines(canvas, [np.stack([start, end])], colour, width=2)
        drawing.surface(canvas, np.array(head), colour)


def _field_of_view(camera: Camera) -> Float:
    """A camera's place, then the far end of what it covers, (N, 2) in `base_link`."""
    row = camera.height / 2
    columns = np.array([(x, row) for x in np.linspace(0, camera.width, 17)])
    directions = geometry.rays(camera, columns) @ camera.base_from_camera.rotation.T
    directions = directions[:, :2] / np.linalg.norm(directions[:, :2], axis=1, keepdims=True)
    place = camera.base_from_camera.translation[:2]
    return np.concatenate([place[None], place + _FURTHEST_RING_M * directions])
