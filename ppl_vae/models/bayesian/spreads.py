"""How the covariances of a Bayesian mixture are parametrized."""

from __future__ import annotations

import torch
from torch import Tensor

from ppl_vae.models.bayesian.parameters import Values

__all__ = ["SPREADS", "Full"]


RIDGE = 1e-3  # of the mean variance, added to where covariances start: constant columns would be singular in float32


class Full:
    """One covariance matrix for each component."""

    site = "covariances"

    def __init__(self, floor: float) -> None:
        self.floor = floor

    def start(self, components: int, columns: int) -> Tensor:
        """Identities."""
        return torch.eye(columns).repeat(components, 1, 1)

    def scale_tril(self, values: Values) -> Tensor:
        """Cholesky factors ``(..., C, D, D)``."""
        return torch.linalg.cholesky(values[self.site])

    def covariances(self, values: Values) -> Tensor:
        """What ``ppl_vae.exact`` calls the covariances of this structure."""
        return values[self.site]

    def values(self, estimate: Tensor) -> dict[str, Tensor]:
        """A start of the parameter by name from what ``ppl_vae.exact`` calls the covariances."""
        variance = estimate.diagonal(dim1=-2, dim2=-1)
        return {self.site: estimate + RIDGE * variance.mean(-1, keepdim=True).expand_as(variance).diag_embed()}


class Tied(Full):
    """One covariance matrix for all components."""

    def start(self, components: int, columns: int) -> Tensor:
        """An identity."""
        return torch.eye(columns)

    def scale_tril(self, values: Values) -> Tensor:
        """Cholesky factors ``(..., C, D, D)``."""
        C, D = values["locs"].shape[-2:]
        L = torch.linalg.cholesky(values[self.site]).unsqueeze(-3)
        return L.expand(*L.shape[:-3], C, D, D)


class Diagonal(Full):
    """One scale for each component and column."""

    site = "scales"

    def start(self, components: int, columns: int) -> Tensor:
        """Ones."""
        return torch.ones(components, columns)

    def scale_tril(self, values: Values) -> Tensor:
        """Cholesky factors ``(..., C, D, D)``."""
        C, D = values["locs"].shape[-2:]
        scales = values[self.site].clamp_min(self.floor)
        return scales.expand(*scales.shape[:-2], C, D).diag_embed()

    def covariances(self, values: Values) -> Tensor:
        """Variances ``(C, D)``."""
        return values[self.site].clamp_min(self.floor).square()

    def values(self, estimate: Tensor) -> dict[str, Tensor]:
        """Scales from variances."""
        return {self.site: estimate.sqrt()}


class Spherical(Diagonal):
    """One scale for each component."""

    def start(self, components: int, columns: int) -> Tensor:
        """Ones."""
        return torch.ones(components, 1)

    def covariances(self, values: Values) -> Tensor:
        """Variances ``(C,)``."""
        return super().covariances(values).squeeze(-1)

    def values(self, estimate: Tensor) -> dict[str, Tensor]:
        """Scales from variances."""
        return {self.site: estimate.sqrt().unsqueeze(-1)}


SPREADS: dict[str, type[Full]] = {"full": Full, "tied": Tied, "diagonal": Diagonal, "spherical": Spherical}
