"""Expectation maximization as a method: the model says what to iterate, its modules get the result."""

from __future__ import annotations

import dataclasses
import math
import warnings
from typing import ClassVar, Literal

import torch

from ppl_vae.data import Data
from ppl_vae.data.matrices import Matrices
from ppl_vae.declaration import require
from ppl_vae.evaluate import log_jacobian
from ppl_vae.inference.methods.base import Method
from ppl_vae.inference.methods.conjugate import conjugate, exact_row
from ppl_vae.inference.methods.starts import Starts
from ppl_vae.inference.training.clock import Stopwatch
from ppl_vae.program.pair import Pair
from ppl_vae.storage import NULL_CHECKPOINTER, AnyCheckpointer
from ppl_vae.types import FitWarning, Record, Report

__all__ = ["EM"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EM(Method):
    """Expectation maximization (Dempster, Laird and Rubin 1977) on all training data at once, in float64.

    Each iteration's log-likelihood is exact and never falls; of a model with pseudo-counts the ``objective`` is climbed, which
    is log p(x) and the log prior of the parameters, to their most probable values (MAP). A start whose objective falls all the
    same, as rounding may let it, is dropped with a remark; if there is no other, the fit stops with an error. The guide is not
    fitted: it must be ``ExactPosterior()``.

    Args:
        seed: of random starts.
        max_iterations: the most steps of each start.
        tolerance: converged when a step gains less than this many nats per element of a datum.
        n_init: number of starts; the best one is kept. The first is the warm start if there is one; a linear-Gaussian model's
            first start is fixed, the others are random.
        acceleration: ``squarem`` where the model has a safeguarded scheme (factor analysis), or ``none``.

    Raises:
        ValueError: a number out of range, or an unknown acceleration.
    """

    posterior_guide: ClassVar[Literal["exact", "factors", "any"]] = "exact"
    takes_weights: ClassVar[bool] = True
    takes_processes: ClassVar[bool] = True
    live: ClassVar[bool] = False
    length: ClassVar[str | None] = "max_iterations"

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

    def run(self, pair: Pair, data: Data, report: Report, checkpointer: AnyCheckpointer = NULL_CHECKPOINTER) -> list[Record]:
        """Fit the pair's model; a row of history per accepted step of the best start.

        ``log_likelihood``, ``objective`` and ``elbo`` are one number, exact, in nats per datum: after the E-step the ELBO is
        tight.

        Raises:
            ValueError: a model without EM steps, a guide with parameters of its own, or no start that succeeds.
        """
        model = conjugate(self, pair, pair.can.iterate, "em", weighted=data.train.weights is not None)
        clock = Stopwatch(report, checkpointer.restored.seconds if checkpointer.restored else 0.0)
        rows = Matrices(data.train, relative=True)  # no maximum knows the scale of weights
        generator = torch.Generator(data.train.device).manual_seed(self.seed)
        elements = math.prod(data.spec.event_shape)
        if (sizes := data.train.sizes) is not None:
            elements *= max(1, round(float(sizes.double().mean())))
        starts = Starts(
            self,
            ("max_iterations", self.max_iterations),
            clock=clock,
            checkpointer=checkpointer,
            constant=log_jacobian(pair, data.train),
            tolerance=self.tolerance * elements,
            row=exact_row,
        )
        for start in range(self.n_init):
            fixed = start == 0 and not pair.model_facts.random_start
            problem = model.em(rows, generator=None if fixed else generator, accelerate=self.acceleration == "squarem")
            if start == 0 and "model" in pair.warm:
                problem = problem._replace(start=model.em_state())
            starts.iterate(problem)
        problem, state, history = starts.best()
        problem.assign(state)
        if remark := problem.remark(state):
            warnings.warn(remark, FitWarning, stacklevel=2)
        return [*history[:-1], {**history[-1], "seconds": clock.seconds}]
