"""A folder of images as a drive, calibrated by a rig file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from perception.errors import DriveError
from perception.faults import Faults
from perception.ingest.drive import Packet
from perception.ingest.formats import image_format
from perception.ingest.rig import required_rig
from perception.messages import Truth

_SUFFIXES: Final = (".jpg", ".jpeg", ".png")
_MAX_BYTES: Final = 64 * 2**20


class FolderDrive:
    """Reads images in the order of their names, a tick per name, at the rig's `rate_hz`; stamps count from 0.

    With one camera the images lie in the folder itself or in one named after the camera; with several, each camera
    has its own, and the images of one tick have the same name but for the suffix. A name that a camera lacks is a
    missing camera.
    """

    def __init__(self, path: Path, rig_path: Path | None) -> None:
        self._faults = Faults()
        if not any(_images(folder) for folder in (path, *_subfolders(path))):
            raise DriveError(f"{path}: nothing to replay: no images ({', '.join(_SUFFIXES)}){_instead(path)}")
        rig = required_rig(path, rig_path)
        self.rig = rig.to_rig()
        self._images = {camera: _images(folder) for camera, folder in _folders(path, list(self.rig)).items()}
        if not set.intersection(*(set(images) for images in self._images.values())):
            raise DriveError(
                f"{path}: no image name is there for each of {', '.join(self.rig)}; "
                "the images of one tick must have the same name"
            )
        self._names = sorted({name for images in self._images.values() for name in images})
        self._period_ns = 1e9 / rig.rate_hz
        self.time_range_ns: tuple[int, int] | None = (0, self._stamp_ns(len(self._names) - 1))

    def faults(self) -> Sequence[str]:
        """What was wrong with the data read so far, a line each, with the place."""
        return self._faults.lines()

    def packets(self) -> Iterator[Packet]:
        """Read the images, one by one; see `Drive`."""
        for tick, name in enumerate(self._names):
            stamp_ns = self._stamp_ns(tick)
            for camera, images in self._images.items():
                data = self._bytes(images[name]) if name in images else None
                if data is not None:
                    yield Packet(camera, stamp_ns, stamp_ns, image_format(data) or "", data, str(images[name]))

    def truth(self) -> Iterator[Truth]:
        """Nothing: a folder of images has no ground truth."""
        return iter(())

    def _stamp_ns(self, tick: int) -> int:
        return round(tick * self._period_ns)

    def _bytes(self, path: Path) -> bytes | None:
        try:
            with path.open("rb") as file:
                return file.read(_MAX_BYTES + 1)  # decoding refuses what is longer
        except OSError as error:
            self._faults.add(("read",), f"{path}: cannot be read: {error.strerror}")
            return None


def _folders(path: Path, cameras: Sequence[str]) -> dict[str, Path]:
    """Each camera's folder, with images in it."""
    if len(cameras) == 1 and _images(path):
        return {cameras[0]: path}
    with_images = {folder.name: folder for folder in _subfolders(path) if _images(folder)}
    for camera in cameras:
        if camera not in with_images:
            raise DriveError(f"{path}: no folder {camera} with images in it, though the rig has that camera")
    for name in with_images:
        if name not in cameras:
            raise DriveError(
                f"{path}: camera {name} is not calibrated: add cameras.{name} to the rig file, or move its folder away"
            )
    return {camera: with_images[camera] for camera in cameras}


def _subfolders(path: Path) -> list[Path]:
    return sorted(child for child in path.iterdir() if child.is_dir())


def _images(folder: Path) -> dict[str, Path]:
    found = (child for child in folder.iterdir() if child.suffix.lower() in _SUFFIXES and child.is_file())
    images: dict[str, Path] = {}
    for child in sorted(found):
        if child.stem in images:
            raise DriveError(f"{child}: {images[child.stem].name} is there too; a tick has one image of a camera")
        images[child.stem] = child
    return images


def _instead(path: Path) -> str:
    recordings = sorted(path.glob("*.mcap"))
    return f"; it holds {recordings[0].name}: give that file" if recordings else ""
