"""Numbers of a network that belong together, because some of them are unknown: one normal vector for each joint state.

A number whose parents are all known is a group of its own; what is known outside of a group moves its mean from row to row.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ppl_vae.exact import conditional_gaussian as normal
from ppl_vae.exact.elimination import ROWS, Factor
from ppl_vae.models.network.linear import LinearMechanism
from ppl_vae.models.network.nodes import State, spread
from ppl_vae.models.network.structure import coupled

__all__ = ["Group", "groups"]

States = Mapping[str, State]


class Group(NamedTuple):
    """Numbers in their order, the discrete variables that they hang on, and how many states these have."""

    names: tuple[str, ...]
    mechanisms: Mapping[str, LinearMechanism]
    sizes: Mapping[str, int]

    @property
    def switches(self) -> tuple[str, ...]:
        """The names of the discrete variables."""
        return tuple(self.sizes)

    def moments(self, states: States, numbers: Mapping[str, Tensor]) -> normal.Moments:
        """Of the group in every joint state, given what is known outside of it."""
        intercepts, variances, slopes = [], [], []
        for name in self.names:
            facts = self.mechanisms[name].facts
            coefficients, variance = (spread(part, facts.switches, self.switches, self.sizes) for part in states[name])
            intercept, inside = coefficients[:, 0], dict.fromkeys(self.names, torch.zeros_like(variance))
            for place, parent in enumerate(facts.numbers, start=1):
                if parent in inside:
                    inside[parent] = coefficients[:, place]
                else:
                    intercept = intercept + numbers[parent].unsqueeze(-1) * coefficients[:, place]
            intercepts.append(intercept)
            variances.append(variance)
            slopes.append(torch.stack([inside[other] for other in self.names], -1))
        b = torch.stack(torch.broadcast_tensors(*intercepts), -1)
        return normal.moments(normal.System(b, torch.stack(slopes, -2), torch.stack(variances, -1)))

    def observed(self, numbers: Mapping[str, Tensor]) -> Tensor:
        """What is known of the group, ``(n, d)``, NaN where it is missing."""
        return torch.stack([numbers[name] for name in self.names], -1)

    def factor(self, states: States, numbers: Mapping[str, Tensor]) -> tuple[Factor, Tensor]:
        """The density of what is observed, as a factor over rows and joint states, and the log of what it is divided by."""
        found = normal.log_density(self.moments(states, numbers), self.observed(numbers))
        highest = found.amax(-1, keepdim=True)
        return Factor((found - highest).exp().reshape(-1, *self.sizes.values()), (ROWS, *self.switches)), highest[:, 0]

    def peak(self, states: States, numbers: Mapping[str, Tensor]) -> Tensor:
        """Log of the density of what is observed times the highest one of what is missing, ``(n, C)``."""
        x, of = self.observed(numbers), self.moments(states, numbers)
        found = normal.log_density(of, x)
        for rows, _, covariance in normal.completed(of, x):
            missing = x[rows[0]].isnan()
            block = covariance + (~missing).diag().to(covariance)
            found[rows] -= block.logdet() / 2 + missing.sum() / 2 * math.log(2 * math.pi)
        return found

    def statistics(self, states: States, numbers: Mapping[str, Tensor], weight: Tensor) -> Iterator[tuple[str, Tensor]]:
        """By number the expected second moments ``(own C, P + 2, P + 2)`` of one, its parents and itself.

        Args:
            states: the parameters.
            numbers: what is known.
            weight: of each row and joint state, ``(n, *sizes)``.
        """
        weight = weight.reshape(len(weight), -1)
        for rows, values, covariance in normal.completed(self.moments(states, numbers), self.observed(numbers)):
            for name in self.names:
                yield (
                    name,
                    self._second_moments(name, weight[rows], values, covariance, {key: x[rows] for key, x in numbers.items()}),
                )

    def collapsed(self, total: Tensor, own: Collection[str]) -> Tensor:
        """Sums ``(C, ...)`` over joint states as ``(own C, ...)`` over those of some of the variables, in their order."""
        rest, own = total.shape[1:], list(own)
        full = total.reshape([*self.sizes.values(), *rest])
        others = [place for place, name in enumerate(self.switches) if name not in own]
        full = full.sum(others) if others else full
        left = [name for name in self.switches if name in own]
        return full.permute([*map(left.index, own), *range(len(own), full.dim())]).reshape(-1, *rest)

    def _second_moments(
        self, name: str, weight: Tensor, values: Tensor, covariance: Tensor, numbers: Mapping[str, Tensor]
    ) -> Tensor:
        facts = self.mechanisms[name].facts
        wanted = (*facts.numbers, name)
        inside = {each: place for place, each in enumerate(self.names)}
        shape = values.shape[:2]
        z = [values[..., inside[each]] if each in inside else numbers[each].unsqueeze(-1).expand(shape) for each in wanted]
        places = [inside.get(each, len(self.names)) for each in wanted]  # what is known has no variance
        padded = torch.nn.functional.pad(covariance, (0, 1, 0, 1))[:, places][:, :, places]
        total = normal.second_moments(weight, torch.stack(z, -1), list(range(len(wanted))), padded)
        return self.collapsed(total, facts.switches)


def groups(
    mechanisms: Mapping[str, LinearMechanism], wanted: Collection[str], unknown: Collection[str], sizes: Mapping[str, int]
) -> list[Group]:
    """The wanted numbers in groups, by which of them are unknown in some row."""
    parents = {
        name: [each for each in mechanisms[name].facts.numbers if each in wanted] for name in mechanisms if name in wanted
    }
    found = []
    for names in coupled(parents, unknown):
        switches = dict.fromkeys(switch for name in names for switch in mechanisms[name].facts.switches)
        found.append(Group(names, {name: mechanisms[name] for name in names}, {switch: sizes[switch] for switch in switches}))
    return found
