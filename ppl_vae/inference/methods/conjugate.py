"""What methods of conjugate models share: the model's own part, and a row of an exact log-likelihood."""

from __future__ import annotations

from typing import TypeVar

from ppl_vae.inference.methods.base import Method
from ppl_vae.inference.training.clock import Stopwatch
from ppl_vae.program.facts import fitting_methods
from ppl_vae.program.pair import Pair
from ppl_vae.types import Record

__all__ = ["conjugate", "exact_row", "remedy_of"]

NEEDS = {
    "em": "the steps of expectation maximization in closed form",
    "closed_form": "a formula of its parameters",
}

M = TypeVar("M")


def conjugate(method: Method, pair: Pair, model: M | None, member: str, *, weighted: bool) -> M:
    """The model, if it has the ability that a method needs and the guide is exact.

    Args:
        method: which asks.
        pair: model and guide.
        model: the model as what has the ability, ``None`` if it lacks it; of ``pair.can``.
        member: what the ability goes by.
        weighted: whether the rows have weights.

    Raises:
        ValueError: it lacks it, the guide has parameters of its own, or the model does not look at weights.
    """
    kind = type(method).__name__
    if model is None:
        raise ValueError(f"{kind} cannot fit this model: it offers no {member!r}, {NEEDS[member]}; {remedy_of(pair)}")
    if not pair.guide_facts.exact:
        raise ValueError(f"{kind} fits no parameters of a guide: use guide=ExactPosterior(), or fit this guide by SVI")
    if weighted and not pair.model_facts.takes_weights:
        raise ValueError(
            f"{kind} of this model does not look at the weights of rows: load the data without (a program of your own says "
            f"takes_weights = True once its {member} counts rows by rows.weights)"
        )
    return model


def remedy_of(pair: Pair) -> str:
    """Which methods do fit a pair's model."""
    methods = fitting_methods(pair.model)
    return f"fit it by {methods}" if methods else "it has no parameters to fit"


def exact_row(iteration: int, value: float, clock: Stopwatch) -> Record:
    """A row of the history: after the E-step the ELBO is the log-likelihood itself."""
    return {"epoch": iteration, "objective": value, "elbo": value, "log_likelihood": value, "seconds": clock.seconds}
