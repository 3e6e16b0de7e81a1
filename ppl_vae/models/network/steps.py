"""What is exact about a network: log p(what is known), expected counts, and the steps of EM. Pure functions of the states.

A state is a mapping from the names of the nodes to their parameters.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppl_vae.exact.conditional_gaussian import regression
from ppl_vae.exact.elimination import ROWS, Factor, contraction, expectations, log_sum
from ppl_vae.models.network.evidence import Evidence
from ppl_vae.models.network.groups import Group, groups
from ppl_vae.models.network.linear import LinearMechanism
from ppl_vae.models.network.neural_mechanisms import NeuralNumber
from ppl_vae.models.network.nodes import DiscreteMechanism, Mechanism, State

__all__ = ["Terms", "em_step", "gathered", "log_evidence", "maximized", "parts", "terms"]

Mechanisms = Mapping[str, Mechanism]
States = dict[str, State]


class Terms(NamedTuple):
    """The factors of some rows, what each belongs to (a node, a group of numbers, or nothing), and a part of log p by itself.

    Attributes:
        factors: at least one of them has rows.
        owners: the name of a node, a group, or ``None`` for evidence.
        shift: the logarithm of what densities were divided by, ``(n,)``.
    """

    factors: list[Factor]
    owners: list[str | Group | None]
    shift: Tensor


def terms(
    nodes: Mechanisms,
    states: States,
    known: Evidence,
    *,
    wanted: Collection[str] | None = None,
    cut: Collection[str] = (),
    unknown: Collection[str] | None = None,
    whole: bool = False,
) -> Terms:
    """The factors of a network.

    Args:
        nodes: all nodes, parents first.
        states: their parameters.
        known: of the rows.
        wanted: the nodes that matter, all by default; with each of them all that it hangs on.
        cut: nodes that are set from outside, which hang on nothing.
        unknown: the numbers that are missing in some row; found out by default.
        whole: whether also groups of which nothing is known have a factor, which says nothing.
    """
    wanted = nodes.keys() if wanted is None else wanted
    discrete = {name: node for name, node in nodes.items() if isinstance(node, DiscreteMechanism) and name in wanted}
    rows = len(known.weight)
    found = Terms([Factor(torch.ones_like(known.weight), (ROWS,))], [None], known.weight.new_zeros(rows))
    for name, node in discrete.items():
        if name not in cut:
            _check_known(node, known)
            found.factors.append(node.factor(states[name], known.numbers))
            found.owners.append(name)
        if name in known.states:
            found.factors.append(Factor(known.states[name], (ROWS, name)))
            found.owners.append(None)
    neural = {name: node for name, node in nodes.items() if isinstance(node, NeuralNumber)}
    for name, number in neural.items():
        if name in wanted and name not in cut:
            _check_neural(number, [nodes[other] for other in wanted if other not in cut], known)
            if whole or not bool(known.numbers[name].isnan().all()):
                factor, shift = number.factor(known.numbers[name], known.numbers)
                found.factors.append(factor)
                found.owners.append(name)
                found = found._replace(shift=found.shift + shift)
    linear = {name: node for name, node in nodes.items() if isinstance(node, LinearMechanism)}
    free = [name for name in linear if name in wanted and name not in cut]
    unknown = _unknown(known) if unknown is None else unknown
    sizes = {name: len(node.facts.states) for name, node in nodes.items() if isinstance(node, DiscreteMechanism)}
    for group in groups(linear, free, unknown, sizes):
        if whole or any(not bool(known.numbers[name].isnan().all()) for name in group.names):
            factor, shift = group.factor(states, known.numbers)
            found.factors.append(factor)
            found.owners.append(group)
            found = found._replace(shift=found.shift + shift)
    return found


@torch.no_grad()
def log_evidence(nodes: Mechanisms, states: States, known: Evidence, **options: Any) -> Tensor:
    """Log p(what is known of each row), ``(n,)``, in standard units; minus infinity where it cannot be."""
    found = [terms(nodes, states, part, **options) for part in parts(nodes, states, known, **options)]
    return torch.cat([log_sum(of_rows.factors) + of_rows.shift for of_rows in found])


@torch.no_grad()
def gathered(nodes: Mechanisms, states: States, blocks: Iterable[Evidence]) -> tuple[Tensor, dict[str, list[Any]]]:
    """Log p of all rows, weighed, and by node what the maximization needs of each block: the E-step.

    Raises:
        ValueError: a row that cannot be.
    """
    total, statistics = torch.zeros((), dtype=torch.float64), _nothing(nodes)
    for block in blocks:
        for part in parts(nodes, states, block):
            of_rows = terms(nodes, states, part)
            found, expected = expectations(of_rows.factors, part.weight)
            if not bool(found.isfinite().all()):
                raise ValueError(
                    "a row of the data has probability zero under these tables: mend it, or declare probs without that zero"
                )
            total = total.to(found) + ((found + of_rows.shift) * part.weight).sum()
            for owner, values in zip(of_rows.owners, expected, strict=True):
                _gather(statistics, nodes, states, part, owner, values)
    return total, statistics


def maximized(nodes: Mechanisms, states: States, statistics: Mapping[str, Sequence[Any]], floor: float) -> States:
    """The parameters that are likeliest given the expected counts and moments: the M-step."""
    new = dict(states)
    for name, node in nodes.items():
        if not (node.learned and statistics[name]):
            continue
        if isinstance(node, DiscreteMechanism):
            new[name] = node.maximized(states[name], statistics[name])
        else:
            new[name] = _regressed(states[name], torch.stack(list(statistics[name])).sum(0), floor)
    return new


def em_step(states: States, *, nodes: Mechanisms, blocks: Sequence[Evidence], floor: float) -> tuple[States, Tensor]:
    """One step: the new parameters, and log p of the data under the old ones, in nats per row."""
    total, statistics = gathered(nodes, states, blocks)
    rows = sum(float(block.weight.sum()) for block in blocks)
    return maximized(nodes, states, statistics, floor), total / rows


def parts(
    nodes: Mechanisms, states: States, known: Evidence, *, output: Sequence[str] = (ROWS,), **options: Any
) -> Iterator[Evidence]:
    """The rows, so many at a time that intermediates stay bounded."""
    zero = known.weight.new_zeros(1)
    like_one = Evidence({name: seen[:1] for name, seen in known.states.items()}, dict.fromkeys(known.numbers, zero), zero + 1)
    found = terms(nodes, states, like_one, **{"unknown": _unknown(known), **options})
    at_once = contraction(found.factors, output).rows_at_once
    for start in range(0, len(known.weight), at_once):
        rows = slice(start, start + at_once)
        states_, numbers = ({name: values[rows] for name, values in part.items()} for part in (known.states, known.numbers))
        yield Evidence(states_, numbers, known.weight[rows])


def _nothing(nodes: Mechanisms) -> dict[str, list[Any]]:
    return {name: [] for name in nodes}


def _regressed(state: State, total: Tensor, floor: float) -> State:
    coefficients, variance = state
    found, left = regression(total, floor**2)
    seen = total[:, 0, 0] > 0
    return (
        torch.where(seen.unsqueeze(-1), found, coefficients.reshape(found.shape)).reshape(coefficients.shape),
        torch.where(seen, left, variance.reshape(left.shape)).reshape(variance.shape),
    )


def _gather(
    statistics: dict[str, list[Any]],
    nodes: Mechanisms,
    states: States,
    part: Evidence,
    owner: str | Group | None,
    values: Tensor,
) -> None:
    if isinstance(owner, Group):
        for name, moments in owner.statistics(states, part.numbers, values):
            statistics[name].append(moments)
    elif owner is not None:
        node = nodes[owner]
        if isinstance(node, DiscreteMechanism):
            statistics[owner].append(node.statistics(values, part.numbers))


def _unknown(known: Evidence) -> set[str]:
    return {name for name, values in known.numbers.items() if bool(values.isnan().any())}


def _check_known(node: DiscreteMechanism, known: Evidence) -> None:
    unknown = [name for name in node.facts.numbers if bool(known.numbers[name].isnan().any())]
    if unknown:
        raise ValueError(
            f"expected values of {', '.join(unknown)}, on which {node.facts.name} hangs by a regression, got none in some row: "
            "what is exact sums over states and integrates over normal numbers alone; give those values, drop those rows, or "
            "query with method='sampling'"
        )


def _check_neural(node: NeuralNumber, others: Sequence[Mechanism], known: Evidence) -> None:
    """A number that a network gives needs its parents where it is known, and has to be known where it has children."""
    name, missing = node.facts.name, known.numbers[node.facts.name].isnan()
    below = [other for other in others if name in other.facts.numbers]
    above = [other for other in node.facts.numbers if bool((known.numbers[other].isnan() & ~missing).any())]
    if (below and bool(missing.any())) or above:
        told = f"values of {', '.join(above)}, on which {name} hangs" if above else f"values of {name}, on which others hang"
        raise ValueError(
            f"expected {told} by a network, got none in some row: what is exact sums over states and integrates over normal "
            "numbers alone; give those values, drop those rows, or query with method='sampling'"
        )
