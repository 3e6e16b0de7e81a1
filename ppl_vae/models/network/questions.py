"""Questions to a network: names, what is given, what is set from outside. Answered by the contraction.

    p(names | given, do(s)): the nodes of s hang on nothing and have the values that they are set to (Pearl 2009, "Causality")

Nodes that neither a name nor what is given hangs on say nothing, and are left out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ppl_vae.exact import conditional_gaussian as normal
from ppl_vae.exact.elimination import ROWS, sums
from ppl_vae.exact.marginals import posteriors
from ppl_vae.models.network import steps
from ppl_vae.models.network.answers import Answer
from ppl_vae.models.network.evidence import Evidence
from ppl_vae.models.network.groups import Group, groups
from ppl_vae.models.network.linear import LinearMechanism
from ppl_vae.models.network.nodes import State, spread
from ppl_vae.models.network.sampled import Network
from ppl_vae.models.network.structure import ancestors
from ppl_vae.text import as_line, did_you_mean

__all__ = ["Question", "Units", "answered", "asked", "check_possible", "log_units", "marginals", "to_source"]

Units = Mapping[str, tuple[float, ...]]
"""Of numbers the shift and scale from the units of the source to what the model sees."""


class Question(NamedTuple):
    """What is asked, checked: the names, the evidence of each row, what is set, and what matters."""

    names: tuple[str, ...]
    known: Evidence
    given: tuple[str, ...]
    cut: frozenset[str]
    wanted: frozenset[str]
    single: bool


@torch.no_grad()
def answered(
    network: Network,
    states: dict[str, State],
    names: str | Sequence[str],
    given: Mapping[str, Any],
    do: Mapping[str, Any],
    units: Units,
) -> Answer:
    """The answer, in the units of the source.

    Raises:
        ValueError: an unknown name or state, a name that is given as well, evidence that cannot be, or too large a table.
    """
    names = (names,) if isinstance(names, str) else tuple(names)
    if not names:
        raise ValueError("expected one name or several different ones, got none")
    question = asked(network, names, given, do, units)
    nodes = network.nodes
    discrete = [name for name in question.names if name in network.states_of]
    numbers = [name for name in question.names if name not in discrete]
    _check_normal(network, numbers)
    options: dict[str, Any] = {"wanted": question.wanted, "cut": question.cut}
    involved = _groups(network, question, numbers)
    others = list(dict.fromkeys(name for group in involved for name in group.switches if name not in discrete))
    output = (ROWS, *discrete, *others)
    joint, log_evidence = [], []
    for part in steps.parts(nodes, states, question.known, output=output, **options):
        found = steps.terms(nodes, states, part, **options)
        values, log_scale = sums(found.factors, output)
        total = values.reshape(len(values), -1).sum(-1)
        joint.append(values / total.reshape(-1, *[1] * (values.dim() - 1)))
        log_evidence.append(total.log() + log_scale.flatten() + found.shift)
    evidence = torch.cat(log_evidence) - log_units(network, question, units)
    check_possible(evidence)
    whole = torch.cat(joint)
    table = whole.flatten(1 + len(discrete)).sum(-1) if others else whole
    weights = whole.flatten(1 + len(discrete)) if others else whole.unsqueeze(-1)
    weights = weights / weights.sum(-1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
    means, covariances = _components(network, states, question, involved, numbers, (*discrete, *others), weights.shape)
    loc, scale = to_source(network, numbers, units, means)
    answer = {
        "table": table,
        "weights": weights,
        "means": means * scale + loc,
        "covariances": covariances * scale.unsqueeze(-1) * scale,
        "log_evidence": evidence,
    }
    answer = {name: values[0] if question.single else values for name, values in answer.items()}
    return Answer(states={name: network.states_of[name].names for name in discrete}, numbers=tuple(numbers), **answer)


@torch.no_grad()
def marginals(
    network: Network, states: dict[str, State], given: Mapping[str, Any], do: Mapping[str, Any], units: Units
) -> dict[str, Tensor]:
    """p(node | given, do) of every node with states, ``(*n, L)``, by one sweep forwards and one back.

    Raises:
        ValueError: an unknown name or state, evidence that cannot be, or sums that are too large.
    """
    question = asked(network, (), given, do, units)
    options: dict[str, Any] = {"wanted": question.wanted, "cut": question.cut}
    sizes = {name: len(of.names) for name, of in network.states_of.items()}
    of_rows = steps.terms(network.nodes, states, question.known, **options)
    log_p, found = posteriors(of_rows.factors, sizes, len(question.known.weight))
    check_possible(log_p)
    return {name: values[0] if question.single else values for name, values in found.items()}


def asked(network: Network, names: tuple[str, ...], given: Mapping[str, Any], do: Mapping[str, Any], units: Units) -> Question:
    """A question, checked.

    Raises:
        ValueError: an unknown name or state, a name twice, or not as many values of each node that is given.
    """
    nodes = network.nodes
    for name in (*names, *given, *do):
        if name not in nodes:
            hint = did_you_mean(str(name), nodes) or f"the nodes are {as_line(', '.join(nodes))}"
            raise ValueError(f"expected names of nodes, got {str(name)[:80]!r}: {hint}")
    if len(set(names)) != len(names):
        raise ValueError(f"expected one name or several different ones, got {', '.join(names) or 'none'}")
    if both := [name for name in names if name in given or name in do] or [name for name in given if name in do]:
        raise ValueError(f"expected {both[0]} once, got it asked for, given or set as well: leave it out of one of these")
    values = {name: _placed(network, name, value, units) for name, value in {**given, **do}.items()}
    if unset := [name for name in do if bool(values[name].isnan().any())]:
        raise ValueError(f"expected a value of {unset[0]}, which is set, in every row, got none in some: ask those rows apart")
    sizes = {len(value) for value in values.values() if value.dim()}
    if 0 in sizes:
        raise ValueError("expected values of each node that is given, got none: leave it out where nothing is known")
    if len(sizes) > 1:
        raise ValueError(f"expected as many values of each node that is given, got {', '.join(map(str, sorted(sizes)))}")
    rows = next(iter(sizes), 1)
    weight = torch.ones(rows, dtype=torch.float64, device=network.loc.device)
    values = {name: value.to(weight.device).expand(rows) for name, value in values.items()}
    unknown = torch.full_like(weight, torch.nan)
    states = {
        name: _one_hot(value, len(network.states_of[name].names)) for name, value in values.items() if name in network.states_of
    }
    cut = frozenset(do)
    parents = {name: () if name in cut else (*node.facts.switches, *node.facts.numbers) for name, node in nodes.items()}
    wanted = frozenset(ancestors(parents, (*names, *given, *do)) if names else nodes)
    known = Evidence(states, {name: values.get(name, unknown) for name in network.numbers}, weight)
    return Question(names, known, tuple(given), cut, wanted, not sizes)


def _placed(network: Network, name: str, value: Any, units: Units) -> Tensor:
    """Places of states, or numbers in standard units, ``()`` or ``(n,)``; NaN where nothing is known."""
    entries = value if isinstance(value, str) or np.ndim(value) == 0 else list(value)
    single = not isinstance(entries, list)
    known = dict(zip(network.states_of[name].names, itertools.count(), strict=False)) if name in network.states_of else {}
    many = [entries] if single else entries
    found = [
        known[entry] if isinstance(entry, str) and entry in known else _place(network, name, entry, units) for entry in many
    ]
    return torch.tensor(found[0] if single else found, dtype=torch.float64)


def _place(network: Network, name: str, entry: Any, units: Units) -> float:
    entry = entry.item() if isinstance(entry, Tensor | np.generic) else entry
    if _is_missing(entry):
        return float("nan")
    if name not in network.states_of:
        place = network.numbers.index(name)
        try:
            number = float(entry)
        except (TypeError, ValueError):
            raise ValueError(f"expected a number for {name}, got {as_line(repr(entry))}") from None
        if math.isinf(number):
            raise ValueError(f"expected a finite number for {name}, got {number}: give None where nothing is known")
        loc, scale = units.get(name, (0.0, 1.0))
        return ((number - loc) / scale - float(network.loc[place])) / float(network.unit[place])
    states, values = network.states_of[name].names, network.states_of[name].values.tolist()
    for spelled in (str(entry), str(entry).lower()):
        if spelled in states:
            return float(states.index(spelled))
    if isinstance(entry, int | float) and float(entry) in values:
        return float(values.index(float(entry)))
    raise ValueError(f"expected a state of {name}, {as_line(', '.join(states))}, got {as_line(repr(entry))}")


def _is_missing(entry: Any) -> bool:
    """Whether nothing is known: ``None``, NaN, or a missing value of pandas, which is not even unequal to itself."""
    try:
        return entry is None or bool(entry != entry)
    except TypeError:
        return True


def _one_hot(place: Tensor, levels: int) -> Tensor:
    """Evidence ``(n, L)`` of places; ones where nothing is known."""
    return ((place.unsqueeze(-1) == torch.arange(levels, device=place.device)) | place.isnan().unsqueeze(-1)).double()


def _check_normal(network: Network, numbers: Sequence[str]) -> None:
    if odd := [name for name in numbers if not isinstance(network.nodes[name], LinearMechanism)]:
        raise ValueError(
            f"expected names of nodes with states, or of numbers that are LinearGaussian, got {odd[0]}, whose distribution is "
            "given by a network and is no mixture of normals: query with method='sampling'"
        )


def _groups(network: Network, question: Question, numbers: Sequence[str]) -> list[Group]:
    """The groups of numbers that are asked for."""
    linear = {name: node for name, node in network.nodes.items() if isinstance(node, LinearMechanism)}
    free = [name for name in linear if name in question.wanted and name not in question.cut]
    unknown = {name for name in free if bool(question.known.numbers[name].isnan().any())}
    sizes = {name: len(of.names) for name, of in network.states_of.items()}
    return [group for group in groups(linear, free, unknown, sizes) if set(numbers) & set(group.names)]


def _components(
    network: Network,
    states: dict[str, State],
    question: Question,
    involved: Sequence[Group],
    numbers: Sequence[str],
    over: Sequence[str],
    shape: torch.Size,
) -> tuple[Tensor, Tensor]:
    """Means ``(n, L_1, ..., K, d)`` and covariances of the numbers asked for, given each joint state; in standard units."""
    sizes = {name: len(network.states_of[name].names) for name in over}
    means = question.known.weight.new_zeros(shape.numel() // shape[0], shape[0], len(numbers))
    covariances = means.new_zeros(*means.shape, len(numbers))
    for group in involved:
        own = [place for place, name in enumerate(numbers) if name in group.names]
        inside = [group.names.index(numbers[place]) for place in own]
        x = group.observed(question.known.numbers)
        for rows, values, covariance in normal.completed(group.moments(states, question.known.numbers), x):
            table = values[..., inside].movedim(0, 1).reshape(*group.sizes.values(), len(rows), len(own))
            spreads = covariance[:, inside][:, :, inside].reshape(*group.sizes.values(), len(own), len(own))
            mean = spread(table, group.switches, over, sizes)
            index = torch.tensor(own, device=rows.device)
            means[:, rows.unsqueeze(-1), index] = mean
            block = spread(spreads, group.switches, over, sizes).unsqueeze(1).expand(-1, len(rows), -1, -1)
            covariances[:, rows[:, None, None], index[:, None], index] = block
    return means.movedim(0, 1).reshape(*shape, -1), covariances.movedim(0, 1).reshape(*shape, len(numbers), len(numbers))


def to_source(network: Network, numbers: Sequence[str], units: Units, like: Tensor) -> tuple[Tensor, Tensor]:
    """Shift and scale ``(d,)`` from standard units to those of the source."""
    pairs = []
    for name in numbers:
        place, (loc, scale) = network.numbers.index(name), units.get(name, (0.0, 1.0))
        pairs.append((loc + scale * float(network.loc[place]), scale * float(network.unit[place])))
    both = like.new_tensor(pairs).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def log_units(network: Network, question: Question, units: Units) -> Tensor:
    """What the density of what is given is too high by in standard units, ``(n,)``."""
    total = torch.zeros_like(question.known.weight)
    given = [name for name in question.given if name in network.numbers]
    _, scale = to_source(network, given, units, total)
    for name, unit in zip(given, scale, strict=True):
        total = total + (~question.known.numbers[name].isnan()) * unit.log()
    return total


def check_possible(log_evidence: Tensor) -> None:
    """Raise ``ValueError`` if what is given cannot be, in some row."""
    impossible = (log_evidence == -torch.inf).nonzero().flatten().tolist()
    if impossible:
        where = f" in row {impossible[0]}" if len(log_evidence) > 1 else ""
        raise ValueError(f"what is given has probability zero{where}, so that nothing follows from it: mend it, or give less")
