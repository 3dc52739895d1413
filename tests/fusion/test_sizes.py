from __future__ import annotations

import json
from pathlib import Path

import pytest

from perception import config
from perception.errors import ConfigError


def load(directory: Path, text: str) -> config.FusionConfig:
    path = directory / "my.yaml"
    path.write_text(text)
    return config.load(str(path)).fusion


def test_one_number_of_one_class_can_be_changed_and_the_rest_is_kept(tmp_path: Path) -> None:
    usual, changed = config.FusionConfig().sizes, load(tmp_path, "fusion: {sizes: {car: {length_m: 4.2}}}").sizes
    assert changed.car.length_m == 4.2
    assert changed.car.model_copy(update={"length_m": usual.car.length_m}) == usual.car
    assert changed.model_copy(update={"car": usual.car}) == usual


def test_changes_add_up_over_files_and_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "parent.yaml").write_text("fusion: {sizes: {bus: {height_m: 3.1}}}")
    child = tmp_path / "child.yaml"
    child.write_text("extends: parent.yaml\nfusion: {sizes: {bus: {width_m: 2.5}}}")
    bus = config.load(str(child), [("fusion.sizes.bus.length_m", 12.5)]).fusion.sizes.bus
    assert (bus.length_m, bus.width_m, bus.height_m) == (12.5, 2.5, 3.1)
    assert bus.height_std_m == config.FusionConfig().sizes.bus.height_std_m


@pytest.mark.parametrize(
    ("sizes", "problem"),
    [
        ("{buss: {length_m: 1}}", "unknown key 'fusion.sizes.buss' (did you mean 'bus'?)"),
        ("{car: {lenght_m: 1}}", "unknown key 'fusion.sizes.car.lenght_m' (did you mean 'length_m'?)"),
        ("{car: {length_m: 0}}", "fusion.sizes.car.length_m"),
        ("{car: long}", "fusion.sizes.car"),
        ("long", "fusion.sizes"),
    ],
)
def test_a_bad_size_is_named(tmp_path: Path, sizes: str, problem: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        load(tmp_path, f"fusion: {{sizes: {sizes}}}")
    assert problem in str(refusal.value)


def test_the_schema_asks_for_no_more_than_is_needed() -> None:
    assert "required" not in json.loads(config.schema())["$defs"]["SizePrior"]
