"""One generative model, approximate posteriors of growing richness: how much of the gap to log p(x) each leaves.

The model is fitted once and then held fixed while every guide is fitted to it, so that only the gap
log p(x) - ELBO = KL(q(z | x) || p(z | x)) is left to differ. The picture shows a few test data: their posteriors p(z | x) over
the plane, normalized on a grid, and below them each guide's q(z | x).
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

import ppl_vae as pv
from ppl_vae import plots

GUIDES: dict[str, pv.Guide] = {
    "linear": pv.AmortizedLinear(),
    "diagonal": pv.AmortizedNormal(),
    "full": pv.AmortizedNormal(covariance="full"),
    "mixture of 4": pv.AmortizedMixture(components=4),
    "flow (IAF)": pv.AmortizedFlow(layers=4),
    "semi-amortized": pv.SemiAmortized(base=pv.AmortizedNormal(covariance="full"), steps=4),
}
SHOWN, POINTS, REACH = 8, 100, 3.5


def draw(row: Any, name: str, log_density: Tensor) -> None:
    """Densities ``(POINTS^2, SHOWN)``, each on a scale of its own."""
    for ax, one in zip(row, log_density.T, strict=True):
        ax.imshow(one.exp().reshape(POINTS, POINTS).T.numpy(), origin="lower", cmap="Blues")
        ax.set(xticks=[], yticks=[])
    row[0].set_ylabel(name, fontsize="small")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--guides", nargs="+", choices=GUIDES, default=list(GUIDES))
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--samples", type=int, default=1000, help="per datum, for log p(x)")
    parser.add_argument("--out", default="guides_compared.png", help="the picture")
    options = parser.parse_args()

    data = pv.load_data(options.data, binarize="static")
    method = pv.SVI(epochs=options.epochs)
    start = pv.fit(pv.VAE(latent_dim=2), data, guide=pv.AmortizedNormal(covariance="full"), method=method)
    model = start.pair.model.requires_grad_(False)
    exact = start.evaluate(data, samples=options.samples)["iwae"]
    print(f"log p(x) is {exact:.3f} nats per test datum, by {options.samples} samples")
    print(f"{'q(z | x)':<16} {'test ELBO':>10} {'gap':>7}")

    x = start.seen(data.test)[:SHOWN]
    axis = torch.linspace(-REACH, REACH, POINTS)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        joint = model.decode(grid[:, None]).log_prob(x) + model.prior().log_prob(grid)[:, None]
    figure = Figure(figsize=(1.1 * SHOWN, 1.1 * (1 + len(options.guides))), layout="constrained")
    axes = figure.subplots(1 + len(options.guides), SHOWN, squeeze=False)
    draw(axes[0], "p(z | x)", joint - joint.amax(0))
    for row, name in zip(axes[1:], options.guides, strict=True):
        fitted = pv.fit(model, data, guide=GUIDES[name].build(model, start.spec), method=method)
        elbo = fitted.evaluate(data)["elbo"]
        print(f"{name:<16} {elbo:10.3f} {exact - elbo:7.3f}")
        with torch.no_grad():
            draw(row, name, fitted.pair.guide.posterior(x).log_prob(grid[:, None].expand(-1, SHOWN, -1)))
    plots.save(figure, options.out)
    print(f"saved in {options.out}")


if __name__ == "__main__":
    main()
