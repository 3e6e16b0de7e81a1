"""An autoencoder and a variational autoencoder of the same networks: what they give back, and what random codes become.

Both are told the same data. The autoencoder gives them back better, for nothing keeps its codes together; the price is paid
where codes are random: its decoder has never seen what lies between those of the training data. The VAE's codes come from its
prior, the autoencoder's from a normal with the mean and covariance of its training codes. PCA, the linear autoencoder, stands
beside them.

Reconstructions are mean squared errors per pixel. The last column judges samples: the mean squared distance from a decoded
random code to the nearest training image; that from test images to theirs is printed below it.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import pad

import ppl_vae as pv
from ppl_vae import plots

SHOWN = 10


def nearest(x: Tensor, train: Tensor) -> float:
    """Mean squared distance per pixel from x ``(n, *event)`` to the nearest of the training data."""
    squared = torch.cdist(x.flatten(1), train.flatten(1)).amin(1).square()
    return (squared / x[0].numel()).mean().item()


def draw(row: Any, name: str, *strips: Tensor) -> None:
    """Strips of images ``(n, channels, height, width)`` side by side."""
    for ax, x in zip(row, strips, strict=True):
        image = torch.cat(list(pad(x.clamp(0, 1), (1, 1, 1, 1), value=0.5)), dim=-1).movedim(0, -1)
        ax.imshow(image.numpy(), cmap="gray", vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[])
    row[0].set_ylabel(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="a named set, a file or a folder of images")
    parser.add_argument("--latent-dim", type=int, default=16)
    parser.add_argument("--hidden", type=int, default=400)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--out", default="autoencoder_vs_vae.png", help="the picture")
    options = parser.parse_args()

    data = pv.load_data(options.data, binarize="none")
    network = pv.MLP(hidden=(options.hidden,))
    parts = {"latent_dim": options.latent_dim, "likelihood": pv.Gaussian(scale="shared", value=0.2), "decoder": network}
    svi = pv.SVI(epochs=options.epochs)
    fits = {
        "AutoEncoder": pv.fit(pv.AutoEncoder(**parts), data, guide=pv.AmortizedDelta(encoder=network), method=svi),
        "VAE": pv.fit(pv.VAE(**parts), data, guide=pv.AmortizedNormal(encoder=network), method=svi),
        "PCA": pv.fit(pv.PCA(latent_dim=options.latent_dim), data, method=pv.ClosedForm()),
    }

    train, test = data.train.transformed(), data.test.transformed()
    figure = Figure(figsize=(12, 3.4), layout="constrained")
    axes = figure.subplots(1 + len(fits), 2)
    draw(axes[0], "data", test[:SHOWN], train[:SHOWN])
    axes[0, 0].set_title("test data, and below them reconstructed")
    axes[0, 1].set_title("training data, and below them random codes decoded")
    print(f"{'model':<12} {'train':>8} {'test':>8} {'random codes to the nearest':>28}")
    for row, (name, fitted) in zip(axes[1:], fits.items(), strict=True):
        back, means = fitted.reconstruct(data.test, seen=True), fitted.sample(1000, means=True, seen=True)
        errors = [(fitted.reconstruct(data.train, seen=True) - train).square().mean(), (back - test).square().mean()]
        print(f"{name:<12} {errors[0]:8.4f} {errors[1]:8.4f} {nearest(means, train):28.4f}")
        draw(row, name, back[:SHOWN], fitted.sample(SHOWN, means=True, seen=True))
    print(f"{'test data':<12} {'':>8} {'':>8} {nearest(test, train):28.4f}")
    plots.save(figure, options.out)
    print(f"saved in {options.out}")


if __name__ == "__main__":
    main()
