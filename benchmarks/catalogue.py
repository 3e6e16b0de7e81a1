"""One training step of every likelihood, guide and prior against hand-written, compiled PyTorch of the same arithmetic.

Ours is the step that ``pv.fit`` takes when it is compiled; the other side is a loss of ``benchmarks/peers/catalogue`` through
``torch.compile``, its backward pass and the fused Adam. Both have the same batch, the same initial weights and one thread, in
one process, where they take turns of some steps; a ratio is the median over rounds of two turns next to each other, of CPU
seconds. Before that both losses and all their gradients are compared, eagerly and on the same noise: each side draws the same
random numbers in the same order.

    python -m benchmarks.catalogue --json
    python -m benchmarks.catalogue --only Poisson "Amortized*" --rounds 9
    python -m benchmarks.catalogue --eager  # neither side compiled, ours replayed from its record: operation for operation
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from statistics import geometric_mean, median
from typing import Any, NamedTuple

import pyro
import torch
from torch import Tensor, nn

import ppl_vae as pv
from benchmarks import series
from benchmarks.peers.catalogue import ENTRIES, WITHOUT, Entry
from benchmarks.peers.task import LEARNING_RATE
from ppl_vae.data.fields import taken
from ppl_vae.inference.training.clock import Stopwatch
from ppl_vae.inference.training.loop import Training
from ppl_vae.nn.dormant import Dormant
from ppl_vae.program.capture import Compile
from ppl_vae.program.context import seeded
from ppl_vae.storage import NULL_CHECKPOINTER

__all__ = ["Sides", "agreement", "measure"]

AGREE = 1e-4  # relative, between the losses
AGREE_GRADIENTS = 1e-2  # relative, between the gradients of each parameter, which may be sums of large numbers that cancel
RECORDED = 1000  # steps ahead, for which recording pays and compiling does not
SLOW = 1.1  # a ratio above it is one to look at


class Sides(NamedTuple):
    """Both sides of an entry, from the same weights.

    Attributes:
        training: ours.
        batch: what ours takes, as it lies in memory.
        weights: of the other side, copies of ours.
        loss: of the other side.
        x: its batch.
    """

    training: Training
    batch: list[Tensor]
    weights: dict[str, Tensor]
    loss: Callable[..., Tensor]
    x: list[Tensor]

    @classmethod
    def of(cls, entry: Entry, *, compile: Compile) -> Sides:
        """Build both, ours to be compiled, recorded (``auto``) or stepped through Pyro."""
        data = entry.data()
        epochs = RECORDED if compile == "auto" else 1  # of one step each
        method = pv.SVI(
            epochs=epochs, batch_size=entry.batch, learning_rate=LEARNING_RATE, schedule="constant", compile=compile
        )
        pair = pv.build(entry.model, entry.guide, data.spec)
        for part in pair.modules():
            if isinstance(part, Dormant):  # which a fit of all parts wakes
                part.wake()
        training = Training(method.plan(pair), pair, data, Stopwatch(lambda row: None), NULL_CHECKPOINTER)
        named = {**dict(pair.named_parameters()), **dict(pair.named_buffers())}
        copies = {name: _copy(tensor) for name, tensor in named.items()}
        block, rows = next(iter(data.train.steps(entry.batch, generator=torch.Generator().manual_seed(0), reads=pair.reads)))
        batch = taken(block, rows)
        return cls(training, batch, copies, entry.loss, [data.train.transform(batch[0]), *batch[1:]])

    @property
    def trained(self) -> dict[str, Tensor]:
        """The parameters of the other side."""
        return {name: tensor for name, tensor in self.weights.items() if isinstance(tensor, nn.Parameter)}


def _copy(tensor: Tensor) -> Tensor:
    copied = tensor.detach().clone()
    return nn.Parameter(copied) if isinstance(tensor, nn.Parameter) else copied


def agreement(entry: Entry) -> tuple[float, float]:
    """How far the losses part, and the gradients of the parameter where they part most, relative, on the same noise."""
    with seeded(0, torch.device("cpu")), pyro.validation_enabled(False):
        sides = Sides.of(entry, compile=False)
        step = sides.training.stepper.active_step
        with torch.random.fork_rng(devices=[]):
            ours, _ = step.forward(step.objective, *sides.batch)
            ours.backward()
        theirs = sides.loss(sides.weights, *sides.x)
        theirs.backward()
        slopes = {name.removeprefix("pair."): value.grad for name, value in step.objective.named_parameters()}
        apart = [_relative(slopes[name], value.grad) for name, value in sides.trained.items()]
    return abs(ours.item() - theirs.item()) / abs(ours.item()), max(apart)


def _relative(ours: Tensor | None, theirs: Tensor | None) -> float:
    """Of a parameter that neither side uses 0."""
    if ours is None or theirs is None:
        there = [gradient for gradient in (ours, theirs) if gradient is not None]
        return math.inf if any(bool(gradient.any()) for gradient in there) else 0.0
    scale = max(float(ours.norm()), 1e-6)
    return float((ours - theirs).norm()) / scale


def measure(entry: Entry, *, rounds: int, steps: int, compile: bool = True) -> dict[str, Any]:
    """Milliseconds a step of both, and the ratio.

    Raises:
        RuntimeError: the sides do not compute the same loss and gradients.
    """
    loss, gradients = agreement(entry)
    if not (loss < AGREE and gradients < AGREE_GRADIENTS):
        raise RuntimeError(f"the losses part by {loss:.1e} and the gradients by {gradients:.1e}, relative")
    with seeded(0, torch.device("cpu")), pyro.validation_enabled(False), warnings.catch_warnings():
        warnings.simplefilter("ignore", pv.FitWarning)
        sides = Sides.of(entry, compile=True if compile else "auto")
        try:
            ours(sides)()  # compiles
        except ValueError as error:  # it cannot be: a fit then goes by the record
            print(f"benchmarks.catalogue: {error}", file=sys.stderr)
            sides = Sides.of(entry, compile="auto")
        turns = (ours(sides), theirs(sides, compile=compile))
        for turn in turns:
            _seconds(turn, 3)
        taken = [_round(turns, steps, number) for number in range(rounds)]
        way = sides.training.stepper.active_step.way
    mine, other = (1e3 * median(column) for column in zip(*taken, strict=True))
    return {"ratio": median(a / b for a, b in taken), "ms_per_step": mine, "by_hand": other, "way": way}


def ours(sides: Sides) -> Callable[[], None]:
    """The step of ``pv.fit``."""
    step = sides.training.stepper.active_step
    return lambda: step(*sides.batch)


def theirs(sides: Sides, *, compile: bool) -> Callable[[], None]:
    """The step of a training loop."""
    optimizer = torch.optim.Adam(sides.trained.values(), lr=LEARNING_RATE, fused=True)
    loss = torch.compile(sides.loss) if compile else sides.loss

    def step() -> None:
        optimizer.zero_grad()
        loss(sides.weights, *sides.x).backward()
        optimizer.step()

    return step


def _round(turns: Sequence[Callable[[], None]], steps: int, number: int) -> tuple[float, float]:
    """Seconds a step of both, who begins alternating."""
    order = turns if number % 2 == 0 else turns[::-1]
    first, second = (_seconds(turn, steps) for turn in order)
    return (first, second) if number % 2 == 0 else (second, first)


def _seconds(turn: Callable[[], None], steps: int) -> float:
    """CPU seconds a step, which other work on the machine stretches less than the clock's."""
    began = time.process_time()
    for _ in range(steps):
        turn()
    return (time.process_time() - began) / steps


def chosen(patterns: Sequence[str]) -> Iterator[tuple[str, str, Entry]]:
    """Family, name and entry of those whose name or family fits a pattern."""
    for family, entries in ENTRIES.items():
        for name, entry in entries.items():
            if any(fnmatch.fnmatchcase(word, pattern) for pattern in patterns for word in (family, name)):
                yield family, name, entry


def summary(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The geometric mean of the ratios, and the worst."""
    ratios = {name: row["ratio"] for name, row in found.items()}
    worst = max(ratios, key=lambda name: ratios[name])
    slow = sorted(name for name, ratio in ratios.items() if ratio > SLOW)
    return {"geometric_mean": geometric_mean(ratios.values()), "worst": worst, "worst_ratio": ratios[worst], "slow": slow}


def show(found: dict[str, dict[str, Any]], told: dict[str, Any]) -> None:
    """The table, in Markdown."""
    print("| entry | family | ours is | ours, ms a step | by hand | ours / by hand |\n|---|---|---|---|---|---|")
    for name, row in found.items():
        numbers = f"{row['ms_per_step']:.2f} | {row['by_hand']:.2f} | {row['ratio']:.2f}"
        print(f"| {name} | {row['family']} | {row['way']} | {numbers} |")
    print(f"\ngeometric mean {told['geometric_mean']:.2f}, worst {told['worst_ratio']:.2f} ({told['worst']})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=["*"], metavar="NAME", help="entries or families, with * and ?")
    parser.add_argument("--rounds", type=int, default=15, help="how often each side has its turn")
    parser.add_argument("--steps", type=int, default=30, help="of a turn")
    parser.add_argument("--eager", action="store_true", help="compile neither side; ours is replayed from its record")
    series.add_json(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, dict[str, Any]] = {}
    for family, name, entry in chosen(options.only):
        found[name] = measure(entry, rounds=options.rounds, steps=options.steps, compile=not options.eager) | {"family": family}
        print(json.dumps({name: found[name]}), file=sys.stderr)  # a run of many minutes may be stopped
        torch.compiler.reset()
    if not found:
        known = ", ".join(name for _, name, _ in chosen(["*"]))
        sys.exit(f"benchmarks.catalogue: expected entries among {known}, got {' '.join(options.only)}")
    told = summary(found)
    if options.json:
        where = {"threads": torch.get_num_threads(), "load": round(os.getloadavg()[0], 1)}
        series.tell({"entries": found, **told, "without": WITHOUT, "compiled": not options.eager, **where}, options)
    else:
        show(found, told)


if __name__ == "__main__":
    main()
