"""What is seen of a training by those who look after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn

from ppl_vae.inference.training.state import StepState

__all__ = ["Rewindable"]


class Rewindable(Protocol):
    """A training that can be asked where it is, sent back there, and stepped again to the same bits.

    Attributes:
        epoch: epochs done.
        batch_index: steps of the epoch in progress, those skipped included.
        parameters: what is trained.
    """

    epoch: int
    batch_index: int
    parameters: list[nn.Parameter]

    def snapshot(self) -> StepState:
        """A copy of all that steps change."""

    def restore(self, state: StepState) -> None:
        """Be where a snapshot was taken, in the same epoch."""

    def step(self, block: list[Tensor], rows: Tensor) -> None:
        """Take the step on some rows of a block."""

    def several(self, block: list[Tensor], batches: list[Tensor]) -> None:
        """Take the steps on some rows of a block after others."""

    def skip(self, rows: Tensor) -> None:
        """Leave the step on some rows out."""

    def damp(self, factor: float) -> None:
        """Multiply the learning rate from here on."""

    def finite(self) -> bool:
        """Whether the objective of the epoch's steps is finite, and every parameter."""

    def loss(self, block: list[Tensor], rows: Tensor) -> tuple[Tensor, Tensor]:
        """What the next step would compute, eagerly: x as the model sees it, and the loss with its graph."""

    def data_dim(self, block: list[Tensor], rows: Tensor) -> int:
        """The dimension of the plate over the data in log-probabilities of such a batch, counted from the right."""

    @property
    def objective_sum(self) -> float:
        """The sum of the objective over the epoch's data so far."""

    @property
    def current_rate(self) -> float:
        """The learning rate of the next step."""

    @property
    def parameter_names(self) -> Sequence[str]:
        """What the parameters are called in the pair."""
