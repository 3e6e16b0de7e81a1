"""Where EM starts: at random, and never where two states of a hidden node are alike, which no step would tell apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Generator, Tensor

from ppl_vae.exact.mixture_start import kmeans_plus_plus
from ppl_vae.models.network.evidence import Evidence
from ppl_vae.models.network.linear import LinearMechanism
from ppl_vae.models.network.nodes import DiscreteMechanism, Mechanism, State, spread

__all__ = ["initial"]


@torch.no_grad()
def initial(
    nodes: Mapping[str, Mechanism], hidden: Sequence[str], blocks: Sequence[Evidence], generator: Generator
) -> dict[str, State]:
    """A start: declared parameters where there are some; random tables about the shares in the data; regressions of slope 0.

    A number that hangs on hidden states begins, in each of these, at a row of the data, by k-means++.
    """
    found: dict[str, State] = {}
    centres: Tensor | None = None
    numbers = tuple(name for name, node in nodes.items() if isinstance(node, LinearMechanism))
    for name, node in nodes.items():
        if node.given or node.by_gradient:
            found[name] = node.state
        elif isinstance(node, DiscreteMechanism):
            found[name] = node.initial(_shares(name, len(node.facts.states), blocks), generator)
        else:
            coefficients, variance = (torch.zeros_like(part) for part in node.state)
            places = [place for place, parent in enumerate(node.facts.numbers, start=1) if parent in hidden]
            noise = torch.randn(
                *coefficients.shape[:-1], len(places), generator=generator, dtype=torch.float64, device=generator.device
            )
            coefficients[..., places] = noise
            switches = [switch for switch in node.facts.switches if switch in hidden]
            if switches and name not in hidden:
                centres = _centres(nodes, hidden, numbers, blocks[0], generator) if centres is None else centres
                coefficients[..., 0] = _of_states(node, switches, centres[:, numbers.index(name)])
            found[name] = coefficients, variance + 1.0
    return found


def _shares(name: str, levels: int, blocks: Sequence[Evidence]) -> Tensor:
    """How often each state was seen, ``(L,)``; alike for all of a hidden node."""
    seen = [block.states[name] * block.weight.unsqueeze(-1) for block in blocks if name in block.states]
    total = torch.zeros(levels, dtype=torch.float64)
    for part in seen:
        total = total.to(part) + (part * (part.count_nonzero(-1) == 1).unsqueeze(-1)).sum(0)
    return total / total.sum() if bool(total.any()) else torch.full_like(total, 1 / levels)


def _of_states(node: Mechanism, switches: Sequence[str], centres: Tensor) -> Tensor:
    """A centre for each joint state of the hidden parents, ``(*cards)``."""
    sizes = dict(zip(node.facts.switches, node.facts.cards, strict=True))
    shape = [sizes[name] for name in switches]
    own = centres[torch.arange(torch.Size(shape).numel(), device=centres.device) % len(centres)].reshape(shape)
    return spread(own, switches, node.facts.switches, sizes).reshape(node.facts.cards)


def _centres(
    nodes: Mapping[str, Mechanism], hidden: Sequence[str], numbers: Sequence[str], block: Evidence, generator: Generator
) -> Tensor:
    """Rows of the numbers far from each other, as many as joint states of hidden parents, ``(K, numbers)``."""
    linear = [node.facts for node in nodes.values() if isinstance(node, LinearMechanism)]
    sizes = [[card for name, card in zip(facts.switches, facts.cards, strict=True) if name in hidden] for facts in linear]
    x = torch.stack([block.numbers[name] for name in numbers], -1).nan_to_num(0.0)
    return kmeans_plus_plus(x, max(torch.Size(each).numel() for each in sizes), generator)
