"""The channel with no runtime in it: every format, graph against enqueued path, and memory over many ticks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import pytest

from perception.config import NmsConfig
from perception.messages import Candidates, Detections, Float32, Image
from perception.nms.numpy import NumpyNms
from perception.preprocess.opencv import OpenCvPreprocessor
from tests.gpu import canned
from tests.gpu.canned import CAMERA, SPEC, CannedChannel, frame, noise
from tests.gpu.conftest import Device

W, H = CAMERA.width, CAMERA.height
TO_BGR: Final[dict[tuple[int, ...], int | None]] = {
    (H, W, 3): None,
    (H // 2, W // 2, 3): None,
    (H * 3 // 2, W): cv2.COLOR_YUV2BGR_NV12,
    (H, W, 2): cv2.COLOR_YUV2BGR_YUY2,
}
SHAPES = pytest.mark.parametrize("shape", TO_BGR, ids=["bgr", "bgr at half the size", "nv12", "yuyv"])
TICKS: Final = {"on the GPU": 10_000, "played": 30}
SETTLED: Final = 500


@pytest.fixture
def made(device: Device) -> Iterator[CannedChannel]:
    with ExitStack() as resources:
        yield CannedChannel(device.gpu, device.kernels, resources)


def found(made: CannedChannel, image: Image) -> Detections:
    made.channel.submit(frame(image))
    result = made.channel.collect()
    assert result is not None, made.faults.lines()
    return result[0]


def assert_same(got: Detections, expected: Candidates | Detections, *, exact: bool = False) -> None:
    np.testing.assert_array_equal(got.labels, expected.labels)
    assert got.attributes is not None
    assert expected.attributes is not None
    pairs = [(got.boxes, expected.boxes), (got.scores, expected.scores)]
    pairs += [(got.attributes.centres, expected.attributes.centres), (got.attributes.sizes, expected.attributes.sizes)]
    for ours, theirs in pairs:
        if exact:
            np.testing.assert_array_equal(ours, theirs)
        else:
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-3)


def on_cpu(image: Image) -> tuple[Float32, Candidates]:
    conversion = TO_BGR[image.shape]
    bgr = image if conversion is None else np.asarray(cv2.cvtColor(image, conversion), np.uint8)
    preprocess, out = OpenCvPreprocessor((W, H), SPEC), np.empty((3, SPEC.height, SPEC.width), np.float32)
    preprocess(bgr, out)
    kept = NumpyNms(NmsConfig())(canned.head()(canned.outputs()))
    return out, preprocess.letterbox.candidates_to_image(kept)


@SHAPES
def test_every_stage_gives_what_the_cpu_gives(made: CannedChannel, shape: tuple[int, ...]) -> None:
    for seed in range(2):
        image = noise(shape, seed)
        prepared, expected = on_cpu(image)

        got = found(made, image)

        assert np.abs(made.prepared() - prepared).max() * 255 < 1.01  # a grey level
        assert len(expected.scores) > 20
        assert_same(got, expected)


@SHAPES
def test_a_graph_gives_what_enqueueing_gives_to_the_bit(
    made: CannedChannel, device: Device, shape: tuple[int, ...]
) -> None:
    if not device.gpu.has_graphs:
        pytest.skip("cuda-python is not installed: no graphs")
    images = [noise(shape, seed) for seed in range(3)]
    enqueued = [(found(made, image), made.prepared()) for image in images]

    made.channel.capture(frame(images[0]))

    for image, (expected, prepared) in zip(images, enqueued, strict=True):
        assert_same(found(made, image), expected, exact=True)
        np.testing.assert_array_equal(made.prepared(), prepared)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("graph", [False, True], ids=["enqueued", "graph"])
def test_memory_stays_what_it_is(device: Device, made: CannedChannel, *, graph: bool) -> None:
    """Ten thousand ticks of it, on a GPU: neither its memory nor the host's grows."""
    if graph and not device.gpu.has_graphs:
        pytest.skip("cuda-python is not installed: no graphs")
    image = noise((H * 3 // 2, W), 0)
    found(made, image)
    if graph:
        made.channel.capture(frame(image))
    ticks = TICKS["played" if device.played else "on the GPU"]
    for tick in range(ticks):
        found(made, image)
        if tick == min(SETTLED, ticks // 2):
            settled = free_bytes(device), resident_bytes(), device.played and len(device.played.live)
    now = free_bytes(device), resident_bytes(), device.played and len(device.played.live)

    assert now[0] == settled[0]
    assert now[1] < settled[1] * 1.01 + (1 << 20)
    assert now[2] == settled[2]


def free_bytes(device: Device) -> int:
    with device.gpu.current():
        return device.gpu.free_bytes()


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
