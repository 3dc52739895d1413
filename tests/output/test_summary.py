from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from perception.budget import Ledger
from perception.config import Config
from perception.errors import OutputError, ResultsError
from perception.governor import Governor, Plan, Rung, Settings, everything
from perception.messages import Decision
from perception.output.summary import read_summary, write_summary
from tests.output.samples import BUDGET, LEFT_OUT, make_ledger, make_rig, make_tick, make_times

SECOND = 1_000_000_000


def summarise(directory: Path, ledger: Ledger, **changes: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "config": Config(),
        "chosen": {"device": "cpu", "threads": 2},
        "cameras": ["CAM_FRONT", "CAM_LEFT"],
        "ledger": ledger,
        "faults": [],
        "files": [],
        "wall_s": 1.5,
    }
    path = write_summary(directory, **(arguments | changes))

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    summary = json.loads(path.read_text(), parse_constant=refuse)
    assert isinstance(summary, dict)
    assert summary == read_summary(directory)
    return summary


def test_the_account_is_all_there(tmp_path: Path) -> None:
    rig = make_rig()
    ticks = [make_tick(0, rig), make_tick(1, rig, late=True), make_tick(2, rig, missing=("CAM_LEFT",))]
    summary = summarise(tmp_path, make_ledger(ticks, rig), faults=["the file ends early"])
    assert summary["ticks"] == {"published": 3, "on_time": 2, "late": 1, "with_missing_camera": 1}
    assert list(summary["stages"]) == ["ingest", "preprocess", "detect", "nms", "fusion", "output", "waiting"]
    assert summary["stages"]["fusion"]["p50_ms"] == pytest.approx(1, rel=0.01)
    assert summary["end_to_end"]["max_ms"] == 30
    assert summary["end_to_end"]["overruns"] == 1
    assert summary["data_age"]["p50_ms"] == pytest.approx(7, rel=0.01)
    assert summary["cameras"]["CAM_LEFT"]["detect"]["count"] == 2
    assert [worst["tick"] for worst in summary["worst"]] == [1, 0, 2]
    assert summary["worst"][0]["spans"][0] == {"stage": "ingest", "camera": "CAM_FRONT", "start_ms": 0, "end_ms": 1}
    assert summary["faults"] == ["the file ends early"]
    assert summary["machine"]["cores_allowed"] >= 1
    assert summary["versions"]["perception"]
    assert summary["chosen"]["device"] == "cpu"


def test_what_enforcement_did_is_all_there(tmp_path: Path) -> None:
    rig = make_rig()
    ledger = make_ledger([make_tick(i, rig, decision=d) for i, d in enumerate(LEFT_OUT)], rig)
    governor = Governor((everything(rig), Rung("front only", {"CAM_FRONT": 1})), BUDGET, Settings(None, 1, 1, SECOND))
    plan = Plan(0, dropped=True, cameras=(), until_ns=0)
    governor.learn(1, plan, Decision(dropped=True), make_times(0, ()))
    assert summarise(tmp_path, ledger, enforcement=governor)["enforcement"] == {
        "dropped": 1,
        "levels": [
            {"level": 0, "name": "everything", "ticks": 2, "seconds": 0.1},
            {"level": 1, "name": "front only", "ticks": 3, "seconds": 0.3},
        ],
        "steps": [{"tick": 1, "from": 0, "to": 1, "reason": "1 of the last 1 ticks overran"}],
        "cut_off": {"CAM_FRONT": 1, "CAM_LEFT": 1},
        "skipped": {"CAM_FRONT": 0, "CAM_LEFT": 1},
    }


def test_in_stepped_replay_nothing_is_on_time_or_late(tmp_path: Path) -> None:
    rig = make_rig()
    ledger = make_ledger([make_tick(0, rig, stepped=True)], rig)
    ticks = summarise(tmp_path, ledger, config=Config(pace="stepped"))["ticks"]
    assert (ticks["published"], ticks["on_time"], ticks["late"]) == (1, None, None)


def test_what_was_not_measured_is_null(tmp_path: Path) -> None:
    summary = summarise(tmp_path, Ledger(BUDGET, ["CAM_FRONT"]))
    assert summary["end_to_end"]["p50_ms"] is None
    assert summary["worst"] == []


def test_drive_model_and_files_are_identified(tmp_path: Path) -> None:
    model, drive = tmp_path / "model.onnx", tmp_path / "drive.mcap"
    model.write_bytes(b"weights")
    drive.write_bytes(b"12345")
    config = Config.model_validate({"replay": drive, "detector": {"model": model}})
    summary = summarise(tmp_path, Ledger(BUDGET, []), config=config, files=[drive, tmp_path / "none"])
    assert summary["chosen"]["model"] == {"path": str(model), "sha256": hashlib.sha256(b"weights").hexdigest()}
    assert summary["drive"] == {"path": str(drive), "bytes": 5, "rig": None}
    assert summary["files"] == {"drive.mcap": 5}
    assert summary["config"]["detector"]["model"] == str(model)


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff", b"[" * 100_000])
def test_a_damaged_summary_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "summary.json").write_bytes(content)
    with pytest.raises(ResultsError, match=r"summary\.json: damaged"):
        read_summary(tmp_path)


def test_a_summary_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"is .* the directory of a run"):
        read_summary(tmp_path)


def test_a_place_that_cannot_be_written_to_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"summary\.json: cannot be written"):
        summarise(tmp_path / "file", Ledger(BUDGET, []))
