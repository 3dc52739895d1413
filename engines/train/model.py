"""The stock detector's network: a small residual backbone, a top-down neck, one head.

Its outputs are those of `perception.detect.stock`. Convolution, ReLU, max pooling, nearest upsampling, addition and
concatenation are all it is made of: what TensorRT and OpenVINO fuse in INT8. The sizes were chosen by the clock of
the INT8 model: convolutions at a quarter of the resolution cost most there, channels at a sixteenth next to nothing.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor, nn

from perception.detect.stock import CELLS, REGRESSION, SCORES

_GREY: Final = 128.0
_PRIOR: Final = 0.001


class ConvBlock(nn.Sequential):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class Residual(nn.Module):
    """Two 3x3 convolutions around which the input is added, ReLU last: the form that fuses in INT8 (He et al. 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvBlock(channels, channels)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as `x`."""
        return torch.relu(self.second(self.first(x)) + x)


class PartialStage(nn.Module):
    """Residual blocks on half the channels, the other half passed by (cross-stage partial, Wang et al. 2020)."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        half = channels // 2
        self.bypass = ConvBlock(channels, half, 1)
        self.entry = ConvBlock(channels, half, 1)
        self.blocks = nn.Sequential(*(Residual(half) for _ in range(blocks)))
        self.merge = ConvBlock(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as `x`."""
        return self.merge(torch.cat((self.bypass(x), self.blocks(self.entry(x))), 1))


class PyramidPool(nn.Module):
    """Max pooling over growing windows: context for objects that fill the image (He et al. 2015)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = ConvBlock(channels, channels // 2, 1)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.merge = ConvBlock(channels * 2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as `x`."""
        x = self.squeeze(x)
        narrow = self.pool(x)
        wide = self.pool(narrow)
        return self.merge(torch.cat((x, narrow, wide, self.pool(wide)), 1))


class StockDetector(nn.Module):
    """Images (N, 3, h, w) float, BGR 0..255, h and w multiples of 32, to the outputs of `perception.detect.stock`.

    Pixels are shifted by 128 first, so that symmetric INT8 holds them without loss; their scale is left to the first
    batch normalisation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvBlock(3, 16, stride=2), ConvBlock(16, 32, stride=2), ConvBlock(32, 32))
        self.stage8 = nn.Sequential(ConvBlock(32, 64, stride=2), PartialStage(64, 1))
        self.stage16 = nn.Sequential(ConvBlock(64, 128, stride=2), PartialStage(128, 2))
        self.stage32 = nn.Sequential(ConvBlock(128, 160, stride=2), PartialStage(160, 1), PyramidPool(160))
        self.lateral32 = ConvBlock(160, 64, 1)
        self.lateral16 = ConvBlock(128, 64, 1)
        self.lateral8 = ConvBlock(64, 64, 1)
        self.smooth16 = ConvBlock(64, 64)
        self.smooth8 = ConvBlock(64, 64)
        self.up = nn.Upsample(scale_factor=2.0, mode="nearest")
        self.tower = ConvBlock(64, 96)
        self.scores = nn.Conv2d(96, SCORES * CELLS, 1)
        self.regression = nn.Conv2d(96, REGRESSION * CELLS, 1)
        _initialise(self)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and regression, channels last."""
        stride8 = self.stage8(self.stem(images - _GREY))
        stride16 = self.stage16(stride8)
        stride32 = self.stage32(stride16)
        fused16 = self.smooth16(self.lateral16(stride16) + self.up(self.lateral32(stride32)))
        fused8 = self.smooth8(self.lateral8(stride8) + self.up(fused16))
        shared = self.tower(fused8)
        return self.scores(shared).permute(0, 2, 3, 1), self.regression(shared).permute(0, 2, 3, 1)


def _initialise(network: StockDetector) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, Residual):
            nn.init.zeros_(module.second[1].weight)  # starts as the identity, which trains faster (Goyal et al. 2017)
    for head in (network.scores, network.regression):
        nn.init.normal_(head.weight, std=0.01)
        nn.init.zeros_(head.bias)
    nn.init.constant_(network.scores.bias, math.log(_PRIOR / (1 - _PRIOR)))  # few cells hold anything (Lin et al. 2017)
