"""Where the kernels' machine code comes from: compiled for real, by NVRTC, which needs no GPU."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from perception.cuda import cubins, kernels
from perception.errors import BackendError

SOURCE = kernels.SOURCES[2]  # the smallest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "perception" / "kernels"


@pytest.fixture
def compiler() -> None:
    nvrtc = pytest.importorskip("cuda.bindings.nvrtc", reason="cuda-bindings is not installed")
    try:
        nvrtc.nvrtcVersion()
    except RuntimeError as error:
        pytest.skip(f"NVRTC is not here (pip install nvidia-cuda-nvrtc): {error}")


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(cubins, "_TOOLKIT", Path("/nowhere/nvcc"))
    monkeypatch.setitem(__import__("sys").modules, "cuda.bindings.nvrtc", None)


@pytest.mark.usefixtures("compiler")
def test_it_is_compiled_once_and_kept(cache: Path, request: pytest.FixtureRequest) -> None:
    first = cubins.find(SOURCE, "sm_87")
    assert first.origin.endswith(f", and kept in {cache}")
    assert first.cubin.startswith(b"\x7fELF")

    request.getfixturevalue("no_compiler")
    assert cubins.find(SOURCE, "sm_87") == cubins.Found(first.cubin, str(cache))
    with pytest.raises(BackendError, match="is not compiled for sm_110, and there is no compiler here"):
        cubins.find(SOURCE, "sm_110")


@pytest.mark.usefixtures("no_compiler")
def test_what_was_compiled_elsewhere_goes_first(tmp_path: Path, cache: Path) -> None:
    name = cubins.file_name(SOURCE, "sm_87")
    for directory, content in ((cache, b"kept"), (tmp_path / "prebuilt", b"prebuilt")):
        cubins.keep(content, directory / name)

    assert cubins.find(SOURCE, "sm_87", tmp_path / "prebuilt").cubin == b"prebuilt"
    assert cubins.find(SOURCE, "sm_87").cubin == b"kept"


@pytest.mark.usefixtures("compiler")
def test_a_cache_that_cannot_be_written_to_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert ", and not kept: " in cubins.find(SOURCE, "sm_87").origin


@pytest.mark.usefixtures("compiler")
def test_ahead_of_time_for_the_vehicles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cubins.main(["--arch", "sm_87", "--arch", "sm_110", "--out", str(tmp_path / "out")]) == 0

    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert made == {cubins.file_name(s, arch) for s in kernels.SOURCES for arch in ("sm_87", "sm_110")}
    assert len(capsys.readouterr().out.splitlines()) == len(made)


@pytest.mark.usefixtures("compiler")
def test_an_architecture_that_is_none_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cubins.main(["--arch", "sm_1", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
