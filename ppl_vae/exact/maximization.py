"""The largest of all products of factors, and the values of the variables at which it is met.

    max over all variables of prod_f f(its variables)

The order of the sums serves the maxima (Dawid 1992, "Applications of a general propagation algorithm for probabilistic expert
systems"); what each maximum left out is looked up on the way back, so that the values found belong together, also where
several are as good. Everything is in logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ppl_vae.exact.elimination import AT_ONCE, LIMIT, ROWS, Factor, Step, contraction

__all__ = ["maximum"]


class Met(NamedTuple):
    """Logarithms of a product over kept variables and those that were maximized out, ``(n, *kept, *out)``."""

    values: Tensor
    kept: tuple[str, ...]
    out: tuple[str, ...]


@torch.no_grad()
def maximum(factors: Sequence[Factor], rows: int, *, limit: int = LIMIT) -> tuple[Tensor, dict[str, Tensor]]:
    """Log of the largest product in each row ``(n,)``, and by variable the place that it has there, ``(n,)``.

    Args:
        factors: of all variables; the rows, where there are some, are the first axis.
        rows: n.
        limit: of the entries of an intermediate of one row.

    Raises:
        ValueError: an intermediate above the limit.

    Examples:
        >>> rain = Factor(torch.tensor([0.6, 0.4]), ("rain",))
        >>> wet = Factor(torch.tensor([[0.9, 0.1], [0.2, 0.8]]), ("rain", "wet"))
        >>> log_p, places = maximum([rain, wet], 1)
        >>> log_p.exp(), places["rain"], places["wet"]
        (tensor([0.5400]), tensor([0]), tensor([0]))
    """
    sizes = {name: size for values, names in factors for name, size in zip(names, values.shape, strict=True) if name != ROWS}
    output = (ROWS,) if any(ROWS in names for _, names in factors) else ()
    order = contraction(factors, output, limit=limit).steps
    logs = [Factor(values.log(), names) for values, names in factors]
    widest = max(math.prod(sizes[name] for name in set().union(*step.inputs) - {ROWS}) for step in order)
    if widest > limit:
        raise ValueError(
            f"expected maxima over at most {limit:,} entries, got {widest:,}: take edges away, or give some of these variables"
        )
    found = []
    for start in range(0, rows, at_once := max(1, AT_ONCE // widest)):
        part = slice(start, min(rows, start + at_once))
        of_rows = [Factor(values[part] if ROWS in names else values, names) for values, names in logs]
        found.append(_maximum(of_rows, order, part.stop - part.start, sizes))
    places = {name: torch.cat([each[name] for _, each in found]) for name in sizes}
    return torch.cat([highest for highest, _ in found]), places


def _maximum(
    factors: Sequence[Factor], order: Sequence[Step], rows: int, sizes: Mapping[str, int]
) -> tuple[Tensor, dict[str, Tensor]]:
    """The same for rows at once, of logarithms."""
    operands, met = list(factors), []
    for step in order:
        taken = [operands.pop(place) for place in step.taken]
        kept = tuple(name for name in step.output if name != ROWS)
        out = tuple(sorted(set().union(*step.inputs) - {ROWS, *kept}))
        values = torch.stack(torch.broadcast_tensors(*(_aligned(factor, (*kept, *out)) for factor in taken))).sum(0)
        met.append(Met(values, kept, out))
        operands.append(Factor(values.flatten(1 + len(kept)).amax(-1) if out else values, (ROWS, *kept)))
    places: dict[str, Tensor] = {}
    for values, kept, out in reversed(met):
        if not out:
            continue
        row = torch.arange(rows, device=values.device) if len(values) > 1 else torch.zeros(rows, dtype=torch.int64)
        left = values[(row.to(values.device), *(places[name] for name in kept))]
        found = torch.unravel_index(left.flatten(1).argmax(-1), [sizes[name] for name in out])
        places |= dict(zip(out, found, strict=True))
    return operands[0].values.expand(rows), places


def _aligned(factor: Factor, names: Sequence[str]) -> Tensor:
    """The values with axes of the rows and these names, of size one where it has no such axis."""
    values, own = factor
    if ROWS not in own:
        values, own = values.unsqueeze(0), (ROWS, *own)
    order = [own.index(name) for name in (ROWS, *names) if name in own]
    sizes = iter(values.permute(order).shape)
    return values.permute(order).reshape([next(sizes) if name in own else 1 for name in (ROWS, *names)])
