"""The Kalman filter, the Rauch-Tung-Striebel smoother and what EM needs of them.

    z_1 ~ Normal(m, P);  z_t ~ Normal(A z_(t-1), Q);  x_t ~ Normal(C z_t + d, diag(r))

Kalman (1960); Rauch, Tung and Striebel (1965); EM: Shumway and Stoffer (1982). No entry is missing, so that covariances hang on
how many elements a row has and not on what they are: of the filter there is one for each time, of the smoother one for each
time and length of a row.

Axes: B rows, T elements of the longest, K latent dimensions, D columns of an element, U lengths that differ.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "Filtered",
    "Parameters",
    "Smoothed",
    "Sums",
    "draw_paths",
    "filtered",
    "following",
    "log_path",
    "maximized",
    "root",
    "smoothed",
    "sums",
]


class Parameters(NamedTuple):
    """m ``(K,)``, P ``(K, K)``, A ``(K, K)``, Q ``(K, K)``, C ``(D, K)``, d ``(D,)``, r ``(D,)``."""

    initial_loc: Tensor
    initial_covariance: Tensor
    transition: Tensor
    noise: Tensor
    loadings: Tensor
    offset: Tensor
    variances: Tensor


class Filtered(NamedTuple):
    """log p(x) ``(B,)``; of z_t given x_1..x_t the means ``(B, T, K)`` and covariances ``(T, K, K)``; likewise before x_t."""

    log_prob: Tensor
    locs: Tensor
    covariances: Tensor
    predicted_locs: Tensor
    predicted_covariances: Tensor


class Smoothed(NamedTuple):
    """Of z_t given the whole row: means ``(B, T, K)``; by length ``(U, T, K, K)`` covariances of z_t, and of z_(t+1) with z_t.

    ``kind (B,)`` is the place of each row's length among the U; ``gains (T, K, K)`` are those of the backward pass.
    """

    locs: Tensor
    covariances: Tensor
    lagged: Tensor
    kind: Tensor
    gains: Tensor


def filtered(parameters: Parameters, x: Tensor, inside: Tensor) -> Filtered:
    """The filter over rows x ``(B, T, D)``, of which ``inside (B, T)`` are no padding; with gradients.

    Examples:
        >>> one = torch.ones(1)
        >>> walk = Parameters(0 * one, one[:, None], one[:, None], one[:, None], one[:, None], 0 * one, one)
        >>> filtered(walk, torch.ones(1, 2, 1), torch.ones(1, 2, dtype=torch.bool)).log_prob.item()  # doctest: +ELLIPSIS
        -2.942...
    """
    m, P, A, Q, C, d, r = parameters
    precise = C / r[:, None]  # (D, K), R^-1 C
    information = C.mT @ precise
    eye = torch.eye(len(m)).to(P)
    rows = x - d
    constant = len(r) * math.log(2 * math.pi) + r.log().sum()
    loc, covariance = m.expand(len(x), -1), P
    log_prob = x.new_zeros(len(x))
    found: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for t in range(x.shape[1]):
        spread = eye + covariance @ information
        after = torch.linalg.solve(spread, covariance)
        after = 0.5 * (after + after.mT)
        left = rows[:, t] - loc @ C.mT
        seen = left @ precise
        squares = (left.square() / r).sum(-1) - ((seen @ after) * seen).sum(-1)
        here = -0.5 * (constant + torch.linalg.slogdet(spread).logabsdet + squares)
        log_prob = log_prob + torch.where(inside[:, t], here, 0)
        updated = loc + seen @ after
        found.append((updated, after, loc, covariance))
        loc, covariance = updated @ A.mT, A @ after @ A.mT + Q
    locs, covariances, before, predicted = (list(part) for part in zip(*found, strict=True))
    return Filtered(log_prob, torch.stack(locs, 1), torch.stack(covariances), torch.stack(before, 1), torch.stack(predicted))


@torch.no_grad()
def smoothed(parameters: Parameters, found: Filtered, inside: Tensor) -> Smoothed:
    """The smoother over what the filter found."""
    A = parameters.transition
    T, K = found.covariances.shape[:2]
    lengths, kind = inside.sum(1).unique(return_inverse=True)
    gains = torch.linalg.solve(found.predicted_covariances[1:], A @ found.covariances[:-1]).mT  # (T - 1, K, K)
    gains = torch.cat([gains, gains.new_zeros(1, K, K)])
    locs, covariances = [found.locs[:, -1]], [found.covariances[-1].expand(len(lengths), K, K)]
    lagged = [torch.zeros_like(covariances[0])]
    for t in reversed(range(T - 1)):
        J = gains[t]
        before = found.locs[:, t] + (locs[-1] - found.predicted_locs[:, t + 1]) @ J.mT
        locs.append(torch.where(inside[:, t + 1, None], before, found.locs[:, t]))
        spread = found.covariances[t] + J @ (covariances[-1] - found.predicted_covariances[t + 1]) @ J.mT
        there = (lengths > t + 1)[:, None, None]
        lagged.append(torch.where(there, covariances[-1] @ J.mT, 0))
        covariances.append(torch.where(there, 0.5 * (spread + spread.mT), found.covariances[t]))
    return Smoothed(
        torch.stack(locs[::-1], 1), torch.stack(covariances[::-1], 1), torch.stack([*lagged[:0:-1], lagged[0]], 1), kind, gains
    )


class Sums(NamedTuple):
    """What the M-step needs, weighted and summed over rows and elements.

    ``rows``, ``moves`` and ``elements`` are numbers of these; z is a latent vector, 1 after it where it says ``one``.
    """

    rows: Tensor
    moves: Tensor
    elements: Tensor
    first: Tensor  # z_1, (K,)
    first_squares: Tensor  # z_1 z_1', (K, K)
    before: Tensor  # z_(t-1) z_(t-1)'
    moved: Tensor  # z_t z_(t-1)'
    after: Tensor  # z_t z_t', t > 1
    one_squares: Tensor  # (z_t, 1)(z_t, 1)', (K + 1, K + 1)
    seen: Tensor  # x_t (z_t, 1)', (D, K + 1)
    squares: Tensor  # x_t ** 2, (D,)


@torch.no_grad()
def sums(found: Smoothed, x: Tensor, inside: Tensor, weights: Tensor | None = None) -> Sums:
    """Of the smoother's moments of rows x ``(B, T, D)``, by weights of the rows ``(B,)`` where there are some."""
    z = found.locs
    w = z.new_ones(len(z)) if weights is None else weights.to(z)
    of_element = inside * w[:, None]
    of_kind = z.new_zeros(found.covariances.shape[0]).index_add_(0, found.kind, w)
    lengths = inside.sum(1)
    of_length = z.new_zeros(len(of_kind), dtype=torch.int64)
    of_length[found.kind] = lengths
    places = torch.arange(z.shape[1], device=z.device)
    number = of_kind[:, None] * (places < of_length[:, None])  # (U, T)
    squares = torch.einsum("bt,bti,btj->tij", of_element, z, z) + torch.einsum("ut,utij->tij", number, found.covariances)
    later = of_element[:, 1:]
    moved = torch.einsum("bt,bti,btj->ij", later, z[:, 1:], z[:, :-1])
    moved = moved + torch.einsum("ut,utij->ij", number[:, 1:], found.lagged[:, :-1])
    before = torch.einsum("bt,bti,btj->ij", later, z[:, :-1], z[:, :-1])
    before = before + torch.einsum("ut,utij->ij", number[:, 1:], found.covariances[:, :-1])
    total = torch.einsum("bt,bti->i", of_element, z)
    n = of_element.sum()
    bordered = torch.cat([torch.cat([squares.sum(0), total[:, None]], 1), torch.cat([total, n[None]])[None]])
    ones = torch.cat([z, torch.ones_like(z[..., :1])], -1)
    return Sums(
        rows=of_element[:, 0].sum(),
        moves=later.sum(),
        elements=n,
        first=of_element[:, 0] @ z[:, 0],
        first_squares=squares[0],
        before=before,
        moved=moved,
        after=squares[1:].sum(0),
        one_squares=bordered,
        seen=torch.einsum("bt,btd,btk->dk", of_element, x, ones),
        squares=torch.einsum("bt,btd->d", of_element, x.square()),
    )


@torch.no_grad()
def maximized(total: Sums, before: Parameters, floor: Tensor) -> Parameters:
    """The M-step; ``floor (D,)`` is the least of the variances r. Of rows of one element A and Q stay as they were."""
    m = total.first / total.rows
    P = total.first_squares / total.rows - torch.outer(m, m)
    A, Q = before.transition, before.noise
    if bool(total.moves > 0):
        A = torch.linalg.solve(total.before, total.moved.mT).mT
        Q = (total.after - A @ total.moved.mT) / total.moves
    weights = torch.linalg.solve(total.one_squares, total.seen.mT).mT
    r = (total.squares - (weights * total.seen).sum(1)) / total.elements
    return Parameters(m, 0.5 * (P + P.mT), A, 0.5 * (Q + Q.mT), weights[:, :-1], weights[:, -1], torch.maximum(r, floor))


@torch.no_grad()
def following(parameters: Parameters, x: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Mean ``(B, K)`` and covariance ``(B, K, K)`` of the latent vector after each row's last element, of none of the first."""
    m, P, A, Q, *_ = parameters
    loc, covariance = m.expand(len(x), -1), P.expand(len(x), *P.shape)
    if not x.shape[1]:
        return loc, covariance
    found = filtered(parameters, x, inside)
    length = inside.sum(1)
    last = (length - 1).clamp_min(0)
    z = found.locs[torch.arange(len(x), device=x.device), last]
    some = length > 0
    moved = A @ found.covariances[last] @ A.mT + Q
    return torch.where(some[:, None], z @ A.mT, loc), torch.where(some[:, None, None], moved, covariance)


@torch.no_grad()
def draw_paths(parameters: Parameters, found: Filtered, smooth: Smoothed, inside: Tensor) -> Tensor:
    """Latent paths drawn from p(z | x), ``(B, T, K)``, filtered forward and drawn backward (Carter and Kohn 1994)."""
    noise = torch.randn_like(found.locs)
    last = found.locs + (root(found.covariances) @ noise[..., None])[..., 0]
    rest = found.covariances[:-1] - smooth.gains[:-1] @ found.predicted_covariances[1:] @ smooth.gains[:-1].mT
    roots = root(rest)
    path = [last[:, -1]]
    for t in reversed(range(found.locs.shape[1] - 1)):
        loc = found.locs[:, t] + (path[-1] - found.predicted_locs[:, t + 1]) @ smooth.gains[t].mT
        path.append(torch.where(inside[:, t + 1, None], loc + noise[:, t] @ roots[t].mT, last[:, t]))
    return torch.stack(path[::-1], 1)


@torch.no_grad()
def log_path(parameters: Parameters, x: Tensor, inside: Tensor, path: Tensor) -> Tensor:
    """Log p(x, path) of latent paths ``(..., B, T, K)``, ``(..., B)``."""
    m, P, A, Q, C, d, r = parameters
    normal = torch.distributions.MultivariateNormal
    first = normal(m, P).log_prob(path[..., 0, :])
    moves = normal(path[..., :-1, :] @ A.mT, Q).log_prob(path[..., 1:, :])
    seen = torch.distributions.Normal(path @ C.mT + d, r.sqrt()).log_prob(x).sum(-1)
    return first + torch.where(inside[:, 1:], moves, 0).sum(-1) + torch.where(inside, seen, 0).sum(-1)


def root(covariance: Tensor) -> Tensor:
    """A matrix whose product with its transpose is the covariance, which may be singular."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp_min(0).sqrt()[..., None, :]
