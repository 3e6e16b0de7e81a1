r"""Collapsed mean field for latent Dirichlet allocation to zeroth order: CVB0 (Asuncion, Welling, Smyth and Teh 2009).

Topics and proportions are integrated out; what is left is q(z) of each word of each document::

    q_nwk prop. to (n_nk - q_nwk + alpha_k) (m_kw - q_nwk + eta_w) / (m_k. - q_nwk + eta_.)

n_nk and m_kw are the expected numbers of words of topic k in document n, and of word w. A block of documents is updated at once
and the numbers after each. There is no bound of its own: what is told is the uncollapsed one at ``gamma = alpha + n`` and
``lambda = eta + m``, which may fall.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from ppl_vae.exact.topics import Documents, Topics, dirichlet_kl, expected_log

__all__ = ["Assignments", "assigned", "random_assignments"]


class Assignments(NamedTuple):
    """q of the words of every block ``(B, n, K)`` in turn, flat ``(M, K)``, and m ``(K, V)``."""

    words: Tensor
    counts: Tensor


def random_assignments(documents: Sequence[Documents], shape: tuple[int, int], generator: Generator) -> Assignments:
    """Of K topics and V words, drawn evenly from the simplex's box, where every topic starts in every document."""
    parts, counts = [], torch.zeros(shape[1], shape[0], dtype=documents[0].counts.dtype, device=documents[0].counts.device)
    for block in documents:
        drawn = torch.rand(*block.words.shape, shape[0], generator=generator, dtype=counts.dtype, device=counts.device)
        drawn /= drawn.sum(-1, keepdim=True)
        parts.append(drawn.flatten(0, 1))
        counts.index_add_(0, block.words.flatten().long(), parts[-1] * block.counts.reshape(-1, 1))
    return Assignments(torch.cat(parts), counts.T.contiguous())


def assigned(state: Assignments, documents: Sequence[Documents], alpha: Tensor, eta: Tensor) -> tuple[Assignments, Tensor]:
    """One pass over all words, block by block; and the uncollapsed bound of what was there before it, of all documents.

    Args:
        state: where it stands; it is not changed.
        documents: the blocks.
        alpha: concentration of the proportions ``(K,)``.
        eta: concentration of the topics ``(K, V)``, alike for all topics.
    """
    smooth, total = eta[0].unsqueeze(1), eta.sum(1)
    words, of_words = state.words.clone(), state.counts.T.contiguous()
    of_topics = of_words.sum(0)
    topics = Topics.of(expected_log(eta + state.counts))
    bound = -dirichlet_kl(eta + state.counts, eta).sum()
    first = 0
    for block in documents:
        size = block.words.numel()
        old = words[first : first + size].unflatten(0, block.words.shape)
        places, counts = block.words.flatten().long(), block.counts.unsqueeze(-1)
        of_documents = torch.bmm(block.counts.unsqueeze(1), old)
        bound = bound + _bound(block, topics, alpha, of_documents.squeeze(1)).sum()
        new = (of_words.index_select(0, places) + smooth.index_select(0, places)).unflatten(0, block.words.shape).sub_(old)
        new.mul_(of_documents + alpha - old).div_(of_topics + total - old).clamp_min_(torch.finfo(new.dtype).tiny)
        new.div_(new.sum(-1, keepdim=True))
        moved = (new - old).mul_(counts).flatten(0, 1)
        old.copy_(new)
        of_words.index_add_(0, places, moved)
        of_topics = of_topics + moved.sum(0)
        first += size
    return Assignments(words, of_words.clamp_min_(0).T.contiguous()), bound


def _bound(block: Documents, topics: Topics, alpha: Tensor, of_documents: Tensor) -> Tensor:
    """The uncollapsed ELBO of a block's documents at ``gamma = alpha + n``, without the topics' KL."""
    gamma = alpha + of_documents
    log = expected_log(gamma)
    most = log.amax(1, keepdim=True)
    of_words = topics.weights.index_select(0, block.words.flatten()).unflatten(0, block.words.shape)
    mixed = torch.bmm((log - most).exp().unsqueeze(1), of_words.mT).squeeze(1).clamp_min(torch.finfo(log.dtype).tiny)
    evidence = mixed.log() + most + topics.scale[block.words]
    return (block.counts * evidence).sum(1, dtype=torch.float64) - dirichlet_kl(gamma, alpha) + block.coefficient
