"""A path to a drive, told by what lies there."""

from __future__ import annotations

from pathlib import Path

from perception.errors import DriveError
from perception.ingest.drive import Drive
from perception.ingest.folder_drive import FolderDrive
from perception.ingest.formats import HEAD_BYTES, is_mcap, known_as
from perception.ingest.mcap_drive import McapDrive
from perception.ingest.video_drive import VideoDrive


def open_drive(path: Path, rig_path: Path | None = None) -> Drive:
    """Open an MCAP recording, a video file or a folder of images.

    `rig_path` is a rig file: a video and a folder need one, and the cameras that it names are taken from it in a
    recording too. Raises `DriveError` for a path that cannot be replayed, `ConfigError` for a wrong rig file.
    """
    try:
        if path.is_dir():
            return FolderDrive(path, rig_path)
        if path.exists() and not path.is_file():
            raise DriveError(f"{path} is a device or a pipe; expected {_EXPECTED}")
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        if is_mcap(head):
            return McapDrive(path, rig_path)
    except OSError as error:
        raise DriveError(f"{path}: cannot be read: {error.strerror}; expected {_EXPECTED}") from None
    if known := known_as(head):
        raise DriveError(f"{path} is {known}; expected {_EXPECTED}")
    return VideoDrive(path, rig_path)


_EXPECTED = "an MCAP recording, a video file or a folder of images"
