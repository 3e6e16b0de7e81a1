r"""Mean field for latent Dirichlet allocation, topic assignments summed out (Blei, Ng and Jordan 2003).

.. math:: q(\theta_n) = \mathrm{Dirichlet}(\gamma_n), \quad q(\beta_k) = \mathrm{Dirichlet}(\lambda_k), \quad
    a_{nk} = e^{E[\log \theta_{nk}]}, \quad b_{kw} = e^{E[\log \beta_{kw}]}

The best q(z) of a word is proportional to ``a_nk b_kw``; put in, it leaves a fixed point and a bound without it::

    gamma_nk = alpha_k + a_nk sum_w x_nw b_kw / sum_j a_nj b_jw
    ELBO_n   = sum_w x_nw log sum_k a_nk b_kw - KL(q(theta_n) || p(theta)) + log(x_n.! / prod_w x_nw!)
    lambda_kw = eta_w + b_kw sum_n x_nw a_nk / sum_j a_nj b_jw

Documents of about equal length stand side by side in a block, padded by words that do not occur, so that an inner step is two
batched products of what the caches hold. The coefficient counts the orders of a document's words: x are counts. N documents, V
words, K topics, B documents and n words in a block.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "Documents",
    "Local",
    "Topics",
    "blocks",
    "dirichlet_kl",
    "expected_log",
    "local",
    "log_coefficient",
    "mean",
    "sweep",
]

ELEMENTS = 2**19  # of the topics of a block's words, which the caches are to hold


class Documents(NamedTuple):
    """A block: which documents ``(B,)``, their words and counts ``(B, n)``, zero where padded, their coefficients ``(B,)``."""

    rows: Tensor
    words: Tensor
    counts: Tensor
    coefficient: Tensor


class Topics(NamedTuple):
    """What documents see of topics: ``b ~ (V, K)``, divided by the largest of each word, the logarithms ``(V,)`` of these.

    ``log (V, K)`` are the logarithms themselves, for words of which nothing is left of the others beside the largest.
    """

    weights: Tensor
    scale: Tensor
    log: Tensor

    @classmethod
    def of(cls, log: Tensor) -> Topics:
        """Of log b ``(K, V)``."""
        log = log.T.contiguous()
        scale = log.amax(1)
        return cls((log - scale.unsqueeze(1)).exp(), scale, log)


class Local(NamedTuple):
    """What was found of a block: gamma and a ``(B, K)``, the latter divided by its largest, x / sum_k a b ``(B, n)``, ELBO."""

    gamma: Tensor
    shares: Tensor
    ratio: Tensor
    bound: Tensor


def log_coefficient(counts: Tensor) -> Tensor:
    """Log(x.! / prod_w x_w!) along the last axis, in float64.

    Examples:
        >>> log_coefficient(torch.tensor([[2.0, 1.0, 0.0]])).exp().round()
        tensor([3.], dtype=torch.float64)
    """
    counts = counts.double()
    return torch.lgamma(counts.sum(-1) + 1) - torch.lgamma(counts + 1).sum(-1)


def blocks(starts: Tensor, lengths: Tensor, words: Tensor, counts: Tensor, *, elements: int) -> Iterator[Documents]:
    """Documents in blocks of about equal lengths, the shortest first.

    Args:
        starts: of each document ``(N,)``, the place of its first entry.
        lengths: how many different words it has, ``(N,)``.
        words: of all entries.
        counts: of all entries, as floating point numbers.
        elements: how many entries a block may have, padding included.
    """
    order = lengths.argsort(stable=True)
    rising, first = lengths[order], 0
    while first < len(order):
        ahead = rising[first : first + max(1, elements // max(1, int(rising[first])))]
        filled = torch.arange(1, len(ahead) + 1, device=ahead.device) * ahead
        size = max(1, int((filled <= elements).sum()))
        yield _padded(order[first : first + size], starts, lengths, words, counts)
        first += size


def expected_log(concentration: Tensor) -> Tensor:
    """E[log p] of p ~ Dirichlet(concentration), along the last axis."""
    return torch.digamma(concentration) - torch.digamma(concentration.sum(-1, keepdim=True))


def dirichlet_kl(q: Tensor, p: Tensor) -> Tensor:
    """KL(Dirichlet(q) || Dirichlet(p)) along the last axis, summed in float64.

    Examples:
        >>> dirichlet_kl(torch.tensor([1.0, 1.0]), torch.tensor([1.0, 1.0])).item()
        0.0
    """
    p = p.expand_as(q)
    each = torch.lgamma(p) - torch.lgamma(q) + (q - p) * expected_log(q)
    return each.sum(-1, dtype=torch.float64) + torch.lgamma(q.double().sum(-1)) - torch.lgamma(p.double().sum(-1))


def mean(concentration: Tensor) -> Tensor:
    """E[p] of p ~ Dirichlet(concentration), along the last axis."""
    return concentration / concentration.sum(-1, keepdim=True)


def local(documents: Documents, topics: Topics, alpha: Tensor, steps: int) -> Local:
    """The fixed point of a block after so many steps from the even one, and its ELBO.

    Args:
        documents: the block.
        topics: log b of all words.
        alpha: the prior's concentration ``(K,)``.
        steps: of the fixed-point iteration.
    """
    _, words, counts, coefficient = documents
    of_words = topics.weights.index_select(0, words.flatten()).unflatten(0, words.shape)
    gamma = alpha + counts.sum(1, keepdim=True) / len(alpha)
    for _ in range(steps):
        shares, _ = _shares(gamma)
        ratio = counts / _mixed(shares, of_words)
        gamma = alpha + shares * torch.bmm(ratio.unsqueeze(1), of_words).squeeze(1)
    shares, log = _shares(gamma)
    mixed = _mixed(shares, of_words)
    evidence = mixed.log() + log.amax(1, keepdim=True) + topics.scale[words]
    faint = (mixed <= _least(mixed)) & (counts > 0)
    if bool(faint.any()):  # nothing is left of the sum of products: by its logarithms
        row = faint.nonzero()[:, 0]
        evidence[faint] = (log[row] + topics.log[words[faint]]).logsumexp(-1)
    bound = (counts * evidence).sum(1, dtype=torch.float64) - dirichlet_kl(gamma, alpha) + coefficient
    return Local(gamma, shares, counts / mixed, bound)


def sweep(documents: Iterable[Documents], topics: Topics, alpha: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """E[counts of words by topic] ``(K, V)`` under the fixed points of all documents, and the sum of their ELBOs in float64."""
    found, bound = torch.zeros_like(topics.weights), alpha.new_zeros((), dtype=torch.float64)
    for block in documents:
        q = local(block, topics, alpha, steps)
        each = q.ratio.unsqueeze(-1) * q.shares.unsqueeze(1)
        found.index_add_(0, block.words.flatten().long(), each.flatten(0, 1))  # by int32 it takes three times as long
        bound = bound + q.bound.sum()
    return (found * topics.weights).T.contiguous(), bound


def _shares(gamma: Tensor) -> tuple[Tensor, Tensor]:
    log = expected_log(gamma)
    return (log - log.amax(1, keepdim=True)).exp(), log


def _mixed(shares: Tensor, of_words: Tensor) -> Tensor:
    """sum_k a_nk b_kw ``(B, n)``, above zero; a row times a matrix is eight times as fast as a matrix times a column."""
    mixed = torch.bmm(shares.unsqueeze(1), of_words.mT).squeeze(1)
    return mixed.clamp_min(_least(mixed))


def _least(mixed: Tensor) -> float:
    return torch.finfo(mixed.dtype).tiny ** 0.5


def _padded(rows: Tensor, starts: Tensor, lengths: Tensor, words: Tensor, counts: Tensor) -> Documents:
    lengths = lengths[rows]
    place = torch.arange(int(lengths.max()), device=rows.device)
    there = place < lengths.unsqueeze(1)
    entry = torch.where(there, starts[rows].unsqueeze(1) + place, 0)
    if not len(words):
        empty = entry.new_zeros(entry.shape)
        return Documents(rows, empty, empty.to(counts), log_coefficient(empty))
    found = torch.where(there, counts[entry], 0)
    return Documents(rows, torch.where(there, words[entry], 0), found, log_coefficient(found))
