"""The configured cameras of a vehicle, told apart by their source."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from perception.clock import LiveClock
from perception.config import AnyCamera, Config, FileCamera, GStreamerCamera, V4l2Camera
from perception.errors import ConfigError
from perception.governor import Enforcement
from perception.ingest.cameras.camera import Device
from perception.ingest.cameras.pixels import indivisible
from perception.ingest.live import Live
from perception.ingest.rig import load_rig
from perception.messages import Camera, Needed, Rig


def live_rig(config: Config) -> Rig:
    """The calibration of the configured cameras, in the order of the rig file; raises `ConfigError`."""
    if not config.cameras:
        raise ConfigError(
            "there is nothing to run on: name a drive with --replay (an .mcap recording, a video file or a folder of "
            "images), or cameras in the config (configs/vehicle.yaml is an example)"
        )
    if config.rig is None:
        raise ConfigError(
            "the cameras are not calibrated: name a rig file with rig: in the config or --rig "
            "(configs/rigs/surround.yaml is an example)"
        )
    rig = load_rig(config.rig).to_rig()
    for name, camera in config.cameras.items():
        if name not in rig:
            raise ConfigError(f"cameras.{name}: is not calibrated; {config.rig} has {', '.join(rig)}")
        _check_format(name, camera, (rig[name].width, rig[name].height))
    return {name: camera for name, camera in rig.items() if name in config.cameras}


def _check_format(name: str, camera: AnyCamera, size: tuple[int, int]) -> None:
    """Raise `ConfigError` where no picture in a camera's format has the (width, height) of its calibration."""
    if isinstance(camera, V4l2Camera | GStreamerCamera) and (problem := indivisible(camera.format, size)):
        other = "mjpeg" if isinstance(camera, V4l2Camera) else "bgr"
        raise ConfigError(f"cameras.{name}.format: {problem}; set format: {other}, or calibrate it at an even size")


def open_cameras(
    config: Config,
    rig: Rig,
    clock: LiveClock,
    *,
    threads: int,
    needed: Mapping[str, Needed],
    enforcement: Enforcement,
    on_quiet: Callable[[float], None],
) -> Live:
    """The configured cameras of a `live_rig` as a source; see `Live`, and `open_camera` for what is raised."""
    began_ns = clock.now_ns()
    devices = {name: open_camera(config.cameras[name], camera, began_ns) for name, camera in rig.items()}
    return Live(
        rig,
        devices,
        config.cameras,
        clock,
        config.sync,
        threads=threads,
        needed=needed,
        enforcement=enforcement,
        on_quiet=on_quiet,
    )


def open_camera(config: AnyCamera, camera: Camera, began_ns: int) -> Device:
    """One camera; files began to play at `began_ns` of the monotonic clock.

    Nothing is opened yet, and a camera that is not there comes when it comes. Raises `BackendError` or `ConfigError`
    for what can never be.
    """
    if isinstance(config, V4l2Camera):
        from perception.ingest.cameras.v4l2 import V4l2Device  # noqa: PLC0415 (Linux only)

        return V4l2Device(config.device, config.format, (camera.width, camera.height), config.fps)
    if isinstance(config, GStreamerCamera):
        from perception.ingest.cameras.gstreamer import GStreamerDevice  # noqa: PLC0415 (not for every run)

        return GStreamerDevice(config.launch, config.format)
    from perception.ingest.cameras.av import FileDevice, RtspDevice  # noqa: PLC0415 (not for every run)

    if isinstance(config, FileCamera):
        return FileDevice(config.path, began_ns)
    return RtspDevice(config.url, config.transport, config.timeout_s)
