"""Closed forms of the linear Gaussian model, and the accelerated EM step made of them.

Given the noise, the best loadings are known in closed form (Lawley 1940, Jöreskog 1967): with U, L the K leading eigenpairs of
psi^-1/2 S psi^-1/2, W = psi^1/2 U (L - I)^1/2. So the likelihood is a function of psi alone, the *profile* likelihood, which
is what the step here climbs and SQUAREM extrapolates. Isotropic noise makes even psi closed-form: PPCA (Tipping & Bishop 1999).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ppl_vae.exact.floors import common
from ppl_vae.exact.linear_gaussian import Parameters, em_step, noise_floor
from ppl_vae.exact.moments import Moments

__all__ = ["closed_form", "from_vector", "initial", "profile_loadings", "profile_step", "to_vector"]

_START_ITERATIONS = 4  # rough eigenvectors: every step that follows refines them


def initial(
    moments: Moments, latent_dim: int, *, floor: Tensor | None = None, generator: torch.Generator | None = None
) -> Parameters:
    """A start: half of each column's variance is noise, far from every Heywood boundary.

    The loadings are nearly the best ones for that noise, found by a few block Krylov iterations from a fixed block: always the
    same. With a ``generator`` they are random normal with the other half of the variance instead, for EM from several starts.

    Raises:
        ValueError: ``latent_dim`` is not in 1 ... D.
    """
    _require_dim(latent_dim, moments.mean.numel())
    variance = moments.covariance.diagonal()
    noise = torch.maximum(variance / 2, noise_floor(moments) if floor is None else floor)
    source = torch.Generator().manual_seed(0) if generator is None else generator
    shape = (variance.numel(), latent_dim)
    block = torch.randn(shape, generator=source, dtype=noise.dtype, device=source.device).to(noise.device)
    if generator is not None:
        return Parameters(moments.mean, block * (noise[:, None] / latent_dim).sqrt(), noise)
    scale = noise.sqrt()
    for _ in range(_START_ITERATIONS):
        values, block = _ritz(moments, scale[:, None], block)
    return Parameters(moments.mean, _loadings(values, block, scale), noise)


def profile_step(parameters: Parameters, moments: Moments, *, isotropic: bool, floor: Tensor) -> tuple[Parameters, Tensor]:
    """An EM iteration followed by the best loadings for the new noise, found within a subspace that contains EM's own.

    The subspace is spanned by X, A X with A = psi^-1/2 S psi^-1/2 and X = psi^-1/2 W of the EM step. Ritz values only grow
    with the subspace and the profile log-likelihood grows with them, so the step is never worse than EM's, however
    inexact the eigenvectors: monotone by construction. Lawley (1940), Jöreskog (1967); Knyazev (2001) for the block Krylov
    idea.
    """
    (loc, W, noise), value = em_step(parameters, moments, isotropic=isotropic, floor=floor)
    return Parameters(loc, _ritz_loadings(moments, noise, W), noise), value


def profile_loadings(moments: Moments, noise: Tensor, latent_dim: int) -> Tensor:
    """Loadings that maximize the likelihood given the noise: W = psi^1/2 U_K (L_K - I)^1/2, ``(D, K)``.

    U, L are the leading eigenpairs of psi^-1/2 S psi^-1/2; eigenvalues below 1 give no factor (a zero column).
    """
    scale = noise.sqrt()
    values, vectors = torch.linalg.eigh(moments.covariance / torch.outer(scale, scale))
    return _loadings(values[-latent_dim:].flip(0), vectors[:, -latent_dim:].flip(1), scale)


def closed_form(moments: Moments, latent_dim: int, *, floor: Tensor | None = None) -> Parameters:
    """PPCA's maximum likelihood: W = U_K (L_K - sigma^2 I)^1/2 with sigma^2 = mean of the D - K discarded eigenvalues of S.

    Raises:
        ValueError: ``latent_dim`` is not in 1 ... D - 1.
    """
    _require_dim(latent_dim, moments.mean.numel() - 1)
    values, vectors = torch.linalg.eigh(moments.covariance)
    floor = noise_floor(moments) if floor is None else floor
    variance = torch.maximum(values[:-latent_dim].mean(), common(floor))
    scale = (values[-latent_dim:].flip(0) - variance).clamp_min(0).sqrt()
    return Parameters(moments.mean, vectors[:, -latent_dim:].flip(1) * scale, variance.expand_as(moments.mean).clone())


def to_vector(parameters: Parameters) -> Tensor:
    """The free parameters of the profile likelihood, log psi, ``(D,)``: what SQUAREM extrapolates."""
    return parameters.noise.log()


def from_vector(vector: Tensor, like: Parameters, moments: Moments, *, floor: Tensor) -> Parameters:
    """Parameters with noise exp(vector), between the floor and the column's variance, and loadings refitted to it."""
    # No optimum has more noise than variance; the bound also keeps a far extrapolation finite.
    noise = torch.maximum(torch.minimum(vector.exp(), moments.covariance.diagonal()), floor)
    return Parameters(like.loc, _ritz_loadings(moments, noise, like.loadings), noise)


def _ritz_loadings(moments: Moments, noise: Tensor, start: Tensor) -> Tensor:
    values, vectors = _ritz(moments, noise.sqrt()[:, None], start / noise.sqrt()[:, None])
    return _loadings(values, vectors, noise.sqrt())


def _ritz(moments: Moments, scale: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """K leading Ritz pairs of A = S / (scale scale^T) in the span of X and A X, X being the start, ``(K,)`` and ``(D, K)``."""
    # A zero column (an unused factor) would make the basis singular for ever: QR puts some orthogonal direction in its place.
    X = torch.linalg.qr(start).Q
    AX = (moments.covariance @ (X / scale)) / scale
    basis = torch.linalg.qr(torch.cat([X, AX], 1)).Q
    image = (moments.covariance @ (basis / scale)) / scale
    values, vectors = torch.linalg.eigh(basis.T @ image)
    keep = start.shape[1]
    return values[-keep:].flip(0), (basis @ vectors)[:, -keep:].flip(1)


def _loadings(values: Tensor, vectors: Tensor, scale: Tensor) -> Tensor:
    return scale[:, None] * vectors * (values - 1).clamp_min(0).sqrt()


def _require_dim(latent_dim: int, limit: int) -> None:
    if not 1 <= latent_dim <= limit:
        raise ValueError(
            f"expected 1 <= latent_dim <= {limit}, got {latent_dim}: there cannot be more factors than columns, and PPCA "
            "needs one "
            "discarded direction to see its noise; use fewer factors"
        )
