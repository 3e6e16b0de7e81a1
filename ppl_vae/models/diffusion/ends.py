"""Where a diffusion meets the data: x as numbers around zero, and p(x | z_0)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ppl_vae.likelihoods import Bernoulli, Categorical, Gaussian, Likelihood
from ppl_vae.likelihoods.categorical import Levels
from ppl_vae.models.diffusion.steps import alpha, sigma
from ppl_vae.nn import Network
from ppl_vae.types import DataSpec

__all__ = ["Centred", "Features", "count_levels", "least_gamma", "refuse_without_decoder"]

OF_DENSITIES = -7.0  # gamma(0) of real numbers, noise of a 33rd of their standard deviation


class Centred(nn.Module):
    """Data on [-1, 1], as far as their kind has ends; real numbers stay as they are: x = loc + scale x'.

    Args:
        likelihood: the declared one.
        spec: what the data look like.
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, likelihood: Likelihood, spec: DataSpec) -> None:
        super().__init__()
        high = count_levels(likelihood, spec) - 1
        ends = (0.0, float(high)) if high else (spec.kind.low, spec.kind.high) if spec.kind.bounded else (-1.0, 1.0)
        self.register_buffer("loc", torch.tensor(sum(ends) / 2), persistent=False)
        self.register_buffer("scale", torch.tensor((ends[1] - ends[0]) / 2), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """X' of x."""
        return (x - self.loc) / self.scale

    def back(self, x: Tensor) -> Tensor:
        """X of x'."""
        return self.loc + self.scale * x


def count_levels(likelihood: Likelihood, spec: DataSpec) -> int:
    """L of levels, the bits among them; 1 of data that have none."""
    return likelihood.levels if isinstance(likelihood, Levels) else 2 if spec.kind == "binary" else 1


def least_gamma(likelihood: Likelihood, spec: DataSpec) -> float:
    """gamma(0) where none is declared: of levels noise whose threefold standard deviation is half their distance."""
    gaps = count_levels(likelihood, spec) - 1
    return 2 * math.log(1 / (3 * gaps)) if gaps else OF_DENSITIES


class Features(nn.Module):
    """From z_0 to the features of the likelihood: a network's, or without one by Bayes' rule.

    p(x | z_0) is proportional to q(z_0 | x), which is a density of the noise, elements by themselves. There is nothing to
    learn, and little to lose, for z_0 tells x nearly surely.

    Args:
        likelihood: the declared one.
        network: the declared one, if any.
        centred: from x to what noise is added to.
        spec: what the data look like.
    """

    def __init__(self, likelihood: Likelihood, network: Network | None, centred: Centred, spec: DataSpec) -> None:
        super().__init__()
        shape = spec.event_shape
        self.event_dim = len(shape)
        self.centred = centred
        self.network = None if network is None else network.build(shape, likelihood.feature_shape(shape))
        self.inverse = None if network is not None else inverse_of(likelihood)

    def forward(self, z: Tensor, gamma: Tensor) -> Tensor:
        """Features ``(..., P, *event)`` of z_0 ``(..., *event)``."""
        if self.network is not None:
            found: Tensor = self.network(z)
            return found
        assert self.inverse is not None
        return self.inverse(z, gamma, self.event_dim, self.centred)


Inverse = Callable[[Tensor, Tensor, int, Centred], Tensor]


def _logits(likelihood: Any) -> Inverse:
    """Of the levels 0 to L - 1, log q(z_0 | x = level) up to what is the same for all."""
    levels = likelihood.levels

    def features(z: Tensor, gamma: Tensor, event_dim: int, centred: Centred) -> Tensor:
        places = centred(torch.arange(levels, device=z.device, dtype=z.dtype)).reshape(-1, *(1,) * event_dim)
        away = z.unsqueeze(-1 - event_dim) - alpha(gamma) * places
        return -away.square() / (2 * sigma(gamma).square())

    return features


def _log_odds(likelihood: Any) -> Inverse:
    """Of 1 against 0, which lie at 1 and -1."""
    return lambda z, gamma, event_dim, centred: (2 * alpha(gamma) / sigma(gamma).square() * z).unsqueeze(-1 - event_dim)


def _location(likelihood: Any) -> Inverse:
    """The x at which z_0 is likeliest."""
    return lambda z, gamma, event_dim, centred: centred.back(z / alpha(gamma)).unsqueeze(-1 - event_dim)


INVERSES: dict[type[Likelihood], Callable[[Any], Inverse]] = {
    Categorical: _logits,
    Bernoulli: _log_odds,
    Gaussian: _location,
}


def inverse_of(likelihood: Likelihood) -> Inverse:
    """The features by Bayes' rule, of a likelihood that :func:`refuse_without_decoder` lets pass."""
    return INVERSES[type(likelihood)](likelihood)


def refuse_without_decoder(likelihood: Likelihood) -> None:
    """Raise ``ValueError`` if there is no rule for p(x | z_0) of a likelihood, and a decoder has to learn it."""
    amortized = isinstance(likelihood, Gaussian) and likelihood.features > 1
    if type(likelihood) not in INVERSES or amortized:
        what = f"{type(likelihood).__name__}{' of an amortized scale' if amortized else ''}"
        raise ValueError(
            f"expected a decoder for {what}, whose features have to be learned from z_0, got none: declare decoder=MLP(), or "
            f"one of {', '.join(cls.__name__ for cls in INVERSES)}"
        )
