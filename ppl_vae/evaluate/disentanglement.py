"""How far single dimensions of the codes stand for single factors of the data, where the factors are known.

Scores of different definitions rank models differently, and seeds matter more than methods (Locatello et al. 2019): give
several, over several seeds.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["dci", "disentanglement", "mig", "modularity", "mutual_information", "sap"]

Array = np.ndarray
Matrix = Tensor | np.ndarray


def disentanglement(codes: Matrix, factors: Matrix, *, bins: int = 20, seed: int = 0) -> dict[str, float]:
    """All of the scores, each at most 1, which is best: ``mig``, ``modularity``, ``sap``, and those of :func:`dci`.

    Args:
        codes: posterior means ``(N, K)``.
        factors: the true factors ``(N, F)``, each a class number.
        bins: of the histograms from which mutual informations are computed.
        seed: of the halves and the trees.

    Raises:
        ValueError: other shapes, fewer than two dimensions, factors or bins, or a factor that does not vary.
    """
    codes, factors = _checked(codes, factors, least=(2, 2))
    information = mutual_information(codes, factors, bins=bins)
    return {
        "mig": mig(information, factors),
        "modularity": modularity(information),
        "sap": sap(codes, factors, seed=seed),
        **dci(codes, factors, seed=seed),
    }


def mutual_information(codes: Matrix, factors: Matrix, *, bins: int = 20) -> Tensor:
    """I(z_k; v_f) in nats, ``(K, F)``, each dimension cut into bins of equal width.

    Raises:
        ValueError: other shapes, fewer than two bins, or a factor that does not vary.
    """
    from sklearn.metrics import mutual_info_score

    if bins < 2:
        raise ValueError(f"expected at least 2 bins, got {bins}")
    codes, factors = _checked(codes, factors)
    binned, v = _binned(codes, bins), factors.cpu().numpy()
    return torch.tensor(
        [[max(0.0, mutual_info_score(v[:, f], binned[:, k])) for f in range(v.shape[1])] for k in range(binned.shape[1])],
        dtype=torch.float64,
    )


def mig(information: Matrix, factors: Matrix) -> float:
    """The mutual information gap (Chen et al. 2018): by how much the best dimension of a factor leads the second.

        1/F sum_f (I(z_(1); v_f) - I(z_(2); v_f)) / H(v_f)

    Args:
        information: ``(K, F)``, what :func:`mutual_information` gave.
        factors: ``(N, F)``.

    Raises:
        ValueError: other shapes, fewer than two dimensions, or a factor that does not vary.

    Examples:
        >>> factors = torch.cartesian_prod(torch.arange(4), torch.arange(4))
        >>> mig(mutual_information(factors.float(), factors), factors)
        1.0
    """
    factors = _factors(factors)
    best = _information(information, least=(2, 1), factors=factors.shape[1]).topk(2, dim=0).values
    entropy = torch.tensor([_entropy(column) for column in factors.T], dtype=torch.float64)
    return min(1.0, ((best[0] - best[1]) / entropy).mean().item())


def modularity(information: Matrix) -> float:
    """Whether each dimension depends on one factor at most (Ridgeway and Mozer 2018).

        1/K sum_k (1 - sum_(f != f*) I_kf^2 / (I_kf*^2 (F - 1))),    f* the factor that z_k tells most about

    Dimensions that tell about none are left out.

    Args:
        information: ``(K, F)``.

    Raises:
        ValueError: fewer than two factors.
    """
    information = _information(information, least=(1, 2))
    squares = information.square()
    best = squares.max(1).values
    used = best > 1e-12
    others = (squares.sum(1) - best)[used] / (best[used] * (information.shape[1] - 1))
    return (1 - others).mean().item() if bool(used.any()) else 0.0


def sap(codes: Matrix, factors: Matrix, *, seed: int = 0) -> float:
    """The separated attribute predictability (Kumar et al. 2018).

    By how much the best single dimension leads the second in the accuracy of a linear classifier of a factor, averaged over the
    factors; the classifier is fitted to one half of the data and scored on the other.

    Args:
        codes: ``(N, K)``.
        factors: ``(N, F)``.
        seed: of the halves.

    Raises:
        ValueError: other shapes, fewer than two dimensions, or a factor that does not vary.
    """
    from sklearn.svm import LinearSVC

    codes, factors = _checked(codes, factors, least=(2, 1))
    (z, v), (test_z, test_v) = _halves(codes, factors, seed)
    scores = np.empty((z.shape[1], v.shape[1]))
    for k in range(z.shape[1]):
        for f in range(v.shape[1]):
            classifier = LinearSVC(C=1.0, class_weight="balanced", random_state=seed, max_iter=5000, dual=False)
            scores[k, f] = classifier.fit(z[:, k : k + 1], v[:, f]).score(test_z[:, k : k + 1], test_v[:, f])
    ordered = np.sort(scores, axis=0)
    return float((ordered[-1] - ordered[-2]).mean())


def dci(codes: Matrix, factors: Matrix, *, seed: int = 0) -> dict[str, float]:
    """Disentanglement, completeness and informativeness (Eastwood and Williams 2018).

    From the importances R ``(K, F)`` of the dimensions for random forests that predict each factor: ``disentanglement`` is
    1 - H_F(R_k) averaged over dimensions by their importance, ``completeness`` 1 - H_K(R_f) averaged over factors likewise,
    with entropies of the normalized rows and columns to the base of their length; ``informativeness`` is the forests' accuracy
    on the half of the data that they were not fitted to.

    Args:
        codes: ``(N, K)``.
        factors: ``(N, F)``.
        seed: of the halves and the trees.

    Raises:
        ValueError: other shapes, fewer than two dimensions or factors, or a factor that does not vary.
    """
    from sklearn.ensemble import RandomForestClassifier

    codes, factors = _checked(codes, factors, least=(2, 2))
    (z, v), (test_z, test_v) = _halves(codes, factors, seed)
    forests = [RandomForestClassifier(n_estimators=50, max_features=None, random_state=seed).fit(z, column) for column in v.T]
    R = np.stack([forest.feature_importances_ for forest in forests], axis=1)
    accuracy = [forest.score(test_z, column) for forest, column in zip(forests, test_v.T, strict=True)]
    return {
        "disentanglement": _concentration(R),
        "completeness": _concentration(R.T),
        "informativeness": float(np.mean(accuracy)),
    }


def _concentration(importances: Array) -> float:
    """One minus the entropy of each row, to the base of its length, averaged by the rows' sums."""
    sums = importances.sum(1)
    p = importances[sums > 0] / sums[sums > 0, None]
    entropy = -(p * np.log(np.where(p > 0, p, 1.0))).sum(1) / np.log(importances.shape[1])
    return float((1 - entropy) @ sums[sums > 0] / sums.sum()) if sums.sum() > 0 else 0.0


def _binned(codes: Tensor, bins: int) -> Array:
    """Bin of each code, ``(N, K)``: of equal widths from the smallest to the largest of a dimension."""
    z = codes.double().cpu()
    low, high = z.min(0).values, z.max(0).values
    width = torch.where(high > low, high - low, 1.0)
    return ((z - low) / width * bins).long().clamp_max(bins - 1).numpy()


def _entropy(classes: Tensor) -> float:
    p = classes.unique(return_counts=True)[1].double() / len(classes)
    return -(p * p.log()).sum().item()


def _halves(codes: Tensor, factors: Tensor, seed: int) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Standardized codes, and factors, of two random halves."""
    z, v = codes.double().cpu(), factors.cpu()
    spread = z.std(0, correction=0)
    z = (z - z.mean(0)) / torch.where(spread > 0, spread, 1.0)
    order = torch.randperm(len(z), generator=torch.Generator().manual_seed(seed))
    first, second = order[: len(z) // 2], order[len(z) // 2 :]
    return (z[first].numpy(), v[first].numpy()), (z[second].numpy(), v[second].numpy())


def _checked(codes: Matrix, factors: Matrix, *, least: tuple[int, int] = (1, 1)) -> tuple[Tensor, Tensor]:
    """Both as tensors, of at least so many dimensions and factors."""
    codes, factors = torch.as_tensor(codes), torch.as_tensor(factors)
    if codes.dim() != 2 or factors.dim() != 2 or len(codes) != len(factors):
        raise ValueError(f"expected codes (N, K) and factors (N, F), got {tuple(codes.shape)} and {tuple(factors.shape)}")
    factors = _factors(factors)
    _require(least, codes.shape[1], factors.shape[1])
    return codes, factors


def _information(information: Matrix, *, least: tuple[int, int], factors: int | None = None) -> Tensor:
    information = torch.as_tensor(information)
    if information.dim() != 2 or factors not in (None, information.shape[1]):
        raise ValueError(f"expected information (K, {factors or 'F'}), got {tuple(information.shape)}")
    _require(least, *information.shape)
    return information


def _factors(factors: Matrix) -> Tensor:
    factors = torch.as_tensor(factors)
    if factors.dim() != 2 or not len(factors):
        raise ValueError(f"expected factors (N, F), got {tuple(factors.shape)}")
    if factors.is_floating_point():
        raise ValueError("expected factors as class numbers, got floating-point numbers: number their values")
    constant = [f for f in range(factors.shape[1]) if len(factors[:, f].unique()) < 2]
    if constant:
        raise ValueError(f"expected factors that vary, got only one value of factor {', '.join(map(str, constant))}")
    return factors


def _require(least: tuple[int, int], dimensions: int, factors: int) -> None:
    if dimensions < least[0] or factors < least[1]:
        raise ValueError(f"expected at least {least[0]} dimensions and {least[1]} factors, got {dimensions} and {factors}")
