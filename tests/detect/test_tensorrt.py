"""The runtime's own part: which plan it takes, what is bound when, what it does in which order.

TensorRT itself is a double here, whose plans are ONNX files; the stock model, its golden data and what is made of its
outputs are real.
"""

from __future__ import annotations

import gc
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from perception.config import DetectorConfig, EngineConfig
from perception.cuda import Driver, Gpu
from perception.detect import tensorrt
from perception.detect.manifest import FileHash, manifest_path, read_manifest, write_manifest
from perception.detect.plan_manifest import Hardware, Parity, PlanManifest, TensorInfo, plan_path
from perception.detect.recognise import recognise
from perception.detect.tensorrt import TensorRtEngine
from perception.errors import BackendError, GpuError, ModelError
from perception.hashing import sha256
from tests.cuda.double import Double
from tests.cuda.pycuda_double import PycudaDouble
from tests.detect.tensorrt_double import tensorrt_double

STOCK = Path(__file__).parents[2] / "engines" / "stock" / "detector.int8.onnx"
HERE = Hardware(name="a double", compute_capability="8.7")


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Double:
    """A machine with TensorRT 10.3."""
    machine = Double()
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt_double(machine))
    return machine


@pytest.fixture
def gpu(double: Double) -> Iterator[Gpu]:
    """Its GPU, with which nothing may be done that a real one would mind."""
    with Gpu(driver=Driver(PycudaDouble(double), None)) as opened:
        yield opened
    gc.collect()
    assert double.broken == []
    assert double.live == []


@pytest.fixture
def config(tmp_path: Path) -> EngineConfig:
    return EngineConfig(directory=tmp_path / "plans")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The stock model, to be changed or not."""
    for path in (STOCK, manifest_path(STOCK)):
        shutil.copy(path, tmp_path / path.name)
    return tmp_path / STOCK.name


def install(config: EngineConfig, model: Path, engine: Path | None = None, **changes: Any) -> Path:
    """Put a plan of `model` where a run looks for it: what it computes is `engine`, another ONNX file, if given."""
    plan = plan_path(config, model, sha256(model))
    plan.parent.mkdir(exist_ok=True)
    shutil.copy(engine or model, plan)
    loaded = onnx.load(model)
    described: dict[str, Any] = {
        "plan": FileHash(name=plan.name, sha256=sha256(plan)),
        "bytes": plan.stat().st_size,
        "onnx": FileHash(name=model.name, sha256=sha256(model)),
        "metadata": {entry.key: entry.value for entry in loaded.metadata_props},
        "flavor": "tensorrt",
        "tensorrt": "10.3.0",
        "cuda": "12.6",
        "gpu": HERE,
        "settings": config.settings(),
        "inputs": _infos(loaded.graph.input),
        "outputs": _infos(loaded.graph.output),
        "layers": (),
        "quantised": (),
        "quantisers": (),
        "build_s": 1.0,
        "golden": Parity(deviation=0.0, note="verified on Orin"),
    }
    write_manifest(PlanManifest(**{**described, **changes}), plan)
    return plan


def _infos(ports: Any) -> tuple[TensorInfo, ...]:
    shapes = {port.name: [axis.dim_value or 1 for axis in port.type.tensor_type.shape.dim] for port in ports}
    return tuple(TensorInfo(name=name, type="float32", shape=tuple(shape)) for name, shape in shapes.items())


def _refusal(model: Path, config: EngineConfig, gpu: Gpu) -> str:
    with pytest.raises(ModelError) as refused:
        tensorrt.load(model, config, gpu)
    message = str(refused.value)
    assert "\n" not in message
    assert f"run python -m engines.build {model}" in message
    return message


def test_the_stock_plan_says_what_the_stock_model_says(gpu: Gpu, config: EngineConfig, model: Path) -> None:
    install(config, model)
    engine = tensorrt.load(model, config, gpu)

    head, spec, notes = recognise(engine.model, DetectorConfig(score_threshold=0.5))  # from metadata, black outputs
    assert (spec.width, spec.height) == engine.model.input_size == (480, 288)
    assert list(engine.model.outputs) == ["scores", "regression"]
    assert engine.model.outputs["scores"].shape == (36, 60, 24)
    assert len(head(list(engine.model.outputs.values())).scores) == 0  # nothing is there in the dark
    assert "stock head" in notes[0]
    assert "TensorRT 10.3.0" in engine.notes[0]
    assert "built for a double (8.7)" in engine.notes[0]
    assert engine.capturable
    engine.close()


def test_tensors_are_bound_once_and_an_inference_is_one_call(
    double: Double, gpu: Gpu, config: EngineConfig, model: Path
) -> None:
    engine = _load(gpu, config, model)
    with gpu.current(), gpu.stream() as stream:
        double.calls.clear()
        context = engine.context(stream)
        bound = [call.about for call in double.calls if call.name == "set_tensor_address"]
        double.calls.clear()
        for _ in range(5):
            context.enqueue()
        # no copy, no synchronisation, no binding:
        assert [(call.name, call.about) for call in double.calls] == [("execute_async_v3", str(stream.handle))] * 5

        tensors = (context.input, *context.outputs)
        assert bound == [f"{tensor.name} {tensor.pointer}" for tensor in tensors]
        assert [tensor.name for tensor in tensors] == ["images", "scores", "regression"]
        assert context.input.shape == (1, 3, 288, 480)
        assert context.input.dtype == np.float32
        stream.synchronize()
        context.close()


def test_cameras_share_the_engine_and_nothing_else(double: Double, gpu: Gpu, config: EngineConfig, model: Path) -> None:
    engine = _load(gpu, config, model)
    images = [np.full((1, 3, 288, 480), grey, np.float32) for grey in (0, 200)]
    double.calls.clear()
    with gpu.current(), ExitStack() as resources:
        streams = [resources.enter_context(gpu.stream()) for _ in images]
        contexts = [engine.context(stream) for stream in streams]
        for stream, context, image in zip(streams, contexts, images, strict=True):
            resources.callback(context.close)
            stream.upload(image, context.input.pointer)
            context.enqueue()
        pointers = [tensor.pointer for context in contexts for tensor in (context.input, *context.outputs)]
        assert len(set(pointers)) == 6
        scores = [np.empty(context.outputs[0].shape, np.float32) for context in contexts]
        for stream, context, array in reversed(list(zip(streams, contexts, scores, strict=True))):
            stream.download(context.outputs[0].pointer, array)
            stream.synchronize()
        np.testing.assert_array_equal(scores[0][0], engine.model.outputs["scores"])
        assert not np.array_equal(scores[0], scores[1])
    assert double.names("deserialize_cuda_engine") == []  # once, when it was loaded


def test_a_context_frees_its_memory_once(double: Double, gpu: Gpu, config: EngineConfig, model: Path) -> None:
    engine = _load(gpu, config, model)
    with gpu.current(), gpu.stream() as stream:
        double.calls.clear()
        context = engine.context(stream)
        context.close()
        context.close()
    assert len(double.names("cuMemAlloc")) == len(double.names("cuMemFree")) == 3


def test_a_tensor_that_the_engine_does_not_know(gpu: Gpu, config: EngineConfig, model: Path) -> None:
    outputs = (TensorInfo(name="scores", type="float32", shape=(1, 32, 56, 24)), _info("boxes", 4))
    install(config, model, outputs=outputs)
    with pytest.raises(GpuError, match="has no tensor boxes"):
        tensorrt.load(model, config, gpu)


def test_a_failed_inference_is_an_error(
    gpu: Gpu, config: EngineConfig, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(config, model)
    monkeypatch.setattr("tests.detect.tensorrt_double._Execution._refuses", lambda *_: True)
    with pytest.raises(
        GpuError, match=r"could not enqueue an inference \(IExecutionContext::enqueueV3: it cannot be\)$"
    ):
        tensorrt.load(model, config, gpu)


def test_a_context_that_cannot_be_made_is_an_error_in_tensorrts_words(
    gpu: Gpu, config: EngineConfig, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(config, model)
    module = sys.modules["tensorrt"]
    deserialise = module.Runtime.deserialize_cuda_engine

    def without_contexts(runtime: Any, plan: bytes) -> Any:
        engine = deserialise(runtime, plan)
        for severity, message in (("ERROR", "an earlier one"), ("ERROR", "out of memory\n"), ("WARNING", "slow")):
            runtime._logger.log(SimpleNamespace(name=severity), message)
        engine.create_execution_context = lambda: None
        return engine

    monkeypatch.setattr(module.Runtime, "deserialize_cuda_engine", without_contexts)
    with pytest.raises(GpuError, match=r"could not create an execution context \(out of memory\)"):
        tensorrt.load(model, config, gpu)


def test_what_runs_on_a_dla_is_not_captured(gpu: Gpu, config: EngineConfig, model: Path) -> None:
    on_dla = config.model_copy(update={"dla_core": 0})
    install(on_dla, model)
    engine = tensorrt.load(model, on_dla, gpu)
    assert not engine.capturable
    engine.close()


def test_an_engine_that_says_something_else_is_refused(gpu: Gpu, config: EngineConfig, model: Path) -> None:
    spoiled = model.with_name("spoiled.onnx")
    other = onnx.load(model)
    weights = max(other.graph.initializer, key=lambda tensor: np.prod(tensor.dims))
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights)[::-1].copy(), weights.name))
    onnx.save(other, spoiled)
    install(config, model, engine=spoiled)
    assert "standard deviations for the golden input, 0.15 are allowed" in _refusal(model, config, gpu)


def test_the_float_model_would_pass_as_its_int8(gpu: Gpu, config: EngineConfig, model: Path) -> None:
    """What the tolerance is: another rounding of the same model is no fault."""
    described = read_manifest(model)
    assert described is not None
    install(config, model, engine=STOCK.with_name("detector.onnx"))
    engine = tensorrt.load(model, config, gpu)
    deviation = tensorrt.check_golden(engine, described.golden, "")
    assert 0.001 < deviation < 0.15


def test_a_model_without_a_manifest_has_nothing_to_check(
    double: Double, gpu: Gpu, config: EngineConfig, model: Path
) -> None:
    manifest_path(model).unlink()
    install(config, model)
    tensorrt.load(model, config, gpu)
    assert len(double.names("execute_async_v3")) == 1  # the black image, no golden one


def test_no_plan_yet(gpu: Gpu, config: EngineConfig, model: Path) -> None:
    assert "there is no plan of" in _refusal(model, config, gpu)


def test_a_plan_without_its_manifest_was_never_finished(gpu: Gpu, config: EngineConfig, model: Path) -> None:
    manifest_path(install(config, model)).unlink()
    assert "there is no plan of" in _refusal(model, config, gpu)


def test_a_plan_that_was_cut_short(gpu: Gpu, config: EngineConfig, model: Path) -> None:
    plan = install(config, model)
    plan.write_bytes(plan.read_bytes()[:-1])
    assert "it is not the file that its manifest describes" in _refusal(model, config, gpu)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"onnx": FileHash(name="detector.int8.onnx", sha256="0" * 64)},
            "built from another detector.int8.onnx: 00000",
        ),
        ({"tensorrt": "10.7.0"}, "it was built by TensorRT 10.7.0, and here is 10.3.0"),
        ({"flavor": "rtx", "tensorrt": "1.7.1"}, "it was built by TensorRT for RTX, and here is TensorRT"),
        ({"gpu": Hardware(name="Thor", compute_capability="8.7")}, "for Thor (8.7), and here is a double (8.7)"),
        (
            {"gpu": Hardware(name="a double", compute_capability="8.6")},
            "for a double (8.6), and here is a double (8.7)",
        ),
    ],
)
def test_a_plan_of_elsewhere(gpu: Gpu, config: EngineConfig, model: Path, changes: dict[str, Any], reason: str) -> None:
    install(config, model, **changes)
    assert reason in _refusal(model, config, gpu)


def test_other_settings_are_another_plan(gpu: Gpu, config: EngineConfig, model: Path) -> None:
    install(config, model)
    changed = config.model_copy(update={"optimization_level": 5})
    assert "built with engine.optimization_level: 3, and this is 5" in _refusal(model, changed, gpu)


def test_what_does_not_fit_is_not_even_given_to_tensorrt(
    double: Double, gpu: Gpu, config: EngineConfig, model: Path
) -> None:
    install(config, model, tensorrt="10.7.0")
    _refusal(model, config, gpu)
    assert double.names("deserialize_cuda_engine") == []


def test_where_plans_and_caches_lie_is_no_setting(gpu: Gpu, config: EngineConfig, model: Path) -> None:
    install(config, model)
    tensorrt.load(model, config.model_copy(update={"timing_cache": None, "flavor": "tensorrt"}), gpu)


def test_what_tensorrt_refuses_is_told_in_its_words(gpu: Gpu, config: EngineConfig, model: Path) -> None:
    broken = model.with_name("broken")
    broken.write_bytes(b"no engine")
    install(config, model, engine=broken)
    with pytest.raises(ModelError, match=r"does not take it .magicTag: not a plan of this version"):
        tensorrt.load(model, config, gpu)


def test_without_tensorrt_the_way_to_it_is_told(
    gpu: Gpu, config: EngineConfig, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendError, match=r"TensorRT is not installed.*TensorRT for RTX is not installed"):
        tensorrt.load(model, config, gpu)


def test_a_tensorrt_that_is_too_old(
    double: Double, gpu: Gpu, config: EngineConfig, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt_double(double, version="8.6.1"))
    with pytest.raises(BackendError, match=r"TensorRT 8\.6\.1 is too old; expected 10\.3 or later"):
        tensorrt.load(model, config, gpu)


def _load(gpu: Gpu, config: EngineConfig, model: Path) -> TensorRtEngine:
    install(config, model)
    engine = tensorrt.load(model, config, gpu)
    gc.collect()
    return engine


def _info(name: str, *shape: int) -> TensorInfo:
    return TensorInfo(name=name, type="float32", shape=shape)
