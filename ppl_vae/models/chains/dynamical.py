"""The linear dynamical system, or Gaussian state-space model.

    z_1 ~ Normal(m, P);  z_t ~ Normal(A z_(t-1), Q);  x_t ~ Normal(C z_t + d, diag(r))

Kalman (1960); Shumway and Stoffer (1982).
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, Literal

from ppl_vae.declaration import require
from ppl_vae.models.base import Model
from ppl_vae.models.chains.dynamical_program import DynamicalProgram
from ppl_vae.models.chains.rows import check_elements
from ppl_vae.types import BINARY, COUNT, REAL, UNIT_INTERVAL, DataSpec, Kind

__all__ = ["LinearDynamicalSystem"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearDynamicalSystem(Model):
    """Rows of numbers that follow a vector which moves linearly: factor analysis whose factors go on from element to element.

    z_1 ~ Normal(m, P), z_t ~ Normal(A z_{t-1}, Q), x_t ~ Normal(C z_t + d, diag(r)). The Kalman filter integrates z out
    exactly, so the ELBO is log p(x): ``EM`` (Shumway and Stoffer 1982) and ``SVI`` climb the same number.

    Args:
        latent_dim: K.
        floor: least standard deviation of a column's noise that EM allows, as a share of the column's own in the training data.

    Raises:
        ValueError: fewer than one dimension, or a floor that is not positive.

    Examples:
        >>> print(LinearDynamicalSystem(latent_dim=2))
        z_1 ~ Normal(m, P); z_t ~ Normal(A z_{t-1}, Q); x_t ~ Normal(C z_t + d, diag(r))
    """

    posterior_family: ClassVar[Literal["unknown", "linear", "discrete", "exact"]] = "exact"
    ragged: ClassVar[bool] = True

    latent_dim: int = 2
    floor: float = 1e-3

    def __post_init__(self) -> None:
        require(isinstance(self.latent_dim, int) and self.latent_dim >= 1, "a latent_dim of at least 1", self.latent_dim)
        require(0 < self.floor < math.inf, "a positive floor", self.floor)

    @property
    def accepts(self) -> frozenset[Kind]:
        """The kinds of data that lie on the real line."""
        return frozenset({BINARY, UNIT_INTERVAL, REAL, COUNT})

    def check(self, spec: DataSpec) -> None:
        """Raise ``ValueError`` if the data are no rows of numbers."""
        if spec.kind not in self.accepts:
            raise ValueError(
                f"LinearDynamicalSystem is a model of numbers, but these data are {spec.kind}: use HMM or MarkovChain"
            )
        check_elements("LinearDynamicalSystem", spec, 1)

    def build(self, spec: DataSpec) -> DynamicalProgram:
        """The Pyro program for data of this shape and number."""
        return DynamicalProgram(spec, self.latent_dim, self.floor)

    def story(self) -> str:
        """The sites from top to bottom, as mathematics."""
        return "z_1 ~ Normal(m, P); z_t ~ Normal(A z_{t-1}, Q); x_t ~ Normal(C z_t + d, diag(r))"
