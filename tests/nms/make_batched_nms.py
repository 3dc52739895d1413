"""Write batched_nms.npz: random boxes, and which of them `torchvision.ops.batched_nms` keeps.

Run it where torch and torchvision are installed (stored: torch 2.13.0, torchvision 0.28.0, on the CPU):

    python tests/nms/make_batched_nms.py

Up to 1000 boxes torchvision sorts stably, so its order is defined in ties too; the largest case has none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch  # type: ignore[import-not-found, unused-ignore]
from torchvision.ops import batched_nms  # type: ignore[import-not-found, unused-ignore]

CASES = {"one": 1, "few": 25, "usual": 120, "crowded": 1000, "many": 2000}
THRESHOLDS = (0.3, 0.5, 0.6, 0.75)


def main() -> None:
    """Draw clusters of boxes around objects, in six classes."""
    rng = np.random.default_rng(7)
    stored: dict[str, Any] = {}
    for case, count in CASES.items():
        objects = max(1, count // 8)
        of = rng.integers(0, objects, count)
        centres = rng.uniform(0, 640, (objects, 2))[of] + rng.normal(0, 4, (count, 2))
        sizes = rng.uniform(12, 120, (objects, 2))[of] * rng.uniform(0.8, 1.25, (count, 2))
        boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1).astype(np.float32)
        boxes = boxes.round(1)
        labels = rng.integers(0, 6, count).astype(np.int32)
        scores = rng.permutation(count) / count if case == "many" else rng.integers(1, 20, count) / 20
        scores = scores.astype(np.float32)
        stored |= {f"{case}_boxes": boxes, f"{case}_scores": scores, f"{case}_labels": labels}
        for threshold in THRESHOLDS:
            arrays = (torch.from_numpy(boxes), torch.from_numpy(scores), torch.from_numpy(labels))
            kept = batched_nms(*arrays, threshold).numpy().astype(np.int32)
            stored[f"{case}_kept_{threshold}"] = kept
    np.savez_compressed(Path(__file__).with_name("batched_nms.npz"), **stored)


if __name__ == "__main__":
    main()
