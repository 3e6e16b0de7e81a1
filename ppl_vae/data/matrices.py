"""A split in its order, for what is computed from all data in a few passes."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ppl_vae.data.sparse import ELEMENTS, Sparse
from ppl_vae.data.split import Split
from ppl_vae.program.processes import Processes, current

__all__ = ["Batches", "Matrices"]


ROWS_AT_ONCE = 8192


class Batches:
    """A split as the model sees it, ``(B, *event)`` in the order of the data, walked anew at every pass; never held whole.

    Its ``weights (N,)`` are those of the rows, ``None`` if all count once.
    """

    def __init__(self, split: Split, batch_size: int) -> None:
        self.split = split
        self.batch_size = batch_size
        self.weights = split.weights

    def __iter__(self) -> Iterator[Tensor]:
        return self.split.batches(self.batch_size)


class Matrices:
    """A split as matrices ``(B, D)`` in the order of the data, walked anew at every pass; never held whole.

    Where several processes work on one fit, all of them walk all rows; those who add up over rows take their ``own``, see
    :mod:`ppl_vae.exact.sharing`.

    Args:
        split: the rows.
        relative: the weights are such that rows which count at all count once on average: nothing is to depend on their scale,
            as a likelihood's maximum does not. By default they are the rows' own.

    Attributes:
        weights: of the rows ``(N,)``; ``None`` if all count once.
        processes: that share the rows; of fewer rows than processes everybody has all.
    """

    def __init__(self, split: Split, *, relative: bool = False) -> None:
        self.split = split
        self.weights = split.weights
        self.processes = current() if len(split) >= current().count else Processes()
        if relative and self.weights is not None:
            self.weights = self.weights * ((self.weights > 0).sum() / self.weights.sum())

    def check_fixed(self) -> None:
        """Raise ``ValueError`` if the data are others at every pass."""
        if self.split.transform.noisy:
            raise ValueError(
                "EM, CAVI and closed forms need data that stay the same at every pass: draw their noise once "
                "(dequantize='static', binarize='static') or leave the values as they are (dequantize='none', binarize='none')"
            )

    def __iter__(self) -> Iterator[Tensor]:
        self.check_fixed()
        held = self.split.raw
        size = min(ROWS_AT_ONCE, max(1, ELEMENTS // held.columns)) if isinstance(held, Sparse) else ROWS_AT_ONCE
        return (x.flatten(1) for x in self.split.batches(size))

    @property
    def number(self) -> int:
        """N."""
        return len(self.split)

    @functools.cached_property
    def own(self) -> Matrices:
        """The rows of this process alone, of which no other file or block is read; a lone process has all."""
        if self.processes.count == 1:
            return self
        rows = self.processes.part(len(self.split))
        part = copy.copy(self)
        part.split, part.processes = self.split[rows], Processes()
        part.weights = None if self.weights is None else self.weights[rows]
        return part

    def at(self, places: Tensor) -> Tensor:
        """The rows ``(n, D)`` at these places of the split, in float64, each read by the process whose it is."""
        rows = self.processes.part(len(self.split))
        here = ((places >= rows.start) & (places < rows.stop)).nonzero().flatten()
        columns = math.prod(self.split.event_shape)
        found = torch.zeros(len(places), columns, dtype=torch.float64, device=self.split.device)
        some, start = copy.copy(self), 0
        some.split = self.split[places[here]]
        for x in some if len(here) else ():
            found[here[start : start + len(x)]] = x.double()
            start += len(x)
        self.processes.sum_([found])
        return found
