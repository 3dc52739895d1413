import numpy as np

from engines.world import View, World
from perception import geometry


def views(world: World) -> dict[str, View]:
    return {name: world.render(name) for name in world.rig}


def test_boxes_lie_in_the_image_and_hold_what_shows(day: World) -> None:
    for name, view in views(day).items():
        objects, camera = view.objects, day.rig[name]
        assert len({len(field) for field in objects}) == 1
        assert (objects.boxes[:, :2] >= 0).all()
        assert (objects.boxes[:, 2:] <= [camera.width, camera.height]).all()
        assert (objects.visible_boxes[:, :2] > objects.boxes[:, :2] - 1.01).all()
        assert (objects.visible_boxes[:, 2:] < objects.boxes[:, 2:] + 1.01).all()
        for part in (objects.visibility, objects.truncation):
            assert (part >= 0).all()
            assert (part <= 1).all()
        assert (np.diff(objects.positions_camera[:, 2]) <= 0).all()  # by falling distance


def test_an_object_that_nothing_hides_fills_its_box(day: World) -> None:
    clear = 0
    for view in views(day).values():
        objects = view.objects
        whole = (
            (objects.visibility > 0.97) & (objects.truncation < 0.01) & (objects.boxes[:, 3] - objects.boxes[:, 1] > 12)
        )
        clear += int(whole.sum())
        np.testing.assert_allclose(objects.visible_boxes[whole], objects.boxes[whole], atol=1.1)
    assert clear >= 3


def test_the_3d_box_projects_onto_the_2d_box(day: World) -> None:
    compared = 0
    for name, view in views(day).items():
        camera, objects = day.rig[name], view.objects
        base_from_camera = camera.base_from_camera
        for i in np.flatnonzero((objects.truncation < 0.01) & (objects.positions_camera[:, 2] > 5)):
            corners = geometry.box_corners(
                objects.positions[i].astype(float), objects.sizes[i].astype(float), float(objects.yaws[i])
            )
            pixels, _ = geometry.project(camera, geometry.apply(geometry.inverse(base_from_camera), corners))
            low, high = pixels.min(0), pixels.max(0)
            box = objects.boxes[i]
            # The drawing lies within its box, but for mirrors and bags.
            slack = 1.5 + 0.12 * (high - low)
            assert (box[:2] > low - slack).all()
            assert (box[2:] < high + slack).all()
            assert ((box[2:] - box[:2]) > 0.4 * (high - low) - 2).all()
            np.testing.assert_allclose(
                geometry.apply(geometry.inverse(base_from_camera), objects.positions[i].astype(float)),
                objects.positions_camera[i], atol=1e-3,
            )  # fmt: skip
            compared += 1
    assert compared > 10


def test_an_object_seen_by_two_cameras_is_the_same_object(day: World) -> None:
    seen: dict[int, np.ndarray] = {}
    shared = 0
    for view in views(day).values():
        for number, position in zip(view.objects.ids.tolist(), view.objects.positions, strict=True):
            if number in seen:
                shared += 1
                np.testing.assert_allclose(seen[number], position, atol=1e-4)
            seen[number] = position
    assert shared >= 1
    truth = day.truth()
    for number, position in zip(truth.ids, truth.positions, strict=True):
        if int(number) in seen:
            np.testing.assert_allclose(seen[int(number)], position, atol=1e-4)


def test_alpha_is_the_heading_as_seen_along_the_line_of_sight(day: World) -> None:
    """KITTI: 0 for what heads right across the line of sight, -pi/2 for what heads away along it."""
    for name, view in views(day).items():
        objects = view.objects
        rotation = day.rig[name].base_from_camera.rotation
        for i in range(len(objects.ids)):
            heading = np.array([np.cos(objects.yaws[i]), np.sin(objects.yaws[i]), 0.0]) @ rotation
            sight = objects.positions_camera[i] * [1, 0, 1]
            sight = sight / np.linalg.norm(sight)
            right = np.array([sight[2], 0, -sight[0]])
            np.testing.assert_allclose(
                [np.cos(objects.alphas[i]), -np.sin(objects.alphas[i])], [heading @ right, heading @ sight], atol=1e-4
            )
