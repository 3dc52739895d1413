"""From light to an image: glare, exposure, the sensor's curve and noise, and the weather on the lens."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from engines.world import motion
from engines.world.light import Light
from engines.world.scenario import Scenario, stream
from perception.messages import Float32, Image

_LAG_S: Final = 0.55
_SHUTTER_S: Final = 0.0014
"""How long the shutter is open on a bright day; beyond the longest, amplification has to do."""
_LONGEST_SHUTTER_S: Final = 0.012
_STEPS: Final = 65536
_WHITE: Final = 4.0


def _curve() -> Image:
    """Linear light up to _WHITE to 8 bits: a film-like curve with toe and shoulder (Narkowicz 2015), then sRGB's."""
    x = np.linspace(0, _WHITE, _STEPS) * 0.85
    y = np.clip(x * (2.51 * x + 0.03) / (x * (2.43 * x + 0.59) + 0.14), 0, 1)
    encoded = np.where(y <= 0.0031308, 12.92 * y, 1.055 * y ** (1 / 2.4) - 0.055)
    return np.clip(np.round(encoded * 255), 0, 255).astype(np.uint8)


_CURVE: Final = _curve()


class Sensor:
    """One camera's sensor; it remembers its exposure."""

    def __init__(self, name: str, seed: int, scenario: Scenario, light: Light) -> None:
        self._rng = stream(seed, "sensor", name)
        self._scenario = scenario
        self._light = light
        self._gain = 0.0
        self._exposed_s = 0.0
        self._noise: Image | None = None
        self._drops = _drops(self._rng) if scenario.weather == "rain" else []

    def expose(self, light: Float32, flow: Float32, time_s: float) -> Image:
        """An image (H, W, 3) uint8 BGR of light (3, H, W) float32 that fell around `time_s` and moved by `flow`.

        `flow` (2, H, W) is in pixels per second; the shutter is open the longer the darker it is.
        """
        picture = np.asarray(cv2.merge(list(light)), np.float32)
        gain = self._meter(picture, time_s)
        picture *= np.float32(gain)
        self._bloom(picture)
        picture *= np.float32((_STEPS - 1) / _WHITE)
        levels = np.minimum(picture, _STEPS - 1, out=picture).astype(np.uint16)
        image = np.asarray(cv2.LUT(levels, _CURVE), np.uint8)
        image = motion.blur(image, flow * np.float32(min(_SHUTTER_S * gain, _LONGEST_SHUTTER_S)))
        if self._scenario.weather == "rain":
            image = self._rain(image)
        return self._noisy(image, gain)

    def _meter(self, picture: Float32, time_s: float) -> float:
        """The exposure follows the light with a lag; it starts settled."""
        small = np.minimum(picture[4::8, 4::8], 2.0)
        height = small.shape[0]
        weights = np.linspace(0.55, 1.0, height)[:, None]
        mean = float((small.mean(2) * weights).sum() / (weights.sum() * small.shape[1]))
        wanted = float(np.clip(self._light.key / max(mean, 1e-4), 0.35, self._light.longest))
        if self._gain == 0:
            self._gain = wanted
        else:
            passed = max(time_s - self._exposed_s, 0.0)
            self._gain *= (wanted / self._gain) ** (1 - np.exp(-passed / _LAG_S))
        self._exposed_s = time_s
        return self._gain

    @staticmethod
    def _bloom(picture: Float32) -> None:
        """Light that scatters in the lens: the brightest parts glow."""
        height, width = picture.shape[:2]
        small = cv2.resize(picture, (width // 4, height // 4), interpolation=cv2.INTER_AREA)
        bright = np.clip(np.asarray(small) - np.float32(1.1), 0, 12).astype(np.float32)
        if bright.max() <= 0:
            return
        wide = max(width // 4 // 26, 1)
        glow = cv2.GaussianBlur(bright, (0, 0), wide / 2) * 0.16 + cv2.GaussianBlur(bright, (0, 0), wide * 2) * 0.07
        picture += cv2.resize(glow, (width, height), interpolation=cv2.INTER_LINEAR)

    def _noisy(self, image: Image, gain: float) -> Image:
        height, width = image.shape[:2]
        if self._noise is None:
            grains = self._rng.normal(0, 32, (height + 64, width + 64, 3)).astype(np.float32)
            grains = 0.4 * grains + 0.9 * grains.mean(2, keepdims=True)
            self._noise = np.clip(grains + 128, 0, 255).astype(np.uint8)
        x, y = self._rng.integers(0, 64, 2)
        part = self._noise[y : y + height, x : x + width]
        sigma = 0.55 + 0.35 * max(gain - 1.0, 0.0)
        return np.asarray(cv2.addWeighted(image, 1.0, part, sigma / 32, -128 * sigma / 32 + 0.0), np.uint8)

    def _rain(self, image: Image) -> Image:
        height, width = image.shape[:2]
        sparse = np.zeros((height // 2, width // 2), np.uint8)
        count = 90
        x, y = self._rng.integers(0, width // 2, count), self._rng.integers(0, height // 2, count)
        length = self._rng.integers(6, 26, count)
        slant = self._rng.normal(0.06, 0.04)
        for i in range(count):
            end = (int(x[i] + slant * length[i]), int(y[i] + length[i]))
            cv2.line(sparse, (int(x[i]), int(y[i])), end, int(10 + 22 * (i % 4) / 3), 1, cv2.LINE_AA)
        streaks = cv2.resize(cv2.blur(sparse, (1, 3)), (width, height), interpolation=cv2.INTER_LINEAR)
        brightness = min(float(image.mean()) / 90, 1.0)
        image = np.asarray(
            cv2.add(image, cv2.cvtColor(cv2.convertScaleAbs(streaks, None, 0.9 * brightness), cv2.COLOR_GRAY2BGR)),
            np.uint8,
        )
        for cx, cy, radius in self._drops:
            _drop(image, round(cx * width), round(cy * height), max(round(radius * width), 2))
        return image


def _drops(rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """Water on the lens: where, and how large, in parts of the image's width and height."""
    count = int(rng.integers(5, 12))
    return [(float(rng.uniform()), float(rng.uniform()), float(rng.uniform(0.006, 0.022))) for _ in range(count)]


def _drop(image: Image, x: int, y: int, radius: int) -> None:
    """A drop shows a small, blurred, upside-down image of what is around it."""
    height, width = image.shape[:2]
    reach = 4 * radius
    x0, x1, y0, y1 = x - radius, x + radius + 1, y - radius, y + radius + 1
    if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
        return
    around = image[max(y - reach, 0) : y + reach, max(x - reach, 0) : x + reach]
    inner = cv2.resize(around[::-1, ::-1], (2 * radius + 1, 2 * radius + 1), interpolation=cv2.INTER_AREA)
    mask = np.zeros((2 * radius + 1, 2 * radius + 1), np.float32)
    cv2.ellipse(mask, (radius, radius), (max(radius - 2, 1), max(radius - 1, 1)), 0, 0, 360, 0.8, -1, cv2.LINE_AA)
    weight = np.asarray(cv2.GaussianBlur(mask, (0, 0), max(radius / 6, 0.6)))[..., None]
    part = image[y0:y1, x0:x1]
    part[:] = np.clip(part * (1 - weight) + np.asarray(inner) * weight * 1.04, 0, 255).astype(np.uint8)
