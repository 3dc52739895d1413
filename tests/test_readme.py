"""The programs in README, run, and its tables, held against what is published."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from perception.output.jsonl import tracks_line
from perception.output.tracks_socket import TRACKS_SOCKET, TracksSocket
from tests.output.samples import make_tracks

README = Path("README.md").read_text(encoding="utf-8")
READER, PIPELINE, TRACKER = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def run(program: str) -> list[str]:
    """What it prints, line by line."""
    return subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.splitlines()


def test_the_pipeline_runs_in_a_process_of_ones_own() -> None:
    lines = run(PIPELINE)
    assert [int(line.split()[0]) for line in lines] == list(range(20))


def test_the_tracker_follows_what_another_sensor_sees() -> None:
    last = run(TRACKER)[-1]
    assert last.split()[:3] == ["19", "1", "car"]
    assert last.endswith("[10.  0.  0.]")


def test_the_reader_of_tracks_reads(tmp_path: Path) -> None:
    path = tmp_path / TRACKS_SOCKET
    assert "/run/perception/tracks.sock" in READER
    publisher = TracksSocket(path)
    reader = subprocess.Popen(
        [sys.executable, "-u", "-c", READER.replace("/run/perception/tracks.sock", str(path))],
        stdout=subprocess.PIPE,
        text=True,
    )
    while publisher.consumers == 0:
        assert reader.poll() is None
        publisher.publish(make_tracks(6))
    publisher.publish(make_tracks(7))
    publisher.close()
    printed, _ = reader.communicate(timeout=20)
    tracks = make_tracks(7).tracks
    last = printed.splitlines()[-len(tracks) :]
    assert [line.split()[:3] for line in last] == [["7", str(track.id), track.class_name] for track in tracks]


@pytest.mark.parametrize(("table", "of_track"), [("| of a line |", False), ("| of a track |", True)])
def test_the_tables_name_every_key(table: str, *, of_track: bool) -> None:
    rows = README.partition(table)[2].partition("\n\n")[0].splitlines()[2:]
    told = [name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    line = json.loads(tracks_line(make_tracks(0)))
    assert sorted(told) == sorted(line["tracks"][0] if of_track else line)
