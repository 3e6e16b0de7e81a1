"""EM for Gaussian mixtures: x ~ sum_c pi_c N(m_c, S_c), the S_c full, tied, diagonal or spherical.

Rows are read in blocks of float64 features, kept as ``(features, rows)``; responsibilities of a block go straight into the
sufficient statistics, so memory is the data's plus a block's, neither ``(N, C, D)`` nor ``(N, C)`` ever exists, and data
larger than memory give the same result. Features are centred at the mixture's mean; a component that lies so many of its own
deviations away from there that the expanded square would lose digits is taken about its own mean instead, at any distance.
Log-likelihoods are in nats per datum. Dempster, Laird & Rubin (1977); the natural-parameter form is in
:mod:`ppl_vae.exact.covariances`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ppl_vae.exact import whitened
from ppl_vae.exact.covariances import Covariance
from ppl_vae.exact.floors import columns_named
from ppl_vae.exact.moments import Data, weighted_blocks
from ppl_vae.exact.sharing import add_up, own
from ppl_vae.program.recording import being_recorded

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
# Per column: D^2 terms whose sizes sum to D times this lose about 1e-10 D nats in float64, and their roundings partly cancel.
_CONDITION = 5e5
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
    """Sums over rows; those of disjoint sets of rows add up (:func:`add`) if they share the centres, that is, the parameters.

    Args:
        rows: N, ``()``; of weighted rows the sum of their weights, as all sums are weighted.
        log_likelihood: sum_n log p(x_n) in nats, ``()``: a sum, not yet per datum.
        counts: n_c = sum_n r_nc, ``(C,)``.
        first: sum_n r_nc y_n, ``(C, D)``, y = x - center_c.
        second: sum_n r_nc phi(y_n), ``(C, P)``, or ``(1, P)`` tied.
        center: each component's own origin, ``(C, D)``: its mean, or one that is near enough to it.
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
    if torch.compiler.is_exporting():  # a graph for any number of rows, which cannot count blocks
        distance = covariance.distance(parameters.covariances, _deviations(x.double(), parameters.locs))
        return (_split(parameters, covariance).log_factor[:, None] - 0.5 * distance).T
    return torch.cat(list(_densities(parameters, x, covariance)), 1).T


def log_prob(parameters: Parameters, x: Tensor, covariance: Covariance) -> Tensor:
    """Log p(x_n) = logsumexp_c(log pi_c + log N(x_n | m_c, S_c)), nats, ``(N,)``; N x C numbers are never held."""
    return torch.cat([block.logsumexp(0) for block in _densities(parameters, x, covariance)])


def responsibilities(parameters: Parameters, x: Tensor, covariance: Covariance) -> Tensor:
    """The exact posterior r_nc = p(c | x_n), ``(N, C)``."""
    return torch.cat([block.softmax(0) for block in _densities(parameters, x, covariance)], 1).T


def e_step(parameters: Parameters, data: Data, covariance: Covariance) -> Statistics:
    """Sufficient statistics under the responsibilities, in one pass over the data.

    Args:
        parameters: of the mixture.
        data: ``(N, D)`` without NaN, or batches of it, which may have weights: see :data:`ppl_vae.exact.moments.Data`.
        covariance: the structure.

    Raises:
        ValueError: the log-likelihood is not finite (NaN or infinite entries), or a covariance is not positive definite.
    """
    split = _split(parameters, covariance)
    sums = _empty(parameters, covariance, split)
    for joint, features, block, weights in _joint(parameters, own(data), covariance, split):
        _accumulate(sums, joint, features, block, weights, covariance, split.far)
    add_up(data, sums[:-1])  # about centres that are the same in all processes
    if not sums.log_likelihood.isfinite():
        raise ValueError(
            "the log-likelihood of the data is not finite: they have NaN or infinite entries, or the parameters do; "
            "declare NaN as missing (then use ppl_vae.exact.missing), drop such rows, or scale the columns"
        )
    return sums


def m_step(
    statistics: Statistics, previous: Parameters, covariance: Covariance, *, floor: Tensor | float = 1e-6, ridge: float = 0.0
) -> Parameters:
    """Maximize the expected complete log-likelihood: pi_c = n_c / N, m_c = E_c[x], S_c = Cov_c[x].

    A component with n_c below 1e-6 of a row is dead: its mean and covariance cannot be estimated, so it keeps its last ones
    with weight n_c / N, from which it may come back. A step that improves all but some parameters never lowers the
    log-likelihood.

    Args:
        statistics: of the E-step.
        previous: the parameters of the E-step, kept where a component is dead.
        covariance: the structure.
        floor: F, least variance of each column ``(D,)``, or one for all: S_c >= diag(F) in every direction (of one variance for
            all columns the least of F); a constraint, so EM stays monotone.
        ridge: added to the diagonals as in scikit-learn's ``reg_covar``; not a maximization, so the log-likelihood may fall by
            O(ridge).
    """
    # 10 eps as in scikit-learn: no weight is exactly zero.
    counts = statistics.counts + 10 * torch.finfo(statistics.counts.dtype).eps
    gaps = statistics.first / counts[:, None]
    estimate = covariance.bound(covariance.estimate(statistics.second, gaps, counts), torch.as_tensor(floor).to(gaps))
    estimate = covariance.inflate(estimate, ridge) if ridge else estimate
    dead = statistics.counts < _DEAD
    if dead.any() and not covariance.shared:
        estimate = torch.where(dead.reshape(-1, *[1] * (estimate.dim() - 1)), previous.covariances, estimate)
    locs = torch.where(dead[:, None], previous.locs, statistics.center + gaps)
    return Parameters(counts / counts.sum(), locs, estimate)


def em_step(
    parameters: Parameters, data: Data, covariance: Covariance, *, floor: Tensor | float = 1e-6, ridge: float = 0.0
) -> tuple[Parameters, Tensor]:
    """One EM iteration for :func:`ppl_vae.exact.driver.run`: new parameters, log-likelihood of the old ones."""
    statistics = e_step(parameters, data, covariance)
    new = m_step(statistics, parameters, covariance, floor=floor, ridge=ridge)
    return new, statistics.log_likelihood / statistics.rows


def dead_message(
    parameters: Parameters, rows: int, covariance: Covariance, *, floor: Tensor | float = 1e-6, constant: Tensor | None = None
) -> str | None:
    """What to tell the user of components without data, and of those on the floor in some direction, else ``None``.

    Args:
        parameters: of the fit.
        rows: N.
        covariance: the structure.
        floor: as in :func:`m_step`.
        constant: which columns are constant, ``(D,)``.
    """
    empty = parameters.weights * rows < _DEAD
    least, most = _extremes(parameters, covariance, torch.as_tensor(floor).to(parameters.locs))
    points, low = ~empty & (most <= 1 + 1e-6), ~empty & (least <= 1 + 1e-6)
    happened = (
        [f"components {_listed(empty)} hold no data any more and keep their last place at weight 0"] if empty.any() else []
    )
    if points.any():
        happened.append(f"components {_listed(points)} have shrunk onto single points, their variance is the floor")
    if (low & ~points).any():
        happened.append(f"components {_listed(low & ~points)} stand on the floor in some direction")
    if not happened:
        return None
    cause = "more components than the data support, columns that are sums of others, duplicated rows, or an unlucky start"
    if constant is not None and constant.any():
        cause = f"columns {columns_named(constant)} are constant, drop them; else {cause}"
    lifted = "; the log-likelihood is then the floor's: it grows without end as the floor falls" if low.any() else ""
    return (
        f"{'; '.join(happened)}{lifted}. Usual cause: {cause}. "
        "Remedies: fewer components, another seed or more starts (n_init), a higher floor, a simpler covariance"
    )


def _extremes(parameters: Parameters, covariance: Covariance, floor: Tensor) -> tuple[Tensor, Tensor]:
    """Least and largest variance of each component in any direction, in units of the floor, ``(C,)`` each."""
    scales = torch.outer(unit := covariance.floor_of(floor).sqrt().expand(parameters.locs.shape[1]), unit)
    values = torch.linalg.eigvalsh(covariance.expand(parameters.covariances, parameters.locs) / scales)
    return values[:, 0], values[:, -1]


def _listed(which: Tensor) -> str:
    return str(which.nonzero().flatten().tolist())


class _Split(NamedTuple):
    """Coefficients of the expanded square about the centre, and the components that need the centred one.

    Args:
        center: the origin of features, ``(D,)``.
        linear: ``(C, D)``, of all.
        quadratic: ``(C or 1, P)``, of all.
        constant: ``(C,)``, of all.
        log_factor: log pi_c less half of log|2 pi S_c|, ``(C,)``, what the centred square starts from.
        far: indices of components whose expanded square would cancel.
    """

    center: Tensor
    linear: Tensor
    quadratic: Tensor
    constant: Tensor
    log_factor: Tensor
    far: Tensor


def _split(parameters: Parameters, covariance: Covariance) -> _Split:
    weights, locs, covariances = parameters
    columns, center = locs.shape[1], weights @ locs
    gaps = locs - center
    natural = covariance.natural(covariances, gaps)
    log_factor = weights.log() - 0.5 * (columns * math.log(2 * math.pi) + natural.log_det)
    constant = log_factor - 0.5 * (natural.linear * gaps).sum(1)
    far = torch.arange(len(weights), device=locs.device)
    if not being_recorded():  # a recorded graph cannot decide by values: it takes the centred form, which is always right
        reach = gaps.abs() + covariance.variances(covariances, locs).sqrt()
        # Not below the limit rather than above it: what is not finite is far.
        far = (~(covariance.condition(natural, reach) < columns * _CONDITION)).nonzero().flatten()
    return _Split(center, natural.linear, natural.quadratic, constant, log_factor, far)


def _densities(parameters: Parameters, data: Data, covariance: Covariance) -> Iterator[Tensor]:
    """Yield per block the joint log-density ``(C, B)`` alone."""
    split = _split(parameters, covariance)
    if parameters.covariances.dim() == 3 and not being_recorded() and not len(split.far):
        cholesky = torch.linalg.cholesky(parameters.covariances)
        roots = torch.linalg.solve_triangular(cholesky, torch.eye(cholesky.shape[-1]).to(cholesky), upper=False)
        gaps = parameters.locs - split.center
        return whitened.joint_blocks(split.log_factor, roots, gaps, split.center, data)
    return (joint for joint, *_ in _joint(parameters, data, covariance, split))


def _joint(
    parameters: Parameters, data: Data, covariance: Covariance, split: _Split | None = None
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor | None]]:
    """Yield per block the joint log-density ``(C, B)``, features (y, phi(y)) ``(D + P, B)``, a reused buffer, rows, weights."""
    split = _split(parameters, covariance) if split is None else split
    columns = split.center.numel()
    size = columns + covariance.size(columns)
    weight = split.linear if covariance.shared else torch.cat([split.linear, split.quadratic], 1)
    buffer = split.center.new_empty(0)
    for block, weights in weighted_blocks(data, max(64, _BLOCK_NUMBERS // size)):
        if buffer.shape != (size, block.shape[0]):
            buffer = block.new_empty(size, block.shape[0])
        torch.sub(block.T, split.center[:, None], out=buffer[:columns])
        covariance.features(buffer[:columns], buffer[columns:])
        joint = torch.addmm(split.constant[:, None], weight, buffer[: weight.shape[1]])
        if covariance.shared:
            joint += split.quadratic @ buffer[columns:]
        for some in _chunks(split.far, block):
            chosen = parameters.covariances if covariance.shared else parameters.covariances[some]
            distance = covariance.distance(chosen, _deviations(block, parameters.locs[some]))
            joint[some] = split.log_factor[some, None] - 0.5 * distance
        yield joint, buffer, block, weights


def _chunks(components: Tensor, block: Tensor) -> Iterable[Tensor]:
    """Components whose deviations from all rows fit into a block's memory together."""
    return components.split(max(1, _BLOCK_NUMBERS // max(1, block.numel()))) if components.numel() else ()


def _deviations(block: Tensor, locs: Tensor) -> Tensor:
    """Of rows ``(B, D)`` from means ``(c, D)``: ``(c, D, B)``."""
    return block.T - locs[:, :, None]


def _empty(parameters: Parameters, covariance: Covariance, split: _Split) -> Statistics:
    components, columns = parameters.locs.shape
    zeros = parameters.locs.new_zeros
    second = zeros(1 if covariance.shared else components, covariance.size(columns))
    center = split.center.expand_as(parameters.locs).index_copy(0, split.far, parameters.locs[split.far])
    return Statistics(zeros(()), zeros(()), zeros(components), zeros(components, columns), second, center)


def _accumulate(
    sums: Statistics,
    joint: Tensor,
    features: Tensor,
    block: Tensor,
    weights: Tensor | None,
    covariance: Covariance,
    far: Tensor,
) -> None:
    """Add a block to the sums; its responsibilities, by the rows' weights, overwrite the joint log-density."""
    columns = block.shape[1]
    log_density = joint.logsumexp(0)
    posterior = joint.sub_(log_density).exp_()
    if weights is None:
        sums.rows.add_(joint.shape[1])
        sums.log_likelihood.add_(log_density.sum())
    else:
        sums.rows.add_(weights.sum())
        sums.log_likelihood.add_(weights @ log_density)
        posterior.mul_(weights)
    sums.counts.add_(posterior.sum(1))
    for some in _chunks(far, block):
        deviations, shares = _deviations(block, sums.center[some]), posterior[some]
        sums.first[some] += (deviations @ shares[..., None])[..., 0]
        sums.second[slice(None) if covariance.shared else some] += covariance.scatter(deviations, shares)
    posterior[far] = 0.0  # what follows is about the common centre
    sums.first.addmm_(posterior, features[:columns].T)
    if covariance.shared:
        sums.second.add_(features[columns:] @ posterior.sum(0))
    else:
        sums.second.addmm_(posterior, features[columns:].T)
