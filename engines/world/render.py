"""From triangles to light: what each pixel shows, and how bright it is.

Every pixel is shaded once, after the z-buffer has settled what it shows (deferred shading). Light is linear BGR.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.world import facade, light, raster, sky
from engines.world.light import LAMP_PX_PER_M, SHADOW_PX_PER_M, Window
from engines.world.mesh import FACADE, GLASS, LEAVES, PAINT
from engines.world.paint import paint_facades, paint_ground, paint_leaves, taken
from engines.world.raster import FAR_M, Lens, Pose, Surface
from engines.world.view import Eye, Scene
from perception.messages import Float32, Image, Int32

_SHADOW_OFFSET_M: Final = 0.25


class Buffers(NamedTuple):
    """What came out of the rasteriser: per pixel (H, W) the owner's number, 0 for none, and the depth in metres."""

    owners: Int32
    depth: Float32


def draw(
    scene: Scene, window: Window, moving: Surface, view: Eye, pose: Pose, heading: float
) -> tuple[Float32, Buffers]:
    """Render: light (3, H, W) and the buffers."""
    lens = view.lens
    seen = _in_reach(scene, moving, pose, lens)
    in_camera = raster.in_camera(seen.corners, pose)
    inside = np.flatnonzero(raster.inside(in_camera, lens))
    clipped, sources = raster.clip_near(in_camera[inside])
    seen = seen.chosen(inside[sources])
    depth = view.ground_depth.copy()
    numbers = raster.visible(clipped, seen.kinds >= FACADE, lens, depth)
    place = _places(view, pose, heading, depth)
    table = _Table(scene, seen, pose)

    albedo = np.empty_like(place)
    for row, plane in zip(table.albedo, albedo, strict=True):
        np.take(row, numbers, out=plane, mode="clip")
    paint_ground(albedo, scene, view, numbers, place)
    glow = paint_facades(albedo, scene, seen, numbers, depth, place, lens)
    paint_leaves(albedo, seen, numbers, place)

    fall = _fall(scene, window, table, numbers, place)
    radiance = albedo
    for k in range(3):
        radiance[k] *= fall[k]
    _add(radiance, *glow)
    shining = np.flatnonzero(taken(table.shines, numbers))
    _add(radiance, shining, table.emission[:, numbers.ravel()[shining]])
    if scene.wet:
        _reflect(radiance, scene, view, clipped, table, numbers, place)
    _haze_and_sky(radiance, scene, view, depth, heading)
    return radiance, Buffers(np.append(np.int32(0), seen.owners)[numbers], depth)


def _in_reach(scene: Scene, moving: Surface, pose: Pose, lens: Lens) -> Surface:
    reach = min(FAR_M, scene.lighting.light.haze_m * 4)
    standing = scene.standing.surface.chosen(scene.standing.facing(pose, lens, reach))
    return raster.concatenate([standing, moving.chosen(raster.towards(moving, pose))])


def _places(view: Eye, pose: Pose, heading: float, depth: Float32) -> Float32:
    """The point (3, H, W) of the world that each pixel shows."""
    c, s = np.float32(np.cos(heading)), np.float32(np.sin(heading))
    x, y, z = view.rays
    place = np.empty_like(view.rays)
    np.multiply(c * x - s * y, depth, out=place[0])
    np.multiply(s * x + c * y, depth, out=place[1])
    np.multiply(z, depth, out=place[2])
    place += pose.place.astype(np.float32)[:, None, None]
    return place


def _add(radiance: Float32, pixels: raster.IndexArray, light_: Float32) -> None:
    for plane, more in zip(radiance.reshape(3, -1), light_, strict=True):
        plane[pixels] += more


class _Table:
    """How each triangle looks; the first entry is that of the ground and the sky, where no triangle shows.

    `albedo` and `emission` are (3, 1 + T); `sky` and `sun` (1 + T,) are how much of either light falls on it if nothing
    is in the way, `lamps` the same for street lamps; `offset` (2, 1 + T) is where to look for its shadow, in metres.
    """

    def __init__(self, scene: Scene, seen: Surface, pose: Pose) -> None:
        lighting = scene.lighting
        up = seen.normals[:, 2]
        to_sun = np.clip(seen.normals @ lighting.sun.astype(np.float32), 0, 1)
        to_sun *= np.clip(to_sun * 8, 0, 1)  # light that grazes a wall only shows how coarse the shadows are
        leaves = seen.kinds == LEAVES
        to_sun[leaves] = 0.35 + 0.65 * to_sun[leaves]  # leaves let light through
        dim = np.mean(lighting.light.bounce) / np.mean(lighting.light.sky)
        self.albedo = _after(np.zeros(3), seen.colours.T)
        self.sky = _after(1.0, dim + (1 - dim) * (up + 1) / 2)
        self.sun = _after(lighting.sun[2], to_sun)
        self.lamps = _after(1.0, 0.55 + 0.35 * np.clip(up, -0.6, 1))
        slope = lighting.slope
        self.offset = _after(
            np.zeros(2), _SHADOW_OFFSET_M * np.stack([seen.normals[:, i] - up * slope[i] for i in (0, 1)])
        )
        self.emission = _after(np.zeros(3), (seen.colours * seen.emission[:, None]).T + _mirrored(scene, seen, pose))
        self.shines = np.asarray(self.emission.any(0))
        style = np.clip(seen.kinds - FACADE, 0, None)
        self.windows = _after(0.0, np.where(seen.kinds >= FACADE, np.where(style == facade.SHOP, 0.6, 0.12), 0.0))


def _after(first: float | NDArray[Any], values: NDArray[Any]) -> Float32:
    """Put the ground's entry before those of the triangles."""
    out = np.empty((*values.shape[:-1], values.shape[-1] + 1), np.float32)
    out[..., 0] = first
    out[..., 1:] = values
    return out


def _mirrored(scene: Scene, seen: Surface, pose: Pose) -> Float32:
    """What glass and paint mirror (3, T): the sky above, the street below (Schlick 1994 for the angle)."""
    mirrored = np.zeros((3, len(seen.kinds)), np.float32)
    glossy = np.flatnonzero((seen.kinds == GLASS) | (seen.kinds == PAINT))
    if len(glossy) == 0:
        return mirrored
    normal = seen.normals[glossy]
    sight = seen.middles[glossy] - pose.place.astype(np.float32)
    sight /= np.linalg.norm(sight, axis=1, keepdims=True)
    cosine = -(sight * normal).sum(1)
    out = sight + 2 * cosine[:, None] * normal
    f0 = np.where(seen.kinds[glossy] == GLASS, 0.10, 0.04)
    fresnel = f0 + (1 - f0) * np.clip(1 - cosine, 0, 1) ** 5 * 0.6
    column, row = sky.coordinates(out.astype(np.float32), 0.0)
    row = np.clip(row, 30, sky.ELEVATIONS - 1)
    environment = np.minimum(scene.panorama[row.astype(int), column.astype(int) % sky.AZIMUTHS], 5.0)
    street = np.array(scene.lighting.light.sky, np.float32) * 0.3
    above = np.clip(out[:, 2] * 3.0, 0, 1)[:, None]
    under_roof = scene.lighting.sky_factor(*seen.middles[glossy].T)
    mirrored[:, glossy] = ((environment * above + street * (1 - above)) * fresnel[:, None]).T
    if under_roof is not None:
        mirrored[:, glossy] *= np.maximum(under_roof, 0.06)
    return mirrored


def _fall(scene: Scene, window: Window, table: _Table, numbers: raster.IndexArray, place: Float32) -> Float32:
    """The light (3, H, W) that falls on what each pixel shows: from the sky, the sun and the lamps."""
    lighting = scene.lighting
    lamp = lighting.light
    x, y, z = place
    column = (x - np.float32(window.low[0])) * np.float32(SHADOW_PX_PER_M)
    row = (y - np.float32(window.low[1])) * np.float32(SHADOW_PX_PER_M)
    near = cv2.remap(
        window.ground, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(255, 255, 0, 0)
    )
    soft, contact = cv2.split(near)
    from_sky = taken(table.sky, numbers)
    close = np.flatnonzero((contact < 250) & (z < np.float32(0.45)))
    hidden = (1 - contact.ravel()[close] * np.float32(1 / 255)) * (1 - z.ravel()[close] * np.float32(1 / 0.45))
    from_sky.ravel()[close] *= 1 - hidden
    tunnel = lighting.sky_factor(x, y, z)
    if tunnel is not None:
        from_sky *= tunnel
    fall = np.empty_like(place)
    for k in range(3):
        np.multiply(from_sky, np.float32(lamp.sky[k]), out=fall[k])
    if window.heights is not None:
        sunlit = _sunlit(scene, window.heights, table, numbers, (column, row), z, np.asarray(soft))
        for k in range(3):
            fall[k] += sunlit * np.float32(lamp.sun[k])
    if window.lamps is not None:
        scale = np.float32(LAMP_PX_PER_M / SHADOW_PX_PER_M)
        both = cv2.remap(
            window.lamps,
            column * scale,
            row * scale,
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=(0, 0, 0, 0),
        )
        warm, white = cv2.split(both)
        facing = taken(table.lamps, numbers)
        # Street lamps light what is below them, headlights what is low.
        warm *= facing * np.clip(np.float32(1.25) - z * np.float32(1 / 8.0), 0, 1)
        white *= facing * np.clip(np.float32(1.35) - z * np.float32(1 / 2.6), 0.06, 1)
        for k, (warm_k, white_k) in enumerate(zip(*light.lamp_colours(), strict=True)):
            fall[k] += warm * warm_k + white * white_k
    return fall


def _sampled(image: Float32, u: Float32, v: Float32) -> Float32:
    """`image` at points (n,); 0 outside. In rows, for OpenCV limits the sides of an image."""
    side = 1024
    lines = max(-(-len(u) // side), 1)
    at = np.zeros((2, lines * side), np.float32)
    at[0, : len(u)], at[1, : len(u)] = u, v
    found = cv2.remap(
        image, at[0].reshape(lines, side), at[1].reshape(lines, side), cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT, borderValue=(0, 0, 0, 0),
    )  # fmt: skip
    return np.asarray(found, np.float32).reshape(-1)[: len(u)]


def _sunlit(
    scene: Scene,
    heights: Float32,
    table: _Table,
    numbers: raster.IndexArray,
    at: tuple[Float32, Float32],
    z: Float32,
    soft: Image,
) -> Float32:
    """How much sun each pixel gets (H, W): the ground by the soft shadows, all else by its height over them."""
    sunlit = taken(table.sun, numbers)
    facing = np.flatnonzero((sunlit > 0) & (numbers > 0))
    number = numbers.ravel()[facing]
    height = z.ravel()[facing]
    slope = scene.lighting.slope
    u, v = (
        at[i].ravel()[facing] + (table.offset[i][number] - height * np.float32(slope[i])) * np.float32(SHADOW_PX_PER_M)
        for i in (0, 1)
    )
    high = _sampled(heights, u, v)
    sunlit_there = sunlit.ravel()[facing]
    sunlit *= soft
    sunlit *= np.float32(1 / 255)
    sunlit.ravel()[facing] = sunlit_there * np.clip((height + np.float32(0.2) - high) * 5, 0, 1)
    return sunlit


def _reflect(
    radiance: Float32,
    scene: Scene,
    view: Eye,
    corners: Float32,
    table: _Table,
    numbers: raster.IndexArray,
    place: Float32,
) -> None:
    """A wet road mirrors what stands on it: the same triangles once more, upside down, at half the resolution."""
    lens, lamp = view.lens, scene.lighting.light
    first = view.bands[0][0]
    half = Lens(lens.width // 2, lens.height // 2, lens.focal / 2, lens.cx / 2, lens.cy / 2)
    flipped = corners.copy()
    flipped[..., 1] = 2 * view.height_m - corners[..., 1]
    far = np.full((half.height, half.width), FAR_M * 2, np.float32)
    found = raster.visible(flipped, np.ones(len(flipped), bool), half, far)[first // 2 :]
    out = -view.rays[2, first:]
    fresnel = np.clip(0.06 + 0.8 * np.exp(out * np.float32(-6.0)), 0, 1)
    columns, rows = (plane[first:] * np.float32(8) for plane in place[:2])
    strength = (
        fresnel
        * cv2.remap(scene.wetness, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        * (numbers[first:] == 0)
    )
    kept = 1 - np.float32(0.7) * strength
    rise = np.clip(out[::2, ::2] * np.float32(1.2), 0, 1) ** np.float32(0.6)
    tint = np.array([0.5, 0.8, 1.0]) * lamp.windows
    size = (lens.width, lens.height - first)
    for k in range(3):
        looks = (
            table.albedo[k] * table.sky * np.float32(lamp.sky[k] * 0.8)
            + np.minimum(table.emission[k], 3)
            + table.windows * np.float32(tint[k])
        )
        open_sky = np.float32(lamp.horizon[k]) * (1 - rise) + np.float32(lamp.zenith[k]) * rise
        mirrored = taken(looks, found)
        np.copyto(
            mirrored,
            open_sky[: len(found)] if len(open_sky) >= len(found) else np.float32(lamp.horizon[k]),
            where=found == 0,
        )
        smeared = cv2.blur(cv2.blur(mirrored, (3, 15)), (1, 25))  # ripples draw reflections out towards the eye
        radiance[k, first:] *= kept
        radiance[k, first:] += cv2.resize(smeared, size, interpolation=cv2.INTER_LINEAR) * strength


def _haze_and_sky(radiance: Float32, scene: Scene, view: Eye, depth: Float32, heading: float) -> None:
    light_ = scene.lighting.light
    turn = np.float32(heading * sky.AZIMUTHS / (2 * np.pi))
    middle = view.sky_column[view.bands[0][0]] + turn
    level = round((np.deg2rad(1.5) - sky.LOWEST) * (sky.ELEVATIONS - 1) / (sky.HIGHEST - sky.LOWEST))
    hazy = scene.lighting.light.haze_m < 100
    if hazy:
        haze = np.repeat(np.array(light_.horizon, np.float32)[:, None], view.lens.width, 1)
    else:
        strip = scene.panorama[level : level + 14].mean(0)
        haze = strip[np.round(middle).astype(int) % sky.AZIMUTHS].T
        haze = haze * 0.6 + np.array(light_.horizon, np.float32)[:, None] * 0.4
    through = np.exp(depth * np.float32(-1 / light_.haze_m))
    veil = 1 - through
    rows = view.sky_rows
    sky_pixels = depth[:rows] > FAR_M
    for k in range(3):
        radiance[k] *= through
        radiance[k] += veil * haze[k][None, :].astype(np.float32)
    if sky_pixels.any():
        columns = view.sky_column[:rows] + turn
        lines = np.minimum(view.sky_row[:rows], sky.ELEVATIONS - 1)
        painted = cv2.remap(scene.panorama, columns, lines, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        mist = 0.93 if hazy else 0.0
        for k, plane in enumerate(cv2.split(painted)):
            np.copyto(
                radiance[k, :rows],
                plane * np.float32(1 - mist) + np.float32(mist * light_.horizon[k]),
                where=sky_pixels,
            )
