"""A discrete node with a table of conditional probabilities.

p(node = s | parents = c) = table[c, s]
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.ops.indexing import Vindex
from torch import Generator, Tensor, nn

from ppl_vae.declaration import require
from ppl_vae.exact.elimination import Factor
from ppl_vae.models.network.nodes import DiscreteMechanism, Facts, Node, State, random_shares

__all__ = ["Table"]

SUM = 1e-6  # by which the sum of a row may differ from one: rounding of its decimals


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table(Node):
    """A node with states, one distribution over them for every joint state of its parents.

    Args:
        parents: names of nodes with states.
        states: its own, as the column has them; by default those of the column. Of a column of numbers that are not the
            names of states, in the order of the codes 0, 1, ...
        probs: the distributions, a row for each joint state of the parents, the last parent's state changing fastest; of a node
            without parents also the lone row. Where a fit starts; by default it finds its own start.
        learned: whether a fit changes them.

    Raises:
        ValueError: fewer than one state, a state twice, a probability outside of [0, 1], a row that does not sum to one; when
            it is built, a parent that is a number, or not as many rows as the parents have joint states.

    Examples:
        >>> Table(parents=("cloudy",), states=("no", "yes"), probs=((0.8, 0.2), (0.2, 0.8))).states
        ('no', 'yes')
    """

    states: tuple[str, ...] = ()
    probs: tuple[float, ...] | tuple[tuple[float, ...], ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "states", tuple(self.states))
        require(len(set(self.states)) == len(self.states), "every state once", self.states)
        if self.probs is not None:
            object.__setattr__(self, "probs", _rows(self.probs))
            for place, row in enumerate(self.rows):
                _check_row(place, row, self.states)
        super().__post_init__()

    @property
    def given(self) -> bool:
        """Whether it declares its probabilities."""
        return self.probs is not None

    @property
    def rows(self) -> tuple[tuple[float, ...], ...]:
        """The declared distributions; none if there are none."""
        return () if self.probs is None else _rows(self.probs)

    @property
    def declared_states(self) -> tuple[str, ...]:
        """The states that it declares."""
        return self.states

    def check(self, facts: Facts) -> None:
        """Raise ``ValueError`` for a parent that is a number, or rows that are not one for each joint state."""
        if facts.numbers:
            raise ValueError(
                f"expected parents of the table {facts.name} that have states, got {', '.join(facts.numbers)}, which are "
                "numbers: declare it as LogisticRegression, or turn the edge round"
            )
        if self.probs is None:
            return
        shape = (len(self.rows), len(self.rows[0]))
        if shape != (facts.configurations, len(facts.states)):
            raise ValueError(
                f"expected probs of {facts.name} with {facts.configurations} rows of {len(facts.states)}, one for each joint "
                f"state of {', '.join(facts.switches) or 'no parents'}, got {shape[0]} of {shape[1]}"
            )

    def build(self, facts: Facts) -> TableMechanism:
        """Its mechanism."""
        return TableMechanism(facts, self)

    def filled(self, mechanism: TableMechanism) -> Table:
        """The same node with the states and the table of a mechanism."""
        (table,) = mechanism.state
        rows = table.detach().reshape(-1, table.shape[-1]).tolist()
        return dataclasses.replace(self, states=mechanism.facts.states, probs=tuple(map(tuple, rows)))

    def story(self, name: str) -> str:
        """Its density, as mathematics."""
        return f"{name} ~ Categorical(table[{', '.join(self.parents)}])" if self.parents else f"{name} ~ Categorical(table)"


class TableMechanism(DiscreteMechanism):
    """Parameters ``logits (*cards, L)``; what has the probability zero is marked apart, ``impossible``, and stays so."""

    impossible: Tensor

    def __init__(self, facts: Facts, declared: Table) -> None:
        super().__init__(facts, declared)
        shape = (*facts.cards, len(facts.states))
        self.logits = nn.Parameter(torch.zeros(shape), requires_grad=declared.learned)
        self.register_buffer("impossible", torch.zeros(shape, dtype=torch.bool))
        if declared.probs is not None:
            self.assign((torch.tensor(declared.rows, dtype=torch.float64).reshape(shape),))

    @property
    def probs(self) -> Tensor:
        """The table ``(*cards, L)``."""
        return self.logits.masked_fill(self.impossible, -math.inf).softmax(-1)

    @property
    def state(self) -> State:
        """The table, in float64."""
        return (self.logits.double().masked_fill(self.impossible, -math.inf).softmax(-1),)

    @property
    def free_parameters(self) -> int:
        """All but one of each row."""
        return self.facts.configurations * (len(self.facts.states) - 1) if self.learned else 0

    @torch.no_grad()
    def assign(self, state: State) -> None:
        """Write a table."""
        (table,) = state
        self.impossible.copy_(table == 0)
        self.logits.copy_(table.log().masked_fill(table == 0, 0.0))

    def distribution(self, values: Mapping[str, Tensor]) -> dist.Distribution:
        """A categorical at the places of the parents' states."""
        picked = tuple(values[name] for name in self.facts.switches)
        return dist.Categorical(probs=Vindex(self.probs)[(*picked, slice(None))] if picked else self.probs)

    def factor(self, state: State, numbers: Mapping[str, Tensor]) -> Factor:
        """The table itself."""
        return Factor(state[0], (*self.facts.switches, self.facts.name))

    def statistics(self, expected: Tensor, numbers: Mapping[str, Tensor]) -> Tensor:
        """The counts."""
        return expected

    def maximized(self, state: State, found: Sequence[Any]) -> State:
        """Shares of the counts; a row without any stays as it is."""
        counts = torch.stack(list(found)).sum(0)
        rows = counts.sum(-1, keepdim=True)
        return (torch.where(rows > 0, counts / rows.clamp_min(torch.finfo(counts.dtype).tiny), state[0]),)

    def initial(self, marginal: Tensor, generator: Generator) -> State:
        """Random rows about the shares in the data."""
        return (random_shares(self.facts.cards, generator, marginal),)

    def remark(self, found: Sequence[Any]) -> str:
        """Rows that the data say nothing of."""
        rows = torch.stack(list(found)).sum(0).reshape(-1, len(self.facts.states)).sum(-1)
        empty = (rows <= 0).nonzero().flatten().tolist()
        if not empty:
            return ""
        return f"{self.facts.name}: {len(empty)} of {len(rows)}, such as {self.facts.configuration(empty[0])}"


def _rows(probs: Any) -> tuple[tuple[float, ...], ...]:
    """The rows of a table, of which a lone one may stand by itself."""
    rows = probs if probs and isinstance(probs[0], tuple | list) else (probs,)
    return tuple(tuple(float(value) for value in row) for row in rows)


def _check_row(place: int, row: tuple[float, ...], states: tuple[str, ...]) -> None:
    require(not states or len(row) == len(states), f"a probability for each of {', '.join(states)} in row {place}", row)
    require(all(0 <= value <= 1 for value in row), f"probabilities from 0 to 1 in row {place} of probs", row)
    total = math.fsum(row)
    require(abs(total - 1) <= SUM, f"probs whose rows sum to 1, which row {place} does not", f"{row} with the sum {total:.9g}")
