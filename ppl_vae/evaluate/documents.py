r"""Numbers of documents: bounds per word, how well one half of a document tells the other, and how coherent topics are.

A datum's bound counts the orders in which its words may stand, ``log n! / prod_d x_d!``, which says nothing of the model and is
left out of what is told per word, as topic models are compared.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Generator, Tensor
from torch.distributions import constraints

from ppl_vae.data import Split
from ppl_vae.evaluate.rows import batches, mean, standard_error
from ppl_vae.exact.topics import log_coefficient
from ppl_vae.program.context import evaluating
from ppl_vae.program.pair import Pair
from ppl_vae.types import FitWarning, Score

__all__ = ["document_numbers", "npmi", "topics_of", "umass"]

BOUNDS = ("elbo", "log_likelihood", "iwae", "ais")
AT_ONCE = 2**22  # elements of the documents that are handled together
NAMED = 10  # words that a remark names
TOP = 10  # words by which a topic is judged


def document_numbers(
    pair: Pair, split: Split, columns: dict[str, Tensor], score: Score, generator: Generator
) -> dict[str, float]:
    r"""Of a model of documents, whose data are counts of words given their total; nothing of others.

    .. math:: \text{per word} = \frac{\sum_n (b_n - c_n)}{\sum_n t_n}, \quad
        \text{completion} = \frac{\sum_n \sum_w x^B_{nw} \log p(w \mid E[z_n \mid x^A_n])}{\sum_n \sum_w x^B_{nw}}

    with bounds b, log-coefficients c and totals t. Each word of a document falls into A or B by a fair coin; z is what the
    guide makes of A. Completion tells topic models apart, which bounds of different methods do not (Wallach et al. 2009).

    Args:
        pair: model and guide.
        split: the rows, in the order of the columns.
        columns: bounds of each datum ``(N,)``.
        score: what ``elbo`` among them is.
        generator: of the halves.

    Returns:
        ``words``, the mean total; each bound ``_per_word`` and ``perplexity``, exp(-b) of the tightest; ``completion``; where z
        are proportions of topics ``npmi`` and ``umass``, means over topics of their 10 most probable words in these documents.
        Nothing per word of documents without words. Words that no topic has, which are impossible, are told by a warning.
    """
    if not pair.model_facts.documents or pair.reads != ("x",) or pair.model_facts.known_entries is not None:
        return {}
    with evaluating(pair):
        topics = topics_of(pair)
        if topics is not None:
            _remark_on_impossible(topics, pair, split)
        parts = [_of_batch(pair, x, topics, generator) for x, *_ in _pieces(pair, split)]
    coefficient, total, told, asked = (torch.cat(column) for column in zip(*(part[0] for part in parts), strict=True))
    weights = split.weights
    numbers: dict[str, Any] = {"words": mean(total, weights)}
    for column in (name for name in BOUNDS if name in columns):
        name = score.name if column == "elbo" else column
        numbers |= _ratio(f"{name}_per_word", columns[column] - coefficient, total, weights)
    if bounds := [numbers[f"{name}_per_word"] for name in BOUNDS if f"{name}_per_word" in numbers]:
        numbers["perplexity"] = math.exp(-max(bounds))
    if _completes(pair):
        numbers |= _ratio("completion", told, asked, weights)
    if topics is not None:
        together = torch.stack([part[1] for part in parts if part[1] is not None]).sum(0)
        found = _top(topics)
        places = found.unique(return_inverse=True)[1]
        numbers["npmi"] = npmi(places, together, len(split)).mean().item()
        numbers["umass"] = umass(places, together).mean().item()
    return numbers


@torch.no_grad()
def topics_of(pair: Pair) -> Tensor | None:
    """p(word | topic) ``(K, V)`` of a model whose z are proportions, at the corners of the simplex; else ``None``."""
    sites = pair.model_facts.sites
    if pair.can.generate is None or len(sites) != 1:
        return None
    (site,) = sites.values()
    if site.support is not constraints.simplex or len(site.event_shape) != 1:
        return None
    like = next((part for part in (*pair.parameters(), *pair.buffers()) if part.is_floating_point()), torch.zeros(()))
    corners = torch.eye(site.event_shape[0], dtype=like.dtype, device=like.device)
    return pair.can.generate.decode(corners).probs.flatten(1)


def npmi(top: Tensor, together: Tensor, documents: int) -> Tensor:
    r"""Of each topic the mean normalized pointwise mutual information of its words' pairs, in [-1, 1] (Bouma 2009).

    .. math:: \mathrm{npmi}(i, j) = \frac{\log p(i, j) - \log p(i) - \log p(j)}{-\log p(i, j)}

    p counts documents with the words. Of words that never meet it is -1, of words in every document 0.

    Args:
        top: places of each topic's words ``(K, T)``, the most probable first.
        together: in how many documents each pair of places is, ``(U, U)``.
        documents: how many there are.

    Examples:
        >>> npmi(torch.tensor([[0, 1]]), torch.tensor([[2.0, 2.0], [2.0, 2.0]]), 4)
        tensor([1.])
    """
    joint, single = _pairs(top, together, documents)
    value = (joint.log() - single[0].log() - single[1].log()) / -joint.log()
    return torch.where(joint == 0, -1.0, torch.where(joint == 1, 0.0, value)).mean(1)


def umass(top: Tensor, together: Tensor, *, smoothing: float = 1.0) -> Tensor:
    r"""Of each topic the mean log-probability of a word given a more probable one, in nats (Mimno et al. 2011).

    .. math:: \mathrm{umass}(i, j) = \log \frac{D(i, j) + 1}{D(j)}, \quad j \text{ before } i

    D counts documents with the words; of those that no document has there is none.

    Args:
        top: places of each topic's words ``(K, T)``, the most probable first.
        together: in how many documents each pair of places is, ``(U, U)``.
        smoothing: what is added to a count.

    Examples:
        >>> umass(torch.tensor([[0, 1]]), torch.tensor([[2.0, 1.0], [1.0, 1.0]])).exp()
        tensor([1.])
    """
    joint, (before, _) = _pairs(top, together, 1)
    known = before > 0
    value = torch.where(known, ((joint + smoothing) / before.clamp_min(1)).log(), 0.0)
    return value.sum(1) / known.sum(1).clamp_min(1)


def _pairs(top: Tensor, together: Tensor, documents: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Shares of documents with both words of each pair ``(K, T (T - 1) / 2)``, and with the more and the less probable one."""
    before, after = torch.triu_indices(top.shape[1], top.shape[1], 1, device=top.device)
    first, second = top[:, before], top[:, after]
    alone = together.diagonal()
    return together[first, second] / documents, (alone[first] / documents, alone[second] / documents)


def _remark_on_impossible(topics: Tensor, pair: Pair, split: Split) -> None:
    """Warn of words of these documents that no topic has: bounds of them are those of the smallest number that there is."""
    impossible = topics.amax(0) <= 2 * torch.finfo(topics.dtype).tiny
    if not bool(impossible.any()):
        return
    met = torch.stack([x.flatten(1).sum(0) for x, *_ in _pieces(pair, split)]).sum(0) > 0
    if places := (impossible & met).nonzero().flatten().tolist():
        names = [split.columns[place] if split.columns else f"x{place + 1}" for place in places]
        told = ", ".join(names[:NAMED]) + (f", ... ({len(names)})" if len(names) > NAMED else "")
        warnings.warn(
            f"words that no topic has, and that are impossible, stand in these documents: {told}. Their log-probability "
            "is -inf, so numbers of these documents mean nothing: leave the words out, or fit with a prior of topics, "
            "LDA(words=Dirichlet())",
            FitWarning,
            stacklevel=3,
        )


def _pieces(pair: Pair, split: Split) -> Iterator[tuple[Tensor, ...]]:
    return batches(pair, split, max(1, AT_ONCE // split.elements))


def _of_batch(pair: Pair, x: Tensor, topics: Tensor | None, generator: Generator) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """Coefficient, total, log-probability of half B and its total ``(B,)``; in how many documents pairs of words are."""
    counts = x.flatten(1)
    half = torch.binomial(counts.cpu(), torch.tensor(0.5).expand(counts.shape).to(counts.dtype), generator=generator).to(counts)
    told = counts.new_zeros(len(x), dtype=torch.float64)
    if _completes(pair):
        z = pair.can.encode.posterior(half.reshape(x.shape)).mean  # type: ignore[union-attr]
        log = pair.model.decode(z).log_probs.flatten(1)
        told = torch.where(counts > half, (counts - half) * log, 0.0).sum(1, dtype=torch.float64)
    together = None
    if topics is not None:
        there = (counts[:, _top(topics).unique()] > 0).to(counts.dtype)
        together = (there.mT @ there).double()
    sizes = (part.sum(1, dtype=torch.float64) for part in (counts, counts - half))
    total, asked = sizes
    return (log_coefficient(counts), total, told, asked), together


def _completes(pair: Pair) -> bool:
    """Whether half of a document can be encoded, and what that makes of the other decoded."""
    return pair.can.encode is not None and pair.can.generate is not None and len(pair.model_facts.sites) == 1


def _top(topics: Tensor) -> Tensor:
    """The most probable words of each topic, ``(K, T)``."""
    return topics.topk(min(TOP, topics.shape[1]), 1).indices


def _ratio(name: str, values: Tensor, sizes: Tensor, weights: Tensor | None) -> dict[str, float]:
    """Sum / sum, and its standard error over the data; nothing of nothing."""
    length = mean(sizes, weights)
    if length == 0:
        return {}
    ratio = mean(values, weights) / length
    return {name: ratio, f"{name}_se": standard_error(values - ratio * sizes, weights) / length}
