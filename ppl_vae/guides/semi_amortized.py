"""The semi-amortized guide: an encoder's posterior, improved for each datum (Kim et al. 2018).

lambda_0 = encoder(x),  lambda_t = lambda_(t-1) + rate * grad ELBO(x; lambda_(t-1)),  z ~ q(z; lambda_T)
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence

from ppl_vae.declaration import require
from ppl_vae.guides.amortized import EncodedGuide, RealGuide
from ppl_vae.guides.base import CONTINUOUS, Guide, Latent, check_latent
from ppl_vae.guides.coordinates import points
from ppl_vae.guides.normal import AmortizedNormal
from ppl_vae.program.facts import model_facts
from ppl_vae.types import DataSpec

__all__ = ["SemiAmortized"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SemiAmortized(Guide):
    """q(z; lambda_T), where lambda climbs the ELBO of each datum from the encoder's output.

    Within a step the ELBO is taken at fixed points of q, so the posterior is a function of x; that it climbs an approximation
    makes q no less a density. It looks at the model's present parameters.

    Args:
        base: the guide that is started from, normal or a mixture of normals.
        steps: T, gradient steps for each datum.
        learning_rate: of a step on lambda, the encoder's output.
        clip_norm: a datum's gradient of a larger norm is scaled down to it.
        samples: S, fixed points of z in each step.
        differentiate: whether gradients flow through the steps, to the decoder as well, at the cost of second derivatives; else
            the encoder gets the gradient at lambda_T as if the steps were constants.

    Raises:
        ValueError: numbers out of range; on building, a base without an encoder, or a prior made of the guide's posteriors.

    Examples:
        >>> print(SemiAmortized(steps=5))
        q(z | x) = Normal(mu(x), diag(sigma(x)^2)), (mu, sigma)(x) = MLP(x), then 5 steps up the ELBO of x
    """

    serves: ClassVar[frozenset[Latent]] = CONTINUOUS
    makes_priors: ClassVar[bool] = False  # its steps ask for p(z)

    base: Guide = AmortizedNormal()
    steps: int = 4
    learning_rate: float = 0.1
    clip_norm: float = 1.0
    samples: int = 4
    differentiate: bool = True

    def __post_init__(self) -> None:
        require(self.steps >= 1, "at least 1 step", self.steps)
        require(0 < self.learning_rate < math.inf, "a positive learning_rate", self.learning_rate)
        require(0 < self.clip_norm < math.inf, "a positive clip_norm", self.clip_norm)
        require(self.samples >= 2 and self.samples % 2 == 0, "an even number of samples", self.samples)

    def build(self, model: Any, spec: DataSpec) -> nn.Module:
        """The Pyro program for the latent variable of ``model``.

        Raises:
            ValueError: the model's latent variable is discrete, its prior is made of posteriors, or the base has no encoder.
        """
        check_latent(self, model)
        base = self.base.build(model, spec)
        if not isinstance(base, EncodedGuide):
            raise ValueError(f"local steps start from an encoder's normal or mixture, got {self.base!r}: use AmortizedNormal")
        return SemiAmortizedGuide(model, base, self, spec)

    def story(self) -> str:
        """The factorization, as mathematics."""
        return f"{self.base.story()}, then {self.steps} steps up the ELBO of x"


class SemiAmortizedGuide(RealGuide):
    """Has the base's parameters and none of its own."""

    base: Any

    def __init__(self, model: Any, base: EncodedGuide, declared: SemiAmortized, spec: DataSpec) -> None:
        super().__init__(model, spec)
        self.base = base
        self.declared = declared
        self.data_dim = len(spec.event_shape)
        self._model = (model_facts(model),)  # in a tuple, so that its parameters are not listed twice

    def local(self, *batch: Tensor) -> tuple[Tensor, ...]:
        """Lambda_T."""
        (start,) = self.base.local(*batch)
        if self.declared.differentiate and torch.is_grad_enabled():
            return (self._climb(batch, start, through=True),)
        found = self._climb(batch, start, through=False)
        return (start + (found - start).detach(),)

    def density(self, *local: Tensor) -> dist.Distribution:
        """The base's density."""
        return self.base.density(*local)

    def local_elbo(self, batch: tuple[Tensor, ...], parameters: Tensor) -> Tensor:
        """The ELBO of each datum at the fixed points of q, ``(...)``, for lambda ``(..., *parameters)``."""
        model = self._model[0]
        known = model.known(*batch)
        q = self.coordinates(self.base.density(parameters))
        z, weights = points(q, self.declared.samples)
        prior, likelihood = model.prior_given(*known), model.decode(z, *known)
        observed = batch[0].reshape(*q.batch_shape, *likelihood.event_shape)
        reconstruction = (weights * likelihood.log_prob(observed)).sum(0)
        try:
            return reconstruction - kl_divergence(q, prior.expand(q.batch_shape))
        except NotImplementedError:
            return reconstruction - (weights * (q.log_prob(z) - prior.log_prob(z))).sum(0)

    def _climb(self, batch: tuple[Tensor, ...], parameters: Tensor, *, through: bool) -> Tensor:
        """Lambda_T from lambda_0, with the graph of the steps or without."""
        for _ in range(self.declared.steps):
            if not through or not parameters.requires_grad:
                parameters = parameters.detach().requires_grad_()
            with torch.enable_grad():
                elbo = self.local_elbo(batch, parameters).sum()
                (gradient,) = torch.autograd.grad(elbo, parameters, create_graph=through)
            parameters = parameters + self.declared.learning_rate * self._clipped(gradient, batch[0].dim() - self.data_dim)
        return parameters

    def _clipped(self, gradient: Tensor, batch_dim: int) -> Tensor:
        """Each datum's gradient, no longer than declared."""
        clip = self.declared.clip_norm
        squared = gradient.square().sum(list(range(batch_dim - gradient.dim(), 0)), keepdim=True)
        return gradient * clip / squared.clamp_min(clip**2).sqrt()
