"""Missing entries given the observed ones: exact means and draws of linear Gaussian models and of Gaussian mixtures.

With o the observed and m the missing columns of a row, and P = S^-1::

    linear Gaussian:  z | x_o ~ N(V sum_o w_j (x_j - mu_j) / psi_j, V),  V = (I + sum_o w_j w_j^T / psi_j)^-1
    mixture:          p(c | x_o) ~ pi_c N(x_o | c),  x_m | x_o, c ~ N(m_m - P_mm^-1 P_mo (x_o - m_o), P_mm^-1)

Matrices are made once for rows of one pattern, and have the size of what is missing, or of z. Rows come in blocks of bounded
memory, however many patterns there are; complete ones cost nothing. Missing at random is assumed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ppl_vae.exact import linear_gaussian, mixture
from ppl_vae.exact.covariances import Covariance

__all__ = ["complete_factors", "complete_mixture"]

_BLOCK_NUMBERS = 2**21  # of float64: 16 MiB of matrices


class _Block(NamedTuple):
    """Rows with as many missing entries.

    Args:
        rows: their places, ``(B,)``.
        which: the pattern of each, ``(B,)``.
        patterns: what is missing in each pattern, ``(U, D)`` booleans.
        places: the missing columns of each pattern, ``(U, m)``.
    """

    rows: Tensor
    which: Tensor
    patterns: Tensor
    places: Tensor


def complete_factors(parameters: linear_gaussian.Parameters, x: Tensor, draws: int | None = None) -> Tensor:
    """Rows whose missing entries are at their conditional means ``(N, D)``, or drawn ``(draws, N, D)``.

    Args:
        parameters: of x = W z + mu + eps.
        x: rows ``(N, D)``, NaN where missing.
        draws: how many of each row; torch's global generator is used.

    Examples:
        >>> p = linear_gaussian.Parameters(torch.zeros(2).double(), torch.ones(2, 1).double(), torch.ones(2).double())
        >>> complete_factors(p, torch.tensor([[1.0, float("nan")]]))
        tensor([[1.0000, 0.5000]], dtype=torch.float64)
    """
    x = x.to(parameters.loc)
    found = _copies(x, draws)
    for block in _blocks(x, lambda missing: parameters.loadings.shape[1] ** 2 + x.shape[1]):
        rows = x[block.rows]
        fill = _from_factors(parameters, rows, block, draws)
        found[..., block.rows, :] = torch.where(rows.isnan(), fill, rows)
    return found


def complete_mixture(parameters: mixture.Parameters, x: Tensor, covariance: Covariance, draws: int | None = None) -> Tensor:
    """The same of a Gaussian mixture.

    Args:
        parameters: of the mixture.
        x: rows ``(N, D)``, NaN where missing.
        covariance: the structure.
        draws: how many of each row; torch's global generator is used.
    """
    x = x.to(parameters.locs)
    found, components = _copies(x, draws), len(parameters.weights)
    precision, log_det, root = _natural(parameters, covariance)
    for block in _blocks(x, lambda missing: components * (missing**2 + x.shape[1])):
        rows = x[block.rows]
        conditional = _condition(parameters, rows, block, precision, log_det, root)
        found[..., block.rows, :] = torch.where(rows.isnan(), _from_mixture(conditional, parameters, block, draws), rows)
    return found


def _copies(x: Tensor, draws: int | None) -> Tensor:
    return x.clone() if draws is None else x.expand(draws, *x.shape).clone()


def _blocks(x: Tensor, numbers: Callable[[int], int]) -> Iterator[_Block]:
    """The incomplete rows, those of one pattern together, in blocks; ``numbers(m)`` are held for each row with m missing."""
    missing = x.isnan()
    counts = missing.sum(1)
    incomplete = counts.nonzero().flatten()
    if not len(incomplete):
        return
    missing, counts = missing[incomplete], counts[incomplete]
    # A projection brings equal patterns together; that they are equal is then looked at.
    weights = torch.rand(x.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(x.device)
    key = missing.double() @ weights
    order = key.argsort()
    order = order[counts[order].argsort(stable=True)]
    incomplete, missing, counts = incomplete[order], missing[order], counts[order]
    start = 0
    for count, size in zip(*(part.tolist() for part in counts.unique_consecutive(return_counts=True)), strict=True):
        for rows in torch.arange(start, start + size, device=x.device).split(max(1, _BLOCK_NUMBERS // numbers(count))):
            patterns, which = missing[rows].unique_consecutive(dim=0, return_inverse=True)
            places = patterns.nonzero()[:, 1].reshape(len(patterns), count)
            yield _Block(incomplete[rows], which, patterns, places)
        start += size


def _from_factors(parameters: linear_gaussian.Parameters, x: Tensor, block: _Block, draws: int | None) -> Tensor:
    loc, W, psi = parameters
    K = W.shape[1]
    products = (W[:, :, None] * W[:, None, :] / psi[:, None, None]).flatten(1)
    precision = ((~block.patterns).to(W) @ products).unflatten(1, (K, K)) + torch.eye(K).to(W)
    L = torch.linalg.cholesky(precision)
    projected = (x - loc).nan_to_num(0.0) @ (W / psi[:, None])
    mean = torch.cholesky_solve(projected[..., None], L[block.which])
    if draws is None:
        return mean[..., 0] @ W.T + loc
    noise = torch.randn(draws, *mean.shape).to(mean)
    z = mean + torch.linalg.solve_triangular(L.mT[block.which], noise, upper=True)
    return z[..., 0] @ W.T + loc + psi.sqrt() * torch.randn(draws, *x.shape).to(psi)


class _Conditional(NamedTuple):
    """p(c | x_o) ``(B, C)``, E[x | x_o, c] ``(C, B, D)``, the Cholesky factors of P_mm ``(C, U, m, m)``."""

    weights: Tensor
    mean: Tensor
    cholesky: Tensor


def _natural(parameters: mixture.Parameters, covariance: Covariance) -> tuple[Tensor, Tensor, Tensor]:
    """P ``(C, D, D)``, log|S| ``(C,)`` and the inverse of S's Cholesky factor ``(C, D, D)``."""
    cholesky = torch.linalg.cholesky(covariance.expand(parameters.covariances, parameters.locs))
    root = torch.linalg.solve_triangular(cholesky, torch.eye(cholesky.shape[-1]).to(cholesky), upper=False)
    return root.mT @ root, 2 * cholesky.diagonal(dim1=-2, dim2=-1).log().sum(-1), root


def _condition(
    parameters: mixture.Parameters, x: Tensor, block: _Block, precision: Tensor, log_det: Tensor, root: Tensor
) -> _Conditional:
    weights, locs, _ = parameters
    places, which = block.places, block.which
    means, factors, joint = [], [], []
    for c in range(len(weights)):
        y = (x - locs[c]).nan_to_num(0.0)
        L = torch.linalg.cholesky(precision[c][places[:, :, None], places[:, None, :]])
        linear = (y @ precision[c]).gather(1, places[which])
        y = y.scatter(1, places[which], -torch.cholesky_solve(linear[..., None], L[which])[..., 0])
        # The square of the observed entries is that of the row with the others at their means: a sum, nothing cancels.
        distance = (y @ root[c].T).square().sum(1)
        extra = 2 * L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        joint.append(weights[c].log() - 0.5 * (log_det[c] + extra[which] + distance))
        means.append(locs[c] + y)
        factors.append(L)
    return _Conditional(torch.stack(joint, 1).softmax(1), torch.stack(means), torch.stack(factors))


def _from_mixture(conditional: _Conditional, parameters: mixture.Parameters, block: _Block, draws: int | None) -> Tensor:
    weights, mean, cholesky = conditional
    if draws is None:
        return torch.einsum("bc,cbd->bd", weights, mean)
    places = block.places[block.which]
    chosen = torch.multinomial(weights, draws, replacement=True).T
    found = []
    for some in chosen.split(max(1, _BLOCK_NUMBERS // places[..., None].expand(-1, -1, places.shape[1]).numel())):
        L = cholesky[some, block.which]  # (d, B, m, m)
        noise = torch.linalg.solve_triangular(L.mT, torch.randn(*some.shape, places.shape[1], 1).to(L), upper=True)
        centre = mean[some, torch.arange(len(places), device=mean.device)]
        found.append(centre.scatter_add(2, places.expand(*some.shape, -1), noise[..., 0]))
    return torch.cat(found)
