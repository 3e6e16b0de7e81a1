r"""Missing entries given the observed ones through the guide: draws of z, weighed by what is observed.

.. math:: z_s \sim q(z) = \frac1R \sum_r q(z | \hat x_r), \quad w_s = \frac{p(x_o | z_s) p(z_s)}{q(z_s)}, \quad
    p(x_m | x_o) \approx \sum_s \frac{w_s}{\sum_t w_t} p(x_m | z_s)

An encoder of data with missing entries is shown the observed ones alone, :math:`R = 1, \hat x = x_o` (Mattei and Frellsen 2019,
"MIWAE"). Another is shown R completions of the row, ends of chains that draw z and :math:`x_m` in turn (Rezende, Mohamed and
Wierstra 2014, appendix F); all R together are the proposal, so that no weight is large where one of them is near (Owen and
Zhou 2000). The weights are right wherever the chains end: both are exact as S grows.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ppl_vae.data import Split
from ppl_vae.evaluate.batches import AT_ONCE, AT_ONCE_ELSEWHERE
from ppl_vae.evaluate.importance import FEWEST, UNTRUSTED, pareto_k
from ppl_vae.evaluate.rows import batches
from ppl_vae.likelihoods.elements import expected, observed_log_prob
from ppl_vae.program.base import ModelProgram
from ppl_vae.program.context import evaluating, seeded
from ppl_vae.program.pair import Pair

__all__ = ["Imputed", "imputed"]

CHAINS = 32  # that complete a row for an encoder that takes complete ones alone
PASSES = 10  # of each


class Imputed(NamedTuple):
    """Rows ``(N, *event)`` or draws ``(draws, N, *event)`` as the model sees them, and the share of untrustworthy weights."""

    x: Tensor
    bad: float


def imputed(pair: Pair, split: Split, missing: Tensor, *, draws: int | None, samples: int, seed: int) -> Imputed:
    """Rows whose missing entries are what stands for them, or drawn, given the observed ones.

    Args:
        pair: model and guide.
        split: the rows, all of one length.
        missing: which entries are ``(N, *event)``.
        draws: how many of each row.
        samples: S.
        seed: of all draws.

    Raises:
        ValueError: programs that do not say p(z), p(x | z) and q(z | x), or entries that depend on each other given z.
    """
    model, guide = pair.can.generate, pair.can.encode
    if model is None or guide is None or pair.score.bound is None:
        raise ValueError(
            "missing entries are filled by models that say p(z) and p(x | z), with guides that say q(z | x): use PPCA, "
            "FactorAnalysis, GMM, or a VAE with an amortized guide"
        )
    _check_condition(model, missing)
    most = AT_ONCE.get(split.device.type, AT_ONCE_ELSEWHERE)
    size = max(1, most // (split.elements * max(samples, draws or 1)))
    rows, bad = [], []
    with evaluating(pair), seeded(seed, split.device):
        for batch, hidden in zip(batches(pair, split, size), missing.split(size), strict=True):
            found = _of_batch(_Rows(model, guide, batch, hidden), draws, samples)
            rows.append(found.x)
            bad.append(found.bad * len(hidden))
    return Imputed(torch.cat(rows, 0 if draws is None else 1), sum(bad) / len(split))


def _check_condition(model: ModelProgram, missing: Tensor) -> None:
    known = model.known_entries
    if known is not None and bool((missing & known.to(missing.device)).any()):
        raise ValueError("expected all entries that the model is conditioned on, got rows that lack some: fill those first")


class _Rows:
    """A batch with missing entries, and its programs."""

    def __init__(self, model: ModelProgram, guide: Any, batch: tuple[Tensor, ...], missing: Tensor) -> None:
        self.model = model
        self.guide = guide
        self.missing = missing
        self.others = batch[1:]
        self.x = batch[0].masked_fill(missing, torch.nan)
        self.known = model.known(batch[0].masked_fill(missing, 0.0), *self.others)

    @property
    def sees_missing(self) -> bool:
        """Whether encoder and likelihood leave missing entries out themselves."""
        return self.model.takes_missing

    def prior(self) -> Any:
        return self.model.prior_given(*self.known)

    def decode(self, z: Any) -> Any:
        return self.model.decode(z, *self.known)

    def posterior(self, x: Tensor) -> Any:
        """q(z | x) of rows ``(S, B, *event)``, of batch shape ``(S * B,)``."""
        others = [part.expand(len(x), *part.shape).flatten(0, 1) for part in self.others]
        return self.guide.posterior(x.flatten(0, 1), *others)

    def completed(self, z: Any) -> Tensor:
        """The rows with missing entries drawn from p(x | z), ``(S, B, *event)``."""
        drawn = self.decode(z).sample()
        return torch.where(self.missing, drawn.reshape(-1, *self.x.shape), self.x)


def _of_batch(rows: _Rows, draws: int | None, samples: int) -> Imputed:
    z, log_q = _proposed(rows, samples)
    p = rows.decode(z)
    some = rows.completed(tree_map(lambda value: value[:1], z))  # missing entries, which do not count, need any value
    likelihood = observed_log_prob(p, some.expand(len(log_q), *some.shape[1:]), rows.missing)
    log_weights = likelihood + (rows.prior().log_prob(z) - log_q).double()
    weights = log_weights.softmax(0)
    bad = (pareto_k(log_weights) > UNTRUSTED).double().mean().item() if len(log_weights) >= FEWEST else 0.0
    if draws is None:
        return Imputed(torch.where(rows.missing, expected(p, weights), rows.x.double()), bad)
    chosen = torch.multinomial(weights.T, draws, replacement=True).T  # (draws, B)
    picked = tree_map(lambda value: value[chosen, torch.arange(len(rows.x), device=chosen.device)], z)
    return Imputed(rows.completed(picked).double(), bad)


def _proposed(rows: _Rows, samples: int) -> tuple[Any, Tensor]:
    """Draws of z ``(S, B, *event)`` and their log-density ``(S, B)`` under all proposals of their row together."""
    if rows.sees_missing:
        q = rows.guide.posterior(rows.x, *rows.others)
        z = q.sample((samples,))
        return z, q.log_prob(z)
    chains = min(CHAINS, samples)
    x = rows.completed(_prior_draws(rows, chains))
    for _ in range(PASSES):
        q = rows.posterior(x)
        x = rows.completed(tree_map(lambda value: value.unflatten(0, (chains, -1)), q.sample()))
    q = rows.posterior(x)
    drawn = [tree_map(lambda value: value.unflatten(0, (chains, -1)), q.sample()) for _ in range(math.ceil(samples / chains))]
    log_q = torch.cat([_mixed(q, z, chains) for z in drawn])
    return tree_map(lambda *parts: torch.cat(parts), *drawn), log_q


def _mixed(q: Any, z: Any, chains: int) -> Tensor:
    """Log of the mean over all chains of their density at draws z ``(R, B, *event)``, ``(R, B)``."""
    shifted = [q.log_prob(tree_map(lambda value, by=by: value.roll(by, 0).flatten(0, 1), z)) for by in range(chains)]
    # Of draw r of the row, rolled by b, the density under chain r + b; put back in the place of the draw.
    back = [found.unflatten(0, (chains, -1)).roll(-by, 0) for by, found in enumerate(shifted)]
    return torch.stack(back).logsumexp(0) - math.log(chains)


def _prior_draws(rows: _Rows, samples: int) -> Any:
    prior = rows.prior()
    return prior.sample((samples,)) if len(prior.batch_shape) else prior.sample((samples, len(rows.x)))
