"""Gibbs sampling, a colour of sites at a time (Geman and Geman 1984; on open grids the checkerboard)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from ppl_vae.exact.lattice.grid import Field, one_hot
from ppl_vae.exact.lattice.mean_field import logits

__all__ = ["gibbs"]


@torch.no_grad()
def gibbs(field: Field, states: Tensor, sweeps: int, generator: Generator | None = None) -> Tensor:
    """States ``(..., n)`` after so many sweeps over all sites, each drawn given its neighbours.

    What comes of few sweeps still looks like the start, and below the critical temperature a chain stays in one phase.
    """
    levels = len(field.table)
    q = one_hot(states, levels, field.unary)
    for _ in range(sweeps):
        for sites in field.grid.colours:
            weights = logits(field, q, sites)
            noise = torch.rand(weights.shape, generator=generator, dtype=weights.dtype, device=weights.device)
            chosen = (weights - (-noise.log()).log()).argmax(-1)
            q = q.index_copy(-2, sites, one_hot(chosen, levels, q))
    return q.argmax(-1)
