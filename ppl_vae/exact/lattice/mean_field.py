"""Mean field: the best product of independent sites (Peierls 1938; Jordan et al. 1999).

    log Z >= sum_bonds J q_i' T q_j + sum_i q_i . u_i + sum_i H(q_i),     q_i is proportional to exp(u_i + sum_j J_ij T q_j)

Sites of one colour are no neighbours, so that to renew them together is to renew them one after the other: no sweep lowers the
bound. All sites together may: they can swing between two states for ever, unless the step is damped.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ppl_vae.exact.lattice.grid import Field, energy

__all__ = ["bound", "climbed", "logits", "parallel", "settled", "sweep"]

HALVINGS = 30  # of a step that lowers the bound
PATIENCE = 3  # sweeps in a row that gain nothing of note


def logits(field: Field, q: Tensor, sites: Tensor | slice = slice(None)) -> Tensor:
    """Log-weights of the states of some sites given the others at q ``(*rows, n, q)``, ``(*rows, sites, q)``."""
    padded = torch.cat([field.coupling, field.coupling.new_zeros(1)])
    beside = (q @ field.table)[..., field.grid.neighbours[sites], :]
    return field.unary[..., sites, :] + (padded[field.grid.incident[sites]].unsqueeze(-1) * beside).sum(-2)


def sweep(field: Field, q: Tensor, damping: float = 0.0) -> Tensor:
    """Each site in turn at its best given the others, or on the way there: asynchronous updates."""
    for sites in field.grid.colours:
        q = q.index_copy(-2, sites, _between(q[..., sites, :], logits(field, q, sites), damping))
    return q


def parallel(field: Field, q: Tensor, damping: float = 0.0) -> Tensor:
    """All sites at once from the old q, which may lower the bound: see :func:`climbed`.

    Log q is ``damping`` times the old one and for the rest the new one (Baque et al. 2016).
    """
    return _between(q, logits(field, q), damping)


def _between(q: Tensor, new: Tensor, damping: float) -> Tensor:
    if damping == 0:
        return new.softmax(-1)
    old = q.clamp_min(torch.finfo(q.dtype).tiny).log()
    return ((1 - damping) * new.log_softmax(-1) + damping * old).softmax(-1)


def climbed(field: Field, q: Tensor, damping: float = 0.0) -> Tensor:
    """:func:`parallel`, with the step of each row halved until its bound does not fall."""
    before, found = bound(field, q), parallel(field, q, damping)
    for _ in range(HALVINGS):
        fell = bound(field, found) < before
        if not bool(fell.any()):
            return found
        damping = (1 + damping) / 2
        found = torch.where(fell[..., None, None], parallel(field, q, damping), found)
    return torch.where((bound(field, found) < before)[..., None, None], q, found)


def bound(field: Field, q: Tensor) -> Tensor:
    """The lower bound on log Z, ``(*rows,)``: expected log-weight and entropy."""
    return energy(field, q) - torch.special.xlogy(q, q).sum((-2, -1))


def settled(field: Field, q: Tensor, *, sweeps: int = 1000, tolerance: float = 1e-10) -> tuple[Tensor, int]:
    """Sweeps until none moves a probability by more than the tolerance, or so many; and how many it took."""
    for done in range(1, sweeps + 1):
        before, q = q, sweep(field, q)
        if float((q - before).abs().amax()) <= tolerance:
            return q, done
    return q, sweeps
