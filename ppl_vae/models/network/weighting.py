"""Questions to a network answered by sampling: likelihood weighting.

    w_s = prod over what is given of p(value | parents drawn),    log p(given) = log mean_s w_s

What is not given is drawn from the top downwards, whatever the nodes are (Fung and Chang 1990, "Weighing and integrating
evidence for stochastic simulation in Bayesian networks"). The standard error of a mean under self-normalized weights is the
root of sum_s w_s^2 (f_s - mean)^2 (Owen 2013, "Monte Carlo theory, methods and examples", 9.2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppl_vae.arguments import whole
from ppl_vae.models.network.estimates import Estimate
from ppl_vae.models.network.evidence import Evidence
from ppl_vae.models.network.nodes import DiscreteMechanism
from ppl_vae.models.network.posterior import MOST
from ppl_vae.models.network.questions import Question, Units, asked, to_source
from ppl_vae.models.network.sampled import Network, standard
from ppl_vae.program.context import seeded

__all__ = ["estimated"]

AT_ONCE = 2**21  # draws of all rows together


class Drawn(NamedTuple):
    """Values of the nodes, places of states or numbers in standard units, and logarithms of weights, all ``(n, S)``."""

    values: dict[str, Tensor]
    log_weight: Tensor


@torch.no_grad()
def estimated(
    network: Network,
    names: str | Sequence[str],
    given: Mapping[str, Any],
    do: Mapping[str, Any],
    units: Units,
    *,
    draws: int,
    seed: int,
) -> Estimate:
    """The answer, in the units of the source.

    Raises:
        ValueError: an unknown name or state, a name that is given as well, a table of too many joint states, or evidence that
            no draw agrees with.
    """
    if (draws := whole("draws", draws)) < 2:
        raise ValueError(f"expected at least 2 draws, got {draws}")
    names = (names,) if isinstance(names, str) else tuple(names)
    if not names:
        raise ValueError("expected one name or several different ones, got none")
    question = asked(network, names, given, do, units)
    parts, rows = [], len(question.known.weight)
    with seeded(seed, network.loc.device):
        for start in range(0, rows, at_once := max(1, AT_ONCE // draws)):
            parts.append(_drawn(network, question, slice(start, start + at_once), draws))
    log_weight = torch.cat([part.log_weight for part in parts]) - _log_scales(network, question, units)
    log_evidence = log_weight.logsumexp(-1) - math.log(draws)
    if bool((log_evidence == -torch.inf).any()):
        raise ValueError(
            f"none of {draws} draws agrees with what is given, which has probability zero or nearly so: mend it, give less, or "
            "ask for more draws"
        )
    weights = log_weight.softmax(-1)
    effective = 1 / weights.square().sum(-1)
    discrete = {name: network.states_of[name].names for name in names if name in network.states_of}
    values = {name: torch.cat([part.values[name] for part in parts]) for name in names}
    numbers = tuple(name for name in names if name not in discrete)
    loc, scale = to_source(network, numbers, units, weights)
    found = {
        **dict(zip(("table", "squares"), _tables(discrete, values, weights), strict=True)),
        "weights": weights,
        "log_evidence": log_evidence,
        "log_evidence_error": (draws / effective - 1).clamp_min(0).div(draws - 1).sqrt(),
        "effective": effective,
    }
    found = {name: value[0] if question.single else value for name, value in found.items()}
    of_numbers = {name: values[name] * scale[place] + loc[place] for place, name in enumerate(numbers)}
    of_numbers = {name: value[0] if question.single else value for name, value in of_numbers.items()}
    return Estimate(states=discrete, numbers=numbers, draws=of_numbers, **found)


def _drawn(network: Network, question: Question, rows: slice, draws: int) -> Drawn:
    """Draws of all nodes that matter for some rows."""
    known = Evidence(
        {name: seen[rows] for name, seen in question.known.states.items()},
        {name: values[rows] for name, values in question.known.numbers.items()},
        question.known.weight[rows],
    )
    shape = (len(known.weight), draws)
    found = Drawn({}, known.weight.new_zeros(shape))
    for name, node in network.nodes.items():
        if name not in question.wanted:
            continue
        seen = _seen(name, isinstance(node, DiscreteMechanism), known)
        if name in question.cut:
            assert seen is not None
            found.values[name] = seen.expand(shape)
            continue
        p = node.distribution(found.values).expand(shape)
        is_known = known.weight.new_zeros(len(known.weight), 1, dtype=torch.bool) if seen is None else ~seen.isnan()
        drawn = p.sample()
        if seen is not None and isinstance(node, DiscreteMechanism):
            drawn = torch.where(is_known, seen.nan_to_num().to(drawn), drawn)
        elif seen is not None:
            place = network.numbers.index(name)
            natural = network.loc[place] + network.unit[place] * seen.nan_to_num()
            drawn = torch.where(is_known, node.rounded(natural).to(drawn), drawn)
        if bool(is_known.any()):
            log_p = _log_p(p, drawn, isinstance(node, DiscreteMechanism))
            found.log_weight.add_(torch.where(is_known, log_p, 0.0))
        found.values[name] = drawn if isinstance(node, DiscreteMechanism) else standard(network, name, drawn)
    return found


def _log_p(p: Any, drawn: Tensor, discrete: bool) -> Tensor:
    """Log-probabilities; of a state that cannot be minus infinity, where torch has the smallest number."""
    found: Tensor = (
        p.probs.gather(-1, drawn.unsqueeze(-1)).squeeze(-1).double().log() if discrete else p.log_prob(drawn).double()
    )
    return found


def _seen(name: str, discrete: bool, known: Evidence) -> Tensor | None:
    """The place or number that is known ``(n, 1)``, NaN where none is; ``None`` of a node of which nothing is known."""
    if not discrete:
        return known.numbers[name].unsqueeze(-1)
    if name not in known.states:
        return None
    seen = known.states[name]
    place = seen.argmax(-1).double()
    return torch.where(seen.count_nonzero(-1) == 1, place, torch.nan).unsqueeze(-1)


def _tables(states: Mapping[str, Sequence[str]], values: Mapping[str, Tensor], weights: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of the weights, and of their squares, by joint state, ``(n, L_1, ..., L_m)``."""
    sizes = [len(each) for each in states.values()]
    if math.prod(sizes) > MOST:
        raise ValueError(
            f"expected at most {MOST} joint states of {', '.join(states)}, got {math.prod(sizes)}: ask for fewer nodes at once"
        )
    place = torch.zeros_like(weights, dtype=torch.int64)
    for name, size in zip(states, sizes, strict=True):
        place = place * size + values[name]
    empty = weights.new_zeros(len(weights), math.prod(sizes))
    table, squares = (empty.scatter_add(-1, place, each).reshape(-1, *sizes) for each in (weights, weights.square()))
    return table, squares


def _log_scales(network: Network, question: Question, units: Units) -> Tensor:
    """What a density in the units of what the model sees is too high by, ``(n, 1)``."""
    total = torch.zeros_like(question.known.weight)
    for name in question.given:
        if name in network.numbers and name in units:
            total = total + (~question.known.numbers[name].isnan()) * math.log(units[name][1])
    return total.unsqueeze(-1)
