r"""Log-densities of large counts, concentrations and factors that keep their digits in float32.

The usual formulas are differences of log-gamma functions: at a count of a million these are numbers of 10^7, of which float32
knows the first digit before the point. Written as deviances they are small numbers from the start: Loader 2000, "Fast and
accurate computation of binomial probabilities".

.. math:: \log \Gamma(a) = (a - \tfrac12) \log a - a + \tfrac12 \log 2 \pi + R(a), \quad \varphi(t) = e^t - 1 - t
"""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

__all__ = [
    "LowRankMultivariateNormal",
    "StudentT",
    "log_binomial",
    "log_dirichlet",
    "log_gamma_ratio",
    "log_poisson",
    "low_rank_mahalanobis",
]

STIRLING = 50.0  # from here on three terms of Stirling's series are exact to the last digit of float64
NEAR = 0.1  # below it phi is summed as a power series, whose terms after the eighth are below the last digit of float64
LOG_2_PI = math.log(2 * math.pi)


def log_gamma_ratio(c: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Log Gamma(c) - log Gamma(a) for c = a + b, without the difference of two large numbers where both are large.

    The rounding of c costs ``b log c`` no digit because b is given too.
    """
    large = (a >= STIRLING) & (c >= STIRLING)
    direct = torch.lgamma(c) - torch.lgamma(a)
    a, c, b = torch.where(large, a, STIRLING), torch.where(large, c, STIRLING), torch.where(large, b, 0.0)
    stirling = (a - 0.5) * torch.log1p(b / a) + b * c.log() - b + _remainder(c) - _remainder(a)
    return torch.where(large, stirling, direct)


def log_poisson(x: Tensor, log_rate: Tensor) -> Tensor:
    """Log of ``exp(-rate) rate^x / x!``: ``-x phi(log(rate / x)) - log(2 pi x) / 2 - R(x)`` for large x."""
    large = x >= STIRLING
    direct = x * log_rate - log_rate.exp() - torch.lgamma(x + 1)
    x = torch.where(large, x, STIRLING)
    stirling = -_deviance(x, torch.where(large, log_rate, math.log(STIRLING))) - (LOG_2_PI + x.log()) / 2 - _remainder(x)
    return torch.where(large, stirling, direct)


def log_binomial(x: Tensor, y: Tensor, log_p: Tensor, log_q: Tensor) -> Tensor:
    """Log of ``Gamma(x + y + 1) / (x! y!) p^x q^y`` for p + q = 1; x and y need not be whole.

    For large x and y, of the total n, it is
    ``-x phi(log(n p / x)) - y phi(log(n q / y)) + log(n / (2 pi x y)) / 2 + R(n) - R(x) - R(y)``.
    """
    x, y, log_p, log_q = torch.broadcast_tensors(x, y, log_p, log_q)
    large = (x >= STIRLING) & (y >= STIRLING)
    less, more = torch.minimum(x, y), torch.maximum(x, y)
    direct = log_gamma_ratio(x + y + 1, more + 1, less) - torch.lgamma(less + 1) + x * log_p + y * log_q
    x, y = torch.where(large, x, STIRLING), torch.where(large, y, STIRLING)
    log_n = (x + y).log()
    deviance = _deviance(x, torch.where(large, log_p, -math.log(2)) + log_n)
    deviance = deviance + _deviance(y, torch.where(large, log_q, -math.log(2)) + log_n)
    stirling = (log_n - x.log() - y.log() - LOG_2_PI) / 2 - deviance + _remainder(x + y) - _remainder(x) - _remainder(y)
    return torch.where(large, stirling, direct)


def log_dirichlet(log_x: Tensor, a: Tensor) -> Tensor:
    """Log-density of the Dirichlet distribution along the last axis, at x with these logarithms.

    For K large concentrations a of the sum n it is
    ``-sum_k [a_k phi(log(n x_k / a_k)) + log x_k + R(a_k) - log(a_k) / 2] - (log n + (K - 1) log(2 pi)) / 2 + R(n)``.
    """
    log_x, a = torch.broadcast_tensors(log_x, a)
    large = (a >= STIRLING).all(-1)
    n = a.sum(-1)
    direct = ((a - 1) * log_x).sum(-1) + torch.lgamma(n) - torch.lgamma(a).sum(-1)
    a = torch.where(large.unsqueeze(-1), a, STIRLING)
    n = a.sum(-1)
    x = torch.where(large.unsqueeze(-1), log_x, a.log() - n.log().unsqueeze(-1))
    each = _deviance(a, x + n.log().unsqueeze(-1)) + x + _remainder(a) - a.log() / 2
    stirling = -each.sum(-1) - (n.log() + (a.shape[-1] - 1) * LOG_2_PI) / 2 + _remainder(n)
    return torch.where(large, stirling, direct)


def low_rank_mahalanobis(y: Tensor, factor: Tensor, cholesky: Tensor) -> Tensor:
    """``y^T (I + G G^T)^-1 y = |y - G m|^2 + |m|^2``, with ``m = (I + G^T G)^-1 G^T y`` the posterior mean of the factors.

    Sums of squares, where Woodbury's ``|y|^2 - m^T G^T y`` loses the digits of strong factors.

    Args:
        y: ``(..., D)``.
        factor: G ``(..., D, R)``.
        cholesky: lower factor of ``I + G^T G``, ``(..., R, R)``.
    """
    projected = (factor.mT @ y.unsqueeze(-1)).expand(*y.shape[:-1], factor.shape[-1], 1)
    mean = torch.cholesky_solve(projected, cholesky)
    residual = y - (factor @ mean).squeeze(-1)
    return residual.square().sum(-1) + mean.square().sum((-2, -1))


class LowRankMultivariateNormal(dist.LowRankMultivariateNormal):
    """Pyro's, with a log-density that keeps its digits for strong factors."""

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density."""
        if self._validate_args:
            self._validate_sample(value)
        scale, L = self._unbroadcasted_cov_diag.sqrt(), self._capacitance_tril
        mahalanobis = low_rank_mahalanobis((value - self.loc) / scale, self._unbroadcasted_cov_factor / scale.unsqueeze(-1), L)
        log_det = 2 * (scale.log().sum(-1) + L.diagonal(dim1=-2, dim2=-1).log().sum(-1))
        return -(mahalanobis + log_det + self._event_shape[0] * LOG_2_PI) / 2


class StudentT(dist.StudentT):
    """Pyro's, with a log-density that keeps its digits for many degrees of freedom."""

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density."""
        if self._validate_args:
            self._validate_sample(value)
        half = torch.full_like(self.df, 0.5)
        y = (value - self.loc) / self.scale
        constant = log_gamma_ratio((self.df + 1) / 2, self.df / 2, half) - (self.df.log() + math.log(math.pi)) / 2
        # Squares that leave float32 would make the logarithm infinite, which it is not.
        far = y.abs() / self.df.sqrt()
        tail = torch.where(far > 1e6, 2 * far.clamp_min(1.0).log(), torch.log1p(far.clamp_max(1e6).square()))
        return constant - self.scale.log() - (self.df + 1) / 2 * tail

    def expand(self, batch_shape: Any, _instance: Any = None) -> StudentT:
        """The same distribution with a larger batch shape."""
        df, loc, scale = (x.expand(batch_shape) for x in (self.df, self.loc, self.scale))
        return StudentT(df, loc, scale, validate_args=self._validate_args)


def _deviance(x: Tensor, log_mean: Tensor) -> Tensor:
    """X phi(log(mean / x)), at least 0."""
    t = log_mean - x.log()
    near = t.clamp(-NEAR, NEAR)
    series = torch.zeros_like(near)
    for k in range(10, 1, -1):
        series = (series + 1 / math.factorial(k)) * (near if k > 2 else 1.0)
    return x * torch.where(t.abs() < NEAR, series * near.square(), torch.expm1(t) - t)


def _remainder(a: Tensor) -> Tensor:
    """Log Gamma(a) - [(a - 1/2) log a - a + log(2 pi) / 2] for large a."""
    return (1 / 12 - (1 / 360 - 1 / (1260 * a.square())) / a.square()) / a
