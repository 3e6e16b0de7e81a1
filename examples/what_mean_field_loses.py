"""What mean field loses: exact, sampled, coordinate-ascent and gradient posteriors of parameters side by side.

Of the mean and variance of one normal little is lost. Where two components overlap, the product of q(theta) and q(k) is as
narrow as if each row's component were known. Posterior means ± standard deviations, and bounds on log p(x) / N.
"""

from __future__ import annotations

import argparse
import warnings

import pyro.distributions as dist
import torch
from torch import Tensor

import ppl_vae as pv

PRIORS = {"weights": pv.Dirichlet(), "locs": pv.Normal(scale=3.0), "scales": pv.RootInverseGamma()}


def on_a_grid(x: Tensor) -> tuple[list[float], float]:
    """Means and standard deviations of mu and sigma^2 given x, and log p(x) / N, for one normal."""
    mu, s = torch.linspace(-3, 5, 801).double(), torch.linspace(0.05, 12, 1200).double()
    log_p = dist.Normal(0.0, 3.0).log_prob(mu)[:, None] + PRIORS["scales"].build(()).double()().log_prob(s)
    log_p = log_p + sum(dist.Normal(mu[:, None], s).log_prob(each) for each in x.double().flatten())
    log_p = log_p + (mu[1] - mu[0]).log() + (s[1] - s[0]).log()
    weights, moments = log_p.flatten().softmax(0).reshape(log_p.shape), []
    for values in (mu[:, None].expand(log_p.shape), s.square().expand(log_p.shape)):
        mean = (weights * values).sum()
        moments += [mean.item(), (weights * (values - mean).square()).sum().sqrt().item()]
    return moments, log_p.flatten().logsumexp(0).item() / len(x)


def side_by_side(components: int, x: Tensor, options: argparse.Namespace, chosen: list[tuple[str, int]]) -> None:
    """A row for each method."""
    model = pv.GMM(components=components, covariance="diagonal", **PRIORS)
    data, svi = pv.load_data(x, valid=0.0, test=0.0, scale="none"), pv.SVI(epochs=options.epochs)
    methods: dict[str, tuple[pv.Method, pv.Guide | None]] = {
        "NUTS": (pv.NUTS(samples=options.draws, warmup=options.draws // 2, chains=1), None),
        "CAVI": (pv.CAVI(), None),
        "SVI, mean field": (svi, pv.BayesianGuide()),
        "SVI, full rank": (svi, pv.BayesianGuide(parameters="full_rank")),
    }
    for name, (method, guide) in methods.items():
        fit = pv.fit(model, data, guide=guide, method=method)
        found = fit.parameters()
        cells = [f" {found[each].values.flat[place]:7.3f} ± {found[each].se.flat[place]:5.3f}" for each, place in chosen]
        elbo = fit.evaluate(data.train, samples=options.samples)["elbo"]
        print(f"{name:<16}{''.join(cells)}", "        -" if name == "NUTS" else f"{elbo:9.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=300, help="of SVI")
    parser.add_argument("--draws", type=int, default=400, help="of NUTS")
    parser.add_argument("--samples", type=int, default=200, help="of q, for its bound")
    options = parser.parse_args()
    warnings.simplefilter("ignore", pv.FitWarning)

    x = torch.tensor([[0.2], [1.9], [-0.7], [2.4], [1.1], [0.4]])
    (mean, mean_sd, variance, variance_sd), evidence = on_a_grid(x)
    print("one normal, 6 rows           mu         sigma^2     bound")
    print(f"{'exact':<16} {mean:7.3f} ± {mean_sd:5.3f} {variance:7.3f} ± {variance_sd:5.3f} {evidence:9.3f}")
    side_by_side(1, x, options, [("mean", 0), ("variance", 0)])

    x = torch.randn(80, 1, generator=torch.Generator().manual_seed(0))
    x[:30] += 2.5
    print("\ntwo normals, 80 rows       pi_1            mu_1            mu_2     bound")
    side_by_side(2, x, options, [("weight", 0), ("mean", 0), ("mean", 1)])


if __name__ == "__main__":
    main()
