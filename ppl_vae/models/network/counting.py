"""The likeliest parameters of complete rows: shares of counts, and a regression for each joint state of the parents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ppl_vae.exact.conditional_gaussian import regression
from ppl_vae.models.network.evidence import Evidence
from ppl_vae.models.network.linear import LinearMechanism
from ppl_vae.models.network.nodes import Mechanism, State
from ppl_vae.models.network.table import TableMechanism

__all__ = ["counted"]


@torch.no_grad()
def counted(
    nodes: Mapping[str, Mechanism], hidden: Sequence[str], blocks: Sequence[Evidence], *, pseudo_counts: float, floor: float
) -> dict[str, State]:
    """The parameters of the nodes that are learned; the others' are as they are.

    Args:
        nodes: by name.
        hidden: those in no column.
        blocks: the rows.
        pseudo_counts: added to each count, the posterior mean under a Dirichlet prior of that concentration.
        floor: the least standard deviation of a number given its parents.

    Raises:
        ValueError: hidden nodes, missing entries, or a node without a closed form.
    """
    if hidden:
        raise ValueError(f"hidden nodes ({', '.join(hidden)}) leave no closed form: use EM")
    found = {name: node.state for name, node in nodes.items()}
    for name, node in nodes.items():
        if not node.learned:
            continue
        if isinstance(node, TableMechanism):
            counts = sum(_counts(node, block) for block in blocks) + pseudo_counts
            found[name] = node.maximized(found[name], [counts])
        elif isinstance(node, LinearMechanism):
            coefficients, variance = found[name]
            total = torch.stack([_moments(node, block) for block in blocks]).sum(0)
            slopes, left = regression(total, floor**2)
            found[name] = slopes.reshape(coefficients.shape), left.reshape(variance.shape)
        else:
            remedy = "SVI" if node.by_gradient else "EM or SVI"
            raise ValueError(f"the node {name} ({type(node).__name__}) has no closed form: use {remedy}")
    return found


def _counts(node: TableMechanism, block: Evidence) -> Tensor:
    """How often each state meets each joint state of the parents, ``(*cards, L)``."""
    place = _configuration((*node.facts.switches, node.facts.name), block)
    shape = (*node.facts.cards, len(node.facts.states))
    return torch.bincount(place, block.weight, minlength=int(torch.Size(shape).numel())).reshape(shape)


def _moments(node: LinearMechanism, block: Evidence) -> Tensor:
    """Second moments of one, the parents that are numbers and the node, by joint state ``(C, P + 2, P + 2)``."""
    values = torch.stack([block.numbers[name] for name in (*node.facts.numbers, node.facts.name)], -1)
    if bool(values.isnan().any()):
        raise ValueError("missing entries leave no closed form: use EM")
    z = torch.cat([torch.ones_like(values[:, :1]), values], -1)
    each = block.weight[:, None, None] * z[:, :, None] * z[:, None]
    place = _configuration(node.facts.switches, block)
    return each.new_zeros(node.facts.configurations, *each.shape[1:]).index_add_(0, place, each)


def _configuration(names: Sequence[str], block: Evidence) -> Tensor:
    """The joint state of some nodes in each row, ``(n,)``, the last one's changing fastest."""
    place = torch.zeros_like(block.weight, dtype=torch.int64)
    for name in names:
        if bool((block.states[name].count_nonzero(-1) > 1).any()):
            raise ValueError("missing entries leave no closed form: use EM")
        place = place * block.states[name].shape[-1] + block.states[name].argmax(-1)
    return place
