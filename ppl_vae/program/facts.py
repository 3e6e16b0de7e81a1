"""The facts and abilities of any program, found once."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, fields
from types import FunctionType, MethodType
from typing import Any, cast

from pyro.nn import PyroModule
from torch import nn
from torch.distributions import constraints

from ppl_vae.program.base import GuideProgram, ModelProgram
from ppl_vae.program.capabilities import (
    Amortized,
    Ancestral,
    Bounding,
    Charted,
    Comparable,
    Completing,
    Conjugate,
    Continuing,
    CoordinateAscent,
    Covaried,
    Described,
    Drawing,
    Family,
    Growing,
    Imputing,
    KnownPosterior,
    LinearDecoding,
    MadeOfPosteriors,
    Marginal,
    NormalMixture,
    ParameterDensity,
    Pathfinding,
    Queryable,
    Restoring,
    RowDecoding,
    Solvable,
    Stepwise,
    StochasticAscent,
    SummedBound,
    attribute,
    generates,
)
from ppl_vae.program.sites import Site

__all__ = ["Abilities", "fitting_methods", "guide_facts", "model_facts", "posterior_prior", "prior_support"]


def model_facts(program: Any) -> ModelProgram:
    """A program with the facts of a :class:`ModelProgram`: its own where it has them, else the defaults."""
    return program if isinstance(program, ModelProgram) else cast(ModelProgram, _Facts(program, ModelProgram))


def guide_facts(program: Any) -> GuideProgram:
    """A program with the facts of a :class:`GuideProgram`: its own where it has them, else the defaults."""
    return program if isinstance(program, GuideProgram) else cast(GuideProgram, _Facts(program, GuideProgram))


def fitting_methods(model: Any) -> str:
    """The names of the methods that fit a built model, in words; nothing if none does."""
    trained = not isinstance(model, ModelProgram) or any(parameter.requires_grad for parameter in model.parameters())
    offers = {
        "ClosedForm": isinstance(model, Solvable),
        "EM": isinstance(model, Conjugate),
        "CAVI": isinstance(model, CoordinateAscent),
        "SVI": trained,
    }
    return " or ".join(name for name, offered in offers.items() if offered)


@dataclass(frozen=True, repr=False)
class Abilities:
    """What a model and a guide can do beyond running; ``None`` where they cannot.

    Attributes:
        answer: the model, if it is :class:`Queryable`.
        generate: the model, if it is :class:`Generative`.
        draw_data: the model, if it is :class:`Ancestral`.
        draw_in_steps: the model, if it is :class:`Stepwise`.
        continue_rows: the model, if it is :class:`Continuing`.
        complete_lines: the model, if it is :class:`Completing`.
        decode_rows: the model, if it is :class:`RowDecoding`.
        decode_linearly: the model, if it is :class:`LinearDecoding`.
        find_path: the model, if it is :class:`Pathfinding`.
        marginal: the model, if it knows log p(x).
        know_posterior: the model, if it knows p(z | x).
        impute: the model, if it knows p(missing | observed) of the entries of a datum.
        mix: the model, if its p(x) is a mixture of normal distributions.
        restore: the model, if it says what data are without their noise.
        encode: the guide, if it says q(z | x).
        vary: the guide, if its q are members of a :class:`Family`.
        iterate: the model, if it is :class:`Conjugate`.
        ascend: the model, if it offers :class:`CoordinateAscent`.
        ascend_batches: the model, if it offers :class:`StochasticAscent`.
        bound: the guide, if it is :class:`Bounding`.
        sum_bound: the guide, if it is a :class:`SummedBound`.
        solve: the model, if it is :class:`Solvable`.
        compare: the model, if it is :class:`Comparable`.
        grow: the model, if it is :class:`Growing`.
        weigh_parameters: the model, if its parameters carry priors.
        covary: the model, if it is :class:`Covaried` and has covariates.
        describe: the model, if it says what its parameters mean.
        chart: the model, if it has tables worth a picture.
        draw_parameters: the guide, if it is over parameters as well.
    """

    answer: Queryable | None
    generate: ModelProgram | None
    draw_data: Ancestral | None
    draw_in_steps: Stepwise | None
    continue_rows: Continuing | None
    complete_lines: Completing | None
    decode_rows: RowDecoding | None
    decode_linearly: LinearDecoding | None
    find_path: Pathfinding | None
    marginal: Marginal | None
    know_posterior: KnownPosterior | None
    impute: Imputing | None
    mix: NormalMixture | None
    restore: Restoring | None
    encode: Amortized | None
    vary: Family | None
    iterate: Conjugate | None
    ascend: CoordinateAscent | None
    ascend_batches: StochasticAscent | None
    bound: Bounding | None
    sum_bound: SummedBound | None
    solve: Solvable | None
    compare: Comparable | None
    grow: Growing | None
    weigh_parameters: ParameterDensity | None
    covary: Covaried | None
    describe: Described | None
    chart: Charted | None
    draw_parameters: Drawing | None

    def __repr__(self) -> str:
        return f"Abilities({', '.join(field.name for field in fields(self) if getattr(self, field.name) is not None)})"

    @classmethod
    def of(cls, model: Any, guide: Any) -> Abilities:
        """Those of a built model and guide."""
        facts = model_facts(model)
        return cls(
            answer=model if isinstance(model, Queryable) else None,
            generate=facts if generates(model) else None,
            draw_data=model if isinstance(model, Ancestral) else None,
            draw_in_steps=model if isinstance(model, Stepwise) else None,
            continue_rows=model if isinstance(model, Continuing) else None,
            complete_lines=model if isinstance(model, Completing) else None,
            decode_rows=model if isinstance(model, RowDecoding) else None,
            decode_linearly=model if isinstance(model, LinearDecoding) else None,
            find_path=model if isinstance(model, Pathfinding) else None,
            marginal=model if isinstance(model, Marginal) else None,
            know_posterior=model if isinstance(model, KnownPosterior) else None,
            impute=model if isinstance(model, Imputing) else None,
            mix=model if isinstance(model, NormalMixture) else None,
            restore=model if isinstance(model, Restoring) else None,
            encode=guide if isinstance(guide, Amortized) else None,
            vary=guide if isinstance(guide, Family) else None,
            iterate=model if isinstance(model, Conjugate) else None,
            ascend=model if isinstance(model, CoordinateAscent) else None,
            ascend_batches=model if isinstance(model, StochasticAscent) else None,
            bound=guide if isinstance(guide, Bounding) else None,
            sum_bound=guide if isinstance(guide, SummedBound) else None,
            solve=model if isinstance(model, Solvable) else None,
            compare=model if isinstance(model, Comparable) else None,
            grow=model if isinstance(model, Growing) else None,
            weigh_parameters=model if facts.parameter_sites and isinstance(model, ParameterDensity) else None,
            covary=model if facts.covariates and isinstance(model, Covaried) else None,
            describe=model if isinstance(model, Described) else None,
            chart=model if isinstance(model, Charted) else None,
            draw_parameters=guide if isinstance(guide, Drawing) else None,
        )


def posterior_prior(program: Any) -> MadeOfPosteriors | None:
    """The prior of a built model, if it is made of the guide's posteriors."""
    prior = attribute(program, "prior", None)
    return prior if isinstance(prior, MadeOfPosteriors) else None


class _Facts:
    """A foreign program, and the defaults of a base class for what it does not say."""

    def __init__(self, program: Any, base: type[PyroModule]) -> None:
        self._program = program
        self._base = base

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # nobody else's business, and what copying asks for
            raise AttributeError(name)
        value = attribute(self._program, name, MISSING)
        if value is not MISSING:
            return value
        if name == "sites" and (shape := attribute(self._program, "latent_shape", None)) is not None:
            return self._lone_site(tuple(shape))
        if name == "reads" and attribute(self._program, "labelled", False):
            return ("x", "y")
        default = inspect.getattr_static(self._base, name)
        if isinstance(default, property):
            return cast(Any, default.fget)(self)
        return MethodType(default, self) if isinstance(default, FunctionType) else default

    def _lone_site(self, shape: tuple[int, ...]) -> dict[str, Site]:
        prior = attribute(self._program, "prior", None)
        index = prior is not None and not isinstance(prior, nn.Module)  # a mixture gives p(k) by a method
        name = "k" if index else "z"
        return {name: Site(name, shape, constraints.real if prior is None else prior_support(prior), index=index)}


def prior_support(prior: Any) -> Any:
    """Where the draws of a built prior lie; one that cannot be called before its guide is built says it by ``support``."""
    stated = attribute(prior, "support", None)
    return prior().support if stated is None else stated


MISSING = object()
