"""The program of a Bayesian network, and what is exact about it.

    for n in 1..N:
        v ~ p(v | parents of v)    for every node v, parents first

Columns are observed; hidden nodes are marked for Pyro to sum them out. Where entries may be missing, states are summed out and
what was seen of them is observed; numbers that may be unknown are one normal vector given the states that they hang on.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Generator, Tensor, nn
from torch.distributions import constraints

from ppl_vae.exact import Problem, moments
from ppl_vae.exact.moments import row_blocks
from ppl_vae.models.network import sampled, steps
from ppl_vae.models.network.answers import Answer, Explanation
from ppl_vae.models.network.counting import counted
from ppl_vae.models.network.described import quantities
from ppl_vae.models.network.estimates import Estimate
from ppl_vae.models.network.evidence import Evidence, States, stacked
from ppl_vae.models.network.explaining import explained
from ppl_vae.models.network.imputing import drawn, means
from ppl_vae.models.network.linear import LinearMechanism
from ppl_vae.models.network.nodes import DiscreteMechanism, Mechanism, State
from ppl_vae.models.network.posterior import posterior
from ppl_vae.models.network.questions import answered, marginals
from ppl_vae.models.network.starts import initial
from ppl_vae.models.network.weighting import estimated
from ppl_vae.program.base import ModelProgram
from ppl_vae.program.context import evaluating
from ppl_vae.program.hooks import Start
from ppl_vae.program.quantities import Quantity
from ppl_vae.program.rows import data_plate
from ppl_vae.program.sites import Site
from ppl_vae.types import FitWarning

__all__ = ["NetworkProgram"]

ROWS_AT_ONCE = 8192


class NetworkProgram(ModelProgram):
    """The program. An event is a row ``(D,)`` of the columns.

    Args:
        mechanisms: the nodes by name, parents first.
        states: those of the discrete nodes, and the numbers that stand for them.
        columns: the place of each observed node in a row.
        size: N, the number of training data.
        missing: whether entries may be missing (NaN).
        floor: least standard deviation of a number given its parents, as a share of its own.
        pseudo_counts: what counting adds to each count.
    """

    latent = "discrete"
    learning_rate = 2e-2
    random_start = True

    loc: Tensor
    unit: Tensor

    def __init__(
        self,
        *,
        mechanisms: Mapping[str, Mechanism],
        states: Mapping[str, States],
        columns: Mapping[str, int],
        size: int,
        missing: bool,
        floor: float,
        pseudo_counts: float,
    ) -> None:
        super().__init__()
        self.size = size
        self.names = tuple(mechanisms)
        self.mechanisms = nn.ModuleList(mechanisms.values())
        self.states_of = dict(states)
        self.columns = dict(columns)
        self.missing, self.floor, self.pseudo_counts = missing, floor, pseudo_counts
        self.numbers = tuple(name for name, node in mechanisms.items() if not isinstance(node, DiscreteMechanism))
        # In which units the numbers are handled: of those columns that were seen their mean and standard deviation.
        self.register_buffer("loc", torch.zeros(len(self.numbers), dtype=torch.float64))
        self.register_buffer("unit", torch.ones(len(self.numbers), dtype=torch.float64))

    @property
    def nodes(self) -> dict[str, Mechanism]:
        """The built nodes by name, parents first."""
        return {name: cast(Mechanism, node) for name, node in zip(self.names, self.mechanisms, strict=True)}

    @property
    def parents(self) -> dict[str, tuple[str, ...]]:
        """What each node hangs on."""
        return {name: (*node.facts.switches, *node.facts.numbers) for name, node in self.nodes.items()}

    @property
    def hidden(self) -> tuple[str, ...]:
        """The nodes that are in no column."""
        return tuple(name for name in self.names if name not in self.columns)

    @property
    def sites(self) -> dict[str, Site]:
        """The hidden nodes that have states, all summed out."""
        shown = {name: (len(self.states_of[name].names),) for name in self.hidden if name in self.states_of}
        return {name: Site(name, shape, constraints.one_hot, summed=True, index=True) for name, shape in shown.items()}

    @property
    def data_dependent(self) -> bool:  # type: ignore[override]
        """Whether numbers that may be unknown are gone through by what is known of them."""
        return bool(sampled.unknown_groups(self))

    @property
    def free_parameters(self) -> int:
        """Those of the nodes: of each distribution over states all probabilities but one."""
        return sum(node.free_parameters for node in self.nodes.values())

    @property
    def takes_missing(self) -> bool:
        """Always: missing entries are integrated out."""
        return True

    def forward(self, x: Tensor) -> None:
        """The story, with the batch x ``(B, D)`` observed."""
        with data_plate(self.size, x):
            sampled.story(self, x)

    @torch.no_grad()
    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log p of the observed entries of each row in nats, ``(B,)``; in float64, without gradients."""
        return steps.log_evidence(self.nodes, self.em_state(), self.evidence(x)) - self.log_units(x)

    def posterior(self, x: Tensor) -> Any:
        """The exact p(hidden states | observed entries) of each row, one-hot.

        Raises:
            ValueError: no hidden node has states.
        """
        return posterior(self.nodes, self.em_state(), self.evidence(x), tuple(self.sites), x.dtype)

    def ancestral(self, n: int) -> Tensor:
        """So many new rows ``(n, D)``, node by node."""
        return sampled.rows(self, n)

    def quantities(self) -> Mapping[str, Quantity]:
        """Tables and coefficients by node, in the units of what the model sees."""
        return quantities(self)

    def query(
        self,
        names: str | Sequence[str],
        given: Mapping[str, Any],
        do: Mapping[str, Any],
        units: tuple[Tensor, Tensor] | None = None,
    ) -> Answer:
        """p(names | given, do), exactly; see :meth:`ppl_vae.Fit.query`.

        Args:
            names: of nodes.
            given: what is observed.
            do: what is set.
            units: shift and scale ``(D,)`` from the units of what is given to what the model sees.
        """
        return answered(self, self.em_state(), names, given, do, self._by_name(units))

    def marginals(
        self, given: Mapping[str, Any], do: Mapping[str, Any], units: tuple[Tensor, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """p(node | given, do) of every node with states, ``(*n, L)``; see :meth:`ppl_vae.Fit.marginals`."""
        return marginals(self, self.em_state(), given, do, self._by_name(units))

    def estimated(
        self,
        names: str | Sequence[str],
        given: Mapping[str, Any],
        do: Mapping[str, Any],
        units: tuple[Tensor, Tensor] | None = None,
        *,
        draws: int = 10_000,
        seed: int = 0,
    ) -> Estimate:
        """p(names | given, do) by likelihood weighting, whatever the nodes are; see :meth:`ppl_vae.Fit.query`."""
        with evaluating(self):
            return estimated(self, names, given, do, self._by_name(units), draws=draws, seed=seed)

    def explain(
        self, given: Mapping[str, Any], do: Mapping[str, Any], units: tuple[Tensor, Tensor] | None = None
    ) -> Explanation:
        """What all unknown nodes most probably are together; see :meth:`ppl_vae.Fit.explain`."""
        return explained(self, self.em_state(), given, do, self._by_name(units))

    @torch.no_grad()
    def impute(self, x: Tensor, draws: int | None = None) -> Tensor:
        """Rows x ``(B, D)`` without what is missing (NaN): conditional means and most probable states, or draws of all of it.

        Args:
            x: the rows; what is observed stays.
            draws: so many draws from the posterior, ``(draws, B, D)``, by torch's global generator.
        """
        if draws is None:
            return self._filled(x, means(self, self.em_state(), self.evidence(x)))
        many = x.repeat(draws, *[1] * (x.dim() - 1)).split(ROWS_AT_ONCE)
        found = [self._filled(rows, drawn(self, self.em_state(), self.evidence(rows))) for rows in many]
        return torch.cat(found).reshape(draws, *x.shape)

    def _filled(self, x: Tensor, found: Evidence) -> Tensor:
        """The rows with what was found in place of what is missing."""
        filled = x.flatten(1).clone()
        for name, place in self.columns.items():
            if name in self.states_of:
                values = self.states_of[name].values.to(x.device)[found.states[name].argmax(-1)]
            else:
                number = self.numbers.index(name)
                values = self.loc[number] + self.unit[number] * found.numbers[name]
            filled[:, place] = torch.where(filled[:, place].isnan(), values.to(x), filled[:, place])
        return filled.reshape(x.shape)

    def evidence(self, x: Tensor, weight: Tensor | None = None) -> Evidence:
        """What is known of rows x ``(n, D)``, numbers in standard units.

        Raises:
            ValueError: an entry that is no state of its node.
        """
        seen = stacked(self.columns, x)
        states = {name: of.places(name, seen[name]) for name, of in self.states_of.items() if name in seen}
        unknown = x.new_full((len(x),), torch.nan, dtype=torch.float64)
        numbers = {name: (seen.get(name, unknown) - self.loc[i]) / self.unit[i] for i, name in enumerate(self.numbers)}
        return Evidence(states, numbers, x.new_ones(len(x), dtype=torch.float64) if weight is None else weight)

    def log_units(self, x: Tensor) -> Tensor:
        """What a density in standard units is too high by, ``(n,)``."""
        seen = stacked(self.columns, x)
        logs = [(~seen[name].isnan()) * unit for name, unit in zip(self.numbers, self.unit.log(), strict=True) if name in seen]
        return torch.stack(logs).sum(0) if logs else x.new_zeros(len(x), dtype=torch.float64)

    def em(self, rows: Any, *, generator: Generator | None = None, accelerate: bool = True) -> Problem:
        """What EM iterates for rows ``(N, D)`` with NaN where missing, or batches of them, from a random start.

        Raises:
            ValueError: pseudo-counts, with which no step climbs the likelihood alone.
        """
        if self.pseudo_counts:
            raise ValueError(
                f"expected pseudo_counts of 0 for EM, which climbs the likelihood, got {self.pseudo_counts:g}: use ClosedForm "
                "for complete data, or leave them out"
            )
        if neural := [name for name, node in self.nodes.items() if node.by_gradient]:
            raise ValueError(f"the nodes {', '.join(neural)} are networks, which EM has no step for: use SVI")
        generator = generator or torch.Generator(self.loc.device).manual_seed(0)
        offset = self._measured(rows)
        blocks = list(self._blocks(rows))

        def step(states: dict[str, State]) -> tuple[dict[str, State], Tensor]:
            new, value = steps.em_step(states, nodes=self.nodes, blocks=blocks, floor=self.floor)
            return new, value - offset

        start = initial(self.nodes, self.hidden, blocks, generator)
        return Problem(step, start, None, self.assign, partial(self._remark, blocks))

    def closed_form(self, rows: Any) -> dict[str, State]:
        """The likeliest parameters of complete rows ``(N, D)``: shares of counts, and regressions.

        Raises:
            ValueError: hidden nodes, missing entries, or a node without a closed form.
        """
        self._measured(rows)
        options = {"pseudo_counts": self.pseudo_counts, "floor": self.floor}
        found = counted(self.nodes, self.hidden, list(self._blocks(rows)), **options)
        if floored := self._floored(found):
            warnings.warn(floored, FitWarning, stacklevel=2)
        return found

    def start_fit(self, context: Start) -> None:
        """Start where EM starts, so that methods differ only in how they go on."""
        self._measured(context.rows)
        self.assign(initial(self.nodes, self.hidden, list(self._blocks(context.rows)), context.generator()))

    @torch.no_grad()
    def em_state(self) -> dict[str, State]:
        """The present parameters by node, which EM iterates and :meth:`assign` takes."""
        return {name: node.state for name, node in self.nodes.items()}

    def assign(self, parameters: Mapping[str, State]) -> None:
        """Write parameters into the nodes that are learned."""
        for name, node in self.nodes.items():
            if node.learned:
                node.assign(parameters[name])

    def _by_name(self, units: tuple[Tensor, Tensor] | None) -> dict[str, tuple[float, ...]]:
        """Shift and scale of the numbers, by name."""
        places = {} if units is None else {name: place for name, place in self.columns.items() if name in self.numbers}
        return {name: tuple(float(part[place]) for part in units or ()) for name, place in places.items()}

    def _measured(self, rows: Any) -> Tensor:
        """Take the standard units of these rows; what a density in them is too high by, in nats per row."""
        seen = moments.columns(rows)
        offset = seen.mean.new_zeros(())
        for i, name in enumerate(self.numbers):
            if name in self.columns:
                place = self.columns[name]
                scale = seen.variance[place].sqrt()
                self.loc[i], self.unit[i] = seen.mean[place], torch.where(scale > 0, scale, 1.0)
                offset = offset + seen.counts[place] * self.unit[i].log()
        loc, unit = (dict(zip(self.numbers, values, strict=True)) for values in (self.loc, self.unit))
        for node in self.nodes.values():
            node.measure(loc, unit)
        return offset / self._rows(rows)

    def _blocks(self, rows: Any) -> Iterator[Evidence]:
        """The rows as evidence; where all is discrete, rows that are alike are one that counts as often."""
        for block in row_blocks(rows, ROWS_AT_ONCE):
            if self.numbers:
                yield self.evidence(block)
            else:
                coded = block.nan_to_num(nan=torch.inf).unique(dim=0, return_counts=True)
                yield self.evidence(coded[0].masked_fill(coded[0].isinf(), torch.nan), coded[1].double())

    @staticmethod
    def _rows(rows: Any) -> int:
        return sum(len(block) for block in row_blocks(rows, ROWS_AT_ONCE))

    def _remark(self, blocks: Sequence[Evidence], states: dict[str, State]) -> str | None:
        """Rows of tables of which the data say nothing, and numbers on their floor."""
        _, found = steps.gathered(self.nodes, states, blocks)
        learned = {name: node for name, node in self.nodes.items() if node.learned and found[name]}
        empty = [node.remark(found[name]) for name, node in learned.items() if isinstance(node, DiscreteMechanism)]
        told = [f"rows of tables of which no data tell, and which stay as they were: {'; '.join(filter(None, empty))}"]
        return ". ".join(filter(None, [*(told if any(empty) else []), self._floored(states)])) or None

    def _floored(self, states: dict[str, State]) -> str | None:
        """Numbers whose standard deviation was raised to the floor."""
        linear = [name for name, node in self.nodes.items() if isinstance(node, LinearMechanism) and node.learned]
        numbers = [name for name in linear if bool((states[name][1] <= self.floor**2).any())]
        remedy = f"that is {self.floor:g} of the column's own: lower floor= if data are that exact"
        return f"standard deviations on their floor: {', '.join(numbers)} ({remedy})" if numbers else None
