"""What the messages of several processes cost, by a model: seconds for up to 1,000 of them, nothing is measured.

    python -m benchmarks.processes_cost --bandwidth 10 --latency 25

The model is that of a ring all-reduce (Thakur, Rabenseifner and Gropp 2005, "Optimization of collective communication
operations in MPICH"): of B bytes over n processes 2 (n - 1) / n B / bandwidth + 2 (n - 1) latency. Libraries choose among
algorithms, of which those for small messages have a latency that grows with log n: it is an upper bound for these.
"""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks import series

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


MIXTURE = "mixture of 200 full components of 64 columns, a pass"
MESSAGES = {
    "SVI, VAE 784-400-20, a step": gradient_bytes(652_824),
    "factor analysis of 784 columns, a fit": moment_bytes(784),
    MIXTURE: mixture_bytes(200, 64),
}


def simulated(*, bandwidth: float, latency: float, rows: float, rate: float) -> list[dict[str, Any]]:
    """Milliseconds of each message by the number of processes, and how much of n-fold speed the mixture keeps.

    Args:
        bandwidth: in bytes a second.
        latency: in seconds.
        rows: of the mixture.
        rate: rows a second of one process.
    """
    link = {"bandwidth": bandwidth, "latency": latency}
    found: list[dict[str, Any]] = []
    for name, size in MESSAGES.items():
        found.append({"message": name, "bytes": size} | {str(n): 1e3 * ring_seconds(n, size, **link) for n in COUNTS})
    size, work = MESSAGES[MIXTURE], rows / rate
    kept = {str(n): work / (work + n * ring_seconds(n, size, **link)) for n in COUNTS}
    return [*found, {"message": f"share of n-fold speed it keeps, {rows:.0e} rows", "bytes": size} | kept]


def table(rows: list[dict[str, Any]]) -> str:
    """As Markdown."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names)]
    lines += [[f"{row[name]:,.4g}" if isinstance(row[name], float) else str(row[name]) for name in names] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bandwidth", type=float, default=10.0, help="of a link, Gbit/s")
    parser.add_argument("--latency", type=float, default=25.0, help="of a message, microseconds")
    parser.add_argument("--rows", type=float, default=1e7, help="of the mixture")
    parser.add_argument("--rate", type=float, default=4e4, help="rows a second of one process there, see benchmarks.em")
    series.add_json(parser)
    options = parser.parse_args()
    link = {"bandwidth": options.bandwidth * 1e9 / 8, "latency": options.latency * 1e-6}
    rows = simulated(**link, rows=options.rows, rate=options.rate)
    if options.json:
        series.tell(rows, options)
    else:
        print(table(rows))


if __name__ == "__main__":
    main()
