"""The bounds of one batch of data after another, in memory that does not grow with the data."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ppl_vae.data import Split
from ppl_vae.evaluate.bounds import bounds
from ppl_vae.evaluate.importance import FEWEST, importance_bound, importance_error, pareto_k
from ppl_vae.evaluate.own_batches import OwnBatches
from ppl_vae.program.capture import Compile
from ppl_vae.program.machine import Precision, layers, products
from ppl_vae.program.pair import Pair
from ppl_vae.program.replay import Replay, replay
from ppl_vae.program.stacking import stacks

__all__ = ["Layout", "bounds_of_batches", "layout", "pieces"]

AT_ONCE = {"cpu": 2**20}  # elements decoded together: what stays in a core's cache
AT_ONCE_ELSEWHERE = 2**26
FEATURES_AT_ONCE = {"cpu": 2**25}  # numbers that they are made of: a word has as many as there are words
FEATURES_AT_ONCE_ELSEWHERE = 2**28
MOST_ROWS = 1000


class Layout(NamedTuple):
    """How work is cut: ``rows`` in a batch, and of each the number of samples drawn together, ``draws``, which sum to S."""

    rows: int
    draws: tuple[int, ...]


def layout(pair: Pair, split: Split, samples: int) -> Layout:
    """Cut S samples of each datum of a split into pieces of a bounded number of elements, of one size where that is possible.

    Pieces of one size are recorded, or compiled, once for all.
    """
    draws = pieces(pair, split, samples, rows=1)
    most = max(1, min(MOST_ROWS, _decoded(pair, split) // draws[0], len(split)))
    even = (rows for rows in range(most, most // 2, -1) if len(split) % rows == 0)
    return Layout(next(even, most), draws)


def pieces(pair: Pair, split: Split, samples: int, *, rows: int) -> tuple[int, ...]:
    """How many of S samples are drawn together for a batch of so many rows; they sum to S."""
    parts = math.ceil(samples / max(1, _decoded(pair, split) // rows))
    return tuple(samples // parts + (part < samples % parts) for part in range(parts))


def _decoded(pair: Pair, split: Split) -> int:
    """How many data are decoded together."""
    device = split.device.type
    elements = AT_ONCE.get(device, AT_ONCE_ELSEWHERE)
    features = FEATURES_AT_ONCE.get(device, FEATURES_AT_ONCE_ELSEWHERE) // pair.model_facts.element_features
    return max(1, min(elements, features) // split.elements)


def bounds_of_batches(
    pair: Pair,
    batches: OwnBatches,
    draws: tuple[int, ...],
    *,
    compile: Compile,
    elements: int,
    summed: bool = True,
    precision: Precision = "32",
    advance: Callable[[int], None] = lambda rows: None,
) -> dict[str, Tensor]:
    """Of each datum ELBO, reconstruction and KL; log p(x) where it is known; the importance-weighted bound of many samples.

    Args:
        pair: model and guide, in evaluation mode.
        batches: those of this process; what all processes find of theirs is put together.
        draws: how many samples of the latent variables per datum are drawn together, one at a time if the programs do not take
            several; their sum is S.
        compile: ``False`` stays eager; ``True`` compiles; ``auto`` does what pays.
        elements: of all batches and samples together.
        summed: whether plates of which a run sees a sample are summed, where the guide can; such a sum is never recorded.
        precision: what the networks' layers multiply; densities stay in the data's precision.
        advance: called with the number of rows that are done.

    Returns:
        Columns ``(N,)`` in float64: ``elbo``, ``reconstruction``, ``kl``; ``log_likelihood`` of models that know it; ``iwae``
        and its standard error ``iwae_error`` if S is above one and no latent variable is shared by all data, which would leave
        the weights of a datum without a bound; ``k_hat`` if S is also 25 or more. Of a sum the parts of its KL by name.

    Raises:
        ValueError: it has to be compiled and cannot be.
    """
    weighted = sum(draws) > 1
    summed = summed and pair.can.sum_bound is not None
    how: Compile = False if summed else compile  # a record would hold every step of the sum
    programs = {
        count: replay(
            pair,
            ("bounds", count, weighted, summed, precision),
            _program(pair, count, weighted, summed, precision),
            elements=elements,
            compile=how,
        )
        for count in {*draws, 1}
    }
    columns: list[dict[str, Tensor]] = []
    with products(precision):
        for batch in batches:
            pair.plates(*batch)
            together = draws if max(draws) == 1 or stacks(pair, batch) else (1,) * sum(draws)
            columns.append(_bounds(pair, programs, batch, together, summed))
            advance(len(batch[0]))
    return batches.gathered({name: torch.cat([column[name] for column in columns]) for name in columns[0]})


def _program(pair: Pair, samples: int, weighted: bool, summed: bool, precision: Precision) -> Callable[..., list[Tensor]]:
    """What is wanted of a batch: the ELBO and its halves ``(B,)``, log p(x) if known, log-weights ``(S, B)`` if wanted.

    Of a sum the ELBO, its halves and the parts of its KL.
    """

    def program(*batch: Tensor) -> list[Tensor]:
        plates = pair.plates(*batch)
        own = pair.score.bound == "lower" and not plates.shared and not plates.subsampled
        with layers(precision):
            terms, *others, parts = bounds(pair, batch, samples=samples, weighted=weighted and own, summed=summed)
        return [*terms, *(other for other in others if other is not None), *parts]

    return program


def _bounds(
    pair: Pair, programs: dict[int, Replay], batch: tuple[Tensor, ...], draws: tuple[int, ...], summed: bool
) -> dict[str, Tensor]:
    parts = [[tensor.double() for tensor in programs[count](*batch)] for count in draws]
    names = ["elbo", "reconstruction", "kl"]
    if summed and pair.can.sum_bound is not None:
        names += pair.can.sum_bound.bound_parts
    elif pair.can.marginal:
        names.append("log_likelihood")
    share = torch.tensor(draws, dtype=torch.float64, device=batch[0].device) / sum(draws)
    values = [torch.stack(of_parts).T @ share for of_parts in list(zip(*parts, strict=True))[: len(names)]]
    column = dict(zip(names, values, strict=True))
    if len(parts[0]) > len(names):
        log_weights = torch.cat([part[-1] for part in parts])
        column |= {"iwae": importance_bound(log_weights), "iwae_error": importance_error(log_weights)}
        if len(log_weights) >= FEWEST:
            column["k_hat"] = pareto_k(log_weights)
    return column
