"""EM for the linear Gaussian model with missing entries (NaN), exactly: every row's posterior uses the entries it has.

With o the observed columns of row n, x_o ~ N(mu_o, W_o W_o^T + diag(psi_o)), so::

    M_n = I + sum_{j in o} w_j w_j^T / psi_j,   V_n = M_n^-1,   m_n = V_n sum_{j in o} w_j (x_nj - mu_j) / psi_j

V_n is computed once for rows of one pattern. The M-step is one regression per column, of x_j on (z, 1) over the rows that
observe it. Missing at random is assumed. Little & Rubin (2002), "Statistical analysis with missing data"; the expanded step
that follows the M-step is PX-EM, Liu, Rubin & Wu (1998). Where nothing is missing this is EM on the moments, at a cost that
grows with N: prefer that.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ppl_vae.exact import profile
from ppl_vae.exact.floors import common
from ppl_vae.exact.linear_gaussian import Parameters
from ppl_vae.exact.moments import NO_ROWS, Data, Moments, columns, moments, weighted_blocks
from ppl_vae.exact.posterior import Prior, fold_prior
from ppl_vae.exact.sharing import add_up, own

__all__ = [
    "Statistics",
    "add",
    "e_step",
    "em_step",
    "from_vector",
    "initial",
    "log_prob",
    "m_step",
    "observed_moments",
    "posterior",
    "to_vector",
]


class Statistics(NamedTuple):
    """Sums over rows, additive over disjoint sets of them; t = (z, 1) has K + 1 entries.

    Args:
        rows: N, ``()``; of weighted rows the sum of their weights, as all sums are weighted.
        log_likelihood: sum_n log p(x_n, observed entries) in nats, ``()``: a sum, not yet per datum.
        counts: N_j, rows that observe column j, ``(D,)``.
        second: sum over these of E[t t^T], ``(D, K + 1, K + 1)``.
        cross: sum over these of y_j E[t], ``(D, K + 1)``, y = x - mu of the E-step.
        square: sum over these of y_j^2, ``(D,)``.
        latent: sum over all rows of E[t t^T], ``(K + 1, K + 1)``.
    """

    rows: Tensor
    log_likelihood: Tensor
    counts: Tensor
    second: Tensor
    cross: Tensor
    square: Tensor
    latent: Tensor


def add(a: Statistics, b: Statistics) -> Statistics:
    """The statistics of both sets of rows."""
    return Statistics(*(x + y for x, y in zip(a, b, strict=True)))


def posterior(parameters: Parameters, x: Tensor) -> tuple[Tensor, Tensor]:
    """Posterior means ``(N, K)`` and covariances ``(N, K, K)`` given the observed entries: the prior's in a row without any."""
    mean, covariance, _ = _posterior(parameters, x.to(parameters.loc))
    return mean, covariance


def log_prob(parameters: Parameters, x: Tensor) -> Tensor:
    """Log p of the observed entries of each row, nats, ``(N,)``; 0 for a row without any."""
    return _posterior(parameters, x.to(parameters.loc))[2]


def observed_moments(data: Data) -> Moments:
    """Mean and variance of each column over its observed entries, and the covariance with missing entries put at the mean.

    Raises:
        ValueError: a column without observed entries.
    """
    return moments(data, rows=8192, filled=columns(data).mean)


def initial(
    data: Data, latent_dim: int, *, floor: Tensor | None = None, generator: torch.Generator | None = None
) -> Parameters:
    """The start of :func:`ppl_vae.exact.profile.initial` from :func:`observed_moments`."""
    return profile.initial(observed_moments(data), latent_dim, floor=floor, generator=generator)


def e_step(parameters: Parameters, data: Data, *, rows: int = 2048) -> Statistics:
    """Sufficient statistics of the posterior in one pass over the data, ``(N, D)`` with NaN where missing, or batches of it."""
    total = _empty(parameters)
    for block, weights in weighted_blocks(own(data), rows, parameters.loc.dtype):
        total = add(total, _block_statistics(parameters, block, weights))
    add_up(data, total)
    if not total.rows:
        raise ValueError(NO_ROWS)
    return total


def m_step(statistics: Statistics, previous: Parameters, *, isotropic: bool, floor: Tensor) -> Parameters:
    """Regress every column on t = (z, 1), then refit the prior of z and fold it into W and mu (PX-EM), which keeps p(x)'s form.

    w_j, mu_j = E[t t^T]_j^-1 E[t x_j]_j and psi_j = mean over N_j of (y_j^2 - y_j E[t]^T (w_j, mu_j)), not below the floor.
    """
    coefficients = torch.linalg.solve(statistics.second, statistics.cross)
    residual = statistics.square - (coefficients * statistics.cross).sum(1)
    noise = (residual.sum() / statistics.counts.sum()).expand_as(residual) if isotropic else residual / statistics.counts
    noise = torch.maximum(noise, common(floor) if isotropic else floor)
    mean = statistics.latent[:-1, -1] / statistics.rows
    covariance = statistics.latent[:-1, :-1] / statistics.rows - torch.outer(mean, mean)
    new = Parameters(previous.loc + coefficients[:, -1], coefficients[:, :-1], noise)
    return fold_prior(new, Prior(mean, covariance))


def em_step(parameters: Parameters, data: Data, *, isotropic: bool, floor: Tensor) -> tuple[Parameters, Tensor]:
    """One iteration for :func:`ppl_vae.exact.driver.run`: new parameters, the old ones' log-likelihood in nats per datum."""
    statistics = e_step(parameters, data)
    return m_step(statistics, parameters, isotropic=isotropic, floor=floor), statistics.log_likelihood / statistics.rows


def to_vector(parameters: Parameters) -> Tensor:
    """(mu, W, log psi) as one vector, for SQUAREM."""
    loc, W, noise = parameters
    return torch.cat([loc, W.flatten(), noise.log()])


def from_vector(vector: Tensor, like: Parameters, *, floor: Tensor) -> Parameters:
    """The inverse; extrapolated noise variances are kept within a factor e^5 of the EM point's, so nothing overflows."""
    size, latent_dim = like.loadings.shape
    loc, W, log_noise = vector.split([size, size * latent_dim, size])
    reference = like.noise.log()
    noise = torch.maximum(torch.clamp(log_noise, reference - 5, reference + 5).exp(), floor)
    return Parameters(loc, W.reshape(size, latent_dim), noise)


def _posterior(parameters: Parameters, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    loc, W, psi = parameters
    size, latent_dim = W.shape
    seen = ~x.isnan()
    y = torch.where(seen, x - loc, 0.0)
    patterns, which = torch.unique(seen, dim=0, return_inverse=True)
    products = (W[:, :, None] * W[:, None, :] / psi[:, None, None]).reshape(size, -1)
    precision = (patterns.to(W) @ products).reshape(-1, latent_dim, latent_dim)
    cholesky = torch.linalg.cholesky(precision + torch.eye(latent_dim, dtype=W.dtype, device=W.device))
    covariance = torch.cholesky_inverse(cholesky)
    projected = y @ (W / psi[:, None])
    mean = (covariance[which] @ projected[:, :, None])[:, :, 0]
    log_det = 2 * cholesky.diagonal(dim1=1, dim2=2).log().sum(1) + patterns.to(W) @ (2 * math.pi * psi).log()
    # |y - W m|^2 in the noise's metric + |m|^2, a sum of squares: the difference that it equals would cancel.
    residual = torch.where(seen, y - mean @ W.T, 0.0)
    mahalanobis = residual.square() @ psi.reciprocal() + mean.square().sum(1)
    return mean, covariance[which], -0.5 * (log_det[which] + mahalanobis)


def _empty(parameters: Parameters) -> Statistics:
    zeros, D, t = parameters.loc.new_zeros, len(parameters.loc), parameters.loadings.shape[1] + 1
    return Statistics(zeros(()), zeros(()), zeros(D), zeros(D, t, t), zeros(D, t), zeros(D), zeros(t, t))


def _block_statistics(parameters: Parameters, x: Tensor, weights: Tensor | None) -> Statistics:
    mean, covariance, log_density = _posterior(parameters, x)
    rows, latent_dim = mean.shape
    seen = (~x.isnan()).to(mean)
    y = torch.where(x.isnan(), 0.0, x - parameters.loc)
    t = torch.cat([mean, mean.new_ones(rows, 1)], 1)
    second = t[:, :, None] * t[:, None, :]
    second[:, :-1, :-1] += covariance
    if weights is not None:
        # Each row's sums w times: what enters them linearly is weighed once, on one side of each product.
        w = weights.to(mean)
        return Statistics(
            w.sum(),
            w @ log_density,
            w @ seen,
            ((seen * w[:, None]).T @ second.reshape(rows, -1)).reshape(-1, latent_dim + 1, latent_dim + 1),
            (y * w[:, None]).T @ t,
            w @ y.square(),
            (second * w[:, None, None]).sum(0),
        )
    per_column = (seen.T @ second.reshape(rows, -1)).reshape(-1, latent_dim + 1, latent_dim + 1)
    return Statistics(
        mean.new_tensor(rows), log_density.sum(), seen.sum(0), per_column, y.T @ t, y.square().sum(0), second.sum(0)
    )
