"""Likelihoods with a location and a scale: where the scale comes from is the same question for all of them."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable
from typing import ClassVar, Literal, get_args

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from ppl_vae.declaration import require
from ppl_vae.likelihoods.base import Likelihood, argument_of
from ppl_vae.types import BINARY, COUNT, REAL, UNIT_INTERVAL, Kind

__all__ = ["LEAST", "LocationScale", "Scale", "check_scale", "scaled"]

Scale = Literal["fixed", "shared", "per_feature", "amortized"]
LEAST = 1e-15
"""A learned scale without a floor that runs to zero ends here, where its square still is a float32."""

Family = Callable[[Tensor, Tensor], dist.Distribution]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LocationScale(Likelihood, abc.ABC):
    """p(x | h) = prod_d f((x_d - h_d) / scale_d) / scale_d, for a density f; its fields are told at ``Gaussian``."""

    accepts: ClassVar[frozenset[Kind]] = frozenset({BINARY, UNIT_INTERVAL, REAL, COUNT})

    scale: Scale = "shared"
    value: float = 0.5
    floor: float = 1e-3

    def __post_init__(self) -> None:
        check_scale("scale", self.scale, self.value, self.floor)

    @property
    def features(self) -> int:
        """The location of each element, and its scale when amortized."""
        return 2 if self.scale == "amortized" else 1

    @property
    def unit_free(self) -> bool:
        """A learned scale is; a fixed one is in the units of the data."""
        return self.scale != "fixed"

    @property
    def one_scale(self) -> bool:
        """One that is shared or fixed does."""
        return self.scale in ("shared", "fixed")

    @abc.abstractmethod
    def family(self) -> Family:
        """The map from location and scale to the distribution of an element; a module if it has parameters of its own."""

    def build(self, event_shape: tuple[int, ...]) -> nn.Module:
        """A module from features ``(..., P, *event_shape)`` to the distribution."""
        return scaled(self.family(), event_shape, self.scale, self.value, self.floor)

    def story(self, features: str) -> str:
        """The density as text."""
        if self.scale == "amortized":
            z = argument_of(features)
            return f"{type(self).__name__}(mu({z}), s({z})), (mu, s)({z}) = {features}"
        spread = {"fixed": f"{self.value:g}", "shared": "s", "per_feature": "s_d"}[self.scale]
        return f"{type(self).__name__}({features}, {spread})"


def check_scale(name: str, scale: str, value: float, floor: float) -> None:
    """Raise ``ValueError`` if a declared scale is of no known kind, not positive, or starts below its floor."""
    require(scale in get_args(Scale), f"a {name} that is one of {', '.join(get_args(Scale))}", scale)
    require(0 < value < math.inf, "a positive, finite value", value)
    require(0 <= floor < value or scale == "fixed", f"a floor in [0, value = {value})", floor)


def scaled(family: Family, event_shape: tuple[int, ...], scale: str, value: float, floor: float) -> nn.Module:
    """A module from features ``(..., P, *event_shape)`` to ``family(location, scale)``, elements independent."""
    if scale == "amortized":
        return AmortizedScale(family, len(event_shape), value, floor)
    shape = event_shape if scale == "per_feature" else ()
    return GlobalScale(family, len(event_shape), shape, value, floor, learned=scale != "fixed")


class GlobalScale(nn.Module):
    """Locations from the decoder, one scale for all data: ``scale = exp(log_scale) + floor``, or a constant."""

    log_scale: Tensor

    def __init__(
        self, family: Family, event_dim: int, shape: tuple[int, ...], value: float, floor: float, *, learned: bool
    ) -> None:
        super().__init__()
        self.family = family
        self.event_dim = event_dim
        self.floor = floor if learned else 0.0
        self.learned = learned
        log_scale = torch.full(shape, math.log(value - self.floor))
        if learned:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale, persistent=False)

    @property
    def scale(self) -> Tensor:
        """The scale, a scalar or one per element of a datum."""
        scale = self.log_scale.exp() + self.floor
        return scale.clamp_min(LEAST) if self.learned else scale

    def forward(self, features: Tensor) -> dist.Distribution:
        """p(x | h) for features h ``(..., P, *event)``."""
        return self.family(features.squeeze(-1 - self.event_dim), self.scale).to_event(self.event_dim)


class AmortizedScale(nn.Module):
    """Locations and scales from the decoder; features of zero give the scale ``value``."""

    def __init__(self, family: Family, event_dim: int, value: float, floor: float) -> None:
        super().__init__()
        self.family = family
        self.event_dim = event_dim
        self.floor = floor
        # The inverse of softplus, which neither overflows nor loses the digits of a small value.
        self.shift = value - floor + math.log(-math.expm1(floor - value))

    def forward(self, features: Tensor) -> dist.Distribution:
        """p(x | h) for features h ``(..., P, *event)``."""
        loc, raw_scale = features.unbind(-1 - self.event_dim)
        scale = (softplus(raw_scale + self.shift) + self.floor).clamp_min(LEAST)
        return self.family(loc, scale).to_event(self.event_dim)
