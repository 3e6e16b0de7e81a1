"""The first guess of a conditional model: x from y alone (Sohn, Lee and Yan 2015)."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Generator, Tensor, nn

from ppl_vae.data.fields import WEIGHTS
from ppl_vae.declaration import Declaration, require
from ppl_vae.nn import MLP, Network, inputs
from ppl_vae.program.hooks import TrainingRows
from ppl_vae.types import DataSpec

__all__ = ["Baseline", "FirstGuess", "NoGuess"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Baseline(Declaration):
    """A first guess of x from y alone, the mean of p(x | h = network(y)); it is fitted before the model, and stays.

    Args:
        network: from y to the likelihood's features.
        epochs: passes over the training data, by Adam.
        batch_size: data per step.
        learning_rate: of all of them.

    Raises:
        ValueError: a number out of range.

    Examples:
        >>> Baseline(network=MLP(hidden=(500, 500)), epochs=10).batch_size
        128
    """

    network: Network = MLP()
    epochs: int = 5
    batch_size: int = 128
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        require(self.epochs >= 1, "at least 1 epoch", self.epochs)
        require(self.batch_size >= 1, "a batch_size of at least 1", self.batch_size)
        require(0 < self.learning_rate < math.inf, "a positive learning_rate", self.learning_rate)


class NoGuess(nn.Identity):
    """Nothing beside y."""

    columns = 0

    def fit(self, log_prob: Any, rows: TrainingRows, generator: Generator, *, reads: tuple[str, ...]) -> None:
        """There is nothing to fit."""


class FirstGuess(nn.Module):
    """The baseline: columns ``(..., C)`` with the mean of p(x | y) behind them, ``(..., C + D)``.

    Its network takes no part in the model's own training.
    """

    def __init__(
        self, declared: Baseline, columns: int, spec: DataSpec, likelihood: nn.Module, features: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.declared = declared
        self.columns = math.prod(spec.event_shape)
        self.event_dim = len(spec.event_shape)
        self.network = declared.network.build((columns,), features).requires_grad_(False)
        self.standardized = inputs.standardized(spec)
        self._likelihood = (likelihood,)  # in a tuple: it is the model's

    def forward(self, shown: Tensor) -> Tensor:
        """Columns and guess side by side."""
        guess = self.standardized(self.likelihood(shown).mean).flatten(-self.event_dim)
        return torch.cat([shown, guess.detach()], dim=-1)

    def likelihood(self, shown: Tensor) -> dist.Distribution:
        """p(x | y) of all of x."""
        return self._likelihood[0](self.network(shown))

    def train(self, mode: bool = True) -> FirstGuess:
        """Stay in evaluation mode."""
        return super().train(False)

    def fit(self, log_prob: Any, rows: TrainingRows, generator: Generator, *, reads: tuple[str, ...]) -> None:
        """Maximize the mean of ``log_prob(x[, y])`` over the network's parameters, by the rows' weights if they have any."""
        declared = self.declared
        weighted = rows.weights is not None
        scale = len(rows) / rows.total
        reads = (*reads, WEIGHTS) if weighted else reads
        self.network.requires_grad_(True)
        optimizer = torch.optim.Adam(self.network.parameters(), declared.learning_rate)
        for _ in range(declared.epochs):
            for *block, order in rows.blocks(declared.batch_size, generator=generator, reads=reads):
                for chosen in order.split(declared.batch_size):
                    raw, *others = (part[chosen] for part in block)
                    weights = others.pop() * scale if weighted else None
                    found = log_prob(rows.transform(raw, generator), *others)
                    loss = -(found if weights is None else found * weights.to(found)).mean()
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
        self.network.requires_grad_(False)
