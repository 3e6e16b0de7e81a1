"""What mean field loses: exact, coordinate ascent, gradient and sampled posteriors side by side.

A product of factors knows no dependence. Each factor settles where the others are at their means, so that what depends on
another variable comes out too narrow, and of several explanations one is chosen. Four posteriors show how much: a correlated
normal, two causes of one effect, the mean and variance of a normal, and a mixture whose components overlap.
"""

from __future__ import annotations

import argparse
import warnings

import pyro.distributions as dist
import torch
from torch import Tensor

import ppl_vae as pv


def of_a_correlated_normal(correlation: float) -> None:
    """In closed form: the best product has the diagonal of the precision matrix (Bishop 2006, section 10.1.2)."""
    covariance = torch.tensor([[1.0, correlation], [correlation, 1.0]])
    p = dist.MultivariateNormal(torch.zeros(2), covariance)
    q = dist.Normal(torch.zeros(2), p.precision_matrix.diagonal().rsqrt()).to_event(1)
    found = pv.divergence(p, q)
    print(f"a normal of correlation {correlation:g}: marginal sd 1, mean field {q.stddev[0]:.3f}")
    print(f"KL(q || p) {found.reverse} nats, KL(p || q) {found.forward}, JS {found.js}\n")


def of_two_causes() -> None:
    """Rain or a sprinkler wets the grass; seen wet, either explains the other away."""
    nodes = {
        "rain": pv.Table(states=("no", "yes"), probs=(0.7, 0.3)),
        "sprinkler": pv.Table(states=("no", "yes"), probs=(0.7, 0.3)),
        "wet": pv.Table(
            parents=("rain", "sprinkler"),
            states=("no", "yes"),
            probs=((0.99, 0.01), (0.1, 0.9), (0.1, 0.9), (0.05, 0.95)),
        ),
    }
    answer = pv.BayesianNetwork(nodes=nodes).query(["rain", "sprinkler"], {"wet": "yes"}).to_dict()
    exact = torch.tensor([list(row.values()) for row in answer["joint"].values()])
    q = [torch.tensor([0.4, 0.6]), torch.tensor([0.6, 0.4])]
    for _ in range(200):
        q = [(exact.log() @ q[1]).softmax(0), q[1]]
        q = [q[0], (exact.log().T @ q[0]).softmax(0)]
    product = torch.outer(*q)
    found = pv.divergence(dist.Categorical(exact.flatten()), dist.Categorical(product.flatten()))
    print("the grass is wet     p(rain)  p(sprinkler)  p(both)")
    for name, table in (("exact", exact), ("mean field", product)):
        print(f"{name:<20} {table[1].sum():7.3f} {table[:, 1].sum():13.3f} {table[1, 1]:8.3f}")
    print(f"KL(q || p) {found.reverse} nats by {found.reverse.how}\n")


def on_a_grid(x: Tensor) -> tuple[list[float], float]:
    """Means and standard deviations of mu and sigma^2 given x, and log p(x) / N, of the model below."""
    mu, s = torch.linspace(-3, 5, 801).double(), torch.linspace(0.05, 12, 1200).double()
    log_p = dist.Normal(0.0, 3.0).log_prob(mu)[:, None] + pv.RootInverseGamma().build(()).double()().log_prob(s)
    for each in x.double().flatten():
        log_p = log_p + dist.Normal(mu[:, None], s).log_prob(each)
    log_p = log_p + (mu[1] - mu[0]).log() + (s[1] - s[0]).log()
    weights = log_p.flatten().softmax(0).reshape(log_p.shape)
    moments = []
    for values in (mu[:, None].expand(log_p.shape), s.square().expand(log_p.shape)):
        mean = (weights * values).sum()
        moments += [mean.item(), (weights * (values - mean).square()).sum().sqrt().item()]
    return moments, log_p.flatten().logsumexp(0).item() / len(x)


def methods(options: argparse.Namespace) -> dict[str, tuple[pv.Method, pv.Guide | None]]:
    """Four ways to a posterior."""
    return {
        "NUTS": (pv.NUTS(samples=options.draws, warmup=options.draws // 2, chains=1), None),
        "CAVI": (pv.CAVI(), None),
        "SVI, mean field": (pv.SVI(epochs=options.epochs), pv.BayesianGuide()),
        "SVI, full rank": (pv.SVI(epochs=options.epochs), pv.BayesianGuide(parameters="full_rank")),
    }


def side_by_side(model: pv.Model, x: Tensor, options: argparse.Namespace, chosen: dict[str, tuple[str, int]]) -> None:
    """Posterior means and standard deviations of some parameters, and each method's bound on log p(x) / N."""
    data = pv.load_data(x, valid=0.0, test=0.0, scale="none")
    for name, (method, guide) in methods(options).items():
        fit = pv.fit(model, data, guide=guide, method=method)
        found = fit.parameters()
        cells = [(found[each].values.flat[place], found[each].se.flat[place]) for each, place in chosen.values()]
        bound = "        -" if name == "NUTS" else f"{fit.evaluate(data.train, samples=options.samples)['elbo']:9.3f}"
        print(f"{name:<18}" + "".join(f" {mean:7.3f} ± {sd:5.3f}" for mean, sd in cells) + f" {bound}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--correlation", type=float, default=0.9)
    parser.add_argument("--epochs", type=int, default=600, help="of SVI")
    parser.add_argument("--draws", type=int, default=600, help="of NUTS")
    parser.add_argument("--samples", type=int, default=100, help="of q, for its bound")
    options = parser.parse_args()
    warnings.simplefilter("ignore", pv.FitWarning)

    of_a_correlated_normal(options.correlation)
    of_two_causes()

    priors = {"weights": pv.Dirichlet(), "locs": pv.Normal(scale=3.0), "scales": pv.RootInverseGamma()}
    x = torch.tensor([[0.2], [1.9], [-0.7], [2.4], [1.1], [0.4]])
    print("one normal, 6 rows             mu          sigma^2     bound on log p(x) / N")
    moments, evidence = on_a_grid(x)
    print(f"{'exact':<18} {moments[0]:7.3f} ± {moments[1]:5.3f} {moments[2]:7.3f} ± {moments[3]:5.3f} {evidence:9.3f}")
    chosen = {"mu": ("mean", 0), "sigma^2": ("variance", 0)}
    side_by_side(pv.GMM(components=1, covariance="diagonal", **priors), x, options, chosen)

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(80, 1, generator=generator)
    x[:30] += 2.5
    print("\ntwo normals, 80 rows          pi_1            mu_1            mu_2   bound")
    chosen = {"pi_1": ("weight", 0), "mu_1": ("mean", 0), "mu_2": ("mean", 1)}
    side_by_side(pv.GMM(components=2, covariance="diagonal", **priors), x, options, chosen)


if __name__ == "__main__":
    main()
