"""The top-down guide of a hierarchy: in the order of the model, whose way down it shares.

    q(zL, ..., z1 | x) = q(zL | x) prod_l q(zl | x, those above)

Numbers of x rise through the groups by networks without noise; each group is then drawn given those above it, its q made of
what x says and of what the model's own network says of the group: by precisions (Sonderby et al. 2016, "Ladder variational
autoencoders"), or as a difference from the prior (Vahdat and Kautz 2020, "NVAE").
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import pyro.distributions as dist
from torch import Tensor, nn
from torch.nn.functional import softplus

from ppl_vae.declaration import require
from ppl_vae.guides.ascent import Ascent, hierarchy
from ppl_vae.guides.base import Guide
from ppl_vae.nn import Network
from ppl_vae.nn.pointwise import Pointwise
from ppl_vae.program.base import GuideProgram
from ppl_vae.program.joint import Factor, Joint
from ppl_vae.program.levels import MIN_SCALE, Level, joined, normal
from ppl_vae.types import DataSpec

__all__ = ["TopDown"]

UNIT = math.log(math.expm1(1.0))  # what softplus makes one of


@dataclasses.dataclass(frozen=True, kw_only=True)
class TopDown(Guide):
    """q(zL | x) prod_l q(zl | x, those above), each normal, for :class:`~ppl_vae.HierarchicalVAE`.

    With ``precision`` q is the product of the prior p(zl | those above) = Normal(m, s^2) with Normal(m', s'^2) from x
    (Sonderby et al. 2016): mean (m / s^2 + m' / s'^2) / (1 / s^2 + 1 / s'^2), variance 1 / (1 / s^2 + 1 / s'^2). With
    ``residual`` it is Normal(m + dm, (s ds)^2), dm and ds of x and of the model's features (Vahdat and Kautz 2020), whose KL is
    (dm^2 / s^2 + ds^2 - ln ds^2 - 1) / 2. The top group is normal with moments of x alone.

    Args:
        encoder: the network from the data to the bottom group and from each group to the next above; by default that of the
            group which it leads to.
        merge: how what x says meets the prior, ``precision`` or ``residual``.

    Raises:
        ValueError: another merge; on building, a model without groups.

    Examples:
        >>> print(TopDown())
        q(zl | x, those above) = p(zl | those above) Normal(zl; (m, s)(x)) / Z
    """

    encoder: Network | None = None
    merge: Literal["precision", "residual"] = "precision"

    def __post_init__(self) -> None:
        require(self.merge in MERGES, f"a merge of {', '.join(MERGES)}", self.merge)

    def build(self, model: Any, spec: DataSpec) -> nn.Module:
        """The Pyro program for the groups of ``model``."""
        return MERGES[self.merge](self, hierarchy(self, model), spec)

    def story(self) -> str:
        """The factorization, as mathematics."""
        if self.merge == "residual":
            return "q(zl | x, those above) = Normal(m + dm, (s ds)^2), m and s of the prior, (dm, ds)(x, those above)"
        return "q(zl | x, those above) = p(zl | those above) Normal(zl; (m, s)(x)) / Z"


class TopDownGuide(GuideProgram):
    """A subclass says how many numbers of its own a group has of x, and its q of these and of the model's."""

    def __init__(self, declared: TopDown, model: Any, spec: DataSpec) -> None:
        super().__init__()
        self.size = spec.size
        self.levels: tuple[Level, ...] = model.levels
        self._model = (model,)  # in a tuple, so that its parameters are not listed twice
        self.ascent = Ascent(self.levels, declared.encoder, spec, self.own)

    def own(self, level: Level) -> int:
        """How many numbers of its own a group has, in front of the features for the group above."""
        return 2 * level.shape[0]

    def merged(self, level: Level, mine: Tensor, prior: Tensor) -> dist.Distribution:
        """The factor of a group below the top, of its own numbers and those of the model ``(..., 2 K + F, *space)``."""
        raise NotImplementedError

    def posterior(self, *batch: Tensor) -> Any:
        """The joint of all groups for x ``(..., *event)``."""
        return self.at(*self.local(*batch))

    def local(self, *batch: Tensor) -> tuple[Tensor, ...]:
        """What x says of each group ``(..., channels, *space)``, from the top to the bottom."""
        return self.ascent(batch[0])

    def at(self, *local: Tensor) -> Any:
        """The member of the family with these numbers."""
        descent, top = self._model[0].descent(), self.levels[0]
        first = normal(top, *top.split(local[0]))
        if len(self.levels) == 1:
            return first
        factors: dict[str, Factor] = {top.name: first}
        for place, level in enumerate(self.levels[1:], 1):
            factors[level.name] = partial(self._factor, descent, place, level, local[place])
        return Joint(factors)

    def _factor(self, descent: Any, place: int, level: Level, mine: Tensor, z: dict[str, Tensor]) -> dist.Distribution:
        return self.merged(level, mine, descent(place, z))


class PrecisionGuide(TopDownGuide):
    """The product of the prior with a normal of x."""

    def merged(self, level: Level, mine: Tensor, prior: Tensor) -> dist.Distribution:
        """Precisions add up."""
        loc, raw_scale, *_ = level.split(prior, level.passed)
        mine_loc, mine_raw = level.split(mine)
        variance, own = ((softplus(raw) + MIN_SCALE).square() for raw in (raw_scale, mine_raw))
        total = variance + own
        q = dist.Normal((loc * own + mine_loc * variance) / total, (variance * own / total).sqrt())
        return q.to_event(len(level.shape))


class ResidualGuide(TopDownGuide):
    """The prior, moved and rescaled by a network of features of x and of the model at each place."""

    def __init__(self, declared: TopDown, model: Any, spec: DataSpec) -> None:
        super().__init__(declared, model, spec)
        self.heads = nn.ModuleDict(
            {
                level.name: Pointwise(
                    level.features + 2 * level.shape[0] + level.passed,
                    level.features,
                    2 * level.shape[0],
                    event_dim=len(level.shape),
                )
                for level in self.levels[1:]
            }
        )

    def own(self, level: Level) -> int:
        """None but of the top, the only group without features."""
        return 0 if level.features else 2 * level.shape[0]

    def merged(self, level: Level, mine: Tensor, prior: Tensor) -> dist.Distribution:
        """Normal(m + dm, (s ds)^2)."""
        loc, raw_scale, *_ = level.split(prior, level.passed)
        moved, rescaled = level.split(self.heads[level.name](joined(level, mine, prior)))
        scale = (softplus(raw_scale) + MIN_SCALE) * (softplus(rescaled + UNIT) + MIN_SCALE)
        return dist.Normal(loc + moved, scale).to_event(len(level.shape))


MERGES: dict[str, Callable[..., nn.Module]] = {"precision": PrecisionGuide, "residual": ResidualGuide}
