"""A GPU whose memory is the host's, and a TensorRT whose plans are ONNX files: what the runtime asks of both is taken
down in order, and what comes out is what ONNX Runtime makes of the model.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from perception.cuda import Driver, Gpu

Calls = list[tuple[Any, ...]]


class _Allocation:
    def __init__(self, calls: Calls, nbytes: int) -> None:
        self._calls = calls
        self._memory = np.full(nbytes, 0xAA, np.uint8)

    def __int__(self) -> int:
        return int(self._memory.ctypes.data)

    def free(self) -> None:
        self._calls.append(("free", int(self)))


class _Context:
    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self.depth = 0

    def push(self) -> None:
        self.depth += 1

    def pop(self) -> None:
        self.depth -= 1

    def detach(self) -> None:
        self.depth -= 1


class _Stream:
    def __init__(self, calls: Calls, handle: int) -> None:
        self._calls = calls
        self.handle = handle

    def synchronize(self) -> None:
        self._calls.append(("synchronize", self.handle))


class HostGpu:
    """Everything about the double: the `gpu` to hand out, and the `calls` that were made."""

    def __init__(self, name: str = "Orin", compute_capability: tuple[int, int] = (8, 7)) -> None:
        self.calls: Calls = []
        self.context = _Context(self.calls)
        streams = iter(range(100, 200))
        device = SimpleNamespace(
            name=lambda: name,
            compute_capability=lambda: compute_capability,
            get_attribute=lambda _: 0,
            retain_primary_context=lambda: self.context,
        )
        pycuda = SimpleNamespace(
            Error=RuntimeError,
            init=lambda: None,
            Device=lambda _: device,
            Context=SimpleNamespace(pop=self.context.pop),
            Stream=lambda _: _Stream(self.calls, next(streams)),
            device_attribute=SimpleNamespace(INTEGRATED=1, CAN_MAP_HOST_MEMORY=2),
            mem_alloc=self._allocate,
            memcpy_htod_async=self._upload,
            memcpy_dtoh_async=self._download,
        )
        self.gpu = Gpu(driver=Driver(pycuda, None))

    def names(self) -> list[str]:
        """The calls without their arguments."""
        return [call[0] for call in self.calls]

    def _allocate(self, nbytes: int) -> _Allocation:
        assert self.context.depth > 0, "memory is allocated where no context is current"
        allocation = _Allocation(self.calls, nbytes)
        self.calls.append(("allocate", int(allocation), nbytes))
        return allocation

    def _upload(self, pointer: int, host: NDArray[Any], stream: _Stream) -> None:
        self.calls.append(("upload", pointer, stream.handle))
        ctypes.memmove(pointer, host.ctypes.data, host.nbytes)

    def _download(self, host: NDArray[Any], pointer: int, stream: _Stream) -> None:
        self.calls.append(("download", pointer, stream.handle))
        ctypes.memmove(host.ctypes.data, pointer, host.nbytes)


class _Execution:
    """One execution context: ONNX Runtime between the addresses that it was told of."""

    def __init__(self, calls: Calls, session: Any) -> None:
        self._calls = calls
        self._session = session
        self._ports = {port.name: port for port in (*session.get_inputs(), *session.get_outputs())}
        self._addresses: dict[str, int] = {}

    def set_tensor_address(self, name: str, pointer: int) -> bool:
        self._calls.append(("set_tensor_address", name, pointer))
        self._addresses[name] = pointer
        return name in self._ports

    def execute_async_v3(self, stream: int) -> bool:
        self._calls.append(("execute_async_v3", stream))
        feed = {}
        for port in self._session.get_inputs():
            shape = [1 if isinstance(axis, str) else axis for axis in port.shape]
            feed[port.name] = np.zeros(shape, np.float32)
            ctypes.memmove(feed[port.name].ctypes.data, self._addresses[port.name], feed[port.name].nbytes)
        names = [port.name for port in self._session.get_outputs()]
        for name, output in zip(names, self._session.run(names, feed), strict=True):
            array = np.ascontiguousarray(output)
            ctypes.memmove(self._addresses[name], array.ctypes.data, array.nbytes)
        return True


def runtime_double(calls: Calls, plan_is: Path | None = None) -> Callable[[Any], Any]:
    """``tensorrt.Runtime``; a plan is an ONNX file, or stands for the file `plan_is`, whatever is in it."""

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self._logger = logger

        def deserialize_cuda_engine(self, plan: bytes) -> Any | None:
            calls.append(("deserialize_cuda_engine", len(plan)))
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4
            try:
                source: Any = plan if plan_is is None else str(plan_is)
                session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
            except Exception:  # noqa: BLE001
                with contextlib.suppress(AttributeError):
                    self._logger.log(SimpleNamespace(name="ERROR"), "magicTag: the plan is not one of this version")
                return None
            return SimpleNamespace(create_execution_context=lambda: _Execution(calls, session))

    return Runtime


class _Logger:
    """``tensorrt.ILogger``."""


def tensorrt_double(calls: Calls, version: str = "10.3.0") -> Any:
    """The module ``tensorrt``, as far as the runtime goes."""
    return SimpleNamespace(__version__=version, ILogger=_Logger, Runtime=runtime_double(calls))
