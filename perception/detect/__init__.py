"""Tensors to candidates: runtimes, and the heads that decode their outputs."""

import sys

# OpenVINO tells Google Analytics of every import, from a fork of the process: a vehicle tells nobody, and a fork makes
# every page that is written next a page fault. Without this package, which is where that is done, it is silent.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
