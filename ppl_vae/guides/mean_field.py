"""The mean-field guide: a product of factors, each of the family that the model is conjugate to.

    q(theta, z) = prod_j q_j(theta_j) prod_n prod_i q(z_ni)

Coordinate ascent updates one factor at a time in closed form (Bishop 2006, section 10.1; Blei, Kucukelbir and McAuliffe 2017).
"""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import nn

from ppl_vae.guides.base import Guide, remedy
from ppl_vae.program.capabilities import CoordinateAscent
from ppl_vae.program.facts import fitting_methods
from ppl_vae.types import DataSpec

__all__ = ["MeanField"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeanField(Guide):
    """q as a product of factors, as the model says them: which variables are apart, and the family of each.

    It is what :class:`~ppl_vae.CAVI` fits. What all data share is kept in the guide; the factors of a datum follow from it.

    Examples:
        >>> print(MeanField())
        q(theta, z | x) = prod_j q(theta_j) prod_i q(z_i | x)
    """

    def build(self, model: Any, spec: DataSpec) -> nn.Module:
        """The Pyro program, as the model gives it.

        Raises:
            ValueError: the model says no factors.
        """
        if not isinstance(model, CoordinateAscent):
            raise ValueError(
                "this model says no factors of a mean-field posterior, which MeanField, the guide of CAVI, is made of: fit it "
                f"by {_without_factors(model)}"
            )
        program: nn.Module = model.mean_field(spec)
        return program

    def story(self) -> str:
        """The factorization, as mathematics."""
        return "q(theta, z | x) = prod_j q(theta_j) prod_i q(z_i | x)"


def _without_factors(model: Any) -> str:
    """The methods that fit a model without factors; for SVI alone, with a guide."""
    methods = fitting_methods(model)
    return f"SVI with {remedy(model)}" if methods == "SVI" else methods
