from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.errors import OutputError, ResultsError
from perception.messages import CLASSES, UNDISTURBED, Decision, Detections, Track, TrackSet
from perception.output.jsonl import DetectionsWriter, TracksWriter, read_detections, read_tracks
from tests.output.samples import make_tick, make_track, make_tracks


def written(directory: Path, *track_sets: TrackSet) -> Path:
    writer = TracksWriter(directory)
    for track_set in track_sets:
        writer.publish(track_set)
    writer.close()
    return directory / "tracks.jsonl"


def assert_same(read: Track, wrote: Track) -> None:
    for name in ("position", "velocity", "size", "covariance"):
        np.testing.assert_allclose(getattr(read, name), getattr(wrote, name), atol=0.51e-4)
    for name in ("score", "yaw", "age_s", "since_seen_s"):
        assert getattr(read, name) == pytest.approx(getattr(wrote, name), abs=0.51e-4)
    for name in ("id", "label", "seen_by"):
        assert getattr(read, name) == getattr(wrote, name)


def test_tracks_come_back_as_they_were_published(tmp_path: Path) -> None:
    sets = [make_tracks(0), make_tracks(1, missing=("CAM_LEFT",), map_from_base=None), make_tracks(2, ids=())]
    read = list(read_tracks(written(tmp_path, *sets)))
    assert len(read) == 3
    for back, wrote in zip(read, sets, strict=True):
        assert (back.tick, back.stamp_ns, back.skew_ns) == (wrote.tick, wrote.stamp_ns, wrote.skew_ns)
        assert back.missing == wrote.missing
        for a, b in zip(back.tracks, wrote.tracks, strict=True):
            assert_same(a, b)
    assert read[1].map_from_base is None
    pose, expected = read[0].map_from_base, sets[0].map_from_base
    assert pose is not None
    assert expected is not None
    np.testing.assert_allclose(pose.translation, expected.translation, atol=1e-4)
    np.testing.assert_allclose(pose.rotation, expected.rotation, atol=1e-6)


names = st.lists(st.text(max_size=5), max_size=3).map(tuple)
decisions = st.builds(
    Decision, st.integers(0, 20), st.booleans(), names, names, st.booleans(), st.integers(-(10**12), 10**12)
)


@given(decisions)
def test_any_decision_comes_back_to_the_nanosecond(
    tmp_path_factory: pytest.TempPathFactory, decision: Decision
) -> None:
    (read,) = read_tracks(written(tmp_path_factory.mktemp("run"), make_tracks(decision=decision)))
    assert read.decision == decision


def test_a_file_of_before_there_were_decisions_reads_as_undisturbed(tmp_path: Path) -> None:
    path = written(tmp_path, make_tracks())
    record = json.loads(path.read_text())
    del record["decision"]
    path.write_text(json.dumps(record) + "\n")
    (read,) = read_tracks(path)
    assert read.decision == UNDISTURBED


numbers = st.floats(-1e6, 1e6, allow_nan=False)


@given(st.lists(st.tuples(numbers, numbers, numbers), max_size=5), st.integers(0, len(CLASSES) - 1))
def test_any_track_comes_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[float, ...]], label: int
) -> None:
    tracks = tuple(
        make_track(i, position=np.array(row), velocity=-np.array(row), yaw=row[0], label=label, seen_by=('a"b', "ü"))
        for i, row in enumerate(rows)
    )
    wrote = make_tracks(tracks=tracks)
    (read,) = read_tracks(written(tmp_path_factory.mktemp("run"), wrote))
    for a, b in zip(read.tracks, wrote.tracks, strict=True):
        assert_same(a, b)


def test_lines_are_strict_compact_json_with_the_documented_keys(tmp_path: Path) -> None:
    (line,) = written(tmp_path, make_tracks(3, ids=(5,))).read_text().splitlines()
    record = json.loads(line)
    assert set(record) == {"tick", "stamp_ns", "skew_ms", "missing", "decision", "map_from_base", "tracks"}
    assert record["skew_ms"] == 1.234567
    assert set(record["map_from_base"]) == {"translation_m", "rotation_xyzw"}
    (track,) = record["tracks"]
    assert list(track) == [
        "id", "class", "score", "position_m", "velocity_mps", "size_m", "yaw_rad", "covariance", "age_s",
        "since_seen_s", "seen_by",
    ]  # fmt: skip
    assert len(track["covariance"]) == 10
    assert ": " not in line
    assert ", " not in line


def test_the_same_tracks_give_the_same_bytes_whatever_the_noise_of_the_last_bits(tmp_path: Path) -> None:
    track = make_track(position=np.array([1.0, -0.0, 2.0]))
    noisy = make_track(position=np.array([1.0 + 1e-12, 1e-12, 2.0 - 1e-12]))
    first = written(tmp_path / "a", make_tracks(tracks=(track,))).read_bytes()
    assert written(tmp_path / "b", make_tracks(tracks=(noisy,))).read_bytes() == first
    assert b"-0.0000" not in first


def test_a_track_that_is_not_a_number_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not finite"):
        written(tmp_path, make_tracks(tracks=(make_track(yaw=float("nan")),)))


def test_the_final_name_appears_on_close_only(tmp_path: Path) -> None:
    writer = TracksWriter(tmp_path)
    writer.publish(make_tracks())
    assert not (tmp_path / "tracks.jsonl").exists()
    assert len(list(read_tracks(tmp_path / "tracks.jsonl.partial"))) == 1
    writer.close()
    writer.close()
    assert [path.name for path in tmp_path.iterdir()] == ["tracks.jsonl"]


def test_a_killed_run_leaves_a_readable_partial_file(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from perception.output.jsonl import TracksWriter\n"
        "from tests.output.samples import make_tracks\n"
        "writer = TracksWriter(Path(sys.argv[1]))\n"
        "for tick in range(10**9): writer.publish(make_tracks(tick))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
    partial = tmp_path / "tracks.jsonl.partial"
    while not partial.exists() or partial.stat().st_size < 20_000:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [path.name for path in tmp_path.iterdir()] == ["tracks.jsonl.partial"]
    lines = partial.read_bytes().count(b"\n")
    ticks = [read.tick for read, _ in zip(read_tracks(partial), range(lines), strict=False)]
    assert ticks == list(range(lines))
    assert lines > 10


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda line: line[:-40], "cut off"),
        (lambda line: line.replace(b'"tick":1', b'"tick":"1"'), "tick: expected an integer"),
        (lambda line: line.replace(b'"tick":1', b'"tick":99999999999999999999'), "tick: expected an integer"),
        (lambda line: line.replace(b'"yaw_rad"', b'"jaw_rad"'), "'yaw_rad' is missing"),
        (lambda line: line.replace(b'"score":0.7500', b'"score":NaN'), "NaN is no number"),
        (lambda line: line.replace(b'"score":0.7500', b'"score":1e999'), "score: expected a number"),
        (lambda line: line.replace(b'"class":"truck"', b'"class":"tank"'), "unknown class 'tank'"),
        (lambda line: line.replace(b'"seen_by":["CAM_FRONT"]', b'"seen_by":"CAM_FRONT"'), "seen_by: expected a list"),
        (lambda _: b"[" * 100_000 + b"\n", "nested too deeply"),
        (lambda _: b"\xff\xfe\n", "damaged"),
        (lambda _: b"17\n", "damaged"),
    ],
)
def test_a_damaged_line_is_named_and_those_before_it_are_kept(tmp_path: Path, damage: object, message: str) -> None:
    path = written(tmp_path, make_tracks(0), make_tracks(1))
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + damage(second))  # type: ignore[operator]
    reader = read_tracks(path)
    assert next(reader).tick == 0
    with pytest.raises(ResultsError, match=message) as error:
        next(reader)
    assert "tracks.jsonl, line 2" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="cannot be read: No such file"):
        list(read_tracks(tmp_path / "tracks.jsonl"))


def test_a_place_that_cannot_be_written_to_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot be written: .*name another place in the config, or with --out$"):
        TracksWriter(tmp_path / "file" / "run")


def test_a_disk_that_takes_no_more_is_one_line_and_leaves_what_it_took(tmp_path: Path) -> None:
    writer = TracksWriter(tmp_path)
    writer.publish(make_tracks())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OutputError, match=r"tracks\.jsonl: cannot be written: File too large"):
            writer.publish(make_tracks(1, ids=range(10)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert next(read_tracks(tmp_path / "tracks.jsonl.partial")).tick == 0


def test_detections_come_back_per_tick_and_camera(tmp_path: Path) -> None:
    ticks = [make_tick(0), make_tick(1, missing=("CAM_LEFT",))]
    writer = DetectionsWriter(tmp_path)
    for tick in ticks:
        writer.record(tick)
    writer.close()
    read = list(read_detections(tmp_path / "detections.jsonl"))
    assert [(tick, found.camera) for tick, found in read] == [(0, "CAM_FRONT"), (0, "CAM_LEFT"), (1, "CAM_FRONT")]
    for (_, found), wrote in zip(read, [d for tick in ticks for d in tick.detections], strict=True):
        np.testing.assert_allclose(found.boxes, wrote.boxes, atol=0.0051)
        np.testing.assert_allclose(found.scores, wrote.scores, atol=0.51e-4)
        np.testing.assert_array_equal(found.labels, wrote.labels)
        assert found.capture_ns == wrote.capture_ns
        assert [a.dtype.name for a in (found.boxes, found.scores, found.labels)] == ["float32", "float32", "int32"]


def test_an_image_with_nothing_in_it_is_a_line_too(tmp_path: Path) -> None:
    tick = make_tick(0)
    nothing = Detections("CAM_FRONT", 5, np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))
    writer = DetectionsWriter(tmp_path)
    writer.record(type(tick)(tick.frames, (nothing,), tick.tracks, tick.times))
    writer.close()
    ((_, found),) = read_detections(tmp_path / "detections.jsonl")
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)
