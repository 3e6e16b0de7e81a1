"""Modules take part in a fit by one start hook and one finish hook, children first and once; old names still work."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import ppl_vae as pv
from ppl_vae.inference.training.start import start_pair
from ppl_vae.program.hooks import Finish, Start, finish, median_writer, start
from tests.table import TINY, rows, start_of

N = 30
DATA = pv.load_data(rows("real", N).flatten(1), valid=0.0, test=0.0, scale="none")
SVI = pv.SVI(epochs=1, batch_size=15, compile=False)


class Noting(nn.Module):
    """Takes note of its hooks."""

    def __init__(self, name: str, told: list[str], *children: nn.Module) -> None:
        super().__init__()
        self.name, self.told = name, told
        self.parts = nn.ModuleList(children)

    def start_fit(self, context: Start) -> None:
        self.told.append(f"start {self.name}")

    def finish_fit(self, context: Finish) -> None:
        self.told.append(f"finish {self.name}")


def halves(told: list[str]) -> tuple[nn.Module, nn.Module]:
    """A model and a guide that share a part, which stands twice in the model."""
    shared = Noting("shared", told)
    model = Noting("model", told, Noting("decoder", told, shared), nn.Sequential(shared), Noting("prior", told))
    return model, Noting("guide", told, shared, Noting("encoder", told))


def test_hooks_run_children_first_and_once() -> None:
    told: list[str] = []
    model, guide = halves(told)
    order = ["shared", "decoder", "prior", "model", "encoder", "guide"]
    start(start_of(DATA.train, model=model, guide=guide))
    assert told == [f"start {name}" for name in order]
    told.clear()
    finish(Finish(model=model, guide=guide, batches=[]))
    assert told == [f"finish {name}" for name in order]


@pytest.mark.parametrize(
    ("warm", "started"),
    [(["model"], ["encoder", "guide"]), (["guide"], ["decoder", "prior", "model"]), (["model", "guide"], [])],
)
def test_what_a_warm_half_holds_is_left_alone(warm: list[str], started: list[str]) -> None:
    told: list[str] = []
    model, guide = halves(told)
    start(start_of(DATA.train, model=model, guide=guide), warm)
    assert told == [f"start {name}" for name in started]


def test_every_module_gets_the_same_new_generator() -> None:
    context = start_of(DATA.train)
    draws = [torch.rand(3, generator=context.generator()) for _ in range(2)]
    assert torch.equal(*draws)
    with pytest.raises(dataclasses.FrozenInstanceError):
        context.seed = 1  # type: ignore[misc]


class Plain(nn.Module):
    """A user's model, whose hooks find the mean of the data and, when it is fitted, their largest entry."""

    size = N

    def __init__(self) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(12))
        self.register_buffer("largest", torch.zeros(()))

    def forward(self, x: Tensor) -> None:
        with pv.data_plate(N, x):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(self.loc + 0 * z[:, None], 1.0).to_event(1), obs=x)


class Hooked(Plain):
    def start_fit(self, context: Start) -> None:
        with torch.no_grad():
            self.loc.copy_(torch.cat(list(context.rows)).mean(0))
        self.seen = (len(context.split), context.sample.shape, context.seed)

    def finish_fit(self, context: Finish) -> None:
        assert not self.training
        self.largest.copy_(torch.stack([x.max() for x in context.batches]).max())


class PlainGuide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> None:
        with pv.data_plate(N, x):
            pyro.sample("z", dist.Normal(self.loc, 1.0))

    def posterior(self, x: Tensor) -> Any:
        return dist.Normal(self.loc + 0 * x[:, :1], 1.0).to_event(1)


def test_a_users_module_takes_part() -> None:
    slow = dataclasses.replace(SVI, learning_rate=1e-12, seed=7)
    model = Hooked()
    pv.fit(model, DATA, guide=PlainGuide(), method=slow)
    x = DATA.train.transformed()
    torch.testing.assert_close(model.loc.detach(), x.mean(0))
    assert model.largest == x.max()
    assert model.seen == (N, x.shape, 7)


class OldModel(Plain):
    """The hooks that there were before."""

    def __init__(self) -> None:
        super().__init__()
        self.part = OldPart()
        self.prior = OldPrior()
        self.told: list[Any] = []

    def prepare(self, rows: Any, generator: torch.Generator) -> None:
        self.told.append(("prepare", len(rows), generator.initial_seed()))

    def initialize(self, rows: Any, generator: torch.Generator) -> None:
        self.told.append(("initialize", sum(len(x) for x in rows), generator.initial_seed()))

    def fit_codes(self, codes: Iterable[Tensor]) -> None:
        self.told.append(("fit_codes", torch.cat(list(codes)).shape))


class OldPart(nn.Module):
    def centre_on(self, x: Tensor) -> None:
        self.centre = x.mean(0)


class OldPrior(nn.Module):
    def initialize(self, rows: Any) -> None:
        self.rows = len(rows)


class OldGuide(PlainGuide):
    def __init__(self) -> None:
        super().__init__()
        self.told: list[Any] = []

    def initialize(self, rows: Any, model: Any) -> None:
        self.told.append(type(model))

    def settle(self) -> None:
        self.told.append("settle")


@pytest.mark.filterwarnings("ignore:.*is called.*:DeprecationWarning")
def test_the_old_hooks_are_called_as_they_were() -> None:
    model, guide = OldModel(), OldGuide()
    pv.fit(model, DATA, guide=guide, method=dataclasses.replace(SVI, epochs=2, seed=5))
    assert model.told == [("prepare", N, 5), ("initialize", N, 5), ("fit_codes", (N, 1))]
    torch.testing.assert_close(model.part.centre, DATA.train.transformed().mean(0))
    assert model.prior.rows == N
    assert guide.told == [OldModel, "settle", "settle"]


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ("OldPart.centre_on", "start_fit"),
        ("OldModel.prepare", "start_fit"),
        ("OldModel.initialize", "start_fit"),
        ("OldPrior.initialize", "start_fit"),
        ("OldGuide.initialize", "start_fit"),
        ("OldModel.fit_codes", "finish_fit"),
        ("OldGuide.settle", "write_medians"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*is called.*:DeprecationWarning")
def test_old_hooks_say_what_they_are_called_now(before: str, now: str) -> None:
    with pytest.warns(DeprecationWarning, match=rf"{before} is called Old\w+\.{now}\S* now; the old name goes with the next"):
        pv.fit(OldModel(), DATA, guide=OldGuide(), method=SVI)


def test_our_own_modules_warn_of_nothing() -> None:
    fit = pv.fit(pv.VAE(latent_dim=2, decoder=TINY, likelihood=pv.Gaussian()), DATA, method=SVI)  # warnings are errors
    start_pair(fit.pair, DATA.train, seed=0)


def test_the_medians_of_parameters_are_written_each_epoch() -> None:
    model = pv.FactorAnalysis(latent_dim=1, weights=pv.Normal())
    fit = pv.fit(model, DATA, guide=pv.BayesianGuide(), method=SVI)
    with torch.no_grad():
        expected = fit.pair.guide.theta.median()["weights"]
    torch.testing.assert_close(fit.pair.model.values["weights"], expected)
    before = fit.pair.model.values["weights"].clone()
    with torch.no_grad():
        fit.pair.guide.theta.locs.weights.add_(1.0)
    with pytest.warns(DeprecationWarning, match=r"settle is called \w+\.write_medians now"):
        fit.pair.guide.settle()
    torch.testing.assert_close(fit.pair.model.values["weights"], before + 1.0)
    assert median_writer(nn.Identity())() is None
