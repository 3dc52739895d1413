"""From 2-D boxes to 3-D measurements: what one calibrated camera over a road can know.

Each cue gives the range to the near face of an object as an *inverse* range with a variance: where the bottom edge of
the box meets the ground, and how tall the box is against the usual height of its class. In inverse range both are
nearly Gaussian, and a box at or above the horizon is nothing special (Civera, Davison and Montiel 2008, "Inverse depth
parametrization for monocular SLAM"). Cues are combined by their variances: one that is worth nothing here weighs
nothing. A depth that the detector itself predicts is of the centre; the cues join it there, less certain by half the
object's extent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perception import geometry
from perception.config import FusionConfig
from perception.messages import CLASSES, Attributes, Detections, Float, Int32, Measurements, Rig, Transform

Mask = NDArray[np.bool_]
Index = NDArray[np.intp]

OCCLUDED_STD: Final = 3.0
"""How much less certain the range of an object is when a nearer one may hide its lower part."""
LATERAL_STD: Final = 0.5
"""How far a centre is from the middle of its box, over half^2 / distance: the nearer side of an object looks larger."""
CUT_STD: Final = 0.25
"""How far a centre is from where it is guessed when an edge is out of the image, as a part of the whole extent."""
SAME_OBJECT_IOU: Final = 0.8
"""Boxes of one image that overlap this much are one object, labelled twice."""
PREDICTED_SIZE_STD: Final = 0.1
"""How exact a size is that the detector predicts, as a part of it."""
HEADING_TRUST: Final = 0.5
"""How often a predicted heading is near the truth."""
LEAST_NEAR_M: Final = 0.5
"""Nearer than this to the camera no predicted depth puts a near face."""
_TINY: Final = 1e-9
_NO_BOXES: Final = np.zeros((0, 4))
_NO_SCORES: Final = np.zeros(0)
_NO_LABELS: Final = np.zeros(0, np.int32)


class _Sizes(NamedTuple):
    """The usual size of each of N objects; `half` is half the extent in some horizontal direction."""

    height: Float
    height_variance: Float
    half: Float
    half_variance: Float


class _Predicted(NamedTuple):
    """What the detector itself says of N objects in `base_link`; NaN where it says nothing.

    `directions` (N, 2) are horizontal unit vectors from the camera to the centres, which are `distances` (N,) away.
    """

    directions: Float
    distances: Float
    distance_stds: Float
    sizes: Float
    yaws: Float


class _Outline(NamedTuple):
    """The boxes of one image as directions, level with `base_link`; every array has N rows.

    `origin` (N, 3) is where the camera is. `bearing` (N, 2) is the horizontal unit vector to the middle of the box,
    whose sides are `half_angle` away from it; `top` and `bottom` are slopes, rise per horizontal metre. `angle_per_px`
    and `slope_per_px` are what a pixel is worth there. The masks say which edges are the object's own rather than the
    border of the image.
    """

    origin: Float
    bearing: Float
    half_angle: Float
    top: Float
    bottom: Float
    angle_per_px: Float
    slope_per_px: Float
    left_seen: Mask
    right_seen: Mask
    top_seen: Mask
    bottom_seen: Mask


class Lifter:
    """Lifts the boxes of all cameras of a tick to `base_link`, together: so few numbers cost less than calls do.

    Keeps what is the same for every image: the mounting, and the usual sizes. As the heading of an object is not
    known, its extent in any horizontal direction is that of a length x width rectangle turned at random: half of it
    is (length + width) / pi on average, and that far in front of the centre is the corner seen lowest.
    """

    def __init__(self, rig: Rig, config: FusionConfig) -> None:
        self._cameras = list(rig.values())
        self._index = {name: index for index, name in enumerate(rig)}
        self._origins = np.array([camera.base_from_camera.translation for camera in self._cameras])
        self._turns = np.array([camera.base_from_camera.rotation for camera in self._cameras])
        self._focals = np.array([camera.intrinsics[1, 1] for camera in self._cameras])
        self._image_sizes = np.array([(camera.width, camera.height) for camera in self._cameras], dtype=np.float64)
        self._pixel_std = config.pixel_std
        self._pitch_std = math.radians(config.pitch_std_deg)
        self._yaw_std = math.radians(config.yaw_std_deg)
        self._ground_std = config.ground_std_m
        self._least_inverse_range = 1 / config.max_range_m
        self._use_attributes = config.attributes
        self._sizes = _usual_sizes(config)

    def lift(self, detections: Sequence[Detections], poses: Sequence[Transform | None]) -> list[Measurements]:
        """Measure the objects of each image; `poses` are the ego poses at their captures and are passed on.

        Positions are centres. Where detections have attributes, size and heading are theirs, but for the heading where
        the border of the image cuts the object: that is a guess. Else of the size only the height is measured, where
        the whole of it is seen, and the heading never is. Left out are boxes that are empty or not finite, a second
        label for one object, and objects further from the camera than `max_range_m` or whose range no cue tells.
        """
        boxes = np.concatenate([_NO_BOXES, *(found.boxes for found in detections)])
        labels = np.concatenate([_NO_LABELS, *(found.labels for found in detections)])
        scores = np.concatenate([_NO_SCORES, *(found.scores for found in detections)])
        image = np.repeat(np.arange(len(detections)), [len(found) for found in detections])
        lifted, hidden = _appraise(boxes, labels, image)
        boxes, labels, image = boxes[lifted], labels[lifted], image[lifted]

        predicted = self._predicted(detections, lifted)
        sizes = _told_sizes(_Sizes(*self._sizes[:, labels]), predicted)
        outline = self._outline(boxes, image, [self._index[found.camera] for found in detections])
        inverse_range, variance = _combine(*self._range_cues(outline, sizes, hidden))
        near = 1 / np.maximum(inverse_range, self._least_inverse_range)
        told = np.isfinite(predicted.distances)
        distance, variance = _combine(
            np.array([near + sizes.half, np.where(told, predicted.distances, 0.0)]),
            np.array([variance * near**4 + sizes.half_variance, np.where(told, predicted.distance_stds**2, np.inf)]),
        )
        positions, covariances = self._place(outline, sizes, distance, variance, predicted)
        measured = predicted.sizes.copy()
        whole = outline.top_seen & outline.bottom_seen & ~hidden
        seen_height = np.where(whole, near * (outline.top - outline.bottom), np.nan)
        measured[:, 2] = np.where(np.isnan(measured[:, 2]), seen_height, measured[:, 2])

        uncut = outline.left_seen & outline.right_seen & outline.bottom_seen
        yaws = np.where(uncut, predicted.yaws, np.nan)

        in_range = np.where(told, distance < 1 / self._least_inverse_range, inverse_range > self._least_inverse_range)
        kept = np.flatnonzero(in_range)
        positions, covariances, measured = positions[kept], covariances[kept], measured[kept]
        labels, scores, yaws = labels[kept], scores[lifted[kept]], yaws[kept]
        ends = np.searchsorted(image[kept], np.arange(len(detections) + 1)).tolist()
        return [
            Measurements(
                sensor=found.camera,
                stamp_ns=found.capture_ns,
                positions=positions[start:end],
                covariances=covariances[start:end],
                sizes=measured[start:end],
                yaws=yaws[start:end],
                scores=scores[start:end],
                labels=labels[start:end],
                map_from_base=pose,
            )
            for found, pose, start, end in zip(detections, poses, ends[:-1], ends[1:], strict=True)
        ]

    def _predicted(self, detections: Sequence[Detections], lifted: Index) -> _Predicted:
        """What the attributes of the boxes to lift say, as it is in `base_link`."""
        told = [found.attributes for found in detections]
        if not self._use_attributes or all(of_image is None for of_image in told):
            return _unpredicted(len(lifted))
        said = [_untold(len(found)) if found.attributes is None else found.attributes for found in detections]
        taken_by = [self._index[found.camera] for found in detections]
        centres = [of_image.centres.astype(np.float64) for of_image in said]
        rays = np.concatenate([geometry.rays(self._cameras[i], at) for i, at in zip(taken_by, centres, strict=True)])
        rays = rays[lifted]
        depths_over_focal, depth_stds, sizes, alphas = (
            np.concatenate([getattr(of_image, name) for of_image in said], dtype=np.float64)[lifted]
            for name in ("depths_over_focal", "depth_stds", "sizes", "alphas")
        )
        of_camera = np.repeat(taken_by, [len(found) for found in detections])[lifted]
        turns = self._turns[of_camera]
        away = np.einsum("nij,nj->ni", turns[:, :2], rays * (depths_over_focal * self._focals[of_camera])[:, None])
        distances = np.hypot(away[:, 0], away[:, 1])
        about_y = (alphas + np.arctan2(rays[:, 0], rays[:, 2]))[:, None]
        headings = np.cos(about_y) * turns[:, :2, 0] - np.sin(about_y) * turns[:, :2, 2]
        return _Predicted(
            directions=away / np.maximum(distances, _TINY)[:, None],
            distances=distances,
            distance_stds=distances * depth_stds,
            sizes=sizes,
            yaws=np.arctan2(headings[:, 1], headings[:, 0]),
        )

    def _outline(self, boxes: Float, image: Index, cameras: Sequence[int]) -> _Outline:
        """`image` (N,) tells which of `cameras` took each box, in ascending order."""
        x1, y1, x2, y2 = boxes.T
        x, y = (x1 + x2) / 2, (y1 + y2) / 2
        pixels = np.array([x1, y, x2, y, x, y1, x, y2]).T.reshape(-1, 4, 2)
        directions = np.empty((len(boxes), 4, 3))
        ends = np.searchsorted(image, np.arange(len(cameras) + 1)).tolist()
        for index, start, end in zip(cameras, ends[:-1], ends[1:], strict=True):
            camera = self._cameras[index]
            rays = geometry.rays(camera, pixels[start:end]) @ camera.base_from_camera.rotation.T
            directions[start:end] = rays.reshape(-1, 4, 3)
        directions /= np.maximum(np.hypot(directions[..., 0], directions[..., 1]), _TINY)[..., None]
        left, right = directions[:, 0, :2], directions[:, 1, :2]
        top, bottom = directions[:, 2, 2], directions[:, 3, 2]
        bearing, chord = left + right, left - right
        length = np.hypot(bearing[:, 0], bearing[:, 1])
        half_angle = np.arctan2(np.hypot(chord[:, 0], chord[:, 1]), length)
        of_camera = np.array(cameras, dtype=np.intp)[image]
        right_border, bottom_border = self._image_sizes[of_camera].T - self._pixel_std
        return _Outline(
            origin=self._origins[of_camera],
            bearing=bearing / np.maximum(length, _TINY)[:, None],
            half_angle=half_angle,
            top=top,
            bottom=bottom,
            angle_per_px=2 * half_angle / (x2 - x1),
            slope_per_px=(top - bottom) / (y2 - y1),
            left_seen=x1 > self._pixel_std,
            right_seen=x2 < right_border,
            top_seen=y1 > self._pixel_std,
            bottom_seen=y2 < bottom_border,
        )

    def _range_cues(self, outline: _Outline, sizes: _Sizes, hidden: Mask) -> tuple[Float, Float]:
        """Inverse ranges to the near face and their variances, both (cues, N); infinite where a cue is of no use.

        Width is none of them: it depends on the heading, which is unknown, by more than a factor of two.
        """
        camera_height = np.maximum(outline.origin[:, 2], _TINY)
        slope_variance = (self._pixel_std * outline.slope_per_px) ** 2

        ground = -outline.bottom / camera_height
        tilt = self._pitch_std * (1 + outline.bottom**2)
        ground_variance = (slope_variance + tilt**2 + (ground * self._ground_std) ** 2) / camera_height**2

        height = (outline.top - outline.bottom) / sizes.height
        height_variance = (2 * slope_variance + height**2 * sizes.height_variance) / sizes.height**2

        # Cut off below, an object is nearer than the ground at the border, and than its visible height tells: somewhere
        # between 0 and that limit, so half of it, with the deviation of a uniform distribution, limit / sqrt(12).
        nearer = 2 * np.maximum(np.maximum(ground, height), _TINY)

        whole = outline.top_seen & outline.bottom_seen
        variances = np.array(
            [
                np.where(outline.bottom_seen, ground_variance, np.inf),
                np.where(whole, height_variance, np.inf),
                np.where(outline.bottom_seen, np.inf, nearer**2 / 3),
            ]
        )
        return np.array([ground, height, nearer]), variances * np.where(hidden, OCCLUDED_STD**2, 1.0)

    def _place(
        self, outline: _Outline, sizes: _Sizes, distance: Float, range_variance: Float, predicted: _Predicted
    ) -> tuple[Float, Float]:
        """Centres (N, 3) and covariances (N, 3, 3): ellipsoids along the line of sight."""
        near = np.maximum(distance - sizes.half, LEAST_NEAR_M)
        half_angle = outline.half_angle
        turn = _middle(-half_angle, half_angle, sizes.half / distance, outline.right_seen, outline.left_seen)
        rise = _middle(
            near * outline.bottom, near * outline.top, sizes.height / 2, outline.bottom_seen, outline.top_seen
        )
        cos, sin = np.cos(turn), np.sin(turn)
        x = cos * outline.bearing[:, 0] - sin * outline.bearing[:, 1]
        y = sin * outline.bearing[:, 0] + cos * outline.bearing[:, 1]
        told = np.isfinite(predicted.distances)
        x, y = np.where(told, predicted.directions[:, 0], x), np.where(told, predicted.directions[:, 1], y)
        positions = outline.origin + np.array([distance * x, distance * y, rise]).T

        angle_variance = self._yaw_std**2 + (self._pixel_std * outline.angle_per_px) ** 2 / 2
        slope_variance = self._pitch_std**2 + (self._pixel_std * outline.slope_per_px) ** 2 / 2
        across = distance**2 * angle_variance + (LATERAL_STD * sizes.half**2 / distance) ** 2
        across += np.where(outline.left_seen & outline.right_seen, 0.0, (2 * CUT_STD * sizes.half) ** 2)
        upwards = distance**2 * slope_variance
        upwards += np.where(outline.bottom_seen & outline.top_seen, 0.0, (CUT_STD * sizes.height) ** 2)

        axes = np.zeros((len(distance), 3, 3))  # columns: along the line of sight, to the left of it, up
        axes[:, 0, 0], axes[:, 1, 0], axes[:, 2, 0] = x, y, rise / distance
        axes[:, 0, 1], axes[:, 1, 1] = -y, x
        axes[:, 2, 2] = 1.0
        variances = np.array([range_variance, across, upwards]).T
        return positions, (axes * variances[:, None]) @ axes.transpose(0, 2, 1)


def _usual_sizes(config: FusionConfig) -> Float:
    """The rows of `_Sizes` for each of CLASSES, (4, classes)."""
    priors = [getattr(config.sizes, name) for name in CLASSES]
    length, width, height, length_std, width_std, height_std = np.array(
        [[p.length_m, p.width_m, p.height_m, p.length_std_m, p.width_std_m, p.height_std_m] for p in priors]
    ).T
    half, variance = _over_headings(length, width)
    return np.stack([height, height_std**2, half, variance + (length_std**2 + width_std**2) / np.pi**2])


def _over_headings(length: Float, width: Float) -> tuple[Float, Float]:
    """Mean and variance over all headings of (length |cos| + width |sin|) / 2."""
    half = (length + width) / np.pi
    return half, (length**2 + width**2) / 8 + length * width / (2 * np.pi) - half**2


def _unpredicted(count: int) -> _Predicted:
    nothing = np.full(count, np.nan)
    return _Predicted(np.full((count, 2), np.nan), nothing, nothing, np.full((count, 3), np.nan), nothing)


def _untold(count: int) -> Attributes:
    nothing = np.full(count, np.nan, np.float32)
    return Attributes(np.full((count, 2), np.nan, np.float32), nothing, nothing, np.full((count, 3), np.nan), nothing)


def _told_sizes(usual: _Sizes, predicted: _Predicted) -> _Sizes:
    """The sizes that the detector predicts, where it does: with the heading known, half the extent is too.

    A predicted heading is right with a probability of `HEADING_TRUST`; else it is as good as any.
    """
    length, width, height = predicted.sizes.T
    along = predicted.directions[:, 0] * np.cos(predicted.yaws) + predicted.directions[:, 1] * np.sin(predicted.yaws)
    across = np.sqrt(np.maximum(1 - along**2, 0))
    half = (length * np.abs(along) + width * across) / 2
    any_half, any_variance = _over_headings(length, width)
    mean = HEADING_TRUST * half + (1 - HEADING_TRUST) * any_half
    spread = (1 - HEADING_TRUST) * (any_variance + HEADING_TRUST * (half - any_half) ** 2)
    told = np.isfinite(half)
    return _Sizes(
        height=np.where(told, height, usual.height),
        height_variance=np.where(told, (PREDICTED_SIZE_STD * height) ** 2, usual.height_variance),
        half=np.where(told, mean, usual.half),
        half_variance=np.where(told, spread + (PREDICTED_SIZE_STD * mean) ** 2, usual.half_variance),
    )


def _combine(values: Float, variances: Float) -> tuple[Float, Float]:
    """The minimum-variance mean over the first axis, and its variance; 0 where no value is of use."""
    information = 1 / variances
    variance = 1 / np.maximum(information.sum(axis=0), _TINY)
    return (information * values).sum(axis=0) * variance, variance


def _middle(low: Float, high: Float, half: Float, low_seen: Mask, high_seen: Mask) -> Float:
    """The middle of an extent: between its ends, or half the usual extent from the only one that is seen."""
    return np.where(low_seen == high_seen, (low + high) / 2, np.where(low_seen, low + half, high - half))


def _appraise(boxes: Float, labels: Int32, image: Index) -> tuple[Index, Mask]:
    """Which boxes to lift, and which of those may be hidden below by a nearer object in the same image.

    Not lifted are boxes that are empty or not finite, and of one object labelled twice all but the first, which is the
    best scored. Hidden may be those whose bottom edge lies, for more than half its width, within another box.
    """
    boxes = np.where(np.isfinite(boxes).all(axis=1, keepdims=True), boxes, 0.0)
    size = boxes[:, 2:] - boxes[:, :2]
    proper: Mask = np.minimum(size[:, 0], size[:, 1]) > 0
    first, second = np.nonzero((image[:, None] == image) & proper[:, None] & proper & _before(len(boxes)))
    a, b = boxes[first], boxes[second]
    common = np.maximum(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0)

    overlap, area = common[:, 0] * common[:, 1], size[:, 0] * size[:, 1]
    same = overlap > SAME_OBJECT_IOU * (area[first] + area[second] - overlap)
    proper[second[same & (labels[first] != labels[second])]] = False

    a_is_lower = a[:, 3] > b[:, 3]
    upper, lower_top = np.where(a_is_lower, second, first), np.where(a_is_lower, a[:, 1], b[:, 1])
    within = (boxes[upper, 3] > lower_top) & (common[:, 0] > size[upper, 0] / 2)
    hidden = np.zeros(len(boxes), np.bool_)
    hidden[upper[within & proper[first] & proper[second]]] = True
    lifted = np.flatnonzero(proper)
    return lifted, hidden[lifted]


def _before(n: int) -> Mask:
    """Of each pair of n things, only one order: (n, n), True above the diagonal."""
    at = np.arange(n)
    before: Mask = at[:, None] < at
    return before
