"""The amortized Gaussian guide (Kingma and Welling 2014).

    q(z | x) = prod_n Normal(z_n; mu(x_n), Sigma(x_n))

with Sigma diagonal or full, both given by one encoder network.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, Literal

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.nn.functional import softplus

from ppl_vae.declaration import require
from ppl_vae.guides.base import Guide, check_latent
from ppl_vae.nn import MLP, Network
from ppl_vae.pair import data_plate
from ppl_vae.types import DataSpec

__all__ = ["AmortizedNormal"]

MIN_SCALE = 1e-6  # keeps log(scale) finite when softplus underflows in float32


@dataclasses.dataclass(frozen=True, kw_only=True)
class AmortizedNormal(Guide):
    """q(z | x) = Normal(mu(x), Sigma(x)), the moments given by an encoder network.

    Args:
        encoder: the network from x to the moments.
        covariance: ``diagonal``, or ``full`` by its Cholesky factor.

    Raises:
        ValueError: an unknown covariance.

    Example:
        >>> print(AmortizedNormal(covariance="full"))
        q(z | x) = Normal(mu(x), L(x) L(x)^T), (mu, L)(x) = MLP(x)
    """

    latent: ClassVar[Literal["continuous", "discrete", "any"]] = "continuous"

    encoder: Network = MLP()
    covariance: Literal["diagonal", "full"] = "diagonal"

    def __post_init__(self) -> None:
        require(self.covariance in COVARIANCES, f"a covariance of {' or '.join(COVARIANCES)}", self.covariance)

    def build(self, model: Any, spec: DataSpec) -> nn.Module:
        """The Pyro program for the latent variable of ``model``.

        Raises:
            ValueError: the model's latent variable is discrete.
        """
        check_latent(self, model)
        return COVARIANCES[self.covariance](model.latent_shape, self.encoder, spec)

    def story(self) -> str:
        """The factorization, as mathematics."""
        factor, spread = {"diagonal": ("sigma", "diag(sigma(x)^2)"), "full": ("L", "L(x) L(x)^T")}[self.covariance]
        return f"q(z | x) = Normal(mu(x), {spread}), (mu, {factor})(x) = {self.encoder.story('x')}"


class DiagonalNormalGuide(PyroModule):
    """The encoder gives ``(..., 2, *latent_shape)``: means, and scales before softplus."""

    def __init__(self, latent_shape: tuple[int, ...], encoder: Network, spec: DataSpec) -> None:
        super().__init__()
        self.size = spec.size
        self.event_dim = len(latent_shape)
        self.encoder = encoder.build(spec.event_shape, (2, *latent_shape))

    def forward(self, x: Tensor) -> Tensor:
        """Draw z for each datum of the batch x ``(B, *event)``."""
        with data_plate(self.size, x):
            return pyro.sample("z", self.posterior(x))

    def posterior(self, x: Tensor) -> dist.Distribution:
        """q(z | x) for x ``(..., *event)``."""
        loc, raw_scale = self.encoder(x).unbind(-1 - self.event_dim)
        return dist.Normal(loc, softplus(raw_scale) + MIN_SCALE).to_event(self.event_dim)


class FullNormalGuide(PyroModule):
    """The encoder gives ``(..., K + K (K + 1) / 2)``: means, then L row by row, its diagonal before softplus."""

    def __init__(self, latent_shape: tuple[int, ...], encoder: Network, spec: DataSpec) -> None:
        super().__init__()
        self.size = spec.size
        self.latent_shape = latent_shape
        self.latent_dim = math.prod(latent_shape)
        rows, columns = torch.tril_indices(self.latent_dim, self.latent_dim)
        self.register_buffer("entries", rows * self.latent_dim + columns, persistent=False)
        self.encoder = encoder.build(spec.event_shape, (self.latent_dim + len(rows),))

    def forward(self, x: Tensor) -> Tensor:
        """Draw z for each datum of the batch x ``(B, *event)``."""
        with data_plate(self.size, x):
            return pyro.sample("z", self.posterior(x))

    def posterior(self, x: Tensor) -> dist.Distribution:
        """q(z | x) for x ``(..., *event)``."""
        K = self.latent_dim
        loc, triangle = self.encoder(x).split([K, len(self.entries)], dim=-1)
        square = triangle.new_zeros(*triangle.shape[:-1], K * K).index_copy(-1, self.entries, triangle).unflatten(-1, (K, K))
        diagonal = softplus(square.diagonal(dim1=-2, dim2=-1)) + MIN_SCALE
        return dist.MultivariateNormal(loc, scale_tril=square.tril(-1) + diagonal.diag_embed())


COVARIANCES: dict[str, type[nn.Module]] = {"diagonal": DiagonalNormalGuide, "full": FullNormalGuide}


@torch.distributions.register_kl(torch.distributions.MultivariateNormal, torch.distributions.Independent)
def _kl_normal_diagonal(q: dist.MultivariateNormal, p: dist.Independent) -> Tensor:
    """KL(Normal(m, L L^T) || Normal(mu, diag(s^2))), which neither torch nor Pyro has."""
    if not isinstance(p.base_dist, torch.distributions.Normal) or p.reinterpreted_batch_ndims != 1:
        raise NotImplementedError
    mu, s = p.base_dist.loc, p.base_dist.scale
    log_det = (s.log() - q.scale_tril.diagonal(dim1=-2, dim2=-1).log()).sum(-1)
    trace = (q.scale_tril / s.unsqueeze(-1)).square().sum((-2, -1))
    distance = ((q.loc - mu) / s).square().sum(-1)
    return log_det + (trace + distance - q.event_shape[0]) / 2
