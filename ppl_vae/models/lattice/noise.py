"""How a lattice is seen: each site through noise of its own.

p(x | s) = prod_i p(x_i | s_i)
"""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppl_vae.declaration import Declaration, require
from ppl_vae.types import BINARY, CATEGORICAL, REAL, UNIT_INTERVAL, Kind

__all__ = ["BuiltNoise", "Flip", "GaussianNoise", "Noise"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Noise(Declaration, abc.ABC):
    """p(x_i | s_i), the same at every site. ``print`` tells it in mathematics."""

    @abc.abstractmethod
    def accepts(self, levels: int) -> frozenset[Kind]:
        """The kinds of data that it is a density of, for so many states."""

    @abc.abstractmethod
    def build(self, levels: int) -> BuiltNoise:
        """The module for so many states."""

    @abc.abstractmethod
    def story(self) -> str:
        """The density, as mathematics."""

    def __str__(self) -> str:
        return self.story()


class BuiltNoise(nn.Module, abc.ABC):
    """p(x_i | s_i) of built noise; ``values`` ``(q,)`` are those that states would show without it."""

    values: Tensor

    @abc.abstractmethod
    def evidence(self, x: Tensor) -> Tensor:
        """Log p(x_i | s_i) of sites ``(..., n)`` for each state, ``(..., n, q)``; zeros where x is missing (NaN)."""

    @abc.abstractmethod
    def forward(self, shares: Tensor) -> Any:
        """p(x_i | s_i) at one-hot states ``(..., n, q)``, of batch shape ``(..., n)``."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flip(Noise):
    """Each site shows its state, or with the probability ``rate`` another one: the binary symmetric channel (Shannon 1948).

        p(x_i = s_i | s_i) = 1 - rate

    The states are 0 and 1 in the data, of more states 0, 1, 2, ...

    Args:
        rate: in (0, 1); of several other states each is as probable.

    Raises:
        ValueError: a rate that is none.

    Examples:
        >>> print(Flip(rate=0.1))
        Flip(0.1)
    """

    rate: float = 0.1

    def __post_init__(self) -> None:
        require(0 < self.rate < 1, "a rate above 0 and below 1", self.rate)

    def accepts(self, levels: int) -> frozenset[Kind]:
        """Binary data; of more states categories."""
        return frozenset({BINARY}) if levels == 2 else frozenset({CATEGORICAL})

    def build(self, levels: int) -> BuiltNoise:
        """The module for so many states."""
        return BuiltFlip(self.rate, levels)

    def story(self) -> str:
        """The density, as mathematics."""
        return f"Flip({self.rate:g})"


class BuiltFlip(BuiltNoise):
    """A table ``(q, q)`` of p(x | s), a row for each s."""

    table: Tensor

    def __init__(self, rate: float, levels: int) -> None:
        super().__init__()
        same = torch.eye(levels, dtype=torch.float64)
        self.register_buffer("values", torch.arange(levels, dtype=torch.float64), persistent=False)
        self.register_buffer("table", same * (1 - rate) + (1 - same) * rate / (levels - 1), persistent=False)

    def evidence(self, x: Tensor) -> Tensor:
        """Rows of the table."""
        seen = self.table.log().mT[x.nan_to_num().long()]
        return seen * (~x.isnan()).unsqueeze(-1)

    def forward(self, shares: Tensor) -> Any:
        """Bernoulli, or categorical."""
        probs = shares @ self.table.to(shares)
        return dist.Bernoulli(probs=probs[..., 1]) if probs.shape[-1] == 2 else dist.Categorical(probs=probs)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GaussianNoise(Noise):
    """Each site shows the value of its state with normal noise.

        x_i | s_i ~ Normal(low + (high - low) s_i / (q - 1), scale^2),     s_i in 0, ..., q - 1

    Args:
        scale: standard deviation of the noise.
        low: the value of the first state.
        high: the value of the last one; others lie between at equal distances.

    Raises:
        ValueError: a scale that is not positive, or values that are the same.

    Examples:
        >>> print(GaussianNoise(scale=0.5))
        Normal(0..1, 0.5^2)
    """

    scale: float = 0.5
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        require(0 < self.scale < math.inf, "a positive scale", self.scale)
        require(self.low < self.high, "a low below high", (self.low, self.high))

    def accepts(self, levels: int) -> frozenset[Kind]:
        """Real numbers, those in [0, 1] among them."""
        return frozenset({REAL, UNIT_INTERVAL, BINARY})

    def build(self, levels: int) -> BuiltNoise:
        """The module for so many states."""
        return BuiltGaussianNoise(torch.linspace(self.low, self.high, levels, dtype=torch.float64), self.scale)

    def story(self) -> str:
        """The density, as mathematics."""
        return f"Normal({self.low:g}..{self.high:g}, {self.scale:g}^2)"


class BuiltGaussianNoise(BuiltNoise):
    """Values ``(q,)`` of the states, and the scale."""

    def __init__(self, values: Tensor, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.register_buffer("values", values, persistent=False)

    def evidence(self, x: Tensor) -> Tensor:
        """Log-densities at the values of all states."""
        seen = dist.Normal(self.values, self.scale).log_prob(x.nan_to_num().unsqueeze(-1))
        return seen * (~x.isnan()).unsqueeze(-1)

    def forward(self, shares: Tensor) -> Any:
        """Normal, around the mean value."""
        return dist.Normal(shares @ self.values.to(shares), self.scale)
