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

from ppl_vae.exact import floors
from ppl_vae.exact.floors import columns_named, common
from ppl_vae.exact.moments import Moments

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
        gain: B, ``(K, D)``.
        covariance: M^-1, ``(K, K)``.
    """

    cross: Tensor
    second: Tensor
    log_likelihood: Tensor
    gain: Tensor
    covariance: Tensor


def noise_floor(moments: Moments, floor: float = floors.DEFAULT) -> Tensor:
    """Lower bound of each noise variance, ``(D,)``: the square of a share of the column's standard deviation.

    A Heywood case (a column explained entirely by the factors) or a constant column drives psi_j to 0 and may send the
    log-likelihood to infinity. Bounded so, every fit is finite; the bound scales with each column, as factor analysis does.
    """
    return floors.variance_floor(moments.mean, moments.covariance.diagonal(), floor)


def floor_message(parameters: Parameters, floor: Tensor, constant: Tensor, *, isotropic: bool) -> str | None:
    """What to tell the user if the noise floor acts, else ``None``.

    Args:
        parameters: of the fit.
        floor: its noise floor, ``(D,)``.
        constant: which columns are constant, ``(D,)``.
        isotropic: whether one noise variance serves all columns.
    """
    low = parameters.noise <= (common(floor) if isotropic else floor) * (1 + 1e-6)
    if not low.any():
        return None
    number = "the log-likelihood is the floor's, it grows without end as the floor falls"
    if isotropic:
        return (
            "the noise variance of all columns stands on its floor: the components explain the data entirely, usually because "
            f"there are too many of them or too few rows, and {number}; use fewer components"
        )
    message = f"the noise variance of {int(low.sum())} of {floor.numel()} columns {columns_named(low)} stands on its floor"
    still, explained = low & constant, low & ~constant
    reasons = [f"columns {columns_named(still)} are constant and {number}, drop them"] if still.any() else []
    if explained.any():
        reasons.append(
            f"the factors explain columns {columns_named(explained)} entirely (a Heywood case), usually because there are too "
            "many factors or too few rows; use fewer factors, or PPCA, whose one noise variance cannot do this"
        )
    return f"{message}: {'; '.join(reasons)}"


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
    gain = torch.cholesky_solve(scaled.T, cholesky)
    # S_mu B^T, without forming S_mu.
    cross = moments.covariance @ gain.T + torch.outer(gap, gain @ gap)
    covariance = torch.cholesky_inverse(cholesky)
    log_det = 2 * cholesky.diagonal().log().sum() + psi.log().sum()
    if moments.root is None:
        # tr(C^-1 S_mu) = tr(psi^-1 S_mu) - tr(psi^-1 W M^-1 W^T psi^-1 S_mu)
        mahalanobis = ((moments.covariance.diagonal() + gap.square()) / psi).sum() - (scaled * cross).sum()
    else:
        # tr(R S_mu R^T psi^-1) + tr(B S_mu B^T), R = I - W B: sums of squares, for noise far below a column's variance.
        root = torch.cat([moments.root, gap[:, None]], 1)
        latent = gain @ root
        mahalanobis = ((root - W @ latent).square().sum(1) / psi).sum() + latent.square().sum()
    log_likelihood = -0.5 * (psi.numel() * math.log(2 * math.pi) + log_det + mahalanobis)
    return LatentMoments(cross, covariance + gain @ cross, log_likelihood, gain, covariance)


def m_step(latent: LatentMoments, moments: Moments, *, isotropic: bool, floor: Tensor) -> Parameters:
    """Maximize the expected complete log-likelihood: W = E[x z^T] E[z z^T]^-1, psi = diag(S - W E[z x^T]).

    The E-step must have been taken at mu = x_bar, the best mean whatever W and psi are. The floor is a constraint
    ``psi >= floor``, under which the clamped value is still the maximizer.
    """
    W = torch.linalg.solve(latent.second, latent.cross, left=False)
    if moments.root is None:
        residual = moments.covariance.diagonal() - (W * latent.cross).sum(1)
    else:
        # E[(x - mu - W z)^2] as sums of squares; the same where W is the maximizer.
        residual = (moments.root - W @ (latent.gain @ moments.root)).square().sum(1) + ((W @ latent.covariance) * W).sum(1)
    noise = residual.mean().expand_as(residual) if isotropic else residual
    return Parameters(moments.mean, W, torch.maximum(noise, common(floor) if isotropic else floor))


def em_step(parameters: Parameters, moments: Moments, *, isotropic: bool, floor: Tensor) -> tuple[Parameters, Tensor]:
    """One EM iteration for :func:`ppl_vae.exact.driver.run`: new parameters, log-likelihood of the old ones.

    Isotropic noise of columns of very different scale needs the moments' root (:func:`ppl_vae.exact.moments.rooted`).
    """
    latent = e_step(parameters, moments)
    value = latent.log_likelihood
    if not torch.equal(parameters.loc, moments.mean):
        # A start from elsewhere: x_bar is the best mu whatever W and psi are, so go there first (ECM) and redo the E-step.
        latent = e_step(parameters._replace(loc=moments.mean), moments)
    return m_step(latent, moments, isotropic=isotropic, floor=floor), value
