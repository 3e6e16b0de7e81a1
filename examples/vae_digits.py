"""A variational autoencoder on handwritten digits: fit, look at the numbers, save the run.

The test ELBO bounds the log-likelihood from below; more samples per digit tighten the bound (Burda et al. 2016).
"""

from __future__ import annotations

import argparse

import ppl_vae as pv


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="a named set, a file or a folder of images")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--latent-dim", type=int, default=8)
    parser.add_argument("--samples", type=int, default=100, help="per datum, for the tighter bound")
    parser.add_argument("--out", help="a run folder: declaration, weights, history, pictures")
    options = parser.parse_args()

    data = pv.load_data(options.data)
    fitted = pv.fit(
        pv.VAE(latent_dim=options.latent_dim, decoder=pv.MLP(hidden=(200,))),
        data,
        guide=pv.AmortizedNormal(encoder=pv.MLP(hidden=(200,))),
        method=pv.SVI(epochs=options.epochs),
    )
    numbers = fitted.evaluate(data.test, samples=options.samples)
    print(f"{fitted.model}\n{fitted.guide}\n\nnats per datum, {numbers['n']} test data")
    print(f"{'reconstruction':>26}  {numbers['reconstruction']:9.3f}")
    print(f"{'KL':>26}  {numbers['kl']:9.3f}")
    print(f"{'ELBO':>26}  {numbers['elbo']:9.3f}  (standard error {numbers['elbo_se']:.3f})")
    if "iwae" in numbers:
        print(f"{f'bound with {options.samples} samples':>26}  {numbers['iwae']:9.3f}")
    if options.out is not None:
        print(f"\nsaved in {pv.save_run(fitted, data, options.out)}")


if __name__ == "__main__":
    main()
