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
from pyro.infer.autoguide import AutoDelta, AutoGuideList, AutoLowRankMultivariateNormal, AutoNormal, AutoNormalMessenger
from pyro.nn import PyroModule, PyroParam, PyroSample
from pyro.poutine.guide import GuideMessenger
from torch import Tensor, nn
from torch.distributions import constraints

import ppl_vae as pv
from ppl_vae.evaluate import elbo_terms
from ppl_vae.program.capture import CaptureError, check_agreement
from ppl_vae.types import FitWarning

N, D, STEPS, RATE = 60, 3, 400, 0.02


@pytest.fixture(autouse=True)
def store() -> Iterator[None]:
    """An empty parameter store before and after."""
    pyro.clear_param_store()
    yield
    pyro.clear_param_store()


def rows() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (
        1.0
        + torch.randn(N, 1, generator=generator) * torch.tensor([1.0, 0.7, -0.5])
        + 0.3 * torch.randn(N, D, generator=generator)
    )


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
            pyro.sample(
                "z", dist.Normal(layer(x - 1), pyro.param("q", torch.tensor(0.5), constraint=constraints.positive)).to_event(1)
            )

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


def seen_once(x: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(torch.zeros(D), 10.0).to_event(1))
    scale = pyro.param("scale", torch.ones(D), constraint=constraints.positive)
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mu, scale).to_event(1), obs=x)


def auto_by_effects() -> Programs:
    """Pyro's automatic guide that runs the model under itself, observations and all."""
    return Programs(seen_once, AutoNormalMessenger(seen_once), rows())


class OfEachRow(GuideMessenger):
    """A guide by effects of one's own."""

    def get_posterior(self, name: str, prior: Any) -> Any:
        (x,), _ = self.args_kwargs
        slope = pyro.param("slope", torch.zeros(D))
        return dist.Normal(x @ slope, pyro.param("width", torch.tensor(1.0), constraint=constraints.positive))


def guide_by_effects() -> Programs:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.deterministic("twice", 2 * z)
            pyro.sample("x", dist.Normal(1 + z[..., None] * torch.tensor([1.0, 0.7, -0.5]), 0.5).to_event(1), obs=x)

    return Programs(model, OfEachRow(model), rows())


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
        auto_by_effects,
        guide_by_effects,
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


def ours(made: Callable[[], Programs], compile: Any, *, epochs: int = STEPS) -> tuple[float, pv.Fit]:
    """The same of our fit with as many steps of all data."""
    torch.manual_seed(0)
    programs = made()
    method = pv.SVI(epochs=epochs, batch_size=N, learning_rate=RATE, schedule="constant", compile=compile)
    fit = pv.fit(programs.model, everything(programs.x), guide=programs.guide, method=method)
    last = [row[fit.pair.score] for row in fit.history[-100:]]
    assert dict(pyro.get_param_store()) == {}
    return sum(last) / len(last), fit


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_fit_ends_where_pyros_loop_ends(name: str) -> None:
    made = PROGRAMS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Pyro's own, of its masks and guides
        warnings.simplefilter("error", FitWarning)  # a fit that stays eager says so
        expected = pyros(made)
        recorded, fit = ours(made, "auto")
        _, eager = ours(made, False, epochs=40)
    assert recorded == pytest.approx(expected, abs=made().noise)
    for ours_, theirs in zip(fit.history, eager.history, strict=False):
        assert ours_[fit.pair.score] == pytest.approx(theirs[fit.pair.score], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_compiled_fit_is_the_recorded_one(name: str) -> None:
    compiled, _ = ours(PROGRAMS[name], True)
    recorded, _ = ours(PROGRAMS[name], "auto")
    assert compiled == pytest.approx(recorded, abs=2e-3)


# --- parameters -----------------------------------------------------------------------------------------------------------


def test_two_networks_of_one_name_are_both_trained() -> None:
    def half(net: nn.Module, encode: bool) -> Callable:
        def program(x: Tensor) -> None:
            pyro.module("net", net)
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(net(x) if encode else torch.zeros(2), 1.0).to_event(1))
                if not encode:
                    pyro.sample("x", dist.Normal(net(z), 1.0).to_event(1), obs=x)

        return program

    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)) @ torch.ones(3, 6) + 1
    ends = []
    for compile in (False, "auto"):
        torch.manual_seed(0)
        nets = nn.Linear(2, 6), nn.Linear(6, 2)
        method = pv.SVI(epochs=160, batch_size=70, learning_rate=0.01, compile=compile)
        fit = pv.fit(half(nets[0], False), x, guide=half(nets[1], True), method=method)
        assert {id(p) for p in fit.pair.parameters()} == {id(p) for net in nets for p in net.parameters()}
        ends.append(fit.history[-1])
    assert ends[0]["elbo"] > -13
    assert ends[1]["elbo"] == pytest.approx(ends[0]["elbo"], abs=1e-4)


def test_what_is_registered_belongs_to_the_pair_with_its_buffers() -> None:
    vae = PublicVAE()
    fit = pv.fit(vae.model, everything(rows()), guide=vae.guide, method=pv.SVI(epochs=3, batch_size=20))
    names = set(fit.pair.state_dict())
    assert {"model.decoder.0.weight", "model.decoder.1.running_mean", "guide.encoder.weight_ih_l0"} <= names
    assert fit.pair.model.decoder is vae.decoder
    assert int(vae.decoder[1].num_batches_tracked) > 9
    with torch.no_grad():
        assert vae.decoder.training
        fit.pair.eval()
        assert not vae.decoder.training


def test_a_parameter_of_both_halves_is_one() -> None:
    _, fit = ours(one_param_in_both, False, epochs=2)
    assert fit.pair.model.mean is fit.pair.guide.mean
    assert len(list(fit.pair.parameters())) == 1


class Unseen(torch.autograd.Function):
    """x w, in a function to which torch gives its arguments as they are."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return x * w

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, w = ctx.saved_tensors
        return gradient * w, (gradient * x).sum()


def out_of_sight() -> Programs:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])

    weight = nn.Parameter(torch.tensor(0.1))

    def guide(x: Tensor) -> None:
        pyro.param("weight", weight)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(Unseen.apply(x[:, 0], weight), 0.7))

    return Programs(model, guide, rows())


def test_a_record_that_loses_a_gradient_is_not_used() -> None:
    with pytest.warns(
        FitWarning, match=r"^steps are eager, not compiled: its record loses the gradient of pair.guide.weight: torch"
    ):
        _, fit = ours(out_of_sight, "auto")
    assert fit.pair.guide.weight.item() == pytest.approx(0.5, abs=0.15)
    with pytest.raises(ValueError, match=r"cannot be compiled \(its record loses the gradient"):
        ours(out_of_sight, True)


def annealed(weight: Callable[[], float]) -> Programs:
    """The KL counts by a weight that the program makes anew at every call."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            with poutine.scale(scale=weight()):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])

    def guide(x: Tensor) -> None:
        loc = pyro.param("loc", torch.tensor(0.0)) + x[:, 0]
        with pyro.plate("data", len(x)), poutine.scale(scale=weight()):
            pyro.sample("z", dist.Normal(loc, 0.7))

    return Programs(model, guide, rows())


def rising() -> Programs:
    """A weight that rises by 1e-4 from call to call."""
    calls = iter(range(100_000))
    return annealed(lambda: min(1.0, 0.01 + 1e-4 * next(calls)))


def test_a_weight_that_the_program_changes_is_not_recorded() -> None:
    ends = []
    for compile in (False, "auto"):
        programs = rising()
        method = pv.SVI(epochs=400, batch_size=N, learning_rate=RATE, compile=compile)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            fit = pv.fit(programs.model, everything(programs.x), guide=programs.guide, method=method)
        ends.append(fit.history[-1]["weighted_objective"])
    assert [str(warning.message)[:61] for warning in told] == ["steps are eager, not compiled: the program does something els"]
    assert ends[1] == pytest.approx(ends[0], abs=0.01)


def test_a_weight_in_a_tensor_is_recorded_and_seen_to_change() -> None:
    weight = torch.tensor(0.01)
    programs = annealed(lambda: weight)  # type: ignore[arg-type,return-value]

    def progress(row: Any) -> None:
        weight.fill_(min(1.0, row["epoch"] / 200))

    fits = []
    for compile in (False, "auto"):
        weight.fill_(0.01)
        method = pv.SVI(epochs=400, batch_size=N, learning_rate=RATE, compile=compile)
        with warnings.catch_warnings():
            warnings.simplefilter("error", FitWarning)
            data = everything(programs.x)
            fits.append(pv.fit(programs.model, data, guide=programs.guide, method=method, progress=progress))
    one, other = ([row["weighted_objective"] for row in fit.history] for fit in fits)
    assert other == pytest.approx(one, abs=1e-5)


def own_generator() -> Programs:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            mixing = torch.randn(2, D, generator=torch.Generator().manual_seed(5))
            pyro.sample("x", dist.Normal(z @ mixing, 1.0).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        weight = pyro.param("weight", torch.zeros(D, 2))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x @ weight, 0.7).to_event(1))

    return Programs(model, guide, rows())


def test_a_generator_of_the_programs_own_is_not_recorded() -> None:
    told = r"^steps are eager, not compiled: .*`mixing = .*`: it draws from a generator of its own"
    with pytest.warns(FitWarning, match=told):
        end, fit = ours(own_generator, "auto", epochs=300)
    assert end == pytest.approx(ours(own_generator, False, epochs=300)[0], abs=1e-6)
    numbers = [fit.evaluate(everything(rows()).train, samples=2)["elbo"] for _ in range(40)]
    assert numbers == [numbers[0]] * 40


def nothing_to_climb(x: Tensor) -> None:
    loc = pyro.param("loc", torch.tensor(0.5)).detach()
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(loc, 1.0))


@pytest.mark.parametrize("compile", [False, "auto", True])
def test_an_objective_that_depends_on_no_parameter_is_refused(compile: Any) -> None:
    model = annealed(lambda: 1.0).model
    with pytest.raises(ValueError, match=r"^the objective depends on no parameter, so there is nothing to climb: use the "):
        pv.fit(model, everything(rows()), guide=nothing_to_climb, method=pv.SVI(epochs=2, compile=compile))


@pytest.mark.parametrize("made", [with_param, with_module, per_datum, param_in_a_pyro_module, scalar_rows])
def test_a_warm_start_goes_on_from_an_earlier_fit_of_the_programs(made: Callable[[], Programs]) -> None:
    _, first = ours(made, False, epochs=300)
    still = pv.SVI(epochs=20, batch_size=N, learning_rate=1e-9, compile=False)
    second = pv.fit(first.model, everything(made().x), guide=first.guide, method=still, warm_start=first)
    end, start = ([row[first.pair.score] for row in fit.history] for fit in (first, second))
    assert sum(start) / 20 == pytest.approx(sum(end[-20:]) / 20, abs=0.1)
    for name, value in first.pair.state_dict().items():
        assert torch.allclose(value, second.pair.state_dict()[name], atol=1e-6)


def test_a_warm_start_of_other_data_is_refused_in_words() -> None:
    def guide(x: Tensor) -> None:
        loc = pyro.param("loc", lambda: torch.zeros(len(x)))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 0.7))

    programs = Programs(annealed(lambda: 1.0).model, guide, rows())
    _, first = ours(lambda: programs, False, epochs=1)
    method = pv.SVI(epochs=1, batch_size=N)
    with pytest.raises(ValueError, match=r"^a warm start needs an earlier fit of the same model to data of the same shape: "):
        pv.fit(programs.model, everything(programs.x[:30]), guide=programs.guide, method=method, warm_start=first)


def test_results_of_different_number_do_not_agree() -> None:
    with pytest.raises(CaptureError, match="its record does not repeat it"):
        check_agreement(lambda x: [x, x], lambda x: [x], [], [torch.ones(2)])


def test_a_module_that_is_another_at_every_call_is_refused() -> None:
    def model(x: Tensor) -> None:
        mean = pyro.module("net", nn.Linear(1, D))(torch.ones(1))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)

    with pytest.raises(ValueError, match=r"pyro.module\('net', ...\) is given another module than before, whose .*: make the"):
        pv.fit(model, everything(rows()), guide=lambda x: None, method=pv.SVI(epochs=2))


def test_a_parameter_that_comes_late_is_refused() -> None:
    def model(x: Tensor) -> None:
        name = "few" if len(x) < 20 else "many"
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(pyro.param(name, torch.zeros(D)), 1.0).to_event(1), obs=x)

    with pytest.raises(
        ValueError, match=r"the parameters pair.model.few were first asked for after the first batch.*: ask for all"
    ):
        pv.fit(model, everything(rows()), guide=nothing, method=pv.SVI(epochs=2, batch_size=25))


# --- the plate over the data ----------------------------------------------------------------------------------------------


def shared_mean(x: Tensor) -> None:
    m = pyro.sample("m", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(m, 1.0), obs=x[:, 0])


def narrow(x: Tensor) -> None:
    pyro.sample("m", dist.Normal(pyro.param("loc", torch.tensor(3.0)), 1e-3))


@pytest.mark.parametrize("size", [60, 64, 7])
def test_a_plate_as_large_as_its_batch_counts_all_the_data(size: int) -> None:
    data = everything(torch.zeros(60, 1))
    fit = pv.fit(shared_mean, data, guide=narrow, method=pv.SVI(epochs=1, batch_size=size, learning_rate=1e-9))
    kl = torch.distributions.kl_divergence(dist.Normal(3.0, 1e-3), dist.Normal(0.0, 1.0)).item() / 60
    assert fit.history[0]["kl"] == pytest.approx(kl, abs=0.02)
    for count in (60, 40, 1):
        assert elbo_terms(fit.pair, (torch.zeros(count, 1),), samples=2000).kl.mean().item() == pytest.approx(kl, abs=1e-3)
        assert fit.pair.plates(torch.zeros(count, 1)).size == 60
    assert fit.evaluate(data.train)["kl"] == pytest.approx(kl, abs=0.02)


def plates(latent: str, observed: str, proposed: str) -> Programs:
    """A latent variable of each datum under plates of these names, which are all over the data."""

    def model(x: Tensor) -> None:
        loc = pyro.param("loc", torch.zeros(D))
        over = {name: pyro.plate(name, len(x)) for name in dict.fromkeys((latent, observed))}
        with over[latent]:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with over[observed]:
            pyro.sample("x", dist.Normal(z[..., None] + loc, 1.0).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        slope = pyro.param("slope", torch.tensor(0.5))
        with pyro.plate(proposed, len(x)):
            pyro.sample("z", dist.Normal(slope * x[:, 0], 0.5))

    return Programs(model, guide, rows())


@pytest.mark.filterwarnings("ignore:Found plate statements in guide but not model")
@pytest.mark.parametrize("size", [60, 20, 16])
@pytest.mark.parametrize("names", [("data", "data", "batch"), ("latents", "data", "data"), ("a", "b", "c")])
def test_plates_over_the_data_may_have_several_names(names: tuple[str, str, str], size: int) -> None:
    method = pv.SVI(epochs=30, batch_size=size, learning_rate=RATE, compile=False)
    one, other = (
        pv.fit(programs.model, everything(programs.x), guide=programs.guide, method=method)
        for programs in (plates("data", "data", "data"), plates(*names))
    )
    for name in ("elbo", "reconstruction", "kl"):
        expected = [row[name] for row in one.history]
        assert [row[name] for row in other.history] == pytest.approx(expected, abs=1e-5)
    x = everything(rows()).train
    assert other.evaluate(x, samples=5) == pytest.approx(one.evaluate(x, samples=5), abs=1e-5)


def test_a_plate_that_has_the_size_of_a_batch_by_chance_is_refused_when_that_shows() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("groups", 20):
            m = pyro.sample("m", dist.Normal(0.0, 1.0))
        with pv.data_plate(N, x):
            pyro.sample("x", dist.Normal(m.mean(), 1.0), obs=x[:, 0])

    method = pv.SVI(epochs=1, batch_size=20, compile=False)
    fit = pv.fit(model, everything(rows()), guide=AutoNormal(model), method=method)
    with pytest.raises(ValueError, match=r"^the plate 'groups' had the size of a batch and now has 20 of 60, so nobody"):
        fit.evaluate(everything(rows()).train)


def local(guide: bool, n: int) -> Callable:
    """Each datum has a latent variable, and in the guide a location of its own."""

    def program(x: Tensor) -> None:
        with pv.data_plate(n, x) as numbers:
            q = dist.Normal(pyro.param("loc", lambda: torch.zeros(n))[numbers] if guide else 0.0, 0.5**0.5 if guide else 1.0)
            z = pyro.sample("z", q)
            if not guide:
                pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])

    return program


def event_dim(x: Tensor) -> None:
    """The same in Pyro's words: a parameter with an ``event_dim`` in a subsampled plate is subsampled with it."""
    with pv.data_plate(40, x):
        loc = pyro.param("loc", lambda: torch.zeros(40), event_dim=0)
        pyro.sample("z", dist.Normal(loc, 0.5**0.5))


LOCAL: dict[str, Callable[[], Callable]] = {
    "rows": lambda: local(True, 40),
    "event_dim": lambda: event_dim,
    "AutoNormal": lambda: AutoNormal(local(False, 40)),
    "AutoNormal with plates": lambda: AutoNormal(local(False, 40), create_plates=lambda x: pv.data_plate(40, x)),
}


@pytest.mark.parametrize(("size", "compile"), [(40, False), (10, "auto")])
@pytest.mark.parametrize("name", LOCAL)
def test_parameters_of_a_datum_are_trained_by_that_datum(name: str, size: int, compile: Any) -> None:
    x = torch.linspace(-3, 3, 40)[torch.randperm(40, generator=torch.Generator().manual_seed(0)), None]
    data = everything(x)
    guide = LOCAL[name]()
    method = pv.SVI(epochs=400 if size == 40 else 120, batch_size=size, learning_rate=0.1, compile=compile)
    fit = pv.fit(local(False, 40), data, guide=guide, method=method)
    location = next(value for name, value in fit.pair.guide.named_parameters() if "loc" in name)
    torch.testing.assert_close(location.detach(), data.train.raw[:, 0] / 2, atol=0.35, rtol=0)
    exact = dist.Normal(0.0, 2**0.5).log_prob(x).mean().item()
    assert fit.history[-1]["elbo"] == pytest.approx(exact, abs=0.15)
    if (name, size) == ("AutoNormal", 10):  # which remembers the size of its first batch
        with pytest.raises(
            ValueError, match=r"takes 10 of 40 data, but .* holds 40: .* automatic guide takes create_plates=lambda"
        ):
            fit.evaluate(data.train)
    else:
        assert fit.evaluate(data.train, samples=20)["elbo"] == pytest.approx(exact, abs=0.05)


@pytest.mark.parametrize("how", [lambda x: {"subsample": torch.arange(len(x))}, lambda x: {"subsample_size": len(x)}])
def test_an_automatic_guide_trains_its_rows_whatever_the_plate_is_called(how: Callable[[torch.Tensor], dict[str, Any]]) -> None:
    def model(x: torch.Tensor) -> None:
        with pyro.plate("cells", 40, **how(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])

    x = torch.linspace(-3, 3, 40)[torch.randperm(40, generator=torch.Generator().manual_seed(0)), None]
    data = everything(x)
    fit = pv.fit(model, data, guide=AutoNormal(model), method=pv.SVI(epochs=120, batch_size=10, learning_rate=0.1))
    location = next(value for name, value in fit.pair.guide.named_parameters() if "loc" in name)
    torch.testing.assert_close(location.detach(), data.train.raw[:, 0] / 2, atol=0.35, rtol=0)


@pytest.mark.filterwarnings("ignore:the ELBO still climbs")
def test_a_smaller_last_batch_has_its_rows_too() -> None:
    x = torch.linspace(-3, 3, 40)[:, None]
    for guide in (local(True, 40), AutoNormal(local(False, 40), create_plates=lambda x: pv.data_plate(40, x))):
        fit = pv.fit(local(False, 40), everything(x), guide=guide, method=pv.SVI(epochs=150, batch_size=12, learning_rate=0.1))
        location = next(value for name, value in fit.pair.guide.named_parameters() if "loc" in name)
        torch.testing.assert_close(location.detach(), x[:, 0] / 2, atol=0.35, rtol=0)


def test_other_data_have_no_rows_of_the_training_data() -> None:
    data = pv.load_data(torch.linspace(-3, 3, 57)[:, None], valid=0.1, test=0.2)
    n = len(data.train)
    with pytest.warns(FitWarning, match="other data have none of: there are no validation numbers"):
        fit = pv.fit(local(False, n), data, guide=local(True, n), method=pv.SVI(epochs=2, batch_size=10))
    assert "valid_elbo" not in fit.history[-1]
    with pytest.raises(
        ValueError, match=rf"each of {n} rows of the training data: expected those .* got 11 others: give data.train"
    ):
        fit.evaluate(data.test)
    method = pv.SVI(epochs=2, batch_size=10, patience=1)
    with (
        pytest.warns(FitWarning, match="no val"),
        pytest.raises(ValueError, match="leave patience and restore_best no validation"),
    ):
        pv.fit(local(False, n), data, guide=local(True, n), method=method)


def test_rows_of_numbers_reach_the_program_as_numbers() -> None:
    x = rows()[:, 0].clone()
    seen = []

    def model(x: Tensor) -> None:
        seen.append(tuple(x.shape))
        m = pyro.param("m", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(m, 1.0), obs=x)

    data = pv.load_data(x)
    fit = pv.fit(model, data, guide=lambda x: None, method=pv.SVI(epochs=2, batch_size=42))
    assert {len(shape) for shape in seen} == {1}
    m = fit.pair.model.m.detach()
    for given, values in ((data.test, data.test.x[:, 0]), (x[:5], x[:5])):
        assert fit.evaluate(given)["elbo"] == pytest.approx(dist.Normal(m, 1.0).log_prob(values).mean().item(), abs=1e-5)
    assert data.spec.event_shape == (1,)
    assert pv.fit(pv.GMM(components=2), data, method=pv.EM(max_iterations=2)).spec.event_shape == (1,)


# --- what is refused ------------------------------------------------------------------------------------------------------


def nothing(x: Tensor) -> None:
    pass


def fixed_plate(x: Tensor) -> None:
    m = pyro.sample("m", dist.Normal(0.0, 1.0))
    with pyro.plate("data", N):
        pyro.sample("x", dist.Normal(m, 1.0), obs=x[:, 0])


def batch_by_row(x: Tensor) -> None:
    with pv.data_plate(N, x) as numbers:
        pyro.sample("x", dist.Normal(pyro.param("m", torch.tensor(0.0)), 1.0), obs=x[numbers, 0])


def sequential(x: Tensor) -> None:
    m = pyro.sample("m", dist.Normal(0.0, 1.0))
    for row in pyro.plate("data", len(x)):
        pyro.sample(f"x_{row}", dist.Normal(m, 1.0), obs=x[row, 0])


def all_locations(x: Tensor) -> None:
    with pv.data_plate(N, x):
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.zeros(N)), 1.0))


def broadcast(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(torch.zeros(D), 1.0), obs=x)


SITE = r"^test_plain_programs.py:\d+ `pyro.sample\("
REFUSED: dict[str, tuple[Callable, Callable, str]] = {
    "parameter of all data": (
        local(False, N),
        all_locations,
        rf"{SITE}.*site 'z' of the guide: .* as rows: parameter\[rows\]`, or",
    ),
    "plate of all data": (
        fixed_plate,
        narrow,
        r"but 'x' in the plate 'data' of 60 \(dim -1\): write .* or give the method batch_size",
    ),
    "rows of a batch": (batch_by_row, nothing, rf"{SITE}.*out of .*x holds those rows already"),
    "a plate in sequence": (
        sequential,
        narrow,
        "no observed site stands in a pyro.plate over the 20 data .* 'x_0' in no plate",
    ),
    "an event that is none": (
        broadcast,
        nothing,
        rf"{SITE}.*site 'x' of the model: .* \('data' of 20\), got .*\.to_event\(1\)",
    ),
}


@pytest.mark.parametrize(("model", "guide", "message"), REFUSED.values(), ids=REFUSED)
def test_refusals_name_site_plate_and_line(model: Callable, guide: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pv.fit(model, everything(rows()), guide=guide, method=pv.SVI(epochs=1, batch_size=20))


def test_a_plate_of_all_data_is_refused_for_validation_data_before_the_first_step() -> None:
    data = pv.load_data(torch.cat([rows(), rows()])[:86], valid=0.1, test=0.2)
    assert len(data.train) == N
    with pytest.raises(ValueError, match=r"so it is for the 9 validation data: or load_data\(..., valid=0.0\)$"):
        pv.fit(fixed_plate, data, guide=narrow, method=pv.SVI(epochs=1, batch_size=N))


def test_a_guide_that_observes_what_the_model_does_is_refused() -> None:
    inner = AutoNormalMessenger(seen_once)
    with pytest.raises(ValueError, match="the guide observes x, as the model does"):
        pv.fit(seen_once, everything(rows()), guide=lambda x: inner(x), method=pv.SVI(epochs=1))
