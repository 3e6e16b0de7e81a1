"""The elements of a datum one by one, where they are independent: what some of them say, what stands for others."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Independent

from ppl_vae.likelihoods.masked import MaskedDistribution
from ppl_vae.likelihoods.mixed_table import ColumnDistribution

__all__ = ["expected", "observed_log_prob"]


class _Part(NamedTuple):
    """Elements of one kind: their distribution, of batch shape ``(S, B, E)``, and their places among those of a datum."""

    base: Any
    places: Tensor | slice


def observed_log_prob(p: Any, x: Tensor, missing: Tensor) -> Tensor:
    """Log p of the entries of x ``(S, B, *event)`` that are not missing ``(B, *event)``, in nats, ``(S, B)``.

    Args:
        p: of batch shape ``(S, B)``.
        x: data whose missing entries have any value in the support.
        missing: which entries do not count.

    Raises:
        ValueError: elements that depend on each other.
    """
    total = torch.zeros(x.shape[:2], dtype=torch.float64, device=x.device)
    for base, places in _parts(p):
        shape = (*x.shape[:2], *base.batch_shape[2:])
        found = base.log_prob(x.flatten(2)[..., places].reshape(shape)).flatten(2)
        total += found.masked_fill(missing.flatten(1)[:, places], 0.0).sum(-1)
    return total


def expected(p: Any, weights: Tensor) -> Tensor:
    """What stands for each element under the mixture of p ``(S, B)`` by weights ``(S, B)`` that sum to one over S.

    Its mean where it is a real number, the nearest whole number to that where it is a count, and the most probable value of
    those that it can have where these are few.

    Returns:
        ``(B, *event)``.

    Raises:
        ValueError: elements that depend on each other.
    """
    parts = _parts(p)
    found = weights.new_zeros(weights.shape[1], p.event_shape.numel())
    for base, places in parts:
        found[:, places] = _stands_for(base, weights).flatten(1).to(found)
    return found.unflatten(-1, p.event_shape)


def _parts(p: Any) -> list[_Part]:
    if isinstance(p, ColumnDistribution):
        sizes = [part.event_shape[0] for part in p.parts]
        return [_Part(_base(part), places) for part, places in zip(p.parts, p.order.split(sizes), strict=True)]
    return [_Part(_base(p), slice(None))]


def _base(p: Any) -> Any:
    if not isinstance(p, Independent) or p.base_dist.event_shape or p.reinterpreted_batch_ndims != len(p.event_shape):
        raise ValueError(
            "missing entries given others are known of likelihoods whose elements are independent given z, not of "
            f"{type(p).__name__}: use such a likelihood, or GMM, PPCA or FactorAnalysis"
        )
    base = p.base_dist
    return base.base_dist if isinstance(base, MaskedDistribution) else base


def _stands_for(base: Any, weights: Tensor) -> Tensor:
    weights = weights.reshape(*weights.shape, *[1] * (len(base.batch_shape) - 2))
    if base.has_enumerate_support:
        return _most_probable(base, weights)
    mean = (weights * base.mean).sum(0)
    return mean.round() if base.support.is_discrete else mean


def _most_probable(base: Any, weights: Tensor) -> Tensor:
    """One value after the other, so that memory does not grow with their number."""
    values = base.enumerate_support(expand=False).flatten()
    best = torch.full(base.batch_shape[1:], -1.0, dtype=weights.dtype, device=weights.device)
    found = torch.zeros_like(best)
    for value in values:
        probability = (weights * base.log_prob(value.expand(base.batch_shape)).exp()).sum(0)
        found, best = torch.where(probability > best, value.to(found), found), torch.maximum(best, probability)
    return found
