"""Whether two sets of data could come from one distribution: the model's samples and held-out data.

Every function takes two sets and, where it looks at features, a network of the user's own; by default features are the values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from ppl_vae.exact.distances import squared_distances
from ppl_vae.program.context import seeded

__all__ = ["Features", "classifier_test", "features_of", "frechet_distance", "mmd", "precision_recall", "sample_quality"]

Features = Callable[[Tensor], Tensor]
"""A network from data ``(B, *event)`` to features ``(B, F)``."""

ROWS_AT_ONCE = 1000
BANDWIDTH_ROWS = 2000  # whose two million distances tell the median of all to about a thousandth


def features_of(x: Tensor, network: Features | None = None) -> Tensor:
    """Features ``(N, F)`` of data ``(N, *event)``, in float64: those of a network, or the values themselves.

    Raises:
        ValueError: fewer than two data, or features that are not finite or not one row for each datum.
    """
    if len(x) < 2:
        raise ValueError(f"expected at least 2 data, got {len(x)}")
    with torch.no_grad():
        parts = [part if network is None else network(part) for part in x.split(ROWS_AT_ONCE)]
    features = torch.cat(parts).double()
    if len(features) != len(x) or not bool(features.isfinite().all()):
        raise ValueError(f"expected finite features, a row for each of {len(x)} data, got shape {tuple(features.shape)}")
    return features.reshape(len(x), -1)


def mmd(x: Tensor, y: Tensor, *, bandwidth: float | None = None, permutations: int = 200, seed: int = 0) -> dict[str, float]:
    """Kernel two-sample test (Gretton et al. 2012): the unbiased squared maximum mean discrepancy and its p-value.

        MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y),    k(a, b) = exp(-|a - b|^2 / (2 bandwidth^2))

    Under one distribution it is zero on average, so it may come out negative. Time is quadratic in the rows, memory linear.

    Args:
        x: features ``(N, F)``.
        y: features ``(M, F)``.
        bandwidth: of the kernel; by default the median distance of all pairs of the pooled rows, or of 2000 of them.
        permutations: how many reassignments of the pooled rows the p-value counts.
        seed: of the permutations, and of the choice of rows for the bandwidth.

    Returns:
        ``mmd2``, ``p_value`` (at least 1 / (permutations + 1)) and ``bandwidth``.

    Raises:
        ValueError: other shapes, or a bandwidth that is not positive.

    Examples:
        >>> x = torch.linspace(-1, 1, 50)[:, None]
        >>> mmd(x, x + 3)["p_value"] < 0.01
        True
    """
    _check(x, y)
    if bandwidth is not None and not 0 < bandwidth < math.inf:
        raise ValueError(f"expected a positive bandwidth, got {bandwidth}: leave it out for the median distance")
    pooled = torch.cat([x, y]).double()
    bandwidth = _median_distance(pooled, seed) if bandwidth is None else bandwidth
    first = (torch.arange(len(pooled), device=pooled.device) < len(x)).double()
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(pooled), generator=generator) for _ in range(permutations)]
    groups = torch.stack([first, *(first[order.to(first.device)] for order in orders)])
    values = _unbiased(pooled, bandwidth, groups)
    tail = int((values[1:] >= values[0]).sum())
    return {"mmd2": values[0].item(), "p_value": (1 + tail) / (1 + permutations), "bandwidth": bandwidth}


def _median_distance(rows: Tensor, seed: int) -> float:
    """Of all pairs of rows ``(N, F)``, or of a random choice of the rows; 1 if most are equal."""
    if len(rows) > BANDWIDTH_ROWS:
        chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:BANDWIDTH_ROWS]
        rows = rows[chosen.to(rows.device)]
    return float(torch.pdist(rows).median()) or 1.0


def _unbiased(rows: Tensor, bandwidth: float, first: Tensor) -> Tensor:
    """MMD^2 ``(P,)`` of each way ``first (P, N + M)`` to part the rows, whose kernel is summed a block at a time."""
    within, towards, total = (first.new_zeros(()) for _ in range(3))
    for start in range(0, len(rows), ROWS_AT_ONCE):
        block = slice(start, start + ROWS_AT_ONCE)
        kernel = (-squared_distances(rows[block], rows) / (2 * bandwidth**2)).exp()
        kernel.diagonal(offset=start).zero_()  # no row is paired with itself
        reached = first[:, block] @ kernel
        within = within + (reached * first).sum(1)
        towards = towards + reached.sum(1)
        total = total + kernel.sum()
    n, m = first[0].sum(), (1 - first[0]).sum()
    between = towards - within
    others = total - within - 2 * between
    return within / (n * (n - 1)) + others / (m * (m - 1)) - 2 * between / (n * m)


def classifier_test(
    x: Tensor, y: Tensor, *, classifier: Literal["logistic", "boosting"] = "logistic", seed: int = 0
) -> dict[str, float]:
    """Classifier two-sample test (Lopez-Paz and Oquab 2017): can the two sets be told apart?

    Half of the rows train a classifier, the other half test it. Under one distribution each test row is told right with
    probability 1/2, which gives the p-value.

    Args:
        x: features ``(N, F)``.
        y: features; the larger set is cut to the size of the other.
        classifier: ``logistic`` regression on standardized features, or gradient ``boosting`` of trees.
        seed: of the halves.

    Returns:
        ``accuracy`` on the test half, its standard error ``accuracy_se``, and ``p_value``, that of a binomial.
    """
    _check(x, y)
    if classifier not in CLASSIFIERS:
        raise ValueError(f"expected a classifier of {', '.join(CLASSIFIERS)}, got {classifier!r}")
    size = min(len(x), len(y))
    if size < 10:
        raise ValueError(f"expected at least 10 data of each set, got {size}")
    from sklearn.model_selection import train_test_split

    rows = torch.cat([x[:size], y[:size]]).double().cpu().numpy()
    which = torch.arange(2 * size).ge(size).long().numpy()
    train, test, train_which, test_which = train_test_split(rows, which, test_size=0.5, stratify=which, random_state=seed)
    right = int((CLASSIFIERS[classifier](seed).fit(train, train_which).predict(test) == test_which).sum())
    accuracy = right / len(test)
    spread = math.sqrt(accuracy * (1 - accuracy) / len(test))
    return {"accuracy": accuracy, "accuracy_se": spread, "p_value": _binomial_tail(right, len(test))}


def _logistic(seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))


def _boosting(seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(max_iter=100, random_state=seed)


CLASSIFIERS: dict[str, Callable[[int], Any]] = {"logistic": _logistic, "boosting": _boosting}


def _binomial_tail(successes: int, trials: int) -> float:
    """P(K >= successes), K ~ Binomial(trials, 1/2)."""
    k = torch.arange(successes, trials + 1, dtype=torch.float64)
    logs = math.lgamma(trials + 1) - torch.lgamma(k + 1) - torch.lgamma(trials - k + 1) - trials * math.log(2)
    return min(1.0, logs.exp().sum().item())


def precision_recall(real: Tensor, generated: Tensor, *, neighbours: int = 3) -> dict[str, float]:
    """Improved precision and recall (Kynkäänniemi et al. 2019).

    A set's manifold is the union of balls around its rows that reach to their k-th nearest neighbours in it.

    Args:
        real: features ``(N, F)`` of data.
        generated: features ``(M, F)`` of samples.
        neighbours: k.

    Returns:
        ``precision``, the share of samples on the data's manifold, and ``recall``, the share of data on the samples'.

    Raises:
        ValueError: no more rows than neighbours.
    """
    _check(real, generated)
    if not 1 <= neighbours < min(len(real), len(generated)):
        raise ValueError(
            f"expected neighbours from 1 to one less than the {min(len(real), len(generated))} rows, got {neighbours}"
        )
    return {"precision": _covered(generated, real, neighbours), "recall": _covered(real, generated, neighbours)}


def _covered(points: Tensor, by: Tensor, neighbours: int) -> float:
    """The share of points that lie in the ball of one of the rows ``by`` at least."""
    # A row is its own nearest neighbour, at distance zero.
    nearest = [squared_distances(rows, by).kthvalue(neighbours + 1, dim=1).values for rows in by.split(ROWS_AT_ONCE)]
    radius = torch.cat(nearest)  # squared, as all distances here
    inside = [(squared_distances(rows, by) <= radius).any(1) for rows in points.split(ROWS_AT_ONCE)]
    return torch.cat(inside).double().mean().item()


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """The squared Fréchet distance of two sets' normal approximations (Dowson and Landau 1982).

        |m_x - m_y|^2 + tr(S_x + S_y - 2 (S_x S_y)^(1/2)),    tr (S_x S_y)^(1/2) = tr (S_x^(1/2) S_y S_x^(1/2))^(1/2)

    In features of Inception it is the FID (Heusel et al. 2017). It depends on the number of rows: compare at equal numbers,
    well above that of features.

    Args:
        x: features ``(N, F)``.
        y: features ``(M, F)``.

    Examples:
        >>> x = torch.tensor([[-1.0], [0.0], [1.0]])
        >>> round(frechet_distance(x, 2 * x + 5), 6)  # means 0 and 5, standard deviations 1 and 2
        26.0
    """
    _check(x, y)
    x, y = x.double(), y.double()
    offset = (x.mean(0) - y.mean(0)).square().sum()
    S_x, S_y = (torch.cov(rows.T).reshape(rows.shape[1], rows.shape[1]) for rows in (x, y))
    values, vectors = torch.linalg.eigh(S_x)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    product = root @ S_y @ root
    cross = torch.linalg.eigvalsh((product + product.T) / 2).clamp_min(0).sqrt().sum()
    return (offset + S_x.trace() + S_y.trace() - 2 * cross).item()


def sample_quality(real: Tensor, generated: Tensor, *, network: Features | None = None, seed: int = 0) -> dict[str, float]:
    """All of them for data and as many samples, each ``(N, *event)``.

    Args:
        real: held-out data.
        generated: samples of a model.
        network: of the features; by default the values themselves.
        seed: of the permutations and the halves.

    Returns:
        ``mmd2`` and ``mmd_p_value``; ``classifier_accuracy``, ``classifier_accuracy_se`` and ``classifier_p_value``;
        ``precision``, ``recall``; ``frechet_distance``; ``n``, the samples.
    """
    with seeded(seed, real.device):
        x, y = features_of(real, network), features_of(generated, network)
    kernel, classifier = mmd(x, y, seed=seed), classifier_test(x, y, seed=seed)
    return {
        "mmd2": kernel["mmd2"],
        "mmd_p_value": kernel["p_value"],
        **{f"classifier_{name}": value for name, value in classifier.items()},
        **precision_recall(x, y),
        "frechet_distance": frechet_distance(x, y),
        "n": len(y),
    }


def _check(x: Tensor, y: Tensor) -> None:
    if x.dim() != 2 or y.dim() != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise ValueError(f"expected two sets of features (N, F) with N >= 2, got {tuple(x.shape)} and {tuple(y.shape)}")
