"""How strange each datum is to a fitted pair, by several scores, each higher of a stranger datum.

    -log p(x), -ELBO, -importance-weighted bound, -E_q[log p(x | z)], KL(q(z | x) || p(z))
    regret       max_q ELBO(q, x) - ELBO(q(z | x), x)
    typicality   |log p(x) - mean log p|
    complexity   -log p(x) - the length of x as it is compressed

All in nats per datum. None of them is the best of all data: docs/outliers.md has a table.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import get_args

import pyro
from torch import Tensor

from ppl_vae.data import Split
from ppl_vae.evaluate.complexity import compressed_nats
from ppl_vae.evaluate.gaps import Gaps
from ppl_vae.evaluate.rows import mean
from ppl_vae.evaluate.scores import row_bounds, row_regrets, row_scores
from ppl_vae.program.pair import Pair
from ppl_vae.types import OutlierScore

__all__ = ["OUTLIER_SCORES", "ScoredRows", "strangeness"]

OUTLIER_SCORES: tuple[OutlierScore, ...] = get_args(OutlierScore)

REGRET = Gaps(samples=4, window=25, max_steps=200)
"""How the q of a datum alone is looked for, for its regret: Xiao et al. (2020) take some hundred steps of Adam as well."""


class ScoredRows:
    """Rows that are scored, and what was found of them already.

    Args:
        pair: model and guide.
        split: the rows, on the pair's device.
        levels: the values of the source as whole numbers ``(N, *event)``, made when they are asked for.
        binary: whether these are of two values.
        samples: draws of the latent variables of each datum.
        seed: of the draws.
        gaps: how the best q of a datum is looked for.
    """

    def __init__(
        self,
        pair: Pair,
        split: Split,
        *,
        levels: Callable[[], Tensor],
        binary: bool = False,
        samples: int,
        seed: int = 0,
        gaps: Gaps = REGRET,
    ) -> None:
        self.pair, self.split, self.samples, self.seed, self.gaps = pair, split, samples, seed, gaps
        self.levels, self.binary = levels, binary

    @cached_property
    def log_prob(self) -> Tensor:
        """Log p(x), or the importance-weighted bound, ``(N,)``."""
        if self.pair.can.marginal is None:
            return self.columns.get("iwae", self.columns["elbo"])
        found: Tensor = row_scores(self.pair, self.split, samples=self.samples, seed=self.seed).log_prob
        return found

    @cached_property
    def columns(self) -> dict[str, Tensor]:
        """The ELBO of each datum, its halves, and the importance-weighted bound of many samples."""
        return row_bounds(self.pair, self.split, samples=self.samples, seed=self.seed)

    @cached_property
    def regret(self) -> Tensor:
        """What the best q of its family has above the guide's, ``(N,)``."""
        return row_regrets(self.pair, self.split, self.gaps, samples=self.samples, seed=self.seed)


def log_prob(rows: ScoredRows, own: ScoredRows) -> Tensor:
    """-log p(x), or where the model does not know it minus its importance-weighted bound (Bishop 1994)."""
    return -rows.log_prob


def elbo(rows: ScoredRows, own: ScoredRows) -> Tensor:
    """Minus the ELBO of each datum (An and Cho 2015 take its first half)."""
    return -rows.columns["elbo"]


def iwae(rows: ScoredRows, own: ScoredRows) -> Tensor:
    """Minus the importance-weighted bound, also where log p(x) is known (Burda, Grosse and Salakhutdinov 2016)."""
    if "iwae" not in rows.columns:
        raise ValueError(
            "expected draws of q(z | x) that can be weighed, at least 2, for score='iwae', got none: raise samples, or take "
            "score='elbo'"
        )
    return -rows.columns["iwae"]


def reconstruction(rows: ScoredRows, own: ScoredRows) -> Tensor:
    """-E_q[log p(x | z)], the reconstruction probability (An and Cho 2015)."""
    return -rows.columns["reconstruction"]


def kl(rows: ScoredRows, own: ScoredRows) -> Tensor:
    """KL(q(z | x) || p(z)): how far the code of x is from where codes are expected."""
    return rows.columns["kl"]


def regret(rows: ScoredRows, own: ScoredRows) -> Tensor:
    """Likelihood regret, max_q ELBO(q, x) - ELBO(q(z | x), x), q in the guide's family (Xiao, Yan and Amit 2020).

    The model stays as it is, so it is the amortization gap of one datum (Cremer, Li and Duvenaud 2018): an encoder that has
    never seen such data is far from their best q, however probable the decoder finds them. Zero of an exact guide; of drawn
    bounds it may be a little below zero.
    """
    return rows.regret


def typicality(rows: ScoredRows, own: ScoredRows) -> Tensor:
    """|log p(x) - mean log p| with the mean over held-out data (Nalisnick et al. 2019, of a single datum).

    They take the mean over the training data, which a model that knows these by heart puts too high.
    """
    weights = own.split.weights
    counted = slice(None) if weights is None else weights > 0
    usual = mean(own.log_prob[counted], None if weights is None else weights[counted])
    if not math.isfinite(usual):
        raise ValueError(
            "expected held-out rows of positive probability for score='typicality', whose mean log p(x) is minus infinity, got "
            "others: leave those out, or take score='log_prob'"
        )
    return (rows.log_prob - usual).abs()


def complexity(rows: ScoredRows, own: ScoredRows) -> Tensor:
    """-log p(x) - L(x) with L the length of x as it is compressed, in nats (Serra et al. 2020).

    The log-likelihood ratio of a universal coder and the model. It is meant of probabilities of the levels that L encodes, so
    of a likelihood of levels, of dequantized data or of binary ones.
    """
    return -rows.log_prob - compressed_nats(rows.levels(), binary=rows.binary).to(rows.log_prob)


SCORES: dict[OutlierScore, Callable[[ScoredRows, ScoredRows], Tensor]] = {
    "log_prob": log_prob,
    "elbo": elbo,
    "iwae": iwae,
    "reconstruction": reconstruction,
    "kl": kl,
    "regret": regret,
    "typicality": typicality,
    "complexity": complexity,
}


def strangeness(rows: ScoredRows, own: ScoredRows, score: str) -> Tensor:
    """The score of each row ``(N,)`` in nats and float64, higher of a stranger one.

    Args:
        rows: that are scored.
        own: rows of the kind that was fitted, held out.
        score: a name of :data:`OUTLIER_SCORES`.

    Raises:
        ValueError: an unknown score, or one that these programs or data do not have.
    """
    if score not in SCORES:
        raise ValueError(f"expected a score of {', '.join(SCORES)}, got {score!r}")
    with pyro.validation_enabled(False):  # the data are checked
        return SCORES[score](rows, own)
