"""A node that is a number: a linear regression on its parents that are numbers, one for each joint state of the others.

y = b_c + sum_p w_cp x_p + Normal(0, s_c^2)
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import pyro.distributions as dist
import torch
from pyro.ops.indexing import Vindex
from torch import Tensor, nn

from ppl_vae.declaration import require
from ppl_vae.models.network.nodes import Facts, Mechanism, Node, State

__all__ = ["LinearGaussian", "LinearMechanism"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearGaussian(Node):
    """A number: normal about a linear function of its parents that are numbers, another for each joint state of the others.

    The standard deviation is the maximum-likelihood one, the root of the sum of squares divided by the number of rows, not by
    what is left of it after the coefficients, and not below the network's ``floor``.

    Args:
        parents: names of nodes, with states or numbers.
        intercepts: one for each joint state of the parents with states, the last one's changing fastest. Where a fit starts, in
            the units of what the model sees; by default it finds its own start.
        slopes: for each joint state one of each parent that is a number, in the order of ``parents``.
        scales: the standard deviations, one for each joint state.
        learned: whether a fit changes them.

    Raises:
        ValueError: some of the numbers without the others, a scale that is not positive; when it is built, not as many as there
            are joint states.

    Examples:
        >>> height = LinearGaussian(parents=("sex", "age"), intercepts=(80.0, 78.0), slopes=((6.0,), (6.1,)), scales=(5.0, 5.0))
        >>> height.given
        True
    """

    intercepts: tuple[float, ...] | None = None
    slopes: tuple[tuple[float, ...], ...] | None = None
    scales: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.slopes is not None:
            object.__setattr__(self, "slopes", tuple(map(tuple, self.slopes)))
        together = (self.intercepts is None) == (self.scales is None) and (self.slopes is None or self.intercepts is not None)
        require(together, "intercepts, slopes and scales together, or none of them", self.intercepts)
        numbers = [*(self.intercepts or ()), *(value for row in self.slopes or () for value in row)]
        require(all(map(math.isfinite, numbers)), "finite intercepts and slopes", numbers)
        require(all(0 < scale < math.inf for scale in self.scales or ()), "positive scales", self.scales)
        super().__post_init__()

    @property
    def discrete(self) -> bool:
        """No: it is a number."""
        return False

    @property
    def unit_free(self) -> bool:
        """Yes: its coefficients follow."""
        return True

    @property
    def given(self) -> bool:
        """Whether it declares its numbers."""
        return self.intercepts is not None

    def check(self, facts: Facts) -> None:
        """Raise ``ValueError`` if its numbers are not one set for each joint state of the parents with states."""
        if not self.given:
            return
        shapes = (
            len(self.intercepts or ()),
            [len(row) for row in self.slopes or ((),) * facts.configurations],
            len(self.scales or ()),
        )
        expected = (facts.configurations, [len(facts.numbers)] * facts.configurations, facts.configurations)
        if shapes != expected:
            raise ValueError(
                f"expected for {facts.name} {expected[0]} intercepts and scales and as many rows of {len(facts.numbers)} "
                f"slopes, one for each joint state of {', '.join(facts.switches) or 'no parents'}, got {shapes[0]}, "
                f"{shapes[2]} and rows of {shapes[1]}"
            )

    def build(self, facts: Facts) -> LinearMechanism:
        """Its mechanism."""
        return LinearMechanism(facts, self)

    def filled(self, mechanism: LinearMechanism) -> LinearGaussian:
        """The same node with the numbers of a mechanism, in the units of what the model sees."""
        coefficients, scales = (values.detach() for values in mechanism.natural)
        rows = coefficients.reshape(-1, coefficients.shape[-1]).tolist()
        intercepts, slopes = tuple(row[0] for row in rows), tuple(tuple(row[1:]) for row in rows)
        return dataclasses.replace(self, intercepts=intercepts, slopes=slopes, scales=tuple(scales.flatten().tolist()))

    def story(self, name: str) -> str:
        """Its density, as mathematics."""
        return f"{name} ~ Normal(b + w . ({', '.join(self.parents)}), s^2)" if self.parents else f"{name} ~ Normal(b, s^2)"


class LinearMechanism(Mechanism):
    """Parameters ``coefficients (*cards, 1 + P)``, intercept and slopes, and ``log_scale (*cards)``, in standard units.

    The buffers ``loc`` and ``unit`` ``(P + 1,)`` say what those are, of the parents that are numbers and of the node.
    """

    loc: Tensor
    unit: Tensor

    def __init__(self, facts: Facts, declared: LinearGaussian) -> None:
        super().__init__(facts, declared)
        columns = len(facts.numbers) + 1
        self.coefficients = nn.Parameter(torch.zeros(*facts.cards, columns), requires_grad=declared.learned)
        self.log_scale = nn.Parameter(torch.zeros(facts.cards), requires_grad=declared.learned)
        self.register_buffer("loc", torch.zeros(columns, dtype=torch.float64))
        self.register_buffer("unit", torch.ones(columns, dtype=torch.float64))
        if declared.given:
            self.assign(self._declared(declared))

    @property
    def state(self) -> State:
        """Coefficients ``(*cards, 1 + P)`` and variances ``(*cards)`` in standard units, in float64."""
        return self.coefficients.double(), (2 * self.log_scale.double()).exp()

    @property
    def free_parameters(self) -> int:
        """Coefficients and scales."""
        return self.coefficients.numel() + self.log_scale.numel() if self.learned else 0

    @property
    def natural(self) -> tuple[Tensor, Tensor]:
        """Coefficients ``(*cards, 1 + P)`` and standard deviations ``(*cards)``, in the units of what the model sees."""
        coefficients, variance = self.state
        slopes = coefficients[..., 1:] * self.unit[-1] / self.unit[:-1]
        intercept = self.loc[-1] + self.unit[-1] * coefficients[..., 0] - slopes @ self.loc[:-1]
        return torch.cat([intercept.unsqueeze(-1), slopes], -1), self.unit[-1] * variance.sqrt()

    @torch.no_grad()
    def assign(self, state: State) -> None:
        """Write coefficients and variances in standard units."""
        coefficients, variance = state
        self.coefficients.copy_(coefficients)
        self.log_scale.copy_(variance.log() / 2)

    @torch.no_grad()
    def measure(self, loc: Mapping[str, Tensor], unit: Mapping[str, Tensor]) -> None:
        """Take new standard units, by the names of the numbers; the density stays what it is."""
        coefficients, scale = self.natural
        names = (*self.facts.numbers, self.facts.name)
        self.loc.copy_(torch.stack([loc[name] for name in names]))
        self.unit.copy_(torch.stack([unit[name] for name in names]))
        slopes = coefficients[..., 1:] * self.unit[:-1] / self.unit[-1]
        intercept = (coefficients[..., 0] + coefficients[..., 1:] @ self.loc[:-1] - self.loc[-1]) / self.unit[-1]
        self.assign((torch.cat([intercept.unsqueeze(-1), slopes], -1), (scale / self.unit[-1]).square()))

    def distribution(self, values: Mapping[str, Tensor]) -> dist.Distribution:
        """Normal, in the units of what the model sees."""
        picked = tuple(values[name] for name in self.facts.switches)
        coefficients, log_scale = self.coefficients, self.log_scale
        if picked:
            coefficients, log_scale = Vindex(coefficients)[(*picked, slice(None))], Vindex(log_scale)[picked]
        mean = coefficients[..., 0]
        for place, name in enumerate(self.facts.numbers, start=1):
            mean = mean + coefficients[..., place] * values[name]
        loc, unit = self.loc[-1].to(mean), self.unit[-1].to(mean)
        return dist.Normal(loc + unit * mean, unit * log_scale.exp())

    def _declared(self, declared: LinearGaussian) -> State:
        kind: Any = {"dtype": torch.float64}
        shape = self.log_scale.shape
        intercepts, scales = (torch.tensor(row, **kind).reshape(shape) for row in (declared.intercepts, declared.scales))
        slopes = torch.tensor(declared.slopes or [[]] * self.facts.configurations, **kind).reshape(*shape, -1)
        return torch.cat([intercepts.unsqueeze(-1), slopes], -1), scales.square()
