"""The amortized categorical guide, of a mixture's component and of one-hot codes.

    q(k | x) = prod_n Categorical(k_n; r(x_n))

Pyro enumerates k, so its ELBO is exact in k and no gradient is sampled through it.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
from torch import Tensor, nn

from ppl_vae.guides import amortized
from ppl_vae.guides.amortized import LatentGuide
from ppl_vae.guides.base import Guide, Latent, check_latent, lone_site
from ppl_vae.nn import MLP, Network
from ppl_vae.priors.factorized_categorical import GroupedOneHot
from ppl_vae.priors.one_hot import OneHotGroups
from ppl_vae.program.pair import data_plate
from ppl_vae.program.sites import Site
from ppl_vae.program.wrapped import innermost
from ppl_vae.types import DataSpec

__all__ = ["AmortizedCategorical", "OneHotCodes"]

MOST = 1024  # values of a latent variable that is summed over


@dataclasses.dataclass(frozen=True, kw_only=True)
class AmortizedCategorical(Guide):
    """q(k | x) = Categorical(r(x)), the responsibilities given by an encoder network.

    Every value is decoded in each step: where they are many, :class:`~ppl_vae.AmortizedGumbel` draws one instead.

    Args:
        encoder: the network from x to their logits.

    Examples:
        >>> print(AmortizedCategorical())
        q(k | x) = Categorical(logits = MLP(x))
    """

    serves: ClassVar[frozenset[Latent]] = frozenset({"one_hot", "component"})

    encoder: Network = MLP()

    def build(self, model: Any, spec: DataSpec) -> nn.Module:
        """The Pyro program for the component or the code of ``model``.

        Raises:
            ValueError: the model's latent variable is continuous, or has too many values to sum over.
        """
        check_latent(self, model)
        site = lone_site(model)
        if site.index:
            return CategoricalGuide(site, amortized.encoder(self.encoder, model, spec, site.event_shape), spec)
        codes = OneHotCodes(site)
        if codes.values > MOST:
            raise ValueError(f"a latent variable of {codes.values:.3g} values is too large to sum over: use AmortizedGumbel")
        return OneHotGuide(site, codes, amortized.encoder(self.encoder, model, spec, codes.shape), spec)

    def story(self) -> str:
        """The factorization, as mathematics."""
        return f"q(k | x) = Categorical(logits = {self.encoder.story('x')})"


class CategoricalGuide(LatentGuide):
    """The encoder gives logits ``(..., C)``."""

    encoder: Any

    def __init__(self, site: Site, encoder: nn.Module, spec: DataSpec) -> None:
        super().__init__(spec, site.name)
        self.encoder = encoder

    def draw(self, q: dist.Distribution, *batch: Tensor) -> Tensor:
        """Draw the component of each datum from q, whose values are one-hot."""
        with data_plate(self.size, batch[0]):
            return pyro.sample(self.site, dist.Categorical(logits=q.logits), infer={"enumerate": "parallel"})

    def local(self, *batch: Tensor) -> tuple[Tensor, ...]:
        """The logits."""
        return (self.encoder(*batch),)

    def at(self, *local: Tensor) -> dist.Distribution:
        """One-hot components with these logits, whose mean is the responsibilities."""
        return dist.OneHotCategorical(logits=local[0])


class OneHotGuide(LatentGuide):
    """The encoder gives logits of the codes."""

    encoder: Any

    def __init__(self, site: Site, codes: OneHotCodes, encoder: nn.Module, spec: DataSpec) -> None:
        super().__init__(spec, site.name)
        self.codes = codes
        self.encoder = encoder

    def draw(self, q: dist.Distribution, *batch: Tensor) -> Tensor:
        """Draw the code of each datum of the batch from q."""
        with data_plate(self.size, batch[0]):
            return pyro.sample(self.site, q, infer={"enumerate": "parallel"})

    def local(self, *batch: Tensor) -> tuple[Tensor, ...]:
        """The logits."""
        return (self.encoder(*batch),)

    def at(self, *local: Tensor) -> dist.Distribution:
        """Codes with these logits, whose mean is their probabilities."""
        return self.codes(*local, single=dist.OneHotCategorical, several=GroupedOneHot)


class OneHotCodes:
    """The layout of a one-hot latent variable.

    Attributes:
        shape: of the codes' logits, ``(*leading, [G,] K)``.
        values: how many values the latent variable has, K^(number of codes).
    """

    def __init__(self, site: Site) -> None:
        shape = site.event_shape
        self.leading = len(shape) - 1
        constraint = innermost(site.support)
        self.grouped = isinstance(constraint, OneHotGroups)
        groups = constraint.groups if self.grouped else None
        self.shape = (*shape[:-1], groups, shape[-1] // groups) if groups else shape
        codes = math.prod(self.shape[:-1])
        self.values = math.inf if self.leading else float(self.shape[-1]) ** codes

    def __call__(self, logits: Tensor, *, single: Any, several: Any) -> dist.Distribution:
        """The distribution of the latent variable, of the prior's family: with a single code at each place or several."""
        codes = (several if self.grouped else single)(logits=logits)
        return codes.to_event(self.leading)
