"""From the trained network to the ONNX file that the pipeline runs and the quantiser reads."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Final

import onnx
import torch

from engines.train.model import StockDetector
from perception.detect.stock import HEAD_NAME, OUTPUTS
from perception.messages import CLASSES

_OPSET: Final = 17


def export(network: StockDetector, path: Path, size: tuple[int, int], notes: dict[str, str]) -> None:
    """Write the network for inputs of `size` (width, height) with a dynamic batch; it says itself how to be used.

    Batch normalisation is folded into the convolutions. `notes` are added to the metadata.
    """
    width, height = size
    partial = path.with_suffix(".partial.onnx")
    with warnings.catch_warnings():
        # The exporter through TorchScript writes the plainer graph: named nodes, no casts, no shape arithmetic.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            network.float().eval(),
            (torch.zeros(1, 3, height, width),),
            str(partial),
            dynamo=False,
            opset_version=_OPSET,
            input_names=["images"],
            output_names=list(OUTPUTS),
            dynamic_axes={name: {0: "batch"} for name in ("images", *OUTPUTS)},
        )
    model = onnx.load(partial)
    metadata = {
        "head": HEAD_NAME,
        "names": json.dumps(CLASSES),
        "input": json.dumps({"channel_order": "bgr", "scale": 1.0, "pad_value": 114, "pad_position": "center"}),
        **notes,
    }
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, partial)
    partial.replace(path)
