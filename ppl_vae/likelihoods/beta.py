"""The Beta likelihood."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from ppl_vae.declaration import require
from ppl_vae.likelihoods.base import Likelihood, argument_of
from ppl_vae.likelihoods.unit_interval import Stretched, check_margin
from ppl_vae.stable import log_beta
from ppl_vae.types import UNIT_INTERVAL, Kind

__all__ = ["Beta", "LogBeta"]

TINY = 1e-30  # a concentration that float32 rounds to zero has no density


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beta(Likelihood):
    """p(x | h) = prod_d t_d^(a_d - 1) (1 - t_d)^(b_d - 1) / B(a_d, b_d) / (1 + 2 margin), a = m c, b = (1 - m) c.

    The mean m = sigmoid(h_0) and the concentration c = softplus(h_1 + const) are those of Ferrari and Cribari-Neto 2004,
    "Beta regression for modelling rates and proportions". The density of t in (0, 1) is zero or infinite at the ends, where
    pixels often lie, so it is stretched a little beyond them: ``x = (1 + 2 margin) t - margin``. Draws may leave [0, 1] by
    as much.

    Args:
        margin: how far the support reaches beyond 0 and 1; half a level of 8-bit images by default. With 0 the support is
            the open interval, and data with exact zeros or ones are refused.
        concentration: c of features of zero; at 2 these give the uniform distribution.

    Raises:
        ValueError: a negative margin, or a concentration that is not positive.

    Examples:
        >>> Beta(margin=0.0).build((1,))(torch.zeros(2, 1)).log_prob(torch.tensor([0.3])).abs().round(decimals=5)
        tensor(0.)
    """

    accepts: ClassVar[frozenset[Kind]] = frozenset({UNIT_INTERVAL})
    filler: ClassVar[float] = 0.5

    margin: float = 0.5 / 255
    concentration: float = 2.0

    def __post_init__(self) -> None:
        check_margin(self.margin)
        require(0 < self.concentration < math.inf, "a positive concentration", self.concentration)

    @property
    def features(self) -> int:
        """The logit of the mean, and the concentration before softplus."""
        return 2

    def build(self, event_shape: tuple[int, ...]) -> nn.Module:
        """A module from features ``(..., 2, *event_shape)`` to the distribution."""
        return BetaModule(len(event_shape), self.margin, self.concentration)

    def story(self, features: str) -> str:
        """The density as text."""
        return f"Beta(m c, (1 - m) c), (m, c)({argument_of(features)}) = {features}"


class BetaModule(nn.Module):
    """Means and concentrations to the distribution of a datum."""

    def __init__(self, event_dim: int, margin: float, concentration: float) -> None:
        super().__init__()
        self.event_dim = event_dim
        self.margin = margin
        self.shift = concentration + math.log(-math.expm1(-concentration))

    def forward(self, features: Tensor) -> dist.Distribution:
        """p(x | h) for features h ``(..., P, *event)``."""
        logit, raw = features.unbind(-1 - self.event_dim)
        c = softplus(raw + self.shift)
        # 1 - sigmoid(h) would round to zero where sigmoid(-h) does not.
        a, b = ((c * torch.sigmoid(h)).clamp_min(TINY) for h in (logit, -logit))
        return Stretched(LogBeta(a, b), self.margin).to_event(self.event_dim)


class LogBeta(dist.Beta):
    """Pyro's, with a log-density that keeps its digits for large concentrations.

    Args:
        a: of x.
        b: of 1 - x.
    """

    def __init__(self, a: Tensor, b: Tensor, validate_args: bool | None = None) -> None:
        self.both = (a, b)  # Pyro's own are taken out of one tensor, which is to be made first
        super().__init__(a, b, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> LogBeta:
        """The same distribution with a larger batch shape."""
        a, b = (concentration.expand(batch_shape) for concentration in self.both)
        return LogBeta(a, b, validate_args=self._validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density."""
        if self._validate_args:
            self._validate_sample(value)
        return log_beta(value.log(), torch.log1p(-value), *self.both)
