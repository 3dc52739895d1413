from __future__ import annotations

import argparse

import pytest

from perception.arguments import count


def test_a_count_is_a_whole_number_over_zero() -> None:
    assert count("3") == 3
    for text in ("0", "-1", "1.5", "all"):
        with pytest.raises(argparse.ArgumentTypeError, match="expected a whole number over 0"):
            count(text)
