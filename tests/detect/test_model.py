"""Opening a detector: what is refused, in which words; and what is taken, by either runtime."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from perception import config
from perception.detect import onnxruntime, openvino
from perception.detect.model import Detector
from perception.errors import ConfigError, ModelError
from perception.messages import Float32
from tests.detect import onnx_models

Load = Callable[..., Detector]
ROWS = np.arange(48, dtype=np.float32).reshape(1, 8, 6)
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 3663048\n"


@pytest.fixture(params=["openvino", "onnxruntime"])
def load(request: pytest.FixtureRequest) -> Load:
    module = {"openvino": openvino, "onnxruntime": onnxruntime}[request.param]

    def loaded(path: Path, cameras: int = 1, threads: int = 1, input_size: tuple[int, int] | None = None) -> Detector:
        return module.load(path, threads=threads, cameras=cameras, input_size=input_size)  # type: ignore[no-any-return]

    return loaded


def grey(detector: Detector, level: float) -> tuple[Float32, ...]:
    request = detector.request()
    request.input[...] = level
    request.submit()
    return request.collect()


def test_missing_file(load: Load, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"absent\.onnx: no such model file"):
        load(tmp_path / "absent.onnx")


def test_other_format(load: Load, tmp_path: Path) -> None:
    path = tmp_path / "detector.pt"
    path.write_bytes(b"PK")

    with pytest.raises(ModelError, match=r"detector\.pt: expected an ONNX model"):
        load(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (POINTER, "Git-LFS pointer.*git lfs pull"),
        (b"", "0 bytes"),
        (b"no model at all" * 100, "cannot load it.*ONNX"),
    ],
    ids=["lfs", "empty", "garbage"],
)
def test_file_that_is_no_model(load: Load, tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "detector.onnx"
    path.write_bytes(content)

    with pytest.raises(ModelError, match=message) as refusal:
        load(path)

    assert "\n" not in str(refusal.value)


def test_truncated_file(load: Load, tmp_path: Path) -> None:
    path = onnx_models.write_convolutions(tmp_path / "detector.onnx")
    path.write_bytes(path.read_bytes()[:-5000])

    with pytest.raises(ModelError, match="cannot load it"):
        load(path)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([(TensorProto.FLOAT, (1, 3, 64, 64)), (TensorProto.FLOAT, (1, 2))], "2 inputs.*input1 1x2"),
        ([(TensorProto.FLOAT, (1, 64, 64, 3))], r"1x64x64x3; expected one float32 image of shape \(batch, 3"),
        ([(TensorProto.FLOAT, (1, 3, 64))], "1x3x64; expected"),
        ([(TensorProto.FLOAT16, (1, 3, 64, 64))], "not float32"),
        ([(TensorProto.FLOAT, (1, 3, 64, 100_000))], "100000x64; expected at most"),
    ],
    ids=["two inputs", "channels last", "three dimensions", "half", "huge"],
)
def test_input_that_is_not_one_image(
    load: Load, tmp_path: Path, inputs: list[tuple[int, tuple[int, ...]]], message: str
) -> None:
    path = onnx_models.write_inputs(tmp_path / "detector.onnx", *inputs)

    with pytest.raises(ModelError, match=message):
        load(path)


def test_open_image_size_has_to_be_given(load: Load, tmp_path: Path) -> None:
    path = onnx_models.write(tmp_path / "detector.onnx", {"output": ROWS}, shape=("batch", 3, "height", "width"))

    with pytest.raises(ConfigError, match=r"leaves the image size open; set detector\.input_size"):
        load(path)

    assert load(path, input_size=(96, 64)).model.input_size == (96, 64)
    assert load(path, input_size=(96, 64)).request().input.shape == (3, 64, 96)


def test_an_image_size_that_does_not_suit_the_model_is_named(load: Load, tmp_path: Path) -> None:
    path = onnx_models.write_with_shortcut(tmp_path / "detector.onnx", ("batch", 3, "height", "width"))

    assert load(path, input_size=(96, 64)).model.input_size == (96, 64)
    with pytest.raises(ConfigError, match=r"detector\.input_size: 97x65 .width x height. does not suit") as refusal:
        load(path, input_size=(97, 65))
    assert "\n" not in str(refusal.value)


def test_a_model_that_cannot_run_at_its_own_size_is_to_blame_itself(load: Load, tmp_path: Path) -> None:
    path = onnx_models.write_with_shortcut(tmp_path / "detector.onnx", (1, 3, 65, 97))

    with pytest.raises(ModelError, match="cannot load it"):
        load(path, input_size=(97, 65))


def test_fixed_image_size_is_not_overridden(load: Load, tmp_path: Path) -> None:
    path = onnx_models.write(tmp_path / "detector.onnx", {"output": ROWS})

    with pytest.raises(ConfigError, match=r"input_size: 96x64.*fixed at 64x64"):
        load(path, input_size=(96, 64))


@pytest.mark.parametrize("batch", [1, "batch", 4], ids=["single", "dynamic", "fixed"])
def test_batch_sizes(load: Load, tmp_path: Path, batch: int | str) -> None:
    path = onnx_models.write(tmp_path / "detector.onnx", {"output": ROWS}, shape=(batch, 3, 64, 64), gain=1)

    (output,) = grey(load(path), level=100)

    np.testing.assert_allclose(output, ROWS[0] + 100, rtol=1e-5)


@pytest.mark.parametrize("reshape", [(4, 8, 6), (4, -1, 6)], ids=str)
def test_batch_size_written_into_the_graph(load: Load, tmp_path: Path, reshape: tuple[int, ...]) -> None:
    """One image out of four is then used: (4, -1, 6) made single would quietly split one image's rows over four."""
    path = onnx_models.write(
        tmp_path / "detector.onnx", {"output": ROWS}, shape=(4, 3, 64, 64), gain=1, reshape=reshape
    )

    detector = load(path)
    (output,) = grey(detector, level=100)

    np.testing.assert_allclose(output, ROWS[0] + 100, rtol=1e-5)
    assert any("only takes 4 images at once" in note for note in detector.notes)


def test_requests_in_flight_do_not_mix(load: Load, tmp_path: Path) -> None:
    detector = load(onnx_models.write(tmp_path / "detector.onnx", {"output": ROWS}, gain=1), cameras=6, threads=2)
    requests = [detector.request() for _ in range(6)]

    for _ in range(20):
        for level, request in enumerate(requests):
            request.input[...] = level
            request.submit()
        for level, request in reversed(list(enumerate(requests))):
            np.testing.assert_allclose(request.collect()[0], ROWS[0] + level, rtol=1e-5)

    detector.close()


def test_an_inference_that_is_cancelled_ends_and_the_next_one_is_as_ever(load: Load) -> None:
    stock = config.load("base.yaml").detector.model
    assert stock is not None
    detector = load(stock.parent / "detector.onnx")
    request = detector.request()
    request.cancel()  # with nothing under way
    request.submit()
    expected = [output.copy() for output in request.collect()]
    ended = 0
    for _ in range(5):
        request.submit()
        request.cancel()
        try:
            request.collect()
        except Exception:  # noqa: BLE001 (the runtimes' errors share no narrower base)
            ended += 1
    assert ended > 0  # each one that had not come to its end
    request.submit()
    for output, before in zip(request.collect(), expected, strict=True):
        np.testing.assert_array_equal(output, before)
    detector.close()


def test_outputs_without_batch_axis_and_of_varying_length(load: Load, tmp_path: Path) -> None:
    rows = np.array([[0, 0, 9, 9, 0.2, 1], [5, 5, 9, 9, 0.4, 0]], np.float32)
    detector = load(onnx_models.write_with_nms_inside(tmp_path / "detector.onnx", rows))

    assert detector.model.outputs["detections"].shape == (0, 6)
    for level, expected in ((0.0, rows[:0]), (0.2, rows[1:]), (0.4, rows), (0.2, rows[1:])):
        np.testing.assert_array_equal(grey(detector, level)[0], expected)


def test_metadata_and_outputs_are_known_after_loading(load: Load, tmp_path: Path) -> None:
    metadata = {"names": "{0: 'car', 1: 'bus'}", "stride": "32"}
    labels = np.array([[3, 1]], np.int64)
    path = onnx_models.write(tmp_path / "detector.onnx", {"boxes": ROWS[..., :4], "labels": labels}, metadata=metadata)

    model = load(path).model

    assert {key: model.metadata[key] for key in metadata} == metadata
    assert list(model.outputs) == ["boxes", "labels"]
    np.testing.assert_array_equal(model.outputs["boxes"], ROWS[0, :, :4])
    np.testing.assert_array_equal(model.outputs["labels"], labels[0])
    assert model.outputs["labels"].dtype == np.int64


def test_notes_say_what_runs(load: Load, tmp_path: Path) -> None:
    detector = load(onnx_models.write(tmp_path / "detector.onnx", {"output": ROWS}), cameras=3, threads=2)

    (note,) = detector.notes
    assert note.startswith(("OpenVINO", "ONNX Runtime"))
    assert note.endswith(", streams: 2, threads: 2")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="on other processors the plugin takes other layers in INT8")
def test_openvino_says_what_it_computes_in(tmp_path: Path) -> None:
    stock = config.load("base.yaml").detector.model
    assert stock is not None
    float_model = onnx_models.write_convolutions(tmp_path / "detector.onnx")
    for model, precision in (
        (float_model, "in float32"),
        (stock, "31 of 33 weighted layers in INT8, the rest in float32"),
    ):
        detector = openvino.load(model, threads=1, cameras=1)
        assert f" on the CPU, {precision}, streams: 1" in detector.notes[0]
        detector.close()


@pytest.mark.parametrize(("cameras", "threads"), [(1, 1), (1, 2), (2, 2)])
def test_results_do_not_depend_on_threads(load: Load, tmp_path: Path, cameras: int, threads: int) -> None:
    path = onnx_models.write_convolutions(tmp_path / "detector.onnx")
    image = np.random.default_rng(1).uniform(0, 1, (3, 64, 64)).astype(np.float32)

    def run(detector: Detector) -> Float32:
        request = detector.request()
        request.input[...] = image
        request.submit()
        output: Float32 = request.collect()[0].copy()
        return output

    np.testing.assert_array_equal(run(load(path)), run(load(path, cameras, threads)))


def test_runtimes_agree(tmp_path: Path) -> None:
    path = onnx_models.write_convolutions(tmp_path / "detector.onnx")
    image = np.random.default_rng(1).uniform(0, 1, (3, 64, 64)).astype(np.float32)
    outputs = []
    for module in (openvino, onnxruntime):
        request = module.load(path, threads=1, cameras=1).request()
        request.input[...] = image
        request.submit()
        outputs.append(request.collect()[0])

    np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-5)


def test_both_runtimes_say_the_same_of_an_int8_model_that_concatenates() -> None:
    """OpenVINO, left to itself, loses the scales of what goes into a concatenation."""
    stock = config.load("base.yaml").detector.model
    assert stock is not None
    said = []
    for runtime in (openvino, onnxruntime):
        detector = runtime.load(stock, threads=1, cameras=1)
        request = detector.request()
        height, width = request.input.shape[1:]
        gradient = np.linspace(0, 255, width, dtype=np.float32)
        request.input[...] = np.random.default_rng(0).uniform(0, 40, (3, height, 1)).astype(np.float32) + 0.8 * gradient
        request.submit()
        said.append([output.copy() for output in request.collect()])
        detector.close()
    for ours, theirs in zip(*said, strict=True):
        assert float(np.mean((ours - theirs) ** 2) / np.var(theirs)) < 0.01


def test_no_runtime_tells_anybody_of_its_use() -> None:
    """OpenVINO's package would, at its import: over the network, on a thread and from a fork of its own."""
    script = (
        "import sys, threading\n"
        "from perception.detect import openvino\n"
        "print([name for name in sys.modules if name.startswith('openvino_telemetry.')], threading.active_count())"
    )
    said = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert said.stdout == "[] 1\n"
