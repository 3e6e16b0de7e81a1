"""One autoencoder under several priors of two latent dimensions: what each reaches, and where it puts its mass.

Everything but p(z) is the same. The picture shows, for each prior, its density over the plane and the means of the test
posteriors on top: a learned prior goes to where the codes are, a fixed one makes the codes come to it.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from matplotlib.figure import Figure

import ppl_vae as pv
from ppl_vae import plots

PRIORS: dict[str, pv.Prior] = {
    "standard normal": pv.StandardNormal(),
    "Laplace": pv.LaplacePrior(),
    "Student's t": pv.StudentTPrior(),
    "uniform": pv.Uniform(low=-3.0, high=3.0),
    "mixture of 10": pv.GaussianMixture(components=10),
    "VampPrior of 50": pv.VampPrior(components=50),
    "coupling flow": pv.CouplingFlow(),
    "spline flow": pv.SplineFlow(),
}


def show(ax: Any, name: str, fitted: pv.Fit, data: pv.Data) -> None:
    """The prior's density, and the codes of the test data by class."""
    codes, classes = fitted.encode(data.test), data.test.labels
    center, reach = (codes.amax(0) + codes.amin(0)) / 2, 0.6 * float((codes.amax(0) - codes.amin(0)).max())
    axes = [center[k] + torch.linspace(-reach, reach, 120) for k in (0, 1)]
    grid = torch.cartesian_prod(*axes)
    with torch.no_grad():
        prior = fitted.pair.model.prior()
        inside = prior.support.check(grid)
        density = torch.where(inside, prior.log_prob(torch.where(inside[:, None], grid, 0.0)).exp(), 0.0)
    extent = [float(end) for values in axes for end in (values[0], values[-1])]
    gray = {"cmap": "Greys", "vmin": 0.0, "vmax": 1.8 * float(density.max())}  # light enough for dots
    ax.imshow(density.reshape(120, 120).T.numpy(), origin="lower", extent=extent, **gray)
    ax.scatter(*codes.T.numpy(), c=classes.numpy(), cmap="tab10", s=3, linewidths=0)
    ax.set(title=name, xticks=[], yticks=[])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="a named set with labels")
    parser.add_argument("--priors", nargs="+", choices=PRIORS, default=list(PRIORS))
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--samples", type=int, default=100, help="per datum, for the importance-weighted bound")
    parser.add_argument("--out", default="priors_compared.png", help="the picture")
    options = parser.parse_args()

    data = pv.load_data(options.data, binarize="dynamic")
    columns = min(4, len(options.priors))
    rows = -(-len(options.priors) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.8 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    print(f"{'p(z)':<16} {'test ELBO':>10} {'KL':>7} {'bound':>9}   nats per datum, the bound of {options.samples} samples")
    for ax, name in zip(axes, options.priors, strict=False):
        model = pv.VAE(latent_dim=2, prior=PRIORS[name])
        fitted = pv.fit(model, data, guide=pv.AmortizedNormal(), method=pv.SVI(epochs=options.epochs))
        numbers = fitted.evaluate(data, samples=options.samples)
        print(f"{name:<16} {numbers['elbo']:10.3f} {numbers['kl']:7.3f} {numbers['iwae']:9.3f}")
        show(ax, name, fitted, data)
    for ax in axes[len(options.priors) :]:
        ax.axis("off")
    plots.save(figure, options.out)
    print(f"saved in {options.out}")


if __name__ == "__main__":
    main()
