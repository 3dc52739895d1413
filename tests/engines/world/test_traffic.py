import numpy as np
import pytest

from engines.world.actors import Actor
from engines.world.lights import STEP_S
from engines.world.scenario import SCENARIOS
from engines.world.town import Town
from engines.world.traffic import Traffic


def make(seed: int, scenario: str = "day") -> Traffic:
    chosen = SCENARIOS[scenario]
    return Traffic(Town(seed, tunnel=chosen.tunnel), seed, chosen)


def overlap(a: Actor, b: Actor) -> bool:
    """Whether two boxes on the ground meet by more than 10 cm (separating axes)."""

    def corners(actor: Actor) -> np.ndarray:
        c, s = np.cos(actor.yaw), np.sin(actor.yaw)
        half = actor.shape.size[:2] / 2 - 0.05
        signs = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
        return np.asarray(signs * half @ np.array([[c, s], [-s, c]]) + [actor.x, actor.y])

    for yaw in (a.yaw, b.yaw):
        for axis in (np.array([np.cos(yaw), np.sin(yaw)]), np.array([-np.sin(yaw), np.cos(yaw)])):
            p, q = corners(a) @ axis, corners(b) @ axis
            if p.max() < q.min() or q.max() < p.min():
                return False
    return True


def test_vehicles_keep_apart() -> None:
    traffic = make(1)
    met = set()
    for step in range(250):
        traffic.step()
        if step % 10:
            continue
        driving = [traffic.ego, *traffic.vehicles]
        for i, a in enumerate(driving):
            met |= {(a.id, b.id) for b in driving[i + 1 :] if abs(a.x - b.x) + abs(a.y - b.y) < 16 and overlap(a, b)}
    assert not met


def test_nobody_passes_a_stop_line_at_red() -> None:
    traffic = make(2)
    passed = 0
    for _ in range(10):  # some start with their bonnets over the line
        traffic.step()
    for _ in range(300):
        before = [(v, v.lanes[0], v.s + v.half) for v in traffic.vehicles]
        colours = [traffic.lights[lane.junction].colour(lane.approach) for _, lane, _ in before]
        traffic.step()
        for (vehicle, lane, front), colour in zip(before, colours, strict=True):
            line = lane.path.length + 0.6
            if lane.turn == "" and front <= line < front + vehicle.speed * STEP_S:
                passed += 1
                assert colour != "red"
    assert passed > 20


def test_only_one_approach_has_green_and_none_while_people_walk() -> None:
    traffic = make(3)
    for _ in range(400):
        traffic.step()
        for lights in traffic.lights:
            if lights.approaches > 2:
                green = sum(lights.colour(i) != "red" for i in range(lights.approaches))
                assert green + lights.walk() <= 1


def test_the_same_seed_drives_the_same_way() -> None:
    a, b = make(4), make(4)
    for _ in range(80):
        a.step()
        b.step()
    assert [(x.x, x.y, x.yaw) for x in a.actors] == [(x.x, x.y, x.yaw) for x in b.actors]
    other = make(5)
    assert [x.x for x in other.actors] != [x.x for x in make(4).actors]


def test_people_use_the_road_only_at_crossings() -> None:
    traffic = make(6)
    for step in range(200):
        traffic.step()
        if step % 20:
            continue
        for walker in traffic.walkers:
            for edge in traffic.town.edges:
                offset = np.array([walker.x, walker.y]) - edge.start
                along, left = offset @ edge.along, offset @ edge.left
                between = edge.clear[0] + 6 < along < edge.length - edge.clear[1] - 6  # the crossings at its ends
                if between and abs(left) < edge.street.half_m - 0.5:
                    assert walker.on_road
                    assert edge.zebra is not None
                    assert abs(along - edge.zebra) < 3


@pytest.mark.parametrize("scenario", ["tunnel", "city"])
def test_the_route_turns_and_leads_through_the_tunnel(scenario: str) -> None:
    traffic = make(9, scenario)
    ((low, high),) = traffic.town.tunnels
    start, inside, left_again = traffic.ego.yaw, False, False
    for _ in range(400):
        traffic.step()
        covered = (low < (traffic.ego.x, traffic.ego.y)).all() and (high > (traffic.ego.x, traffic.ego.y)).all()
        left_again |= inside and not covered
        inside |= bool(covered)
        if left_again:
            break
    assert inside
    assert left_again
    assert abs((traffic.ego.yaw - start + np.pi) % (2 * np.pi) - np.pi) == pytest.approx(np.pi / 2, abs=0.1)
