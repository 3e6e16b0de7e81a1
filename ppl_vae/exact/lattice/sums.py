"""Sums over all states of a grid, one site after another (Kramers and Wannier 1941; Dechter 1999, "Bucket elimination").

    m_i(boundary) = sum over s_i of prod of all that hangs on s_i,     p(s_i | boundary) = prod of all that hangs on s_i / m_i

Sites go out in the order of the rows, so that what is carried are the sites of one row, or of two where the rows form a ring:
exact for narrow grids of any length. What was carried gives draws of p backwards, site by site, and with the largest product in
place of the sum the most probable states. The gradients of log Z are the marginals.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from ppl_vae.exact.lattice.grid import Field, energy, one_hot
from ppl_vae.exact.lattice.plan import LIMIT, Plan, Visit, plan

__all__ = ["Marginals", "draws", "log_partition", "marginals", "mode"]


class Marginals(NamedTuple):
    """Log Z ``(*rows,)``, p(s_i) ``(*rows, n, q)``, and p(s_i, s_j) of each bond ``(E, q, q)``, summed over rows."""

    log_partition: Tensor
    sites: Tensor
    bonds: Tensor


def log_partition(field: Field, *, limit: int = LIMIT) -> Tensor:
    """Log Z, ``(*rows,)``, with gradients.

    Raises:
        ValueError: a grid that is too wide; the sites are named.

    Examples:
        >>> from ppl_vae.exact.lattice.grid import grid
        >>> spins = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
        >>> pair = Field(grid((2,), (False,)), torch.tensor([0.5]), spins, torch.zeros(2, 2))
        >>> log_partition(pair), (2 * (torch.tensor(0.5).exp() + torch.tensor(-0.5).exp())).log()
        (tensor(1.5064), tensor(1.5064))
    """
    found, _ = _forwards(field, _pairs(field), plan(field, limit), _summed)
    return found.reshape(field.unary.shape[:-2])


@torch.no_grad()
def marginals(field: Field, *, limit: int = LIMIT) -> Marginals:
    """Log Z and the marginals of sites and bonds.

    Raises:
        ValueError: a grid that is too wide; the sites are named.
    """
    with torch.enable_grad():
        unary, pairs = field.unary.detach().requires_grad_(), _pairs(field).detach().requires_grad_()
        found, _ = _forwards(field._replace(unary=unary), pairs, plan(field, limit), _summed)
        of_sites, of_bonds = torch.autograd.grad(found.sum(), [unary, pairs], materialize_grads=True)
    return Marginals(found.detach().reshape(field.unary.shape[:-2]), of_sites, of_bonds)


@torch.no_grad()
def draws(field: Field, n: int, generator: Generator | None = None, *, limit: int = LIMIT) -> Tensor:
    """Exact draws, states ``(n, *rows, sites)``; by torch's global generator where none is given.

    Raises:
        ValueError: a grid that is too wide; the sites are named.
    """

    def choose(logits: Tensor) -> Tensor:
        noise = torch.rand(logits.shape, generator=generator, dtype=logits.dtype, device=logits.device)
        return (logits - (-noise.log()).log()).argmax(-1)  # Gumbel 1954

    return _backwards(field, n, plan(field, limit), _summed, choose)


@torch.no_grad()
def mode(field: Field, *, limit: int = LIMIT) -> tuple[Tensor, Tensor]:
    """The most probable states ``(*rows, sites)``, and their log-weight ``(*rows,)`` (Viterbi 1967).

    Raises:
        ValueError: a grid that is too wide; the sites are named.
    """
    states = _backwards(field, 1, plan(field, limit), _largest, lambda logits: logits.argmax(-1))[0]
    return states, energy(field, one_hot(states, len(field.table), field.unary))


Rule = Callable[[Tensor, list[tuple[Tensor, tuple[int, ...]]], tuple[int, ...], tuple[int, ...]], tuple[Tensor, Tensor]]


def _pairs(field: Field) -> Tensor:
    """Log-weights of each bond, ``(E, q, q)``."""
    return field.coupling[:, None, None] * field.table


def _forwards(field: Field, pairs: Tensor, found: Plan, rule: Rule) -> tuple[Tensor, dict[int, Tensor]]:
    """Log Z of the rows in one axis, and the logarithms of the tables that were carried, ``(rows, q, ..., q)``."""
    rows = field.unary.reshape(-1, *field.unary.shape[-2:])
    log_scale, tables = rows.new_zeros(len(rows)), dict[int, Tensor]()
    boundaries = {visit.site: visit.boundary for visit in found.visits}
    for visit in found.visits:
        carried = [(tables[source], boundaries[source]) for source in visit.carried]
        local = _local(rows, pairs, field, visit)
        table, shift = rule(local, carried, (visit.site, *visit.others), visit.boundary)
        log_scale = log_scale + shift
        if visit.boundary:
            tables[visit.site] = table
        else:
            log_scale = log_scale + (table.log() if rule is _summed else table)
    return log_scale, tables


def _local(rows: Tensor, pairs: Tensor, field: Field, visit: Visit) -> Tensor:
    """The log-weights of a site and its bonds, ``(rows, q, ..., q)``, the site first and then its neighbours."""
    levels, many = len(field.table), len(visit.others)
    local = rows[:, visit.site].reshape(-1, levels, *[1] * many)
    for place, (bond, other) in enumerate(zip(visit.bonds, visit.others, strict=True)):
        pair = pairs[bond] if visit.site < other else pairs[bond].mT
        local = local + pair.reshape(levels, *[1] * place, levels, *[1] * (many - place - 1))
    return local


def _summed(
    local: Tensor, carried: list[tuple[Tensor, tuple[int, ...]]], names: tuple[int, ...], boundary: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """The sum over the site, divided by its largest entry, and what it was divided by."""
    shift = _most(local.detach())
    letters = {name: place for place, name in enumerate((names[0], *boundary), 1)}
    weights = (local - shift.reshape(-1, *[1] * (local.dim() - 1))).exp()
    arguments: list[object] = [weights, [0, *(letters[name] for name in names)]]
    for table, held in carried:
        arguments += [table, [0, *(letters[name] for name in held)]]
    found = torch.einsum(*arguments, [0, *(letters[name] for name in boundary)])
    scale = _most(found.detach())
    return found / scale.reshape(-1, *[1] * (found.dim() - 1)), shift + scale.log()


def _largest(
    local: Tensor, carried: list[tuple[Tensor, tuple[int, ...]]], names: tuple[int, ...], boundary: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """The largest log-weight over the states of the site."""
    whole = (names[0], *boundary)
    total = _spread(local, names, whole)
    for table, held in carried:
        total = total + _spread(table, held, whole)
    return total.amax(1), total.new_zeros(())


def _spread(table: Tensor, names: tuple[int, ...], whole: tuple[int, ...]) -> Tensor:
    """A table with an axis for each of all sites, one long where it does not hang on it."""
    order = sorted(range(len(names)), key=lambda place: whole.index(names[place]))
    ordered = table.permute(0, *(place + 1 for place in order))
    sizes = iter(ordered.shape[1:])
    return ordered.reshape(len(table), *(next(sizes) if name in names else 1 for name in whole))


def _most(values: Tensor) -> Tensor:
    """The largest entry of each row, ``(rows,)``."""
    return values.flatten(1).amax(1) if values.dim() > 1 else values


def _backwards(field: Field, n: int, found: Plan, rule: Rule, choose: Callable[[Tensor], Tensor]) -> Tensor:
    """States ``(n, *rows, sites)``, each chosen from its log-weights given those after it."""
    leading, sites = field.unary.shape[:-2], field.unary.shape[-2]
    rows, pairs = field.unary.reshape(-1, *field.unary.shape[-2:]), _pairs(field)
    _, tables = _forwards(field, pairs, found, rule)
    boundaries = {visit.site: visit.boundary for visit in found.visits}
    states = torch.zeros(n, len(rows), sites, dtype=torch.long, device=rows.device)
    for visit in reversed(found.visits):
        logits = rows[:, visit.site].expand(n, -1, -1)
        for bond, other in zip(visit.bonds, visit.others, strict=True):
            pair = pairs[bond] if visit.site < other else pairs[bond].mT
            logits = logits + pair.mT[states[..., other]]
        for source in visit.carried:
            table = _at(tables.pop(source), boundaries[source], visit.site, states)
            logits = logits + (table.log() if rule is _summed else table)
        states[..., visit.site] = choose(logits)
    return states.reshape(n, *leading, sites)


def _at(table: Tensor, names: tuple[int, ...], site: int, states: Tensor) -> Tensor:
    """A table's values for each state of the site, the other sites at their states: ``(n, rows, q)``."""
    place, levels = names.index(site), table.shape[-1]
    others = [name for name in names if name != site]
    powers = torch.tensor([levels**power for power in reversed(range(len(others)))], dtype=torch.long, device=table.device)
    index = (states[..., others] * powers).sum(-1)
    flat = table.movedim(place + 1, -1).reshape(len(table), -1, levels)
    found: Tensor = flat[torch.arange(len(table), device=table.device), index]
    return found
