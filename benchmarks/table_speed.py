"""Questions about 100,000 rows of 64 columns against scikit-learn: seconds of each side, paired, and the ratio of the medians.

Parameters of either side are of a short fit to the first 2000 rows, for what is asked does not depend on how good they are.
Scores and components are asked of ``GaussianMixture`` and ``FactorAnalysis`` themselves. Scikit-learn has no imputation by a
mixture or by factors: the nearest is ``IterativeImputer(max_iter=1)``, one pass of linear regressions of each column on the
others, which is what a normal distribution's conditional means are, started at the columns' means.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import FactorAnalysis
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer
from sklearn.mixture import GaussianMixture

import ppl_vae as pv

__all__ = ["speeds"]

FACTORS, COMPONENTS, FITTED, MISSING = 8, 10, 2000, 0.1
Asked = dict[str, tuple[Callable[[], Any], Callable[[], Any]]]


def speeds(rows: int, columns: int, repeats: int) -> list[dict[str, Any]]:
    """Of each question the medians of both sides in seconds, taken in turn in one process, and their ratio."""
    torch.set_num_threads(1)
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # neither side converged
        for question, (ours, theirs) in _asked(rows, columns).items():
            slow = question.startswith("impute")
            pairs = np.array([(_seconds(ours), _seconds(theirs)) for _ in range(1 if slow else repeats)])
            mine, peer = np.median(pairs, axis=0)
            found.append({"question": question, "ours": mine, "scikit_learn": peer, "ratio": mine / peer})
    return found


def _asked(rows: int, columns: int) -> Asked:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, FACTORS)) @ rng.normal(size=(FACTORS, columns)) + 0.5 * rng.normal(size=(rows, columns))
    holes = np.where(rng.random(x.shape) < MISSING, np.nan, x)
    few = pv.load_data(x[:FITTED], valid=0.0, test=0.0)
    mixture, factors = (
        pv.fit(model, few, method=pv.EM(max_iterations=5), device="cpu", progress=None)
        for model in (pv.GMM(components=COMPONENTS), pv.FactorAnalysis(latent_dim=FACTORS))
    )
    their_mixture = GaussianMixture(COMPONENTS, max_iter=5, random_state=0).fit(x[:FITTED])
    their_factors = FactorAnalysis(FACTORS, max_iter=5).fit(x[:FITTED])
    imputer = IterativeImputer(max_iter=1, skip_complete=True)
    return {
        "score_samples of GMM": (lambda: mixture.score_samples(x), lambda: their_mixture.score_samples(x)),
        "predict of GMM": (lambda: mixture.predict(x), lambda: their_mixture.predict(x)),
        "score_samples of FA": (lambda: factors.score_samples(x), lambda: their_factors.score_samples(x)),
        "impute of GMM": (lambda: mixture.impute(holes), lambda: imputer.fit_transform(holes)),
        "impute of FA": (lambda: factors.impute(holes), lambda: imputer.fit_transform(holes)),
    }


def _seconds(ask: Callable[[], Any]) -> float:
    began = time.perf_counter()
    ask()
    return time.perf_counter() - began
