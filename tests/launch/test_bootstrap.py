"""The scripts that a stranger runs first: what they refuse, they refuse in one line and leave nothing behind."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

LAUNCH = Path("launch").resolve()


def test_another_system_than_linux_is_refused(tmp_path: Path) -> None:
    refused = replay(tmp_path, {"uname": "echo Darwin"})
    assert refused == (
        "Darwin: this runs on Linux only; elsewhere in a container or a virtual machine with it (WSL 2, Docker)"
    )


def test_an_old_python_is_refused(tmp_path: Path) -> None:
    refused = replay(tmp_path, {"python3": "exit 1"})
    assert refused == "python3: Python 3.10 or newer is needed; name one with PYTHON=/path/to/python3"


def test_a_python_that_cannot_make_environments_is_refused(tmp_path: Path) -> None:
    refused = replay(tmp_path, {"python3": '[ "$1" = -c ] || { mkdir -p .venv; exit 1; }'})
    assert "apt install python3-venv" in refused


def replay(tmp_path: Path, programs: dict[str, str]) -> str:
    """Run launch/replay.sh in a tree without .venv, with these programs in place of the system's: what it says."""
    shutil.copytree(LAUNCH, tmp_path / "tree" / "launch")
    (tmp_path / "tree" / "requirements.lock").touch()
    (tmp_path / "bin").mkdir()
    for name, script in programs.items():
        program = tmp_path / "bin" / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    command, tree = ["bash", "launch/replay.sh"], tmp_path / "tree"
    ended = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert not (tmp_path / "tree" / ".venv").exists()
    (line,) = ended.stderr.splitlines()
    return line
