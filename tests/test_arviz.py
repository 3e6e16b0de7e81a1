"""Draws of parameters for ArviZ: chains as they were drawn, exact log-likelihoods, whichever form the container has."""

from __future__ import annotations

import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ppl_vae as pv
from ppl_vae.fitting import draws

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # once a day ArviZ 0.23 tells of its successors
        arviz = draws._imported()
except ImportError:
    pytest.skip("arviz (extra `arviz`) is not installed", allow_module_level=True)

MODEL = pv.FactorAnalysis(latent_dim=1, weights=pv.Normal(), loc=pv.Normal(), scale=pv.HalfNormal())
NUTS = pv.NUTS(samples=6, warmup=4, chains=2)


@pytest.fixture(scope="module")
def data() -> pv.Data:
    pandas = pytest.importorskip("pandas")
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 3, generator=generator) * torch.tensor([1.0, 2.0, 0.5]) + 3
    frame = pandas.DataFrame(x.numpy(), columns=["length", "width", "height"])
    return pv.load_data(frame, scale="standardize")


@pytest.fixture(scope="module")
def sampled(data: pv.Data) -> pv.Fit:
    with pytest.warns(pv.FitWarning, match="have not mixed"):
        return pv.fit(MODEL, data, method=NUTS, device="cpu")


def test_chains_of_nuts_are_told_as_they_were_drawn(sampled: pv.Fit, data: pv.Data) -> None:
    found = sampled.to_arviz(data.train)
    posterior = found["posterior"]
    assert {name: posterior[name].dims for name in posterior.data_vars} == {
        "weights": ("chain", "draw", "column", "factor"),
        "loc": ("chain", "draw", "column"),
        "scale": ("chain", "draw", "column"),
    }
    assert dict(posterior.sizes) == {"chain": 2, "draw": 6, "column": 3, "factor": 1}
    assert posterior["column"].values.tolist() == ["length", "width", "height"]
    # Each draw's exact log-likelihood, summed over the rows, is what the history says of that draw.
    rows = [row for row in sampled.history if row["stage"] == "sample"]
    told = np.array([row["log_likelihood"] for row in rows]).reshape(2, 6)
    summed = found["log_likelihood"]["x"].mean("row").values
    np.testing.assert_allclose(summed, told, rtol=1e-5)
    assert [row["chain"] for row in rows] == [1] * 6 + [2] * 6
    lp = found["sample_stats"]["lp"].values
    np.testing.assert_allclose(lp, len(data.train) * np.array([row["log_joint"] for row in rows]).reshape(2, 6))


@pytest.mark.filterwarnings("ignore::ppl_vae.FitWarning")
def test_log_joints_of_weighted_rows_are_those_of_rows_repeated() -> None:
    x, w = torch.randn(12, 3, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 4 + 1.0
    kinds = ((x, {"weights": w}), (x.repeat_interleave(w.long(), 0), {}))
    data = [pv.load_data(rows, valid=0.0, test=0.0, **given) for rows, given in kinds]
    told = [pv.fit(MODEL, each, method=NUTS, device="cpu").to_arviz()["sample_stats"]["lp"] for each in data]
    np.testing.assert_allclose(told[0].values, told[1].values, rtol=1e-4)


def test_the_draws_stay_in_the_run(sampled: pv.Fit, data: pv.Data, tmp_path: Path) -> None:
    pv.save_run(sampled, data, tmp_path / "run")
    loaded = pv.load_run(tmp_path / "run", device="cpu")
    first, second = (fit.to_arviz()["posterior"]["weights"].values for fit in (sampled, loaded))
    np.testing.assert_array_equal(first, second)


def test_a_run_from_before_draws_were_kept_still_loads(sampled: pv.Fit, data: pv.Data) -> None:
    state = {name: value for name, value in sampled.pair.state_dict().items() if not name.endswith("chains")}
    pair = pv.build(sampled.model, sampled.guide, data.spec)
    pair.load_state_dict(state)
    assert pair.guide.chains.numel() == 0


@pytest.mark.parametrize("parameters", ["mean_field", "full_rank"])
def test_draws_from_a_guide_have_its_moments(data: pv.Data, parameters: Any) -> None:
    guide = pv.BayesianGuide(parameters=parameters)
    model = pv.GMM(components=2, covariance="diagonal", locs=pv.Normal())
    fit = pv.fit(model, data, guide=guide, method=pv.SVI(epochs=1), device="cpu")
    posterior = fit.to_arviz(draws=500, seed=1)["posterior"]
    assert posterior["locs"].dims == ("chain", "draw", "component", "column")
    assert posterior["locs"].shape == (1, 500, 2, 3)
    median = fit.pair.guide.theta.median()["locs"].detach().numpy()
    spread = posterior["locs"].std(("chain", "draw")).values
    assert (abs(posterior["locs"].mean(("chain", "draw")).values - median) < 5 * spread / 500**0.5).all()
    again = fit.to_arviz(draws=3, seed=1)["posterior"]["locs"].values
    np.testing.assert_array_equal(again, posterior["locs"].values[:, :3])


def test_point_estimates_have_no_draws(data: pv.Data) -> None:
    points = (
        pv.fit(pv.PPCA(latent_dim=1), data, method=pv.ClosedForm(), device="cpu"),
        pv.fit(MODEL, data, guide=pv.BayesianGuide(parameters="map"), method=pv.SVI(epochs=1), device="cpu"),
    )
    for fit in points:
        with pytest.raises(ValueError, match=r"parameters have a posterior, got point estimates: declare priors"):
            fit.to_arviz()


def test_one_mapping_is_for_the_containers_that_take_one(monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.zeros((2, 5, 3))
    groups: Any = {"posterior": {"w": array}}
    taken: list[Any] = []

    def from_dict(nested: Any, *, coords: Any, dims: Any) -> Any:
        taken.append(nested)
        return nested

    monkeypatch.setitem(__import__("sys").modules, "arviz", types.SimpleNamespace(__version__="1.0.0", from_dict=from_dict))
    assert draws.container(groups, coords={}, dims={})["posterior"]["w"] is array
    assert taken == [groups]


@pytest.mark.filterwarnings("ignore::UserWarning")  # of ArviZ itself, which takes the mapping for one variable
def test_a_container_that_holds_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    if int(arviz.__version__.split(".")[0]) >= 1:
        pytest.skip("this ArviZ takes the nested form")
    monkeypatch.setattr(arviz, "__version__", "1.0.0")  # so that the nested form meets 0.x
    with pytest.raises(ValueError, match=r"holds nothing of posterior/w where \(2, 5, 3\) was given"):
        draws.container({"posterior": {"w": np.zeros((2, 5, 3))}}, coords={}, dims={})


def test_an_import_that_another_process_disturbed_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = [FileNotFoundError("daily_warning.tmp"), arviz]

    def disturbed(name: str) -> Any:
        result = found.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(draws.importlib, "import_module", disturbed)
    assert draws._imported() is arviz
    assert not found
