"""Factor analysis and Gaussian mixtures whose parameters carry priors, so that data leave a posterior over them too.

    theta ~ p(theta)                    weights, locations, scales or covariances, drawn once
    for n in 1..N:
        z_n ~ p(z | theta)              Normal(0, I), or Categorical(pi)
        x_n ~ p(x | z_n, theta)

Attias (1999); Bishop (2006), chapter 10. A parameter without a prior stays a point estimate. What a fitted program offers
besides its story (``decode``, ``log_prob``, ``posterior``) is at the point estimates that the method left in its buffers.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import biject_to, constraints, transform_to

from ppl_vae.declaration import family_members
from ppl_vae.priors import Prior
from ppl_vae.priors.base import Support
from ppl_vae.priors.inverse_wishart import covariance
from ppl_vae.program.base import ModelProgram
from ppl_vae.types import DataSpec

__all__ = ["BayesianModel", "Given", "ParameterCoordinates", "Values", "check_complete", "check_priors"]

Values = Mapping[str, Tensor]

CONSTRAINTS: dict[Support, Any] = {
    "real": constraints.real,
    "positive": constraints.positive,
    "simplex": constraints.simplex,
    "covariance": covariance,
}


def check_priors(supports: Mapping[str, Support], priors: Mapping[str, Prior]) -> None:
    """Raise ``ValueError`` if a prior has its mass where its parameter has none."""
    for name, prior in priors.items():
        if prior.support != supports[name]:
            valid = sorted(
                cls.__name__ for cls in family_members(Prior) if issubclass(cls, Prior) and cls.support == supports[name]
            )
            raise ValueError(f"{name}: expected a {supports[name]} prior ({', '.join(valid)}), got {prior!r}")


def check_complete(spec: DataSpec, priors: Mapping[str, Prior]) -> None:
    """Raise ``ValueError`` if entries may be missing and a parameter carries a prior."""
    if spec.missing and priors:
        raise ValueError(
            f"priors of parameters ({', '.join(priors)}) need complete data: fill missing entries or drop those rows, or "
            "declare no priors and fit by EM"
        )


class Given(NamedTuple):
    """How a parameter enters a program: its prior if it has one, its support and its value before any data are seen."""

    prior: Prior | None
    support: Support
    start: Tensor

    def build(self, name: str) -> Drawn | Estimated:
        """The parameter as a module whose call returns its value."""
        if self.prior is None:
            return Estimated(self.start, CONSTRAINTS[self.support])
        return Drawn(name, self.prior, self.start)


class Drawn(nn.Module):
    """A parameter with a prior: a global site of the program. The buffer ``point`` is its estimate once a method found one."""

    point: Tensor
    prior: Any

    def __init__(self, site: str, prior: Prior, start: Tensor) -> None:
        super().__init__()
        self.site = site
        self.declared = prior
        self.prior = prior.build(tuple(start.shape))
        self.register_buffer("point", start.clone())
        self.draw: Tensor | None = None

    def forward(self) -> Tensor:
        """Draw it."""
        return pyro.sample(self.site, self.prior())

    @property
    def value(self) -> Tensor:
        """The draw inside ``BayesianModel.given``, else the point estimate."""
        return self.point if self.draw is None else self.draw

    def assign(self, value: Tensor) -> None:
        """Write the point estimate."""
        self.point.copy_(value)


class Estimated(nn.Module):
    """A parameter without a prior, ``raw`` in unconstrained coordinates."""

    def __init__(self, start: Tensor, constraint: Any) -> None:
        super().__init__()
        self.transform = transform_to(constraint)
        self.raw = nn.Parameter(self.transform.inv(start).clone())

    def forward(self) -> Tensor:
        """Its value."""
        return self.value

    @property
    def value(self) -> Tensor:
        """Its value."""
        return self.transform(self.raw)

    def assign(self, value: Tensor) -> None:
        """Write the estimate."""
        self.raw.copy_(self.transform.inv(value))


class ParameterCoordinates:
    """All drawn parameters as one vector ``(..., P)`` of real numbers, in which guides and samplers move."""

    def __init__(self, priors: Mapping[str, dist.Distribution]) -> None:
        self.priors = priors
        self.transforms = {name: biject_to(prior.support) for name, prior in priors.items()}
        self.shapes = {name: self.transforms[name].inverse_shape(prior.event_shape) for name, prior in priors.items()}
        self.size = sum(map(math.prod, self.shapes.values()))

    def pack(self, values: Values) -> Tensor:
        """From values ``(..., *event)`` by name to the vector."""
        parts = []
        for name, transform in self.transforms.items():
            raw = transform.inv(values[name])
            parts.append(raw.reshape(*raw.shape[: raw.dim() - len(self.shapes[name])], -1))
        return torch.cat(parts, -1)

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        """The vector's parts by name, in their unconstrained shapes."""
        parts = vector.split([math.prod(shape) for shape in self.shapes.values()], -1)
        return {
            name: part.reshape(*part.shape[:-1], *shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    def unpack(self, vector: Tensor) -> dict[str, Tensor]:
        """From the vector to values by name."""
        return {name: self.transforms[name](part) for name, part in self.split(vector).items()}

    def log_prior(self, vector: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """The values at a vector ``(P,)``, log p(theta), and the log of the volume that the coordinates add to it."""
        values, density, volume = {}, vector.new_zeros(()), vector.new_zeros(())
        for name, part in self.split(vector).items():
            values[name] = self.transforms[name](part)
            density = density + self.priors[name].log_prob(values[name])
            volume = volume + self.transforms[name].log_abs_det_jacobian(part, values[name]).sum()
        return values, density, volume


class BayesianModel(ModelProgram):
    """What programs with priors on their parameters share.

    Args:
        size: N, the number of training data.
        theta: the parameters by name, in the order of the story.
    """

    theta: Any
    axes: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    """What the axes of each parameter run over: ``column``, ``other_column``, ``factor``, ``component``; empty of length 1."""

    def __init__(self, size: int, theta: Mapping[str, Given]) -> None:
        super().__init__()
        self.size = size
        self.theta = nn.ModuleDict({name: given.build(name) for name, given in theta.items()})

    def draw(self) -> dict[str, Tensor]:
        """Every parameter, drawn where it has a prior: the story's first lines."""
        return {name: parameter() for name, parameter in self.theta.items()}

    @property
    def drawn(self) -> dict[str, Drawn]:
        """The parameters that carry a prior."""
        return {name: parameter for name, parameter in self.theta.items() if isinstance(parameter, Drawn)}

    @property
    def parameter_sites(self) -> tuple[str, ...]:
        """The names of their sites."""
        return tuple(self.drawn)

    @property
    def values(self) -> dict[str, Tensor]:
        """Every parameter: its draw inside :meth:`given`, else its point estimate."""
        return {name: parameter.value for name, parameter in self.theta.items()}

    def coordinates(self) -> ParameterCoordinates:
        """The drawn parameters as one vector."""
        return ParameterCoordinates({name: parameter.prior() for name, parameter in self.drawn.items()})

    @contextlib.contextmanager
    def given(self, draws: Values) -> Iterator[None]:
        """Everything the program offers at these draws of its parameters, not at the point estimates."""
        try:
            for name, parameter in self.drawn.items():
                parameter.draw = draws[name]
            yield
        finally:
            for parameter in self.drawn.values():
                parameter.draw = None

    @torch.no_grad()
    def assign(self, values: Values) -> None:
        """Write point estimates into the program."""
        for name, value in values.items():
            self.theta[name].assign(value)
