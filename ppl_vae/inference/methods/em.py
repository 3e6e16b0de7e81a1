"""Expectation maximization as a method: the model says what to iterate, its modules get the result."""

from __future__ import annotations

import dataclasses
import itertools
import math
import warnings
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from ppl_vae import exact
from ppl_vae.data import Data
from ppl_vae.data.matrices import Matrices
from ppl_vae.declaration import require
from ppl_vae.evaluate import log_jacobian
from ppl_vae.inference.methods.base import Method
from ppl_vae.inference.methods.conjugate import conjugate, exact_row
from ppl_vae.inference.training.clock import Stopwatch
from ppl_vae.program.pair import Pair
from ppl_vae.storage import NULL_CHECKPOINTER, AnyCheckpointer, Snapshot
from ppl_vae.storage.snapshot import restoring
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

    posterior_guide: ClassVar[Literal["exact", "any"]] = "exact"
    takes_weights: ClassVar[bool] = True
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
        starts = _Starts(self, clock, checkpointer, log_jacobian(pair, data.train), self.tolerance * elements)
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class EMState:
    """All that it takes to go on with EM.

    Attributes:
        starts: the leaves of the state that each start has come to, the last one's in progress.
        cursor: where that one stands.
        rows: of the history, of each start; none of one that failed.
        max_iterations: of each start, as declared.
        seconds: worked so far.
    """

    starts: tuple[tuple[Tensor, ...], ...]
    cursor: exact.Cursor
    rows: list[int]
    max_iterations: int
    seconds: float

    def check(self) -> None:
        """Raise ``ValueError`` for numbers that no state of EM has."""
        numbers = (*self.cursor, self.max_iterations, *self.rows)
        if not all(isinstance(number, (int, float)) for number in numbers):
            raise ValueError(f"expected numbers, got {numbers}")


class _Starts:
    """EM from one start after another.

    Attributes:
        results: the problem, the state and the history of each start that is over; without rows if it failed.
        failures: why, by the number of the start.
    """

    def __init__(self, method: EM, clock: Stopwatch, checkpointer: AnyCheckpointer, constant: float, tolerance: float) -> None:
        self.method, self.clock, self.checkpointer = method, clock, checkpointer
        self.constant, self.tolerance = constant, tolerance
        self.results: list[tuple[exact.Problem, Any, list[Record]]] = []
        self.failures: dict[int, exact.EMError] = {}
        self.kept: EMState | None = None
        if checkpointer.restored is not None:
            with restoring(checkpointer.restored):
                self.kept = checkpointer.restored.record(EMState)
                self.kept.check()
        if method.n_init > 1 and self.kept is not None and self.kept.max_iterations < method.max_iterations:
            raise ValueError(
                f"EM with n_init={method.n_init} was begun with max_iterations={self.kept.max_iterations}, which its earlier "
                "starts have used up: resume it with the same, or fit to another folder"
            )

    def iterate(self, problem: exact.Problem) -> None:
        """Iterate from the next start, or go on with it."""
        with restoring(self.checkpointer.restored):
            state, cursor, history = self._begin(problem)
            already = [exact.Iteration(row["epoch"], row["objective"] - self.constant, row["seconds"]) for row in history]
        last: tuple[Any, exact.Cursor, int] | None = None

        def tell(iteration: exact.Iteration, state: Any) -> None:
            prior = 0.0 if problem.log_prior is None else problem.log_prior(state)
            row = exact_row(iteration.iteration, iteration.log_likelihood - prior + self.constant, self.clock)
            history.append(row | {"objective": row["objective"] + prior})
            self.clock.report(history[-1])

        def mark(state: Any, cursor: exact.Cursor) -> None:
            nonlocal last
            last = (state, cursor, len(history))
            if self.checkpointer.due():
                self._keep(state, cursor, history)

        if cursor is not None:
            try:
                state = exact.run(
                    problem.step,
                    state,
                    max_iterations=self.method.max_iterations,
                    tolerance=self.tolerance,
                    acceleration=problem.acceleration,
                    on_iteration=tell,
                    already=already,
                    cursor=cursor,
                    on_cursor=mark,
                ).state
            except exact.EMError as failure:
                self.failures[len(self.results) + 1] = failure
                state, history = problem.start, []
        if last is not None and history and len(self.results) + 1 == self.method.n_init:
            at, cursor, rows = last
            self._keep(at, cursor, history[:rows])
        self.results.append((problem, state, history))

    def best(self) -> tuple[exact.Problem, Any, list[Record]]:
        """The result of the highest log-likelihood; starts that failed are told.

        Raises:
            EMError: all did; the first one's reason.
        """
        succeeded = [result for result in self.results if result[2]]
        if not succeeded:
            raise next(iter(self.failures.values()))
        if self.failures:
            numbers, first = ", ".join(map(str, self.failures)), next(iter(self.failures.values()))
            warnings.warn(f"start {numbers} of {self.method.n_init} failed and was dropped: {first}", FitWarning, stacklevel=3)
        return max(succeeded, key=lambda result: float(result[2][-1]["objective"]))

    def _begin(self, problem: exact.Problem) -> tuple[Any, exact.Cursor | None, list[Record]]:
        """Where the next start is to begin, by the kept state if that has seen it; a start that is over has no cursor."""
        kept, number = self.kept, len(self.results)
        if kept is None or self.checkpointer.restored is None or number >= len(kept.rows):
            return problem.start, exact.Cursor(), []
        leaves, tree = tree_flatten(problem.start)
        state = tree_unflatten([_like(old, new) for old, new in zip(leaves, kept.starts[number], strict=True)], tree)
        first = sum(kept.rows[:number])
        history = self.checkpointer.restored.history[first : first + kept.rows[number]]
        over = number + 1 < len(kept.rows)
        return state, None if over else kept.cursor, history

    def _keep(self, state: Any, cursor: exact.Cursor, history: list[Record]) -> None:
        """Let the checkpointer keep all that it takes to go on from there."""
        states = [*(state for _, state, _ in self.results), state]
        histories = [*(history for _, _, history in self.results), history]
        record = EMState(
            starts=tuple(tuple(tree_leaves(one)) for one in states),
            cursor=cursor,
            rows=[len(rows) for rows in histories],
            max_iterations=self.method.max_iterations,
            seconds=self.clock.seconds,
        )
        self.checkpointer.keep(Snapshot.of(record, list(itertools.chain.from_iterable(histories))))


def _like(old: Any, kept: Tensor) -> Any:
    """A kept leaf where the one at the start is, if it is of its shape."""
    if kept.shape != old.shape:
        raise ValueError(f"expected parameters of shape {tuple(old.shape)}, got {tuple(kept.shape)}")
    return kept.to(old)
