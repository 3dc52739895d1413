"""Where the kernels' machine code comes from: compiled for real, by NVRTC, which needs no GPU."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from perception.cuda import cubins, kernels
from perception.cuda.nvidia import PresentGpu
from perception.errors import BackendError, GpuError
from tests.cuda.conftest import open_gpu
from tests.cuda.double import Double

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


@pytest.fixture
def nvcc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of CUDA 12: it compiles anything, to nothing, for what it lists."""
    script = tmp_path / "nvcc"
    script.write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        "--list-gpu-code) echo sm_87; echo sm_90;;\n"
        "*sm_110*) echo \"nvcc fatal   : Unsupported gpu architecture 'sm_110'\" >&2; exit 1;;\n"
        '*) while [ "$1" != -o ]; do shift; done; echo code >"$2";;\n'
        "esac\n"
    )
    script.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda _: str(script))


def architectures(directory: Path) -> set[str]:
    return {path.name.split(".")[1] for path in directory.iterdir()}


@pytest.mark.usefixtures("nvcc")
def test_a_vehicle_that_the_compiler_does_not_know_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cubins, "present_gpu", lambda: PresentGpu("Hopper", "9.0", "12.6"))
    assert cubins.main(["--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr()
    assert told.err == "warning: sm_110 is passed over: the compiler here does not know it\n"
    assert architectures(tmp_path / "out") == {"sm_90", "sm_87"}
    assert ".sm_90." in told.out.splitlines()[0]  # the GPU that is here comes first


@pytest.mark.usefixtures("nvcc")
@pytest.mark.parametrize("asked", [True, False], ids=["asked for", "here"])
def test_what_is_asked_for_or_here_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, asked: bool
) -> None:
    monkeypatch.setattr(cubins, "present_gpu", lambda: None if asked else PresentGpu("Thor", "11.0", "13.0"))
    arguments = ["--arch", "sm_110"] if asked else []
    assert cubins.main([*arguments, "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: nvcc does not compile letterbox.cu for sm_110: nvcc fatal")
    assert told.count("\n") == 1


@pytest.mark.usefixtures("compiler")
def test_nvrtc_says_what_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cubins, "_find_nvcc", lambda: None)
    known = cubins.known_architectures()
    assert known is not None
    assert "sm_87" in known
    assert "sm_1" not in known


@pytest.mark.usefixtures("no_compiler")
@pytest.mark.parametrize(
    ("cuda", "packages"),
    [
        ("12.6", "pip install 'cuda-bindings==12.*' nvidia-cuda-nvrtc-cu12)"),
        ("13.2", "pip install 'cuda-bindings==13.*' 'nvidia-cuda-nvrtc==13.*')"),
        (None, "pip install cuda-bindings nvidia-cuda-nvrtc)"),
    ],
)
def test_the_compiler_to_install_is_of_the_drivers_cuda(
    monkeypatch: pytest.MonkeyPatch, cuda: str | None, packages: str
) -> None:
    monkeypatch.setattr(cubins, "present_gpu", lambda: None if cuda is None else PresentGpu("a GPU", "8.7", cuda))
    assert cubins.known_architectures() is None
    with pytest.raises(BackendError) as refused:
        cubins.find(SOURCE, "sm_87")
    assert packages in str(refused.value)


def test_kernels_that_do_not_load_come_with_the_command_for_this_gpu(double: Double, tmp_path: Path) -> None:
    for source in kernels.SOURCES:
        cubins.keep(b"of a newer CUDA", tmp_path / cubins.file_name(source, "sm_87"))
    double.failing["cuModuleLoadDataEx"] = "device kernel image is invalid"
    with open_gpu(double) as gpu, gpu.current(), pytest.raises(GpuError, match=r"cubins --arch sm_87$"):
        cubins.KernelLibrary(gpu, tmp_path)
