"""One side of the mixture benchmark in a process of its own, so that its peak memory is its own.

``python -m benchmarks.em_mixture ours|scikit-learn FILE ITERATIONS`` prints one JSON object. ``FILE`` holds the rows ``x``,
float32, and the common start: ``weights``, ``locs``, ``covariances``. Libraries are imported on the side that needs them only.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

RIDGE = 1e-6  # scikit-learn's default reg_covar, given to both
Arrays = dict[str, np.ndarray]


def ours(arrays: Arrays, iterations: int) -> tuple[list[float], float]:
    """Times at which the M-steps ended, and the log-likelihood of the state before the last one."""
    import torch

    from ppl_vae.exact import covariances, mixture

    x, weights, locs, spread = (torch.from_numpy(arrays[name]) for name in ("x", "weights", "locs", "covariances"))
    state = mixture.Parameters(weights, locs, spread)
    full, ends, value = covariances.covariance("full"), [], torch.tensor(0.0)
    for _ in range(iterations):
        state, value = mixture.em_step(state, x, full, floor=0.0, ridge=RIDGE)
        ends.append(time.perf_counter())
    return ends, value.item()


def scikit_learn(arrays: Arrays, iterations: int) -> tuple[list[float], float]:
    """The same of scikit-learn, its M-step wrapped by a clock."""
    from sklearn.mixture import GaussianMixture

    x = arrays["x"]
    start = {
        "weights_init": arrays["weights"].astype(x.dtype),
        "means_init": arrays["locs"].astype(x.dtype),
        "precisions_init": np.linalg.inv(arrays["covariances"]).astype(x.dtype),
    }
    mixture = GaussianMixture(len(arrays["weights"]), max_iter=iterations, tol=0.0, reg_covar=RIDGE, random_state=0, **start)
    step, ends = mixture._m_step, []

    def timed(*arguments: Any, **options: Any) -> None:
        step(*arguments, **options)
        ends.append(time.perf_counter())

    mixture._m_step = timed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it did not converge, and was not asked to
        mixture.fit(x)
    return ends, float(mixture.lower_bound_)


def resident(field: str) -> float:
    """Memory of this process in MiB: ``VmRSS`` now, ``VmHWM`` the most since the counter was reset."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) / 1024


def main() -> None:
    side, path, iterations = sys.argv[1], sys.argv[2], int(sys.argv[3])
    function = {"ours": ours, "scikit-learn": scikit_learn}[side]
    if side == "ours":
        import ppl_vae.exact  # noqa: F401
    else:
        import sklearn.mixture  # noqa: F401
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    baseline = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM to what is resident now
    ends, value = function(arrays, iterations)
    peak = resident("VmHWM")
    # The first step also pays for threads and buffers, so it is left out.
    seconds = median(after - before for before, after in itertools.pairwise(ends))
    result = {
        "seconds_per_iteration": seconds,
        "log_likelihood": value,
        "baseline_mib": baseline,
        "peak_mib": peak,
        "above_baseline_mib": peak - baseline,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
