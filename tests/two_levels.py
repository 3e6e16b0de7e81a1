"""A declared linear-Gaussian model of two levels and its exact posterior, and the same two programs as plain functions.

z2 ~ Normal(0, I);   z1 | z2 ~ Normal(A z2, t^2 I);   x | z1 ~ Normal(W z1 + b, s^2 I)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

import ppl_vae as pv
from ppl_vae.program.base import GuideProgram, ModelProgram
from ppl_vae.program.joint import Joint
from ppl_vae.types import DataSpec, Kind

A = torch.tensor([[0.8], [-0.5]])
W = torch.tensor([[1.0, 0.3], [-0.4, 0.9], [0.2, 0.5]])
B = torch.tensor([0.3, -0.2, 0.1])
T, S = 0.6, 0.5


def z2_given(x: Tensor) -> Distribution:
    """The exact q(z2 | x)."""
    slope, spread = W @ A, T**2 * W @ W.T + S**2 * torch.eye(3)
    weighted = torch.linalg.solve(spread, slope).T
    covariance = torch.linalg.inv(torch.eye(1) + weighted @ slope)
    return dist.MultivariateNormal((x - B) @ (covariance @ weighted).T, covariance)


def z1_given(z2: Tensor, x: Tensor) -> Distribution:
    """The exact q(z1 | z2, x)."""
    covariance = torch.linalg.inv(torch.eye(2) / T**2 + W.T @ W / S**2)
    return dist.MultivariateNormal((z2 @ A.T / T**2 + (x - B) @ W / S**2) @ covariance, covariance)


def log_marginal(x: Tensor) -> Tensor:
    """The exact log p(x)."""
    slope = W @ A
    return dist.MultivariateNormal(B, slope @ slope.T + T**2 * W @ W.T + S**2 * torch.eye(3)).log_prob(x)


class Program(ModelProgram):
    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.size = spec.size
        self.unused = nn.Parameter(torch.zeros(()))

    def prior(self) -> Joint:
        return Joint(
            {"z2": dist.Normal(torch.zeros(1), 1.0).to_event(1), "z1": lambda z: dist.Normal(z["z2"] @ A.T, T).to_event(1)}
        )

    def decode(self, z: dict[str, Tensor]) -> Distribution:
        return dist.Normal(z["z1"] @ W.T + B, S).to_event(1)


class KnownProgram(Program):
    def log_prob(self, x: Tensor) -> Tensor:
        return log_marginal(x)

    def posterior(self, x: Tensor) -> Joint:
        return Joint({"z2": z2_given(x), "z1": lambda z: z1_given(z["z2"], x)})


class Guide(GuideProgram):
    """The exact posterior, its means moved by a parameter."""

    def __init__(self, spec: DataSpec, *, exact: bool, start: float) -> None:
        super().__init__()
        self.size = spec.size
        self.exact = exact
        self.offset = nn.Parameter(torch.tensor(start))

    def posterior(self, x: Tensor) -> Joint:
        return self.at(*self.local(x))

    def local(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return z2_given(x).mean + self.offset, z1_given(torch.zeros(1), x).mean + self.offset

    def at(self, *local: Tensor) -> Joint:
        at_two, at_one = local
        spread = z2_given(torch.zeros(3)).covariance_matrix
        below = z1_given(torch.zeros(1), torch.zeros(3))
        slope = z1_given(torch.ones(1), torch.zeros(3)).mean - below.mean
        return Joint(
            {
                "z2": dist.MultivariateNormal(at_two, spread),
                "z1": lambda z: dist.MultivariateNormal(at_one + z["z2"] * slope, below.covariance_matrix),
            }
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwoLevels(pv.Model):
    """Linear and Gaussian.

    Args:
        known: whether the program says log p(x) and p(z | x).
    """

    known: bool = False

    @property
    def accepts(self) -> frozenset[Kind]:
        return frozenset({"real"})

    def check(self, spec: DataSpec) -> None:
        pass

    def build(self, spec: DataSpec) -> Program:
        return KnownProgram(spec) if self.known else Program(spec)

    def story(self) -> str:
        return "z2 ~ Normal(0, 1); z1 | z2 ~ Normal(A z2, t^2 I_2); x | z1 ~ Normal(W z1 + b, s^2 I_3)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exact(pv.Guide):
    """The exact posterior.

    Args:
        exact: whether it says so.
        start: by which its means are off.
    """

    exact: bool = True
    start: float = 0.0

    def build(self, model: nn.Module, spec: DataSpec) -> Guide:
        return Guide(spec, exact=self.exact, start=self.start)

    def story(self) -> str:
        return "q(z2 | x) q(z1 | z2, x), both normal"


def plain(size: int, *, bottom_up: bool = False) -> tuple[Callable[[Tensor], None], Callable[[Tensor], None]]:
    """Both as functions; counting dimensions from the right."""

    def model(x: Tensor) -> None:
        pyro.param("unused", torch.zeros(()))
        with pv.data_plate(size, x):
            z2 = pyro.sample("z2", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            z1 = pyro.sample("z1", dist.Normal(z2 @ A.T, T).to_event(1))
            pyro.sample("x", dist.Normal(z1 @ W.T + B, S).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        offset = pyro.param("offset", torch.tensor(0.0))
        with pv.data_plate(size, x):
            z2 = pyro.sample("z2", z2_given(x - offset))
            pyro.sample("z1", z1_given(z2, x))

    return model, guide


def drawn(count: int, seed: int = 0) -> Tensor:
    """Rows ``(count, 3)`` of the model's own."""
    generator = torch.Generator().manual_seed(seed)
    z1 = torch.randn(count, 1, generator=generator) @ A.T + T * torch.randn(count, 2, generator=generator)
    return z1 @ W.T + B + S * torch.randn(count, 3, generator=generator)
