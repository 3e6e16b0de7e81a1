"""The prior of loadings that switches factors off which the data do not support."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from ppl_vae.declaration import require
from ppl_vae.priors.base import Prior

__all__ = ["AutomaticRelevance", "AutomaticRelevanceModule", "ColumnStudentT"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutomaticRelevance(Prior):
    """w_dk ~ Normal(0, 1 / alpha_k), alpha_k ~ Gamma(a, b): automatic relevance determination (MacKay 1995; Bishop 1999).

    The precision alpha_k of a column is integrated out, which leaves a multivariate Student t of 2 a degrees of freedom; CAVI
    keeps a factor q(alpha_k) of its own. A column that the data do not need shrinks to nothing.

    Args:
        concentration: a.
        rate: b, in the squared units of what the model sees.

    Raises:
        ValueError: a number that is not positive; on building, a shape without axes.

    Examples:
        >>> AutomaticRelevance().build((5, 2))().event_shape
        torch.Size([5, 2])
    """

    concentration: float = 1e-3
    rate: float = 1e-3

    def __post_init__(self) -> None:
        require(0 < self.concentration < math.inf, "a positive concentration", self.concentration)
        require(0 < self.rate < math.inf, "a positive rate", self.rate)

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """A module whose call returns the distribution on ``shape``, independent along the last axis; a vector is one row.

        Raises:
            ValueError: a shape without axes.
        """
        require(len(shape) >= 1, "a matrix, such as the loadings of factor analysis", shape)
        return AutomaticRelevanceModule(torch.tensor(float(self.concentration)), torch.tensor(float(self.rate)), shape)

    def story(self, shape: tuple[int, ...]) -> str:
        """The density as text."""
        return f"Normal(0, 1 / alpha_k), alpha_k ~ Gamma({self.concentration:g}, {self.rate:g})"


class AutomaticRelevanceModule(nn.Module):
    """Its numbers are buffers, so they follow ``.to(device)``."""

    concentration: Tensor
    rate: Tensor

    def __init__(self, concentration: Tensor, rate: Tensor, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("concentration", concentration, persistent=False)
        self.register_buffer("rate", rate, persistent=False)

    def forward(self) -> dist.Distribution:
        """p(W)."""
        return ColumnStudentT(self.concentration, self.rate, self.shape)


class ColumnStudentT(dist.TorchDistribution):
    """Matrices ``(D, K)`` or vectors ``(K,)``, independent along K: normal of precision alpha_k, which is integrated out."""

    arg_constraints: ClassVar[dict[str, Any]] = {"concentration": constraints.positive, "rate": constraints.positive}
    has_rsample = True

    def __init__(self, concentration: Tensor, rate: Tensor, shape: tuple[int, ...], validate_args: bool | None = None) -> None:
        self.concentration, self.rate = torch.broadcast_tensors(concentration, rate)
        super().__init__(self.rate.shape, torch.Size(shape), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> ColumnStudentT:
        """The same distribution over a larger batch."""
        shape = torch.Size(batch_shape)
        return ColumnStudentT(self.concentration.expand(shape), self.rate.expand(shape), self.event_shape, validate_args=False)

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> Any:
        """All real numbers."""
        return constraints.independent(constraints.real, len(self.event_shape))

    @property
    def mean(self) -> Tensor:
        """Zero."""
        return self.rate.new_zeros(*self.batch_shape, *self.event_shape)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws of alpha, and of W given it."""
        *rows, K = self.event_shape
        gamma = dist.Gamma(self.concentration[..., None], self.rate[..., None]).expand((*self.batch_shape, K))
        alpha = gamma.rsample(torch.Size(sample_shape))
        leading = alpha.shape[:-1]
        alpha = alpha.reshape(*leading, *(1 for _ in rows), K).expand(*leading, *self.event_shape)
        return torch.randn_like(alpha) * alpha.rsqrt()

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density of W ``(..., D, K)`` in nats."""
        if self._validate_args:
            self._validate_sample(value)
        a, b, D = self.concentration[..., None], self.rate[..., None], self.event_shape[:-1].numel()
        squares = value.square().reshape(*value.shape[: value.dim() - len(self.event_shape)], D, -1).sum(-2)
        constant = torch.lgamma(a + D / 2) - torch.lgamma(a) + a * b.log() - D / 2 * math.log(2 * math.pi)
        return (constant - (a + D / 2) * (b + squares / 2).log()).sum(-1)
