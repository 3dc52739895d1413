"""Which triangle each pixel shows, and how far away it is: a z-buffer filled by OpenCV's triangle rasteriser."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.world.mesh import Mesh
from perception.errors import BackendError
from perception.messages import Float, Float32, Int32

FAR_M: Final = 400.0
_NEAR_M: Final = 0.15
_CHUNK_M: Final = 20.0
_TILE: Final = 16
_NEIGHBOURS: Final = np.ones((3, 3), np.uint8)

IndexArray = NDArray[np.intp]


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

    `middles` (T, 3) are the middles of the faces that triangles are part of, `emission` (T,) is how strongly a lamp is
    lit, `owners` (T,) the number of the actor, from 1, or 0.
    """

    corners: Float32
    normals: Float32
    colours: Float32
    kinds: Int32
    textures: Float32
    middles: Float32
    emission: Float32
    owners: Int32

    def chosen(self, which: NDArray[Any]) -> Surface:
        """Some of the triangles, by a mask or by their indices."""
        return Surface(*(values[which] for values in self))


def normals_of(corners: Float32) -> Float32:
    """Unit normals (T, 3) of triangles (T, 3, 3)."""
    u, v = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    n = np.empty_like(u)
    n[:, 0] = u[:, 1] * v[:, 2] - u[:, 2] * v[:, 1]
    n[:, 1] = u[:, 2] * v[:, 0] - u[:, 0] * v[:, 2]
    n[:, 2] = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
    length = np.sqrt(n[:, 0] ** 2 + n[:, 1] ** 2 + n[:, 2] ** 2)
    n /= np.maximum(length, 1e-9)[:, None]
    return n


def surface(mesh: Mesh) -> Surface:
    """A mesh that stands in the world and belongs to nobody."""
    count = len(mesh.kinds)
    zeros = np.zeros(count, np.float32)
    return Surface(
        mesh.corners,
        normals_of(mesh.corners),
        mesh.colours,
        mesh.kinds,
        mesh.textures,
        mesh.corners.mean(1),
        zeros,
        np.zeros(count, np.int32),
    )


def concatenate(parts: list[Surface]) -> Surface:
    """All in one."""
    return Surface(*(np.concatenate(fields) for fields in zip(*parts, strict=True)))


def towards(seen: Surface, pose: Pose) -> NDArray[np.bool_]:
    """Which triangles turn their outside to a camera."""
    way = pose.place.astype(np.float32) - seen.corners[:, 0]
    n = seen.normals
    return np.asarray(n[:, 0] * way[:, 0] + n[:, 1] * way[:, 1] + n[:, 2] * way[:, 2] > 0)


class Chunks:
    """A standing surface cut into squares, to find quickly what a camera may see."""

    def __init__(self, standing: Surface) -> None:
        middles = standing.corners.mean(axis=1)
        cells = np.floor(middles[:, :2] / _CHUNK_M).astype(np.int64)
        keys = cells[:, 0] * 4096 + cells[:, 1]
        order = np.argsort(keys, kind="stable")
        self.surface = standing.chosen(order)
        _, first = np.unique(keys[order], return_index=True)
        self._first = np.append(first, len(order))
        spans = list(zip(self._first[:-1], self._first[1:], strict=True))
        low = np.array([self.surface.corners[a:b].min((0, 1)) for a, b in spans])
        high = np.array([self.surface.corners[a:b].max((0, 1)) for a, b in spans])
        self._middle = (low + high) / 2
        self._radius = np.linalg.norm(high - low, axis=1) / 2
        self._offsets = np.einsum("ij,ij->i", self.surface.normals, self.surface.corners[:, 0])

    def facing(self, pose: Pose, lens: Lens, reach_m: float) -> IndexArray:
        """Indices of the triangles that may show."""
        seen = np.flatnonzero(in_view(self._middle, self._radius, pose, lens, reach_m))
        if len(seen) == 0:
            return np.zeros(0, np.intp)
        chosen = np.concatenate([np.arange(self._first[i], self._first[i + 1]) for i in seen])
        ahead = self.surface.normals[chosen] @ pose.place.astype(np.float32) > self._offsets[chosen]
        return np.asarray(chosen[ahead], np.intp)


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
    f = np.float32(lens.focal)
    x, y, z = corners[..., 0] * f, corners[..., 1] * f, corners[..., 2]
    keep = _greatest(z) > _NEAR_M
    keep &= _greatest(x + np.float32(lens.cx) * z) > 0
    keep &= _least(x + np.float32(lens.cx - lens.width) * z) < 0
    keep &= _greatest(y + np.float32(lens.cy) * z) > 0
    return np.asarray(keep & (_least(y + np.float32(lens.cy - lens.height) * z) < 0))


def _least(values: Float32) -> Float32:
    """The least of three, row by row: quicker than `min` along so short an axis."""
    return np.minimum(np.minimum(values[:, 0], values[:, 1]), values[:, 2])


def _greatest(values: Float32) -> Float32:
    return np.maximum(np.maximum(values[:, 0], values[:, 1]), values[:, 2])


def clip_near(corners: Float32) -> tuple[Float32, Int32]:
    """Cut triangles off at the near plane; also which triangle each of the results comes from."""
    front = corners[..., 2] > _NEAR_M
    count = front[:, 0].astype(np.int8) + front[:, 1] + front[:, 2]
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


def _flat() -> cv2.TriangleRasterizeSettings:
    if not hasattr(cv2, "TriangleRasterizeSettings"):
        raise BackendError(
            f"OpenCV {cv2.__version__}: engines.world needs OpenCV 5 for its triangle rasteriser; "
            "install opencv-python>=5"
        )
    settings = cv2.TriangleRasterizeSettings()
    settings.setShadingType(cv2.RASTERIZE_SHADING_FLAT)
    settings.setCullingMode(cv2.RASTERIZE_CULLING_NONE)
    return settings


def rasterise(
    corners: Float32, numbers: Int32, lens: Lens, depth: Float32, seen: Float32 | None = None,
    span: tuple[float, float] = (_NEAR_M, 3 * FAR_M),
) -> Float32:  # fmt: skip
    """Draw triangles (T, 3, 3) of the optical frame, none of it nearer than the near plane, over `depth`, in place.

    Returns `seen` (H, W, 3), made anew where it is not given, with the number of the triangle that each pixel shows in
    its first channel; 0, or what was there, where `depth` was nearer. Depths are exact to about their square over ten
    million times the nearer end of the `span` they lie in.
    """
    # OpenCV's camera has its axis in the middle of the image, y up and z backwards.
    shifted = np.empty_like(corners)
    z = corners[..., 2]
    shifted[..., 0] = corners[..., 0] + np.float32((lens.cx - lens.width / 2) / lens.focal) * z
    shifted[..., 1] = -corners[..., 1] - np.float32((lens.cy - lens.height / 2) / lens.focal) * z
    shifted[..., 2] = -z
    if seen is None:
        seen = np.zeros((lens.height, lens.width, 3), np.float32)
    if len(corners):
        colours = np.zeros((len(corners) * 3, 3), np.float32)
        colours[::3, 0] = numbers  # exact up to 2**24; flat shading takes the first corner's
        cv2.triangleRasterize(
            shifted.reshape(-1, 3), np.arange(len(colours), dtype=np.int32).reshape(-1, 3), colours, seen, depth,
            np.eye(4, dtype=np.float32), float(2 * np.arctan(lens.height / 2 / lens.focal)), *span, _flat(),
        )  # fmt: skip
    return seen


def visible(corners: Float32, large: np.ndarray, lens: Lens, depth: Float32) -> IndexArray:
    """Which triangle (H, W) of the optical frame each pixel shows, as its place in `corners` plus 1; 0 for none.

    Triangles are drawn over `depth`. Those marked `large`, such as walls, are drawn first; what lies wholly behind
    them, or between the middles of pixels, is then left out.
    """
    first = np.flatnonzero(large)
    seen = rasterise(corners[first], (first + 1).astype(np.int32), lens, depth)
    rest = np.flatnonzero(~large)
    points = corners[rest]
    z = points[..., 2]
    u, v = points[..., 0] * lens.focal / z + lens.cx, points[..., 1] * lens.focal / z + lens.cy
    left, right, top, bottom = _least(u), _greatest(u), _least(v), _greatest(v)
    hits = (np.ceil(left - 0.5) <= right - 0.5) & (np.ceil(top - 0.5) <= bottom - 0.5)
    small = (right - left < _TILE) & (bottom - top < _TILE)
    rows, columns = -(-lens.height // _TILE), -(-lens.width // _TILE)
    padded = cv2.copyMakeBorder(
        depth, 0, rows * _TILE - lens.height, 0, columns * _TILE - lens.width, cv2.BORDER_REPLICATE
    )
    farthest = np.asarray(padded).reshape(rows, _TILE, -1).max(1).reshape(rows, columns, _TILE).max(2)
    farthest = np.asarray(cv2.dilate(farthest, _NEIGHBOURS))
    column = np.clip((left + right) * (0.5 / _TILE), 0, columns - 1).astype(np.intp)
    row = np.clip((top + bottom) * (0.5 / _TILE), 0, rows - 1).astype(np.intp)
    hidden = small & (_least(z) > farthest[row, column])
    drawn = rest[hits & ~hidden]
    rasterise(corners[drawn], (drawn + 1).astype(np.int32), lens, depth, seen)
    return seen[..., 0].astype(np.intp)
