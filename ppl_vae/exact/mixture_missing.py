"""The exact E-step of a Gaussian mixture with missing entries (NaN): conditional moments given the observed entries.

For a row with observed columns o, and P = (S_oo)^-1 padded with zeros to ``(D, D)``::

    log p(x_o | c) = log N(x_o | m_o, S_oo),   E[x | x_o, c] = m + S P (x - m),   Cov[x | x_o, c] = S - S P S

The expected first and second moments are those of :func:`ppl_vae.exact.mixture.e_step`, so the M-step is the same function.
Ghahramani & Jordan (1994), "Supervised learning from incomplete data via an EM approach". Missing at random is assumed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ppl_vae.exact import mixture
from ppl_vae.exact.covariances import Covariance
from ppl_vae.exact.mixture import Parameters, Statistics
from ppl_vae.exact.moments import NO_ROWS, Data, weighted_blocks
from ppl_vae.exact.sharing import add_up, own

__all__ = ["e_step", "em_step", "log_prob", "responsibilities"]

_BLOCK_NUMBERS = 2**22


class _Conditional(NamedTuple):
    joint: Tensor  # (B, C) log pi_c + log p(x_o | c)
    deviation: Tensor  # (B, C, D) E[x | x_o, c] - m_c
    which: Tensor  # (B,) pattern of each row
    covariance: Tensor  # (U, C, D, D) Cov[x | x_o, c] of each pattern


def log_prob(parameters: Parameters, x: Tensor, covariance: Covariance) -> Tensor:
    """Log p of the observed entries of each row, nats, ``(N,)``; 0 for a row without any."""
    return torch.cat([_condition(parameters, block, covariance).joint.logsumexp(1) for block, _ in _blocks(parameters, x)])


def responsibilities(parameters: Parameters, x: Tensor, covariance: Covariance) -> Tensor:
    """p(c | observed entries), ``(N, C)``."""
    return torch.cat([_condition(parameters, block, covariance).joint.softmax(1) for block, _ in _blocks(parameters, x)])


def e_step(parameters: Parameters, data: Data, covariance: Covariance) -> Statistics:
    """Sufficient statistics, as :func:`ppl_vae.exact.mixture.e_step`; a pattern's matrices are made once per block of rows."""
    total = _empty(parameters, covariance)
    for block, weights in _blocks(parameters, own(data)):
        total = mixture.add(total, _block_statistics(parameters, block, weights, covariance))
    add_up(data, total[:-1])  # about centres that are the same in all processes
    if not total.rows:
        raise ValueError(NO_ROWS)
    return total


def em_step(
    parameters: Parameters, data: Data, covariance: Covariance, *, floor: Tensor | float = 1e-6, ridge: float = 0.0
) -> tuple[Parameters, Tensor]:
    """One EM iteration for :func:`ppl_vae.exact.driver.run`: new parameters, log-likelihood of the old ones."""
    statistics = e_step(parameters, data, covariance)
    new = mixture.m_step(statistics, parameters, covariance, floor=floor, ridge=ridge)
    return new, statistics.log_likelihood / statistics.rows


def _blocks(parameters: Parameters, data: Data) -> Iterator[tuple[Tensor, Tensor | None]]:
    components, columns = parameters.locs.shape
    return weighted_blocks(data, max(1, _BLOCK_NUMBERS // (components * columns**2)), parameters.locs.dtype)


def _condition(parameters: Parameters, x: Tensor, covariance: Covariance) -> _Conditional:
    weights, locs, _ = parameters
    S = covariance.expand(parameters.covariances, locs)
    seen = ~x.isnan()
    patterns, which = torch.unique(seen, dim=0, return_inverse=True)
    mask = patterns.to(S)[:, None, :]
    both = mask[..., :, None] * mask[..., None, :]
    # Missing rows and columns become those of the identity: their log-determinant is 0 and the zeros of y leave them out below.
    cholesky = torch.linalg.cholesky(S * both + torch.diag_embed(1 - mask))
    P = torch.cholesky_inverse(cholesky) * both
    gain = S @ P
    y = torch.where(seen, x, 0.0)[:, None, :] - locs * seen[:, None, :]
    solved = (P[which] @ y[..., None])[..., 0]
    log_det = 2 * cholesky.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    constant = seen.to(S).sum(1, keepdim=True) * math.log(2 * math.pi)
    joint = weights.log() - 0.5 * (constant + log_det[which] + (y * solved).sum(-1))
    return _Conditional(joint, (gain[which] @ y[..., None])[..., 0], which, S - gain @ S)


def _empty(parameters: Parameters, covariance: Covariance) -> Statistics:
    components, columns = parameters.locs.shape
    zeros = parameters.locs.new_zeros
    second = covariance.project(zeros(components, columns, columns))
    return Statistics(zeros(()), zeros(()), zeros(components), zeros(components, columns), second, parameters.locs)


def _block_statistics(parameters: Parameters, x: Tensor, weights: Tensor | None, covariance: Covariance) -> Statistics:
    conditional = _condition(parameters, x, covariance)
    log_density = conditional.joint.logsumexp(1)
    posterior = (conditional.joint - log_density[:, None]).exp()
    rows, log_likelihood = posterior.new_tensor(x.shape[0]), log_density.sum()
    if weights is not None:
        w = weights.to(posterior)
        posterior, rows, log_likelihood = posterior * w[:, None], w.sum(), w @ log_density
    y = conditional.deviation
    weighted = posterior[..., None] * y
    mass = posterior.new_zeros(conditional.covariance.shape[:2]).index_add_(0, conditional.which, posterior)
    second = torch.einsum("bci,bcj->cij", weighted, y) + torch.einsum("uc,ucij->cij", mass, conditional.covariance)
    return Statistics(
        rows,
        log_likelihood,
        posterior.sum(0),
        weighted.sum(0),
        covariance.project(second),
        parameters.locs,
    )
