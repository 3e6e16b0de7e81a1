"""Belief propagation, and the approximation of log Z that its fixed points belong to (Bethe 1935; Yedidia et al. 2005).

    m_ij(s_j) = sum over s_i of exp(J T(s_i, s_j) + u_i(s_i)) prod of m_ki(s_i) over the other neighbours k of i

    log Z = sum_bonds <J T + H(b_ij)> + sum_i <u_i> + (1 - d_i) H(b_i)

Exact on trees, such as chains; elsewhere it bounds nothing, and need not settle.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ppl_vae.exact.lattice.grid import Field

__all__ = ["Beliefs", "beliefs"]


class Beliefs(NamedTuple):
    """What belief propagation found.

    Args:
        log_partition: the approximation of log Z, ``(*rows,)``.
        sites: of p(s_i), ``(*rows, n, q)``.
        bonds: of p(s_i, s_j), ``(*rows, E, q, q)``.
        settled: whether the messages of all rows came to rest.
    """

    log_partition: Tensor
    sites: Tensor
    bonds: Tensor
    settled: bool


@torch.no_grad()
def beliefs(field: Field, *, iterations: int = 1000, damping: float = 0.0, tolerance: float = 1e-10) -> Beliefs:
    """All messages at once, again and again, until none moves by more than the tolerance.

    Args:
        field: of the lattice.
        iterations: at most.
        damping: the part of the old logarithm that stays in each message.
        tolerance: in nats.
    """
    i, j = field.grid.ends.unbind(-1)
    source, target = torch.cat([i, j]), torch.cat([j, i])
    pairs = (field.coupling[:, None, None] * field.table).repeat(2, 1, 1)  # symmetric, so alike in both directions
    E, q = len(i), len(field.table)
    messages = field.unary.new_zeros(*field.unary.shape[:-2], 2 * E, q)
    settled = E == 0
    for _ in range(iterations):
        cavity = _cavity(field, messages, source, target, E)
        new = torch.logsumexp(cavity.unsqueeze(-1) + pairs, -2).log_softmax(-1)
        new = damping * messages + (1 - damping) * new
        settled = E == 0 or float((new - messages).abs().amax()) <= tolerance
        messages = new
        if settled:
            break
    sites = _gathered(field, messages, target).softmax(-1)
    cavity = _cavity(field, messages, source, target, E)
    joint = cavity[..., :E, :].unsqueeze(-1) + cavity[..., E:, :].unsqueeze(-2) + pairs[:E]
    bonds = joint.flatten(-2).softmax(-1).unflatten(-1, (q, q))
    return Beliefs(_log_partition(field, sites, bonds, pairs[:E]), sites, bonds, settled)


def _gathered(field: Field, messages: Tensor, target: Tensor) -> Tensor:
    """Log-weights of each site with all that comes to it."""
    return field.unary.index_add(-2, target, messages)


def _cavity(field: Field, messages: Tensor, source: Tensor, target: Tensor, bonds: int) -> Tensor:
    """Log-weights of the source of each message without what came from its target."""
    back = torch.cat([messages[..., bonds:, :], messages[..., :bonds, :]], -2)
    return _gathered(field, messages, target)[..., source, :] - back


def _log_partition(field: Field, sites: Tensor, bonds: Tensor, pairs: Tensor) -> Tensor:
    degree = torch.bincount(field.grid.ends.flatten(), minlength=sites.shape[-2]).to(sites)
    entropy = -torch.special.xlogy(sites, sites).sum(-1)
    of_sites = (sites * field.unary).sum((-2, -1)) + ((1 - degree) * entropy).sum(-1)
    return of_sites + (bonds * pairs - torch.special.xlogy(bonds, bonds)).sum((-3, -2, -1))
