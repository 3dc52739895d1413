"""What is beyond the town: the sky with its clouds, the sun's glow, and hills and roofs at the horizon."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from engines.world.light import Lighting
from perception.messages import Float, Float32

AZIMUTHS: Final = 1440
ELEVATIONS: Final = 256
"""From -4 to 60 degrees."""
LOWEST: Final = np.deg2rad(-4.0)
HIGHEST: Final = np.deg2rad(60.0)


def panorama(lighting: Lighting, rng: np.random.Generator) -> Float32:
    """The sky (ELEVATIONS, AZIMUTHS, 3) linear BGR, from the lowest row up, from azimuth 0 counter-clockwise."""
    light = lighting.light
    elevation = np.linspace(LOWEST, HIGHEST, ELEVATIONS)[:, None]
    azimuth = (np.arange(AZIMUTHS) * 2 * np.pi / AZIMUTHS)[None, :]
    rise = np.clip(np.sin(np.maximum(elevation, 0)) / 0.75, 0, 1) ** 0.55
    rise = np.broadcast_to(rise, (ELEVATIONS, AZIMUTHS))[..., None]
    sky = np.array(light.horizon) * (1 - rise) + np.array(light.zenith) * rise
    sun_azimuth = np.arctan2(lighting.sun[1], lighting.sun[0])
    angle = _angle_to_sun(elevation, azimuth, sun_azimuth, np.deg2rad(light.sun_elevation))
    if light.sun_elevation > -10 and light.clouds > 0:
        glow = np.exp(-angle / 0.35) * (0.5 if lighting.sunny else 0.35)
        warmth = np.array([0.30, 0.62, 1.0]) if light.sun_elevation < 20 else np.array([0.9, 0.97, 1.0])
        sky = sky + glow[..., None] * warmth * (np.mean(light.horizon) + 0.05)
    if light.clouds > 0:
        sky = _clouded(sky, light.clouds, lighting, elevation, angle, rng)
    if lighting.sunny:
        sky = sky + (np.exp(-((angle / 0.02) ** 2)) * 14)[..., None] * np.array(light.sun)
    return _skyline(sky, light.windows, np.array(light.horizon), rng).astype(np.float32)


def _angle_to_sun(elevation: Float, azimuth: Float, sun_azimuth: float, sun_elevation: float) -> Float:
    cosine = np.sin(elevation) * np.sin(sun_elevation) + np.cos(elevation) * np.cos(sun_elevation) * np.cos(
        azimuth - sun_azimuth
    )
    angle: Float = np.arccos(np.clip(cosine, -1, 1))
    return angle


def _clouded(
    sky: Float, cover: float, lighting: Lighting, elevation: Float, angle: Float, rng: np.random.Generator
) -> Float:
    noise = np.zeros((ELEVATIONS, AZIMUTHS), np.float32)
    for octave, wide in enumerate((12, 24, 48, 96, 180)):  # all divide AZIMUTHS, so that the sky closes without a seam
        scale = AZIMUTHS // wide
        grains = rng.normal(0, 0.55**octave, (10 * 2**octave, wide)).astype(np.float32)
        grains = np.pad(grains, ((0, 0), (2, 2)), mode="wrap")
        grown = cv2.resize(grains, ((wide + 4) * scale, ELEVATIONS), interpolation=cv2.INTER_CUBIC)
        noise += np.asarray(grown, np.float32)[:, 2 * scale : 2 * scale + AZIMUTHS]
    # Clouds thin out with height, where one looks through the layer and not along it.
    amount = np.clip((noise + cover * 1.6 - 0.5 - np.sin(np.maximum(elevation, 0)) * 0.6) * 0.75, 0, 0.92)[..., None]
    shade = np.clip(0.86 + noise * 0.10, 0.6, 1.15)[..., None]
    light = lighting.light
    if lighting.sunny:
        tone = (np.array(light.sky) * 1.2 + np.array(light.sun) * 0.42) * (1 + 0.5 * np.exp(-angle / 0.5))[..., None]
    elif light.sun_elevation > -10:
        tone = np.array(light.zenith) * 1.0 + np.exp(-angle / 0.6)[..., None] * np.array([0.12, 0.17, 0.34])
    else:
        tone = np.array(light.horizon) * 0.75
    clouded: Float = sky * (1 - amount) + tone * shade * amount
    return clouded


def _skyline(sky: Float, windows: float, horizon: Float, rng: np.random.Generator) -> Float:
    """Hills and far roofs, pale with distance."""
    degrees = np.linspace(np.rad2deg(LOWEST), np.rad2deg(HIGHEST), ELEVATIONS)[:, None]
    x = np.arange(AZIMUTHS) * 2 * np.pi / AZIMUTHS
    hills = 2.0 + sum(rng.uniform(0.2, 0.9) / k * np.sin(k * x + rng.uniform(0, 6.28)) for k in (2, 3, 5, 8, 13))
    roofs = np.repeat(rng.uniform(0.6, 3.2, AZIMUTHS // 8), 8)[:AZIMUTHS]
    blend = np.where(degrees < hills, 0.72, 1.0)[..., None]
    sky = sky * blend + horizon * 0.2 * (1 - blend)
    near = (degrees < roofs)[..., None]
    grain = np.repeat(rng.uniform(0.5, 0.68, AZIMUTHS // 8), 8)[:AZIMUTHS, None]
    sky = np.where(near, horizon * grain, sky)
    if windows > 0:
        lit = (rng.random(sky.shape[:2]) < 0.1) & near[..., 0] & (degrees > 0.2)
        sky[lit] += windows * np.array([0.3, 0.6, 0.9]) * 0.5
    return sky


def coordinates(rays: Float32, heading: float) -> tuple[Float32, Float32]:
    """Columns and rows of the panorama for rays (..., 3) in a frame that is turned by `heading`."""
    azimuth = (np.arctan2(rays[..., 1], rays[..., 0]) + heading) % (2 * np.pi)
    elevation = np.arctan2(rays[..., 2], np.hypot(rays[..., 0], rays[..., 1]))
    column = azimuth * (AZIMUTHS / (2 * np.pi))
    row = (elevation - LOWEST) * ((ELEVATIONS - 1) / (HIGHEST - LOWEST))
    return column.astype(np.float32), row.astype(np.float32)
