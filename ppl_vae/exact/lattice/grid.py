"""Sites on a grid of any number of dimensions, the bonds between neighbours, and the field that a density is made of.

    log p(s) = sum_bonds J_b T(s_i, s_j) + sum_i u_i(s_i) - log Z

T is symmetric: s_i s_j of spins (Ising 1925), one where both states are the same (Potts 1952).

Along an axis that is closed to a ring the last site has the first as a neighbour. On a ring of two sites both their bonds
count, as in the trace of the transfer matrix; on a ring of one site there is none.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Field", "Grid", "energy", "grid", "one_hot"]

Bonds = tuple[tuple[int, int], ...]


class Grid(NamedTuple):
    """Sites 0, ..., n - 1 in the order of the rows, and what lies beside what.

    Args:
        shape: sites along each axis.
        bonds: E pairs of sites, each once.
        axis: along which each bond runs, ``(E,)``.
        times: how often each bond counts, ``(E,)``: twice on a ring of two.
        ends: the two sites of each bond, ``(E, 2)``.
        neighbours: those of each site, ``(n, D)``; itself in place of those that it lacks.
        incident: the bonds to them, ``(n, D)``; E in place of those that it lacks.
        colours: sites that are no neighbours of one another, a colour each, which together are all.
    """

    shape: tuple[int, ...]
    bonds: Bonds
    axis: Tensor
    times: Tensor
    ends: Tensor
    neighbours: Tensor
    incident: Tensor
    colours: tuple[Tensor, ...]

    def to(self, device: torch.device) -> Grid:
        """The same, its tensors there."""
        return Grid(
            shape=self.shape,
            bonds=self.bonds,
            axis=self.axis.to(device),
            times=self.times.to(device),
            ends=self.ends.to(device),
            neighbours=self.neighbours.to(device),
            incident=self.incident.to(device),
            colours=tuple(colour.to(device) for colour in self.colours),
        )


class Field(NamedTuple):
    """What a density on a grid is made of.

    Args:
        grid: of n sites.
        coupling: J of each bond, ``(E,)``, how often it counts included.
        table: T, ``(q, q)``, symmetric.
        unary: u, log-weights of the states of each site, ``(*rows, n, q)``.
    """

    grid: Grid
    coupling: Tensor
    table: Tensor
    unary: Tensor


@lru_cache(maxsize=64)
def grid(shape: tuple[int, ...], torus: tuple[bool, ...]) -> Grid:
    """The grid of so many sites along each axis, of which some are closed to rings.

    Examples:
        >>> grid((2, 3), (False, False)).bonds
        ((0, 3), (0, 1), (1, 4), (1, 2), (2, 5), (3, 4), (4, 5))
    """
    times = _bonds(shape, torus)
    bonds = tuple(times)
    beside: list[list[tuple[int, int]]] = [[] for _ in range(math.prod(shape))]
    for bond, (i, j) in enumerate(bonds):
        beside[i].append((j, bond))
        beside[j].append((i, bond))
    most = max(map(len, beside))
    filled = [found + [(site, len(bonds))] * (most - len(found)) for site, found in enumerate(beside)]
    pairs = torch.tensor(filled, dtype=torch.long).reshape(len(beside), most, 2)
    return Grid(
        shape=shape,
        bonds=bonds,
        axis=torch.tensor([axis for axis, _ in times.values()], dtype=torch.long),
        times=torch.tensor([count for _, count in times.values()], dtype=torch.float64),
        ends=torch.tensor(bonds, dtype=torch.long).reshape(-1, 2),
        neighbours=pairs[..., 0],
        incident=pairs[..., 1],
        colours=_colours([[site for site, _ in found] for found in beside]),
    )


def energy(field: Field, states: Tensor) -> Tensor:
    """The log-weight of states, ``(...,)``: log p without its log Z.

    Args:
        field: its ``unary (*rows, n, q)``.
        states: shares of each state ``(..., n, q)``, of one configuration one-hot, which broadcast with the rows.
    """
    i, j = field.grid.ends.unbind(-1)
    pairs = (states[..., i, :] @ field.table * states[..., j, :]).sum(-1)
    return (states * field.unary).sum((-2, -1)) + pairs @ field.coupling


def one_hot(states: Tensor, levels: int, like: Tensor) -> Tensor:
    """States ``(..., n)`` as ``(..., n, q)``."""
    return torch.nn.functional.one_hot(states, levels).to(like)


def _bonds(shape: Sequence[int], torus: Sequence[bool]) -> dict[tuple[int, int], tuple[int, int]]:
    """The axis of each bond, and how often it counts."""
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    found: dict[tuple[int, int], tuple[int, int]] = {}
    for site, place in enumerate(itertools.product(*map(range, shape))):
        for axis, (length, ring, stride) in enumerate(zip(shape, torus, strides, strict=True)):
            last = place[axis] == length - 1
            if length == 1 or (last and not ring):
                continue
            other = site - place[axis] * stride if last else site + stride
            key = (min(site, other), max(site, other))
            found[key] = (axis, found.get(key, (axis, 0))[1] + 1)
    return found


def _colours(beside: Sequence[Sequence[int]]) -> tuple[Tensor, ...]:
    """Each site gets the first colour that no neighbour has: two of them, unless there is a ring of odd length."""
    chosen: list[int] = []
    for site, others in enumerate(beside):
        taken = {chosen[other] for other in others if other < site}
        chosen.append(next(colour for colour in itertools.count() if colour not in taken))
    every = torch.tensor(chosen)
    return tuple((every == colour).nonzero().flatten() for colour in range(max(chosen) + 1))
