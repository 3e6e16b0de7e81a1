"""How the weight of the KL rises from zero while training begins, so that latent variables are used before they cost."""

from __future__ import annotations

import abc
import dataclasses
import math

import torch
from torch import Tensor

from ppl_vae.declaration import Declaration, require

__all__ = ["CyclicalWarmUp", "LinearWarmUp", "NoWarmUp", "WarmUp"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class WarmUp(Declaration, abc.ABC):
    """A factor from 0 to 1 as a function of the epochs trained so far."""

    @property
    def length(self) -> float:
        """Epochs until the factor is 1 for good."""
        return 0.0

    @abc.abstractmethod
    def factor(self, epoch: Tensor) -> Tensor:
        """The factor after so many epochs, a scalar that may be a fraction of one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoWarmUp(WarmUp):
    """1 from the start."""

    def factor(self, epoch: Tensor) -> Tensor:
        """One."""
        return torch.ones_like(epoch)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearWarmUp(WarmUp):
    """min(1, t / T) after t epochs (Bowman et al. 2016; Sonderby et al. 2016).

    Args:
        epochs: T, epochs until it is 1.

    Raises:
        ValueError: a length that is not positive.

    Examples:
        >>> LinearWarmUp(epochs=4).factor(torch.tensor([0.0, 1.0, 9.0]))
        tensor([0.0000, 0.2500, 1.0000])
    """

    epochs: float = 10.0

    def __post_init__(self) -> None:
        require(0 < self.epochs < math.inf, "a positive number of epochs", self.epochs)

    @property
    def length(self) -> float:
        """T."""
        return self.epochs

    def factor(self, epoch: Tensor) -> Tensor:
        """The line, then one."""
        return (epoch / self.epochs).clamp(max=1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CyclicalWarmUp(WarmUp):
    """min(1, (t mod T) / (R T)) for M cycles of T epochs, then 1 (Fu et al. 2019).

    Args:
        epochs: T, epochs of a cycle.
        cycles: M, their number.
        rise: R, the part of a cycle in which the factor rises from 0 to 1.

    Raises:
        ValueError: a number out of range.

    Examples:
        >>> CyclicalWarmUp(epochs=4, cycles=2).factor(torch.tensor([0.0, 1.0, 3.0, 5.0, 8.0]))
        tensor([0.0000, 0.5000, 1.0000, 0.5000, 1.0000])
    """

    epochs: float = 10.0
    cycles: int = 4
    rise: float = 0.5

    def __post_init__(self) -> None:
        require(0 < self.epochs < math.inf, "a positive number of epochs", self.epochs)
        require(self.cycles >= 1, "at least 1 cycle", self.cycles)
        require(0 < self.rise <= 1, "a rise in (0, 1]", self.rise)

    @property
    def length(self) -> float:
        """Until the top of the last rise."""
        return self.epochs * (self.cycles - 1 + self.rise)

    def factor(self, epoch: Tensor) -> Tensor:
        """The saw with flat tops, then one."""
        cycle = epoch / self.epochs
        return torch.where(cycle < self.cycles, (cycle.frac() / self.rise).clamp(max=1.0), 1.0)
