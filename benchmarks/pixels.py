"""A step of PixelCNN beside the same network as it stands in tutorials: forward and backward, in one process.

That one pads each convolution on all sides and cuts what is too much, computes the features above for all lines, and has gates
as wide as the stacks. Here only what is kept is computed, once with gates as wide and once with the default, half of that.
Medians of CPU seconds, which other work on the machine stretches less than the clock's.

    OMP_NUM_THREADS=1 python -m benchmarks.pixels --rounds 7
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import ppl_vae as pv
from ppl_vae.priors import build_codes_prior


class Plain(nn.Module):
    """A gated layer of two stacks, padded on all sides."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.above = nn.Conv2d(channels, 2 * channels, (2, 3), padding=(2, 1))
        self.left = nn.Conv2d(channels, 2 * channels, (1, 2), padding=(0, 1))
        self.link = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, v: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Both stacks a layer higher."""
        a = self.above(v)[:, :, : v.shape[2]]
        b = self.left(h)[..., : h.shape[3]] + self.link(a)
        (a1, a2), (b1, b2) = a.chunk(2, 1), b.chunk(2, 1)
        return a1.tanh() * a2.sigmoid(), h + self.mix(b1.tanh() * b2.sigmoid())


class PlainPixelCNN(nn.Module):
    """Its loss on grids of codes."""

    def __init__(self, levels: int, channels: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(levels, channels)
        self.layers = nn.ModuleList(Plain(channels) for _ in range(layers))
        self.output = nn.Conv2d(channels, levels, 1)

    def forward(self, k: Tensor) -> Tensor:
        """Nats a grid, the network's masks being of no account for its speed."""
        v = h = self.embedding(k).movedim(-1, 1)
        for layer in self.layers:
            v, h = layer(v, h)
        return cross_entropy(self.output(h), k) * k[0].numel()


def seconds(step: Callable[[], Tensor], module: nn.Module) -> float:
    """CPU seconds of one pass forward and backward."""
    module.zero_grad()
    began = time.process_time()
    step().backward()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--levels", type=int, default=128)
    parser.add_argument("--size", type=int, default=7)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    k = torch.randint(options.levels, (options.batch, options.size, options.size))
    plain = PlainPixelCNN(options.levels, options.channels, options.layers)
    sides: dict[str, tuple[Callable[[], Tensor], nn.Module]] = {"tutorial": (lambda: plain(k), plain)}
    for name, gates in (("PixelCNN, gates as wide", options.channels), ("PixelCNN", None)):
        network = pv.PixelCNN(channels=options.channels, layers=options.layers, gates=gates)
        prior = build_codes_prior(network, levels=options.levels, grid=(options.size, options.size))
        sides[name] = (lambda prior=prior: -prior().log_prob(k).mean(), prior)  # type: ignore[misc]
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(options.rounds + 1):
        for name, (step, module) in sides.items():
            taken[name].append(seconds(step, module))
    print("| network | ms a step | of the tutorial's |")
    print("|---|---|---|")
    for name, values in taken.items():
        ratio = statistics.median(ours / theirs for ours, theirs in zip(values[1:], taken["tutorial"][1:], strict=True))
        print(f"| {name} | {1000 * statistics.median(values[1:]):.0f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
