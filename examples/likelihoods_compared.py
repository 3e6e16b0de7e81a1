"""Gray digits under likelihoods of gray levels: how many bits a pixel takes, and what a draw looks like.

A density of dequantized pixels (gray level + uniform noise) bounds the probability of the levels from below, so densities and
probabilities are told in one unit, bits per pixel. What a likelihood takes for noise shows in its draws: one scale for all
pixels draws snow, amortized scales keep it to where the image is uncertain.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import pad

import ppl_vae as pv
from ppl_vae import plots

LEVELS = 17  # of a pixel of the digits
DENSITIES: dict[str, pv.Likelihood] = {
    "Gaussian, fixed": pv.Gaussian(scale="fixed", value=0.3),
    "Gaussian, shared": pv.Gaussian(scale="shared"),
    "Gaussian, amortized": pv.Gaussian(scale="amortized"),
    "Laplace, amortized": pv.Laplace(scale="amortized"),
    "Beta": pv.Beta(),
    "logit-normal": pv.LogitNormal(scale="amortized"),
}
PROBABILITIES: dict[str, pv.Likelihood] = {
    "categorical": pv.Categorical(levels=LEVELS),
    "discretized logistic": pv.DiscretizedLogistic(levels=LEVELS),
    "10 of them mixed": pv.DiscretizedLogisticMixture(levels=LEVELS),
}


def draw(row: Any, name: str, *strips: Tensor) -> None:
    """Strips of images ``(n, channels, height, width)`` side by side."""
    for ax, x in zip(row, strips, strict=True):
        image = torch.cat(list(pad(x.clamp(0, 1), (1, 1, 1, 1), value=0.5)), dim=-1).movedim(0, -1)
        ax.imshow(image.numpy(), cmap="gray", vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[])
    row[0].set_ylabel(name, rotation=0, ha="right", va="center")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    likelihoods = DENSITIES | PROBABILITIES
    parser.add_argument("--likelihoods", nargs="+", choices=likelihoods, default=list(likelihoods))
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--out", default="likelihoods_compared.png", help="the picture")
    options = parser.parse_args()

    dequantized = pv.load_data("digits", binarize="none", dequantize=True)
    levels = pv.load_data("digits", binarize="none", kind="categorical")
    figure = Figure(figsize=(9, 0.62 * len(options.likelihoods) + 0.9), layout="constrained")
    axes = figure.subplots(1 + len(options.likelihoods), 2)
    test = levels.test.transformed() / (LEVELS - 1)
    draw(axes[0], "test data", test[:10], test[10:20])
    print(f"{'p(x | z)':<22} {'bits per pixel':>14} {'ELBO':>9} {'KL':>7}   on test data, in nats per datum")
    for row, name in zip(axes[1:], options.likelihoods, strict=True):
        data, top = (dequantized, 1) if name in DENSITIES else (levels, LEVELS - 1)
        model = pv.VAE(latent_dim=8, likelihood=likelihoods[name])
        fitted = pv.fit(model, data, guide=pv.AmortizedNormal(), method=pv.SVI(epochs=options.epochs))
        numbers = fitted.evaluate(data)
        bits = -numbers["elbo"] / (data.test.transformed()[0].numel() * math.log(2))
        print(f"{name:<22} {bits:14.3f} {numbers['elbo']:9.2f} {numbers['kl']:7.2f}")
        draw(row, name, *(fitted.sample(10, means=means, seen=True) / top for means in (True, False)))
    axes[1, 0].set_title("the mean of p(x | z), of categories the mode", fontsize="medium")
    axes[1, 1].set_title("draws of p(x | z), the same z", fontsize="medium")
    plots.save(figure, options.out)
    print(f"saved in {options.out}")


if __name__ == "__main__":
    main()
