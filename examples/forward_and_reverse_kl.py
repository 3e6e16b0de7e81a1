"""One normal distribution fitted to two modes: by KL(p || q), which covers both, and by KL(q || p), which finds one.

The first is what maximum likelihood minimizes, and its best normal has the mean and the variance of p; the second is what
variational inference minimizes, here by the trapezoidal rule from a start near each mode. The picture shows the densities.
"""

from __future__ import annotations

import argparse

import pyro.distributions as dist
import torch
from matplotlib.figure import Figure
from torch import Tensor

import ppl_vae as pv
from ppl_vae import plots

POINTS, REACH, STEPS = 2001, 12.0, 400


def reverse(p: dist.Distribution, grid: Tensor, start: float) -> dist.Distribution:
    """The normal q that KL(q || p) leads to from a mean."""
    free = torch.tensor([start, 0.0], requires_grad=True)
    optimizer = torch.optim.Adam([free], lr=0.02)
    for _ in range(STEPS):
        q = dist.Normal(free[0], free[1].exp())
        kl = torch.trapezoid(q.log_prob(grid).exp() * (q.log_prob(grid) - p.log_prob(grid)), grid)
        optimizer.zero_grad()
        kl.backward()
        optimizer.step()
    return dist.Normal(free[0].detach(), free[1].detach().exp())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--distance", type=float, default=7.0, help="of the modes, in their standard deviations")
    parser.add_argument("--weight", type=float, default=0.4, help="of the left mode")
    parser.add_argument("--samples", type=int, default=20_000, help="where a divergence has no formula")
    parser.add_argument("--out", default="forward_and_reverse_kl.png", help="the picture")
    options = parser.parse_args()

    modes = torch.tensor([-options.distance / 2, options.distance / 2])
    p = dist.MixtureSameFamily(
        dist.Categorical(torch.tensor([options.weight, 1 - options.weight])), dist.Normal(modes, torch.ones(2))
    )
    grid = torch.linspace(-REACH, REACH, POINTS)
    fits = {
        "KL(p || q)": dist.Normal(p.mean, p.variance.sqrt()),
        "KL(q || p), left": reverse(p, grid, float(modes[0])),
        "KL(q || p), right": reverse(p, grid, float(modes[1])),
    }
    figure = Figure(figsize=(7, 3), layout="constrained")
    ax = figure.subplots()
    ax.fill_between(grid, p.log_prob(grid).exp(), color="lightgrey", label="p")
    print(f"{'q minimizes':<18} {'mean':>6} {'sd':>6} {'KL(p || q)':>17} {'KL(q || p)':>17} {'JS':>17}")
    for name, q in fits.items():
        found = pv.divergence(p, q, samples=options.samples)
        numbers = " ".join(f"{each!s:>17}" for each in (found.forward, found.reverse, found.js))
        print(f"{name:<18} {q.mean:6.2f} {q.stddev:6.2f} {numbers}")
        ax.plot(grid, q.log_prob(grid).exp(), label=name)
    ax.set(yticks=[], xlabel="x")
    ax.legend(fontsize="small")
    plots.save(figure, options.out)
    print(f"saved in {options.out}")


if __name__ == "__main__":
    main()
