import numpy as np
import pytest

from engines.world.town import LEFT_TURN, RIGHT_TURN, Town
from engines.world.walkways import Walkways

SEEDS = range(8)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_lane_leads_on_without_a_gap(seed: int) -> None:
    town = Town(seed, tunnel=seed % 2 == 0)
    for lane in town.lanes:
        assert lane.next
        for following in (town.lanes[i] for i in lane.next):
            np.testing.assert_allclose(lane.path.points[-1], following.path.points[0], atol=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_turns_turn_where_they_say_and_stay_off_the_oncoming_side(seed: int) -> None:
    town = Town(seed, tunnel=False)
    for lane in town.lanes:
        if lane.turn in {LEFT_TURN, RIGHT_TURN}:
            start, end = lane.path.pose(0.0)[2], lane.path.pose(lane.path.length)[2]
            turned = (end - start + np.pi) % (2 * np.pi) - np.pi
            assert turned == pytest.approx(np.pi / 2 if lane.turn == LEFT_TURN else -np.pi / 2, abs=0.12)
        elif lane.turn == "":
            edge = town.edges[lane.edge]
            along = (lane.path.points[-1] - lane.path.points[0]) @ edge.along
            left = (lane.path.points[0] - edge.start) @ edge.left
            assert along * left < 0  # right of the middle, whichever way it runs


def test_a_tunnel_covers_its_street_and_nothing_else() -> None:
    assert Town(3, tunnel=False).tunnels == []
    town = Town(3, tunnel=True)
    ((low, high),) = town.tunnels
    edge = next(edge for edge in town.edges if edge.tunnel is not None)
    assert edge.tunnel is not None
    middle = edge.at(sum(edge.tunnel) / 2, 0.0)
    assert (low < middle).all()
    assert (high > middle).all()
    for junction in town.junctions:
        assert not ((low < junction.centre + junction.half) & (high > junction.centre - junction.half)).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_one_can_walk_from_anywhere_to_anywhere(seed: int) -> None:
    ways = Walkways(Town(seed, tunnel=False))
    reached, waiting = {0}, [0]
    while waiting:
        for node, _ in ways.links[waiting.pop()]:
            if node not in reached:
                reached.add(node)
                waiting.append(node)
    assert len(reached) == len(ways.nodes)


def test_pavements_do_not_lead_over_the_street() -> None:
    town = Town(5, tunnel=False)
    ways = Walkways(town)
    for node, links in enumerate(ways.links):
        for other, crossing in links:
            if crossing >= 0:
                continue
            for part in np.linspace(0, 1, 9):
                place = ways.nodes[node] * (1 - part) + ways.nodes[other] * part
                for edge in town.edges:
                    along, left = (place - edge.start) @ edge.along, (place - edge.start) @ edge.left
                    if edge.clear[0] < along < edge.length - edge.clear[1]:
                        assert abs(left) > edge.street.half_m
