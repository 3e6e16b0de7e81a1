"""NumPyro: ``SVI.update`` under ``lax.scan`` in one jitted call an epoch; rows on the device, indices given every epoch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array, lax, random
from jax.example_libraries import stax
from jax.nn.initializers import variance_scaling
from numpyro.infer import SVI, TraceMeanField_ELBO

from benchmarks.peers.task import LEARNING_RATE, MIN_SCALE, Report, Size, Task, run_epochs

__all__ = ["parameters", "train"]

uniform = variance_scaling(1 / 3, "fan_in", "uniform")  # as torch's Linear starts


def mlp(hidden: int, outputs: int) -> tuple:
    """One hidden layer, as the initializer and the function."""
    return stax.serial(stax.Dense(hidden, W_init=uniform), stax.Relu, stax.Dense(outputs, W_init=uniform))


def svi(size: Size) -> SVI:
    """Model, guide, optimizer and objective."""

    def model(x: Array) -> None:
        decoder = numpyro.module("decoder", mlp(size.hidden, size.data), (size.batch, size.latent))
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(size.latent), jnp.ones(size.latent)).to_event(1))
            numpyro.sample("x", dist.Bernoulli(logits=decoder(z)).to_event(1), obs=x)

    def guide(x: Array) -> None:
        encoder = numpyro.module("encoder", mlp(size.hidden, 2 * size.latent), (size.batch, size.data))
        loc, raw_scale = jnp.split(encoder(x), 2, axis=-1)
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", dist.Normal(loc, jax.nn.softplus(raw_scale) + MIN_SCALE).to_event(1))

    return SVI(model, guide, numpyro.optim.Adam(LEARNING_RATE), TraceMeanField_ELBO())


def parameters(size: Size) -> int:
    """Numbers that are trained."""
    program = svi(size)
    state = program.init(random.PRNGKey(0), jnp.zeros((size.batch, size.data)))
    return sum(leaf.size for leaf in jax.tree.leaves(program.get_params(state)))


def train(task: Task, report: Report) -> None:
    """Train an epoch a call."""
    if task.device == "cuda" and jax.default_backend() != "gpu":
        raise ImportError("jax sees no GPU: install jax[cuda12]")
    program = svi(task.size)
    data = jnp.asarray(task.x, jnp.float32)
    state = program.init(random.PRNGKey(0), data[: task.size.batch])
    rng = np.random.default_rng(0)

    @jax.jit
    def scan(state: tuple, data: Array, order: Array) -> tuple:
        return lax.scan(lambda state, indices: program.update(state, data[indices]), state, order)

    def epoch() -> float:
        nonlocal state
        order = rng.permutation(len(task.x)).reshape(task.size.steps, task.size.batch)
        state, losses = scan(state, data, jnp.asarray(order))
        return float(losses.sum()) / len(task.x)

    run_epochs(task, report, epoch)
