from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engines import build
from perception import daemon
from perception.config import DaemonConfig, HealthConfig
from perception.cuda import cubins

UNIT = Path(__file__).parents[2] / "launch" / "perception.service"
PYTHON = "/opt/perception/.venv/bin/python"
NEWER = ("RestartSteps", "RestartMaxDelaySec")  # systemd 254; older ones say that they ignore them

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed (apt-get install systemd)"
)


def analyze(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with the one thing changed that is not on this machine: where its Python is."""
    text = UNIT.read_text()
    assert text.count(PYTHON) == 2
    path = tmp_path / UNIT.name
    path.write_text(text.replace(PYTHON, sys.executable))
    return path


@needs_systemd
def test_systemd_finds_nothing_wrong_with_it(unit: Path) -> None:
    status, said = analyze("verify", "--man=no", str(unit))
    complaints = [line for line in said.splitlines() if not any(f"Unknown key '{key}'" in line for key in NEWER)]
    assert complaints == []
    assert status == 0


@needs_systemd
def test_a_mistake_would_be_found(unit: Path) -> None:
    unit.write_text(unit.read_text().replace("ProtectSystem=strict", "ProtectSytsem=strict"))
    assert "ProtectSytsem" in analyze("verify", "--man=no", str(unit))[1]


@needs_systemd
def test_its_exposure_is_rated_ok(unit: Path) -> None:
    status, said = analyze("security", "--no-pager", "--offline=true", "--threshold=30", str(unit))
    (overall,) = (line for line in said.splitlines() if "Overall exposure level" in line)
    assert " OK " in overall
    assert status == 0, overall


def section(name: str) -> configparser.SectionProxy:
    parser = configparser.RawConfigParser(strict=False, comment_prefixes="#")
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(UNIT.read_text())
    return parser[name]


def test_what_it_runs_takes_these_arguments() -> None:
    service = section("Service")
    python, flag, module, *arguments = shlex.split(service["ExecStart"])
    assert (python, flag, module) == (PYTHON, "-m", "perception.daemon")
    started = daemon._parser().parse_args(arguments)
    python, flag, module, *arguments = shlex.split(service["ExecStartPre"])
    assert (python, flag, module) == (PYTHON, "-m", "engines.build")
    built = build._parser().parse_args(arguments)
    assert built.if_needed
    assert (built.config, built.set) == (started.config, started.set)


def test_what_it_compiles_is_kept_where_it_may_write(monkeypatch: pytest.MonkeyPatch) -> None:
    given = re.findall(r"^Environment=(.*)$", UNIT.read_text(), re.MULTILINE)
    environment = dict(word.split("=", 1) for line in given for word in shlex.split(line))
    cache = Path("/var/cache") / section("Service")["CacheDirectory"]
    monkeypatch.setenv("XDG_CACHE_HOME", environment["XDG_CACHE_HOME"])
    assert cache in cubins.cache_directory().parents
    assert Path(environment["CUDA_CACHE_PATH"]) == cache


def test_its_limits_give_what_the_process_asks_for() -> None:
    service = section("Service")
    assert int(service["LimitRTPRIO"]) >= (DaemonConfig().fifo_priority or 0)
    assert service["LimitMEMLOCK"] == "infinity"
    assert float(service["WatchdogSec"]) > HealthConfig().stale_s  # unready first, killed later
    assert float(service["TimeoutStopSec"]) > 2
