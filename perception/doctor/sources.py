"""Where frames come from: a drive, or cameras."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Final

from perception.config import GStreamerCamera, V4l2Camera
from perception.doctor.finding import Case, Finding

_GSTREAMER_S: Final = 8  # it looks through all its plugins when it starts for the first time
_GSTREAMER: Final = (
    "from perception.errors import BackendError\n"
    "from perception.ingest.cameras.gstreamer import load_gstreamer\n"
    "try: print('ok', load_gstreamer().Gst.version_string())\n"
    "except BackendError as error: print('missing', error)\n"
)


def source(case: Case) -> Finding:
    """What the config replays, or the cameras it names."""
    replay, cameras = case.config.replay, case.config.cameras
    if replay is not None:
        if replay.exists():
            return Finding("source", "ok", str(replay.resolve()))
        return Finding("source", "missing", f"{replay}: there is no such drive", "name another with replay or --replay")
    if cameras:
        return Finding("source", "ok", ", ".join(f"{name} ({camera.source})" for name, camera in cameras.items()))
    return Finding("source", "missing", "neither a drive nor cameras", "replay: DRIVE, or cameras: in the config")


def video_devices(case: Case) -> Finding:
    """The cameras of V4L2."""
    wanted = [c.device for c in case.config.cameras.values() if isinstance(c, V4l2Camera)] if case.live else []
    there = sorted(path.name for path in (case.root / "dev").glob("video*"))
    what = ", ".join(there) or "none"
    absent = [str(path) for path in wanted if not path.exists()]
    if absent:
        return Finding(
            "video devices", "missing", f"{', '.join(absent)} not there; here are: {what}", "connect the camera"
        )
    closed = [str(path) for path in wanted if not os.access(path, os.R_OK | os.W_OK)]
    if closed:
        remedy = "sudo usermod -aG video $USER, and log in again"
        return Finding("video devices", "missing", f"{', '.join(closed)}: no permission", remedy)
    return Finding("video devices", "ok" if wanted or there else "not needed", what)


def gstreamer(case: Case) -> Finding:
    """GStreamer and PyGObject, started in a process of their own."""
    command = [sys.executable, "-c", _GSTREAMER]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_GSTREAMER_S)  # noqa: S603
    state, _, what = done.stdout.strip().partition(" ")
    if state == "ok":
        return Finding("GStreamer", "ok", what)
    wanted = case.live and any(isinstance(camera, GStreamerCamera) for camera in case.config.cameras.values())
    reason, _, remedy = (what or "it does not start").rpartition("; ")
    return Finding("GStreamer", "missing" if wanted else "not needed", reason or remedy, remedy if wanted else "")
