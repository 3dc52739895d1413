"""What a Jetson says of its GPU and of its throttling, from sysfs: nothing on machines that say nothing.

Not verified on hardware. The places are those of NVIDIA's drivers for Orin and Thor: devfreq for the GPU's clock and
load, thermal zones, the cooling devices that stand for throttling (``*-alert``), and the over-current counters of
``soctherm_oc``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric


class Jetson:
    """A collector for `prometheus_client` that reads sysfs when it is scraped."""

    def __init__(self, sysfs: Path = Path("/sys")) -> None:
        self._class = sysfs / "class"

    def collect(self) -> Iterator[Metric]:
        """Expose what there is."""
        yield from filter(lambda family: family.samples, self._families())

    def _families(self) -> Iterator[Metric]:
        load = GaugeMetricFamily("perception_gpu_load_ratio", "How busy the GPU is, 0 to 1", labels=["gpu"])
        clock = GaugeMetricFamily("perception_gpu_frequency_hertz", "The GPU's clock", labels=["gpu"])
        limit = GaugeMetricFamily("perception_gpu_max_frequency_hertz", "What it may rise to now", labels=["gpu"])
        for gpu in sorted({*self._class.glob("devfreq/*.gpu"), *self._class.glob("devfreq/gpu-*")}):
            _add(load, gpu.name, gpu / "device" / "load", 1e-3)
            _add(clock, gpu.name, gpu / "cur_freq")
            _add(limit, gpu.name, gpu / "max_freq")
        yield from (load, clock, limit)

        zones = GaugeMetricFamily("perception_temperature_celsius", "Temperature of a thermal zone", labels=["zone"])
        for zone in sorted(self._class.glob("thermal/thermal_zone*")):
            _add(zones, _text(zone / "type"), zone / "temp", 1e-3)
        yield zones

        throttling = GaugeMetricFamily("perception_throttling", "Over 0 while it is throttled", labels=["what"])
        for device in sorted(self._class.glob("thermal/cooling_device*")):
            if (name := _text(device / "type")).endswith("-alert"):
                _add(throttling, name, device / "cur_state")
        yield throttling

        overcurrent = CounterMetricFamily(
            "perception_overcurrent_events", "Throttled by over-current", labels=["alarm"]
        )
        for count in sorted(self._class.glob("hwmon/hwmon*/oc*_event_cnt")):
            _add(overcurrent, count.name.removesuffix("_event_cnt"), count)
        yield overcurrent


def _add(family: GaugeMetricFamily | CounterMetricFamily, label: str, path: Path, unit: float = 1.0) -> None:
    """Add what stands in a file; a sensor that is off gives an error, or nothing, and is left out."""
    try:
        family.add_metric([label], int(_text(path)) * unit)
    except ValueError:
        return


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
