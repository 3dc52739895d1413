"""A TensorRT whose plans are ONNX files, on the driver's double: its inferences are ONNX Runtime's, done when the
stream gets to them.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from tests.cuda.double import Double


class _Execution:
    """An execution context: from the address that it was told of for the input to those for the outputs."""

    def __init__(self, double: Double, session: Any, logger: Any) -> None:
        self._double = double
        self._logger = logger
        self._session = session
        self._input = session.get_inputs()[0]
        self._outputs = [port.name for port in session.get_outputs()]
        self._addresses: dict[str, int] = {}

    def set_tensor_address(self, name: str, pointer: int) -> bool:
        self._double.record("set_tensor_address", f"{name} {pointer}")
        self._addresses[name] = pointer
        return name in (self._input.name, *self._outputs)

    def execute_async_v3(self, stream: int) -> bool:
        self._double.record("execute_async_v3", str(stream))
        if self._refuses(stream):
            self._logger.log(SimpleNamespace(name="ERROR"), "IExecutionContext::enqueueV3: it cannot be\nenqueued")
            return False
        self._double.put(stream, "inference", self._infer)
        return True

    def _refuses(self, stream: int) -> bool:
        """Nothing; tests put in its place what this engine is not to be asked for."""
        del stream
        return False

    def _infer(self) -> None:
        shape = [1 if isinstance(axis, str) else axis for axis in self._input.shape]
        image = self._double.at(self._addresses[self._input.name], int(np.prod(shape)) * 4)
        feed = {self._input.name: image.view(np.float32).reshape(shape)}
        for name, output in zip(self._outputs, self._session.run(self._outputs, feed), strict=True):
            self._double.at(self._addresses[name], output.nbytes)[:] = output.reshape(-1).view(np.uint8)


def runtime_double(double: Double, plan_is: Path | None = None) -> Any:
    """``tensorrt.Runtime``; a plan is an ONNX file, or stands for the file `plan_is`, whatever is in it."""

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self._logger = logger

        def deserialize_cuda_engine(self, plan: bytes) -> Any | None:
            double.record("deserialize_cuda_engine", str(len(plan)))
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4
            source: Any = plan if plan_is is None else str(plan_is)
            try:
                session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
            except Exception:  # noqa: BLE001 (the runtime's errors share no narrower base)
                self._logger.log(SimpleNamespace(name="ERROR"), "magicTag: not a plan of this version")
                return None
            return SimpleNamespace(create_execution_context=lambda: _Execution(double, session, self._logger))

    return Runtime


def refuse_captures(double: Double, monkeypatch: pytest.MonkeyPatch, after: int = 0) -> None:
    """Have engines refuse to be captured, as TensorRT does those with work that no graph can have; some go `after`."""
    taken = iter(range(after))

    def refuses(_: _Execution, stream: int) -> bool:
        return double.queues[stream].captured is not None and next(taken, None) is None

    monkeypatch.setattr(_Execution, "_refuses", refuses)


class _Logger:
    """``tensorrt.ILogger``."""


def tensorrt_double(double: Double, version: str = "10.3.0") -> Any:
    """The module ``tensorrt``, as far as the runtime goes."""
    return SimpleNamespace(__version__=version, ILogger=_Logger, Runtime=runtime_double(double))
