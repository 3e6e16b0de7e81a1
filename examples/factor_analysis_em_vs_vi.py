"""Factor analysis fitted by EM, and by variational inference with four guides: one declaration, one table, one unit.

All log-likelihoods, ELBOs and gaps are exact, in nats per datum; the gap is KL(q(z | x) || p(z | x)). The linear guide with a
full covariance holds the exact posterior, so its gap can vanish; a diagonal one cannot follow a rotated posterior, and an
MLP has to learn the linear map. The distance is the largest principal angle, in radians, between the loadings' subspace and
EM's.
"""

from __future__ import annotations

import argparse

import torch

import ppl_vae as pv


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="a named set or a file")
    parser.add_argument("--latent-dim", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--noise", type=float, default=0.05, help="scale of noise added to the data: no column is constant")
    options = parser.parse_args()

    x = pv.load_data(options.data, binarize="none", valid=0.0, test=0.0).train.transformed()
    x = x + options.noise * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    guides = [
        pv.ExactPosterior(),
        pv.AmortizedLinear(),
        pv.AmortizedLinear(covariance="diagonal"),
        pv.AmortizedNormal(encoder=pv.MLP(hidden=(100,))),
    ]
    found = pv.compare(
        pv.FactorAnalysis(latent_dim=options.latent_dim),
        pv.load_data(x, valid=0.0),
        methods=[pv.EM(), pv.SVI(epochs=options.epochs)],
        guides=guides,
    )
    print(found)


if __name__ == "__main__":
    main()
