r"""Log-densities of large counts, concentrations and factors that keep their digits in float32.

The usual formulas are differences of log-gamma functions: at a count of a million these are numbers of 10^7, of which float32
knows the first digit before the point. Written as deviances they are small numbers from the start: Loader 2000, "Fast and
accurate computation of binomial probabilities".

.. math:: \log z! = z \log s - s + K(z), \quad s = \max(z, 1)

K is about :math:`1 + \tfrac12 \log z`, and what stands before it goes into ``z t - s expm1(t)`` for the logarithm t of a mean
by s: no branch for large numbers and another for small ones, both of which a compiled step would pay for.
"""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

__all__ = [
    "LowRankMultivariateNormal",
    "StudentT",
    "log_beta",
    "log_binomial",
    "log_dirichlet",
    "log_gamma_ratio",
    "log_multinomial",
    "log_negative_binomial",
    "log_poisson",
    "low_rank_mahalanobis",
]

STIRLING = 8.0  # from here on six terms of Stirling's series are exact to the last digit of float64
SERIES = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360)  # B_2k / (2k (2k - 1)), by odd powers of 1 / a
LOG_2_PI = math.log(2 * math.pi)
FAR = 1e6  # squares of what is farther are 1 more than themselves, and may leave float32


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
    """Log of ``exp(-rate) rate^x / x!``."""
    return _deviance(x, log_rate) - _counted(x)


def log_binomial(x: Tensor, y: Tensor, log_p: Tensor, log_q: Tensor, *, n: Tensor | None = None) -> Tensor:
    """Log of ``Gamma(n + 1) / (x! y!) p^x q^y`` for p + q = 1 and whole x and y.

    Args:
        x: successes.
        y: failures.
        log_p: log p.
        log_q: log q, given because ``1 - p`` would lose the digits of a small one.
        n: their sum, in as few elements as it has.
    """
    n = x + y if n is None else n
    return _shares((x, y), (log_p, log_q), n) + _counted(n) - _counted(x) - _counted(y)


def log_negative_binomial(x: Tensor, r: Tensor, log_odds: Tensor) -> Tensor:
    """Log of ``Gamma(x + r) / (x! Gamma(r)) p^x q^r``, ``log_odds = log(p / q)``, for counts x and any r > 0.

    Without the digamma function, for which there are no vector instructions, in its gradient by r.
    """
    n = x + r
    among = _shares((x, r), (logsigmoid(log_odds), logsigmoid(-log_odds)), n) + _learned(n) - _counted(x) - _learned(r)
    return among - torch.log1p(x / r)


def log_beta(log_x: Tensor, log_y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Log-density of the beta distribution at x, given log x and log(1 - x)."""
    n = a + b
    among = _shares((a, b), (log_x, log_y), n) + _learned(n) - _learned(a) - _learned(b)
    return among + a.log() + b.log() - n.log() - log_x - log_y


def log_multinomial(x: Tensor, log_p: Tensor) -> Tensor:
    """Log of ``n! / prod_k x_k! prod_k p_k^x_k`` along the last axis, for counts x whose sum is n."""
    n, s = x.sum(-1), x.clamp_min(1.0)
    t = log_p + n.clamp_min(1.0).log().unsqueeze(-1) - s.log()
    each = torch.where(x > 0, x * t, 0.0) - s * torch.expm1(t) - _counted(x)  # p may be 0 where x is
    return each.sum(-1) + _counted(n)


def log_dirichlet(log_x: Tensor, a: Tensor) -> Tensor:
    """Log-density of the Dirichlet distribution along the last axis, at x with these logarithms."""
    n = a.sum(-1)
    each = _deviance(a, log_x + n.clamp_min(1.0).log().unsqueeze(-1)) - _learned(a) + a.log() - log_x
    return each.sum(-1) + _learned(n) - n.log()


def low_rank_mahalanobis(y: Tensor, factor: Tensor, cholesky: Tensor) -> Tensor:
    """``y^T (I + G G^T)^-1 y = |y - G m|^2 + |m|^2``, with ``m = (I + G^T G)^-1 G^T y`` the posterior mean of the factors.

    Sums of squares, where Woodbury's ``|y|^2 - m^T G^T y`` loses the digits of strong factors.

    Args:
        y: ``(..., D)``.
        factor: G ``(..., D, R)``.
        cholesky: lower factor of ``I + G^T G``, ``(..., R, R)``.
    """
    if factor.dim() == 2:  # one G for all: one system of equations with all y at its right
        projected = y @ factor
        mean = torch.cholesky_solve(projected.reshape(-1, factor.shape[1]).mT, cholesky).mT.reshape(projected.shape)
        return (y - mean @ factor.mT).square().sum(-1) + mean.square().sum(-1)
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

    def __init__(self, df: Tensor, loc: Tensor, scale: Tensor, validate_args: bool | None = None) -> None:
        self.given_df = df  # in as few elements as it has: its gamma functions cost more than all the rest
        super().__init__(df, loc, scale, validate_args=validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density."""
        if self._validate_args:
            self._validate_sample(value)
        df = self.given_df
        constant = log_gamma_ratio((df + 1) / 2, df / 2, torch.full_like(df, 0.5)) - (df.log() + math.log(math.pi)) / 2
        # Squares that leave float32 would make the logarithm infinite, which it is not: log(f^2) is 2 log(1 + (f - 1)).
        root = ((value - self.loc) / self.scale).abs() / df.sqrt()
        far = root > FAR
        tail = torch.where(far, 2.0, 1.0) * torch.log1p(torch.where(far, root - 1, root.clamp_max(FAR).square()))
        return constant - self.scale.log() - (df + 1) / 2 * tail

    def expand(self, batch_shape: Any, _instance: Any = None) -> StudentT:
        """The same distribution with a larger batch shape."""
        loc, scale = (x.expand(batch_shape) for x in (self.loc, self.scale))
        return StudentT(self.given_df, loc, scale, validate_args=self._validate_args)


def _deviance(z: Tensor, log_mean: Tensor) -> Tensor:
    """``z t - s expm1(t)``, t = log(mean / s), which from z = 1 on is largest, 0, at the mean z."""
    s = z.clamp_min(1.0)
    t = log_mean - s.log()
    return z * t - s * torch.expm1(t)


def _shares(parts: tuple[Tensor, Tensor], log_p: tuple[Tensor, Tensor], n: Tensor) -> Tensor:
    """Deviances of two parts of n from the shares p that they should have."""
    log_n = n.clamp_min(1.0).log()
    first, second = (_deviance(z, log + log_n) for z, log in zip(parts, log_p, strict=True))
    return first + second


def _counted(z: Tensor) -> Tensor:
    """K(z) of counts, exact for small ones."""
    s = z.clamp_min(1.0)
    log_s = s.log()
    large = (log_s + LOG_2_PI) / 2 + _remainder(s.clamp_min(STIRLING))
    return torch.where(z >= STIRLING, large, torch.lgamma(z + 1) - z * log_s + s)


def _learned(z: Tensor) -> Tensor:
    """K(z) of numbers that have gradients: of small ones from z + 8, with ``(z + 1) ... (z + 8)`` divided out."""
    small = z < STIRLING
    a = torch.where(small, z + 8, z)
    log_a, few = a.log(), z.clamp_max(STIRLING)
    s, y = few.clamp_min(1.0), few * (few + 9)
    product = (y + 8) * (y + 14) * (y + 18) * (y + 20)
    less = torch.where(small, few + 8, STIRLING)
    rest = less * torch.where(small, log_a, 0.0) - less - product.log() - few * s.log() + s
    return (log_a + LOG_2_PI) / 2 + _remainder(a) + torch.where(small, rest, 0.0)


def _remainder(a: Tensor) -> Tensor:
    """Log Gamma(a) - [(a - 1/2) log a - a + log(2 pi) / 2] for large a."""
    inverse = 1 / a
    square, total = inverse * inverse, torch.full_like(a, SERIES[-1])
    for term in SERIES[-2::-1]:
        total = total * square + term
    return total * inverse
