"""The bottom-up guide of a hierarchy, against the order of the model.

    q(z1, ..., zL | x) = q(z1 | x) prod_l q(zl | z(l-1))

As of Rezende, Mohamed and Wierstra 2014 and Burda, Grosse and Salakhutdinov 2016. The KL of a group has no closed form, since
its prior hangs on what is drawn later.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import pyro.distributions as dist
from torch import Tensor, nn

from ppl_vae.guides.ascent import hierarchy, steps
from ppl_vae.guides.base import Guide
from ppl_vae.nn import Network
from ppl_vae.program.base import GuideProgram
from ppl_vae.program.joint import Factor, Joint
from ppl_vae.program.levels import Level, normal
from ppl_vae.types import DataSpec

__all__ = ["BottomUp"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BottomUp(Guide):
    """q(z1 | x) prod_l q(zl | z(l-1)), each normal, for :class:`~ppl_vae.HierarchicalVAE` (Burda et al. 2016).

    Args:
        encoder: the network from the data to the bottom group and from each group to the next above; by default that of the
            group which it leads to.

    Raises:
        ValueError: on building, a model without groups.

    Examples:
        >>> print(BottomUp())
        q(z1 | x) = Normal((m, s)(x)); q(zl | z(l-1)) = Normal((m, s)(z(l-1)))
    """

    encoder: Network | None = None

    def build(self, model: Any, spec: DataSpec) -> nn.Module:
        """The Pyro program for the groups of ``model``."""
        return BottomUpGuide(self, hierarchy(self, model), spec)

    def story(self) -> str:
        """The factorization, as mathematics."""
        return "q(z1 | x) = Normal((m, s)(x)); q(zl | z(l-1)) = Normal((m, s)(z(l-1)))"


class BottomUpGuide(GuideProgram):
    """A network to each group from the one below, the first from x."""

    def __init__(self, declared: BottomUp, model: Any, spec: DataSpec) -> None:
        super().__init__()
        self.size = spec.size
        self.levels: tuple[Level, ...] = tuple(reversed(model.levels))
        channels = lambda level: level.shape[0]  # noqa: E731
        self.steps = steps(model.levels, declared.encoder, spec, channels, lambda level: 2 * level.shape[0])

    @property
    def mean_field(self) -> bool:
        """Of a lone group alone: the prior of any other hangs on what is drawn after it."""
        return len(self.levels) == 1

    def posterior(self, *batch: Tensor) -> Any:
        """The joint of all groups for x ``(..., *event)``."""
        return self.at(*self.local(*batch))

    def local(self, *batch: Tensor) -> tuple[Tensor, ...]:
        """What x says of the bottom group, ``(..., 2 K, *space)``."""
        return (self.steps[0](batch[0]),)

    def at(self, *local: Tensor) -> Any:
        """The member of the family with these numbers."""
        bottom = self.levels[0]
        first = normal(bottom, *bottom.split(local[0]))
        if len(self.levels) == 1:
            return first
        factors: dict[str, Factor] = {bottom.name: first}
        for place in range(1, len(self.levels)):
            factors[self.levels[place].name] = partial(self._factor, place)
        return Joint(factors)

    def _factor(self, place: int, z: dict[str, Tensor]) -> dist.Distribution:
        level = self.levels[place]
        return normal(level, *level.split(self.steps[place](z[self.levels[place - 1].name])))
