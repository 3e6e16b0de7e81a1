"""The order in which the sites of a grid are summed out, and what is carried from one to the next."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from ppl_vae.exact.lattice.grid import Bonds, Field

__all__ = ["LIMIT", "Plan", "Visit", "plan", "planned"]

LIMIT: Final = 2**20
"""Most entries that are carried from one site to the next, for one row."""


class Visit(NamedTuple):
    """One site as it goes out.

    Args:
        site: that is summed out.
        others: its neighbours that are still there.
        bonds: to these.
        carried: whose tables hang on it, by the sites that they come from.
        boundary: the sites that its own table hangs on, which is carried on.
    """

    site: int
    others: tuple[int, ...]
    bonds: tuple[int, ...]
    carried: tuple[int, ...]
    boundary: tuple[int, ...]


class Plan(NamedTuple):
    """All sites in their order, and the boundary of the largest table."""

    visits: tuple[Visit, ...]
    widest: tuple[int, ...]


def plan(field: Field, limit: int = LIMIT) -> Plan:
    """The order for a grid, found once for each.

    Raises:
        ValueError: tables above the limit; the message names the sites that the largest holds together.
    """
    found, levels = planned(field.grid.shape, field.grid.bonds), len(field.table)
    if levels ** len(found.widest) <= limit:
        return found
    names = ", ".join(_place(site, field.grid.shape) for site in found.widest[:4])
    more = ", ..." if len(found.widest) > 4 else ""
    raise ValueError(
        f"expected a lattice whose sums hold at most {limit:,} entries, got {levels}^{len(found.widest)} for the "
        f"{len(found.widest)} sites {names}{more} together: take a narrower or an open one, or mean field, Bethe or Gibbs, "
        "which know no limit"
    )


@lru_cache(maxsize=64)
def planned(shape: tuple[int, ...], bonds: Bonds) -> Plan:
    """The narrowest of the orders that go along one axis after all others."""
    beside: list[list[tuple[int, int]]] = [[] for _ in range(math.prod(shape))]
    for bond, (i, j) in enumerate(bonds):
        beside[i].append((j, bond))
        beside[j].append((i, bond))
    plans = (_followed(order, beside) for order in _orders(shape))
    return min(plans, key=lambda found: len(found.widest))


def _orders(shape: Sequence[int]) -> list[list[int]]:
    """The sites in rows, each axis in turn the slowest, the others from the longest to the shortest."""
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    orders = []
    for slowest in dict.fromkeys(sorted(range(len(shape)), key=lambda axis: -shape[axis])):
        axes = [slowest, *sorted((axis for axis in range(len(shape)) if axis != slowest), key=lambda axis: -shape[axis])]
        places = itertools.product(*(range(shape[axis]) for axis in axes))
        orders.append([sum(at * strides[axis] for at, axis in zip(place, axes, strict=True)) for place in places])
    return orders


def _followed(order: Sequence[int], beside: Sequence[Sequence[tuple[int, int]]]) -> Plan:
    rank = {site: place for place, site in enumerate(order)}
    waiting: dict[int, tuple[int, ...]] = {}  # the boundaries of tables that are carried
    visits = []
    for site in order:
        left = [(other, bond) for other, bond in beside[site] if rank[other] > rank[site]]
        carried = tuple(source for source, boundary in waiting.items() if site in boundary)
        held = {other for other, _ in left}.union(*(waiting.pop(source) for source in carried)) - {site}
        boundary = tuple(sorted(held, key=rank.__getitem__))
        if boundary:
            waiting[site] = boundary
        others, bonds = tuple(other for other, _ in left), tuple(bond for _, bond in left)
        visits.append(Visit(site, others, bonds, carried, boundary))
    return Plan(tuple(visits), max((visit.boundary for visit in visits), key=len))


def _place(site: int, shape: Sequence[int]) -> str:
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    at = [site // stride % length for stride, length in zip(strides, shape, strict=True)]
    return f"({', '.join(map(str, at))})"
