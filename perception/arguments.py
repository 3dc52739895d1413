"""Types of arguments on command lines, for argparse."""

from __future__ import annotations

import argparse


def count(text: str) -> int:
    """How many there are to be, at least one."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number over 0, got {text!r}")
    return int(text)
