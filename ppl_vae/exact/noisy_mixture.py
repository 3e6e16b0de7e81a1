"""Gaussian mixtures behind white noise: which component a noisy row is of, and what the row was.

    k ~ Categorical(pi),   s | k ~ N(m_k, S_k),   x | s ~ N(s, v I)
    log p(k, x) = log pi_k + log N(x | m_k, S_k + v I)
    E[s | x, k] = m_k + S_k (S_k + v I)^-1 (x - m_k)          the Wiener filter (Wiener 1949)

One eigendecomposition S_k = U_k diag(l_k) U_k^T serves every v. All components get a first look by their largest eigenvalues
alone, the others at their mean, as in probabilistic PCA (Tipping and Bishop 1999),

    |L^-1 (x - m)|^2 ~ t |x - m|^2 - sum over j of the head (t - 1 / (l_j + v)) (u_j^T (x - m))^2,   t = 1 / (mean rest + v)

and those that are the most probable by it a second one with all of them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ppl_vae.exact.covariances import Covariance
from ppl_vae.exact.mixture import Parameters

__all__ = ["Spectra", "choose", "filtered", "spectra"]

_HEAD = 12
_CANDIDATES = 6
_BLOCK_NUMBERS = 2**18  # of float32: 1 MiB


class Spectra(NamedTuple):
    """A mixture of C Gaussians in D dimensions by eigenvalues and eigenvectors of its covariances.

    Args:
        weights: pi, ``(C,)``.
        locs: m, ``(C, D)``.
        values: l, ``(C, D)``, rising.
        vectors: U, ``(C, D, D)``, a column for each eigenvalue.
    """

    weights: Tensor
    locs: Tensor
    values: Tensor
    vectors: Tensor


def spectra(parameters: Parameters, covariance: Covariance) -> Spectra:
    """The spectra of a mixture's covariances, in float64."""
    weights, locs, spread = (value.double() for value in parameters)
    values, vectors = torch.linalg.eigh(covariance.expand(spread, locs))
    return Spectra(weights, locs, values.clamp_min(0.0), vectors)


def choose(mixture: Spectra, x: Tensor, variance: float, *, head: int = _HEAD, candidates: int = _CANDIDATES) -> Tensor:
    """The component of the largest log p(k, x) of each row ``(N, D)``, ``(N,)``, or one that is nearly as probable.

    Args:
        mixture: of what is behind the noise.
        x: rows with noise.
        variance: v, of the noise.
        head: how many eigenvalues of each component the first look takes.
        candidates: of how many components of each row log p(k, x) is computed, in float32; of all, the choice is exact.

    Examples:
        >>> locs, one = torch.tensor([[0.0], [4.0]]).double(), torch.ones(2, 1).double()
        >>> choose(Spectra(one[:, 0] / 2, locs, one, one[..., None]), 3 * one, 0.5)
        tensor([1, 1])
    """
    center = mixture.weights @ mixture.locs
    mixture, y = mixture._replace(locs=mixture.locs - center), (x - center).float()
    noisy = mixture.values + variance
    log_factor = (mixture.weights.log() - noisy.log().sum(1) / 2).float()
    if candidates >= len(log_factor):
        likely = torch.arange(len(log_factor), device=y.device).expand(len(y), -1)
    else:
        likely = _first_look(mixture, y, variance, log_factor, min(head, noisy.shape[1] - 1), candidates)
    scores = log_factor[likely] - _distances(mixture, y, noisy, likely) / 2
    return likely.gather(1, scores.argmax(1, keepdim=True))[:, 0]


def filtered(mixture: Spectra, x: Tensor, component: Tensor, variance: float) -> Tensor:
    """E[s | x, k] of rows x ``(N, D)`` and their components ``(N,)``, ``(N, D)``."""
    order = component.argsort()
    counts = component.bincount(minlength=len(mixture.weights)).tolist()
    found = []
    for rows, loc, values, vectors in zip(x[order].split(counts), *mixture[1:], strict=True):
        gain = (vectors * (values / (values + variance))) @ vectors.T
        found.append(torch.addmm(loc - gain @ loc, rows, gain))
    out = torch.empty_like(x)
    out[order] = torch.cat(found)
    return out


def _first_look(mixture: Spectra, y: Tensor, variance: float, log_factor: Tensor, head: int, candidates: int) -> Tensor:
    """The most probable components of rows ``(N, D)`` by the head of their spectra, ``(N, candidates)``."""
    _, locs, values, vectors = mixture
    columns = locs.shape[1]
    tails = 1 / (values[:, : columns - head].mean(1) + variance)
    scale = ((tails[:, None] - 1 / (values + variance)).clamp_min(0) / 2).sqrt()[:, None, columns - head :]
    directions = (vectors[..., columns - head :] * scale).movedim(0, 2)  # (D, head, C), so that sums run along components
    shift = -torch.einsum("dhc,cd->hc", directions, locs).flatten().float()
    side_by_side = directions.flatten(1).float()
    constant = log_factor - (tails * locs.square().sum(1) / 2).float()
    linear = (tails[:, None] * locs).T.float().contiguous()
    found = []
    for block in y.split(max(64, _BLOCK_NUMBERS // max(1, len(shift)))):
        score = torch.addmm(constant, block, linear).addr_(block.square().sum(1), tails.float(), alpha=-0.5)
        products = torch.addmm(shift, block, side_by_side).square_()
        score += products.reshape(len(block), head, len(locs)).sum(1)
        found.append(score.topk(candidates, sorted=False).indices)
    return torch.cat(found)


def _distances(mixture: Spectra, y: Tensor, noisy: Tensor, likely: Tensor) -> Tensor:
    """|L^-1 (y - m)|^2 of rows ``(N, D)`` and some components of each ``(N, c)``, component after component, ``(N, c)``."""
    _, locs, _, vectors = mixture
    roots = vectors / noisy.sqrt()[:, None]
    shifts = -(locs[:, None] @ roots)[:, 0]
    component = likely.flatten()
    order = component.argsort()
    found = torch.empty(len(order), dtype=y.dtype, device=y.device)
    counts = component.bincount(minlength=len(locs)).tolist()
    for places, root, shift in zip(order.split(counts), roots.float(), shifts.float(), strict=True):
        found[places] = torch.addmm(shift, y[places // likely.shape[1]], root).square_().sum(1)
    return found.reshape(likely.shape)
