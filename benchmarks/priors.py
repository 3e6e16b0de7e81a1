"""Priors of one VAE on MNIST: what swapping p(z) changes, everything else being equal.

Dynamically binarized MNIST, encoder 784-300-300-2x40, decoder 40-300-300-784, Adam, one seed; the ELBO and the
importance-weighted bound of Burda et al. (2016) on the 10,000 test digits, binarized once. The comparison is that of Tomczak
and Welling (2018), who train for up to 2,000 epochs with early stopping.

    PPL_VAE_DATA=path/to/data python -m benchmarks.priors --epochs 20
"""

from __future__ import annotations

import argparse
import time

import ppl_vae as pv
from benchmarks import series

PRIORS: dict[str, pv.Prior] = {
    "standard normal": pv.StandardNormal(),
    "mixture of 500": pv.GaussianMixture(components=500),
    "VampPrior of 500": pv.VampPrior(components=500),
    "autoregressive flow": pv.AutoregressiveFlow(),
}


def measure(prior: pv.Prior, data: pv.Data, *, epochs: int, samples: int, hidden: int, latent_dim: int) -> dict[str, float]:
    """Train and evaluate a VAE with this prior."""
    network = pv.MLP(hidden=(hidden, hidden))
    model = pv.VAE(latent_dim=latent_dim, prior=prior, decoder=network)
    began = time.perf_counter()
    fitted = pv.fit(model, data, guide=pv.AmortizedNormal(encoder=network), method=pv.SVI(epochs=epochs, batch_size=100))
    trained = time.perf_counter()
    numbers = fitted.evaluate(data.test, samples=samples)
    names = ("elbo", "elbo_se", "kl", "iwae", "iwae_se")
    seconds = {"train_s": trained - began, "evaluate_s": time.perf_counter() - trained}
    return {name: numbers[name] for name in names} | seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--priors", nargs="+", choices=PRIORS, default=list(PRIORS))
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--hidden", type=int, default=300)
    parser.add_argument("--latent-dim", type=int, default=40)
    series.add_json(parser)
    options = parser.parse_args()
    data = pv.load_data(options.data, binarize="dynamic")
    sizes = {"epochs": options.epochs, "samples": options.samples, "hidden": options.hidden, "latent_dim": options.latent_dim}
    table: dict[str, dict[str, float]] = {}
    if not options.json:
        print(f"| prior | ELBO | KL | importance-weighted, {options.samples} samples | training s | evaluation s |")
        print("|---|---|---|---|---|---|")
    for name in options.priors:
        row = table[name] = measure(PRIORS[name], data, **sizes)
        if not options.json:
            bounds = [f"{row[bound]:.2f} +- {row[bound + '_se']:.2f}" for bound in ("elbo", "iwae")]
            seconds = f"{row['train_s']:.0f} | {row['evaluate_s']:.0f}"
            print(f"| {name} | {bounds[0]} | {row['kl']:.2f} | {bounds[1]} | {seconds} |", flush=True)
    if options.json:
        series.tell(table, options)


if __name__ == "__main__":
    main()
