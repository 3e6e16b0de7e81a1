"""A semi-supervised VAE in plain Pyro: few digits have a label, and the others help to tell the classes apart.

It is M2 of Kingma, Rezende, Mohamed and Welling (2014), written as one writes it in Pyro: y is observed where it is known, else
the guide q(y | x) proposes it and Pyro sums over its ten values. As there, q(y | x) also learns from the known labels: they are
observed once more under it, and the objective holds that term. Rows without a label are the masked ones of a masked array; they
make batches of their own, in which the programs are called without y.
"""

from __future__ import annotations

import argparse

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

import ppl_vae as pv

PIXELS, CLASSES, LATENT_DIM = 64, 10, 8
WEIGHT = 20.0  # of a known label under q(y | x)


def network(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 100), nn.Softplus(), nn.Linear(100, outputs))


class Programs:
    """Model and guide, with their networks."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.decoder = network(LATENT_DIM + CLASSES, PIXELS)
        self.encoder = network(PIXELS + CLASSES, 2 * LATENT_DIM)
        self.classifier = network(PIXELS, CLASSES)

    def model(self, x: Tensor, y: Tensor | None = None) -> None:
        """Y ~ Uniform; z ~ Normal(0, I); x | y, z ~ Bernoulli(MLP(y, z))."""
        pyro.module("decoder", self.decoder)
        pyro.module("classifier", self.classifier)
        with pv.data_plate(self.size, x):
            if y is not None:
                with poutine.scale(scale=WEIGHT):
                    pyro.sample("known", dist.Categorical(logits=self.classifier(x.flatten(1))), obs=y)
            y = pyro.sample("y", dist.Categorical(torch.ones(CLASSES)), obs=y)
            z = pyro.sample("z", dist.Normal(torch.zeros(LATENT_DIM), 1.0).to_event(1))
            logits = self.decoder(beside(z, y))
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x.flatten(1))

    def guide(self, x: Tensor, y: Tensor | None = None) -> None:
        """q(y | x), where y is not known, and q(z | x, y)."""
        pyro.module("encoder", self.encoder)
        pyro.module("classifier", self.classifier)
        flat = x.flatten(1)
        with pv.data_plate(self.size, x):
            if y is None:
                y = pyro.sample("y", dist.Categorical(logits=self.classifier(flat)), infer={"enumerate": "parallel"})
            loc, raw = self.encoder(beside(flat, y)).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, nn.functional.softplus(raw) + 1e-4).to_event(1))


def beside(numbers: Tensor, y: Tensor) -> Tensor:
    """Numbers ``(..., K)`` and classes ``(...)``, whose leading dimensions broadcast, in one vector."""
    codes = torch.eye(CLASSES)[y]
    shape = torch.broadcast_shapes(numbers.shape[:-1], codes.shape[:-1])
    return torch.cat([numbers.expand(*shape, -1), codes.expand(*shape, -1)], -1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--labels", type=int, default=100, help="rows whose label is known")
    options = parser.parse_args()

    digits = pv.load_data("digits", binarize="static")
    x, y = digits.train.x, digits.train.labels.numpy()
    some = np.ma.MaskedArray(y, mask=np.arange(len(y)) >= options.labels)
    data = pv.load_data((x, some), scale="none", valid=0.0, test=0.0)
    torch.manual_seed(0)
    programs = Programs(len(data.train))
    fitted = pv.fit(programs.model, data, guide=programs.guide, method=pv.SVI(epochs=options.epochs, learning_rate=5e-3))
    with torch.no_grad():
        guessed = programs.classifier(digits.test.transformed().flatten(1)).argmax(-1)
    right = (guessed == digits.test.labels).float().mean()
    print(f"objective                     {fitted.history[-1]['objective']:8.2f} nats per datum")
    print(f"test digits classified right  {100 * right:8.1f} % with {options.labels} labels")


if __name__ == "__main__":
    main()
