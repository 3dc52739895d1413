"""Rigid transforms and the pinhole and fisheye camera models.

Conventions are REP-103 and REP-105; quaternions are x, y, z, w.
"""

from __future__ import annotations

import cv2
import numpy as np

from perception.messages import Camera, Float, Transform

IDENTITY = Transform(np.eye(3), np.zeros(3))

_NEAR_M = 0.1
_UNTIL_EXACT = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-9)  # 5 steps, as usual, leave wide lenses off
_WIDEST_TANGENT = 20.0  # of a fisheye lens that sees 180 degrees
_BOX_EDGES = np.array(
    [(i, (i + 1) % 4) for i in range(4)] + [(i + 4, (i + 1) % 4 + 4) for i in range(4)] + [(i, i + 4) for i in range(4)]
)


def compose(a_from_b: Transform, b_from_c: Transform) -> Transform:
    """``a_from_c``."""
    return Transform(
        a_from_b.rotation @ b_from_c.rotation,
        a_from_b.rotation @ b_from_c.translation + a_from_b.translation,
    )


def inverse(a_from_b: Transform) -> Transform:
    """``b_from_a``."""
    rotation = a_from_b.rotation.T
    return Transform(rotation, -rotation @ a_from_b.translation)


def apply(a_from_b: Transform, points: Float) -> Float:
    """Map points (..., 3) of frame b into frame a."""
    mapped: Float = points @ a_from_b.rotation.T + a_from_b.translation
    return mapped


def rotation_from_quaternion(xyzw: Float) -> Float:
    """Rotation matrix (3, 3) of a quaternion, normalised first."""
    x, y, z, w = xyzw / np.linalg.norm(xyzw)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def quaternion_from_rotation(rotation: Float) -> Float:
    """Quaternion (x, y, z, w) with w >= 0 of a rotation matrix (Shepperd 1978)."""
    diagonal = np.diag(rotation)
    trace = float(diagonal.sum())
    squares = np.array([*(1 + 2 * diagonal - trace), 1 + trace])  # four times x^2, y^2, z^2, w^2
    largest = int(np.argmax(squares))
    skew = np.array([rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]])
    if largest == 3:
        quaternion = np.array([*skew, squares[3]])
    else:
        symmetric = rotation[largest] + rotation[:, largest]
        quaternion = np.array([*symmetric, skew[largest]])
        quaternion[largest] = squares[largest]
    quaternion /= np.linalg.norm(quaternion)
    return quaternion if quaternion[3] >= 0 else -quaternion


def yaw_of(rotation: Float) -> float:
    """Heading about z in radians of a rotation matrix, from where it takes the x axis."""
    return float(np.arctan2(rotation[1, 0], rotation[0, 0]))


def wrapped(angles: Float) -> Float:
    """The same angles in radians, within half a turn: [-pi, pi)."""
    within: Float = (angles + np.pi) % (2 * np.pi) - np.pi
    return within


def rotation_about_z(yaw: float) -> Float:
    """Rotation matrix (3, 3) of a heading about z in radians."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def project(camera: Camera, points: Float) -> tuple[Float, Float]:
    """Project points (N, 3) of the optical frame: pixels (N, 2) and depths (N,) in metres.

    Pixels of points with a depth of 0 or less mean nothing.
    """
    points = np.asarray(points, dtype=np.float64).reshape(-1, 3)
    depth = points[:, 2]
    if camera.distortion_model == "none":
        safe = np.where(np.abs(depth) < 1e-9, 1e-9, depth)
        pixels = (points / safe[:, None]) @ camera.intrinsics[:2].T
        return pixels, depth
    if len(points) == 0:
        return np.zeros((0, 2)), depth
    model = cv2.fisheye.projectPoints if camera.distortion_model == "kannala_brandt" else cv2.projectPoints
    shape = (-1, 1, 3)
    pixels = model(points.reshape(shape), np.zeros(3), np.zeros(3), camera.intrinsics, camera.distortion)[0]
    return np.asarray(pixels, dtype=np.float64).reshape(-1, 2), depth


def rays(camera: Camera, pixels: Float) -> Float:
    """Directions (N, 3) in the optical frame, with z = 1, of pixels (N, 2); the inverse of `project`."""
    pixels = np.asarray(pixels, dtype=np.float64).reshape(-1, 2)
    if len(pixels) == 0:
        return np.zeros((0, 3))
    if camera.distortion_model == "none":
        k = camera.intrinsics
        y = (pixels[:, 1] - k[1, 2]) / k[1, 1]
        x = (pixels[:, 0] - k[0, 2] - k[0, 1] * y) / k[0, 0]
        return np.stack([x, y, np.ones_like(x)], axis=1)
    lens, shape = (camera.intrinsics, camera.distortion), (-1, 1, 2)
    if camera.distortion_model == "kannala_brandt":
        normal = cv2.fisheye.undistortPoints(pixels.reshape(shape), *lens)
    else:
        normal = cv2.undistortPoints(pixels.reshape(shape), *lens, criteria=_UNTIL_EXACT)
    return np.concatenate([np.asarray(normal, dtype=np.float64).reshape(-1, 2), np.ones((len(pixels), 1))], axis=1)


def box_corners(position: Float, size: Float, yaw: float) -> Float:
    """The corners (8, 3) of an upright box by centre, size (length, width, height) and heading.

    The first four are the bottom, front left first and counter-clockwise from above; the last four lie above them.
    """
    x = np.array([1, -1, -1, 1, 1, -1, -1, 1]) * size[0] / 2
    y = np.array([1, 1, -1, -1, 1, 1, -1, -1]) * size[1] / 2
    z = np.array([-1, -1, -1, -1, 1, 1, 1, 1]) * size[2] / 2
    return apply(Transform(rotation_about_z(yaw), position), np.stack([x, y, z], axis=1))


def viewing_planes(camera: Camera, margin: float = 0.2) -> Float:
    """The planes (5, 4) around what a camera can see, homogeneous, in the optical frame, positive inside.

    Near plane, left, right, top, bottom; the last four lie outside the image by `margin` of its width and height.
    Beyond them a distortion polynomial means nothing, and points behind the camera would be mirrored into the image.
    """
    across, down = np.linspace(0, camera.width, 9), np.linspace(0, camera.height, 9)
    border = [(x, y) for x in across for y in (0, camera.height)] + [(x, y) for x in (0, camera.width) for y in down]
    tangents = np.clip(rays(camera, np.array(border))[:, :2], -_WIDEST_TANGENT, _WIDEST_TANGENT)
    low, high = tangents.min(axis=0), tangents.max(axis=0)
    low, high = low - margin * (high - low), high + margin * (high - low)
    return np.array(
        [
            [0.0, 0.0, 1.0, -_NEAR_M],
            [1.0, 0.0, -low[0], 0.0],
            [-1.0, 0.0, high[0], 0.0],
            [0.0, 1.0, -low[1], 0.0],
            [0.0, -1.0, high[1], 0.0],
        ]
    )


def box_edges(camera: Camera, planes: Float, corners: Float) -> Float:
    """The edges (M, 2, 2) in pixels of a box with `corners` (8, 3) in `base_link`, as `box_corners` gives them.

    Cut off at `planes`, the camera's `viewing_planes`; M is 12 or less, 0 where nothing of the box is in view. Each
    edge is clipped by its parameter at every plane (Cyrus and Beck 1978).
    """
    points = apply(inverse(camera.base_from_camera), corners)
    distances = points @ planes[:, :3].T + planes[:, 3]
    start, end = distances[_BOX_EDGES[:, 0]], distances[_BOX_EDGES[:, 1]]
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = start / (start - end)
    enters = np.where(start < 0, crossing, 0.0).max(axis=1)
    leaves = np.where(end < 0, crossing, 1.0).min(axis=1)
    seen = (enters <= leaves) & ~((start < 0) & (end < 0)).any(axis=1)
    a, b = points[_BOX_EDGES[seen, 0]], points[_BOX_EDGES[seen, 1]]
    clipped = np.stack([a + enters[seen, None] * (b - a), a + leaves[seen, None] * (b - a)], axis=1)
    return project(camera, clipped.reshape(-1, 3))[0].reshape(-1, 2, 2)
