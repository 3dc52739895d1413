from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from perception import config
from perception.config import Config
from perception.cuda import cubins, kernels
from perception.cuda.nvidia import PresentGpu
from perception.doctor import detector, finding, graphics, machine, sources
from perception.doctor.__main__ import EXIT_MISSING, EXIT_REFUSED, bounded, examine, main
from perception.doctor.finding import Case, Finding

ORIN = PresentGpu("Orin", "8.7", "13.2")
THOR = PresentGpu("NVIDIA Thor", "11.0", "13.2")


def case(tmp_path: Path, *, gpu: PresentGpu | None = None, **keys: object) -> Case:
    """`gpu` is the machine's, `gpu_` the section of the config."""
    return Case(
        Config.model_validate({key.rstrip("_"): value for key, value in keys.items()}), "mine.yaml", gpu, tmp_path
    )


def put(root: Path, path: str, content: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(content)


def without(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    monkeypatch.setattr(graphics, "is_there", lambda module: module not in modules and finding.is_there(module))


def test_this_machine_can_run_the_sample_drive_on_its_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", "cpu.yaml"]) == 0

    shown = capsys.readouterr().out
    assert "cpu.yaml can run here" in shown
    assert len(shown.splitlines()) < 50  # one screen


def test_what_is_missing_is_named_with_what_mends_it(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(
        ["--config", "cpu.yaml", "--set", "replay=/nowhere.mcap", "--set", "detector.model=/nowhere.onnx", "--json"]
    )

    told = json.loads(capsys.readouterr().out)
    assert code == EXIT_MISSING
    assert not told["works"]
    missing = {line["name"]: line for line in told["findings"] if line["state"] == "missing"}
    assert set(missing) == {"detector", "source"}
    assert "/nowhere.onnx" in missing["detector"]["what"]
    assert all(line["remedy"] for line in missing.values())


def test_a_config_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", "nothing.yaml"]) == EXIT_REFUSED
    assert capsys.readouterr().err.count("\n") == 1


def test_it_imports_none_of_the_runtimes_to_look_at_their_versions() -> None:
    code = (
        "import sys; from perception.doctor.__main__ import main; main(['--config', 'cpu.yaml', '--json']);"
        "sys.exit(any(name in sys.modules for name in"
        " ('openvino', 'onnxruntime', 'nvidia.dali', 'tensorrt', 'tensorrt_rtx', 'pycuda', 'torch')))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=60)

    assert (done.returncode, done.stderr) == (0, b"")


def test_a_check_that_hangs_or_breaks_is_told() -> None:
    def hangs(_: Case) -> Finding:
        time.sleep(60)
        raise AssertionError

    def breaks(_: Case) -> Finding:
        raise OSError("the driver is broken")

    findings = examine(Case(Config(), "mine.yaml", None), (hangs, breaks, machine.python), longest_s=0.5)

    assert [found.state for found in findings] == ["missing", "missing", "ok"]
    assert "no answer" in findings[0].what
    assert "the driver is broken" in findings[1].what


def test_probes_run_side_by_side() -> None:
    began = time.monotonic()

    bounded([lambda: time.sleep(0.5)] * 20, longest_s=30)

    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("release", "said"),
    [
        ("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64", "L4T 36.4.3 (JetPack 6)"),
        ("# R39 (release), REVISION: 2.0, GCID: 1, BOARD: generic, EABI: aarch64", "L4T 39.2.0 (JetPack 7)"),
    ],
)
def test_a_jetson_says_what_it_runs(tmp_path: Path, release: str, said: str) -> None:
    put(tmp_path, "etc/os-release", 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 24.04.2 LTS"\n')
    put(tmp_path, "etc/nv_tegra_release", release + "\n")

    found = machine.operating_system(case(tmp_path))

    assert found.what.startswith("Ubuntu 24.04.2 LTS, ")
    assert found.what.endswith(said)


def test_clocks_that_may_move_are_told(tmp_path: Path) -> None:
    put(tmp_path, "etc/nv_tegra_release", "# R39 (release), REVISION: 2.0")
    for end, frequency in (("min", "2201600"), ("max", "2201600")):
        put(tmp_path, f"sys/devices/system/cpu/cpu0/cpufreq/scaling_{end}_freq", frequency)
    gpu = "sys/class/devfreq/17000000.gpu"
    put(tmp_path, f"{gpu}/min_freq", "306000000")
    put(tmp_path, f"{gpu}/max_freq", "1300500000")

    moving = machine.clocks(case(tmp_path))
    put(tmp_path, f"{gpu}/min_freq", "1300500000")
    fixed = machine.clocks(case(tmp_path))

    assert (moving.state, moving.remedy) == ("optional", "sudo jetson_clocks")
    assert "17000000.gpu" in moving.what
    assert "CPU" not in moving.what
    assert fixed.state == "ok"


@pytest.mark.parametrize(("device", "state"), [("cuda", "missing"), ("auto", "not needed"), ("cpu", "not needed")])
def test_without_a_gpu_only_a_config_that_asks_for_it_cannot_run(tmp_path: Path, device: str, state: str) -> None:
    assert graphics.gpu(case(tmp_path, device=device)).state == state
    assert detector.plan(case(tmp_path, device=device)).state == state


def test_what_the_gpu_path_lacks_is_told_where_there_is_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "pycuda", "cuda.bindings.driver", "tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    asked = case(
        tmp_path,
        gpu=ORIN,
        device="cuda",
        detector={"model": config.CONFIGS.parent / "engines/stock/detector.int8.onnx"},
    )
    auto = Case(asked.config.model_copy(update={"device": "auto"}), "mine.yaml", ORIN)

    monkeypatch.setattr(graphics, "_providers", list)
    for check in (graphics.pycuda, graphics.tensorrt, detector.plan):
        assert check(asked).state == "missing"
        assert check(asked).remedy
        assert check(auto).state == "optional"
    assert graphics.cuda_python(asked).state == "optional"  # it runs, without graphs
    assert graphics.kernels_compiled(asked).remedy == "python -m perception.cuda.cubins --arch sm_87"
    assert detector.plan(asked).remedy == "python -m engines.build --config mine.yaml --if-needed"


@pytest.mark.parametrize(("cuda", "bindings"), [("12.6", "12.9.4"), ("13.2", "13.5.0")])
def test_cuda_python_is_to_be_of_the_drivers_cuda(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuda: str, bindings: str
) -> None:
    asked = case(tmp_path, gpu=PresentGpu("Orin", "8.7", cuda), device="cuda")
    monkeypatch.setattr(graphics, "is_there", lambda module: module == "cuda.bindings.driver")
    monkeypatch.setattr(graphics, "version_of", lambda _: bindings)
    assert graphics.cuda_python(asked).state == "ok"

    monkeypatch.setattr(graphics, "version_of", lambda _: "14.0.0")
    later = graphics.cuda_python(asked)
    assert (later.state, later.remedy) == ("missing", f"pip install 'cuda-bindings=={cuda[:2]}.*'")
    assert later.what == f"14.0.0 is too new for this driver, which runs CUDA up to {cuda}"

    without(monkeypatch, "cuda.bindings.driver")
    absent = graphics.cuda_python(asked)
    assert (absent.state, absent.remedy) == ("optional", later.remedy)


def test_onnx_runtime_stands_in_for_tensorrt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")
    asked = case(tmp_path, gpu=THOR, device="cuda")

    monkeypatch.setattr(graphics, "_providers", lambda: ["cuda"])
    assert graphics.tensorrt(asked).state == "optional"
    assert detector.plan(asked).state == "not needed"
    monkeypatch.setattr(graphics, "_providers", list)
    assert graphics.tensorrt(asked).state == "missing"
    told = graphics.onnxruntime_providers(case(tmp_path, gpu=THOR, device="cuda", detector={"runtime": "onnxruntime"}))
    assert (told.state, told.remedy) == ("missing", "pip install onnxruntime-gpu in its place")


def test_tensorrt_for_rtx_is_of_no_use_to_some_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphics, "_providers", lambda: ["cuda"])
    monkeypatch.setattr(graphics, "tensorrt_here", lambda _: ("rtx", "1.7.1"))

    assert graphics.gpu_runtime(case(tmp_path, gpu=ORIN, device="cuda")) == "onnxruntime"
    assert graphics.gpu_runtime(case(tmp_path, gpu=THOR, device="cuda")) == "tensorrt"


def test_kernels_are_looked_for_where_the_run_will(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none"))
    for source in kernels.SOURCES:
        put(tmp_path, f"kernels/{cubins.file_name(source, 'sm_110')}", "")

    assert graphics.kernels_compiled(case(tmp_path, gpu=THOR)).state != "ok"
    found = graphics.kernels_compiled(case(tmp_path, gpu=THOR, gpu_={"kernels": tmp_path / "kernels"}))

    assert found.state == "ok"
    assert "sm_110" in found.what


def test_preprocessing_is_told_as_it_will_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nvidia.dali")

    assert graphics.preprocessing(case(tmp_path, gpu=ORIN)).what.startswith("kernel: ")
    assert graphics.preprocessing(case(tmp_path, gpu=THOR)).what.startswith("dali: ")
    assert graphics.preprocessing(case(tmp_path)).what.startswith("opencv: ")
    monkeypatch.setattr("perception.backends._has_dali", lambda: False)
    for wanted in ("dali", "kernel"):  # one is not installed, the other has nothing to run on
        assert graphics.preprocessing(case(tmp_path, preprocess=wanted)).state == "missing"


def test_cameras_that_are_not_there_are_named(tmp_path: Path) -> None:
    camera = {"source": "v4l2", "device": str(tmp_path / "dev/video7")}
    put(tmp_path, "dev/video0", "")

    absent = sources.video_devices(case(tmp_path, cameras={"CAM_FRONT": camera}))
    put(tmp_path, "dev/video7", "")
    there = sources.video_devices(case(tmp_path, cameras={"CAM_FRONT": camera}))

    assert absent.state == "missing"
    assert "video7" in absent.what
    assert "here are: video0" in absent.what
    assert there.state == "ok"
    assert sources.video_devices(case(tmp_path)).state == "ok"


def test_with_neither_drive_nor_cameras_there_is_nothing_to_run_on(tmp_path: Path) -> None:
    assert sources.source(case(tmp_path)).state == "missing"
    assert sources.source(case(tmp_path, cameras={"A": {"source": "file", "path": "a.mp4"}})).state == "ok"


def test_the_version_of_a_module_is_read_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "heavy/__init__.py", '__version__ = "10.16.1.11"\nraise RuntimeError\n')
    monkeypatch.syspath_prepend(tmp_path)

    assert finding.module_version("heavy") == "10.16.1.11"
    assert finding.module_version("not_there_at_all") is None
    assert not finding.is_there("not_there_at_all.part")
