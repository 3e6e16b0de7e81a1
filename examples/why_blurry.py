"""Why are the images of a VAE blurry? Three explanations, one changed at a time: sharpness beside nats.

Likelihood: the mean of p(x | z) is an average of all images that z may stand for, of the more the wider p(x | z) is. Family:
q(z | x) is too simple, so that codes of different images overlap. Bound: what is climbed is not log p(x). Sharpness is the
variance of an image's Laplacian (Pech-Pacheco et al. 2000) over that of test digits: below 1 is blur, above it noise.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import conv2d, pad

import ppl_vae as pv
from ppl_vae import plots

LEVELS = 17  # of a pixel of the digits
LAPLACIAN = torch.tensor([[[[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]]]])
BASE: dict[str, Any] = {"decoder": pv.MLP(), "likelihood": pv.Gaussian(scale="shared"), "guide": pv.AmortizedNormal()}
ROWS: dict[str, dict[str, Any]] = {
    "scale fixed at 0.5": BASE | {"likelihood": pv.Gaussian(scale="fixed", value=0.5)},
    "scale fixed at 0.25": BASE | {"likelihood": pv.Gaussian(scale="fixed", value=0.25)},
    "one learned scale": BASE,
    "  bound: IWAE of 10": BASE | {"objective": pv.IWAE(samples=10)},
    "  family: flow": BASE | {"guide": pv.AmortizedFlow(hidden=(50,))},
    "a scale of each pixel": BASE | {"likelihood": pv.Gaussian(scale="amortized")},
    "5 logistics a pixel": BASE | {"likelihood": pv.DiscretizedLogisticMixture(levels=LEVELS, components=5)},
    "pixel after pixel": BASE | {"likelihood": pv.Categorical(levels=LEVELS), "decoder": pv.PixelCNN(channels=16, layers=3)},
}


def sharpness(x: Tensor) -> float:
    """The mean variance of the Laplacian of images ``(N, 1, H, W)`` of levels."""
    return float(conv2d(x.float(), LAPLACIAN).flatten(1).var(1).mean())


def draw(row: Any, name: str, strips: list[Tensor]) -> None:
    """Strips of images ``(n, 1, H, W)`` of levels side by side."""
    for ax, x in zip(row, strips, strict=True):
        image = torch.cat(list(pad(x.float()[:10, 0] / (LEVELS - 1), (1, 1, 1, 1), value=0.5)), dim=-1)
        ax.imshow(image.numpy(), cmap="gray", vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[])
    row[0].set_ylabel(name.strip(), rotation=0, ha="right", va="center")


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--rows", type=int, nargs="+", default=list(range(len(ROWS))), help="numbers of rows, from 0")
parser.add_argument("--epochs", type=int, default=40)
parser.add_argument("--samples", type=int, default=100, help="draws of z for log p(x)")
parser.add_argument("--out", default="why_blurry.png", help="the picture")
options = parser.parse_args()
noisy = pv.load_data("digits", binarize="none", dequantize=True)
levels = pv.load_data("digits", binarize="none", kind="categorical")
axes = (figure := Figure(figsize=(12, 0.6 * len(options.rows) + 0.9), layout="constrained")).subplots(len(options.rows) + 1, 3)
draw(axes[0], "test digits", [levels.test.x[first:] for first in (0, 10, 20)])
for ax, title in zip(axes[0], ("reconstructions", "means of p(x | z), z ~ p(z)", "draws of p(x | z), z ~ p(z)"), strict=True):
    ax.set_title(title, fontsize="medium")
print(f"{'p(x | z)':<22} {'ELBO':>8} {'log p(x) >':>10} {'KL':>6} {'reconstructed':>14} {'means':>6} {'draws':>6} {'s':>4}")
for place, number in enumerate(options.rows):
    began = time.process_time()
    name, parts = list(ROWS.items())[number]
    data = levels if isinstance(parts["likelihood"], pv.Categorical | pv.DiscretizedLogisticMixture) else noisy
    model = pv.VAE(latent_dim=8, likelihood=parts["likelihood"], decoder=parts["decoder"])
    method = pv.SVI(epochs=options.epochs, objective=parts.get("objective", pv.ELBO()))
    fit = pv.fit(model, data, guide=parts["guide"], method=method)
    numbers = fit.evaluate(data.test, samples=options.samples)
    images = [fit.reconstruct(data.test), fit.sample(300, means=True), fit.sample(300)]
    shown = [sharpness(x) / sharpness(levels.test.x) for x in images]
    nats = f"{numbers['elbo']:8.2f} {numbers['iwae']:10.2f} {numbers['kl']:6.2f}"
    print(f"{name:<22} {nats} {shown[0]:14.2f} {shown[1]:6.2f} {shown[2]:6.2f} {time.process_time() - began:4.0f}", flush=True)
    draw(axes[place + 1], name, images)
plots.save(figure, options.out)
print(f"saved in {options.out}")
