"""What it costs a fit to be resumable and to notice what is not finite: the compiled MNIST step with and without.

One fit, 784-400-20 in batches of 128, whose epochs take turns: guarded (signals awaited, the clock asked after every step, all
numbers looked at and copied every hundred) and bare (steps alone). A pair is two epochs in a row, so that both saw the same
machine; which of the two comes first alternates. What a kept state takes, once a minute, is added to the median of the pairs.

    python -m benchmarks.overhead --json
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pyro
import torch

import ppl_vae as pv
from benchmarks import series
from benchmarks.peers.ours import declared, loaded
from benchmarks.peers.task import LEARNING_RATE, SIZES, rows
from ppl_vae.inference.training.clock import Stopwatch
from ppl_vae.inference.training.loop import Training
from ppl_vae.program.context import seeded
from ppl_vae.storage import NULL_CHECKPOINTER, Checkpointer, Snapshot

SIZE = dataclasses.replace(SIZES["mnist"], rows=128 * 468)  # as many steps in an epoch as MNIST has


class Bare:
    """Takes steps, and looks at nothing."""

    tries = 0

    def __init__(self, training: Training) -> None:
        self.stepper = training.stepper

    def start_pass(self) -> None:
        """A pass begins."""

    def check(self) -> None:
        """Nothing to see."""

    def several(self, block: list[torch.Tensor], batches: list[torch.Tensor]) -> None:
        """Take steps."""
        self.stepper.several(block, batches)


def measure(pairs: int, *, compile: bool = True) -> dict[str, Any]:
    """Milliseconds a step with and without, and the share that is added."""
    data, load = loaded(SIZE, rows(SIZE)), os.getloadavg()[0]
    method = pv.SVI(
        epochs=2 * pairs + 2, batch_size=SIZE.batch, learning_rate=LEARNING_RATE, schedule="constant", compile=compile
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        Checkpointer(Path(folder) / "run") as keeper,
        pyro.validation_enabled(False),
        seeded(method.seed, data.train.device),
    ):
        pair = pv.build(*declared(SIZE), data.spec)
        training = Training(method.plan(pair), pair, data, Stopwatch(lambda row: None), NULL_CHECKPOINTER)
        times = _epochs(training, keeper, pairs)
        kept = median(_seconds(lambda: keeper.keep(Snapshot.of(training.state(), training.history))) for _ in range(5))
    added = median(guarded / bare for guarded, bare in times) - 1
    guarded, bare = (1e3 * median(column) / SIZE.steps for column in zip(*times, strict=True))
    return {
        "guarded ms a step": guarded,
        "bare ms a step": bare,
        "a state kept, s": kept,
        "overhead": added + kept / keeper.every,
        "of which the guard": added,
        "pairs": pairs,
        "threads": torch.get_num_threads(),
        "load before": round(load, 1),
    }


def _epochs(training: Training, keeper: Checkpointer, pairs: int) -> list[tuple[float, float]]:
    """Seconds of guarded and bare epochs, in pairs."""
    policy, bare = training.policy, Bare(training)

    def guarded_epoch() -> float:
        training.policy, training.checkpointer = policy, keeper
        with keeper.listening():
            return _seconds(training.advance)

    def bare_epoch() -> float:
        training.policy, training.checkpointer = bare, NULL_CHECKPOINTER  # type: ignore[assignment]
        return _seconds(training.advance)

    guarded_epoch()  # compiles
    bare_epoch()
    found = []
    for turn in range(pairs):
        if turn % 2:
            found.append((guarded_epoch(), bare_epoch()))
        else:
            found.append((bare_epoch(), guarded_epoch())[::-1])
    return found


def _seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20, help="of epochs")
    series.add_json(parser)
    options = parser.parse_args()
    found = measure(options.pairs)
    if options.json:
        series.tell(found, options)
        return
    print("\n".join(f"{name}: {value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
