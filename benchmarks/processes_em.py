"""EM by several processes: rows a second of one process and of two, and what messages cost for up to 1,000 of them.

    python -m benchmarks.processes_em                     two processes of one thread, against one of one and one of two threads
    python -m benchmarks.processes_em --simulate          seconds of messages by a cost model

Each side reads the same memory-mapped float32 rows. Factor analysis is its one pass over the rows, the start included; the
mixture is an iteration, the mean of several. Beside the clock's seconds stand those of the processor in the busiest process,
which other work on the machine moves less.

The model is that of a ring all-reduce (Thakur, Rabenseifner and Gropp 2005, "Optimization of collective communication
operations in MPICH"): of B bytes over n processes 2 (n - 1) / n B / bandwidth + 2 (n - 1) latency. gloo and NCCL choose among
algorithms, of which those for small messages have a latency that grows with log n: it is an upper bound for these.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import series

SIDES = ((1, 1), (1, 2), (2, 1))  # processes, threads of each
COUNTS = (2, 8, 64, 256, 1000)


def ring_seconds(count: int, size: float, *, bandwidth: float, latency: float) -> float:
    """An all-reduce of ``size`` bytes over so many processes.

    Args:
        count: n, of processes.
        size: B, in bytes.
        bandwidth: of the slowest link, in bytes a second.
        latency: of a message, in seconds.
    """
    return 2 * (count - 1) / count * size / bandwidth + 2 * (count - 1) * latency


def moment_bytes(columns: int) -> int:
    """Of factor analysis and PPCA of complete rows, once a fit: their number, first and second moments."""
    return 8 * (1 + columns + columns**2)


def mixture_bytes(components: int, columns: int) -> int:
    """Of a mixture with full covariances, a pass: rows, log-likelihood, and the three moments of each component."""
    return 8 * (2 + components * (1 + columns + columns * (columns + 1) // 2))


def gradient_bytes(parameters: int) -> int:
    """Of SVI, a step: float32 gradients."""
    return 4 * parameters


MESSAGES = {
    "SVI, VAE 784-400-20, a step": gradient_bytes(652_824),
    "factor analysis of 784 columns, a fit": moment_bytes(784),
    "mixture of 200 full components of 64 columns, a pass": mixture_bytes(200, 64),
}


def simulate(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Milliseconds of each message by the number of processes, and how much of n-fold speed the mixture keeps."""
    link = {"bandwidth": options.bandwidth * 1e9 / 8, "latency": options.latency * 1e-6}
    found: list[dict[str, Any]] = []
    for name, size in MESSAGES.items():
        found.append({"message": name, "bytes": size} | {str(n): 1e3 * ring_seconds(n, size, **link) for n in COUNTS})
    work = options.of / options.rate
    message = MESSAGES["mixture of 200 full components of 64 columns, a pass"]
    kept = {str(n): work / (work + n * ring_seconds(n, message, **link)) for n in COUNTS}
    return [*found, {"message": f"share of n-fold speed kept, {options.of:.0e} rows", "bytes": message} | kept]


def work(path: str, options: argparse.Namespace) -> dict[str, Any]:
    """What one side does in each of its processes: seconds, and those of the busiest processor."""
    import torch

    import ppl_vae as pv
    from ppl_vae.data.matrices import Matrices
    from ppl_vae.program.processes import joined

    data = pv.load_data(path, valid=0.0, test=0.0, stream=64)
    found = {}
    with joined() as processes:

        def measured(function: Any) -> tuple[Any, dict[str, float]]:
            processes.sum_([torch.zeros(1)])  # all begin together
            began, used = time.perf_counter(), time.process_time()
            result = function()
            busy = torch.zeros(processes.count)
            busy[processes.rank] = time.process_time() - used
            processes.sum_([busy])
            return result, {"seconds": time.perf_counter() - began, "busiest": float(busy.max())}

        guide = pv.ExactPosterior()
        factors = pv.build(pv.FactorAnalysis(latent_dim=8), guide, data.spec).can.iterate
        _, found["factor analysis"] = measured(lambda: factors.em(Matrices(data.train)))
        mixture = pv.build(pv.GMM(components=options.components), guide, data.spec).can.iterate
        problem = mixture.em(Matrices(data.train))

        def iterate() -> None:
            state = problem.start
            for _ in range(options.iterations):
                state, _ = problem.step(state)

        _, of_all = measured(iterate)
        found["mixture"] = {name: seconds / options.iterations for name, seconds in of_all.items()}
        return found if processes.first else {}


def side(path: str, count: int, threads: int, options: argparse.Namespace) -> dict[str, Any]:
    """The numbers of so many processes of so many threads."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)] if count > 1 else []
    own = [f"--{name}={vars(options)[name]}" for name in ("components", "iterations")]
    command = [sys.executable, *launch, "-m", "benchmarks.processes_em", f"--work={path}", *own]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    ran = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(next(line for line in ran.stdout.splitlines() if line.startswith("{")))


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """All sides, one after another."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "rows.npy")
        rng = np.random.default_rng(0)
        centers = rng.integers(options.components, size=options.rows)[:, None]
        x = np.sin(centers + np.arange(options.columns)) + 0.3 * rng.standard_normal((options.rows, options.columns))
        np.save(path, x.astype(np.float32))
        for count, threads in SIDES:
            for model, times in side(path, count, threads, options).items():
                rates = {f"rows/s by {name}": options.rows / seconds for name, seconds in times.items()}
                found.append({"model": model, "processes": count, "threads": threads, **times, **rates})
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """As Markdown."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names)]
    lines += [[f"{row[name]:,.4g}" if isinstance(row[name], float) else str(row[name]) for name in names] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="EM by several processes")
    parser.add_argument("--simulate", action="store_true", help="messages by the cost model, nothing is measured")
    parser.add_argument("--bandwidth", type=float, default=10.0, help="of a link, Gbit/s")
    parser.add_argument("--latency", type=float, default=25.0, help="of a message, microseconds")
    parser.add_argument("--of", type=float, default=1e7, help="rows of the mixture whose speed is simulated")
    parser.add_argument("--rate", type=float, default=4e4, help="rows a second of one process there (benchmarks.em)")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--columns", type=int, default=64)
    parser.add_argument("--components", type=int, default=20)
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    series.add_json(parser)
    options = parser.parse_args()
    if options.work is not None:
        if found := work(options.work, options):
            print(json.dumps(found))
        return
    rows = simulate(options) if options.simulate else measure(options)
    if options.json:
        series.tell(rows, options)
    else:
        print(table(rows))


if __name__ == "__main__":
    main()
