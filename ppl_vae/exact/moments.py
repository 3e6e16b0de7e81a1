"""Sample moments of data of any size: the only thing that EM for a linear Gaussian model needs to see of them.

Rows are read in blocks, each block is centred by one provisional mean and multiplied in float64, so the result depends neither
on how the rows were batched nor on whether they fit into memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import reduce
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from ppl_vae.exact.sharing import add_up, own

__all__ = [
    "NO_ROWS",
    "Columns",
    "Data",
    "Moments",
    "Weighted",
    "columns",
    "merge",
    "moments",
    "rooted",
    "row_blocks",
    "weighted_blocks",
    "weights_of",
]

Data = Any
"""A tensor ``(N, D)``, anything that slices by rows like one (a memory-mapped array), or an iterable of batches ``(B, D)``.

An iterable may have ``weights (N,)``, as :class:`Weighted` has: a row of weight w counts as w rows, one of weight 0 as none.
Rows that several processes share, :class:`~ppl_vae.exact.sharing.Shared`, are read part by part, and sums go over all parts.
"""

NO_ROWS = "expected at least one row, got none: the data are empty, or a generator was already consumed by an earlier pass"


@runtime_checkable
class _HasWeights(Protocol):
    """Batches that say how often each of their rows counts, if any counts otherwise than once."""

    weights: Tensor | None


class Weighted:
    """Rows and how often each counts.

    Args:
        rows: ``(N, D)``, or batches of it.
        weights: w, ``(N,)``, finite and not negative.

    Examples:
        >>> x = torch.tensor([[0.0], [3.0]])
        >>> moments(Weighted(x, torch.tensor([2.0, 1.0]))).mean.tolist()
        [1.0]
    """

    def __init__(self, rows: Any, weights: Tensor) -> None:
        self.rows = rows
        self.weights: Tensor | None = weights

    def __iter__(self) -> Iterator[Any]:
        return iter([self.rows] if isinstance(self.rows, Tensor | np.ndarray) else self.rows)


def weights_of(data: Data) -> Tensor | None:
    """How often each row counts, ``(N,)``; ``None`` where each counts once."""
    return data.weights if isinstance(data, _HasWeights) else None


class Moments(NamedTuple):
    """Number of rows, mean and (biased) covariance, all float64 on the data's device.

    Args:
        rows: N, ``()``; of weighted rows the sum of their weights, and the sums below are weighted.
        mean: x_bar = sum_n x_n / N, ``(D,)``.
        covariance: S = sum_n (x_n - x_bar)(x_n - x_bar)^T / N, ``(D, D)``.
        root: F of S = F F^T, ``(D, D)``, where :func:`rooted` made it, else ``None``.
    """

    rows: Tensor
    mean: Tensor
    covariance: Tensor
    root: Tensor | None = None


def rooted(moments: Moments) -> Moments:
    """The same with a root of the covariance, by its eigenvectors.

    From a root, quadratic forms are sums of squares. A noise that is one number for columns of very different scale is many
    orders of magnitude below the largest variance, and differences of quadratic forms would lose it.
    """
    values, vectors = torch.linalg.eigh(moments.covariance)
    return moments._replace(root=vectors * values.clamp_min(0).sqrt())


class Columns(NamedTuple):
    """Each column by itself, over its observed entries, float64: their number, mean and (biased) variance, ``(D,)``."""

    counts: Tensor
    mean: Tensor
    variance: Tensor


def columns(data: Data) -> Columns:
    """The columns one by one, NaN being missing, in one pass; sums are about the first block's means, so nothing cancels.

    Raises:
        ValueError: no rows at all, or a column without an observed entry.
    """
    begun, blocks = _begun(data, 8192, torch.float64)
    shift = torch.where((~begun.isnan()).any(0), begun.nanmean(0), 0.0)
    total = shift.new_zeros(3, len(shift))
    for block, weights in blocks:
        seen = ~block.isnan()
        y = torch.where(seen, block - shift, 0.0)
        if weights is None:
            total += torch.stack([seen.sum(0).to(y), y.sum(0), y.square().sum(0)])
        else:
            total += torch.stack([weights @ seen.to(y), weights @ y, weights @ y.square()])
    add_up(data, [total])
    counts, first, second = total
    if (counts == 0).any():
        raise ValueError(
            f"columns {(counts == 0).nonzero().flatten().tolist()} have no observed entry, so nothing can be learnt of them: "
            "drop them"
        )
    offset = first / counts
    return Columns(counts, shift + offset, (second / counts - offset.square()).clamp_min(0))


def row_blocks(data: Data, rows: int, dtype: torch.dtype | None = torch.float64) -> Iterator[Tensor]:
    """Yield the data as tensors of at most ``rows`` rows, in order.

    Args:
        data: a tensor or memory-mapped array ``(N, D)``, or an iterable of batches. Every pass iterates it anew, so EM over
            batches needs a list, a ``DataLoader`` or another iterable that can be walked again: a generator is spent after one
            pass.
        rows: rows of a block; bounds the working memory.
        dtype: dtype of the blocks, ``None`` for the data's own.

    Raises:
        ValueError: if a batch is not a matrix.
    """
    batches = [data] if isinstance(data, Tensor | np.ndarray) else data
    for batch in batches:
        if len(batch.shape) != 2:
            raise ValueError(
                f"expected rows of shape (N, D), got shape {tuple(batch.shape)}: events with several axes must be flattened, "
                "x.flatten(1)"
            )
        for start in range(0, batch.shape[0], rows):
            block = torch.as_tensor(batch[start : start + rows])
            yield block if dtype is None else block.to(dtype)


def weighted_blocks(data: Data, rows: int, dtype: torch.dtype | None = torch.float64) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Blocks as :func:`row_blocks` gives them, each with its rows' weights ``(B,)`` in float64, ``None`` where all count once.

    Rows of weight 0 are left out.

    Raises:
        ValueError: other weights than one for each row.
    """
    weights, start = weights_of(data), 0
    for block in row_blocks(data, rows, dtype):
        if weights is None:
            yield block, None
            continue
        part = weights[start : start + len(block)].to(block.device, torch.float64)
        if len(part) != len(block):
            raise ValueError(f"expected a weight for each row, got {len(weights)} for more than that: give ({start} + B,)")
        start += len(block)
        if not bool(part.all()):
            block, part = block[part > 0], part[part > 0]
        if len(block):
            yield block, part
    if weights is not None and start != len(weights):
        raise ValueError(f"expected a weight for each of {start} rows, got {len(weights)}: give one for each")


def moments(data: Data, *, rows: int = 2048, filled: Tensor | None = None) -> Moments:
    """Mean and covariance in one pass over the data, accumulated in float64.

    With c the mean of the first block: x_bar = c + mean(x - c), S = mean((x - c)(x - c)^T) - (x_bar - c)(x_bar - c)^T.
    The last term is small because c is near the mean, so nothing cancels.

    Args:
        data: see :func:`row_blocks`.
        rows: rows of a block.
        filled: what stands in the place of entries that are NaN, ``(D,)``.

    Raises:
        ValueError: no rows at all, or entries that are NaN or infinite.

    Examples:
        >>> moments(torch.tensor([[0.0, 1.0], [2.0, 1.0]])).covariance.tolist()
        [[1.0, 0.0], [0.0, 0.0]]
    """
    begun, blocks = _begun(data, rows, None)
    shift = _complete(begun, filled).double().mean(0)
    count, first = shift.new_zeros(()), torch.zeros_like(shift)
    second = shift.new_zeros(shift.numel(), shift.numel())
    for raw, weights in blocks:
        block = _complete(raw, filled) - shift  # float64 by promotion: one pass instead of two
        if weights is None:
            count += block.shape[0]
            first += block.sum(0)
        else:
            count += weights.sum()
            first += weights @ block
            block = block * weights.sqrt()[:, None]
        _add_gram(second, block)
    add_up(data, [count, first, second])
    if not second.isfinite().all():
        raise ValueError(
            "the data have NaN or infinite entries, so their covariance does not exist: "
            "declare them missing (then use ppl_vae.exact.missing), or drop or impute these rows"
        )
    second = second.tril() + second.tril(-1).T
    offset = first / count
    return Moments(count, shift + offset, second / count - torch.outer(offset, offset))


def _begun(data: Data, rows: int, dtype: torch.dtype | None) -> tuple[Tensor, Iterator[tuple[Tensor, Tensor | None]]]:
    """The first block of all rows, about whose mean all processes take their sums, and the blocks of this process's own.

    Raises:
        ValueError: no rows at all.
    """
    blocks = weighted_blocks(data, rows, dtype)
    first = next(blocks, None)
    if first is None:
        raise ValueError(NO_ROWS)
    mine = own(data)
    return first[0], itertools.chain([first], blocks) if mine is data else weighted_blocks(mine, rows, dtype)


def _complete(block: Tensor, filled: Tensor | None) -> Tensor:
    return block if filled is None else torch.where(block.isnan(), filled, block)


def _add_gram(total: Tensor, block: Tensor) -> None:
    """Add the lower triangle of X^T X, in strips of columns: with four strips 5/8 of the work of the whole product."""
    columns = block.shape[1]
    width = max(128, -(-columns // 4))
    for start in range(0, columns, width):
        end = min(start + width, columns)
        total[start:, start:end].addmm_(block[:, start:].T, block[:, start:end])


def merge(*parts: Moments) -> Moments:
    """Moments of the union of disjoint sets of rows, such as the shards of several machines.

    With weights w_i = N_i / N: x_bar = sum_i w_i x_bar_i, S = sum_i w_i (S_i + (x_bar_i - x_bar)(x_bar_i - x_bar)^T).
    """
    return reduce(_merge_two, parts)


def _merge_two(a: Moments, b: Moments) -> Moments:
    count = a.rows + b.rows
    wa, wb = a.rows / count, b.rows / count
    gap = b.mean - a.mean
    return Moments(count, a.mean + wb * gap, wa * a.covariance + wb * b.covariance + wa * wb * torch.outer(gap, gap))
