"""`compare`: rows and their unit, distances, seeds, speed, and what the command line writes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import ppl_vae as pv
from ppl_vae import cli, plots, runs
from ppl_vae.types import FitWarning

FIELDS = ["train_log_likelihood", "test_log_likelihood", "elbo", "gap", "distance", "iterations", "seconds", "seconds_to_best"]
FA = pv.FactorAnalysis(latent_dim=2)
MIXTURE = pv.GMM(components=3)
VI = pv.SVI(epochs=40, batch_size=50)


def factors(n: int = 200) -> Tensor:
    """Two factors seen through five columns."""
    draw = torch.Generator().manual_seed(0)
    z, noise, W = (torch.randn(shape, generator=draw) for shape in ((n, 2), (n, 5), (2, 5)))
    return z @ W + 0.5 * noise + 1


def blobs(n: int = 200) -> Tensor:
    """Three round clouds in the plane."""
    draw = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]])
    return centres[torch.arange(n) % 3] + torch.randn(n, 2, generator=draw)


@pytest.fixture(scope="module")
def of_factors() -> pv.Comparison:
    return pv.compare(FA, factors(), methods=[pv.EM(), VI], device="cpu")


@pytest.fixture(scope="module")
def of_blobs() -> pv.Comparison:
    return pv.compare(MIXTURE, blobs(), methods=[VI, pv.EM()], seeds=2, device="cpu")


def test_a_row_per_method_with_its_fields_in_nats_per_datum(of_factors: pv.Comparison) -> None:
    em, svi = of_factors.rows
    assert [(row["method"], row["guide"]) for row in of_factors.rows] == [
        ("EM", "ExactPosterior"),
        ("SVI(epochs=40, batch_size=50)", "AmortizedLinear"),
    ]
    assert list(em) == list(svi) == ["method", "guide", "exact", *FIELDS]
    assert em["exact"]
    data = pv.load_data(factors())
    for row, [fit] in zip(of_factors.rows, of_factors.fits, strict=True):
        assert row["train_log_likelihood"] == fit.evaluate(data.train)["log_likelihood"]
        assert row["test_log_likelihood"] == fit.evaluate(data.test)["log_likelihood"]
        assert row["elbo"] == pytest.approx(row["train_log_likelihood"] - row["gap"])
        assert row["seconds"] == fit.history[-1]["seconds"]
    assert svi["iterations"] == 40


@pytest.mark.parametrize("comparison", ["of_factors", "of_blobs"])
def test_vi_comes_within_a_twentieth_of_a_nat_of_em(comparison: str, request: pytest.FixtureRequest) -> None:
    rows = {row["method"].partition("(")[0]: row for row in request.getfixturevalue(comparison).rows}
    assert rows["EM"]["gap"] == 0
    assert rows["EM"]["distance"] == pytest.approx(0, abs=1e-12)
    assert abs(rows["EM"]["train_log_likelihood"] - rows["SVI"]["train_log_likelihood"]) < 0.05
    assert -1e-6 < rows["SVI"]["gap"] < 0.05
    assert 0 < rows["SVI"]["distance"] < 0.5


def test_the_way_up_is_exact_and_does_not_disturb_the_fit(of_factors: pv.Comparison) -> None:
    data = pv.load_data(factors())
    alone = pv.fit(FA, data, method=VI, device="cpu")
    [compared] = of_factors.fits[1]
    assert [row["elbo"] for row in alone.history] == [row["elbo"] for row in compared.history]
    for [climb], [fit], row in zip(of_factors.trajectories, of_factors.fits, of_factors.rows, strict=True):
        seconds, values = zip(*climb, strict=True)
        assert len(climb) == len(fit.history)
        assert list(seconds) == sorted(seconds)
        assert values[-1] == pytest.approx(row["train_log_likelihood"], abs=1e-4)
        assert seconds[0] > 0


def test_seconds_to_best_is_when_the_way_up_first_came_near(of_factors: pv.Comparison) -> None:
    best = max(row["train_log_likelihood"] for row in of_factors.rows)
    for row, [climb] in zip(of_factors.rows, of_factors.trajectories, strict=True):
        near = [seconds for seconds, value in climb if value >= best - 0.01]
        assert row["seconds_to_best"] == (near[0] if near else None)
    short = pv.compare(FA, factors(), methods=[pv.EM(), pv.SVI(epochs=1)], device="cpu")
    assert short.rows[0]["seconds_to_best"] <= short.rows[0]["seconds"]
    assert short.rows[1]["seconds_to_best"] is None


def test_several_seeds_give_means_and_standard_deviations(of_blobs: pv.Comparison) -> None:
    assert [len(fits) for fits in of_blobs.fits] == [2, 2]
    assert [fit.method.seed for fit in of_blobs.fits[0]] == [0, 1]
    svi = of_blobs.rows[0]
    assert set(svi) == {"method", "guide", "exact", *FIELDS, *(f"{name}_sd" for name in FIELDS)}
    values = [fit.evaluate(of_blobs.data.train)["log_likelihood"] for fit in of_blobs.fits[0]]
    assert svi["train_log_likelihood"] == pytest.approx(np.mean(values))
    assert svi["train_log_likelihood_sd"] == pytest.approx(np.std(values, ddof=1))
    chosen = pv.compare(MIXTURE, blobs(), methods=[pv.EM(seed=3)], seeds=[7, 5], device="cpu")
    assert [fit.method.seed for fit in chosen.fits[0]] == [7, 5]


def test_guides_are_tried_by_the_methods_that_fit_them() -> None:
    guides = [pv.AmortizedLinear(covariance="diagonal"), pv.ExactPosterior()]
    once = pv.SVI(epochs=1)
    found = pv.compare(FA, factors(), methods=[pv.EM(), once], guides=guides, device="cpu")
    names = [row["guide"] for row in found.rows]
    assert names == ["ExactPosterior", "AmortizedLinear(covariance='diagonal')", "ExactPosterior"]
    assert found.rows[2]["gap"] == 0 < found.rows[1]["gap"]


def test_without_an_exact_likelihood_a_bound_stands_in() -> None:
    vae = pv.VAE(latent_dim=2, likelihood=pv.Gaussian(scale="shared"), decoder=pv.Linear())
    found = pv.compare(vae, factors(60), methods=[pv.SVI(epochs=1)], device="cpu")
    [row], [[climb]], [[fit]] = found.rows, found.trajectories, found.fits
    assert not row["exact"]
    assert row["gap"] > 0
    assert row["distance"] is row["seconds_to_best"] is None
    assert climb == [(fit.history[0]["seconds"], fit.history[0]["elbo"])]
    assert ">= " in str(found)


def test_distance_does_not_see_rotations_and_labels(of_factors: pv.Comparison, of_blobs: pv.Comparison) -> None:
    em, svi = (fits[0].pair.model for fits in of_factors.fits)
    turned = pv.build(FA, pv.ExactPosterior(), of_factors.data.spec).model
    turned.load_state_dict(em.state_dict())
    turn = torch.tensor([[math.cos(0.3), -math.sin(0.3)], [math.sin(0.3), math.cos(0.3)]])
    with torch.no_grad():
        turned.decoder.layers.weight.copy_(em.decoder.layers.weight @ turn)
    assert turned.distance(em) == pytest.approx(0, abs=1e-5)
    assert svi.distance(turned) == pytest.approx(svi.distance(em), abs=1e-5)

    mixture = of_blobs.fits[1][0].pair.model
    other = pv.build(MIXTURE, pv.ExactPosterior(), of_blobs.data.spec).model
    state = {name: value[[2, 0, 1]] for name, value in mixture.state_dict().items()}
    other.load_state_dict(state)
    assert mixture.distance(other) == mixture.distance(mixture) == 0
    other.load_state_dict({**state, "loc": state["loc"] + torch.tensor([0.3, 0.4])})
    assert mixture.distance(other) == pytest.approx(0.5, abs=1e-5)


REFUSED = {
    "no methods": (FA, {"methods": []}, "at least one method"),
    "no guides": (FA, {"methods": [VI], "guides": []}, "at least one guide"),
    "no seeds": (FA, {"methods": [VI], "seeds": 0}, "at least one seed"),
    "twice the same": (FA, {"methods": [VI, VI]}, "methods and guides that differ"),
    "no EM": (pv.VAE(likelihood=pv.Gaussian()), {"methods": [VI, pv.EM()]}, "methods such as EM need: use SVI"),
    "no closed form": (FA, {"methods": [pv.ClosedForm()]}, "only PPCA has: use EM or SVI"),
}


@pytest.mark.parametrize(("model", "options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_compared_is_refused(model: pv.Model, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pv.compare(model, factors(40), **options, device="cpu")


# --- pictures, files and the command line ---------------------------------------------------------------------------------


def test_the_picture_has_a_panel_of_components_for_mixtures_in_the_plane(
    of_factors: pv.Comparison, of_blobs: pv.Comparison
) -> None:
    assert len(plots.compare(of_factors).axes) == 2
    time, ends, plane = plots.compare(of_blobs).axes
    assert time.get_xscale() == "log"
    assert len(ends.patches) == 2 * 3
    assert len(plane.patches) == 2 * 3 * 2  # methods x components x standard deviations
    wide, _, angle = max((patch.width, patch.height, patch.angle) for patch in plane.patches)
    assert wide > 0
    assert math.isfinite(angle)


def test_saved_comparisons_are_whole_and_guarded(of_blobs: pv.Comparison, tmp_path: Path) -> None:
    folder = runs.save_comparison(of_blobs, tmp_path / "found")
    assert {path.name for path in folder.iterdir()} == {"comparison.json", "comparison.md", "comparison.png"}
    content = json.loads((folder / "comparison.json").read_text())
    assert content["unit"] == "nats per datum"
    assert content["rows"] == of_blobs.rows
    assert len(content["climbs"]) == 2
    assert pv.Model.from_dict(content["model"]) == MIXTURE
    assert of_blobs.to_markdown() in (folder / "comparison.md").read_text()
    with pytest.raises(ValueError, match="already holds a comparison"):
        runs.save_comparison(of_blobs, folder)
    runs.save_comparison(of_blobs, folder, overwrite=True)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="exists and is not a comparison"):
        runs.save_comparison(of_blobs, tmp_path, overwrite=True)


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", factors(80).numpy())
    return "x.npy"


METHODS = ["--methods", "[EM,{class_path: SVI, init_args: {epochs: 2}}]"]


def test_the_command_line_compares(table: str, capsys: pytest.CaptureFixture) -> None:
    options = ["compare", "--model", "FactorAnalysis", "--model.latent_dim", "2", "--data", table, *METHODS]
    assert cli.main([*options, "--json", "--seeds", "2", "--out", "found"]) == 0
    out, err = capsys.readouterr()
    assert (err, out.count("\n")) == ("", 1)
    said = json.loads(out)
    assert list(said) == ["unit", "rows"]
    assert [row["method"] for row in said["rows"]] == ["EM", "SVI(epochs=2)"]
    saved = json.loads(Path("found/comparison.json").read_text())
    assert (saved["unit"], saved["rows"]) == (said["unit"], said["rows"])
    assert saved["data"]["source"] == table

    assert cli.main([*options, "--guides", "[ExactPosterior]"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert all(
        word in out for word in ("nats per datum", "| EM            | ExactPosterior |", "| SVI(epochs=2) | ExactPosterior |")
    )

    assert cli.main([*options, "--out", "found"]) == 2
    assert "already holds a comparison" in capsys.readouterr().err
    assert cli.main(["compare", "--data", table, "--methods", "[Nope]"]) == 2
    assert "unknown methods 'Nope': choose from " in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["fit", "compare"])
def test_what_em_remarks_on_is_one_line(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    x = factors(80).numpy()
    x[:, 0] = 1
    np.save(tmp_path / "constant.npy", x)
    with pytest.warns(FitWarning, match="stands on its floor"):
        pv.fit(FA, x, method=pv.EM(), device="cpu")
    options = ["--model", "FactorAnalysis", "--model.latent_dim", "2", "--data", str(tmp_path / "constant.npy")]
    method = ["--method", "EM"] if verb == "fit" else ["--methods", "[EM]", "--seeds", "2"]
    assert cli.main([verb, *options, *method, "--json"]) == 0
    err = capsys.readouterr().err
    assert err.startswith("ppl-vae: note: the noise variance of ")
    assert err.count("\n") == 1
    assert cli.main([verb, *options, *method, "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_seconds_are_since_the_fit_began_and_without_reports() -> None:
    data = pv.load_data(factors(80))
    for method in (pv.EM(n_init=2), pv.SVI(epochs=5)):
        slow = pv.fit(FA, data, method=method, device="cpu", progress=lambda row: torch.randn(300, 300).svd())
        seconds = [row["seconds"] for row in slow.history]
        assert seconds == sorted(seconds)
