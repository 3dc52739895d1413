"""A network camera of GStreamer's RTSP server: ``rtsp_server.py PORT LAUNCH`` serves /camera until it is killed.

For the distribution's Python, which sees the distribution's GStreamer.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any


def main() -> None:
    gi: Any = importlib.import_module("gi")
    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    repository: Any = importlib.import_module("gi.repository")
    importlib.import_module("gi.repository.Gst")
    importlib.import_module("gi.repository.GstRtspServer")
    importlib.import_module("gi.repository.GLib")
    repository.Gst.init(None)
    port, launch = sys.argv[1:]
    server = repository.GstRtspServer.RTSPServer(address="127.0.0.1", service=port)
    factory = repository.GstRtspServer.RTSPMediaFactory(launch=f"( {launch} )", shared=True)
    server.get_mount_points().add_factory("/camera", factory)
    if not server.attach(None):
        sys.exit(f"port {port} is taken")
    print("ready", flush=True)  # noqa: T201
    repository.GLib.MainLoop().run()


if __name__ == "__main__":
    main()
