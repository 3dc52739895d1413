"""Machines that `device: cuda` can be run on: one that this process plays, and the one that it may be on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import pytest

from engines import build as engines_build
from perception import backends, config, cuda_backend
from perception.config import Config
from perception.cuda import Driver, cubins, gpu
from perception.errors import BackendError
from perception.preprocess import dali
from tests.cuda.bindings_double import BindingsDouble
from tests.cuda.dali_double import DaliDouble
from tests.cuda.double import Double
from tests.cuda.pycuda_double import PycudaDouble
from tests.detect.tensorrt_double import tensorrt_double
from tests.detect.test_tensorrt import install
from tests.kernels.grid import Grid

ON_GPU: Final = [
    pytest.param((runtime, preprocess), marks=pytest.mark.gpu, id=f"{runtime} and {preprocess} on the GPU")
    for runtime in ("tensorrt", "onnxruntime")
    for preprocess in ("kernel", "dali")
]
"""What `here` takes: all ways in which a machine with a GPU can be used."""


_NO_DALI: Final = "DALI is not installed: pip install nvidia-dali-cuda130"


class Machine(NamedTuple):
    """What a config needs changed to run on it, and what has to be done before; its doubles, if it is `played`."""

    changes: dict[str, Any]
    prepare: Callable[[Config], None]
    played: Double | None = None
    dali: DaliDouble | None = None


def play(
    grid: Grid,
    monkeypatch: pytest.MonkeyPatch,
    *,
    graphs: bool,
    preprocess: Literal["kernel", "dali"] = "kernel",
) -> Machine:
    """Have this process play a machine with a GPU and TensorRT; with cuda-python, for `graphs`, or without.

    The driver is the double, kernels run on the CPU, as do DALI's own pipelines, a plan is the ONNX file that it is
    made of. All between that and the config is the product's own. Skips where DALI is asked for and not there.
    """
    if preprocess == "dali" and not backends._has_dali():
        pytest.skip(_NO_DALI)
    double = Double(grid)
    driver = Driver(PycudaDouble(double), BindingsDouble(double) if graphs else None)
    dali_double = DaliDouble(double)
    monkeypatch.setattr(dali, "letterbox_pipeline", dali_double.define)
    monkeypatch.setattr(gpu, "load_driver", lambda: driver)
    monkeypatch.setattr(cubins, "find", lambda *_: cubins.Found(b"machine code", "the double"))
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt_double(double))
    monkeypatch.setattr(backends, "_why_no_cuda", lambda _: None)
    monkeypatch.setattr(cuda_backend, "choose_runtime", lambda _: cuda_backend.Chosen("tensorrt", "played"))

    def prepare(chosen: Config) -> None:
        assert chosen.detector.model is not None
        install(chosen.engine, chosen.detector.model)

    return Machine({"preprocess": preprocess}, prepare, double, dali_double)


def here(runtime: Literal["tensorrt", "onnxruntime"], preprocess: Literal["kernel", "dali"]) -> Machine:
    """This machine with its GPU; skips where the runtime or DALI is not there, with the reason."""
    if preprocess == "dali" and not backends._has_dali():
        pytest.skip(_NO_DALI)
    try:
        cuda_backend.choose_runtime(runtime)
    except BackendError as error:
        pytest.skip(str(error))

    def prepare(chosen: Config) -> None:
        if runtime == "tensorrt":
            written = chosen.engine.directory.parent / "config.yaml"
            written.write_text(config.to_yaml(chosen))
            if engines_build.main(["--config", str(written), "--if-needed"]) != 0:
                assert find_spec("tensorrt") is None, "TensorRT does not build the model"
                pytest.skip("TensorRT for RTX does not build the model for this GPU")

    return Machine({"preprocess": preprocess, "detector.runtime": runtime}, prepare)


def on_cpu(name: str, directory: Path, **changes: Any) -> Config:
    """A config to compare with: ONNX Runtime on the CPU."""
    return _config(name, directory, {"device": "cpu", "detector.runtime": "onnxruntime", **changes})


def on_gpu(machine: Machine, name: str, directory: Path, **changes: Any) -> Config:
    """The same on a machine, with all prepared."""
    chosen = _config(name, directory, {"device": "cuda", **changes, **machine.changes})
    machine.prepare(chosen)
    return chosen


def _config(name: str, directory: Path, changes: dict[str, Any]) -> Config:
    return config.load(name, [("engine.directory", str(directory / "plans")), *changes.items()])
