"""Sums over products of factors by one contraction: exact inference in discrete networks.

    Z_n = sum over all variables of prod_f f(its variables),   d log Z / d log f = E[one-hot of f's variables | evidence]

A factor is a tensor with a name for each axis; an axis may be the rows n. The gradient of log Z with respect to evidence is
a posterior marginal, with respect to a table the counts that are expected in it (Darwiche 2003, "A differential
approach to inference in Bayesian networks"), so one sweep forwards and one back is all of a junction tree.

The order of the sums is found once for one row and reused: with rows in the shapes, greedy search takes orders whose
intermediates do not fit. Intermediates are divided by their largest entries, so that products of many small ones do not vanish.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from functools import lru_cache
from string import ascii_letters
from typing import Final, NamedTuple

import opt_einsum
import torch
from torch import Tensor

__all__ = ["AT_ONCE", "LIMIT", "ROWS", "Contraction", "Factor", "contraction", "expectations", "log_sum", "sums"]

ROWS: Final = "\0rows"
"""The name of the axis of rows, of those factors that have one."""

AT_ONCE = 2**25
"""Entries of an intermediate of all rows that are handled together."""

LIMIT: Final = 2**24
"""Most entries of an intermediate of one row."""

TOGETHER = 8  # factors whose product is divided by its largest entry: of so many it has not vanished yet


class Factor(NamedTuple):
    """Non-negative values and the names of their axes; the same variable has the same size everywhere."""

    values: Tensor
    names: tuple[str, ...]


class Step(NamedTuple):
    """One product.

    Args:
        taken: the places of its factors in the list.
        inputs: their names.
        output: the names that are left once the others are summed out.
        equation: all of it as einsum reads it.
    """

    taken: tuple[int, ...]
    inputs: tuple[tuple[str, ...], ...]
    output: tuple[str, ...]
    equation: str


class Contraction(NamedTuple):
    """The order in which products are summed, and the entries of its largest intermediate for one row."""

    steps: tuple[Step, ...]
    largest: int

    @property
    def rows_at_once(self) -> int:
        """How many rows keep intermediates of bounded size."""
        return max(1, AT_ONCE // self.largest)


def contraction(factors: Sequence[Factor], output: Sequence[str] = (ROWS,), *, limit: int = LIMIT) -> Contraction:
    """The order for factors of these names and sizes, however many rows there are; found once for each structure.

    Raises:
        ValueError: an intermediate above the limit; the message names the variables that it would hold together.

    Examples:
        >>> rain = Factor(torch.tensor([0.8, 0.2]), ("rain",))
        >>> wet = Factor(torch.tensor([[0.9, 0.1], [0.2, 0.8]]), ("rain", "wet"))
        >>> contraction([rain, wet], ("wet",)).largest
        2
    """
    sizes = {name: size for values, names in factors for name, size in zip(names, values.shape, strict=True) if name != ROWS}
    return _contraction(tuple(names for _, names in factors), tuple(sorted(sizes.items())), tuple(output), limit)


def sums(factors: Sequence[Factor], output: Sequence[str] = (ROWS,), *, limit: int = LIMIT) -> tuple[Tensor, Tensor]:
    """The sum over all variables but those of the output, as values and the logarithm of what they were divided by.

    Examples:
        >>> rain = Factor(torch.tensor([0.8, 0.2]), ("rain",))
        >>> wet = Factor(torch.tensor([[0.9, 0.1], [0.2, 0.8]]), ("rain", "wet"))
        >>> values, log_scale = sums([rain, wet], ("wet",))
        >>> values * log_scale.exp()
        tensor([0.7600, 0.2400])
    """
    operands = [(values, 1) for values, _ in factors]  # with the number of factors in each
    log_scale = operands[0][0].new_zeros(())
    for step in contraction(factors, output, limit=limit).steps:
        taken = [operands.pop(place) for place in step.taken]
        found, held = torch.einsum(step.equation, *(values for values, _ in taken)), sum(number for _, number in taken)
        if held >= TOGETHER or not operands:
            found, shift = _rescaled(found, step.output)
            log_scale, held = log_scale + shift, 1
        operands.append((found, held))
    ((values, _),) = operands
    if log_scale.dim() and ROWS in output:
        log_scale = log_scale.reshape([-1 if name == ROWS else 1 for name in output])
    return values, log_scale


def log_sum(factors: Sequence[Factor], *, limit: int = LIMIT) -> Tensor:
    """Log of the sum over all variables, of each row ``(n,)``; minus infinity where all products are zero.

    Examples:
        >>> coin = Factor(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), (ROWS, "coin"))
        >>> log_sum([Factor(torch.tensor([0.5, 0.5]), ("coin",)), coin])
        tensor([-0.6931,    -inf])
    """
    values, log_scale = sums(factors, limit=limit)
    return values.log() + log_scale


def expectations(factors: Sequence[Factor], weight: Tensor, *, limit: int = LIMIT) -> tuple[Tensor, list[Tensor]]:
    """Log of the sum of each row ``(n,)``, and of each factor how often its entries are met, summed over rows it does not have.

    Args:
        factors: of all variables; at least one has rows.
        weight: how often each row counts, ``(n,)``.
        limit: of the entries of an intermediate of one row.

    Returns:
        The logarithms, and tensors of the factors' shapes: posterior probabilities times the weights. Of a row whose products
        are all zero they are NaN.
    """
    with torch.enable_grad():
        leaves = [Factor(values.detach().requires_grad_(), names) for values, names in factors]
        found = log_sum(leaves, limit=limit)
        gradients = torch.autograd.grad((found * weight).sum(), [values for values, _ in leaves])
    return found.detach(), [values.detach() * slope for (values, _), slope in zip(leaves, gradients, strict=True)]


def _rescaled(values: Tensor, names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """The values divided by the largest of each row, and its logarithm, ``(n,)`` or ``()``."""
    others = [place for place, name in enumerate(names) if name != ROWS]
    largest = values.detach().amax(others, keepdim=True) if others else values.detach()
    largest = torch.where(largest > 0, largest, 1.0)
    return values / largest, largest.log().reshape([-1] if ROWS in names else [])


@lru_cache(maxsize=256)
def _contraction(
    inputs: tuple[tuple[str, ...], ...], sizes: tuple[tuple[str, int], ...], output: tuple[str, ...], limit: int
) -> Contraction:
    size = dict(sizes) | {ROWS: 1}
    letters = {name: opt_einsum.get_symbol(place) for place, name in enumerate(size)}
    words = ["".join(letters[name] for name in names) for names in (*inputs, output)]
    equation = f"{','.join(words[:-1])}->{words[-1]}"
    shapes = [tuple(size[name] for name in names) for names in inputs]
    found: Contraction | None = None
    drawn = random.getstate()  # which the search by many draws sets
    for how in ("auto", "random-greedy"):
        path, _ = opt_einsum.contract_path(equation, *shapes, shapes=True, optimize=how)
        random.setstate(drawn)
        found = _followed(path, inputs, size, output)
        if found.largest <= limit:
            return found
    assert found is not None
    clique = max((step.output for step in found.steps), key=lambda names: math.prod(size[name] for name in names))
    names = ", ".join(name for name in clique if name != ROWS)
    raise ValueError(
        f"expected sums of at most {limit:,} entries, got {found.largest:,} for the variables {names} together: take edges "
        "away, give some of these variables, fit by SVI with a guide of your own, or query with method='sampling'"
    )


def _followed(
    path: Sequence[Sequence[int]], inputs: Sequence[tuple[str, ...]], size: dict[str, int], output: Sequence[str]
) -> Contraction:
    """The steps of a path, each summing what neither a later one nor the output needs."""
    left, steps = list(inputs), []
    for places in path:
        taken = tuple(sorted(places, reverse=True))
        names = tuple(left.pop(place) for place in taken)
        wanted = set(output).union(*left)
        kept = tuple(dict.fromkeys(name for each in names for name in each if name in wanted))
        out = tuple(output) if not left else kept
        steps.append(Step(taken, names, out, _equation(names, out)))
        left.append(out)
    return Contraction(tuple(steps), max(math.prod(size[name] for name in step.output) for step in steps))


def _equation(inputs: Sequence[Sequence[str]], output: Sequence[str]) -> str:
    """As einsum reads it."""
    letters = {
        name: ascii_letters[place] for place, name in enumerate(dict.fromkeys(name for names in inputs for name in names))
    }
    words = ["".join(letters[name] for name in names) for names in (*inputs, output)]
    return f"{','.join(words[:-1])}->{words[-1]}"
