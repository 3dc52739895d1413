from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from perception import config
from perception.errors import ConfigError


def write(directory: Path, text: str, name: str = "my.yaml") -> str:
    path = directory / name
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", [path.name for path in config.CONFIGS.glob("*.yaml")])
def test_every_shipped_config_loads_by_name_and_round_trips(name: str, tmp_path: Path) -> None:
    loaded = config.load(name)
    assert config.load(write(tmp_path, config.to_yaml(loaded))) == loaded


def test_the_schema_beside_the_configs_is_current() -> None:
    assert (config.CONFIGS / "schema.json").read_text() == config.schema(), (
        "python -m perception.run --print-schema > configs/schema.json"
    )
    assert "extends" in json.loads(config.schema())["properties"]


def test_a_config_extends_another_and_overrides_win(tmp_path: Path) -> None:
    write(tmp_path, "nms: {iou_threshold: 0.4, max_detections: 7}", "parent.yaml")
    child = write(tmp_path, "extends: parent.yaml\nnms: {iou_threshold: 0.6}")
    assert config.load(child).nms.iou_threshold == 0.6
    assert config.load(child).nms.max_detections == 7
    assert config.load(child, [("nms.iou_threshold", 0.7)]).nms.iou_threshold == 0.7


def test_paths_are_relative_to_their_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    parent = write(tmp_path / "sub", "replay: a.mcap\ndetector: {model: m.onnx}", "parent.yaml")
    ladder = "enforcement: {ladder: [{name: a, alarm: true}, {name: b, detector: {model: b.onnx}}]}"
    child = write(tmp_path, f"extends: {parent}\n{ladder}")
    loaded = config.load(child)
    assert loaded.replay == tmp_path / "sub" / "a.mcap"
    assert loaded.detector.model == tmp_path / "sub" / "m.onnx"
    smaller = loaded.enforcement.ladder[1].detector
    assert smaller is not None
    assert smaller.model == tmp_path / "b.onnx"


def _bomb() -> str:
    levels = ["&a0 x", *(f"&a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12))]
    return f"threads: [{', '.join(levels)}]"


BOMB = _bomb()
"""A line that stands for nine to the power of eleven words."""


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("nms: {iou_treshold: 0.4}", ["nms.iou_treshold", "did you mean 'iou_threshold'"]),
        ("budget: {detect_ms: 15}", ["add up to 27 ms", "end_to_end_ms: 20", "cut 7 ms"]),
        ("budget: {detect_ms: .nan}", ["budget.detect_ms"]),
        ("sync: {window_ms: soon}", ["sync.window_ms", "'soon'"]),
        ("device: gpu", ["device", "'auto', 'cpu' or 'cuda'", "'gpu'"]),
        ("detector: {classes: {sofa: furniture}}", ["detector.classes.sofa", "'furniture'"]),
        ("enforcement: {ladder: [{name: a, evry: {}}]}", ["ladder.0.evry", "did you mean 'every'"]),
        ("enforcement: {ladder: [{name: a, detector: {modl: b}}]}", ["detector.modl", "did you mean 'model'"]),
        ("enforcement: {down_after: 30}", ["down_after: 30", "window: 20"]),
        ("enforcement: {reserve_ms: 20}", ["enforcement.reserve_ms: 20 leaves no time", "end_to_end_ms: 20"]),
        ("threads: true", ["threads: expected anything but yes or no"]),
        ("detector: {score_threshold: yes}", ["detector: score_threshold: expected anything but yes"]),
        ("loop: 2\nloop: 3", ["'loop' is given twice", "line 2"]),
        ("a: [1", ["not YAML"]),
        ("- 1", ["expected a mapping"]),
        ("budget: [1]", ["budget: expected keys under it, got [1]"]),
        ("replay: [1]", ["replay: expected a path, got [1]"]),
        ("budget: {end_to_end_ms: 1.0e+300}", ["budget.end_to_end_ms: expected less than or equal to"]),
        ("cameras: {A: {device: a}}", ["cameras.A: expected source: v4l2, gstreamer, rtsp or file"]),
        ("cameras: {A: {source: usb}}", ["cameras.A: expected 'source': one of 'v4l2', ", "got 'usb'"]),
        ("cameras: {A: {source: v4l2}}", ["cameras.A.v4l2.device: is missing"]),
        ("extends: nowhere.yaml", ["no config 'nowhere.yaml'"]),
        ("extends: [1]", ["extends"]),
        ("replay: !!python/object/apply:os.system ['true']", ["not YAML"]),
        ("? [a, b]\n: 1", ["not YAML", "a key is expected to be a word, got a list, line 1"]),
        ("rig: {{ RIG }}", ["not YAML", "got a dict, line 1"]),
        ("replay: 2024-13-45", ["not YAML", "month must be in 1..12"]),
        ('replay: "a\\0b"', ["not YAML", "a NUL character, line 1"]),
        ("cameras: &a [*a]", ["not YAML", "recursive"]),
        (f"threads: {'9' * 5000}", ["not YAML"]),
        (f"threads: {'[' * 5000}", ["not YAML"]),
        ("daemon: {cpus: [99999999999]}", ["daemon.cpus.0"]),
        (BOMB, ["threads: expected", "got ['x', ['x', "]),
    ],
)
def test_a_bad_config_is_one_line_that_names_the_offender(tmp_path: Path, text: str, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as refusal:
        config.load(write(tmp_path, text))
    for part in parts:
        assert part in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_what_is_wrong_with_an_override_is_not_blamed_on_the_file() -> None:
    with pytest.raises(ConfigError, match=r"^on the command line: nms.iou_threshold: expected less than .*, got 3$"):
        config.load("cpu.yaml", [("nms.iou_threshold", 3)])
    with pytest.raises(ConfigError, match=r"^on the command line: unknown key 'nms.iou'"):
        config.load("cpu.yaml", [("nms.iou", 3)])
    with pytest.raises(ConfigError, match=r"^on the command line: unknown key 'nsm' \(did you mean 'nms'"):
        config.load("cpu.yaml", [("nsm.iou_threshold", 3)])


@pytest.mark.parametrize("value", ["[" * 5000, "2024-13-45", '"a\\0b"', "{{ X }}"])
def test_an_override_that_is_no_yaml_is_one_line(value: str) -> None:
    with pytest.raises(ConfigError, match="the value is not YAML: ") as refusal:
        config.parse_override(f"replay={value}")
    assert "\n" not in str(refusal.value)


def test_a_config_whose_name_is_too_long_is_refused() -> None:
    with pytest.raises(ConfigError, match="File name too long"):
        config.load("a" * 300)


def test_keys_merged_in_may_be_given_again(tmp_path: Path) -> None:
    text = "cameras: {A: &one {source: rtsp, url: 'rtsp://a/1'}, B: {<<: *one, url: 'rtsp://a/2'}}"
    cameras = config.load(write(tmp_path, text)).model_dump()["cameras"]
    assert [camera["url"] for camera in cameras.values()] == ["rtsp://a/1", "rtsp://a/2"]


def test_configs_that_extend_each_other_in_a_circle_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "extends: b.yaml", "a.yaml")
    write(tmp_path, "extends: a.yaml", "b.yaml")
    with pytest.raises(ConfigError, match="circle"):
        config.load(str(tmp_path / "a.yaml"))


def test_an_unknown_config_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'orin.yaml'"):
        config.load("orim")


def test_a_huge_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at most"):
        config.load(write(tmp_path, "#" * 1_000_001))


def test_overrides_are_yaml() -> None:
    assert config.parse_override("a.b=[1, 2]") == ("a.b", [1, 2])
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        config.parse_override("a.b")
    with pytest.raises(ConfigError, match="no keys under it"):
        config.load("cpu.yaml", [("loop", 1), ("loop.more", 2)])


def test_budget_covers_every_stage() -> None:
    budget = config.load("cpu.yaml").budget.to_budget()
    assert sum(budget.stage_ns.values()) <= budget.end_to_end_ns == 20_000_000


def test_printed_config_is_yaml_of_every_key() -> None:
    tree = yaml.safe_load(config.to_yaml(config.load("orin.yaml")))
    assert set(tree) == set(config.Config.model_fields)
