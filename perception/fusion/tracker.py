"""Tracks from 3-D measurements of any sensor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from perception.config import FusionConfig
from perception.errors import MeasurementError
from perception.fusion import association, kalman
from perception.fusion.association import Index, Mask
from perception.geometry import IDENTITY, apply, inverse, wrapped, yaw_of
from perception.messages import CLASSES, Float, Measurements, Track, Transform

Tracks = NDArray[Any]
_TRACKS: Final = np.dtype(
    [
        ("id", np.int64),
        ("state", np.float64, (4,)),  # x, y, vx, vy in the fixed frame
        ("covariance", np.float64, (4, 4)),
        ("stands", np.bool_),  # as far as its velocity tells
        ("off", np.float64, (2,)),  # where it has been seen of late, from where it was taken to be
        ("z", np.float64),
        ("z_variance", np.float64),
        ("size", np.float64, (3,)),  # NaN where no sensor has measured it
        ("yaw", np.float64),
        ("forward", np.float64),  # how sure it is that this is the front end: from 0 to 1, NaN: its yaw is a guess
        ("evidence", np.float64, (len(CLASSES),)),  # the scores of all looks, summed by label
        ("looks", np.int64),
        ("born_ns", np.int64),
        ("seen_ns", np.int64),
        ("sensor", np.int64),  # that saw it last
    ]
)
_SAME_PLACE: Final = association.gate_of(0.3)
_MOVES: Final = association.gate_of(0.92)  # so far from none must a velocity be
_STANDING_STD_MPS2: Final = 0.6  # how far the velocity of what stands strays in one second
_DRIVEN_OFF: Final = association.gate_of(0.5)  # so far from where it stood must its last looks be
_DRIVEN_FOR_S: Final = 0.7  # by the time that this shows
_CLIMB_STD_MPS: Final = 0.5  # how far a height above the road strays in one second
_LEAST_INTERVAL_S: Final = 1e-3
_LEAST_GAIN: Final = 0.1  # of a size or heading measured over and over: the mean at first, then ever the newest
_LEAST_SPEED_MPS: Final = 1.0  # slower, or less surely moving than this, an object keeps its heading
_SURE_SPEED_STDS: Final = 3.0


class Tracker:
    """Tracks objects over time from the measurements of any number of sensors.

    It works in a frame that stays fixed while the vehicle moves: `map` where ego poses are given. Without them it takes
    the vehicle as standing, and velocities are relative to it. Where poses begin or cease, or the time jumps by more
    than `delete_s` either way, nothing links before and after: all tracks end. Ids ascend and are never used twice by
    one tracker; the same calls give the same results to the last bit.
    """

    def __init__(self, config: FusionConfig) -> None:
        self._config = config
        self._gate = association.gate_of(config.gate_probability)
        sizes = [getattr(config.sizes, name) for name in CLASSES]
        self._usual_sizes = np.array([[size.length_m, size.width_m, size.height_m] for size in sizes])
        self._tracks = np.zeros(0, _TRACKS)
        self._next_id = 1
        self._stamp_ns = 0
        self._has_poses = False
        self._last_look_ns: dict[str, int] = {}
        self._sensors: dict[str, int] = {}  # numbered as they come

    def update(
        self, measurements: Sequence[Measurements], stamp_ns: int, map_from_base: Transform | None = None
    ) -> tuple[Track, ...]:
        """Take in one tick's measurements, each at its own time, and give the confirmed tracks at `stamp_ns`.

        A sensor that looked and found nothing sends empty `Measurements`; one that did not look, none. Several sensors
        may see the same object. `map_from_base` is the ego pose at `stamp_ns`; either it and all measurements have
        one, or none. What its sensor has looked for in vain, and nobody seen for `coast_s`, is not given, but may be
        seen again until `delete_s`, under its old id. Raises `MeasurementError` for values that cannot be, before
        anything is taken in.
        """
        fixed_from_base = _checked_pose(map_from_base)
        for look in measurements:
            _check_shapes(look)
            if (look.map_from_base is None) != (map_from_base is None):
                raise _refusal(look, "some have an ego pose and some have none; give map_from_base to all or to none")
        _check_values(measurements)
        if self._has_poses != (map_from_base is not None):
            self._forget()
            self._has_poses = not self._has_poses

        self._tell_what_stands()
        seen_by: dict[int, list[str]] = {}
        for measured in sorted(measurements, key=attrgetter("stamp_ns")):
            look = _in_fixed_frame(measured)
            self._predict(look.stamp_ns)
            rows, columns, new = self._associate(look)
            for track_id in self._update(rows, look, columns) + self._initiate(look, new):
                seen_by.setdefault(track_id, []).append(look.sensor)
        # Only now has every sensor had its look: one camera must not end what another is about to see.
        self._predict(stamp_ns)
        self._delete(fixed_from_base)
        return self._confirmed(fixed_from_base, seen_by)

    def _tell_what_stands(self) -> None:
        """What may as well have no velocity stays where it is: that makes its range surer than any one look tells."""
        state, covariance = self._tracks["state"], self._tracks["covariance"]
        self._tracks["stands"] = kalman.squared_distances(state[:, 2:], covariance[:, 2:, 2:]) < _MOVES

    def _predict(self, stamp_ns: int) -> None:
        elapsed_s = (stamp_ns - self._stamp_ns) * 1e-9
        self._stamp_ns = stamp_ns
        if abs(elapsed_s) > self._config.delete_s:
            self._forget()
        elif elapsed_s and len(self._tracks):
            tracks = self._tracks
            stray_mps2 = np.where(tracks["stands"], _STANDING_STD_MPS2, self._config.acceleration_std_mps2)
            tracks["state"], tracks["covariance"] = kalman.predict(
                tracks["state"], tracks["covariance"], elapsed_s, stray_mps2
            )
            tracks["z_variance"] += _CLIMB_STD_MPS**2 * abs(elapsed_s)

    def _associate(self, look: Measurements) -> tuple[Index, Index, Index]:
        """Rows of tracks with the columns of their measurements, and the columns of new objects."""
        tracks = self._tracks
        squared, determinants = association.distances(
            tracks["state"][:, :2], tracks["covariance"][:, :2, :2], look.positions[:, :2], look.covariances[:, :2, :2]
        )
        confused = association.confusion(tracks["evidence"], look.labels)
        rows, columns = association.assign(squared, determinants, confused, self._gate)
        # What is left over at the very place of a track is its object once more, as a rider is cyclist and bicycle.
        at_a_track = ((squared < _SAME_PLACE) & (confused < self._gate)).any(axis=0)
        taken = np.zeros(len(look), np.bool_)
        taken[columns] = True
        return rows, columns, np.flatnonzero(~(taken | at_a_track))

    def _update(self, rows: Index, look: Measurements, columns: Index) -> list[int]:
        """Take in measurements, each with its track; the ids of those tracks."""
        repetition = self._repetition(look)
        if not len(rows):
            return []
        tracks = self._tracks[rows]
        positions, sizes, yaws = look.positions[columns], look.sizes[columns], look.yaws[columns]
        noise = look.covariances[columns] * repetition
        tracks["off"] += (positions[:, :2] - tracks["state"][:, :2] - tracks["off"]) / repetition
        covariance = self._doubted(tracks, look.covariances[columns, :2, :2])
        state, covariance = kalman.update(tracks["state"], covariance, positions[:, :2], noise[:, :2, :2])
        tracks["state"], tracks["covariance"] = state, covariance
        z_gain = tracks["z_variance"] / (tracks["z_variance"] + noise[:, 2, 2])
        tracks["z"] += z_gain * (positions[:, 2] - tracks["z"])
        tracks["z_variance"] *= 1 - z_gain

        tracks["evidence"][np.arange(len(rows)), look.labels[columns]] += look.scores[columns]
        tracks["looks"] += 1
        tracks["seen_ns"] = np.maximum(tracks["seen_ns"], look.stamp_ns)
        tracks["sensor"] = self._number(look)

        gain = np.maximum(1 / tracks["looks"], _LEAST_GAIN)
        known = np.where(np.isnan(tracks["size"]), sizes, tracks["size"])
        tracks["size"] = np.where(np.isnan(sizes), known, known + gain[:, None] * (sizes - known))

        vx, vy = state[:, 2], state[:, 3]
        unsure_mps = _SURE_SPEED_STDS * np.sqrt((covariance[:, 2, 2] + covariance[:, 3, 3]) / 2)
        moving = np.hypot(vx, vy) > np.maximum(unsure_mps, _LEAST_SPEED_MPS)
        _turn(tracks, yaws, gain)
        tracks["yaw"] = np.where(moving, np.arctan2(vy, vx), tracks["yaw"])
        tracks["forward"] = np.where(moving, 1.0, tracks["forward"])
        self._tracks[rows] = tracks
        ids: list[int] = tracks["id"].tolist()
        return ids

    def _doubted(self, tracks: Tracks, noise: Float) -> Float:
        """The covariances before an update: what is not where it stood may have driven off a while ago.

        Without this a filter that is sure of a standing object loses it as it drives off. The remedy is the adjustable
        process noise of Bar-Shalom, Li and Kirubarajan 2001, ch. 11. The looks within `correlation_s` are judged by
        their mean, whose error is that of one: so it does not matter how many they are.
        """
        covariance = tracks["covariance"]
        off = kalman.squared_distances(tracks["off"], covariance[:, :2, :2] + noise)
        driven = tracks["stands"] & (off > _DRIVEN_OFF)
        if not driven.any():
            return covariance
        stray_mps2 = np.where(driven, self._config.acceleration_std_mps2, 0.0)
        doubted: Float = covariance + kalman.strayed(_DRIVEN_FOR_S, stray_mps2)
        return doubted

    def _repetition(self, look: Measurements) -> float:
        """How often a sensor repeats one and the same error: its looks within `correlation_s`.

        Between looks a size stays as wrong and a road as steep as it was. Taking such errors for independent would make
        a track ever surer of a wrong place; so many looks count as one.
        """
        last_ns = self._last_look_ns.get(look.sensor)
        self._last_look_ns[look.sensor] = look.stamp_ns
        if last_ns is None:
            return 1.0
        interval_s = max((look.stamp_ns - last_ns) * 1e-9, _LEAST_INTERVAL_S)
        return max(self._config.correlation_s / interval_s, 1.0)

    def _initiate(self, look: Measurements, columns: Index) -> list[int]:
        """Begin a track with each of these measurements; the new ids."""
        if not len(columns):
            return []
        born = np.zeros(len(columns), _TRACKS)
        born["id"] = np.arange(self._next_id, self._next_id + len(columns))
        self._next_id += len(columns)
        born["state"], born["covariance"] = kalman.initial(
            look.positions[columns, :2], look.covariances[columns, :2, :2], self._config.speed_std_mps
        )
        born["z"], born["z_variance"] = look.positions[columns, 2], look.covariances[columns, 2, 2]
        born["size"] = look.sizes[columns]
        # Until it moves or a heading is measured, an object is taken to head as the vehicle does.
        ego_yaw = yaw_of((look.map_from_base or IDENTITY).rotation)
        born["yaw"] = np.where(np.isnan(look.yaws[columns]), ego_yaw, look.yaws[columns])
        born["forward"] = np.where(np.isnan(look.yaws[columns]), np.nan, 1.0)
        born["evidence"][np.arange(len(columns)), look.labels[columns]] = look.scores[columns]
        born["looks"] = 1
        born["sensor"] = self._number(look)
        born["born_ns"] = born["seen_ns"] = look.stamp_ns
        self._tracks = np.concatenate([self._tracks, born])
        ids: list[int] = born["id"].tolist()
        return ids

    def _delete(self, fixed_from_base: Transform) -> None:
        tracks, config = self._tracks, self._config
        unseen_s = (self._stamp_ns - tracks["seen_ns"]) * 1e-9
        away = tracks["state"][:, :2] - fixed_from_base.translation[:2]
        # A new object is given up sooner, but not before the sensor that found it has looked again.
        waiting = self._is_confirmed() | ~self._looked_again()
        kept = unseen_s <= np.where(waiting, config.delete_s, config.confirm_s / 2)
        kept &= np.hypot(away[:, 0], away[:, 1]) <= config.max_range_m
        if not kept.all():
            self._tracks = tracks[kept]

    def _number(self, look: Measurements) -> int:
        return self._sensors.setdefault(look.sensor, len(self._sensors))

    def _looked_again(self) -> Mask:
        """Of which tracks the sensor that saw them last has looked since, and not seen them."""
        looked_ns = np.array([self._last_look_ns.get(sensor, 0) for sensor in self._sensors], np.int64)
        again: Mask = looked_ns[self._tracks["sensor"]] > self._tracks["seen_ns"]
        return again

    def _is_confirmed(self) -> Mask:
        seen_over_s = (self._tracks["seen_ns"] - self._tracks["born_ns"]) * 1e-9
        confirmed: Mask = seen_over_s >= self._config.confirm_s
        return confirmed

    def _forget(self) -> None:
        self._tracks = self._tracks[:0]
        self._last_look_ns.clear()

    def _confirmed(self, fixed_from_base: Transform, seen_by: dict[int, list[str]]) -> tuple[Track, ...]:
        coasted_s = (self._stamp_ns - self._tracks["seen_ns"]) * 1e-9
        shown = (coasted_s <= self._config.coast_s) | ~self._looked_again()
        tracks = self._tracks[self._is_confirmed() & shown]
        base_from_fixed = inverse(fixed_from_base)
        turned = np.zeros((4, 4))
        turned[:2, :2] = turned[2:, 2:] = base_from_fixed.rotation[:2, :2]
        labels = _labels(tracks)
        x, y, _, _ = tracks["state"].T
        positions = apply(base_from_fixed, np.array([x, y, tracks["z"]]).T)
        velocities = tracks["state"][:, 2:] @ base_from_fixed.rotation[:, :2].T
        covariances = turned @ tracks["covariance"] @ turned.T
        sizes = np.where(np.isnan(tracks["size"]), self._usual_sizes[labels], tracks["size"])
        yaws = wrapped(tracks["yaw"] - yaw_of(fixed_from_base.rotation))
        scores = tracks["evidence"][np.arange(len(tracks)), labels] / tracks["looks"]
        ages_s = (self._stamp_ns - tracks["born_ns"]) * 1e-9
        unseen_s = np.maximum(self._stamp_ns - tracks["seen_ns"], 0) * 1e-9
        return tuple(
            Track(
                id=track_id,
                label=label,
                score=score,
                position=position,
                velocity=velocity,
                size=size,
                yaw=yaw,
                covariance=covariance,
                age_s=age_s,
                since_seen_s=since_seen_s,
                seen_by=tuple(seen_by.get(track_id, ())),
            )
            for track_id, label, score, position, velocity, size, yaw, covariance, age_s, since_seen_s in zip(
                tracks["id"].tolist(),
                labels.tolist(),
                scores.tolist(),
                positions,
                velocities,
                sizes,
                yaws.tolist(),
                covariances,
                ages_s.tolist(),
                unseen_s.tolist(),
                strict=True,
            )
        )


def _turn(tracks: Tracks, yaws: Float, gain: Float) -> None:
    """Take in measured headings, in place; NaN where there is none.

    Detectors take the rear of a car for its front at times: the axis follows each measurement to its nearer end, and
    the measurements vote on which end is the front.
    """
    first = np.isnan(tracks["forward"]) & ~np.isnan(yaws)  # nothing that was measured stands against it
    tracks["yaw"], tracks["forward"] = np.where(first, yaws, tracks["yaw"]), np.where(first, 1.0, tracks["forward"])
    off = wrapped(yaws - tracks["yaw"])
    measured = ~np.isnan(off)
    to_nearer_end, votes = wrapped(2 * off) / 2, np.sign(np.cos(off))
    tracks["yaw"] += np.where(measured, gain * to_nearer_end, 0.0)
    forward = tracks["forward"] + np.where(measured, gain * (votes - tracks["forward"]), 0.0)
    tracks["yaw"] += np.where(forward < 0, np.pi, 0.0)
    tracks["forward"] = np.abs(forward)


def _labels(tracks: Tracks) -> Index:
    labels: Index = tracks["evidence"].argmax(axis=1)
    return labels


def _in_fixed_frame(look: Measurements) -> Measurements:
    """The same, but along the axes of `map`, where there is an ego pose."""
    fixed_from_base = look.map_from_base
    if fixed_from_base is None:
        return look
    rotation = fixed_from_base.rotation
    return replace(
        look,
        positions=apply(fixed_from_base, look.positions),
        covariances=rotation @ look.covariances @ rotation.T,
        yaws=look.yaws + yaw_of(rotation),
    )


def _checked_pose(map_from_base: Transform | None) -> Transform:
    pose = map_from_base or IDENTITY
    if not math.isfinite(pose.rotation.sum() + pose.translation.sum()):
        raise MeasurementError("an ego pose (map_from_base) is not finite; leave out the ticks that have no valid pose")
    return pose


def _check_shapes(look: Measurements) -> None:
    n = len(look)
    _checked_pose(look.map_from_base)
    for name, shape in (
        ("positions", (n, 3)),
        ("covariances", (n, 3, 3)),
        ("sizes", (n, 3)),
        ("yaws", (n,)),
        ("labels", (n,)),
    ):
        if getattr(look, name).shape != shape:
            raise _refusal(look, f"{name} have the shape {getattr(look, name).shape}, expected {shape}")


def _check_values(looks: Sequence[Measurements]) -> None:
    """All at once, as that is what costs; who is at fault is looked for when somebody is."""
    if looks and _problem(looks):
        culprit = next(look for look in looks if _problem([look]))
        raise _refusal(culprit, _problem([culprit]))


def _problem(looks: Sequence[Measurements]) -> str:
    names = ("positions", "covariances", "sizes", "yaws", "scores", "labels")
    positions, covariances, sizes, yaws, scores, labels = (
        np.concatenate([getattr(look, name) for look in looks]) for name in names
    )
    # Comparisons with NaN are false: so it is refused where it cannot be, and passes where it means "not measured".
    fine = {
        "a position is not finite": np.isfinite(positions).all(),
        "a covariance is not positive definite": _positive_definite(covariances),
        "a size is not positive and finite; give NaN where it was not measured": not (
            (sizes <= 0) | (sizes == np.inf)
        ).any(),
        "a yaw is infinite; give NaN where it was not measured": not np.isinf(yaws).any(),
        "a score is not within 0 and 1": ((scores >= 0) & (scores <= 1)).all(),
        f"a label is not an index into {CLASSES}": ((labels >= 0) & (labels < len(CLASSES))).all(),
    }
    return next((problem for problem, is_fine in fine.items() if not is_fine), "")


def _positive_definite(covariances: Float) -> bool:
    """Whether all (N, 3, 3) are finite, and certain neither over the ground nor upwards."""
    if not np.isfinite(covariances).all():
        return False
    xx, yy, zz = covariances[:, 0, 0], covariances[:, 1, 1], covariances[:, 2, 2]
    least = np.minimum(np.minimum(xx, zz), xx * yy - covariances[:, 0, 1] * covariances[:, 1, 0])
    return bool((least > 0).all())


def _refusal(look: Measurements, problem: str) -> MeasurementError:
    return MeasurementError(f"measurements of {look.sensor!r} at {look.stamp_ns} ns: {problem}")
