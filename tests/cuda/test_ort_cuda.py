"""ONNX Runtime on device pointers: with its CPU provider, for which the double's memory is as good as any."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from perception.config import DetectorConfig
from perception.cuda import Gpu
from perception.detect import ort_cuda
from perception.detect.gpu_engine import outputs_of
from perception.detect.ort_cuda import CPU
from perception.detect.recognise import recognise
from perception.errors import BackendError, ModelError
from tests.cuda.conftest import open_gpu
from tests.cuda.double import Double
from tests.detect.onnx_models import write_with_nms_inside

STOCK = Path(__file__).parents[2] / "engines" / "stock" / "detector.int8.onnx"


@pytest.fixture
def double_gpu(double: Double) -> Iterator[Gpu]:
    with open_gpu(double) as gpu:
        yield gpu
    assert double.broken == double.live == []


def test_what_it_finds_is_what_a_plain_session_finds(double_gpu: Gpu, double: Double) -> None:
    engine = ort_cuda.load(STOCK, double_gpu, provider=CPU)
    width, height = engine.model.input_size
    image = np.random.default_rng(0).uniform(0, 255, (1, 3, height, width)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(STOCK), providers=["CPUExecutionProvider"])
    expected = session.run(None, {session.get_inputs()[0].name: image})

    assert type(recognise(engine.model, DetectorConfig()).head).__name__ == "StockHead"
    with double_gpu.current(), double_gpu.stream() as stream, double_gpu.stream() as other:
        contexts = [engine.context(stream), engine.context(other)]
        assert len({tensor.pointer for context in contexts for tensor in (context.input, *context.outputs)}) == 6
        for context in contexts:
            double.at(context.input.pointer, context.input.nbytes)[:] = image.reshape(-1).view(np.uint8)
            context.enqueue()
            for tensor, values in zip(context.outputs, expected, strict=True):
                got = double.at(tensor.pointer, tensor.nbytes).view(tensor.dtype).reshape(tensor.shape)
                np.testing.assert_array_equal(got, values)
        for context in contexts:
            context.close()
    engine.close()


def test_a_number_of_boxes_that_follows_from_the_image_is_refused(double_gpu: Gpu, tmp_path: Path) -> None:
    rows = np.array([[0, 0, 9, 9, 0.2, 0], [0, 0, 5, 5, 0.9, 1]], np.float32)
    with pytest.raises(ModelError, match=r"the shape of output \w+ depends on what is in the image"):
        ort_cuda.load(write_with_nms_inside(tmp_path / "nms.onnx", rows), double_gpu, provider=CPU)


def test_without_its_cuda_provider_it_says_what_to_install(double_gpu: Gpu) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("ONNX Runtime is here with CUDA")
    with pytest.raises(BackendError, match="has no CUDAExecutionProvider; pip install onnxruntime-gpu instead"):
        ort_cuda.load(STOCK, double_gpu)


def test_every_session_is_to_compute_the_same_bits(double_gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, str]] = []

    def session(*_: Any, providers: Any) -> Any:
        asked.append(providers[0][1])
        raise RuntimeError("no CUDA here")

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    with pytest.raises(ModelError, match="no CUDA here"):
        ort_cuda.load(STOCK, double_gpu)
    # what is timed may come out otherwise for the next camera, TF32 is not what the CPU computes:
    assert (asked[0]["cudnn_conv_algo_search"], asked[0]["use_tf32"]) == ("HEURISTIC", "0")


@pytest.mark.gpu
def test_the_cuda_provider_finds_what_the_cpu_finds(real_gpu: Gpu) -> None:
    """Integers are the same everywhere, floats that become integers nearly: one step of INT8 apart here and there."""
    try:
        engine = ort_cuda.load(STOCK, real_gpu)
    except BackendError as error:
        pytest.skip(str(error))
    width, height = engine.model.input_size
    image = np.random.default_rng(0).uniform(0, 255, (1, 3, height, width)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(STOCK), providers=["CPUExecutionProvider"])
    expected = session.run(None, {session.get_inputs()[0].name: image})

    got = outputs_of(real_gpu, engine, image)

    for values, from_cpu in zip(got.values(), expected, strict=True):
        apart = np.abs(values - from_cpu[0]) / from_cpu.std()
        assert np.quantile(apart, 0.99) < 0.1
