"""How long choosing takes beside as many single fits: ten numbers of components, and of factors, of one csv file.

Each single fit is what a user would write for one number, so it reads the file as well. Both sides have one thread a process;
``select`` has as many processes as ``jobs``, whose start counts. Seconds are the wall clock's.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ppl_vae as pv

__all__ = ["speed"]

NUMBERS = range(1, 11)
TASKS: dict[str, tuple[pv.Model, str]] = {
    "GMM components": (pv.GMM(), "components"),
    "FA factors": (pv.FactorAnalysis(), "latent_dim"),
}


def table(rows: int, columns: int) -> np.ndarray:
    """Five clouds of the same shape, so that some of the numbers are too few and some too many."""
    draw = np.random.default_rng(0)
    centres, shape = 3 * draw.normal(size=(5, columns)), draw.normal(size=(columns, columns)) / columns**0.5
    return centres[np.arange(rows) % 5] + draw.normal(size=(rows, columns)) @ shape + 0.3 * draw.normal(size=(rows, columns))


def speed(rows: int, columns: int, jobs: int) -> dict[str, Any]:
    """Of each task the seconds of ten fits and of ``select``, their ratio, and by how much a candidate ended below its fit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _speed(rows, columns, jobs)
    finally:
        torch.set_num_threads(before)


def _speed(rows: int, columns: int, jobs: int) -> dict[str, Any]:
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore", pv.FitWarning)
        path = Path(folder) / "table.csv"
        names = ",".join(f"v{place}" for place in range(columns))
        np.savetxt(path, table(rows, columns), delimiter=",", header=names, comments="", fmt="%.6g")
        found = {name: _compared(model, field, str(path), jobs) for name, (model, field) in TASKS.items()}
    return {"size": [rows, columns], "jobs": jobs, "tasks": found}


def _compared(model: pv.Model, field: str, path: str, jobs: int) -> dict[str, Any]:
    singles, fits = _timed(lambda: [_single(model, field, number, path) for number in NUMBERS])
    together, found = _timed(
        lambda: pv.select(model, path, method=pv.EM(), jobs=jobs, device="cpu", field=field, values=NUMBERS)
    )
    reached = [fit.history[-1]["log_likelihood"] for fit in fits]
    # One that ended below a smaller one was fitted once more.
    less = [one - row["train_log_likelihood"] for one, row in zip(reached, found.rows, strict=True)]
    return {"ten_fits": singles, "select": together, "ratio": together / singles, "most_behind": max(less)}


def _single(model: pv.Model, field: str, number: int, path: str) -> pv.Fit:
    return pv.fit(type(model)(**{field: number}), path, method=pv.EM(), device="cpu", progress=lambda row: None)


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--columns", type=int, default=16)
    parser.add_argument("--jobs", type=int, default=2, help="processes of select")
    options = parser.parse_args()
    print(json.dumps(speed(options.rows, options.columns, options.jobs)))


if __name__ == "__main__":
    main()
