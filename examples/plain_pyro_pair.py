"""Two plain Pyro functions with two latent variables, nothing declared: every verb of a fit works on them by their traces.

Each image has a brightness of its own, and a code z of two dimensions that says what it shows. Codes, reconstructions and new
data come from running the functions: means are fed forward in the guide, the model is replayed, and the distribution of its
observed site is read. The parameters come from ``pyro.param`` but end up in the pair, not in Pyro's global store. Only the
axes of a datum are named from the right: the bound with many samples adds a dimension on the left.
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
    """Brightness ~ LogNormal(0, 1/2); z ~ Normal(0, I); x ~ Normal(brightness * softplus(W z + b), s^2 I)."""
    features = x[0].numel()
    weight = pyro.param("weight", lambda: 0.1 * torch.randn(LATENT_DIM, features))
    bias = pyro.param("bias", torch.zeros(features))
    scale = pyro.param("scale", torch.tensor(0.5), constraint=constraints.positive)
    with pv.data_plate(size, x):
        brightness = pyro.sample("brightness", dist.LogNormal(0.0, 0.5))
        z = pyro.sample("z", dist.Normal(torch.zeros(LATENT_DIM), 1.0).to_event(1))
        loc = brightness[..., None] * torch.nn.functional.softplus(z @ weight + bias)
        pyro.sample("x", dist.Normal(loc.unflatten(-1, x.shape[1:]), scale).to_event(x.dim() - 1), obs=x)


def guide(x: Tensor, size: int) -> None:
    """q(brightness | x) is log-normal about the mean of x, q(z | brightness, x) normal about a linear map of x / brightness."""
    flat = x.flatten(1)
    slope = pyro.param("slope", torch.tensor([0.0, 1.0]))
    weight = pyro.param("guide_weight", lambda: 0.01 * torch.randn(flat.shape[1], LATENT_DIM))
    bias = pyro.param("guide_bias", torch.zeros(LATENT_DIM))
    spread = pyro.param("spread", torch.tensor(0.3), constraint=constraints.positive)
    factor = pyro.param("guide_factor", torch.eye(LATENT_DIM), constraint=constraints.lower_cholesky)
    with pv.data_plate(size, x):
        brightness = pyro.sample("brightness", dist.LogNormal(slope[0] + slope[1] * flat.mean(-1), spread))
        pyro.sample("z", dist.MultivariateNormal((flat / brightness[..., None]) @ weight + bias, scale_tril=factor))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="a named set of images")
    parser.add_argument("--epochs", type=int, default=30)
    options = parser.parse_args()

    data = pv.load_data(options.data, dequantize=True)
    size = len(data.train)
    method = pv.SVI(epochs=options.epochs, learning_rate=3e-3)
    fitted = pv.fit(partial(model, size=size), data, guide=partial(guide, size=size), method=method)
    numbers = fitted.evaluate(data, samples=100)
    print(f"ELBO                    {numbers['elbo']:9.3f} nats per datum")
    print(f"bound with 100 samples  {numbers['iwae']:9.3f}")
    codes = fitted.encode(data.test)
    print("codes                   ", {name: tuple(code.shape) for name, code in codes.items()})
    error = (fitted.reconstruct(data.test) - data.test.raw).square().mean().sqrt()
    print(f"reconstruction error    {error:9.3f} in units of the source")
    print(f"new data                 {tuple(fitted.sample(16).shape)}")
    print(
        f"KL by site               { ({name: round(site['kl'], 2) for name, site in fitted.latents(data)['sites'].items()}) }"
    )
    print(f"in Pyro's global store: {len(pyro.get_param_store())} parameters")


if __name__ == "__main__":
    main()
