"""The training step: eager, replayed from a record, or compiled as a whole.

Eager, Pyro runs the programs at every step. Recorded, the same operations are done again without Python's programs, to the same
last bit. Compiled, the whole step is one library call; sums come in another order, and numbers agree to rounding.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ppl_vae.inference.training.arithmetic import Arithmetic
from ppl_vae.inference.training.compiled import Compiled
from ppl_vae.inference.training.optimizers import Optimizer
from ppl_vae.inference.training.recorded import Recorded
from ppl_vae.program.capture import CaptureError, Compile
from ppl_vae.types import FitWarning

__all__ = ["Step"]

# Steps ahead from which recording (as long as five steps) and compiling (10 to 30 seconds) pay. They are counted and not timed:
# a fit goes the same way, and ends with the same numbers, on a busy machine.
WORTH_RECORDING = 100
WORTH_COMPILING = 5000


class Step(Arithmetic):
    """A gradient step on a batch.

    The first batch is stepped eagerly, the others of its shapes go the fastest way that pays. Batches of other sizes, such as
    an epoch's last one, are stepped eagerly. So it is of each kind of batch, where some lack a field, or rows of different
    lengths are padded to several. A fit that goes on has taken its eager first steps already.

    Args:
        objective: of :class:`Arithmetic`, as ``transform``, ``optimizer`` and the others.
        compile: ``True`` compiles, ``False`` stays eager, ``auto`` records and compiles where that pays.
        ahead: steps to be taken in all.
        go_on_at: of a fit that goes on, the rows of the batches that go the fast way from the first on.
        kinds: the number of kinds of batches: each is recorded for itself.

    Attributes:
        way: how full batches go: ``eager``, ``recorded`` or ``compiled``.
        short: whether a step is so short that several are to be taken by one call where they are compiled.
    """

    def __init__(
        self,
        objective: nn.Module,
        transform: nn.Module,
        optimizer: Optimizer,
        *,
        compile: Compile = "auto",
        ahead: int = 0,
        go_on_at: int | None = None,
        kinds: int = 1,
        **others: Any,
    ) -> None:
        super().__init__(objective, transform, optimizer, validate=go_on_at is None, **others)
        self.compile = compile
        self.ahead = ahead // kinds
        self.way: Literal["eager", "recorded", "compiled"] = "eager"
        self.short = False
        self._settled: set[tuple[torch.Size, ...]] = set()
        self._chosen: set[tuple[torch.Size, ...]] = set()  # by the shapes of a datum in the fields of a batch
        self._go_on_at = None if compile is False else go_on_at
        self._fast: dict[tuple[torch.Size, ...], Callable[..., None]] = {}

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
        return isinstance(fast, Compiled) and fast.several(block, batches)

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
                self._fast[shapes] = recorded = Recorded(self, batch)
                used = recorded.used
                self.way = "recorded"
                if self.compile is True or self.ahead >= WORTH_COMPILING:
                    self._fast[shapes], self.way = self._compiled(recorded, batch), "compiled"
        except CaptureError as error:
            if self.compile is True:
                raise ValueError(f"this step cannot be compiled ({error}): use compile='auto' or compile=False") from None
            warnings.warn(f"steps are {self.way}, not compiled: {error}", FitWarning, stacklevel=2)
        self.shares.processes.same((self.way, used), "how steps are taken (compile=False lets all be eager)")

    def _compiled(self, recorded: Recorded, batch: tuple[Tensor, ...]) -> Callable[..., None]:
        """The whole step as machine code; of several processes, which meet before the update, what comes before."""
        if self.shares.lone:
            return Compiled(self, recorded, batch, short=self.short)
        recorded.compile(batch)
        return recorded


def _shapes(batch: tuple[Tensor, ...]) -> tuple[torch.Size, ...]:
    return tuple([part.shape for part in batch])  # a generator takes twice as long


def _kind(batch: tuple[Tensor, ...]) -> tuple[torch.Size, ...]:
    return tuple(part.shape[1:] for part in batch)
