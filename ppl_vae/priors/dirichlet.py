"""The Dirichlet prior of mixture weights."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppl_vae.declaration import require
from ppl_vae.priors.base import Prior, Support
from ppl_vae.simplex import log_coordinates, remembered

__all__ = ["Dirichlet", "LogDirichlet"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dirichlet(Prior):
    """p(pi) proportional to prod_c pi_c^(a_c - 1) on the simplex; 1 is uniform, below 1 empties components.

    Sparse mixtures by a small concentration: Rousseau and Mengersen (2011).

    Args:
        concentration: a, one for all components or one each.

    Raises:
        ValueError: a concentration that is not positive; on building, a number of values that is not the number of components.

    Examples:
        >>> Dirichlet(concentration=(1.0, 3.0)).build((2,))().mean
        tensor([0.2500, 0.7500])
    """

    support: ClassVar[Support] = "simplex"

    concentration: float | tuple[float, ...] = 1.0

    def __post_init__(self) -> None:
        several = isinstance(self.concentration, (tuple, list))
        values = tuple(self.concentration) if isinstance(self.concentration, (tuple, list)) else (self.concentration,)
        require(bool(values) and all(0 < a < math.inf for a in values), "positive concentrations", self.concentration)
        object.__setattr__(self, "concentration", values if several else self.concentration)

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """A module whose call returns the distribution on ``shape``, the last axis summing to one."""
        a = torch.as_tensor(self.concentration, dtype=torch.get_default_dtype())
        if a.dim() and len(a) != shape[-1]:
            raise ValueError(f"expected one concentration or {shape[-1]}, one for each component, got {len(a)}")
        return DirichletModule(a.expand(shape).clone())

    def story(self, shape: tuple[int, ...]) -> str:
        """The density as text."""
        a = self.concentration
        return f"Dirichlet({', '.join(f'{v:g}' for v in a) if isinstance(a, tuple) else f'{a:g}'})"


class DirichletModule(nn.Module):
    """Its concentration is a buffer, so it follows ``.to(device)``."""

    concentration: Tensor

    def __init__(self, concentration: Tensor) -> None:
        super().__init__()
        self.register_buffer("concentration", concentration, persistent=False)

    def forward(self) -> dist.Distribution:
        """p(pi)."""
        return LogDirichlet(self.concentration).to_event(self.concentration.dim() - 1)


class LogDirichlet(dist.Dirichlet):
    """Pyro's, whose density reads the logarithms that points on the simplex remember; an entry of zero has no gradient."""

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density of points ``(..., K)``, by their first K - 1 coordinates."""
        if self._validate_args:
            self._validate_sample(value)
        a = self.concentration
        terms = (a - 1) * log_coordinates(value)
        if remembered(value) is None:  # an entry of zero is one, and not what underflowed
            terms = torch.where((value > 0) | (a == 1), terms, (1 - a) * math.inf)
        return terms.sum(-1) + torch.lgamma(a.sum(-1)) - torch.lgamma(a).sum(-1)
