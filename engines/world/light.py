"""Where light falls: sun and shadows, street lamps, headlights, the underpass.

Shadows are kept as heights over the ground plane: for every point of the ground, how high up along the sun's ray
through it the last thing stands that shades it. A point in the air is lit if it lies above that height where its own
ray meets the ground. That is a shadow map (Williams 1978) whose plane is the ground, so the parts that stand still are
drawn once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import cv2
import numpy as np

from engines.world import raster
from engines.world.furniture import LAMP_HEIGHT_M
from engines.world.raster import Lens, Surface
from engines.world.scenario import Scenario
from engines.world.town import TUNNEL_HEIGHT_M, Town
from perception.messages import Float, Float32, Image

SHADOW_PX_PER_M: Final = 6
WINDOW_PX: Final = 960
"""The square around the ego vehicle in which moving things cast shadows and light: 160 m."""
LAMP_PX_PER_M: Final = 2
_LAMP_WINDOW_PX: Final = WINDOW_PX // SHADOW_PX_PER_M * LAMP_PX_PER_M
_HEAVEN_M: Final = 160.0
_HEADLIGHTS_MATTER: Final = 0.6


@dataclass(frozen=True, slots=True)
class Light:
    """The light of a scenario; colours are linear BGR, 1 is a white wall in full sun.

    `sun_elevation` in degrees; `sky` and `bounce` are what falls on a surface from above and below. `lamps` and
    `headlights` scale street lamps and vehicle lamps, `windows` those behind windows; `haze_m` is the distance over
    which contrast falls to 1/e. The exposure aims at an image whose mean is `key`; `longest` is the longest exposure
    relative to a bright day's.
    """

    sun: tuple[float, float, float]
    sun_elevation: float
    sky: tuple[float, float, float]
    bounce: tuple[float, float, float]
    zenith: tuple[float, float, float]
    horizon: tuple[float, float, float]
    clouds: float
    lamps: float
    headlights: float
    windows: float
    haze_m: float
    key: float
    longest: float


_LIGHTS: Final = {
    "day": Light(
        sun=(0.82, 0.94, 1.0), sun_elevation=52.0, sky=(0.31, 0.28, 0.25), bounce=(0.09, 0.10, 0.11),
        zenith=(0.62, 0.38, 0.20), horizon=(0.84, 0.80, 0.74), clouds=0.5,
        lamps=0.0, headlights=0.35, windows=0.0, haze_m=900.0, key=0.20, longest=4.0,
    ),
    "low_sun": Light(
        sun=(0.46, 0.72, 1.0), sun_elevation=17.0, sky=(0.25, 0.22, 0.20), bounce=(0.06, 0.07, 0.08),
        zenith=(0.56, 0.40, 0.28), horizon=(0.50, 0.68, 0.86), clouds=0.55,
        lamps=0.0, headlights=0.5, windows=0.06, haze_m=420.0, key=0.19, longest=5.0,
    ),
    "dusk": Light(
        sun=(0.0, 0.0, 0.0), sun_elevation=-3.0, sky=(0.105, 0.080, 0.072), bounce=(0.018, 0.018, 0.02),
        zenith=(0.15, 0.085, 0.06), horizon=(0.12, 0.16, 0.27), clouds=0.5,
        lamps=0.05, headlights=0.8, windows=0.13, haze_m=400.0, key=0.14, longest=7.0,
    ),
    "night": Light(
        sun=(0.0, 0.0, 0.0), sun_elevation=-20.0, sky=(0.0075, 0.0055, 0.0045), bounce=(0.001, 0.001, 0.001),
        zenith=(0.006, 0.004, 0.003), horizon=(0.016, 0.017, 0.020), clouds=0.3,
        lamps=0.085, headlights=1.0, windows=0.085, haze_m=500.0, key=0.075, longest=9.0,
    ),
}  # fmt: skip
_WARM: Final = np.array([0.36, 0.66, 1.0], np.float32)
_WHITE: Final = np.array([0.98, 0.97, 0.92], np.float32)


def light_of(scenario: Scenario) -> Light:
    """The light of a scenario, weather included."""
    light = _LIGHTS[scenario.light]
    if scenario.weather == "clear":
        return light
    changes: dict[str, object] = {"sun": (0.0, 0.0, 0.0), "clouds": 0.0}
    if scenario.weather == "fog":
        changes |= {"haze_m": 42.0, "headlights": max(light.headlights, 0.8)}
    else:
        changes |= {"haze_m": min(light.haze_m, 150.0), "headlights": max(light.headlights, 0.7)}
    if scenario.light in ("day", "low_sun"):
        grey = 0.62 if scenario.weather == "fog" else 0.5
        changes |= {
            "sky": (grey * 0.98, grey * 0.95, grey * 0.9),
            "bounce": (0.08, 0.08, 0.08),
            "zenith": (grey * 0.92, grey * 0.88, grey * 0.84),
            "horizon": (grey * 1.12, grey * 1.1, grey * 1.07),
            "windows": 0.05,
        }
    return Light(**{name: changes.get(name, getattr(light, name)) for name in Light.__slots__})  # type: ignore[arg-type]


class Window(NamedTuple):
    """What falls around the ego vehicle now.

    `low` is the world's point at pixel (0, 0). `heights` (n, n) float32 are the heights of shadow, None without sun;
    `ground` (n, n, 2) uint8 tells how much sun and how much of the sky the ground gets, 255 for all. `lamps` (m, m, 2)
    float32 is the light of warm and white lamps, None where none is lit; at `LAMP_PX_PER_M`.
    """

    low: Float
    heights: Float32 | None
    ground: Image
    lamps: Float32 | None


class Lighting:
    """The light of one town; `sun` (3,) points to the sun, `tunnels` are rectangles (low, high) without sky."""

    def __init__(self, town: Town, scenario: Scenario, standing: Surface, lamps: Float, sun_azimuth: float) -> None:
        self.light = light_of(scenario)
        elevation = np.deg2rad(max(self.light.sun_elevation, 5.0))
        self.sun = np.array(
            [np.cos(elevation) * np.cos(sun_azimuth), np.cos(elevation) * np.sin(sun_azimuth), np.sin(elevation)]
        )
        self.slope = self.sun[:2] / self.sun[2]
        self.tunnels = town.tunnels
        self.sunny = max(self.light.sun) > 0
        self._margin = WINDOW_PX // 2
        self._size = np.ceil(town.size * SHADOW_PX_PER_M).astype(int) + 2 * self._margin
        self._depths = self._standing_shadows(standing) if self.sunny else None
        self._lamps = self._standing_lamps(lamps) if self.light.lamps or self.tunnels else None
        self._beam = _beam()

    def window(
        self,
        ego: tuple[float, float, float],
        moving: Surface | None,
        boxes: list[tuple[Float, Float, float]],
        beams: list[tuple[float, float, float]],
    ) -> Window:
        """The light around the ego vehicle at x, y, heading.

        `moving` casts shadows; `boxes` are (centre, size, heading) of what stands on the ground and darkens it
        close by; `beams` are x, y, heading of vehicles' lamps.
        """
        corner = np.round(np.array(ego[:2]) * SHADOW_PX_PER_M).astype(int) - WINDOW_PX // 2
        at = np.clip(corner + self._margin, 0, self._size - WINDOW_PX)
        low = (at - self._margin) / SHADOW_PX_PER_M
        heights = None
        lit = np.full((WINDOW_PX, WINDOW_PX), 255, np.uint8)
        if self._depths is not None:
            depth = self._depths[at[1] : at[1] + WINDOW_PX, at[0] : at[0] + WINDOW_PX].copy()
            if moving is not None:
                self._cast(moving, low, depth)
            heights = _HEAVEN_M - depth
            lit = np.asarray(cv2.GaussianBlur(np.where(heights < 0.05, 255, 0).astype(np.uint8), (0, 0), 0.9), np.uint8)
        ground = cv2.merge([lit, self._contact(boxes, low)])
        return Window(low, heights, np.asarray(ground, np.uint8), self._lamp_light(low, beams))

    def _lamp_light(self, low: Float, beams: list[tuple[float, float, float]]) -> Float32 | None:
        """Street lamps and headlights, for a window whose corner is `low`."""
        if self._lamps is None and self.light.headlights < _HEADLIGHTS_MATTER:
            return None
        n = _LAMP_WINDOW_PX
        lamps = np.zeros((n, n, 2), np.float32)
        if self._lamps is not None:
            column, row = np.round(low * LAMP_PX_PER_M + self._margin * LAMP_PX_PER_M / SHADOW_PX_PER_M).astype(int)
            part = self._lamps[row : row + n, column : column + n]
            lamps[: part.shape[0], : part.shape[1]] = part
        white = np.ascontiguousarray(lamps[..., 1])
        for x, y, heading in beams:
            c, s = np.cos(heading), np.sin(heading)
            px, py = (np.array([x, y]) - low) * LAMP_PX_PER_M
            matrix = np.array([[c, -s, px + 20 * s], [s, c, py - 20 * c]])  # the sprite's lamp is at row 20, column 0
            white += self.light.headlights * np.asarray(cv2.warpAffine(self._beam, matrix, (n, n)), np.float32)
        lamps[..., 1] = white
        return lamps

    def sky_factor(self, x: Float32, y: Float32, z: Float32) -> Float32 | None:
        """How much of the sky a point sees on account of tunnels, (...) in [0, 1]; None where that is all of it."""
        factor: Float32 | None = None
        for low, high in self.tunnels:
            if not (
                x.min() < high[0] + 12 and x.max() > low[0] - 12 and y.min() < high[1] + 12 and y.max() > low[1] - 12
            ):
                continue
            deep = np.minimum(np.minimum(x - low[0], high[0] - x), np.minimum(y - low[1], high[1] - y))
            along = high - low
            # Sky light enters at the ends only, and is a tenth some 8 m inside.
            end = np.minimum(x - low[0], high[0] - x) if along[0] > along[1] else np.minimum(y - low[1], high[1] - y)
            covered = (deep > -0.3) & (z < TUNNEL_HEIGHT_M + 0.35)
            here = np.where(covered, 0.75 * np.exp(np.minimum(-end, 0) / 3.5) + 0.012, 1.0).astype(np.float32)
            factor = here if factor is None else factor * here
        return factor

    def _standing_shadows(self, standing: Surface) -> Float32:
        depth = np.full((self._size[1], self._size[0]), _HEAVEN_M, np.float32)
        low = np.full(2, -self._margin / SHADOW_PX_PER_M)
        self._cast(standing, low, depth)
        return depth

    def _cast(self, surface: Surface, low: Float, depth: Float32) -> None:
        """Draw shadows into `depth`: `_HEAVEN_M` minus the height of what casts them."""
        facing = surface.normals @ self.sun.astype(np.float32) > 0
        corners = surface.corners[facing]
        height, width = depth.shape
        z = _HEAVEN_M - corners[..., 2]
        u = (corners[..., 0] - corners[..., 2] * self.slope[0] - low[0]) * SHADOW_PX_PER_M
        v = (corners[..., 1] - corners[..., 2] * self.slope[1] - low[1]) * SHADOW_PX_PER_M
        near = (u.max(1) > 0) & (u.min(1) < width) & (v.max(1) > 0) & (v.min(1) < height)
        focal = 1000.0
        flat = np.stack([u * z / focal, v * z / focal, z], axis=-1)[near].astype(np.float32)
        raster.rasterise(
            flat, np.ones(len(flat), np.int32), Lens(width, height, focal, 0.0, 0.0), depth, span=(60.0, 2 * _HEAVEN_M)
        )

    def _contact(self, boxes: list[tuple[Float, Float, float]], low: Float) -> Image:
        """The sky that the ground under and beside things does not see."""
        half = np.full((WINDOW_PX // 2, WINDOW_PX // 2), 255, np.uint8)
        scale = SHADOW_PX_PER_M / 2
        for centre, size, heading in boxes:
            c, s = np.cos(heading), np.sin(heading)
            corners = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) * (size[:2] / 2 + 0.05)
            points = (corners @ np.array([[c, s], [-s, c]]) + centre[:2] - low) * scale
            cv2.fillConvexPoly(half, np.round(points * 16).astype(np.int32), 70, cv2.LINE_AA, 4)
        half = np.asarray(cv2.GaussianBlur(half, (0, 0), 0.9), np.uint8)
        return np.asarray(cv2.resize(half, (WINDOW_PX, WINDOW_PX), interpolation=cv2.INTER_LINEAR), np.uint8)

    def _standing_lamps(self, places: Float) -> Float32:
        scale = LAMP_PX_PER_M / SHADOW_PX_PER_M
        width, height = np.ceil(self._size * scale).astype(int)
        field = np.zeros((height, width, 2), np.float32)
        reach = 26
        yy, xx = np.mgrid[-reach : reach + 1, -reach : reach + 1] / LAMP_PX_PER_M
        pool = (
            LAMP_HEIGHT_M**3 / (xx**2 + yy**2 + LAMP_HEIGHT_M**2) ** 1.5 * np.clip(1.2 - np.hypot(xx, yy) / 13, 0, 1)
        ).astype(np.float32)
        if self.light.lamps:
            _stamp(field[..., 0], places, pool * self.light.lamps, self._margin * scale)
        for low, high in self.tunnels:
            along = int(high[1] - low[1] > high[0] - low[0])
            spots = []
            for s in np.arange(low[along] + 1.5, high[along], 3.0):
                for part in (0.3, 0.7):
                    spot = low + (high - low) * part
                    spot[along] = s
                    spots.append(spot)
            glow = np.zeros_like(field[..., 1])
            _stamp(glow, np.array(spots), pool * 0.018, self._margin * scale)
            a, b = (np.round((p * SHADOW_PX_PER_M + self._margin) * scale).astype(int) for p in (low - 2, high + 2))
            field[a[1] : b[1], a[0] : b[0], 1] += glow[a[1] : b[1], a[0] : b[0]]
        return field


def lamp_colours() -> tuple[Float32, Float32]:
    """Of the two kinds of lamps, BGR."""
    return _WARM, _WHITE


def _stamp(field: Float32, places: Float, sprite: Float32, margin: float) -> None:
    reach = sprite.shape[0] // 2
    for place in places:
        x, y = np.round(place * LAMP_PX_PER_M + margin).astype(int)
        field[y - reach : y + reach + 1, x - reach : x + reach + 1] += sprite


def _beam() -> Float32:
    """The light of a vehicle's two dipped lamps on the ground ahead of it: 40 x 20 m."""
    y, x = np.mgrid[-20:21, 0:90] / LAMP_PX_PER_M
    total = np.zeros(x.shape)
    for side in (-0.65, 0.65):
        off = y - side
        along = np.clip(x / 9.0, 0, 1) * np.exp(-x / 15.0) * np.clip((44 - x) / 10, 0, 1)
        across = np.exp(-((off / (0.7 + 0.19 * x)) ** 2))
        total += along * across
    return np.asarray(0.22 * total / total.max(), np.float32)
