"""The world: a town in one scenario, and a vehicle with cameras and a LiDAR in it."""

from __future__ import annotations

from typing import Final

import numpy as np

from engines.world import furniture, ground, light, mesh, raster, scenery, sky
from engines.world.actors import Actor, Vehicle
from engines.world.lidar import RANGE_M, Lidar
from engines.world.lights import STEP_S
from engines.world.motion import flow
from engines.world.raster import Pose, Surface
from engines.world.render import Buffers, draw
from engines.world.rig import BASE_FROM_LIDAR, surround_rig
from engines.world.scenario import Scenario, named, stream
from engines.world.sensor import Sensor
from engines.world.town import Town
from engines.world.traffic import Traffic
from engines.world.truth import Standing, View, observe
from engines.world.view import Eye, Scene, prepare, prepare_lens
from perception.errors import ConfigError
from perception.geometry import rotation_about_z, wrapped
from perception.messages import Camera, Float, Float32, PointCloud, Rig, Transform, Truth

_SEEN_M: Final = 110.0
_TRUTH_M: Final = 80.0


class World:
    """A town, its traffic, and one vehicle that drives through it with sensors.

    `seed` decides everything that chance decides, `scenario` is one of `SCENARIOS` or its name, `rig` the
    cameras, undistorted; the usual six when it is None. Raises `ConfigError` for a scenario that does not exist.
    """

    def __init__(self, seed: int, scenario: str | Scenario = "day", rig: Rig | None = None) -> None:
        self.seed = seed
        self.scenario = scenario if isinstance(scenario, Scenario) else named(scenario)
        self.rig = surround_rig() if rig is None else rig
        self.time_s = 0.0
        self._town = Town(seed, tunnel=self.scenario.tunnel)
        still = scenery.build(self._town, seed)
        standing = raster.surface(still.mesh)
        azimuth = _sun_azimuth(stream(seed, "sun"), self.scenario.light)
        lighting = light.Lighting(self._town, self.scenario, standing, still.lamps, azimuth)
        wetness = np.clip(
            0.62 + ground.noise_tile(stream(seed, "wet"), ((4, 0.05), (32, 0.14), (128, 0.16)), 512), 0.1, 1.0
        )
        _light_up(standing, lighting)
        self._scene = Scene(
            ground.paint(self._town, seed),
            raster.Chunks(standing),
            lighting,
            sky.panorama(lighting, stream(seed, "sky")),
            self.scenario.weather == "rain",
            wetness.astype(np.float32),
        )
        self._traffic = Traffic(self._town, seed, self.scenario)
        self._signals = still.signals
        self._signal_surfaces = {
            state: raster.surface(furniture.signal_mesh(state)) for state in ("red", "amber", "green")
        }
        self._eyes: dict[tuple[str, int], Eye] = {}
        self._sensors = {name: Sensor(name, seed, self.scenario, lighting.light) for name in self.rig}
        self._lidar = Lidar()
        self._lidar_noise = stream(seed, "lidar")
        self._window: light.Window | None = None

    @property
    def tags(self) -> dict[str, str]:
        """The conditions now: light, weather, and whether the scene is a street or a tunnel."""
        x, y, _ = self._traffic.ego.pose(self._ahead_s)
        covered = any((low < (x, y)).all() and (high > (x, y)).all() for low, high in self._scene.lighting.tunnels)
        return {
            "light": self.scenario.light,
            "weather": self.scenario.weather,
            "scene": "tunnel" if covered else "street",
        }

    @property
    def map_from_base(self) -> Transform:
        """Where the vehicle is."""
        x, y, yaw = self._traffic.ego.pose(self._ahead_s)
        return Transform(rotation_about_z(yaw), np.array([x, y, 0.0]))

    def step(self, time_s: float) -> None:
        """Advance to `time_s` seconds, which must not lie in the past; the traffic moves in steps of 0.1 s."""
        if time_s < self.time_s:
            raise ConfigError(f"a world cannot go back from {self.time_s} s to {time_s} s; make another one")
        while self._traffic.time_s + STEP_S <= time_s + 1e-9:
            self._traffic.step()
            self._window = None
        self.time_s = time_s

    def render(self, camera: str, oversample: int = 1) -> View:
        """The image of one camera now, and the objects in it; `oversample` squared samples per pixel."""
        mounted = self.rig[camera]
        key = (camera, oversample)
        if key not in self._eyes:
            self._eyes[key] = prepare(mounted, oversample)
        eye = self._eyes[key]
        ego = self._traffic.ego.pose(self._ahead_s)
        pose = self._pose(mounted, ego)
        seen = self._in_view(self._near(ego, _SEEN_M), pose, eye)
        surfaces = [self._surface(actor) for actor in seen]
        moving = [s._replace(owners=np.full(len(s.kinds), i + 1, np.int32)) for i, s in enumerate(surfaces)]
        radiance, buffers = draw(
            self._scene, self._light_window(), raster.concatenate([*moving, *self._heads()]), eye, pose, ego[2]
        )
        if oversample > 1:
            radiance = _shrunk(radiance, oversample)
        image = self._sensors[camera].expose(radiance, self._flow(mounted, pose, seen, buffers), self.time_s)
        standing = [self._standing(a, s, pose) for a, s in zip(seen, surfaces, strict=True)]
        return View(image, observe(mounted, pose, ego, standing, buffers.owners))

    def truth(self) -> Truth:
        """All objects within 80 m of the vehicle, in `base_link`, seen or not."""
        ego = self._traffic.ego.pose(self._ahead_s)
        actors = self._near(ego, _TRUTH_M)
        poses = np.array([a.pose(self._ahead_s) for a in actors]).reshape(-1, 3)
        sizes = np.array([a.shape.size for a in actors]).reshape(-1, 3)
        centres = np.c_[poses[:, :2] - ego[:2], sizes[:, 2] / 2] @ rotation_about_z(ego[2])
        return Truth(
            stamp_ns=round(self.time_s * 1e9),
            ids=tuple(str(a.id) for a in actors),
            labels=np.array([a.shape.label for a in actors], np.int32),
            positions=centres,
            sizes=sizes,
            yaws=wrapped(poses[:, 2] - ego[2]),
            map_from_base=self.map_from_base,
        )

    def sweep(self) -> PointCloud:
        """A LiDAR sweep of what stands and moves within 80 m."""
        ego = self._traffic.ego.pose(self._ahead_s)
        moving = raster.concatenate([self._surface(a) for a in self._near(ego, RANGE_M)] + self._heads())
        points = self._lidar.sweep(ego, self._scene.standing, moving, self._lidar_noise)
        return PointCloud(round(self.time_s * 1e9), points, BASE_FROM_LIDAR)

    @property
    def _ahead_s(self) -> float:
        return self.time_s - self._traffic.time_s

    @staticmethod
    def _pose(camera: Camera, ego: tuple[float, float, float]) -> Pose:
        turn = rotation_about_z(ego[2])
        place = turn @ camera.base_from_camera.translation + np.array([ego[0], ego[1], 0.0])
        return Pose(turn @ camera.base_from_camera.rotation, place)

    def _flow(self, camera: Camera, pose: Pose, seen: list[Actor], buffers: Buffers) -> Float32:
        """How the image moves, for it and the actors do."""
        ego = self._traffic.ego
        yaw, later = ego.place(0.0)[2], ego.place(0.5)[2]
        yaw_rate = (later - yaw) / 0.5 * ego.speed
        arm = pose.place[:2] - ego.pose(self._ahead_s)[:2]
        own = ego.speed * np.array([np.cos(yaw), np.sin(yaw)]) + yaw_rate * np.array([-arm[1], arm[0]])
        moving = np.array([[0.0, 0.0], *(a.speed * np.array([np.cos(a.yaw), np.sin(a.yaw)]) for a in seen)]) - own
        in_camera = np.c_[moving, np.zeros(len(moving))] @ pose.rotation
        step = buffers.depth.shape[1] // camera.width
        lens = prepare_lens(camera, 1)
        return flow(lens, buffers.depth[::step, ::step], buffers.owners[::step, ::step], in_camera[:, [0, 2]], yaw_rate)

    def _near(self, ego: tuple[float, float, float], reach_m: float) -> list[Actor]:
        return [a for a in self._traffic.actors if (a.x - ego[0]) ** 2 + (a.y - ego[1]) ** 2 < reach_m**2]

    @staticmethod
    def _in_view(actors: list[Actor], pose: Pose, eye: Eye) -> list[Actor]:
        if not actors:
            return []
        middles = np.array([(a.x, a.y, a.shape.size[2] / 2) for a in actors])
        radii = np.array([float(np.sqrt(a.shape.size @ a.shape.size)) / 2 + 0.3 for a in actors])
        return [actors[i] for i in np.flatnonzero(raster.in_view(middles, radii, pose, eye.lens, _SEEN_M))]

    def _surface(self, actor: Actor) -> Surface:
        """The actor's drawing where it stands now, lamps lit as it drives."""
        x, y, yaw = actor.pose(self._ahead_s)
        phase = actor.drawing(self._ahead_s)
        drawing = actor.shape.meshes[phase]
        turn, place = rotation_about_z(yaw).T.astype(np.float32), np.array([x, y, 0.0], np.float32)
        corners = drawing.corners @ turn + place
        return Surface(
            corners, raster.normals_of(corners), drawing.colours, drawing.kinds, drawing.textures,
            actor.shape.middles[phase] @ turn + place,
            self._lamp_levels(actor)[drawing.kinds], np.zeros(len(drawing.kinds), np.int32),
        )  # fmt: skip

    def _lamp_levels(self, actor: Actor) -> np.ndarray:
        """How brightly each kind of triangle shines."""
        dark = self._scene.lighting.light.headlights
        levels = np.zeros(mesh.GREEN + 1, np.float32)
        if actor.parked:
            return levels
        blink = (self.time_s + actor.id * 0.37) % 0.8 < 0.45
        levels[mesh.HEADLAMP] = 7.0 * dark
        levels[mesh.TAIL] = 2.2 * dark
        levels[mesh.BRAKE] = 9.0 if actor.braking else 1.2 * dark
        levels[mesh.LEFT] = 6.0 if actor.turning == "left" and blink else 0.0
        levels[mesh.RIGHT] = 6.0 if actor.turning == "right" and blink else 0.0
        levels[mesh.LIT] = 0.3 if dark > 0.9 else 1.2
        return levels

    def _standing(self, actor: Actor, surface: Surface, pose: Pose) -> Standing:
        corners = surface.corners[raster.towards(surface, pose)]
        x, y, yaw = actor.pose(self._ahead_s)
        size = actor.shape.size
        return Standing(actor.id, actor.shape.label, corners, np.array([x, y, size[2] / 2]), size, yaw)

    def _heads(self) -> list[Surface]:
        """The traffic lights' heads, as they show now."""
        heads = []
        for signal in self._signals:
            head = self._signal_surfaces[self._traffic.lights[signal.junction].colour(signal.approach)]
            x, y, yaw = signal.place
            turn = rotation_about_z(yaw).T.astype(np.float32)
            levels = np.zeros(mesh.GREEN + 1, np.float32)
            levels[[mesh.RED, mesh.AMBER, mesh.GREEN]] = 3.0
            corners = head.corners @ turn + np.array([x, y, 0], np.float32)
            heads.append(head._replace(corners=corners, normals=head.normals @ turn, emission=levels[head.kinds]))
        return heads

    def _light_window(self) -> light.Window:
        """The light around the vehicle: once per step of the traffic, for all cameras."""
        if self._window is None:
            lighting = self._scene.lighting
            ego = self._traffic.ego.pose(0.0)
            near = self._near(ego, 75.0)
            casting = [self._surface(a) for a in near] if lighting.sunny else []
            moving = raster.concatenate(casting) if casting else None
            boxes = [(np.array([a.x, a.y]), _footprint(a), a.yaw) for a in (self._traffic.ego, *near)]
            driving = [self._traffic.ego, *(a for a in near if isinstance(a, Vehicle))]
            self._window = lighting.window(ego, moving, boxes, [_front(v) for v in driving])
        return self._window


def _sun_azimuth(rng: np.random.Generator, light_: str) -> float:
    """Anywhere; a low sun shines along streets, or none of it would reach the ground."""
    if light_ == "low_sun":
        return float(rng.integers(4) * np.pi / 2 + rng.uniform(-0.4, 0.4))
    return float(rng.uniform(-np.pi, np.pi))


def _footprint(actor: Actor) -> Float:
    """Where an actor keeps the sky from the ground; the box around a walker is as wide as a stride is long."""
    return actor.shape.size if isinstance(actor, Vehicle) or actor.parked else np.array([0.35, 0.45, 1.7])


def _front(vehicle: Vehicle) -> tuple[float, float, float]:
    return vehicle.x + vehicle.half * np.cos(vehicle.yaw), vehicle.y + vehicle.half * np.sin(vehicle.yaw), vehicle.yaw


def _light_up(standing: Surface, lighting: light.Lighting) -> None:
    """Street lamps burn when they must; those of a tunnel always do."""
    lamps = standing.kinds == mesh.LIT
    standing.emission[lamps] = 12.0 if lighting.light.lamps else 0.0
    middles = standing.corners.mean(1)
    for low, high in lighting.tunnels:
        inside = ((middles[:, :2] > low - 1) & (middles[:, :2] < high + 1)).all(1)
        standing.emission[lamps & inside] = 2.2


def _shrunk(radiance: Float32, factor: int) -> Float32:
    """The mean of each pixel's samples; what is far too bright counts as bright, or a lamp would outshine its edges."""
    channels, height, width = radiance.shape
    limited = np.minimum(radiance, 4.0)
    samples = limited.reshape(channels, height // factor, factor, width // factor, factor)
    return np.asarray(samples.mean((2, 4), dtype=np.float32))
