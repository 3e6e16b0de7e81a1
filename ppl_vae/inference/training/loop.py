"""The training of one fit: epochs of gradient steps, and all that a state of it holds."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from ppl_vae.data import Data, Split
from ppl_vae.data.fields import WEIGHTS
from ppl_vae.evaluate import evaluate, log_jacobian
from ppl_vae.evaluate.rows import batches, mean
from ppl_vae.inference.training.best import Best
from ppl_vae.inference.training.clock import Stopwatch
from ppl_vae.inference.training.draws import RowDraws
from ppl_vae.inference.training.nonfinite import Batch, NonFinitePolicy
from ppl_vae.inference.training.plan import TrainingPlan
from ppl_vae.inference.training.state import TrainingState
from ppl_vae.inference.training.stepper import Stepper
from ppl_vae.nn.cost import multiplications
from ppl_vae.program.context import evaluating, local_params, seeded
from ppl_vae.program.hooks import median_writer
from ppl_vae.program.machine import cpu_threads, products
from ppl_vae.program.pair import Pair
from ppl_vae.program.replay import go_on_after
from ppl_vae.storage import AnyCheckpointer, Snapshot
from ppl_vae.storage.snapshot import restoring
from ppl_vae.types import FitWarning, Record

__all__ = ["ESTIMATED", "Training"]

SUMMED = 2**18  # elements of all validation rows up to which a plate of which a run sees a sample is summed at every epoch
ESTIMATED = 16  # draws of each row where they are more


class Training:
    """The order of the data, the rows of the history, the memory of the best: what there is around the steps of one fit.

    Args:
        plan: how.
        pair: model and guide, their start found.
        data: the splits.
        clock: seconds worked, and where rows are told.
        checkpointer: has the snapshot to go on from, if there is one, and keeps others.

    Attributes:
        stepper: takes the steps.
        policy: sees to it that they stay finite.
        history: a row an epoch.
        best: the best epoch so far, where there are validation rows.
        learning_rate: of the first step of the epoch in progress.

    Raises:
        ValueError: there is nothing to train, nothing to alternate, or the snapshot is of another fit.
    """

    def __init__(self, plan: TrainingPlan, pair: Pair, data: Data, clock: Stopwatch, checkpointer: AnyCheckpointer) -> None:
        self.plan, self.pair, self.data, self.clock, self.checkpointer = plan, pair, data, clock, checkpointer
        self.steps_per_epoch = sum(math.ceil(len(part) / plan.batch_size) for part, _ in data.train.apart(pair.reads))
        self.ragged = data.train.lead is not None
        self.stepper = Stepper(plan, pair, data, self.steps_per_epoch)
        self.processes = self.stepper.processes
        self.policy = NonFinitePolicy(self.stepper, plan.on_nonfinite, checkpointer.folder if self.processes.first else None)
        self.constant = log_jacobian(pair, data.train)
        # All data at once come in their order, so that a plain program may have parameters for each of them.
        self.in_order = pair.plain and plan.batch_size >= len(data.train)
        self.write_medians = median_writer(pair.guide)
        self.generator = torch.Generator(data.train.device).manual_seed(plan.seed)
        self.order = self.generator.get_state()
        self.draws = None if plan.sampling is None else RowDraws(plan.sampling, pair, data.train, plan.seed)
        self.best = Best()
        self.history: list[Record] = []
        self.planned_epochs = plan.epochs
        self.learning_rate = plan.learning_rate
        self.threads: int | None = None
        if checkpointer.restored is None:
            self.stepper.make_steps(plan.epochs)
        else:
            with restoring(checkpointer.restored):
                self._go_on(checkpointer.restored)
        self.processes.broadcast_(list(self.stepper.tensors().values()))  # a plain program may have begun by chance

    def _go_on(self, kept: Snapshot) -> None:
        """Be where a snapshot was taken; one that is not of such a fit changes nothing."""
        state = kept.record(TrainingState)
        state.check()
        # What was recorded or compiled for a fit stays so when the fit goes on, for more epochs too.
        self.planned_epochs = state.planned_epochs
        self.stepper.make_steps(state.planned_epochs, [optimizer.steps for optimizer in state.steps.optimizers])
        state.steps.check_like(self.stepper.state())
        self._meet(state.sizes)
        self.stepper.restore(state.steps)
        self.stepper.rate_factor = state.rate_factor
        self.policy.tries = state.tries
        self.generator.set_state(state.order)
        if self.draws is not None:
            self.draws.restore(state.draws)
        self.order, self.learning_rate, self.threads = state.order, state.learning_rate, state.threads
        device = self.data.train.device
        self.best = state.best._replace(weights={name: value.to(device) for name, value in state.best.weights.items()})
        self.history = list(kept.history)
        go_on_after(self.pair, len(self.history))

    def _meet(self, sizes: list[Any]) -> None:
        """Meet batches of the sizes that were met before: at the first of each both programs run once more."""
        self.pair.train()
        for size in sizes:
            if isinstance(size, list):
                self._meet_padded(*size)
            elif size <= len(self.data.train):
                with self._first_rows(size) as batch:
                    self.pair.plates(*batch)

    def _meet_padded(self, size: int, length: int) -> None:
        """Meet a batch of so many rows that are padded to a length."""
        for part, _ in self.data.train.apart(self.pair.reads):
            if part.lead is not None and part.lead.longest == length:
                rows = torch.arange(size, device=part.device) % len(part)
                self.pair.plates(*next(part[rows].read(self.pair.reads, size)))

    def keep(self) -> None:
        """Let the checkpointer keep the state as it is now."""
        self.checkpointer.keep(Snapshot.of(self.state(), self.history))

    def state(self) -> TrainingState:
        """All that it takes to go on to the same bits; its tensors are those that the next step changes."""
        return TrainingState(
            steps=self.stepper.state(),
            order=self.order,
            draws={} if self.draws is None else self.draws.state,
            best=self.best,
            planned_epochs=self.planned_epochs,
            learning_rate=self.learning_rate,
            rate_factor=self.stepper.rate_factor,
            tries=self.policy.tries,
            sizes=self.pair.padded_sizes if self.ragged else self.pair.sizes,
            threads=self.threads or torch.get_num_threads(),
            seconds=self.clock.seconds,
        )

    def run(self) -> list[Record]:
        """Train to the end; the history."""
        stepper = self.stepper
        begun = stepper.epoch, stepper.batch_index
        cost = self._cost()
        stepper.set_precision(cost * self.processes.count)
        with cpu_threads(cost, like=self.threads), products(self.plan.precision):
            self.threads = torch.get_num_threads()
            self._tell_undivided()
            while not self.done:
                self.advance()
                if not self.done and self.checkpointer.due():
                    self.keep()
            if (stepper.epoch, stepper.batch_index) != begun:
                self.keep()
        if self.best.weights:
            self.pair.load_state_dict(self.best.weights)
            self.write_medians()
        return self.history

    @property
    def done(self) -> bool:
        """Whether all epochs are over, or so many without a better one that the rest is not worth while."""
        patience, epoch = self.plan.patience, self.stepper.epoch
        return epoch >= self.plan.epochs or (patience is not None and epoch - self.best.epoch >= patience > 0)

    def _tell_undivided(self) -> None:
        if len(self.data.valid) and self.pair.undivided:
            told = f"the model sums out {', '.join(self.pair.undivided)}, which all data share"
            warnings.warn(
                f"validation rows have no {self.pair.score.label} of their own, so none is told: {told}",
                FitWarning,
                stacklevel=2,
            )

    def _cost(self) -> int:
        """The multiplications of a step, forwards."""
        size, objective = max(1, self.plan.batch_size // self.processes.count), self.stepper.objective
        with evaluating(objective), local_params(), seeded(0, self.data.train.device), self._first_rows(size) as batch:
            self.pair.plates(*batch)  # the first batch of a size runs both programs once more
            return multiplications(objective, *batch, gradients=self.pair.asks_gradients)

    @contextlib.contextmanager
    def _first_rows(self, size: int) -> Iterator[tuple[Tensor, ...]]:
        """The first so many rows as a batch."""
        train = self.data.train
        if self.ragged and not self.pair.local:  # the rows of one batch are padded to one length
            train = max((part for part, _ in train.apart(self.pair.reads)), key=len)
        found = batches(self.pair, train if self.pair.local else train[:size], size)
        yield next(found)  # which is alive, and knows its rows, until the batch is done with

    def advance(self) -> None:
        """The rest of a pass over the training data, then the validation ELBO, and the row of both."""
        stepper = self.stepper
        self.pair.train()
        rate = stepper.set_rate()
        if not stepper.batch_index:
            self.learning_rate = rate
        totals = self._pass()
        self._check_parameters()
        if self.processes.count > 1:
            self.processes.same_tensors(self.stepper.tensors(), "after an epoch")
        row = self._row(*(totals[:3] / max(1, len(self.data.train) - stepper.skipped)).tolist())
        if self.plan.skip_norm is not None:
            row["skipped"] = self._told_skipped(int(totals[3]))
        stepper.end_epoch()
        self.order = self.generator.get_state()
        self.history.append({**row, "learning_rate": self.learning_rate, "seconds": self.clock.seconds})
        self.write_medians()
        self.clock.report(self.history[-1])
        if (valid := row.get(f"valid_{self.pair.score.name}")) is not None:
            self.best = self.best.after(valid, stepper.epoch, self.pair if self.plan.restore_best else None)

    def _pass(self) -> Tensor:
        """Step through the rest of the training data; the ``totals`` of its steps."""
        stepper = self.stepper
        if not stepper.batch_index:
            stepper.start_epoch()
            if self.draws is not None:
                self.draws.begin()
                self.processes.broadcast_(list(self.draws.state.values()))
        self.policy.start_pass()
        for block, together in self._together(islice(self._batches(), stepper.batch_index, None)):
            self.policy.several(block, together)
            self.clock.step(stepper.batch_index, self.steps_per_epoch)
            if self.checkpointer.due():
                self.policy.check()
                self.keep()
        self.policy.check()
        return stepper.totals

    def _batches(self) -> Iterator[Batch]:
        """Blocks of the data, and which of their rows are a batch."""
        train = self.data.train
        reads = self.pair.reads if train.weights is None else (*self.pair.reads, WEIGHTS)
        drawn = None if self.draws is None else self.draws.rows(self.stepper.epoch)
        for block, places in train.steps(self.plan.batch_size, generator=self.generator, reads=reads):
            rows = places if drawn is None else drawn[places]
            yield block, rows.sort().values if self.in_order else rows

    def _together(self, each: Iterator[Batch]) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        """Blocks, and the rows of batches of one size that follow one another in them, as many as are best taken together."""
        block: list[Tensor] = []
        found: list[Tensor] = []
        size = most = 0
        for other, rows in each:
            if found and (len(found) == most or other is not block or rows.numel() != size):
                yield block, found
                found = []
            if not found:
                block, size, most = other, rows.numel(), self.stepper.at_once
            found.append(rows)
        if found:
            yield block, found

    def _row(self, objective: float, elbo: float, reconstruction: float) -> Record:
        """What the history says of the epoch in progress, by the means over its data, and of the validation rows."""
        score, constant, declared = self.pair.score, self.constant, self.plan.objective
        row: Record = {"epoch": self.stepper.epoch + 1, "objective": objective + (constant if declared.bounds else 0.0)}
        if declared.name:
            row["objective_name"] = declared.name
        if declared.tells_elbo:
            row[score.name] = elbo + constant
        if math.isfinite(reconstruction):
            halves = {"reconstruction": reconstruction + constant, "kl": reconstruction - elbo}
            row |= {name: halves[name] for name in score.parts}
        if self.draws is not None:  # the steps' means are those of the rows that were drawn
            row |= {**self._evaluated(self.data.train, ""), **self.draws.row()}
        if (sizes := self.data.train.sizes) is not None and score.name in row:
            row[f"{score.name}_per_token"] = row[score.name] / mean(sizes.double(), self.data.train.weights)
        if len(self.data.valid) and not (self.pair.local or self.pair.undivided):
            row |= self._evaluated(self.data.valid, "valid_")
        return row

    def _evaluated(self, split: Split, prefix: str) -> Record:
        """The score and its halves of rows of a split."""
        of_sum, score = self.pair.can.sum_bound, self.pair.score
        summed = of_sum is None or len(split) * of_sum.summed_elements <= SUMMED
        found = evaluate(self.pair, split, samples=1 if summed else ESTIMATED, summed=summed)
        names = (score.name, *score.parts, f"{score.name}_per_token")
        return {f"{prefix}{name}": found[name] for name in names if name in found}

    def _told_skipped(self, steps: int) -> int:
        """The number of steps of the epoch in progress whose gradient was too large; a remark if they begin to be most."""
        most = self.steps_per_epoch // 2
        if steps > most and not (self.history and self.history[-1]["skipped"] > most):
            warnings.warn(
                f"{steps} of the {self.steps_per_epoch} steps of epoch {self.stepper.epoch + 1} were skipped, whose gradients "
                f"have norms above skip_norm = {self.plan.skip_norm:g}: raise it, or set clip_norm instead",
                FitWarning,
                stacklevel=2,
            )
        return steps

    def _check_parameters(self) -> None:
        """Raise ``ValueError`` for a parameter that a program first asked for when its training had begun without it."""
        known = {id(parameter) for parameter in self.stepper.parameters}
        named = self.stepper.objective.named_parameters()
        late = [name for name, value in named if value.requires_grad and id(value) not in known]
        if late:
            raise ValueError(
                f"the parameters {', '.join(late[:3])} were first asked for after the first batch, and are not trained: ask "
                "for all of them at every call"
            )
