from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, Final

import numpy as np
import pytest

from perception.cuda import Gpu, Workspace, driver, load_driver
from perception.cuda.nvidia import PresentGpu
from perception.errors import BackendError, GpuError
from tests.cuda.bindings_double import BindingsDouble
from tests.cuda.conftest import open_gpu
from tests.cuda.double import Double
from tests.cuda.pycuda_double import PycudaDouble


def test_every_resource_is_released_once_and_in_reverse(gpu: Gpu, double: Double) -> None:
    with gpu.current(), ExitStack() as resources:
        for make in (gpu.stream, gpu.event, lambda: gpu.memory(64), lambda: gpu.host_memory(64)):
            resources.enter_context(make())
        module = resources.enter_context(gpu.module(b"machine code"))
        module.kernel("take").prepare((1, 1, 1), (1, 1, 1))
        made = list(double.live)
        before = len(double.calls)

    released = [call.about for call in double.calls[before:] if call.about in made and call.name != "cuMemFreeHost"]
    assert list(dict.fromkeys(released)) == [name for name in reversed(made) if not name.startswith("context")]


def test_closing_twice_releases_once(gpu: Gpu) -> None:
    with gpu.current():
        for resource in (gpu.stream(), gpu.event(), gpu.memory(8), gpu.host_memory(8), gpu.module(b"machine code")):
            resource.close()
            resource.close()


def test_the_context_is_current_only_where_it_was_pushed(gpu: Gpu, double: Double) -> None:
    with pytest.raises(GpuError, match="cuMemAlloc failed: invalid device context"):
        gpu.memory(8)
    double.broken.clear()

    def elsewhere() -> None:
        with gpu.current(), gpu.current(), gpu.memory(8):
            pass

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert double.contexts[thread.ident or 0] == []  # else PyCUDA aborts the process


def test_a_thread_that_did_not_open_the_gpu_may_close_it(double: Double) -> None:
    opened = open_gpu(double)
    thread = threading.Thread(target=opened.close)
    thread.start()
    thread.join()
    assert double.live == []
    assert double.broken == []


MAKERS: Final[Mapping[str, Callable[[Gpu], object]]] = {
    "cuMemAlloc": lambda gpu: gpu.memory(8),
    "cuStreamCreate": lambda gpu: gpu.stream(),
    "cuEventCreate": lambda gpu: gpu.event(),
}


@pytest.mark.parametrize("call", MAKERS)
def test_a_failing_call_is_named(gpu: Gpu, double: Double, call: str) -> None:
    double.failing[call] = "out of memory"
    with gpu.current(), pytest.raises(GpuError, match=f"{call} failed: "):
        MAKERS[call](gpu)


def test_without_pycuda_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pycuda.driver", None)
    with pytest.raises(BackendError, match=r"PyCUDA cannot be imported .*pip install -e '\.\[gpu\]'"):
        load_driver()


@pytest.mark.parametrize("integrated", [False, True])
def test_memory_is_mapped_where_host_and_gpu_share_it(integrated: bool) -> None:  # noqa: FBT001
    double = Double(integrated=integrated)
    with open_gpu(double) as gpu, gpu.current(), gpu.stream() as stream, gpu.exchange(4) as exchange:
        exchange.array[:] = 7
        exchange.to_device(stream, 4)
        stream.synchronize()
        assert double.at(exchange.pointer, 4).tolist() == [7] * 4
        double.at(exchange.pointer, 4)[:] = 9
        exchange.to_host(stream)
        stream.synchronize()
        assert exchange.array.tolist() == [9] * 4
        assert ("mapped" in gpu.notes[1]) == integrated
    copies = double.names("cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync")
    assert copies == ([] if integrated else ["cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync"])
    assert double.live == double.broken == []


def test_events_time_what_lies_between_them(gpu: Gpu, double: Double) -> None:
    with gpu.current(), gpu.stream() as stream, gpu.event() as start, gpu.event() as end, gpu.memory(4) as memory:
        stream.record(start)
        for _ in range(3):
            stream.upload(np.zeros(4, np.uint8), memory.pointer)
        stream.record(end)
        double.pieces_per_query = 1
        looks = 1
        while not end.done():
            looks += 1
        assert looks == 5
        assert end.ms_since(start) == pytest.approx(1.0)


def test_a_graph_does_what_was_captured_each_time_it_is_launched(double: Double) -> None:
    with open_gpu(double) as gpu, gpu.current(), ExitStack() as resources:
        stream, memory = resources.enter_context(gpu.stream()), resources.enter_context(gpu.memory(4))
        start, end = (resources.enter_context(gpu.event()) for _ in range(2))
        host = np.zeros(4, np.uint8)

        def work() -> None:
            stream.record(start)
            stream.upload(host, memory.pointer)
            stream.record(end)

        graph = resources.enter_context(stream.capture(work))
        stream.synchronize()
        assert double.at(memory.pointer, 4).tolist() != [0] * 4  # captured is not done
        for value in (1, 2):
            host[:] = value
            graph.launch()
            stream.synchronize()
            assert double.at(memory.pointer, 4).tolist() == [value] * 4
        assert end.ms_since(start) > 0
    assert double.broken == double.live == []


def test_a_capture_in_which_something_fails_leaves_the_stream_of_use(double: Double) -> None:
    with open_gpu(double) as gpu, gpu.current(), gpu.stream() as stream, gpu.memory(4) as memory:

        def fails() -> None:
            stream.upload(np.zeros(4, np.uint8), memory.pointer)
            raise GpuError("no")

        with pytest.raises(GpuError, match=r"^no$"):
            stream.capture(fails)
        stream.upload(np.full(4, 5, np.uint8), memory.pointer)
        stream.synchronize()
        assert double.at(memory.pointer, 4).tolist() == [5] * 4
    assert double.broken == double.live == []


@pytest.mark.parametrize("name", ["cuEventCreate", "cuEventQuery"])
def test_a_cuda_python_of_a_later_cuda_than_the_drivers_is_told_in_one_line(
    double: Double, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def lacking(*_: Any) -> Any:
        raise RuntimeError(f'Function "{name}_v2" not found')

    monkeypatch.setattr(driver, "present_gpu", lambda: PresentGpu("Orin", "8.7", "12.6"))
    with open_gpu(double) as gpu, gpu.current(), gpu.stream() as stream:
        before = gpu.event()
        stream.record(before)
        monkeypatch.setattr(BindingsDouble, name, lacking)
        with pytest.raises(GpuError) as refused:
            (gpu.event if name == "cuEventCreate" else before.done)()
        stream.synchronize()
        before.close()
    assert str(refused.value) == (
        f'cuda-python does not fit the GPU\'s driver: {name}: Function "{name}_v2" not found; '
        "pip install 'cuda-bindings==12.*'"
    )


def test_priorities_take_cuda_python_and_the_gpus_range(double: Double) -> None:
    with open_gpu(double) as gpu, gpu.current():
        with gpu.stream(priority=-3) as stream:
            assert double.queues[stream.handle].priority == -3
        with pytest.raises(BackendError, match=r"gpu\.priorities: 1; this GPU knows -5 "):
            gpu.stream(priority=1)
    with open_gpu(double, bindings=False) as gpu, gpu.current():
        assert not gpu.has_graphs
        with pytest.raises(BackendError, match="stream priorities need cuda-python: pip install cuda-bindings, or"):
            gpu.stream(priority=-3)
    assert double.live == []


def test_a_workspace_holds_constants_and_frees_all(gpu: Gpu, double: Double) -> None:
    with gpu.current(), gpu.stream() as stream, Workspace(gpu, stream) as workspace:
        values = np.arange(6, dtype=np.float32)
        pointer = workspace.constant(values)
        assert double.at(pointer, values.nbytes).view(np.float32).tolist() == values.tolist()
        assert workspace.array(0, np.int32) != workspace.array(0, np.int32)


def test_the_doubles_have_the_names_of_what_they_stand_for() -> None:
    bindings = pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings is not installed")
    for name in (name for name in dir(BindingsDouble) if name.lower().startswith("cu")):
        assert hasattr(bindings, name), name
    assert bindings.CUstreamAttrID.CU_LAUNCH_ATTRIBUTE_PRIORITY
    assert bindings.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
    bindings.CUstreamAttrValue().priority = -1
    pycuda = pytest.importorskip("pycuda.driver", reason="PyCUDA cannot be imported", exc_type=ImportError)
    for name in (name for name in dir(PycudaDouble(Double())) if not name.startswith("_")):
        assert hasattr(pycuda, name), name
