"""Rows of which most entries are zero, made dense batch by batch: counts of genes in cells, of words in documents."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppl_vae.data.arrays import refuse_infinite, refuse_missing
from ppl_vae.memory import require_memory

__all__ = ["DenseRows", "Sparse"]

ELEMENTS, WALKED = 2**24, 2**20  # of the rows that are dense at once in a matrix, and where all rows are walked
AT_ONCE = 2**27  # of the rows that may be loaded together


class Sparse:
    """Rows ``(N, D)`` by their entries that are not zero, in the place of the tensor that they would be in memory.

    It has a shape, a dtype, a device and rows to choose from, as a tensor has; chosen rows share the entries. :meth:`dense` and
    :meth:`tensor` make rows dense, on their device.

    Args:
        matrix: a sparse matrix of scipy by rows (csr), each place of which is held once.
        name: the source, for messages.
        missing: whether NaN may stand for a missing entry.

    Raises:
        ValueError: entries that are infinite, or missing where they may not be.

    Examples:
        >>> from scipy.sparse import csr_matrix
        >>> from ppl_vae.data.sparse import Sparse
        >>> rows = Sparse(csr_matrix([[0, 2, 0], [0, 0, 0], [1, 0, 3]]), "a matrix")
        >>> rows.shape, rows[1:].dense(torch.tensor([1]))
        (torch.Size([3, 3]), tensor([[1, 0, 3]]))
    """

    def __init__(self, matrix: Any, name: str, *, missing: bool = False) -> None:
        if matrix.data.dtype.kind == "f":
            refuse_infinite(matrix.data, name)
            if not missing:
                refuse_missing(matrix.data, name)
        self.name = name
        self.columns = int(matrix.shape[1])
        self.values = torch.from_numpy(np.require(matrix.data, requirements=["C", "W"]))
        self.places = torch.from_numpy(np.require(matrix.indices.astype(np.int32, copy=False), requirements=["C", "W"]))
        bounds = torch.from_numpy(matrix.indptr.astype(np.int64))
        self.starts, self.lengths = bounds[:-1], bounds.diff()

    def __len__(self) -> int:
        return len(self.lengths)

    def __repr__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return f"Sparse({len(self)} x {self.columns}, {int(self.lengths.sum())} entries, {dtype})"

    def __getitem__(self, rows: slice | Tensor) -> Sparse:
        """The chosen rows, still sparse: a slice, or a tensor of indices or booleans."""
        rows = rows.to(self.device) if isinstance(rows, Tensor) else rows
        return self._with(starts=self.starts[rows], lengths=self.lengths[rows])

    @property
    def shape(self) -> torch.Size:
        """The shape of these rows as a tensor, ``(N, D)``."""
        return torch.Size((len(self), self.columns))

    @property
    def dtype(self) -> torch.dtype:
        """Of the entries."""
        return self.values.dtype

    @property
    def device(self) -> torch.device:
        """Where they lie."""
        return self.values.device

    @property
    def nbytes(self) -> int:
        """What is held, in bytes."""
        return sum(part.nbytes for part in (self.values, self.places, self.starts, self.lengths))

    @property
    def at_once(self) -> int:
        """How many rows may be loaded together."""
        return max(1, AT_ONCE // self.columns)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Sparse:
        """The same rows on another device, or as numbers of another dtype."""
        return self._with(
            values=self.values.to(device=device, dtype=dtype),
            places=self.places.to(device=device),
            starts=self.starts.to(device=device),
            lengths=self.lengths.to(device=device),
        )

    def dense(self, rows: slice | Tensor) -> Tensor:
        """Chosen rows as a tensor ``(B, D)``."""
        row, entry, size = self._entries(rows)
        found = self.values.new_zeros(size, self.columns)
        found[row, self.places[entry].long()] = self.values[entry]
        return found

    def tensor(self) -> Tensor:
        """All rows as a tensor ``(N, D)``.

        Raises:
            ValueError: there is no memory for it.
        """
        require_memory(self.shape.numel() * self.dtype.itemsize, self.name)
        return self.dense(slice(None))

    def split(self, size: int) -> Iterator[Tensor]:
        """The rows in their order, dense, at most ``size`` at once, ``(C, D)``."""
        size = min(size, max(1, WALKED // self.columns))
        for start in range(0, len(self), size):
            yield self.dense(slice(start, start + size))

    def compact(self) -> Sparse:
        """The same rows with entries of their own, no others beside them."""
        _, entry, _ = self._entries(slice(None))
        return self._with(values=self.values[entry], places=self.places[entry], starts=self.lengths.cumsum(0) - self.lengths)

    def chosen(self, columns: Sequence[int]) -> Sparse:
        """The same rows with these columns ``(N, len(columns))``, all different, in this order."""
        row, entry, size = self._entries(slice(None))
        now = torch.full((self.columns,), -1, dtype=torch.int32, device=self.device)
        now[list(columns)] = torch.arange(len(columns), dtype=torch.int32, device=self.device)
        places = now[self.places[entry].long()]
        kept = places >= 0
        lengths = torch.bincount(row[kept], minlength=size)
        return self._with(
            columns=len(columns),
            values=self.values[entry][kept],
            places=places[kept],
            starts=lengths.cumsum(0) - lengths,
            lengths=lengths,
        )

    def mapped(self, function: Callable[[Tensor], Tensor]) -> Sparse:
        """The same rows with each entry as the function has it, which leaves zero as it is, such as a multiple."""
        return self._with(values=function(self.values))

    def followed_by(self, others: Sequence[Sparse]) -> Sparse:
        """These rows and, after them, those of others of as many columns."""
        parts = [part.compact() for part in (self, *others)]
        lengths = torch.cat([part.lengths for part in parts])
        return self._with(
            values=torch.cat([part.values for part in parts]),
            places=torch.cat([part.places for part in parts]),
            starts=lengths.cumsum(0) - lengths,
            lengths=lengths,
        )

    def _entries(self, rows: slice | Tensor) -> tuple[Tensor, Tensor, int]:
        """Of the entries of chosen rows the row, from 0, and the place among all entries; and the number of rows."""
        starts, lengths = self.starts[rows], self.lengths[rows]
        total = int(lengths.sum())
        row = torch.repeat_interleave(lengths, output_size=total)
        first = starts - lengths.cumsum(0) + lengths
        return row, torch.arange(total, device=self.device) + first[row], len(lengths)

    def _with(self, **fields: object) -> Sparse:
        other = copy.copy(self)
        vars(other).update(fields)
        return other


class DenseRows:
    """Sparse rows as batches are to get them: those that are chosen are dense."""

    def __init__(self, rows: Sparse) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        return self.rows.dense(rows)

    @property
    def device(self) -> torch.device:
        """Where the rows lie."""
        return self.rows.device
