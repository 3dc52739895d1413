from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from perception.messages import Decision, Tick
from perception.output.health import Health
from perception.output.jetson import Jetson
from perception.output.metrics import Metrics
from tests.output.samples import BUDGET, MS, make_rig, make_tick

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scraped(metrics: Metrics) -> Samples:
    content_type, body = metrics.exposition("")
    assert content_type.startswith("text/plain")
    families = text_string_to_metric_families(body.decode())
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def of(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


def decided(tick: Tick, **decision: object) -> Tick:
    return replace(tick, tracks=replace(tick.tracks, decision=Decision(**decision)))  # type: ignore[arg-type]


@pytest.fixture
def metrics() -> Metrics:
    metrics = Metrics()
    metrics.begin(BUDGET, make_rig())
    return metrics


def test_ticks_are_counted_by_what_became_of_them(metrics: Metrics) -> None:
    metrics.record(make_tick(0))
    metrics.record(decided(make_tick(1, late=True), deadline_met=False, level=1, skipped=("CAM_LEFT",)))
    metrics.record(decided(make_tick(2, missing=("CAM_LEFT",), ids=(1, 2, 3)), level=2, late=("CAM_FRONT",)))
    metrics.record(decided(make_tick(3), level=2, dropped=True))
    samples = scraped(metrics)
    assert of(samples, "perception_ticks_total") == 4
    assert of(samples, "perception_ticks_late_total") == 1
    assert of(samples, "perception_ticks_dropped_total") == 1
    assert of(samples, "perception_ladder_level") == 2
    assert of(samples, "perception_tracks") == 2
    for camera, frame, count in (
        ("CAM_FRONT", "used", 4),
        ("CAM_FRONT", "cut_off", 1),
        ("CAM_LEFT", "used", 3),
        ("CAM_LEFT", "missing", 1),
        ("CAM_LEFT", "skipped", 1),
        ("CAM_LEFT", "cut_off", 0),
    ):
        assert of(samples, "perception_camera_ticks_total", camera=camera, frame=frame) == count


def test_durations_are_in_the_buckets_that_hold_them(metrics: Metrics) -> None:
    metrics.record(decided(make_tick(0), age_ns=15 * MS))  # 6 ms end to end, each stage one
    metrics.record(decided(make_tick(1, late=True), age_ns=15 * MS + 1))  # 30 ms
    samples = scraped(metrics)
    name = "perception_end_to_end_seconds"
    assert [of(samples, f"{name}_bucket", le=le) for le in ("0.004", "0.006", "0.025", "0.03", "+Inf")] == [
        0,
        1,
        1,
        2,
        2,
    ]
    assert of(samples, f"{name}_count") == 2
    assert of(samples, f"{name}_sum") == pytest.approx(0.036)
    age = "perception_data_age_seconds_bucket"
    assert [of(samples, age, le=le) for le in ("0.0125", "0.015", "0.0175")] == [0, 1, 2]
    assert of(samples, "perception_stage_seconds_sum", stage="detect") == pytest.approx(0.002)
    assert of(samples, "perception_stage_seconds_sum", stage="waiting") == pytest.approx(0.024)
    assert of(samples, "perception_camera_stage_seconds_count", camera="CAM_LEFT", stage="nms") == 2


def test_overruns_are_held_against_the_budget(metrics: Metrics) -> None:
    tick = make_tick(0, late=True)
    slow = tuple(
        span._replace(end_ns=span.end_ns + 3 * MS) if span.stage == "output" else span for span in tick.times.spans
    )
    metrics.record(replace(tick, times=replace(tick.times, spans=slow)))
    samples = scraped(metrics)
    assert of(samples, "perception_budget_seconds", stage="output") == pytest.approx(0.003)
    assert of(samples, "perception_budget_seconds", stage="end_to_end") == pytest.approx(0.020)
    overruns = {
        stage: of(samples, "perception_overruns_total", stage=stage) for stage in ("output", "fusion", "end_to_end")
    }
    assert overruns == {"output": 1, "fusion": 0, "end_to_end": 1}


def test_a_camera_that_never_came_is_silent_since_the_start(metrics: Metrics) -> None:
    metrics.record(make_tick(0, missing=("CAM_LEFT",)))
    samples = scraped(metrics)
    assert 0 <= of(samples, "perception_camera_silent_seconds", camera="CAM_LEFT") < 5
    assert of(samples, "perception_camera_silent_seconds", camera="CAM_FRONT") > 5  # its ticks are of long ago


def test_the_process_and_what_else_is_watched_are_in_it(metrics: Metrics) -> None:
    metrics.watch("gauge", "perception_consumers", "Consumers", lambda: 3)
    metrics.watch("counter", "perception_lines_dropped", "Lines", lambda: 7)
    samples = scraped(metrics)
    assert of(samples, "perception_consumers") == 3
    assert of(samples, "perception_lines_dropped_total") == 7
    assert of(samples, "process_threads") >= 1
    assert of(samples, "process_resident_memory_bytes") > 1e6
    assert of(samples, "process_open_fds") > 2


def test_scraping_while_ticks_come_in_disturbs_neither(metrics: Metrics) -> None:
    """Cameras that were never seen before appear while the tables are read."""
    stop = threading.Event()
    problems: list[BaseException] = []

    def scrape() -> None:
        try:
            while not stop.is_set():
                scraped(metrics)
        except BaseException as error:  # noqa: BLE001 (whatever it is, it is the finding)
            problems.append(error)

    thread = threading.Thread(target=scrape)
    thread.start()
    for number in range(60):
        metrics.record(make_tick(number, make_rig(f"CAM_{number}")))
    stop.set()
    thread.join()
    assert not problems
    assert of(scraped(metrics), "perception_ticks_total") == 60


def test_prometheus_may_ask_for_openmetrics(metrics: Metrics) -> None:
    content_type, body = metrics.exposition("application/openmetrics-text; version=1.0.0,text/plain;q=0.5")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


def test_a_jetson_is_read_from_sysfs(tmp_path: Path) -> None:
    """The tree is made up after NVIDIA's drivers: not verified on hardware."""
    gpu = tmp_path / "class" / "devfreq" / "17000000.gpu"
    write(gpu, cur_freq="1300500000", max_freq="612000000", device__load="437")
    write(tmp_path / "class", thermal__thermal_zone0__type="gpu-thermal", thermal__thermal_zone0__temp="48562")
    write(tmp_path / "class", thermal__thermal_zone1__type="cv0-thermal", thermal__thermal_zone1__temp="")
    write(
        tmp_path / "class", thermal__cooling_device0__type="gpu-throttle-alert", thermal__cooling_device0__cur_state="1"
    )
    write(tmp_path / "class", thermal__cooling_device1__type="pwm-fan", thermal__cooling_device1__cur_state="3")
    write(tmp_path / "class", hwmon__hwmon3__oc3_event_cnt="179")
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in Jetson(tmp_path).collect()
        for sample in family.samples
    }
    assert found == {
        ("perception_gpu_load_ratio", "17000000.gpu"): pytest.approx(0.437),
        ("perception_gpu_frequency_hertz", "17000000.gpu"): 1_300_500_000,
        ("perception_gpu_max_frequency_hertz", "17000000.gpu"): 612_000_000,
        ("perception_temperature_celsius", "gpu-thermal"): pytest.approx(48.562),
        ("perception_throttling", "gpu-throttle-alert"): 1,
        ("perception_overcurrent_events_total", "oc3"): 179,
    }


def test_where_there_is_no_jetson_nothing_is_said_of_one(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    registry.register(Jetson(tmp_path))
    assert list(registry.collect()) == []


def on_time(tick: Tick, health: Health) -> None:
    import time

    now_ns = time.monotonic_ns()
    health.record(replace(tick, times=replace(tick.times, published_ns=now_ns)))


def test_health_goes_by_the_last_tick_on_time() -> None:
    health = Health(stale_s=1.0)
    assert (health.ready, health.healthy) == (False, True)  # starting
    health.state = "running"
    health.record(decided(make_tick(0, late=True), deadline_met=False))
    assert (health.ready, health.healthy) == (False, True)
    on_time(make_tick(1, missing=("CAM_LEFT",)), health)
    assert (health.ready, health.healthy) == (True, True)
    assert health.status() == "running: 2 ticks, 1 late, ladder level 0, missing: CAM_LEFT"
    health.on_time_ns = 1  # long ago
    assert (health.ready, health.healthy) == (False, False)
    health.state = "reloading"
    assert (health.ready, health.healthy) == (False, True)
    assert json.loads(health.report())["cameras_missing"] == ["CAM_LEFT"]
