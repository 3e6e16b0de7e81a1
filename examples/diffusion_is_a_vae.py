"""Diffusion is a VAE iterated: the ELBO of the digits' levels, term by term, from one step of noise to a thousand.

One step is a VAE with two groups of latent variables, z_1 near pure noise and z_0 near the data, and a guide that only adds
noise; T steps are a hierarchy of T + 1 groups, all of the size of the data, that share one network. Nats per datum of the test
digits: how well z_0 tells x, what z_T costs, and what the steps between them cost, which is all that there is to learn.
"""

from __future__ import annotations

import argparse
import math

import ppl_vae as pv

LEVELS = 17


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4, 16, 64, 256, 1000])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--variance", choices=["lower", "upper", "learned"], default="learned", help="of a step back")
    options = parser.parse_args()

    data = pv.load_data("digits", kind="categorical")
    likelihood, method = pv.Categorical(levels=LEVELS), pv.SVI(epochs=options.epochs)
    network = pv.MLP(hidden=(options.hidden, options.hidden), activation="silu")

    print(f"{'model':>12} {'ELBO':>9} {'log p(x|z)':>11} {'KL prior':>9} {'KL steps':>9} {'bits/dim':>9}")
    vae = pv.fit(pv.VAE(latent_dim=8, likelihood=likelihood, decoder=network), data, method=method).evaluate(data.test)
    tell("VAE", vae)
    for steps in options.steps:
        model = pv.Diffusion(steps=steps, denoiser=network, predicts="levels", variance=options.variance, likelihood=likelihood)
        tell(f"T = {steps}", pv.fit(model, data, method=method).evaluate(data.test))


def tell(name: str, numbers: dict[str, float]) -> None:
    """One row of the table."""
    keys = ("elbo", "reconstruction", "kl_prior", "kl_steps", "bits_per_dim")
    elbo, *parts = (numbers.get(key, math.nan) for key in keys)
    if "kl_prior" not in numbers:
        parts[1] = numbers["kl"]
    print(f"{name:>12} {elbo:9.2f} {parts[0]:11.2f} {parts[1]:9.2f} {parts[2]:9.2f} {parts[3]:9.3f}")


if __name__ == "__main__":
    main()
