"""Which rows are to train on, to validate and to test, and rows that are longer than declared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppl_vae.data.buckets import MOST_BUCKETS, bucket_lengths
from ppl_vae.data.ragged import Ragged
from ppl_vae.data.seeds import seeded_generator
from ppl_vae.data.source import DataSource

__all__ = ["pieces", "refuse_longer", "rows_of_parts"]


def rows_of_parts(
    source: DataSource, size: int, *, has_test: bool, has_valid: bool, images: np.ndarray | None = None
) -> list[Tensor]:
    """Indices of train, valid and test, each in the order of the source.

    They are drawn by the seed; rows of a running text stay one after the other, train, valid, test, for a row between two that
    were learned from is half known. Patches of one image, of the number ``images (size,)``, stay together, for they overlap.
    """
    if images is not None:
        parts = rows_of_parts(source, int(images.max()) + 1, has_test=has_test, has_valid=has_valid)
        return [torch.from_numpy(np.isin(images, part.numpy()).nonzero()[0]) for part in parts]
    test = 0 if has_test else _held_out(source.test, size)
    valid = 0 if has_valid else _held_out(source.valid, size)
    train = size - valid - test
    if train < 1:
        raise ValueError(
            f"{source.source}: expected at least {valid + test + 1} rows ({valid} to validate, {test} to test), got {size}: "
            "give more, or set valid or test to 0"
        )
    running = source.chunk is not None
    order = torch.arange(size) if running else torch.randperm(size, generator=seeded_generator(source.seed, 0))
    return [index.sort().values for index in order.split([train, valid, test])]


def _held_out(fraction: float, size: int) -> int:
    return 0 if fraction == 0 else max(1, round(fraction * size))


def refuse_longer(source: DataSource, x: Any, others: Sequence[Any], *, splits: bool = True) -> None:
    """Raise ``ValueError`` if rows are longer than declared and are not to be split, or have one length.

    Args:
        source: the declaration.
        x: the rows.
        others: rows of splits of their own.
        splits: whether such rows can be split.
    """
    if not isinstance(x, Ragged):
        raise ValueError(f"{source.source}: expected rows of different lengths for longest={source.longest}, got rows of one")
    longer = [(part.lengths > source.longest).nonzero().flatten() for part in (x, *others)]
    if source.longer == "split" or not (number := sum(map(len, longer))):
        return
    part, rows = next((part, rows) for part, rows in zip((x, *others), longer, strict=True) if len(rows))
    raise ValueError(
        f"{source.source}: expected rows of at most {source.longest} elements, an end token among them, got {number} longer "
        f"ones, the first of them row {int(rows[0])} (from 0) of {int(part.lengths[rows[0]])}: declare longest larger"
        + (", drop these rows, or make several of each (longer='split')" if splits else " or drop these rows")
    )


def pieces(
    source: DataSource,
    parts: Sequence[Any],
    labels: Sequence[Tensor | None],
    weights: Sequence[Tensor | None],
    *,
    beside: bool,
    drawn: bool,
) -> tuple[list[Any], list[Tensor | None], list[Tensor | None]]:
    """Train, valid and test rows of at most ``longest`` elements, labels and weights, longer rows in several pieces.

    Raises:
        ValueError: rows that fields stand beside, or drawings, which only the last point ends.
    """
    if beside or drawn:
        what = "drawings, whose ends are part of them" if drawn else "rows that fields stand beside"
        raise ValueError(f"{source.source}: expected rows that can be split, got {what}: drop the longer ones")
    found = [_split(part, source.longest or 1) for part in parts]
    lengths = torch.cat([rows.lengths for rows, _ in found]).numpy()
    buckets = bucket_lengths(lengths, source.buckets or MOST_BUCKETS)
    held = [torch.repeat_interleave(torch.arange(len(times)), times) for _, times in found]
    return (
        [rows.bucketed(buckets) for rows, _ in found],
        [None if values is None else values[rows] for values, rows in zip(labels, held, strict=True)],
        [None if values is None else values[rows] for values, rows in zip(weights, held, strict=True)],
    )


def _split(rows: Ragged, longest: int) -> tuple[Ragged, Tensor]:
    """Rows in pieces, and how many each became."""
    times = (-(-rows.lengths // longest)).clamp_min(1)
    first = torch.repeat_interleave(times.cumsum(0) - times, times)
    place = torch.arange(int(times.sum())) - first  # of a piece in its row
    lengths = torch.minimum(torch.repeat_interleave(rows.lengths, times) - place * longest, torch.tensor(longest))
    return rows.resplit(lengths), times
