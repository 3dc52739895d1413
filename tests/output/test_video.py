from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.errors import OutputError
from perception.messages import Decision, Detections, FrameSet, Image, PointCloud, Rig, Tick, TrackSet
from perception.output.birdseye import BirdsEye
from perception.output.drawing import BACKGROUND, CameraView, blank, label, lines, surface, text, text_width
from perception.output.palette import CLASS_COLOURS
from perception.output.picture import Picture, arrange
from perception.output.video import render
from perception.stages import Begin
from tests.drives import scan
from tests.output.samples import PERIOD_NS, make_rig, make_tick, make_track, make_tracks


class Drive:
    """A source of frame sets that are there already."""

    def __init__(self, rig: Rig, sets: Sequence[FrameSet]) -> None:
        self.rig = rig
        self._sets = sets

    def frame_sets(self, begin: Begin | None = None) -> Iterator[FrameSet]:  # noqa: ARG002
        yield from self._sets

    def faults(self) -> Sequence[str]:
        return ()

    def close(self) -> None:
        pass


def by_tick(ticks: Sequence[Tick]) -> list[tuple[int, Detections]]:
    return [(tick.frames.tick, found) for tick in ticks for found in tick.detections]


def decode(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        return list(container.decode(stream))


def has_colour(image: Image, label_index: int) -> bool:
    """Whether some pixels have a class's colour."""
    colour = np.array(CLASS_COLOURS[label_index][::-1])
    return int((np.abs(image.astype(int) - colour).max(axis=2) < 12).sum()) > 20


def test_a_video_has_a_frame_per_tick_at_the_pace_of_the_drive(tmp_path: Path) -> None:
    rig = make_rig()
    ticks = [make_tick(i, rig) for i in (0, 1, 2, 5)]
    told: list[int] = []
    path = tmp_path / "video.mp4"
    source = Drive(rig, [tick.frames for tick in ticks])
    drawn = render(source, [tick.tracks for tick in ticks], by_tick(ticks), path, title="drive", progress=told.append)
    frames = decode(path)
    assert drawn == len(frames) == 4
    assert told == [1, 2, 3, 4]
    assert [round(float(frame.time or 0), 3) for frame in frames] == [0, 0.1, 0.2, 0.5]
    picture = Picture(rig, "drive")
    assert {(frame.width, frame.height) for frame in frames} == {(picture.width, picture.height)}
    assert [entry.name for entry in tmp_path.iterdir()] == ["video.mp4"]
    assert path.read_bytes().index(b"moov") < path.read_bytes().index(b"mdat")


def test_tracks_and_detections_are_joined_by_tick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rig = make_rig()
    ticks = [make_tick(i, rig) for i in range(4)]
    seen: list[tuple[int, int | None, list[str]]] = []
    draw = Picture.draw

    def spy(self: Picture, frames: FrameSet, detections: dict[str, Detections], published: TrackSet | None) -> Image:
        seen.append((frames.tick, published.tick if published else None, sorted(detections)))
        return draw(self, frames, detections, published)

    monkeypatch.setattr(Picture, "draw", spy)
    written = [ticks[0], ticks[2]]
    source = Drive(rig, [tick.frames for tick in ticks[1:]])
    render(source, [t.tracks for t in written], by_tick(written), tmp_path / "v.mp4", title="", progress=lambda _: None)
    assert seen == [(1, None, []), (2, 2, ["CAM_FRONT", "CAM_LEFT"]), (3, None, [])]


@pytest.mark.parametrize(
    ("decision", "dark"),
    [
        (Decision(), ()),
        (Decision(level=2, skipped=("CAM_LEFT",)), ("CAM_LEFT",)),
        (Decision(late=("CAM_FRONT",)), ("CAM_FRONT",)),
        (Decision(dropped=True, deadline_met=False), ("CAM_FRONT", "CAM_LEFT")),
    ],
)
def test_what_nobody_looked_at_is_darker(decision: Decision, dark: tuple[str, ...]) -> None:
    rig = make_rig()
    tick = make_tick(0, rig)
    usual = Picture(rig, "drive").draw(tick.frames, {}, tick.tracks)
    drawn = Picture(rig, "drive").draw(tick.frames, {}, replace(tick.tracks, decision=decision))
    aspects = [camera.width / camera.height for camera in rig.values()]
    panels = arrange(aspects, 1920 - 600 - 6, 1080 - 52)
    for camera, (x, y, width, height) in zip(rig, panels, strict=True):
        before, after = (image[52 + y + 40 :][: height - 40, x : x + width].mean() for image in (usual, drawn))
        assert bool(after < 0.8 * before) == (camera in dark)
    assert np.array_equal(usual[:52], drawn[:52]) == (decision in (Decision(), Decision(late=("CAM_FRONT",))))


def test_an_interrupted_video_leaves_nothing(tmp_path: Path) -> None:
    rig = make_rig()

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    source = Drive(rig, [make_tick(0, rig).frames])
    with pytest.raises(KeyboardInterrupt):
        render(source, [], [], tmp_path / "video.mp4", title="", progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_to_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"video\.mp4: cannot be written"):
        render(Drive(make_rig(), []), [], [], tmp_path / "no" / "video.mp4", title="", progress=lambda _: None)


def test_a_camera_shows_tracks_and_detections_and_says_when_it_has_no_frame() -> None:
    rig = make_rig("CAM_FRONT")
    view = CameraView(rig["CAM_FRONT"], 640, 384)
    frames = make_tick(0, rig).frames
    track = make_track(2, label=5, position=np.array([8.0, 0, 1]), size=np.array([1.0, 1, 2]))
    box = np.array([[10, 10, 70, 60]], np.float32)
    found = Detections("CAM_FRONT", 0, box, np.ones(1, np.float32), np.array([2], np.int32))
    image = frames.frames[0].image
    assert view.draw(image, None, []).shape == (384, 640, 3)
    assert has_colour(view.draw(image, None, [track]), 5)
    assert not has_colour(view.draw(image, None, []), 5)
    assert has_colour(view.draw(image, found, []), 2)
    assert not has_colour(view.draw(None, found, [track]), 5)


@given(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4), st.floats(-4, 4))
def test_no_track_is_anywhere_too_odd_to_draw(x: float, y: float, yaw: float) -> None:
    rig = make_rig("CAM_FRONT")
    track = make_track(1, position=np.array([x, y, 0.5]), yaw=yaw)
    CameraView(rig["CAM_FRONT"], 160, 96).draw(blank(160, 96), None, [track])
    BirdsEye(rig, 160, 160).draw(make_tracks(tracks=(track,)), None)


def test_the_birds_eye_view_has_ahead_up_and_left_left() -> None:
    eye = BirdsEye(make_rig("CAM_FRONT"), 640, 640)

    def middle_of(x: float, y: float) -> tuple[float, float]:
        track = make_track(1, label=0, position=np.array([x, y, 1]), velocity=np.zeros(3))
        empty = eye.draw(make_tracks(tracks=()), None).astype(int)
        drawn = eye.draw(make_tracks(tracks=(track,)), None).astype(int)
        rows, columns = np.nonzero(np.abs(drawn - empty).max(axis=2) > 60)
        return float(rows.mean()), float(columns.mean())

    ahead, left = middle_of(20, 0), middle_of(10, 15)
    assert ahead[0] < left[0]
    assert left[1] < 320
    assert ahead[1] == pytest.approx(320, abs=3)


def test_the_birds_eye_view_shows_the_point_cloud_and_trails() -> None:
    rig = make_rig("CAM_FRONT")
    eye = BirdsEye(rig, 320, 320)
    empty = make_tracks(0, ids=())
    pose = rig["CAM_FRONT"].base_from_camera
    cloud = PointCloud(0, scan(0.0), type(pose)(np.eye(3), np.zeros(3)))
    assert (eye.draw(empty, cloud) != eye.draw(empty, None)).any()

    def at(tick: int, x: float) -> TrackSet:
        return make_tracks(tick, tracks=(make_track(1, label=3, position=np.array([x, 5.0, 1]), velocity=np.zeros(3)),))

    eye.draw(at(0, 5.0), None)
    with_trail, fresh = eye.draw(at(1, 25.0), None), BirdsEye(rig, 320, 320).draw(at(1, 25.0), None)
    assert (with_trail != fresh).any()
    np.testing.assert_array_equal(eye.draw(at(60, 25.0), None), BirdsEye(rig, 320, 320).draw(at(60, 25.0), None))


@pytest.mark.parametrize("cameras", range(1, 7))
def test_a_picture_is_about_full_hd_whatever_the_number_of_cameras(cameras: int) -> None:
    rig = make_rig(*(f"CAM_{i}" for i in range(cameras)))
    picture = Picture(rig, "a drive")
    tick = make_tick(0, rig, missing=("CAM_0",) if cameras > 1 else ())
    canvas = picture.draw(tick.frames, {found.camera: found for found in tick.detections}, tick.tracks)
    assert canvas.shape == (picture.height, picture.width, 3)
    assert canvas.dtype == np.uint8
    assert picture.width == 1920
    assert 700 <= picture.height <= 1080
    assert picture.width % 2 == picture.height % 2 == 0


aspects = st.lists(st.floats(0.5, 4.0), min_size=1, max_size=12)


@given(aspects)
def test_panels_fit_keep_their_aspect_and_do_not_overlap(shapes: list[float]) -> None:
    panels = arrange(shapes, 1300, 1000)
    assert len(panels) == len(shapes)
    covered = np.zeros((1000, 1300), int)
    for panel, shape in zip(panels, shapes, strict=True):
        assert panel.x + panel.width <= 1300
        assert panel.y + panel.height <= 1000
        covered[panel.y : panel.y + panel.height, panel.x : panel.x + panel.width] += 1
        assert abs(panel.width - shape * panel.height) <= 1
    assert covered.max() == 1


@pytest.mark.parametrize(("count", "rows"), [(1, [1]), (2, [1, 1]), (3, [1, 2]), (4, [2, 2]), (6, [2, 2, 2])])
def test_what_is_large_is_chosen(count: int, rows: list[int]) -> None:
    panels = arrange([16 / 9] * count, 1314, 1028)
    heights = [panel.y for panel in panels]
    assert [heights.count(y) for y in sorted(set(heights))] == rows


def test_drawing_outside_the_canvas_changes_nothing() -> None:
    canvas = blank(40, 30)
    lines(canvas, [[(-50, -50), (-20, -10)]], (255, 255, 255), width=3)
    surface(canvas, [(100, 100), (120, 100), (110, 120)], (255, 255, 255), opacity=0.5)
    assert (canvas == np.array(BACKGROUND[::-1])).all()
    lines(canvas, [], (255, 255, 255))


def test_labels_stay_inside() -> None:
    for at in ((-100, -100), (1000, 1000), (20, 0)):
        canvas = blank(60, 40)
        label(canvas, "12", at, (255, 255, 255))
        assert (canvas > 200).any()


@pytest.mark.parametrize(("align", "inside"), [("left", 0.0), ("center", 0.5), ("right", 1.0)])
def test_text_is_aligned(align: str, inside: float) -> None:
    canvas = blank(200, 40)
    put: Callable[..., float] = text
    width = put(canvas, "tick 12", (100, 30), colour=(255, 255, 255), align=align)
    assert width == text_width("tick 12")
    columns = np.nonzero((canvas > 128).any(axis=(0, 2)))[0]
    assert columns.min() >= 100 - inside * width - 1
    assert columns.max() <= 100 + (1 - inside) * width + 1


def test_stamps_that_stand_still_still_give_frames(tmp_path: Path) -> None:
    rig = make_rig("CAM_FRONT")
    tick = make_tick(0, rig)
    again = FrameSet(1, tick.frames.stamp_ns, 0, tick.frames.frames, ())
    later = FrameSet(2, tick.frames.stamp_ns - PERIOD_NS, 0, tick.frames.frames, ())
    path = tmp_path / "v.mp4"
    render(Drive(rig, [tick.frames, again, later]), [], [], path, title="", progress=lambda _: None)
    assert len(decode(path)) == 3
