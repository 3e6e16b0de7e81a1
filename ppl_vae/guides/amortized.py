"""The Pyro programs that amortized guides share.

for n in 1..N:
    z_n ~ q(z | x_n)
"""

from __future__ import annotations

import math
from typing import Any

import pyro
import pyro.distributions as dist
from pyro.nn import PyroModule
from torch import Tensor

from ppl_vae.guides.coordinates import Coordinates
from ppl_vae.pair import data_plate
from ppl_vae.types import DataSpec

__all__ = ["EncodedGuide", "LatentGuide", "RealGuide"]


class LatentGuide(PyroModule):
    """A guide of one latent variable per datum, whose ``posterior`` a subclass gives."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.size = spec.size

    def forward(self, x: Tensor) -> Tensor:
        """Draw z for each datum of the batch x ``(B, *event)``."""
        q = self.posterior(x)
        with data_plate(self.size, x):
            return pyro.sample("z", q)

    def posterior(self, x: Tensor) -> dist.Distribution:
        """q(z | x) for x ``(..., *event)``."""
        raise NotImplementedError


class RealGuide(LatentGuide):
    """A guide by a density of real coordinates, ``unconstrained``, which a subclass gives."""

    def __init__(self, model: Any, spec: DataSpec) -> None:
        super().__init__(spec)
        self.coordinates = Coordinates(model)

    def posterior(self, x: Tensor) -> dist.Distribution:
        """q(z | x) for x ``(..., *event)``, on the support of p(z)."""
        return self.coordinates(self.unconstrained(x))

    def unconstrained(self, x: Tensor) -> dist.Distribution:
        """The density of the real coordinates of z, with the event shape ``coordinates.shape`` or flat."""
        raise NotImplementedError


class EncodedGuide(RealGuide):
    """A network's output is the parameters; a subclass gives their ``density``."""

    encoder: Any
    event_dim: int
    latent_dim: int

    def __init__(self, model: Any, declared: Any, spec: DataSpec) -> None:
        super().__init__(model, spec)
        shape = self.coordinates.shape
        self.event_dim = len(shape)
        self.latent_dim = math.prod(shape)
        self.encoder = declared.encoder.build(spec.event_shape, self.parameter_shape(shape, declared))

    def unconstrained(self, x: Tensor) -> dist.Distribution:
        """The density at the encoder's output."""
        return self.density(self.encoder(x))

    def parameter_shape(self, shape: tuple[int, ...], declared: Any) -> tuple[int, ...]:
        """Shape of the parameters of the declared density of ``shape``."""
        raise NotImplementedError

    def density(self, parameters: Tensor) -> dist.Distribution:
        """The density with parameters ``(..., *parameter_shape)``, any real numbers."""
        raise NotImplementedError
