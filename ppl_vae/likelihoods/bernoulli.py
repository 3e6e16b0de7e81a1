"""The Bernoulli likelihood."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import pyro.distributions as dist
from torch import Tensor, nn

from ppl_vae.likelihoods.base import Likelihood
from ppl_vae.types import BINARY, Kind

__all__ = ["Bernoulli"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bernoulli(Likelihood):
    """p(x | h) = prod_d sigmoid(h_d)^x_d (1 - sigmoid(h_d))^(1 - x_d), for x in {0, 1}^D.

    Gray pixels are not in its support: binarize them.

    Examples:
        >>> Bernoulli().build((1, 8, 8))(torch.zeros(5, 1, 1, 8, 8)).event_shape
        torch.Size([1, 8, 8])
    """

    accepts: ClassVar[frozenset[Kind]] = frozenset({BINARY})
    discrete: ClassVar[bool] = True

    @property
    def features(self) -> int:
        """One logit per element."""
        return 1

    def build(self, event_shape: tuple[int, ...]) -> nn.Module:
        """A module from logits ``(..., 1, *event_shape)`` to the distribution."""
        return BernoulliModule(len(event_shape))

    def story(self, features: str) -> str:
        """The density as text."""
        return f"Bernoulli(logits = {features})"


class BernoulliModule(nn.Module):
    """Logits to the distribution of a datum."""

    def __init__(self, event_dim: int) -> None:
        super().__init__()
        self.event_dim = event_dim

    def forward(self, features: Tensor) -> dist.Distribution:
        """p(x | h) for features h ``(..., P, *event)``."""
        return dist.Bernoulli(logits=features.squeeze(-1 - self.event_dim)).to_event(self.event_dim)
