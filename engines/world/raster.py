"""Which triangle each pixel shows, and how far away it is: a z-buffer filled by OpenCV's triangle rasteriser."""

from __future__ import annotations

from typing import Final, NamedTuple

import cv2
import numpy as np

from engines.world.mesh import Mesh
from perception.messages import Float, Float32, Int32

FAR_M: Final = 400.0
_NEAR_M: Final = 0.15
_CHUNK_M: Final = 20.0


class Pose(NamedTuple):
    """Where a camera is in the world: `rotation` (3, 3) turns its optical axes into the world's, `place` (3,)."""

    rotation: Float
    place: Float


class Lens(NamedTuple):
    """An ideal pinhole camera with square pixels; `cx` and `cy` where the optical axis meets the image."""

    width: int
    height: int
    focal: float
    cx: float
    cy: float


class Surface(NamedTuple):
    """Triangles in the world: `corners` (T, 3, 3), `normals` (T, 3) of unit length and what they look like.

    `emission` (T,) is how strongly a lamp is lit, `owners` (T,) the number of the actor, from 1, or 0.
    """

    corners: Float32
    normals: Float32
    colours: Float32
    kinds: Int32
    textures: Float32
    emission: Float32
    owners: Int32

    def __getitem__(self, chosen: object) -> Surface:  # type: ignore[override]
        return Surface(*(field[chosen] for field in tuple.__iter__(self)))  # type: ignore[index]


def normals_of(corners: Float32) -> Float32:
    """Unit normals (T, 3) of triangles (T, 3, 3)."""
    u, v = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    n = np.empty_like(u)
    n[:, 0] = u[:, 1] * v[:, 2] - u[:, 2] * v[:, 1]
    n[:, 1] = u[:, 2] * v[:, 0] - u[:, 0] * v[:, 2]
    n[:, 2] = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
    length = np.sqrt((n * n).sum(1))
    n /= np.maximum(length, 1e-9)[:, None]
    return n


def surface(mesh: Mesh) -> Surface:
    """A mesh that stands in the world and belongs to nobody."""
    count = len(mesh.kinds)
    zeros = np.zeros(count, np.float32)
    return Surface(mesh.corners, normals_of(mesh.corners), mesh.colours, mesh.kinds, mesh.textures, zeros, np.zeros(count, np.int32))


def concatenate(parts: list[Surface]) -> Surface:
    """All in one."""
    return Surface(*(np.concatenate(fields) for fields in zip(*(tuple.__iter__(p) for p in parts), strict=True)))


class Chunks:
    """A standing surface cut into squares, to find quickly what a camera may see."""

    def __init__(self, standing: Surface) -> None:
        middles = standing.corners.mean(axis=1)
        cells = np.floor(middles[:, :2] / _CHUNK_M).astype(np.int64)
        keys = cells[:, 0] * 4096 + cells[:, 1]
        order = np.argsort(keys, kind="stable")
        self.surface = standing[order]
        _, first = np.unique(keys[order], return_index=True)
        self._first = np.append(first, len(order))
        spans = list(zip(self._first[:-1], self._first[1:], strict=True))
        low = np.array([self.surface.corners[a:b].min((0, 1)) for a, b in spans])
        high = np.array([self.surface.corners[a:b].max((0, 1)) for a, b in spans])
        self._middle = (low + high) / 2
        self._radius = np.linalg.norm(high - low, axis=1) / 2
        self._offsets = np.einsum("ij,ij->i", self.surface.normals, self.surface.corners[:, 0])

    def facing(self, pose: Pose, lens: Lens, reach_m: float) -> Int32:
        """Indices of the triangles that may show."""
        seen = np.flatnonzero(in_view(self._middle, self._radius, pose, lens, reach_m))
        if len(seen) == 0:
            return np.zeros(0, np.int32)
        chosen = np.concatenate([np.arange(self._first[i], self._first[i + 1]) for i in seen])
        ahead = self.surface.normals[chosen] @ pose.place.astype(np.float32) > self._offsets[chosen]
        return chosen[ahead].astype(np.int32)


def in_view(middles: Float, radii: Float, pose: Pose, lens: Lens, reach_m: float) -> np.ndarray:
    """Which spheres touch the pyramid that a camera sees, as far as `reach_m`."""
    p = (middles - pose.place) @ pose.rotation
    left, right = lens.cx / lens.focal, (lens.width - lens.cx) / lens.focal
    inside = (p[:, 2] > -radii) & (p[:, 2] < reach_m + radii)
    inside &= p[:, 0] + left * p[:, 2] > -radii * np.hypot(1, left)
    return np.asarray(inside & (right * p[:, 2] - p[:, 0] > -radii * np.hypot(1, right)))


def in_camera(corners: Float32, pose: Pose) -> Float32:
    """Corners (T, 3, 3) of the world in the optical frame."""
    flat = (corners.reshape(-1, 3) - pose.place.astype(np.float32)) @ pose.rotation.astype(np.float32)
    return flat.reshape(-1, 3, 3)


def inside(corners: Float32, lens: Lens) -> np.ndarray:
    """Which triangles of the optical frame are not wholly beside the image or behind the camera."""
    x, y, z = corners[..., 0], corners[..., 1], corners[..., 2]
    keep = z.max(1) > _NEAR_M
    keep &= (lens.focal * x + lens.cx * z).max(1) > 0
    keep &= (lens.focal * x + (lens.cx - lens.width) * z).min(1) < 0
    keep &= (lens.focal * y + lens.cy * z).max(1) > 0
    return keep & ((lens.focal * y + (lens.cy - lens.height) * z).min(1) < 0)


def clip_near(corners: Float32) -> tuple[Float32, Int32]:
    """Cut triangles off at the near plane; also which triangle each of the results comes from."""
    front = corners[..., 2] > _NEAR_M
    count = front.sum(1)
    whole = np.flatnonzero(count == 3)
    parts, sources = [corners[whole]], [whole]
    one, two = np.flatnonzero(count == 1), np.flatnonzero(count == 2)
    if len(one):
        a, b, c = _turned(corners[one], np.argmax(front[one], 1))
        parts.append(np.stack([a, _cut(a, b), _cut(a, c)], 1))
        sources.append(one)
    if len(two):
        c, a, b = _turned(corners[two], np.argmin(front[two], 1))
        cut_a, cut_b = _cut(a, c), _cut(b, c)
        parts += [np.stack([a, b, cut_b], 1), np.stack([a, cut_b, cut_a], 1)]
        sources += [two, two]
    return np.concatenate(parts), np.concatenate(sources).astype(np.int32)


def _turned(corners: Float32, first: np.ndarray) -> tuple[Float32, Float32, Float32]:
    rows = np.arange(len(corners))
    return corners[rows, first], corners[rows, (first + 1) % 3], corners[rows, (first + 2) % 3]


def _cut(a: Float32, b: Float32) -> Float32:
    part = ((_NEAR_M * 1.001 - a[:, 2]) / (b[:, 2] - a[:, 2]))[:, None]
    cut: Float32 = (a + part * (b - a)).astype(np.float32)
    return cut


_FLAT: Final = cv2.TriangleRasterizeSettings()
_FLAT.setShadingType(cv2.RASTERIZE_SHADING_FLAT)
_FLAT.setCullingMode(cv2.RASTERIZE_CULLING_NONE)


def rasterise(corners: Float32, numbers: Int32, lens: Lens, depth: Float32) -> Int32:
    """Draw triangles (T, 3, 3) of the optical frame, none of it nearer than the near plane, over `depth`, in place.

    Returns the number (H, W) of the triangle that each pixel shows, 0 where `depth` was nearer.
    """
    # OpenCV's camera has its axis in the middle of the image, y up and z backwards.
    shifted = np.empty_like(corners)
    z = corners[..., 2]
    shifted[..., 0] = corners[..., 0] + ((lens.cx - lens.width / 2) / lens.focal) * z
    shifted[..., 1] = -corners[..., 1] - ((lens.cy - lens.height / 2) / lens.focal) * z
    shifted[..., 2] = -z
    colours = np.zeros((len(corners) * 3, 3), np.float32)
    colours[::3, 0] = numbers  # exact up to 2**24; flat shading takes the first corner's
    seen = np.zeros((lens.height, lens.width, 3), np.float32)
    if len(corners):
        cv2.triangleRasterize(
            shifted.reshape(-1, 3), np.arange(len(colours), dtype=np.int32).reshape(-1, 3), colours, seen, depth,
            np.eye(4, dtype=np.float32), float(2 * np.arctan(lens.height / 2 / lens.focal)), 0.1, FAR_M * 3, _FLAT,
        )  # fmt: skip
    return seen[..., 0].astype(np.int32)
