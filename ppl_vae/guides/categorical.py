"""The amortized categorical guide of mixtures.

    q(k | x) = prod_n Categorical(k_n; r(x_n))

Pyro enumerates k, so its ELBO is exact in k and no gradient is sampled through it.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal

import pyro
import pyro.distributions as dist
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.guides.base import Guide, check_latent
from ppl_vae.nn import MLP, Network
from ppl_vae.pair import data_plate
from ppl_vae.types import DataSpec

__all__ = ["AmortizedCategorical"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AmortizedCategorical(Guide):
    """q(k | x) = Categorical(r(x)), the responsibilities given by an encoder network.

    Args:
        encoder: the network from x to their logits.

    Example:
        >>> print(AmortizedCategorical())
        q(k | x) = Categorical(logits = MLP(x))
    """

    latent: ClassVar[Literal["continuous", "discrete", "any"]] = "discrete"

    encoder: Network = MLP()

    def build(self, model: Any, spec: DataSpec) -> nn.Module:
        """The Pyro program for the component of ``model``.

        Raises:
            ValueError: the model's latent variable is continuous.
        """
        check_latent(self, model)
        return CategoricalGuide(model.latent_shape, self.encoder, spec)

    def story(self) -> str:
        """The factorization, as mathematics."""
        return f"q(k | x) = Categorical(logits = {self.encoder.story('x')})"


class CategoricalGuide(PyroModule):
    """The encoder gives logits ``(..., C)``."""

    def __init__(self, latent_shape: tuple[int, ...], encoder: Network, spec: DataSpec) -> None:
        super().__init__()
        self.size = spec.size
        self.encoder = encoder.build(spec.event_shape, latent_shape)

    def forward(self, x: Tensor) -> Tensor:
        """Draw the component of each datum of the batch x ``(B, *event)``."""
        logits = self.encoder(x)
        with data_plate(self.size, x):
            return pyro.sample("k", dist.Categorical(logits=logits), infer={"enumerate": "parallel"})

    def posterior(self, x: Tensor) -> dist.Distribution:
        """q(k | x), one-hot, whose mean is the responsibilities."""
        return dist.OneHotCategorical(logits=self.encoder(x))
