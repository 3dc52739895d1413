"""Detect and NMS one after the other on what the kernels leave behind, as in a channel: nothing goes by the host."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import cv2
import numpy as np
import pytest

from perception.config import DetectorConfig, NmsConfig
from perception.cuda import kernels
from perception.detect import onnxruntime
from perception.detect.heads import YoloXHead
from perception.detect.recognise import recognise
from perception.detect.stock import SIZE_MEANS, StockHead
from perception.messages import CLASSES, Image
from perception.nms.numpy import NumpyNms
from perception.preprocess.opencv import OpenCvPreprocessor
from tests.detect.test_yolox_nano import MODEL, SEEN, SHARED, frame
from tests.kernels import stages
from tests.kernels.grid import Grid

NMS: Final = NmsConfig(max_candidates=200, max_detections=20)


def test_attributes_stay_with_their_boxes(grid: Grid) -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(-1, 1.5, (3, 4, 6, 4 * 6)).astype(np.float32)
    regression = rng.normal(0, 1, (3, 4, 6, 4 * 13)).astype(np.float32)
    scores[1] = -9  # nothing in the second image
    label_of, least_logit = np.arange(6, dtype=np.int32), np.float32(np.log(0.3 / 0.7))

    args = (scores, regression, np.int32(96), np.int32(6), label_of, least_logit, SIZE_MEANS)
    tables = [kernels.ATTRIBUTES]
    found, count = stages.decode(grid, "decode_stock", args, images=3, rows=96, limit=96, tables=tables)
    kept, kept_count = stages.suppress(grid, found[0], count, NMS)
    boxes, attributes = (stages.take(grid, table, kept, kept_count) for table in found)

    head, nms = StockHead((48, 32), label_of, 0.3), NumpyNms(NMS)
    for image in range(3):
        expected = nms(head([scores[image], regression[image]]))
        assert expected.attributes is not None
        got = slice(0, kept_count[image])
        np.testing.assert_array_equal(boxes[image, got]["label"], expected.labels)
        np.testing.assert_allclose(boxes[image, got]["box"], expected.boxes, rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(attributes[image, got]["alpha"], expected.attributes.alphas, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(attributes[image, got]["size"], expected.attributes.sizes, rtol=1e-5)
    assert kept_count[1] == 0 < kept_count[0]


def nv12(image: Image) -> tuple[Image, Image]:
    """A picture's luma and chroma planes; the sides are even."""
    height, width = image.shape[:2]
    planar = cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420).astype(np.uint8, copy=False)
    chroma = planar[height:].reshape(2, -1).T
    return planar[:height], np.ascontiguousarray(chroma.reshape(height // 2, width))


@pytest.mark.skipif(not MODEL.exists(), reason=f"real models and drives are not here: {SHARED}")
@pytest.mark.parametrize("seen", SEEN[:3], ids=lambda seen: seen[1])
def test_real_detector_finds_the_same(grid: Grid, seen: tuple[Path, str, int, str, object]) -> None:
    """Real NV12 frames through YOLOX-nano: only its inference is not a kernel of ours."""
    luma, chroma = nv12(frame(*seen[:3]))
    height, width = luma.shape
    image = cv2.cvtColor(np.concatenate([luma, chroma]), cv2.COLOR_YUV2BGR_NV12).astype(np.uint8, copy=False)
    detector = onnxruntime.load(MODEL, threads=1, cameras=1)
    head, spec, _ = recognise(detector.model, DetectorConfig())
    assert isinstance(head, YoloXHead)
    request, nms = detector.request(), NumpyNms(NMS)

    OpenCvPreprocessor((width, height), spec)(image, request.input)
    request.submit()
    expected = nms(head(request.collect()))

    plan = stages.letterbox_plan((width, height), luma.strides[0], spec)
    request.input[:] = stages.letterbox(grid, "letterbox_nv12_f32", (luma, chroma), plan, np.float32)
    request.submit()
    (output,) = request.collect()
    rows, classes = len(output), output.shape[1] - 5
    anchors, threshold = head.grid, np.float32(head.score_threshold)
    sizes = np.int32(rows), np.int32(classes)
    args = (np.array(output), *sizes, anchors.cells, anchors.strides, head.label_of, threshold)
    (candidates,), count = stages.decode(grid, "decode_yolox", args, images=1, rows=rows, limit=rows)
    kept, kept_count = stages.suppress(grid, candidates, count, NMS)
    got = stages.take(grid, candidates, kept, kept_count)[0, : kept_count[0]]

    assert CLASSES.index(seen[3]) in got["label"]
    np.testing.assert_array_equal(got["label"], expected.labels)
    np.testing.assert_allclose(got["score"], expected.scores, atol=0.01)
    np.testing.assert_allclose(got["box"], expected.boxes, atol=0.5)
