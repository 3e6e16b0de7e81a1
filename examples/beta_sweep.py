"""Reconstruction against KL as beta goes from 1/10 to 4: a rate-distortion curve of the autoencoder.

With weight beta on the KL, training slides along the curve of the smallest distortion -E_q[log p(x | z)] for each rate
KL(q(z | x) || p(z)) (Alemi et al. 2018, "Fixing a broken ELBO"). Their sum is -ELBO, so a diagonal is a line of one ELBO, and
the curve touches the best of them near beta = 1.
"""

from __future__ import annotations

import argparse

import numpy as np
from matplotlib.figure import Figure

import ppl_vae as pv
from ppl_vae import plots


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="a named set or a file")
    parser.add_argument("--betas", type=float, nargs="+", default=[0.1, 0.2, 0.5, 1.0, 1.5, 2.0, 4.0])
    parser.add_argument("--latent-dim", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--out", default="beta_sweep.png", help="the picture")
    options = parser.parse_args()

    data = pv.load_data(options.data, binarize="dynamic")
    print(f"{'beta':>6} {'distortion':>11} {'rate':>7} {'test ELBO':>10} {'active units':>13}")
    points = []
    for beta in options.betas:
        method = pv.SVI(epochs=options.epochs, objective=pv.BetaELBO(beta=beta))
        fitted = pv.fit(pv.VAE(latent_dim=options.latent_dim), data, guide=pv.AmortizedNormal(), method=method)
        numbers = fitted.evaluate(data)
        active = int((fitted.encode(data.test).var(0) > 0.01).sum())  # Burda et al. 2016
        points.append((numbers["kl"], -numbers["reconstruction"]))
        print(f"{beta:6g} {points[-1][1]:11.3f} {points[-1][0]:7.3f} {numbers['elbo']:10.3f} {active:13d}")

    rate, distortion = np.array(points).T
    figure = Figure(figsize=(5, 4), layout="constrained")
    ax = figure.subplots()
    best = (rate + distortion).min()
    ax.axline((0, best), slope=-1, color="0.6", linewidth=1, label=f"ELBO = {-best:.1f}, the best of these")
    ax.plot(rate, distortion, "o-")
    for beta, *point in zip(options.betas, rate, distortion, strict=True):
        ax.annotate(f"{beta:g}", point, xytext=(5, 4), textcoords="offset points", fontsize="small")
    ax.set(xlabel="rate: KL(q(z | x) || p(z)), nats", ylabel="distortion: -E[log p(x | z)], nats", title="the number is beta")
    ax.margins(0.08)
    ax.legend(frameon=False)
    plots.save(figure, options.out)
    print(f"saved in {options.out}")


if __name__ == "__main__":
    main()
