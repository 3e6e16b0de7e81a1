"""What the likelihood reaches without z, against closed forms, and the remark on fits that end below it."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

import ppl_vae as pv
from ppl_vae import cli
from ppl_vae.fitting.without_latents import likeliest
from ppl_vae.types import FitWarning
from tests.table import TINY

GENERATOR = torch.Generator().manual_seed(0)
BITS = (torch.rand(200, 5, generator=GENERATOR) < torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0])).double()
CODES = torch.multinomial(torch.tensor([0.7, 0.2, 0.1]), 200, replacement=True, generator=GENERATOR)[:, None].double()
COUNTS = torch.poisson(torch.tensor([0.2, 3.0, 4000.0]).expand(200, 3), generator=GENERATOR).double()
MEASURES = torch.randn(200, 4, generator=GENERATOR).double() * torch.tensor([5.0, 2.0, 14.0, 800.0])
MEASURES = MEASURES + torch.tensor([44.0, 17.0, 200.0, 4200.0])


def entropy(share: Tensor) -> float:
    return torch.special.entr(share).sum().item()


def normal(x: Tensor) -> float:
    """The highest mean log-density of independent normal columns."""
    return -0.5 * (2 * math.pi * math.e * x.var(0, correction=0)).log().sum().item()


def poisson(x: Tensor) -> float:
    return float(stats.poisson(x.mean(0)).logpmf(x).sum(1).mean())


def laplace(x: Tensor) -> float:
    return -(2 * math.e * (x - x.median(0).values).abs().mean(0)).log().sum().item()


def shared(x: Tensor) -> float:
    return -0.5 * x.shape[1] * math.log(2 * math.pi * math.e * x.var(0, correction=0).mean().item())


FREE: dict[str, Any] = {"value": 0.5, "floor": 0.0}
MIXED = pv.MixedTable(
    groups=(
        pv.ColumnGroup(columns=(0,), likelihood=pv.Categorical(levels=3)),
        pv.ColumnGroup(columns=(1, 2, 3, 4, 5), likelihood=pv.Bernoulli()),
        pv.ColumnGroup(likelihood=pv.Gaussian(scale="per_feature", **FREE)),
    )
)
SHARE = CODES.long().flatten().bincount() / 200
CASES: dict[str, tuple[pv.Likelihood, Tensor, float]] = {
    "Bernoulli": (pv.Bernoulli(), BITS, -entropy(torch.cat([BITS.mean(0), 1 - BITS.mean(0)]))),
    "Categorical": (pv.Categorical(levels=4), CODES, -entropy(SHARE)),
    "Poisson": (pv.Poisson(), COUNTS, poisson(COUNTS)),
    "Gaussian": (pv.Gaussian(scale="per_feature", **FREE), MEASURES, normal(MEASURES)),
    "Gaussian-amortized": (pv.Gaussian(scale="amortized", **FREE), MEASURES, normal(MEASURES)),
    "Gaussian-shared": (pv.Gaussian(**FREE), MEASURES, shared(MEASURES)),
    "Laplace": (pv.Laplace(scale="per_feature", **FREE), MEASURES, laplace(MEASURES)),
    "MixedTable": (
        MIXED,
        torch.cat([CODES, BITS, MEASURES], 1),
        -entropy(SHARE) - entropy(torch.cat([BITS.mean(0), 1 - BITS.mean(0)])) + normal(MEASURES),
    ),
}


@pytest.mark.parametrize(("likelihood", "x", "expected"), CASES.values(), ids=CASES)
def test_the_best_without_latents_is_the_closed_form(likelihood: pv.Likelihood, x: Tensor, expected: float) -> None:
    assert likeliest(likelihood, x) == pytest.approx(expected, abs=2e-3)


def test_entries_that_are_missing_are_left_out() -> None:
    x = MEASURES.clone()
    x[::3, 1] = math.nan
    expected = normal(x[:, :1]) + normal(x[~x[:, 1].isnan(), 1:2]) * (~x[:, 1].isnan()).double().mean().item()
    masked = pv.Masked(likelihood=pv.Gaussian(scale="per_feature", **FREE))
    assert likeliest(masked, x[:, :2]) == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("unit", [1.0, 1e-6, 1e4])
@pytest.mark.parametrize("scale", ["none", "standardize"])
def test_models_with_a_closed_form_are_never_below_independent_columns(scale: Any, unit: float) -> None:
    data = pv.load_data(unit * MEASURES.numpy(), scale=scale, valid=0.0, test=0.0)
    fit = pv.fit(pv.FactorAnalysis(latent_dim=2), data, method=pv.EM())
    assert fit.without_latents == pytest.approx(normal(MEASURES) - MEASURES.shape[1] * math.log(unit), abs=5e-3)
    assert fit.history[-1]["log_likelihood"] > fit.without_latents - 1e-3


@pytest.mark.filterwarnings("ignore:column 3 .* nearly all that the score sees")
def test_an_isotropic_model_is_measured_by_isotropic_columns() -> None:
    fit = pv.fit(pv.PPCA(latent_dim=1), pv.load_data(MEASURES.numpy(), valid=0.0, test=0.0), method=pv.ClosedForm())
    assert fit.without_latents == pytest.approx(shared(MEASURES), abs=5e-3)


def test_models_without_a_measure_have_none() -> None:
    x, y = BITS.float().numpy(), np.arange(200) % 2
    method = pv.SVI(epochs=1)
    guide = pv.AmortizedNormal(encoder=TINY)
    conditional = pv.fit(pv.CVAE(latent_dim=1, decoder=TINY), pv.load_data(x, y=y), guide=guide, method=method)
    code = pv.fit(pv.AutoEncoder(latent_dim=1, decoder=TINY), x, method=method)
    assert conditional.without_latents is None
    assert code.without_latents is None


INCOMES = np.random.default_rng(0).lognormal(10.5, 0.6, size=(200, 3))


def test_a_fit_far_below_it_names_the_scale_of_the_columns() -> None:
    model, method = pv.VAE(latent_dim=2, likelihood=pv.Gaussian(), decoder=TINY), pv.SVI(epochs=3)
    with pytest.warns(
        FitWarning, match=r"far below the .* without latent variables.*standard deviations of .*scale='standardize'"
    ):
        fit = pv.fit(model, INCOMES, method=method)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scaled = pv.fit(model, pv.load_data(INCOMES, scale="standardize"), method=method)
    assert scaled.without_latents == pytest.approx(fit.without_latents, abs=0.5)  # of one scale for all columns
    assert scaled.history[-1]["elbo"] > fit.history[-1]["elbo"] + 1000


def test_counts_are_not_told_to_be_standardized() -> None:
    model = pv.VAE(latent_dim=2, likelihood=pv.Poisson(), decoder=TINY)
    fit = pv.fit(model, COUNTS.float().numpy(), method=pv.SVI(epochs=3))  # a remark would be an error
    assert fit.without_latents == pytest.approx(poisson(COUNTS), abs=0.5)


def test_the_run_folder_and_the_verb_tell_it(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("data.npy", BITS.float().numpy())
    fit = ["fit", "--data", "data.npy", "--model.latent_dim", "1", "--method.epochs", "1", "--out", "run"]
    assert cli.main(fit) == 0
    assert "without latent variables the likelihood reaches" in capsys.readouterr().out
    assert json.loads(Path("run/metrics.json").read_text())["without_latents"] < 0
