from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from perception.accuracy import DetectionAccuracy, TrackAccuracy, iou, match
from perception.errors import BackendError
from perception.messages import Detections, Float, Track, TrackSet, Truth
from perception.truth import TruthView

TICKS = 10


def truth_of(*places: tuple[float, float]) -> Truth:
    positions = np.array([(x, y, 1.0) for x, y in places]).reshape(-1, 3)
    count = len(places)
    names = tuple(f"object-{i}" for i in range(count))
    return Truth(0, names, np.zeros(count, np.int32), positions, np.full((count, 3), 2.0), np.zeros(count))


def tracks_of(*objects: tuple[int, tuple[float, float]], label: int = 0) -> TrackSet:
    def track(track_id: int, place: tuple[float, float]) -> Track:
        still, size = np.zeros(3), np.full(3, 2.0)
        return Track(track_id, label, 0.9, np.array([*place, 1.0]), still, size, 0.0, np.eye(4), 1.0, 0.0, ("CAM",))

    return TrackSet(0, 0, 0, (), tuple(track(*given) for given in objects))


def judge(*ticks: tuple[Truth, TrackSet], visible: list[bool] | None = None, covered: bool = True) -> dict[str, object]:
    accuracy = TrackAccuracy(match_m=2.0, range_m=50.0)
    for truth, tracks in ticks:
        seen = np.ones(len(truth.ids), np.bool_) if visible is None else np.array(visible)
        accuracy.add(tracks, truth, seen, np.full(len(tracks.tracks), covered))
    return accuracy.figures()


def tracking(*ticks: tuple[Truth, TrackSet], **changes: object) -> dict[str, float]:
    figures = judge(*ticks, **changes)["tracking"]  # type: ignore[arg-type]
    assert isinstance(figures, dict)
    return figures


A, B = (10.0, 2.0), (30.0, -4.0)


def test_perfect_tracks() -> None:
    figures = tracking(*[(truth_of(A, B), tracks_of((1, A), (2, B)))] * TICKS)
    assert (figures["MOTA"], figures["IDF1"], figures["HOTA"]) == pytest.approx((1, 1, 1))
    assert (figures["truth"], figures["objects"], figures["id_switches"]) == (20, 2, 0)


def test_a_change_of_id_costs_one_switch_and_half_the_identity() -> None:
    ticks = [(truth_of(A), tracks_of((1 if i < TICKS / 2 else 2, A))) for i in range(TICKS)]
    figures = tracking(*ticks)
    assert figures["id_switches"] == 1
    assert figures["MOTA"] == pytest.approx(1 - 1 / TICKS)
    assert figures["IDF1"] == pytest.approx(0.5)
    assert figures["AssA"] == pytest.approx(0.5)
    assert figures["HOTA"] == pytest.approx(np.sqrt(0.5))


def test_misses_and_false_tracks_count_one_each() -> None:
    missed = tracking(*[(truth_of(A, B), tracks_of((1, A)))] * TICKS)
    assert [missed["misses"], missed["false_tracks"], missed["MOTA"]] == pytest.approx([TICKS, 0, 0.5])
    false = tracking(*[(truth_of(A), tracks_of((1, A), (2, B)))] * TICKS)
    assert [false["misses"], false["false_tracks"], false["MOTA"]] == pytest.approx([0, TICKS, 0.0])


@pytest.mark.parametrize(("offset", "mota"), [(1.0, 1.0), (1.99, 1.0), (2.01, -1.0)])
def test_centres_within_the_threshold_match(offset: float, mota: float) -> None:
    ticks = [(truth_of(A), tracks_of((1, (A[0] + offset, A[1]))))] * TICKS
    assert tracking(*ticks)["MOTA"] == pytest.approx(mota)


def test_errors_are_known_by_range() -> None:
    figures = judge((truth_of(A, B, (45.0, 0.0)), tracks_of((1, (10.6, 2.8)), (2, (30.0, -3.5)), (3, (47.5, 0.0)))))
    rows = figures["by_range"]
    assert isinstance(rows, list)
    assert [(row["from_m"], row["to_m"], row["truth"], row["recall"]) for row in rows] == [
        (0, 20, 1, 1), (20, 40, 1, 1), (40, 60, 1, 0), (60, None, 0, None),
    ]  # fmt: skip
    assert rows[0]["error_mean_m"] == pytest.approx(1.0)
    assert rows[1]["error_p50_m"] == pytest.approx(0.5)
    assert rows[2]["error_p90_m"] is None
    assert figures["recall"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(("true", "said", "apart"), [(3.0, -3.0, 2 * np.pi - 6), (0, np.pi, np.pi), (0.1, 12.7, 0.034)])
def test_a_heading_is_off_by_half_a_turn_at_most(true: float, said: float, apart: float) -> None:
    tracks = tracks_of((1, A))
    turned = replace(tracks, tracks=(replace(tracks.tracks[0], yaw=said),))
    figures = judge((replace(truth_of(A), yaws=np.array([true])), turned))["all"]
    assert isinstance(figures, dict)
    assert figures["heading_p50_deg"] == pytest.approx(np.degrees(apart), abs=0.1)


def test_what_need_not_be_found_counts_neither_way() -> None:
    ticks = [(truth_of(A, B), tracks_of((1, A), (2, B)))] * TICKS
    assert tracking(*ticks, visible=[True, False]) == tracking(*[(truth_of(A), tracks_of((1, A)))] * TICKS)
    assert tracking(*[(truth_of(A, B), tracks_of((1, A)))] * TICKS, visible=[True, False])["MOTA"] == 1


def test_tracks_where_no_camera_looks_are_not_false() -> None:
    ticks = [(truth_of(A), tracks_of((1, A), (2, B)))] * TICKS
    assert tracking(*ticks, covered=False)["false_tracks"] == 0


def test_beyond_the_range_nothing_is_judged() -> None:
    far = (60.0, 0.0)
    figures = tracking(*[(truth_of(A, far), tracks_of((1, A), (2, (80.0, 0.0))))] * TICKS)
    assert (figures["truth"], figures["misses"], figures["false_tracks"]) == (TICKS, 0, 0)


def test_classes_are_counted_beside_the_matches() -> None:
    figures = judge((truth_of(A), tracks_of((1, A), label=1)))
    assert figures["matched"] == 1
    assert figures["class_agreement"] == 0


def test_no_tracks_and_no_truth_have_figures_too() -> None:
    assert tracking((truth_of(A), tracks_of()))["MOTA"] == 0
    assert tracking((truth_of(), tracks_of((1, A)))) == {"truth": 0, "objects": 0}


def test_without_trackeval_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trackeval.metrics", None)
    with pytest.raises(BackendError, match=r"TrackEval, which is not installed: pip install -e"):
        tracking((truth_of(A), tracks_of((1, A))))


BOX = (100.0, 100.0, 200.0, 200.0)
OTHER = (400.0, 100.0, 500.0, 150.0)


def detect(*found: tuple[float, ...], labels: tuple[int, ...] = ()) -> Detections:
    count = len(found)
    return Detections(
        "CAM",
        0,
        np.array(found, np.float32).reshape(-1, 4),
        np.linspace(0.9, 0.5, count).astype(np.float32),
        np.array(labels or (0,) * count, np.int32),
    )


def compare(
    found: Detections,
    boxes: list[tuple[float, ...]],
    visible: list[bool],
    *places: tuple[float, float],
    charged: bool | list[bool] = True,
) -> dict[str, object]:
    accuracy = DetectionAccuracy()
    seen: Float = np.array(boxes).reshape(-1, 4)
    blamed = np.broadcast_to(np.array(charged), len(found.boxes))
    accuracy.add(found, TruthView(seen, np.array(visible, np.bool_)), truth_of(*places), blamed)
    return accuracy.figures()


def test_boxes_that_overlap_enough_are_found_once() -> None:
    near = (110.0, 100.0, 210.0, 200.0)
    figures = compare(detect(BOX, near), [BOX, OTHER], [True, True], A, B)
    assert (figures["recall"], figures["precision"], figures["false"]) == (0.5, 0.5, 1)
    rows = figures["by_range"]
    assert isinstance(rows, list)
    assert [(row["truth"], row["recall"]) for row in rows] == [(1, 1), (1, 0), (0, None), (0, None)]


def test_boxes_that_overlap_too_little_are_false() -> None:
    figures = compare(detect((150.0, 100.0, 250.0, 200.0)), [BOX], [True], A)
    assert (figures["found"], figures["false"]) == (0, 1)


def test_detections_of_what_need_not_be_found_and_tiny_ones_are_ignored() -> None:
    part = (100.0, 100.0, 150.0, 150.0)
    tiny = (300.0, 300.0, 310.0, 311.0)
    figures = compare(detect(part, tiny, BOX), [BOX], [False], A)
    assert (figures["truth"], figures["false"], figures["recall"], figures["precision"]) == (0, 0, None, None)


def test_what_is_not_charged_is_found_all_the_same_and_never_false() -> None:
    figures = compare(detect(BOX, OTHER, labels=(0, 3)), [BOX], [True], A, charged=False)
    assert (figures["found"], figures["false"], figures["class_agreement"]) == (1, 0, 1)


def test_the_class_of_a_found_box_is_counted() -> None:
    figures = compare(detect(BOX, OTHER, labels=(0, 3)), [BOX, OTHER], [True, True], A, B)
    assert figures["class_agreement"] == 0.5


def test_an_image_without_truth_or_without_detections() -> None:
    assert compare(detect(BOX), [], [])["precision"] == 0
    assert compare(detect(), [BOX], [True], A)["recall"] == 0


def test_iou_of_boxes_outside_the_image_is_zero() -> None:
    nothing = (np.nan,) * 4
    np.testing.assert_allclose(iou(np.array(BOX), np.array([BOX, OTHER, nothing])), [1, 0, 0])


def test_a_match_is_the_best_for_all() -> None:
    rows, columns = match(np.array([[0.1, 1.0], [0.2, 5.0], [9.0, 9.0]]), 2.0)
    assert sorted(zip(rows.tolist(), columns.tolist(), strict=True)) == [(0, 1), (1, 0)]
    assert len(match(np.zeros((0, 3)), 2.0)[0]) == 0
