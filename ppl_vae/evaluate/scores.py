"""The score of each datum: log p(x) where the model knows it, else the tightest lower bound that samples give."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppl_vae.data import Split
from ppl_vae.evaluate.batches import bounds_of_batches, layout
from ppl_vae.evaluate.gaps import Gaps, local_bounds
from ppl_vae.evaluate.own_batches import OwnBatches
from ppl_vae.evaluate.rows import in_row_order, large_batches, log_jacobians, piece
from ppl_vae.program.context import evaluating, seeded
from ppl_vae.program.pair import Pair
from ppl_vae.scores import Score

__all__ = ["Scores", "row_bounds", "row_regrets", "row_scores"]

BOUNDS = ("elbo", "reconstruction", "kl", "iwae")


class Scores(NamedTuple):
    """Of each datum, in nats and in the units of the source.

    Args:
        log_prob: log p(x), or a lower bound on it, ``(N,)``.
        se: standard error of the estimate ``(N,)``: zero of what is exact or minus infinity, NaN where draws do not tell it.
        exact: whether it is log p(x) itself.
    """

    log_prob: Any
    se: Any
    exact: bool


def row_scores(pair: Pair, split: Split, *, samples: int, seed: int = 0) -> Scores:
    """Log p(x) of each row in their order, or the importance-weighted bound of so many samples.

    Raises:
        ValueError: fewer than one sample, or terms that do not bound log p(x).
    """
    _check(pair, samples)
    if not len(split):
        return Scores(torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.float64), pair.can.marginal is not None)
    read = split.arranged(pair.reads)
    with evaluating(pair), seeded(seed, split.device):
        found = _exact(pair, read) if pair.can.marginal else _bounded(pair, split if pair.local else read, samples, seed)
    constant = log_jacobians(pair, read)
    log_prob, se = (in_row_order(pair, split, column) for column in (found.log_prob + constant, found.se))
    return Scores(log_prob, se, found.exact)


def _check(pair: Pair, samples: int) -> None:
    """Raise ``ValueError`` for fewer than one sample, or programs of which no row has a score."""
    if samples < 1:
        raise ValueError(f"expected at least 1 sample, got {samples}")
    if pair.score.target != Score.target:
        raise ValueError(
            f"expected programs that observe rows, got some whose score is {pair.score.target}, whatever the rows: `evaluate` "
            "tells it; for scores of rows declare what shows them (a lattice: observed=Flip(rate=0.1), or learned=True)"
        )


def _exact(pair: Pair, split: Split) -> Scores:
    marginal: Any = pair.can.marginal
    own = OwnBatches(pair, split, piece(split), seed=0)  # nothing is drawn
    found = torch.cat([marginal.log_prob(*batch).double() for batch in large_batches(pair, own.split)])
    found = own.gathered({"log_prob": found})["log_prob"]
    return Scores(found, torch.zeros_like(found), exact=True)


def row_bounds(pair: Pair, split: Split, *, samples: int, seed: int = 0) -> dict[str, Tensor]:
    """``elbo``, ``reconstruction`` and ``kl`` of each row, and ``iwae`` of several samples, ``(N,)`` in float64 and in nats.

    They come in the rows' order, and in the units of the source.

    Raises:
        ValueError: fewer than one sample, or terms that do not bound log p(x).
    """
    _check(pair, samples)
    if not len(split):
        return {name: torch.zeros(0, dtype=torch.float64) for name in BOUNDS}
    read = split.arranged(pair.reads)
    with evaluating(pair), seeded(seed, split.device):
        columns = _columns(pair, split if pair.local else read, samples, seed)
    constant = log_jacobians(pair, read)
    found = {name: column if name == "kl" else column + constant for name, column in columns.items() if name in BOUNDS}
    return {name: in_row_order(pair, split, column) for name, column in found.items()}


def row_regrets(pair: Pair, split: Split, gaps: Gaps, *, samples: int, seed: int = 0) -> Tensor:
    """What the ELBO of each row gains ``(N,)`` by the best q of the guide's family for that row alone, in their order.

    Raises:
        ValueError: fewer than one sample, a guide whose family is not known, or terms that do not bound log p(x).
    """
    _check(pair, samples)
    if not len(split):
        return torch.zeros(0, dtype=torch.float64)
    read = split if pair.local else split.arranged(pair.reads)
    with evaluating(pair), seeded(seed, split.device):
        known = _columns(pair, read, samples, seed)["elbo"]
    best = local_bounds(pair, read, gaps, known=known, samples=samples, seed=seed)["local_elbo"]
    return in_row_order(pair, split, best - known)


def _columns(pair: Pair, split: Split, samples: int, seed: int) -> dict[str, Tensor]:
    """What draws tell of each row, in the order of the batches."""
    if pair.guide_facts.certain or pair.can.sum_bound is not None:  # a point, or all steps: of neither more tell more
        samples = 1
    cut = layout(pair, split, samples)
    columns = bounds_of_batches(
        pair,
        OwnBatches(pair, split, cut.rows, seed=seed),
        cut.draws,
        compile="auto",
        elements=samples * len(split) * split.elements,
    )
    if pair.score.bound is None:
        raise ValueError(
            f"expected programs whose terms bound log p(x), got a {pair.score.title}: fit a model with p(z) by a guide that is "
            "a density, such as VAE with AmortizedNormal, or PPCA in place of PCA"
        )
    return columns


def _bounded(pair: Pair, split: Split, samples: int, seed: int) -> Scores:
    columns = _columns(pair, split, samples, seed)
    certain = pair.guide_facts.certain
    exact = pair.score.bound == "exact"
    found = columns.get("iwae", columns["elbo"])
    unknown = torch.full_like(found, 0.0 if exact or certain else math.nan)
    return Scores(found, columns.get("iwae_error", unknown).masked_fill(found == -math.inf, 0.0), exact)
