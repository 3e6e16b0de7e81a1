"""What every side is given: a row of the size table, its data, and how long to train."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.peers.structured.data import ROWS

__all__ = ["LEARNING_RATE", "MIN_SCALE", "SIZES", "Report", "Size", "Task", "layers", "rows", "run_epochs"]

LEARNING_RATE = 1e-3
MIN_SCALE = 1e-6
"""Added to softplus, as our guide does."""

Report = Callable[[float, float], None]
"""Seconds of the epoch that just ended and its mean loss in nats per datum; off the clock."""


@dataclasses.dataclass(frozen=True)
class Size:
    """A row of the table: a VAE of one hidden layer or two convolutions a side, and the data it sees.

    Args:
        name: of the row.
        data: D, binary values in a datum.
        hidden: H, width of both hidden layers; of no meaning where there are ``channels``.
        latent: K, dimensions of z.
        batch: B, data in a step.
        rows: N, data in an epoch, a multiple of B.
        threads: CPU threads of every side; ``None`` is what each library takes by itself.
        epochs: of every side in a round, of which the median counts.
        channels: of the encoder's convolutions (4 x 4, stride 2), the decoder being its mirror image; none is an MLP.
        samples: S, of z for each datum; above 1 the importance-weighted bound is climbed.
        case: what else than a VAE of one vector it is, of ``structured``; D is then the vocabulary, where there is one.
        shortest: elements of the shortest row, where rows are sequences.
        longest: of the longest.
        components: of a mixture, for each point of a drawing; or the number of codes.
        longest_only: whether ours pads all rows to the longest, and not to buckets.
    """

    name: str
    data: int
    hidden: int
    latent: int
    batch: int
    rows: int
    threads: int | None = None
    epochs: int = 1
    channels: tuple[int, ...] = ()
    samples: int = 1
    case: str = ""
    shortest: int = 0
    longest: int = 0
    components: int = 0
    longest_only: bool = False

    @property
    def plain(self) -> bool:
        """Whether it is an MLP that climbs the ELBO, which every side has."""
        return not self.channels and self.samples == 1 and not self.case

    @property
    def side(self) -> int:
        """Height and width of the data as images."""
        return math.isqrt(self.data)

    @property
    def steps(self) -> int:
        """Steps in an epoch."""
        return self.rows // self.batch

    def __str__(self) -> str:
        if self.case:
            lengths = f"{self.shortest} to {self.longest} elements, " if self.longest else ""
            padded = "all padded to the longest, " if self.longest_only else ""
            return f"{self.case} {self.widths}, {lengths}{padded}batch {self.batch}, {self.rows} rows"
        channels = "-".join(map(str, self.channels))
        network = f"{self.side}x{self.side}, channels {channels}, latent {self.latent}" if channels else self.widths
        samples = f"{self.samples} samples, " if self.samples > 1 else ""
        return f"{network}, {samples}batch {self.batch}, {self.rows} rows"

    @property
    def widths(self) -> str:
        """Of an MLP."""
        return f"{self.data}-{self.hidden}-{self.latent}"


TEXT = Size("text", case="text", data=5000, hidden=256, latent=32, batch=32, rows=32 * 24, threads=1, shortest=8, longest=16)

SIZES = {
    size.name: size
    for size in (
        Size("toy", data=64, hidden=32, latent=8, batch=64, rows=64 * 128, threads=1, epochs=3),
        Size("mnist", data=784, hidden=400, latent=20, batch=128, rows=128 * 48),
        Size("wide", data=784, hidden=2000, latent=50, batch=512, rows=512 * 12),
        Size("conv", data=784, hidden=0, latent=20, batch=128, rows=128 * 24, channels=(32, 64)),
        TEXT,
        dataclasses.replace(TEXT, name="ragged", shortest=5, longest=60),
        dataclasses.replace(TEXT, name="ragged_padded", shortest=5, longest=60, longest_only=True),
        Size(
            "sketch",
            case="sketch",
            data=3,
            hidden=256,
            latent=128,
            batch=100,
            rows=100 * 8,
            threads=1,
            shortest=40,
            longest=60,
            components=20,
        ),
        Size("hvae", case="hvae", data=784, hidden=400, latent=32, batch=100, rows=100 * 32, threads=1),
        Size("unet", case="unet", data=784, hidden=16, latent=784, batch=64, rows=64 * 8, threads=1),
        Size("vq", case="vq", data=784, hidden=64, latent=64, batch=64, rows=64 * 12, threads=1, components=128),
        Size("iwae", data=784, hidden=200, latent=50, batch=20, rows=20 * 64, samples=50),
    )
}


@dataclasses.dataclass(frozen=True)
class Task:
    """Train a VAE of this size on these rows ``x (N, D)``, uint8, or a list of rows, for so many epochs on this device."""

    size: Size
    x: Any
    device: str
    epochs: int


def rows(size: Size) -> Any:
    """Independent Bernoulli values with a rate for each column, so that there is something to learn, ``(N, D)`` uint8."""
    if size.case:
        return ROWS[size.case](size)
    rng = np.random.default_rng(0)
    return (rng.random((size.rows, size.data), dtype=np.float32) < rng.random(size.data)).astype(np.uint8)


def layers(size: Size) -> tuple[tuple[int, int], ...]:
    """Inputs and outputs of each affine map, from x to the logits of x."""
    encoder = ((size.data, size.hidden), (size.hidden, 2 * size.latent))
    decoder = ((size.latent, size.hidden), (size.hidden, size.data))
    return encoder + decoder


def run_epochs(task: Task, report: Report, epoch: Callable[[], float]) -> None:
    """Time ``epoch``, which returns its mean loss as a number, so that a device has come to rest."""
    for _ in range(task.epochs):
        began = time.perf_counter()
        nats = epoch()
        report(time.perf_counter() - began, nats)
