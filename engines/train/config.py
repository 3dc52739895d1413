"""configs/engines/train.yaml, typed."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from perception.config import Fraction, Positive, Section

Side = Annotated[int, Field(gt=0, multiple_of=32)]
Count = Annotated[int, Field(gt=0)]


class Phase(Section):
    """A stretch of training over which the learning rate rises and falls once."""

    epochs: Count
    learning_rate: Positive = Field(description="the highest")
    angle: Positive = Field(0.5, description="what the loss of headings weighs, which others have of their own")


class TrainConfig(Section):
    """How the stock detector is trained."""

    phases: Annotated[tuple[Phase, ...], Field(min_length=1)] = Field(description="one after the other")
    input_size: tuple[Side, Side] = Field((480, 288), description="width and height in pixels, in training and after")
    blank: Fraction = Field(0.02, description="of the images: uniform, as from a camera that is covered or dead")
    shoots: Count = Field(190, description="towns that are learned from; the scenarios take turns")
    ticks: Count = Field(20, description="moments per town, each seen by all cameras")
    validate_shoots: Count = Field(9, description="towns looked at after each epoch")
    evaluate_shoots: Count = Field(18, description="towns that the figures are measured on at the end")
    batch: Count = 16
    warm_up_steps: Count = 300
    weight_decay: Annotated[float, Field(ge=0)] = 0.02
    gradient_norm: Positive = Field(10.0, description="longer gradients are shortened to this")
    average_decay: Fraction = Field(0.999, description="of the moving average of the weights, which is what is kept")
    seed: int = 0

    @property
    def epochs(self) -> int:
        """Of all phases."""
        return sum(phase.epochs for phase in self.phases)

    def phase_of(self, epoch: int) -> tuple[Phase, int]:
        """The phase that an epoch belongs to, and the first epoch of that phase."""
        first = 0
        for phase in self.phases:
            if epoch < first + phase.epochs:
                return phase, first
            first += phase.epochs
        raise ValueError(f"epoch {epoch} of {self.epochs}")
