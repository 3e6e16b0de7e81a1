"""The exemplar prior."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppl_vae.declaration import require
from ppl_vae.priors.base import Prior
from ppl_vae.priors.mixture import Mixture
from ppl_vae.priors.posteriors import PosteriorMixture, noise
from ppl_vae.program.hooks import Start
from ppl_vae.types import DataSpec

__all__ = ["ExemplarPrior"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExemplarPrior(Prior):
    """p(z) = (1/C) sum_c Normal(z; mu(x_c), scale^2 I), mu(x_c) the guide's posterior mean of a training datum (Norouzi 2020).

    The exemplars x_c are a random subset of the training data, chosen once and saved with the model; the scale is learned and
    shared. All kernels enter the sum, not the nearest ones only, so that it is a density. A datum that is an exemplar sees its
    own kernel: keep C well below the number of data.

    Args:
        components: C, the number of exemplars; all training data if there are fewer.
        scale: of the kernels before training.

    Raises:
        ValueError: fewer than one component, or a scale that is not positive.

    Examples:
        >>> print(VAE(latent_dim=2, prior=ExemplarPrior(components=50)))
        z ~ (1/50) sum_c Normal(mu(x_c), sigma^2 I); x | z ~ Bernoulli(logits = MLP(z))
    """

    categorical: ClassVar[bool] = True

    components: int = 100
    scale: float = 1.0

    def __post_init__(self) -> None:
        require(self.components >= 1, "at least 1 component", self.components)
        require(0 < self.scale < math.inf, "a positive scale", self.scale)

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """A module whose call returns the distribution on ``shape``, once it is attached to a guide."""
        return ExemplarModule(self.components, shape, self.scale)

    def story(self, shape: tuple[int, ...]) -> str:
        """The density as text."""
        return f"(1/{self.components}) sum_c Normal(mu(x_c), sigma^2 I)"


class ExemplarModule(PosteriorMixture):
    """Parameter ``log_scale ()``, and once attached the buffer ``exemplars (C, *event)``."""

    exemplars: Tensor

    def __init__(self, components: int, shape: tuple[int, ...], scale: float) -> None:
        super().__init__(shape)
        self.components = components
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def create(self, spec: DataSpec) -> None:
        """Exemplars of the data's shape, no more than there are data."""
        shape = (min(self.components, spec.size), *spec.event_shape)
        self.register_buffer("exemplars", noise(shape, spec, self.log_scale.detach()))

    @torch.no_grad()
    def start_fit(self, context: Start) -> None:
        """Choose the exemplars among the training data."""
        self.exemplars.copy_(self.pick(context.split, len(self.exemplars), self.exemplars))

    def mixture(self, posterior: Callable[[Tensor], Any]) -> dist.Distribution:
        """p(z), given q(z | x)."""
        means = posterior(self.exemplars).mean
        kernels = dist.Normal(means, self.log_scale.exp()).to_event(len(self.shape))
        return Mixture(dist.Categorical(logits=means.new_zeros(len(means))), kernels)
