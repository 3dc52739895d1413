"""Cameras of GStreamer: any pipeline that ends in pictures, taken out of it by an appsink."""

from __future__ import annotations

import importlib
import sys
import time
import warnings
from functools import lru_cache
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from typing import Any, Final, Literal, NamedTuple

from perception.errors import BackendError, ConfigError
from perception.ingest.cameras.camera import CameraError, RawPicture, Shot
from perception.ingest.decode import UndecodableError

Format = Literal["bgr", "nv12", "mjpeg"]

_DISTRIBUTION: Final = "/usr/lib/python3/dist-packages"
"""Where Debian and Ubuntu keep python3-gi, out of sight of a virtual environment."""

_CAPS: Final = {
    "bgr": "video/x-raw,format=BGR",
    "nv12": "video/x-raw,format=NV12",
    "mjpeg": "image/jpeg",
}
_WAIT_NS: Final = 200_000_000
_MAX_BYTES: Final = 64 * 2**20
_SINK: Final = "perception"


class GStreamerDevice:
    """A pipeline in the notation of gst-launch, up to where its pictures come out, such as ``v4l2src ! image/jpeg``.

    An appsink is put at its end, which keeps the latest picture only; before it, unless the pictures are JPEGs, a
    videoconvert to `pixel_format`. A launch string can do whatever GStreamer can, so it is as trusted as a program.
    Raises `BackendError` where GStreamer or PyGObject is not there, `ConfigError` for a pipeline that cannot be made.
    """

    def __init__(self, launch: str, pixel_format: Format) -> None:
        convert = "" if pixel_format == "mjpeg" else " ! videoconvert"
        sink = f"appsink name={_SINK} sync=false drop=true max-buffers=1 caps={_CAPS[pixel_format]}"
        self._launch = f"{launch}{convert} ! {sink}"
        self._pixel_format = pixel_format
        self._gst = load_gstreamer()
        try:
            self._make()  # opens no device, but tells a wrong pipeline from a camera that is not there
        except CameraError as error:
            raise ConfigError(f"launch: {launch}: {error}") from None

    def open(self) -> GStreamerStream:
        """Set the pipeline going; raises `CameraError`."""
        return GStreamerStream(self._gst, self._make(), self._pixel_format)

    def _make(self) -> Any:
        gst = self._gst
        try:
            return gst.Gst.parse_launch_full(self._launch, None, gst.Gst.ParseFlags.FATAL_ERRORS)
        except gst.GLib.Error as error:
            raise CameraError(f"not a pipeline: {error.message}") from None


class GStreamerStream:
    """A pipeline that plays."""

    def __init__(self, gst: GStreamer, pipeline: Any, pixel_format: Format) -> None:
        self._gst = gst
        self._pipeline = pipeline
        self._sink = pipeline.get_by_name(_SINK)
        self._pixel_format = pixel_format
        pipeline.use_clock(gst.clock)
        if pipeline.set_state(gst.Gst.State.PLAYING) == gst.Gst.StateChangeReturn.FAILURE:
            problem = self._problem() or "the pipeline does not start"
            self.close()
            raise CameraError(problem)

    def read(self) -> Shot | None:
        """The latest picture; see `Stream`."""
        sample = self._sink.try_pull_sample(_WAIT_NS)
        arrival_ns = time.monotonic_ns()
        if sample is None:
            problem = self._problem()
            if problem:
                raise CameraError(problem)
            return None
        buffer = sample.get_buffer()
        if buffer.has_flags(self._gst.Gst.BufferFlags.CORRUPTED):
            raise UndecodableError("GStreamer marks it as damaged")
        return Shot(self._picture(sample, self._bytes(buffer)), self._stamp_ns(sample, buffer.pts), arrival_ns)

    def close(self) -> None:
        """Stop the pipeline and give its devices back."""
        self._pipeline.set_state(self._gst.Gst.State.NULL)

    def _bytes(self, buffer: Any) -> bytes:
        if buffer.get_size() > _MAX_BYTES:
            raise UndecodableError(f"{buffer.get_size()} bytes, at most {_MAX_BYTES} are taken")
        mapped, info = buffer.map(self._gst.Gst.MapFlags.READ)
        if not mapped:
            raise UndecodableError("its memory cannot be read by the CPU; convert it in the launch string")
        try:
            return bytes(info.data)
        finally:
            buffer.unmap(info)

    def _picture(self, sample: Any, data: bytes) -> bytes | RawPicture:
        if self._pixel_format == "mjpeg":
            return data
        structure = sample.get_caps().get_structure(0)
        width, height = structure.get_value("width"), structure.get_value("height")
        row = width * (3 if self._pixel_format == "bgr" else 1)
        return RawPicture(self._pixel_format, width, height, (row + 3) // 4 * 4, data)  # rows of 4 bytes by default

    def _stamp_ns(self, sample: Any, pts: int) -> int | None:
        """When the source stamped the buffer: its running time after the pipeline's start, on the monotonic clock."""
        gst = self._gst.Gst
        if pts == gst.CLOCK_TIME_NONE:
            return None
        return int(sample.get_segment().to_running_time(gst.Format.TIME, pts) + self._pipeline.get_base_time())

    def _problem(self) -> str:
        """Why nothing more will come, as the pipeline's bus tells; empty where it does not."""
        kinds = self._gst.Gst.MessageType
        message = self._pipeline.get_bus().pop_filtered(kinds.ERROR | kinds.EOS)
        if message is None:
            return ""
        if message.type == kinds.EOS:
            return "the pipeline came to its end"
        error, _ = message.parse_error()
        element = isinstance(message.src, self._gst.Gst.Element)  # its name has a number that rises with each start
        source = message.src.get_factory().get_name() if element else message.src.get_name()
        return f"{source}: {error.message}"


class GStreamer(NamedTuple):
    """The modules of PyGObject that are used, and a clock that reads as `time.monotonic_ns`."""

    Gst: Any
    GLib: Any
    clock: Any


@lru_cache(maxsize=1)
def load_gstreamer() -> GStreamer:
    """Import and start GStreamer; raises `BackendError` where it is not there.

    Load a detector first, as the assembly does: OpenVINO 2026.4 aborts a process that reads its first model after this.
    """
    try:
        gi = _import_gi()
        gi.require_version("Gst", "1.0")
        gi.require_version("GstApp", "1.0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ImportWarning)  # the loader of PyGObject before 3.44 is an old-style one
            gst: Any = importlib.import_module("gi.repository.Gst")
            glib: Any = importlib.import_module("gi.repository.GLib")
            importlib.import_module("gi.repository.GstApp")  # gives the appsink its methods
    except (ImportError, ValueError) as error:
        raise BackendError(
            f"source: gstreamer needs PyGObject and GStreamer ({error}); on Debian and Ubuntu: "
            "apt install python3-gi gir1.2-gst-plugins-base-1.0 gstreamer1.0-plugins-good"
        ) from None
    gst.init(None)
    clock = gst.SystemClock(clock_type=gst.ClockType.MONOTONIC)
    return GStreamer(gst, glib, clock)


def _import_gi() -> Any:
    """PyGObject: the environment's own, or else the distribution's where that was built for this Python."""
    try:
        return importlib.import_module("gi")
    except ImportError:
        spec = PathFinder.find_spec("gi", [_DISTRIBUTION])
        if spec is None or spec.loader is None:
            raise
        module = module_from_spec(spec)
        sys.modules["gi"] = module
        try:
            spec.loader.exec_module(module)
        except ImportError:
            del sys.modules["gi"]
            raise
        return module
