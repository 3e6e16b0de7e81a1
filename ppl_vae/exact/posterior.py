"""The exact posterior and marginal of a linear Gaussian model, under any Gaussian prior."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ppl_vae.exact.linear_gaussian import Parameters

__all__ = ["GaussianPosterior", "Prior", "fold_prior", "log_prob", "posterior"]

BLOCK = 2048  # rows whose density is taken at once: they stay in the cache


class Prior(NamedTuple):
    """z ~ N(loc, covariance): ``(K,)`` and ``(K, K)``."""

    loc: Tensor
    covariance: Tensor


class GaussianPosterior(NamedTuple):
    """q(z | x_n) = N(mean_n, covariance): ``(N, K)`` and ``(K, K)``, one covariance for all data."""

    mean: Tensor
    covariance: Tensor


def fold_prior(parameters: Parameters, prior: Prior) -> Parameters:
    """The same p(x) with a standard normal prior: z = m0 + L u, so W' = W L and mu' = mu + W m0, where Sigma0 = L L^T.

    Raises:
        ValueError: the prior's covariance is not positive definite.
    """
    loc, W, noise = parameters
    return Parameters(loc + W @ prior.loc, W @ _cholesky(prior), noise)


def posterior(parameters: Parameters, x: Tensor, prior: Prior | None = None) -> GaussianPosterior:
    """p(z | x) = N(m, V): V = (I + W^T psi^-1 W)^-1, m = V W^T psi^-1 (x - mu); a general prior is folded in and out.

    Args:
        parameters: of x = W z + mu + eps.
        x: data ``(N, D)``, of any float dtype.
        prior: p(z); standard normal if ``None``.

    Examples:
        >>> p = Parameters(torch.zeros(1), torch.ones(1, 1), torch.ones(1))
        >>> posterior(p, torch.tensor([[2.0]])).mean.item()
        1.0
    """
    loc, W, psi = parameters if prior is None else fold_prior(parameters, prior)
    cholesky = _precision_cholesky(W, psi)
    mean = torch.cholesky_solve((W / psi[:, None]).T @ (x.to(loc) - loc).T, cholesky).T
    covariance = torch.cholesky_inverse(cholesky)
    if prior is None:
        return GaussianPosterior(mean, covariance)
    L = _cholesky(prior)
    return GaussianPosterior(prior.loc + mean @ L.T, L @ covariance @ L.T)


def log_prob(parameters: Parameters, x: Tensor, prior: Prior | None = None) -> Tensor:
    """Log p(x) = log N(x | mu, W W^T + diag(psi)) in nats, ``(N,)``, in O(N D K) through the Woodbury identity."""
    loc, W, psi = parameters if prior is None else fold_prior(parameters, prior)
    cholesky = _precision_cholesky(W, psi)
    # (x - mu)^T C^-1 (x - mu) = |y - A m|^2 + |m|^2 with y, A whitened by the noise and m = M^-1 A^T y: nothing cancels.
    scale = psi.sqrt()
    whitened = W / scale[:, None]
    gain = torch.cholesky_solve(whitened.T, cholesky).T  # m = y A M^-1
    log_det = 2 * cholesky.diagonal().log().sum() + psi.log().sum()
    constant = loc.numel() * math.log(2 * math.pi) + log_det
    return torch.cat([-0.5 * (constant + _square((rows.to(loc) - loc) / scale, whitened, gain)) for rows in x.split(BLOCK)])


def _square(y: Tensor, whitened: Tensor, gain: Tensor) -> Tensor:
    """|y - A m|^2 + |m|^2 of rows y ``(B, D)``, m = y gain."""
    mean = y @ gain
    return torch.addmm(y, mean, whitened.T, alpha=-1).square_().sum(1) + mean.square().sum(1)


def _precision_cholesky(loadings: Tensor, noise: Tensor) -> Tensor:
    return torch.linalg.cholesky(
        torch.eye(loadings.shape[1], dtype=loadings.dtype, device=loadings.device) + loadings.T @ (loadings / noise[:, None])
    )


def _cholesky(prior: Prior) -> Tensor:
    try:
        return torch.linalg.cholesky(prior.covariance)
    except torch.linalg.LinAlgError:
        raise ValueError(
            f"the prior's covariance of shape {tuple(prior.covariance.shape)} is not positive definite: it is asymmetric, or "
            "one direction has no variance; add to its diagonal, or drop that latent dimension"
        ) from None
