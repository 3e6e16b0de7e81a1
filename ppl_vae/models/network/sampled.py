"""A network as a Pyro program, and new rows of it.

Of rows without missing entries every node is a site. Where entries may be missing, a state is a variable that is summed out,
and ``... (seen)`` observes what was seen of it; numbers that may be unknown are one site, named by all of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import pyro
import pyro.distributions as dist
import torch
from pyro.ops.indexing import Vindex
from torch import Tensor
from torch.distributions import constraints

from ppl_vae.exact import conditional_gaussian as normal
from ppl_vae.models.network.evidence import States
from ppl_vae.models.network.groups import Group, groups
from ppl_vae.models.network.linear import LinearMechanism
from ppl_vae.models.network.neural_mechanisms import NeuralNumber
from ppl_vae.models.network.nodes import DiscreteMechanism, Mechanism, State

__all__ = ["Network", "rows", "standard", "story", "unknown_groups"]

SUMMED = {"enumerate": "parallel"}


class Network(Protocol):
    """What is asked of the program."""

    columns: dict[str, int]
    states_of: dict[str, States]
    numbers: tuple[str, ...]
    missing: bool
    loc: Tensor
    unit: Tensor

    @property
    def nodes(self) -> dict[str, Mechanism]:
        """By name, parents first."""
        ...


def story(network: Network, x: Tensor) -> None:
    """The sites of rows x ``(B, D)``, which are observed; inside of the plate over them."""
    x = x.flatten(1)
    values: dict[str, Tensor] = {}
    for name in network.numbers:
        if name in network.columns:
            values[name] = standard(network, name, x[:, network.columns[name]])
    together = {name: group for group in unknown_groups(network) for name in group.names}
    for name, node in network.nodes.items():
        if isinstance(node, DiscreteMechanism):
            values[name] = _state(network, name, node.distribution(values), x)
        elif name not in together:
            p, column = node.distribution(values), x[:, network.columns[name]]
            p, column = node.seen(p, column) if network.missing and isinstance(node, NeuralNumber) else (p, column)
            pyro.sample(name, p, obs=column)
    for group in dict.fromkeys(group.names for group in together.values()):
        whole = together[group[0]]
        pyro.sample(", ".join(group), KnownInPart(network, whole, values, x), obs=_columns(network, group, x))


@torch.no_grad()
def rows(network: Network, n: int) -> Tensor:
    """New rows ``(n, D)``, node by node."""
    x = torch.zeros(n, len(network.columns), device=network.loc.device)
    values: dict[str, Tensor] = {}
    for name, node in network.nodes.items():
        p = node.distribution(values)
        drawn = p.sample() if p.batch_shape == (n,) else p.sample(torch.Size([n]))
        if isinstance(node, DiscreteMechanism):
            values[name], shown = drawn, network.states_of[name].values.to(x.device)[drawn]
        else:
            values[name], shown = standard(network, name, drawn), drawn
        if name in network.columns:
            x[:, network.columns[name]] = shown.to(x)
    return x


class Seen(dist.TorchDistribution):
    """What is seen of a state: its place, or -1 where it is missing, which says nothing of it."""

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, place: Tensor, levels: int, validate_args: bool | None = None) -> None:
        self.place, self.levels = place, levels
        super().__init__(place.shape, validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        """Places of states, or -1."""
        return constraints.integer_interval(-1, self.levels - 1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Seen:
        """The same of a larger batch."""
        return Seen(self.place.expand(torch.Size(batch_shape)), self.levels)

    def log_prob(self, value: Tensor) -> Tensor:
        """Zero, or minus infinity where another state is seen."""
        return torch.where((value == self.place) | (value < 0), 0.0, -math.inf)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """The state itself."""
        return self.place.expand(torch.Size(sample_shape) + self.place.shape)


class KnownInPart(dist.TorchDistribution):
    """Numbers of which some may be missing (NaN), given the states that they hang on, in the units of what the model sees."""

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, network: Network, group: Group, values: Mapping[str, Tensor], x: Tensor) -> None:
        self.network, self.group = network, group
        states: dict[str, State] = {name: network.nodes[name].state for name in group.names}
        self.moments = group.moments(states, {name: values[name].double() for name in network.numbers if name in values})
        self.picked = tuple(values[name] for name in group.switches)
        self.rows = torch.arange(len(x), device=x.device)
        batch = torch.broadcast_shapes(self.rows.shape, *(value.shape for value in self.picked))
        super().__init__(batch, torch.Size([len(group.names)]), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """Everything: what is missing is NaN."""
        return constraints.independent(constraints.dependent, 1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> KnownInPart:
        """Itself: it has the rows and the states already."""
        return self

    def log_prob(self, value: Tensor) -> Tensor:
        """Log p of what is known."""
        names = self.group.names
        values = torch.stack([standard(self.network, name, value[..., i]) for i, name in enumerate(names)], -1)
        found = normal.log_density(self.moments, values.double())
        units = torch.stack([self.network.unit[self.network.numbers.index(name)] for name in names]).log()
        found = found - ((~value.isnan()) * units).sum(-1, keepdim=True)
        table = found.reshape(-1, *self.group.sizes.values())
        picked: Tensor = Vindex(table)[(self.rows, *self.picked)]
        return picked.to(value)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Nothing to draw: a network draws node by node.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("a network draws its rows node by node: use its `ancestral`")


def _state(network: Network, name: str, p: Any, x: Tensor) -> Tensor:
    """The place of a node's state, observed or summed out."""
    if name not in network.columns:
        return pyro.sample(name, p, infer=SUMMED)
    column, values = x[:, network.columns[name]], network.states_of[name].values.to(x)
    place = (column.unsqueeze(-1) == values).long().argmax(-1)
    if not network.missing:
        return pyro.sample(name, p, obs=place)
    state: Tensor = pyro.sample(name, p, infer=SUMMED)
    pyro.sample(f"{name} (seen)", Seen(state, len(values)), obs=torch.where(column.isnan(), -1, place))
    return state


def unknown_groups(network: Network) -> list[Group]:
    """The groups with a number that may be unknown."""
    unknown = {name for name in network.numbers if network.missing or name not in network.columns}
    linear = {name: node for name, node in network.nodes.items() if isinstance(node, LinearMechanism)}
    sizes = {name: len(of.names) for name, of in network.states_of.items()}
    return [group for group in groups(linear, list(linear), unknown, sizes) if unknown.intersection(group.names)]


def standard(network: Network, name: str, values: Tensor) -> Tensor:
    """Values of a number in standard units."""
    place = network.numbers.index(name)
    return (values - network.loc[place].to(values)) / network.unit[place].to(values)


def _columns(network: Network, names: Sequence[str], x: Tensor) -> Tensor:
    """The columns of these nodes, NaN of those that are in none."""
    unknown = x.new_full((len(x),), torch.nan)
    return torch.stack([x[:, network.columns[name]] if name in network.columns else unknown for name in names], -1)
