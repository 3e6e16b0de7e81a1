"""The training step: eager, replayed from a record, or compiled as a whole.

    x = transform(raw);  loss = objective(x);  gradients;  clipping;  update if not skipped;  totals += (objective, ...)

Eager, Pyro runs the programs at every step. Recorded, the same operations are done again without Python's programs, to the same
last bit. Compiled, the whole step is one library call; sums come in another order, and numbers agree to rounding.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from itertools import compress, islice
from typing import Any, Literal

import pyro
import torch
from torch import Tensor, nn

from ppl_vae.inference.training.optimizers import Optimizer, put_back
from ppl_vae.inference.training.shares import Share, Shares
from ppl_vae.program.capture import (
    MISCOMPILED,
    CaptureError,
    Compile,
    CudaGraph,
    Exchanged,
    Graph,
    Program,
    capture,
    check_agreement,
    copied,
)
from ppl_vae.program.context import local_params, seeded
from ppl_vae.program.machine import Precision, layers
from ppl_vae.program.pair import numbered
from ppl_vae.program.several_steps import Several
from ppl_vae.program.weighing import weighing
from ppl_vae.types import FitWarning

__all__ = ["Step"]

# Steps ahead from which recording (about a second) and compiling (10 to 30 seconds) pay. They are counted and not timed: a fit
# goes the same way, and ends with the same numbers, on a busy machine.
WORTH_RECORDING = 300
WORTH_COMPILING = 5000
CHANGES = (
    "the program does something else at every call, such as a weight that it changes itself, which a record would hold still"
)


class Step:
    """A gradient step on a batch: raw rows ``(B, *event)`` and what else the programs take, such as labels ``(B,)``.

    The first batch is stepped eagerly, the others of its shapes go the fastest way that pays. Batches of other sizes, such as
    an epoch's last one, are stepped eagerly. So it is of each kind of batch, where some lack a field, or rows of different
    lengths are padded to several. A fit that goes on has taken its eager first steps already.

    Args:
        objective: module from what the programs take to an :class:`~ppl_vae.inference.objectives.Estimate`, in training mode.
        transform: module from raw rows to what the model sees.
        optimizer: updates parameters of ``objective``; the others stay as they are.
        clip_norm: gradients of a larger norm are scaled down to it.
        skip_norm: a step whose gradient has a larger norm before that leaves parameters, buffers and moments as they are.
        precision: what the networks' layers multiply, decided as a step is recorded; how products are rounded is the caller's.
        compile: ``True`` compiles, ``False`` stays eager, ``auto`` records and compiles where that pays.
        local: whether the last of a batch are the numbers ``(B,)`` of its rows among the training data, for their plate.
        weighted: whether the last of a batch, before these numbers, are the weights ``(B,)`` of its rows.
        ahead: steps to be taken in all.
        go_on_at: of a fit that goes on, the rows of the batches that go the fast way from the first on.
        kinds: the number of kinds of batches: each is recorded for itself.
        shares: of the processes that take each step together, of which every one is given all rows; by default a lone one.
        full_batch: rows of a batch whose gradient counts in full, a smaller one's by its rows; by default every batch's does.

    Attributes:
        totals: sums over the data of objective, ELBO and reconstruction, ``(3,)``, on the device, with a ``skip_norm`` also the
            number of steps that were not taken, ``(4,)``; set it to zero to start again.
        way: how full batches go: ``eager``, ``recorded`` or ``compiled``.
        short: whether a step is so short that several are to be taken by one call where they are compiled.
    """

    def __init__(
        self,
        objective: nn.Module,
        transform: nn.Module,
        optimizer: Optimizer,
        *,
        clip_norm: float | None = None,
        skip_norm: float | None = None,
        precision: Precision = "32",
        compile: Compile = "auto",
        local: bool = False,
        weighted: bool = False,
        ahead: int = 0,
        go_on_at: int | None = None,
        full_batch: int | None = None,
        kinds: int = 1,
        shares: Shares | None = None,
    ) -> None:
        self.objective = objective
        self.transform = transform
        self.optimizer = optimizer
        self.clip_norm = clip_norm
        self.skip_norm = skip_norm
        self.precision = precision
        self.compile = compile
        self.local = local
        self.weighted = weighted
        self.ahead = ahead // kinds
        self.full_batch = full_batch
        self.shares = shares or Shares()
        self.totals = torch.zeros(3 if skip_norm is None else 4, device=optimizer.parameters[0].device)
        self.way: Literal["eager", "recorded", "compiled"] = "eager"
        self.short = False
        self._settled: set[tuple[torch.Size, ...]] = set()
        self._chosen: set[tuple[torch.Size, ...]] = set()  # by the shapes of a datum in the fields of a batch
        self._go_on_at = None if compile is False else go_on_at
        self._validate = go_on_at is None
        self._fast: dict[tuple[torch.Size, ...], Callable[..., None]] = {}
        self._buffers = [] if skip_norm is None else list(objective.buffers())  # which a run may move, as codebooks' averages

    def __call__(self, *batch: Tensor) -> None:
        """Take the step; what came of it is added to ``totals``."""
        fast = self._fast.get(_shapes(batch))
        if fast is not None:
            fast(*batch)
            return
        if _kind(batch) not in self._settled:
            self._settled.add(_kind(batch))
            self.shares.settle(partial(self.forward, self.objective), batch, dict(self.objective.named_buffers()))
        if self._go_on_at == len(batch[0]):
            self._go_on_at = None
            self._choose_mode(*batch)
            self(*batch)
        else:
            self._eager(*batch)
            if _kind(batch) not in self._chosen and self._go_on_at is None:
                self._choose_mode(*batch)

    def several(self, block: Sequence[Any], batches: Sequence[Tensor]) -> bool:
        """Take the steps on some rows ``(B,)`` of a block after others by one call, if they can be; whether they were.

        The numbers are those of as many calls, to the last bit.
        """
        if self.local or not all(isinstance(column, Tensor) for column in block):
            return False
        fast = self._fast.get(tuple([torch.Size((len(batches[0]), *column.shape[1:])) for column in block]))
        return isinstance(fast, _Compiled) and fast.several(block, batches)

    def forward(
        self, objective: Callable[..., Any], raw: Tensor, *others: Tensor, whole: bool = False
    ) -> tuple[Tensor, Tensor]:
        """The loss of a batch, and its objective, ELBO and reconstruction ``(3,)``: this process's share, or the whole."""
        # Pyro's checks cost as much as a small step: the first step of a fit makes them, the others have its shapes.
        read, weights, rows = self.apart(others)
        checks = pyro.validation_enabled(self._validate)
        share = Share(None, len(raw), 1.0) if whole else self.shares.of(len(raw))
        numbering, counting = numbered(share.of(rows)), weighing(share.of(weights))
        with local_params(), checks, layers(self.precision), numbering, counting:
            batch = [share.of(self.transform(raw)), *(share.of(field) for field in read)]
            with self.shares.drawing(share, batch):
                loss, elbo, reconstruction = objective(*batch)
        self._validate = False
        numbers = torch.stack([-loss.detach(), elbo.detach(), reconstruction.detach()])
        loss = loss if self.full_batch is None else loss * (len(raw) / self.full_batch)
        return (loss, numbers) if share.weight == 1.0 else (loss * share.weight, numbers * share.weight)

    def apart(self, others: Sequence[Tensor]) -> tuple[Sequence[Tensor], Tensor | None, Tensor | None]:
        """What stands behind x in a batch: what else the programs read, the weights of its rows, and their numbers."""
        rows, others = (others[-1], others[:-1]) if self.local else (None, others)
        weights, others = (others[-1], others[:-1]) if self.weighted else (None, others)
        return others, weights, rows

    def held(self) -> list[Tensor]:
        """Copies of the buffers, where a step may be skipped."""
        return [buffer.clone() for buffer in self._buffers]

    def finish(self, numbers: Tensor, size: int, held: Sequence[Tensor], *, same: bool = False) -> None:
        """Add up and clip the gradients of the parameters, update these, and count; of a skipped step put the buffers back."""
        self.shares.sum_(self.optimizer.parameters, numbers, same=same)
        skip = self.skips([parameter.grad for parameter in self.optimizer.parameters if parameter.grad is not None])
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.optimizer.parameters, self.clip_norm)
        self.optimizer.step(skip)
        if skip is not None:
            with torch.no_grad():
                put_back(self._buffers, held, skip)
        self.totals += self.counted(numbers, size, skip)

    def skips(self, gradients: Sequence[Tensor]) -> Tensor | None:
        """Whether the step is not to be taken ``()``, on the device; ``None`` where all are."""
        return None if self.skip_norm is None else norm_of(gradients) > self.skip_norm

    def counted(self, numbers: Tensor, size: int, skip: Tensor | None) -> Tensor:
        """What a step on so many rows adds to ``totals``."""
        return size * numbers if skip is None else torch.cat([size * numbers, skip.to(numbers.dtype)[None]])

    def _eager(self, *batch: Tensor) -> None:
        self.optimizer.zero_grad()
        held = self.held()
        with self.shares.noise(batch[0].device):
            loss, numbers = self.forward(self.objective, *batch)
        if not loss.requires_grad:
            raise ValueError(
                "the objective depends on no parameter, so there is nothing to climb: use the parameters that model and guide "
                "ask for in what they sample, without .detach(), .item() and torch.no_grad()"
            )
        torch.autograd.backward(loss, inputs=self.optimizer.parameters)
        self.finish(numbers, len(batch[0]), held)

    def _choose_mode(self, *batch: Tensor) -> None:
        """Choose how batches of these shapes go from here."""
        self._chosen.add(_kind(batch))
        shapes = _shapes(batch)
        self._fast[shapes] = self._eager
        if self.compile is False:
            return
        used: list[bool] = []
        try:
            if self.compile is True or self.ahead >= WORTH_RECORDING:
                self._fast[shapes] = recorded = _Recorded(self, batch)
                used = recorded.used
                self.way = "recorded"
                if self.compile is True or self.ahead >= WORTH_COMPILING:
                    self._fast[shapes], self.way = self._compiled(recorded, batch), "compiled"
        except CaptureError as error:
            if self.compile is True:
                raise ValueError(f"this step cannot be compiled ({error}): use compile='auto' or compile=False") from None
            warnings.warn(f"steps are {self.way}, not compiled: {error}", FitWarning, stacklevel=2)
        self.shares.processes.same((self.way, used), "how steps are taken (compile=False lets all be eager)")

    def _compiled(self, recorded: _Recorded, batch: tuple[Tensor, ...]) -> Callable[..., None]:
        """The whole step as machine code; of several processes, which meet before the update, what comes before."""
        if self.shares.lone:
            return _Compiled(self, recorded, batch)
        recorded.compile(batch)
        return recorded


class _Recorded:
    """Gradients from a record of the objective and its derivatives; the update by ``torch.optim``."""

    def __init__(self, step: Step, batch: tuple[Tensor, ...]) -> None:
        self.step = step
        parameters, buffers = dict(step.objective.named_parameters()), dict(step.objective.named_buffers())
        self.originals = [*parameters.values(), *buffers.values()]
        self.state = [tensor.detach() for tensor in self.originals]
        self.names = list(parameters)
        updated = {id(parameter) for parameter in step.optimizer.parameters}
        self.trained = [place for place, parameter in enumerate(parameters.values()) if id(parameter) in updated]
        self.used: list[bool] = []
        self.graph: Graph = capture(self.gradients, self.state, batch)
        self.run: Callable[..., list[Tensor]] = self.graph
        eager = partial(self.eager, self.used)
        # A weight that the program raises a little at every call would pass as rounding, and stand still in the record.
        rounding = 0.0 if step.totals.device.type == "cpu" else 1e-5
        check_agreement(eager, eager, self.state, batch, reason=CHANGES, tolerance=rounding)
        check_agreement(eager, self.graph, self.state, batch)

    def gradients(self, *tensors: Tensor) -> list[Tensor]:
        """Of parameters, buffers and a batch: the gradients of those in use, then objective, ELBO and reconstruction."""
        state, batch = list(tensors[: len(self.state)]), tensors[len(self.state) :]
        for place in self.trained:
            state[place] = state[place].detach().requires_grad_()
        with Exchanged(self.originals, state):
            loss, numbers = self.step.forward(self.step.objective, *batch)
        return self._in_use(loss, [state[place] for place in self.trained], numbers)

    def eager(self, recorded: list[bool], *tensors: Tensor) -> list[Tensor]:
        """The same as the program does it, without anything in place of its own tensors; buffers are then as before.

        Raises:
            CaptureError: it has gradients for other parameters than were ``recorded``.
        """
        buffers = self.originals[len(self.names) :]
        before = [buffer.clone() for buffer in buffers]
        loss, numbers = self.step.forward(self.step.objective, *tensors[len(self.state) :])
        gradients = self._in_use(loss, [self.originals[place] for place in self.trained], numbers)
        with torch.no_grad():
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)
        names = [self.names[place] for place in self.trained]
        lost = [name for name, ours, theirs in zip(names, recorded, self.used, strict=True) if ours != theirs]
        if lost:
            told = ", ".join(lost[:3])
            raise CaptureError(f"its record loses the gradient of {told}: torch does not see what the program does to it")
        return gradients

    def _in_use(self, loss: Tensor, trained: list[Tensor], numbers: Tensor) -> list[Tensor]:
        gradients = torch.autograd.grad(loss, trained, allow_unused=True)
        self.used = [gradient is not None for gradient in gradients]
        found = zip(trained, gradients, strict=True)
        return [*(_laid_out_as(value, gradient) for value, gradient in found if gradient is not None), numbers]

    def compile(self, batch: tuple[Tensor, ...]) -> None:
        """Find the gradients by machine code from here on."""
        program = self.graph.compiled(*self.state, *batch)
        check_agreement(self.graph, program, self.state, batch, reason=MISCOMPILED)
        if self.step.totals.is_cuda:
            launch = CudaGraph(program, self.state, batch)
            self.run = lambda *tensors: launch(*tensors[len(self.state) :])
        else:
            self.run = program

    def __call__(self, *batch: Tensor) -> None:
        self.step.optimizer.zero_grad()  # of parameters that only batches of another kind use
        held = self.step.held()
        with self.step.shares.noise(batch[0].device):
            *gradients, numbers = self.run(*self.state, *batch)
        for parameter, gradient in zip(compress(self.step.optimizer.parameters, self.used), gradients, strict=True):
            parameter.grad = gradient
        self.step.finish(numbers, len(batch[0]), held, same=True)


class _Compiled:
    """Gradients, update and totals as one library call, on CUDA as one launch."""

    def __init__(self, step: Step, recorded: _Recorded, batch: tuple[Tensor, ...]) -> None:
        self.step = step
        self.recorded = recorded
        optimizer = step.optimizer
        updated = list(compress(optimizer.parameters, recorded.used))
        moments = [moment for parameter in updated for moment in optimizer.moments(parameter)]
        self.updated = list(compress(recorded.trained, recorded.used))
        self.state = [*recorded.state, *moments, step.totals]
        self.moments = len(moments)
        self.rates = optimizer.rates_of(updated)
        rates = self.rates.first
        on_cuda = step.totals.is_cuda
        self.fields = len(batch)
        # A library that takes several steps by one call finds all rows, their rates and the rows' numbers behind those of one.
        several = Several(len(self.state), self.fields) if step.short and not on_cuda else None
        self.alone = [*[torch.empty(0)] * (self.fields + 1), torch.empty(0, 0, dtype=torch.int64)] if several else []
        inputs = [*batch, rates, *self.alone]
        program = capture(self.full_step, self.state, inputs).compiled(*self.state, *inputs, several=several)
        check_agreement(self.outcome(self.full_step), self.outcome(program), self.state, inputs, reason=MISCOMPILED)
        self.run: Program = CudaGraph(program, self.state, inputs) if on_cuda else program.after(self.state, len(inputs))
        self.buffers = [value.clone(memory_format=torch.contiguous_format) for value in (*batch, rates)] if several else []
        self.looped = bool(several) and self._takes_several(program, batch, rates)

    def _takes_several(self, program: Program, batch: tuple[Tensor, ...], rates: Tensor) -> bool:
        """Whether one call for two steps does what two calls do."""
        rows = torch.stack([torch.arange(len(batch[0])), torch.arange(len(batch[0])).flip(0)])
        states = [[copied(tensor) for tensor in self.state] for _ in range(2)]
        with seeded(0, batch[0].device):
            for order in rows:
                program(*states[0], *(field[order] for field in batch), rates, *self.alone)
        with seeded(0, batch[0].device):
            program(*states[1], *self.buffers, *batch, torch.stack([rates, rates]), rows)
        return all(torch.equal(ours.nan_to_num(), theirs.nan_to_num()) for ours, theirs in zip(*states, strict=True))

    def several(self, block: Sequence[Tensor], batches: Sequence[Tensor]) -> bool:
        """Take the steps on some rows of a block by one call, where it lies as this needs it; whether it does."""
        if not self.looped:
            return False
        rows, fields = torch.stack(list(batches)), zip(block, self.buffers, strict=False)
        if rows.dtype != torch.int64 or not all(field.is_contiguous() and field.dtype == one.dtype for field, one in fields):
            return False
        self.run(*self.buffers, *block, self.rates.several(len(batches)), rows)
        return True

    def outcome(self, function: Program) -> Program:
        """What a step comes to: its numbers, and the norms of its gradients, less their running means, by what it moves."""
        count, kept, share = len(self.state), len(self.step.optimizer.kept), self.step.optimizer.share
        moved = slice(len(self.recorded.state), count - 1, kept) if kept else slice(len(self.recorded.names))

        def found(*tensors: Tensor) -> list[Tensor]:
            before = [tensor.clone() for tensor in tensors[moved]]
            numbers = function(*tensors)
            return [*numbers, *((after - was).norm() / share for was, after in zip(before, tensors[moved], strict=True))]

        return found

    def full_step(self, *tensors: Tensor) -> list[Tensor]:
        """Of parameters, buffers, moments, totals, a batch and the optimizer's rates: change all but the last two in place."""
        tail = iter(tensors)
        state, moments = list(islice(tail, len(self.recorded.state))), list(islice(tail, self.moments))
        totals, *batch, rates = islice(tail, self.fields + 2)
        buffers = state[len(self.recorded.names) :]
        held = [] if self.step.skip_norm is None else [buffer.clone() for buffer in buffers]
        *gradients, numbers = self.recorded.graph(*state, *batch)
        skip = self.step.skips(gradients)
        if skip is not None:
            put_back(buffers, held, skip)
        if self.step.clip_norm is not None:
            scale = (self.step.clip_norm / (norm_of(gradients) + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grad_norm_
            gradients = [scale * gradient for gradient in gradients]
        kept = len(self.step.optimizer.kept)
        for place, (index, gradient) in enumerate(zip(self.updated, gradients, strict=True)):
            changed = [state[index], *moments[kept * place : kept * (place + 1)]]
            before = [] if skip is None else [tensor.clone() for tensor in changed]
            self.step.optimizer.update(changed[0], gradient, changed[1:], rates[place])
            if skip is not None:
                put_back(changed, before, skip)
        totals.add_(self.step.counted(numbers, len(batch[0]), skip))
        return [numbers]

    def __call__(self, *batch: Tensor) -> None:
        self.run(*batch, self.rates.next(), *self.alone)


def norm_of(gradients: Sequence[Tensor]) -> Tensor:
    """The norm of all gradients as one vector ``()``."""
    norm: Tensor = torch.stack([gradient.norm() for gradient in gradients]).norm()
    return norm


def _shapes(batch: tuple[Tensor, ...]) -> tuple[torch.Size, ...]:
    return tuple([part.shape for part in batch])  # a generator takes twice as long


def _kind(batch: tuple[Tensor, ...]) -> tuple[torch.Size, ...]:
    return tuple(part.shape[1:] for part in batch)


def _laid_out_as(parameter: Tensor, gradient: Tensor) -> Tensor:
    """The gradient with the strides of its parameter, which fused optimizers take for granted."""
    return gradient if gradient.stride() == parameter.stride() else torch.empty_like(parameter).copy_(gradient)
