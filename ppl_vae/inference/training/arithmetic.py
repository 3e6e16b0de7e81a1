"""What a step computes, however it is taken.

    x = transform(raw);  loss = objective(x);  gradients;  clipping;  update if not skipped;  totals += (objective, ...)

Processes that take steps together find each the loss of its part of the rows, and add up gradients before they are clipped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from ppl_vae.inference.training.optimizers import Optimizer, put_back
from ppl_vae.inference.training.shares import Share, Shares
from ppl_vae.program.context import local_params
from ppl_vae.program.machine import Precision, layers
from ppl_vae.program.pair import numbered
from ppl_vae.program.weighing import weighing

__all__ = ["Arithmetic"]


class Arithmetic:
    """The parts of a step on a batch: raw rows ``(B, *event)`` and what else the programs take, such as labels ``(B,)``.

    Args:
        objective: module from what the programs take to an :class:`~ppl_vae.inference.objectives.Estimate`, in training mode.
        transform: module from raw rows to what the model sees.
        optimizer: updates parameters of ``objective``; the others stay as they are.
        clip_norm: gradients of a larger norm are scaled down to it.
        skip_norm: a step whose gradient has a larger norm before that leaves parameters, buffers and moments as they are.
        precision: what the networks' layers multiply, decided as a step is recorded; how products are rounded is the caller's.
        local: whether the last of a batch are the numbers ``(B,)`` of its rows among the training data, for their plate.
        weighted: whether the last of a batch, before these numbers, are the weights ``(B,)`` of its rows.
        shares: of the processes that take each step together, of which every one is given all rows; by default a lone one.
        full_batch: rows of a batch whose gradient counts in full, a smaller one's by its rows; by default every batch's does.
        validate: whether Pyro checks the first batch.

    Attributes:
        totals: sums over the data of objective, ELBO and reconstruction, ``(3,)``, on the device, with a ``skip_norm`` also the
            number of steps that were not taken, ``(4,)``; set it to zero to start again.
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
        local: bool = False,
        weighted: bool = False,
        shares: Shares | None = None,
        full_batch: int | None = None,
        validate: bool = True,
    ) -> None:
        self.objective = objective
        self.transform = transform
        self.optimizer = optimizer
        self.clip_norm = clip_norm
        self.skip_norm = skip_norm
        self.precision = precision
        self.local = local
        self.weighted = weighted
        self.shares = shares or Shares()
        self.full_batch = full_batch
        self.totals = torch.zeros(3 if skip_norm is None else 4, device=optimizer.parameters[0].device)
        self._validate = validate
        self._buffers = [] if skip_norm is None else list(objective.buffers())  # which a run may move, as codebooks' averages

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
        """Add up and clip the gradients of the parameters, update these, and count; of a skipped step put the buffers back.

        Args:
            numbers: objective, ELBO and reconstruction ``(3,)``, this process's share of them.
            size: rows of the batch.
            held: the buffers as they were before.
            same: whether the same parameters have gradients in all processes.
        """
        self.shares.sum_(self.optimizer, numbers, same=same)
        unbounded = self.clip_norm is None and self.skip_norm is None
        norm = None if unbounded else self.optimizer.gradient_norm()
        skip, scale = (None, None) if norm is None else (self.skips(norm), self.scale(norm))
        self.optimizer.step(skip, scale)
        if skip is not None:
            with torch.no_grad():
                put_back(self._buffers, held, skip)
        self.totals += self.counted(numbers, size, skip)

    def skips(self, norm: Tensor) -> Tensor | None:
        """Whether the step is not to be taken ``()``, on the device; ``None`` where all are."""
        return None if self.skip_norm is None else norm > self.skip_norm

    def scale(self, norm: Tensor) -> Tensor | None:
        """What gradients of such a norm ``()`` are multiplied by, ``()``, as ``torch.nn.utils.clip_grad_norm_`` has it."""
        return None if self.clip_norm is None else (self.clip_norm / (norm + 1e-6)).clamp(max=1.0)

    def counted(self, numbers: Tensor, size: int, skip: Tensor | None) -> Tensor:
        """What a step on so many rows adds to ``totals``."""
        return size * numbers if skip is None else torch.cat([size * numbers, skip.to(numbers.dtype)[None]])
