"""What cameras do to a daemon, one after the other: it lives through all of it."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest

from tests.faults.conftest import Row
from tests.faults.vehicle import CAMERAS, FRONT, LEFT, RIGHT, Shoot, Shot, Take, Vehicle, Window, as_it_should

TICKS = 20
GRACE = 5  # ticks until a fault that lasts is felt, on a busy machine


def shooting(vehicle: Vehicle, shoot: Shoot, ticks: int = TICKS, camera: str = LEFT) -> Window:
    """What comes of a camera whose pictures go another way."""

    def use(way: Shoot) -> None:
        vehicle.cameras[camera].shoot = way

    return vehicle.suffers(lambda: use(shoot), ticks, lambda: use(as_it_should))


def assert_only(seen: Window, camera: str = LEFT) -> None:
    """Every tick was published, and the other cameras had their part in them, but for what a busy machine costs."""
    assert not seen.gaps
    others = {name: ticks for name, ticks in seen.without.items() if name != camera}
    assert sum(others.values()) <= GRACE + len(seen.sets) // 5, others


def test_unplugged(vehicle: Vehicle, row: Row) -> None:
    left = vehicle.cameras[LEFT]
    seen = vehicle.suffers(left.unplug, TICKS, left.plug)
    assert_only(seen)
    assert seen.cameras("missing")[LEFT] >= TICKS - GRACE
    assert seen.told("CAM_LEFT: lost: unplugged; it is tried again until it is back")
    assert seen.told("CAM_LEFT is back")
    row("a camera is unplugged, and plugged in again", seen)


def test_frozen(vehicle: Vehicle, row: Row) -> None:
    still = vehicle.cameras[LEFT].pictures[0]
    seen = shooting(vehicle, lambda take: [Shot(take.stamp_ns, still)], ticks=30)
    assert_only(seen)
    assert 30 - 10 - GRACE <= seen.cameras("missing")[LEFT] <= 30 - 10 + GRACE  # after a second of it
    assert seen.told("CAM_LEFT: frame dropped: frozen: the same picture for 1 s")
    row("a camera freezes: the same picture again and again", seen)


def test_late(vehicle: Vehicle, row: Row) -> None:
    seen = shooting(vehicle, lambda take: [Shot(take.stamp_ns, take.picture, delay_s=0.15)])
    assert_only(seen)
    assert seen.cameras("missing")[LEFT] >= TICKS - GRACE
    assert seen.told("CAM_LEFT: frame dropped, captured at .*: it came after its tick had closed")
    row("frames of a camera come 150 ms late", seen)


def test_out_of_order(vehicle: Vehicle, row: Row) -> None:
    def swap(take: Take) -> list[Shot]:
        return [Shot(take.stamp_ns, take.picture, delay_s=0.0 if take.number % 2 else 0.12)]

    seen = shooting(vehicle, swap)
    assert_only(seen)
    assert TICKS // 2 - GRACE <= seen.cameras("missing")[LEFT] <= TICKS // 2 + GRACE
    assert seen.told("CAM_LEFT: frame dropped: a frame that is older than the one before")
    row("frames of a camera come out of order", seen)


def test_duplicated(vehicle: Vehicle, row: Row) -> None:
    seen = shooting(vehicle, lambda take: 2 * [Shot(take.stamp_ns, take.picture)])
    assert_only(seen)
    assert seen.cameras("missing")[LEFT] <= GRACE
    assert seen.told("CAM_LEFT: frame dropped: a frame of the same time again")
    row("every frame of a camera comes twice", seen)


def test_corrupted(vehicle: Vehicle, row: Row) -> None:
    seen = shooting(vehicle, lambda take: [Shot(take.stamp_ns, take.picture[: len(take.picture) // 2])])
    assert_only(seen)
    assert seen.cameras("missing")[LEFT] >= TICKS - GRACE
    assert seen.told("CAM_LEFT: frame dropped: the jpeg image is cut short or corrupt")
    row("frames of a camera are corrupted", seen)


def test_another_size(vehicle: Vehicle, row: Row) -> None:
    large = vehicle.cameras[LEFT].large
    seen = shooting(vehicle, lambda take: [Shot(take.stamp_ns, large)])
    assert_only(seen)
    assert seen.cameras("missing")[LEFT] >= TICKS - GRACE
    assert seen.told("CAM_LEFT: frame dropped: the image is 320x192, where the calibration says 160x96")
    row("frames of a camera have another size", seen)


def test_ten_times_slower(vehicle: Vehicle, row: Row) -> None:
    def every_tenth(take: Take) -> list[Shot]:
        return as_it_should(take) if take.number % 10 == 0 else []

    seen = shooting(vehicle, every_tenth, ticks=40)
    assert_only(seen)
    assert 40 - 4 - GRACE <= seen.cameras("missing")[LEFT] < 40
    assert seen.told("CAM_LEFT is missing")
    row("a camera becomes ten times slower", seen)


def test_all_gone(vehicle: Vehicle, row: Row) -> None:
    def all_of_them(what: str) -> None:
        for camera in vehicle.cameras.values():
            getattr(camera, what)()

    def silent() -> bool:
        return any("no frames from any camera" in line for line in vehicle.lines[-20:]) and not ready()

    def ready() -> bool:
        return vehicle.ask("/readyz")[0] == 200

    vehicle.up()
    assert ready()
    seen = vehicle.suffers(lambda: all_of_them("unplug"), 0, lambda: all_of_them("plug"), until=silent)
    assert len(seen.sets) <= GRACE
    assert ready()
    for name in CAMERAS:
        assert seen.told(f"{name}: lost: ")
    assert seen.told("frames come again")
    row("all cameras are gone, and come back", seen, published="nothing: no frames, no ticks; /readyz answers 503")


@pytest.mark.skipif(not Vehicle.has_wall_clock, reason="needs gcc, for a wall clock that can be stepped")
def test_clock_stepped(vehicle: Vehicle, row: Row) -> None:
    def back_and_forth() -> None:
        for hours in (1.0, -1.0):
            vehicle.step_clock(hours)
            assert abs(vehicle.its_time() - time.time() - hours * 3600) < 60
            vehicle.passes(TICKS // 2)

    seen = vehicle.suffers(back_and_forth, TICKS // 2, lambda: vehicle.step_clock(0))
    assert_only(seen)
    stamps_ns = [tracks["stamp_ns"] for tracks in seen.sets]
    assert all(0 < b - a < 60 * 10**9 for a, b in pairwise(stamps_ns))
    assert not seen.told("captured at|stamped")
    row("the wall clock is stepped by an hour, back and forth", seen)


def test_front_and_right_saw_all_along(vehicle: Vehicle) -> None:
    """Tracks are made of what the others see: the table is not one of empty track sets."""
    seen = vehicle.suffers(vehicle.cameras[LEFT].unplug, TICKS, vehicle.cameras[LEFT].plug)
    seen_by = {camera for tracks in seen.sets[GRACE:] for track in tracks["tracks"] for camera in track["seen_by"]}
    assert {FRONT, RIGHT} <= seen_by
    assert LEFT not in seen_by
