"""Rows of different lengths: sentences, strokes, series."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppl_vae.data.arrays import as_array
from ppl_vae.data.buckets import MOST_BUCKETS, bucket_lengths
from ppl_vae.data.vocabulary import codes_between

__all__ = ["Ragged", "View", "joined", "sequence_mask"]

ROWS = 4096  # rows whose values are put together at once
INTEGERS = (torch.uint8, torch.int16, torch.int32, torch.int64)


class Ragged:
    """Rows of different lengths, their values one after the other, and where each row begins.

    Row i is ``values[offsets[i] : offsets[i + 1]]`` of shape ``(length, *event)``. Rows that are chosen share the values.

    Args:
        values: ``(total, *event)``, finite numbers: of all rows, none left out. Integers are kept in the smallest dtype.
        offsets: ``(N + 1,)``, whole numbers that do not fall, from 0 to the total.
        vocabulary: the tokens that the values are the places of, where they are tokens.
        buckets: the lengths to which rows are padded for batches; by default at most 6, so that the fewest elements are padded.

    Attributes:
        lengths: of the rows ``(N,)`` int64.
        buckets: the lengths to which rows are padded, rising; the last holds every row.

    Raises:
        ValueError: offsets that fall, or do not lead from the first value to the last; values that are no finite numbers.

    Examples:
        >>> rows = Ragged([1, 2, 3, 4, 5], [0, 2, 2, 5])
        >>> rows[2], rows.lengths
        (tensor([3, 4, 5], dtype=torch.uint8), tensor([2, 0, 3]))
        >>> rows.padded(torch.tensor([0, 2]), 4)
        tensor([[1, 2, 0, 0],
                [3, 4, 5, 0]], dtype=torch.uint8)
    """

    def __init__(
        self,
        values: Any,
        offsets: Any,
        *,
        vocabulary: Sequence[str] = (),
        buckets: Sequence[int] = (),
    ) -> None:
        array, places = as_array(values, "the values of ragged rows"), as_array(offsets, "the offsets of ragged rows")
        _check_values(array)
        _check_offsets(places, len(array))
        _check_finite(array, places)
        self.values = torch.from_numpy(np.require(_small(array), requirements=["C", "W"]))
        bounds = torch.from_numpy(places.astype(np.int64))
        self.starts, self.lengths = bounds[:-1], bounds.diff()
        self.tokens = tuple(vocabulary)
        self.vocabulary = self.tokens
        self._codes: Tensor | None = None
        if self.tokens and len(array) and not (array.min() >= 0 and array.max() < len(self.tokens)):
            raise ValueError(
                f"expected tokens as places in the vocabulary, 0 to {len(self.tokens) - 1}, got {array.min()} to {array.max()}"
            )
        self.buckets = _checked_buckets(buckets, self.lengths.numpy())

    @classmethod
    def from_list(cls, rows: Sequence[Any], **options: Any) -> Ragged:
        """Rows given one by one: arrays, tensors or lists, each ``(length, *event)``.

        Raises:
            ValueError: no rows, or rows whose elements differ in shape.
        """
        arrays = [as_array(row, f"row {place} (from 0)") for place, row in enumerate(rows)]
        if not arrays:
            raise ValueError("expected at least one row, got none")
        events = {array.shape[1:]: place for place, array in reversed(list(enumerate(arrays))) if array.size or array.ndim != 1}
        if any(array.ndim == 0 for array in arrays) or len(events) > 1:
            told = ", ".join(f"row {place} of {arrays[place].shape}" for place in sorted(events.values())[:2])
            raise ValueError(f"expected rows (length, *event) of one shape of an element, got {told or 'single numbers'}")
        event = next(iter(events), ())
        filled = [array for array in arrays if array.size] or [np.zeros((0, *event))]
        return cls(np.concatenate(filled), np.cumsum([0, *map(len, arrays)]), **options)

    def __len__(self) -> int:
        return len(self.lengths)

    def __repr__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        least, most = (int(self.lengths.min()), int(self.lengths.max())) if len(self) else (0, 0)
        return f"Ragged({len(self)} rows of {least} to {most} x {tuple(self.event_shape)}, {dtype})"

    def __getitem__(self, rows: int | slice | Tensor) -> Any:
        """A row ``(length, *event)`` by its number; of a slice, indices or booleans these rows, which share the values."""
        if isinstance(rows, int):
            start, length = int(self.starts[rows]), int(self.lengths[rows])
            return self.coded(self.values[start : start + length])
        rows = rows.to(self.device) if isinstance(rows, Tensor) else rows
        return self._with(starts=self.starts[rows], lengths=self.lengths[rows])

    @property
    def event_shape(self) -> torch.Size:
        """The shape of one element of a row."""
        return self.values.shape[1:]

    @property
    def shape(self) -> torch.Size:
        """The shape of these rows but for their lengths, ``(N, *event)``."""
        return torch.Size((len(self), *self.event_shape))

    @property
    def dtype(self) -> torch.dtype:
        """Of the values, as they are stored."""
        return self.values.dtype

    @property
    def device(self) -> torch.device:
        """Where the values lie."""
        return self.values.device

    @property
    def offsets(self) -> Tensor:
        """Where each row would begin if these rows alone were stored, and the last one end, ``(N + 1,)`` int64."""
        return torch.cat([self.lengths.new_zeros(1), self.lengths.cumsum(0)])

    @property
    def total(self) -> int:
        """The number of elements of these rows."""
        return int(self.lengths.sum())

    @property
    def longest(self) -> int:
        """The longest that a row is padded to."""
        return self.buckets[-1]

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Ragged:
        """The same rows on another device, or as numbers of another dtype."""
        return self._with(
            values=self.values.to(device=device, dtype=dtype),
            starts=self.starts.to(device=device),
            lengths=self.lengths.to(device=device),
            _codes=None if self._codes is None else self._codes.to(device=device),
        )

    def padded(self, rows: slice | Tensor, length: int) -> Tensor:
        """Rows as one tensor ``(B, length, *event)``, zeros after the end of each."""
        starts, lengths = self.starts[rows], self.lengths[rows]
        steps = torch.arange(length, device=self.device)
        inside = steps < lengths[:, None]
        if not len(self.values):
            return self.values.new_zeros(*inside.shape, *self.event_shape)
        found = self.coded(self.values[(starts[:, None] + steps).masked_fill(~inside, 0)])
        return found.masked_fill(~inside.reshape(*inside.shape, *(1 for _ in self.event_shape)), 0)

    def bucket(self) -> Tensor:
        """Which of the buckets each row goes to, ``(N,)``: the shortest that holds it."""
        return torch.searchsorted(torch.tensor(self.buckets, device=self.device), self.lengths)

    def bucketed(self, buckets: Sequence[int]) -> Ragged:
        """The same rows, to be padded to these lengths, and to their own longest where that is longer."""
        return self._with(buckets=_checked_buckets(buckets, self.lengths.cpu().numpy()))

    def split(self, size: int) -> Iterator[Tensor]:
        """The elements of the rows in their order, at most ``size`` at once, ``(C, *event)``."""
        for first in range(0, len(self), ROWS):
            starts, lengths = self.starts[first : first + ROWS], self.lengths[first : first + ROWS]
            places = torch.arange(int(lengths.sum()), device=self.device)
            places += torch.repeat_interleave(starts - lengths.cumsum(0) + lengths, lengths)
            yield from (self.coded(self.values[part]) for part in places.split(size) if len(part))

    def compact(self) -> Ragged:
        """The same rows with values of their own, no others beside them."""
        plain = self._with(_codes=None)
        parts = list(plain.split(2**20)) or [self.values[:0]]
        return self._with(values=torch.cat(parts), starts=self.offsets[:-1])

    def with_values(self, values: Tensor) -> Ragged:
        """Rows of these lengths with other values, which are those of compact rows, ``(total, *event)``."""
        return self._with(values=values, starts=self.offsets[:-1])

    def resplit(self, lengths: Tensor) -> Ragged:
        """The elements of these rows, in their order, as rows of other lengths, padded to buckets of their own."""
        held = self.compact()
        buckets = _checked_buckets((), lengths.cpu().numpy())
        return held._with(starts=lengths.cumsum(0) - lengths, lengths=lengths, buckets=buckets)

    def mapped(self, function: Callable[[Tensor], Tensor]) -> Ragged:
        """The same rows with each value as the function has it, such as a multiple."""
        return self._with(values=function(self.values))

    def with_vocabulary(self, vocabulary: Sequence[str]) -> Ragged:
        """The same numbers as places in a vocabulary, where they came without one.

        Raises:
            ValueError: a number that is no place in it.
        """
        high = max((int(values.max()) for values in self.split(2**20)), default=0)
        low = min((int(values.min()) for values in self.split(2**20)), default=0)
        if self.dtype not in INTEGERS or low < 0 or high >= len(vocabulary):
            raise ValueError(f"expected tokens as numbers from 0 to {len(vocabulary) - 1}, got {self.dtype}, {low} to {high}")
        return self._with(tokens=tuple(vocabulary), vocabulary=tuple(vocabulary))

    def under(self, vocabulary: Sequence[str]) -> Ragged:
        """The same tokens as places in another vocabulary, those that it lacks as its unknown token.

        Raises:
            ValueError: it lacks one, and has no unknown token.
        """
        if not self.tokens or tuple(vocabulary) == self.vocabulary:
            return self
        used = torch.zeros(len(self.tokens), dtype=torch.bool)
        for values in self._with(_codes=None).split(2**20):
            used[values.cpu().long().unique()] = True
        codes = codes_between(self.tokens, tuple(vocabulary), used.numpy())
        return self._with(vocabulary=tuple(vocabulary), _codes=torch.from_numpy(codes).to(self.device))

    def counts(self) -> Tensor:
        """How often each token of the source stands in these rows, ``(tokens,)``."""
        found = torch.zeros(len(self.tokens), dtype=torch.int64)
        for values in self._with(_codes=None).split(2**20):
            found += torch.bincount(values.cpu().long(), minlength=len(self.tokens))
        return found

    def coded(self, values: Tensor) -> Tensor:
        """Values as the vocabulary has them."""
        return values if self._codes is None else self._codes[values.long()]

    def _with(self, **fields: object) -> Ragged:
        other = copy.copy(self)
        vars(other).update(fields)
        return other


class View:
    """A field of all rows as batches are to get it: chosen rows padded to one length, and shown through its transform.

    Args:
        column: ``(N, ...)``, or rows of different lengths.
        length: to which these are padded.
        transform: what is done to the rows of a batch.
    """

    def __init__(self, column: Tensor | Ragged, length: int | None, transform: Callable[[Tensor], Tensor] | None) -> None:
        self.column = column
        self.length = length
        self.transform = transform

    def __len__(self) -> int:
        return len(self.column)

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        found = self.column.padded(rows, self.length or 1) if isinstance(self.column, Ragged) else self.column[rows]
        return found if self.transform is None else self.transform(found)

    @property
    def device(self) -> torch.device:
        """Where the rows lie."""
        return self.column.device

    def at(self, length: int) -> View:
        """The same field, its rows padded to another length."""
        return View(self.column, length, self.transform)


def joined(parts: Sequence[Any]) -> Any:
    """The rows of several tensors, or of several ragged fields, one after the other."""
    first = parts[0]
    if not isinstance(first, Ragged):
        return torch.cat(list(parts))
    compact = [part.under(first.vocabulary).compact() for part in parts]
    values = torch.cat([part.coded(part.values) for part in compact])
    lengths = torch.cat([part.lengths for part in compact])
    return first._with(
        values=values,
        lengths=lengths,
        starts=lengths.cumsum(0) - lengths,
        tokens=first.vocabulary,
        buckets=_checked_buckets(first.buckets, lengths.cpu().numpy()),
        _codes=None,
    )


def sequence_mask(length: Tensor, longest: int) -> Tensor:
    """Which places of padded rows are no padding: ``(*batch, longest)`` booleans, for rows of these lengths ``(*batch,)``.

    Examples:
        >>> sequence_mask(torch.tensor([1, 3]), 3)
        tensor([[ True, False, False],
                [ True,  True,  True]])
    """
    return torch.arange(longest, device=length.device) < length[..., None]


def _checked_buckets(buckets: Sequence[int], lengths: np.ndarray) -> tuple[int, ...]:
    if not buckets:
        return bucket_lengths(lengths, MOST_BUCKETS) or (1,)
    found = tuple(int(length) for length in buckets)
    if list(found) != sorted(set(found)) or found[0] < 1:
        raise ValueError(f"expected buckets as rising lengths from 1 on, got {', '.join(map(str, found))}")
    longest = int(lengths.max(initial=1))
    return found if longest <= found[-1] else (*found, longest)


def _check_values(array: np.ndarray) -> None:
    if array.ndim == 0 or array.dtype.kind not in "biuf":
        raise ValueError(
            f"expected the values of ragged rows as numbers (total, *event), got {array.dtype} of shape {array.shape}: give "
            "rows one by one to Ragged.from_list, text to load_data(..., tokens='characters')"
        )


def _check_finite(array: np.ndarray, places: np.ndarray) -> None:
    """Raise ``ValueError`` if a number is missing or infinite."""
    bad = ~np.isfinite(array) if array.dtype.kind == "f" else np.zeros(0, dtype=bool)
    if bad.any():
        rows = np.unique(np.searchsorted(places, np.nonzero(bad)[0], side="right") - 1)
        kind = "NaN" if np.isnan(array).any() else "inf"
        raise ValueError(
            f"the values of ragged rows: expected finite values, got {kind} in {bad.sum()} entries of {len(rows)} rows, first "
            f"in row {rows[0]} (from 0): drop these rows or fill them"
        )


def _check_offsets(places: np.ndarray, total: int) -> None:
    if places.ndim != 1 or places.dtype.kind not in "iu" or len(places) < 1:
        raise ValueError(
            f"expected the offsets of ragged rows as whole numbers (N + 1,), got {places.dtype} of shape {places.shape}: give "
            "np.cumsum([0, *lengths])"
        )
    steps = np.diff(places.astype(np.int64))
    if places[0] != 0 or places[-1] != total or (steps < 0).any():
        fall = f", falling after row {int((steps < 0).argmax())}" if (steps < 0).any() else ""
        raise ValueError(
            f"expected offsets that rise from 0 to the {total} values, got {places[0]} to {places[-1]}{fall}: give "
            "np.cumsum([0, *lengths])"
        )


def _small(array: np.ndarray) -> np.ndarray:
    """Integers in the smallest dtype that holds them; float32 unless they came with more digits."""
    if array.dtype.kind == "f":
        return array.astype(np.float32 if array.dtype.itemsize <= 4 else np.float64, copy=False)
    if array.dtype.kind == "b" or not array.size:
        return array.astype(np.uint8)
    low, high = int(array.min()), int(array.max())
    for dtype in (np.uint8, np.int16, np.int32, np.int64):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return array.astype(dtype, copy=False)
    raise ValueError(f"expected integers that fit int64, got {high}: subtract an offset or convert to float")
