"""A real detector on real frames: preprocess, detect and NMS together find the cars that anyone sees there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from foxglove_schemas_protobuf.CompressedImage_pb2 import CompressedImage
from mcap.reader import make_reader

from perception.config import DetectorConfig, NmsConfig
from perception.detect import onnxruntime, openvino
from perception.detect.model import Detector
from perception.detect.recognise import recognise
from perception.messages import CLASSES, Candidates, Image
from perception.nms.numpy import NumpyNms
from perception.preprocess.opencv import OpenCvPreprocessor

SHARED = Path(__file__).resolve().parents[3] / "shared"
MODEL = SHARED / "models" / "yolox_nano.onnx"
DGP = SHARED / "drives" / "dgp_scene_01.mcap"
KITTI = SHARED / "drives" / "kitti_odometry_1.mcap"

pytestmark = pytest.mark.skipif(not MODEL.exists(), reason=f"real models and drives are not here: {SHARED}")

RUNTIMES = {"openvino": openvino, "onnxruntime": onnxruntime}

SEEN: list[tuple[Path, str, int, str, tuple[int, int, int, int]]] = [
    (DGP, "CAMERA_01", 0, "car", (770, 545, 1330, 1045)),  # the one ahead
    (DGP, "CAMERA_05", 0, "car", (130, 605, 630, 765)),  # parked at the left
    (DGP, "CAMERA_06", 0, "truck", (70, 545, 750, 935)),  # the pick-up at the right
    (KITTI, "CAM_FRONT", 25, "car", (805, 185, 1135, 355)),  # parked at the right
]
"""Drive, camera, number of the frame, class, and the box in pixels as seen by eye."""


def load(runtime: str, cameras: int = 1, threads: int = 1) -> Detector:
    detector: Detector = RUNTIMES[runtime].load(MODEL, threads=threads, cameras=cameras)
    return detector


def frame(drive: Path, camera: str, number: int) -> Image:
    with drive.open("rb") as file:
        messages = make_reader(file).iter_messages(topics=[f"/{camera}/image_rect_compressed"])
        data = [message.data for _, _, message in messages][number]
    encoded = np.frombuffer(CompressedImage.FromString(data).data, np.uint8)
    image = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    assert image is not None
    return image.astype(np.uint8, copy=False)


def detect(detector: Detector, image: Image) -> Candidates:
    head, spec, _ = recognise(detector.model, DetectorConfig())
    preprocess = OpenCvPreprocessor((image.shape[1], image.shape[0]), spec)
    request = detector.request()
    preprocess(image, request.input)
    request.submit()
    kept = NumpyNms(NmsConfig())(head(request.collect()))
    return Candidates(preprocess.letterbox.to_image(kept.boxes), kept.scores, kept.labels)


def iou(box: tuple[int, int, int, int], boxes: Any) -> Any:
    width = np.minimum(boxes[:, 2], box[2]) - np.maximum(boxes[:, 0], box[0])
    height = np.minimum(boxes[:, 3], box[3]) - np.maximum(boxes[:, 1], box[1])
    shared = np.maximum(width, 0) * np.maximum(height, 0)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return shared / (area + (box[2] - box[0]) * (box[3] - box[1]) - shared)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_finds_what_is_there(runtime: str) -> None:
    detector = load(runtime)

    for drive, camera, number, name, box in SEEN:
        found = detect(detector, frame(drive, camera, number))
        of_class = found.boxes[found.labels == CLASSES.index(name)]
        assert iou(box, of_class).max(initial=0) > 0.75, f"{camera}: no {name} at {box} among {of_class}"
        assert len(found.scores) < 12


def test_runtimes_find_the_same() -> None:
    image = frame(*SEEN[0][:3])

    one, other = (detect(load(runtime), image) for runtime in RUNTIMES)

    np.testing.assert_allclose(one.boxes, other.boxes, atol=0.05)
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)
    np.testing.assert_array_equal(one.labels, other.labels)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_same_bytes_with_one_and_two_threads(runtime: str) -> None:
    image = frame(*SEEN[0][:3])

    results = [detect(load(runtime, cameras, threads), image) for cameras, threads in ((1, 1), (1, 2), (3, 2))]

    for field in ("boxes", "scores", "labels"):
        assert len({getattr(result, field).tobytes() for result in results}) == 1
