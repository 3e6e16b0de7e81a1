"""Marginals of many variables given evidence, by one contraction and its gradient.

    p(v | evidence of row n) = sum over f's other variables of f_n d log Z_n / d f_n,    for any factor f that v is in

Factors without rows say this of all rows together. As few of them as hold all variables that are asked for are therefore
repeated for each row, which makes fewer products than one factor of ones for each variable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from ppl_vae.exact.elimination import AT_ONCE, LIMIT, ROWS, Factor, contraction, log_sum

__all__ = ["posteriors"]

REPEATED = 2**12  # most entries of a factor that is repeated for each row


def posteriors(
    factors: Sequence[Factor], sizes: Mapping[str, int], rows: int, *, limit: int = LIMIT
) -> tuple[Tensor, dict[str, Tensor]]:
    """Log of the sum of each row ``(n,)``, and of each variable its distribution in each row, ``(n, L)``.

    Args:
        factors: of all variables; the rows, where there are some, are the first axis.
        sizes: of the variables that are asked for, by name.
        rows: n.
        limit: of the entries of an intermediate of one row.

    Returns:
        The logarithms and the distributions, which are NaN in rows whose products are all zero.

    Examples:
        >>> rain = Factor(torch.tensor([0.5, 0.5]), ("rain",))
        >>> wet = Factor(torch.tensor([[0.9, 0.1], [0.1, 0.9]]), ("rain", "wet"))
        >>> seen = Factor(torch.tensor([[0.0, 1.0]]), (ROWS, "wet"))
        >>> posteriors([rain, wet, seen], {"rain": 2}, 1)[1]["rain"]
        tensor([[0.1000, 0.9000]])
    """
    found = list(factors)
    entries = tuple((names, values.numel() // (rows if ROWS in names else 1)) for values, names in factors)
    asked = dict(_covered(entries, tuple(sizes)))
    for place in asked:
        values, names = found[place]
        if ROWS not in names:
            found[place] = Factor(values.expand(rows, *values.shape), (ROWS, *names))
    for name in sizes.keys() - {name for names in asked.values() for name in names}:
        asked[len(found)] = (name,)
        found.append(Factor(factors[0].values.new_ones(rows, sizes[name]), (ROWS, name)))
    widest = max(contraction(found, limit=limit).largest, sum(found[place].values[0].numel() for place in asked))
    parts = []
    for start in range(0, rows, at_once := max(1, AT_ONCE // widest)):
        some = slice(start, start + at_once)
        of_rows = [Factor(values[some] if ROWS in names else values, names) for values, names in found]
        parts.append(_posteriors(of_rows, asked, limit))
    return torch.cat([log_z for log_z, _ in parts]), {name: torch.cat([each[name] for _, each in parts]) for name in sizes}


def _posteriors(
    factors: Sequence[Factor], asked: Mapping[int, tuple[str, ...]], limit: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """The same for rows at once, where ``asked`` are the places of the factors that tell of which variables."""
    with torch.enable_grad():
        leaves = {place: factors[place].values.detach().requires_grad_() for place in asked}
        terms = [Factor(leaves.get(place, values), names) for place, (values, names) in enumerate(factors)]
        log_z = log_sum(terms, limit=limit)
        slopes = torch.autograd.grad(log_z.sum(), list(leaves.values()))
    marginals: dict[str, Tensor] = {}
    for (place, leaf), slope in zip(leaves.items(), slopes, strict=True):
        joint, names = leaf.detach() * slope, factors[place].names
        for name in asked[place]:
            others = [axis for axis, each in enumerate(names) if each not in (ROWS, name)]
            marginals[name] = joint.sum(others) if others else joint
    return log_z.detach(), marginals


@lru_cache(maxsize=256)
def _covered(factors: tuple[tuple[tuple[str, ...], int], ...], wanted: tuple[str, ...]) -> dict[int, tuple[str, ...]]:
    """Places of factors, given by names and entries, that hold the variables, and which each is to tell of.

    They are those that have rows, and as few others as will do.
    """
    left, found = set(wanted), {}
    for place, (names, _) in enumerate(factors):
        if ROWS in names and (own := left.intersection(names)):
            found[place] = tuple(sorted(own))
            left -= own
    repeated = [place for place, (names, entries) in enumerate(factors) if ROWS not in names and entries <= REPEATED]
    while left and repeated:
        best = max(repeated, key=lambda place: (len(left.intersection(factors[place][0])), -factors[place][1]))
        if not (own := left.intersection(factors[best][0])):
            break
        found[best] = tuple(sorted(own))
        left -= own
    return found
