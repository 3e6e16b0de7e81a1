"""Losses of Pyro's own and of a user's as the objective: the same gradients, and words for what is not guarded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import infer
from torch import Tensor, nn
from torch.distributions import constraints

import ppl_vae as pv
from ppl_vae.inference.objectives.given import objective_of
from ppl_vae.types import FitWarning

N = 40


@pytest.fixture(autouse=True)
def store() -> Iterator[None]:
    """A parameter in the store, which stays as it is."""
    pyro.clear_param_store()
    kept = pyro.param("mine", torch.ones(2))
    yield
    found = pyro.get_param_store()
    assert list(found) == ["mine"]
    assert found["mine"] is kept
    pyro.clear_param_store()


def reals() -> Tensor:
    return 1.5 + torch.randn(N, 2, generator=torch.Generator().manual_seed(0))


def everything(x: Tensor) -> pv.Data:
    return pv.load_data(x, valid=0.0, test=0.0)


def model(x: Tensor) -> None:
    loc = pyro.param("loc", torch.zeros(2))
    with pyro.plate("data", N, subsample=x):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
        pyro.sample("x", dist.Normal(loc + z[..., None], 0.7).to_event(1), obs=x)


def guide(x: Tensor) -> None:
    weight = pyro.param("weight", torch.full((2,), 0.1))
    scale = pyro.param("scale", torch.tensor(0.8), constraint=constraints.positive)
    with pyro.plate("data", N, subsample=x):
        pyro.sample("z", dist.Normal(x @ weight, scale))


def switched(x: Tensor) -> None:
    locs = pyro.param("locs", torch.tensor([[0.0, 1.0], [2.0, 1.0]]))
    with pyro.plate("data", N, subsample=x):
        z = pyro.sample("z", dist.Bernoulli(torch.full((len(x),), 0.3)))
        pyro.sample("x", dist.Normal(torch.where(z[..., None] > 0, locs[1], locs[0]), 0.7).to_event(1), obs=x)


def switch(baseline: dict[str, Any], summed: str | None = None) -> Callable:
    net = nn.Sequential(nn.Linear(2, 1), nn.Flatten(0))
    nn.init.constant_(net[0].weight, 0.1)
    nn.init.zeros_(net[0].bias)
    options = {**baseline, **({"nn_baseline": net} if "nn_baseline" in baseline else {})}

    def guide(x: Tensor) -> None:
        bias = pyro.param("bias", torch.tensor(0.2))
        if "nn_baseline" in options:
            pyro.module("predictor", net)
            options["nn_baseline_input"] = x
        asked: dict[str, Any] = {"baseline": dict(options)} if options else {}
        with pyro.plate("data", N, subsample=x):
            logits = bias + x[:, 0]
            pyro.sample("z", dist.Bernoulli(logits=logits), infer={**asked, **({"enumerate": summed} if summed else {})})

    return guide


def weighed(model: Any, guide: Any, x: Tensor) -> Tensor:
    """A loss of one's own: the KL counts half."""
    q = pyro.poutine.trace(guide).get_trace(x)
    p = pyro.poutine.trace(pyro.poutine.replay(model, trace=q)).get_trace(x)
    kl = q.log_prob_sum(lambda name, site: name == "z") - p.log_prob_sum(lambda name, site: name == "z")
    return 0.5 * kl - p.log_prob_sum(lambda name, site: name == "x")


AVERAGE = {"use_decaying_avg_baseline": True, "baseline_beta": 0.5}
LOSSES: dict[str, tuple[Any, Callable, Callable]] = {
    "Trace": (infer.Trace_ELBO(num_particles=2), model, guide),
    "vectorized": (infer.Trace_ELBO(num_particles=3, vectorize_particles=True), model, guide),
    "TraceMeanField": (infer.TraceMeanField_ELBO(), model, guide),
    "TraceEnum": (infer.TraceEnum_ELBO(max_plate_nesting=1), switched, switch({}, "parallel")),
    "TraceGraph": (infer.TraceGraph_ELBO(), switched, switch({})),
    "average": (infer.TraceGraph_ELBO(), switched, switch(AVERAGE)),
    "network": (infer.TraceGraph_ELBO(), switched, switch({**AVERAGE, "nn_baseline": True})),
    "value": (infer.TraceGraph_ELBO(), switched, switch({"baseline_value": torch.full((N,), 2.0)})),
    "Renyi": (infer.RenyiELBO(num_particles=3), model, guide),
    "wake": (infer.ReweightedWakeSleep(num_particles=3, max_plate_nesting=1), model, guide),
    "own": (weighed, model, guide),
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradients_are_pyros_own_over_n(name: str) -> None:
    loss, model, guide = LOSSES[name]
    x = reals()
    spec = everything(x).spec
    pair = pv.build(model, guide, spec)
    pair.plates(x)
    module = objective_of(loss).build(pair)
    parameters = {name: value for name, value in pair.named_parameters() if not name.endswith(("0.weight", "0.bias"))}
    ours = []
    for seed in range(3):
        torch.manual_seed(seed)
        with pyro.settings.context(module_local_params=True):
            found = module(x)
        ours.append([-found.loss.detach() * N, *(N * g for g in torch.autograd.grad(found.loss, list(parameters.values())))])
        assert all(parameter.grad is None for parameter in pair.parameters())
    with pyro.get_param_store().scope():
        for seed, (objective, *gradients) in enumerate(ours):
            torch.manual_seed(seed)
            if isinstance(loss, infer.ELBO):
                value = loss.loss_and_grads(model, guide, x)
            else:
                value = loss(model, guide, x)
                value.backward()
            value = value[0] if isinstance(value, tuple) else value
            torch.testing.assert_close(objective, -torch.as_tensor(value).detach(), rtol=1e-4, atol=1e-4)
            for name, gradient in zip(parameters, gradients, strict=True):
                theirs = pyro.get_param_store()[name.partition(".")[2].replace("__", ".")].unconstrained()
                torch.testing.assert_close(gradient, theirs.grad, rtol=1e-4, atol=1e-4)
                theirs.grad = None


@pytest.mark.parametrize("name", ["Trace", "TraceGraph", "Renyi", "own"])
def test_the_history_says_what_was_climbed(name: str) -> None:
    loss, model, guide = LOSSES[name]
    x = reals()
    with pytest.warns(FitWarning, match="is taken as it is"):
        fitted = pv.fit(model, pv.load_data(x, valid=0.2, test=0.0), guide=guide, method=pv.SVI(objective=loss, epochs=2))
    row = fitted.history[-1]
    elbo = name in ("Trace", "TraceGraph")
    assert row["objective_name"] == (type(loss).__name__ if name != "own" else "weighed")
    assert ("elbo" in row) == elbo
    assert not elbo or row["elbo"] == row["objective"]
    assert {"objective", "valid_elbo"} <= set(row)
    assert not {"kl", "reconstruction"} & set(row)
    assert np.isfinite(fitted.evaluate(x)["elbo"])


def test_the_weights_of_renyis_particles_in_batches_are_told() -> None:
    method = pv.SVI(objective=infer.RenyiELBO(num_particles=3, alpha=0.5), epochs=1, batch_size=10)
    with pytest.warns(FitWarning, match=r"power N / batch, .* passes log p\(x\): Renyi\(alpha=0.5, samples=3\) does not"):
        pv.fit(model, pv.load_data(reals(), valid=0.2, test=0.0), guide=guide, method=method)


@pytest.mark.parametrize("samples", [1, 3])
def test_bounds_of_batches_are_means_of_bounds_of_all(samples: int) -> None:
    x = reals()
    pair = pv.build(model, guide, everything(x).spec)
    pair.plates(x)
    for objective in (pv.IWAE(samples=samples), pv.Renyi(alpha=0.5, samples=samples)):
        module, values = objective.build(pair), {}
        for rows in (len(x), 10):
            torch.manual_seed(0)
            with torch.no_grad():
                values[rows] = torch.stack([-module(part).loss for _ in range(100) for part in x.split(rows)]).mean().item()
        assert values[10] == pytest.approx(values[len(x)], abs=0.1)


@pytest.mark.parametrize("name", ["Trace", "own"])
def test_recorded_steps_are_the_eager_ones(name: str) -> None:
    loss, model, guide = LOSSES[name]
    ends = []
    for compile in (False, "auto"):
        method = pv.SVI(objective=loss, epochs=301, batch_size=N, compile=compile)
        with pytest.warns(FitWarning, match="is taken as it is"):
            fitted = pv.fit(model, everything(reals()), guide=guide, method=method)
        ends.append([value.detach() for value in fitted.pair.parameters()])
    torch.testing.assert_close(ends[1], ends[0], rtol=0, atol=0)


def test_a_baseline_ends_where_pyros_own_loop_ends() -> None:
    x = reals()
    programs = switched, switch({**AVERAGE, "nn_baseline": True})
    method = pv.SVI(objective=infer.TraceGraph_ELBO(), epochs=300, batch_size=N, learning_rate=0.03, schedule="constant")
    with pytest.warns(FitWarning, match="steps are eager"):
        fitted = pv.fit(programs[0], everything(x), guide=programs[1], method=method)
    ours = np.mean([row["elbo"] for row in fitted.history[-75:]])
    with pyro.get_param_store().scope():
        svi = infer.SVI(
            switched, switch({**AVERAGE, "nn_baseline": True}), pyro.optim.Adam({"lr": 0.03}), infer.TraceGraph_ELBO()
        )
        torch.manual_seed(0)
        theirs = np.mean([-svi.step(x) / N for _ in range(300)][-75:])
    assert ours == pytest.approx(theirs, abs=0.05)
    predictor = dict(fitted.pair.guide.named_parameters())
    assert any(not torch.equal(value, torch.zeros_like(value)) for name, value in predictor.items() if name.endswith("bias"))


@pytest.mark.parametrize("objective", [pv.ELBO(), infer.Trace_ELBO()])
def test_a_baseline_that_nobody_reads_is_named(objective: Any) -> None:
    method = pv.SVI(objective=objective, epochs=1)
    with pytest.warns(FitWarning) as said:
        pv.fit(switched, everything(reals()), guide=switch(AVERAGE), method=method)
    (told,) = [str(remark.message) for remark in said if "baseline" in str(remark.message)]
    assert "of z is ignored" in told
    assert "TraceGraph_ELBO()" in told


def test_a_declared_model_takes_a_given_loss_but_no_run_folder(tmp_path: Path) -> None:
    method = pv.SVI(objective=infer.Trace_ELBO(), epochs=1, batch_size=200)
    with pytest.warns(FitWarning, match="Trace_ELBO is taken as it is"):
        fitted = pv.fit(pv.VAE(), "digits", method=method)
    assert fitted.history[-1]["elbo"] == fitted.history[-1]["objective"]
    out = tmp_path / "run"
    with pytest.raises(ValueError, match="holds an object that no YAML can name: use it without a run folder"):
        pv.fit(pv.VAE(), "digits", method=method, out=out)
    with pytest.raises(ValueError, match="no YAML can name"):
        pv.save_run(fitted, pv.load_data("digits"), out)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="no YAML can name"):
        method.to_yaml()


@pytest.mark.parametrize(
    ("objective", "told"),
    [
        (infer.Trace_ELBO, r"expected objective: Objective, got <class .*Trace_ELBO"),
        ("elbo", "expected objective: Objective, got 'elbo'"),
        (infer.JitTrace_ELBO(), r"such as Trace_ELBO\(\): the fit records it"),
    ],
)
def test_what_is_no_loss_is_refused(objective: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        pv.SVI(objective=objective)


def test_eager_losses_cannot_be_compiled() -> None:
    with pytest.raises(ValueError, match="expected compile='auto' or False"):
        pv.SVI(objective=infer.TraceGraph_ELBO(), compile=True)


def test_losses_that_would_train_nothing_are_refused() -> None:
    def parameter(model: Any, guide: Any, x: Tensor) -> Tensor:
        return pyro.param("multiplier", torch.tensor(1.0)) * weighed(model, guide, x)

    def number(model: Any, guide: Any, x: Tensor) -> float:
        return weighed(model, guide, x).item()

    def several(model: Any, guide: Any, x: Tensor) -> Tensor:
        return torch.stack([weighed(model, guide, x)] * 2)

    for loss, told in (
        (parameter, "pyro.param multiplier in the loss"),
        (number, "one that depends on no parameter"),
        (several, r"to return one number, got a tensor of shape \(2,\)"),
    ):
        with pytest.warns(FitWarning), pytest.raises(ValueError, match=told):
            pv.fit(model, everything(reals()), guide=guide, method=pv.SVI(objective=loss, epochs=1))


class Unregistered(nn.Module):
    """A module that Pyro knows nothing of: its parameters are in no site."""

    def __init__(self, program: Callable) -> None:
        super().__init__()
        self.program = program
        self.net = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> None:
        self.program(self.net(x), x)


def test_parameters_that_a_loss_does_not_see_are_not_left_as_they_are_in_silence() -> None:
    def model(loc: Tensor, x: Tensor) -> None:
        with pyro.plate("data", N, subsample=x):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(loc + z[..., None], 0.7).to_event(1), obs=x)

    def guide(loc: Tensor, x: Tensor) -> None:
        with pyro.plate("data", N, subsample=x):
            pyro.sample("z", dist.Normal(loc[:, 0], 1.0))

    method = pv.SVI(objective=infer.RenyiELBO(num_particles=2), epochs=1)
    with pytest.warns(FitWarning), pytest.raises(ValueError, match="RenyiELBO to leave gradients, got none"):
        pv.fit(Unregistered(model), everything(reals()), guide=Unregistered(guide), method=method)


def test_moving_averages_do_not_mind_a_smaller_last_batch() -> None:
    method = pv.SVI(objective=infer.TraceGraph_ELBO(), epochs=2, batch_size=15)
    with pytest.warns(FitWarning, match="TraceGraph_ELBO is taken as it is"):
        fitted = pv.fit(switched, everything(reals()), guide=switch(AVERAGE), method=method)
    assert np.isfinite(fitted.history[-1]["elbo"])
