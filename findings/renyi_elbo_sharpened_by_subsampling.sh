#!/usr/bin/env bash
# pyro-ppl 1.9.1: RenyiELBO puts the scale of a subsampled plate inside the exponent of the importance weights.
#
# Guess:     RenyiELBO(alpha=0, num_particles=K) is the importance-weighted bound; in a plate of N data of which B are drawn it is
#            N / B times the bound of these B data, an unbiased estimate of the bound of all N, and never above log p(x) on average.
# Behaviour: each log-weight is multiplied by N / B before the mean over particles is taken, log mean_k w_k^(N/B) instead of
#            (N/B) log mean_k w_k. The result grows with N / B and passes log p(x); the gradient goes to the best particle alone.
#            The same holds for poutine.scale by weights of rows. Trace_ELBO, which is linear in the terms, is right.
# Seen:      N = 1000, K = 20, log p(x) = -1.79 nats per datum: all data -1.80, batches of 100 -1.57, of 10 -1.47.
# Bitten:    whoever trains by RenyiELBO in minibatches (it becomes the more a "best of K" objective the smaller the batch), reads
#            the loss as a bound, compares it between batch sizes, or weighs rows by poutine.scale.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 torch==2.13.0 pyro-ppl==1.9.1
"$folder/venv/bin/python" - <<'PY'
import warnings

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import RenyiELBO, Trace_ELBO

pyro.set_rng_seed(0)
N, K = 1000, 20
x = 2**0.5 * torch.randn(N)
exact = dist.Normal(0.0, 2**0.5).log_prob(x).mean().item()  # z ~ N(0, 1), x ~ N(z, 1)


def model(batch):
    with pyro.plate("data", N, subsample_size=batch) as rows:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[rows])


def guide(batch):
    with pyro.plate("data", N, subsample_size=batch) as rows:
        pyro.sample("z", dist.Normal(x[rows] / 2, 1.0))  # wider than p(z | x) = N(x / 2, 1 / 2)


def bound(kind, batch, calls):
    how = {"num_particles": K, "vectorize_particles": True, "max_plate_nesting": 1}
    loss = RenyiELBO(alpha=0.0, **how) if kind == "renyi" else Trace_ELBO(**how)
    return -sum(loss.loss(model, guide, batch) for _ in range(calls)) / calls / N


with warnings.catch_warnings():
    warnings.simplefilter("error")  # nothing is said
    print(f"log p(x) = {exact:.2f} nats per datum")
    found = {}
    for batch, calls in ((N, 20), (100, 200), (10, 2000)):
        found[batch] = bound("renyi", batch, calls)
        print(f"batches of {batch}: RenyiELBO {found[batch]:.2f}, Trace_ELBO {bound('elbo', batch, calls):.2f}")
    assert exact - 0.1 < found[N] < exact, "the behaviour changed"
    assert found[10] > found[100] + 0.05 > exact + 0.2, "the behaviour changed"
    assert abs(bound("elbo", 10, 2000) - bound("elbo", N, 20)) < 0.05, "the behaviour changed"
PY
