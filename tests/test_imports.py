"""Every module imports on a machine that has what requirements.lock has, and nothing of a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ABSENT = (
    *("pycuda", "cuda", "tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings", "nvidia"),  # the GPU's
    *("gi",),  # the distribution's
    *("torch", "onnx", "pycocotools", "trackeval", "matplotlib", "scipy", "psutil"),  # for training and development
)

BLOCK = f"""
import importlib, json, pkgutil, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""

IMPORT_ALL = """
refused = {}
for package in map(importlib.import_module, ("perception", "engines")):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        try:
            importlib.import_module(module.name)
        except ImportError as error:
            refused[module.name] = error.name
print(json.dumps(refused))
"""


def run(code: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BLOCK + code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=cwd)


def test_every_module_imports_without_what_is_optional() -> None:
    done = run(IMPORT_ALL)

    assert done.returncode == 0, done.stderr
    refused = json.loads(done.stdout)
    # engines.train is PyTorch, and says so in one line, see below; quantising and measuring want what `train` brings.
    elsewhere = {name: why for name, why in refused.items() if not name.startswith("engines.")}
    assert elsewhere == {}
    assert {why.partition(".")[0] for why in refused.values()} <= {"torch", "onnx", "pycocotools"}
    assert not {"engines.build", "engines.trt", "engines.inspect", "engines.train.__main__"} & refused.keys()


def test_training_without_pytorch_says_so_in_one_line(tmp_path: Path) -> None:
    done = run("from engines.train.__main__ import main; sys.exit(main(sys.argv[1:]))", "--out", str(tmp_path))

    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "PyTorch is not installed" in done.stderr


@pytest.mark.parametrize(
    ("module", "missing"), [("engines.quantize", "onnx"), ("engines.validate", "onnx, pycocotools")]
)
def test_what_an_extra_lacks_is_said_in_one_line(module: str, missing: str) -> None:
    done = run("import runpy; runpy.run_module(sys.argv[1], run_name='__main__', alter_sys=True)", module)

    assert done.returncode == 2
    assert done.stderr == f"error: not installed: {missing}; pip install -e '.[engines]'\n"


def test_what_is_blocked_is_blocked() -> None:
    assert "No module named 'pycuda'" in run("import pycuda.driver").stderr
