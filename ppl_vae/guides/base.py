"""What every guide declaration offers."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar, Literal

from pyro.distributions import constraints
from torch import nn

from ppl_vae.declaration import Declaration
from ppl_vae.program.capabilities import Hierarchical, Noised, Quantized, SemiSupervised, StackedSemiSupervised, generates
from ppl_vae.program.facts import model_facts, posterior_prior
from ppl_vae.program.sites import Site
from ppl_vae.program.wrapped import innermost
from ppl_vae.types import DataSpec

__all__ = ["CONTINUOUS", "Guide", "Latent", "check_latent", "latent_kind", "lone_site", "remedy"]

Latent = Literal["continuous", "simplex", "sphere", "one_hot", "lattice", "component", "code", "quantized"]

CONTINUOUS: frozenset[Latent] = frozenset({"continuous", "simplex"})  # what has real coordinates

REMEDIES: dict[Latent, str] = {
    "continuous": "AmortizedNormal or AmortizedLinear",
    "simplex": "AmortizedNormal or AmortizedGumbel",
    "sphere": "AmortizedProjectedNormal",
    "one_hot": "AmortizedGumbel or AmortizedCategorical",
    "lattice": "MeanField",
    "component": "ExactPosterior or AmortizedCategorical",
    "code": "AmortizedDelta",
    "quantized": "NearestCode",
}


SAID: dict[str, Latent] = {"code": "code", "lattice": "lattice", "quantized": "quantized"}  # which the support does not tell


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guide(Declaration, abc.ABC):
    """q(z | x), an approximate posterior. ``print`` tells its factorization.

    Class attributes:
        serves: the kinds of latent variable that it is a density of, any if there are none: ``continuous`` (numbers, also
            positive or bounded ones), vectors on a ``simplex`` or a ``sphere``, ``one_hot`` vectors, the ``component`` of a
            mixture, the ``code`` of an autoencoder, which has no p(z), or ``quantized`` grids of codes.
        makes_priors: whether a prior may be made of its posteriors, as ``VampPrior`` is.
    """

    serves: ClassVar[frozenset[Latent]] = frozenset()
    makes_priors: ClassVar[bool] = True

    @property
    def needs_standard_prior(self) -> bool:
        """Whether p(z) has to be Normal(0, I)."""
        return False

    @abc.abstractmethod
    def build(self, model: Any, spec: DataSpec) -> nn.Module:
        """The Pyro program that goes with a built model; its ``posterior(x)`` serves guide, encoder and reports alike.

        A program says of itself by attributes what is not the rule: ``exact``, that its density is p(z | x); ``point``, that it
        is a point without a density; ``mean_field``, whether the closed-form KL of its sites may be used.
        """

    @abc.abstractmethod
    def story(self) -> str:
        """The factorization, as mathematics."""

    def __str__(self) -> str:
        return self.story()


def check_latent(guide: Guide, model: Any) -> None:
    """Raise ``ValueError`` with the remedy if a built model's latent variable is of no kind that the guide is a density of.

    A model without a ``prior`` is taken at its word; one that tells no site has none that a guide could know of.
    """
    sites = model_facts(model).sites.values()
    if sites and all(site.summed for site in sites):
        raise ValueError(
            f"{type(guide).__name__} is a guide of a latent variable that is drawn, but this model sums its own out exactly: "
            "use ExactPosterior"
        )
    lone_site(model, guide)
    if not guide.makes_priors and posterior_prior(model):
        raise ValueError(
            f"{type(guide).__name__} cannot go with a prior that is made of the guide's own posteriors, as this model's is: "
            "use AmortizedNormal or another prior"
        )
    kind = latent_kind(model)
    if kind is None or not guide.serves or kind in guide.serves:
        return
    ours = " or ".join(sorted(guide.serves))
    raise ValueError(
        f"{type(guide).__name__} is a guide of a {ours} latent variable, but this model's latent variable is {kind}: "
        f"use {REMEDIES[kind]}"
    )


def lone_site(model: Any, guide: Any = None) -> Site:
    """The only latent variable of a built model.

    Raises:
        ValueError: it tells none, or has several.
    """
    asking = "this guide" if guide is None else type(guide).__name__
    sites = model_facts(model).sites
    if len(sites) > 1:
        raise ValueError(
            f"{asking} is a guide of one latent variable, but this model has {', '.join(sites)}: use {remedy(model)}"
        )
    if isinstance(model, Noised):
        raise ValueError(f"{asking} is a guide of codes, but this model's latent variables are noisy data: use Noising")
    if not sites:
        raise ValueError(
            f"{asking} asks the built model for its `latent_shape`, which {type(model).__name__} does not have: "
            "give the program this attribute, the shape of its site z, or declare a guide of your own and pass it as guide="
        )
    return next(iter(sites.values()))


def remedy(model: Any) -> str:
    """The names of guides that serve a built model's latent variable."""
    if isinstance(model, Noised):
        return "Noising"
    if isinstance(model, Hierarchical):
        return "TopDown or BottomUp"
    if isinstance(model, Quantized):
        return "NearestCode"
    if isinstance(model, StackedSemiSupervised):
        return "StackedClassifier"
    if isinstance(model, SemiSupervised):
        return "AmortizedClassifier"
    if len(model_facts(model).sites) > 1:
        return "a guide of your own, whose posterior is a Joint of all of them"
    return REMEDIES[latent_kind(model) or "continuous"]


def latent_kind(model: Any) -> Latent | None:
    """What the only latent variable of a built model is, as far as guides tell apart; ``None`` if it does not say."""
    facts = model_facts(model)
    if not generates(model) or not facts.sites:
        return None
    if facts.latent in SAID:
        return SAID[facts.latent]
    site = lone_site(model)
    if site.index:
        return "component"
    constraint = innermost(site.support)
    if constraint.is_discrete:
        return "one_hot"
    special: dict[Any, Latent] = {constraints.simplex: "simplex", constraints.sphere: "sphere"}
    return special.get(constraint, "continuous")
