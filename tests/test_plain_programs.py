"""Plain Pyro programs as their authors write them: a fit ends where Pyro's own loop ends, eager, recorded and compiled."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoDelta, AutoGuideList, AutoLowRankMultivariateNormal, AutoNormal
from pyro.nn import PyroModule, PyroParam, PyroSample
from torch import Tensor, nn
from torch.distributions import constraints

import ppl_vae as pv
from ppl_vae.evaluate import elbo_terms
from ppl_vae.inference.method import Remark

N, D, STEPS, RATE = 60, 3, 400, 0.02


@pytest.fixture(autouse=True)
def store() -> Iterator[None]:
    """An empty parameter store before and after."""
    pyro.clear_param_store()
    yield
    pyro.clear_param_store()


def rows() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 1.0 + torch.randn(N, 1, generator=generator) * torch.tensor([1.0, 0.7, -0.5]) + 0.3 * torch.randn(N, D, generator=generator)


def everything(x: Tensor) -> pv.Data:
    return pv.load_data(x, valid=0.0, test=0.0)


class Programs(NamedTuple):
    """A model and a guide of a batch, the data, and how far two fits may end from each other, in nats per datum."""

    model: Callable
    guide: Callable
    x: Tensor
    noise: float = 0.03


# --- programs of every sort -----------------------------------------------------------------------------------------------


def with_param() -> Programs:
    def model(x: Tensor) -> None:
        scale = pyro.param("scale", torch.tensor(2.0), constraint=constraints.positive)
        mu = pyro.sample("mu", dist.Normal(torch.zeros(D), 10.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mu, scale).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        loc = pyro.param("loc", torch.zeros(D))
        pyro.sample("mu", dist.Normal(loc, pyro.param("q", torch.ones(D), constraint=constraints.positive)).to_event(1))

    return Programs(model, guide, rows())


def with_module() -> Programs:
    decoder, encoder = nn.Linear(1, D), nn.Linear(D, 2)

    def model(x: Tensor) -> None:
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), 0.5).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        pyro.module("encoder", encoder)
        loc, raw = encoder(x).split(1, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, raw.exp()).to_event(1))

    return Programs(model, guide, rows())


class PublicVAE(nn.Module):
    """Model and guide are methods of one module, whose halves are registered: the form of Pyro's own example."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Sequential(nn.Linear(1, 8), nn.BatchNorm1d(8), nn.Softplus(), nn.Linear(8, D))
        self.encoder = nn.GRU(1, 2, batch_first=True)  # whose weights are held in a list as well

    def model(self, x: Tensor) -> None:
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("latent", dist.Normal(x.new_zeros(x.shape[0], 1), 1.0).to_event(1))
            pyro.sample("obs", dist.Normal(self.decoder(z), 0.5).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", x.shape[0]):
            loc, raw = self.encoder(x[..., None])[1][0].split(1, -1)
            pyro.sample("latent", dist.Normal(2 * loc, raw.exp()).to_event(1))


def public_vae() -> Programs:
    vae = PublicVAE()
    return Programs(vae.model, vae.guide, rows(), noise=0.1)


def shared_network() -> Programs:
    """One layer turns z into x and x into z; the model and the guide register it under one name."""
    layer = nn.Linear(D, 1, bias=False)

    def model(x: Tensor) -> None:
        pyro.module("layer", layer)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(1 + z @ layer.weight, 0.5).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        pyro.module("layer", layer)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(layer(x - 1), pyro.param("q", torch.tensor(0.5), constraint=constraints.positive)).to_event(1))

    return Programs(model, guide, rows())


class Line(PyroModule):
    def __init__(self) -> None:
        super().__init__()
        self.slope = PyroSample(dist.Normal(0.0, 5.0))
        self.offset = PyroSample(lambda module: dist.Normal(module.slope, 5.0))
        self.noise = PyroParam(torch.tensor(1.0), constraint=constraints.positive)
        self.layer = PyroModule[nn.Linear](1, 1, bias=False)

    def forward(self, x: Tensor) -> None:
        mean = self.slope * x[:, 1] + self.offset + self.layer(x[:, :1])[:, 0]
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(mean, self.noise), obs=x[:, 2])


def pyro_module() -> Programs:
    net = Line()
    return Programs(net, AutoNormal(net), rows(), noise=0.1)


def pyro_module_in_a_function() -> Programs:
    net = Line()
    guide = AutoNormal(poutine.block(net, hide_types=["param"]))

    def model(x: Tensor) -> None:
        net(x)

    return Programs(model, lambda x: guide(x), rows(), noise=0.1)


def linear(x: Tensor) -> None:
    weights = pyro.sample("weights", dist.Normal(torch.zeros(2), 2.0).to_event(1))
    scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(x[:, :2] @ weights, scale), obs=x[:, 2])


def auto_delta() -> Programs:
    return Programs(linear, AutoDelta(linear), rows())


def auto_low_rank() -> Programs:
    return Programs(linear, AutoLowRankMultivariateNormal(linear, rank=1), rows(), noise=0.1)


def auto_list() -> Programs:
    guide = AutoGuideList(linear)
    guide.append(AutoNormal(poutine.block(linear, expose=["weights"])))
    guide.append(AutoDelta(poutine.block(linear, expose=["scale"])))
    return Programs(linear, guide, rows(), noise=0.1)


def nested_plates() -> Programs:
    def model(x: Tensor) -> None:
        with pyro.plate("columns", D, dim=-1):
            mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
            with pyro.plate("data", len(x), dim=-2):
                z = pyro.sample("z", dist.Normal(mu, 1.0))
                pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(x: Tensor) -> None:
        slope = pyro.param("slope", torch.tensor(0.1))
        with pyro.plate("columns", D, dim=-1):
            mu = pyro.sample("mu", dist.Normal(pyro.param("loc", torch.zeros(D)), 0.1))
            with pyro.plate("data", len(x), dim=-2):
                pyro.sample("z", dist.Normal(mu + slope * (x - mu), 0.45))

    return Programs(model, guide, rows(), noise=0.1)


def unsized_plate() -> Programs:
    def model(x: Tensor) -> None:
        with pyro.plate("data"):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z + pyro.param("mean", torch.tensor(0.0)), 1.0), obs=x[:, 0])

    def guide(x: Tensor) -> None:
        with pyro.plate("data"):
            pyro.sample("z", dist.Normal(pyro.param("w", torch.tensor(0.1)) * (x[:, 0] - 1), 0.7))

    return Programs(model, guide, rows())


def masked() -> Programs:
    def model(x: Tensor) -> None:
        mean = pyro.param("mean", torch.zeros(D))
        with pyro.plate("data", len(x)), poutine.mask(mask=x[:, 0] > 0):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(mean + z[:, None], 1.0).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        w = pyro.param("w", torch.tensor(0.0))
        with pyro.plate("data", len(x)), poutine.mask(mask=x[:, 0] > 0):
            pyro.sample("z", dist.Normal(w * x.sum(-1), 0.5))

    return Programs(model, guide, rows())


def per_datum() -> Programs:
    def model(x: Tensor) -> None:
        with pyro.plate("data", N):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z[:, None], 1.0).expand([N, D]).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        loc = pyro.param("loc", lambda: torch.zeros(N))
        with pyro.plate("data", N):
            pyro.sample("z", dist.Normal(loc, pyro.param("q", torch.tensor(1.0), constraint=constraints.positive)))

    return Programs(model, guide, rows(), noise=0.1)


def auto_normal_of_a_local_variable() -> Programs:
    model = per_datum().model
    return Programs(model, AutoNormal(model), rows(), noise=0.1)


def scalar_rows() -> Programs:
    def model(x: Tensor) -> None:
        m = pyro.param("m", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(m, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        pass

    return Programs(model, guide, rows()[:, 0].clone())


def param_in_a_pyro_module() -> Programs:
    class Guide(PyroModule):
        def forward(self, x: Tensor) -> None:
            pyro.sample("m", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 0.2))

    def model(x: Tensor) -> None:
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        with pyro.plate("data", N, subsample=x):
            pyro.sample("x", dist.Normal(m, 1.0), obs=x[:, 0])

    return Programs(model, Guide(), rows())


def one_param_in_both() -> Programs:
    """A parameter that both halves ask for by its name is one, as in Pyro."""

    def model(x: Tensor) -> None:
        mean = pyro.param("mean", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(mean, 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x[:, 0])

    def guide(x: Tensor) -> None:
        mean = pyro.param("mean", torch.tensor(3.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.2 * mean + 0.8 * x[:, 0], 0.45))

    return Programs(model, guide, rows())


PROGRAMS: dict[str, Callable[[], Programs]] = {
    made.__name__: made
    for made in (
        with_param,
        with_module,
        public_vae,
        shared_network,
        pyro_module,
        pyro_module_in_a_function,
        auto_delta,
        auto_low_rank,
        auto_list,
        nested_plates,
        unsized_plate,
        masked,
        per_datum,
        auto_normal_of_a_local_variable,
        scalar_rows,
        param_in_a_pyro_module,
        one_param_in_both,
    )
}


# --- the law --------------------------------------------------------------------------------------------------------------


def pyros(made: Callable[[], Programs]) -> float:
    """The ELBO per datum, a mean over the last quarter of the steps, of Pyro's own loop."""
    pyro.clear_param_store()
    torch.manual_seed(0)
    programs = made()
    svi = SVI(programs.model, programs.guide, pyro.optim.Adam({"lr": RATE}), Trace_ELBO())
    losses = [svi.step(programs.x) for _ in range(STEPS)]
    pyro.clear_param_store()
    return -sum(losses[-100:]) / 100 / N


def ours(made: Callable[[], Programs], compile: Any, *, batch_size: int = N) -> tuple[float, pv.Fit]:
    """The same of our fit with equally many steps of all data."""
    torch.manual_seed(0)
    programs = made()
    epochs = STEPS * batch_size // N
    method = pv.SVI(epochs=epochs, batch_size=batch_size, learning_rate=RATE, schedule="constant", compile=compile)
    fit = pv.fit(programs.model, everything(programs.x), guide=programs.guide, method=method)
    last = [row["elbo"] for row in fit.history[-epochs // 4 :]]
    assert dict(pyro.get_param_store()) == {}
    return sum(last) / len(last), fit


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_fit_ends_where_pyros_loop_ends(name: str) -> None:
    made = PROGRAMS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Pyro's own, of its masks and guides
        warnings.simplefilter("error", Remark)  # a fit that stays eager says so
        expected = pyros(made)
        eager, _ = ours(made, False)
        recorded, _ = ours(made, "auto")
    assert eager == pytest.approx(expected, abs=made().noise)
    assert recorded == pytest.approx(eager, abs=1e-4)
