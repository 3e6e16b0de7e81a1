"""`select`: criteria against scikit-learn's and closed forms, folds, rules, what is kept, what is refused, the command line."""

from __future__ import annotations

import itertools
import json
import math
import time
import warnings
from collections import deque
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.mixture import GaussianMixture
from torch import Tensor

import ppl_vae as pv
from ppl_vae import cli
from ppl_vae.data.folds import folds
from ppl_vae.nested import field_at, fields_within, with_fields
from ppl_vae.selection import fits, processes
from ppl_vae.selection.criteria import chosen
from ppl_vae.selection.work import Outcome, Plan, Task, perform
from ppl_vae.types import FitWarning

EM = pv.EM()
ALL = {"valid": 0.0, "test": 0.0}


def blobs(n: int = 240, seed: int = 0) -> Tensor:
    """Three round clouds in the plane."""
    draw = torch.Generator().manual_seed(seed)
    centres = torch.tensor([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]])
    return centres[torch.arange(n) % 3] + torch.randn(n, 2, generator=draw)


def factors(n: int = 150, columns: int = 5) -> Tensor:
    """Two factors seen through columns of different units."""
    draw = torch.Generator().manual_seed(0)
    z, noise, W = (torch.randn(shape, generator=draw) for shape in ((n, 2), (n, columns), (2, columns)))
    return (z @ W + 0.5 * noise) * torch.arange(1, columns + 1)


@pytest.fixture(scope="module")
def iris(tmp_path_factory: pytest.TempPathFactory) -> str:
    found, path = load_iris(), tmp_path_factory.mktemp("iris") / "iris.csv"
    np.savetxt(path, found.data, delimiter=",", header=",".join(found.feature_names), comments="", fmt="%g")
    return str(path)


@pytest.fixture(scope="module")
def of_blobs() -> pv.Selection:
    return pv.select(pv.GMM(), blobs(), components=range(1, 6), method=EM, device="cpu")


def as_sklearn(fit: pv.Fit) -> GaussianMixture:
    """Scikit-learn's mixture with our parameters."""
    weights, means, covariances = (value.numpy() for value in fit.pair.model.gaussians)
    peer = GaussianMixture(len(weights), covariance_type="full")
    peer.weights_, peer.means_, peer.covariances_ = weights, means, covariances
    peer.precisions_cholesky_ = np.linalg.inv(np.linalg.cholesky(covariances)).transpose(0, 2, 1)
    return peer


# --- criteria -------------------------------------------------------------------------------------------------------------


def test_bic_on_the_command_line_is_scikit_learns_at_the_same_optimum(iris: str, capsys: pytest.CaptureFixture) -> None:
    command = ["select", "--model", "GMM", "--field", "components", "--values", "[1,2,3,4,5,6]", "--by", "bic"]
    assert cli.main([*command, "--data", iris, "--method", "EM", "--json", "--device", "cpu"]) == 0
    said = json.loads(capsys.readouterr().out)
    data = pv.load_data(iris)
    train = data.train.x.double().numpy()
    assert said["size"] == len(train) == 105
    for row in said["rows"]:
        fit = pv.fit(pv.GMM(components=row["components"]), data, method=EM, device="cpu")
        assert row["bic"] == pytest.approx(as_sklearn(fit).bic(train), rel=1e-6)
    assert said["place"] == int(np.argmin([row["bic"] for row in said["rows"]]))


def test_aic_and_penalized_are_what_they_say(of_blobs: pv.Selection) -> None:
    found = pv.select(pv.GMM(), blobs(), components=[3], by="aic", method=EM, device="cpu")
    train = pv.load_data(blobs()).train.x.double().numpy()
    [row] = found.rows
    assert row["aic"] == pytest.approx(as_sklearn(found.fit).aic(train), rel=1e-6)
    assert row["penalized"] == pytest.approx(row["train_log_likelihood"] - row["free_parameters"] / len(train))
    assert of_blobs.rows[2]["train_log_likelihood"] == row["train_log_likelihood"]


@pytest.mark.parametrize(
    ("ours", "theirs"), [("full", "full"), ("tied", "tied"), ("diagonal", "diag"), ("spherical", "spherical")]
)
def test_free_parameters_of_mixtures_are_scikit_learns(ours: str, theirs: str) -> None:
    spec = pv.load_data(factors(), **ALL).spec
    pair = pv.build(pv.GMM(components=3, covariance=ours), pv.ExactPosterior(), spec)
    peer = GaussianMixture(3, covariance_type=theirs, random_state=0).fit(factors().numpy())
    assert pair.model_facts.free_parameters == peer._n_parameters()


@pytest.mark.parametrize("columns", [3, 5])
@pytest.mark.parametrize("isotropic", [True, False])
def test_free_parameters_of_factors_are_the_dimension_of_their_covariances(columns: int, isotropic: bool) -> None:
    spec = pv.load_data(factors(columns=columns), **ALL).spec
    for K in range(1, columns):
        model = pv.PPCA(latent_dim=K) if isotropic else pv.FactorAnalysis(latent_dim=K)
        pair = pv.build(model, pv.ExactPosterior(), spec)
        draw = torch.Generator().manual_seed(K)
        W = torch.randn(columns, K, generator=draw, dtype=torch.float64)
        psi = 0.5 + torch.rand(1 if isotropic else columns, generator=draw, dtype=torch.float64)
        covariance = lambda W, psi: W @ W.T + (psi + 0 * W[:, 0]).diag()  # noqa: E731, N803
        parts = torch.autograd.functional.jacobian(covariance, (W, psi))
        rank = torch.linalg.matrix_rank(torch.cat([part.reshape(columns**2, -1) for part in parts], 1))
        assert pair.model_facts.free_parameters == int(rank) + columns


def test_free_parameters_of_other_programs() -> None:
    spec = pv.load_data(factors(), **ALL).spec
    pca = pv.build(pv.PCA(latent_dim=2), pv.ExactPosterior(), spec)
    assert pca.model_facts.free_parameters == 5 + (2 * 5 - 3) + 1
    vae = pv.build(
        pv.VAE(likelihood=pv.Gaussian(scale="shared"), latent_dim=2, decoder=pv.Linear()), pv.AmortizedNormal(), spec
    )
    assert vae.model_facts.free_parameters == 5 * 2 + 5 + 1


def test_a_network_counts_all_probabilities_but_one_of_each_row_of_its_tables() -> None:
    pd = pytest.importorskip("pandas")
    draws = np.random.default_rng(0)
    table = pd.DataFrame({name: draws.choice(states, 200) for name, states in {"a": ["n", "y"], "b": ["p", "q", "r"]}.items()})
    alone = {"a": pv.Table(), "b": pv.Table()}
    chain = {"a": pv.Table(), "b": pv.Table(parents=("a",))}
    data = pv.load_data(table, valid=0.0, test=0.0)
    found = pv.select(pv.BayesianNetwork(nodes=alone), data, nodes=[alone, chain], by="bic")
    assert [row["free_parameters"] for row in found.rows] == [1 + 2, 1 + 2 * 2]
    assert found.place == 0


def test_a_chain_counts_the_contexts_that_its_rows_had() -> None:
    draws = np.random.default_rng(0)
    data = pv.load_data(["".join(draws.choice(list("ab"), 30)) for _ in range(100)], tokens="characters", valid=0.0, test=0.0)
    found = pv.select(pv.MarkovChain(), data, order=[1, 2, 3], by="bic")
    fitted = [pv.fit(pv.MarkovChain(order=order), data).pair.model_facts.free_parameters for order in (1, 2, 3)]
    assert [row["free_parameters"] for row in found.rows] == fitted
    assert fitted == sorted(set(fitted))
    assert found.place == 0
    folds = pv.select(pv.MarkovChain(), data, order=[1, 2], by="cv", folds=2, rule="one_se")
    assert [row["free_parameters"] for row in folds.rows] == fitted[:2]


def test_the_right_number_of_components_is_found(of_blobs: pv.Selection) -> None:
    assert of_blobs.best == pv.GMM(components=3)
    assert of_blobs.place == 2
    assert of_blobs.fit.model == of_blobs.best
    alone = pv.fit(of_blobs.best, blobs(), method=EM, device="cpu")
    for name, value in alone.pair.state_dict().items():
        assert torch.equal(value, of_blobs.fit.pair.state_dict()[name])
    assert of_blobs.fit.history[-1]["log_likelihood"] == alone.history[-1]["log_likelihood"]
    assert of_blobs.fit.encode(blobs()[:4]).shape == (4, 3)


# --- held-out rows --------------------------------------------------------------------------------------------------------


def test_heldout_is_the_evaluation_of_the_validation_rows() -> None:
    data = pv.load_data(factors())
    found = pv.select(pv.FactorAnalysis(), data, latent_dim=[1, 2], by="heldout", method=EM, device="cpu")
    for row in found.rows:
        numbers = pv.fit(pv.FactorAnalysis(latent_dim=row["latent_dim"]), data, method=EM, device="cpu").evaluate(data.valid)
        assert row["heldout"] == pytest.approx(numbers["log_likelihood"], rel=1e-6)
        assert row["heldout_se"] == pytest.approx(numbers["log_likelihood_se"], rel=1e-6)
    assert found.exact


def test_without_log_p_a_bound_of_held_out_rows_is_judged() -> None:
    vae = pv.VAE(likelihood=pv.Gaussian(scale="shared"), decoder=pv.Linear())
    found = pv.select(vae, factors(60), latent_dim=[1, 2], by="heldout", samples=5, method=pv.SVI(epochs=1), device="cpu")
    data = pv.load_data(factors(60))
    fit = pv.fit(with_fields(vae, {"latent_dim": 1}), data, method=pv.SVI(epochs=1), device="cpu")
    assert found.rows[0]["heldout"] == pytest.approx(fit.evaluate(data.valid, samples=5)["iwae"], rel=1e-6)
    assert not found.exact
    assert ">= " in str(found)


def test_folds_part_the_training_rows_and_measure_their_own_scale() -> None:
    data = pv.load_data(factors(), scale="standardize")
    parts = list(folds(data, 4))
    held_out = torch.cat([part.test.x for part in parts])
    assert torch.equal(held_out.sort(0).values, data.train.x.sort(0).values)
    for part in parts:
        assert len(part.train) + len(part.test) == len(data.train) == part.spec.size + len(part.test)
        assert torch.allclose(part.train.transformed().double().mean(0), torch.zeros(5, dtype=torch.float64), atol=1e-5)
        assert torch.allclose(part.train.transform.scale.double(), part.train.x.double().std(0, correction=0), rtol=1e-5)
        assert torch.equal(part.test.transform.scale, part.train.transform.scale)
        assert torch.equal(part.valid.transform.scale, part.train.transform.scale)
    again = list(folds(data, 4))
    assert all(torch.equal(one.test.x, other.test.x) for one, other in zip(parts, again, strict=True))
    other = next(iter(folds(pv.load_data(factors(), scale="standardize", seed=1, **ALL), 4)))
    assert not torch.equal(other.test.x[:20], parts[0].test.x[:20])


def test_folds_of_a_running_text_are_blocks_of_it(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("".join(chr(97 + place) * 3 for place in range(22)))
    data = pv.load_data(path, tokens="characters", chunk=3, valid=0.0, test=0.0)
    first = [part.test.raw.padded(slice(None), 3)[:, 0].tolist() for part in folds(data, 4)]
    assert [number for fold in first for number in fold] == data.train.raw.padded(slice(None), 3)[:, 0].tolist()
    assert sorted(map(len, first)) == [5, 5, 6, 6]


def test_folds_keep_the_patches_of_an_image_together() -> None:
    images = np.repeat(np.arange(8, dtype=np.uint8), 144).reshape(8, 12, 12)  # each pixel has the number of its image
    data = pv.load_data(images, patches=pv.Patches(size=4, count=80), valid=0.0, test=0.25, scale="none")
    parts = list(folds(data, 3))
    held_out = [set(part.test.x.unique().tolist()) for part in parts]
    assert sorted(map(len, held_out)) == [2, 2, 2]
    assert set.union(*held_out) == set(data.train.x.unique().tolist())
    for part, own in zip(parts, held_out, strict=True):
        assert set(part.train.x.unique().tolist()) == set.union(*held_out) - own
    with pytest.raises(ValueError, match="no more than the 6 images that the training rows were cut out of, got 7: give more"):
        next(iter(folds(data, 7)))
    alone = pv.load_data(images[:1], patches=pv.Patches(size=4, count=20), valid=0.0, test=0.0)
    with pytest.raises(ValueError, match="no more than the 1 images"):
        next(iter(folds(alone, 2)))


def test_folds_of_noisy_data_are_drawn_once_where_they_are_held_out() -> None:
    counts = (factors(60).abs() * 10).round()
    data = pv.load_data(counts, dequantize="dynamic", scale="standardize")
    part = next(iter(folds(data, 3)))
    assert part.train.transform.noisy
    assert not part.test.transform.noisy
    assert not part.valid.transform.noisy
    assert torch.equal(part.test.x.floor().sort(0).values, part.test.as_read(whole=True).x.sort(0).values)
    assert torch.equal(part.valid.transform.scale, part.train.transform.scale)


def test_cross_validation_is_of_each_row_under_the_other_folds() -> None:
    data = pv.load_data(factors(), scale="standardize")
    found = pv.select(pv.PPCA(), data, latent_dim=[2], by="cv", folds=3, method=pv.ClosedForm(), device="cpu")
    values = []
    for part in folds(data, 3):
        fit = pv.fit(pv.PPCA(latent_dim=2), part, method=pv.ClosedForm(), device="cpu")
        rows = part.test.transformed()
        constant = -fit.transform.scale.double().log().sum()
        values.append(fit.pair.model.log_prob(rows) + constant)
    rows = torch.cat(values)
    [row] = found.rows
    assert row["cv"] == pytest.approx(rows.mean().item(), rel=1e-6)
    assert row["cv_se"] == pytest.approx(rows.std(correction=0).item() / math.sqrt(len(rows)), rel=1e-6)
    assert found.fit.spec.size == len(data.train)
    assert "cross-validated" in str(found)
    alone = pv.select(pv.PPCA(), factors(), latent_dim=[2], by="cv", folds=3, method=pv.ClosedForm(), device="cpu")
    all_rows = pv.load_data(factors(), **ALL)
    without_test_rows = pv.select(pv.PPCA(), all_rows, latent_dim=[2], by="cv", folds=3, method=pv.ClosedForm(), device="cpu")
    assert (alone.size, without_test_rows.size) == (len(data.train), 150)


def test_the_one_standard_error_rule_takes_the_simplest_that_is_near() -> None:
    rows = [
        {"cv": -3.3, "cv_se": 0.1, "free_parameters": 2},
        {"cv": -3.0, "cv_se": 0.1, "free_parameters": 9},
        {"cv": -3.0, "cv_se": 0.1, "free_parameters": 6},
        {"cv": None, "free_parameters": 1, "error": "why"},
        {"cv": -2.9, "cv_se": 0.15, "free_parameters": 12},
    ]
    assert chosen(rows, "cv", "best") == 4
    assert chosen(rows, "cv", "one_se") == 2
    with pytest.raises(ValueError, match="no candidate could be fitted; of the first: why"):
        chosen(rows[3:4], "cv", "best")


# --- candidates -----------------------------------------------------------------------------------------------------------


def test_fields_of_declarations_in_declarations() -> None:
    vae = pv.VAE(prior=pv.GaussianMixture(components=4))
    assert fields_within(vae)["prior__components"] == field_at(vae, "prior__components") == 4
    both = with_fields(pv.VAE(), {"prior__components": 7, "prior": pv.VampPrior(), "latent_dim": 3})
    assert both == pv.VAE(prior=pv.VampPrior(components=7), latent_dim=3)
    with pytest.raises(ValueError, match="did you mean components"):
        with_fields(vae, {"prior__component": 3})
    with pytest.raises(ValueError, match="expected a declaration as latent_dim of VAE"):
        with_fields(vae, {"latent_dim__x": 3})


def test_several_fields_are_all_combinations_and_those_of_the_method_are_fields_too() -> None:
    found = pv.select(
        pv.GMM(), blobs(90), components=[1, 2], covariance=["full", "spherical"], method__n_init=[2], method=EM, device="cpu"
    )
    assert [(row["components"], row["covariance"]) for row in found.rows] == [
        (1, "full"),
        (1, "spherical"),
        (2, "full"),
        (2, "spherical"),
    ]
    assert [row["free_parameters"] for row in found.rows] == [5, 3, 11, 7]
    assert found.fit.method == pv.EM(n_init=2)
    axis = found.plot().axes[0]
    assert axis.get_xticklabels()[1].get_text() == "1, spherical, 2"
    assert axis.get_xlabel() == "components, covariance, method.n_init"
    assert "| method.n_init |" in str(found)
    assert "covariance=full, method.n_init=2, the lowest BIC" in str(found)


def test_a_candidate_that_fails_is_told_by_name_and_left_out() -> None:
    few = blobs(6).repeat(10, 1)
    with pytest.warns(FitWarning, match="components=9 could not be fitted and is left out: expected components between"):
        found = pv.select(pv.GMM(covariance="spherical"), few, components=[1, 9], method=EM, device="cpu")
    assert found.rows[1]["bic"] is None
    assert "distinct points" in found.rows[1]["error"]
    assert found.best.components == 1
    assert "failed" in str(found)
    assert len(found.plot().axes[0].get_lines()[0].get_xdata()) == 1
    with pytest.warns(FitWarning, match="components=9"), pytest.raises(ValueError, match="no candidate could be fitted"):
        pv.select(pv.GMM(), few, components=[9], method=EM, device="cpu")


def test_remarks_are_told_with_the_name_of_their_candidate() -> None:
    x = factors()
    x[:, 0] = 1
    with pytest.warns(FitWarning, match=r"^latent_dim=1: .*stands on its floor"):
        pv.select(pv.FactorAnalysis(), x, latent_dim=[1], method=EM, device="cpu")


VAE = pv.VAE(likelihood=pv.Gaussian())
REFUSED = {
    "no log p(x)": (VAE, {"latent_dim": [1]}, "needs log p.x., which VAE .latent_dim=1. does not know: use by='heldout'"),
    "no density": (pv.PCA(), {"latent_dim": [1], "by": "cv"}, "is no bound: use a model with a density, such as PPCA"),
    "priors": (pv.GMM(weights=pv.Dirichlet()), {"components": [1]}, "carry priors: use by='heldout'"),
    "criterion": (pv.GMM(), {"components": [1], "by": "wbic"}, "by: one of bic, aic, heldout, cv"),
    "rule": (pv.GMM(), {"components": [1], "rule": "one_se"}, "has no standard error"),
    "no field": (pv.GMM(), {}, "a field and its values"),
    "half a field": (pv.GMM(), {"field": "components"}, "field and values together"),
    "unknown field": (pv.GMM(), {"componnts": [1]}, "did you mean components"),
    "one value": (pv.GMM(), {"components": 3}, "the values of components as a list"),
    "no values": (pv.GMM(), {"components": []}, "at least one value of components"),
    "twice": (pv.GMM(), {"components": [1, 1]}, "values of components that differ"),
    "no such value": (pv.GMM(), {"components": [1, 0]}, "components=0: expected at least 1 component"),
    "another type": (pv.GMM(), {"components": [1.5]}, "components=1.5: expected components: int"),
    "too many": (pv.FactorAnalysis(), {"latent_dim": [2, 3]}, "latent_dim=3: expected at most 2 factors"),
    "no rows": (
        pv.GMM(),
        {"components": [1], "by": "heldout", "data": {"valid": 0.0}},
        "validation rows, of which",
    ),
    "folds": (pv.GMM(), {"components": [1], "by": "cv", "folds": 1}, "2 folds or more"),
    "jobs": (pv.GMM(), {"components": [1], "jobs": 0}, "at least 1 process"),
    "samples": (VAE, {"latent_dim": [1], "by": "heldout", "samples": 0}, "at least 1 sample"),
}


@pytest.mark.parametrize(("model", "options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_chosen_is_refused_before_anything_is_fitted(
    model: pv.Model, options: dict, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fits, "performed", lambda *_: pytest.fail("something was fitted"))
    data = pv.load_data(blobs(40), **options.get("data", {}))
    rest = {name: value for name, value in options.items() if name != "data"}
    with pytest.raises(ValueError, match=message):
        pv.select(model, data, device="cpu", **rest)


# --- starts from smaller models -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("covariance", ["full", "tied", "diagonal", "spherical"])
def test_a_mixture_grows_from_a_smaller_one(covariance: str) -> None:
    data = pv.load_data(blobs(), **ALL)
    small, large = (pv.GMM(components=C, covariance=covariance) for C in (2, 4))
    smaller = pv.fit(small, data, method=EM, device="cpu")
    grown = pv.build(large, pv.ExactPosterior(), data.spec)
    assert grown.can.grow.grow(smaller.pair.model)
    assert torch.allclose(grown.model.gaussians[0].sum(), torch.ones((), dtype=torch.float64))
    start = pv.Fit(**{**vars(smaller), "pair": grown, "model": large})
    again = pv.fit(large, data, method=EM, warm_start=start, device="cpu")
    assert again.history[-1]["log_likelihood"] > smaller.history[-1]["log_likelihood"]
    assert not smaller.pair.model.grow(grown.model)
    assert not grown.model.grow(pv.build(pv.GMM(components=2, floor=0.1), pv.ExactPosterior(), data.spec).model)


@pytest.mark.parametrize("acceleration", ["squarem", "none"])
def test_factors_grow_from_fewer(acceleration: str) -> None:
    data = pv.load_data(factors(), **ALL)
    method = pv.EM(acceleration=acceleration, max_iterations=300)
    smaller = pv.fit(pv.FactorAnalysis(latent_dim=1), data, method=method, device="cpu")
    large = pv.FactorAnalysis(latent_dim=2)
    grown = pv.build(large, pv.ExactPosterior(), data.spec)
    assert grown.can.grow.grow(smaller.pair.model)
    start = pv.Fit(**{**vars(smaller), "pair": grown, "model": large})
    again = pv.fit(large, data, method=method, warm_start=start, device="cpu")
    fresh = pv.fit(large, data, method=method, device="cpu")
    reached = [fit.history[-1]["log_likelihood"] for fit in (smaller, again, fresh)]
    assert reached[1] == pytest.approx(reached[2], abs=0.01)  # columns on their floors leave several optima
    assert reached[1] > reached[0] + 0.05
    assert not grown.model.grow(pv.build(pv.PPCA(latent_dim=1), pv.ExactPosterior(), data.spec).model)


def test_a_larger_mixture_is_never_kept_below_a_smaller_one(tmp_path: Path) -> None:
    x = torch.cat([blobs(150, seed=5), blobs(150, seed=6) + 10])
    # One step of EM leaves larger mixtures where their random starts are, some of them below smaller ones.
    once = pv.EM(max_iterations=1, seed=0)
    alone = [pv.fit(pv.GMM(components=C), x, method=once, device="cpu").history[-1]["log_likelihood"] for C in range(1, 9)]
    assert any(later < earlier - 1e-3 for earlier, later in itertools.pairwise(alone)), "no longer such a case"
    found = pv.select(pv.GMM(), x, components=range(1, 9), method=once, device="cpu", out=tmp_path / "grown")
    reached = [row["train_log_likelihood"] for row in found.rows]
    assert all(row >= before - 1e-6 for row, before in zip(reached, alone, strict=True))
    grown = [row > before + 1e-6 for row, before in zip(reached, alone, strict=True)]
    assert any(grown)
    assert len(list((tmp_path / "grown" / "candidates").glob("*-from*.json"))) == sum(grown)


# --- processes and folders ------------------------------------------------------------------------------------------------


def without_seconds(selection: pv.Selection) -> list[dict]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in selection.rows]


def slowly(left: deque[Task], plan: Plan) -> tuple[Task, Outcome]:
    """Leave the others to another process, which takes seconds to begin."""
    task = left.popleft()
    deadline = time.monotonic() + 100
    while len(left) > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    return task, perform(task, plan)


def test_tasks_that_are_soon_done_begin_no_processes(of_blobs: pv.Selection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "WORTH", 1000.0)
    monkeypatch.setattr(processes, "_Others", lambda *_: pytest.fail("a process was begun"))
    found = pv.select(pv.GMM(), blobs(), components=range(1, 6), method=EM, device="cpu", jobs=2)
    assert without_seconds(found) == without_seconds(of_blobs)


def test_processes_change_nothing(of_blobs: pv.Selection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "WORTH", 0.0)
    here: list[int] = []
    monkeypatch.setattr(processes, "_first", lambda left, plan: here.append(0) or slowly(left, plan))
    found = pv.select(pv.GMM(), blobs(), components=range(1, 6), method=EM, device="cpu", jobs=2)
    assert 1 <= len(here) < 5
    assert without_seconds(found) == without_seconds(of_blobs)
    for name, value in of_blobs.fit.pair.state_dict().items():
        assert torch.equal(value, found.fit.pair.state_dict()[name])


def test_what_cannot_go_to_another_process_is_refused() -> None:
    class Local(pv.GMM):
        """A class of a function."""

    with pytest.raises(ValueError, match=r"cannot go to other processes .*use jobs=1"):
        pv.select(Local(), blobs(40), components=[1, 2], method=EM, device="cpu", jobs=2)


def test_a_second_call_goes_on_with_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"components": [1, 2, 3], "method": EM, "device": "cpu", "out": tmp_path / "chosen"}
    first = pv.select(pv.GMM(), blobs(90), **options)
    folder = tmp_path / "chosen"
    assert {path.name for path in folder.iterdir()} == {"candidates", "selection.json", "selection.md", "selection.png"}
    assert pv.load_run(folder / "candidates" / "02-components=2", device="cpu").model == pv.GMM(components=2)
    assert json.loads((folder / "selection.json").read_text())["rows"] == first.rows
    done: list[int] = []
    perform = processes.perform
    monkeypatch.setattr(processes, "perform", lambda task, plan: done.append(task.place) or perform(task, plan))
    (folder / "candidates" / "02-components=2.json").unlink()
    again = pv.select(pv.GMM(), blobs(90), **options)
    assert done == [1]
    assert without_seconds(again) == without_seconds(first)
    assert torch.equal(again.fit.pair.model.loc, first.fit.pair.model.loc)
    for change in ({"components": [1, 2, 4]}, {"by": "aic"}, {"method": pv.EM(n_init=2)}):
        with pytest.raises(ValueError, match="holds the selection of another experiment"):
            pv.select(pv.GMM(), blobs(90), **(options | change))
    with pytest.raises(ValueError, match="the data have changed since"):
        pv.select(pv.GMM(), blobs(90, seed=1), **options)
    with pytest.raises(ValueError, match="exists and is not a selection"):
        pv.select(pv.GMM(), blobs(90), **(options | {"out": tmp_path}))


def test_a_fit_that_was_broken_off_goes_on_from_its_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"latent_dim": [1], "by": "heldout", "method": pv.SVI(epochs=4), "device": "cpu", "samples": 3}
    whole = pv.select(VAE, factors(60), out=tmp_path / "whole", **options)
    kept, rows = pv.storage.checkpoint.Checkpointer.keep, []

    def broken(self: pv.Checkpointer, snapshot: object) -> None:
        kept(self, snapshot)
        rows.append(len(snapshot.history))
        if len(snapshot.history) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pv.Checkpointer, "keep", broken)
        patch.setattr(pv.Checkpointer, "due", lambda self: (self._begun or self._begin(), True)[1])
        with pytest.raises(KeyboardInterrupt):
            pv.select(VAE, factors(60), out=tmp_path / "broken", **options)
    again = pv.select(VAE, factors(60), out=tmp_path / "broken", **options)
    assert [row["elbo"] for row in again.fit.history] == [row["elbo"] for row in whole.fit.history]
    assert without_seconds(again) == without_seconds(whole)


def test_another_value_anywhere_is_other_data(tmp_path: Path) -> None:
    x = blobs(1000)
    for place, by in ((502, "bic"), (3, "heldout")):
        options = {"components": [1], "by": by, "method": EM, "device": "cpu"}
        rows = pv.load_data(x, **(ALL if by == "bic" else {"valid": 0.2, "test": 0.0}))
        pv.select(pv.GMM(), rows, out=tmp_path / by, **options)
        split = rows.train if by == "bic" else rows.valid
        split.raw[place] += 1e-3
        with pytest.raises(ValueError, match="the data have changed since"):
            pv.select(pv.GMM(), rows, out=tmp_path / by, **options)


def test_errors_of_weighted_rows_do_not_hang_on_the_unit_of_the_weights() -> None:
    x, w = factors(60), torch.arange(60) % 5 + 0.5
    options = {"latent_dim": [1, 2], "by": "cv", "folds": 3, "method": pv.EM(max_iterations=20), "device": "cpu"}
    tables = [pv.select(pv.FactorAnalysis(), pv.load_data(x, weights=unit * w, **ALL), **options).rows for unit in (1.0, 1e-3)]
    scores, weights = [], []
    data = pv.load_data(x, weights=w, **ALL)
    for _, part in enumerate(folds(data, 3)):
        fit = pv.fit(pv.FactorAnalysis(latent_dim=1), part, method=pv.EM(max_iterations=20), device="cpu")
        scores.append(fit.score_samples(part.test).log_prob.double())
        weights.append(part.test.weights.double())
    score, w = torch.cat(scores), torch.cat(weights)
    mean = (w @ score) / w.sum()
    error = (w * (score - mean)).square().sum().sqrt() / w.sum()
    for rows in tables:
        assert rows[0]["cv"] == pytest.approx(mean.item(), rel=1e-5)
        assert rows[0]["cv_se"] == pytest.approx(error.item(), rel=1e-4)


def test_a_candidate_that_ended_unheard_is_not_fitted_again(tmp_path: Path) -> None:
    options = {"latent_dim": [1], "by": "heldout", "method": pv.SVI(epochs=3), "device": "cpu", "samples": 3}
    first = pv.select(VAE, factors(60), out=tmp_path, **options)
    run = tmp_path / "candidates" / "01-latent_dim=1"
    seconds = [json.loads(line)["seconds"] for line in (run / "history.jsonl").read_text().splitlines()]
    (tmp_path / "candidates" / "01-latent_dim=1.json").unlink()
    again = pv.select(VAE, factors(60), out=tmp_path, **options)
    assert without_seconds(again) == without_seconds(first)
    assert [row["seconds"] for row in again.fit.history] == seconds
    told = pv.storage.Interrupted(run, 2)
    told.go_on("the same again")
    assert str(told) == "stopped by SIGINT; the state is kept, go on with: the same again"


def test_folds_are_kept_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"latent_dim": [1, 2], "by": "cv", "folds": 3, "rule": "one_se", "method": pv.ClosedForm(), "device": "cpu"}
    first = pv.select(pv.PPCA(), factors(), out=tmp_path / "cv", **options)
    assert len(list((tmp_path / "cv" / "candidates").glob("*-fold*.json"))) == 6
    monkeypatch.setattr(processes, "perform", lambda *_: pytest.fail("it was fitted again"))
    again = pv.select(pv.PPCA(), factors(), out=tmp_path / "cv", **options)
    assert again.rows == first.rows
    assert again.fit.model == first.best


# --- what people see ------------------------------------------------------------------------------------------------------


def test_the_table_and_the_picture_mark_what_was_chosen(of_blobs: pv.Selection) -> None:
    text = str(of_blobs)
    assert "| 3 *        |" in text
    assert text.endswith("chosen: components=3, the lowest BIC (168 training rows)")
    page = of_blobs._repr_html_()
    assert page.count("<tr>") == 6
    assert "<td>3 *</td>" in page
    [axes] = of_blobs.plot().axes
    line, mark = axes.get_lines()[0], axes.get_lines()[-1]
    assert list(line.get_xdata()) == [1, 2, 3, 4, 5]
    assert list(mark.get_xdata()) == [3]
    assert json.loads(json.dumps(of_blobs.to_dict()))["rows"] == of_blobs.rows


def test_the_command_line_keeps_and_refuses(iris: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    command = ["select", "--data", iris, "--method", "EM", "--device", "cpu"]
    out = ["--out", str(tmp_path / "out")]
    assert cli.main([*command, "--model", "FactorAnalysis", "--field", "latent_dim", "--values", "[1,2]", "--by=cv", *out]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "chosen: latent_dim=" in said.out
    assert "selection.png" in said.out
    vae = ["--model", "VAE", "--model.likelihood", "Gaussian", "--field", "prior", "--values", "[StandardNormal,VampPrior]"]
    svi = ["select", "--data", iris, "--method.epochs", "1", *vae, "--by", "heldout", "--samples", "2", "--json"]
    assert cli.main([*svi, "--device", "cpu"]) == 0
    assert [row["prior"] for row in json.loads(capsys.readouterr().out)["rows"]] == ["StandardNormal", "VampPrior"]
    epochs = ["--field", "method.max_iterations", "--values", "[1,5]", "--model.components", "2", "--json"]
    with warnings.catch_warnings():
        assert cli.main([*command, *epochs]) == 0
    assert [row["method__max_iterations"] for row in json.loads(capsys.readouterr().out)["rows"]] == [1, 5]
    for words, message in (
        (["--field", "components", "--values", "3"], "values"),
        (["--field", "components", "--values", "[x]"], "components"),
        (["--field", "guide.x", "--values", "[1]"], "expected a field of ExactPosterior"),
    ):
        assert cli.main([*command, *words]) == 2
        err = capsys.readouterr().err
        assert err.startswith("ppl-vae: error: ")
        assert message in err
        assert err.count("\n") == 1
