"""Steps of one library call, or several of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress, islice

import torch
from torch import Tensor

from ppl_vae.inference.training.arithmetic import Arithmetic
from ppl_vae.inference.training.optimizers import norm_of, put_back
from ppl_vae.inference.training.recorded import Recorded
from ppl_vae.program.capture import MISCOMPILED, CudaGraph, Program, capture, check_agreement, copied, kept
from ppl_vae.program.context import seeded
from ppl_vae.program.several_steps import Several

__all__ = ["Compiled"]


class Compiled:
    """Gradients, update and totals as one library call, on CUDA as one launch."""

    def __init__(self, step: Arithmetic, recorded: Recorded, batch: tuple[Tensor, ...], *, short: bool) -> None:
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
        several = Several(len(self.state), self.fields) if short and not on_cuda else None
        self.alone = [*[torch.empty(0)] * (self.fields + 1), torch.empty(0, 0, dtype=torch.int64)] if several else []
        inputs = [*batch, rates, *self.alone]
        program = capture(self.full_step, self.state, inputs).compiled(*self.state, *inputs, several=several)
        with kept(recorded.graph.changed):
            check_agreement(self.outcome(self.full_step), self.outcome(program), self.state, inputs, reason=MISCOMPILED)
        self.run: Program = CudaGraph(program, self.state, inputs) if on_cuda else program.after(self.state, len(inputs))
        self.buffers = [value.clone(memory_format=torch.contiguous_format) for value in (*batch, rates)] if several else []
        with kept(recorded.graph.changed):
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
        norm = norm_of(gradients)
        skip, scale = self.step.skips(norm), self.step.scale(norm)
        if skip is not None:
            put_back(buffers, held, skip)
        if scale is not None:
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
        """Take the step."""
        self.run(*batch, self.rates.next(), *self.alone)
