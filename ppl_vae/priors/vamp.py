"""The variational mixture of posteriors (VampPrior)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppl_vae.declaration import require
from ppl_vae.priors.base import Prior
from ppl_vae.priors.mixture import Mixture
from ppl_vae.priors.posteriors import PosteriorMixture, noise
from ppl_vae.program.hooks import Start
from ppl_vae.types import DataSpec

__all__ = ["VampPrior"]

JITTER = 0.01  # of a start from data, so that pseudo-inputs started from one row part


@dataclasses.dataclass(frozen=True, kw_only=True)
class VampPrior(Prior):
    """p(z) = sum_c pi_c q(z | u_c), the guide's posteriors at learned pseudo-inputs u_c (Tomczak and Welling 2018).

    Pseudo-inputs have the data's shape and are clamped to the data's range.

    Args:
        components: C, the number of pseudo-inputs.
        start: whether they start from training ``data`` or from ``noise``.
        weights: pi_c, ``uniform`` or ``learned``.

    Raises:
        ValueError: fewer than one component, an unknown start or kind of weights.

    Examples:
        >>> print(VAE(latent_dim=2, prior=VampPrior(components=50)))
        z ~ (1/50) sum_c q(z | u_c); x | z ~ Bernoulli(logits = MLP(z))
    """

    categorical: ClassVar[bool] = True

    components: int = 100
    start: Literal["data", "noise"] = "data"
    weights: Literal["uniform", "learned"] = "uniform"

    def __post_init__(self) -> None:
        require(self.components >= 1, "at least 1 component", self.components)
        require(self.start in ("data", "noise"), "a start of data or noise", self.start)
        require(self.weights in ("uniform", "learned"), "weights that are uniform or learned", self.weights)

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """A module whose call returns the distribution on ``shape``, once it is attached to a guide."""
        return VampModule(self.components, shape, from_data=self.start == "data", learned_weights=self.weights == "learned")

    def story(self, shape: tuple[int, ...]) -> str:
        """The density as text."""
        weights = f"(1/{self.components}) sum_c" if self.weights == "uniform" else "sum_c pi_c"
        return f"{weights} q(z | u_c)"


class VampModule(PosteriorMixture):
    """Parameter ``pseudo_inputs (C, *event)`` once attached; ``logits (C,)`` is a parameter if the weights are learned."""

    low: float
    high: float
    logits: Tensor

    def __init__(self, components: int, shape: tuple[int, ...], *, from_data: bool, learned_weights: bool) -> None:
        super().__init__(shape)
        self.from_data = from_data
        logits = torch.zeros(components)
        if learned_weights:
            self.logits = nn.Parameter(logits)
        else:
            self.register_buffer("logits", logits, persistent=False)
        self.register_parameter("pseudo_inputs", None)

    @property
    def densities(self) -> int:
        """All C."""
        return len(self.logits)

    def create(self, spec: DataSpec) -> None:
        """Pseudo-inputs of the data's shape and range."""
        self.low, self.high = spec.limits
        self.pseudo_inputs = nn.Parameter(noise((len(self.logits), *spec.event_shape), spec, self.logits.detach()))

    @torch.no_grad()
    def start_fit(self, context: Start) -> None:
        """Put the pseudo-inputs on random training data, if they are to start there."""
        if self.from_data:
            u = self.pick(context.split, len(self.logits), self.pseudo_inputs)
            u = u + JITTER * torch.randn_like(u)
            # Outside its range a clamped value has no gradient, so what fell there is reflected at the bound.
            u = torch.where(u < self.low, 2 * self.low - u, u)
            self.pseudo_inputs.copy_(torch.where(u > self.high, 2 * self.high - u, u))

    def mixture(self, posterior: Callable[[Tensor], Any]) -> dist.Distribution:
        """p(z), given q(z | x)."""
        return Mixture(dist.Categorical(logits=self.logits), posterior(self.pseudo_inputs.clamp(self.low, self.high)))
