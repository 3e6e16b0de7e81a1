"""A mixture of normals as a guide, for posteriors of several modes.

q(z | x) = sum_c pi_c(x) Normal(z; mu_c(x), diag(sigma_c(x)^2))
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from ppl_vae.declaration import require
from ppl_vae.guides.amortized import EncodedGuide
from ppl_vae.guides.base import CONTINUOUS, Guide, Latent, check_latent
from ppl_vae.guides.coordinates import points
from ppl_vae.guides.normal import MIN_SCALE
from ppl_vae.nn import MLP, Network
from ppl_vae.types import DataSpec

__all__ = ["AmortizedMixture", "PathwiseMixture"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AmortizedMixture(Guide):
    """q(z | x) = sum_c pi_c(x) Normal(mu_c(x), diag(sigma_c(x)^2)), all given by an encoder network.

    The log-density is the mixture's own, so the ELBO is that of z alone. Draws carry unbiased gradients to the weights too, by
    implicit differentiation (Figurnov, Mohamed and Mnih 2018); there is no closed-form KL.

    Args:
        components: C, number of normals.
        encoder: the network from x to their weights and moments.

    Raises:
        ValueError: fewer than one component.

    Examples:
        >>> print(AmortizedMixture(components=3))
        q(z | x) = sum_c pi_c(x) Normal(mu_c(x), diag(sigma_c(x)^2)), c = 1..3, (pi, mu, sigma)(x) = MLP(x)
    """

    serves: ClassVar[frozenset[Latent]] = CONTINUOUS

    components: int = 4
    encoder: Network = MLP()

    def __post_init__(self) -> None:
        require(self.components >= 1, "at least 1 component", self.components)

    def build(self, model: Any, spec: DataSpec) -> nn.Module:
        """The Pyro program for the latent variable of ``model``.

        Raises:
            ValueError: the model's latent variable is discrete.
        """
        check_latent(self, model)
        return MixtureGuide(model, self, spec)

    def story(self) -> str:
        """The factorization, as mathematics."""
        density = f"sum_c pi_c(x) Normal(mu_c(x), diag(sigma_c(x)^2)), c = 1..{self.components}"
        return f"q(z | x) = {density}, (pi, mu, sigma)(x) = {self.encoder.story('x')}"


class MixtureGuide(EncodedGuide):
    """The encoder gives ``(..., C, 1 + 2 K)``: logits, means, and scales before softplus."""

    def parameter_shape(self, shape: tuple[int, ...], declared: AmortizedMixture) -> tuple[int, ...]:
        """``(C, 1 + 2 K)``."""
        return (declared.components, 1 + 2 * self.latent_dim)

    def density(self, *local: Tensor) -> dist.Distribution:
        """The mixture of the flattened coordinates."""
        logits, loc, raw_scale = local[0].split([1, self.latent_dim, self.latent_dim], dim=-1)
        components = dist.Normal(loc, softplus(raw_scale) + MIN_SCALE).to_event(1)
        return PathwiseMixture(dist.Categorical(logits=logits.squeeze(-1)), components)


class PathwiseMixture(dist.MixtureSameFamily):
    """A mixture of diagonal normals whose draws ``(..., K)`` are differentiable.

    F_d(z) = P(Z_d <= z_d | z_1..z_(d-1)) maps a draw to uniform noise; holding the noise, dz = -(dF/dz)^-1 dF, and dF/dz is
    triangular. First derivatives only.
    """

    has_rsample = True

    def points(self, count: int) -> tuple[Tensor, Tensor]:
        """Fixed points ``(S, *batch, K)`` and their weights ``(S, *batch)``: those of every component."""
        z, weights = points(self.component_distribution, count)
        weights = weights * self.mixture_distribution.probs
        return z.movedim(-2, 0).flatten(0, 1), weights.movedim(-1, 0).flatten(0, 1)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws with their pathwise gradients."""
        shape = torch.Size(sample_shape) + self.batch_shape
        normal = self.component_distribution.base_dist
        logits = self.mixture_distribution.logits.expand(*shape, -1)
        with torch.no_grad():
            gumbel = -torch.empty_like(logits).exponential_().log()
            which = (logits + gumbel).argmax(-1)[..., None, None].expand(*shape, 1, *self.event_shape)
            loc, scale = (t.expand(*shape, *t.shape[-2:]).gather(-2, which).squeeze(-2) for t in (normal.loc, normal.scale))
            z = loc + scale * torch.empty_like(loc).normal_()
        if not torch.is_grad_enabled():
            return z
        uniform, slope = self._distributional(z)
        step = torch.linalg.solve_triangular(slope, (uniform - uniform.detach()).unsqueeze(-1), upper=False)
        return z - step.squeeze(-1)

    def _distributional(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """F(z) ``(..., K)``, and dF/dz ``(..., K, K)`` without its gradient."""
        normal = self.component_distribution.base_dist
        e = (z.unsqueeze(-2) - normal.loc) / normal.scale
        log_density = normal.log_prob(z.unsqueeze(-2))
        # The weights of the components once z_1..z_(d-1) are known.
        before = log_density.cumsum(-1) - log_density
        weights = (self.mixture_distribution.logits.unsqueeze(-1) + before).softmax(-2)
        below = torch.special.ndtr(e)
        uniform = (weights * below).sum(-2)
        with torch.no_grad():
            score = -e / normal.scale  # of one dimension, d log Normal(z_e; c) / dz_e
            tilted = weights * (below - uniform.unsqueeze(-2))
            earlier = (tilted.mT @ score).tril(-1)
            slope = earlier + (weights * log_density.exp()).sum(-2).diag_embed()
        return uniform, slope
