import pytest

from engines.coverage import Coverage, Profile, parse_tags, sorted_tags
from perception.errors import ConfigError

PROFILE = Profile.model_validate(
    {
        "require": [
            {"frames": 2, "tags": {"light": ["day", "night"], "camera": ["every"]}},
            {"frames": 1, "tags": {"size": ["small"]}},
        ]
    }
)
CAMERAS = ("FRONT", "BACK")


def _covered(coverage: Coverage, light: str, camera: str, times: int = 2) -> None:
    for _ in range(times):
        coverage.add({"light": {light}, "camera": {camera}, "size": {"small", "large"}})


def test_full_coverage_passes() -> None:
    coverage = Coverage(PROFILE, CAMERAS, ())
    for light in ("day", "night"):
        for camera in CAMERAS:
            _covered(coverage, light, camera)
    coverage.check()
    assert coverage.table()["night + BACK"] == (2, 2)


def test_each_gap_is_named_with_what_was_found() -> None:
    coverage = Coverage(PROFILE, CAMERAS, ())
    _covered(coverage, "day", "FRONT")
    _covered(coverage, "day", "BACK", times=1)
    with pytest.raises(ConfigError) as refused:
        coverage.check()
    assert "day + BACK: 1 of 2 frames; night + FRONT: 0 of 2 frames; night + BACK: 0 of 2 frames" in str(refused.value)
    assert "day + FRONT" not in str(refused.value)


def test_an_allowed_gap_is_let_pass_and_told() -> None:
    coverage = Coverage(PROFILE, CAMERAS, ("night",))
    for camera in CAMERAS:
        _covered(coverage, "day", camera)
    coverage.check()
    assert coverage.allowed_gaps() == ["night + FRONT: 0 of 2 frames", "night + BACK: 0 of 2 frames"]


def test_allowing_a_gap_that_the_profile_does_not_know_is_refused() -> None:
    with pytest.raises(ConfigError, match="nigth: no tag of the profile; it has: BACK, FRONT, day, night, small"):
        Coverage(PROFILE, CAMERAS, ("nigth",))


def test_tags_are_parsed() -> None:
    assert parse_tags("light=day, weather=rain,weather=fog") == {"light": {"day"}, "weather": {"rain", "fog"}}


def test_tags_are_told_in_one_order() -> None:
    assert list(sorted_tags(parse_tags("weather=rain,weather=fog,light=day")).items()) == [
        ("light", ("day",)),
        ("weather", ("fog", "rain")),
    ]


@pytest.mark.parametrize("text", ["day", "light=", "=day", "light=day,,"])
def test_bad_tags_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected KEY=VALUE"):
        parse_tags(text)
