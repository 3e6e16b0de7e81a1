"""Distributions of which some elements are known."""

from __future__ import annotations

from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

__all__ = ["Completed", "KnownOr"]


class KnownOr(constraints.Constraint):
    """Any value where it is known, elsewhere those of a constraint.

    Args:
        base_constraint: of a value that is not known.
        known: which are, of the event's shape.
    """

    def __init__(self, base_constraint: constraints.Constraint, known: Tensor) -> None:
        self.base_constraint = base_constraint
        self.is_discrete = base_constraint.is_discrete
        self.known = known
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        """Whether each value is known or satisfies the base."""
        return self.known | self.base_constraint.check(value)


class Completed(dist.TorchDistribution):
    """A distribution of single elements, some of which are known.

    Args:
        base: of all elements ``(..., *event)``.
        known: which ones are known, ``(*event)``; their log-probability is 0.
        values: theirs, ``(..., *event)``, anything elsewhere.
        filler: a value inside the base's support.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(
        self, base: dist.Distribution, known: Tensor, values: Tensor, filler: float, validate_args: bool | None = None
    ) -> None:
        self.base_dist = base
        self.known = known
        self.values = values
        self.filler = filler
        shape = torch.broadcast_shapes(base.batch_shape, values.shape)
        super().__init__(shape, validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        """That of the base, where it is not known."""
        return KnownOr(self.base_dist.support, self.known)

    @property
    def mean(self) -> Tensor:
        """The known values among the means of the others."""
        return torch.where(self.known, self.values, self.base_dist.mean)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Completed:
        """The same distribution with a larger batch shape."""
        values = self.values.expand(batch_shape)
        return Completed(self.base_dist.expand(batch_shape), self.known, values, self.filler, validate_args=self._validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-probability of each element; the filler keeps what the base cannot take out of the gradients too."""
        return torch.where(self.known, 0.0, self.base_dist.log_prob(torch.where(self.known, self.filler, value)))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws of what is not known."""
        draws = self.base_dist.expand(self.batch_shape).sample(torch.Size(sample_shape))
        return torch.where(self.known, self.values, draws)
