"""EM for the linear Gaussian model: factor analysis (diagonal noise) and probabilistic PCA (isotropic noise).

The generative story::

    z   ~ N(0, I)                     (K,)
    eps ~ N(0, diag(psi))             (D,)   psi_1 = ... = psi_D in PPCA
    x   = W z + mu + eps              so x ~ N(mu, C), C = W W^T + diag(psi)

Everything here is a function of the parameters and of the sample moments, so an iteration costs O(D^2 K) whatever N is.
Log-likelihoods are in nats per datum, constants kept. Rubin & Thayer (1982), "EM algorithms for ML factor analysis"; Tipping &
Bishop (1999), "Probabilistic principal component analysis"; Lawley (1940) and Jöreskog (1967) for the loadings given the noise.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ppl_vae.em.moments import Moments

__all__ = [
    "LatentMoments",
    "Parameters",
    "e_step",
    "em_step",
    "floor_message",
    "log_likelihood",
    "m_step",
    "noise_floor",
]


class Parameters(NamedTuple):
    """Parameters of x = W z + mu + eps.

    Args:
        loc: mu, ``(D,)``.
        loadings: W, ``(D, K)``.
        noise: psi, the noise *variances*, ``(D,)``; PPCA's are all equal.
    """

    loc: Tensor
    loadings: Tensor
    noise: Tensor


class LatentMoments(NamedTuple):
    """What the M-step needs of the posterior, averaged over the data.

    Args:
        cross: E[(x - mu) z^T] = S_mu B^T, ``(D, K)``, where B = M^-1 W^T psi^-1 and S_mu is the second moment of x around mu.
        second: E[z z^T] = M^-1 + B S_mu B^T, ``(K, K)``.
        log_likelihood: of the parameters that the E-step used, nats per datum, ``()``.
    """

    cross: Tensor
    second: Tensor
    log_likelihood: Tensor


def noise_floor(moments: Moments, relative: float = 1e-6) -> Tensor:
    """Lower bound of each noise variance, ``(D,)``: ``relative * max(S_jj, relative * mean(S_jj))``.

    A Heywood case (a column explained entirely by the factors) or a constant column drives psi_j to 0 and may send the
    log-likelihood to infinity. Bounded so, every fit is finite; the bound scales with each column, as factor analysis does.
    """
    variance = moments.covariance.diagonal()
    return relative * variance.clamp_min((relative * variance.mean()).clamp_min(1e-12))


def floor_message(parameters: Parameters, floor: Tensor) -> str | None:
    """What to tell the user if the noise floor acts, else ``None``."""
    columns = (parameters.noise <= floor * (1 + 1e-9)).nonzero().flatten().tolist()
    if not columns:
        return None
    named = ", ".join(map(str, columns[:8])) + (", ..." if len(columns) > 8 else "")
    return (
        f"the noise variance of {len(columns)} of {floor.numel()} columns ({named}) stands on its floor: these columns are "
        "constant, or the "
        "factors explain them entirely (a Heywood case), usually because there are too many factors or too few rows; "
        "use fewer factors, drop constant columns, or use PPCA, whose one noise variance cannot do this"
    )


def log_likelihood(parameters: Parameters, moments: Moments) -> Tensor:
    """Mean of log N(x | mu, W W^T + diag(psi)) over the data, nats per datum, ``()``.

    -1/2 (D log 2 pi + log|C| + tr(C^-1 S_mu)), with log|C| = log|M| + sum log psi and M = I + W^T psi^-1 W (Woodbury).
    """
    return e_step(parameters, moments).log_likelihood


def e_step(parameters: Parameters, moments: Moments) -> LatentMoments:
    """Posterior moments q(z|x) = N(B (x - mu), M^-1) averaged over the data; the ELBO equals the log-likelihood after it."""
    loc, W, psi = parameters
    scaled = W / psi[:, None]
    identity = torch.eye(W.shape[1], dtype=W.dtype, device=W.device)
    cholesky = torch.linalg.cholesky(identity + W.T @ scaled)
    gap = moments.mean - loc
    # S_mu psi^-1 W, without forming S_mu.
    product = moments.covariance @ scaled + torch.outer(gap, gap @ scaled)
    cross = torch.cholesky_solve(product.T, cholesky).T
    second = torch.cholesky_inverse(cholesky) + torch.cholesky_solve(scaled.T @ cross, cholesky)
    log_det = 2 * cholesky.diagonal().log().sum() + psi.log().sum()
    # tr(C^-1 S_mu) = tr(psi^-1 S_mu) - tr(psi^-1 W M^-1 W^T psi^-1 S_mu)
    mahalanobis = ((moments.covariance.diagonal() + gap.square()) / psi).sum() - (scaled * cross).sum()
    return LatentMoments(cross, second, -0.5 * (psi.numel() * math.log(2 * math.pi) + log_det + mahalanobis))


def m_step(latent: LatentMoments, moments: Moments, *, isotropic: bool, floor: Tensor) -> Parameters:
    """Maximize the expected complete log-likelihood: W = E[x z^T] E[z z^T]^-1, psi = diag(S - W E[z x^T]).

    The E-step must have been taken at mu = x_bar, the best mean whatever W and psi are. The floor is a constraint
    ``psi >= floor``, under which the clamped value is still the maximizer.
    """
    W = torch.linalg.solve(latent.second, latent.cross, left=False)
    residual = moments.covariance.diagonal() - (W * latent.cross).sum(1)
    noise = residual.mean().expand_as(residual) if isotropic else residual
    return Parameters(moments.mean, W, torch.maximum(noise, floor.max() if isotropic else floor))


def em_step(parameters: Parameters, moments: Moments, *, isotropic: bool, floor: Tensor) -> tuple[Parameters, Tensor]:
    """One EM iteration for :func:`ppl_vae.em.driver.run`: new parameters, log-likelihood of the old ones."""
    latent = e_step(parameters, moments)
    value = latent.log_likelihood
    if not torch.equal(parameters.loc, moments.mean):
        # A start from elsewhere: x_bar is the best mu whatever W and psi are, so go there first (ECM) and redo the E-step.
        latent = e_step(parameters._replace(loc=moments.mean), moments)
    return m_step(latent, moments, isotropic=isotropic, floor=floor), value
