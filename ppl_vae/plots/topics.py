"""Topics at a glance: how large each is, which are near, by which words it is known (Sievert and Shirley 2014)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ppl_vae.plots.canvas import new_figure

__all__ = ["relevance", "topic_map", "topics"]

MOST, WORDS, LONGEST = 25, 8, 16  # topics and words of each that are listed, and letters of a word
LARGEST = 4000.0  # square points of a circle of all words


def topics(shares: Tensor, sizes: Tensor, names: Sequence[str] = (), *, weight: float = 0.6) -> Figure:
    """A map of topics, circles as large as they are, and beside it the words that are most relevant to each.

    Args:
        shares: p(word | topic) ``(K, V)``.
        sizes: of all words the share of each topic ``(K,)``.
        names: of the words; by default their numbers from 1.
        weight: lambda of :func:`relevance`.

    Raises:
        ValueError: other shapes.

    Examples:
        >>> len(topics(torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([0.3, 0.7]), ("cat", "dog")).axes)
        2
    """
    K, V = shares.shape
    if sizes.shape != (K,) or len(names) not in (0, V):
        raise ValueError(f"expected sizes ({K},) and {V} names, or none, got {tuple(sizes.shape)} and {len(names)}")
    shares, sizes = (values.detach().to("cpu", torch.float64) for values in (shares, sizes))
    order = sizes.argsort(descending=True)
    known = [_shown(name) for name in names] or [f"x{place}" for place in range(1, V + 1)]
    listed = order[:MOST]
    figure, (left, right) = new_figure(11.0, max(4.0, 0.6 + 0.26 * len(listed)), 2)
    places = topic_map(shares)
    areas = (LARGEST * sizes).clamp_min(4).numpy()
    left.scatter(places[:, 0].numpy(), places[:, 1].numpy(), s=areas, alpha=0.35, edgecolors="slategrey")
    for topic, (x, y) in enumerate(places.tolist()):
        left.text(x, y, f"z{topic + 1}", ha="center", va="center", fontsize=8)
    left.set_aspect("equal", adjustable="datalim")
    left.margins(0.2)
    left.set(xticks=[], yticks=[], title="topics by their distance")
    found = relevance(shares, sizes, weight).topk(min(WORDS, V), 1).indices
    for line, topic in enumerate(listed.tolist()):
        words = ", ".join(known[word] for word in found[topic].tolist())
        right.text(0, -line, f"z{topic + 1}", fontsize=8, fontweight="bold", va="center", ha="right")
        right.text(0.03, -line, f"{100 * sizes[topic]:4.1f} %  {words}", fontsize=8, va="center")
    rest = f"; the {MOST} largest of {K}" if len(listed) < K else ""
    right.set(xlim=(-0.05, 1), ylim=(-len(listed), 1), title=f"share of all words, most relevant words{rest}")
    right.set_axis_off()
    return figure


def relevance(shares: Tensor, sizes: Tensor, weight: float = 0.6) -> Tensor:
    r"""How much each word tells of a topic, ``(K, V)``.

    .. math:: r(w, k) = \lambda \log p(w \mid k) + (1 - \lambda) \log \frac{p(w \mid k)}{p(w)}

    Args:
        shares: p(word | topic) ``(K, V)``.
        sizes: p(topic) ``(K,)``.
        weight: lambda in [0, 1]; 1 lists what is frequent, 0 what is found in no other topic.

    Examples:
        >>> relevance(torch.tensor([[0.5, 0.5], [0.9, 0.1]]), torch.tensor([0.5, 0.5]), 0.0).argmax(1)
        tensor([1, 0])
    """
    tiny = torch.finfo(shares.dtype).tiny
    log = shares.clamp_min(tiny).log()
    return log - (1 - weight) * (sizes @ shares).clamp_min(tiny).log()


def topic_map(shares: Tensor) -> Tensor:
    """Places ``(K, 2)`` whose distances are near the square roots of the Jensen-Shannon divergences (Torgerson 1952).

    Args:
        shares: p(word | topic) ``(K, V)``.
    """
    K = len(shares)
    divergence = torch.stack([_jensen_shannon(shares, each) for each in shares])
    centre = torch.eye(K, dtype=shares.dtype) - 1 / K
    values, vectors = torch.linalg.eigh(-centre @ divergence @ centre / 2)
    places = shares.new_zeros(K, 2)
    found = (vectors * values.clamp_min(0).sqrt()).flip(1)[:, :2]
    places[:, : found.shape[1]] = found
    return places


def _jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    middle = (p + q) / 2
    return sum((torch.xlogy(each, each / middle).nan_to_num().sum(-1) / 2 for each in (p, q.expand_as(p))), p.new_zeros(len(p)))


def _shown(name: str) -> str:
    return (name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…").replace("$", r"\$")
