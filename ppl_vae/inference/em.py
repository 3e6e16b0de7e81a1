"""Expectation maximization and closed forms as methods: the model says what to iterate, its modules get the result."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ppl_vae import em
from ppl_vae.data import Data, Split
from ppl_vae.declaration import require
from ppl_vae.evaluate import evaluate
from ppl_vae.inference.method import Method, Remark, Report, Row, Stopwatch
from ppl_vae.pair import Pair

__all__ = ["EM", "ClosedForm", "Rows"]

ROWS_AT_ONCE = 8192


@dataclasses.dataclass(frozen=True, kw_only=True)
class EM(Method):
    """Expectation maximization (Dempster, Laird and Rubin 1977) on all training data at once, in float64.

    Each iteration's log-likelihood is exact and never falls; a fall stops the fit with an error. The guide is not fitted: it
    must be ``ExactPosterior()``.

    Args:
        seed: of random starts.
        max_iterations: the most steps of each start.
        tolerance: converged when the log-likelihood's relative change per step falls below it.
        n_init: number of starts; the best one is kept. The first is the warm start if there is one; a linear-Gaussian model's
            first start is fixed, the others are random.
        acceleration: ``squarem`` where the model has a safeguarded scheme (factor analysis), or ``none``.

    Raises:
        ValueError: a number out of range, or an unknown acceleration.
    """

    posterior_guide: ClassVar[Literal["exact", "any"]] = "exact"

    max_iterations: int = 1000
    tolerance: float = 1e-8
    n_init: int = 1
    acceleration: Literal["squarem", "none"] = "squarem"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.max_iterations >= 1, "at least 1 iteration", self.max_iterations)
        require(0 <= self.tolerance < math.inf, "a tolerance of at least 0", self.tolerance)
        require(self.n_init >= 1, "an n_init of at least 1", self.n_init)
        require(self.acceleration in ("squarem", "none"), "an acceleration of squarem or none", self.acceleration)

    @property
    def iterations(self) -> int:
        """The steps of all starts together."""
        return self.max_iterations * self.n_init

    def run(self, pair: Pair, data: Data, report: Report) -> list[Row]:
        """Fit the pair's model; a row of history per accepted step of the best start.

        ``log_likelihood``, ``objective`` and ``elbo`` are one number, exact, in nats per datum: after the E-step the ELBO is
        tight.

        Raises:
            ValueError: a model without EM steps, a guide with parameters of its own, or a log-likelihood that falls.
        """
        problem_of = _offered(self, pair, "em")
        clock = Stopwatch(report)
        rows = Rows(data.train)
        generator = torch.Generator(data.train.device).manual_seed(self.seed)
        constant = data.train.transform.log_jacobian
        results = []
        for start in range(self.n_init):
            fixed = start == 0 and not getattr(pair.model, "random_start", False)
            problem = problem_of(rows, generator=None if fixed else generator, accelerate=self.acceleration == "squarem")
            if start == 0 and "model" in pair.warm:
                problem = problem._replace(start=pair.model.em_state())
            results.append((problem, *self._iterate(problem, constant, clock)))
        problem, state, history = max(results, key=lambda result: result[2][-1]["log_likelihood"])
        problem.assign(state)
        if remark := problem.remark(state):
            warnings.warn(remark, Remark, stacklevel=2)
        return [*history[:-1], {**history[-1], "seconds": clock.seconds}]

    def _iterate(self, problem: em.Problem, constant: float, clock: Stopwatch) -> tuple[Any, list[Row]]:
        """The state that one start leads to, and its history."""
        history: list[Row] = []

        def tell(iteration: em.Iteration, state: Any) -> None:
            history.append(_row(iteration.iteration, iteration.log_likelihood + constant, clock))
            clock.report(history[-1])

        result = em.run(
            problem.step,
            problem.start,
            max_iterations=self.max_iterations,
            tolerance=self.tolerance,
            acceleration=problem.acceleration,
            on_iteration=tell,
        )
        return result.state, history


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClosedForm(Method):
    """The maximum-likelihood solution by formula, for models that have one: PPCA (Tipping and Bishop 1999), PCA.

    Args:
        seed: unused; nothing is random.
    """

    posterior_guide: ClassVar[Literal["exact", "any"]] = "exact"

    @property
    def iterations(self) -> int:
        """One evaluation of the formula."""
        return 1

    def run(self, pair: Pair, data: Data, report: Report) -> list[Row]:
        """Fit the pair's model; one row of history.

        Raises:
            ValueError: a model without a closed form, or a guide with parameters of its own.
        """
        clock = Stopwatch(report)
        solve = _offered(self, pair, "closed_form")
        pair.model.assign(solve(Rows(data.train)))
        seconds = clock.seconds
        numbers = evaluate(pair, data.train)
        row = {**_row(1, numbers.get("log_likelihood", numbers["elbo"]), clock), "seconds": seconds}
        if "log_likelihood" not in numbers:  # PCA has no density
            del row["log_likelihood"]
        clock.report(row)
        return [row]


class Rows:
    """A split as matrices ``(B, D)`` in the order of the data, walked anew at every pass; never held whole."""

    def __init__(self, split: Split) -> None:
        self.split = split

    def __iter__(self) -> Iterator[Tensor]:
        if self.split.transform.noisy:
            raise ValueError(
                "EM and closed forms need data that stay the same at every pass: binarize statically (binarize='static') or "
                "leave the values as they are (binarize='none', no dequantization)"
            )
        return (x.flatten(1) for x in self.split.batches(ROWS_AT_ONCE))


def _offered(method: Method, pair: Pair, name: str) -> Callable:
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


def _row(iteration: int, value: float, clock: Stopwatch) -> Row:
    """A row of the history: after the E-step the ELBO is the log-likelihood itself."""
    return {"epoch": iteration, "objective": value, "elbo": value, "log_likelihood": value, "seconds": clock.seconds}
