"""FA, PPCA and mixtures by EM on ordinary tables against scikit-learn: fits refused, shortfalls, the better optimum.

Real tables that scikit-learn and statsmodels carry, raw, standardized, and the raw ones times 1e-3 and 1e3. Each side has one
start a seed and its own defaults, but that scikit-learn's runs go on until its log-likelihood changes by less than 1e-6
(mixtures) or 1e-8 (factors), and that its ``reg_covar``, an absolute variance of 1e-6, is scaled with the table. Densities are
by scipy, in nats per datum, at the parameters that a user gets.

* ``refused``: fits that ended in an error.
* ``short``: fits of ours that lie more than 1e-3 nats below the optimum that they are at: scikit-learn's EM goes on from them,
  what it finds is put on our floor, and our EM goes on from there.
* ``at_least_as_good``: the share of fits of ours that are at least as good, within 1e-3 nats, as scikit-learn's of the same
  seed, which is put on our floor first, EM going on from there: without a floor the likelihood has no limit.
* ``off_the_floor``: the same share of those fits where neither side stands on the floor, whose height decides else.
* ``speed``: what is asked of 100,000 rows, see :mod:`benchmarks.table_speed`; ``--only-speed`` leaves the fits out.
* ``selection``: ten numbers of components and factors by ``select`` beside ten fits, see :mod:`benchmarks.table_selection`.
* ``difference``: ours minus scikit-learn's, each on its own floor: least, median, largest.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, NamedTuple

import numpy as np
import scipy
import sklearn
import statsmodels
import torch

from benchmarks import series, table_peers, table_selection, table_sources, table_speed
from benchmarks.table_peers import COVARIANCES, Compared

WITHIN = 1e-3  # nats per datum
FACTORS = 2
COMPONENTS = 3
MODELS = ("FA", "PPCA", *(f"GMM {kind}" for kind in COVARIANCES))
Row = dict[str, Any]


class Task(NamedTuple):
    """One table under one scaling, with one model and all seeds."""

    table: str
    scaling: str
    model: str
    seeds: int


def compare(task: Task) -> Row:
    """A row of the result: what the fits of a task came to."""
    torch.set_num_threads(1)
    x = table_sources.scaled(table_sources.table(task.table), task.scaling)
    fits = list(_fits(task, x))
    return {"table": task.table, "size": list(x.shape), "scaling": task.scaling, "model": task.model, **summary(fits)}


def _fits(task: Task, x: np.ndarray) -> Iterable[Compared]:
    """Of each seed; FA and PPCA know none."""
    if task.model == "FA":
        yield table_peers.factor_analysis(x, FACTORS)
    elif task.model == "PPCA":
        yield table_peers.ppca(x, FACTORS)
    else:
        kind, unit = task.model.removeprefix("GMM "), table_sources.SCALINGS[task.scaling]
        for seed in range(task.seeds):
            yield table_peers.gmm(x, kind, COMPONENTS, seed, unit)


def summary(fits: list[Compared]) -> Row:
    """What is counted of fits."""
    differences = [fit.ours - fit.theirs for fit in fits if np.isfinite(fit.ours - fit.theirs)]
    good = [bool(fit.raised) or fit.ours >= fit.bounded - WITHIN for fit in fits]
    free = [better for better, fit in zip(good, fits, strict=True) if not fit.lifted]
    return {
        "fits": len(fits),
        "refused": sum(bool(fit.refused) for fit in fits),
        "scikit_learn_raised": sum(bool(fit.raised) for fit in fits),
        "short": sum(not fit.refused and not fit.nearby - fit.ours <= WITHIN for fit in fits),
        "at_least_as_good": sum(good),
        "off_the_floor": len(free),
        "at_least_as_good_off_the_floor": sum(free),
        "difference": [float(value) for value in np.quantile(differences, [0, 0.5, 1])] if differences else None,
        "reasons": sorted({fit.refused for fit in fits if fit.refused}),
        "scikit_learn_reasons": sorted({fit.raised for fit in fits if fit.raised}),
    }


def total(rows: list[Row]) -> Row:
    """Of each model over all tables and scalings."""
    counted = ("fits", "refused", "scikit_learn_raised", "short", "at_least_as_good")
    free = ("off_the_floor", "at_least_as_good_off_the_floor")
    found = {}
    for model in dict.fromkeys(row["model"] for row in rows):
        of_model = [row for row in rows if row["model"] == model]
        sums = {name: sum(row[name] for row in of_model) for name in (*counted, *free)}
        shares = {
            "share_at_least_as_good": sums["at_least_as_good"] / sums["fits"],
            "share_off_the_floor": sums["at_least_as_good_off_the_floor"] / max(1, sums["off_the_floor"]),
        }
        found[model] = sums | shares
    return found


def surroundings(seconds: float) -> Row:
    """What the numbers depend on."""
    versions = {module.__name__: module.__version__ for module in (torch, sklearn, scipy, statsmodels, np)}
    return {"python": platform.python_version(), **versions, "seconds": round(seconds)}


def show(results: Row) -> None:
    """The totals and what is not as wanted, in Markdown."""
    print(", ".join(f"{name} {value}" for name, value in results["surroundings"].items()))
    print("\n| model | fits | refused | scikit-learn raised | short | at least as good | of those off the floor |")
    print("|---|---|---|---|---|---|---|")
    for model, row in results["models"].items():
        counts = " | ".join(str(row[name]) for name in ("fits", "refused", "scikit_learn_raised", "short"))
        off = f"{row['share_off_the_floor']:.3f} of {row['off_the_floor']}"
        print(f"| {model} | {counts} | {row['share_at_least_as_good']:.3f} | {off} |")
    print("\n| question | ours, s | scikit-learn, s | ratio |")
    print("|---|---|---|---|")
    for row in results["speed"]:
        print(f"| {row['question']} | {row['ours']:.3f} | {row['scikit_learn']:.3f} | {row['ratio']:.2f} |")
    for name, row in results["selection"].get("tasks", {}).items():
        print(f"\n{name}: select {row['select']:.2f} s, ten fits {row['ten_fits']:.2f} s, ratio {row['ratio']:.2f}")
    for row in results["rows"]:
        if row["refused"] or row["short"] or row["at_least_as_good"] < row["fits"] / 2:
            print(json.dumps(row))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    series.add_json(parser)
    parser.add_argument("--tables", nargs="+", default=table_sources.NAMES, choices=table_sources.NAMES, metavar="TABLE")
    parser.add_argument("--scalings", nargs="+", default=tuple(table_sources.SCALINGS), choices=table_sources.SCALINGS)
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--seeds", type=int, default=10, help="0 up to this number, for mixtures")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--rows", type=int, default=100_000, help="of the questions whose speed is measured; 0 for none")
    parser.add_argument("--columns", type=int, default=64, help="of these rows")
    parser.add_argument("--repeats", type=int, default=7, help="of each question")
    parser.add_argument("--only-speed", action="store_true", help="no fits")
    options = parser.parse_args()
    began = time.perf_counter()
    speed = table_speed.speeds(options.rows, options.columns, options.repeats) if options.rows else []
    selection = table_selection.speed(options.rows // 5, 16, jobs=2) if options.rows else {}
    chosen = [] if options.only_speed else options.tables
    tasks = [Task(t, s, m, options.seeds) for t in chosen for s in options.scalings for m in options.models]
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        rows = []
        for row in pool.map(compare, tasks):
            rows.append(row)
            print(f"{len(rows)} of {len(tasks)}: {row['table']}, {row['scaling']}, {row['model']}", file=sys.stderr)
    told = {"surroundings": surroundings(time.perf_counter() - began), "models": total(rows), "speed": speed}
    results = {**told, "selection": selection, "rows": rows}
    if options.json:
        series.tell(results, options)
    else:
        show(results)


if __name__ == "__main__":
    main()
