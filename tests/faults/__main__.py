"""Run the faults and write the table of what came of them: ``python -m tests.faults [--deadline-ms 20] [--out FILE]``.

What stands in it was observed in that run, and asserted by the tests as far as it does not depend on the machine's
speed. Nothing is written where a test fails; one that is skipped says why.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import pytest

from perception.output.summary import machine
from tests.faults.table import DEADLINE, markdown

HERE = Path(__file__).parent
TEXT = """# Faults

Each is injected for real into a daemon that runs: a process of its own with three cameras at 10 Hz, a detector, a
recording and consumers. Cameras are sockets, so that they can be pulled; the wall clock is stepped for the process, by
a preloaded library; the disk is a small tmpfs. One daemon has to live through them, one after the other, but for those
that end it. Real GStreamer pipelines, a real RTSP server that dies and comes back, and V4L2 as the kernel's header has
it are in [tests/ingest/cameras](../ingest/cameras).

Written by `python -m tests.faults --deadline-ms {deadline}`, on {cores} cores ({cpu}).
That deadline holds where a row does not say otherwise. Faults are about `CAM_LEFT`; where another camera is named, the
machine was busy with something else. Of the log there are the lines that the tests look for. A recording that failed is
tried again every second here, and every thirty on the vehicle.

{table}"""


class Rows:
    """Collects the rows that tests put down, in their order."""

    def __init__(self) -> None:
        self.rows: list[list[str]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and isinstance(report.longrepr, tuple):
            name = report.nodeid.partition("::test_")[2].replace("_", " ")
            self.rows.append([name, f"not run: {report.longrepr[2].removeprefix('Skipped: ')}", "", ""])
        elif report.when == "call":
            self.rows += [value for key, value in report.user_properties if key == "row"]  # type: ignore[misc]


def main() -> int:
    parser = argparse.ArgumentParser("tests.faults", description="Inject faults, and write down what came of them.")
    parser.add_argument("--deadline-ms", default="20", help="of the ticks (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=HERE / "README.md", help="where to (default: %(default)s)")
    arguments = parser.parse_args()
    os.environ[DEADLINE] = arguments.deadline_ms
    rows = Rows()
    code = pytest.main([str(HERE), "-q", "-p", "no:cacheprovider"], plugins=[rows])
    if code == pytest.ExitCode.OK:
        here = machine()
        table = markdown(rows.rows)
        text = TEXT.format(deadline=arguments.deadline_ms, cpu=here["cpu"], cores=here["cores_allowed"], table=table)
        arguments.out.write_text(text)
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
