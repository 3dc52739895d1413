"""The IoU threshold as a float32."""

from __future__ import annotations

import numpy as np


def float32_at_most(value: float) -> np.float32:
    """The largest float32 not above `value`: a float32 IoU exceeds the one exactly when it exceeds the other."""
    rounded = np.float32(value)
    below: np.float32 = np.nextafter(rounded, np.float32(0))
    return rounded if float(rounded) <= value else below
