"""The one gate to the CUDA driver: every call goes through here, and one that fails is named."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Final, TypeVar

from perception.cuda.nvidia import bindings_for, present_gpu
from perception.errors import BackendError, GpuError

T = TypeVar("T")
_NOT_READY: Final = 600  # CUDA_ERROR_NOT_READY


class Driver:
    """PyCUDA's ``pycuda.driver``, and ``cuda.bindings.driver`` of cuda-python or None.

    Both are passed in, so that a test can put a double in their place that records the calls.
    """

    def __init__(self, pycuda: Any, bindings: Any | None) -> None:
        self.pycuda = pycuda
        self.bindings = bindings

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function of PyCUDA; raises `GpuError` with the name of the driver's call that failed, and why."""
        try:
            return function(*args)
        except self.pycuda.Error as error:  # "cuMemAlloc failed: out of memory"
            raise GpuError(f"the GPU's driver: {error}") from None

    def bound(self, name: str, *args: Any) -> Any:
        """Call a function of the bindings by name, and return what it gives beside its status; raises `GpuError`."""
        status, *values = self._ask(name, *args)
        if status != 0:
            raise GpuError(f"the GPU's driver: {name} failed: {status.name}")
        return values[0] if len(values) == 1 else values

    def ready(self, name: str, handle: Any) -> bool:
        """Call a query of the bindings, for which not ready is an answer and no failure."""
        (status,) = self._ask(name, handle)
        if status not in (0, _NOT_READY):
            raise GpuError(f"the GPU's driver: {name} failed: {status.name}")
        return bool(status == 0)

    def _ask(self, name: str, *args: Any) -> Any:
        try:
            return getattr(self.bindings, name)(*args)
        except RuntimeError as error:  # 'Function "cuEventElapsedTime_v2" not found'
            raise GpuError(
                f"cuda-python does not fit the GPU's driver: {name}: {error}; pip install {bindings_for(present_gpu())}"
            ) from None


def load_driver() -> Driver:
    """Import PyCUDA, and cuda-python where it is installed; raises `BackendError` where PyCUDA cannot be had."""
    try:
        pycuda = importlib.import_module("pycuda.driver")
    except ImportError as error:
        raise BackendError(f"PyCUDA cannot be imported ({error}); pip install -e '.[gpu]'") from None
    try:
        bindings = importlib.import_module("cuda.bindings.driver")
    except ImportError:
        bindings = None
    return Driver(pycuda, bindings)
