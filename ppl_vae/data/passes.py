"""Passes over a split: which of its rows can stand in one batch, and in which order the batches come."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Generator, Tensor

from ppl_vae.data.blocks import in_order, shuffled
from ppl_vae.data.fields import LENGTH, Fields, taken
from ppl_vae.data.ragged import Ragged, View
from ppl_vae.data.sparse import DenseRows, Sparse
from ppl_vae.data.stream import Stream
from ppl_vae.data.transform import Transform
from ppl_vae.types import FOUND_LABELS

__all__ = ["Group", "Passes"]


class Group(NamedTuple):
    """Rows that can stand in one batch: they have the same fields, and are padded to one length.

    ``rows`` tells which they are, ``(N,)`` booleans, ``names`` the fields that they have, and ``length`` what rows of different
    lengths are padded to, if there are such.
    """

    rows: Tensor
    names: tuple[str, ...]
    length: int | None


class Passes(ABC):
    """Raw rows with fields beside them, walked batch by batch.

    Attributes:
        raw: the rows ``(N, *event)``, a stream of them, sparse rows, or rows of different lengths.
        transform: from raw values to what the model sees.
        fields: what else programs read of the rows.
    """

    raw: Tensor | Stream | Sparse | Ragged
    transform: Transform
    fields: Fields

    @abstractmethod
    def __len__(self) -> int:
        """N."""

    @abstractmethod
    def __getitem__(self, rows: int | slice | Tensor) -> Self:
        """The chosen rows."""

    @abstractmethod
    def column(self, name: str) -> Tensor | View:
        """A field of each row as batches take their rows of it."""

    @property
    @abstractmethod
    def has_label(self) -> Tensor:
        """Which rows have a class ``(N,)``."""

    @abstractmethod
    def padded_to(self, length: int) -> Self:
        """The same rows, all to be padded to one length."""

    @property
    def device(self) -> torch.device:
        """Where the data lie, or arrive."""
        return self.raw.device

    @property
    def lead(self) -> Ragged | None:
        """The first field whose rows differ in length, x before others: batches hold rows of one of its buckets."""
        return self.raw if isinstance(self.raw, Ragged) else self.fields.lead

    def batches(self, batch_size: int, *, generator: Generator | None = None) -> Iterator[Tensor]:
        """What the model sees, batch by batch, the smaller last one included.

        Args:
            batch_size: rows in a batch.
            generator: shuffles the rows and draws the transform's noise; on the device of the data. By default rows come in
                their order, and noise, if the transform has any, from torch's global generator.

        Yields:
            tensors ``(B, *event)``, or ``(B, T, *event)`` where rows differ in length: padded to one of the buckets.

        Raises:
            ValueError: a batch size below 1, or a generator of another device.
        """
        self._check(batch_size, generator)
        return self._batches(batch_size, generator)

    def labelled_batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """What the model sees in the rows' order, and their labels, batch by batch, the smaller last one included.

        Args:
            batch_size: rows in a batch.

        Yields:
            x ``(B, *event)`` and y ``(B,)``.

        Raises:
            ValueError: a batch size below 1, or rows without labels.
        """
        return ((x, y) for x, y in self.read(("x", "y"), batch_size))

    def blocks(self, batch_size: int, *, generator: Generator, reads: Sequence[str] = ("x",)) -> Iterator[tuple[Tensor, ...]]:
        """One pass over the split in random order: raw rows on the device, and the order in which to visit them.

        Batches are slices of the order, ``transform(raw[order[i : i + batch_size]])``; the transform is left to the caller, who
        may fuse it with what follows. Data in memory are one block, and all their orders are equally probable. Streamed data
        come in blocks of the declared size; see :func:`~ppl_vae.data.blocks.shuffled` for how they are shuffled.

        Args:
            batch_size: rows in a batch; every block but the last holds a multiple of it.
            generator: shuffles the rows; on the device of the data.
            reads: x, and the fields (``y``: the labels) that stand between the rows and their order.

        Yields:
            raw rows ``(C, *event)``, fields ``(C, ...)``, and their order ``(C,)`` int64, all on the device.

        Raises:
            ValueError: a batch size below 1, a generator of another device, or a field that the rows do not have.
        """
        self._check(batch_size, generator)
        x: Any = View(self.raw, self.raw.longest, None) if isinstance(self.raw, Ragged) else self.raw
        x = DenseRows(x) if isinstance(x, Sparse) else x
        return shuffled(x, batch_size, generator, beside=[self.column(name) for name in reads[1:]])

    def read(self, reads: Sequence[str], batch_size: int) -> Iterator[tuple[Tensor, ...]]:
        """What programs read, batch by batch, the smaller last one included, in the rows' order.

        Rows that lack a field come last, in batches of their own without it. Rows of different lengths come bucket by bucket,
        the shortest first. :meth:`order` tells which row is where.

        Args:
            reads: x, and the fields (``y``: the labels) beside it.
            batch_size: rows in a batch.

        Yields:
            x ``(B, *event)`` as the model sees it, and the fields ``(B, ...)``.

        Raises:
            ValueError: a batch size below 1, or a field that the rows do not have.
        """
        self._check(batch_size, None)
        parts = [(part, [part.column(name) for name in names[1:]]) for part, names in self.apart(reads)]
        return (batch for part, columns in parts for batch in part._read(columns, batch_size))

    def apart(self, reads: Sequence[str]) -> list[tuple[Self, tuple[str, ...]]]:
        """The rows that can stand in one batch, kind by kind, each with the names of the fields that they have.

        They have the same fields, and are padded to one length. Rows that lack a field come last.
        """
        found = []
        for group in _groups(self, reads):
            part = self[group.rows]
            found.append((part if group.length is None else part.padded_to(group.length), group.names))
        return found or [(self, tuple(reads))]

    def order(self, reads: Sequence[str]) -> Tensor:
        """Which row comes when :meth:`read` gives them, ``(N,)``."""
        found = _groups(self, reads)
        if len(found) <= 1:
            return torch.arange(len(self), device=self.device)
        return torch.cat([group.rows.nonzero().flatten() for group in found])

    def arranged(self, reads: Sequence[str]) -> Self:
        """The same rows in the order in which :meth:`read` gives them."""
        alike = self.fields.seen is None and self.lead is None and FOUND_LABELS not in reads
        return self if alike else self[self.order(reads)]

    def steps(self, batch_size: int, *, generator: Generator, reads: Sequence[str]) -> Iterator[tuple[list[Tensor], Tensor]]:
        """One pass over the split in random order, :meth:`blocks` cut into batches.

        Rows that lack a field make batches of their own, without it, at random among the others; and so do rows that are padded
        to one length. The smaller last ones of all kinds come last. All batches of a pass together are all data once, as of
        rows of one kind.

        Args:
            batch_size: rows in a batch.
            generator: shuffles the rows; on the device of the data.
            reads: x, and the fields (``y``: the labels) beside it.

        Yields:
            a block's raw rows and fields, and which of its rows ``(B,)`` are a batch: see :func:`~ppl_vae.data.fields.taken`.
        """
        return _random_batches(self, batch_size, generator=generator, reads=reads)

    def _check(self, batch_size: int, generator: Generator | None) -> None:
        if batch_size < 1:
            raise ValueError(f"expected batch_size >= 1, got {batch_size}")
        if generator is not None and generator.device.type != self.device.type:
            raise ValueError(f"expected a generator on the data's device {self.device}, got one on {generator.device}")

    def _read(self, columns: list[Tensor | View], batch_size: int) -> Iterator[tuple[Tensor, ...]]:
        for start, x in zip(range(0, len(self), batch_size), self._batches(batch_size, None), strict=True):
            yield tuple(taken([x, *(column[start : start + batch_size] for column in columns)], slice(None)))

    def _batches(self, batch_size: int, generator: Generator | None) -> Iterator[Tensor]:
        if generator is not None:
            for (x, *_), rows in self.steps(batch_size, generator=generator, reads=("x",)):
                yield self.transform(x[rows], generator)
        elif isinstance(self.raw, Ragged):
            bucket = self.raw.bucket()
            for rows in torch.arange(len(self), device=self.device).split(batch_size) if len(self) else ():
                yield self.transform(self.raw.padded(rows, self.raw.buckets[int(bucket[rows].max())]))
        elif isinstance(self.raw, Sparse):
            for start in range(0, len(self), batch_size):
                yield self.transform(self.raw.dense(slice(start, start + batch_size)))
        else:
            for rows in in_order(self.raw, batch_size):
                yield self.transform(rows)


def _groups(split: Passes, reads: Sequence[str]) -> list[Group]:
    """The groups of a split's rows for programs that read these fields, those that have rows; none if all rows are alike.

    Raises:
        ValueError: streamed rows of which some lack a label.
    """
    lead, partial, seen = split.lead, split.fields.partial, split.fields.seen
    if FOUND_LABELS in reads and not bool((labelled := split.has_label).all()):
        partial, seen = FOUND_LABELS, labelled
        if isinstance(split.raw, Stream) and bool(seen.any()):
            raise ValueError("expected rows in memory where some have no label, got a stream: give fewer, or label them all")
    there: list[tuple[Tensor | None, tuple[str, ...]]] = [(None, tuple(reads))]
    if seen is not None and partial in reads:
        there = [(seen, tuple(reads)), (~seen, tuple(name for name in reads if name != partial))]
    if lead is None:
        found = [Group(rows, names, None) for rows, names in there if rows is not None]
    else:
        bucket = lead.bucket()
        found = [
            Group((bucket == place) & (True if rows is None else rows), names, length)
            for rows, names in there
            for place, length in enumerate(lead.buckets)
        ]
    return [group for group in found if bool(group.rows.any())]


def _random_batches(
    split: Passes, batch_size: int, *, generator: Generator, reads: Sequence[str]
) -> Iterator[tuple[list[Any], Tensor]]:
    """One pass in random order: a block's raw rows and fields, and which of its rows ``(B,)`` are a batch.

    The order of the rows is uniform over all; the batches of each group are filled in that order, and come at random among each
    other, the smaller last ones of all groups last. No row is left out.
    """
    found = _groups(split, reads)
    for *block, order in split.blocks(batch_size, generator=generator, reads=reads):
        if not found or (len(found) == 1 and found[0].length is not None):
            block = _of(found[0], block, split, reads) if found else block
            yield from ((block, rows) for rows in order.split(batch_size))
            continue
        batches = []
        for group in found:
            part = _of(group, block, split, reads)
            batches += [(part, rows) for rows in order[group.rows[order]].split(batch_size) if len(rows)]
        places = torch.randperm(len(batches), generator=generator, device=order.device).tolist()
        yield from sorted((batches[place] for place in places), key=lambda batch: len(batch[1]) < batch_size)


def _of(group: Group, block: list[Any], split: Passes, reads: Sequence[str]) -> list[Any]:
    """A block as the batches of a group take their rows of it."""
    parts = [(place, name, part) for place, (name, part) in enumerate(zip(reads, block, strict=True)) if name in group.names]
    return [
        part.at(group.length)
        if group.length is not None and isinstance(part, View) and (place == 0 or split.fields.lengths.get(name) == LENGTH)
        else part
        for place, name, part in parts
    ]
