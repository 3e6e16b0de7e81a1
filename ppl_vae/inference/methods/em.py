"""Expectation maximization and closed forms as methods: the model says what to iterate, its modules get the result."""

from __future__ import annotations

import dataclasses
import itertools
import math
import warnings
from collections.abc import Mapping
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
from ppl_vae.inference.methods.conjugate import exact_row, offered
from ppl_vae.inference.training.clock import Stopwatch
from ppl_vae.program.pair import Pair
from ppl_vae.storage import NULL_CHECKPOINTER, AnyCheckpointer, Snapshot
from ppl_vae.storage.snapshot import restoring
from ppl_vae.types import FitWarning, Record, Report

__all__ = ["EM"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EM(Method):
    """Expectation maximization (Dempster, Laird and Rubin 1977) on all training data at once, in float64.

    Each iteration's log-likelihood is exact and never falls. A start whose log-likelihood falls all the same, as rounding may
    let it, is dropped with a remark; if there is no other, the fit stops with an error. The guide is not fitted: it
    must be ``ExactPosterior()``.

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

    def run(self, pair: Pair, data: Data, report: Report, keeper: AnyCheckpointer = NULL_CHECKPOINTER) -> list[Record]:
        """Fit the pair's model; a row of history per accepted step of the best start.

        ``log_likelihood``, ``objective`` and ``elbo`` are one number, exact, in nats per datum: after the E-step the ELBO is
        tight.

        Raises:
            ValueError: a model without EM steps, a guide with parameters of its own, or no start that succeeds.
        """
        problem_of = offered(self, pair, "em")
        clock = Stopwatch(report, keeper.restored.metadata["seconds"] if keeper.restored else 0.0)
        rows = Matrices(data.train)
        generator = torch.Generator(data.train.device).manual_seed(self.seed)
        elements = math.prod(data.spec.event_shape)
        starts = _Starts(self, clock, keeper, log_jacobian(pair, data.train), self.tolerance * elements)
        for start in range(self.n_init):
            fixed = start == 0 and not getattr(pair.model, "random_start", False)
            problem = problem_of(rows, generator=None if fixed else generator, accelerate=self.acceleration == "squarem")
            if start == 0 and "model" in pair.warm:
                problem = problem._replace(start=pair.model.em_state())
            starts.iterate(problem)
        problem, state, history = starts.best()
        problem.assign(state)
        if remark := problem.remark(state):
            warnings.warn(remark, FitWarning, stacklevel=2)
        return [*history[:-1], {**history[-1], "seconds": clock.seconds}]


class _Starts:
    """EM from one start after another, and what a state of it holds: the states of all starts, the last one's in progress.

    Attributes:
        results: the problem, the state and the history of each start that is over; without rows if it failed.
        failures: why, by the number of the start.
    """

    def __init__(self, method: EM, clock: Stopwatch, keeper: AnyCheckpointer, constant: float, tolerance: float) -> None:
        self.method, self.clock, self.keeper, self.constant, self.tolerance = method, clock, keeper, constant, tolerance
        self.results: list[tuple[exact.Problem, Any, list[Record]]] = []
        self.failures: dict[int, exact.EMError] = {}
        facts = keeper.restored.metadata if keeper.restored else {}
        if method.n_init > 1 and facts.get("max_iterations", math.inf) < method.max_iterations:
            raise ValueError(
                f"EM with n_init={method.n_init} was begun with max_iterations={facts['max_iterations']}, which its earlier "
                "starts have used up: resume it with the same, or fit to another folder"
            )

    def iterate(self, problem: exact.Problem) -> None:
        """Iterate from the next start, or go on with it."""
        with restoring(self.keeper.restored):
            state, place, history = self._begin(problem)
            already = [exact.Iteration(row["epoch"], row["log_likelihood"] - self.constant, row["seconds"]) for row in history]
        marked: tuple[Any, exact.Place, int] | None = None

        def tell(iteration: exact.Iteration, state: Any) -> None:
            history.append(exact_row(iteration.iteration, iteration.log_likelihood + self.constant, self.clock))
            self.clock.report(history[-1])

        def mark(state: Any, place: exact.Place) -> None:
            nonlocal marked
            marked = (state, place, len(history))
            if self.keeper.due():
                self.keeper.keep(self._state(state, place, history))

        if place is not None:
            try:
                state = exact.run(
                    problem.step,
                    state,
                    max_iterations=self.method.max_iterations,
                    tolerance=self.tolerance,
                    acceleration=problem.acceleration,
                    on_iteration=tell,
                    already=already,
                    place=place,
                    on_place=mark,
                ).state
            except exact.EMError as failure:
                self.failures[len(self.results) + 1] = failure
                state, history = problem.start, []
        if marked is not None and history and len(self.results) + 1 == self.method.n_init:
            at, place, rows = marked
            self.keeper.keep(self._state(at, place, history[:rows]))
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
        return max(succeeded, key=lambda result: result[2][-1]["log_likelihood"])

    def _begin(self, problem: exact.Problem) -> tuple[Any, exact.Place | None, list[Record]]:
        """Where the next start is to begin, by the kept state if that has seen it; a start that is over has no place."""
        kept, number = self.keeper.restored, len(self.results)
        if kept is None or number >= len(kept.metadata["rows"]):
            return problem.start, exact.Place(), []
        leaves, tree = tree_flatten(problem.start)
        state = tree_unflatten([_as(old, kept.tensors[f"{number}.{leaf}"]) for leaf, old in enumerate(leaves)], tree)
        first = sum(kept.metadata["rows"][:number])
        history = kept.history[first : first + kept.metadata["rows"][number]]
        over = number + 1 < len(kept.metadata["rows"])
        return state, None if over else _place(kept.metadata), history

    def _state(self, state: Any, place: exact.Place, history: list[Record]) -> Snapshot:
        """All that it takes to go on from a place."""
        states = [*(state for _, state, _ in self.results), state]
        histories = [*(history for _, _, history in self.results), history]
        leaves = {f"{number}.{leaf}": value for number, one in enumerate(states) for leaf, value in enumerate(tree_leaves(one))}
        facts = {
            "rows": [len(rows) for rows in histories],
            "steps": place.steps,
            "judged": place.judged,
            "gained": place.gained,
            "rate": place.rate,
            "max_iterations": self.method.max_iterations,
            "seconds": self.clock.seconds,
        }
        return Snapshot(leaves, facts, list(itertools.chain.from_iterable(histories)))


def _place(metadata: Mapping[str, Any]) -> exact.Place:
    gained, rate = float(metadata.get("gained", math.inf)), float(metadata.get("rate", 0.0))  # snapshots of before tell none
    return exact.Place(int(metadata["steps"]), float(metadata["judged"]), gained, rate)


def _as(old: Any, kept: Tensor) -> Any:
    """A kept leaf where the one at the start is, if it is of its shape."""
    if kept.shape != old.shape:
        raise ValueError(f"expected parameters of shape {tuple(old.shape)}, got {tuple(kept.shape)}")
    return kept.to(old)
