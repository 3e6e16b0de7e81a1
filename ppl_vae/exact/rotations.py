"""Loadings are known up to a rotation: W W^T = (W R)(W R)^T. Canonical choices, and the angle between what is identified."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["canonical", "principal_angle", "varimax"]


def canonical(loadings: Tensor, noise: Tensor | None = None) -> Tensor:
    """Rotate to orthogonal columns of falling length, the entry of largest magnitude in each being positive.

    With ``noise`` (factor analysis) it is psi^-1/2 W whose columns are orthogonal, so the posterior covariance is diagonal;
    without (PPCA) they are the principal axes, scaled: Tipping & Bishop (1999), section 3.2.

    Args:
        loadings: W, ``(D, K)``.
        noise: psi, ``(D,)``.

    Examples:
        >>> canonical(torch.tensor([[0.0, -2.0], [1.0, 0.0]])).abs().tolist()
        [[2.0, 0.0], [0.0, 1.0]]
    """
    scaled = loadings if noise is None else loadings / noise.sqrt()[:, None]
    rotated = loadings @ torch.linalg.svd(scaled, full_matrices=False).Vh.T
    peaks = rotated.gather(0, rotated.abs().argmax(0, keepdim=True))
    return rotated * torch.where(peaks < 0, -1.0, 1.0).to(rotated)


def varimax(loadings: Tensor, *, max_iterations: int = 500, tolerance: float = 1e-10) -> Tensor:
    """Rotate to simple structure (Kaiser 1958): maximize the variance of the squared loadings within columns, ``(D, K)``.

    Each iteration replaces R by the orthogonal polar factor of W^T (Y^3 - Y diag(mean_d Y^2)), Y = W R.
    """
    R = torch.eye(loadings.shape[1], dtype=loadings.dtype, device=loadings.device)
    before = loadings.new_zeros(())
    for _ in range(max_iterations):
        Y = loadings @ R
        U, s, Vh = torch.linalg.svd(loadings.T @ (Y**3 - Y * Y.square().mean(0)))
        R = U @ Vh
        if s.sum() <= before * (1 + tolerance):
            break
        before = s.sum()
    return loadings @ R


def principal_angle(a: Tensor, b: Tensor) -> Tensor:
    """Largest principal angle between two column spaces, in radians, ``()``: 0 is one space, pi/2 some orthogonal direction.

    sin = |(I - Qa Qa^T) Qb|_2 and cos = the least singular value of Qa^T Qb together keep small angles accurate (Björck &
    Golub 1973).

    Args:
        a: ``(D, K)``, of full column rank.
        b: ``(D, K)``, of full column rank.

    Raises:
        ValueError: the shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(
            f"expected two matrices of one shape, got {tuple(a.shape)} and {tuple(b.shape)}: compare models of one latent_dim"
        )
    Qa, Qb = torch.linalg.qr(a).Q, torch.linalg.qr(b.to(a)).Q
    overlap = Qa.T @ Qb
    sine = torch.linalg.matrix_norm(Qb - Qa @ overlap, 2)
    return torch.atan2(sine, torch.linalg.svdvals(overlap)[-1])
