"""Do single dimensions of the codes stand for single factors? A sweep of beta on sprites whose factors are known.

A larger weight on the KL makes dimensions dear: fewer are used, each for one thing (Higgins et al. 2017), at the price
of the ELBO. The mutual information gap (MIG) and the disentanglement, completeness and informativeness of the codes (DCI) stand
beside it; one seed says little about a method (Locatello et al. 2019), so take several.
"""

from __future__ import annotations

import argparse

import torch

import ppl_vae as pv
from ppl_vae import plots
from ppl_vae.data.sprites import FACTORS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--betas", type=float, nargs="+", default=[1.0, 4.0, 10.0])
    parser.add_argument("--latent-dim", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--hidden", type=int, default=200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", default="disentanglement.png", help="the traversal of the fit with the largest MIG")
    options = parser.parse_args()

    data = pv.load_data("sprites")
    rows = pv.load_data("sprites", fields=tuple(FACTORS)).test  # the same rows, with their factors
    network = pv.MLP(hidden=(options.hidden, options.hidden))
    model = pv.VAE(latent_dim=options.latent_dim, decoder=network)
    print(f"{'beta':>5} {'seed':>4} {'test ELBO':>10} {'KL':>7} {'active':>6} {'MIG':>6} {'D':>6} {'C':>6} {'I':>6}")
    best: tuple[float, pv.Fit, float] | None = None
    for beta in options.betas:
        for seed in options.seeds:
            objective = pv.BetaELBO(beta=beta, warm_up=pv.LinearWarmUp(epochs=max(1, options.epochs // 4)))
            method = pv.SVI(epochs=options.epochs, objective=objective, seed=seed)
            fit = pv.fit(model, data, guide=pv.AmortizedNormal(encoder=network), method=method)
            numbers, scores = fit.evaluate(data.test), fit.disentanglement(rows)
            dci = " ".join(f"{scores[name]:6.3f}" for name in ("disentanglement", "completeness", "informativeness"))
            active = int((fit.encode(data.test).var(0) > 0.01).sum())
            print(f"{beta:5g} {seed:4d} {numbers['elbo']:10.2f} {numbers['kl']:7.2f} {active:6d} {scores['mig']:6.3f} {dci}")
            if best is None or scores["mig"] > best[0]:
                best = scores["mig"], fit, beta

    assert best is not None
    _, fit, beta = best
    found = fit.traverse(data.test, around=data.test[0], seen=True, active=False)
    kl = torch.zeros(len(found.dimensions)) if found.kl is None else found.kl
    names = [f"{name}: {nats:.2f} nats" for name, nats in zip(found.dimensions, kl.tolist(), strict=True)]
    levels = [f"{level:.2f}" for level in found.levels.tolist()]
    title = f"beta = {beta:g}, quantiles of p(z) around a test sprite"
    plots.save(plots.walks(found.decoded, names, levels, kind=fit.spec.kind, title=title), options.out)
    print(f"saved in {options.out}")


if __name__ == "__main__":
    main()
