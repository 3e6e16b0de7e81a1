"""A semi-supervised VAE in plain Pyro: few of the digits have a label, and all of them are fitted.

It is M2 of Kingma, Rezende, Mohamed and Welling (2014), as one writes it in Pyro: y is observed where it is known, else the
guide q(y | x) proposes it and Pyro sums over its ten values. As there, q(y | x) also learns from the known labels, which are
observed once more under it. Rows without a label make batches of their own, in which the programs are called without y.
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


torch.manual_seed(0)
decoder, encoder = network(LATENT_DIM + CLASSES, PIXELS), network(PIXELS + CLASSES, 2 * LATENT_DIM)
classifier = network(PIXELS, CLASSES)
digits = pv.load_data("digits", binarize="static")


def model(x: Tensor, y: Tensor | None = None) -> None:
    """Y ~ Uniform; z ~ Normal(0, I); x | y, z ~ Bernoulli(MLP(y, z))."""
    pyro.module("decoder", decoder)
    pyro.module("classifier", classifier)
    with pv.data_plate(len(digits.train), x):
        if y is not None:
            with poutine.scale(scale=WEIGHT):
                pyro.sample("known", dist.Categorical(logits=classifier(x)), obs=y)
        y = pyro.sample("y", dist.Categorical(torch.ones(CLASSES)), obs=y)
        z = pyro.sample("z", dist.Normal(torch.zeros(LATENT_DIM), 1.0).to_event(1))
        pyro.sample("x", dist.Bernoulli(logits=decoder(beside(z, y))).to_event(1), obs=x)


def guide(x: Tensor, y: Tensor | None = None) -> None:
    """q(y | x), where y is not known, and q(z | x, y)."""
    pyro.module("encoder", encoder)
    pyro.module("classifier", classifier)
    with pv.data_plate(len(digits.train), x):
        if y is None:
            y = pyro.sample("y", dist.Categorical(logits=classifier(x)), infer={"enumerate": "parallel"})
        loc, raw = encoder(beside(x, y)).chunk(2, -1)
        pyro.sample("z", dist.Normal(loc, nn.functional.softplus(raw) + 1e-4).to_event(1))


def beside(numbers: Tensor, y: Tensor) -> Tensor:
    """Numbers ``(..., K)`` and classes ``(...)`` in one vector, their leading dimensions broadcast."""
    shape = torch.broadcast_shapes(numbers.shape[:-1], y.shape)
    return torch.cat([numbers.expand(*shape, -1), torch.eye(CLASSES)[y].expand(*shape, -1)], -1)


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--epochs", type=int, default=60)
parser.add_argument("--labels", type=int, default=100, help="rows whose label is known")
options = parser.parse_args()
pixels, labels = digits.train.x.flatten(1), digits.train.labels.numpy()
some = np.ma.MaskedArray(labels, mask=np.arange(len(labels)) >= options.labels)
data = pv.load_data((pixels, some), scale="none", valid=0.0, test=0.0)
fit = pv.fit(model, data, guide=guide, method=pv.SVI(epochs=options.epochs, learning_rate=5e-3))
with torch.no_grad():
    guessed = classifier(digits.test.transformed().flatten(1)).argmax(-1)
right = (guessed == digits.test.labels).float().mean()
print(f"objective                     {fit.history[-1]['objective']:8.2f} nats per datum")
print(f"test digits classified right  {100 * right:8.1f} % with {options.labels} labels")
