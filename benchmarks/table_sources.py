"""Real tables that installed packages carry, as matrices of numbers without missing entries, constant or repeated columns."""

from __future__ import annotations

import importlib

import numpy as np
import sklearn.datasets

__all__ = ["NAMES", "SCALINGS", "scaled", "table"]

ROWS = 300  # of larger tables, drawn by a fixed seed: what is compared is the optimum, not the speed
SKLEARN = ("iris", "wine", "breast_cancer", "diabetes", "linnerud", "digits")
STATSMODELS = (
    *("anes96", "ccard", "committee", "copper", "cpunish", "danish_data", "elnino", "fair", "grunfeld", "heart"),
    *("interest_inflation", "longley", "macrodata", "modechoice", "scotland", "spector", "stackloss", "star98", "statecrime"),
)
NAMES = (*SKLEARN, *STATSMODELS)
SCALINGS = {"raw": 1.0, "standardized": 1.0, "times 1e-3": 1e-3, "times 1e3": 1e3}


def table(name: str) -> np.ndarray:
    """Rows of a table, ``(N, D)``."""
    x = _sklearn(name) if name in SKLEARN else _statsmodels(name)
    if len(x) > ROWS:
        x = x[np.sort(np.random.default_rng(0).choice(len(x), ROWS, replace=False))]
    return x[:, x.std(0) > 0]


def scaled(x: np.ndarray, scaling: str) -> np.ndarray:
    """The table under one of :data:`SCALINGS`, rounded to float32 so that every side sees the same numbers."""
    x = (x - x.mean(0)) / x.std(0) if scaling == "standardized" else SCALINGS[scaling] * x
    return x.astype(np.float32).astype(np.float64)


def _sklearn(name: str) -> np.ndarray:
    found = getattr(sklearn.datasets, f"load_{name}")()
    return np.concatenate([found.data, found.target], 1) if name == "linnerud" else found.data


def _statsmodels(name: str) -> np.ndarray:
    module = importlib.import_module(f"statsmodels.datasets.{name}")
    return module.load_pandas().data.select_dtypes("number").to_numpy(np.float64)
