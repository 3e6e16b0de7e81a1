"""Passes over raw rows, in memory or streamed: shuffled for training, in order for everything else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import tee
from typing import Any

import torch
from torch import Generator, Tensor

from ppl_vae.data.ragged import View
from ppl_vae.data.sparse import DenseRows
from ppl_vae.data.stream import Stream

__all__ = ["in_order", "shuffled"]

RUNS = 256
"""Runs of neighbouring rows that make up a block of streamed rows."""


def shuffled(
    x: Tensor | Stream | View | DenseRows, batch_size: int, generator: Generator, *, beside: Sequence[Tensor | View] = ()
) -> Iterator[tuple[Any, ...]]:
    """Every row once: blocks of rows ``(C, *event)`` on the device, each with a random order ``(C,)`` of its rows.

    Between the two stand the rows of what lies ``beside`` x, each ``(N, ...)`` in memory.

    A tensor is one block, and the order uniform over all permutations; so it is for streamed rows that fit in one block. Else
    they are cut into runs of neighbours, short enough that ``RUNS`` of them make a block, from a random start; each block
    takes the next runs in random order, and its rows are shuffled in memory. Files are read in runs, and descent converges
    much as with a full shuffle: Xu, Qiu, Yuan et al. 2022, "In-database machine learning with CorgiPile: stochastic gradient
    descent without full data shuffle".
    """
    if not isinstance(x, Stream):
        blocks = ((rows, *beside) for rows in _whole(x))
    else:
        read, known = tee(_runs(len(x), _block(x, batch_size), generator))
        pairs = zip(x.read(read), known, strict=True)
        blocks = ((rows, *(other[places.to(other.device)] for other in beside)) for rows, places in pairs)
    for block in blocks:
        yield *block, torch.randperm(len(block[0]), generator=generator, device=block[0].device)


def in_order(x: Tensor | Stream, batch_size: int) -> Iterator[Tensor]:
    """Batches of raw rows in their order, the smaller last one included."""
    if isinstance(x, Tensor):
        blocks = _whole(x)
    else:
        size = max(1, x.at_once // RUNS // batch_size) * batch_size
        blocks = x.read(torch.arange(start, min(start + size, len(x))) for start in range(0, len(x), size))
    for rows in blocks:
        yield from rows.split(batch_size)


def _whole(x: Any) -> Iterator[Any]:
    if len(x):
        yield x


def _block(x: Stream, batch_size: int) -> int:
    """Rows of a block: as many batches as may be in memory at once, but at least one."""
    return max(1, x.at_once // batch_size) * batch_size


def _runs(size: int, block: int, generator: Generator) -> Iterator[Tensor]:
    """The positions of each block, sorted, so that every file is read from its start to its end."""
    if size <= block:
        yield from [torch.arange(size)] if size else []
        return
    run, device = max(1, block // RUNS), generator.device
    start = torch.randint(size, (1,), generator=generator, device=device).cpu()
    # The rows that are left over after the last whole run come last; the random start makes them others at every pass.
    runs = torch.cat([torch.randperm(size // run, generator=generator, device=device).cpu(), torch.tensor([size // run])])
    for first in range(0, size, block):
        step = torch.arange(first, min(first + block, size))
        yield ((runs[step // run] * run + step % run + start) % size).sort().values
