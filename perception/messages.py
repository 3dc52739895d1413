"""What flows through the pipeline: plain, immutable records of arrays.

Metres, radians and seconds; time stamps are integer nanoseconds. Two time lines are kept apart by name:
``*_ns`` stamps called *capture* and *stamp* are on the time line of the data (the epoch on the vehicle,
the recording's in replay); *arrival*, *deadline* and every span are on the machine's monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
Image = NDArray[np.uint8]

CLASSES: Final = ("car", "truck", "bus", "motorcycle", "bicycle", "pedestrian")
"""The classes of the pipeline; a label is an index into this tuple."""

STAGES: Final = ("ingest", "preprocess", "detect", "nms", "fusion", "output")
"""The stages of a tick, in flow order."""


class Span(NamedTuple):
    """A piece of work on the machine's monotonic clock, in nanoseconds."""

    start_ns: int
    end_ns: int


class StageSpan(NamedTuple):
    """One stage's work in one tick; `camera` is empty for the stages that serve all cameras."""

    stage: str
    camera: str
    start_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class Transform:
    """A rigid transform that maps points of frame ``b`` into frame ``a``; variables read ``a_from_b``.

    `rotation` is (3, 3), `translation` is (3,) in metres.
    """

    rotation: Float
    translation: Float


@dataclass(frozen=True, slots=True)
class Camera:
    """A calibrated camera of the rig.

    `intrinsics` is the 3x3 matrix K in pixels. `distortion_model` is ``none``, ``plumb_bob`` (k1 k2 p1 p2 k3),
    ``rational_polynomial`` (k1 k2 p1 p2 k3 k4 k5 k6) or ``kannala_brandt`` (k1 k2 k3 k4).
    `base_from_camera` maps the optical frame (x right, y down, z forward) into `base_link`.
    """

    name: str
    width: int
    height: int
    intrinsics: Float
    base_from_camera: Transform
    distortion_model: str = "none"
    distortion: Float = field(default_factory=lambda: np.zeros(0))


REDUCTIONS: Final = (1, 2, 4, 8)
"""What decoders of JPEGs can divide the size of an image by, rounding up."""

NO_IMAGE: Final[Image] = np.zeros((0, 0, 3), np.uint8)
"""The image of a frame that was not decoded: nobody looks at it, or it was not there in time."""

Rig = dict[str, Camera]
"""The cameras of a vehicle by name, in the order in which they are shown."""


class EncodedImage(NamedTuple):
    """An image as it came, for recording it without encoding it again."""

    format: str
    data: bytes


ImageFormat = Literal["bgr", "nv12", "yuyv", "jpeg"]
"""What the bytes of an image are."""


def format_of(image: Image) -> ImageFormat:
    """What an image is, which its shape tells, as it does in OpenCV.

    (H, W, 3) is BGR, (H, W, 2) YUYV, (H * 3 / 2, W) NV12, and (N,) a JPEG of so many bytes.
    """
    if image.ndim < 3:
        return "jpeg" if image.ndim == 1 else "nv12"
    return "yuyv" if image.shape[2] == 2 else "bgr"


class Needed(NamedTuple):
    """What is needed of a camera's images.

    They are looked at in `size` (width, height), so larger ones may be decoded smaller. They may be left in any of the
    formats `as_they_come`, where they come in them; all others are made BGR.
    """

    size: tuple[int, int]
    as_they_come: frozenset[ImageFormat] = frozenset()

    def reduction(self, image_size: tuple[int, int]) -> int:
        """What a decoder may divide the size of an image by, so that at least twice what is needed is left."""
        spare = min(image_size[0] / self.size[0], image_size[1] / self.size[1])
        return max(by for by in REDUCTIONS if by == 1 or spare >= 2 * by)


@dataclass(frozen=True, slots=True)
class Frame:
    """One image of one camera.

    `image` is (H, W, 3) uint8 BGR at the size of the camera's calibration, or at a half, a quarter or an eighth of it,
    rounded up, where no more is needed; or it is left as it came, in another `format_of` those that its channel takes.
    It is `NO_IMAGE` where nobody looks at it. `arrival_ns` is when its bytes were in memory, `ingest` the span in which
    they became an image. `map_from_base` is the ego pose at `capture_ns`.
    """

    camera: str
    image: Image
    capture_ns: int
    arrival_ns: int
    ingest: Span
    map_from_base: Transform | None = None
    encoded: EncodedImage | None = None

    @property
    def decoded(self) -> bool:
        """Whether there is an image to look at."""
        return self.image.size > 0


@dataclass(frozen=True, slots=True)
class PointCloud:
    """A LiDAR sweep: `points` (N, 3) float32 in the sensor's frame."""

    stamp_ns: int
    points: Float32
    base_from_sensor: Transform


@dataclass(frozen=True, slots=True)
class FrameSet:
    """The frames of one tick, in the rig's order, one per camera at most.

    `stamp_ns` is the newest capture among them, and the time for which the tick's tracks are given; `skew_ns`
    is newest minus oldest. `map_from_base` is the ego pose at `stamp_ns`, None where the drive has no poses.
    """

    tick: int
    stamp_ns: int
    skew_ns: int
    frames: tuple[Frame, ...]
    missing: tuple[str, ...]
    map_from_base: Transform | None = None
    point_cloud: PointCloud | None = None

    @property
    def arrival_ns(self) -> int:
        """The earliest arrival: where the tick's end-to-end clock starts."""
        return min(frame.arrival_ns for frame in self.frames)


@dataclass(frozen=True, slots=True)
class InputSpec:
    """How a detector wants its images: `width` x `height` pixels, planar float32, letterboxed.

    A pixel becomes ``(pixel * scale - mean) / std`` with `mean` and `std` in the model's channel order. What the image
    does not cover is filled with the grey level `pad_value` before that, around the image or at its right and bottom.
    """

    width: int
    height: int
    channel_order: Literal["rgb", "bgr"]
    scale: float
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    pad_value: int = 114
    pad_position: Literal["center", "bottom_right"] = "center"


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a detector says of its N objects in 3-D, in pixels of the image that their boxes are in.

    `centres` (N, 2) are the projections of the objects' centres. `depths_over_focal` (N,) are depths of the centres
    along the optical axis, in metres, over the focal length fy in pixels, and `depth_stds` (N,) their standard
    deviations as fractions of the depth. `sizes` (N, 3) are length, width, height in metres. `alphas` (N,) are
    observation angles in radians: the heading about the camera's y axis less the azimuth of the viewing ray (`alpha`
    of KITTI).
    """

    centres: Float32
    depths_over_focal: Float32
    depth_stds: Float32
    sizes: Float32
    alphas: Float32

    def take(self, kept: NDArray[np.intp]) -> Attributes:
        """Those of some of the objects."""
        return Attributes(
            self.centres[kept],
            self.depths_over_focal[kept],
            self.depth_stds[kept],
            self.sizes[kept],
            self.alphas[kept],
        )


@dataclass(frozen=True, slots=True)
class Candidates:
    """What a head decoded from one image, before NMS, in pixels of the *model input*.

    `boxes` (N, 4) float32 as x1 y1 x2 y2, `scores` (N,) float32 in [0, 1], `labels` (N,) int32 into CLASSES;
    `attributes` where the model offers them.
    """

    boxes: Float32
    scores: Float32
    labels: Int32
    attributes: Attributes | None = None

    def take(self, kept: NDArray[np.intp]) -> Candidates:
        """Those of some of the objects, in that order."""
        attributes = None if self.attributes is None else self.attributes.take(kept)
        return Candidates(self.boxes[kept], self.scores[kept], self.labels[kept], attributes)


@dataclass(frozen=True, slots=True)
class Detections:
    """One camera's objects: as `Candidates`, but in pixels of the *original image* and by falling score."""

    camera: str
    capture_ns: int
    boxes: Float32
    scores: Float32
    labels: Int32
    attributes: Attributes | None = None

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True, slots=True)
class Measurements:
    """Objects measured in 3-D by one sensor at one time: what the tracker eats, whoever measured it.

    In `base_link` at `stamp_ns`; `map_from_base` is the ego pose at that time, None without poses.
    `positions` (N, 3) are centres, in metres, with `covariances` (N, 3, 3); `sizes` (N, 3) are length, width, height
    and `yaws` (N,) the heading in radians about z: NaN where not measured. `scores` (N,) in [0, 1], `labels` (N,)
    into CLASSES.
    """

    sensor: str
    stamp_ns: int
    positions: Float
    covariances: Float
    sizes: Float
    yaws: Float
    scores: Float
    labels: Int32
    map_from_base: Transform | None = None

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True, slots=True)
class Track:
    """One object over time, in `base_link` at the stamp of its track set.

    `position` (3,) is the centre, `velocity` (3,) is over ground, both along the axes of `base_link`; `size` (3,) is
    length, width, height; `covariance` (4, 4) is of x, y, vx, vy. `seen_by` names the cameras that saw it in this tick;
    when it is empty the track is a prediction, `since_seen_s` old.
    """

    id: int
    label: int
    score: float
    position: Float
    velocity: Float
    size: Float
    yaw: float
    covariance: Float
    age_s: float
    since_seen_s: float
    seen_by: tuple[str, ...]

    @property
    def class_name(self) -> str:
        """The name of the track's class."""
        return CLASSES[self.label]


@dataclass(frozen=True, slots=True)
class Decision:
    """What enforcement did to one tick, and what came of it: published with its tracks, recorded, and replayable.

    `level` is the rung of the degradation ladder that the tick ran on, 0 for everything. `dropped` says that the frame
    set came too old to be worked on: its tracks are all predicted. `skipped` names the cameras that the ladder left out
    or whose channel had not drained yet, `late` those cut off. `deadline_met` is whether the deadline was still ahead
    when the tracks were handed to the publishers, and `age_ns` how old their newest frame was then. In stepped replay
    nothing is late and the age is 0.
    """

    level: int = 0
    dropped: bool = False
    skipped: tuple[str, ...] = ()
    late: tuple[str, ...] = ()
    deadline_met: bool = True
    age_ns: int = 0


UNDISTURBED: Final = Decision()


@dataclass(frozen=True, slots=True)
class TrackSet:
    """What the pipeline publishes each tick: the confirmed tracks, by ascending id."""

    tick: int
    stamp_ns: int
    skew_ns: int
    missing: tuple[str, ...]
    tracks: tuple[Track, ...]
    map_from_base: Transform | None = None
    decision: Decision = UNDISTURBED


@dataclass(frozen=True, slots=True)
class TickTimes:
    """When a tick's work was done, on the monotonic clock; no deadline in stepped replay, where nothing is late."""

    arrival_ns: int
    published_ns: int
    deadline_ns: int | None
    spans: tuple[StageSpan, ...]

    @property
    def end_to_end_ns(self) -> int:
        """From the earliest arrival of a frame to publication."""
        return self.published_ns - self.arrival_ns

    @property
    def late(self) -> bool:
        """Whether publication missed the deadline."""
        return self.deadline_ns is not None and self.published_ns > self.deadline_ns


@dataclass(frozen=True, slots=True)
class Tick:
    """All that one tick took in and gave out, for whoever records it."""

    frames: FrameSet
    detections: tuple[Detections, ...]
    tracks: TrackSet
    times: TickTimes


@dataclass(frozen=True, slots=True)
class Truth:
    """Ground truth of one time: boxes in `base_link` at `stamp_ns`.

    `ids` (N,) are the instances' names, `labels` (N,) index CLASSES, `positions` (N, 3) are centres in metres,
    `sizes` (N, 3) length, width, height, `yaws` (N,) radians. `visibility` (N,) is the largest part of each that any
    camera sees, in [0, 1], NaN where the labels do not tell; None where none does.
    """

    stamp_ns: int
    ids: tuple[str, ...]
    labels: Int32
    positions: Float
    sizes: Float
    yaws: Float
    map_from_base: Transform | None = None
    visibility: Float | None = None
