"""The normal prior with a full covariance, given or learned."""

from __future__ import annotations

import dataclasses
import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppl_vae.declaration import require
from ppl_vae.priors.base import Prior
from ppl_vae.priors.values import as_text, as_tuple, each, expanded

__all__ = ["MultivariateNormal"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultivariateNormal(Prior):
    """p(z) = Normal(z; mu0, Sigma0) with a full covariance, given, or learned from there.

    Args:
        loc: mu0, one value for all dimensions or one each.
        covariance: Sigma0 ``(K, K)``, row by row, or one variance for all dimensions.
        learned: whether mu0 and the Cholesky factor of Sigma0 are parameters, which start at these values.

    Raises:
        ValueError: a loc that is not finite, a covariance that is not symmetric and positive definite; on building, one that is
            not of the latent shape.

    Examples:
        >>> MultivariateNormal(covariance=((4.0, 1.0), (1.0, 1.25))).build((2,))().variance
        tensor([4.0000, 1.2500])
    """

    loc: float | tuple[float, ...] = 0.0
    covariance: float | tuple[tuple[float, ...], ...] = 1.0
    learned: bool = False

    def __post_init__(self) -> None:
        for name in ("loc", "covariance"):
            object.__setattr__(self, name, as_tuple(getattr(self, name)))
        require(all(map(math.isfinite, each(self.loc))), "a finite loc", self.loc)
        require(_is_covariance(self.covariance), "a symmetric positive definite covariance", self.covariance)

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """A module whose call returns the distribution on ``shape``.

        Raises:
            ValueError: a shape that is not that of a vector, or not the covariance's.
        """
        require(len(shape) == 1, "a latent vector for a full covariance", shape)
        S = torch.as_tensor(self.covariance, dtype=torch.float64)
        S = S if S.dim() else S * torch.eye(*shape, dtype=torch.float64)
        require(len(S) == shape[0], f"a covariance of {shape[0]} rows, one for each latent dimension", len(S))
        module = LearnedMultivariateNormal if self.learned else GivenMultivariateNormal
        return module(expanded("loc", self.loc, shape), torch.linalg.cholesky(S).to(torch.get_default_dtype()))

    def story(self, shape: tuple[int, ...]) -> str:
        """The density as text."""
        if self.learned:
            return "Normal(mu0, Sigma0), learned"
        return f"Normal({as_text(self.loc)}, {'Sigma0' if isinstance(self.covariance, tuple) else f'{self.covariance:g} I'})"


class GivenMultivariateNormal(nn.Module):
    """Its moments are buffers: ``loc (K,)`` and the Cholesky factor ``scale_tril (K, K)``."""

    loc: Tensor
    scale_tril: Tensor

    def __init__(self, loc: Tensor, scale_tril: Tensor) -> None:
        super().__init__()
        self.register_buffer("loc", loc, persistent=False)
        self.register_buffer("scale_tril", scale_tril, persistent=False)

    def forward(self) -> dist.Distribution:
        """p(z)."""
        return dist.MultivariateNormal(self.loc, scale_tril=self.scale_tril)


class LearnedMultivariateNormal(nn.Module):
    """Parameters ``loc (K,)`` and ``raw (K, K)``: the Cholesky factor below the diagonal, its logarithm on it."""

    def __init__(self, loc: Tensor, scale_tril: Tensor) -> None:
        super().__init__()
        self.loc = nn.Parameter(loc)
        self.raw = nn.Parameter(scale_tril.tril(-1) + scale_tril.diagonal().log().diag())

    def forward(self) -> dist.Distribution:
        """p(z)."""
        return dist.MultivariateNormal(self.loc, scale_tril=self.raw.tril(-1) + self.raw.diagonal().exp().diag())


def _is_covariance(value: float | tuple[tuple[float, ...], ...]) -> bool:
    if not isinstance(value, tuple):
        return 0 < value < math.inf
    square = all(isinstance(row, tuple) and len(row) == len(value) for row in value)
    if not value or not square:
        return False
    S = torch.tensor(value, dtype=torch.float64)
    return bool(torch.equal(S, S.T) and not torch.linalg.cholesky_ex(S).info)
