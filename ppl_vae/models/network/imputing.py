"""What is missing in rows, given what is known of them: its conditional means and most probable states, or draws.

Draws are joint: state after state given those before it, then the numbers of each group given all states.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ppl_vae.exact import conditional_gaussian as normal
from ppl_vae.exact.elimination import ROWS, Factor, expectations, sums
from ppl_vae.models.network import steps
from ppl_vae.models.network.evidence import Evidence
from ppl_vae.models.network.groups import Group, groups
from ppl_vae.models.network.linear import LinearMechanism
from ppl_vae.models.network.neural_mechanisms import NeuralNumber
from ppl_vae.models.network.nodes import State
from ppl_vae.models.network.sampled import Network

__all__ = ["drawn", "means"]


@torch.no_grad()
def means(network: Network, states: dict[str, State], known: Evidence) -> Evidence:
    """The rows with the probabilities of all states, and the conditional means of all numbers, in standard units."""
    nodes, levels = network.nodes, {name: len(of.names) for name, of in network.states_of.items()}
    one = {name: known.weight.new_ones(len(known.weight), size) for name, size in levels.items()}
    known = known._replace(states={**one, **known.states}, weight=torch.ones_like(known.weight))
    options: dict[str, Any] = {"whole": True}
    parts = []
    for part in steps.parts(nodes, states, known, **options):
        of_rows = steps.terms(nodes, states, part, **options)
        _, expected = expectations(of_rows.factors, part.weight)
        probabilities, numbers = dict(part.states), dict(part.numbers)
        for owner, factor, values in zip(of_rows.owners, of_rows.factors, expected, strict=True):
            if isinstance(owner, Group):
                numbers |= _expected(owner, states, part, values.reshape(len(values), -1))
            elif isinstance(owner, str) and isinstance(node := nodes[owner], NeuralNumber):
                numbers[owner] = _mean(node, part, values.reshape(len(values), -1))
            elif owner is None and len(factor.names) == 2:
                probabilities[factor.names[1]] = values
        parts.append((probabilities, numbers))
    found = [{name: torch.cat([part[i][name] for part in parts]) for name in parts[0][i]} for i in (0, 1)]
    return Evidence(found[0], found[1], known.weight)


@torch.no_grad()
def drawn(network: Network, states: dict[str, State], known: Evidence) -> Evidence:
    """The rows with what is missing drawn from the posterior, states one-hot."""
    nodes = network.nodes
    for name, of in network.states_of.items():
        seen = known.states.get(name)
        if seen is not None and bool((seen.count_nonzero(-1) == 1).all()):
            continue
        output, found = (ROWS, name), []
        for part in steps.parts(nodes, states, known, output=output):
            one = Factor(part.weight.new_ones(len(part.weight), len(of.names)), output)
            found.append(sums([*steps.terms(nodes, states, part).factors, one], output)[0])
        place = torch.cat(found).multinomial(1)[:, 0]
        one_hot = torch.nn.functional.one_hot(place, len(of.names)).to(known.weight)
        known = known._replace(states={**known.states, name: one_hot})
    linear = {name: node for name, node in nodes.items() if isinstance(node, LinearMechanism)}
    unknown = {name for name, values in known.numbers.items() if bool(values.isnan().any())}
    sizes = {name: len(of.names) for name, of in network.states_of.items()}
    numbers = dict(known.numbers)
    for group in groups(linear, list(linear), unknown, sizes):
        if unknown.intersection(group.names):
            numbers |= _drawn(group, states, known)
    for name in sorted(unknown - linear.keys(), key=list(nodes).index):
        node = nodes[name]
        assert isinstance(node, NeuralNumber)
        places = {switch: known.states[switch].argmax(-1) for switch in node.facts.switches}
        p = node.distribution({**places, **{parent: numbers[parent] for parent in node.facts.numbers}})
        new = (p.expand((len(known.weight),)).sample().to(node.loc) - node.loc) / node.unit
        numbers[name] = torch.where(numbers[name].isnan(), new, numbers[name])
    return known._replace(numbers=numbers)


def _mean(node: NeuralNumber, part: Evidence, weight: Tensor) -> Tensor:
    """A number as it is known, and elsewhere its mean over the joint states of its parents, in standard units."""
    values = part.numbers[node.facts.name]
    means = (node.everywhere(part.numbers).mean.to(values) - node.loc) / node.unit
    if bool((means.isnan() & values.isnan().unsqueeze(-1)).any()):
        raise ValueError(
            f"expected values of {', '.join(node.facts.numbers)} where {node.facts.name}, a network of them, is to be filled "
            "in by its mean, got none in some row: ask for draws"
        )
    return torch.where(values.isnan(), (weight * means).sum(-1), values)


def _expected(group: Group, states: dict[str, State], part: Evidence, weight: Tensor) -> dict[str, Tensor]:
    """The conditional means of a group's numbers, over its joint states."""
    x = group.observed(part.numbers)
    for rows, values, _ in normal.completed(group.moments(states, part.numbers), x.clone()):
        x[rows] = (weight[rows].unsqueeze(-1) * values).sum(1)
    return dict(zip(group.names, x.unbind(-1), strict=True))


def _drawn(group: Group, states: dict[str, State], known: Evidence) -> dict[str, Tensor]:
    """The numbers of a group, those that are missing drawn given the states, which are known."""
    x = group.observed(known.numbers)
    place = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    for name, size in group.sizes.items():
        place = place * size + known.states[name].argmax(-1)
    for rows, values, covariance in normal.completed(group.moments(states, known.numbers), x.clone()):
        picked = place[rows]
        eigenvalues, vectors = torch.linalg.eigh(covariance)
        root = vectors * eigenvalues.clamp_min(0).sqrt().unsqueeze(-2)
        noise = torch.randn(len(rows), x.shape[1], 1, dtype=x.dtype, device=x.device)
        new = values[torch.arange(len(rows), device=x.device), picked] + (root[picked] @ noise).squeeze(-1)
        x[rows] = torch.where(x[rows].isnan(), new, x[rows])
    return dict(zip(group.names, x.unbind(-1), strict=True))
