"""A discrete node that hangs on numbers: a multinomial logistic regression for each joint state of the other parents.

p(node = s | c, x) = softmax_s(b_cs + w_cs . x),    b_c0 = 0, w_c0 = 0
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.ops.indexing import Vindex
from torch import Generator, Tensor, nn

from ppl_vae.declaration import require
from ppl_vae.exact.elimination import ROWS, Factor
from ppl_vae.models.network.nodes import DiscreteMechanism, Facts, Node, State

__all__ = ["LogisticRegression"]

STEPS, HALVINGS = 8, 12  # of Newton's method in a maximization, and of the length of one


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogisticRegression(Node):
    """A node with states that hangs on numbers, and on other states: p(state) is the softmax of linear functions.

    The first state is the one that the others are compared with. The numbers that it hangs on must be known in every row.

    Args:
        parents: names of nodes, with states or numbers.
        states: its own, as for ``Table``.
        coefficients: for each joint state of the parents with states, the last one's changing fastest, and for each of its own
            states but the first the intercept and the slopes, in the units of what the model sees. Where a fit starts.
        learned: whether a fit changes them.

    Raises:
        ValueError: numbers that are not finite; when it is built, not as many as there are joint states, states and parents.

    Examples:
        >>> LogisticRegression(parents=("dose",), states=("ill", "well"), coefficients=(((-1.0, 0.5),),)).given
        True
    """

    states: tuple[str, ...] = ()
    coefficients: tuple[tuple[tuple[float, ...], ...], ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "states", tuple(self.states))
        require(len(set(self.states)) == len(self.states), "every state once", self.states)
        if self.coefficients is not None:
            plain = tuple(tuple(tuple(map(float, row)) for row in rows) for rows in self.coefficients)
            object.__setattr__(self, "coefficients", plain)
            finite = all(math.isfinite(value) for rows in plain for row in rows for value in row)
            require(finite, "finite coefficients", self.coefficients)
        super().__post_init__()

    @property
    def given(self) -> bool:
        """Whether it declares its coefficients."""
        return self.coefficients is not None

    @property
    def declared_states(self) -> tuple[str, ...]:
        """The states that it declares."""
        return self.states

    def check(self, facts: Facts) -> None:
        """Raise ``ValueError`` if its coefficients do not fit its parents and states."""
        if self.coefficients is None:
            return
        shape = (facts.configurations, len(facts.states) - 1, 1 + len(facts.numbers))
        found = {(len(self.coefficients), len(rows), len(row)) for rows in self.coefficients for row in rows}
        if found != {shape}:
            raise ValueError(
                f"expected coefficients of {facts.name} for {shape[0]} joint states of its parents, {shape[1]} of its own and "
                f"{shape[2]} terms, got {sorted(found)}"
            )

    def build(self, facts: Facts) -> LogisticMechanism:
        """Its mechanism."""
        return LogisticMechanism(facts, self)

    def filled(self, mechanism: LogisticMechanism) -> LogisticRegression:
        """The same node with the states and coefficients of a mechanism."""
        rows = mechanism.natural.detach().flatten(0, -3) if mechanism.facts.cards else mechanism.natural.detach().unsqueeze(0)
        plain = tuple(tuple(map(tuple, row)) for row in rows.tolist())
        return dataclasses.replace(self, states=mechanism.facts.states, coefficients=plain)

    def story(self, name: str) -> str:
        """Its density, as mathematics."""
        return f"{name} ~ Categorical(softmax(b + w . ({', '.join(self.parents)})))"


class LogisticMechanism(DiscreteMechanism):
    """Parameters ``coefficients (*cards, L - 1, 1 + P)``, of numbers in the standard units ``loc`` and ``unit (P,)``."""

    loc: Tensor
    unit: Tensor

    def __init__(self, facts: Facts, declared: LogisticRegression) -> None:
        super().__init__(facts, declared)
        shape = (*facts.cards, len(facts.states) - 1, 1 + len(facts.numbers))
        self.coefficients = nn.Parameter(torch.zeros(shape), requires_grad=declared.learned)
        self.register_buffer("loc", torch.zeros(len(facts.numbers), dtype=torch.float64))
        self.register_buffer("unit", torch.ones(len(facts.numbers), dtype=torch.float64))
        if declared.coefficients is not None:
            self.assign((torch.tensor(declared.coefficients, dtype=torch.float64).reshape(shape),))

    @property
    def state(self) -> State:
        """The coefficients in standard units, in float64."""
        return (self.coefficients.double(),)

    @property
    def natural(self) -> Tensor:
        """The coefficients in the units of what the model sees."""
        (coefficients,) = self.state
        slopes = coefficients[..., 1:] / self.unit
        return torch.cat([coefficients[..., :1] - (slopes @ self.loc).unsqueeze(-1), slopes], -1)

    @property
    def free_parameters(self) -> int:
        """The coefficients."""
        return self.coefficients.numel() if self.learned else 0

    @torch.no_grad()
    def assign(self, state: State) -> None:
        """Write coefficients in standard units."""
        self.coefficients.copy_(state[0])

    @torch.no_grad()
    def measure(self, loc: Mapping[str, Tensor], unit: Mapping[str, Tensor]) -> None:
        """Take new standard units, by the names of the numbers; the probabilities stay what they are."""
        natural = self.natural
        for place, name in enumerate(self.facts.numbers):
            self.loc[place], self.unit[place] = loc[name], unit[name]
        intercept = natural[..., :1] + (natural[..., 1:] @ self.loc).unsqueeze(-1)
        self.assign((torch.cat([intercept, natural[..., 1:] * self.unit], -1),))

    def distribution(self, values: Mapping[str, Tensor]) -> dist.Distribution:
        """A categorical at values of the parents."""
        picked = tuple(values[name] for name in self.facts.switches)
        coefficients = Vindex(self.coefficients)[(*picked, slice(None), slice(None))] if picked else self.coefficients
        logits = coefficients[..., 0]
        for place, name in enumerate(self.facts.numbers, start=1):
            logits = logits + coefficients[..., place] * values[name].to(logits).unsqueeze(-1)
        return dist.Categorical(logits=nn.functional.pad(logits, (1, 0)))

    def factor(self, state: State, numbers: Mapping[str, Tensor]) -> Factor:
        """The probabilities, of each row where the node hangs on numbers."""
        names = (*self.facts.switches, self.facts.name)
        if not self.facts.numbers:
            return Factor(_log_softmax(state[0][..., 0]).exp(), names)
        logits = torch.einsum("ni,...i->n...", self._terms(numbers), state[0])
        return Factor(_log_softmax(logits).exp(), (ROWS, *names))

    def statistics(self, expected: Tensor, numbers: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """How often each joint state and state is expected in each row, ``(n, C, L)``, and the rows' terms ``(n, 1 + P)``."""
        counts = expected.reshape(-1, self.facts.configurations, len(self.facts.states))
        return counts, self._terms(numbers) if self.facts.numbers else counts.new_ones(1, 1)

    def maximized(self, state: State, found: Sequence[Any]) -> State:
        """Some of Newton's steps up the expected log-probability, each as long as it climbs."""
        counts, z = (torch.cat(list(parts)) for parts in zip(*found, strict=True))
        beta = state[0].reshape(self.facts.configurations, *state[0].shape[-2:])
        for _ in range(STEPS):
            step = _newton(beta, counts, z)
            before, length = _value(beta, counts, z), torch.ones(len(beta), 1, 1).to(beta)
            for _ in range(HALVINGS):
                fails = _value(beta + length * step, counts, z) < before
                if not bool(fails.any()):
                    break
                length = torch.where(fails[:, None, None], length / 2, length)
            beta = torch.where(fails[:, None, None], beta, beta + length * step)
        return (beta.reshape(state[0].shape),)

    def initial(self, marginal: Tensor, generator: Generator) -> State:
        """The shares of the states in the data, and small random slopes."""
        (zero,) = (torch.zeros_like(part) for part in self.state)
        noise = torch.randn(zero.shape, generator=generator, dtype=zero.dtype, device=zero.device) * 0.1
        share = (marginal.to(zero) + 0.01).log()
        noise[..., 0] += share[1:] - share[0]
        return (noise,)

    def remark(self, found: Sequence[Any]) -> str:
        """Nothing."""
        return ""

    def _terms(self, numbers: Mapping[str, Tensor]) -> Tensor:
        """One, and the numbers that the node hangs on, ``(n, 1 + P)``."""
        columns = [numbers[name] for name in self.facts.numbers]
        return torch.stack([torch.ones_like(columns[0]), *columns], -1)


def _log_softmax(logits: Tensor) -> Tensor:
    """Of the states after the first ``(..., L - 1)``, whose own is zero: ``(..., L)``."""
    return nn.functional.pad(logits, (1, 0)).log_softmax(-1)


def _value(beta: Tensor, counts: Tensor, z: Tensor) -> Tensor:
    """The expected log-probability in each joint state, ``(C,)``."""
    return (counts * _log_softmax(torch.einsum("ni,csi->ncs", z, beta))).sum((0, 2))


def _newton(beta: Tensor, counts: Tensor, z: Tensor) -> Tensor:
    """Newton's step ``(C, L - 1, 1 + P)``, by a curvature that is kept from vanishing."""
    p = _log_softmax(torch.einsum("ni,csi->ncs", z, beta)).exp()[..., 1:]
    rows = counts.sum(-1)
    gradient = torch.einsum("ncs,ni->csi", counts[..., 1:] - rows.unsqueeze(-1) * p, z)
    weight = torch.einsum("nc,ncst->ncst", rows, p.diag_embed() - p.unsqueeze(-1) * p.unsqueeze(-2))
    curvature = torch.einsum("ncst,ni,nj->csitj", weight, z, z)
    C, S, K = gradient.shape
    H = curvature.reshape(C, S * K, S * K)
    ridge = 1e-8 * (1 + H.diagonal(dim1=-2, dim2=-1).amax(-1))
    H = H + ridge[:, None, None] * torch.eye(S * K).to(H)
    return torch.linalg.solve(H, gradient.reshape(C, S * K, 1)).reshape(C, S, K)
