"""Counts of words as documents in blocks, from rows of any form."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from ppl_vae.data.matrices import Matrices
from ppl_vae.data.sparse import Sparse
from ppl_vae.data.stream import Stream
from ppl_vae.exact.topics import ELEMENTS, Documents, blocks

__all__ = ["check_counts", "of_batch", "of_rows"]

AT_ONCE, CHECKED = 2**22, 2**20  # elements of dense rows, and of those that are checked together


def check_counts(x: Tensor) -> None:
    """Raise ``ValueError`` with the row and the column of a count that is negative or not whole, of x ``(N, *event)``."""
    first = 0
    for rows in x.flatten(1).split(max(1, CHECKED // max(1, x[0].numel())) if len(x) else 1):
        wrong = (rows < 0) | (rows != rows.floor())
        if bool(wrong.any()):
            row, column = wrong.nonzero()[0].tolist()
            raise ValueError(
                f"expected counts of words, whole numbers of at least 0, got {rows[row, column].item():g} in row "
                f"{first + row}, column {column}: give raw counts, no shares or tf-idf weights"
            )
        first += len(rows)


def of_batch(x: Tensor, topics: int) -> Iterator[Documents]:
    """The blocks of a batch x ``(B, *event)``."""
    flat = x.flatten(1)
    row, word = flat.nonzero().unbind(1)
    lengths = torch.bincount(row, minlength=len(flat))
    yield from _blocks(lengths, word.int(), flat[row, word], topics)


def of_rows(rows: Any, topics: int, dtype: torch.dtype) -> Iterable[Documents]:
    """The blocks of training data: in memory, or of files that are larger walked anew at every pass.

    Args:
        rows: batches ``(B, D)``, walked anew at every pass.
        topics: K, of which a block's words have to fit into the caches.
        dtype: of the counts.
    """
    split = rows.split if isinstance(rows, Matrices) else None
    if split is None:
        found = list(rows)
        return list(of_batch(torch.cat(found).to(dtype), topics))
    if isinstance(split.raw, Stream):
        return _Streamed(rows, topics, dtype)
    entries = _held(split.raw) if isinstance(split.raw, Sparse) else _found(rows)
    return list(_blocks(*entries[:2], entries[2].to(dtype), topics))


class _Streamed:
    """Blocks of rows that are read anew at every pass."""

    def __init__(self, rows: Matrices, topics: int, dtype: torch.dtype) -> None:
        self.rows, self.topics, self.dtype = rows, topics, dtype

    def __iter__(self) -> Iterator[Documents]:
        for x in _pieces(self.rows):
            yield from of_batch(x.to(self.dtype), self.topics)


def _pieces(rows: Matrices) -> Iterator[Tensor]:
    iter(rows)  # which refuses what differs from pass to pass
    return rows.split.batches(max(1, AT_ONCE // rows.split.elements))


def _held(rows: Sparse) -> tuple[Tensor, Tensor, Tensor]:
    held = rows.compact()
    return held.lengths, held.places, held.values


def _found(rows: Matrices) -> tuple[Tensor, Tensor, Tensor]:
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for x in _pieces(rows):
        flat = x.flatten(1)
        row, word = flat.nonzero().unbind(1)
        parts.append((torch.bincount(row, minlength=len(flat)), word.int(), flat[row, word]))
    lengths, words, counts = (torch.cat(part) for part in zip(*parts, strict=True))
    return lengths, words, counts


def _blocks(lengths: Tensor, words: Tensor, counts: Tensor, topics: int) -> Iterator[Documents]:
    starts = lengths.cumsum(0) - lengths
    return blocks(starts, lengths, words, counts, elements=max(1, ELEMENTS // topics))
