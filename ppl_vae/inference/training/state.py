"""The state of a training: one record with named fields, kept in memory for a rewind and on disk for a resume."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ppl_vae.inference.training.best import Best
from ppl_vae.inference.training.optimizers import OptimizerState
from ppl_vae.storage.records import inlined

__all__ = ["StepState", "TrainingState"]

MOST_THREADS = 1024  # torch makes as many as it is told, and dies of too many


@dataclass(frozen=True, kw_only=True)
class StepState:
    """All that steps change: who has it goes back to where it was taken, in the same epoch.

    Attributes:
        pair, transform, objective: parameters and buffers by name, each under one name only.
        totals: sums over the epoch's data so far, ``(3,)`` of each optimizer's steps.
        optimizers: moments and numbers of steps.
        random: torch's random numbers, by the kind of device.
        epoch: epochs done.
        batch_index: steps of the epoch in progress, those skipped included.
        skipped: rows of that epoch whose steps were not taken.
        active_optimizer: turns taken by the optimizers, whose remainder says whose turn it is.
    """

    pair: Mapping[str, Tensor]
    transform: Mapping[str, Tensor]
    objective: Mapping[str, Tensor]
    totals: tuple[Tensor, ...]
    optimizers: tuple[OptimizerState, ...]
    random: Mapping[str, Tensor]
    epoch: int
    batch_index: int
    skipped: int
    active_optimizer: int

    def check(self) -> None:
        """Raise ``ValueError`` for numbers that count nothing."""
        for optimizer in self.optimizers:
            counted(optimizer.steps)
        for number in (self.epoch, self.batch_index, self.skipped, self.active_optimizer):
            counted(number)

    def check_like(self, live: StepState) -> None:
        """Raise an error of some kind if this is not the state of such a fit: it would be put in place by halves.

        Raises:
            LookupError: a tensor is not there.
            ValueError: one of another shape.
        """
        pairs = list(zip(live.totals, self.totals, strict=True))
        for expected, kept in (
            (live.pair, self.pair),
            (live.transform, self.transform),
            (live.objective, self.objective),
        ):
            pairs += [(tensor, kept[name]) for name, tensor in expected.items()]
        for ours, theirs in pairs:
            if ours.shape != theirs.shape:
                raise ValueError(f"expected a tensor of shape {tuple(ours.shape)}, got {tuple(theirs.shape)}")


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """All that it takes to go on to the same bits in another process.

    Attributes:
        steps: what steps change.
        order: the state of the generator that orders the data, from the start of the epoch in progress.
        draws: the weights that its rows are drawn by, where they are.
        best: the best epoch so far.
        planned_epochs: epochs that were asked for when the training began, by which steps are recorded or compiled.
        learning_rate: of the first step of the epoch in progress.
        rate_factor: what the learning rate is multiplied by after it was found too large.
        tries: how often going on from what was not finite was tried in the epoch in progress.
        sizes: of the batches that the pair has met; of rows of different lengths pairs of a size and a padded length.
        threads: of the CPU.
        seconds: worked so far.
    """

    steps: StepState = inlined()
    order: Tensor
    draws: Mapping[str, Tensor]
    best: Best
    planned_epochs: int
    learning_rate: float
    rate_factor: float
    tries: int
    sizes: list[Any]
    threads: int
    seconds: float

    def check(self) -> None:
        """Raise ``ValueError`` for numbers that no training can have."""
        self.steps.check()
        counted(self.planned_epochs)
        counted(self.tries)
        counted(self.best.epoch)
        if not isinstance(self.best.value, (int, float)):
            raise ValueError(f"expected a number for the best value, got {self.best.value!r}")
        for size in self.sizes:
            for number in size if isinstance(size, list) else [size]:
                counted(number, least=1)
        if not 0 <= self.learning_rate < math.inf:
            raise ValueError(f"expected a learning rate of at least 0, got {self.learning_rate}")
        if not 0 < self.rate_factor <= 1:
            raise ValueError(f"expected a factor of the learning rate of 0 to 1, got {self.rate_factor}")
        if counted(self.threads, least=1) > MOST_THREADS:
            raise ValueError(f"expected 1 to {MOST_THREADS} threads, got {self.threads}")


def counted(number: int, least: int = 0) -> int:
    """The number, if it counts something.

    Raises:
        ValueError: it is no whole number, or too small.
    """
    if not isinstance(number, int) or number < least:
        raise ValueError(f"expected a whole number of at least {least}, got {number!r}")
    return number
