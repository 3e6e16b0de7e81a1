"""The rows that are evaluated, and the state that they are evaluated in."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor

from ppl_vae.data import Split
from ppl_vae.program.pair import Pair, numbered

PIECE, LARGE = 2**17, 2**22  # elements of rows
__all__ = [
    "apart",
    "batches",
    "in_row_order",
    "large_batches",
    "log_jacobian",
    "log_jacobians",
    "mean",
    "observed_sum",
    "piece",
    "standard_error",
]


def batches(pair: Pair, split: Split, batch_size: int) -> Iterator[tuple[Tensor, ...]]:
    """What the pair's programs are called with, in the rows' order: x ``(B, *event)``, and what else they read.

    Rows that differ in length, or of which some lack a field, come kind by kind: see :func:`in_row_order`.

    While a batch is worked on, :func:`~ppl_vae.data_plate` knows its rows where programs have parameters of their own for each.

    Raises:
        ValueError: rows do not have it; or the pair has parameters for rows of the training data, and these are other data.
    """
    found = split.read(pair.reads, batch_size)
    return _numbered(pair, split, found) if pair.local else found


def piece(split: Split) -> int:
    """How many rows are read at once by what draws nothing of them."""
    return max(1, PIECE // split.elements)


def large_batches(pair: Pair, split: Split) -> Iterator[tuple[Tensor, ...]]:
    """The same in batches that are large, for what does its own work in blocks, each read in pieces that stay in the cache."""
    found = batches(pair, split, piece(split))
    if pair.local or split.lead is not None:  # pieces that do not stand in one batch
        return found
    together = max(1, LARGE // PIECE)
    return (tuple(map(torch.cat, zip(*part, strict=True))) for part in iter(lambda: tuple(islice(found, together)), ()))


def in_row_order(pair: Pair, split: Split, values: Tensor, *, dim: int = 0) -> Tensor:
    """Values of each datum ``(..., N, ...)``, in the order in which :func:`batches` gives the rows, in that of the split."""
    order = split.order(pair.reads).to(values.device)
    return torch.empty_like(values).index_copy_(dim, order, values)


def _numbered(pair: Pair, split: Split, found: Iterator[tuple[Tensor, ...]]) -> Iterator[tuple[Tensor, ...]]:
    if len(split) != pair.size:
        raise ValueError(
            f"these programs have parameters of their own for each of {pair.size} rows of the training data: expected those "
            f"rows in their order, got {len(split)} others: give data.train, or write a guide that takes them from x"
        )
    order, start = split.order(pair.reads), 0
    for batch in found:
        with numbered(order[start : start + len(batch[0])]):
            yield batch
        start += len(batch[0])


def apart(pair: Pair, tensors: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """What of the tensors is the batch, x and what else the programs read, and what follows it."""
    size = len(pair.reads)
    return tensors[:size], tensors[size:]


def log_jacobian(pair: Pair, split: Split) -> float:
    """``log |dx / dx_raw|`` of what is modelled of a datum, in nats, the mean over a split, by the weights of its rows."""
    return mean(log_jacobians(pair, split), split.weights)


def log_jacobians(pair: Pair, split: Split) -> float | Tensor:
    """``log |dx / dx_raw|`` of what is modelled of each datum, in nats: of its entries that are observed and no condition.

    Returns:
        One number where it is that of all data, as of complete ones; else ``(N,)`` in float64.
    """
    transform = split.transform
    return 0.0 if transform.binarize else observed_sum(pair, split, -transform.constants[1].double().log())


def observed_sum(pair: Pair, split: Split, values: Tensor) -> float | Tensor:
    """Of ``values``, scalar or ``(*event)``, the sum over the entries of each datum that are modelled and not missing.

    Returns:
        One number where it is that of all data, as of complete ones; else ``(N,)`` in float64, as of rows of different lengths.
    """
    known = pair.model_facts.known_entries
    values = values.to(split.device, torch.float64).expand(split.event_shape)
    values = values if known is None else values.masked_fill(known.to(split.device), 0.0)
    whole = float(values.sum())
    if split.sizes is not None:
        return split.sizes.double() * whole
    if not (split.raw.dtype.is_floating_point and values.any()):
        return whole
    if not any(bool(rows.isnan().any()) for rows in split.chunks()):
        return whole
    return torch.cat([(~rows.isnan()).to(values.dtype).flatten(1) @ values.flatten() for rows in split.chunks()])


def mean(values: float | Tensor, weights: Tensor | None = None) -> float:
    r"""Over the data ``(N,)``; one number is that of all. Of weighted rows :math:`\sum_n w_n l_n / \sum_n w_n`.

    Examples:
        >>> mean(torch.tensor([1.0, 4.0]), torch.tensor([2.0, 1.0]))
        2.0
    """
    if not isinstance(values, Tensor):
        return values
    if weights is None:
        return values.mean().item()
    w = weights.to(values)
    return ((w * values).sum() / w.sum()).item()


def standard_error(values: Tensor, weights: Tensor | None = None) -> float:
    r"""Of the mean of :func:`mean`, the rows being drawn one by one, with their weights.

    .. math:: \mathrm{se} = \frac{\sqrt{\sum_n w_n^2 (l_n - \bar l)^2}}{\sum_n w_n}

    Equal weights give the standard deviation over the root of N. It does not depend on the scale of the weights, and holds for
    survey weights and inverse propensities; of counts of equal rows, which are draws of their own, it is larger than that of
    the rows repeated.

    Examples:
        >>> standard_error(torch.tensor([1.0, 3.0]))
        0.7071067690849304
    """
    if weights is None:
        return (values.std(correction=0) / math.sqrt(len(values))).item()
    w = weights.to(values)
    total = w.sum()
    return ((w * (values - (w * values).sum() / total)).square().sum().sqrt() / total).item()
