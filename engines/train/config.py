"""configs/engines/train.yaml, typed."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from perception.config import Fraction, Positive, Section

Side = Annotated[int, Field(gt=0, multiple_of=32)]
Count = Annotated[int, Field(gt=0)]


class TrainConfig(Section):
    """How the stock detector is trained."""

    input_size: tuple[Side, Side] = Field((448, 256), description="width and height in pixels")
    shoots: Count = Field(190, description="towns that are learned from; the scenarios take turns")
    ticks: Count = Field(20, description="moments per town, each seen by all cameras")
    validate_shoots: Count = Field(9, description="towns looked at after each epoch")
    evaluate_shoots: Count = Field(18, description="towns that the figures are measured on at the end")
    epochs: Count = 18
    batch: Count = 16
    learning_rate: Positive = 2e-3
    warm_up_steps: Count = 300
    weight_decay: Annotated[float, Field(ge=0)] = 0.02
    gradient_norm: Positive = Field(10.0, description="longer gradients are shortened to this")
    average_decay: Fraction = Field(0.999, description="of the moving average of the weights, which is what is kept")
    seed: int = 0
