"""Mixtures whose support can be asked for its bijection with the real numbers."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
from torch.distributions import constraints

__all__ = ["Mixture"]


class Mixture(dist.MixtureSameFamily):
    """Pyro's, with the components' own constraint as its support: torch has no bijection to the one that it wraps around."""

    @constraints.dependent_property
    def support(self) -> Any:
        """Where the components have their mass."""
        return self.component_distribution.support
