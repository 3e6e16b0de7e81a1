"""Two plain Pyro functions, nothing declared: the library's fit and its numbers work on them as they are.

The model is factor analysis with isotropic noise; z, of two dimensions, has its exact posterior within the guide's family,
so the bound can become tight. The parameters come from ``pyro.param`` but end up in the pair, not in Pyro's global store.
Only the axes of a datum are named from the right: the bound with many samples adds a dimension on the left.
"""

from __future__ import annotations

import argparse
from functools import partial

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

import ppl_vae as pv

LATENT_DIM = 2


def model(x: Tensor, size: int) -> None:
    """Z ~ Normal(0, I); x | z ~ Normal(W z + b, s^2 I)."""
    features = x[0].numel()
    weight = pyro.param("weight", lambda: 0.1 * torch.randn(LATENT_DIM, features))
    bias = pyro.param("bias", torch.zeros(features))
    scale = pyro.param("scale", torch.tensor(0.5), constraint=constraints.positive)
    with pv.data_plate(size, x):
        z = pyro.sample("z", dist.Normal(torch.zeros(LATENT_DIM), 1.0).to_event(1))
        pyro.sample("x", dist.Normal((z @ weight + bias).unflatten(-1, x.shape[1:]), scale).to_event(x.dim() - 1), obs=x)


def guide(x: Tensor, size: int) -> None:
    """q(z | x) = Normal(A x + c, L L^T), one L for all data."""
    flat = x.flatten(1)
    weight = pyro.param("guide_weight", lambda: 0.01 * torch.randn(flat.shape[1], LATENT_DIM))
    bias = pyro.param("guide_bias", torch.zeros(LATENT_DIM))
    factor = pyro.param("guide_factor", torch.eye(LATENT_DIM), constraint=constraints.lower_cholesky)
    with pv.data_plate(size, x):
        pyro.sample("z", dist.MultivariateNormal(flat @ weight + bias, scale_tril=factor))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="a named set of images")
    parser.add_argument("--epochs", type=int, default=30)
    options = parser.parse_args()

    data = pv.load_data(options.data, dequantize=True)
    method = pv.SVI(epochs=options.epochs, learning_rate=3e-3)
    size = len(data.train)
    fitted = pv.fit(partial(model, size=size), data, guide=partial(guide, size=size), method=method)
    numbers = fitted.evaluate(data, samples=200)
    print(f"ELBO                    {numbers['elbo']:9.3f} nats per datum")
    print(f"bound with 200 samples  {numbers['iwae']:9.3f}")
    print(f"bits per dimension      {numbers['bits_per_dim']:9.3f}")
    for name, parameter in fitted.pair.named_parameters():
        print(f"{name:<22}  {tuple(parameter.shape)}")
    print(f"in Pyro's global store: {len(pyro.get_param_store())} parameters")


if __name__ == "__main__":
    main()
