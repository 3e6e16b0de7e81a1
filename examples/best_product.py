"""The best product of factors, of a correlated normal and of two causes of one effect.

Of a normal the best product has the diagonal of the precision matrix (Bishop 2006, section 10.1.2): it is as narrow as each
variable is given the others. Rain or a sprinkler wets the grass; seen wet, each explains the other away, which a product of two
factors cannot say. KL(q || p) is what the ELBO of that product lacks to log p(x).
"""

from __future__ import annotations

import argparse

import pyro.distributions as dist
import torch

import ppl_vae as pv

CERTAIN = (0.99, 0.01), (0.1, 0.9), (0.1, 0.9), (0.05, 0.95)  # dry or wet, by rain and sprinkler


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--correlation", type=float, default=0.9)
    parser.add_argument("--sweeps", type=int, default=200, help="of coordinate ascent")
    options = parser.parse_args()

    covariance = torch.tensor([[1.0, options.correlation], [options.correlation, 1.0]])
    p = dist.MultivariateNormal(torch.zeros(2), covariance)
    q = dist.Normal(torch.zeros(2), p.precision_matrix.diagonal().rsqrt()).to_event(1)
    found = pv.divergence(p, q)
    print(f"a normal of correlation {options.correlation:g}: marginal sd 1, of the product {q.stddev[0]:.3f}")
    print(f"KL(q || p) {found.reverse} nats, KL(p || q) {found.forward}, JS {found.js}\n")

    coin = pv.Table(states=("no", "yes"), probs=(0.7, 0.3))
    wet = pv.Table(parents=("rain", "sprinkler"), states=("no", "yes"), probs=CERTAIN)
    network = pv.BayesianNetwork(nodes={"rain": coin, "sprinkler": coin, "wet": wet})
    answer = network.query(["rain", "sprinkler"], {"wet": "yes"}).to_dict()
    exact = torch.tensor([list(row.values()) for row in answer["joint"].values()])
    rain, sprinkler = torch.tensor([0.4, 0.6]), torch.tensor([0.6, 0.4])
    for _ in range(options.sweeps):
        rain = (exact.log() @ sprinkler).softmax(0)
        sprinkler = (exact.log().T @ rain).softmax(0)
    product = torch.outer(rain, sprinkler)
    found = pv.divergence(dist.Categorical(exact.flatten()), dist.Categorical(product.flatten()))
    print("the grass is wet     p(rain)  p(sprinkler)  p(both)")
    for name, table in (("exact", exact), ("product", product)):
        print(f"{name:<20} {table[1].sum():7.3f} {table[:, 1].sum():13.3f} {table[1, 1]:8.3f}")
    print(f"KL(q || p) {found.reverse} nats by {found.reverse.how}")


if __name__ == "__main__":
    main()
