"""Increasing functions of one number, with parameters theta: what flows are made of. Theta = 0 is the identity."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad, softplus

__all__ = ["Affine", "Composed", "RationalQuadraticSpline"]

LIMIT = 3.0  # of |log f'| of an affine function
MIN_WIDTH = 1e-3  # of a spline's bin, as a share of the whole
MIN_SLOPE = 1e-3


class Affine:
    """f(x) = exp(s) x + m, s held within +-3 by a tanh."""

    size = 2

    def forward(self, x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Y and log f'(x), both of the shape of x, for theta ``(*x, 2)``."""
        loc, raw = theta.unbind(-1)
        log_scale = LIMIT * torch.tanh(raw / LIMIT)
        return log_scale.exp() * x + loc, log_scale + torch.zeros_like(x)

    def inverse(self, y: Tensor, theta: Tensor) -> Tensor:
        """The x with f(x) = y."""
        loc, raw = theta.unbind(-1)
        return (y - loc) * (-LIMIT * torch.tanh(raw / LIMIT)).exp()


class RationalQuadraticSpline:
    """The monotone rational quadratic spline on [-bound, bound], the identity outside (Durkan et al. 2019).

    Theta are the logits of the bins' widths and of their heights, and the slopes at inner knots before softplus.

    Args:
        bins: number of pieces.
        bound: half the width of the box where the function is not the identity.
    """

    def __init__(self, bins: int = 8, bound: float = 5.0) -> None:
        self.bins = bins
        self.bound = bound
        self.size = 3 * bins - 1

    def forward(self, x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Y and log f'(x), both of the shape of x, for theta ``(*x, 3 bins - 1)``."""
        inside = x.abs() < self.bound
        xs, ys, slopes = self._knots(theta)
        clipped = x.clamp(-self.bound, self.bound)
        x0, w, y0, h, d0, d1 = self._piece(clipped, xs, xs, ys, slopes)
        t = (clipped - x0) / w
        s, rest = h / w, t * (1 - t)
        denominator = s + (d0 + d1 - 2 * s) * rest
        y = y0 + h * (s * t.square() + d0 * rest) / denominator
        slope = d1 * t.square() + 2 * s * rest + d0 * (1 - t).square()
        log_slope = 2 * s.log() + slope.log() - 2 * denominator.log()
        return torch.where(inside, y, x), torch.where(inside, log_slope, torch.zeros_like(x))

    def inverse(self, y: Tensor, theta: Tensor) -> Tensor:
        """The x with f(x) = y: a root of a quadratic equation in the place within the bin."""
        inside = y.abs() < self.bound
        xs, ys, slopes = self._knots(theta)
        clipped = y.clamp(-self.bound, self.bound)
        x0, w, y0, h, d0, d1 = self._piece(clipped, ys, xs, ys, slopes)
        s, above = h / w, clipped - y0
        bend = d0 + d1 - 2 * s
        a, b, c = h * (s - d0) + above * bend, h * d0 - above * bend, -s * above
        t = 2 * c / (-b - (b.square() - 4 * a * c).clamp_min(0).sqrt())
        return torch.where(inside, x0 + t * w, y)

    def _knots(self, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Abscissas, ordinates and slopes at the knots, each ``(..., bins + 1)``."""
        widths, heights, raw = theta.split([self.bins, self.bins, self.bins - 1], dim=-1)
        slopes = MIN_SLOPE + softplus(raw + math.log(math.expm1(1 - MIN_SLOPE)))
        return self._edges(widths), self._edges(heights), pad(slopes, (1, 1), value=1.0)

    def _edges(self, logits: Tensor) -> Tensor:
        shares = MIN_WIDTH + (1 - MIN_WIDTH * self.bins) * logits.softmax(-1)
        inner = self.bound * (2 * shares.cumsum(-1)[..., :-1] - 1)
        left = pad(inner, (1, 0), value=-self.bound)
        return pad(left, (0, 1), value=self.bound)

    def _piece(self, value: Tensor, edges: Tensor, xs: Tensor, ys: Tensor, slopes: Tensor) -> tuple[Tensor, ...]:
        """Left end, width, bottom, height and the two slopes of the bin that holds each value among ``edges``."""
        left = (value.unsqueeze(-1) >= edges[..., 1:-1]).sum(-1, keepdim=True)
        own = left == torch.arange(self.bins, device=value.device)

        # Sums of one number each: unlike an index, whose gradient is scattered number by number, they are loops that compile.
        def at(knots: Tensor) -> Tensor:
            return torch.where(own, knots, 0.0).sum(-1)

        x0, y0 = at(xs[..., :-1]), at(ys[..., :-1])
        return x0, at(xs[..., 1:]) - x0, y0, at(ys[..., 1:]) - y0, at(slopes[..., :-1]), at(slopes[..., 1:])


class Composed:
    """One function after another, f(x) = f_n(... f_1(x)); theta are their parameters side by side."""

    def __init__(self, *curves: Any) -> None:
        self.curves = curves
        self.size = sum(curve.size for curve in curves)

    def forward(self, x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Y and log f'(x), both of the shape of x."""
        log_slope = torch.zeros_like(x)
        for curve, part in self._parts(theta):
            x, more = curve.forward(x, part)
            log_slope = log_slope + more
        return x, log_slope

    def inverse(self, y: Tensor, theta: Tensor) -> Tensor:
        """The x with f(x) = y."""
        for curve, part in reversed(self._parts(theta)):
            y = curve.inverse(y, part)
        return y

    def _parts(self, theta: Tensor) -> list[tuple[Any, Tensor]]:
        return list(zip(self.curves, theta.split([curve.size for curve in self.curves], dim=-1), strict=True))
