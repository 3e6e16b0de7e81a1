"""The logistic-normal prior on the simplex."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Transform, constraints

from ppl_vae.declaration import require
from ppl_vae.priors.base import Support
from ppl_vae.priors.values import LocationScale, as_text
from ppl_vae.simplex import log_coordinates, of_logarithms

__all__ = ["LogRatios", "LogisticNormal"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogisticNormal(LocationScale):
    """pi = softmax(h), h ~ Normal(loc, diag(scale^2)), a density of pi on the simplex (Aitchison and Shen 1980).

    The log-ratios log(pi_k / pi_K) = h_k - h_K are normal with the covariance diag(scale_k^2) + scale_K^2. Beside the Dirichlet
    it can be drawn by reparameterization; topic models: Srivastava and Sutton (2017).

    Args:
        loc: mean of h, one for all components or one each.
        scale: standard deviation of h, likewise.

    Raises:
        ValueError: a loc that is not finite, a scale that is not positive; on building, a number of values that is not the
            number of components, or fewer than two components.

    Examples:
        >>> LogisticNormal().build((3,))().log_prob(torch.full((3,), 1 / 3)).exp()
        tensor(2.4810)
    """

    support: ClassVar[Support] = "simplex"

    def family(self, loc: Tensor, scale: Tensor) -> Any:
        """The distribution of softmax(Normal(loc, scale^2)) along the last axis."""
        last = scale[..., -1:].square()
        covariance = scale[..., :-1].square().diag_embed() + last.unsqueeze(-1)
        return dist.TransformedDistribution(dist.MultivariateNormal(loc[..., :-1] - loc[..., -1:], covariance), [LogRatios()])

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """A module whose call returns the distribution on ``shape``, the last axis summing to one."""
        require(bool(shape) and shape[-1] >= 2, "at least 2 components", shape)
        return super().build(shape)

    def story(self, shape: tuple[int, ...]) -> str:
        """The density as text."""
        return f"softmax(Normal({as_text(self.loc)}, {as_text(self.scale)}^2))"


class LogRatios(Transform):
    """R^(K - 1) -> the simplex: y -> softmax((y, 0)), whose volume element is prod_k pi_k."""

    domain = constraints.real_vector
    codomain = constraints.simplex
    bijective = True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LogRatios)

    def __hash__(self) -> int:
        return hash(LogRatios)

    def _call(self, x: Tensor) -> Tensor:
        return of_logarithms(torch.nn.functional.pad(x, (0, 1)).log_softmax(-1))

    def _inverse(self, y: Tensor) -> Tensor:
        log = log_coordinates(y)
        return log[..., :-1] - log[..., -1:]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Sum of log pi_k over all K components."""
        return torch.nn.functional.pad(x, (0, 1)).log_softmax(-1).sum(-1)

    def forward_shape(self, shape: Any) -> torch.Size:
        """``(..., K - 1)`` to ``(..., K)``."""
        return torch.Size((*shape[:-1], shape[-1] + 1))

    def inverse_shape(self, shape: Any) -> torch.Size:
        """``(..., K)`` to ``(..., K - 1)``."""
        return torch.Size((*shape[:-1], shape[-1] - 1))
