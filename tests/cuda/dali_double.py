"""DALI on the driver's double: its own pipelines on its CPU device, whose results go to the double's memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from perception.preprocess import dali
from tests.cuda.double import Double


class DaliDouble:
    """Stands in for `dali.letterbox_pipeline`; while `refuses_jpegs` is set, no JPEG is good enough for it."""

    def __init__(self, double: Double) -> None:
        self.decoded = 0
        self.refuses_jpegs = False
        self.double = double
        self._define = dali.letterbox_pipeline

    def define(self, *args: Any, gpu: int, **options: Any) -> _Pipeline:  # noqa: ARG002 (there is none)
        """What is asked for on a GPU, on the CPU."""
        return _Pipeline(self, self._define(*args, **options), encoded="encoded" in args)


class _Pipeline:
    def __init__(self, owner: DaliDouble, pipeline: Any, *, encoded: bool) -> None:
        self._owner = owner
        self._pipeline = pipeline
        self._encoded = encoded

    def build(self) -> None:
        self._pipeline.build()

    def feed_input(self, name: str, data: list[Any]) -> None:
        self._pipeline.feed_input(name, data)

    def run(self, stream: int) -> tuple[_Prepared]:
        (prepared,) = self._pipeline.run()
        if self._encoded and self._owner.refuses_jpegs:
            raise RuntimeError("refused")
        self._owner.decoded += self._encoded
        return (_Prepared(self._owner.double, stream, np.array(prepared.at(0))),)


class _Prepared:
    def __init__(self, double: Double, stream: int, tensor: Any) -> None:
        self._double = double
        self._stream = stream
        self._bytes = tensor.reshape(-1).view(np.uint8)

    def copy_to_external(self, target: Any, stream: Any, *, non_blocking: bool) -> None:
        """A copy that is made when the stream gets there."""
        assert non_blocking
        assert stream.value == self._stream
        self._double.record("copy_to_external")
        self._double.put(self._stream, "copy", lambda: self._copy(target.value))

    def _copy(self, pointer: int) -> None:
        self._double.at(pointer, self._bytes.nbytes)[:] = self._bytes
