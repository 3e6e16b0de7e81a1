"""Recorded and compiled steps do what eager Pyro does."""

from __future__ import annotations

import copy
import gc
import itertools
import math
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

import ppl_vae as pv
import ppl_vae.inference.training.step
import ppl_vae.program.capture
from ppl_vae.evaluate import log_weights
from ppl_vae.inference.objectives import Estimate
from ppl_vae.inference.training.optimizers import OPTIMIZERS, Optimizer, put_back
from ppl_vae.inference.training.step import WORTH_RECORDING, Step
from ppl_vae.program import machine
from ppl_vae.program.capture import CaptureError, CudaGraph, Graph, capture, copied
from ppl_vae.program.compiling import Library, _instructions, cheaper
from ppl_vae.program.machine import layers
from ppl_vae.program.replay import _records
from ppl_vae.types import FitWarning
from tests.table import SEED, TINY, vae

D, K, N = 6, 2, 40


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Compiled graphs of these tests, none from before."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("compiled")
        patch.setenv("PPL_VAE_CACHE", str(folder))
        yield folder


# --- plain Pyro programs of every sort ------------------------------------------------------------------------------------


class Encoder(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(D, 8), *layers, nn.ReLU(), nn.Linear(8, 2 * K))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        loc, log_scale = self.layers(x).chunk(2, -1)
        return loc, log_scale.exp()


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Linear(K, D)

    def forward(self, x: Tensor) -> None:
        with pv.data_plate(N, x):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([K]).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)


class Guide(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.encoder = Encoder(*layers)

    def forward(self, x: Tensor) -> None:
        with pv.data_plate(N, x):
            pyro.sample("z", dist.Normal(*self.encoder(x)).to_event(1))


class MaskedModel(Model):
    def forward(self, x: Tensor) -> None:
        with poutine.mask(mask=x[:, 0] > 0):
            super().forward(x)


class MaskedGuide(Guide):
    def forward(self, x: Tensor) -> None:
        with poutine.mask(mask=x[:, 0] > 0):
            super().forward(x)


class FlowGuide(Guide):
    def __init__(self) -> None:
        super().__init__()
        self.flow = dist.transforms.affine_autoregressive(K, hidden_dims=[5])

    def forward(self, x: Tensor) -> None:
        with pv.data_plate(N, x):
            base = dist.Normal(*self.encoder(x)).to_event(1)
            pyro.sample("z", dist.TransformedDistribution(base, [self.flow]))


class ScoreFunctionModel(Model):
    """A discrete latent variable that is sampled, not summed out: its gradient is the score function's."""

    def forward(self, x: Tensor) -> None:
        with pv.data_plate(N, x):
            z = pyro.sample("z", dist.Bernoulli(0.5 * torch.ones(K)).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)


class ScoreFunctionGuide(Guide):
    def forward(self, x: Tensor) -> None:
        with pv.data_plate(N, x):
            pyro.sample("z", dist.Bernoulli(logits=self.encoder(x)[0]).to_event(1))


class EnumeratedModel(Model):
    def forward(self, x: Tensor) -> None:
        with pv.data_plate(N, x):
            k = pyro.sample("k", dist.Categorical(torch.ones(K)))
            pyro.sample("x", dist.Normal(self.decoder.weight.T[k], 1.0).to_event(1), obs=x)


class EnumeratedGuide(Guide):
    def forward(self, x: Tensor) -> None:
        with pv.data_plate(N, x):
            pyro.sample("k", dist.Categorical(logits=self.encoder(x)[0]), infer={"enumerate": "parallel"})


def subsampling_model(x: Tensor) -> None:
    weight = pyro.param("weight", torch.ones(D, K))
    with pyro.plate("columns", D, subsample_size=3, dim=-2) as columns, pyro.plate("data", N, subsample=torch.arange(len(x))):
        z = pyro.sample("z", dist.Normal(torch.zeros(3, len(x)), 1.0))
        pyro.sample("x", dist.Normal(weight[columns].sum(-1, keepdim=True) * z, 1.0), obs=x.T[columns])


def subsampling_guide(x: Tensor) -> None:
    loc = pyro.param("loc", torch.zeros(3, 1))
    scale = pyro.param("scale", torch.ones(3, 1), constraint=dist.constraints.positive)
    with pyro.plate("columns", D, subsample_size=3, dim=-2), pyro.plate("data", N, subsample=torch.arange(len(x))):
        pyro.sample("z", dist.Normal(loc.expand(3, len(x)), scale))


class BetaELBO(nn.Module):
    """An objective that changes from step to step by a tensor of its own."""

    beta: Tensor

    def __init__(self, pair: pv.Pair) -> None:
        super().__init__()
        self.elbo = pv.ELBO().build(pair)
        self.register_buffer("beta", torch.tensor(0.0))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        loss, elbo, reconstruction = self.elbo(x)
        self.beta += 0.1
        return loss + (self.beta - 1) * (loss + reconstruction), elbo, reconstruction


class IWAE(nn.Module):
    """The importance-weighted bound from log weights."""

    def __init__(self, pair: pv.Pair) -> None:
        super().__init__()
        self.pair = pair

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        log_w = log_weights(self.pair, (x,), samples=5)
        elbo = log_w.mean().detach()
        return -(log_w.logsumexp(0) - torch.tensor(5.0).log()).mean(), elbo, torch.full_like(elbo, torch.nan)


ELBO = pv.ELBO()
Build = Callable[[], tuple[pv.Pair, nn.Module]]


def plain(model: Callable, guide: Callable, objective: Callable[[pv.Pair], nn.Module] = ELBO.build) -> Build:
    def build() -> tuple[pv.Pair, nn.Module]:
        torch.manual_seed(SEED)
        made = [part() if isinstance(part, type) else part for part in (model, guide)]
        pair = pv.Pair(*made, mean_field=False)
        pair.plates(torch.randn(8, D))
        return pair, objective(pair)

    return build


class NormGuide(Guide):
    def __init__(self) -> None:
        super().__init__(nn.BatchNorm1d(8))


class DropoutGuide(Guide):
    def __init__(self) -> None:
        super().__init__(nn.Dropout(0.5))


PROGRAMS: dict[str, Build] = {
    "plain": plain(Model, Guide),
    "batch-norm": plain(Model, NormGuide),
    "dropout": plain(Model, DropoutGuide),
    "mask": plain(MaskedModel, MaskedGuide),
    "flow": plain(Model, FlowGuide),
    "score-function": plain(ScoreFunctionModel, ScoreFunctionGuide),
    "enumeration": plain(EnumeratedModel, EnumeratedGuide),
    "subsampled-plate": plain(subsampling_model, subsampling_guide),
    "particles": plain(Model, Guide, pv.ELBO(particles=3).build),
    "beta": plain(Model, Guide, BetaELBO),
    "iwae": plain(Model, Guide, IWAE),
}


def trained(build: Build, way: str, *, steps: int = 6, optimizer: str = "adam", clip_norm: float | None = None) -> dict:
    """Parameters, buffers and totals after some steps, whose way is checked."""
    pair, objective = build()
    pair.train()
    chosen: Optimizer = OPTIMIZERS[optimizer]((p for p in objective.parameters() if p.requires_grad), 1e-2)
    options: dict[str, Any] = {
        "eager": {"compile": False},
        "recorded": {"compile": "auto", "ahead": WORTH_RECORDING},
        "compiled": {"compile": True},
    }[way]
    step = Step(objective, pv.Transform((D,)), chosen, clip_norm=clip_norm, **options)
    x = torch.randn(N, D, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(2)
    for start, _ in itertools.product((0, 8, 16), range(steps // 3)):
        step(x[start : start + 8])
    step(x[:5])  # as an epoch's last batch
    assert step.way == way
    chosen.sync_step_count()
    counted = {f"step{i}": state["step"] for i, state in enumerate(chosen.kept_of.values()) if "step" in state}
    return {**{name: value.clone() for name, value in objective.state_dict().items()}, "totals": step.totals, **counted}


@pytest.mark.parametrize("build", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_a_recorded_step_is_the_eager_step(build: Build) -> None:
    eager, recorded = trained(build, "eager"), trained(build, "recorded")
    assert eager.keys() == recorded.keys()
    for name, value in eager.items():
        # Pyro's own loss of a score-function guide is summed in Python's floats, its gradient is not.
        torch.testing.assert_close(recorded[name], value, rtol=1e-6 * (name == "totals"), atol=0, equal_nan=True)


class Slope(nn.Module):
    """E[x . w], whose gradient is the mean of x."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor) -> Estimate:
        loss = (x @ self.w).mean()
        return Estimate(loss, -loss, -loss)


CLASSES: dict[str, Any] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_eager_steps_are_those_of_the_classes_of_torch(name: str) -> None:
    start = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    chosen, reference = OPTIMIZERS[name]([ours], 0.1), CLASSES[name]([theirs], lr=0.1, fused=True)
    assert chosen.settings.items() <= reference.param_groups[0].items()
    for _ in range(20):
        ours.grad = theirs.grad = torch.randn(5, 3)
        chosen.step()
        reference.step()
        assert torch.equal(ours, theirs)
    kept = chosen.state().moments.get(0, {})
    assert set(kept) == {name for name, value in reference.state[theirs].items() if value is not None}
    assert all(torch.equal(kept[name], reference.state[theirs][name]) for name in kept)


@pytest.mark.parametrize("ahead", [0, WORTH_RECORDING])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_spike_leaves_parameters_and_moments_as_they_were(name: str, ahead: int) -> None:
    ours, theirs = Slope(), nn.Parameter(torch.zeros(2))
    chosen = OPTIMIZERS[name](ours.parameters(), 0.1)
    step = Step(ours, pv.Transform((2,)), chosen, skip_norm=10.0, clip_norm=0.5, ahead=ahead)
    reference = CLASSES[name]([theirs], lr=0.1)
    for size in (100.0, 1.0, 2.0, math.inf, 1.0):  # the first before there are moments
        x = size * torch.tensor([[1.0, 2.0], [3.0, 1.0]])
        step(x)
        kept = [theirs, *(value for key, value in reference.state[theirs].items() if key != "step")]
        before = [value.detach().clone() for value in kept]
        theirs.grad = (x if size < 10 else torch.zeros(2, 2)).mean(0)
        nn.utils.clip_grad_norm_([theirs], 0.5)
        reference.step()
        if size > 10:
            put_back(kept, before, torch.tensor(True))
        torch.testing.assert_close(ours.w, theirs)
    assert step.totals[3] == 2
    assert step.way == ("recorded" if ahead else "eager")


# Of a whole fit it is asked in test_resume.py: half a minute a program.
@pytest.mark.slow
@pytest.mark.parametrize(("name", "optimizer"), [("batch-norm", "sgd"), ("enumeration", "adam")])
def test_a_compiled_step_is_the_eager_step(name: str, optimizer: str) -> None:
    eager, compiled = (trained(PROGRAMS[name], way, clip_norm=0.5, optimizer=optimizer) for way in ("eager", "compiled"))
    for key, value in eager.items():
        torch.testing.assert_close(compiled[key], value, rtol=2e-4, atol=2e-5, equal_nan=True)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_formulas_are_those_of_torch(name: str) -> None:
    torch.manual_seed(0)
    start = torch.randn(5, 3, dtype=torch.float64)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimizers = [OPTIMIZERS[name]([parameter], 0.1) for parameter in (ours, theirs)]
    moments = [torch.zeros_like(start) for _ in optimizers[0].kept]
    for count in range(1, 21):
        for optimizer in optimizers:
            optimizer.settings["lr"] = 0.1 / count
        gradient = torch.randn_like(start)
        rates = optimizers[0].rates(torch.tensor([count], dtype=torch.float64))[0]
        with torch.no_grad():
            optimizers[0].update(ours, gradient, moments, rates)
        theirs.grad = gradient
        optimizers[1].step()
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_the_rates_follow_the_schedule() -> None:
    optimizer = OPTIMIZERS["adam"]([nn.Parameter(torch.zeros(1))], 0.1)
    optimizer._make(optimizer.parameters)
    rates = optimizer.rates_of(optimizer.parameters)
    for count in range(1, 200):
        optimizer.settings["lr"] = 0.1 if count < 70 else 0.05
        alone = optimizer.rates(torch.tensor([count], dtype=torch.float64))
        assert torch.equal(rates.next(), alone.float())


def test_the_rates_follow_the_steps_of_each_parameter() -> None:
    optimizer = OPTIMIZERS["adam"]([nn.Parameter(torch.zeros(2)) for _ in range(3)], 0.1)
    a, b, c = optimizer.parameters
    kinds = {(a, b): optimizer.rates_of([a, b]), (a, c): optimizer.rates_of([a, c])}
    steps = dict.fromkeys(optimizer.parameters, 0)
    chosen = torch.randint(4, (300,), generator=torch.Generator().manual_seed(0)).tolist()
    for choice in [2, 2, *chosen, *[0] * 70, *chosen]:
        if choice < 2:
            parameters, rates = [*kinds.items()][choice]
            counts = torch.tensor([steps[parameter] + 1 for parameter in parameters], dtype=torch.float64)
            found = rates.next() if steps[a] % 3 else rates.several(1)[0]
            assert torch.equal(found, optimizer.rates(counts).float())
        else:  # an eager step
            parameters = [(a,), (b, c)][choice - 2] if steps[c] else (a, b, c)
            for parameter in parameters:
                parameter.grad = torch.ones(2)
            optimizer.step()
            optimizer.zero_grad()
        for parameter in parameters:
            steps[parameter] += 1
    state = optimizer.state()
    assert [int(state.moments[place]["step"]) for place in range(3)] == [*steps.values()]
    assert state.steps == 2 + 2 * len(chosen) + 70


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_slices_of_tensors_are_updated_as_others(name: str) -> None:
    whole = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    ours, theirs = nn.Parameter(whole.clone()[:, 1:3]), nn.Parameter(whole[:, 1:3].clone())
    assert not ours.is_contiguous()
    chosen, reference = OPTIMIZERS[name]([ours], 0.1), CLASSES[name]([theirs], lr=0.1)
    for _ in range(3):
        gradient = torch.randn(4, 2)
        ours.grad, theirs.grad = gradient.clone(), gradient
        chosen.step()
        reference.step()
    torch.testing.assert_close(ours, theirs)
    same = copied(ours)
    assert same.stride() == ours.stride()
    assert torch.equal(same, ours)
    assert torch.equal(copied(torch.ones(1).expand(5)), torch.ones(5))


# --- what a record is ------------------------------------------------------------------------------------------------------


def test_recording_changes_nothing_and_the_record_draws_anew() -> None:
    state, offset = torch.ones(3), torch.zeros(3)

    def function(state: Tensor, x: Tensor) -> list[Tensor]:
        state.add_(x)
        return [state + offset + torch.randn(3)]

    before = torch.get_rng_state()
    graph = capture(function, [state], [torch.ones(3)])
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(state, torch.ones(3))
    torch.manual_seed(0)
    first, second = graph(state, torch.ones(3)), graph(state, torch.ones(3))
    torch.manual_seed(0)
    torch.testing.assert_close(first[0], 2 + torch.randn(3), rtol=0, atol=0)
    torch.testing.assert_close(second[0], 3 + torch.randn(3), rtol=0, atol=0)
    offset.fill_(10.0)  # a tensor that the function knows from elsewhere is read anew
    torch.manual_seed(0)
    third = graph(state, torch.ones(3))
    torch.manual_seed(0)
    torch.testing.assert_close(third[0], 14 + torch.randn(3), rtol=0, atol=0)


def test_what_cannot_be_recorded_is_named_with_its_site_and_line() -> None:
    def model(x: Tensor) -> None:
        with pv.data_plate(N, x):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([K]).to_event(1))
            if z.mean() > 0:
                z = -z
            pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True).expand(x.shape), 1.0).to_event(1), obs=x)

    data = pv.load_data(np.random.default_rng(0).normal(size=(640, D)).astype(np.float32), valid=0.0, test=0.0)
    guide = Guide()
    with pytest.warns(FitWarning, match=r"^steps are eager.*after the site 'z', test_capture.py:\d+ `if z.mean\(\) > 0:`"):
        fitted = pv.fit(model, data, guide=guide, method=pv.SVI(epochs=30))
    assert len(fitted.history) == 30
    with pytest.raises(ValueError, match=r"cannot be compiled .*use compile='auto' or compile=False"):
        pv.fit(model, data, guide=guide, method=pv.SVI(epochs=1, compile=True))


def test_a_program_that_differs_from_call_to_call_stays_eager() -> None:
    generator = np.random.default_rng(0)

    class Jittery(Model):
        def forward(self, x: Tensor) -> None:
            super().forward(x + float(generator.normal()))

    data = pv.load_data(np.random.default_rng(0).normal(size=(640, D)).astype(np.float32), valid=0.0, test=0.0)
    with pytest.warns(FitWarning, match="steps are eager, not compiled: the program does something else at every call"):
        pv.fit(Jittery(), data, guide=Guide(), method=pv.SVI(epochs=30))


def told_wrong(graph: Graph, *tensors: Tensor) -> list[Tensor]:
    return [value + 1 for value in graph(*tensors)]


def moved_too_far(graph: Graph, *tensors: Tensor) -> list[Tensor]:
    before = [tensor.clone() for tensor in tensors[:-2]]
    numbers = graph(*tensors)
    for was, tensor in zip(before, tensors, strict=False):
        tensor.add_(tensor - was)
    return numbers


@pytest.mark.parametrize("wrong", [told_wrong, moved_too_far])
def test_a_compiled_step_that_parts_from_its_record_is_refused(wrong: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Graph, "compiled", lambda self, *inputs, several: partial(wrong, self))
    with pytest.raises(ValueError, match=r"cannot be compiled \(compiled, it parts from its own record"):
        pv.fit(vae(), pv.load_data("digits"), method=pv.SVI(epochs=1, compile=True))


def test_without_a_compiler_steps_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise CaptureError("no C++ compiler")

    monkeypatch.setattr(ppl_vae.program.capture, "compile_into", fail)
    monkeypatch.setattr(ppl_vae.inference.training.step, "WORTH_COMPILING", 20)
    monkeypatch.setattr(ppl_vae.inference.training.step, "WORTH_RECORDING", 10)
    data = pv.load_data("digits")
    with pytest.warns(FitWarning, match=r"^steps are recorded, not compiled: no C\+\+ compiler"):
        fitted = pv.fit(vae(), data, method=pv.SVI(epochs=2))
    eager = pv.fit(vae(), data, method=pv.SVI(epochs=2, compile=False))
    assert all(torch.equal(a, b) for a, b in zip(fitted.pair.parameters(), eager.pair.parameters(), strict=True))


def of_two_kinds(x: Tensor, label: Tensor | None = None) -> None:
    """Rows of which some have a label, which alone trains ``head``."""
    slope = pyro.param("slope", torch.tensor([0.3, -0.2]))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z[:, None] * slope, 1.0).to_event(1), obs=x)
        if label is not None:
            head = pyro.param("head", torch.zeros(()))
            pyro.sample("label", dist.Bernoulli(logits=head * z), obs=label.float())


def guide_of_two_kinds(x: Tensor, label: Tensor | None = None) -> None:
    pyro.param("head", torch.zeros(()))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x @ pyro.param("w", torch.zeros(2)), 1.0))


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_parameters_that_some_batches_do_not_use_keep_still_in_these(optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    step = ppl_vae.inference.training.step
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    label = np.ma.MaskedArray((x[:, 0] > 0).long().numpy(), mask=np.arange(200) % 3 > 0)
    data = pv.load_data({"x": x, "label": label}, valid=0.0, test=0.0)
    ends = []
    for compile, worth in ((False, 300), ("auto", 1), (True, 1)):
        monkeypatch.setattr(step, "WORTH_RECORDING", worth)
        method = pv.SVI(epochs=4, batch_size=8, learning_rate=0.05, schedule="constant", optimizer=optimizer, compile=compile)
        fit = pv.fit(of_two_kinds, data, guide=guide_of_two_kinds, method=method)
        ends.append(dict(fit.pair.state_dict()))
    for recorded in ends[1:]:
        assert recorded.keys() == ends[0].keys()
        for name, value in ends[0].items():
            torch.testing.assert_close(recorded[name], value, rtol=2e-4, atol=1e-5)


@pytest.mark.slow
def test_a_compiled_fit_with_a_smaller_last_batch_at_one_rate_is_the_eager_fit() -> None:
    data = pv.load_data(torch.randn(43, 3, generator=torch.Generator().manual_seed(0)), valid=0.0, test=0.0)
    model = pv.VAE(latent_dim=2, likelihood=pv.Gaussian(), decoder=pv.MLP(hidden=(8,)))
    method = {"epochs": 60, "batch_size": 8, "learning_rate": 0.01, "schedule": "constant"}
    eager, compiled = (pv.fit(model, data, method=pv.SVI(compile=compile, **method)) for compile in (False, True))
    for ours, theirs in zip(compiled.pair.parameters(), eager.pair.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_parameter_that_is_a_slice_is_trained_as_another() -> None:
    whole = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))

    class Sliced(nn.Module):
        def __init__(self, weight: Tensor) -> None:
            super().__init__()
            self.weight = nn.Parameter(weight)

        def forward(self, x: Tensor) -> None:
            pyro.module("sliced", self)
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(z @ self.weight.T, 1.0).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        loc = x @ pyro.param("loc", torch.zeros(3, 2))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

    data = pv.load_data(torch.randn(64, 3, generator=torch.Generator().manual_seed(1)), valid=0.0, test=0.0)
    ends = []
    for compile, weight in ((False, whole[:, :2].clone()), (False, whole.clone()[:, :2]), (True, whole.clone()[:, :2])):
        method = pv.SVI(epochs=10, batch_size=16, learning_rate=0.05, compile=compile)
        fit = pv.fit(Sliced(weight), data, guide=guide, method=method)
        ends.append(fit.pair.model.weight.detach().clone())
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ends[2], ends[0], rtol=1e-3, atol=1e-4)


# --- fits and evaluations --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_compiled_fit_is_the_eager_fit_and_the_second_one_is_not_compiled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    data = pv.load_data("digits")
    eager = pv.fit(vae(), data, method=pv.SVI(epochs=3, batch_size=100, compile=False))
    fits = [pv.fit(vae(), data, method=pv.SVI(epochs=3, batch_size=100, compile=True))]
    monkeypatch.setattr(ppl_vae.program.capture, "compile_into", lambda *args: pytest.fail("compiled again"))
    fits.append(pv.fit(vae(), data, method=pv.SVI(epochs=3, batch_size=100, compile=True)))
    for fitted in fits:
        for ours, theirs in zip(fitted.history, eager.history, strict=True):
            for name in ("objective", "reconstruction", "kl", "valid_elbo"):
                assert ours[name] == pytest.approx(theirs[name], abs=2e-3)


def test_recording_gives_the_fit_to_the_last_bit() -> None:
    data = pv.load_data("digits")
    rows = [
        [{name: row[name] for name in row if name != "seconds"} for row in pv.fit(vae(), data, method=method).history]
        for method in (pv.SVI(epochs=16, compile="auto"), pv.SVI(epochs=16, compile=False))
    ]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("samples", [1, 7])
def test_a_recorded_evaluation_follows_the_parameters(samples: int) -> None:
    data = pv.load_data("digits", binarize="dynamic")
    pair = pv.fit(vae(), data, method=pv.SVI(epochs=1)).pair
    for _ in range(3):
        for _ in range(6):
            recorded = pv.evaluate(pair, data.test, samples=samples)
        assert all(_records[pair].programs.values())
        assert recorded == pv.evaluate(pair, data.test, samples=samples, compile=False)
        with torch.no_grad():
            for parameter in pair.parameters():
                parameter.mul_(1.1)


@pytest.mark.slow
def test_a_compiled_evaluation_gives_the_same_numbers() -> None:
    data = pv.load_data("digits", binarize="dynamic")
    fitted = pv.fit(vae(), data, method=pv.SVI(epochs=1))
    eager, compiled = (pv.evaluate(fitted.pair, data.test, samples=20, compile=how) for how in (False, True))
    for name, value in eager.items():
        assert compiled[name] == pytest.approx(value, abs=1e-4)


def test_what_was_recorded_does_not_keep_a_pair_alive() -> None:
    data = pv.load_data("digits", binarize="dynamic")
    fitted = pv.fit(vae(), data, method=pv.SVI(epochs=16))
    for _ in range(6):
        fitted.evaluate(data)
    assert copy.deepcopy(fitted.pair).state_dict().keys() == fitted.pair.state_dict().keys()
    pair = weakref.ref(fitted.pair)
    del fitted
    gc.collect()
    assert pair() is None


# --- precision -------------------------------------------------------------------------------------------------------------


def test_layers_in_bfloat16_leave_log_probabilities_in_float32() -> None:
    torch.manual_seed(0)
    linear, x = nn.Linear(40, 30), torch.randn(20, 40)
    exact = linear(x)
    with layers("bf16"):
        rounded = linear(x)
        assert dist.Normal(rounded, 1.0).log_prob(torch.zeros(30)).dtype == torch.float32
        assert torch.equal(linear.double()(x.double()), linear(x.double()))
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).abs().max() < 0.02
    assert torch.equal(linear.float()(x), exact)


def test_bfloat16_hardly_moves_the_elbo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "multiplies_bfloat16", lambda: True)
    monkeypatch.setattr(machine, "WORTH_ROUNDING", 0)
    data = pv.load_data("digits")
    fits = [pv.fit(pv.VAE(decoder=TINY), data, method=pv.SVI(epochs=10, precision=p)) for p in ("32", "bf16", "tf32")]
    exact, bf16, tf32 = (fitted.evaluate(data)["elbo"] for fitted in fits)
    assert fits[0].history != fits[1].history
    assert bf16 == pytest.approx(exact, abs=0.3)
    assert tf32 == pytest.approx(exact, abs=0.01)


def test_a_cpu_without_bfloat16_products_keeps_to_float32_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "multiplies_bfloat16", lambda: False)
    data = pv.load_data(torch.rand(12, 3).round(), valid=0.0, test=0.0)
    exact = pv.fit(pv.VAE(decoder=TINY), data, method=pv.SVI(epochs=1))
    with pytest.warns(pv.FitWarning, match="not bf16: this CPU has no instructions"):
        rounded = pv.fit(pv.VAE(decoder=TINY), data, method=pv.SVI(epochs=1, precision="bf16"))
    assert rounded.history[0]["objective"] == exact.history[0]["objective"]
    assert machine.choose_precision("bf16", torch.device("cuda"), 1) == "bf16"
    assert machine.choose_precision("tf32", torch.device("cpu")) == "tf32"


def test_bfloat16_that_does_not_pay_is_left_and_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "multiplies_bfloat16", lambda: True)
    data = pv.load_data(torch.rand(12, 3).round(), valid=0.0, test=0.0)
    exact = pv.fit(pv.VAE(decoder=TINY), data, method=pv.SVI(epochs=1))
    with pytest.warns(pv.FitWarning, match=r"not bf16: a step multiplies [\d,]+ times, and below 8,388,608 rounding takes"):
        small = pv.fit(pv.VAE(decoder=TINY), data, method=pv.SVI(epochs=1, precision="bf16"))
    assert small.history[0]["objective"] == exact.history[0]["objective"]
    assert machine.choose_precision("bf16", torch.device("cpu"), machine.WORTH_ROUNDING) == "bf16"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compile": "always"}, "a compile that is auto, true or false"),
        ({"precision": "16"}, "a precision of 32, bf16 or tf32"),
    ],
)
def test_unknown_choices_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pv.SVI(**options)


# --- CUDA ------------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("build", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_a_replayed_cuda_graph_is_the_eager_step(build: Build) -> None:
    with torch.device("cuda"):
        eager, compiled = trained(build, "eager"), trained(build, "compiled")
    for name, value in eager.items():
        torch.testing.assert_close(compiled[name], value, rtol=2e-3, atol=2e-4, equal_nan=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_a_cuda_graph_draws_anew_at_every_replay() -> None:
    state = [torch.zeros(1000, device="cuda")]
    graph = CudaGraph(lambda state, x: [state.add_(x + torch.randn_like(state))], state, [torch.ones(1000, device="cuda")])
    assert not state[0].any()
    first = graph(torch.ones(1000, device="cuda"))[0].clone()
    second = graph(torch.ones(1000, device="cuda"))[0].clone()
    assert not torch.equal(second - first, first)
    assert second.mean().item() == pytest.approx(2.0, abs=0.3)


# --- the compiler ---------------------------------------------------------------------------------------------------------


def functional(bias: Tensor, x: Tensor, weight: Tensor) -> list[Tensor]:
    noise = torch.ops.aten.normal_functional(torch.empty(20, 3, dtype=x.dtype))
    sigmoids = [torch.sigmoid(x), torch.sigmoid(weight)]
    return [
        *(torch.addmm(bias, x, weight), torch.addmm(bias, x, weight, beta=2), noise),
        *(*sigmoids, x.abs().neg().exp().log1p(), weight.exp().log1p(), x.tanh()),
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_cheaper_graph_does_the_same(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(shape).to(dtype) for shape in ((4,), (5, 3), (3, 4))]
    inputs[1][0] = torch.tensor([-0.0, -math.inf, math.inf])
    inputs[1][1] = torch.tensor([-100.0, 20.0, math.nan])
    module = make_fx(functional, tracing_mode="fake")(*inputs)
    outputs = []
    for change in (lambda graph: None, cheaper):
        change(module.graph)
        module.recompile()
        torch.manual_seed(1)
        outputs.append(module(*inputs))
    for before, after in zip(*outputs, strict=True):
        torch.testing.assert_close(after, before, equal_nan=True)
    assert torch.equal(outputs[0][2], outputs[1][2])
    targets = {str(node.target) for node in module.graph.nodes}
    assert ("aten.mm.default" in targets, "aten.randn.default" in targets) == (dtype != torch.bfloat16,) * 2
    assert "aten.addmm.default" in targets  # that of twice the bias
    assert ("aten.normal_functional.default" in targets) == (dtype == torch.bfloat16)
    for function in ("log1p", "tanh"):
        assert (f"aten.{function}.default" in targets) == (dtype != torch.float32)
    sigmoids = [node for node in module.graph.nodes if node.target is torch.ops.aten.sigmoid.default]
    # Of the weight an exponential is known where the logarithm of one plus another has been taken by it.
    assert len(sigmoids) == {torch.bfloat16: 2, torch.float64: 1, torch.float32: 0}[dtype]


@pytest.mark.slow
def test_compiled_functions_of_exponentials_keep_their_digits() -> None:
    edges = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, 88.9, -88.9, 104.0])
    x = torch.cat([torch.linspace(-85, 85, 100_000), edges])

    def each(x: Tensor) -> list[Tensor]:
        return [torch.log1p(torch.exp(-x.abs())), torch.nn.functional.softplus(x), torch.tanh(x), torch.tanh(x * 1e-3)]

    found = capture(each, [], [x]).compiled(x)(x)
    for ours, exact, torchs in zip(found, each(x.double()), each(x), strict=True):
        torch.testing.assert_close(ours.double(), exact, rtol=4e-7, atol=1e-38, equal_nan=True)
        assert torch.equal(ours.isfinite(), torchs.isfinite())


def test_a_library_is_given_state_then_inputs_then_constants() -> None:
    state, constant, inputs = torch.ones(1), torch.ones(3), (torch.ones(2), torch.zeros(2))
    library = Library(list, [constant])
    step = library.after([state], 2)
    for found in (library(state, *inputs), step(*inputs), step(*inputs)):
        assert [id(tensor) for tensor in found] == [id(tensor) for tensor in (state, *inputs, constant)]


def test_a_compiler_is_asked_for_no_instructions_narrower_than_those_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import cpu_vec_isa

    asked: list[str] = []

    class Instructions(str):
        def __bool__(self) -> bool:
            asked.append(str(self))
            return self != "amx"

    monkeypatch.setattr(cpu_vec_isa, "supported_vec_isa_list", [*map(Instructions, ("sve", "amx", "avx512", "avx2"))])
    monkeypatch.setattr(cpu_vec_isa, "x86_isa_checker", lambda: ["avx2", "avx512", "amx"])
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    assert _instructions(lambda: ["every"]) == ["avx512"]
    assert asked == ["amx", "avx512"]
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")  # which torch looks for among all
    assert _instructions(lambda: ["every"]) == ["every"]


def _sum_of_two(x: Tensor) -> None:
    loc = pyro.param("a", torch.zeros(3)) + pyro.param("b", torch.zeros(3))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)


@pytest.mark.parametrize("bound", [{"clip_norm": 0.1}, {"clip_norm": 0.1, "skip_norm": 50.0}])
def test_a_gradient_that_two_parameters_share_is_clipped_once(monkeypatch: pytest.MonkeyPatch, bound: dict[str, float]) -> None:
    monkeypatch.setattr(ppl_vae.inference.training.step, "WORTH_RECORDING", 1)
    found = []
    for compile in (False, "auto"):
        method = pv.SVI(epochs=3, batch_size=8, optimizer="sgd", learning_rate=0.1, compile=compile, **bound)
        data = pv.load_data(3 + torch.rand(64, 3, generator=torch.Generator().manual_seed(0)).numpy(), valid=0.0, test=0.0)
        found.append(pv.fit(_sum_of_two, data, guide=lambda x: None, method=method).pair.state_dict())
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value)
        assert value.abs().max() > 0


def test_one_hot_classes_are_recorded_where_their_number_is_known() -> None:
    def function(y: Tensor) -> list[Tensor]:
        return [torch.nn.functional.one_hot(y, 3), torch.nn.functional.one_hot(y, num_classes=4)]

    graph = capture(function, [], [torch.tensor([0, 1])])
    y = torch.tensor([2, 0])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(graph(y), function(y), strict=True))
    with pytest.raises(CaptureError, match="asks for the value"):
        capture(lambda y: [torch.nn.functional.one_hot(y)], [], [y])


def test_a_step_in_which_no_parameter_has_a_gradient_changes_none() -> None:
    for name, make in OPTIMIZERS.items():
        optimizer = make([torch.nn.Parameter(torch.ones(2))], 0.1)
        assert optimizer.gradient_norm() == 0
        optimizer.step()
        assert optimizer.taken == 1, name
        assert optimizer.parameters[0].tolist() == [1.0, 1.0]


class _Assigns(torch.nn.Module):
    """A running mean that is put in the place of the one before, or written into it."""

    mean: Tensor

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.layer, self.in_place = torch.nn.Linear(3, 3), in_place
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            mean = 0.9 * self.mean + 0.1 * x.mean(0)
            if self.in_place:
                self.mean.copy_(mean)
            else:
                self.mean = mean
        return self.layer(x - self.mean)


def _of_numbers(how: str) -> Callable[[Tensor], Tensor]:
    """What a scale of each row is made of."""
    steps = torch.zeros(())

    def late(x: Tensor) -> Tensor:
        steps.add_(1)
        return torch.where(steps < 100, 1.0, 3.0) if how == "closure" else torch.tensor(1.0 if steps.item() < 100 else 3.0)

    made: dict[str, Callable[[Tensor], Tensor]] = {
        "numpy": lambda x: torch.from_numpy(np.abs(x.numpy()[:, :1])) + 0.5,
        "tolist": lambda x: torch.tensor([[abs(row[0]) + 0.5] for row in x.tolist()]),
        "asarray": lambda x: torch.as_tensor(np.asarray(x).std(1))[:, None] + 0.5,
        "unique": lambda x: torch.tensor(0.2 * len(torch.unique((2 * x[:, 0]).long()))),
        "mask": lambda x: x[x[:, 0] > 0].square().mean() + 0.5,
        "nonzero": lambda x: (x[:, 0] > 0).nonzero().sum() + 1.0,
        "deepcopy": lambda x: copy.deepcopy(x).abs() + 0.5,
        "item": late,
        "closure": late,
    }
    return made[how]


@pytest.mark.filterwarnings("ignore:steps are eager")
@pytest.mark.parametrize(
    "how", ["numpy", "tolist", "asarray", "unique", "mask", "nonzero", "deepcopy", "item", "closure", "assigned", "in place"]
)
def test_what_a_record_would_hold_still_is_never_held(how: str) -> None:
    found = []
    for compile in (False, "auto"):
        torch.manual_seed(1)
        net = _Assigns(how == "in place") if how in ("assigned", "in place") else torch.nn.Linear(3, 3)
        scale = (lambda x: torch.tensor(1.0)) if isinstance(net, _Assigns) else _of_numbers(how)

        def model(x: Tensor, net: torch.nn.Module = net, scale: Callable[[Tensor], Tensor] = scale) -> None:
            pyro.module("net", net)
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(net(x), scale(x)).to_event(1), obs=x)

        data = pv.load_data(torch.randn(120, 3, generator=torch.Generator().manual_seed(0)), valid=0.0, test=0.0)
        fit = pv.fit(model, data, guide=lambda x: None, method=pv.SVI(epochs=20, batch_size=20, compile=compile))
        other = torch.randn(30, 3, generator=torch.Generator().manual_seed(1))
        scores = [fit.evaluate(rows)["elbo"] for rows in (other, *(2 * other + by for by in range(5)), other)]
        assert scores[0] == pytest.approx(scores[-1]) or how in ("item", "closure")
        found.append(([row["objective"] for row in fit.history], fit.pair.state_dict()))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    for name, value in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], value)


def test_a_guide_may_ask_for_gradients() -> None:
    net = torch.nn.Linear(3, 1)

    def guide(x: Tensor) -> None:
        pyro.module("net", net)
        loc = net(x)[:, 0]
        (slope,) = torch.autograd.grad((loc - x.sum(1)).square().sum(), loc, create_graph=True)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc - 0.1 * slope, 1.0))

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z[:, None], 1.0).expand([len(x), 3]).to_event(1), obs=x)

    data = pv.load_data(torch.randn(60, 3, generator=torch.Generator().manual_seed(0)), valid=0.0, test=0.0)
    ends = [
        pv.fit(model, data, guide=guide, method=pv.SVI(epochs=1, batch_size=20, compile=compile, learning_rate=1e-9)).history
        for compile in (False, True)
    ]
    assert ends[0][0]["elbo"] == pytest.approx(ends[1][0]["elbo"], rel=1e-3)
