"""The Gaussian likelihood."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, Literal

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from ppl_vae.declaration import require
from ppl_vae.likelihoods.base import Likelihood
from ppl_vae.types import Kind

__all__ = ["Gaussian"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gaussian(Likelihood):
    """p(x | h) = prod_d Normal(x_d; h_d, scale_d^2).

    A learned scale is what keeps the balance of reconstruction and KL honest (Rybkin et al. 2021); ``fixed`` at a large
    value switches latent dimensions off (Lucas et al. 2019).

    Args:
        scale: ``fixed`` at ``value``; one learned scale ``shared`` by all elements; one learned ``per_feature``; or
            ``amortized``, given by the decoder for each datum and element.
        value: the fixed scale, or where a learned one starts, in the units of the data the model sees.
        floor: a learned scale stays above it: the density of a constant pixel has no upper bound otherwise.

    Raises:
        ValueError: an unknown kind of scale, a value or floor that is not positive, a learned value below the floor.

    Example:
        >>> Gaussian(scale="amortized").features
        2
    """

    accepts: ClassVar[frozenset[Kind]] = frozenset({"binary", "unit_interval", "real", "count"})

    scale: Literal["fixed", "shared", "per_feature", "amortized"] = "shared"
    value: float = 0.5
    floor: float = 1e-3

    def __post_init__(self) -> None:
        kinds = ("fixed", "shared", "per_feature", "amortized")
        require(self.scale in kinds, f"a scale that is one of {', '.join(kinds)}", self.scale)
        require(0 < self.value < math.inf, "a positive, finite value", self.value)
        require(0 <= self.floor < self.value or self.scale == "fixed", f"a floor in [0, value = {self.value})", self.floor)

    @property
    def features(self) -> int:
        """The mean of each element, and its scale when amortized."""
        return 2 if self.scale == "amortized" else 1

    def build(self, event_shape: tuple[int, ...]) -> nn.Module:
        """A module from features ``(..., P, *event_shape)`` to the distribution."""
        if self.scale == "amortized":
            return AmortizedScaleGaussian(len(event_shape), self.value, self.floor)
        shape = event_shape if self.scale == "per_feature" else ()
        return GlobalScaleGaussian(len(event_shape), shape, self.value, self.floor, learned=self.scale != "fixed")

    def story(self, features: str) -> str:
        """The density as text."""
        spread = {
            "fixed": f"{self.value:g}^2 I",
            "shared": "sigma^2 I",
            "per_feature": "diag(sigma^2)",
            "amortized": "diag(sigma(z)^2)",
        }[self.scale]
        mean = f"mu(z), {spread}), (mu, sigma)(z) = {features}" if self.scale == "amortized" else f"{features}, {spread})"
        return f"Normal({mean}"


class GlobalScaleGaussian(nn.Module):
    """Means from the decoder, one scale for all data: ``scale = exp(log_scale) + floor``, or a constant."""

    def __init__(self, event_dim: int, shape: tuple[int, ...], value: float, floor: float, *, learned: bool) -> None:
        super().__init__()
        self.event_dim = event_dim
        self.floor = floor if learned else 0.0
        log_scale = torch.full(shape, math.log(value - self.floor))
        if learned:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale, persistent=False)

    @property
    def scale(self) -> Tensor:
        """The standard deviation, a scalar or one per element of a datum."""
        return self.log_scale.exp() + self.floor

    def forward(self, features: Tensor) -> dist.Distribution:
        """p(x | h) for features h ``(..., P, *event)``."""
        return dist.Normal(features.squeeze(-1 - self.event_dim), self.scale).to_event(self.event_dim)


class AmortizedScaleGaussian(nn.Module):
    """Means and scales from the decoder; features of zero give the scale ``value``."""

    def __init__(self, event_dim: int, value: float, floor: float) -> None:
        super().__init__()
        self.event_dim = event_dim
        self.floor = floor
        self.shift = math.log(math.expm1(value - floor))

    def forward(self, features: Tensor) -> dist.Distribution:
        """p(x | h) for features h ``(..., P, *event)``."""
        loc, raw_scale = features.unbind(-1 - self.event_dim)
        return dist.Normal(loc, softplus(raw_scale + self.shift) + self.floor).to_event(self.event_dim)
