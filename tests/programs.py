"""Programs of several sites and fields as a table: conditional, Bayesian, two-level, plain, ragged, and with a summed site."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

import ppl_vae as pv
from ppl_vae.program.base import GuideProgram, ModelProgram
from ppl_vae.program.joint import Joint
from tests.table import TINY

ROWS, COLUMNS = 24, 4
SIZE = 10 * ROWS


@dataclass(frozen=True)
class Case:
    """A pair by name: how it is made, and what is true of it."""

    model: Callable[[], Any]
    guide: Callable[[], Any]
    kind: str = "real"
    labels: bool = False
    exact: bool = False
    """Whether its ELBO is log p(x) for every sample."""
    shared: bool = False
    """Whether some latent variables are of all data."""
    summed: bool = False
    ragged: bool = False
    """Whether rows differ in length."""


class TwoLevelModel(ModelProgram):
    """z2 ~ N(0, I), z1 | z2 ~ N(A z2, I), x | z1 ~ N(B z1, I)."""

    def __init__(self) -> None:
        super().__init__()
        self.size = SIZE
        self.middle, self.bottom = nn.Linear(1, 2), nn.Linear(2, COLUMNS)

    def prior(self) -> Joint:
        top = dist.Normal(self.middle.weight.new_zeros(1), 1.0).to_event(1)
        return Joint({"z2": top, "z1": lambda z: dist.Normal(self.middle(z["z2"]), 1.0).to_event(1)})

    def decode(self, z: Any, *known: Tensor) -> Any:
        return dist.Normal(self.bottom(z["z1"]), 1.0).to_event(1)


class TwoLevelGuide(GuideProgram):
    """Both levels given x, the lower one given the upper one too."""

    def __init__(self) -> None:
        super().__init__()
        self.size = SIZE
        self.top, self.bottom = nn.Linear(COLUMNS, 2), nn.Linear(COLUMNS + 1, 4)

    def posterior(self, *batch: Tensor) -> Joint:
        (x,) = batch
        loc, scale = self.top(x).chunk(2, -1)

        def lower(z: dict[str, Tensor]) -> Any:
            rows = torch.cat([x.expand(*z["z2"].shape[:-1], COLUMNS), z["z2"]], -1)
            loc, scale = self.bottom(rows).chunk(2, -1)
            return dist.Normal(loc, scale.exp()).to_event(1)

        return Joint({"z2": dist.Normal(loc, scale.exp()).to_event(1), "z1": lower})


def plain_model() -> Callable[..., Any]:
    """Two sites, in functions."""
    torch.manual_seed(0)
    start = torch.randn(COLUMNS, 2) / 2

    def model(x: Tensor) -> Tensor:
        weight = pyro.param("weight", start)
        with pv.data_plate(SIZE, x):
            a = pyro.sample("a", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            b = pyro.sample("b", dist.Normal(a.sum(-1), 1.0))
            return pyro.sample("x", dist.Normal(a @ weight.T + b.unsqueeze(-1), 1.0).to_event(1), obs=x)

    return model


def plain_guide() -> Callable[..., Any]:
    """Its guide."""
    network = nn.Linear(COLUMNS, 6)

    def guide(x: Tensor) -> None:
        pyro.module("network", network)
        loc, scale = network(x).chunk(2, -1)
        with pv.data_plate(SIZE, x):
            pyro.sample("a", dist.Normal(loc[..., :2], scale[..., :2].exp()).to_event(1))
            pyro.sample("b", dist.Normal(loc[..., 2], scale[..., 2].exp()))

    return guide


def summed_model() -> Callable[..., Any]:
    """A mixture of two normals whose component the model sums out."""

    def model(x: Tensor) -> Tensor:
        logit = pyro.param("logit", torch.zeros(2))
        locs = pyro.param("locs", torch.tensor([[-1.0], [1.0]]).expand(2, COLUMNS))
        with pv.data_plate(SIZE, x):
            k = pyro.sample("k", dist.Categorical(logits=logit), infer={"enumerate": "parallel"})
            return pyro.sample("x", dist.Normal(locs[k], 1.0).to_event(1), obs=x)

    return model


def ragged_model() -> Callable[..., Any]:
    """Numbers of a row around a level of its own."""

    def model(x: Tensor, length: Tensor) -> Tensor:
        loc = pyro.param("loc", torch.tensor(2.0))
        inside = pv.sequence_mask(length, x.shape[-1])
        with pv.data_plate(SIZE, x):
            z = pyro.sample("z", dist.Normal(loc.expand(len(x)), 1.0))
            each = dist.Normal(z[..., None] + x.new_zeros(x.shape[-1]), 0.5)
            return pyro.sample("x", each.mask(inside).to_event(1), obs=x)

    return model


def ragged_guide() -> Callable[..., Any]:
    """Its guide, from the mean of a row."""

    def guide(x: Tensor, length: Tensor) -> None:
        slope, bias = pyro.param("slope", torch.tensor(0.5)), pyro.param("bias", torch.tensor(0.1))
        mean = x.masked_fill(~pv.sequence_mask(length, x.shape[-1]), 0.0).sum(-1) / length
        with pv.data_plate(SIZE, x):
            pyro.sample("z", dist.Normal(slope * mean + bias, 0.5))

    return guide


def nothing() -> Callable[..., Any]:
    """A guide of no site."""

    def guide(x: Tensor) -> None:
        """Nothing is left to it."""

    return guide


CODES: dict[str, Any] = {"dim": 3, "grid": (1, 2), "update": pv.Gradient(), "restart": None}  # moved by an optimizer alone

PROGRAMS: dict[str, Case] = {
    "CVAE-labels": Case(
        lambda: pv.CVAE(latent_dim=2, likelihood=pv.Gaussian(), decoder=TINY, prior=pv.ConditionalNormal(network=TINY)),
        lambda: pv.AmortizedNormal(encoder=TINY),
        labels=True,
    ),
    "CVAE-rows": Case(
        lambda: pv.CVAE(
            latent_dim=2, likelihood=pv.Gaussian(), decoder=pv.LSTM(hidden=5), prior=pv.ConditionalNormal(network=TINY)
        ),
        lambda: pv.AmortizedNormal(encoder=pv.LSTM(hidden=5)),
        labels=True,
        ragged=True,
    ),
    "CVAE-columns": Case(
        lambda: pv.CVAE(latent_dim=2, condition=pv.Columns(columns=(0,)), likelihood=pv.Gaussian(), decoder=TINY),
        lambda: pv.AmortizedNormal(encoder=TINY),
    ),
    "FactorAnalysis-weights": Case(
        lambda: pv.FactorAnalysis(latent_dim=2, weights=pv.Normal()), lambda: pv.BayesianGuide(), shared=True
    ),
    "GMM-weights": Case(
        lambda: pv.GMM(components=2, weights=pv.Dirichlet(concentration=2.0)), lambda: pv.BayesianGuide(), shared=True
    ),
    "VQVAE": Case(
        lambda: pv.VQVAE(
            codebook=(pv.Codebook(**CODES, size=4), pv.Codebook(**CODES, size=5)), likelihood=pv.Gaussian(), decoder=TINY
        ),
        lambda: pv.NearestCode(encoder=TINY),
    ),
    "two levels": Case(TwoLevelModel, TwoLevelGuide),
    "plain": Case(plain_model, plain_guide),
    "ragged": Case(ragged_model, ragged_guide, ragged=True),
    "summed": Case(summed_model, nothing, exact=True, summed=True),
}


def data_of(case: Case, rows: int = ROWS, *, dtype: torch.dtype = torch.float32) -> pv.Data:
    """Random rows that all of it is fitted to; none are held out."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(rows, COLUMNS, generator=generator, dtype=dtype)
    labels = (torch.arange(rows) % 3).numpy() if case.labels else None
    if case.ragged:  # padded to one length, so that all rows stand in a batch
        cut = [row[: 1 + place % COLUMNS] for place, row in enumerate(x)]
        cut = pv.Ragged.from_list(cut, buckets=(COLUMNS,))
        return pv.load_data(cut, y=labels, valid=0.0, test=0.0) if case.labels else pv.load_data(cut, valid=0.0, test=0.0)
    return pv.load_data(x, y=labels, valid=0.0, test=0.0) if case.labels else pv.load_data(x, valid=0.0, test=0.0)


def pair_of(case: Case, *, seed: int = 0, size: int = SIZE) -> pv.Pair:
    """The pair with reproducible parameters, for batches of a larger set."""
    import dataclasses

    torch.manual_seed(seed)
    model, guide = case.model(), case.guide()
    spec = dataclasses.replace(data_of(case).as_given().spec, size=size)
    return pv.build(model, guide, spec)


def batch_of(case: Case, *, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    """What its programs are called with."""
    split = data_of(case, dtype=dtype).as_given().train
    if case.ragged:
        return next(split.read(("x", "length", "y") if case.labels else ("x", "length"), ROWS))
    return (split.transformed(), split.labels) if case.labels else (split.transformed(),)
