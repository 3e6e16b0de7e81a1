"""One step of stochastic variational inference against peers: the same VAE, batches, optimizer and objective for all.

Encoder D-H-2K and decoder K-H-D with ReLU, q(z | x) normal, p(x | z) Bernoulli by its logits, one sample, closed-form KL, Adam
of 1e-3, a fresh shuffle every epoch, no validation. The size ``conv`` has convolutions of 4 x 4 and stride 2 in their place,
``iwae`` climbs the importance-weighted bound of 50 samples; both leave out the sides that would need other networks. The data
are independent binary values: uint8 for ours, float32 tensors for the others, as their users have them. ``benchmarks/peers``
holds one side a file.

Each side is a process of its own that is set up once; they take turns, ours, A, B, ..., ours, A, B, ..., one working while the
others sleep, so that a ratio is the median over rounds of two times that were taken within seconds of each other. A time is
that of an epoch by the number of its steps; two epochs of each go before and do not count. The first step is timed from the
call with the libraries imported and the rows in memory, without any compiler's cache; "again" is a second process with the
cache of the first. At the size ``toy`` all run on one thread, at others on as many as each library takes by itself.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import series
from benchmarks.peers import PEERS
from benchmarks.peers.side import Absent, Side
from benchmarks.peers.task import SIZES, Size

WARM_UP = 2  # epochs
AGREE = 0.01  # relative, between the losses of the sides after their last epoch
AGREE_EARLY = 0.1  # where few rows are learned by heart, each side at its pace: after the second
PLOTTED = ("ours", "torch", "numpyro", "floor")
Row = dict[str, Any]
Costs = dict[str, dict[str, list[tuple[int, float]]]]  # axis, peer, points


@contextlib.contextmanager
def sides(names: Sequence[str], size: Size, device: str, epochs: int, folder: Path) -> Iterator[tuple[dict[str, Side], Row]]:
    """Every side that can run, after its first epoch, and the reasons of the others."""
    with contextlib.ExitStack() as stack:
        running, absent = {}, {}
        for name in names:
            try:
                side = Side(name, size, device, epochs, folder)
                stack.callback(side.close)
                side.epoch()
                running[name] = side
            except Absent as reason:
                if PEERS[name].module == "ours":
                    sys.exit(f"benchmarks.svi: {PEERS[name].label} cannot run: {reason}")
                absent[name] = str(reason)
                print(f"{size.name}: {PEERS[name].label} is absent: {reason}", file=sys.stderr)
        yield running, absent


def measure(names: Sequence[str], size: Size, device: str, rounds: int, *, again: Sequence[str] = ()) -> Row:
    """One size: all sides in turns, some started ``again``. A side that is absent has ``None`` everywhere."""
    machine = {"Python": platform.python_version(), "CPUs": os.cpu_count(), "load before": round(os.getloadavg()[0], 1)}
    with tempfile.TemporaryDirectory() as folder:
        epochs = WARM_UP + rounds * size.epochs
        with sides(names, size, device, epochs, Path(folder)) as (running, absent):
            for _, side in ((turn, side) for turn in range(1, WARM_UP) for side in running.values()):
                side.epoch()
            times: dict[str, list[float]] = {name: [] for name in running}
            for _ in range(rounds):
                for name, side in running.items():
                    times[name].append(median(side.epoch() for _ in range(size.epochs)))
            last = {name: side.finish() for name, side in running.items()}
            compared, agree = (WARM_UP - 1, AGREE_EARLY) if size.case else (-1, AGREE)
            check({name: (last[name]["parameters"], side.epochs[compared]["nats"]) for name, side in running.items()}, agree)
            twice = {name: restarted(running[name], Path(folder)) for name in again if name in running}
    for told in last.values():
        machine |= told["surroundings"]
    return summary(names, size, running, times, twice) | {"absent": absent, "surroundings": machine}


def restarted(side: Side, folder: Path) -> float:
    """Seconds to the first step of a second process, which finds what the first compiled."""
    second = Side(side.name, side.size, side.device, 1, folder)
    second.epoch()
    second.close()
    return second.first_step(side.pace())


def check(done: dict[str, tuple[int, float]], agree: float = AGREE) -> None:
    """That all sides did the same work: parameters, and losses up to ``agree``, relative.

    Raises:
        RuntimeError: sides that trained networks of different sizes, or came to different losses after equally many steps.
    """
    exact = {name: result for name, result in done.items() if PEERS[name].exact}
    sizes = {parameters for parameters, _ in exact.values()}
    losses = [nats for _, nats in exact.values()]
    if len(sizes) > 1 or not all(math.isclose(nats, losses[0], rel_tol=agree) for nats in losses):
        raise RuntimeError(f"the sides did not do the same work; parameters and nats per datum: {exact}")


def summary(
    names: Sequence[str], size: Size, running: dict[str, Side], times: dict[str, list[float]], again: dict[str, float]
) -> Row:
    """Medians and ratios."""
    ms = {name: median(taken) for name, taken in times.items()}

    def ratios(of: str) -> Row:
        others = [name for name in names if name != of]
        return {name: ratio(times[of], times[name]) if of in ms and name in ms else None for name in others}

    def column(values: Row) -> Row:
        return {name: values.get(name) for name in names}

    nats = {name: side.epochs[-1]["nats"] for name, side in running.items()}
    return {
        "size": str(size),
        "ms_per_step": column(ms),
        "ratio": ratios("ours"),
        "ratio_bf16": ratios("ours_bf16"),
        "seconds_to_first_step": column({name: side.first_step(side.pace()) for name, side in running.items()}),
        "seconds_to_first_step_again": column(again),
        "peak_mib": column({name: side.epochs[-1]["peak_mib"] for name, side in running.items()}),
        "nats_per_datum": column({name: None if math.isnan(value) else value for name, value in nats.items()}),
    }


def ratio(ours: Sequence[float], peer: Sequence[float]) -> float:
    """The median over rounds of ours by the peer's."""
    return median(a / b for a, b in zip(ours, peer, strict=True))


def show(name: str, row: Row) -> None:
    """A size's table, in Markdown."""
    facts = ", ".join(f"{what} {value}" for what, value in row["surroundings"].items())
    print(f"\n{name}: {row['size']} ({facts})\n")
    columns = ("ms/step", "ours / it", "ours bf16 / it", "s to first step", "again", "peak MiB", "nats/datum")
    print(f"| {name} | {' | '.join(columns)} |\n|{'---|' * (1 + len(columns))}")
    formats = {
        "ms_per_step": ".3f",
        "ratio": ".2f",
        "ratio_bf16": ".2f",
        "seconds_to_first_step": ".2f",
        "seconds_to_first_step_again": ".2f",
        "peak_mib": ".0f",
        "nats_per_datum": ".2f",
    }
    for peer, ms in row["ms_per_step"].items():
        cells = (written(row[column].get(peer), form) for column, form in formats.items())
        print(f"| {PEERS[peer].label} | {'absent' if ms is None else ' | '.join(cells)} |")
    for peer, reason in row["absent"].items():
        print(f"\n{PEERS[peer].label} is absent: {reason}")


def written(value: float | None, form: str) -> str:
    """A cell."""
    return "" if value is None else format(value, form)


def costs(names: Sequence[str], size: Size, device: str, rounds: int) -> Costs:
    """Milliseconds a step for several batch sizes, and seconds an epoch for several numbers of data."""
    batches = [dataclasses.replace(size, batch=batch, rows=8192) for batch in (32, 64, 128, 256, 512, 1024)]
    numbers = [dataclasses.replace(size, rows=size.batch * steps) for steps in (8, 32, 128, 512)]
    found: Costs = {"batch": {}, "rows": {}}
    for axis, points in (("batch", batches), ("rows", numbers)):
        for point in points:
            row = measure(names, dataclasses.replace(point, epochs=1), device, rounds)
            for name, ms in row["ms_per_step"].items():
                if ms is not None:
                    value = ms if axis == "batch" else ms * point.steps / 1000
                    found[axis].setdefault(name, []).append((getattr(point, axis), value))
            print(json.dumps({axis: getattr(point, axis), **row["ms_per_step"]}), file=sys.stderr)
    return found


def plot(found: Costs, size: Size, path: Path) -> None:
    """Both curves side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    texts = {"batch": ("batch size", "ms per step"), "rows": (f"number of data, batch {size.batch}", "seconds per epoch")}
    for axes, (axis, (below, left)) in zip(figure.subplots(1, 2), texts.items(), strict=True):
        for name, points in found[axis].items():
            axes.loglog(*zip(*points, strict=True), marker="o", markersize=4, label=PEERS[name].label)
        axes.set(xlabel=below, ylabel=left)
        axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.suptitle(f"VAE {size.widths}")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES), help="rows of the table")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS), help="sides to run")
    parser.add_argument("--rounds", type=int, default=9, help="how often each side has its turn")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    series.add_json(parser)
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="also draw the cost against batch size and N")
    options = parser.parse_args()
    results: Row = {}
    cached = [name for name in options.peers if PEERS[name].cached]
    for name in options.sizes:
        peers = [peer for peer in options.peers if PEERS[peer].any_size or SIZES[name].plain]
        results[name] = measure(peers, SIZES[name], options.device, options.rounds, again=cached)
        print(json.dumps({name: results[name]}), file=sys.stderr)  # a run of many minutes may be stopped
    if options.json:
        series.tell(results, options)
    else:
        for name, row in results.items():
            show(name, row)
    if options.plot:
        size = SIZES["mnist" if "mnist" in options.sizes else options.sizes[0]]
        names = [name for name in PLOTTED if name in options.peers]
        plot(costs(names, size, options.device, min(5, options.rounds)), size, options.plot)


if __name__ == "__main__":
    main()
