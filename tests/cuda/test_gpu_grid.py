"""What runs the kernels' tests on a GPU, on the double: so that there it is the GPU that is tested, and not this."""

from __future__ import annotations

import numpy as np
import pytest

from tests.cuda.conftest import known_kernels, open_gpu
from tests.cuda.double import Double
from tests.kernels import stages
from tests.kernels.gpu_grid import GpuGrid
from tests.kernels.grid import Grid, buffer
from tests.kernels.test_letterbox import FORMATS, YOLOX, plan


def test_it_gives_what_the_cpu_gives(grid: Grid) -> None:
    double = Double(grid)
    keys = np.random.default_rng(0).integers(0, 9, (2, 50)).astype(np.uint32)
    source = FORMATS["nv12"](np.random.default_rng(0), 20, 12, 3)
    with open_gpu(double) as gpu:
        with gpu.current():
            (module, known), stream = known_kernels(gpu), gpu.stream()
        on_gpu = GpuGrid(gpu, stream, known)
        results = [
            (stages.select(of, keys, 7), stages.letterbox(of, "letterbox_nv12_f32", source.planes, planned, np.float32))
            for of in (grid, on_gpu)
            for planned in (plan(source, YOLOX),)
        ]
        with gpu.current():
            stream.close()
            module.close()
    (selected, image), (selected_there, image_there) = results
    np.testing.assert_array_equal(np.array(selected[0]), np.array(selected_there[0]))
    np.testing.assert_array_equal(selected[1], selected_there[1])
    np.testing.assert_array_equal(image, image_there)
    assert double.broken == double.live == []


def test_a_write_out_of_bounds_is_found(grid: Grid) -> None:
    double = Double(grid)
    with open_gpu(double) as gpu:
        with gpu.current():
            (module, known), stream = known_kernels(gpu), gpu.stream()
        chosen, count, to = np.arange(8, dtype=np.int32), np.array([8], np.int32), buffer(7, np.int32)
        words = (np.int32(8), np.int32(1))
        with pytest.raises(AssertionError, match="beyond its buffer"):
            GpuGrid(gpu, stream, known).launch(
                "take", (1, 1, 1), (8, 1, 1), chosen, *words, chosen, count, np.int32(8), to
            )
        with gpu.current():
            stream.close()
            module.close()
