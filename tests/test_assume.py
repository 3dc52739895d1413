from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from perception.assume import PROBABILITIES, Costs, Profile, VirtualClock, load_profile, quantile, uniform
from perception.config import CONFIGS
from perception.errors import ConfigError

EXAMPLE = CONFIGS / "profiles" / "example-orin.yaml"


# --- the profile


def test_the_example_says_in_every_place_that_it_is_one() -> None:
    assert "EXAMPLE" in EXAMPLE.read_text().splitlines()[0]
    profile = load_profile(EXAMPLE)
    assert "EXAMPLE" in profile.about
    assert "not a measurement" in profile.about
    assert profile.ticks == 0


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("fusion_ms", [0, 1, 2, 3, 4, 3.9], "quantiles must not fall"),
        ("fusion_ms", [0, 1, 2, 3, 4], "fusion_ms"),
        ("fusion_ms", [-1, 1, 2, 3, 4, 5], "greater than or equal to 0"),
        ("fusion_ms", [0, 1, 2, 3, 4, 1e9], "less than or equal to 60000"),
        ("fusion_ms", [0, 1, 2, 3, 4, float("nan")], "finite"),
        ("fussion_ms", [0, 1, 2, 3, 4, 5], "did you mean 'fusion_ms'"),
        ("cameras", {str(i): None for i in range(101)}, "at most 100"),
        ("about", "x" * 1001, "at most 1000"),
    ],
)
def test_a_profile_that_cannot_be_is_refused(tmp_path: Path, key: str, value: Any, problem: str) -> None:
    tree = yaml.safe_load(EXAMPLE.read_text()) | {key: value}
    if key == "cameras":
        tree[key] = dict.fromkeys(value, tree["default"])
    path = tmp_path / "profile.yaml"
    path.write_text(yaml.safe_dump(tree))
    with pytest.raises(ConfigError, match=problem) as refusal:
        load_profile(path)
    assert str(refusal.value).startswith(str(path))


# --- draws


def test_what_is_drawn_is_distributed_as_the_profile_says() -> None:
    profile = load_profile(EXAMPLE)
    costs = Costs(profile, seed=3)
    drawn = np.array([costs.camera_ns("CAM_X", "detect", stamp) for stamp in range(20_000)]) / 1e6
    expected = profile.default.detect_ms
    at = np.quantile(drawn, PROBABILITIES[1:4])
    np.testing.assert_allclose(at, expected[1:4], rtol=0.05)
    assert expected[0] <= drawn.min() < drawn.max() <= expected[-1]


def test_a_camera_that_is_named_has_costs_of_its_own() -> None:
    tree = yaml.safe_load(EXAMPLE.read_text())
    tree["cameras"]["CAM_FRONT"]["nms_ms"] = [9.0] * 6
    costs = Costs(Profile.model_validate(tree), seed=0)
    assert costs.camera_ns("CAM_FRONT", "nms", 1) == 9_000_000
    assert costs.camera_ns("CAM_BACK", "nms", 1) < 3_000_000


def test_draws_depend_on_what_they_are_for_and_on_nothing_that_was_drawn_before() -> None:
    profile = load_profile(EXAMPLE)
    one, other = Costs(profile, seed=0), Costs(profile, seed=0)
    forth = [one.camera_ns("A", "detect", stamp) for stamp in range(10)]
    back = [other.camera_ns("A", "detect", stamp) for stamp in reversed(range(10))][::-1]
    assert forth == back
    assert len(set(forth)) == 10
    assert forth != [one.camera_ns("B", "detect", stamp) for stamp in range(10)]
    assert forth != [Costs(profile, seed=1).camera_ns("A", "detect", stamp) for stamp in range(10)]


def test_draws_are_the_same_on_every_machine() -> None:
    assert uniform(0, "detect/CAM_FRONT", 1_700_000_000_000_000_000) == 0.09578381982921691


@given(
    quantiles=st.lists(st.floats(0, 1e4), min_size=6, max_size=6).map(lambda q: tuple(sorted(q))),
    probability=st.floats(0, 1, exclude_max=True),
)
def test_between_quantiles_it_is_linear(quantiles: tuple[float, ...], probability: float) -> None:
    expected = np.interp(probability, PROBABILITIES, quantiles)
    assert quantile(quantiles, probability) == pytest.approx(expected, rel=1e-9, abs=1e-9)


# --- time


def test_virtual_time_passes_only_for_whoever_made_it_and_never_goes_back() -> None:
    clock = VirtualClock()
    assert clock.wait_until(100) == 100
    assert clock.now_ns() == clock.stamp_ns() == 100
    worker = threading.Thread(target=lambda: clock.wait_until(500))
    worker.start()
    worker.join()
    assert clock.now_ns() == 100
    assert clock.wait_until(50) == 50
    clock.advance_to(90)
    assert clock.now_ns() == 100
    assert clock.due_ns(10**18) <= clock.now_ns()
