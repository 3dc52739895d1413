"""From triangles to light: what each pixel shows, and how bright it is.

Every pixel is shaded once, after the z-buffer has settled what it shows (deferred shading). Light is linear BGR.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import cv2
import numpy as np

from engines.world import facade, ground, light, raster, sky
from engines.world.light import LAMP_PX_PER_M, SHADOW_PX_PER_M, Lighting, Window
from engines.world.mesh import FACADE, GLASS, LEAVES, LIT, PAINT
from engines.world.raster import FAR_M, Lens, Pose, Surface
from perception.messages import Camera, Float32, Image, Int32

_DETAIL: Final = 1.1  # ground texels per pixel at which a coarser level of the ground is taken


_SHADOW_OFFSET_M: Final = 0.4


class Scene(NamedTuple):
    """What a render needs of a world that does not change."""

    ground: list[Image]
    standing: raster.Chunks
    lighting: Lighting
    panorama: Float32
    wet: bool
    wetness: Float32


class Buffers(NamedTuple):
    """What came out of the rasteriser: per pixel (H, W) the owner's number, 0 for none, and the depth in metres."""

    owners: Int32
    depth: Float32


@dataclass(frozen=True, slots=True)
class Eye:
    """A camera's rays and whatever else follows from its mounting, worked out once.

    `rays` are planar (3, H, W), in the frame of the vehicle, for a depth of 1 m.
    """

    lens: Lens
    rays: Float32
    ground_depth: Float32
    bands: tuple[tuple[int, int, int], ...]
    """Rows from, to, and which level of the ground they are painted from."""
    sky_column: Float32
    sky_row: Float32
    sky_rows: int


def eye(camera: Camera, oversample: int) -> Eye:
    """Prepare a camera; with so many samples along each side of a pixel."""
    k = camera.intrinsics
    lens = Lens(camera.width * oversample, camera.height * oversample, k[0, 0] * oversample, k[0, 2] * oversample, k[1, 2] * oversample)
    v, u = np.mgrid[: lens.height, : lens.width] + 0.5
    optical = np.stack([(u - lens.cx) / lens.focal, (v - lens.cy) / lens.focal, np.ones_like(u)])
    rays = np.einsum("ij,jhw->ihw", camera.base_from_camera.rotation, optical)
    height = float(camera.base_from_camera.translation[2])
    with np.errstate(divide="ignore"):
        depth = np.where(rays[2] < 0, height / np.maximum(-rays[2], 1e-9), np.inf)
    depth = np.where(depth < FAR_M, depth, FAR_M * 2).astype(np.float32)
    row_depth = depth[:, lens.width // 2]
    bands = []
    start = int(np.argmax(row_depth < FAR_M))
    first = start
    # A pixel's footprint is long and narrow; the geometric mean of its sides decides the level.
    texels = row_depth / lens.focal * np.sqrt(row_depth / height) * ground.PX_PER_M
    levels = np.clip(np.round(np.log2(np.maximum(texels / _DETAIL, 1))), 0, ground.LEVELS - 1).astype(int)
    for row in range(start, lens.height + 1):
        if row == lens.height or levels[row] != levels[first]:
            bands.append((first, row, int(levels[first])))
            first = row
    column, sky_row = sky.coordinates(np.moveaxis(rays, 0, -1).astype(np.float32), 0.0)
    sky_rows = min(start + 2 * oversample, lens.height)
    return Eye(lens, rays.astype(np.float32), depth, tuple(bands), column, sky_row, sky_rows)


def draw(scene: Scene, window: Window, moving: Surface, view: Eye, pose: Pose, heading: float) -> tuple[Float32, Buffers]:
    """Render: light (3, H, W) and the buffers."""
    lens = view.lens
    seen = _visible(scene, moving, pose, lens)
    in_camera = raster.in_camera(seen.corners, pose)
    inside = np.flatnonzero(raster.inside(in_camera, lens))
    seen, in_camera = seen[inside], in_camera[inside]
    clipped, sources = raster.clip_near(in_camera)
    depth = view.ground_depth.copy()
    numbers = raster.rasterise(clipped, sources + 1, lens, depth)
    owners = np.append(np.int32(0), seen.owners)[numbers]

    c, s = np.float32(np.cos(heading)), np.float32(np.sin(heading))
    base_x, base_y, base_z = view.rays
    x = depth * (c * base_x - s * base_y) + np.float32(pose.place[0])
    y = depth * (s * base_x + c * base_y) + np.float32(pose.place[1])
    z = depth * base_z + np.float32(pose.place[2])
    solid = numbers > 0

    table = _Table(scene, seen, pose)
    albedo = table.albedo[:, numbers]
    _paint_ground(albedo, scene, view, numbers, x, y)
    emission = table.emission[:, numbers]
    _paint_facades(albedo, emission, table, scene, seen, numbers, depth, x, y, z, lens)
    _paint_leaves(albedo, seen, numbers, x, y, z)

    lit, open_sky, lamps = _fall(scene, window, solid, table.offset[:, numbers], x, y, z)
    radiance = albedo * (table.ambient[:, numbers] * open_sky)
    if lit is not None:
        radiance += albedo * (table.direct[:, numbers] * lit)
    if lamps is not None:
        facing = table.facing_lamps[numbers]
        for k in range(3):
            fall = sum(lamps[kind] * colour[k] for kind, colour in enumerate(light.lamp_colours()))
            radiance[k] += albedo[k] * fall * facing
    radiance += emission
    gloss = table.mirror[:, numbers]
    radiance += gloss * open_sky
    if scene.wet:
        _reflect(radiance, scene, view, clipped, sources, table, numbers, depth, x, y)
    _haze_and_sky(radiance, scene, view, depth, heading)
    return radiance, Buffers(owners, depth)


def _visible(scene: Scene, moving: Surface, pose: Pose, lens: Lens) -> Surface:
    reach = min(FAR_M, scene.lighting.light.haze_m * 5)
    standing = scene.standing.surface[scene.standing.facing(pose, lens, reach)]
    towards = np.einsum("ij,ij->i", moving.normals, pose.place.astype(np.float32) - moving.corners[:, 0]) > 0
    return raster.concatenate([standing, moving[towards]])


class _Table:
    """How each triangle looks, one row per property and colour, first column for pixels that show none."""

    def __init__(self, scene: Scene, seen: Surface, pose: Pose) -> None:
        lighting = scene.lighting
        lamp = lighting.light
        up = seen.normals[:, 2]
        to_sun = np.clip(seen.normals @ lighting.sun.astype(np.float32), 0, 1)
        to_sun[seen.kinds == LEAVES] = 0.35 + 0.65 * to_sun[seen.kinds == LEAVES]  # leaves let light through
        sky_part = (up + 1) / 2
        bounce, above = np.array(lamp.bounce, np.float32), np.array(lamp.sky, np.float32)
        self.albedo = self._rows(seen.colours.T)
        self.ambient = self._rows(np.outer(bounce, 1 - sky_part) + np.outer(above, sky_part), ground_value=above)
        sun = np.array(lamp.sun, np.float32)
        self.direct = self._rows(np.outer(sun, to_sun), ground_value=sun * np.float32(lighting.sun[2]))
        self.emission = self._rows(seen.colours.T * seen.emission)
        self.mirror = self._rows(self._reflected(scene, seen, pose))
        self.facing_lamps = np.append(np.float32(1.0), 0.55 + 0.35 * np.clip(up, -0.6, 1)).astype(np.float32)
        # Shadows are looked up a little off the surface, or it would shade itself.
        self.offset = np.concatenate([np.zeros((3, 1), np.float32), seen.normals.T * np.float32(_SHADOW_OFFSET_M)], axis=1)

    @staticmethod
    def _rows(values: Float32, ground_value: Float32 | None = None) -> Float32:
        first = np.zeros((3, 1), np.float32) if ground_value is None else np.asarray(ground_value, np.float32)[:, None]
        return np.concatenate([first, values], axis=1).astype(np.float32)

    @staticmethod
    def _reflected(scene: Scene, seen: Surface, pose: Pose) -> Float32:
        """What glass and paint mirror: the sky above, the street below (Schlick 1994 for the angle)."""
        glossy = np.flatnonzero((seen.kinds == GLASS) | (seen.kinds == PAINT))
        mirrored = np.zeros((3, len(seen.kinds)), np.float32)
        if len(glossy) == 0:
            return mirrored
        normal = seen.normals[glossy]
        sight = seen.corners[glossy].mean(1) - pose.place.astype(np.float32)
        sight /= np.linalg.norm(sight, axis=1, keepdims=True)
        cosine = -(sight * normal).sum(1)
        out = sight + 2 * cosine[:, None] * normal
        f0 = np.where(seen.kinds[glossy] == GLASS, 0.09, 0.045)
        fresnel = f0 + (1 - f0) * np.clip(1 - cosine, 0, 1) ** 5 * 0.7
        column, row = sky.coordinates(out.astype(np.float32), 0.0)
        row = np.clip(row, 24, sky.ELEVATIONS - 1)
        environment = scene.panorama[row.astype(int), column.astype(int) % sky.AZIMUTHS]
        environment = np.minimum(environment, 6.0)
        street = np.array(scene.lighting.light.sky, np.float32) * 0.35
        above = np.clip(out[:, 2] * 5 + 0.35, 0, 1)[:, None]
        mirrored[:, glossy] = ((environment * above + street * (1 - above)) * fresnel[:, None]).T
        return mirrored


def _paint_ground(albedo: Float32, scene: Scene, view: Eye, numbers: Int32, x: Float32, y: Float32) -> None:
    for start, end, level in view.bands:
        bare = numbers[start:end] == 0
        if not bare.any():
            continue
        scale = np.float32(ground.PX_PER_M / 2**level)
        columns, rows = x[start:end] * scale - np.float32(0.5), y[start:end] * scale - np.float32(0.5)
        texels = cv2.remap(scene.ground[level], columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        linear = cv2.split(cv2.LUT(texels, _LINEAR))
        for k in range(3):
            np.copyto(albedo[k, start:end], linear[k], where=bare)


def _to_linear() -> Float32:
    value = np.arange(256) / 255.0
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4).astype(np.float32)


_LINEAR: Final = _to_linear()
_TEXELS, _STARTS = facade.atlas()


def _paint_facades(
    albedo: Float32, emission: Float32, table: _Table, scene: Scene, seen: Surface, numbers: Int32, depth: Float32,
    x: Float32, y: Float32, z: Float32, lens: Lens,
) -> None:  # fmt: skip
    is_facade = np.append(False, seen.kinds >= FACADE)  # noqa: FBT003
    pixels = np.flatnonzero(is_facade[numbers.ravel()])
    if len(pixels) == 0:
        return
    index = numbers.ravel()[pixels] - 1
    px, py, pz, pd = (a.ravel()[pixels] for a in (x, y, z, depth))
    textures = seen.textures.T
    column = px * textures[0][index] + py * textures[1][index] + textures[2][index]
    storey = pz * textures[3][index] + textures[4][index]
    cell_x, cell_y = np.floor(column), np.floor(storey)
    # Texels per pixel: a cell is about 3 m; looking along a wall it is narrower.
    per_pixel = pd * (facade.CELL_PX / 3.0 / lens.focal)
    level = np.clip(np.log2(np.maximum(per_pixel, 1)) + 0.4, 0, facade.LEVELS - 1).astype(np.int32)
    side = facade.CELL_PX >> level
    style = seen.kinds[index] - FACADE
    texel_x = np.minimum(((column - cell_x) * side).astype(np.int32), side - 1)
    texel_y = np.minimum(((storey - cell_y) * side).astype(np.int32), side - 1)
    texels = _TEXELS[_STARTS[style, level] + texel_y * side + texel_x]
    wall, glass, frame = texels[:, 0], texels[:, 1], texels[:, 2]
    cell = (cell_x.astype(np.int64) * 7919 + cell_y.astype(np.int64) * 104729) & 0x7FFFFFFF
    chance = ((cell * 1103515245 + 12345) >> 8 & 0xFF).astype(np.float32) / 255
    base = albedo.reshape(3, -1)
    lamp = scene.lighting.light
    # Glass mirrors the sky; blinds and curtains show through some of it.
    behind = 0.03 + 0.10 * (chance > 0.6)
    mirrored = np.array(lamp.horizon, np.float32) * 0.30 / np.maximum(np.array(lamp.sky, np.float32) + 0.35 * np.array(lamp.sun, np.float32), 0.02)
    lit = (chance * 977 % 1 < (0.45 if lamp.windows > 0.05 else 0.1)) & (glass > 0.05)
    shop = style == facade.SHOP
    glow = np.where(shop, 0.9, np.where(lit, 0.35 + 0.65 * chance, 0.0)).astype(np.float32) * glass * lamp.windows * np.where(shop, 2.0, 1.3)
    tint = np.stack([0.36 + 0.4 * chance * shop, 0.66 + 0.1 * shop, np.ones_like(chance)])
    flat = emission.reshape(3, -1)
    for k in range(3):
        painted = base[k][pixels] * wall
        painted += frame * (0.6 - painted) * 0.8
        base[k][pixels] = painted * (1 - glass) + (behind + mirrored[k]) * glass
        if lamp.windows > 0:
            flat[k][pixels] += glow * tint[k]


_LEAF_NOISE: Final = np.random.Generator(np.random.PCG64(5)).uniform(0.55, 1.3, 4096).astype(np.float32)


def _paint_leaves(albedo: Float32, seen: Surface, numbers: Int32, x: Float32, y: Float32, z: Float32) -> None:
    is_leaf = np.append(False, seen.kinds == LEAVES)  # noqa: FBT003
    pixels = np.flatnonzero(is_leaf[numbers.ravel()])
    if len(pixels) == 0:
        return
    cells = [np.floor(a.ravel()[pixels] * 7.0).astype(np.int64) for a in (x, y, z)]
    grain = _LEAF_NOISE[(cells[0] * 73 + cells[1] * 179 + cells[2] * 283) & 4095]
    for plane in albedo.reshape(3, -1):
        plane[pixels] *= grain


def _fall(
    scene: Scene, window: Window, solid: np.ndarray, offset: Float32, x: Float32, y: Float32, z: Float32
) -> tuple[Float32 | None, Float32 | float, tuple[Float32, Float32] | None]:
    """How much sun, sky and lamp light reaches each pixel."""
    lighting = scene.lighting
    column = (x - np.float32(window.low[0])) * np.float32(SHADOW_PX_PER_M)
    row = (y - np.float32(window.low[1])) * np.float32(SHADOW_PX_PER_M)
    near = cv2.remap(window.ground, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(255, 255, 0, 0))
    soft, contact = cv2.split(near)
    contact = contact.astype(np.float32) * np.float32(1 / 255)
    open_sky = 1 - (1 - contact) * np.clip(1 - z / np.float32(0.45), 0, 1)
    lit = None
    if window.heights is not None:
        slope = lighting.slope * SHADOW_PX_PER_M
        high = cv2.remap(
            window.heights,
            column + offset[0] * np.float32(SHADOW_PX_PER_M) - (z + offset[2]) * np.float32(slope[0]),
            row + offset[1] * np.float32(SHADOW_PX_PER_M) - (z + offset[2]) * np.float32(slope[1]),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT, borderValue=(0, 0, 0, 0),
        )  # fmt: skip
        lit = np.where(solid, np.clip((z + offset[2] + np.float32(0.25) - high) * 4, 0, 1), soft.astype(np.float32) * np.float32(1 / 255))
    tunnel = lighting.sky_factor(x, y, z)
    if tunnel is not None:
        open_sky = open_sky * tunnel
    lamps = None
    if window.lamps is not None:
        scale = np.float32(LAMP_PX_PER_M / SHADOW_PX_PER_M)
        both = cv2.remap(window.lamps, column * scale, row * scale, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(0, 0, 0, 0))
        warm, white = cv2.split(both)
        # Street lamps light what is below them, headlights what is low.
        lamps = (warm * np.clip(1.25 - z / np.float32(8.0), 0, 1), white * np.clip(1.35 - z / np.float32(2.6), 0.06, 1))
    return lit, open_sky, lamps


def _reflect(
    radiance: Float32, scene: Scene, view: Eye, corners: Float32, sources: Int32, table: _Table, numbers: Int32,
    depth: Float32, x: Float32, y: Float32,
) -> None:  # fmt: skip
    """A wet road mirrors what stands on it: the same triangles once more, upside down, at half the resolution."""
    lens = view.lens
    first = view.bands[0][0]
    half = Lens(lens.width // 2, lens.height // 2, lens.focal / 2, lens.cx / 2, lens.cy / 2)
    camera_height = depth[-1, lens.width // 2] * -view.rays[2, -1, lens.width // 2]
    camera_height = float(view.ground_depth[-1, 0] * -view.rays[2, -1, 0])
    flipped = corners.copy()
    flipped[..., 1] = 2 * camera_height - corners[..., 1]
    far = np.full((half.height, half.width), FAR_M * 2, np.float32)
    found = raster.rasterise(flipped, sources + 1, half, far)
    looks = table.albedo * (table.ambient * 0.8) + table.emission * 1.0 + table.mirror * 0.7
    column, row = view.sky_column[first:], view.sky_row[first:]
    horizon = np.array(scene.lighting.light.horizon, np.float32)
    zenith = np.array(scene.lighting.light.zenith, np.float32)
    rise = np.clip((-view.rays[2, first:]) * 1.2, 0, 1) ** 0.6
    fresnel = np.clip(0.05 + 0.75 * np.exp(view.rays[2, first:] * 7.0), 0, 1)
    puddles = cv2.remap(scene.wetness, (x[first:] * 8) % 512, (y[first:] * 8) % 512, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    strength = np.where(numbers[first:] == 0, fresnel * puddles, 0)
    del column, row
    for k in range(3):
        mirrored = np.where(found > 0, looks[k][found], -1)
        sky_k = horizon[k] * (1 - rise) + zenith[k] * rise
        grown = cv2.resize(mirrored, (lens.width, lens.height), interpolation=cv2.INTER_NEAREST)[first:]
        grown = np.where(grown < 0, sky_k, grown)
        grown = cv2.blur(grown, (3, 17))
        radiance[k, first:] = radiance[k, first:] * (1 - 0.75 * strength) + grown * strength


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
    rows = view.sky_rows
    sky_pixels = depth[:rows] > FAR_M
    for k in range(3):
        radiance[k] *= through
        radiance[k] += (1 - through) * haze[k][None, :].astype(np.float32)
    if sky_pixels.any():
        columns = (view.sky_column[:rows] + turn) % sky.AZIMUTHS
        painted = cv2.remap(scene.panorama, columns.astype(np.float32), view.sky_row[:rows], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        veil = 0.93 if hazy else 0.0
        for k, plane in enumerate(cv2.split(painted)):
            np.copyto(radiance[k, :rows], plane * (1 - veil) + veil * light_.horizon[k], where=sky_pixels)
