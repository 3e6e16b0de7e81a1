"""The Ising torus of 4 x 5 spins, J 0.3, h 0.1, and how long wider lattices take: `python -m benchmarks.exact_ising --json`.

log Z a site: exactly 0.823809 (all 2^20 configurations), by mean field at least 0.789588
"""

from __future__ import annotations

import argparse
from typing import Any

import torch

import ppl_vae as pv
from benchmarks import series
from benchmarks.exact_timing import timed

__all__ = ["measure"]


def measure(options: Any = None) -> dict[str, Any]:
    """Log Z a site, the mean field's bound on it, and seconds of the processor of sums and marginals.

    Args:
        options: of the command line; of ``rounds`` the repetitions, 3 if there are none.
    """
    rounds = int(vars(options).get("rounds", 3)) if options is not None else 3
    torus = pv.Ising(shape=(4, 5), coupling=0.3, field=0.1, torus=True)
    fit = pv.fit(torus, method=pv.CAVI(), progress=lambda row: None)
    grid = pv.Ising(shape=(10, 10), coupling=0.3, field=0.1)
    wide = pv.Ising(shape=(14, 14), coupling=0.3, field=0.1)
    return {
        "log_z_per_site": torus.log_partition() / torus.sites,
        "mean_field_per_site": fit.history[-1]["log_z_bound"] / torus.sites,
        "seconds": {
            "log_z_10x10": timed(grid.log_partition, rounds),
            "marginals_10x10": timed(grid.marginals, rounds),
            "log_z_14x14": timed(wide.log_partition, rounds),
            "100_exact_draws_10x10": timed(lambda: grid.sample(100), rounds),
            "mean_field_10x10": timed(grid.mean_field, rounds),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    series.add_json(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(options)
    if options.json:
        series.tell({"ising": found}, options)
        return
    for name, value in found.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
