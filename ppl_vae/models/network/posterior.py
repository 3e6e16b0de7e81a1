"""p(hidden states | what is known), one-hot, of one hidden node or jointly of several."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from ppl_vae.exact.elimination import ROWS, sums
from ppl_vae.models.network import steps
from ppl_vae.models.network.evidence import Evidence
from ppl_vae.models.network.nodes import Mechanism, State
from ppl_vae.program.joint import Joint

__all__ = ["joint_table", "posterior"]

MOST = 2**12  # joint states of all hidden nodes


@torch.no_grad()
def posterior(
    nodes: Mapping[str, Mechanism], states: dict[str, State], known: Evidence, hidden: Sequence[str], dtype: torch.dtype
) -> Any:
    """A distribution, or of several hidden nodes a joint, of batch shape ``(n,)``.

    Raises:
        ValueError: nothing is hidden that has states, or more joint states than a table holds.
    """
    if not hidden:
        raise ValueError("no node with states is hidden, so that rows have no codes: ask for nodes by fit.query")
    table = joint_table(nodes, states, known, hidden)
    if len(hidden) == 1:
        return dist.OneHotCategorical(probs=table.to(dtype))
    factors: dict[str, Any] = {}
    marginals: dict[str, Tensor] = {}
    for place, name in enumerate(hidden):
        others = [dim for dim in range(1, table.dim()) if dim != place + 1]
        marginals[name] = table.sum(others).to(dtype)
        marginal = table.flatten(place + 2).sum(-1) if place + 1 < len(hidden) else table
        factors[name] = _conditional(marginal, hidden[:place], dtype)
    return HiddenStates(factors, marginals)


class HiddenStates(Joint):
    """A joint whose mean is the marginal of each variable, not what is fed forward from one to the next."""

    def __init__(self, factors: Mapping[str, Any], marginals: Mapping[str, Tensor]) -> None:
        super().__init__(factors)
        self._marginals = dict(marginals)

    @property
    def mean(self) -> dict[str, Tensor]:
        """p(state | what is known) of each variable, ``(n, L)``."""
        return dict(self._marginals)


def joint_table(
    nodes: Mapping[str, Mechanism], states: dict[str, State], known: Evidence, names: Sequence[str], **options: Any
) -> Tensor:
    """p(names | known), ``(n, L_1, ..., L_m)``.

    Raises:
        ValueError: more joint states than a table holds.
    """
    size = math.prod(len(nodes[name].facts.states) for name in names)
    if size > MOST:
        raise ValueError(f"expected at most {MOST} joint states of {', '.join(names)}, got {size}: ask for fewer nodes at once")
    found = []
    for part in steps.parts(nodes, states, known, output=(ROWS, *names), **options):
        values, _ = sums(steps.terms(nodes, states, part, **options).factors, (ROWS, *names))
        found.append(values)
    table = torch.cat(found)
    return table / table.flatten(1).sum(-1).reshape(-1, *[1] * len(names))


def _conditional(marginal: Tensor, before: Sequence[str], dtype: torch.dtype) -> Any:
    """Of the last axis of ``(n, L_1, ..., L_m)`` given one-hot values of those before it."""
    table = marginal / marginal.sum(-1, keepdim=True).clamp_min(torch.finfo(marginal.dtype).tiny)
    if not before:
        return dist.OneHotCategorical(probs=table.to(dtype))

    def given(z: Mapping[str, Tensor]) -> dist.Distribution:
        rows, last = len(before) + 1, len(before)
        arguments: list[Any] = [table, [rows, *range(last + 1)]]
        for place, name in enumerate(before):
            arguments += [z[name].to(table), [..., rows, place]]
        probs: Tensor = torch.einsum(*arguments, [..., rows, last])
        return dist.OneHotCategorical(probs=probs.clamp_min(0).to(dtype))

    return given
