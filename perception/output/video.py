"""``video.mp4``: every camera with its detections and tracks, and the bird's-eye view beside them.

Drawn after the run from what it wrote and from the drive, so that drawing costs the ticks nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Final, Generic, TypeVar

import av

from perception.messages import Detections, Image, TrackSet
from perception.output.files import unwritable
from perception.output.picture import Picture
from perception.stages import Source

VIDEO: Final = "video.mp4"
_TICKS_PER_S: Final = 90_000
_BT709: Final = 1
_X264: Final = {"preset": "veryfast", "crf": "21"}

T = TypeVar("T")


def render(
    source: Source,
    tracks: Iterable[TrackSet],
    detections: Iterable[tuple[int, Detections]],
    path: Path,
    *,
    title: str,
    progress: Callable[[int], None],
) -> int:
    """Draw the drive that `source` replays, stepped, with what a run made of it; the number of frames drawn.

    `tracks` and `detections` come in the order of their ticks, as they were written, and are joined to the frame sets
    by tick number. `progress` is told how many frames are drawn so far. H.264 at the drive's own pace; the file gets
    its name when it is whole. Raises `OutputError`.
    """
    picture = Picture(source.rig, title)
    tracks_at = _Join((track_set.tick, track_set) for track_set in tracks)
    detections_at = _Join(detections)
    partial = path.with_name(path.name + ".partial")
    count = 0
    try:
        with _encoder(partial, picture.width, picture.height) as encode:
            for frames in source.frame_sets():
                published = tracks_at(frames.tick)
                found = {of_camera.camera: of_camera for of_camera in detections_at(frames.tick)}
                encode(picture.draw(frames, found, published[0] if published else None), frames.stamp_ns)
                count += 1
                progress(count)
        partial.replace(path)
    except OSError as error:  # PyAV's errors of the file system are OSErrors too
        raise unwritable(path, error) from None
    finally:
        partial.unlink(missing_ok=True)
    return count


class _Join(Generic[T]):
    """Looks items up by tick number; both the items and the questions come in rising order."""

    def __init__(self, items: Iterable[tuple[int, T]]) -> None:
        self._items = iter(items)
        self._next = next(self._items, None)

    def __call__(self, tick: int) -> list[T]:
        found = []
        while self._next is not None and self._next[0] <= tick:
            if self._next[0] == tick:
                found.append(self._next[1])
            self._next = next(self._items, None)
        return found


@contextmanager
def _encoder(path: Path, width: int, height: int) -> Iterator[Callable[[Image, int], None]]:
    """Yields what takes BGR pictures and their stamps; the file is complete on leaving."""
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=30, options=dict(_X264))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, _TICKS_PER_S)
        stream.codec_context.colorspace = stream.codec_context.color_primaries = stream.codec_context.color_trc = _BT709
        first_ns: int | None = None
        last = -1

        def encode(image: Image, stamp_ns: int) -> None:
            nonlocal first_ns, last
            first_ns = stamp_ns if first_ns is None else first_ns
            last = max((stamp_ns - first_ns) * _TICKS_PER_S // 1_000_000_000, last + 1)
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame = frame.reformat(format="yuv420p", dst_colorspace=_BT709)
            frame.pts, frame.time_base = last, Fraction(1, _TICKS_PER_S)
            container.mux(stream.encode(frame))

        yield encode
        container.mux(stream.encode())
