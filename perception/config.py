"""Typed, frozen models of ``configs/*.yaml``.

A key that is not here is refused, with the nearest one that is. Units stand in key names. Paths in a YAML file are
relative to that file where they name what is read; what is written, and paths on the command line, are relative to the
working directory.
"""

from __future__ import annotations

import difflib
import json
import reprlib
from collections.abc import Collection, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from perception.budget import Budget
from perception.errors import ConfigError
from perception.messages import STAGES

CONFIGS: Final = Path(__file__).resolve().parents[1] / "configs"
DEFAULT: Final = "orin.yaml"
_MAX_BYTES: Final = 1_000_000
_MAX_EXTENDS: Final = 8
_MAX_SHOWN: Final = 80
_PROBLEMS: Final = {
    "missing": "is missing",
    "model_type": "expected keys under it",
    "dict_type": "expected keys under it",
    "path_type": "expected a path",
    "union_tag_not_found": "expected source: v4l2, gstreamer, rtsp or file",
}
_SHORT: Final = reprlib.Repr()  # what aliases make endless in YAML is not written out
_SHORT.maxstring = _SHORT.maxother = _MAX_SHOWN
_MERGE: Final = "tag:yaml.org,2002:merge"
_NOT_YAML: Final = (yaml.YAMLError, ValueError, RecursionError)
"""What PyYAML raises; ValueError comes of dates and numbers that there cannot be, and of bytes that are no text."""
_PATH_KEYS: Final = (
    ("replay",),
    ("decisions",),
    ("rig",),
    ("detector", "model"),
    ("engine", "directory"),
    ("gpu", "kernels"),
    ("enforcement", "ladder", "detector", "model"),
    ("cameras", "*", "path"),
    ("assume", "profile"),
)

Positive = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]  # no clock counts further than 1e9 seconds
Fraction = Annotated[float, Field(ge=0, le=1)]
Three = tuple[float, float, float]
Size = tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]]
ClassName = Literal["car", "truck", "bus", "motorcycle", "bicycle", "pedestrian"]


class Section(BaseModel):
    """Base of every model: frozen and closed; yes and no are no numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _yes_is_no_number(cls, values: Any) -> Any:
        for name, value in values.items() if isinstance(values, dict) else ():
            if isinstance(value, bool) and name in cls.model_fields and cls.model_fields[name].annotation is not bool:
                raise ValueError(f"{name}: expected anything but yes or no")
        return values


S = TypeVar("S", bound=Section)


class BudgetConfig(Section):
    """What a tick may take, in milliseconds from the earliest arrival of its frames."""

    end_to_end_ms: Positive = 20.0
    ingest_ms: Positive = 5.0
    preprocess_ms: Positive = 2.0
    detect_ms: Positive = 7.0
    nms_ms: Positive = 1.0
    fusion_ms: Positive = 3.0
    output_ms: Positive = 1.0

    @model_validator(mode="after")
    def _fits(self) -> BudgetConfig:
        total = sum(self.stage_ms(stage) for stage in STAGES)
        if total > self.end_to_end_ms:
            parts = " + ".join(f"{stage} {self.stage_ms(stage):g}" for stage in STAGES)
            raise ValueError(
                f"the stages' budgets add up to {total:g} ms ({parts}), over end_to_end_ms: {self.end_to_end_ms:g}; "
                f"cut {total - self.end_to_end_ms:g} ms from them or raise the deadline"
            )
        return self

    def stage_ms(self, stage: str) -> float:
        """The budget of one stage."""
        return float(getattr(self, f"{stage}_ms"))

    def to_budget(self) -> Budget:
        """As integer nanoseconds, for the ledger."""
        return Budget(round(self.end_to_end_ms * 1e6), {s: round(self.stage_ms(s) * 1e6) for s in STAGES})


class RungDetector(Section):
    """What a rung changes about the detector; the rest is as in `detector`."""

    model: Path | None = None
    input_size: Size | None = Field(None, description="width and height in pixels, where the model can be resized")


class RungConfig(Section):
    """One rung of the ladder: all that is different from normal on it.

    A camera is named by its name, or with all others that face the same way: ``front``, ``side`` or ``rear``.
    """

    name: Annotated[str, Field(min_length=1, max_length=60)]
    cameras: tuple[str, ...] | None = Field(None, description="only these look")
    every: Mapping[str, Annotated[int, Field(ge=1, le=100)]] = Field(
        default_factory=dict, description="how often a camera looks: every n-th tick, not all in the same"
    )
    detector: RungDetector | None = Field(None, description="a smaller one; loaded and warm from the start")
    alarm: bool = Field(default=False, description="whoever watches over the vehicle is told")


class EnforcementConfig(Section):
    """What is done so that every tick is published by its deadline."""

    enabled: bool = True
    reserve_ms: Positive | None = Field(
        None,
        description="kept for fusion and output; null: a quarter more than their budgets, or than they lately took, "
        "and half as much again in the first 40 ticks",
    )
    ladder: tuple[RungConfig, ...] = Field((), max_length=16, description="what is given up, step by step")
    window: Annotated[int, Field(ge=1, le=1000)] = Field(20, description="ticks in which overruns are counted")
    down_after: Annotated[int, Field(ge=1, le=1000)] = Field(3, description="so many overruns in them are a step down")
    up_after_s: Positive = Field(1.0, description="without an overrun for so long, a step up; longer after it failed")
    hang_s: Positive = Field(2.0, description="a channel busy with one frame for longer than this is reported")

    @model_validator(mode="after")
    def _can_step_down(self) -> EnforcementConfig:
        if self.down_after > self.window:
            raise ValueError(f"down_after: {self.down_after} overruns cannot be among window: {self.window} ticks")
        return self


class SyncConfig(Section):
    """How frames become frame sets."""

    window_ms: Positive = Field(50.0, description="frames captured this close together belong to one tick")
    max_gap_s: Positive = Field(60.0, description="a stamp that jumps further than this is dropped and counted")


class InputConfig(Section):
    """How the model wants its images; what is left out is the head's own convention."""

    channel_order: Literal["rgb", "bgr"] | None = None
    scale: Positive | None = Field(None, description="pixel values are multiplied by this first")
    mean: Three | None = Field(None, description="then this is subtracted, in the model's channel order")
    std: tuple[Positive, Positive, Positive] | None = Field(None, description="then divided by this")
    pad_value: Annotated[int, Field(ge=0, le=255)] | None = None
    pad_position: Literal["center", "bottom_right"] | None = None


class DetectorConfig(Section):
    """The detector: any ONNX model with a known head."""

    model: Path | None = None
    runtime: Literal["auto", "openvino", "onnxruntime", "tensorrt"] = Field(
        "auto",
        description="auto: openvino on the CPU; on a GPU tensorrt, or onnxruntime where TensorRT is not installed",
    )
    head: Literal["auto", "stock", "yolov5", "yolov8", "yolox", "end_to_end"] = "auto"
    input_size: Size | None = Field(
        None, description="width and height in pixels, for models whose input size is dynamic"
    )
    input: InputConfig = InputConfig()
    names: tuple[str, ...] | None = Field(None, description="the model's class names, where its metadata has none")
    classes: Mapping[str, ClassName | None] = Field(
        default_factory=dict, description="the model's class name to the pipeline's; null leaves a class out"
    )
    score_threshold: Fraction = 0.35


class EngineConfig(Section):
    """How ``python -m engines.build`` compiles the detector for a GPU, and where a run finds what it built."""

    directory: Path = Field(Path("engines/plans"), description="where plans are kept, with their manifests and logs")
    flavor: Literal["auto", "tensorrt", "rtx"] = Field(
        "auto", description="auto: TensorRT, or TensorRT for RTX where only that is installed"
    )
    timing_cache: Path | None = Field(
        Path("timing.cache"), description="what was timed, kept from build to build; in the directory. null: none"
    )
    workspace_mb: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        1024, description="memory that a layer may use while it computes"
    )
    optimization_level: Annotated[int, Field(ge=0, le=5)] = Field(
        3, description="TensorRT's builder_optimization_level: the higher, the longer it looks for a faster engine"
    )
    sparsity: bool = Field(default=False, description="use 2:4 sparsity, for weights that were pruned to it")
    dla_core: Annotated[int, Field(ge=0, le=7)] | None = Field(
        None, description="run on this DLA core of an Orin, and on the GPU what it cannot; null: all on the GPU"
    )
    version_compatible: bool = Field(default=False, description="a plan that later versions of TensorRT take too")
    hardware_compatible: Literal["none", "ampere_plus", "same_compute_capability"] = Field(
        "none", description="a plan that other GPUs take too, slower; not on a Jetson"
    )

    def settings(self) -> dict[str, bool | int | str | None]:
        """All that a plan follows from, beside the model, the machine and the library."""
        settings: dict[str, bool | int | str | None] = self.model_dump(exclude={"directory", "flavor", "timing_cache"})
        return settings


class GpuConfig(Section):
    """How the channels run on a GPU."""

    graphs: bool = Field(default=True, description="launch each camera's work as one CUDA graph, where that can be")
    kernels: Path | None = Field(
        None, description="what python -m perception.cuda.cubins compiled; before $XDG_CACHE_HOME/perception/kernels"
    )
    priorities: Mapping[str, int] = Field(
        default_factory=dict, description="stream priority by camera: the lower, the sooner its work is taken"
    )


class NmsConfig(Section):
    """Non-maximum suppression, per class."""

    iou_threshold: Fraction = 0.5
    max_candidates: Annotated[int, Field(gt=0, le=100_000)] = 1000
    max_detections: Annotated[int, Field(gt=0, le=10_000)] = 100


def _nothing_required(schema: dict[str, Any]) -> None:
    del schema["required"]  # `SizePriors` fills in what a config leaves out


class SizePrior(Section):
    """The usual extent of a class: mean and standard deviation, in metres."""

    model_config = ConfigDict(json_schema_extra=_nothing_required)

    length_m: Positive
    width_m: Positive
    height_m: Positive
    length_std_m: Positive
    width_std_m: Positive
    height_std_m: Positive


def _prior(size: Three, std: Three) -> SizePrior:
    return SizePrior(
        length_m=size[0], width_m=size[1], height_m=size[2],
        length_std_m=std[0], width_std_m=std[1], height_std_m=std[2],
    )  # fmt: skip


class SizePriors(Section):
    """The usual extents; a config may change one number of one class and keep the rest."""

    car: SizePrior = _prior((4.6, 1.9, 1.7), (0.5, 0.15, 0.25))
    truck: SizePrior = _prior((6.8, 2.4, 2.7), (2.2, 0.35, 0.8))  # from pickup to lorry
    bus: SizePrior = _prior((11.0, 2.9, 3.4), (2.0, 0.2, 0.3))
    motorcycle: SizePrior = _prior((2.1, 0.8, 1.5), (0.3, 0.15, 0.2))
    bicycle: SizePrior = _prior((1.75, 0.6, 1.5), (0.2, 0.15, 0.25))
    pedestrian: SizePrior = _prior((0.7, 0.7, 1.75), (0.15, 0.15, 0.15))

    @model_validator(mode="before")
    @classmethod
    def _keep_the_rest(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        usual = {name: field.default.model_dump() for name, field in cls.model_fields.items()}
        return {
            name: {**usual[name], **fields} if name in usual and isinstance(fields, Mapping) else fields
            for name, fields in given.items()
        }


class FusionConfig(Section):
    """Lifting to 3-D, association and tracking."""

    pixel_std: Positive = Field(3.0, description="how exact a box edge is, in pixels of the original image")
    ground_std_m: Positive = Field(0.2, description="how far the road departs from the plane under the vehicle")
    pitch_std_deg: Positive = Field(0.5, description="how far the camera departs from its calibrated pitch")
    yaw_std_deg: Positive = Field(0.2, description="how far the camera departs from its calibrated yaw")
    attributes: bool = Field(
        default=True, description="use the depth, size and heading that a detector predicts, where it does"
    )
    max_range_m: Positive = Field(100.0, description="objects further away are neither measured nor tracked")
    sizes: SizePriors = SizePriors()
    gate_probability: Annotated[float, Field(gt=0.5, lt=1)] = Field(
        0.997, description="how often the right measurement lies within a track's gate"
    )
    speed_std_mps: Positive = Field(8.0, description="how fast a new object may be moving")
    acceleration_std_mps2: Positive = Field(2.0, description="how far the velocity of what moves strays in one second")
    correlation_s: Annotated[float, Field(ge=0)] = Field(
        0.3, description="how long a sensor's errors about one object last: a wrong size, a sloping road"
    )
    confirm_s: Annotated[float, Field(ge=0)] = Field(
        0.25, description="seen over this long, a track is published; unseen for half as long before that, it ends"
    )
    coast_s: Annotated[float, Field(ge=0)] = Field(
        0.5, description="a track that was looked for and not seen is predicted and published for this long"
    )
    delete_s: Positive = Field(1.5, description="unseen for this long, a track ends; until then it keeps its id")


class LiveCamera(Section):
    """What every live camera has."""

    max_age_ms: Positive = Field(250.0, description="a frame captured longer ago than this is not taken")
    timeout_s: Positive = Field(2.0, description="without a frame for this long, the camera is opened again")
    frozen_s: Positive | None = Field(
        1.0, description="the same picture for this long is none: sensors have noise; null: it may stay the same"
    )


class V4l2Camera(LiveCamera):
    """A camera that Linux's V4L2 knows."""

    source: Literal["v4l2"]
    device: Path = Field(description="such as /dev/video0, or a link in /dev/v4l/by-path that stays the same")
    format: Literal["mjpeg", "yuyv", "uyvy", "nv12"] = "mjpeg"
    fps: Positive | None = Field(None, description="null: as the driver has it")


class GStreamerCamera(LiveCamera):
    """A camera behind a GStreamer pipeline."""

    source: Literal["gstreamer"]
    launch: Annotated[str, Field(min_length=1, max_length=4096)] = Field(
        description="as for gst-launch, up to where the pictures come out; it can do whatever GStreamer can"
    )
    format: Literal["bgr", "nv12", "mjpeg"] = Field("nv12", description="what comes out, or is to be converted to")


class RtspCamera(LiveCamera):
    """A network camera."""

    source: Literal["rtsp"]
    url: Annotated[str, Field(pattern="^rtsps?://", max_length=2048)] = Field(
        description="rtsp://HOST/PATH; ${NAME} is taken from the environment, such as a password"
    )
    transport: Literal["tcp", "udp"] = "tcp"


class FileCamera(LiveCamera):
    """A video file that plays over and over as if it were a camera."""

    source: Literal["file"]
    path: Path
    frozen_s: Positive | None = None


AnyCamera = Annotated[V4l2Camera | GStreamerCamera | RtspCamera | FileCamera, Field(discriminator="source")]


class OutputConfig(Section):
    """What is written, and where."""

    directory: Path = Path("runs/latest")
    record_images: bool = Field(default=False, description="put the input images into recording.mcap too")
    video: bool = False
    trace: bool = False
    profile: Path | None = Field(None, description="write what this machine's ticks cost there, for `assume`")


class AssumeConfig(Section):
    """Another machine's costs, in virtual time, instead of this one's; for replays."""

    profile: Path | None = Field(None, description="what that machine's ticks cost, as a run on it wrote it down")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(0, description="what is drawn from the profile")


class FlightConfig(Section):
    """The flight recorder: the last seconds in memory, and on disk what was around an event."""

    enabled: bool = False
    directory: Path = Path("runs/flight")
    before_s: Positive = Field(10.0, description="how much is kept of what was before an event")
    after_s: Positive = Field(5.0, description="and of what was after it; another event meanwhile makes it longer")
    longest_s: Positive = Field(30.0, description="but no longer than this after the first")
    memory_mb: Positive = Field(512.0, description="what all that is kept in memory may take")
    quota_mb: Positive = Field(4096.0, description="what all events on disk may take; the oldest go first")
    overruns: Annotated[int, Field(ge=1, le=10_000)] = Field(
        3, description="this many ticks that were late, dropped, or had a camera cut off are an event"
    )
    overruns_within_s: Positive = Field(5.0, description="when they come within this time")
    camera_lost_s: Positive = Field(1.0, description="a camera missing for this long is an event")


class DaemonConfig(Section):
    """The process on the vehicle."""

    runtime_directory: Path | None = Field(
        None,
        description="for tracks.sock and the lock; null: $RUNTIME_DIRECTORY as systemd gives it, else output.directory",
    )
    record: bool = Field(
        default=False,
        description="record tracks, detections and recording.mcap all day, each start in a directory of its own under "
        "output.directory; for test drives: nothing is ever deleted",
    )
    cpus: tuple[Annotated[int, Field(ge=0, lt=2**16)], ...] | None = Field(
        None, description="run on these processors only"
    )
    fifo_priority: Annotated[int, Field(ge=1, le=99)] | None = Field(40, description="of the thread that ticks")
    lock_memory: bool = True


class HealthConfig(Section):
    """HTTP for those who operate the vehicle: /healthz, /readyz, /metrics, POST /flight."""

    address: str = Field("127.0.0.1", description="anything but loopback shows them to the network")
    port: Annotated[int, Field(ge=0, le=65535)] | None = Field(9610, description="0: any that is free; null: no HTTP")
    stale_s: Positive = Field(2.0, description="unready when no tick was on time for this long")


class Config(Section):
    """A whole run."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    preprocess: Literal["auto", "opencv", "dali", "kernel"] = Field(
        "auto",
        description="auto: opencv on the CPU; on a GPU dali, or kernel where DALI is not there or has no code for it",
    )
    threads: Annotated[int, Field(ge=1, le=256)] | None = Field(None, description="null: every core allowed")
    replay: Path | None = Field(None, description="a drive: .mcap, a video file, or a folder of images")
    rig: Path | None = Field(
        None, description="calibration of live cameras, and of drives; goes before what a drive holds"
    )
    cameras: Mapping[str, AnyCamera] = Field(
        default_factory=dict, description="live cameras by their name in the rig; used where there is no replay"
    )
    decisions: Path | None = Field(None, description="a run's directory: its ticks are had again, as they were decided")
    pace: Literal["realtime", "stepped"] = "realtime"
    loop: Annotated[int, Field(ge=1)] = Field(1, description="how often the drive is replayed")
    budget: BudgetConfig = BudgetConfig()
    enforcement: EnforcementConfig = EnforcementConfig()
    sync: SyncConfig = SyncConfig()
    detector: DetectorConfig = DetectorConfig()
    engine: EngineConfig = EngineConfig()
    gpu: GpuConfig = GpuConfig()
    nms: NmsConfig = NmsConfig()
    fusion: FusionConfig = FusionConfig()
    output: OutputConfig = OutputConfig()
    assume: AssumeConfig = AssumeConfig()
    flight: FlightConfig = FlightConfig()
    daemon: DaemonConfig = DaemonConfig()
    health: HealthConfig = HealthConfig()

    @model_validator(mode="after")
    def _leaves_time_to_look(self) -> Config:
        reserve_ms, end_to_end_ms = self.enforcement.reserve_ms, self.budget.end_to_end_ms
        if reserve_ms is not None and reserve_ms >= end_to_end_ms:
            raise ValueError(
                f"enforcement.reserve_ms: {reserve_ms:g} leaves no time to look: expected less than "
                f"budget.end_to_end_ms: {end_to_end_ms:g}"
            )
        return self


def load(name: str, overrides: Sequence[tuple[str, Any]] = ()) -> Config:
    """Read a config by path or by name in ``configs/``, resolve ``extends``, apply overrides, validate.

    `overrides` are dotted keys and values, applied in order. Raises `ConfigError` for whatever is wrong with it.
    """
    path = find(name)
    return from_tree(_read(path, depth=0), path, overrides)


def from_tree(tree: dict[str, Any], path: Path, overrides: Sequence[tuple[str, Any]] = ()) -> Config:
    """A config from what was parsed from a file, with overrides as for `load`; raises `ConfigError`."""
    for key, value in overrides:
        _assign(tree, key, value)
    return validate(Config, tree, path, {key for key, _ in overrides})


def load_file(path: Path, model: type[S]) -> S:
    """Read one YAML file into a model of its own, such as a rig; raises `ConfigError`."""
    return validate(model, _parse(path), path)


def find(name: str) -> Path:
    """The file behind ``--config NAME``."""
    candidates = (Path(name), CONFIGS / name, CONFIGS / f"{name}.yaml")
    try:
        found = next((candidate for candidate in candidates if candidate.is_file()), None)
    except OSError as error:  # a directory that may not be entered, a name that is too long
        raise ConfigError(f"no config {name!r}: {error.strerror}") from None
    if found is not None:
        return found
    known = sorted(path.name for path in CONFIGS.glob("*.yaml"))
    raise ConfigError(
        f"no config {name!r}: neither a file nor one of configs/: {', '.join(known)}{_nearest(name, known)}"
    )


def parse_override(text: str) -> tuple[str, Any]:
    """Parse ``a.b=c`` of ``--set``; the value is YAML."""
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise ConfigError(f"--set {text!r}: expected KEY=VALUE, such as --set nms.iou_threshold=0.6")
    try:
        return key, yaml.load(value, _Loader)  # noqa: S506 (it is a SafeLoader)
    except _NOT_YAML as error:
        raise ConfigError(f"--set {text!r}: the value is not YAML: {_first_line(error)}") from None


def to_yaml(config: Config) -> str:
    """The whole config as YAML, defaults included; in the working directory it loads back to the same config."""
    text: str = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    return text


def schema() -> str:
    """The JSON Schema of a config file, for editors."""
    document = Config.model_json_schema()
    document["properties"]["extends"] = {"type": "string", "description": "a config that this one changes"}
    return json.dumps(document, indent=2) + "\n"


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, refusing a key given twice, what contains itself, and NUL, which no path may hold."""

    def __init__(self, stream: bytes | str) -> None:
        super().__init__(stream)
        self.deep_construct = True  # at once, not when all around it is there: then PyYAML refuses circles

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        if "\0" in node.value:
            raise yaml.MarkedYAMLError(problem="a NUL character", problem_mark=node.start_mark)
        return super().construct_scalar(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == _MERGE:
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                problem = f"a key is expected to be a word, got a {type(key).__name__}"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key!r} is given twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _read(path: Path, depth: int) -> dict[str, Any]:
    if depth > _MAX_EXTENDS:
        raise ConfigError(f"{path}: configs extend each other more than {_MAX_EXTENDS} deep; is there a circle?")
    tree = _parse(path)
    for keys in _PATH_KEYS:
        _make_relative_to(tree, keys, path.parent.absolute())
    parent = tree.pop("extends", None)
    if parent is None:
        return tree
    if not isinstance(parent, str):
        raise ConfigError(f"{path}: extends: expected the name of one config, got {parent!r}")
    beside = path.parent / parent
    return _merge(_read(beside if beside.is_file() else find(parent), depth + 1), tree)


def _parse(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > _MAX_BYTES:
        raise ConfigError(f"{path}: {len(data)} bytes; a config has at most {_MAX_BYTES}")
    try:
        tree = yaml.load(data, _Loader)  # noqa: S506 (it is a SafeLoader)
    except _NOT_YAML as error:
        raise ConfigError(f"{path}: not YAML: {_first_line(error)}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected a mapping of keys at the top, got {type(tree).__name__}")
    return tree


def _first_line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
    return f"{problem}, line {mark.line + 1}" if mark else str(problem)


def _make_relative_to(tree: Any, keys: Sequence[str], directory: Path) -> None:
    """Put the directory before a path, if there is one; a list, or a ``*`` in `keys`, stands for all that is there."""
    if isinstance(tree, list):
        for item in tree:
            _make_relative_to(item, keys, directory)
    elif isinstance(tree, dict) and keys[0] == "*":
        _make_relative_to(list(tree.values()), keys[1:], directory)
    elif isinstance(tree, dict):
        key, *rest = keys
        value = tree.get(key)
        if rest:
            _make_relative_to(value, rest, directory)
        elif isinstance(value, str) and not Path(value).is_absolute():
            tree[key] = str(directory / value)


def _merge(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        merged[key] = _merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def _assign(tree: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for key in parents:
        child = tree.setdefault(key, {})
        if not isinstance(child, dict):
            raise ConfigError(f"--set {dotted}: {key} is a value, it has no keys under it")
        tree = child
    tree[last] = value


def validate(model: type[S], tree: dict[str, Any], path: Path, overridden: Collection[str] = ()) -> S:
    """Fill a model from parsed YAML; when it does not fit, the `ConfigError` names `path`, or the command line."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        where = ".".join(str(part) for part in first["loc"])
        unknown = first["type"] == "extra_forbidden"
        if unknown:
            known = _known_keys(model, first["loc"][:-1])
            message = f"unknown key {where!r}{_nearest(str(first['loc'][-1]), known)}; known here: {', '.join(known)}"
        else:
            message = f"{where}: {_problem(first)}".removeprefix(": ")  # where it is of the whole
        # What is unknown may also be a section of the key that was set.
        on_command_line = any(
            f"{where}.".startswith(f"{key}.") or (unknown and key.startswith(f"{where}.")) for key in overridden
        )
        raise ConfigError(f"{'on the command line' if on_command_line else path}: {message}{more}") from None


def _problem(error: Any) -> str:
    """What pydantic says, in the words of a config file."""
    kind, context = error["type"], error.get("ctx", {})
    if kind in _PROBLEMS:
        problem = _PROBLEMS[kind]
    elif kind == "union_tag_invalid":
        return f"expected {context['discriminator']}: one of {context['expected_tags']}, got {context['tag']!r}"
    else:
        problem = error["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    got = "" if isinstance(error["input"], dict) else f", got {_SHORT.repr(error['input'])[:_MAX_SHOWN]}"
    return f"{problem}{got}"


def _known_keys(model: type[Section], location: Sequence[Any]) -> list[str]:
    here = [model]
    for part in location:
        below = [s for m in here if part in m.model_fields for s in _sections_in(m.model_fields[part].annotation)]
        tagged = [m for m in here if any(part in get_args(field.annotation) for field in m.model_fields.values())]
        here = below or tagged or here  # or it is an item of a list, or a name in a mapping
    return sorted({name for m in here for name in m.model_fields})


def _sections_in(annotation: Any) -> list[type[Section]]:
    """The models in a type such as ``tuple[RungConfig, ...]`` or ``RungDetector | None``."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for inner in get_args(annotation) for section in _sections_in(inner)]


def _nearest(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
