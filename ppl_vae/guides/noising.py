"""The guide of a diffusion, which only adds noise (Sohl-Dickstein et al. 2015; Ho et al. 2020).

q(z_0, ..., z_T | x) = q(z_T | x) prod_t q(z_(t-1) | z_t, x),   q(z_t | x) = Normal(alpha_t x, sigma_t^2)
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from torch import nn

from ppl_vae.guides.base import Guide
from ppl_vae.program.capabilities import Noised
from ppl_vae.types import DataSpec

__all__ = ["Noising"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Noising(Guide):
    """The data with noise, by the schedule of the model; it has no parameters of its own.

    Examples:
        >>> print(Noising())
        q(z_t | x) = Normal(alpha_t x, sigma_t^2), t = 0..T
    """

    makes_priors: ClassVar[bool] = False

    def build(self, model: Any, spec: DataSpec) -> nn.Module:
        """The Pyro program, as the model gives it.

        Raises:
            ValueError: the model is no diffusion.
        """
        if not isinstance(model, Noised):
            raise ValueError(
                "Noising is the guide of a Diffusion, whose latent variables are the data with noise, but this model has "
                "others: use an amortized guide"
            )
        program: nn.Module = model.noising(spec)
        return program

    def story(self) -> str:
        """The factorization, as mathematics."""
        return "q(z_t | x) = Normal(alpha_t x, sigma_t^2), t = 0..T"
