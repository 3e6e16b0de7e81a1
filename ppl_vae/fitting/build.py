"""From declarations, or two plain Pyro programs, to a pair; and the guide that is taken where none is declared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from ppl_vae.fitting.fitted import Fit
from ppl_vae.guides import (
    AmortizedClassifier,
    AmortizedDelta,
    AmortizedGumbel,
    AmortizedLinear,
    AmortizedNormal,
    AmortizedProjectedNormal,
    BayesianGuide,
    ExactPosterior,
    Guide,
    MeanField,
    NearestCode,
    Noising,
    StackedClassifier,
    TopDown,
)
from ppl_vae.guides.floors import check_standard
from ppl_vae.inference.methods.base import Method
from ppl_vae.memory import within_memory
from ppl_vae.models import Model
from ppl_vae.priors import Prior
from ppl_vae.program.facts import guide_facts, posterior_prior
from ppl_vae.program.pair import Pair
from ppl_vae.program.reads import reads
from ppl_vae.text import as_line
from ppl_vae.types import DataSpec

__all__ = ["build", "default_guide", "take_over"]


BY_FAMILY: dict[str, Guide] = {
    "point": AmortizedDelta(),
    "linear": AmortizedLinear(),
    "groups": TopDown(),
    "classes": AmortizedClassifier(),
    "stacked": StackedClassifier(),
    "codes": NearestCode(),
    "noise": Noising(),
}
WITHOUT_COORDINATES: dict[str, Guide] = {"sphere": AmortizedProjectedNormal(), "one_hot": AmortizedGumbel()}


@runtime_checkable
class _WithPrior(Protocol):
    """A declared model that has p(z) as a field."""

    prior: Prior


def build(model: Model | Callable[..., Any], guide: Guide | Callable[..., Any], spec: DataSpec) -> Pair:
    """A declared model and guide, or two plain Pyro programs, as a pair.

    Raises:
        ValueError: data outside the model's support, a declared half with a plain one, or a guide that leaves out parameters.
    """
    with within_memory(f"{as_line(model)} for data of shape {spec.event_shape}"):
        return _pair(model, guide, spec)


def _pair(model: Model | Callable[..., Any], guide: Guide | Callable[..., Any], spec: DataSpec) -> Pair:
    """The pair, whatever memory it takes."""
    known: dict[str, Any] = {"size": spec.size, "weight": spec.weight, "table": spec.table}
    if isinstance(model, Model) and isinstance(guide, Guide):
        _check_declared(model, guide, spec)
        program = model.build(spec)
        if guide.needs_standard_prior and isinstance(model, _WithPrior):
            check_standard(program, as_line(model.prior))
        proposal = guide.build(program, spec)
        if (prior := posterior_prior(program)) is not None:
            prior.attach(proposal.posterior, spec)
        return Pair(program, proposal, mean_field=guide_facts(proposal).mean_field, plain=False, **known)
    if isinstance(model, Model) or isinstance(guide, Guide):
        raise ValueError("a declared model goes with a declared guide, and a plain Pyro model with a plain guide function")
    return Pair(model, guide, mean_field=False, reads=reads(model, guide, spec), **known)


def _check_declared(model: Model, guide: Guide, spec: DataSpec) -> None:
    """Raise ``ValueError`` for data that the model is no density of, or parameters that the guide leaves out."""
    if spec.ragged and not model.takes_ragged:
        raise ValueError(
            f"expected rows of one length for {as_line(model)}, got rows of different lengths: declare "
            "SequenceModel, or a VAE whose decoder sees what came earlier, such as LSTM; write a plain Pyro program that reads "
            "x and length; or pad the rows"
        )
    beside = [field.name for field in spec.fields[1:]]
    if model.fields and not set(beside) <= set(model.fields):
        raise ValueError(
            f"expected the fields {', '.join(model.fields)} beside x, which the model reads, got {', '.join(beside)}: load the "
            "data with these alone"
        )
    if beside and not model.fields:
        raise ValueError(
            f"expected data of one field for a declared model, got {len(spec.fields)}: give x alone, and class labels as "
            "load_data(x, y=labels)"
        )
    model.check(spec)
    if model.parameter_priors and not isinstance(guide, BayesianGuide | MeanField):
        carried = f"the parameters {', '.join(model.parameter_priors)} of this model carry priors, which {guide!r} leaves out: "
        if model.posterior_family == "factors" and isinstance(guide, ExactPosterior):  # it has no exact one
            raise ValueError(f"{carried}use MeanField() and CAVI, or BayesianGuide(latents=AmortizedNormal()) and SVI")
        raise ValueError(
            f"{carried}use BayesianGuide(latents={guide!r}) and fit by SVI or NUTS, or MeanField() and CAVI; EM and closed "
            "forms fit the model without priors"
        )


def take_over(pair: Pair, start: Fit, guide: Guide | Callable[..., Any], spec: DataSpec) -> None:
    """Copy the parameters of an earlier fit, the guide's only if it is declared alike."""
    for what, earlier, now in (("columns", start.spec.columns, spec.columns), ("classes", start.spec.classes, spec.classes)):
        if earlier and now and earlier != now and (what == "columns" or pair.model_facts.labelled):
            raise ValueError(
                f"a warm start needs the {what} of the earlier fit in their order: expected {', '.join(earlier)}, got "
                f"{', '.join(now)}"
            )
    for before, column in zip(start.spec.table, spec.table, strict=False):
        if before.categories != column.categories:
            raise ValueError(
                f"a warm start needs the categories of the earlier fit in their order: expected in column {column.name!r} "
                f"{', '.join(before.categories)}, got {', '.join(column.categories)}"
            )
    try:
        pair.model.load_state_dict(start.pair.model.state_dict())
        if guide == start.guide:
            pair.guide.load_state_dict(start.pair.guide.state_dict())
            pair.warm.add("guide")
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"a warm start needs an earlier fit of the same model to data of the same shape: {reason}") from None
    pair.warm.add("model")


def default_guide(model: Model | Callable[..., Any], method: Method) -> Guide:
    """The guide that a method gives a model if none is declared: as rich as the posterior is known to be, no richer."""
    if method.posterior_guide == "factors":
        return MeanField()
    if not isinstance(model, Model):
        return ExactPosterior() if method.posterior_guide == "exact" else AmortizedNormal()
    if model.parameter_priors and method.posterior_guide == "any":
        return BayesianGuide(latents=AmortizedNormal()) if model.posterior_family == "factors" else BayesianGuide()
    if method.posterior_guide == "exact" or model.posterior_family in ("discrete", "exact", "projection"):
        return ExactPosterior()
    if model.posterior_family in BY_FAMILY:
        return BY_FAMILY[model.posterior_family]
    support = model.prior.support if isinstance(model, _WithPrior) else "real"
    return WITHOUT_COORDINATES.get(support, AmortizedNormal())
