"""The amortized Gaussian guide (Kingma and Welling 2014).

    q(z | x) = prod_n Normal(z_n; mu(x_n), Sigma(x_n))

with Sigma diagonal, low-rank or full, given with mu by one encoder network. Where the prior does not live on the real numbers,
it is the density of the latent variable's real coordinates (:mod:`ppl_vae.guides.coordinates`).
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from ppl_vae.declaration import require
from ppl_vae.guides.amortized import EncodedGuide
from ppl_vae.guides.base import CONTINUOUS, Guide, Latent, check_latent
from ppl_vae.nn import MLP, Network
from ppl_vae.stable import LowRankMultivariateNormal
from ppl_vae.types import DataSpec

__all__ = ["AmortizedNormal"]

MIN_SCALE = 1e-6  # keeps log(scale) finite when softplus underflows in float32


@dataclasses.dataclass(frozen=True, kw_only=True)
class AmortizedNormal(Guide):
    """q(z | x) = Normal(mu(x), Sigma(x)), the moments given by an encoder network.

    A full or low-rank Sigma is of the flattened latent variable.

    Args:
        encoder: the network from x to the moments.
        covariance: ``diagonal``; ``low_rank``, diag(sigma^2) + W W^T (Ong, Nott and Smith 2018); or ``full`` by its Cholesky
            factor.
        rank: columns of W, of a low-rank covariance.

    Raises:
        ValueError: an unknown covariance, a rank below one; on building, a rank above the latent dimension.

    Example:
        >>> print(AmortizedNormal(covariance="full"))
        q(z | x) = Normal(mu(x), L(x) L(x)^T), (mu, L)(x) = MLP(x)
    """

    serves: ClassVar[frozenset[Latent]] = CONTINUOUS

    encoder: Network = MLP()
    covariance: Literal["diagonal", "low_rank", "full"] = "diagonal"
    rank: int = 2

    def __post_init__(self) -> None:
        require(self.covariance in COVARIANCES, f"a covariance of {', '.join(COVARIANCES)}", self.covariance)
        require(self.rank >= 1, "a rank of at least 1", self.rank)

    def build(self, model: Any, spec: DataSpec) -> nn.Module:
        """The Pyro program for the latent variable of ``model``.

        Raises:
            ValueError: the model's latent variable is discrete, or has fewer dimensions than the covariance's rank.
        """
        check_latent(self, model)
        return COVARIANCES[self.covariance](model, self, spec)

    def story(self) -> str:
        """The factorization, as mathematics."""
        factor, spread = {
            "diagonal": ("sigma", "diag(sigma(x)^2)"),
            "low_rank": ("sigma, W", "diag(sigma(x)^2) + W(x) W(x)^T"),
            "full": ("L", "L(x) L(x)^T"),
        }[self.covariance]
        return f"q(z | x) = Normal(mu(x), {spread}), (mu, {factor})(x) = {self.encoder.story('x')}"


class DiagonalNormalGuide(EncodedGuide):
    """The encoder gives ``(..., 2, *shape)``: means, and scales before softplus."""

    def parameter_shape(self, shape: tuple[int, ...], declared: AmortizedNormal) -> tuple[int, ...]:
        """``(2, *shape)``."""
        return (2, *shape)

    def density(self, *local: Tensor) -> dist.Distribution:
        """Independent normals."""
        loc, raw_scale = local[0].unbind(-1 - self.event_dim)
        return dist.Normal(loc, softplus(raw_scale) + MIN_SCALE).to_event(self.event_dim)


class LowRankNormalGuide(EncodedGuide):
    """The encoder gives ``(..., 2 + R, K)``: means, scales before softplus, and W's R columns."""

    rank: int

    def parameter_shape(self, shape: tuple[int, ...], declared: AmortizedNormal) -> tuple[int, ...]:
        """``(2 + R, K)``."""
        self.rank, K = declared.rank, self.latent_dim
        if self.rank > K:
            raise ValueError(f"expected a rank of at most the latent dimension {K}, got {self.rank}: use covariance='full'")
        return (2 + self.rank, K)

    def density(self, *local: Tensor) -> dist.Distribution:
        """A normal whose covariance is diagonal up to R directions."""
        loc, raw_scale, W = local[0].split([1, 1, self.rank], dim=-2)
        scale = softplus(raw_scale.squeeze(-2)) + MIN_SCALE
        return LowRankMultivariateNormal(loc.squeeze(-2), W.mT, scale.square())


class FullNormalGuide(EncodedGuide):
    """The encoder gives ``(..., K + K (K + 1) / 2)``: means, then L row by row, its diagonal before softplus."""

    def __init__(self, model: Any, declared: AmortizedNormal, spec: DataSpec) -> None:
        super().__init__(model, declared, spec)
        K = self.latent_dim
        rows, columns = torch.tril_indices(K, K)
        self.register_buffer("entries", rows * K + columns, persistent=False)

    def parameter_shape(self, shape: tuple[int, ...], declared: AmortizedNormal) -> tuple[int, ...]:
        """``(K + K (K + 1) / 2,)``."""
        K = self.latent_dim
        return (K + K * (K + 1) // 2,)

    def density(self, *local: Tensor) -> dist.Distribution:
        """A normal with this Cholesky factor."""
        K = self.latent_dim
        loc, triangle = local[0].split([K, len(self.entries)], dim=-1)
        square = triangle.new_zeros(*triangle.shape[:-1], K * K).index_copy(-1, self.entries, triangle).unflatten(-1, (K, K))
        diagonal = softplus(square.diagonal(dim1=-2, dim2=-1)) + MIN_SCALE
        return dist.MultivariateNormal(loc, scale_tril=square.tril(-1) + diagonal.diag_embed())


COVARIANCES: dict[str, type[EncodedGuide]] = {
    "diagonal": DiagonalNormalGuide,
    "low_rank": LowRankNormalGuide,
    "full": FullNormalGuide,
}


@torch.distributions.register_kl(torch.distributions.MultivariateNormal, torch.distributions.Independent)
@torch.distributions.register_kl(torch.distributions.LowRankMultivariateNormal, torch.distributions.Independent)
def _kl_normal_diagonal(q: dist.Distribution, p: dist.Independent) -> Tensor:
    """KL(Normal(m, Sigma) || Normal(mu, diag(s^2))) = -H(q) - log p(m) + tr(diag(s^-2) Sigma) / 2.

    Neither torch nor Pyro has it.
    """
    if not isinstance(p.base_dist, torch.distributions.Normal) or p.reinterpreted_batch_ndims != 1:
        raise NotImplementedError
    trace = (q.variance / p.base_dist.scale.square()).sum(-1)
    return trace / 2 - q.entropy() - p.log_prob(q.mean)
