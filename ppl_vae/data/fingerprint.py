"""What tells data from others without holding them."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor

from ppl_vae.data.ragged import Ragged
from ppl_vae.data.split import Split

__all__ = ["fingerprint"]

SAMPLED = 256  # rows by which data are told from others


def fingerprint(split: Split) -> str:
    """What tells these rows from others: their number, shape, type, and the values of some of them in every field."""
    at_once = min(SAMPLED, len(split), split.at_once)
    places = torch.linspace(0, len(split) - 1, at_once).long()
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
