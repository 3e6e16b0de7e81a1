"""One model, its parts replaced one at a time: two priors, two guides, two likelihoods.

Binary digits under a Bernoulli likelihood and gray, dequantized digits under a Gaussian one are different data, so their
numbers stand in two tables: log-probabilities of black and white patterns, and of gray levels.
"""

from __future__ import annotations

import argparse
import dataclasses

import ppl_vae as pv

Pairs = dict[str, tuple[pv.Model, pv.Guide]]


def report(title: str, data: pv.Data, pairs: Pairs, epochs: int) -> None:
    """Fit each pair to the same data and print a line of each."""
    print(f"{title:<32}  {'test ELBO':>10}  {'KL':>7}  {'100 samples':>11}")
    for name, (model, guide) in pairs.items():
        numbers = pv.fit(model, data, guide=guide, method=pv.SVI(epochs=epochs)).evaluate(data, samples=100)
        print(f"{name:<32}  {numbers['elbo']:10.3f}  {numbers['kl']:7.3f}  {numbers['iwae']:11.3f}")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="a named set of images")
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()

    vae, guide = pv.VAE(latent_dim=8), pv.AmortizedNormal()
    mixture = dataclasses.replace(vae, prior=pv.GaussianMixture(components=10))
    full = dataclasses.replace(guide, covariance="full")
    binary = pv.load_data(options.data, binarize="dynamic")
    pairs: Pairs = {"as it is": (vae, guide), "prior: GaussianMixture": (mixture, guide), "guide: full covariance": (vae, full)}
    report("black and white, Bernoulli", binary, pairs, options.epochs)

    shared = dataclasses.replace(vae, likelihood=pv.Gaussian(scale="shared"))
    amortized = dataclasses.replace(vae, likelihood=pv.Gaussian(scale="amortized"))
    gray = pv.load_data(options.data, dequantize=True)
    pairs = {"scale: shared": (shared, guide), "scale: amortized": (amortized, guide)}
    report("gray, Gaussian", gray, pairs, options.epochs)


if __name__ == "__main__":
    main()
