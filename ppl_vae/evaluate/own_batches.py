"""The batches of a split that are this process's, and what all processes found put together again.

A batch is seeded by its number, so its draws depend neither on the batches before it nor on who works on it: however many
processes there are, the numbers are the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from ppl_vae.data import Split
from ppl_vae.data.seeds import derived_seed
from ppl_vae.evaluate.rows import batches
from ppl_vae.program.pair import Pair
from ppl_vae.program.processes import current

__all__ = ["OwnBatches", "whole_batches"]

STREAM = 16  # of a seed, whose numbers seed batches


class OwnBatches:
    """A split in batches, of which this process takes some that follow one another.

    A lone process takes all. So does every process of a group where batches are fewer than processes, and where programs have
    parameters of their own for each row.

    Args:
        pair: model and guide.
        split: all rows; where there are no parameters of rows, in the order of :meth:`~ppl_vae.data.Split.arranged`.
        batch_size: rows in a batch.
        seed: that torch has when the walk begins.
        stream: which walk over a split this is, of those under one seed.
    """

    def __init__(self, pair: Pair, split: Split, batch_size: int, *, seed: int, stream: int = 0) -> None:
        self.pair, self.batch_size, self.seed, self.stream = pair, batch_size, seed, stream
        self.processes, self.all = current(), len(split)
        self.first, self.rows, self.split = 0, slice(0, len(split)), split
        if self.processes.count == 1 or pair.local:
            return
        starts = _starts([len(part) for part, _ in split.apart(pair.reads)], batch_size)
        if len(starts) <= self.processes.count:
            return
        taken = self.processes.part(len(starts) - 1)
        self.first, self.rows = taken.start, slice(starts[taken.start], starts[taken.stop])
        self.split = split[self.rows]

    def __len__(self) -> int:
        """How many rows this process takes."""
        return len(self.split)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        """What the programs are called with, batch by batch; torch is seeded for each before it is made."""
        found = batches(self.pair, self.split, self.batch_size)
        for number in itertools.count(self.first):
            if number or self.stream:  # the first batch goes on from the seed itself
                _seed(derived_seed(self.seed, STREAM + self.stream, number), self.split.device)
            batch = next(found, None)
            if batch is None:
                return
            yield batch

    def gathered(self, columns: dict[str, Tensor]) -> dict[str, Tensor]:
        """Columns ``(..., n)`` of the rows of this process as those ``(..., N)`` of all rows, in every process."""
        if len(self.split) == self.all:
            return columns
        found = {name: values.new_zeros(*values.shape[:-1], self.all) for name, values in columns.items()}
        for name, values in columns.items():
            found[name][..., self.rows] = values
        self.processes.sum_(list(found.values()))
        return found


def whole_batches(pair: Pair, split: Split, batch_size: int, *, at_least: int) -> int:
    """How many of the first rows of a split make whole batches: at least so many, or all."""
    starts = _starts([len(part) for part, _ in split.apart(pair.reads)], batch_size)
    return next((start for start in starts if start >= at_least), len(split))


def _starts(groups: list[int], batch_size: int) -> list[int]:
    """Where batches begin among the rows, of groups that make batches of their own; and the end."""
    ends = list(itertools.accumulate(groups, initial=0))
    firsts = [start + first for start, rows in zip(ends[:-1], groups, strict=True) for first in range(0, rows, batch_size)]
    return [*firsts, ends[-1]]


def _seed(seed: int, device: torch.device) -> None:
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)
