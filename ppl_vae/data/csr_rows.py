"""Sparse rows in files, made dense as they are read: counts of words or genes that are larger than memory."""

from __future__ import annotations

import numpy as np

__all__ = ["SparseRows"]


class SparseRows:
    """Rows ``(N, D)`` by their entries that are not zero, in the place of a memory-mapped array of them.

    Args:
        values: of the entries, row after row.
        places: their columns.
        starts: where each row begins among them, and where the last one ends, ``(N + 1,)``.
        columns: D.

    Examples:
        >>> rows = SparseRows(np.array([2, 1, 3]), np.array([1, 0, 2]), np.array([0, 1, 1, 3]), 3)
        >>> rows.shape, rows[np.array([2, 0])].tolist()
        ((3, 3), [[1, 0, 3], [0, 2, 0]])
    """

    def __init__(self, values: np.ndarray, places: np.ndarray, starts: np.ndarray, columns: int) -> None:
        self.values, self.places, self.starts = values, places, starts
        self.dtype = values.dtype
        self.shape = (len(starts) - 1, columns)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        first, lengths = self.starts[rows], self.starts[rows + 1] - self.starts[rows]
        found = np.zeros((len(rows), self.shape[1]), self.dtype)
        row = np.repeat(np.arange(len(rows)), lengths)
        entry = np.arange(len(row)) + np.repeat(first - lengths.cumsum() + lengths, lengths)
        found[row, self.places[entry]] = self.values[entry]
        return found
