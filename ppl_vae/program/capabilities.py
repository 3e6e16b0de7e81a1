"""What a built program can do beyond running, and what is a fact of it.

*Abilities* are protocols: a program has one if it has its members. They are found once, when a pair is made
(:class:`Abilities`, ``pair.can``). *Facts* are attributes with defaults on two base classes (:class:`ModelProgram`,
:class:`GuideProgram`). Programs that do not inherit from them, as a user's own modules and functions, have what they have, and
the defaults else (:func:`model_facts`, :func:`guide_facts`). This is the only file that asks a program what it has.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import FunctionType, MethodType
from typing import Any, Protocol, cast, runtime_checkable

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor
from torch.distributions import constraints

from ppl_vae.program.joint import Joint, draw
from ppl_vae.program.rows import data_plate
from ppl_vae.program.sites import Site

__all__ = [
    "Abilities",
    "Amortized",
    "CodeDensity",
    "Comparable",
    "Conjugate",
    "Family",
    "Generative",
    "GuideProgram",
    "KnownPosterior",
    "Marginal",
    "ModelProgram",
    "ParameterDensity",
    "Prepared",
    "Solvable",
    "guide_facts",
    "model_facts",
    "prior_support",
]


@runtime_checkable
class Generative(Protocol):
    """A model that says p(z) and p(x | z) apart, so that it can be sampled from and decodes latent variables.

    ``prior()`` is p(z), a distribution or a :class:`~ppl_vae.program.joint.Joint`; ``decode(z, *known)`` is p(x | z) for a tree
    z ``(..., *event)``; ``known(*batch)`` is what both are conditioned on, and ``prior_given(*known)`` is p(z) given that.
    """

    prior: Any

    def decode(self, z: Any, *known: Tensor) -> Any:
        """p(x | z), whose batch shape is that of z."""
        ...


@runtime_checkable
class Marginal(Protocol):
    """A model that knows log p(x)."""

    def log_prob(self, *batch: Tensor) -> Tensor:
        """Of each datum in nats, ``(B,)``."""
        ...


@runtime_checkable
class KnownPosterior(Protocol):
    """A model that knows p(z | x)."""

    def posterior(self, *batch: Tensor) -> Any:
        """Of each datum, a distribution or a joint of batch shape ``(B,)``."""
        ...


@runtime_checkable
class Amortized(Protocol):
    """A guide that says q(z | x) as a distribution or a joint."""

    def posterior(self, *batch: Tensor) -> Any:
        """Of each datum, of batch shape ``(B,)``."""
        ...


@runtime_checkable
class Family(Protocol):
    """A guide whose q is a member of a family: what is a datum's own, ``local``, the member ``at`` that, and its ``draw``."""

    def local(self, *batch: Tensor) -> tuple[Tensor, ...]:
        """The parameters of q(z | x) that may differ from datum to datum, ``(B, *)`` each, any real numbers."""
        ...

    def at(self, *local: Tensor) -> Any:
        """The member of the family with these parameters."""
        ...

    def draw(self, q: Any, *batch: Tensor) -> Any:
        """Sample from q inside the plate over the data."""
        ...


@runtime_checkable
class Conjugate(Protocol):
    """A model whose E- and M-steps have closed forms."""

    def em(self, rows: Any, *, generator: torch.Generator | None = None, accelerate: bool = True) -> Any:
        """What EM iterates, a ``Problem``."""
        ...

    def em_state(self) -> Any:
        """The present parameters, which EM iterates."""
        ...

    def assign(self, parameters: Any) -> None:
        """Write parameters into the module."""
        ...


@runtime_checkable
class Solvable(Protocol):
    """A model whose maximum-likelihood solution is a formula."""

    def closed_form(self, rows: Any) -> Any:
        """The parameters of rows ``(N, D)``."""
        ...

    def assign(self, parameters: Any) -> None:
        """Write parameters into the module."""
        ...


@runtime_checkable
class Comparable(Protocol):
    """A model that knows how far its parameters are from another's."""

    def distance(self, other: Any) -> float:
        """Zero for the same p(x)."""
        ...


@runtime_checkable
class Prepared(Protocol):
    """A model of which a part is fitted to the training rows before any method sees it."""

    def prepare(self, rows: Any, generator: torch.Generator) -> None:
        """Fit that part to rows, with the generator's random numbers alone."""
        ...


@runtime_checkable
class CodeDensity(Protocol):
    """A model whose codes have no p(z) while it is fitted, and get a density of their own afterwards."""

    def fit_codes(self, codes: Any) -> None:
        """Fit that density to codes ``(B, *event)``, batch after batch."""
        ...


@runtime_checkable
class ParameterDensity(Protocol):
    """A model whose parameters carry priors, and its log-density in their unconstrained coordinates."""

    parameter_sites: tuple[str, ...]

    def coordinates(self) -> Any:
        """Of the parameters."""
        ...


class ModelProgram(PyroModule):
    """p(x, z), a Pyro program that is called with a batch: x ``(B, *event)`` and what else it ``reads``.

    It **must** have ``prior``, whose call returns p(z), and ``decode(z, *known)``, p(x | z); or say its story itself by
    ``forward``: latent variables from top to bottom, then ``pyro.sample("x", ..., obs=x)``, all inside
    ``data_plate(self.size, x)``. Of several latent variables ``prior()`` is a :class:`~ppl_vae.program.joint.Joint`, and z a
    mapping by their names.

    It **may** say the facts below, ``known`` and ``prior_given`` if it is conditioned on what is known of x, and any ability of
    this file by having its members: :class:`Marginal`, :class:`KnownPosterior`, :class:`Conjugate`, :class:`Solvable`,
    :class:`Comparable`.

    It **inherits** that every method that can fit it does, and all that a fit is asked: evaluation, gaps, annealing, encoding
    and decoding, samples, pictures and reports.

    Attributes:
        size: N, the number of training data.
        latent: what z is where its support does not tell: ``continuous``, ``discrete``, or a ``code`` that has no p(z).
        reads: the fields of a batch, x first.
        score: what the sum of its terms is where that is no ELBO; see ``ppl_vae.types.SCORES``.
        learning_rate: of SVI where the method declares none.
        parameter_sites: the names of parameters that carry priors.
        known_entries: which entries ``(*event)`` of x are a condition and not modelled.
        given_prior: whether p(z) depends on what is known.
        drawn_from: where z of new data comes from, in words.
        random_start: whether also the first start of EM is random.
        beside_columns: columns of what the guide's encoder is told beside x.
    """

    size: int | None = None
    latent: str = "continuous"
    reads: tuple[str, ...] = ("x",)
    score: Any = None
    learning_rate: float | None = None
    parameter_sites: tuple[str, ...] = ()
    known_entries: Tensor | None = None
    given_prior: bool = False
    drawn_from: str = "the prior"
    random_start: bool = False
    beside_columns: int = 0

    prior: Any
    decode: Any

    def forward(self, *batch: Tensor) -> Any:
        """The story, with the batch's x observed."""
        known = self.known(*batch)
        with data_plate(self.size or len(batch[0]), batch[0]):
            z = draw(next(iter(self.sites)), self.prior_given(*known))
            return pyro.sample("x", self.decode(z, *known), obs=batch[0])

    @property
    def sites(self) -> Mapping[str, Site]:
        """The latent variables, by name and in the order of the story: those of ``prior()``, a lone one called z."""
        p = self.prior()
        if isinstance(p, Joint):
            shapes, supports = p.event_shape, p.support
            return {name: Site(name, tuple(shapes[name]), supports[name]) for name in p.names}
        return {"z": Site("z", tuple(p.event_shape), p.support)}

    @property
    def labelled(self) -> bool:
        """Whether it reads class labels beside x."""
        return "y" in self.reads

    def known(self, *batch: Tensor) -> tuple[Tensor, ...]:
        """What p(z) and p(x | z) of a batch are conditioned on: nothing."""
        return ()

    def prior_given(self, *known: Tensor) -> Any:
        """p(z), given what is known of a batch."""
        return self.prior()


class GuideProgram(PyroModule):
    """q(z | x), a Pyro program that is called with the same batches as its model, and has its latent sites and plates.

    It **must** have ``posterior(*batch)``, q(z | x) as a distribution, or of several latent variables as a
    :class:`~ppl_vae.program.joint.Joint`; or say itself by ``forward`` what it samples, inside ``data_plate(self.size, x)``.

    It **may** say the facts below, and ``local`` and ``at`` (:class:`Family`), by which gaps between its family and the best
    posterior of each datum are found.

    It **inherits** that it is fitted by SVI, and all that a fit is asked that needs q: codes, reconstructions, what the latent
    variables hold.

    Attributes:
        size: N, the number of training data.
        site: the name of a lone latent variable.
        exact: whether q(z | x) is p(z | x).
        exact_latents: of a guide over parameters as well, whether q(z | x, theta) is p(z | x, theta).
        point: whether q is a point.
        mean_field: whether the analytic KL of each site may be used; by default unless q is exact, since the sampled one makes
            the ELBO of an exact posterior log p(x) for every sample.
        score: what the sum of the pair's terms is where that is no ELBO.
        foreign_passes: of networks, that the density of a draw of another q takes.
    """

    size: int | None = None
    site: str = "z"
    exact: bool = False
    exact_latents: bool = False
    point: bool = False
    score: Any = None
    foreign_passes: int = 0

    posterior: Any

    def forward(self, *batch: Tensor) -> Any:
        """Draw the latent variables of each datum of the batch."""
        return self.draw(self.posterior(*batch), *batch)

    def draw(self, q: Any, *batch: Tensor) -> Any:
        """Draw the latent variables of each datum of the batch from q, whose batch shape is ``(B,)``."""
        with data_plate(self.size or len(batch[0]), batch[0]):
            return draw(self.site, q)

    @property
    def mean_field(self) -> bool:
        """Whether the analytic KL of each site may be used."""
        return not self.exact


def model_facts(program: Any) -> ModelProgram:
    """A program with the facts of a :class:`ModelProgram`: its own where it has them, else the defaults."""
    return program if isinstance(program, ModelProgram) else cast(ModelProgram, _Facts(program, ModelProgram))


def guide_facts(program: Any) -> GuideProgram:
    """A program with the facts of a :class:`GuideProgram`: its own where it has them, else the defaults."""
    return program if isinstance(program, GuideProgram) else cast(GuideProgram, _Facts(program, GuideProgram))


@dataclass(frozen=True, repr=False)
class Abilities:
    """What a model and a guide can do beyond running; ``None`` where they cannot.

    Attributes:
        generate: the model, if it is :class:`Generative`.
        marginal: the model, if it knows log p(x).
        know_posterior: the model, if it knows p(z | x).
        encode: the guide, if it says q(z | x).
        vary: the guide, if its q are members of a :class:`Family`.
        iterate: the model, if it is :class:`Conjugate`.
        solve: the model, if it is :class:`Solvable`.
        compare: the model, if it is :class:`Comparable`.
        weigh_parameters: the model, if its parameters carry priors.
        prepare: the model, if a part of it is fitted before any method sees it.
        fit_codes: the model, if its codes get their density after the fit.
    """

    generate: ModelProgram | None
    marginal: Marginal | None
    know_posterior: KnownPosterior | None
    encode: Amortized | None
    vary: Family | None
    iterate: Conjugate | None
    solve: Solvable | None
    compare: Comparable | None
    weigh_parameters: ParameterDensity | None
    prepare: Prepared | None
    fit_codes: CodeDensity | None

    def __repr__(self) -> str:
        return f"Abilities({', '.join(field.name for field in fields(self) if getattr(self, field.name) is not None)})"

    @classmethod
    def of(cls, model: Any, guide: Any) -> Abilities:
        """Those of a built model and guide."""
        facts = model_facts(model)
        return cls(
            generate=facts if isinstance(model, Generative) else None,
            marginal=model if isinstance(model, Marginal) else None,
            know_posterior=model if isinstance(model, KnownPosterior) else None,
            encode=guide if isinstance(guide, Amortized) else None,
            vary=guide if isinstance(guide, Family) else None,
            iterate=model if isinstance(model, Conjugate) else None,
            solve=model if isinstance(model, Solvable) else None,
            compare=model if isinstance(model, Comparable) else None,
            weigh_parameters=model if facts.parameter_sites and isinstance(model, ParameterDensity) else None,
            prepare=model if isinstance(model, Prepared) else None,
            fit_codes=model if isinstance(model, CodeDensity) else None,
        )


class _Facts:
    """A foreign program, and the defaults of a base class for what it does not say."""

    def __init__(self, program: Any, base: type[PyroModule]) -> None:
        self._program = program
        self._base = base

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # nobody else's business, and what copying asks for
            raise AttributeError(name)
        value = getattr(self._program, name, MISSING)
        if value is not MISSING:
            return value
        if name == "sites" and (shape := getattr(self._program, "latent_shape", None)) is not None:
            return {"z": Site("z", tuple(shape), self._support())}
        if name == "reads" and getattr(self._program, "labelled", False):
            return ("x", "y")
        default = inspect.getattr_static(self._base, name)
        if isinstance(default, property):
            return cast(Any, default.fget)(self)
        return MethodType(default, self) if isinstance(default, FunctionType) else default

    def _support(self) -> Any:
        prior = getattr(self._program, "prior", None)
        return constraints.real if prior is None else prior_support(prior)


def prior_support(prior: Any) -> Any:
    """Where the draws of a built prior lie; one that cannot be called before its guide is built says it by ``support``."""
    stated = getattr(prior, "support", None)
    return prior().support if stated is None else stated


MISSING = object()
