"""How everybody moves: along lanes at a distance from the one ahead, by the lights, around the pavements."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np

from engines.world import people, shapes, vehicles
from engines.world.actors import Actor, Vehicle, Walker
from engines.world.ground import parking_spans
from engines.world.lights import STEP_S, WALK_S, Lights
from engines.world.scenario import Scenario, stream
from engines.world.town import LANE_M, LEFT_TURN, PARKING_M, RIGHT_TURN, STRAIGHT, Lane, Town
from engines.world.walkways import Walkways

_LOOK_AHEAD_M: Final = 55.0
_CROWD: Final = 7
_WALKER_AHEAD_M: Final = 12.0
_TURN_MPS: Final = {STRAIGHT: 20.0, LEFT_TURN: 6.5, RIGHT_TURN: 5.0, "": 20.0}
_COMFORT: Final = 2.2
_GAP_M: Final = 2.4
_HEADWAY_S: Final = 1.2
_KINDS: Final = (
    # kind, in the order of Scenario.mix; cruising speed, acceleration, metres to the right of the lane's middle
    ("car", (9.5, 13.0), 1.7, 0.0),
    ("truck", (8.5, 11.0), 1.0, 0.0),
    ("bus", (8.5, 11.0), 1.0, 0.0),
    ("motorcycle", (9.5, 13.0), 2.2, 0.2),
    ("bicycle", (4.2, 6.0), 0.8, 0.85),
)


_LOOKS: Final = {"car": 60, "truck": 14, "bus": 8, "motorcycle": 12, "bicycle": 14, "pedestrian": 48}


def _catalogue(seed: int, scenario: Scenario) -> dict[str, list[shapes.Look]]:
    """So many different ones of each kind there are in a town."""
    makers: dict[str, Callable[[np.random.Generator], shapes.Shape]] = {
        "car": vehicles.car,
        "truck": vehicles.truck,
        "bus": vehicles.bus,
        "motorcycle": people.motorcycle,
        "bicycle": people.bicycle,
        "pedestrian": partial(people.pedestrian, umbrellas=scenario.weather == "rain"),
    }
    return {
        kind: [shapes.Look(make, stream(seed, kind, i)) for i in range(_LOOKS[kind])] for kind, make in makers.items()
    }


class Traffic:
    """All actors of a town; `ego` is the vehicle that carries the cameras, and is not among `actors`."""

    def __init__(self, town: Town, seed: int, scenario: Scenario) -> None:
        self.town = town
        self.walkways = Walkways(town)
        self._rng = stream(seed, "traffic")
        self._looks = _catalogue(seed, scenario)
        self.time_s = 0.0
        self.lights = [Lights(len(j.approaches), self._rng) for j in town.junctions]
        self.vehicles: list[Vehicle] = []
        self.walkers: list[Walker] = []
        self.parked: list[Actor] = []
        self._next_id = 1
        self.ego = self._place_ego(scenario)
        self._place_vehicles(stream(seed, "vehicles"), scenario)
        self._place_walkers(stream(seed, "walkers"), scenario)
        self._place_parked(stream(seed, "parked"))
        if scenario.crossing:
            self._place_crowd(stream(seed, "crowd"))
        self._on_road = np.zeros((0, 2))
        self._claimed = np.zeros(len(self.walkways.crossings), bool)
        self._zebra_of_edge = {c.edge: i for i, c in enumerate(self.walkways.crossings) if c.junction < 0}

    @property
    def actors(self) -> list[Actor]:
        """Everybody but the ego vehicle."""
        return [*self.vehicles, *self.walkers, *self.parked]

    def step(self) -> None:
        """Advance by `STEP_S`."""
        self.time_s += STEP_S
        self._step_lights()
        self._claim_crossings()
        self._on_road = np.array([(w.x, w.y) for w in self.walkers if w.on_road]).reshape(-1, 2)
        driving = [self.ego, *self.vehicles]
        on_lane: dict[int, list[Vehicle]] = {}
        for vehicle in driving:
            on_lane.setdefault(vehicle.lanes[0].index, []).append(vehicle)
        pulls = [self._acceleration(vehicle, on_lane) for vehicle in driving]
        for vehicle, pull in zip(driving, pulls, strict=True):
            self._drive(vehicle, pull)
        for walker in self.walkers:
            self._walk(walker)

    # Placing

    def _pick(self, kind: str, rng: np.random.Generator) -> shapes.Look:
        looks = self._looks[kind]
        return looks[int(rng.integers(len(looks)))]

    def _new_id(self) -> int:
        self._next_id += 1
        return self._next_id - 1

    def _place_ego(self, scenario: Scenario) -> Vehicle:
        rng = self._rng
        look = shapes.Look(lambda _: shapes.Shape(0, np.array([4.7, 1.9, 1.6]), ()), rng)
        streets = [lane for lane in self.town.lanes if lane.turn == ""]
        route: list[str] = []
        if scenario.tunnel:
            covered = next(edge.index for edge in self.town.edges if edge.tunnel is not None)
            ways = [
                (lane, way)
                for lane in streets
                for way in (self.town.lanes[i] for i in lane.next)
                if self.town.lanes[way.next[0]].edge == covered
                and way.turn != STRAIGHT
                and (not scenario.crossing or self.lights[lane.junction].approaches > 2)
            ]
            lane, way = ways[int(rng.integers(len(ways)))]
            route = [way.turn]
            s = max(lane.path.length - (20.0 if scenario.crossing else 32.0), 6.0)
        else:
            lane = streets[int(rng.integers(len(streets)))]
            s = float(rng.uniform(8, max(lane.path.length - 25, 9)))
        ego = Vehicle(0, look, lanes=[lane], s=s, cruise=12.0, pull=2.4, speed=7.0, route=route)
        ego.x, ego.y, ego.yaw = ego.pose(0.0)
        self._extend(ego)
        return ego

    def _place_vehicles(self, rng: np.random.Generator, scenario: Scenario) -> None:
        streets = [lane for lane in self.town.lanes if lane.turn == ""]
        weights = np.array([lane.path.length for lane in streets])
        for _ in range(scenario.vehicles):
            name, cruise, pull, right = _KINDS[int(rng.choice(len(_KINDS), p=scenario.mix))]
            look = self._pick(name, rng)
            for _ in range(8):
                lane = streets[int(rng.choice(len(streets), p=weights / weights.sum()))]
                if right > 0.5 and lane.lane < self.town.edges[lane.edge].street.lanes - 1:
                    continue
                s = float(rng.uniform(4, lane.path.length - 2))
                others = [v for v in [self.ego, *self.vehicles] if v.lanes[0] is lane]
                if all(abs(v.s - s) > v.half + look.shape.size[0] / 2 + 4 for v in others):
                    speed = float(rng.uniform(*cruise))
                    vehicle = Vehicle(
                        self._new_id(),
                        look,
                        lanes=[lane],
                        s=s,
                        cruise=speed,
                        pull=pull,
                        speed=speed * 0.6,
                        right_m=right,
                    )
                    vehicle.x, vehicle.y, vehicle.yaw = vehicle.pose(0.0)
                    self._extend(vehicle)
                    self.vehicles.append(vehicle)
                    break

    def _place_walkers(self, rng: np.random.Generator, scenario: Scenario) -> None:
        ways = self.walkways
        for _ in range(scenario.pedestrians):
            node = int(rng.integers(len(ways.nodes)))
            walks = [link for link, crossing in ways.links[node] if crossing < 0]
            target = walks[int(rng.integers(len(walks)))]
            part = rng.uniform()
            offset = rng.uniform(-0.9, 0.9, 2)
            place = ways.nodes[node] * (1 - part) + ways.nodes[target] * part + offset
            pace = 0.0 if rng.random() < 0.12 else float(rng.normal(1.35, 0.18))
            look = self._pick("pedestrian", rng)
            walker = Walker(
                self._new_id(),
                look,
                float(place[0]),
                float(place[1]),
                node=node,
                target=target,
                offset=offset,
                pace=max(pace, 0.0),
            )
            walker.yaw = float(rng.uniform(-np.pi, np.pi))
            walker.moved_m = float(rng.uniform(0, 2))
            self.walkers.append(walker)

    def _place_crowd(self, rng: np.random.Generator) -> None:
        """People on the crossing at which the ego vehicle is about to arrive, and its lights in their favour."""
        lane, ways = self.ego.lanes[0], self.walkways
        crossing = next(i for i, c in enumerate(ways.crossings) if c == (lane.junction, lane.edge))
        ends = [node for node, links in enumerate(ways.links) if any(index == crossing for _, index in links)]
        lights = self.lights[lane.junction]
        lights.phase, lights.age_s = lights.approaches, WALK_S - 0.8
        for i in range(_CROWD):
            node, target = ends if i % 2 else ends[::-1]
            offset = rng.uniform(-1.1, 1.1, 2)
            place = ways.nodes[node] + (ways.nodes[target] - ways.nodes[node]) * rng.uniform(0.2, 0.75) + offset
            way = ways.nodes[target] - ways.nodes[node]
            walker = Walker(
                self._new_id(), self._pick("pedestrian", rng), float(place[0]), float(place[1]),
                yaw=float(np.arctan2(way[1], way[0])), moved_m=float(rng.uniform(0, 2)),
                node=node, target=target, offset=offset, pace=float(rng.uniform(1.2, 1.6)),
                crossing=crossing, on_road=True,
            )  # fmt: skip
            self.walkers.append(walker)

    def _place_parked(self, rng: np.random.Generator) -> None:
        for edge in self.town.edges:
            for start, end in parking_spans(edge):
                for s in np.arange(start + 3.0, end - 2.5, 6.0):
                    for sign in (-1, 1):
                        if rng.random() < 0.42:
                            continue
                        look = self._pick("car", rng)
                        left = sign * (edge.street.half_m - PARKING_M / 2 + rng.normal(0, 0.06))
                        x, y = edge.at(s + rng.normal(0, 0.15), left)
                        yaw = (
                            float(np.arctan2(edge.along[1], edge.along[0]))
                            + (np.pi if sign > 0 else 0.0)
                            + rng.normal(0, 0.012)
                        )
                        self.parked.append(Actor(self._new_id(), look, float(x), float(y), yaw, parked=True))

    # Driving

    def _extend(self, vehicle: Vehicle) -> None:
        """Choose ways until a street lane follows the current one."""
        while len(vehicle.lanes) < 4:
            last = vehicle.lanes[-1]
            choices = [self.town.lanes[i] for i in last.next]
            if last.turn == "" and vehicle.route:
                wanted = [lane for lane in choices if lane.turn == vehicle.route[0]]
                choices = wanted or choices
                vehicle.route.pop(0)
            vehicle.lanes.append(choices[int(self._rng.integers(len(choices)))])

    def _acceleration(self, vehicle: Vehicle, on_lane: dict[int, list[Vehicle]]) -> float:
        """The Intelligent Driver Model (Treiber et al. 2000), with red lights and crossings as standing obstacles."""
        speed = vehicle.speed
        limit = vehicle.cruise
        gap, closing = _LOOK_AHEAD_M, 0.0
        base = -vehicle.s  # distance from the vehicle's centre to the start of the lane looked at
        for depth, lane in enumerate(vehicle.lanes):
            if base > _LOOK_AHEAD_M:
                break
            limit = min(limit, np.sqrt(_TURN_MPS[lane.turn] ** 2 + 2 * 1.6 * max(base - 1.0, 0.0)))
            for other, at in self._ahead(vehicle, lane, on_lane, first=depth == 0):
                free = base + at - other.half - vehicle.half
                if free < gap:
                    gap, closing = free, speed - other.speed
            if lane.turn == "":
                for stop, edge in lane.stops:
                    free = base + stop - vehicle.half
                    if (
                        free > -1.0
                        and self._claimed[self._zebra_of_edge[edge]]
                        and free + 1 > speed**2 / (2 * 4.0)
                        and free < gap
                    ):
                        gap, closing = free, speed
                end = base + lane.path.length - vehicle.half
                if end > -1.5 and not self._may_enter(vehicle, depth, end, on_lane) and end < gap:
                    gap, closing = end + 0.4, speed
            base += lane.path.length
        free = self._to_walker(vehicle)
        if free < gap:
            gap, closing = max(free, 0.3), speed
        wanted = _GAP_M + max(0.0, speed * _HEADWAY_S + speed * closing / (2 * np.sqrt(vehicle.pull * _COMFORT)))
        pull = vehicle.pull * (1 - (speed / max(limit, 0.1)) ** 4 - (wanted / max(gap, 0.3)) ** 2)
        return float(np.clip(pull, -6.0, vehicle.pull))

    def _to_walker(self, vehicle: Vehicle) -> float:
        """How far ahead someone is on foot in its way."""
        if len(self._on_road) == 0:
            return np.inf
        away = np.hypot(self._on_road[:, 0] - vehicle.x, self._on_road[:, 1] - vehicle.y)
        near = self._on_road[away < vehicle.half + _WALKER_AHEAD_M]
        if len(near) == 0:
            return np.inf
        clear = float(vehicle.shape.size[1]) / 2 + 0.7
        for ahead in np.arange(0.5, _WALKER_AHEAD_M, 1.2):
            x, y, _ = vehicle.place(vehicle.half + ahead)
            if (np.hypot(near[:, 0] - x, near[:, 1] - y) < clear).any():
                return float(ahead) - 0.5
        return np.inf

    def _ahead(
        self, me: Vehicle, lane: Lane, on_lane: dict[int, list[Vehicle]], *, first: bool
    ) -> list[tuple[Vehicle, float]]:
        """Those on a lane who are ahead, and those who merge into the same one from beside, or have just left ours."""
        found = [(v, v.s) for v in on_lane.get(lane.index, ()) if v is not me and (not first or v.s > me.s)]
        if lane.turn:
            remaining = lane.path.length - (me.s if first else 0.0)
            for sibling in self.town.lanes_into[lane.next[0]]:
                if sibling != lane.index:
                    found += [
                        (v, lane.path.length - (self.town.lanes[sibling].path.length - v.s))
                        for v in on_lane.get(sibling, ())
                        if v is not me and self.town.lanes[sibling].path.length - v.s < remaining
                    ]
            for sibling in self.town.lanes_beside[lane.index]:
                found += [
                    (v, v.s)
                    for v in on_lane.get(sibling, ())
                    if v is not me and v.s - v.half < 5.0 and (not first or v.s > me.s)
                ]
        return found

    def _may_enter(self, vehicle: Vehicle, depth: int, distance: float, on_lane: dict[int, list[Vehicle]]) -> bool:
        lane = vehicle.lanes[depth]
        colour = self.lights[lane.junction].colour(lane.approach)
        if colour == "red" and distance > -0.5:
            return False
        if colour == "amber" and distance > vehicle.speed**2 / (2 * 3.0):
            return False
        if depth + 2 < len(vehicle.lanes) and distance < 8:
            beyond = on_lane.get(vehicle.lanes[depth + 2].index, ())
            return all(v.s - v.half > 2 * vehicle.half + 1.0 or v.speed > 3 for v in beyond)
        return True

    def _drive(self, vehicle: Vehicle, pull: float) -> None:
        before = vehicle.speed
        vehicle.speed = max(before + pull * STEP_S, 0.0)
        if vehicle.speed < 0.03 and pull < 0:
            vehicle.speed = 0.0
        forward = (before + vehicle.speed) / 2 * STEP_S
        vehicle.s += forward
        vehicle.moved_m += forward
        vehicle.braking = pull < -0.5 or vehicle.speed < 0.1
        while vehicle.s > vehicle.lanes[0].path.length:
            vehicle.s -= vehicle.lanes[0].path.length
            vehicle.lanes.pop(0)
            self._extend(vehicle)
        ahead = vehicle.lanes[0].path.length - vehicle.s
        turn = vehicle.lanes[0].turn or (vehicle.lanes[1].turn if ahead < 25 else "")
        vehicle.turning = turn if turn in (LEFT_TURN, RIGHT_TURN) else ""
        vehicle.x, vehicle.y, vehicle.yaw = vehicle.pose(0.0)

    # Lights and crossings

    def _step_lights(self) -> None:
        lane = self.ego.lanes[0] if self.ego.lanes[0].turn == "" else None
        near = lane is not None and lane.path.length - self.ego.s < 45
        for number, lights in enumerate(self.lights):
            wanted = lane.approach if lane is not None and near and lane.junction == number else None
            lights.step(wanted)

    def _claim_crossings(self) -> None:
        self._claimed[:] = False
        for walker in self.walkers:
            if walker.crossing >= 0:
                self._claimed[walker.crossing] = True

    def _walk(self, walker: Walker) -> None:
        if walker.pace == 0:
            return
        goal = self.walkways.nodes[walker.target] + walker.offset
        way = goal - (walker.x, walker.y)
        distance = float(np.hypot(*way))
        if distance < 0.25:
            self._turn(walker)
            return
        if walker.crossing >= 0 and not walker.on_road:
            if not self._may_cross(walker.crossing):
                walker.speed = 0.0
                return
            walker.on_road = True
        if walker.on_road and self._blocked(walker.x + 0.9 * way[0] / distance, walker.y + 0.9 * way[1] / distance):
            walker.speed = 0.0
            return
        yaw = float(np.arctan2(way[1], way[0]))
        turn = (yaw - walker.yaw + np.pi) % (2 * np.pi) - np.pi
        walker.yaw += float(np.clip(turn, -0.35, 0.35))
        walker.speed = walker.pace
        walker.x += walker.speed * STEP_S * way[0] / distance
        walker.y += walker.speed * STEP_S * way[1] / distance
        walker.moved_m += walker.speed * STEP_S

    def _blocked(self, x: float, y: float) -> bool:
        """Whether a vehicle stands where someone is about to walk."""
        for vehicle in (self.ego, *self.vehicles):
            dx, dy = x - vehicle.x, y - vehicle.y
            if abs(dx) + abs(dy) < 12:
                c, s = np.cos(vehicle.yaw), np.sin(vehicle.yaw)
                if abs(c * dx + s * dy) < vehicle.half + 0.3 and abs(c * dy - s * dx) < vehicle.shape.size[1] / 2 + 0.3:
                    return True
        return False

    def _turn(self, walker: Walker) -> None:
        """At a node: go anywhere but back; a crossing tempts more than a pavement."""
        links = self.walkways.links[walker.target]
        choices = [link for link in links if link[0] != walker.node] or links
        weights = np.array([1.6 if crossing >= 0 else 1.0 for _, crossing in choices])
        node, crossing = choices[int(self._rng.choice(len(choices), p=weights / weights.sum()))]
        walker.node, walker.target = walker.target, node
        walker.crossing, walker.on_road = crossing, False

    def _may_cross(self, index: int) -> bool:
        crossing = self.walkways.crossings[index]
        if crossing.junction >= 0 and self.lights[crossing.junction].approaches >= 3:
            return self.lights[crossing.junction].walk()
        if crossing.junction >= 0:
            middle = self.town.junctions[crossing.junction].centre
            return all(
                v.speed < 0.5 or np.hypot(v.x - middle[0], v.y - middle[1]) > 28 for v in [self.ego, *self.vehicles]
            )
        for vehicle in [self.ego, *self.vehicles]:
            base = -vehicle.s
            for lane in vehicle.lanes[:3]:
                for stop, edge in lane.stops:
                    if edge == crossing.edge:
                        free = base + stop - vehicle.half
                        if -vehicle.half * 2 - LANE_M - 2 < free < vehicle.speed**2 / (2 * 3.0) and (
                            vehicle.speed > 0.5 or free < -1
                        ):
                            return False
                base += lane.path.length
        return True
