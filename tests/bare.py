"""A declared model and guide whose programs have what `fit` needs, `forward`, and nothing besides."""

from __future__ import annotations

import dataclasses
from typing import Literal

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

import ppl_vae as pv
from ppl_vae.types import KINDS, DataSpec, Kind


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bare(pv.Model):
    """One number for each datum, the mean of all its elements."""

    @property
    def accepts(self) -> frozenset[Kind]:
        return frozenset(KINDS)

    def check(self, spec: DataSpec) -> None:
        pass

    def build(self, spec: DataSpec) -> BareProgram:
        return BareProgram(spec)

    def story(self) -> str:
        return "z ~ Normal(0, 1); x | z ~ Normal(z, 1)"


class BareProgram(PyroModule):
    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.size = spec.size
        self.loc = nn.Parameter(torch.zeros(spec.event_shape))

    def forward(self, x: Tensor) -> Tensor:
        with pv.data_plate(self.size, x):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            mean = self.loc + z.reshape(z.shape + (1,) * self.loc.dim())
            return pyro.sample("x", dist.Normal(mean, 1.0).to_event(self.loc.dim()), obs=x)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BareGuide(pv.Guide):
    """Normal, its mean linear in that of the datum."""

    def build(self, model: nn.Module, spec: DataSpec) -> BareGuideProgram:
        return BareGuideProgram(spec)

    def story(self) -> str:
        return "q(z | x) = Normal(a mean(x), 1)"


class BareGuideProgram(PyroModule):
    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.size = spec.size
        self.slope = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> None:
        with pv.data_plate(self.size, x):
            pyro.sample("z", dist.Normal(self.slope * x.flatten(1).mean(1), 1.0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Observed(Bare):
    """Independent normal elements and no latent variable, so that the terms sum to log p(x) itself, and say so.

    Args:
        name: of the score.
        label: of the score.
        bound: whether the score is exactly log p(x), as it is, or what a test would have it say.
    """

    name: str = "evidence"
    label: str = "log-evidence"
    bound: Literal["lower", "exact"] | None = "exact"

    def build(self, spec: DataSpec) -> ObservedProgram:
        program = ObservedProgram(spec)
        program.score = pv.Score(self.name, self.label, self.bound)
        return program


class ObservedProgram(PyroModule):
    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.size = spec.size
        self.loc = nn.Parameter(torch.zeros(spec.event_shape))

    def forward(self, x: Tensor) -> Tensor:
        with pv.data_plate(self.size, x):
            return pyro.sample("x", dist.Normal(self.loc, 1.0).expand(x.shape).to_event(self.loc.dim()), obs=x)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Silent(BareGuide):
    """Draws nothing."""

    def build(self, model: nn.Module, spec: DataSpec) -> SilentProgram:
        return SilentProgram()


class SilentProgram(PyroModule):
    def forward(self, x: Tensor) -> None:
        pass
