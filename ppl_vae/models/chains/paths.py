"""p(hidden states | row): what is known of all states of a row together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

__all__ = ["PathPosterior"]


class PathPosterior(dist.TorchDistribution):
    """p(s_1, ..., s_T | x), whose marginals, draws and density are known; what stands in the padding means nothing.

    Args:
        mean: of each state ``(B, T, K)``.
        variance: likewise.
        draw: paths ``(B, T, K)``.
        density: log p(path | x), ``(B,)``.
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012
    has_rsample = False

    def __init__(self, mean: Tensor, variance: Tensor, draw: Callable[[], Tensor], density: Callable[[Tensor], Tensor]) -> None:
        self._mean, self._variance, self._draw, self._density = mean, variance, draw, density
        super().__init__(mean.shape[:1], mean.shape[1:], validate_args=False)

    @property
    def support(self) -> Any:
        """Numbers."""
        return constraints.independent(constraints.real, 2)

    @property
    def mean(self) -> Tensor:
        """Of each state, ``(B, T, K)``."""
        return self._mean

    @property
    def variance(self) -> Tensor:
        """Of each state, ``(B, T, K)``."""
        return self._variance

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Paths, ``(*sample, B, T, K)``."""
        shape = torch.Size(sample_shape)
        return torch.stack([self._draw() for _ in range(shape.numel())]).reshape(*shape, *self._mean.shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log p(path | x), ``(*sample, B)``."""
        return self._density(value)
