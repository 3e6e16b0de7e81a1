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
BYTES = 2**28  # of a field's rows that are read: MNIST is 180 MB
STREAMED = 256  # rows of a stream, which lies in files of any size; and, in runs of old, of any data


def fingerprint(split: Split) -> str:
    """What tells these rows from others: their number, shape, type, and their values in every field.

    Of data above 256 MiB, rows from all over them are read; of a stream 256 rows.
    """
    if isinstance(split.raw, Stream):
        return ALL + _digest(split, STREAMED)
    row = split[:1]
    held = sum(len(_bytes(each)) for each in (row.raw if isinstance(row.raw, Ragged) else row.x, *row.fields.columns.values()))
    return ALL + _digest(split, max(STREAMED, BYTES // max(1, held)))


def is_of(kept: str, split: Split) -> bool:
    """Whether a fingerprint that was kept is that of these rows."""
    return kept == (fingerprint(split) if kept.startswith(ALL) else _digest(split, STREAMED))


def _digest(split: Split, most: int) -> str:
    """A digest of so many rows at most."""
    at_once = min(most, len(split), split.at_once)
    places = torch.linspace(0, len(split) - 1, at_once, dtype=torch.float64).long()
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
