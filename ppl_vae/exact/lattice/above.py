"""An upper bound on log Z where it is too wide to be summed: strips (Wainwright et al. 2005, there of trees).

    log Z(J) <= mean over k of log Z(J_k),     J = mean over k of J_k

log Z is convex in J. Each J_k lacks the bonds across some cuts, so that narrow strips are left, summed exactly; a bond
that is there in a part rho of all k is J / rho in these. The wider the strips, the closer the bound.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

from ppl_vae.exact.lattice.grid import Field
from ppl_vae.exact.lattice.plan import planned
from ppl_vae.exact.lattice.sums import log_partition

__all__ = ["ENTRIES", "upper_bound"]

ENTRIES: Final = 2**12
"""That the sums over strips carry at most."""


def upper_bound(field: Field, *, entries: int = ENTRIES) -> Tensor:
    """A number that log Z is not above, ``(*rows,)``; log Z itself where the sums carry no more than so many entries."""
    levels, masks = len(field.table), _masks(field, entries)
    share = torch.stack(masks).to(field.coupling).mean(0)
    found = []
    for mask in masks:
        kept = mask.nonzero().flatten()
        bonds = tuple(field.grid.bonds[bond] for bond in kept.tolist())
        part = field.grid._replace(bonds=bonds)
        coupling = field.coupling[kept] / share[kept]
        found.append(log_partition(Field(part, coupling, field.table, field.unary), limit=max(entries, levels**2)))
    return torch.stack(found).mean(0)


def _masks(field: Field, entries: int) -> list[Tensor]:
    """Which bonds ``(E,)`` each of the parts has: wide strips where there are two axes, else the chains along each axis."""
    grid, levels = field.grid, len(field.table)
    if levels ** len(planned(grid.shape, grid.bonds).widest) <= entries:
        return [torch.ones(len(grid.bonds), dtype=torch.bool)]
    if len(grid.shape) == 2:
        across = 0 if grid.shape[0] <= grid.shape[1] else 1
        for width in range(grid.shape[across], 1, -1):
            masks = _strips(field, across, width)
            if bool(torch.stack(masks).any(0).all()) and all(_fits(field, mask, entries) for mask in masks):
                return masks
    return [grid.axis.cpu() == axis for axis in range(len(grid.shape)) if grid.shape[axis] > 1]


def _strips(field: Field, across: int, width: int) -> list[Tensor]:
    """The bonds that are left by cuts between strips, one set of cuts after another along the axis."""
    length, stride = field.grid.shape[across], math.prod(field.grid.shape[across + 1 :])
    place = field.grid.ends.cpu() // stride % length
    low, high = place.amin(-1), place.amax(-1)
    along, closing = field.grid.axis.cpu() == across, high - low > 1
    after = torch.where(closing, high, low)  # the site that a bond comes after
    return [
        ~(along & torch.isin(after, torch.tensor(cuts))) for cuts in _cuts(length, width, ring=bool((along & closing).any()))
    ]


def _cuts(length: int, width: int, *, ring: bool) -> list[list[int]]:
    """After which sites of an axis cuts leave strips of at most so many, in several ways."""
    if not ring:
        return [list(range(shift, length, width)) for shift in range(width)]
    number = math.ceil(length / width)
    return [
        [(strip * length // number + shift) % length for strip in range(number)] for shift in range(math.ceil(length / number))
    ]


def _fits(field: Field, mask: Tensor, entries: int) -> bool:
    bonds = tuple(field.grid.bonds[bond] for bond in mask.nonzero().flatten().tolist())
    return bool(len(field.table) ** len(planned(field.grid.shape, bonds).widest) <= entries)
