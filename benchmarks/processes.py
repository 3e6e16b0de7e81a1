"""Rows per second of a fit by two processes of one thread each, beside one process of one thread and one of two.

SVI of the size ``wide`` of `benchmarks.svi`, its steps recorded; the pass of factor analysis over its rows, and passes of EM
for a mixture. Each setting is a command of its own, with torchrun where there are several processes; they take turns, so that
a ratio is the median over rounds of two numbers taken soon after one another. A number is the median over the epochs of a fit
but the first, or over passes. Give the command two cores that nobody else works on.

    python -m benchmarks.processes --json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from statistics import median
from typing import Any

from benchmarks import series

SETTINGS = {  # processes, threads of each
    "one process, one thread": (1, 1),
    "one process, two threads": (1, 2),
    "two processes, one thread each": (2, 1),
}


def svi(size: str, epochs: int) -> float:
    """Rows per second of SVI."""
    import ppl_vae as pv
    from benchmarks.peers.ours import declared, loaded
    from benchmarks.peers.task import LEARNING_RATE, SIZES, rows
    from ppl_vae.inference.training import step

    step.WORTH_RECORDING, step.WORTH_COMPILING = 1, sys.maxsize
    of = SIZES[size]
    model, guide = declared(of)
    method = pv.SVI(epochs=epochs, batch_size=of.batch, learning_rate=LEARNING_RATE, schedule="constant")
    fit = pv.fit(model, loaded(of, rows(of)), guide=guide, method=method, device="cpu", progress=lambda row: None)
    ends = [row["seconds"] for row in fit.history]
    return of.rows / median(after - before for before, after in pairwise(ends))


def factors(size: str, epochs: int) -> float:
    """Rows per second of the moments of factor analysis and the start that is made of them."""
    import ppl_vae as pv

    model, rows = _iterated(size, pv.FactorAnalysis(latent_dim=2))
    return rows.number / _median_seconds(lambda: model.em(rows), epochs)


def mixture(size: str, epochs: int) -> float:
    """Rows per second of EM for a mixture."""
    import ppl_vae as pv

    model, rows = _iterated(size, pv.GMM(components=2 if size == "toy" else 20))
    problem = model.em(rows)
    return rows.number / _median_seconds(lambda: problem.step(problem.start), epochs)


def _iterated(size: str, model: Any) -> tuple[Any, Any]:
    """What offers EM, and the rows, the same in every process."""
    import torch

    import ppl_vae as pv
    from ppl_vae.data.matrices import Matrices

    number, columns = (2_000, 8) if size == "toy" else (200_000, 64)
    x = torch.randn(number, columns, generator=torch.Generator().manual_seed(0))
    x[: number // 2] += torch.arange(columns) % 3
    data = pv.load_data(x, valid=0.0, test=0.0)
    return pv.build(model, pv.ExactPosterior(), data.spec).can.iterate, Matrices(data.train)


def _median_seconds(work: Callable[[], Any], times: int) -> float:
    """Of one of several calls, which all processes make together."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return median(found)


WORKS: Mapping[str, Callable[[str, int], float]] = {"svi": svi, "factors": factors, "mixture": mixture}


def measure(works: list[str], size: str, epochs: int, rounds: int) -> dict[str, Any]:
    """Of each work rows per second in each setting, and how many times those of one thread they are."""
    load = os.getloadavg()[0]
    found: dict[str, Any] = {"load before": round(load, 1), "size": size}
    for work in works:
        speeds: dict[str, list[float]] = {name: [] for name in SETTINGS}
        for name in [*SETTINGS] * rounds:
            speeds[name].append(_timed(work, size, epochs, *SETTINGS[name]))
        alone = next(iter(speeds.values()))
        found[work] = {
            "rows per second": {name: median(each) for name, each in speeds.items()},
            "ratio": {name: median(ours / one for ours, one in zip(each, alone, strict=True)) for name, each in speeds.items()},
        }
    return found


def _timed(work: str, size: str, epochs: int, processes: int, threads: int) -> float:
    """One fit in processes of its own."""
    many = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"] if processes > 1 else []
    what = ["benchmarks.processes", "--worker", work, "--size", size, "--epochs", str(epochs), "--threads", str(threads)]
    surroundings = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    ran = subprocess.run([sys.executable, "-m", *many, *what], env=surroundings, stdout=subprocess.PIPE, text=True, check=True)
    return float(json.loads(ran.stdout))


def _work(options: argparse.Namespace) -> None:
    """The part of one process."""
    import torch

    from ppl_vae.program.processes import joined

    torch.set_num_threads(options.threads)
    with joined() as processes:
        speed = WORKS[options.worker](options.size, options.epochs)
        if processes.first:
            print(speed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--works", nargs="+", choices=WORKS, default=[*WORKS])
    parser.add_argument("--size", default="wide", help="of benchmarks.svi")
    parser.add_argument("--epochs", type=int, default=8, help="of a fit")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--worker", choices=WORKS, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    series.add_json(parser)
    options = parser.parse_args()
    if options.worker:
        return _work(options)
    found = measure(options.works, options.size, options.epochs, options.rounds)
    if options.json:
        return series.tell(found, options)
    for work in options.works:
        for name, speed in found[work]["rows per second"].items():
            print(f"{work}, {name}: {speed:.0f} rows per second, {found[work]['ratio'][name]:.2f} times one thread")
    return None


if __name__ == "__main__":
    main()
