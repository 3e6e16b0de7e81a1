"""A Gaussian mixture of two-dimensional digits fitted by EM, and by variational inference with two guides.

The digits are projected onto their first two principal axes. In variational inference Pyro sums over the component, so no
gradient is sampled through it; with the exact posterior it climbs log p(x) itself, while an amortized guide has to learn the
responsibilities and pays for what it misses in the gap, KL(q(k | x) || p(k | x)). Nats per datum; the distance is the root mean
square one of the matched means.
"""

from __future__ import annotations

import argparse

import torch

import ppl_vae as pv


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--components", type=int, default=10)
    parser.add_argument("--covariance", default="full", choices=["full", "tied", "diagonal", "spherical"])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=1, help="number of starts; each method begins where EM does")
    options = parser.parse_args()

    digits = pv.load_data("digits", binarize="none", valid=0.0, test=0.0)
    pca = pv.fit(pv.PPCA(latent_dim=2), digits, method=pv.ClosedForm())
    codes = pca.encode(digits.train)
    found = pv.compare(
        pv.GMM(components=options.components, covariance=options.covariance),
        pv.load_data(codes / codes.std(0), valid=0.0),
        methods=[pv.EM(), pv.SVI(epochs=options.epochs)],
        guides=[pv.ExactPosterior(), pv.AmortizedCategorical(encoder=pv.MLP(hidden=(50,)))],
        seeds=range(options.seeds),
    )
    print(found)
    best = max((fit for fits in found.fits for fit in fits), key=lambda fit: fit.evaluate(found.data.train)["log_likelihood"])
    weights = torch.softmax(best.pair.model.logits.detach(), 0).sort(descending=True).values
    print(f"\nweights of the best fit: {', '.join(f'{weight:.2f}' for weight in weights)}")


if __name__ == "__main__":
    main()
