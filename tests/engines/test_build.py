"""From an ONNX file to a plan, by TensorRT for RTX, which needs no GPU for that."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from engines import build, qdq, trt
from engines.layers import read_table
from perception.config import EngineConfig
from perception.cuda import Driver, Gpu
from perception.cuda.nvidia import PresentGpu
from perception.detect.manifest import manifest_path, read_manifest
from perception.detect.plan_manifest import PlanManifest, plan_path, read_plan_manifest
from perception.detect.tensorrt_library import Library, load_library
from perception.errors import BackendError
from perception.hashing import sha256
from tests.cuda.double import Double
from tests.cuda.pycuda_double import PycudaDouble
from tests.detect.tensorrt_double import runtime_double
from tests.engines.onnx_models import images, write_residual

rtx = pytest.importorskip(
    "tensorrt_rtx_bindings", reason="TensorRT for RTX is not here: pip install '.[rtx]' on x86-64 Linux"
)

STOCK = Path(__file__).parents[2] / "engines" / "stock" / "detector.int8.onnx"
YOLOX = Path(__file__).resolve().parents[3] / "shared" / "models" / "yolox_nano.onnx"


@pytest.fixture
def config(tmp_path: Path) -> EngineConfig:
    """Of the config that `run` builds with."""
    (tmp_path / "config.yaml").write_text(f"detector: {{model: {STOCK}}}\nengine: {{directory: plans, flavor: rtx}}\n")
    return EngineConfig(directory=tmp_path / "plans", flavor="rtx")


@pytest.fixture
def quantised(tmp_path: Path) -> Path:
    """A small model from our own quantiser: conv - relu - (conv + shortcut) - relu - conv, the last in float."""
    model = qdq.read(write_residual(tmp_path / "residual.onnx"))
    onnx.save(qdq.quantise(model, qdq.measure_ranges(model, images(4), "minmax"), ["last"]), tmp_path / "int8.onnx")
    return tmp_path / "int8.onnx"


def run(config: EngineConfig, *arguments: str | Path) -> int:
    """``python -m engines.build``."""
    return build.main([*map(str, arguments), "--config", str(config.directory.parent / "config.yaml")])


def built(config: EngineConfig, model: Path) -> PlanManifest:
    """What a successful build of `model` wrote."""
    assert run(config, model) == 0
    manifest = read_plan_manifest(plan_path(config, model, sha256(model)))
    assert manifest is not None
    return manifest


def wanted_in_int8(model: Path) -> set[str]:
    """The layers of an ONNX file whose input and weights are dequantised: what should run in INT8."""
    graph = onnx.load(model).graph
    dequantised = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    return {n.name for n in graph.node if n.op_type in qdq.QUANTISED and dequantised.issuperset(n.input[:2])}


def test_the_stock_model_runs_in_int8_where_it_is_quantised(
    config: EngineConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = built(config, STOCK)

    wanted = wanted_in_int8(STOCK)
    assert len(wanted) > 20
    assert set(manifest.quantised) == wanted
    assert manifest.not_in_int8() == ()
    assert manifest.unfused() == ()
    described = read_manifest(STOCK)
    assert described is not None
    float_layers = {entry.node for entry in described.left_out}
    in_int8 = {node for layer in manifest.layers if layer.in_int8 and layer.weights for node in layer.nodes}
    assert not float_layers & in_int8
    assert float_layers <= {node for layer in manifest.layers for node in layer.nodes}

    told = capsys.readouterr().out
    assert f"{len(wanted)} of {len(wanted)} quantised layers in INT8" in told
    assert "golden outputs not verified (no GPU)" in told
    assert "warning" not in told


def test_the_manifest_says_what_was_built_from_what(config: EngineConfig) -> None:
    manifest = built(config, STOCK)
    plan = plan_path(config, STOCK, sha256(STOCK))
    model = onnx.load(STOCK)

    assert manifest.plan.sha256 == sha256(plan)
    assert manifest.bytes == plan.stat().st_size > 100_000
    assert manifest.onnx.sha256 == sha256(STOCK)
    assert dict(manifest.metadata) == {entry.key: entry.value for entry in model.metadata_props}
    assert (manifest.flavor, manifest.tensorrt) == ("rtx", rtx.__version__)
    assert (manifest.gpu, manifest.cuda) == (None, None)
    assert manifest.settings["optimization_level"] == 3
    assert [(port.name, port.type, port.shape) for port in manifest.inputs] == [("images", "float32", (1, 3, 288, 480))]
    assert [port.name for port in manifest.outputs] == [port.name for port in model.graph.output]
    assert all(port.shape[0] == 1 for port in manifest.outputs)  # the model's batch is open, the plan's is not
    assert manifest.build_s > 0
    assert "Layers:" in plan.with_suffix(".log").read_text()
    assert sorted(path.name for path in config.directory.iterdir()) == sorted(
        [plan.name, manifest_path(plan).name, plan.with_suffix(".log").name]
    )


@pytest.mark.skipif(not YOLOX.exists(), reason=f"real models are not here: {YOLOX.parent}")
def test_a_real_model_from_our_quantiser_runs_in_int8(config: EngineConfig, tmp_path: Path) -> None:
    model = qdq.read(YOLOX)
    rng = np.random.default_rng(0)
    inputs = [{"images": rng.integers(0, 256, (1, 3, 416, 416)).astype(np.float32)} for _ in range(2)]
    path = tmp_path / "yolox.int8.onnx"
    onnx.save(qdq.quantise(model, qdq.measure_ranges(model, inputs, "minmax"), qdq.output_layers(model)), path)

    manifest = built(config, path)
    assert set(manifest.quantised) == wanted_in_int8(path)
    assert len(manifest.quantised) > 100
    assert manifest.not_in_int8() == ()
    assert manifest.unfused() == ()


def test_a_shortcut_is_fused_with_its_convolution(config: EngineConfig, quantised: Path) -> None:
    manifest = built(config, quantised)
    assert set(manifest.quantised) == {"first", "second"}
    assert manifest.not_in_int8() == ()
    assert manifest.unfused() == ()
    assert any({"second", "shortcut"} <= set(layer.nodes) for layer in manifest.layers)


def test_the_check_sees_what_does_not_run_in_int8(
    config: EngineConfig, quantised: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """For Turing, TensorRT for RTX computes it all in float: then that is what is told."""
    configure = trt._configure

    def for_turing(*arguments: Any) -> Any:
        config = configure(*arguments)
        config.num_compute_capabilities = 1
        assert config.set_compute_capability(rtx.ComputeCapability.SM75, 0)
        return config

    monkeypatch.setattr(trt, "_configure", for_turing)
    manifest = built(config, quantised)
    assert set(manifest.not_in_int8()) == {"first", "second"}
    told = capsys.readouterr().out
    assert "0 of 2 quantised layers in INT8" in told
    assert "not in INT8, though quantised: first, second" in told


def test_a_float_model_is_built_as_it_is(config: EngineConfig, tmp_path: Path) -> None:
    manifest = built(config, write_residual(tmp_path / "float.onnx"))
    assert (manifest.quantised, manifest.quantisers) == ((), ())
    assert not any(layer.in_int8 for layer in manifest.layers)
    assert "nothing in it is quantised" in manifest.line()


def test_a_quantised_bias_is_refused_in_the_parsers_words(
    config: EngineConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._inputs = iter(images(2))

        def get_next(self) -> dict[str, Any] | None:
            return next(self._inputs, None)

    source, path = write_residual(tmp_path / "float.onnx"), tmp_path / "bias.onnx"
    options = {"quant_format": QuantFormat.QDQ, "activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8}
    quantize_static(source, path, Reader(), extra_options={"ActivationSymmetric": True}, **options)

    assert run(config, path) == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    assert f"{path}: TensorRT for RTX {rtx.__version__} does not take node b0_DequantizeLinear" in error
    assert "(DequantizeLinear)" in error
    assert "input has type Int32 but must have type" in error
    assert not list(config.directory.glob("*.plan*"))
    assert not list(config.directory.glob("*.json"))


def test_an_output_whose_shape_depends_on_the_image_is_refused(
    config: EngineConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, [1, 3, 8, 8])
    kept = helper.make_tensor_value_info("kept", onnx.TensorProto.INT64, [None, 3])
    constants = [
        numpy_helper.from_array(np.array([1, 48, 4], np.int64), "boxes_shape"),
        numpy_helper.from_array(np.zeros((1, 1, 48), np.float32), "scores"),
        numpy_helper.from_array(np.array([9], np.int64), "most"),
    ]
    nodes = [
        helper.make_node("Reshape", ["images", "boxes_shape"], ["boxes"]),
        helper.make_node("NonMaxSuppression", ["boxes", "scores", "most"], ["kept"]),
    ]
    graph = helper.make_graph(nodes, "found", [image], [kept], constants)
    path = tmp_path / "found.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    assert run(config, path) == 2
    assert "the shape of output kept depends on what is in the image" in capsys.readouterr().err


def test_if_needed_builds_once(config: EngineConfig, quantised: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (quantised, "--if-needed")
    plan = plan_path(config, quantised, sha256(quantised))

    assert run(config, *arguments) == 0
    first = plan.stat()
    capsys.readouterr()
    assert run(config, *arguments) == 0
    assert (plan.stat().st_ino, plan.stat().st_mtime_ns) == (first.st_ino, first.st_mtime_ns)
    assert "up to date" in capsys.readouterr().out

    for spoil in (
        lambda: plan.write_bytes(plan.read_bytes()[:-1]),
        lambda: manifest_path(plan).write_text("{}"),
        lambda: manifest_path(plan).unlink(),
    ):
        spoil()
        assert run(config, *arguments) == 0
        assert "up to date" not in capsys.readouterr().out
        assert read_plan_manifest(plan) is not None
        assert run(config, *arguments) == 0
        assert "up to date" in capsys.readouterr().out

    assert run(config, *arguments, "--set", "engine.workspace_mb=512") == 0
    assert "up to date" not in capsys.readouterr().out


def test_if_needed_knows_where_a_run_needs_no_plan(config: EngineConfig, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (STOCK, "--if-needed", "--flavor", "auto", "--set", "device=cpu")
    assert run(config, *arguments) == 0
    assert "no plan is needed: a run uses the CPU: as configured" in capsys.readouterr().out
    assert not config.directory.exists()


def test_another_model_of_the_same_name_has_a_plan_of_its_own(config: EngineConfig, quantised: Path) -> None:
    built(config, quantised)
    model = onnx.load(quantised)
    model.producer_name = "another"
    onnx.save(model, quantised)
    built(config, quantised)
    assert len(list(config.directory.glob("*.plan"))) == 2


def test_without_a_name_all_detectors_of_the_config_are_built(
    config: EngineConfig, quantised: Path, tmp_path: Path
) -> None:
    smaller = write_residual(tmp_path / "smaller.onnx", channels=8)
    ladder = f"[{{name: smaller, detector: {{model: {smaller}}}}}]"
    (tmp_path / "config.yaml").write_text(
        f"detector: {{model: {quantised}}}\nengine: {{directory: plans, flavor: rtx}}\n"
        f"enforcement: {{ladder: {ladder}}}\n"
    )
    assert run(config) == 0
    for model in (quantised, smaller):
        assert plan_path(config, model, sha256(model)).is_file()


def test_an_interrupted_build_leaves_what_was_there(
    config: EngineConfig, quantised: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = built(config, quantised)
    monitor = trt.progress_monitor

    def interrupted(*arguments: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return monitor(*arguments)

    monkeypatch.setattr(trt, "progress_monitor", interrupted)
    assert run(config, quantised) == build.EXIT_INTERRUPTED
    assert "nothing was installed" in capsys.readouterr().err
    plan = plan_path(config, quantised, sha256(quantised))
    assert read_plan_manifest(plan) == before
    assert sha256(plan) == before.plan.sha256
    assert not list(config.directory.glob("*.partial"))


def test_a_directory_that_cannot_be_written_to(
    config: EngineConfig, quantised: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.directory.write_text("a file")
    assert run(config, quantised) == 2
    assert "choose another engine.directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("engine.version_compatible=true", "engine.version_compatible: not with TensorRT for RTX"),
        ("engine.hardware_compatible=ampere_plus", "engine.hardware_compatible: not with TensorRT for RTX"),
        ("engine.dla_core=0", "engine.dla_core: not with TensorRT for RTX"),
        ("engine.optimization_level=6", "engine.optimization_level"),
    ],
)
def test_what_the_library_cannot_do_is_refused(
    config: EngineConfig, quantised: Path, setting: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(config, quantised, "--set", setting) == 2
    assert reason in capsys.readouterr().err
    assert not list(config.directory.glob("*.plan"))


def test_sparsity_and_levels_are_built(config: EngineConfig, quantised: Path) -> None:
    settings = ("--set", "engine.sparsity=true", "--set", "engine.optimization_level=0")
    assert run(config, quantised, *settings) == 0


def test_tensorrt_itself_needs_a_gpu_to_build(
    config: EngineConfig, quantised: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="10.3.0"))
    monkeypatch.setattr(build, "present_gpu", lambda: None)
    assert run(config, quantised, "--flavor", "tensorrt") == 2
    assert "TensorRT 10.3.0 builds for the GPU that it runs on, and there is none here" in capsys.readouterr().err


@pytest.fixture
def with_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A GPU is here; what its engines compute is the ONNX file at this path, whatever their plans hold."""
    computes = tmp_path / "computes.onnx"
    shutil.copy(STOCK, computes)
    double = Double()
    monkeypatch.setattr(build, "present_gpu", lambda: PresentGpu("a double", "8.7", "13.0"))
    monkeypatch.setattr("perception.cuda.Gpu", lambda: Gpu(driver=Driver(PycudaDouble(double), None)))
    monkeypatch.setattr(rtx, "Runtime", runtime_double(double, plan_is=computes))
    yield computes
    assert double.broken == []
    assert double.live == []


def test_with_a_gpu_the_golden_outputs_are_verified(config: EngineConfig, with_gpu: Path) -> None:
    assert with_gpu.is_file()
    manifest = built(config, STOCK)
    assert manifest.gpu is not None
    assert (manifest.gpu.name, manifest.gpu.compute_capability, manifest.cuda) == ("a double", "8.7", "13.0")
    assert manifest.golden.deviation is not None
    assert manifest.golden.deviation < 1e-5
    assert "verified on a double" in manifest.golden.note


def test_an_engine_that_says_something_else_is_not_installed(
    config: EngineConfig, with_gpu: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = built(config, STOCK)
    spoiled = onnx.load(with_gpu)
    weights = max(spoiled.graph.initializer, key=lambda tensor: np.prod(tensor.dims))
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights)[::-1].copy(), weights.name))
    onnx.save(spoiled, with_gpu)

    assert run(config, STOCK) == 2
    assert "standard deviations for the golden input" in capsys.readouterr().err
    assert read_plan_manifest(plan_path(config, STOCK, sha256(STOCK))) == before
    assert not list(config.directory.glob("*.partial"))


@pytest.mark.parametrize(
    ("version", "cores", "reason"),
    [
        ("10.3.0", 2, None),
        ("10.7.0", 2, None),
        ("10.8.0", 2, "does not support DLA"),
        ("11.4.0", 2, "does not support DLA"),
        ("11.4.1", 2, None),
        ("10.3.0", 1, "this machine has 1 DLA cores"),
    ],
)
def test_dla_is_for_those_that_have_it(version: str, cores: int, reason: str | None) -> None:
    flags: list[str] = []
    module = SimpleNamespace(
        BuilderFlag=SimpleNamespace(GPU_FALLBACK="GPU_FALLBACK"), DeviceType=SimpleNamespace(DLA="DLA")
    )
    library = Library("tensorrt", module, version)
    settings = SimpleNamespace(set_flag=flags.append)
    if reason is None:
        trt._use_dla(library, SimpleNamespace(num_DLA_cores=cores), settings, 1)
        assert (settings.default_device_type, settings.DLA_core, flags) == ("DLA", 1, ["GPU_FALLBACK"])
    else:
        with pytest.raises(BackendError, match=reason):
            trt._use_dla(library, SimpleNamespace(num_DLA_cores=cores), settings, 1)


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("Name: {ForeignNode[first...second]}, LayerType: DLA, Inputs: []\nName: copy, LayerType: Reformat\n", None),
        ("Name: first, LayerType: CaskConvolution, Inputs: []\n", "puts no layer of this model on the DLA"),
        ("", "puts no layer of this model on the DLA"),
    ],
)
def test_a_plan_that_leaves_the_dla_idle_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, reason: str | None
) -> None:
    monkeypatch.setattr(trt, "_configure", lambda *_: SimpleNamespace())
    library, engine = Library("tensorrt", None, "10.3.0"), EngineConfig(dla_core=0)
    with trt.BuildLog(tmp_path / "log") as log:

        def compile_it(*_: Any) -> bytes:
            log("VERBOSE", f"Layers:\n{table}")
            return b"a plan"

        builder = SimpleNamespace(build_serialized_network=compile_it)
        network = trt.Network(builder, None, image=None, inputs=(), outputs=(), quantised=(), quantisers=())  # type: ignore[arg-type]
        if reason is None:
            assert trt.build(library, log, network, engine, timing_cache=None, monitor=None).data == b"a plan"
        else:
            with pytest.raises(BackendError, match=reason):
                trt.build(library, log, network, engine, timing_cache=None, monitor=None)
        on_gpu = EngineConfig()
        assert trt.build(library, log, network, on_gpu, timing_cache=None, monitor=None).data == b"a plan"


def test_plans_do_not_compute_in_tf32(config: EngineConfig) -> None:
    library = load_library("rtx")
    builder = rtx.Builder(library.logger(lambda *_: None))
    assert builder.create_builder_config().get_flag(rtx.BuilderFlag.TF32)  # unless it is cleared
    assert not trt._configure(library, builder, config).get_flag(rtx.BuilderFlag.TF32)


def test_a_flag_that_a_version_lacks_is_refused_by_its_key() -> None:
    library = Library("tensorrt", SimpleNamespace(BuilderFlag=SimpleNamespace()), "12.0.0")
    with pytest.raises(BackendError, match=r"engine\.sparsity: TensorRT 12\.0\.0 has no BuilderFlag\.SPARSE_WEIGHTS"):
        trt._lookup(library, "BuilderFlag", "SPARSE_WEIGHTS", "sparsity")


def test_networks_are_strongly_typed_also_where_nothing_else_is_left() -> None:
    assert trt._strongly_typed(rtx) == 1 << int(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    assert trt._strongly_typed(SimpleNamespace(NetworkDefinitionCreationFlag=SimpleNamespace())) == 0


def test_what_was_timed_is_kept_unless_it_is_of_another_gpu(tmp_path: Path) -> None:
    class Settings:
        """A builder's config that takes what begins with ``here``."""

        def create_timing_cache(self, data: bytes) -> bytes:
            return data

        def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:  # noqa: FBT001
            assert not ignore_mismatch
            fits = cache == b"" or cache.startswith(b"here")
            if fits:
                self.cache = cache
            return fits

        def get_timing_cache(self) -> Any:
            return SimpleNamespace(serialize=lambda: (self.cache or b"here ") + b"+")

    path = tmp_path / "timing.cache"
    for expected in (b"here +", b"here ++"):
        with trt._timing_cache(Settings(), path):
            pass
        assert path.read_bytes() == expected
    path.write_bytes(b"elsewhere")
    with trt._timing_cache(Settings(), path):
        pass
    assert path.read_bytes() == b"here +"


def test_the_library_that_is_there_is_found() -> None:
    library = load_library("rtx")
    assert library.title == f"TensorRT for RTX {rtx.__version__}"
    said: list[tuple[str, str]] = []
    logger = library.logger(lambda severity, message: said.append((severity, message)))
    assert rtx.Builder(logger) is not None
    logger.log(rtx.ILogger.WARNING, "hear")
    assert ("WARNING", "hear") in said


def test_the_table_of_layers_is_read_whole(config: EngineConfig, quantised: Path) -> None:
    manifest = built(config, quantised)
    log = plan_path(config, quantised, sha256(quantised)).with_suffix(".log").read_text()
    table = log[log.index("Layers:\n") :]
    rows = [line for line in table.split("\n") if line.startswith("Name: ")]
    ordering = [row for row in rows if "LayerType: signal" in row or "LayerType: wait" in row]
    assert len(read_table(table)) == len(manifest.layers) == len(rows) - len(ordering) > 2
    assert all(layer.name and layer.kind and layer.outputs for layer in manifest.layers)
