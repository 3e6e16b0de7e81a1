"""Starts of a Gaussian mixture: k-means++ and random, from a sample of the rows that fits into memory.

A start is a hard assignment of the sample to C centres and one M-step, whose covariances are shrunk towards the pooled one so
that no component begins as a spike on one or two rows. Rows that have weights keep them: they are drawn alike into the sample,
and each counts as often as it does in the data. Arthur & Vassilvitskii (2007), "k-means++: the advantages of careful
seeding".
"""

from __future__ import annotations

import torch
from torch import Tensor

from ppl_vae.exact.covariances import Covariance
from ppl_vae.exact.distances import squared_distances
from ppl_vae.exact.mixture import Parameters
from ppl_vae.exact.moments import NO_ROWS, Data, row_blocks, weighted_blocks
from ppl_vae.exact.sharing import Shared

__all__ = ["assign", "divided", "initial", "kmeans", "kmeans_plus_plus", "random_rows", "sample_rows"]

_KEYS_AT_ONCE = 2**20


def initial(
    data: Data,
    components: int,
    covariance: Covariance,
    *,
    generator: torch.Generator,
    method: str = "kmeans++",
    floor: Tensor | float = 1e-6,
    sample: int = 50_000,
    iterations: int = 10,
) -> Parameters:
    """A start for EM.

    Args:
        data: as in :func:`ppl_vae.exact.mixture.e_step`; NaN entries are replaced by their column's mean here, and only here.
        components: C.
        covariance: the structure.
        generator: the source of randomness, on the data's device; several starts (``n_init``) draw from one generator in turn.
        method: ``kmeans++`` (seeding and a few iterations of k-means) or ``random`` (distinct rows as centres).
        floor: as in :func:`ppl_vae.exact.mixture.m_step`.
        sample: rows drawn without replacement where the data have more.
        iterations: of k-means.

    Raises:
        ValueError: fewer distinct rows than components, or an unknown method.
    """
    rows, weights = _sampled(data, max(sample, 20 * components), generator)
    rows = _impute(rows)
    distinct = torch.unique(rows, dim=0).shape[0]
    if not 1 <= components <= distinct:
        raise ValueError(
            f"expected components between 1 and the {distinct} distinct points among {rows.shape[0]} rows, got {components}: "
            "a component needs at least one point of its own; use fewer components, or add noise to rounded or duplicated data"
        )
    if method not in ("kmeans++", "random"):
        raise ValueError(f"expected a start among kmeans++, random, got {method!r}")
    if method == "random":
        centers = random_rows(rows, components, generator)
    else:
        centers = kmeans(rows, kmeans_plus_plus(rows, components, generator, weights), iterations, weights)
    return _from_labels(rows, assign(rows, centers)[0], components, covariance, floor, weights)


def divided(parameters: Parameters, covariance: Covariance) -> Parameters:
    """One component more: the heaviest one becomes two of half its weight, a deviation apart along its longest axis."""
    weights, locs, spread = parameters
    heaviest = int(weights.argmax())
    values, vectors = torch.linalg.eigh(covariance.expand(spread, locs)[heaviest])
    step = vectors[:, -1] * values[-1].clamp_min(0).sqrt() / 2
    weights = torch.cat([weights, weights[heaviest : heaviest + 1] / 2])
    weights[heaviest] = weights[heaviest] / 2
    locs = torch.cat([locs, (locs[heaviest] + step)[None]])
    locs[heaviest] = locs[heaviest] - step
    return Parameters(weights, locs, spread if covariance.shared else torch.cat([spread, spread[heaviest : heaviest + 1]]))


def sample_rows(data: Data, size: int, generator: torch.Generator) -> Tensor:
    """At most ``size`` rows, uniformly without replacement, float64, in one pass: those of the largest random keys."""
    return _sampled(data, size, generator)[0]


def _sampled(data: Data, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
    """The rows of :func:`sample_rows`, and their weights if they have any."""
    if isinstance(data, Shared):
        places = _places(data.number, data.weights, size, generator)
        return data.at(places), None if data.weights is None else data.weights[places]
    kept: Tensor | None = None
    weights: Tensor | None = None
    keys = torch.empty(0, dtype=torch.float64, device=generator.device)
    for block, fresh_weights in weighted_blocks(data, 8192):
        kept = block if kept is None else torch.cat([kept, block])
        if fresh_weights is not None:
            weights = fresh_weights if weights is None else torch.cat([weights, fresh_weights])
        keys = torch.cat([keys, _keys(len(block), generator)])
        if kept.shape[0] > size:
            keys, order = keys.topk(size)
            kept = kept[order.to(kept.device)]
            weights = None if weights is None else weights[order.to(weights.device)]
    if kept is None:
        raise ValueError(NO_ROWS)
    return kept, weights


def _places(rows: int, weights: Tensor | None, size: int, generator: torch.Generator) -> Tensor:
    """Where the rows of :func:`sample_rows` are among so many, by the keys alone: no row is read."""
    kept = torch.empty(0, dtype=torch.int64, device=generator.device)
    keys = torch.empty(0, dtype=torch.float64, device=generator.device)
    for start in range(0, rows, _KEYS_AT_ONCE):
        places = torch.arange(start, min(rows, start + _KEYS_AT_ONCE), device=generator.device)
        places = places if weights is None else places[weights[places.to(weights.device)].to(places.device) > 0]
        kept, keys = torch.cat([kept, places]), torch.cat([keys, _keys(len(places), generator)])
        if len(kept) > size:
            keys, order = keys.topk(size)
            kept = kept[order]
    if not len(kept):
        raise ValueError(NO_ROWS)
    return kept


def _keys(rows: int, generator: torch.Generator) -> Tensor:
    return torch.rand(rows, dtype=torch.float64, generator=generator, device=generator.device)


def random_rows(x: Tensor, components: int, generator: torch.Generator) -> Tensor:
    """C distinct rows drawn uniformly, ``(C, D)``."""
    distinct = torch.unique(x, dim=0)
    return distinct[torch.randperm(distinct.shape[0], generator=generator, device=generator.device)[:components].to(x.device)]


def kmeans_plus_plus(x: Tensor, components: int, generator: torch.Generator, weights: Tensor | None = None) -> Tensor:
    """C rows, each drawn with probability proportional to its squared distance to those already drawn, ``(C, D)``.

    Of weighted rows it is proportional to the weight ``(N,)`` as well, also of the first one.
    """
    if weights is None:
        pick = torch.randint(x.shape[0], (1,), generator=generator, device=generator.device).to(x.device)
    else:
        u = torch.rand((1,), dtype=x.dtype, generator=generator, device=generator.device).to(x.device)
        cumulative = weights.cumsum(0)
        pick = torch.searchsorted(cumulative, u * cumulative[-1], right=True).clamp_max(x.shape[0] - 1)
    centers = [x[pick[0]]]
    distance = (x - centers[0]).square().sum(1)
    for _ in range(components - 1):
        u = torch.rand((), dtype=x.dtype, generator=generator, device=generator.device).to(x.device)
        cumulative = (distance if weights is None else distance * weights).cumsum(0)
        # Not multinomial, which is limited to 2^24 rows; a row at distance 0 has an empty interval and is never drawn.
        pick = torch.searchsorted(cumulative, u * cumulative[-1], right=True).clamp_max(x.shape[0] - 1)
        centers.append(x[pick])
        distance = torch.minimum(distance, (x - centers[-1]).square().sum(1))
    return torch.stack(centers)


def kmeans(x: Tensor, centers: Tensor, iterations: int, weights: Tensor | None = None) -> Tensor:
    """Lloyd's iterations; a centre without rows moves to the row that is farthest from its own."""
    for _ in range(iterations):
        labels, distance = assign(x, centers)
        counts = torch.bincount(labels, weights, minlength=centers.shape[0])
        sums = torch.zeros_like(centers).index_add_(0, labels, x if weights is None else x * weights[:, None])
        filled = counts.clamp_min(1) if weights is None else torch.where(counts > 0, counts, 1.0)
        new = torch.where(counts[:, None] > 0, sums / filled[:, None], centers)
        empty = counts == 0
        if empty.any():
            new[empty] = x[distance.topk(int(empty.sum())).indices]
        if torch.equal(new, centers):
            break
        centers = new
    return centers


def assign(x: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest centre of each row and the squared distance to it, ``(N,)`` each; in blocks, ``(N, C)`` is never held."""
    parts = []
    for block in row_blocks(x, max(64, 2**22 // centers.shape[0])):
        least, label = squared_distances(block, centers).min(1)
        parts.append((label, least.to(x.dtype)))
    labels, distances = zip(*parts, strict=True)
    return torch.cat(labels), torch.cat(distances)


def _impute(x: Tensor) -> Tensor:
    return torch.where(x.isnan(), x.nanmean(0), x)


def _from_labels(
    x: Tensor, labels: Tensor, components: int, covariance: Covariance, floor: Tensor | float, weights: Tensor | None = None
) -> Parameters:
    """An M-step from hard labels with D pseudo-rows of the pooled covariance in every component."""
    columns = x.shape[1]
    counts = torch.bincount(labels, weights, minlength=components).to(x.dtype)
    filled = counts.clamp_min(1) if weights is None else torch.where(counts > 0, counts, 1.0)
    center = x.mean(0) if weights is None else weights @ x / weights.sum()
    y = x - center
    each = y if weights is None else y * weights[:, None]
    locs = torch.zeros(components, columns, dtype=x.dtype, device=x.device).index_add_(0, labels, each) / filled[:, None]
    own = _features(y - locs[labels], covariance)  # about each one's own mean, so nothing cancels
    own = own if weights is None else own * weights[:, None]
    second = y.new_zeros(components, own.shape[1]).index_add_(0, labels, own)
    zeros = torch.zeros_like(locs)
    spread = covariance.estimate(second.sum(0, keepdim=True) if covariance.shared else second, zeros, filled)
    if not covariance.shared:
        phi = _features(y, covariance)
        pooled = covariance.estimate(
            phi.sum(0, keepdim=True) if weights is None else (weights @ phi)[None], zeros[:1], counts.sum().reshape(1)
        )
        share = (counts / (counts + columns)).reshape(-1, *[1] * (spread.dim() - 1))
        spread = share * spread + (1 - share) * pooled
    weights = (counts + 1) / (counts + 1).sum()
    return Parameters(weights, locs + center, covariance.bound(spread, torch.as_tensor(floor).to(x)))


def _features(y: Tensor, covariance: Covariance) -> Tensor:
    phi = y.new_empty(covariance.size(y.shape[1]), y.shape[0])
    covariance.features(y.T.contiguous(), phi)
    return phi.T
