"""What methods of conjugate models share: the model's own part, and a row of an exact log-likelihood."""

from __future__ import annotations

from collections.abc import Callable

from ppl_vae.inference.methods.base import Method
from ppl_vae.inference.training.clock import Stopwatch
from ppl_vae.program.pair import Pair
from ppl_vae.types import Record

__all__ = ["exact_row", "offered"]


def offered(method: Method, pair: Pair, name: str) -> Callable:
    """The model's own part in a method, or why there is none."""
    kind = type(method).__name__
    if not hasattr(pair.model, name):
        raise ValueError(
            f"{kind} cannot fit this model: it offers no {name!r}, because its posterior has no closed form; SVI can fit it, "
            "and EM fits FactorAnalysis, PPCA and GMM"
        )
    if not getattr(pair.guide, "exact", False):
        raise ValueError(f"{kind} fits no parameters of a guide: use guide=ExactPosterior(), or fit this guide by SVI")
    return getattr(pair.model, name)


def exact_row(iteration: int, value: float, clock: Stopwatch) -> Record:
    """A row of the history: after the E-step the ELBO is the log-likelihood itself."""
    return {"epoch": iteration, "objective": value, "elbo": value, "log_likelihood": value, "seconds": clock.seconds}
