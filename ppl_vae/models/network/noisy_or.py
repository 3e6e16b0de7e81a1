"""A node that any of its parents may turn on, each by itself (Pearl 1988; Henrion 1989 for the leak).

p(off | parents) = (1 - leak) prod over parents that are on of (1 - q_parent)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.ops.indexing import Vindex
from torch import Generator, Tensor, nn

from ppl_vae.declaration import require
from ppl_vae.exact.elimination import Factor
from ppl_vae.models.network.nodes import DiscreteMechanism, Facts, Node, State

__all__ = ["NoisyOr"]

STEPS = 20  # in a maximization
LEAST = 1e-12


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoisyOr(Node):
    """A node of two states, off and on in this order, as are those of its parents: one number for each parent, not a table.

    Args:
        parents: names of nodes with two states.
        states: its own two, off first.
        probs: q, how probably each parent that is on turns it on. Where a fit starts, with ``leak``.
        leak: how probably it is on while all parents are off.
        learned: whether a fit changes them.

    Raises:
        ValueError: other than two states, probabilities outside of [0, 1], some without the others; when it is built, parents
            of other than two states, or not one probability for each.

    Examples:
        >>> cough = NoisyOr(parents=("cold", "flu"), states=("no", "yes"), probs=(0.4, 0.8), leak=0.02)
        >>> print(cough.story("cough"))
        cough ~ NoisyOr(cold, flu, leak)
    """

    states: tuple[str, ...] = ()
    probs: tuple[float, ...] | None = None
    leak: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "states", tuple(self.states))
        require(len(self.states) in (0, 2) and len(set(self.states)) == len(self.states), "two states", self.states)
        require((self.probs is None) == (self.leak is None), "probs and leak together, or none of them", self.probs)
        every = (*(self.probs or ()), self.leak or 0.0)
        require(all(0 <= value <= 1 for value in every), "probabilities from 0 to 1", every)
        super().__post_init__()

    @property
    def given(self) -> bool:
        """Whether it declares its probabilities."""
        return self.probs is not None

    @property
    def declared_states(self) -> tuple[str, ...]:
        """The states that it declares."""
        return self.states

    def check(self, facts: Facts) -> None:
        """Raise ``ValueError`` if its parents have not two states each, or its probabilities are not one for each."""
        odd = [name for name, states in zip(facts.switches, facts.switch_states, strict=True) if len(states) != 2]
        if facts.numbers or odd or len(facts.states) != 2:
            told = ", ".join((*facts.numbers, *odd)) or facts.name
            raise ValueError(f"expected {facts.name} and its parents to have two states each, got others of {told}: use Table")
        if self.probs is not None and len(self.probs) != len(facts.switches):
            raise ValueError(
                f"expected probs of {facts.name}, one for each of {len(facts.switches)} parents, got {len(self.probs)}"
            )

    def build(self, facts: Facts) -> NoisyOrMechanism:
        """Its mechanism."""
        return NoisyOrMechanism(facts, self)

    def filled(self, mechanism: NoisyOrMechanism) -> NoisyOr:
        """The same node with the states and probabilities of a mechanism."""
        leak, *probs = mechanism.state[0].detach().tolist()
        return dataclasses.replace(self, states=mechanism.facts.states, probs=tuple(probs), leak=leak)

    def story(self, name: str) -> str:
        """Its density, as mathematics."""
        return f"{name} ~ NoisyOr({', '.join((*self.parents, 'leak'))})"


class NoisyOrMechanism(DiscreteMechanism):
    """Parameters ``logits (1 + P,)`` of the leak and of each parent's probability."""

    on: Tensor

    def __init__(self, facts: Facts, declared: NoisyOr) -> None:
        super().__init__(facts, declared)
        self.logits = nn.Parameter(torch.zeros(1 + len(facts.switches)), requires_grad=declared.learned)
        axes = [torch.tensor([0.0, 1.0])] * len(facts.switches)
        on = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1) if axes else torch.zeros(0)
        self.register_buffer("on", nn.functional.pad(on, (1, 0), value=1.0), persistent=False)  # (*cards, 1 + P)
        if declared.probs is not None and declared.leak is not None:
            self.assign((torch.tensor([declared.leak, *declared.probs], dtype=torch.float64),))

    @property
    def state(self) -> State:
        """The probabilities ``(1 + P,)``, the leak's first, in float64."""
        return (self.logits.double().sigmoid(),)

    @property
    def free_parameters(self) -> int:
        """One for each parent, and the leak."""
        return len(self.logits) if self.learned else 0

    @torch.no_grad()
    def assign(self, state: State) -> None:
        """Write probabilities."""
        self.logits.copy_(state[0].clamp(LEAST, 1 - LEAST).logit())

    def table(self, q: Tensor) -> Tensor:
        """The distributions ``(*cards, 2)`` of probabilities q ``(1 + P,)``."""
        off = (self.on.to(q) * torch.log1p(-q.clamp(max=1 - LEAST))).sum(-1).exp()
        return torch.stack([off, 1 - off], -1)

    def distribution(self, values: Mapping[str, Tensor]) -> dist.Distribution:
        """A categorical at the places of the parents' states."""
        picked = tuple(values[name] for name in self.facts.switches)
        table = self.table(self.logits.sigmoid())
        return dist.Categorical(probs=Vindex(table)[(*picked, slice(None))] if picked else table)

    def factor(self, state: State, numbers: Mapping[str, Tensor]) -> Factor:
        """The table."""
        return Factor(self.table(state[0]), (*self.facts.switches, self.facts.name))

    def statistics(self, expected: Tensor, numbers: Mapping[str, Tensor]) -> Tensor:
        """The counts."""
        return expected

    def maximized(self, state: State, found: Sequence[Any]) -> State:
        """EM within the step, over which of the parents turned it on: a parent did with probability q / p(on)."""
        counts = torch.stack(list(found)).sum(0)
        q, on = state[0], self.on.to(counts)
        met = (on * counts.sum(-1, keepdim=True)).reshape(-1, len(q)).sum(0)
        for _ in range(STEPS):
            share = counts[..., 1] / self.table(q)[..., 1].clamp_min(LEAST)
            turned = q * (on * share.unsqueeze(-1)).reshape(-1, len(q)).sum(0)
            q = torch.where(met > 0, (turned / met.clamp_min(LEAST)).clamp(LEAST, 1 - LEAST), q)
        return (q,)

    def initial(self, marginal: Tensor, generator: Generator) -> State:
        """Random probabilities, and a small leak."""
        q = 0.3 + 0.4 * torch.rand(len(self.logits), generator=generator, dtype=torch.float64, device=generator.device)
        q[0] = 0.1
        return (q,)

    def remark(self, found: Sequence[Any]) -> str:
        """Nothing."""
        return ""
