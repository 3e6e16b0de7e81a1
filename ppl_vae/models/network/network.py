"""Bayesian networks over the columns of a table (Pearl 1988; with numbers Lauritzen and Wermuth 1989).

p(x) = sum over what is hidden of prod_v p(v | parents of v)
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch

from ppl_vae.arguments import whole
from ppl_vae.data import Data
from ppl_vae.data.cells import numbers_spelled
from ppl_vae.declaration import require
from ppl_vae.models.base import Model
from ppl_vae.models.network import bif
from ppl_vae.models.network.answers import Answer, Explanation
from ppl_vae.models.network.estimates import Estimate
from ppl_vae.models.network.evidence import States, met, without_column
from ppl_vae.models.network.linear import LinearGaussian
from ppl_vae.models.network.logistic import LogisticRegression
from ppl_vae.models.network.nodes import Facts, Mechanism, Node
from ppl_vae.models.network.program import NetworkProgram
from ppl_vae.models.network.structure import parents_of, topological
from ppl_vae.models.network.table import Table
from ppl_vae.program.asking import asked_of, columns_of
from ppl_vae.program.context import seeded
from ppl_vae.text import as_line, at_places, read_text
from ppl_vae.types import BINARY, CATEGORICAL, COUNT, REAL, UNIT_INTERVAL, DataSpec, Kind

__all__ = ["BayesianNetwork"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BayesianNetwork(Model):
    """A directed graph of named variables: each column is a node, with states or a number, given its parents.

    What is hidden or missing is summed out or integrated out exactly, so the ELBO is log p(x) itself. ``ClosedForm`` counts
    complete data, ``EM`` also fits hidden nodes and data with missing entries, ``SVI`` fits the same program.

    Args:
        nodes: what each node hangs on and how, by name: ``Table`` for one with states, ``LinearGaussian`` for a number, ...
            Columns of the data meet them by name; columns without names are the nodes in their order.
        hidden: nodes that are in no column.
        floor: least standard deviation of a number given its parents that EM and closed forms allow, as a share of its own.
        pseudo_counts: what ``ClosedForm`` adds to each count of a table: the posterior mean under a Dirichlet prior.

    Raises:
        ValueError: no nodes, a cycle, a parent or hidden node that there is not, a table with a parent that is a number, states
            of a hidden node that are not declared, a floor that is not positive, pseudo-counts below zero.

    Examples:
        >>> network = BayesianNetwork(
        ...     nodes={"rain": Table(states=("no", "yes")), "wet": Table(parents=("rain",), states=("no", "yes"))}
        ... )
        >>> print(network)
        rain ~ Categorical(table); wet ~ Categorical(table[rain])
    """

    posterior_family: ClassVar[Literal["unknown", "linear", "discrete"]] = "discrete"

    nodes: Mapping[str, Node]
    hidden: tuple[str, ...] = ()
    floor: float = 1e-3
    pseudo_counts: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes", dict(self.nodes))
        object.__setattr__(self, "hidden", tuple(self.hidden))
        require(len(self.nodes) >= 1, "at least one node", dict(self.nodes))
        require(all(isinstance(node, Node) for node in self.nodes.values()), "nodes such as Table()", dict(self.nodes))
        require(set(self.hidden) <= self.nodes.keys(), f"hidden nodes among {as_line(', '.join(self.nodes))}", self.hidden)
        require(set(self.hidden) != self.nodes.keys(), "a node that is not hidden", self.hidden)
        require(0 < self.floor < math.inf, "a positive floor", self.floor)
        require(0 <= self.pseudo_counts < math.inf, "pseudo_counts of at least 0", self.pseudo_counts)
        topological(self.parents)
        for name in self.hidden:
            if self.nodes[name].discrete and not self.nodes[name].declared_states:
                raise ValueError(
                    f"expected states of the hidden node {name}, which no column tells, got none: Table(states=...)"
                )
        known = {name: node.declared_states for name, node in self.nodes.items() if node.discrete}
        for name, node in self.nodes.items():
            if all(known.get(each, ("",)) for each in (name, *node.parents)):
                node.check(self._facts(name, {each: without_column(states) for each, states in known.items()}))

    def __hash__(self) -> int:
        return hash((tuple(self.nodes.items()), self.hidden, self.floor, self.pseudo_counts))

    @classmethod
    def from_bif(cls, path: str | Path, **fields: Any) -> Self:
        """The network of a BIF file, whose tables are declared, so that it can be asked without a fit.

        Args:
            path: of the file.
            fields: others of the declaration, such as ``hidden``.

        Raises:
            ValueError: a file that is no BIF, has tables with holes or rows that do not sum to one, or is too large.
        """
        path = Path(path)
        try:
            return cls(nodes=bif.read(read_text(path, at_most=bif.MOST)), **fields)
        except ValueError as error:
            raise ValueError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from None

    @classmethod
    def from_edges(
        cls,
        edges: Mapping[str, Sequence[str]] | Iterable[tuple[str, str]],
        *,
        numbers: Sequence[str] = (),
        states: Mapping[str, Sequence[str]] | None = None,
        **fields: Any,
    ) -> Self:
        """The network of a bare graph, whose tables and regressions a fit finds.

        Nodes have states, by ``Table``, but for those named ``numbers``, which are ``LinearGaussian``; states that hang on
        numbers are ``LogisticRegression``.

        Args:
            edges: pairs of a parent and its child, or the parents of each node by its name.
            numbers: the nodes that are numbers.
            states: of nodes whose column does not tell them, such as hidden ones.
            fields: others of the declaration, such as ``hidden``.

        Raises:
            ValueError: edges that are no pairs of names, or what the declaration raises.

        Examples:
            >>> print(BayesianNetwork.from_edges([("rain", "wet"), ("rain", "temp")], numbers=["temp"]))
            rain ~ Categorical(table); wet ~ Categorical(table[rain]); temp ~ Normal(b + w . (rain), s^2)
            >>> BayesianNetwork.from_edges({"wet": ["rain", "sprinkler"], "rain": [], "sprinkler": []}).parents["wet"]
            ('rain', 'sprinkler')
        """
        parents, known = parents_of(edges), dict(states or {})
        require(parents.keys() >= {*numbers, *known}, f"nodes of {as_line(', '.join(parents))}", (*numbers, *known))
        nodes: dict[str, Node] = {}
        for name, above in parents.items():
            own = tuple(known.get(name, ()))
            if name in numbers:
                nodes[name] = LinearGaussian(parents=above)
            elif set(above) & set(numbers):
                nodes[name] = LogisticRegression(parents=above, states=own)
            else:
                nodes[name] = Table(parents=above, states=own)
        return cls(nodes=nodes, **fields)

    def to_bif(self) -> str:
        """The network as BIF.

        Raises:
            ValueError: a node that is no table, or whose probabilities are not declared; see :meth:`filled`.
        """
        return bif.written(self.nodes)

    def filled(self, program: NetworkProgram) -> Self:
        """The same network with the states and numbers of a fitted program: ``fit.model.filled(fit.pair.model)``.

        Numbers are in the units of what the model sees.
        """
        nodes = {name: self.nodes[name].filled(program.nodes[name]) for name in self.nodes}
        return dataclasses.replace(self, nodes=nodes)

    def declared(self) -> NetworkProgram:
        """The program of a network that declares all its numbers, without data: it can be asked and draws rows.

        Raises:
            ValueError: a node whose states or numbers are not declared.
        """
        for name, node in self.nodes.items():
            if not node.given or (node.discrete and not node.declared_states):
                raise ValueError(f"expected numbers of all nodes, got none of {name}: declare them, or fit the network to data")
        return self.build(DataSpec(event_shape=(len(self.observed),), kind=REAL, size=1, columns=self.observed))

    def query(
        self,
        names: str | Sequence[str],
        given: Mapping[str, Any] | None = None,
        *,
        do: Mapping[str, Any] | None = None,
        method: Literal["exact", "sampling"] = "exact",
        draws: int | None = None,
        seed: int = 0,
    ) -> Answer | Estimate:
        """The distribution of some nodes given others, of a network that declares all its numbers.

        As :meth:`ppl_vae.Fit.query`, which asks a fitted one.

        Raises:
            ValueError: numbers that are not declared, an unknown name or state, evidence of probability zero.

        Examples:
            >>> rain = Table(states=("no", "yes"), probs=(0.8, 0.2))
            >>> wet = Table(parents=("rain",), states=("no", "yes"), probs=((0.9, 0.1), (0.1, 0.9)))
            >>> round(BayesianNetwork(nodes={"rain": rain, "wet": wet}).query("rain", {"wet": "yes"})["rain"]["yes"], 4)
            0.6923
        """
        return asked_of(self.declared(), names, given, do, method=method, draws=draws, seed=seed)

    def marginals(
        self, given: Mapping[str, Any] | None = None, *, do: Mapping[str, Any] | None = None
    ) -> dict[str, torch.Tensor]:
        """The exact distribution of every node with states given others, of a network that declares all its numbers.

        As :meth:`ppl_vae.Fit.marginals`, which asks a fitted one.

        Raises:
            ValueError: numbers that are not declared, an unknown name or state, evidence of probability zero.

        Examples:
            >>> coin = Table(states=("heads", "tails"), probs=(0.5, 0.5))
            >>> BayesianNetwork(nodes={"coin": coin}).marginals()["coin"].tolist()
            [0.5, 0.5]
        """
        return self.declared().marginals(columns_of(given), columns_of(do))

    def explain(self, given: Mapping[str, Any] | None = None, *, do: Mapping[str, Any] | None = None) -> Explanation:
        """What all unknown nodes most probably are together given others, of a network that declares all its numbers.

        As :meth:`ppl_vae.Fit.explain`, which asks a fitted one.

        Raises:
            ValueError: numbers that are not declared, an unknown name or state, evidence of probability zero.

        Examples:
            >>> rain = Table(states=("no", "yes"), probs=(0.8, 0.2))
            >>> wet = Table(parents=("rain",), states=("no", "yes"), probs=((0.9, 0.1), (0.1, 0.9)))
            >>> BayesianNetwork(nodes={"rain": rain, "wet": wet}).explain({"wet": "yes"}).values
            {'rain': 'yes'}
        """
        return self.declared().explain(columns_of(given), columns_of(do))

    def sample(self, n: int, *, seed: int = 0) -> dict[str, np.ndarray]:
        """New rows of a network that declares all its numbers: columns ``(n,)`` by name.

        States are texts; where all of a node's spell numbers they are these, which a table of them is read as.

        Raises:
            ValueError: numbers that are not declared, or fewer than one row.
        """
        n = whole("n", n)
        require(n >= 1, "at least 1 draw", n)
        program = self.declared()
        with seeded(seed, torch.device("cpu")):
            rows = program.ancestral(n).numpy()
        columns = {name: rows[:, place] for name, place in program.columns.items()}
        for name, of in program.states_of.items():
            if name in columns:
                places = of.places(name, torch.from_numpy(columns[name])).argmax(-1)
                columns[name] = _named(of.names)[places.numpy()]
        return columns

    @property
    def parents(self) -> dict[str, tuple[str, ...]]:
        """What each node hangs on."""
        return {name: node.parents for name, node in self.nodes.items()}

    @property
    def observed(self) -> tuple[str, ...]:
        """The nodes that are columns, in their order."""
        return tuple(name for name in self.nodes if name not in self.hidden)

    @property
    def accepts(self) -> frozenset[Kind]:
        """Any: what stands in a column is checked value by value."""
        return frozenset({BINARY, UNIT_INTERVAL, REAL, COUNT, CATEGORICAL})

    def check(self, spec: DataSpec) -> None:
        """Raise ``ValueError`` if the columns are not the nodes, or a column's states not those of its node."""
        self._columns(spec)
        self._states(spec)

    def value_check(self, spec: DataSpec) -> Callable[[torch.Tensor], None]:
        """What raises ``ValueError`` if a column of x ``(n, D)``, as the model sees it, leaves its node's support."""
        return partial(self._check_columns, self._columns(spec))

    def _check_columns(self, places: Mapping[str, int], x: torch.Tensor) -> None:
        for name, place in places.items():
            there = ~x[:, place].isnan()
            try:
                self.nodes[name].check_values(name, x[there, place])
            except ValueError as error:
                raise ValueError(at_places(error, rows=there.nonzero().flatten().tolist())) from None

    def resolve(self, data: Data) -> Data:
        """The data as they are; where the source asks for standardized columns, those of nodes with states keep their codes."""
        real = torch.zeros(data.spec.event_shape, dtype=torch.bool)
        real[[place for name, place in self._columns(data.spec).items() if self.nodes[name].unit_free]] = True
        return data.resolve(self.accepts, real=real)

    def build(self, spec: DataSpec) -> NetworkProgram:
        """The Pyro program for data of this shape and number."""
        states = self._states(spec)
        mechanisms: dict[str, Mechanism] = {}
        for name in topological(self.parents):
            facts = self._facts(name, states)
            self.nodes[name].check(facts)
            mechanisms[name] = self.nodes[name].build(facts)
        return NetworkProgram(
            mechanisms=mechanisms,
            states=states,
            columns=self._columns(spec),
            size=spec.size,
            missing=spec.missing,
            floor=self.floor,
            pseudo_counts=self.pseudo_counts,
        )

    def story(self) -> str:
        """The sites from top to bottom, as mathematics."""
        return "; ".join(self.nodes[name].story(name) for name in topological(self.parents))

    def _facts(self, name: str, states: Mapping[str, States]) -> Facts:
        switches = tuple(parent for parent in self.nodes[name].parents if self.nodes[parent].discrete)
        return Facts(
            name=name,
            states=states[name].names if self.nodes[name].discrete else (),
            switches=switches,
            switch_states=tuple(states[parent].names for parent in switches),
            numbers=tuple(parent for parent in self.nodes[name].parents if not self.nodes[parent].discrete),
        )

    def _columns(self, spec: DataSpec) -> dict[str, int]:
        """The place of each observed node in a row."""
        if len(spec.event_shape) != 1:
            raise ValueError(f"a network is a model of the columns of a table, but a datum has the shape {spec.event_shape}")
        names = spec.columns or (self.observed if len(self.observed) == spec.event_shape[0] else ())
        if missing := [name for name in self.observed if name not in names]:
            got = as_line(", ".join(names)) or f"{spec.event_shape[0]} columns without names"
            raise ValueError(
                f"expected columns {as_line(', '.join(missing))}, got {got}: name the nodes "
                "as the columns are, or declare them hidden"
            )
        if left := [name for name in names if name not in self.observed]:
            raise ValueError(
                f"expected columns that are nodes, got {as_line(', '.join(left))}: leave them out (--data.drop {left[0]}), "
                "or add nodes for them"
            )
        return {name: names.index(name) for name in self.observed}

    def _states(self, spec: DataSpec) -> dict[str, States]:
        """The states of the nodes that have some."""
        discrete = {name: node.declared_states for name, node in self.nodes.items() if node.discrete}
        return {
            name: without_column(states) if name in self.hidden else met(name, states, spec)
            for name, states in discrete.items()
        }


def _named(states: Sequence[str]) -> np.ndarray:
    """The states as a column holds them: numbers where all of them spell some, as a table of such would be read."""
    numbers = numbers_spelled(np.array(states))
    if numbers is None or not np.isfinite(numbers).all():
        return np.array(states)
    return numbers.astype(np.int64) if (numbers == np.floor(numbers)).all() else numbers
