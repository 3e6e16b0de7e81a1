"""The Ising model below and above the critical coupling: exact marginals beside mean field and Bethe, draws, and denoising.

p(s) = exp(sum_bonds J s_i s_j + sum_i h_i s_i) / Z. The field pulls one corner up and the opposite one down.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import ppl_vae as pv
from ppl_vae import plots

METHODS = ("exact", "mean_field", "bethe")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--couplings", type=float, nargs="+", default=[0.2, 0.35, 0.5])
    parser.add_argument("--side", type=int, default=10, help="spins along each axis")
    parser.add_argument("--rate", type=float, default=0.15, help="of pixels that are flipped")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--out", default="ising", help="a folder for the pictures")
    options = parser.parse_args()

    out, side = Path(options.out), options.side
    slope = torch.linspace(-0.3, 0.3, side)
    field = tuple(map(tuple, (slope[:, None] + slope).tolist()))
    print(f"{'J':>5} {'mean field <=':>14} {'log Z / site':>13} {'<= strips':>10} {'Bethe':>9}   largest error of E[s]")
    for coupling in options.couplings:
        model = pv.Ising(shape=(side, side), coupling=coupling, field=field)
        values = {how: model.log_partition(how) / side**2 for how in (*METHODS, "upper")}
        maps = {how: model.magnetization(how) for how in METHODS}
        errors = {how: float((maps[how] - maps["exact"]).abs().max()) for how in METHODS[1:]}
        told = ", ".join(f"{how.replace('_', ' ')} {error:.3f}" for how, error in errors.items())
        numbers = f"{values['mean_field']:14.4f} {values['exact']:13.4f} {values['upper']:10.4f} {values['bethe']:9.4f}"
        print(f"{coupling:5.2f} {numbers}   {told}")
        plots.save(plots.lattice(maps, limits=(-1, 1)), out / f"marginals_{coupling:g}.png")

    coupling = options.couplings[-1]
    truth = pv.Ising(shape=(side, side), coupling=coupling).sample(options.images)
    flipped = torch.rand(truth.shape, generator=torch.Generator().manual_seed(1)) < options.rate
    seen = (torch.where(flipped, -truth, truth) > 0).float()
    model = pv.Ising(shape=(side, side), coupling=coupling, observed=pv.Flip(rate=options.rate))
    data = pv.load_data(seen, valid=0, test=0)
    print(f"\nimages of J = {coupling:g} with {float(flipped.float().mean()):.1%} of the pixels flipped")
    for name, method in (("exact", pv.ClosedForm()), ("mean field", pv.CAVI())):
        fit = pv.fit(model, data, method=method)
        wrong = float(((fit.encode(seen) > 0) != (truth > 0)).float().mean())
        print(f"{name:<10} {fit.evaluate(seen)['elbo']:9.3f} nats an image; {wrong:.1%} of the pixels wrong")
    triples = torch.stack([(truth[:8] + 1) / 2, seen[:8], (fit.encode(seen[:8]) + 1) / 2]).flatten(0, 1)
    plots.save(plots.grid(triples, columns=8, kind="unit_interval", title="truth, seen, mean field"), out / "denoised.png")
    print(f"saved in {out}")


if __name__ == "__main__":
    main()
