"""What `device: cuda` makes of a config, on a machine that this process plays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from perception import backends, cuda_backend
from perception.clock import SteppedClock
from perception.cuda.nvidia import PresentGpu
from perception.errors import BackendError, ConfigError, GpuError
from perception.messages import Frame, Span
from perception.pixels import blank
from tests.cuda import machines
from tests.cuda.machines import Machine
from tests.detect.tensorrt_double import refuse_captures
from tests.drives import make_camera
from tests.kernels.grid import Grid
from tests.models import write_colour_detector

RIG = {name: make_camera(name, (96, 64)) for name in ("FRONT", "REAR")}


@pytest.fixture
def played(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    machine = machines.play(grid, monkeypatch, graphs=True)
    yield machine
    assert machine.played is not None
    assert machine.played.broken == machine.played.live == []


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colour_detector(tmp_path_factory.mktemp("model") / "colours.onnx", (96, 64))


def build(machine: Machine, model: Path, directory: Path, **changes: Any) -> backends.Backend:
    chosen = machines.on_gpu(machine, "base.yaml", directory, **{"detector.model": str(model), **changes})
    return backends.build(chosen, RIG, SteppedClock())


def frame(camera: str) -> Frame:
    return Frame(camera, blank("bgr", (96, 64)), 0, 0, Span(0, 0))


def test_every_cameras_work_is_one_graph_for_each_format(played: Machine, model: Path, tmp_path: Path) -> None:
    assert played.played is not None
    with closing(build(played, model, tmp_path)) as backend:
        assert "each camera's work is launched as one CUDA graph" in backend.notes
        assert sum(note.startswith("images: NV12 and YUYV go to the GPU") for note in backend.notes) == 1
        assert sum(name.startswith("executable graph") for name in played.played.live) == 3 * len(RIG)


def test_graphs_can_be_turned_off(played: Machine, model: Path, tmp_path: Path) -> None:
    assert played.played is not None
    with closing(build(played, model, tmp_path, **{"gpu.graphs": False})) as backend:
        assert "work is enqueued, not launched as a graph: as configured" in backend.notes
        assert played.played.names("cuStreamBeginCapture") == []


@pytest.mark.parametrize("after", [0, 4], ids=["the first", "one of the second camera"])
def test_where_a_capture_is_refused_all_is_enqueued(
    played: Machine, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    assert played.played is not None
    refuse_captures(played.played, monkeypatch, after)
    with closing(build(played, model, tmp_path)) as backend:
        camera = "REAR" if after else "FRONT"
        (note,) = (note for note in backend.notes if "graph" in note)
        assert note == (
            f"work is enqueued, not launched as a graph: that of {camera} cannot be captured: "
            "TensorRT could not enqueue an inference (IExecutionContext::enqueueV3: it cannot be)"
        )
        assert not any(name.startswith("executable graph") for name in played.played.live)
        played.played.calls.clear()
        for name, channel in backend.channels[0].items():
            channel.submit(frame(name))
            assert channel.collect() is not None
        assert len(played.played.names("execute_async_v3")) == len(RIG)


def test_an_engine_that_fails_without_a_capture_is_refused(
    played: Machine, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.detect.tensorrt_double._Execution._refuses", lambda *_: True)
    with pytest.raises(GpuError, match="could not enqueue an inference"):
        build(played, model, tmp_path)


def test_the_stream_of_a_camera_has_its_priority(played: Machine, model: Path, tmp_path: Path) -> None:
    assert played.played is not None
    with closing(build(played, model, tmp_path, **{"gpu.priorities": {"FRONT": -4}})):
        assert sorted(queue.priority for queue in played.played.queues.values())[:2] == [-4, 0]
        assert sum(queue.priority == -4 for queue in played.played.queues.values()) == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"gpu.priorities": {"FRNT": -1}}, "gpu.priorities: no camera 'FRNT' in this rig; known: FRONT, REAR"),
        ({"gpu.priorities": {"FRONT": 3}}, "gpu.priorities: 3; this GPU knows -5 "),
    ],
)
def test_priorities_that_cannot_be_are_refused(
    played: Machine, model: Path, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises((ConfigError, BackendError), match=reason):
        build(played, model, tmp_path, **changes)


def test_levels_with_the_same_detector_share_their_channels(played: Machine, model: Path, tmp_path: Path) -> None:
    chosen = machines.on_gpu(played, "base.yaml", tmp_path, **{"detector.model": str(model)})
    with closing(backends.build(chosen, RIG, SteppedClock(), [chosen.detector, chosen.detector])) as backend:
        assert backend.channels[0] is backend.channels[1]


GEFORCE, HOPPER = PresentGpu("GeForce", "12.0", "13.2"), PresentGpu("Hopper", "9.0", "13.2")


@pytest.mark.parametrize(
    ("wanted", "installed", "gpu", "cuda", "expected"),
    [
        ("auto", {"pycuda", "tensorrt", "tensorrt_rtx"}, HOPPER, True, "tensorrt"),
        ("auto", {"pycuda", "tensorrt_rtx_bindings"}, GEFORCE, True, "tensorrt"),
        ("auto", {"pycuda", "tensorrt_rtx"}, HOPPER, True, "onnxruntime"),
        ("auto", {"pycuda"}, HOPPER, True, "onnxruntime"),
        ("onnxruntime", {"pycuda", "tensorrt"}, HOPPER, True, "onnxruntime"),
        ("tensorrt", {"pycuda", "tensorrt"}, HOPPER, True, "tensorrt"),
        ("auto", set(), HOPPER, True, "PyCUDA is not installed"),
        ("openvino", {"pycuda"}, HOPPER, True, "openvino runs on the CPU"),
        ("tensorrt", {"pycuda"}, HOPPER, True, "TensorRT is not installed"),
        ("auto", {"pycuda"}, HOPPER, False, "TensorRT is not installed, and ONNX Runtime is here without CUDA"),
        ("auto", {"pycuda", "tensorrt_rtx"}, HOPPER, False, r"no code for Hopper \(compute capability 9.0\), and ONNX"),
        ("onnxruntime", {"pycuda", "tensorrt"}, HOPPER, False, "^ONNX Runtime is here without CUDA"),
    ],
)
def test_the_runtime_is_what_is_installed_and_has_code_for_the_gpu(
    monkeypatch: pytest.MonkeyPatch, wanted: str, installed: set[str], gpu: PresentGpu, expected: str, *, cuda: bool
) -> None:
    monkeypatch.setattr(cuda_backend, "find_spec", lambda name: name if name in installed else None)
    monkeypatch.setattr(cuda_backend, "present_gpu", lambda: gpu)
    monkeypatch.setattr(cuda_backend, "_onnxruntime_has_cuda", lambda: cuda)
    if expected in {"tensorrt", "onnxruntime"}:
        assert cuda_backend.choose_runtime(wanted).runtime == expected
    else:
        with pytest.raises(BackendError, match=expected):
            cuda_backend.choose_runtime(wanted)
