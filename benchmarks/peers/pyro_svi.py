"""Stock Pyro as its own VAE example has it: ``pyro.infer.SVI``, ``pyro.optim.Adam``, a DataLoader, default settings."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, RenyiELBO, TraceMeanField_ELBO
from pyro.optim import Adam
from torch import Tensor, nn

from benchmarks.peers.task import LEARNING_RATE, Report, Size, Task, run_epochs
from benchmarks.peers.torch_network import Decoder, Encoder, count, loader

__all__ = ["parameters", "train"]


class VAE(nn.Module):
    """Model and guide as methods of one module."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.latent = size.latent
        self.encoder = Encoder(size)
        self.decoder = Decoder(size)

    def model(self, x: Tensor) -> None:
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            loc = x.new_zeros(len(x), self.latent)
            z = pyro.sample("z", dist.Normal(loc, torch.ones_like(loc)).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            loc, scale = self.encoder(x)
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))


def parameters(size: Size) -> int:
    """Numbers that are trained."""
    return count(VAE(size))


def train(task: Task, report: Report) -> None:
    """Train by ``SVI.step``."""
    pyro.set_rng_seed(0)
    batches = loader(task)
    vae = VAE(task.size).to(task.device)
    several = RenyiELBO(alpha=0, num_particles=task.size.samples, vectorize_particles=True, max_plate_nesting=1)
    loss = several if task.size.samples > 1 else TraceMeanField_ELBO()
    svi = SVI(vae.model, vae.guide, Adam({"lr": LEARNING_RATE}), loss=loss)

    def epoch() -> float:
        return sum(svi.step(x.to(task.device, non_blocking=True)) for (x,) in batches) / len(task.x)

    run_epochs(task, report, epoch)
