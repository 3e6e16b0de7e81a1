"""Mixtures: their support has a bijection with the real numbers, and normal components cost two matrix products."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from ppl_vae.program.recording import being_recorded
from ppl_vae.program.wrapped import WrappedDistribution

__all__ = ["Mixture"]

CONDITION = 1e9  # terms of this size leave seven digits of a nat in float64, as many as the result has in float32


class Mixture(dist.MixtureSameFamily):
    """Pyro's, with the components' own constraint as its support: torch has no bijection to the one that it wraps around.

    Of C diagonal normals that all data share, (z - mu)^2 / sigma^2 is multiplied out about the middle of the mu: two matrix
    products instead of tensors ``(B, C, K)``, in float64. Components so narrow beside their distances that digits would be lost
    even there are subtracted first; a recorded graph, which cannot decide by values, multiplies out.
    """

    _shared: Mixture | None = None

    @constraints.dependent_property
    def support(self) -> Any:
        """Where the components have their mass."""
        return self.component_distribution.support

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> Mixture:
        """The same for many data; what they share is kept."""
        expanded = super().expand(batch_shape, _instance)
        expanded._shared = self._shared or (None if self.batch_shape else self)
        return expanded

    def log_prob(self, value: Tensor) -> Tensor:
        """Of values ``(..., *event)``, ``(...)``."""
        shared = self._shared or self
        components = shared.component_distribution
        normal = components.base_dist if isinstance(components, WrappedDistribution) else None
        if (
            shared.batch_shape
            or not isinstance(normal, torch.distributions.Normal)
            or normal.batch_shape[1:] != self.event_shape
        ):
            return super().log_prob(value)
        if self._validate_args:
            self._validate_sample(value)
        exact = torch.float32 if value.device.type == "mps" else torch.float64  # which has no float64
        z = value.reshape(-1, self.event_shape.numel()).to(exact)
        loc, scale = (tensor.expand(normal.batch_shape).flatten(1).to(exact) for tensor in (normal.loc, normal.scale))
        center = loc.detach().mean(0)
        z, loc = z - center, loc - center
        precision = scale**-2
        if not being_recorded() and not bool((loc.square() * precision).sum(1).max() < CONDITION):
            squares = ((z[:, None] - loc) / scale).square().sum(-1)
        else:
            squares = z.square() @ precision.T - 2 * z @ (loc * precision).T + (loc.square() * precision).sum(1)
        log_prob = -0.5 * (squares + z.shape[1] * math.log(2 * math.pi)) - scale.log().sum(1)
        weights = shared.mixture_distribution.logits.log_softmax(-1)
        return (weights + log_prob).logsumexp(-1).to(value.dtype).reshape(value.shape[: value.dim() - len(self.event_shape)])
