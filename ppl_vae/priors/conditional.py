"""Priors of a latent variable given what a model is conditioned on."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any

import pyro.distributions as dist
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import softplus

from ppl_vae.nn import MLP, Network
from ppl_vae.priors.base import Prior

__all__ = ["ConditionalNormal", "ConditionalPrior"]

MIN_SCALE = 1e-6  # keeps log(scale) finite when softplus underflows in float32


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConditionalPrior(Prior, abc.ABC):
    """p(z | y), a prior for :class:`ppl_vae.CVAE`."""

    @abc.abstractmethod
    def build_given(self, shape: tuple[int, ...], columns: int) -> nn.Module:
        """A module from conditions ``(..., columns)`` to a distribution of that batch shape with ``event_shape == shape``.

        It has the attribute ``support``, by which guides are built before there is a condition.
        """

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """There is none without a condition.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"{type(self).__name__} is a prior given a condition: declare it in a CVAE, or use another prior, such as "
            "StandardNormal"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConditionalNormal(ConditionalPrior):
    """p(z | y) = Normal(z; mu(y), diag(sigma(y)^2)), the moments given by a network (Sohn, Lee and Yan 2015).

    Args:
        network: from the condition y to the moments.

    Examples:
        >>> ConditionalNormal().build_given((2,), 10)(torch.zeros(5, 10)).event_shape
        torch.Size([2])
    """

    network: Network = MLP()

    def build_given(self, shape: tuple[int, ...], columns: int) -> nn.Module:
        """A module from conditions ``(..., columns)`` to the distribution on ``shape``."""
        return ConditionalNormalModule(self.network.build((columns,), (2, *shape)), len(shape))

    def story(self, shape: tuple[int, ...]) -> str:
        """The density as text."""
        return f"Normal(mu(y), diag(sigma(y)^2)), (mu, sigma)(y) = {self.network.story('y')}"


class ConditionalNormalModule(nn.Module):
    """The network gives ``(..., 2, *shape)``: means, and scales before softplus."""

    def __init__(self, network: nn.Module, event_dim: int) -> None:
        super().__init__()
        self.network = network
        self.event_dim = event_dim

    @property
    def support(self) -> Any:
        """All of the real space."""
        return constraints.independent(constraints.real, self.event_dim)

    def forward(self, c: Tensor) -> dist.Distribution:
        """p(z | y) for the condition's columns c ``(..., columns)``."""
        loc, raw_scale = self.network(c).unbind(-1 - self.event_dim)
        return dist.Normal(loc, softplus(raw_scale) + MIN_SCALE).to_event(self.event_dim)
