import numpy as np
import pytest

from engines.world import SCENARIOS, World, surround_rig
from perception.errors import ConfigError
from perception.messages import CLASSES, Rig


def small(*names: str) -> Rig:
    rig = surround_rig(160, 96)
    return {name: rig[name] for name in names}


def test_the_same_seed_gives_the_same_pixels_in_any_order_of_cameras() -> None:
    rig = small("CAM_FRONT", "CAM_BACK_LEFT")
    a, b = World(4, "rain", rig), World(4, "rain", dict(reversed(rig.items())))
    for world in (a, b):
        world.step(0.7)
    views = [{name: world.render(name) for name in world.rig} for world in (a, b)]
    for name in rig:
        one, other = (v[name] for v in views)
        np.testing.assert_array_equal(one.image, other.image)
        for field, same in zip(one.objects, other.objects, strict=True):
            np.testing.assert_array_equal(field, same)
    np.testing.assert_array_equal(a.sweep().points, b.sweep().points)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_scenario_looks_like_its_light(scenario: str) -> None:
    world = World(1, scenario, small("CAM_FRONT"))
    world.step(0.5)
    image = world.render("CAM_FRONT").image
    assert image.shape == (96, 160, 3)
    assert image.dtype == np.uint8
    assert image.std() > 12  # something can be seen
    expected = {"day": (70, 190), "low_sun": (60, 190), "dusk": (40, 150), "night": (15, 110)}
    low, high = expected[SCENARIOS[scenario].light]
    assert low < image.mean() < high
    assert world.tags == {
        "light": SCENARIOS[scenario].light,
        "weather": SCENARIOS[scenario].weather,
        "scene": "street",
    }


def test_fog_hides_what_is_far() -> None:
    """The contrast at the horizon goes, that of the road stays."""
    contrast = {}
    for scenario in ("day", "fog"):
        world = World(2, scenario, small("CAM_BACK"))
        image = world.render("CAM_BACK").image.astype(float)
        contrast[scenario] = (image[28:46].std(), image[70:].std())
    assert contrast["fog"][0] < 0.6 * contrast["day"][0]


def test_the_exposure_follows_the_light_with_a_lag() -> None:
    """Into the tunnel: first too dark, then settled."""
    world = World(9, "tunnel", small("CAM_FRONT_LEFT"))
    before = []
    while world.tags["scene"] == "street":
        world.step(world.time_s + 0.2)
        before.append(world.render("CAM_FRONT_LEFT").image.mean())
        assert world.time_s < 30
    entering = world.render("CAM_FRONT_LEFT").image.mean()
    settled = World(9, "tunnel", small("CAM_FRONT_LEFT"))
    settled.step(world.time_s)
    assert settled.render("CAM_FRONT_LEFT").image.mean() > 1.15 * entering  # a camera that has just been switched on
    assert max(before) > 1.3 * entering


def test_more_samples_show_the_same_scene() -> None:
    rig = small("CAM_FRONT")
    views = []
    for oversample in (1, 2):
        world = World(3, "day", rig)
        world.step(1.0)
        views.append(world.render("CAM_FRONT", oversample))
    one, two = views
    assert np.abs(one.image.astype(int) - two.image).mean() < 12
    common = np.intersect1d(one.objects.ids, two.objects.ids)
    assert len(common) > 0.7 * len(one.objects.ids)
    for number in common:
        i, j = (int(np.flatnonzero(v.objects.ids == number)[0]) for v in views)
        np.testing.assert_allclose(one.objects.boxes[i], two.objects.boxes[j], atol=0.6)


def test_a_sweep_meets_the_ground_and_what_stands_on_it(day: World) -> None:
    cloud = day.sweep()
    in_base = cloud.points @ cloud.base_from_sensor.rotation.T + cloud.base_from_sensor.translation
    assert len(in_base) > 1500
    ground = np.abs(in_base[:, 2]) < 0.15
    assert 0.2 < ground.mean() < 0.9
    assert in_base[:, 2].min() > -0.3
    assert np.linalg.norm(cloud.points, axis=1).max() < 81
    truth = day.truth()
    sides = [
        np.abs((in_base - p) @ _turn(yaw)) < size / 2 + 0.15
        for p, size, yaw in zip(truth.positions, truth.sizes, truth.yaws, strict=True)
    ]
    hits = [int(side.all(1).sum()) for side in sides]
    assert sum(hit > 5 for hit in hits) >= 5


def _turn(yaw: float) -> np.ndarray:
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def test_truth_is_in_the_frame_of_the_vehicle(day: World) -> None:
    truth = day.truth()
    assert len(truth.ids) == len(set(truth.ids)) > 20
    assert np.hypot(*truth.positions[:, :2].T).max() <= 80
    np.testing.assert_allclose(truth.positions[:, 2], truth.sizes[:, 2] / 2)
    assert set(truth.labels.tolist()) <= set(range(len(CLASSES)))
    assert np.abs(truth.yaws).max() <= np.pi


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="scenario 'snow' does not exist; there are: day"):
        World(0, "snow")
    world = World(0, "day", small("CAM_FRONT"))
    world.step(1.0)
    with pytest.raises(ConfigError, match="cannot go back"):
        world.step(0.5)
