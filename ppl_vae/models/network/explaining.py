"""What all that is unknown most probably is together, given what is known: the most probable explanation.

    argmax over states s and numbers x of p(s, x | given, do)

The numbers are at their conditional means given the states; the density there, which differs from state to state, counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ppl_vae.exact import conditional_gaussian as normal
from ppl_vae.exact.elimination import ROWS, Factor
from ppl_vae.exact.maximization import maximum
from ppl_vae.models.network import steps
from ppl_vae.models.network.answers import Explanation
from ppl_vae.models.network.evidence import Evidence
from ppl_vae.models.network.groups import Group
from ppl_vae.models.network.linear import LinearMechanism
from ppl_vae.models.network.nodes import State
from ppl_vae.models.network.questions import Question, Units, asked, check_possible, log_units, to_source
from ppl_vae.models.network.sampled import Network

__all__ = ["explained"]


@torch.no_grad()
def explained(
    network: Network, states: dict[str, State], given: Mapping[str, Any], do: Mapping[str, Any], units: Units
) -> Explanation:
    """The explanation, in the units of the source.

    Raises:
        ValueError: an unknown name or state, evidence that cannot be, or maxima that are too large.
    """
    question = asked(network, (), given, do, units)
    for name in question.wanted.intersection(network.numbers) - question.cut:
        if not isinstance(network.nodes[name], LinearMechanism) and bool(question.known.numbers[name].isnan().any()):
            raise ValueError(f"expected a value of {name}, a network of its parents, whose mode is not known: give one")
    known, options = question.known, {"wanted": question.wanted, "cut": question.cut}
    log_evidence = steps.log_evidence(network.nodes, states, known, **options)
    check_possible(log_evidence)
    of_rows = steps.terms(network.nodes, states, known, whole=True, **options)
    factors, shift = _peaks(of_rows, states, known)
    log_p, places = maximum(factors, len(known.weight))
    numbers = {name: values for name, values in known.numbers.items() if name in question.wanted}
    for owner in of_rows.owners:
        if isinstance(owner, Group):
            numbers |= _at(owner, states, known, places)
    free = [name for name in network.numbers if name not in question.cut]
    log_p = log_p + shift - log_evidence - _log_scales(network, free, known, units)
    found = _named(network, question, places, numbers, units)
    answer = {"log_probability": log_p, "log_evidence": log_evidence - log_units(network, question, units)}
    return Explanation(values=found, **{name: value[0] if question.single else value for name, value in answer.items()})


def _peaks(of_rows: steps.Terms, states: dict[str, State], known: Evidence) -> tuple[list[Factor], Tensor]:
    """The factors with the densities of numbers at their highest, and the logarithm of what they are divided by."""
    factors, shift = [], torch.zeros_like(known.weight)
    for owner, factor in zip(of_rows.owners, of_rows.factors, strict=True):
        if isinstance(owner, Group):
            found = owner.peak(states, known.numbers)
            highest = found.amax(-1, keepdim=True)
            factor = Factor((found - highest).exp().reshape(-1, *owner.sizes.values()), (ROWS, *owner.switches))
            shift = shift + highest[:, 0]
        factors.append(factor)
    return factors, shift


def _at(group: Group, states: dict[str, State], known: Evidence, places: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The numbers of a group at their conditional means, given the states."""
    x = group.observed(known.numbers)
    place = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    for name, size in group.sizes.items():
        place = place * size + places[name]
    for rows, values, _ in normal.completed(group.moments(states, known.numbers), x.clone()):
        x[rows] = values[torch.arange(len(rows), device=x.device), place[rows]]
    return dict(zip(group.names, x.unbind(-1), strict=True))


def _log_scales(network: Network, unknown: Sequence[str], known: Evidence, units: Units) -> Tensor:
    """What the density of the numbers that are not known is too high by in standard units, ``(n,)``."""
    total = torch.zeros_like(known.weight)
    _, scale = to_source(network, unknown, units, total)
    for name, unit in zip(unknown, scale, strict=True):
        total = total + known.numbers[name].isnan() * unit.log()
    return total


def _named(
    network: Network, question: Question, places: Mapping[str, Tensor], numbers: Mapping[str, Tensor], units: Units
) -> dict[str, Any]:
    """States by name and numbers in the units of the source, of all nodes of which some row does not tell."""
    found: dict[str, Any] = {}
    for name in network.nodes:
        if name in question.cut:
            continue
        if name in network.states_of:
            seen = question.known.states.get(name)
            if seen is not None and bool((seen.count_nonzero(-1) == 1).all()):
                continue
            values: list[Any] = [network.states_of[name].names[place] for place in places[name].tolist()]
        else:
            if not bool(question.known.numbers[name].isnan().any()):
                continue
            loc, scale = to_source(network, [name], units, numbers[name])
            values = (numbers[name] * scale + loc).tolist()
        found[name] = values[0] if question.single else values
    return found
