"""What verbs leave: values of the caller's own, of the source's kind, and a plain word where there is nothing to tell."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from torch import Tensor

import ppl_vae as pv

QUICK = pv.SVI(epochs=2, batch_size=64, compile=False)


def shared_mean(x: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x.reshape(-1))


def of_both_kinds(x: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(mu, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x.reshape(-1))


def guide_of_both(x: Tensor) -> None:
    pyro.sample("mu", dist.Normal(pyro.param("at", torch.tensor(0.0)), 1.0))
    slope = pyro.param("slope", torch.tensor(0.5))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(slope * x.reshape(-1), 1.0))


@pytest.fixture(scope="module")
def rows() -> Tensor:
    return torch.tensor([1.0, 2.0, 3.0, 4.0] * 10)


def test_codes_that_all_data_share_are_no_parameters_of_the_guide(rows: Tensor) -> None:
    fit = pv.fit(shared_mean, rows, guide=AutoNormal(shared_mean), method=QUICK)
    before = fit.evaluate(rows)["elbo"]
    code = fit.encode(rows[:3])
    assert not code.requires_grad
    code += 5.0
    assert fit.evaluate(rows)["elbo"] == before
    assert fit.encode(rows[:3]) == pytest.approx(float(code) - 5.0, abs=1e-6)


def test_a_frames_codes_where_all_are_shared_come_as_they_are(rows: Tensor) -> None:
    frame = pd.DataFrame({"a": rows.numpy()})
    fit = pv.fit(shared_mean, frame, guide=AutoNormal(shared_mean), method=QUICK)
    assert torch.equal(fit.encode(frame[:3]), fit.encode(rows[:3, None]))
    assert fit.encode(frame[:3], samples=4).shape == (4,)


def test_a_frames_codes_are_a_datums_own(rows: Tensor) -> None:
    frame = pd.DataFrame({"a": rows.numpy()})
    fit = pv.fit(of_both_kinds, frame, guide=guide_of_both, method=QUICK)
    assert list(fit.encode(frame[:3]).columns) == ["z_1"]
    assert fit.encode(rows[:3, None])["mu"].shape == ()


def table(rng: np.random.Generator) -> pd.DataFrame:
    size = rng.normal(170.0, 9.0, 60)
    return pd.DataFrame(
        {
            "size": size,
            "visits": rng.poisson(3.0, 60),
            "smokes": rng.random(60) < 0.4,
            "town": rng.choice(["Aalen", "Bonn", "Celle"], 60),
            "born": pd.Timestamp("1980-01-01") + pd.to_timedelta(rng.integers(0, 9000, 60), unit="D"),
        }
    )


@pytest.fixture(scope="module")
def people() -> tuple[pd.DataFrame, pv.Fit]:
    frame = table(np.random.default_rng(0))
    data = pv.load_data(frame, missing="ignore")
    return frame, pv.fit(pv.VAE(latent_dim=2, likelihood=pv.Auto()), data, method=pv.SVI(epochs=2))


@pytest.mark.filterwarnings("ignore:the weights of:ppl_vae.types.FitWarning")
@pytest.mark.parametrize("nothing", [None, float("nan")])
@pytest.mark.parametrize("backend", ["pandas", "polars"])
@pytest.mark.parametrize("name", ["smokes", "town", "visits", "size", "born"])
def test_a_column_without_any_value_is_filled_with_what_belongs_there(
    people: tuple[pd.DataFrame, pv.Fit], name: str, backend: str, nothing: Any
) -> None:
    frame, fit = people
    given = frame.head(4).copy()
    given[name] = pd.Series([nothing] * 4, dtype=object if nothing is None else float)
    if backend == "polars":
        own = pl.from_pandas(frame.head(4))
        given = own.with_columns(pl.lit(None if nothing is None else nothing).alias(name))
    filled = fit.impute(given)[name].to_list() if backend == "polars" else fit.impute(given)[name].tolist()
    kinds = {"smokes": bool, "town": str, "visits": (int, float), "size": float, "born": object}
    assert all(isinstance(value, kinds[name]) and value == value for value in filled)
    if name == "town":
        assert set(filled) <= {"Aalen", "Bonn", "Celle"}


def test_nothing_to_reconstruct_or_score_is_said(people: tuple[pd.DataFrame, pv.Fit]) -> None:
    frame, fit = people
    with pytest.raises(ValueError, match="at least 1 row to reconstruct"):
        fit.reconstruct(frame[:0])
    data = pv.load_data(["ab", "ba", "aab"] * 5, tokens="characters", valid=0.0, test=0.0)
    texts = pv.fit(pv.SequenceModel(network=pv.LSTM(hidden=2)), data, method=pv.SVI(epochs=1))
    with pytest.raises(ValueError, match="at least 1 row, got an empty list"):
        texts.score_samples([])


def test_a_lattice_alone_has_no_score_of_rows() -> None:
    fit = pv.fit(pv.Ising(shape=(3, 3), coupling=0.3))
    states = fit.sample(2)
    with pytest.raises(ValueError, match="score is log Z"):
        fit.score_samples(states)
    with pytest.raises(ValueError, match="score is log Z"):
        fit.outliers(states, held_out=states)


def by_group(group: Tensor, income: Tensor) -> None:
    with pyro.plate("g", 8):
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(group)):
        pyro.sample("obs", dist.Normal(a[group], 1.0), obs=income)


def doubled(x: Tensor, y: Tensor) -> None:
    w = pyro.sample("w", dist.Normal(torch.zeros(2, dtype=torch.float64), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)


def of_truths(x: Tensor, y: Tensor) -> None:
    w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)


@pytest.mark.parametrize(
    ("program", "data", "told"),
    [
        (by_group, (torch.arange(40) % 8, torch.randn(40)), r"comes to a program as torch.float32: write .long\(\)"),
        (doubled, (torch.randn(40, 2), torch.randn(40)), "come to a program as torch.float32, torch.float32"),
        (of_truths, (torch.randn(40, 2), torch.arange(40) % 2 == 0), r"test_left_by_verbs.py.*no log-probability of booleans"),
    ],
)
def test_dtypes_that_a_program_cannot_take_are_told(program: Any, data: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        pv.fit(program, data, guide=AutoNormal(program), method=QUICK)
