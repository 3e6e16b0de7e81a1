"""The training of one fit: epochs of gradient steps, and all that a state of it holds."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ppl_vae.data import Data
from ppl_vae.data.fields import taken
from ppl_vae.evaluate import batches, evaluate, log_jacobian
from ppl_vae.inference.training.clock import Stopwatch
from ppl_vae.inference.training.nonfinite import Guard
from ppl_vae.inference.training.optimizers import OPTIMIZERS, Optimizer
from ppl_vae.inference.training.schedules import SCHEDULES
from ppl_vae.inference.training.step import Step
from ppl_vae.nn.cost import multiplications
from ppl_vae.program.context import evaluating, local_params, seeded
from ppl_vae.program.machine import cpu_threads, products
from ppl_vae.program.pair import Pair
from ppl_vae.program.randomness import put_random, random_state
from ppl_vae.storage import AnyCheckpointer, Snapshot
from ppl_vae.storage.snapshot import restoring
from ppl_vae.types import HALVES, Remark, Row

if TYPE_CHECKING:
    from ppl_vae.inference.methods.svi import SVI

__all__ = ["Training"]

LEARNING_RATE = 2e-3
FACTS = ("planned", "epoch", "taken", "skipped", "turn", "damping", "learning_rate", "threads")
MOST_THREADS = 1024  # of a state: torch makes as many as it is told, and dies of too many


class Training:
    """Optimizers, the order of the data, the memory of the best: what there is between the steps of one fit.

    Args:
        method: how.
        pair: model and guide, their start found.
        data: the splits.
        clock: seconds worked, and where rows are told.
        keeper: has the state to go on from, if there is one, and keeps others.

    Attributes:
        epoch: epochs done.
        taken: steps of the epoch in progress, those skipped included.
        skipped: rows of that epoch whose steps were not taken.
        turn: whose turn it is to be optimized.
        damping: what the learning rate is multiplied by after it was found too large.
        learning_rate: of the first step of the epoch in progress.
    """

    def __init__(self, method: SVI, pair: Pair, data: Data, clock: Stopwatch, keeper: AnyCheckpointer) -> None:
        self.method, self.pair, self.data, self.clock, self.keeper = method, pair, data, clock, keeper
        kept = keeper.restored
        device = data.train.device
        self.kinds = [len(part) for part, _ in data.train.apart(pair.reads)]  # rows that make batches of their own
        self.per_epoch = sum(math.ceil(size / method.batch_size) for size in self.kinds)
        self.ragged = data.train.lead is not None
        self.objective = method.objective.build(pair, self.per_epoch).to(device)
        self.constant = log_jacobian(pair, data.train)
        self.modules = nn.ModuleDict({"pair": pair, "transform": data.train.transform, "objective": self.objective})
        self.parameters = [parameter for parameter in self.objective.parameters() if parameter.requires_grad]
        if not self.parameters:
            raise ValueError(
                "model and guide have no parameters to train: declare them with pyro.param, register networks with "
                "pyro.module, or make the programs modules"
            )
        # All data at once come in their order, so that a plain program may have parameters for each of them.
        self.whole = pair.plain and method.batch_size >= len(data.train)
        self.rate = method.learning_rate or pair.model_facts.learning_rate or LEARNING_RATE
        groups = _halves(pair) if method.alternate else [self.parameters]
        self.optimizers: list[Optimizer] = [OPTIMIZERS[method.optimizer](group, self.rate) for group in groups]
        with restoring(kept):
            # What was recorded or compiled for a fit stays so when the fit goes on, for more epochs too.
            self.planned: int = _counted(kept.metadata["planned"]) if kept else method.epochs
            steps = kept.metadata["steps"] if kept else [0] * len(groups)
            begun = [_counted(number) > 0 for _, number in zip(groups, steps, strict=True)]
        self.steps = [self._step(optimizer, begun=before) for optimizer, before in zip(self.optimizers, begun, strict=True)]
        self.generator = torch.Generator(device).manual_seed(method.seed)
        self.order = self.generator.get_state()
        self.best = _Best()
        self.history: list[Row] = []
        self.epoch = self.taken = self.skipped = self.turn = 0
        self.damping = 1.0
        self.learning_rate = self.rate
        self.threads: int | None = None
        self.guard = Guard(self, method.on_nonfinite, keeper.folder)
        if kept:
            with restoring(kept):
                self._check(kept)
                self._visit(kept.metadata["sizes"])
                self.load(kept)

    def run(self) -> list[Row]:
        """Train to the end; the history."""
        begun = self.epoch, self.taken
        with cpu_threads(self._cost(), like=self.threads), products(self.method.precision):
            self.threads = torch.get_num_threads()
            self._tell_undivided()
            while not self.done:
                self.advance()
                if not self.done and self.keeper.due():
                    self.keeper.keep(self.state())
            if (self.epoch, self.taken) != begun:
                self.keeper.keep(self.state())
        if self.best.state is not None:
            self.pair.load_state_dict(self.best.state)
            _settle(self.pair)
        return self.history

    def _tell_undivided(self) -> None:
        if len(self.data.valid) and self.pair.undivided:
            told = f"the model sums out {', '.join(self.pair.undivided)}, which all data share"
            warnings.warn(f"validation rows have no ELBO of their own, so none is told: {told}", Remark, stacklevel=2)

    def _cost(self) -> int:
        """The multiplications of a step, forwards."""
        size = self.method.batch_size
        with evaluating(self.objective), local_params(), seeded(0, self.data.train.device), self._first(size) as batch:
            self.pair.plates(*batch)  # the first batch of a size runs both programs once more
            return multiplications(self.objective, *batch)

    @contextlib.contextmanager
    def _first(self, size: int) -> Iterator[tuple[Tensor, ...]]:
        """The first so many rows as a batch."""
        train = self.data.train
        if self.ragged and not self.pair.local:  # the rows of one batch are padded to one length
            train = max((part for part, _ in train.apart(self.pair.reads)), key=len)
        found = batches(self.pair, train if self.pair.local else train[:size], size)
        yield next(found)  # which is alive, and knows its rows, until the batch is done with

    @property
    def done(self) -> bool:
        """Whether all epochs are over, or so many without a better one that the rest is not worth while."""
        patience = self.method.patience
        return self.epoch >= self.method.epochs or (patience is not None and self.epoch - self.best.epoch >= patience > 0)

    def step(self, block: list[Tensor], rows: Tensor) -> None:
        """Take the step on some rows of a block."""
        numbers = (rows,) if self.pair.local else ()
        self.steps[self.turn % len(self.steps)](*taken(block, rows), *numbers)
        self._count()

    def skip(self, rows: Tensor) -> None:
        """Leave a step out."""
        self.skipped += len(rows)
        self._count()

    def set_rate(self) -> float:
        """Give every optimizer the learning rate of the epoch in progress."""
        rate = self.damping * self.rate * SCHEDULES[self.method.schedule](self.epoch / self.method.epochs)
        for optimizer in self.optimizers:
            optimizer.settings["lr"] = rate
        return rate

    def tensors(self) -> dict[str, Tensor]:
        """What steps change, by name: the tensors themselves."""
        named = self.modules.state_dict(keep_vars=True)
        once = {id(tensor): name for name, tensor in reversed(named.items())}
        found = {name: tensor for name, tensor in named.items() if once[id(tensor)] == name}
        for place, (step, optimizer) in enumerate(zip(self.steps, self.optimizers, strict=True)):
            found[f"totals.{place}"] = step.totals
            found |= {f"optimizer.{place}.{name}": value for name, value in optimizer.state().items()}
        return found

    def facts(self) -> dict:
        """Where training is, in plain values."""
        return {
            **{name: getattr(self, name) for name in FACTS},
            "tries": self.guard.tries,
            "steps": [optimizer.taken for optimizer in self.optimizers],
            "best": [self.best.elbo, self.best.epoch],
            "sizes": self.pair.padded_sizes if self.ragged else self.pair.sizes,
            "seconds": self.clock.seconds,
        }

    def state(self) -> Snapshot:
        """All that it takes to go on to the same bits."""
        best = {f"best.{name}": value for name, value in (self.best.state or {}).items()}
        tensors = {**self.tensors(), **random_state(self.data.train.device), "order": self.order, **best}
        return Snapshot(tensors, self.facts(), self.history)

    @torch.no_grad()
    def load(self, state: Snapshot) -> None:
        """Be where a state was taken; one without an ``order`` was taken in this very epoch."""
        tensors, facts = state.tensors, state.metadata
        named = self.modules.state_dict(keep_vars=True)
        for name, tensor in named.items():
            if name in tensors:
                tensor.copy_(tensors[name])
        for place, (step, optimizer) in enumerate(zip(self.steps, self.optimizers, strict=True)):
            step.totals.copy_(tensors[f"totals.{place}"])
            prefix = f"optimizer.{place}."
            moments = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
            optimizer.load(moments, facts["steps"][place])
        put_random(tensors, self.data.train.device)
        self.epoch, self.taken, self.skipped, self.turn = (facts[name] for name in ("epoch", "taken", "skipped", "turn"))
        if "order" in tensors:
            self.generator.set_state(tensors["order"])
            self.order, self.damping, self.threads = tensors["order"], facts["damping"], facts["threads"]
            self.learning_rate, self.guard.tries = facts["learning_rate"], facts["tries"]
            elbo, epoch = facts["best"]
            self.best.load(elbo, epoch, tensors, self.data.train.device)
            self.history = list(state.history)

    def _check(self, state: Snapshot) -> None:
        """Raise an error of some kind if a state was not kept of such a fit: it is put in place by halves else."""
        for name in ("epoch", "taken", "skipped", "turn", "tries"):
            _counted(state.metadata[name])
        if not 0 <= state.metadata["learning_rate"] < math.inf:
            raise ValueError(f"expected a learning rate of at least 0, got {state.metadata['learning_rate']}")
        for size in state.metadata["sizes"]:
            for number in size if isinstance(size, list) else [size]:
                _counted(number, least=1)
        damping, threads = state.metadata["damping"], _counted(state.metadata["threads"], least=1)
        if not (0 < damping <= 1 and threads <= MOST_THREADS):
            raise ValueError(f"expected a damping of 0 to 1 and 1 to {MOST_THREADS} threads, got {damping} and {threads}")
        for name, tensor in self.tensors().items():
            if not name.startswith("optimizer.") and state.tensors[name].shape != tensor.shape:
                raise ValueError(f"expected {name} of shape {tuple(tensor.shape)}, got {tuple(state.tensors[name].shape)}")

    def _visit(self, sizes: list[Any]) -> None:
        """Meet batches of the sizes that were met before: at the first of each both programs run once more."""
        self.pair.train()
        for size in sizes:
            if isinstance(size, list):
                self._visit_padded(*size)
            elif size <= len(self.data.train):
                with self._first(size) as batch:
                    self.pair.plates(*batch)

    def _visit_padded(self, size: int, length: int) -> None:
        """Meet a batch of so many rows that are padded to a length."""
        for part, _ in self.data.train.apart(self.pair.reads):
            if part.lead is not None and part.lead.longest == length:
                rows = torch.arange(size, device=part.device) % len(part)
                self.pair.plates(*next(part[rows].read(self.pair.reads, size)))

    def _step(self, optimizer: Optimizer, *, begun: bool) -> Step:
        method, rows = self.method, len(self.data.train)
        return Step(
            self.objective,
            self.data.train.transform,
            optimizer,
            clip_norm=method.clip_norm,
            precision=method.precision,
            compile=method.compile if method.objective.recordable else False,
            local=self.pair.local,
            ahead=self.planned * (rows // method.batch_size) // len(self.optimizers),
            go_on_at=min(method.batch_size, rows) if begun else None,
            # Of rows that lack a field there may be too few for one batch: a row is to count as any other.
            whole=method.batch_size if len(self.kinds) > 1 else None,
            kinds=len(self.kinds) if self.ragged else 1,
        )

    def advance(self) -> None:
        """The rest of a pass over the training data, then the validation ELBO, and the row of both."""
        self.pair.train()
        rate = self.set_rate()
        if not self.taken:
            self.learning_rate = rate
        objective, elbo, reconstruction = (self._pass() / max(1, len(self.data.train) - self.skipped)).tolist()
        self._check_parameters()
        score, constant, declared = self.pair.score, self.constant, self.method.objective
        row: Row = {"epoch": self.epoch + 1, "objective": objective + (constant if declared.bounds else 0.0)}
        if declared.name:
            row["objective_name"] = declared.name
        if declared.tells_elbo:
            row[score] = elbo + constant
        if math.isfinite(reconstruction):
            halves = {"reconstruction": reconstruction + constant, "kl": reconstruction - elbo}
            row |= {name: halves[name] for name in HALVES[score]}
        if (sizes := self.data.train.sizes) is not None and score in row:
            row[f"{score}_per_token"] = row[score] / sizes.double().mean().item()
        if len(self.data.valid) and not (self.pair.local or self.pair.undivided):
            valid = evaluate(self.pair, self.data.valid)
            told = (score, *HALVES[score], f"{score}_per_token")
            row |= {f"valid_{name}": valid[name] for name in told if name in valid}
        self.epoch, self.taken, self.skipped = self.epoch + 1, 0, 0
        self.turn += self.method.alternate == "epochs"
        self.order = self.generator.get_state()
        self.history.append({**row, "learning_rate": self.learning_rate, "seconds": self.clock.seconds})
        _settle(self.pair)
        self.clock.report(self.history[-1])
        if f"valid_{score}" in row:
            self.best.see(row[f"valid_{score}"], self.epoch, self.pair if self.method.restore_best else None)

    def _check_parameters(self) -> None:
        """Raise ``ValueError`` for a parameter that a program first asked for when its training had begun without it."""
        known = {id(parameter) for parameter in self.parameters}
        late = [name for name, value in self.objective.named_parameters() if value.requires_grad and id(value) not in known]
        if late:
            raise ValueError(
                f"the parameters {', '.join(late[:3])} were first asked for after the first batch, and are not trained: ask "
                "for all of them at every call"
            )

    def _pass(self) -> Tensor:
        """Step through the rest of the training data; sums of objective, ELBO and reconstruction, ``(3,)``."""
        if not self.taken:
            for step in self.steps:
                step.totals.zero_()
        self.guard.begin()
        for block, rows in islice(self._batches(), self.taken, None):
            self.guard.step(block, rows)
            self.clock.step(self.taken, self.per_epoch)
            if self.keeper.due():
                self.guard.look()
                self.keeper.keep(self.state())
        self.guard.look()
        return torch.stack([step.totals for step in self.steps]).sum(0)

    def _batches(self) -> Iterator[tuple[list[Tensor], Tensor]]:
        """Blocks of the data, and which of their rows are a batch."""
        for block, rows in self.data.train.steps(self.method.batch_size, generator=self.generator, reads=self.pair.reads):
            yield block, rows.sort().values if self.whole else rows

    def _count(self) -> None:
        self.taken += 1
        self.turn += self.method.alternate == "steps"


class _Best:
    """The best validation ELBO so far, its epoch and, where asked for, its parameters."""

    def __init__(self) -> None:
        self.elbo = -math.inf
        self.epoch = 0
        self.state: dict[str, Tensor] | None = None

    def see(self, elbo: float, epoch: int, pair: Pair | None) -> None:
        """Take note of an epoch; keep the parameters of ``pair`` if it is the best."""
        if elbo > self.elbo:
            self.elbo, self.epoch = elbo, epoch
            self.state = {name: value.clone() for name, value in pair.state_dict().items()} if pair else None

    def load(self, elbo: float, epoch: int, tensors: dict[str, Tensor], device: torch.device) -> None:
        """Take over a state's memory."""
        found = {name.removeprefix("best."): value for name, value in tensors.items() if name.startswith("best.")}
        self.elbo, self.epoch = elbo, epoch
        self.state = {name: value.to(device) for name, value in found.items()} or None


def _halves(pair: Pair) -> list[list[nn.Parameter]]:
    """The parameters of the guide, and those of the model."""
    halves = [[p for p in half.parameters() if p.requires_grad] for half in (pair.guide, pair.model)]
    for name, half in zip(("guide", "model"), halves, strict=True):
        if not half:
            raise ValueError(f"the {name} has no parameters to alternate with the other's: use alternate=None")
    return halves


def _counted(number: int, least: int = 0) -> int:
    """The number, if it counts something."""
    if not isinstance(number, int) or number < least:
        raise ValueError(f"expected a whole number of at least {least}, got {number!r}")
    return number


def _settle(pair: Pair) -> None:
    """Let a guide over parameters write its point estimates into the model."""
    if hasattr(pair.guide, "settle"):
        pair.guide.settle()
