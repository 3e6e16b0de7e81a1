"""EM for Gaussian mixtures: x ~ sum_c pi_c N(m_c, S_c), the S_c full, tied, diagonal or spherical.

Rows are read in blocks of float64 features, kept as ``(features, rows)``; responsibilities of a block go straight into the
sufficient statistics, so memory is the data's plus a block's, neither ``(N, C, D)`` nor ``(N, C)`` ever exists, and data
larger than memory give the same result. Features are centred at the mixture's mean, so nothing is lost to data far from zero.
Log-likelihoods are in nats per datum. Dempster, Laird & Rubin (1977); the natural-parameter form is in
:mod:`ppl_vae.em.covariances`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ppl_vae.em.covariances import Covariance
from ppl_vae.em.moments import Data, row_blocks

__all__ = [
    "Parameters",
    "Statistics",
    "add",
    "component_log_prob",
    "dead_message",
    "e_step",
    "em_step",
    "log_prob",
    "m_step",
    "responsibilities",
]

_BLOCK_NUMBERS = 2**22  # of float64: 32 MiB of features
_DEAD = 1e-6  # responsibility, in rows, below which a component's mean and covariance mean nothing


class Parameters(NamedTuple):
    """Parameters of a mixture of C Gaussians in D dimensions.

    Args:
        weights: pi, ``(C,)``, summing to 1.
        locs: m, ``(C, D)``.
        covariances: S: ``(C, D, D)`` full, ``(D, D)`` tied, ``(C, D)`` diagonal, ``(C,)`` spherical; variances, not deviations.
    """

    weights: Tensor
    locs: Tensor
    covariances: Tensor


class Statistics(NamedTuple):
    """Sums over rows; those of disjoint sets of rows add up (:func:`add`) if they share the centre, that is, the parameters.

    Args:
        rows: N, ``()``.
        log_likelihood: sum_n log p(x_n) in nats, ``()``: a sum, not yet per datum.
        counts: n_c = sum_n r_nc, ``(C,)``.
        first: sum_n r_nc y_n, ``(C, D)``, y = x - center.
        second: sum_n r_nc phi(y_n), ``(C, P)``, or ``(1, P)`` tied.
        center: ``(D,)``.
    """

    rows: Tensor
    log_likelihood: Tensor
    counts: Tensor
    first: Tensor
    second: Tensor
    center: Tensor


def add(a: Statistics, b: Statistics) -> Statistics:
    """The statistics of both sets of rows."""
    sums = [x + y for x, y in zip(a[:-1], b[:-1], strict=True)]
    return Statistics._make([*sums, a.center])


def component_log_prob(parameters: Parameters, x: Tensor, covariance: Covariance) -> Tensor:
    """Log pi_c + log N(x_n | m_c, S_c), ``(N, C)``, float64."""
    return torch.cat([block for block, _ in _joint(parameters, x, covariance)], 1).T


def log_prob(parameters: Parameters, x: Tensor, covariance: Covariance) -> Tensor:
    """Log p(x_n) = logsumexp_c(log pi_c + log N(x_n | m_c, S_c)), nats, ``(N,)``; N x C numbers are never held."""
    return torch.cat([block.logsumexp(0) for block, _ in _joint(parameters, x, covariance)])


def responsibilities(parameters: Parameters, x: Tensor, covariance: Covariance) -> Tensor:
    """The exact posterior r_nc = p(c | x_n), ``(N, C)``."""
    return torch.cat([block.softmax(0) for block, _ in _joint(parameters, x, covariance)], 1).T


def e_step(parameters: Parameters, data: Data, covariance: Covariance) -> Statistics:
    """Sufficient statistics under the responsibilities, in one pass over the data.

    Args:
        parameters: of the mixture.
        data: ``(N, D)`` without NaN, or batches of it: see :func:`ppl_vae.em.moments.row_blocks`.
        covariance: the structure.

    Raises:
        ValueError: the log-likelihood is not finite (NaN or infinite entries), or a covariance is not positive definite.
    """
    sums = _empty(parameters, covariance)
    for joint, features in _joint(parameters, data, covariance):
        _accumulate(sums, joint, features, covariance)
    if not sums.log_likelihood.isfinite():
        raise ValueError(
            "the log-likelihood of the data is not finite: they have NaN or infinite entries, or the parameters do; "
            "declare NaN as missing (then use ppl_vae.em.missing), drop such rows, or scale the columns"
        )
    return sums


def m_step(
    statistics: Statistics, previous: Parameters, covariance: Covariance, *, floor: float = 1e-6, ridge: float = 0.0
) -> Parameters:
    """Maximize the expected complete log-likelihood: pi_c = n_c / N, m_c = E_c[x], S_c = Cov_c[x].

    A component with n_c below 1e-6 of a row is dead: its mean and covariance cannot be estimated, so it keeps its last ones
    with weight n_c / N, from which it may come back. A step that improves all but some parameters never lowers the
    log-likelihood.

    Args:
        statistics: of the E-step.
        previous: the parameters of the E-step, kept where a component is dead.
        covariance: the structure.
        floor: least variance in any direction, in squared units of the data; a constraint, so EM stays monotone.
        ridge: added to the diagonals as in scikit-learn's ``reg_covar``; not a maximization, so the log-likelihood may fall by
            O(ridge).
    """
    # 10 eps as in scikit-learn: no weight is exactly zero.
    counts = statistics.counts + 10 * torch.finfo(statistics.counts.dtype).eps
    gaps = statistics.first / counts[:, None]
    estimate = covariance.bound(covariance.estimate(statistics.second, gaps, counts), floor)
    estimate = covariance.inflate(estimate, ridge) if ridge else estimate
    dead = statistics.counts < _DEAD
    if dead.any() and not covariance.shared:
        estimate = torch.where(dead.reshape(-1, *[1] * (estimate.dim() - 1)), previous.covariances, estimate)
    locs = torch.where(dead[:, None], previous.locs, statistics.center + gaps)
    return Parameters(counts / counts.sum(), locs, estimate)


def em_step(
    parameters: Parameters, data: Data, covariance: Covariance, *, floor: float = 1e-6, ridge: float = 0.0
) -> tuple[Parameters, Tensor]:
    """One EM iteration for :func:`ppl_vae.em.driver.run`: new parameters, log-likelihood of the old ones."""
    statistics = e_step(parameters, data, covariance)
    new = m_step(statistics, parameters, covariance, floor=floor, ridge=ridge)
    return new, statistics.log_likelihood / statistics.rows


def dead_message(parameters: Parameters, rows: int, covariance: Covariance, *, floor: float = 1e-6) -> str | None:
    """What to tell the user of components that died (no data left) or collapsed (all variance at the floor), else ``None``."""
    full = covariance.expand(parameters.covariances, parameters.locs)
    largest = torch.linalg.matrix_norm(full, 2)
    empty = (parameters.weights * rows < _DEAD).nonzero().flatten().tolist()
    collapsed = (largest <= floor * (1 + 1e-6)).nonzero().flatten().tolist()
    if not empty and not collapsed:
        return None
    happened = [f"components {empty} hold no data any more and keep their last place at weight 0"] if empty else []
    happened += (
        [f"components {collapsed} have shrunk onto single points, their variance is the floor {floor:g}"] if collapsed else []
    )
    return (
        f"{'; '.join(happened)}. Usual cause: more components than the data support, duplicated rows, or an unlucky start. "
        "Remedies: fewer components, another seed or more starts (n_init), a higher floor, a simpler covariance"
    )


def _joint(parameters: Parameters, data: Data, covariance: Covariance) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield per block the joint log-density ``(C, B)`` and its features (y, phi(y)) ``(D + P, B)``, a buffer that is reused."""
    weights, locs, covariances = parameters
    center = weights @ locs
    columns = locs.shape[1]
    natural = covariance.natural(covariances, locs - center)
    constant = (
        -0.5 * (columns * math.log(2 * math.pi) + natural.log_det + (natural.linear * (locs - center)).sum(1)) + weights.log()
    )
    size = columns + covariance.size(columns)
    rows = max(64, _BLOCK_NUMBERS // size)
    weight = natural.linear if covariance.shared else torch.cat([natural.linear, natural.quadratic], 1)
    buffer = locs.new_empty(0)
    for block in row_blocks(data, rows):
        if buffer.shape != (size, block.shape[0]):
            buffer = locs.new_empty(size, block.shape[0])
        torch.sub(block.T, center[:, None], out=buffer[:columns])
        covariance.features(buffer[:columns], buffer[columns:])
        joint = torch.addmm(constant[:, None], weight, buffer[: weight.shape[1]])
        if covariance.shared:
            joint += natural.quadratic @ buffer[columns:]
        yield joint, buffer


def _empty(parameters: Parameters, covariance: Covariance) -> Statistics:
    components, columns = parameters.locs.shape
    zeros = parameters.locs.new_zeros
    second = zeros(1 if covariance.shared else components, covariance.size(columns))
    center = parameters.weights @ parameters.locs
    return Statistics(zeros(()), zeros(()), zeros(components), zeros(components, columns), second, center)


def _accumulate(sums: Statistics, joint: Tensor, features: Tensor, covariance: Covariance) -> None:
    """Add a block to the sums; its responsibilities overwrite the joint log-density."""
    columns = sums.center.numel()
    log_density = joint.logsumexp(0)
    posterior = joint.sub_(log_density).exp_()
    sums.rows.add_(joint.shape[1])
    sums.log_likelihood.add_(log_density.sum())
    sums.counts.add_(posterior.sum(1))
    sums.first.addmm_(posterior, features[:columns].T)
    if covariance.shared:
        sums.second.add_(features[columns:].sum(1))
    else:
        sums.second.addmm_(posterior, features[columns:].T)
