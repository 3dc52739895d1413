"""The detector: its model, the runtime on the CPU, the plan for this GPU, and their manifests."""

from __future__ import annotations

from perception.config import DetectorConfig
from perception.detect.manifest import read_manifest
from perception.detect.plan_manifest import Hardware, Place, mismatch, plan_path, read_plan_manifest
from perception.doctor.finding import Case, Finding, is_there, version_of
from perception.doctor.graphics import gpu_runtime, tensorrt_here
from perception.errors import ModelError
from perception.hashing import sha256


def openvino(case: Case) -> Finding:
    """The runtime on the CPU."""
    if is_there("openvino"):
        return Finding("OpenVINO", "ok", version_of("openvino"))
    wanted = case.config.detector.runtime in {"auto", "openvino"} and not case.on_gpu
    remedy = "pip install openvino, or detector.runtime: onnxruntime"
    return Finding("OpenVINO", "missing" if wanted else "not needed", "not installed", remedy)


def model(case: Case) -> Finding:
    """The ONNX model, and what its manifest says of it."""
    path = case.config.detector.model
    if path is None:
        return Finding("detector", "missing", "none is named", "detector.model: FILE.onnx in the config, or --model")
    if not path.is_file():
        return Finding("detector", "missing", f"{path}: there is no such file", "name another with detector.model")
    try:
        manifest = read_manifest(path)
    except ModelError as error:
        what, _, remedy = str(error).partition("; ")
        return Finding("detector", "missing", what, remedy)
    if manifest is None:
        return Finding("detector", "ok", f"{path.name}, without a manifest: not made by engines.quantize")
    return Finding("detector", "ok", f"{path.name}: {manifest.line()}")


def plan(case: Case) -> Finding:
    """The detector compiled for this GPU, held against this machine."""
    detector = case.config.detector
    if not case.on_gpu:
        return Finding("engine", "not needed", "the detector runs on the CPU")
    if gpu_runtime(case) == "onnxruntime":
        return Finding("engine", "not needed", "ONNX Runtime runs the model as it is")
    if detector.model is None or not detector.model.is_file():
        return Finding("engine", case.gpu_part, "there is no detector to build it from")
    reason = _why_no_plan(case, detector)
    if reason is None:
        return Finding("engine", "ok", "built for this machine")
    return Finding("engine", case.gpu_part, reason, f"python -m engines.build --config {case.config_name} --if-needed")


def _why_no_plan(case: Case, detector: DetectorConfig) -> str | None:
    assert detector.model is not None  # noqa: S101 (the caller looked)
    digest = sha256(detector.model)
    path = plan_path(case.config.engine, detector.model, digest, detector.input_size)
    try:
        manifest = read_plan_manifest(path)
    except ModelError as error:
        return str(error)
    if manifest is None:
        return f"{path}: not built yet"
    library = tensorrt_here(case.config)
    if library is None:
        return f"{path}: there is no TensorRT to run it"
    hardware = case.gpu and Hardware(name=case.gpu.name, compute_capability=case.gpu.compute_capability)
    return mismatch(manifest, path, Place(digest, *library, hardware, case.config.engine.settings()))
