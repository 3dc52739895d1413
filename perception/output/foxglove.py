"""The pipeline's records as Foxglove's protobuf messages (https://docs.foxglove.dev/docs/visualization/message-schemas)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from foxglove_schemas_protobuf.ArrowPrimitive_pb2 import ArrowPrimitive
from foxglove_schemas_protobuf.CameraCalibration_pb2 import CameraCalibration
from foxglove_schemas_protobuf.Color_pb2 import Color
from foxglove_schemas_protobuf.CompressedImage_pb2 import CompressedImage
from foxglove_schemas_protobuf.CompressedVideo_pb2 import CompressedVideo
from foxglove_schemas_protobuf.CubePrimitive_pb2 import CubePrimitive
from foxglove_schemas_protobuf.FrameTransform_pb2 import FrameTransform
from foxglove_schemas_protobuf.FrameTransforms_pb2 import FrameTransforms
from foxglove_schemas_protobuf.ImageAnnotations_pb2 import ImageAnnotations
from foxglove_schemas_protobuf.KeyValuePair_pb2 import KeyValuePair
from foxglove_schemas_protobuf.Log_pb2 import Log
from foxglove_schemas_protobuf.Point2_pb2 import Point2
from foxglove_schemas_protobuf.PointsAnnotation_pb2 import PointsAnnotation
from foxglove_schemas_protobuf.Pose_pb2 import Pose
from foxglove_schemas_protobuf.Quaternion_pb2 import Quaternion
from foxglove_schemas_protobuf.SceneEntity_pb2 import SceneEntity
from foxglove_schemas_protobuf.SceneEntityDeletion_pb2 import SceneEntityDeletion
from foxglove_schemas_protobuf.SceneUpdate_pb2 import SceneUpdate
from foxglove_schemas_protobuf.TextAnnotation_pb2 import TextAnnotation
from foxglove_schemas_protobuf.TextPrimitive_pb2 import TextPrimitive
from foxglove_schemas_protobuf.Vector3_pb2 import Vector3
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from perception import geometry
from perception.messages import CLASSES, Camera, Detections, EncodedImage, Float, Track, TrackSet, Transform
from perception.output.palette import CLASS_COLOURS

BASE: Final = "base_link"
MAP: Final = "map"

_LIFETIME: Final = Duration(seconds=2)  # a track whose stream stopped does not stay on the screen for ever
_MIN_SPEED_MPS: Final = 0.5  # slower than this an arrow would only show noise
_VIDEO_FORMATS: Final = ("h264", "h265", "vp9", "av1")


def scene_update(tracks: TrackSet, gone: Iterable[int]) -> SceneUpdate:
    """Tracks as cubes with a label and a velocity arrow; `gone` are ids shown before and no longer there."""
    stamp = timestamp(tracks.stamp_ns)
    matching = SceneEntityDeletion.Type.MATCHING_ID
    return SceneUpdate(
        deletions=[SceneEntityDeletion(timestamp=stamp, type=matching, id=str(track_id)) for track_id in gone],
        entities=[_entity(track, stamp) for track in tracks.tracks],
    )


def image_annotations(found: Detections) -> ImageAnnotations:
    """Detections as boxes and labels on the image captured at the same stamp."""
    stamp = timestamp(found.capture_ns)
    message = ImageAnnotations(timestamp=stamp)
    for (x1, y1, x2, y2), score, label in zip(found.boxes.tolist(), found.scores.tolist(), found.labels, strict=True):
        colour = _colour(int(label), 1.0)
        corners = [Point2(x=x1, y=y1), Point2(x=x2, y=y1), Point2(x=x2, y=y2), Point2(x=x1, y=y2)]
        loop = PointsAnnotation.Type.LINE_LOOP
        message.points.append(
            PointsAnnotation(timestamp=stamp, type=loop, points=corners, outline_color=colour, thickness=2)
        )
        message.texts.append(
            TextAnnotation(
                timestamp=stamp,
                position=corners[0],
                text=f"{CLASSES[label]} {score:.2f}",
                font_size=14,
                text_color=colour,
                background_color=Color(a=0.5),
            )
        )
    return message


def calibration(camera: Camera, stamp_ns: int) -> CameraCalibration:
    """A camera's intrinsics and distortion."""
    k = camera.intrinsics
    return CameraCalibration(
        timestamp=timestamp(stamp_ns),
        frame_id=camera.name,
        width=camera.width,
        height=camera.height,
        distortion_model="" if camera.distortion_model == "none" else camera.distortion_model,
        D=camera.distortion.tolist(),
        K=k.ravel().tolist(),
        R=np.eye(3).ravel().tolist(),
        P=np.hstack([k, np.zeros((3, 1))]).ravel().tolist(),
    )


def image(camera: str, encoded: EncodedImage, stamp_ns: int) -> CompressedImage | CompressedVideo:
    """An image as it came."""
    kind = CompressedVideo if encoded.format in _VIDEO_FORMATS else CompressedImage
    return kind(timestamp=timestamp(stamp_ns), frame_id=camera, data=encoded.data, format=encoded.format)


def transforms(poses: Sequence[tuple[int, str, str, Transform]]) -> FrameTransforms:
    """Transforms given as (stamp, a, b, a_from_b); b is the child frame."""
    return FrameTransforms(
        transforms=[
            FrameTransform(
                timestamp=timestamp(stamp_ns),
                parent_frame_id=parent,
                child_frame_id=child,
                translation=_vector(pose.translation),
                rotation=_quaternion(pose.rotation),
            )
            for stamp_ns, parent, child, pose in poses
        ]
    )


def log(stamp_ns: int, level: str, message: str) -> Log:
    """A line for Foxglove's Log panel; `level` is INFO, WARNING or ERROR."""
    return Log(timestamp=timestamp(stamp_ns), level=Log.Level.Value(level), message=message, name="perception")


def timestamp(stamp_ns: int) -> Timestamp:
    """Nanoseconds as protobuf has them."""
    seconds, nanos = divmod(stamp_ns, 1_000_000_000)
    return Timestamp(seconds=seconds, nanos=nanos)


def _entity(track: Track, stamp: Timestamp) -> SceneEntity:
    # A prediction is paler than what a camera saw in this tick.
    colour = _colour(track.label, 0.6 if track.seen_by else 0.2)
    speed = math.hypot(track.velocity[0], track.velocity[1])
    above = track.position + np.array([0.0, 0.0, track.size[2] / 2 + 0.6])
    return SceneEntity(
        timestamp=stamp,
        frame_id=BASE,
        id=str(track.id),
        lifetime=_LIFETIME,
        metadata=[KeyValuePair(key=key, value=value) for key, value in _metadata(track).items()],
        cubes=[CubePrimitive(pose=_pose(track.position, track.yaw), size=_vector(track.size), color=colour)],
        texts=[
            TextPrimitive(
                pose=_pose(above, 0.0),
                billboard=True,
                scale_invariant=True,
                font_size=14,
                color=_colour(track.label, 1.0),
                text=f"{track.class_name} {track.id}  {speed:.1f} m/s",
            )
        ],
        arrows=[_arrow(track, speed)] if speed >= _MIN_SPEED_MPS else [],
    )


def _metadata(track: Track) -> dict[str, str]:
    return {
        "category": track.class_name,
        "score": f"{track.score:.3f}",
        "age_s": f"{track.age_s:.2f}",
        "since_seen_s": f"{track.since_seen_s:.2f}",
        "seen_by": ", ".join(track.seen_by),
    }


def _arrow(track: Track, speed: float) -> ArrowPrimitive:
    """As long as the way of one second."""
    return ArrowPrimitive(
        pose=_pose(track.position, math.atan2(track.velocity[1], track.velocity[0])),
        shaft_length=speed,
        shaft_diameter=0.12,
        head_length=0.4,
        head_diameter=0.35,
        color=_colour(track.label, 1.0),
    )


def _colour(label: int, alpha: float) -> Color:
    red, green, blue = CLASS_COLOURS[label]
    return Color(r=red / 255, g=green / 255, b=blue / 255, a=alpha)


def _pose(position: Float, yaw: float) -> Pose:
    """Of something that stands upright."""
    orientation = Quaternion(z=math.sin(yaw / 2), w=math.cos(yaw / 2))
    return Pose(position=_vector(position), orientation=orientation)


def _vector(xyz: Float) -> Any:
    x, y, z = xyz.tolist()
    return Vector3(x=x, y=y, z=z)


def _quaternion(rotation: Float) -> Quaternion:
    x, y, z, w = geometry.quaternion_from_rotation(rotation).tolist()
    return Quaternion(x=x, y=y, z=z, w=w)
