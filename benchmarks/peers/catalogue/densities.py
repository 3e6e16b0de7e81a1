"""Densities by hand that several sides need."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad, softplus

from benchmarks.peers.catalogue.entry import LOG_2_PI

__all__ = [
    "concrete",
    "exponential_noise",
    "of_mixture",
    "of_normal",
    "projected_normal",
    "spline",
    "straight_through",
]


def of_normal(loc: Tensor, scale: Tensor | float, x: Tensor) -> Tensor:
    """The log-density of each element."""
    log_scale = math.log(scale) if isinstance(scale, float) else scale.log()
    return -((x - loc) / scale).square() / 2 - log_scale - LOG_2_PI / 2


def of_mixture(logits: Tensor, loc: Tensor, scale: Tensor, z: Tensor) -> Tensor:
    """The log-density ``(B,)`` of z ``(B, K)`` under diagonal normals ``(C, K)``."""
    each = of_normal(loc, scale, z[:, None]).sum(-1)
    return torch.logsumexp(logits.log_softmax(-1) + each, -1)


def exponential_noise(like: Tensor) -> Tensor:
    """Gumbel noise."""
    return -torch.empty_like(like).exponential_().log()


def straight_through(log_q: Tensor, noise: Tensor, temperature: float) -> Tensor:
    """One-hot draws, their gradients those of the Gumbel-softmax."""
    noisy = log_q + noise
    soft = (noisy / temperature).softmax(-1)
    hard = torch.zeros_like(soft).scatter(-1, noisy.argmax(-1, keepdim=True), 1.0)
    return hard + (soft - soft.detach())


def concrete(logits: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """A relaxed draw on the simplex, its logarithm, and its log-density."""
    log_q, K = logits.log_softmax(-1), logits.shape[-1]
    log_z = ((log_q + exponential_noise(log_q)) / temperature).log_softmax(-1)
    scores = (log_q - temperature * log_z).log_softmax(-1)
    return log_z.exp(), log_z, math.lgamma(K) + (K - 1) * math.log(temperature) + (scores - log_z).sum(-1)


def projected_normal(loc: Tensor, z: Tensor) -> Tensor:
    """The log-density of the direction of Normal(loc, I), its radius integrated out on a grid of its logarithm."""
    K = z.shape[-1]
    t = (loc * z).sum(-1)
    with torch.no_grad():
        root = (t.square() + 4 * K).sqrt()
        mode = torch.where(t > 0, (root + t) / 2, 2 * K / (root + t.abs()))
        spread = (mode.square() + K).rsqrt()
        log_r = mode.log()[..., None] + spread[..., None] * torch.arange(-40.0, 8.0, 0.25)
    radial = (K * log_r - (log_r.exp() - t[..., None]).square() / 2).logsumexp(-1) + (0.25 * spread).log()
    return (t.square() - loc.square().sum(-1)) / 2 - K / 2 * LOG_2_PI + radial


def spline(x: Tensor, theta: Tensor, bins: int, bound: float) -> tuple[Tensor, Tensor]:
    """The monotone rational quadratic spline of Durkan et al. 2019, as in their code: y and log dy / dx."""
    widths, heights, raw = theta.split([bins, bins, bins - 1], -1)
    slopes = pad(1e-3 + softplus(raw + math.log(math.expm1(1 - 1e-3))), (1, 1), value=1.0)

    def knots(logits: Tensor) -> Tensor:
        shares = 1e-3 + (1 - 1e-3 * bins) * logits.softmax(-1)
        inner = bound * (2 * shares.cumsum(-1)[..., :-1] - 1)
        return pad(pad(inner, (1, 0), value=-bound), (0, 1), value=bound)

    xs, ys, inside = knots(widths), knots(heights), x.abs() < bound
    clipped = x.clamp(-bound, bound)
    place = (clipped[..., None] >= xs[..., 1:-1]).sum(-1, keepdim=True)

    def at(values: Tensor, index: Tensor) -> Tensor:
        return values.gather(-1, index)[..., 0]

    x0, y0, d0, d1 = at(xs, place), at(ys, place), at(slopes, place), at(slopes, place + 1)
    width, height = at(xs, place + 1) - x0, at(ys, place + 1) - y0
    t, s = (clipped - x0) / width, height / width
    rest = t * (1 - t)
    denominator = s + (d0 + d1 - 2 * s) * rest
    y = y0 + height * (s * t.square() + d0 * rest) / denominator
    log_slope = 2 * s.log() + (d1 * t.square() + 2 * s * rest + d0 * (1 - t).square()).log() - 2 * denominator.log()
    return torch.where(inside, y, x), torch.where(inside, log_slope, 0.0)
