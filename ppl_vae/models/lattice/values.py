"""How the states of sites are told: spins as -1 and 1, others as one-hot vectors."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from pyro.distributions import constraints
from torch import Tensor

__all__ = ["ONE_HOT", "SPINS", "Encoding", "OneHot", "Spins"]


class Encoding(Protocol):
    """What stands for the states ``(..., n, q)`` of the sites of a lattice, in its shape."""

    def event_shape(self, shape: tuple[int, ...], levels: int) -> tuple[int, ...]:
        """Of one configuration."""
        ...

    def support(self, shape: tuple[int, ...]) -> Any:
        """Where values lie."""
        ...

    def value(self, shares: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Of one-hot states ``(..., n, q)``, or the mean under probabilities."""
        ...

    def shares(self, value: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The other way."""
        ...


class _Signs(constraints.Constraint):
    """Minus one or one."""

    is_discrete = True

    def check(self, value: Tensor) -> Tensor:
        """Which are."""
        return value.abs() == 1


class Spins:
    """Of two states: -1 and 1, whose mean is the magnetisation."""

    def event_shape(self, shape: tuple[int, ...], levels: int) -> tuple[int, ...]:
        """The lattice's."""
        return shape

    def support(self, shape: tuple[int, ...]) -> Any:
        """Signs."""
        return constraints.independent(_Signs(), len(shape))

    def value(self, shares: Tensor, shape: tuple[int, ...]) -> Tensor:
        """p(1) - p(-1)."""
        return (shares[..., 1] - shares[..., 0]).reshape(*shares.shape[:-2], *shape)

    def shares(self, value: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Of -1 and of 1."""
        up = (1 + value.reshape(*value.shape[: value.dim() - len(shape)], -1)) / 2
        return torch.stack([1 - up, up], -1)


class OneHot:
    """Of any number of states, whose mean are the probabilities."""

    def event_shape(self, shape: tuple[int, ...], levels: int) -> tuple[int, ...]:
        """The lattice's, and the states."""
        return (*shape, levels)

    def support(self, shape: tuple[int, ...]) -> Any:
        """One-hot vectors."""
        return constraints.independent(constraints.one_hot, len(shape))

    def value(self, shares: Tensor, shape: tuple[int, ...]) -> Tensor:
        """As they are, in the shape of the lattice."""
        return shares.reshape(*shares.shape[:-2], *shape, shares.shape[-1])

    def shares(self, value: Tensor, shape: tuple[int, ...]) -> Tensor:
        """As they are, site after site."""
        return value.reshape(*value.shape[: value.dim() - len(shape) - 1], -1, value.shape[-1])


SPINS, ONE_HOT = Spins(), OneHot()
