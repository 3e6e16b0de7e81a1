"""Importance sampling: the bound that many samples give, and whether their weights are to be trusted."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["FEWEST", "UNTRUSTED", "importance_bound", "importance_error", "pareto_k", "tail_length"]

UNTRUSTED = 0.7  # k-hat above which the mean of the weights converges too slowly for any practical number of samples
FEWEST = 25  # samples: with fewer there are no five weights to fit a tail to
EQUAL = 1e-4  # differences between weights, relative to the largest, that may be rounding
TIED = 1e-12  # between logarithms of weights; and of the lower quartile to the largest, beyond which no shape can be fitted


def importance_bound(log_weights: Tensor) -> Tensor:
    r"""The importance-weighted bound of each datum, :math:`\log \frac1S \sum_s w_s` (Burda, Grosse, Salakhutdinov 2016).

    Args:
        log_weights: log p(x, z) - log q(z | x), ``(S, B)``, z drawn from q.

    Returns:
        ``(B,)`` in nats.

    Examples:
        >>> importance_bound(torch.tensor([[0.0], [0.0]]))
        tensor([0.])
    """
    return log_weights.logsumexp(0) - math.log(len(log_weights))


def importance_error(log_weights: Tensor) -> Tensor:
    """The standard error of :func:`importance_bound` as an estimate of log p(x), ``(B,)``: that of mean(w) over mean(w).

    Args:
        log_weights: ``(S, B)``.

    Examples:
        >>> importance_error(torch.tensor([[0.0], [0.0]]))
        tensor([0.])
    """
    weights = (log_weights - log_weights.max(0).values).exp()
    return weights.std(0, correction=0) / (weights.mean(0) * math.sqrt(len(weights)))


def pareto_k(log_weights: Tensor) -> Tensor:
    """K-hat of each datum, the shape of the generalized Pareto distribution that the largest weights follow.

    Of weights with k-hat above 0.7 the mean is not to be trusted: a few of them make it up, and its error does not fall with
    more samples as it should (Vehtari, Simpson, Gelman, Yao and Gabry 2024, "Pareto smoothed importance sampling"). The fit is
    that of Zhang and Stephens (2009), drawn towards one half as there.

    Args:
        log_weights: ``(S, B)``, at least 25 samples.

    Returns:
        ``(B,)``; minus infinity where the largest weights are equal, as with the exact posterior, and have no tail; infinity
        where the largest makes nothing of the others.

    Raises:
        ValueError: too few samples.

    Examples:
        >>> u = (torch.arange(4000).double() + 0.5) / 4000
        >>> round(pareto_k(-0.9 * u.log()[:, None]).item(), 1)
        0.9
    """
    samples = len(log_weights)
    if samples < FEWEST:
        raise ValueError(f"expected at least {FEWEST} samples to fit a tail to, got {samples}")
    tail = tail_length(samples)
    largest = log_weights.double().topk(tail + 1, dim=0).values
    weights = (largest - largest[0]).exp()
    excess = (weights[:-1] - weights[-1]).flip(0)  # from the smallest to the largest
    quartile = excess[_quartile(tail)]
    # Weights that are equal up to rounding, and ties such as discrete latent variables give, have no tail.
    none = (excess[-1] <= EQUAL) | (largest[tail - 1 - _quartile(tail)] - largest[-1] <= TIED)
    endless = ~none & (quartile <= TIED * excess[-1])  # beside the largest the others are nothing
    shape = _pareto_shape(torch.where(none | endless, torch.ones_like(excess), excess))
    return torch.where(none, -math.inf, torch.where(endless, math.inf, (tail * shape + 10 * 0.5) / (tail + 10)))


def tail_length(samples: int) -> int:
    """How many of the largest weights k-hat looks at: min(S / 5, 3 S^(1/2))."""
    return math.ceil(min(0.2 * samples, 3 * math.sqrt(samples)))


def _pareto_shape(x: Tensor) -> Tensor:
    """The shape ``(B,)`` of generalized Pareto distributions for their ascending draws ``(M, B)`` (Zhang and Stephens 2009)."""
    count = len(x)
    grid = 30 + int(math.sqrt(count))
    points = torch.arange(1, grid + 1, dtype=x.dtype, device=x.device).unsqueeze(-1)
    # b = -shape / scale, on a grid that a weak prior spans; its posterior mean has a closed form on the profile likelihood.
    b = 1 / x[-1] + (1 - (grid / (points - 0.5)).sqrt()) / (3 * x[_quartile(count)])
    shapes = torch.stack([torch.log1p(-each * x).mean(0) for each in b])
    log_posterior = count * ((-b / shapes).log() - shapes - 1)
    return torch.log1p(-(log_posterior.softmax(0) * b).sum(0) * x).mean(0)


def _quartile(count: int) -> int:
    return int(count / 4 + 0.5) - 1
