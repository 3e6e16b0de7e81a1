"""What is taken where nothing is declared, and what a fit remarks on: by closed forms and by curves of known shape."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import ppl_vae as pv
from ppl_vae import cli
from ppl_vae.fitting.advice import advise, climbing, dominating
from ppl_vae.fitting.defaults import STEPS, default_method, svi_for


def rows(count: int = 40, columns: int = 3, *, scale: float = 1.0) -> torch.Tensor:
    x = torch.randn(count, columns, generator=torch.Generator().manual_seed(0))
    x[:, 1] *= scale
    return x


METHODS = {
    "a mixture": (pv.GMM(components=2), None, pv.EM),
    "factor analysis": (pv.FactorAnalysis(latent_dim=1), None, pv.EM),
    "factor analysis, exact": (pv.FactorAnalysis(latent_dim=1), pv.ExactPosterior(), pv.EM),
    "factor analysis, another guide": (pv.FactorAnalysis(latent_dim=1), pv.AmortizedNormal(), pv.SVI),
    "PPCA": (pv.PPCA(latent_dim=1), None, pv.ClosedForm),
    "PCA": (pv.PCA(latent_dim=1), None, pv.ClosedForm),
    "priors of parameters": (pv.FactorAnalysis(latent_dim=1, weights=pv.Normal()), None, pv.SVI),
    "networks": (pv.VAE(latent_dim=1, likelihood=pv.Gaussian()), None, pv.SVI),
}


@pytest.mark.parametrize("case", METHODS)
def test_the_method_goes_by_what_the_model_offers(case: str) -> None:
    model, guide, expected = METHODS[case]
    data = pv.load_data(rows())
    before = torch.get_rng_state()
    found = default_method(model, guide, data, seed=3)
    assert type(found) is expected
    assert found.seed == 3
    assert torch.equal(torch.get_rng_state(), before)


def test_missing_entries_leave_no_formula() -> None:
    x = rows()
    x[3, 1] = torch.nan
    assert isinstance(default_method(pv.PPCA(latent_dim=1), None, pv.load_data(x, missing="ignore")), pv.EM)


def test_fits_without_a_method_take_it() -> None:
    by_default = pv.fit(pv.PPCA(latent_dim=1), rows(), device="cpu")
    declared = pv.fit(pv.PPCA(latent_dim=1), rows(), method=pv.ClosedForm(), device="cpu")
    assert by_default.method == declared.method
    assert by_default.history[-1]["elbo"] == declared.history[-1]["elbo"]


@pytest.mark.parametrize("count", [1, 64, 65, 1257, 1437, 32_000, 32_001, 10**5, 10**7])
def test_svi_takes_steps_enough_and_batches_few_enough(count: int) -> None:
    svi = svi_for(count)
    steps = svi.steps_per_epoch(count)
    assert svi.epochs * steps >= min(STEPS, 1000 * steps)
    assert steps <= 500 or svi.batch_size == 1024
    assert svi.learning_rate is None
    assert svi == pv.SVI(epochs=svi.epochs, batch_size=svi.batch_size)


@pytest.mark.parametrize("elements", [12, 60, 256, 10**5])
def test_batches_of_long_rows_are_small(elements: int) -> None:
    svi = svi_for(3000, elements)
    assert svi.batch_size == max(8, min(64, 2 ** int(math.log2(4096 / elements))) if elements < 4096 else 8)
    assert svi.epochs * svi.steps_per_epoch(3000) >= STEPS


def test_the_digits_keep_the_epochs_and_batches_that_figures_were_measured_with() -> None:
    assert svi_for(len(pv.load_data("digits").train)) == pv.SVI()


def curve(values: list[float]) -> list[dict[str, Any]]:
    return [{"epoch": place, "elbo": value} for place, value in enumerate(values, start=1)]


def test_a_curve_climbs_if_its_second_half_gained_much_of_the_whole() -> None:
    halving = [-100 * 2.0**-epoch for epoch in range(40)]  # at the middle all but 1e-6 of the climb is done
    assert climbing(curve(halving), length="epochs") == ""
    # 100 (1 - 0.98^20) = 33.2 of 100 (1 - 0.98^39) = 54.5, windows of four epochs aside
    slow = [-100 * 0.98**epoch for epoch in range(40)]
    told = climbing(curve(slow), length="epochs")
    assert told.startswith("the ELBO still climbs: the second half of the fit gained 2")
    assert "--method.epochs 80" in told
    assert climbing(curve(slow), length="max_iterations") == ""
    assert climbing(curve(slow[:3]), length="epochs") == ""
    assert climbing(curve(list(reversed(slow))), length="epochs") == ""
    assert climbing([{"epoch": 1, "log_joint": -1.0}] * 9, length="epochs") == ""


def test_validation_data_tell_what_training_data_do_not() -> None:
    history = [row | {"valid_elbo": -1.0} for row in curve([-100 * 0.98**epoch for epoch in range(40)])]
    assert climbing(history, length="epochs") == ""


def test_one_column_dominates_where_one_scale_serves_all() -> None:
    data = pv.load_data(rows(scale=100.0))
    x = data.train.x.double()
    share = (x[:, 1] - x[:, 1].mean()).square().sum() / (x - x.mean(0)).square().sum()
    told = dominating(pv.PPCA(latent_dim=1), data)
    assert f"column 1 (from 0) has {100 * float(share):.3g} % of the squared deviations of all 3 columns" in told
    assert "--data.scale standardize" in told
    for model in (pv.FactorAnalysis(latent_dim=1), pv.VAE(latent_dim=1, likelihood=pv.Gaussian(scale="per_feature"))):
        assert dominating(model, data) == ""
    assert dominating(pv.VAE(latent_dim=1, likelihood=pv.Gaussian()), data)
    assert dominating(pv.PPCA(latent_dim=1), pv.load_data(rows(scale=100.0), scale="standardize")) == ""
    assert dominating(pv.PPCA(latent_dim=1), pv.load_data(rows())) == ""


def test_a_fit_tells_each_once() -> None:
    with pytest.warns(pv.FitWarning, match="nearly all that the score sees") as caught:
        pv.fit(pv.PPCA(latent_dim=1), rows(scale=100.0), device="cpu")
    assert len(caught) == 1


def test_an_elbo_below_the_baseline_is_told() -> None:
    data, method = pv.load_data(rows(640)), pv.SVI(epochs=100)
    model = pv.VAE(latent_dim=1, likelihood=pv.Gaussian())
    with pytest.warns(pv.FitWarning, match=r"ends at an ELBO of -5 nats per datum, below the -4 that .* earn nothing yet"):
        advise(model, method, -4.0, data, curve([-5.0] * 100))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        advise(model, method, -5.01, data, curve([-5.0] * 100))
        advise(model, method, -4.0, data, curve([-5.0] * 3))  # it has only begun
        advise(model, method, None, data, curve([-5.0] * 100))
        advise(model, method, -4.0, data, curve([math.nan] * 100))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    lines = ["a,b,c", *(",".join(f"{value:.4f}" for value in row) for row in rows().tolist())]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "t.csv"


def test_the_command_line_takes_the_same_and_writes_it_down(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = table.parent / "a run"
    words = ["fit", "--model", "FactorAnalysis", "--model.latent_dim", "1", "--data", str(table), "--device", "cpu"]
    assert cli.main([*words, "--seed", "2", "--out", str(run)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert "by EM(seed=2)" in told
    assert told[-1].startswith(f"next: ppl-vae report '{run}', evaluate '{run}', encode '{run}'")
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["method"] == pv.EM(seed=2).to_dict()
    assert config["guide"] == pv.ExactPosterior().to_dict()
    assert cli.main([*words, "--method.epochs", "1", "--json"]) == 0  # a field of SVI
    assert "next:" not in capsys.readouterr().out
    assert cli.main([*words, "--method.epochs=1"]) == 0
    told = capsys.readouterr().out
    assert "by SVI(epochs=1)" in told
    assert told.splitlines()[-1].startswith("next: nothing was kept; --out runs/NAME keeps the fit")
    assert cli.main([*words, "--quiet"]) == 0
    assert capsys.readouterr().out == ""
