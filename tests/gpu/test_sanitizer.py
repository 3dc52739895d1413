"""The kernels under NVIDIA's compute-sanitizer: every access to memory, and every race in shared memory."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from perception.cuda import Gpu

pytestmark = pytest.mark.gpu

ROOT: Final = Path(__file__).resolve().parents[2]
TOOLKIT: Final = "/usr/local/cuda/bin"


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "synccheck"])
def test_it_has_nothing_to_say(real_gpu: Gpu, tool: str) -> None:
    del real_gpu  # skips without one
    sanitizer = shutil.which("compute-sanitizer", path=f"{os.environ['PATH']}{os.pathsep}{TOOLKIT}")
    if sanitizer is None:
        pytest.skip("compute-sanitizer is not here: it comes with the CUDA toolkit")
    tests = [sys.executable, "-m", "pytest", "tests/kernels", "-m", "gpu", "-o", "addopts=", "-p", "no:cacheprovider"]

    done = subprocess.run(
        [sanitizer, "--tool", tool, "--error-exitcode", "99", *tests],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=1100,
    )

    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert re.search(r"\b[1-9]\d* passed", done.stdout), done.stdout[-2000:]
