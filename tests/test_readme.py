"""What README tells a reader of the tracks, held against what is published."""

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

SECTION = Path("README.md").read_text(encoding="utf-8").partition("### Reading the tracks")[2].partition("\n## ")[0]


def test_the_reader_in_it_reads(tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
    path = tmp_path / TRACKS_SOCKET
    assert "/run/perception/tracks.sock" in program
    publisher = TracksSocket(path)
    reader = subprocess.Popen(
        [sys.executable, "-u", "-c", program.replace("/run/perception/tracks.sock", str(path))],
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
def test_its_tables_name_every_key(table: str, *, of_track: bool) -> None:
    rows = SECTION.partition(table)[2].partition("\n\n")[0].splitlines()[2:]
    told = [name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    line = json.loads(tracks_line(make_tracks(0)))
    assert sorted(told) == sorted(line["tracks"][0] if of_track else line)
