"""A procedural town, its traffic, and the cameras and LiDAR of a car that drives through it.

Everything is drawn by this package: no models, textures or recordings from elsewhere, and no GPU. It claims nothing
about real roads; it makes drives that anyone can regenerate, and labelled images to train the stock detector on.

As a command, a drive (DESIGN section 8)::

    python -m engines.world --seed 7 --out drives/mine.mcap --seconds 20 --scenario night

As a library, labelled images without a recording::

    from engines.world import World, SCENARIOS

    world = World(seed=1007, scenario="night")       # a town, its traffic, one ego route: about a second
    for tick in range(100):
        world.step(tick * 0.5)                       # seconds, never backwards; physics runs in between
        for camera in world.rig:
            view = world.render(camera)              # View(image, objects)
            view.image                               # (H, W, 3) uint8 BGR
            view.objects.boxes                       # and so on: see `Objects`
        world.tags                                   # {"light": "night", "weather": "clear", "scene": "street"}

What can be relied on:

- ``World(seed, scenario, rig=None)``: the same arguments give the same pixels, whatever ran before, on one machine;
  other processors may round the last bit differently. The seed decides the town's layout, the traffic, the palette and
  the sensors' noise. `rig` is any `perception.messages.Rig` of undistorted cameras; `surround_rig(width, height)` makes
  the usual six at another size.
- ``World.step(time_s)``: advances the town to `time_s`. A new world stands at 0. Small steps (0.1 s) show motion and a
  camera's exposure lagging behind the light, large ones (0.5 s to 2 s) more variety per image.
- ``World.render(camera, oversample=1)``: one image and its objects, now. `oversample=2` renders with four samples per
  pixel: smoother edges, four times the cost. Boxes are the same.
- ``World.truth()``: a `perception.messages.Truth` of all objects within 80 m of the vehicle, in `base_link`.
- ``World.sweep()``: a LiDAR sweep as a `perception.messages.PointCloud`.
- Objects are of `perception.messages.CLASSES`: vans and pickups are cars; motorcycles and bicycles come with their
  riders, as one object; people on foot are pedestrians. Bicycles and motorcycles without a rider do not occur.
- An image costs some 50 ms of one core at 640x384, half of that at 448x269, four times that with ``oversample=2``.
  In worker processes call ``cv2.setNumThreads(1)``.
- Boxes of objects that are wholly hidden or outside the image are left out; those with a visibility near 0 are for the
  trainer to ignore rather than to punish.
"""

from engines.world.rig import surround_rig
from engines.world.scenario import SCENARIOS, Scenario
from engines.world.truth import Objects, View
from engines.world.world import World

__all__ = ["SCENARIOS", "Objects", "Scenario", "View", "World", "surround_rig"]
