"""Coordinate ascent for factor analysis whose parameters carry conjugate priors (Bishop 1999; Ghahramani and Beal 2000).

    w_dk ~ N(m0, 1 / alpha_k),  mu_d ~ N(l0, v0),  psi_d ~ InverseGamma(a0, b0)     alpha_k given, or alpha_k ~ Gamma(c0, d0)
    q = prod_d q(w_d, mu_d) q(psi) q(alpha) prod_n q(z_n)                           normal, inverse gamma, gamma, normal

A row of the loadings and its mean are one factor, so that nothing is lost between them. With random alpha, factors that the
data do not support are switched off (automatic relevance determination). Everything is a function of the factors and of the
moments of the data, whatever N is. Bounds are in nats per datum, in closed form, constants kept.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Gamma, kl_divergence

from ppl_vae.exact.linear_gaussian import Parameters
from ppl_vae.exact.moments import Moments

__all__ = [
    "Factors",
    "LatentFactor",
    "Priors",
    "cavi_step",
    "initial",
    "kl_shared",
    "latent_factor",
    "point",
    "terms",
    "update",
]

WEAK = 0.1  # loadings of all factors at least, at the start, in noise scales


class Priors(NamedTuple):
    """The priors of D columns' loadings of K factors, their means and noise variances.

    Args:
        locs: of the loadings and the mean of each column, ``(D, K + 1)``.
        precisions: of them, ``(D, K + 1)``; of loadings with random alpha they are not looked at.
        noise: a0 and b0 of psi, ``(D,)`` each; of one psi for all columns ``(1,)``.
        relevance: c0 and d0 of alpha, ``()`` each; ``None`` if it is given.
    """

    locs: Tensor
    precisions: Tensor
    noise: tuple[Tensor, Tensor]
    relevance: tuple[Tensor, Tensor] | None


class Factors(NamedTuple):
    """Q of the parameters.

    Args:
        locs: means of q(w_d, mu_d), ``(D, K + 1)``.
        covariances: of q(w_d, mu_d), ``(D, K + 1, K + 1)``.
        noise_shape: of q(psi), ``(D,)`` or ``(1,)``.
        noise_rate: of q(psi), likewise.
        relevance_shape: of q(alpha), ``(K,)``.
        relevance_rate: of q(alpha), ``(K,)``.
    """

    locs: Tensor
    covariances: Tensor
    noise_shape: Tensor
    noise_rate: Tensor
    relevance_shape: Tensor
    relevance_rate: Tensor


class LatentFactor(NamedTuple):
    """q(z_n) = Normal(G x_n - g, V): the map ``(K, D)``, the shift ``(K,)`` and the covariance ``(K, K)`` of all data."""

    weight: Tensor
    shift: Tensor
    covariance: Tensor


def initial(start: Parameters, seen: Moments, priors: Priors) -> Factors:
    """The factors after one sweep from point estimates."""
    D, K = start.loadings.shape
    zeros = start.loc.new_zeros
    noise = start.noise if len(priors.noise[0]) == D else start.noise.mean(0, keepdim=True)
    shape = torch.ones_like(noise)
    source = torch.Generator().manual_seed(0)
    weak = torch.randn(D, K, generator=source, dtype=noise.dtype).to(noise.device) * start.noise[:, None].sqrt()
    loadings = start.loadings + WEAK * weak  # a factor that loads on nothing would stay so
    relevance = zeros(K) + 1, loadings.square().mean().expand(K)
    locs = torch.cat([loadings, start.loc[:, None]], 1)
    return update(Factors(locs, zeros(D, K + 1, K + 1), shape, noise, *relevance), seen, priors)


def cavi_step(factors: Factors, seen: Moments, priors: Priors) -> tuple[Factors, Tensor]:
    """One sweep: new factors, and the ELBO of the old ones with the best q(z), in nats per datum."""
    q = latent_factor(factors)
    y, xy, kl_latent = _sums(q, seen)
    errors = _errors(factors, y, xy, seen)
    expected = (_log_precision(factors) - math.log(2 * math.pi) - _precision(factors) * errors / seen.rows).sum() / 2
    value = expected - kl_latent / seen.rows - kl_shared(factors, priors) / seen.rows
    return update(factors, seen, priors), value


def update(factors: Factors, seen: Moments, priors: Priors) -> Factors:
    """Q(z), then the rows of the loadings with their means, the noise, and alpha, each the best given the others."""
    y, xy, _ = _sums(latent_factor(factors), seen)
    tau, prior = _precision(factors), _prior_precision(factors, priors)
    V = torch.cholesky_inverse(torch.linalg.cholesky(prior.diag_embed() + tau[:, None, None] * y))
    locs = (V @ (prior * priors.locs + tau[:, None] * xy)[..., None])[..., 0]
    found = factors._replace(locs=locs, covariances=V)
    errors, (a0, b0) = _errors(found, y, xy, seen), priors.noise
    shared = len(a0) < len(errors)
    a = a0 + seen.rows * (len(errors) if shared else 1) / 2
    b = b0 + (errors.sum(0, keepdim=True) if shared else errors) / 2
    found = _rescaled(found._replace(noise_shape=a, noise_rate=b), y, seen, priors)
    if priors.relevance is None:
        return found
    c0, d0 = priors.relevance
    squares = _squares(found, priors).sum(0)
    shape = (c0 + len(locs) / 2).expand(squares.shape)
    return found._replace(relevance_shape=shape, relevance_rate=d0 + squares / 2)


def latent_factor(factors: Factors) -> LatentFactor:
    """The best q(z_n) given the other factors."""
    K = factors.locs.shape[1] - 1
    tau, W = _precision(factors), factors.locs[:, :K]
    seconds = factors.covariances + factors.locs[:, :, None] * factors.locs[:, None, :]
    weighted = (tau[:, None, None] * seconds).sum(0)
    precision = torch.eye(K, dtype=W.dtype, device=W.device) + weighted[:K, :K]
    covariance = torch.cholesky_inverse(torch.linalg.cholesky(precision))
    return LatentFactor(covariance @ (W.T * tau), covariance @ weighted[:K, K], covariance)


def terms(factors: Factors, x: Tensor) -> tuple[Tensor, Tensor]:
    """Of each datum x ``(N, D)``: E_q[log p(x_n | z_n, theta)] and KL(q(z_n) || p(z_n)), ``(N,)`` each."""
    q, K = latent_factor(factors), factors.locs.shape[1] - 1
    z = x @ q.weight.T - q.shift
    y = torch.cat([z, torch.ones_like(z[:, :1])], 1)
    tau = _precision(factors).expand(x.shape[1])
    squares = (x - y @ factors.locs.T).square() @ tau
    weighted = (tau[:, None, None] * factors.covariances).sum(0)
    quadratic = ((y @ weighted) * y).sum(1)
    loads = (tau[:, None] * factors.locs[:, :K]).T @ factors.locs[:, :K] + weighted[:K, :K]
    constant = (_log_precision(factors).expand(x.shape[1]) - math.log(2 * math.pi)).sum() - (q.covariance * loads).sum()
    return (constant - squares - quadratic) / 2, (z.square().sum(1) + _kl_constant(q)) / 2


def kl_shared(factors: Factors, priors: Priors) -> Tensor:
    """KL(q(W, mu) q(psi) q(alpha) || p) in nats, ``()``: of all data together."""
    K = factors.locs.shape[1] - 1
    prior = _prior_precision(factors, priors)
    log_prior = prior.log()
    relevance = factors.locs.new_zeros(())
    if priors.relevance is not None:
        q = Gamma(factors.relevance_shape, factors.relevance_rate)
        relevance = kl_divergence(q, Gamma(*priors.relevance)).sum()
        log_alpha = factors.relevance_shape.digamma() - factors.relevance_rate.log()
        log_prior = torch.cat([log_alpha.expand(len(prior), K), log_prior[:, K:]], 1)
    log_det = 2 * torch.linalg.cholesky(factors.covariances).diagonal(dim1=-2, dim2=-1).log().sum()
    rows = ((prior * _squares(factors, priors, K + 1) - 1 - log_prior).sum() - log_det) / 2
    noise = kl_divergence(Gamma(factors.noise_shape, factors.noise_rate), Gamma(*priors.noise)).sum()
    return rows + noise + relevance


def point(factors: Factors) -> Parameters:
    """The means of q, where there are such: of a noise variance else E[1 / psi]^-1."""
    K = factors.locs.shape[1] - 1
    divisor = torch.where(factors.noise_shape > 1, factors.noise_shape - 1, factors.noise_shape)
    return Parameters(factors.locs[:, K], factors.locs[:, :K], (factors.noise_rate / divisor).expand(len(factors.locs)))


def _sums(q: LatentFactor, seen: Moments) -> tuple[Tensor, Tensor, Tensor]:
    """sum_n E[y y^T] ``(K + 1, K + 1)`` with y = (z, 1), sum_n x_n E[y]^T ``(D, K + 1)``, and the KL of all q(z_n)."""
    mean = q.weight @ seen.mean - q.shift
    cross = seen.covariance @ q.weight.T
    second = q.weight @ cross + torch.outer(mean, mean)
    top = torch.cat([second + q.covariance, mean[:, None]], 1)
    y = torch.cat([top, torch.cat([mean, mean.new_ones(1)])[None]], 0)
    xy = torch.cat([cross + torch.outer(seen.mean, mean), seen.mean[:, None]], 1)
    return seen.rows * y, seen.rows * xy, seen.rows * (second.trace() + _kl_constant(q)) / 2


def _kl_constant(q: LatentFactor) -> Tensor:
    return q.covariance.trace() - len(q.covariance) - torch.linalg.slogdet(q.covariance)[1]


def _errors(factors: Factors, y: Tensor, xy: Tensor, seen: Moments) -> Tensor:
    """sum_n E[(x_nd - w_d^T z_n - mu_d)^2], ``(D,)``."""
    squares = seen.rows * (seen.covariance.diagonal() + seen.mean.square())
    seconds = factors.covariances + factors.locs[:, :, None] * factors.locs[:, None, :]
    return (squares - 2 * (factors.locs * xy).sum(1) + (seconds * y).sum((1, 2))).clamp_min(0)


def _rescaled(factors: Factors, y: Tensor, seen: Moments, priors: Priors) -> Factors:
    """Each factor in its best scale, z_k s and w_k / s: along it the other steps creep (Luttinen and Ilin 2010).

    The bound moves by -(s^2 Y + Q / s^2) / 2 + (N - D) log s, Y = sum_n E[z_nk^2], Q = sum_d E[w_dk^2] times its prior's
    precision.
    """
    D, K = len(factors.locs), factors.locs.shape[1] - 1
    if bool(priors.locs[:, :K].any()):
        return factors
    Y, Q = y.diagonal()[:K], (_prior_precision(factors, priors)[:, :K] * _squares(factors, priors)).sum(0)
    half = (seen.rows - D) / 2
    root = (half.square() + Y * Q).sqrt()
    squared = torch.where(half > 0, (half + root) / Y, Q / (root - half))
    scale = torch.cat([squared.rsqrt(), squared.new_ones(1)])
    return factors._replace(locs=factors.locs * scale, covariances=factors.covariances * torch.outer(scale, scale))


def _precision(factors: Factors) -> Tensor:
    """E[1 / psi_d], ``(D,)``."""
    return (factors.noise_shape / factors.noise_rate).expand(len(factors.locs))


def _log_precision(factors: Factors) -> Tensor:
    """E[-log psi_d], ``(D,)``."""
    return (factors.noise_shape.digamma() - factors.noise_rate.log()).expand(len(factors.locs))


def _prior_precision(factors: Factors, priors: Priors) -> Tensor:
    """Of each loading and mean, expected, ``(D, K + 1)``."""
    if priors.relevance is None:
        return priors.precisions
    alpha = (factors.relevance_shape / factors.relevance_rate).expand(len(factors.locs), -1)
    return torch.cat([alpha, priors.precisions[:, -1:]], 1)


def _squares(factors: Factors, priors: Priors, columns: int | None = None) -> Tensor:
    """E[(w_dk - m0)^2], ``(D, K)``, or of the means too."""
    K = factors.locs.shape[1] - 1 if columns is None else columns
    gaps = (factors.locs - priors.locs)[:, :K]
    return gaps.square() + factors.covariances.diagonal(dim1=-2, dim2=-1)[:, :K]
