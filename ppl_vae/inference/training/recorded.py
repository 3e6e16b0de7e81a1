"""Steps whose gradients come from a record of the objective and its derivatives."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from itertools import compress

import torch
from torch import Tensor, nn

from ppl_vae.inference.training.arithmetic import Arithmetic
from ppl_vae.program.capture import MISCOMPILED, CaptureError, CudaGraph, Exchanged, Graph, capture, check_agreement, kept

__all__ = ["Recorded"]

CHANGES = (
    "the program does something else at every call, such as a weight that it changes itself, which a record would hold still"
)


class Recorded:
    """Gradients from a record of the objective and its derivatives; the update by ``torch.optim``."""

    def __init__(self, step: Arithmetic, batch: tuple[Tensor, ...]) -> None:
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
        # By rows in another order it shows what was taken of each row, and stayed.
        turned = tuple(field.flip(0) for field in batch)
        check_agreement(eager, eager, self.state, batch, reason=CHANGES, tolerance=rounding)
        with kept(self.graph.changed):
            check_agreement(eager, self.graph, self.state, turned)

    def gradients(self, *tensors: Tensor) -> list[Tensor]:
        """Of parameters, buffers and a batch: the gradients of those in use, then objective, ELBO and reconstruction."""
        state, batch = list(tensors[: len(self.state)]), tensors[len(self.state) :]
        for place in self.trained:
            state[place] = state[place].detach().requires_grad_()
        with unmoved(self.step.objective), Exchanged(self.originals, state):
            loss, numbers = self.step.forward(self.step.objective, *batch)
        return self._in_use(loss, [state[place] for place in self.trained], numbers)

    def eager(self, recorded: list[bool], *tensors: Tensor) -> list[Tensor]:
        """The same as the program does it, without anything in place of its own tensors; buffers are then as before.

        Raises:
            CaptureError: it has gradients for other parameters than were ``recorded``.
        """
        with kept([*self.originals[len(self.names) :], *self.graph.changed]), unmoved(self.step.objective):
            loss, numbers = self.step.forward(self.step.objective, *tensors[len(self.state) :])
            gradients = self._in_use(loss, [self.originals[place] for place in self.trained], numbers)
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
        with kept(self.graph.changed):
            check_agreement(self.graph, program, self.state, batch, reason=MISCOMPILED)
        if self.step.totals.is_cuda:
            launch = CudaGraph(program, self.state, batch)
            self.run = lambda *tensors: launch(*tensors[len(self.state) :])
        else:
            self.run = program

    def __call__(self, *batch: Tensor) -> None:
        """Take the step."""
        self.step.optimizer.zero_grad()  # of parameters that only batches of another kind use
        held = self.step.held()
        with self.step.shares.noise(batch[0].device):
            *gradients, numbers = self.run(*self.state, *batch)
        for parameter, gradient in zip(compress(self.step.optimizer.parameters, self.used), gradients, strict=True):
            parameter.grad = gradient
        self.step.finish(numbers, len(batch[0]), held, same=True)


def _laid_out_as(parameter: Tensor, gradient: Tensor) -> Tensor:
    """The gradient with the strides of its parameter, which fused optimizers take for granted."""
    return gradient if gradient.stride() == parameter.stride() else torch.empty_like(parameter).copy_(gradient)


@contextlib.contextmanager
def unmoved(module: nn.Module) -> Iterator[None]:
    """Buffers are afterwards the tensors that they were.

    Raises:
        CaptureError: a program put other tensors in the places of some.
    """
    parts = [(part, dict(part._buffers)) for part in module.modules()]
    buffers = list(module.buffers())
    places = [buffer.data_ptr() for buffer in buffers]
    changed: list[str] = []
    try:
        yield
    finally:
        for part, before in parts:
            changed += [name for name, value in part._buffers.items() if value is not before.get(name)]
            part._buffers.update(before)
    if changed or [buffer.data_ptr() for buffer in buffers] != places:
        told = f"the buffer {changed[0]}" if changed else "a buffer's .data"
        raise CaptureError(f"it puts a new tensor in the place of {told}, which a record would hold still: use .copy_() there")
