"""Coordinate ascent as a method: the model says how each factor of q is updated, the guide keeps the factors."""

from __future__ import annotations

import dataclasses
import math
import warnings
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from ppl_vae.data import Data
from ppl_vae.data.matrices import Matrices
from ppl_vae.declaration import require
from ppl_vae.evaluate import log_jacobian
from ppl_vae.exact import Stochastic, Sweep
from ppl_vae.inference.methods.base import Method
from ppl_vae.inference.methods.conjugate import remedy_of
from ppl_vae.inference.methods.starts import Starts, like
from ppl_vae.inference.training.clock import Stopwatch
from ppl_vae.program.pair import Pair
from ppl_vae.storage import NULL_CHECKPOINTER, AnyCheckpointer, Snapshot
from ppl_vae.storage.snapshot import restoring
from ppl_vae.types import FitWarning, Record, Report

__all__ = ["CAVI"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CAVI(Method):
    """Coordinate-ascent variational inference (Bishop 2006, section 10.1): one factor of q after the other, in closed form.

    A sweep updates all of them once, from all training data, and the ELBO never falls. With a ``batch_size`` it is stochastic
    variational inference (Hoffman et al. 2013): the shared factors move by what a batch would make of them if it were all data,
    with the weight ``(delay + t) ** -forgetting`` at step t, and of a smaller last batch as much less. The guide is
    ``MeanField()``.

    Args:
        seed: of random starts, and of the order of batches.
        sweeps: the most sweeps of each start, or passes over the data.
        tolerance: converged when a sweep gains less than this many nats per element of a datum; unused with a batch size.
        n_init: number of starts; the best one is kept. One start, the first of several, may be a fixed one of the model's.
        batch_size: rows of a stochastic step; ``None`` for sweeps over all data.
        forgetting: kappa in (0.5, 1], how soon early batches are forgotten; of a batch size alone.
        delay: tau of at least 0, so that early steps weigh less; of a batch size alone.
        collapsed: shared parameters are integrated out, where the model can (topics: Asuncion et al. 2009).
        parallel: all factors are updated at once from the old ones, where the model can; a step that would lower the bound is
            shortened.
        damping: the weight in [0, 1) of an old factor in the new one, where the model can.

    Raises:
        ValueError: a number out of range, several starts or ``collapsed`` with a batch size, or ``forgetting`` or ``delay``
            without one.
    """

    posterior_guide: ClassVar[Literal["exact", "factors", "any"]] = "factors"
    takes_weights: ClassVar[bool] = True
    takes_processes: ClassVar[bool] = True
    live: ClassVar[bool] = False
    length: ClassVar[str | None] = "sweeps"

    sweeps: int = 1000
    tolerance: float = 1e-8
    n_init: int = 1
    batch_size: int | None = None
    forgetting: float = 0.7
    delay: float = 1.0
    collapsed: bool = False
    parallel: bool = False
    damping: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.sweeps >= 1, "at least 1 sweep", self.sweeps)
        require(0 <= self.tolerance < math.inf, "a tolerance of at least 0", self.tolerance)
        require(self.n_init >= 1, "an n_init of at least 1", self.n_init)
        require(self.batch_size is None or self.batch_size >= 1, "a batch_size of at least 1", self.batch_size)
        require(self.batch_size is None or self.n_init == 1, "an n_init of 1 with a batch_size", self.n_init)
        require(0.5 < self.forgetting <= 1, "a forgetting above 0.5 and at most 1", self.forgetting)
        require(0 <= self.delay < math.inf, "a delay of at least 0", self.delay)
        require(not self.collapsed or self.batch_size is None, "no batch_size with collapsed=True", self.batch_size)
        whole = self.batch_size is None  # so that nothing is forgotten
        require(not whole or self.forgetting == CAVI.forgetting, "a batch_size with a forgetting of its own", self.batch_size)
        require(not whole or self.delay == CAVI.delay, "a batch_size with a delay of its own", self.batch_size)
        require(0 <= self.damping < 1, "a damping of at least 0 and below 1", self.damping)

    @property
    def iterations(self) -> int:
        """The sweeps of all starts together."""
        return self.sweeps * self.n_init

    def steps_per_epoch(self, rows: int) -> int:
        """Batches in a pass."""
        return 1 if self.batch_size is None else math.ceil(rows / self.batch_size)

    def run(self, pair: Pair, data: Data, report: Report, checkpointer: AnyCheckpointer = NULL_CHECKPOINTER) -> list[Record]:
        """Fit the pair's guide; a row of history per sweep of the best start, or per pass of stochastic steps.

        ``objective`` and the pair's score are one number in nats per datum: the ELBO in closed form, or the mean of a pass's
        estimates of it.

        Raises:
            ValueError: a model without factors, another guide than its mean field, or no start that succeeds.
        """
        self._check(pair, data)
        clock = Stopwatch(report, checkpointer.restored.seconds if checkpointer.restored else 0.0)
        if self.batch_size is not None:
            return _Passes(self, pair, data, clock, checkpointer).run()
        name = pair.score.name

        def row(iteration: int, value: float, clock: Stopwatch) -> Record:
            return {"epoch": iteration, "objective": value, name: value, "seconds": clock.seconds}

        starts = Starts(
            self,
            ("sweeps", self.sweeps),
            clock=clock,
            checkpointer=checkpointer,
            constant=log_jacobian(pair, data.train),
            tolerance=self.tolerance * math.prod(data.spec.event_shape),
            row=row,
            climbed=(pair.score.label, "coordinate ascent"),
        )
        rows, generator = Matrices(data.train), self._generator(data)
        for start in range(self.n_init):
            starts.iterate(_ascent(pair).cavi(pair.guide, rows, self.sweep(pair, generator, first=start == 0)))
        problem, state, history = starts.best()
        problem.assign(state)
        _remark(problem.remark(state))
        return [*history[:-1], {**history[-1], "seconds": clock.seconds}]

    def sweep(self, pair: Pair, generator: torch.Generator, *, first: bool) -> Sweep:
        """How a start is swept; the first is the model's own fixed one where it has one."""
        fixed = first and not pair.model_facts.random_start
        return Sweep(None if fixed else generator, self.collapsed, self.parallel, self.damping)

    def _generator(self, data: Data) -> torch.Generator:
        return torch.Generator(data.train.device).manual_seed(self.seed)

    def _check(self, pair: Pair, data: Data) -> None:
        """Raise ``ValueError`` for a pair or data that this cannot fit."""
        if pair.can.ascend is None and (self.batch_size is None or pair.can.ascend_batches is None):
            raise ValueError(
                f"CAVI cannot fit this model: it offers no 'cavi', updates of factors in closed form; {remedy_of(pair)}"
            )
        if self.batch_size is not None and pair.can.ascend_batches is None:
            raise ValueError(
                "expected no batch_size for CAVI of this model, which updates its factors from all rows at once, got "
                f"{self.batch_size}: leave it out"
            )
        if not pair.can.bound:
            raise ValueError("CAVI fits the model's own factors: use guide=MeanField(), or fit this guide by SVI")
        if data.train.weights is not None and (self.batch_size is not None or not pair.model_facts.takes_weights):
            raise ValueError(
                f"CAVI of this model{' in batches' if self.batch_size else ''} does not look at the weights of rows: load the "
                "data without"
            )


def _ascent(pair: Pair) -> Any:
    return pair.can.ascend


def _remark(told: str | None) -> None:
    if told:
        warnings.warn(told, FitWarning, stacklevel=3)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PassesState:
    """All that it takes to go on with stochastic steps.

    Attributes:
        factors: the leaves of the state.
        steps: taken so far.
        passes: over so far.
        total: the sum of the estimates of the pass in progress, each by the rows of its batch.
        order: of the generator, when the pass in progress began.
        seconds: worked so far.
    """

    factors: tuple[Tensor, ...]
    steps: int
    passes: int
    total: float
    order: Tensor
    seconds: float


class _Passes:
    """Natural-gradient steps on batches, pass after pass."""

    def __init__(self, method: CAVI, pair: Pair, data: Data, clock: Stopwatch, checkpointer: AnyCheckpointer) -> None:
        self.method, self.clock, self.checkpointer = method, clock, checkpointer
        self.train, self.score = data.train, pair.score.name
        self.constant = log_jacobian(pair, data.train)
        self.generator = torch.Generator(data.train.device).manual_seed(method.seed)
        self.order = self.generator.get_state()
        self.rows = method.steps_per_epoch(len(data.train))
        begun = torch.Generator(data.train.device).manual_seed(method.seed)
        model: Any = pair.can.ascend_batches
        self.problem: Stochastic = model.stochastic(pair.guide, Matrices(data.train), method.sweep(pair, begun, first=True))
        self.state, self.steps, self.passes, self.total = self.problem.start, 0, 0, 0.0
        self.history: list[Record] = []
        if checkpointer.restored is not None:
            with restoring(checkpointer.restored):
                self._go_on(checkpointer.restored)

    def _go_on(self, kept: Snapshot) -> None:
        state = kept.record(PassesState)
        leaves, tree = tree_flatten(self.state)
        self.state = tree_unflatten([like(old, new) for old, new in zip(leaves, state.factors, strict=True)], tree)
        self.steps, self.passes, self.total = state.steps, state.passes, state.total
        self.order = state.order
        self.generator.set_state(state.order)
        self.history = list(kept.history)

    def run(self) -> list[Record]:
        """To the end; the history."""
        begun = self.steps
        while self.passes < self.method.sweeps:
            self._pass()
        if self.steps > begun:
            self._keep()
        self.problem.assign(self.state)
        _remark(self.problem.remark(self.state))
        return [*self.history[:-1], {**self.history[-1], "seconds": self.clock.seconds}]

    def _pass(self) -> None:
        """The rest of a pass, and its row."""
        method, taken = self.method, self.steps - self.passes * self.rows
        size = method.batch_size or 1
        for number, x in enumerate(self.train.batches(size, generator=self.generator)):
            if number < taken:
                continue
            rate = (method.delay + self.steps + 1) ** -method.forgetting * len(x) / min(size, len(self.train))
            self.state, value = self.problem.step(self.state, x, rate)
            self.total += float(value) * len(x)
            self.steps += 1
            self.clock.step(number + 1, self.rows)
            if self.checkpointer.due():
                self._keep()
        mean, self.total = self.total / len(self.train) + self.constant, 0.0
        self.passes += 1
        self.order = self.generator.get_state()
        if not math.isfinite(mean):
            raise ValueError(f"the estimate of the bound is {mean} after {self.passes} passes: raise delay, or batch_size")
        row = {"epoch": self.passes, "objective": mean, self.score: mean, "seconds": self.clock.seconds}
        self.history.append(row)
        self.clock.report(row)

    def _keep(self) -> None:
        record = PassesState(
            factors=tuple(tree_leaves(self.state)),
            steps=self.steps,
            passes=self.passes,
            total=self.total,
            order=self.order,
            seconds=self.clock.seconds,
        )
        self.checkpointer.keep(Snapshot.of(record, self.history))
