"""Guides of one-hot codes by Gumbel noise (Jang, Gu and Poole 2017; Maddison, Mnih and Teh 2017).

k = argmax_k (l_k(x) + g_k),                z = e_k                             a draw of Categorical(logits = l(x))
s = softmax((l(x) + g) / temperature)                                           its relaxation, on the simplex
"""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from ppl_vae.declaration import require
from ppl_vae.guides.amortized import LatentGuide, encoder
from ppl_vae.guides.base import Guide, Latent, check_latent, lone_site
from ppl_vae.guides.categorical import OneHotCodes
from ppl_vae.guides.coordinates import POINTS, standard_points
from ppl_vae.nn import MLP, Network
from ppl_vae.priors.factorized_categorical import GroupedOneHot
from ppl_vae.program.wrapped import innermost
from ppl_vae.simplex import log_coordinates, of_logarithms
from ppl_vae.types import DataSpec

__all__ = ["AmortizedGumbel"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AmortizedGumbel(Guide):
    """q(z | x) by Gumbel noise on an encoder network's logits.

    With a prior of one-hot codes, draws are one-hot and q is categorical, with a closed-form KL: the objective is the ELBO of
    the discrete model itself, estimated without bias. Only its gradient is approximate, that of the relaxation s taken straight
    through the argmax; a lower temperature has less bias and more noise. Use the analytic KL with it: a sampled one loses the
    gradient through p(z).

    With a prior on the simplex, draws are s itself and q is its exact density: gradients are unbiased too. Draws keep log s,
    which stays a number where s is an exact zero, as nearly all of it is at a temperature of 0.01.

    Args:
        temperature: of the relaxation.
        encoder: the network from x to the logits.

    Raises:
        ValueError: a temperature that is not positive.

    Examples:
        >>> print(AmortizedGumbel(temperature=0.5))
        q(z | x) = Gumbel-softmax of temperature 0.5, logits = MLP(x)
    """

    serves: ClassVar[frozenset[Latent]] = frozenset({"one_hot", "simplex"})

    temperature: float = 0.5
    encoder: Network = MLP()

    def __post_init__(self) -> None:
        require(0 < self.temperature < math.inf, "a positive temperature", self.temperature)

    def build(self, model: Any, spec: DataSpec) -> nn.Module:
        """The Pyro program for the code of ``model``.

        Raises:
            ValueError: the model's latent variable is neither one-hot nor on a simplex.
        """
        check_latent(self, model)
        program = StraightThroughGuide if innermost(lone_site(model).support).is_discrete else RelaxedGuide
        return program(model, self, spec)

    def story(self) -> str:
        """The factorization, as mathematics."""
        return f"q(z | x) = Gumbel-softmax of temperature {self.temperature:g}, logits = {self.encoder.story('x')}"


class StraightThroughGuide(LatentGuide):
    """The encoder gives the codes' logits."""

    encoder: Any

    def __init__(self, model: Any, declared: AmortizedGumbel, spec: DataSpec) -> None:
        super().__init__(spec, lone_site(model).name)
        self.codes = OneHotCodes(lone_site(model))
        self.single = partial(StraightThrough, declared.temperature)
        self.several = partial(StraightThroughGroups, declared.temperature)
        self.encoder = encoder(declared.encoder, model, spec, self.codes.shape)

    def local(self, *batch: Tensor) -> tuple[Tensor, ...]:
        """The logits."""
        return (self.encoder(*batch),)

    def at(self, *local: Tensor) -> dist.Distribution:
        """The density with these logits, whose mean is the codes' probabilities."""
        return self.codes(*local, single=self.single, several=self.several)


class RelaxedGuide(LatentGuide):
    """The encoder gives logits of the simplex' corners, along the last axis."""

    encoder: Any

    def __init__(self, model: Any, declared: AmortizedGumbel, spec: DataSpec) -> None:
        site = lone_site(model)
        super().__init__(spec, site.name)
        self.temperature = declared.temperature
        self.leading = len(site.event_shape) - 1
        self.encoder = encoder(declared.encoder, model, spec, site.event_shape)

    def local(self, *batch: Tensor) -> tuple[Tensor, ...]:
        """The logits."""
        return (self.encoder(*batch),)

    def at(self, *local: Tensor) -> dist.Distribution:
        """The density with these logits, on the simplex."""
        (logits,) = local
        return Concrete(self.temperature, logits).to_event(self.leading)


class StraightThrough(dist.OneHotCategorical):
    """One-hot draws with the gradient of their Gumbel-softmax relaxation."""

    has_rsample = True

    def __init__(self, temperature: float, logits: Tensor, validate_args: bool | None = None) -> None:
        self.temperature = temperature
        super().__init__(logits=logits, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> StraightThrough:
        """The same distribution over a larger batch."""
        return StraightThrough(self.temperature, self.logits.expand(*batch_shape, -1), validate_args=False)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """One-hot values, with the gradient of s."""
        logits = self.logits.expand(self._extended_shape(sample_shape))
        noisy = logits - torch.empty_like(logits).exponential_().log()
        soft = (noisy / self.temperature).softmax(-1)
        hard = torch.zeros_like(soft).scatter(-1, noisy.argmax(-1, keepdim=True), 1.0)
        return hard + (soft - soft.detach())


class StraightThroughGroups(GroupedOneHot):
    """Codes side by side, each drawn straight through."""

    has_rsample = True

    def __init__(self, temperature: float, logits: Tensor, validate_args: bool | None = None) -> None:
        super().__init__(logits, validate_args=validate_args)
        self.codes = StraightThrough(temperature, logits, validate_args=validate_args).to_event(1)
        self.temperature = temperature

    def expand(self, batch_shape: Any, _instance: Any = None) -> StraightThroughGroups:
        """The same distribution over a larger batch."""
        logits = self.logits.expand(*batch_shape, self.groups, self.values)
        return StraightThroughGroups(self.temperature, logits, validate_args=False)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws ``(*sample_shape, ..., G K)``."""
        return self.codes.rsample(torch.Size(sample_shape)).flatten(-2)


class Concrete(dist.TorchDistribution):
    r"""The density of s = softmax((l + g) / tau) for Gumbel noise g, by its first K - 1 coordinates.

    .. math:: \log q(s) = \log \Gamma(K) + (K - 1) \log \tau + \sum_k (l_k - (\tau + 1) \log s_k)
        - K \log \sum_k \exp(l_k - \tau \log s_k)

    Maddison, Mnih and Teh 2017, "The concrete distribution". Only log s stands in it, and draws remember theirs.

    Args:
        temperature: tau.
        logits: l ``(..., K)``.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.simplex
    has_rsample = True

    def __init__(self, temperature: float, logits: Tensor, validate_args: bool | None = None) -> None:
        self.temperature = temperature
        self.logits = logits.log_softmax(-1)
        super().__init__(logits.shape[:-1], logits.shape[-1:], validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """E[s] by fixed points, ``(*batch, K)``."""
        s, weights = self.points(POINTS)
        return (weights.unsqueeze(-1) * s).sum(0)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Concrete:
        """The same distribution over a larger batch."""
        return Concrete(self.temperature, self.logits.expand(*batch_shape, -1), validate_args=False)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws ``(*sample_shape, *batch, K)`` that remember log s."""
        logits = self.logits.expand(self._extended_shape(torch.Size(sample_shape)))
        return self._point(-torch.empty_like(logits).exponential_().log())

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density of points on the simplex ``(..., K)``."""
        if self._validate_args:
            self._validate_sample(value)
        K, log_s = self.event_shape[0], log_coordinates(value)
        scores = self.logits - self.temperature * log_s
        constant = math.lgamma(K) + (K - 1) * math.log(self.temperature)
        return constant + (scores.log_softmax(-1) - log_s).sum(-1)

    def points(self, count: int) -> tuple[Tensor, Tensor]:
        """Fixed points ``(S, *batch, K)`` and their weights ``(S, *batch)``."""
        e = standard_points(self.event_shape[0], count).to(self.logits)
        gumbel = -(-torch.special.log_ndtr(e)).log()
        gumbel = gumbel.reshape(len(e), *(1 for _ in self.batch_shape), -1)
        return self._point(gumbel), self.logits.new_full((len(e), *self.batch_shape), 1 / len(e))

    def _point(self, gumbel: Tensor) -> Tensor:
        return of_logarithms(((self.logits + gumbel) / self.temperature).log_softmax(-1))
