"""M2 written by hand for Pyro beside ours: the same networks, batch, optimizer and sum over the classes.

As in Pyro's own example of semi-supervised learning: ``config_enumerate`` and ``TraceEnum_ELBO`` sum the class of a row without
a label out, one step of it; a batch of rows with labels takes two, the second for the classifier's loss alone.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from statistics import median
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, TraceEnum_ELBO, config_enumerate
from pyro.optim import Adam
from torch import Tensor, nn

import ppl_vae as pv
from ppl_vae.inference.training.optimizers import OPTIMIZERS
from ppl_vae.inference.training.step import WORTH_RECORDING, Step

__all__ = ["compared"]

CLASSES, LATENT, PIXELS, RATE, WARM_UP = 10, 50, 784, 1e-3, 5


def network(inputs: int, width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, outputs))


class ByHand(nn.Module):
    """Model, guide and the classifier's loss as methods of one module."""

    def __init__(self, width: int, weight: float) -> None:
        super().__init__()
        self.weight = weight
        self.encoder = network(PIXELS + CLASSES, width, 2 * LATENT)
        self.classifier = network(PIXELS, width, CLASSES)
        self.decoder = network(LATENT + CLASSES, width, PIXELS)

    def model(self, x: Tensor, y: Tensor | None = None) -> None:
        pyro.module("m2", self)
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.OneHotCategorical(x.new_ones(CLASSES) / CLASSES), obs=y)
            z = pyro.sample("z", dist.Normal(x.new_zeros(LATENT), x.new_ones(LATENT)).to_event(1))
            leading = torch.broadcast_shapes(z.shape[:-1], y.shape[:-1])
            logits = self.decoder(torch.cat([z.expand(*leading, LATENT), y.expand(*leading, CLASSES)], -1))
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    def guide(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            if y is None:
                y = pyro.sample("y", dist.OneHotCategorical(logits=self.classifier(x)))
            leading = torch.broadcast_shapes(x.shape[:-1], y.shape[:-1])
            loc, raw = self.encoder(torch.cat([x.expand(*leading, PIXELS), y.expand(*leading, CLASSES)], -1)).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, nn.functional.softplus(raw) + 1e-6).to_event(1))

    def classify(self, x: Tensor, y: Tensor | None = None) -> None:
        pyro.module("m2", self)
        if y is not None:
            with pyro.plate("data", len(x)), pyro.poutine.scale(scale=self.weight):
                pyro.sample("label", dist.OneHotCategorical(logits=self.classifier(x)), obs=y)

    def nothing(self, x: Tensor, y: Tensor | None = None) -> None:
        """The classifier's loss has no guide."""


def by_hand(width: int, weight: float, x: Tensor, y: Tensor) -> dict[str, Callable[[], object]]:
    """A step of each kind of batch by Pyro's ``SVI.step``, at its default settings."""
    pyro.clear_param_store()
    torch.manual_seed(0)
    programs, one_hot = ByHand(width, weight), torch.eye(CLASSES)[y]
    guide = config_enumerate(programs.guide, "parallel", expand=True)
    basic = SVI(programs.model, guide, Adam({"lr": RATE}), loss=TraceEnum_ELBO(max_plate_nesting=1))
    aside = SVI(programs.classify, programs.nothing, Adam({"lr": RATE}), loss=TraceEnum_ELBO(max_plate_nesting=1))
    return {
        "without": lambda: basic.step(x),
        "with": lambda: (basic.step(x, one_hot), aside.step(x, one_hot)),
    }


def ours(model: Any, guide: Any, x: Tensor, y: Tensor, *, compile: bool) -> dict[str, Callable[[], object]]:
    """The same as a fit takes it: recorded, or compiled as those of 5000 steps or more are."""
    spec = pv.DataSpec(event_shape=(1, 28, 28), kind="binary", size=len(x), classes=tuple(map(str, range(CLASSES))))
    torch.manual_seed(0)
    pair = pv.build(model, guide, spec).train()
    objective = pv.ELBO().build(pair)
    images = x.reshape(-1, 1, 28, 28)
    pair.plates(images)
    pair.plates(images, y)
    step = Step(
        objective,
        pv.Transform((1, 28, 28)),
        OPTIMIZERS["adam"](list(objective.parameters()), RATE),
        compile=True if compile else "auto",
        ahead=WORTH_RECORDING,
    )
    return {"without": lambda: step(images), "with": lambda: step(images, y)}


def compared(
    model: Any, guide: Any, *, width: int, batch_size: int, steps: int, rounds: int, weight: float, compile: bool = False
) -> dict[str, Any]:
    """Milliseconds of a step of each kind of batch, turn by turn, and the median over rounds of the ratio of two turns."""
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(batch_size, PIXELS, generator=generator) < 0.2).float()
    y = torch.randint(CLASSES, (batch_size,), generator=generator)
    sides = {"ours": ours(model, guide, x, y, compile=compile), "pyro": by_hand(width, weight, x, y)}
    times: dict[str, list[float]] = {f"{side}, {kind}": [] for side in sides for kind in sides[side]}
    warnings.filterwarnings("ignore", "TraceEnum_ELBO found no sample sites")  # of the classifier's loss, which has none
    for side in sides.values():
        for step in side.values():
            for _ in range(WARM_UP):
                step()
    for _ in range(rounds):
        for kind in ("without", "with"):
            for name, side in sides.items():
                began = time.perf_counter()
                for _ in range(steps):
                    side[kind]()
                times[f"{name}, {kind}"].append(1e3 * (time.perf_counter() - began) / steps)
    ratios = {
        f"ratio, {kind}": median(a / b for a, b in zip(times[f"ours, {kind}"], times[f"pyro, {kind}"], strict=True))
        for kind in ("without", "with")
    }
    return {f"{name} (ms)": median(found) for name, found in times.items()} | ratios
