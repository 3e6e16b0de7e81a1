"""A prior of one's own: a Laplace density over the codes, declared like those of the library.

A prior is two classes: the declaration (plain values, how to build, the story it tells) and the module that it builds, whose
call returns a distribution. The declaration needs no registration. From the root of the repository the command line takes it
by its import path, fields and all:

    ppl-vae fit --model VAE --model.prior examples.own_prior.Laplace --model.prior.scale 0.5 --data digits --out runs/laplace
    ppl-vae evaluate runs/laplace --trust examples.own_prior
"""

from __future__ import annotations

import argparse
import dataclasses
import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn

import ppl_vae as pv


@dataclasses.dataclass(frozen=True, kw_only=True)
class Laplace(pv.Prior):
    """p(z) = prod_k Laplace(z_k; 0, scale), which prefers codes with few large entries (Barello, Charles, Pillow 2018).

    Args:
        scale: mean absolute value of each code before training; it is learned.
    """

    scale: float = 0.7

    def __post_init__(self) -> None:
        if self.scale <= 0:
            raise ValueError(f"expected a positive scale, got {self.scale!r}")

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """A module whose call returns the distribution on ``shape``."""
        return LaplaceModule(shape, self.scale)

    def story(self, shape: tuple[int, ...]) -> str:
        """The density as text."""
        return f"Laplace(0, b)^{math.prod(shape)}"


class LaplaceModule(nn.Module):
    """A constant centre, hence a buffer; a learned scale for each element, hence a parameter."""

    loc: Tensor

    def __init__(self, shape: tuple[int, ...], scale: float) -> None:
        super().__init__()
        self.register_buffer("loc", torch.zeros(shape), persistent=False)
        self.log_scale = nn.Parameter(torch.full(shape, math.log(scale)))

    def forward(self) -> dist.Distribution:
        """p(z)."""
        return dist.Laplace(self.loc, self.log_scale.exp()).to_event(self.loc.dim())


def main() -> None:
    parser = argparse.ArgumentParser(description="The same autoencoder under a normal and under a Laplace prior.")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()

    data = pv.load_data(options.data)
    print(f"{'test ELBO':>10}  {'KL':>6}  model")
    for prior in (pv.StandardNormal(), Laplace()):
        fitted = pv.fit(pv.VAE(prior=prior), data, method=pv.SVI(epochs=options.epochs))
        numbers = fitted.evaluate(data)
        print(f"{numbers['elbo']:10.3f}  {numbers['kl']:6.3f}  {fitted.model}")


if __name__ == "__main__":
    main()
