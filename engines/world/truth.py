"""What an image shows, known exactly: the objects with their 2-D and 3-D boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from engines.world import raster
from engines.world.raster import Lens, Pose
from engines.world.view import prepare_lens
from perception.geometry import rotation_about_z, wrapped
from perception.messages import Camera, Float, Float32, Image, Int32

_LARGEST_PX: Final = 48
"""An object's own outline is drawn at this size, or smaller, to learn how many pixels it would have."""


class Objects(NamedTuple):
    """The objects of one image, by falling distance; N of them.

    In pixels of the image, as x1 y1 x2 y2: `boxes` (N, 4) around the whole object, hidden parts included, cut off at
    the image's edges; `visible_boxes` (N, 4) around the pixels that show. `visibility` (N,) is the part of the object's
    pixels inside the image that nothing hides, `truncation` (N,) the part of the object that lies outside the image;
    both in [0, 1].

    `ids` (N,) are the same in all cameras and at all times; `labels` (N,) index CLASSES. `positions` (N, 3) are the
    centres of the 3-D boxes in `base_link` and `positions_camera` (N, 3) in the optical frame, at the image's capture;
    `sizes` (N, 3) are length, width, height in metres; `yaws` (N,) headings in `base_link` in radians; `alphas` (N,)
    observation angles as KITTI has them: rotation about the optical y axis minus the azimuth of the line of sight, 0
    for an object that heads to the right of the image, straight ahead of the camera, -pi/2 for one that heads away.
    """

    ids: Int32
    labels: Int32
    boxes: Float32
    visible_boxes: Float32
    visibility: Float32
    truncation: Float32
    positions: Float32
    positions_camera: Float32
    sizes: Float32
    yaws: Float32
    alphas: Float32


class View(NamedTuple):
    """A rendered image (H, W, 3) uint8 BGR and what it shows."""

    image: Image
    objects: Objects


class Standing(NamedTuple):
    """An actor at one moment: its triangles (T, 3, 3) in the world that face the camera, and its 3-D box there."""

    id: int
    label: int
    corners: Float32
    centre: Float
    size: Float
    yaw: float


def observe(
    camera: Camera, pose: Pose, ego: tuple[float, float, float], actors: Sequence[Standing], owners: Int32
) -> Objects:
    """What a camera sees of the actors; `owners` (H, W) holds each pixel's actor, by its place in `actors` plus 1."""
    scale = owners.shape[1] // camera.width
    lens = prepare_lens(camera, scale)
    counts = np.bincount(owners.ravel(), minlength=len(actors) + 1)
    rows = []
    for number in np.flatnonzero(counts[1:]).tolist():
        actor = actors[number]
        corners, _ = raster.clip_near(raster.in_camera(actor.corners, pose))
        pixels = lens.focal * corners[..., :2] / corners[..., 2:] + (lens.cx, lens.cy)
        whole = np.array([*pixels.min((0, 1)), *pixels.max((0, 1))])
        box = np.clip(whole, 0, [lens.width, lens.height, lens.width, lens.height])
        shown = _shown(owners, number + 1, box)
        inside, total = _outline(corners, lens, whole, box)
        visibility = min(counts[number + 1] / max(inside, 1.0), 1.0)
        truncation = min(max(1.0 - inside / max(total, 1e-9), 0.0), 1.0)
        centre = (actor.centre - pose.place) @ pose.rotation
        rows.append((number, box / scale, shown / scale, visibility, truncation, centre))
    rows.sort(key=lambda row: -float(row[5][2]))
    chosen = [actors[row[0]] for row in rows]
    base = np.array([a.centre - [ego[0], ego[1], 0] for a in chosen]).reshape(-1, 3) @ rotation_about_z(ego[2])
    centres = np.array([row[5] for row in rows]).reshape(-1, 3)
    yaws = wrapped(np.array([a.yaw - ego[2] for a in chosen]))
    return Objects(
        ids=np.array([a.id for a in chosen], np.int32),
        labels=np.array([a.label for a in chosen], np.int32),
        boxes=np.array([row[1] for row in rows], np.float32).reshape(-1, 4),
        visible_boxes=np.array([row[2] for row in rows], np.float32).reshape(-1, 4),
        visibility=np.array([row[3] for row in rows], np.float32),
        truncation=np.array([row[4] for row in rows], np.float32),
        positions=base.astype(np.float32),
        positions_camera=centres.astype(np.float32),
        sizes=np.array([a.size for a in chosen], np.float32).reshape(-1, 3),
        yaws=yaws.astype(np.float32),
        alphas=_alphas(chosen, centres, pose).astype(np.float32),
    )


def _alphas(actors: Sequence[Standing], centres: Float, pose: Pose) -> Float:
    headings = np.array([[np.cos(a.yaw), np.sin(a.yaw), 0.0] for a in actors]).reshape(-1, 3) @ pose.rotation
    return wrapped(np.arctan2(-headings[:, 2], headings[:, 0]) - np.arctan2(centres[:, 0], centres[:, 2]))


def _shown(owners: Int32, number: int, box: Float) -> Float:
    """The box around an object's pixels, looked for where it can be."""
    x0, y0 = np.maximum(np.floor(box[:2]).astype(int) - 1, 0)
    x1, y1 = np.ceil(box[2:]).astype(int) + 1
    mine = owners[y0:y1, x0:x1] == number
    across, down = np.flatnonzero(mine.any(0)), np.flatnonzero(mine.any(1))
    return np.array([x0 + across[0], y0 + down[0], x0 + across[-1] + 1, y0 + down[-1] + 1], float)


def _outline(corners: Float32, lens: Lens, whole: Float, box: Float) -> tuple[float, float]:
    """How many pixels an object covers when nothing hides it: inside the image, and with those outside."""
    reach = np.array([lens.width, lens.height])
    low, high = np.floor(np.maximum(whole[:2], -reach)), np.ceil(np.minimum(whole[2:], 2 * reach))
    size = np.maximum(high - low, 1)
    shrink = max(float(size.max()) / _LARGEST_PX, 1.0)
    width, height = (np.ceil(size / shrink)).astype(int)
    middle = (lens.cx - low[0]) / shrink, (lens.cy - low[1]) / shrink
    small = Lens(int(width), int(height), lens.focal / shrink, *middle)
    depth = np.full((small.height, small.width), raster.FAR_M, np.float32)
    covered = raster.rasterise(corners, np.ones(len(corners), np.int32), small, depth)[..., 0] > 0
    x0, y0 = np.round((box[:2] - low) / shrink).astype(int)
    x1, y1 = np.round((box[2:] - low) / shrink).astype(int)
    inside = np.count_nonzero(covered[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)])
    return inside * shrink**2, np.count_nonzero(covered) * shrink**2
