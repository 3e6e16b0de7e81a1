"""Image completion by conditional variational autoencoders: 1, 2 or 3 quadrants are known, the others sampled.

The numbers are of the unknown pixels, in nats per image: what a network without latent variables reaches alone (the baseline),
the negative ELBO, and the importance-weighted bound. With --data mnist --binarize dynamic --epochs 50 it is the protocol of
Sohn, Lee and Yan (2015) on binary pixels.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import ppl_vae as pv
from ppl_vae import plots


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="a named set of images")
    parser.add_argument("--binarize", default="auto", help="auto, none, static or dynamic")
    parser.add_argument("--quadrants", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--baseline-epochs", type=int, default=10)
    parser.add_argument("--hidden", type=int, nargs="+", default=[100])
    parser.add_argument("--latent-dim", type=int, default=20)
    parser.add_argument("--samples", type=int, default=20, help="per image, for the importance-weighted bound")
    parser.add_argument("--out", type=Path, help="a folder for the pictures of completions")
    options = parser.parse_args()

    data = pv.load_data(options.data, binarize=options.binarize)
    network = pv.MLP(hidden=tuple(options.hidden))
    print("quadrants   baseline   -ELBO   -bound   (nats per image, unknown pixels)")
    for observed in options.quadrants:
        model = pv.CVAE(
            condition=pv.Quadrants(observed=observed),
            latent_dim=options.latent_dim,
            prior=pv.ConditionalNormal(network=network),
            decoder=network,
            baseline=pv.Baseline(network=network, epochs=options.baseline_epochs),
        )
        method = pv.SVI(epochs=options.epochs, batch_size=128, learning_rate=1e-3, restore_best=True)
        fitted = pv.fit(model, data, guide=pv.AmortizedNormal(encoder=network), method=method)
        numbers = fitted.evaluate(data, samples=options.samples)
        test = data.resolve(model.accepts).test
        x = fitted.seen(test)
        with torch.no_grad():
            baseline = -fitted.pair.model.guessed(x).log_prob(x).mean().item()
        print(f"{observed:9d} {baseline:10.2f} {-numbers['elbo']:7.2f} {-numbers['iwae']:8.2f}")
        if options.out is not None:
            samples = torch.stack([fitted.sample(10, x=test[:10], means=True, seed=seed) for seed in range(4)])
            known = fitted.pair.model.known_entries
            figure = plots.completions(x[:10], known, samples, kind="binary", title="completions: means given z")
            plots.save(figure, options.out / f"completions_{observed}.png")


if __name__ == "__main__":
    main()
