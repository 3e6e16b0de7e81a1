"""What tells data from others without holding them."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor

from ppl_vae.data.ragged import Ragged
from ppl_vae.data.split import Split
from ppl_vae.data.stream import Stream

__all__ = ["fingerprint", "is_of"]

ALL = "all-"  # what a fingerprint begins with for which every value was read, as far as they are few enough
BYTES = 2**28  # of the rows that are read: MNIST is 180 MB
STREAMED = 256  # rows of a stream, which lies in files of any size; and, in runs of old, of any data


def fingerprint(split: Split) -> str:
    """What tells these rows from others: their number, shape, type, and their values in every field.

    Of data above 256 MiB, rows from all over them are read; of a stream 256 rows.
    """
    if isinstance(split.raw, Stream):
        return ALL + _digest(split, _spread(split, STREAMED))
    raw = split.raw if isinstance(split.raw, Ragged) else split[:1].x
    held = sum(_bytes_of_row(each) for each in (raw, *split.fields.columns.values()))
    return ALL + _digest(split, _spread(split, max(STREAMED, int(BYTES / max(1.0, held)))))


def _bytes_of_row(column: Any) -> float:
    """The bytes of a row of a field, in the mean where rows differ in length."""
    if isinstance(column, Ragged):
        return float(column.lengths.double().mean()) * column.values[:1].nbytes
    return float(column[:1].nbytes)


def is_of(kept: str, split: Split) -> bool:
    """Whether a fingerprint that was kept is that of these rows."""
    if kept.startswith(ALL):
        return kept == fingerprint(split)
    before = torch.linspace(0, len(split) - 1, min(STREAMED, len(split), split.at_once)).long()
    return kept == _digest(split, before)


def _spread(split: Split, most: int) -> Tensor:
    """Places of so many rows from all over a split, of all where they are no more."""
    count = min(most, len(split), split.at_once)
    return torch.arange(count) * (len(split) - 1) // max(1, count - 1)


def _digest(split: Split, places: Tensor) -> str:
    """A digest of some rows."""
    some = split[places]
    digest = hashlib.sha256(repr((len(split), split.event_shape, str(split.raw.dtype))).encode())
    digest.update(_bytes(some.raw if isinstance(some.raw, Ragged) else some.x))
    if split.weights is not None:  # all of them: one that differs is another objective
        digest.update(b"weights" + _bytes(split.weights.double()))
    if some.y is not None:
        digest.update(_bytes(some.y))
    for name, column in some.fields.columns.items():
        digest.update(name.encode() + _bytes(column))
    if some.fields.seen is not None:
        digest.update(_bytes(some.fields.seen))
    return digest.hexdigest()[:16]


def _bytes(column: Any) -> bytes:
    """The values of a field; of rows of different lengths also the lengths, and what the numbers of tokens stand for."""
    if isinstance(column, Ragged):
        parts: list[Tensor] = [column.lengths, *column.split(2**20)]
        return repr(column.vocabulary).encode() + b"".join(map(_bytes, parts))
    return column.cpu().contiguous().numpy().tobytes()
