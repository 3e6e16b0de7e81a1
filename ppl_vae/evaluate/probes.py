"""What codes are good for: telling classes apart, with many labels or few, and finding the classes by themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch import distributions as td

from ppl_vae.program.joint import Joint
from ppl_vae.program.sites import Tree

__all__ = ["assigned", "cluster_scores", "probe"]

COMPONENTS = (td.OneHotCategorical, td.MixtureSameFamily)


def assigned(prior: Any, codes: Tree) -> Tensor:
    """The most probable component of each datum, ``(N,)``.

    Args:
        prior: p(z), a mixture, or of one-hot codes; of several latent variables a joint, of which one has components.
        codes: posterior means ``(N, *event)``, by name of several; probabilities, of one-hot codes.

    Raises:
        ValueError: a prior without components, or several with such.
    """
    if isinstance(prior, Joint):
        factors = {name: p for name, p in prior.given(codes).items() if isinstance(p, COMPONENTS)}
        if len(factors) != 1:
            raise ValueError(f"expected one latent variable with components to compare with classes, got {len(factors)}")
        ((name, factor),) = factors.items()
        return assigned(factor, codes[name])
    if isinstance(prior, td.OneHotCategorical):
        return codes.argmax(-1)
    if isinstance(prior, td.MixtureSameFamily):
        near = prior.component_distribution.log_prob(codes.unsqueeze(1))
        return (near + prior.mixture_distribution.logits).argmax(1)
    raise ValueError("this model has no components to compare with classes: use GMM, a mixture prior, or OneHotCategorical()")


def cluster_scores(found: Tensor, true: Tensor) -> dict[str, float]:
    """How well clusters agree with classes, whatever they are called.

    Args:
        found: cluster of each datum ``(N,)``.
        true: class of each datum ``(N,)``.

    Returns:
        ``ari``, the adjusted Rand index (Hubert and Arabie 1985), 0 on average for clusters at random; ``nmi``, the mutual
        information divided by the mean of the two entropies; both 1 for equal partitions. ``clusters``, how many were used.

    Examples:
        >>> cluster_scores(torch.tensor([7, 7, 3, 3]), torch.tensor([0, 0, 1, 1]))
        {'ari': 1.0, 'nmi': 1.0, 'clusters': 2}
    """
    if found.shape != true.shape or found.dim() != 1 or not len(found):
        raise ValueError(f"expected a cluster and a class for each datum, got {tuple(found.shape)} and {tuple(true.shape)}")
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    names, clusters = true.cpu().numpy(), found.cpu().numpy()
    scores = {"ari": adjusted_rand_score(names, clusters), "nmi": normalized_mutual_info_score(names, clusters)}
    return {name: float(value) for name, value in scores.items()} | {"clusters": len(found.unique())}


def probe(
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    *,
    labels_per_class: Sequence[int] = (),
    draws: int = 5,
    seed: int = 0,
) -> dict[str, Any]:
    """Accuracy of a linear classifier of the codes (Alain and Bengio 2017): logistic regression on standardized codes.

    Args:
        train: codes ``(N, K)`` and classes ``(N,)`` that it is fitted to.
        test: codes and classes that it is scored on.
        labels_per_class: also with so many labelled training data of each class only.
        draws: random choices of those.
        seed: of the choices.

    Returns:
        ``accuracy`` and ``accuracy_se``, the binomial standard error over the test data; for n labels per class
        ``accuracy_n``, the mean over the draws, and ``accuracy_n_se``, its standard error over them.

    Raises:
        ValueError: a single class, or a class with fewer training data than labels asked for.

    Examples:
        >>> z, y = torch.tensor([[-1.0], [-2.0], [1.0], [2.0]]), torch.tensor([0, 0, 1, 1])
        >>> probe((z, y), (z, y))["accuracy"]
        1.0
    """
    z, y = train
    counts = y.bincount()
    counts = counts[counts > 0]
    if len(counts) < 2:
        raise ValueError(f"expected training data of at least 2 classes, got {len(counts)}")
    if draws < 2 or any(not 1 <= n <= int(counts.min()) for n in labels_per_class):
        raise ValueError(
            f"expected at least 2 draws and 1 to {int(counts.min())} labels per class, as many as the smallest class has, got "
            f"{draws} and {', '.join(map(str, labels_per_class)) or 'none'}"
        )
    accuracy = _accuracy(train, test)
    found: dict[str, Any] = {"accuracy": accuracy, "accuracy_se": math.sqrt(accuracy * (1 - accuracy) / len(test[1]))}
    generator = torch.Generator().manual_seed(seed)
    for n in labels_per_class:
        chosen = [_choice(y, n, generator) for _ in range(draws)]
        scores = torch.tensor([_accuracy((z[rows], y[rows]), test) for rows in chosen], dtype=torch.float64)
        found[f"accuracy_{n}"] = scores.mean().item()
        found[f"accuracy_{n}_se"] = scores.std().item() / math.sqrt(draws)
    return found


def _choice(y: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Indices of n data of each class."""
    order = torch.randperm(len(y), generator=generator).to(y.device)
    return torch.cat([order[y[order] == one][:n] for one in y.unique()])


def _accuracy(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> float:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    (z, y), (test_z, test_y) = ((codes.double().cpu().numpy(), classes.cpu().numpy()) for codes, classes in (train, test))
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    return float(classifier.fit(z, y).score(test_z, test_y))
