"""What is watched must be there: the names in launch/ against what a daemon answers on /metrics."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
from contextlib import closing
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from perception.config import Config, HealthConfig
from perception.daemon import Daemon, Signals
from perception.output.jetson import Jetson
from perception.output.tracks_socket import TracksSocket
from perception.systemd import Log, Notifier
from tests.output.samples import BUDGET, make_rig, make_tick

LAUNCH = Path(__file__).parents[2] / "launch"
NAME = re.compile(r"\b(?:perception|process)_[a-z_]+")

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (apt-get install prometheus)"
)


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((LAUNCH / "grafana-dashboard.json").read_text())
    return document


@pytest.fixture
def exposed(tmp_path: Path) -> set[str]:
    """The names of all samples that a daemon gives after a tick, on a Jetson too."""
    with closing(TracksSocket(tmp_path / "t")) as tracks, closing(Notifier({})) as notifier:
        with closing(Signals(signal.SIGUSR2)) as signals:
            watching = Daemon(Config(), Config, signals, log=Log(), notifier=notifier, tracks=tracks)
            metrics = watching._metrics
            metrics.begin(BUDGET, make_rig())
            metrics.record(make_tick(0))
            text = metrics.exposition("")[1].decode()
        signal.signal(signal.SIGUSR2, signal.SIG_DFL)
    of_a_jetson = {family.name + ("_total" if family.type == "counter" else "") for family in Jetson()._families()}
    return {re.split(r"[ {]", line)[0] for line in text.splitlines() if not line.startswith("#")} | of_a_jetson


def expressions(dashboard: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load((LAUNCH / "prometheus-rules.yml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def test_everything_that_is_shown_or_alerted_on_is_exposed(dashboard: dict[str, Any], exposed: set[str]) -> None:
    assert "perception_end_to_end_seconds_bucket" in exposed
    wanted = [*expressions(dashboard), *(rule["expr"] for rule in rules())]
    asked_for = {name for expression in wanted for name in NAME.findall(expression)}
    assert len(asked_for) > 20
    assert asked_for - exposed == set()


def test_series_are_named_by_labels_that_they_have(dashboard: dict[str, Any]) -> None:
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            by = re.search(r"by \(([^)]*)\)", target["expr"])
            shown = re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
            if by is not None:
                assert set(shown) <= set(re.split(r",\s*", by[1])), panel["title"]


def test_panels_are_whole_and_do_not_overlap(dashboard: dict[str, Any]) -> None:
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    for panel in panels:
        assert panel["type"] in {"stat", "timeseries"}
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        refs = [target["refId"] for target in panel["targets"]]
        assert refs
        assert len(set(refs)) == len(refs)
        for target in panel["targets"]:
            assert set(re.findall(r"\$\{?(\w+)", target["expr"])) <= variables | {"__rate_interval"}
    boxes = [panel["gridPos"] for panel in panels]
    assert all(box["x"] + box["w"] <= 24 for box in boxes)
    for a, b in combinations(boxes, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        above = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or above


def test_prometheus_scrapes_where_a_daemon_answers() -> None:
    document = yaml.safe_load((LAUNCH / "prometheus.yml").read_text())
    (job,) = document["scrape_configs"]
    assert job["job_name"] == "perception"
    usual = HealthConfig()
    assert job["static_configs"][0]["targets"] == [f"{usual.address}:{usual.port}"]
    for name in document["rule_files"]:
        assert (LAUNCH / name).is_file()


def promtool(*arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_prometheus_takes_the_example() -> None:
    promtool("check", "config", str(LAUNCH / "prometheus.yml"))


@needs_promtool
def test_prometheus_understands_every_panel(dashboard: dict[str, Any], tmp_path: Path) -> None:
    ready = [text.replace("$__rate_interval", "1m").replace("$vehicle", ".*") for text in expressions(dashboard)]
    recorded = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(ready)]
    path = tmp_path / "panels.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": recorded}]}))
    promtool("check", "rules", str(path))
