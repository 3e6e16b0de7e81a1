"""What tells data from others without holding them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ppl_vae.data.ragged import Ragged
from ppl_vae.data.split import Split
from ppl_vae.data.stream import Stream
from ppl_vae.types import DataSpec

__all__ = ["HELD_OUT", "PARTS", "changed", "fingerprint", "fingerprints", "is_of", "names", "told"]

ALL, SOME = "all-", "some-"  # what a fingerprint begins with: of every value, or of rows from all over many
BYTES = 2**28  # of the rows that are read: MNIST is 180 MB
STREAMED = 256  # rows of a stream, which lies in files of any size; and, in runs of old, of any data
PARTS, HELD_OUT = ("train", "valid", "test"), "held-out"  # what runs of old have one fingerprint of


def fingerprint(split: Split) -> str:
    """What tells these rows from others: their number, shape, type, and their values in every field.

    Of data above 256 MiB, rows from all over them are read; of a stream 256 rows.
    """
    places = _spread(split, STREAMED if isinstance(split.raw, Stream) else _most(split))
    return (ALL if len(places) == len(split) else SOME) + _digest(split, places)


def fingerprints(splits: Mapping[str, Split]) -> dict[str, str]:
    """Those of the splits that have rows, by name."""
    return {name: fingerprint(split) for name, split in splits.items() if len(split)}


def told(prints: Mapping[str, str], kept: object, train: Split) -> str:
    """Fingerprints as one line, or the line that was kept of the same data, by a version that looked at training rows alone."""
    before = isinstance(kept, str) and kept and " " not in kept
    return str(kept) if before and is_of(str(kept), train) else " ".join(f"{name} {each}" for name, each in prints.items())


def names(spec: DataSpec) -> str:
    """What columns, categories and classes are called, which their values, and so their fingerprints, do not tell."""
    texts = {column.name: column.categories for column in spec.table}
    columns = [f"{name} ({', '.join(found)})" if (found := texts.get(name)) else name for name in spec.columns]
    return ", ".join([*columns, *([f"of classes {', '.join(spec.classes)}"] if spec.classes else [])])


def is_of(kept: str, split: Split) -> bool:
    """Whether a fingerprint that was kept is that of these rows."""
    if kept.startswith((ALL, SOME)):
        return kept == fingerprint(split)
    before = torch.linspace(0, len(split) - 1, min(STREAMED, len(split), split.at_once)).long()
    return kept == _digest(split, before)


def changed(kept: Mapping[str, str], splits: Mapping[str, Split]) -> list[str]:
    """The splits whose rows are not those of the fingerprints that were kept of them."""
    held_out = splits["test"] if len(splits["test"]) else splits["train"]
    return [name for name, each in kept.items() if not is_of(each, held_out if name == HELD_OUT else splits[name])]


def _most(split: Split) -> int:
    raw = split.raw if isinstance(split.raw, Ragged) else split[:1].x
    held = sum(_bytes_of_row(each) for each in (raw, *split.fields.columns.values()))
    return max(STREAMED, int(BYTES / max(1.0, held)))


def _bytes_of_row(column: Any) -> float:
    """The bytes of a row of a field, in the mean where rows differ in length."""
    if isinstance(column, Ragged):
        return float(column.lengths.double().mean()) * column.values[:1].nbytes
    return float(column[:1].nbytes)


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
