"""Digits of a rare style: does drawing rows by the density of their codes help those of whom there are few?

One training digit in twenty is white on black turned to black on white; the classifier and the generative model are fitted
together (DB-VAE, Amini et al. 2019). Nobody tells the fit of the styles: only the codes do. Test digits come in both styles,
and the accuracy of the worse one is what counts. Beside it rare rows repeated as often as evens the styles out, for which one
has to know them.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import ppl_vae as pv

NETWORK = pv.MLP(hidden=(100,))


def turned(x: np.ndarray, rare: np.ndarray) -> np.ndarray:
    """The rows, of which those that are rare have black and white exchanged."""
    return np.where(rare[:, None], 1 - x, x)


def fitted(x: np.ndarray, y: np.ndarray, sampling: pv.Sampling | None, epochs: int, seed: int) -> pv.Fit:
    data = pv.load_data(x, y=y, valid=0.0, test=0.0)
    model = pv.SemiSupervisedVAE(latent_dim=4, decoder=NETWORK)
    guide = pv.AmortizedClassifier(encoder=NETWORK, classifier=NETWORK, weight=20.0)
    return pv.fit(model, data, guide=guide, method=pv.SVI(epochs=epochs, learning_rate=1e-2, sampling=sampling, seed=seed))


def measured(fit: pv.Fit, test: tuple[np.ndarray, np.ndarray], rare: np.ndarray) -> list[float]:
    """Accuracy in both styles, the ELBO of both, and of how many training rows the draws tell as much."""
    x, y = test
    numbers: list[Any] = []
    for style in (False, True):
        rows = turned(x, np.full(len(x), style))
        numbers += [100 * fit.accuracy(rows, y=y)["accuracy"], fit.evaluate(rows)["elbo"]]
    return [*numbers, fit.history[-1].get("effective_rows", len(rare))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rare", type=float, default=0.05, help="share of the training digits that are turned")
    parser.add_argument("--alphas", type=float, nargs="+", default=[0.1, 0.01])
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    digits = pv.load_data("digits", binarize="static", valid=0.0)
    train, test = ((part.x.flatten(1).numpy().astype(np.float32), part.labels.numpy()) for part in (digits.train, digits.test))
    print(f"{'rows are drawn':<24} {'common style':>14} {'rare style':>14} {'ELBO common':>14} {'ELBO rare':>14} {'rows':>6}")
    ways = {"each once": None, **{f"LatentDensity, {alpha:g}": pv.LatentDensity(alpha=alpha) for alpha in options.alphas}}
    for name, sampling in {**ways, "repeated, styles known": None}.items():
        found = []
        for seed in range(options.seeds):
            rare = np.random.default_rng(seed).random(len(train[0])) < options.rare
            x, y = turned(train[0], rare), train[1]
            if name.startswith("repeated"):
                times = np.where(rare, round((~rare).sum() / max(1, rare.sum())), 1)
                x, y = np.repeat(x, times, axis=0), np.repeat(y, times)
            found.append(measured(fitted(x, y, sampling, options.epochs, seed), test, rare))
        mean, se = np.mean(found, 0), np.std(found, 0, ddof=min(1, options.seeds - 1)) / options.seeds**0.5
        cells = [f"{mean[place]:8.1f} ± {se[place]:3.1f}" for place in (0, 2, 1, 3)]
        print(f"{name:<24} {' '.join(f'{cell:>14}' for cell in cells)} {mean[4]:6.0f}", flush=True)


if __name__ == "__main__":
    main()
