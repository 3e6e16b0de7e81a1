"""Expectation maximization against scikit-learn, as ratios measured in one run: ours, scikit-learn, ours; medians of ours.

Factor analysis: MNIST on [0, 1] plus Normal(0, 0.05^2) noise of seed 0, float32, 20 factors. Ours is the whole of ``pv.fit``
with ``pv.EM()``, the pass over the data for their moments included; the clock of "to its log-likelihood" stops when the
exact log-likelihood comes within 1e-3 nats per datum of scikit-learn's final one.

Mixture: 8x8 patches of the Kodak photographs on [0, 1], each patch's mean removed, plus Normal(0, 0.01^2) noise of seed 0,
float32; full covariances, one start for both (random patches, equal weights, the pooled covariance); each side in a process
of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import sklearn
import torch
from sklearn.decomposition import FactorAnalysis
from threadpoolctl import threadpool_info

import ppl_vae as pv
from benchmarks import series

WITHIN = 1e-3  # nats per datum
Row = dict[str, Any]


def digits(rows: int) -> np.ndarray:
    """The first rows of MNIST's training images with noise, so that no pixel is constant, ``(rows, 784)``."""
    x = pv.load_data("mnist", valid=0.0).train.x[:rows].flatten(1).numpy() / np.float32(255)
    noise = np.random.default_rng(0).standard_normal(x.shape, dtype=np.float32)
    return x + np.float32(0.05) * noise


def patches(path: Path, rows: int, components: int) -> None:
    """Write patches ``x (rows, 64)`` and a start to a file."""
    rng = np.random.default_rng(0)
    with np.load(Path(os.environ["PPL_VAE_DATA"]) / "images" / "kodak24_gray.npz") as file:
        windows = [np.lib.stride_tricks.sliding_window_view(file[name], (8, 8)) for name in file.files]
    picks = np.array_split(rng.permutation(rows), len(windows))
    parts = [
        w[rng.integers(w.shape[0], size=len(p)), rng.integers(w.shape[1], size=len(p))]
        for w, p in zip(windows, picks, strict=True)
    ]
    x = rng.permutation(np.concatenate(parts).reshape(rows, 64)).astype(np.float32) / 255
    x += 0.01 * rng.standard_normal(x.shape, dtype=np.float32) - x.mean(1, keepdims=True)
    pooled = np.cov(x.T.astype(np.float64))
    start = {
        "weights": np.full(components, 1 / components),
        "locs": x[rng.choice(rows, components, replace=False)].astype(np.float64),
        "covariances": np.tile(pooled, (components, 1, 1)),
    }
    np.savez(path, x=x, **start)


def fit_ours(x: np.ndarray, factors: int) -> list[tuple[float, float]]:
    """Seconds and log-likelihood after each iteration; the last entry is the end of the fit."""
    data = pv.load_data(x, valid=0.0, test=0.0)
    path: list[tuple[float, float]] = []
    began = time.perf_counter()
    pv.fit(
        pv.FactorAnalysis(latent_dim=factors),
        data,
        method=pv.EM(),
        device="cpu",
        progress=lambda row: path.append((time.perf_counter() - began, float(row["log_likelihood"]))),
    )
    return [*path, (time.perf_counter() - began, path[-1][1])]


def factor_analysis(rows: int, factors: int, svd_method: str) -> Row:
    """One row of the table: ours before and after scikit-learn."""
    x = digits(rows)
    ours = [fit_ours(x, factors)]
    began = time.perf_counter()
    peer = FactorAnalysis(factors, svd_method=svd_method, random_state=0, max_iter=1000).fit(x)
    seconds = time.perf_counter() - began
    ours.append(fit_ours(x, factors))
    target = float(peer.score(x))
    reached = [next((t for t, value in path if value >= target - WITHIN), float("nan")) for path in ours]
    whole = [path[-1][0] for path in ours]
    return {
        "size": f"{rows} x {x.shape[1]}, {factors} factors",
        "svd_method": svd_method,
        "scikit_learn_log_likelihood": target,
        "our_log_likelihood": ours[0][-1][1],
        "scikit_learn_seconds": seconds,
        "scikit_learn_iterations": int(peer.n_iter_),
        "our_seconds_to_its_log_likelihood": reached,
        "our_seconds_to_convergence": whole,
        "ratio_to_its_log_likelihood": seconds / median(reached),
        "ratio_to_convergence": seconds / median(whole),
    }


def mixture(rows: int, components: int, iterations: int) -> Row:
    """Seconds per iteration and peak memory of each side."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "patches.npz"
        patches(path, rows, components)
        sides = [(side, _one_side(side, path, iterations)) for side in ("ours", "scikit-learn", "ours")]
    ours, peer = [result for side, result in sides if side == "ours"], sides[1][1]
    mean = {name: median(result[name] for result in ours) for name in peer}
    return {
        "size": f"{rows} x 64, {components} full components",
        "ours": mean,
        "scikit_learn": peer,
        "ratio_of_seconds": peer["seconds_per_iteration"] / mean["seconds_per_iteration"],
        "ratio_of_memory": peer["above_baseline_mib"] / mean["above_baseline_mib"],
        "ratio_of_absolute_memory": peer["peak_mib"] / mean["peak_mib"],
    }


def _one_side(side: str, path: Path, iterations: int) -> Row:
    command = [sys.executable, "-m", "benchmarks.em_mixture", side, str(path), str(iterations)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1]).stdout)


def surroundings() -> Row:
    """What the numbers depend on."""
    pools = sorted({f"{pool['internal_api']} {pool['num_threads']}" for pool in threadpool_info()})
    versions = {"torch": torch.__version__, "scikit-learn": sklearn.__version__, "numpy": np.__version__}
    load = f"{os.getloadavg()[0]:.1f}"
    return {
        "python": platform.python_version(),
        **versions,
        "torch threads": torch.get_num_threads(),
        "pools": pools,
        "load": load,
    }


def show(results: Row) -> None:
    """Both tables, in Markdown."""
    print(", ".join(f"{name} {value}" for name, value in results["surroundings"].items()))
    print(
        "\n| factor analysis | scikit-learn: nats/datum, s | ours: nats/datum, s to converge | s to its nats - 0.001 | ratio |"
    )
    print("|---|---|---|---|---|")
    for row in results["factor_analysis"]:
        whole, reached = (median(row[f"our_seconds_to_{name}"]) for name in ("convergence", "its_log_likelihood"))
        print(
            f"| {row['size']}, {row['svd_method']} ({row['scikit_learn_iterations']} it) | "
            f"{row['scikit_learn_log_likelihood']:.4f}, {row['scikit_learn_seconds']:.1f} | "
            f"{row['our_log_likelihood']:.4f}, {whole:.2f} | {reached:.2f} | "
            f"{row['ratio_to_its_log_likelihood']:.1f}x ({row['ratio_to_convergence']:.1f}x to converge) |"
        )
    row = results["mixture"]
    print(
        f"\n| mixture, {row['size']} | s/iteration | peak MiB above the data | peak MiB | nats/datum |\n|---|---|---|---|---|"
    )
    for name in ("scikit_learn", "ours"):
        side = row[name]
        print(
            f"| {name} | {side['seconds_per_iteration']:.2f} | {side['above_baseline_mib']:.0f} | {side['peak_mib']:.0f} | "
            f"{side['log_likelihood']:.4f} |"
        )
    print(
        f"| ratio | {row['ratio_of_seconds']:.2f}x | {row['ratio_of_memory']:.1f}x | {row['ratio_of_absolute_memory']:.1f}x | |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    series.add_json(parser)
    parser.add_argument("--rows", type=int, nargs=2, default=(10_000, 60_000), help="of MNIST, for lapack and for randomized")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it works")
    options = parser.parse_args()
    if not (Path(os.environ.get("PPL_VAE_DATA", "")) / "images" / "kodak24_gray.npz").exists():
        sys.exit("benchmarks.em: set PPL_VAE_DATA to the folder with MNIST/raw and images/kodak24_gray.npz")
    lapack, randomized = (200, 400) if options.quick else options.rows
    factors, patch_rows, components = (3, 5000, 10) if options.quick else (20, 100_000, 200)
    results: Row = {"surroundings": surroundings(), "factor_analysis": []}
    for rows, method in ((lapack, "lapack"), (randomized, "randomized")):
        results["factor_analysis"].append(factor_analysis(rows, factors, method))
        print(json.dumps(results["factor_analysis"][-1]), file=sys.stderr)  # a run of many minutes may be stopped
    results["mixture"] = mixture(patch_rows, components, iterations=4)
    if options.json:
        series.tell(results, options)
    else:
        show(results)


if __name__ == "__main__":
    main()
