"""``python -m perception.doctor --config orin.yaml``: whether this machine can run that config, and what is missing.

Exit codes: 0 the run can work here, 1 something that it needs is missing, 2 refused (one line says why).
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from perception import config
from perception.cuda.nvidia import PresentGpu, present_gpu
from perception.doctor import detector, graphics, machine, sources
from perception.doctor.finding import Case, Check, Finding
from perception.errors import PerceptionError

EXIT_MISSING: Final = 1
EXIT_REFUSED: Final = 2
_LONGEST_S: Final = 10.0
_COLOURS: Final = {"ok": "green", "missing": "bold red", "optional": "yellow", "not needed": "dim"}

CHECKS: Final[tuple[Check, ...]] = (
    machine.operating_system,
    machine.python,
    machine.processors,
    machine.power_mode,
    machine.clocks,
    machine.real_time,
    machine.locked_memory,
    graphics.gpu,
    graphics.pycuda,
    graphics.cuda_python,
    graphics.compiler,
    graphics.kernels_compiled,
    graphics.tensorrt,
    graphics.preprocessing,
    graphics.onnxruntime_providers,
    detector.openvino,
    detector.model,
    detector.plan,
    sources.source,
    sources.video_devices,
    sources.gstreamer,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Check, print, and say whether the run can work."""
    parser = argparse.ArgumentParser("perception.doctor", description="What is here, and what is missing.")
    add = parser.add_argument
    add("--config", default="orin.yaml", metavar="NAME", help="a file, or a name in configs/ (default: %(default)s)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override any key, such as device=cpu")
    add("--json", action="store_true", help="for machines")
    arguments = parser.parse_args(argv)
    try:
        chosen = config.load(arguments.config, [config.parse_override(text) for text in arguments.set])
    except PerceptionError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_REFUSED
    findings = examine(Case(chosen, arguments.config, _gpu()))
    missing = [finding.name for finding in findings if finding.state == "missing"]
    if arguments.json:
        print(json.dumps({"works": not missing, "findings": [found._asdict() for found in findings]}, indent=2))
    else:
        _print(findings, missing, arguments.config)
    return EXIT_MISSING if missing else 0


def examine(case: Case, checks: Sequence[Check] = CHECKS, longest_s: float = _LONGEST_S) -> list[Finding]:
    """Run all checks at once; one that hangs, in a driver say, or that breaks is told as missing."""
    answers: list[Any] = bounded([lambda check=check: check(case) for check in checks], longest_s)
    return [
        answer if isinstance(answer, Finding) else Finding(check.__name__.replace("_", " "), "missing", str(answer))
        for check, answer in zip(checks, answers, strict=True)
    ]


def bounded(probes: Sequence[Any], longest_s: float) -> list[Any]:
    """What each probe gives, or the exception that it raised; a `TimeoutError` for those that take too long."""
    answers: list[Any] = [TimeoutError(f"no answer within {longest_s:g} s")] * len(probes)

    def run(index: int) -> None:
        try:
            answers[index] = probes[index]()
        except Exception as error:  # noqa: BLE001 (whatever a broken installation throws)
            answers[index] = error

    threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(len(probes))]
    until = time.monotonic() + longest_s
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return list(answers)


def _gpu() -> PresentGpu | None:
    (found,) = bounded([present_gpu], _LONGEST_S)
    return found if isinstance(found, PresentGpu) else None


def _print(findings: Sequence[Finding], missing: Sequence[str], config_name: str) -> None:
    console = Console()
    width = max(len(finding.name) for finding in findings)
    for name, state, what, remedy in findings:
        line = Text.assemble((f"{state:<11}", _COLOURS[state]), (f"{name:<{width}}  ", "bold"), what)
        if remedy and state != "ok":
            line.append(f"\n{'':<{13 + width}}{remedy}", "cyan")
        console.print(line, soft_wrap=True, highlight=False)
    verdict = f"missing for {config_name}: {', '.join(missing)}" if missing else f"{config_name} can run here"
    console.print(Text(f"\n{verdict}", "bold red" if missing else "bold green"), soft_wrap=True, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
