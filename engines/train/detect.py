"""The network at work during training: held-out examples to boxes in the pixels of their images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from engines.accuracy import Accuracy, TrueBoxes, evaluate, too_hard
from engines.train import dataset
from engines.train.dataset import Example
from engines.train.model import StockDetector
from engines.train.samples import Labels, place
from perception.config import NmsConfig
from perception.detect.stock import StockHead
from perception.messages import CLASSES, Candidates
from perception.nms.numpy import NumpyNms

_LEAST_SCORE = 0.02
_BATCH = 16


def accuracy(network: StockDetector, examples: Sequence[Example], size: tuple[int, int]) -> Accuracy:
    """COCO's measures on held-out examples, of what is 12 pixels high and 0.4 visible at least."""
    head = StockHead(size, np.arange(len(CLASSES), dtype=np.int32), _LEAST_SCORE)
    nms = NumpyNms(NmsConfig())
    found: list[Candidates] = []
    for start in range(0, len(examples), _BATCH):
        found += _found(network, examples[start : start + _BATCH], size, head, nms)
    return evaluate([_truth(example.labels) for example in examples], found)


def _truth(labels: Labels) -> TrueBoxes:
    return TrueBoxes(labels.boxes, labels.labels, labels.ignored | too_hard(labels.boxes, labels.visibility))


@torch.no_grad()
def _found(
    network: StockDetector, examples: Sequence[Example], size: tuple[int, int], head: StockHead, nms: NumpyNms
) -> list[Candidates]:
    images, placements = [], []
    for example in examples:
        image = dataset.decode(example)
        placements.append(dataset.letterbox(image.shape, size))
        images.append(place(image, example.labels, placements[-1], *size)[0])
    inputs = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        scores, regression = network(inputs)
    kept = [nms(head(outputs)) for outputs in zip(scores.float().numpy(), regression.float().numpy(), strict=True)]
    return [
        Candidates(((k.boxes - np.tile([p.x, p.y], 2)) / p.scale).astype(np.float32), k.scores, k.labels)
        for k, p in zip(kept, placements, strict=True)
    ]
