"""What the parameters of a network are, by the names of its nodes: tables, regressions, causes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ppl_vae.models.network.linear import LinearMechanism
from ppl_vae.models.network.logistic import LogisticMechanism
from ppl_vae.models.network.nodes import Facts
from ppl_vae.models.network.noisy_or import NoisyOrMechanism
from ppl_vae.models.network.sampled import Network
from ppl_vae.models.network.table import TableMechanism
from ppl_vae.program.quantities import Quantity

__all__ = ["quantities"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Regression(Quantity):
    """Intercepts and slopes along the first axis, and of a number the standard deviation last.

    Args:
        own: the column of what is explained, where it is a number in a column.
        parents: the columns of what the slopes are of; ``None`` of those in none.
    """

    own: int | None = None
    parents: tuple[int | None, ...] = ()

    def in_source_units(self, loc: Tensor, scale: Tensor) -> Tensor:
        """The regression of the source's units on the source's units, in float64."""
        found = self.values.detach().double()
        shifts, scales = _picked(self.parents, loc, scale, found)
        shift, unit = (part.reshape(()) for part in _picked((self.own,), loc, scale, found))
        slopes = found[1 : 1 + len(self.parents)] * (unit / scales).reshape(-1, *[1] * (found.dim() - 1))
        intercept = shift + unit * found[:1] - torch.tensordot(shifts, slopes, 1).unsqueeze(0)
        return torch.cat([intercept, slopes, unit * found[1 + len(self.parents) :]])


@torch.no_grad()
def quantities(network: Network) -> Mapping[str, Quantity]:
    """By node a table of states by the parents' joint states, or coefficients by these; nothing of nodes that are networks."""
    return dict(_each(network))


def _each(network: Network) -> Iterator[tuple[str, Quantity]]:
    for name, node in network.nodes.items():
        facts = node.facts
        above = tuple(network.columns.get(parent) for parent in facts.numbers)
        if isinstance(node, TableMechanism):
            table = node.state[0].reshape(facts.configurations, -1).T
            yield name, _told(Quantity, facts, table, ("state",), (facts.states,))
        elif isinstance(node, LinearMechanism):
            coefficients, sd = node.natural
            rows = torch.cat([coefficients, sd.unsqueeze(-1)], -1).reshape(facts.configurations, -1).T
            terms = ("intercept", *facts.numbers, "sd")
            yield name, _told(Regression, facts, rows, ("term",), (terms,), own=network.columns.get(name), parents=above)
        elif isinstance(node, LogisticMechanism):
            rows = node.natural.reshape(facts.configurations, len(facts.states) - 1, -1).permute(2, 1, 0)
            labels = (("intercept", *facts.numbers), facts.states[1:])
            note = f"log odds against {facts.states[0]}"
            yield name, _told(Regression, facts, rows, ("term", "state"), labels, parents=above, note=note)
        elif isinstance(node, NoisyOrMechanism):
            note = f"probabilities by which each turns {name} on"
            yield name, Quantity(values=node.state[0], axes=("cause",), labels=(("leak", *facts.switches),), note=note)


def _told(
    kind: type[Quantity], facts: Facts, values: Tensor, axes: Sequence[str], labels: Sequence[tuple[str, ...]], **others: object
) -> Quantity:
    """A quantity whose last axis goes over the joint states of the parents, if there are some."""
    if not facts.switches:
        return kind(values=values[..., 0], axes=tuple(axes), labels=tuple(labels), **others)  # type: ignore[arg-type]
    given = tuple(facts.configuration(place) for place in range(facts.configurations))
    return kind(values=values, axes=(*axes, "given"), labels=(*labels, given), **others)  # type: ignore[arg-type]


def _picked(places: Sequence[int | None], loc: Tensor, scale: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Shifts and scales of some columns; 0 and 1 of what is in none."""
    shifts = [0.0 if place is None else float(loc[place]) for place in places]
    scales = [1.0 if place is None else float(scale[place]) for place in places]
    return like.new_tensor(shifts), like.new_tensor(scales)
