"""Codes and their prior: one VQ-VAE, whose bound log p(x | k) + log p(k) rises as p(k) is learned on codes that stand still.

The codes are fitted under a uniform prior, which is what an untrained PixelCNN is, and then the PixelCNN alone. A VAE of the
same networks stands beside them: all numbers are bounds on log p(x) of the same binarized digits, in nats.
"""

from __future__ import annotations

import argparse
from typing import Any

import ppl_vae as pv
from ppl_vae import plots


def line(name: str, numbers: dict[str, Any]) -> None:
    halves = f"{numbers['reconstruction']:11.2f}{-numbers['kl']:11.2f}"
    used = f"{numbers['codes_used']:6} of {numbers['codes']}{numbers['code_perplexity']:12.1f}" if "codes" in numbers else ""
    print(f"{name:20}{numbers['elbo']:9.2f}{halves}{used}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--codes", type=int, default=32, help="how many vectors the codebook has")
    parser.add_argument("--channels", type=int, default=32, help="of all networks")
    parser.add_argument("--out", default="codes.png", help="the picture of codes")
    options = parser.parse_args()

    data = pv.load_data("digits", binarize="dynamic")
    network = pv.Conv(channels=(options.channels,), spatial=True)
    book = pv.Codebook(size=options.codes, dim=8, grid=(4, 4))
    prior = pv.PixelCNN(channels=options.channels, layers=3)
    model = pv.VQVAE(codebook=book, prior=prior, decoder=network)

    def method(*only: str) -> pv.SVI:
        return pv.SVI(epochs=options.epochs, restore_best=True, only=only)

    codes = pv.fit(model, data, method=method("guide", "model.codebooks", "model.decoder"))
    both = pv.fit(model, data, warm_start=codes, method=method("model.prior"))
    guide = pv.AmortizedNormal(encoder=network)
    vae = pv.fit(pv.VAE(latent_dim=16, decoder=network), data, guide=guide, method=method())

    print(f"{'nats per digit':20}{'bound':>9}{'log p(x|k)':>11}{'log p(k)':>11}{'codes used':>11}{'perplexity':>11}")
    for name, fit in {"uniform codes": codes, "PixelCNN of codes": both, "VAE": vae}.items():
        line(name, fit.evaluate(data.test))
    plots.save(plots.codes(both.encode(data.test), size=options.codes), options.out)
    print(f"codes of digits in {options.out}")


if __name__ == "__main__":
    main()
