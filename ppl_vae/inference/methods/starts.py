"""Monotone iterations from several starts, of which the best is kept: what EM and coordinate ascent share."""

from __future__ import annotations

import dataclasses
import itertools
import math
import warnings
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from ppl_vae import exact
from ppl_vae.inference.training.clock import Stopwatch
from ppl_vae.program.processes import Processes, current
from ppl_vae.storage import AnyCheckpointer, Snapshot
from ppl_vae.storage.snapshot import restoring
from ppl_vae.types import FitWarning, Record

__all__ = ["Restarting", "Starts", "StartsState", "like"]

SLACK = 1e-9  # the relative fall that passes as rounding


class Restarting(Protocol):
    """A method with several starts."""

    @property
    def n_init(self) -> int:
        """Their number."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class StartsState:
    """All that it takes to go on.

    Attributes:
        starts: the leaves of the state that each start has come to, the last one's in progress.
        cursor: where that one stands.
        rows: of the history, of each start; none of one that failed.
        max_iterations: the most of each start, as declared.
        seconds: worked so far.
    """

    starts: tuple[tuple[Tensor, ...], ...]
    cursor: exact.Cursor
    rows: list[int]
    max_iterations: int
    seconds: float

    def check(self) -> None:
        """Raise ``ValueError`` for numbers that no state has."""
        numbers = (*self.cursor, self.max_iterations, *self.rows)
        if not all(isinstance(number, (int, float)) for number in numbers):
            raise ValueError(f"expected numbers, got {numbers}")


class Starts:
    """Monotone steps from one start after another.

    Args:
        method: whose starts they are.
        limit: the most steps of each, and the field of the method that says it.
        clock: of the fit.
        checkpointer: keeps what it takes to go on.
        constant: what the objective of the source's data is higher by than that of what the model sees.
        tolerance: in nats per datum.
        row: of the history, for an iteration, its objective and the clock.
        climbed: what never falls, and what climbs it, in words.

    Attributes:
        results: the problem, the state and the history of each start that is over; without rows if it failed.
        failures: why, by the number of the start.
    """

    def __init__(
        self,
        method: Restarting,
        limit: tuple[str, int],
        *,
        clock: Stopwatch,
        checkpointer: AnyCheckpointer,
        constant: float,
        tolerance: float,
        row: Callable[[int, float, Stopwatch], Record],
        climbed: tuple[str, str] = ("log-likelihood", "EM"),
    ) -> None:
        self.n_init, self.clock, self.checkpointer = method.n_init, clock, checkpointer
        self.limit, self.most = limit
        self.constant, self.tolerance, self.row, self.climbed = constant, tolerance, row, climbed
        self.results: list[tuple[exact.Problem, Any, list[Record]]] = []
        self.failures: dict[int, exact.EMError] = {}
        self.kept: StartsState | None = None
        if checkpointer.restored is not None:
            with restoring(checkpointer.restored):
                self.kept = checkpointer.restored.record(StartsState)
                self.kept.check()
        if self.n_init > 1 and self.kept is not None and self.kept.max_iterations < self.most:
            raise ValueError(
                f"{type(method).__name__} with n_init={self.n_init} was begun with {self.limit}={self.kept.max_iterations}, "
                "which its earlier starts have used up: resume it with the same, or fit to another folder"
            )

    def iterate(self, problem: exact.Problem) -> None:
        """Iterate from the next start, or go on with it; of several processes from the first one's, by its objective.

        So all of them take the same steps, however their machines round.
        """
        problem = _agreed(problem, current())
        with restoring(self.checkpointer.restored):
            state, cursor, history = self._begin(problem)
            already = [exact.Iteration(row["epoch"], row["objective"] - self.constant, row["seconds"]) for row in history]
        last: tuple[Any, exact.Cursor, int] | None = None

        def tell(iteration: exact.Iteration, state: Any) -> None:
            prior = 0.0 if problem.log_prior is None else problem.log_prior(state)
            row = self.row(iteration.iteration, iteration.log_likelihood - prior + self.constant, self.clock)
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
                    max_iterations=self.most,
                    tolerance=self.tolerance,
                    acceleration=problem.acceleration,
                    slack=SLACK if problem.monotone else math.inf,
                    climbed=self.climbed,
                    on_iteration=tell,
                    already=already,
                    cursor=cursor,
                    on_cursor=mark,
                ).state
            except exact.EMError as failure:
                self.failures[len(self.results) + 1] = failure
                state, history = problem.start, []
        if last is not None and history and len(self.results) + 1 == self.n_init:
            at, cursor, rows = last
            self._keep(at, cursor, history[:rows])
        self.results.append((problem, state, history))

    def best(self) -> tuple[exact.Problem, Any, list[Record]]:
        """The result of the highest objective; starts that failed are told, and what the model says of all of them.

        Raises:
            EMError: all did; the first one's reason.
        """
        succeeded = [result for result in self.results if result[2]]
        if not succeeded:
            raise next(iter(self.failures.values()))
        if self.failures:
            numbers, first = ", ".join(map(str, self.failures)), next(iter(self.failures.values()))
            warnings.warn(f"start {numbers} of {self.n_init} failed and was dropped: {first}", FitWarning, stacklevel=3)
        told = succeeded[0][0].compare
        ends = [(state, float(history[-1]["objective"])) for _, state, history in succeeded]
        if told is not None and (remark := told(ends)):
            warnings.warn(remark, FitWarning, stacklevel=3)
        return max(succeeded, key=lambda result: float(result[2][-1]["objective"]))

    def _begin(self, problem: exact.Problem) -> tuple[Any, exact.Cursor | None, list[Record]]:
        """Where the next start is to begin, by the kept state if that has seen it; a start that is over has no cursor."""
        kept, number = self.kept, len(self.results)
        if kept is None or self.checkpointer.restored is None or number >= len(kept.rows):
            return problem.start, exact.Cursor(), []
        leaves, tree = tree_flatten(problem.start)
        state = tree_unflatten([like(old, new) for old, new in zip(leaves, kept.starts[number], strict=True)], tree)
        first = sum(kept.rows[:number])
        history = self.checkpointer.restored.history[first : first + kept.rows[number]]
        over = number + 1 < len(kept.rows)
        return state, None if over else kept.cursor, history

    def _keep(self, state: Any, cursor: exact.Cursor, history: list[Record]) -> None:
        """Let the checkpointer keep all that it takes to go on from there."""
        states = [*(state for _, state, _ in self.results), state]
        histories = [*(history for _, _, history in self.results), history]
        record = StartsState(
            starts=tuple(tuple(tree_leaves(one)) for one in states),
            cursor=cursor,
            rows=[len(rows) for rows in histories],
            max_iterations=self.most,
            seconds=self.clock.seconds,
        )
        self.checkpointer.keep(Snapshot.of(record, list(itertools.chain.from_iterable(histories))))


def _agreed(problem: exact.Problem, processes: Processes) -> exact.Problem:
    """The same fit in all processes: the start, and the objective by which steps are judged, are the first one's."""
    if processes.count == 1:
        return problem

    def step(state: Any) -> tuple[Any, Any]:
        following, value = problem.step(state)
        value = torch.as_tensor(value, dtype=torch.float64).clone()
        processes.broadcast_([value])
        return following, value

    start = tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, problem.start)
    processes.broadcast_([leaf for leaf in tree_leaves(start) if isinstance(leaf, Tensor)])
    return problem._replace(step=step, start=start)


def like(old: Any, kept: Tensor) -> Any:
    """A kept leaf where the one at the start is, if it is of its shape."""
    if kept.shape != old.shape:
        raise ValueError(f"expected parameters of shape {tuple(old.shape)}, got {tuple(kept.shape)}")
    return kept.to(old)
