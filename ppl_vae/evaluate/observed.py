"""What a decoder gives: data by the names of the sites that observe them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ppl_vae.data import Split
from ppl_vae.program.pair import Pair

__all__ = ["ROWS_AT_ONCE", "Given", "Observed", "as_in", "at_once", "joined"]

ROWS_AT_ONCE = 1000

Given = tuple[Tensor, ...]
"""What p(z) and p(x | z) are conditioned on, as a decoder takes it; empty if on nothing."""


class Observed(NamedTuple):
    """Data by the names of the sites that observe them, and the name of that which observes x itself, if any does."""

    values: dict[str, Tensor]
    x: str = ""


def joined(parts: list[Observed]) -> Observed:
    """Rows after rows, of the sites that are observed in all parts."""
    names = [name for name in parts[0].values if all(name in part.values for part in parts)]
    return Observed({name: torch.cat([part.values[name] for part in parts]) for name in names}, parts[0].x)


def at_once(pair: Pair, split: Split) -> int:
    """How many rows of a split are run together: all where the programs were fitted to so many, which may be all they take."""
    return max(1, len(split) if len(split) in pair.sizes and pair.plain else ROWS_AT_ONCE)


def as_in(split: Split, pair: Pair, rows: Tensor, dim: int = 0) -> Tensor:
    """Rows of what :func:`~ppl_vae.evaluate.rows.batches` gave in the order of the split."""
    return rows if split.fields.seen is None else rows.index_select(dim, split.order(pair.reads).argsort())
