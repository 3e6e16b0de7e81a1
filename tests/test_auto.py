"""``likelihood: auto``: a table of mixed columns proposes its own likelihood, to exact numbers of independent columns."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import ppl_vae as pv
from ppl_vae import cli
from ppl_vae.declaration import ALIASES
from ppl_vae.fitting.fit import place, settled

SMALL = {"latent_dim": 1, "decoder": pv.Linear()}
MODEL = pv.VAE(likelihood=pv.Auto(), **SMALL)
ONE_EPOCH = pv.SVI(epochs=1)


def mixed(rows: int = 300, *, missing: bool = False) -> Any:
    """Text, booleans, named reals and counts, of a seed."""
    pd = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "species": rng.choice(["a", "b", "c"], rows, p=[0.6, 0.3, 0.1]),
            "sex": rng.choice(["female", "male"], rows),
            "alive": rng.random(rows) < 0.4,
            "mass": rng.normal(4200, 800, rows),
            "month": rng.choice(list("jfmas"), rows),
            "visits": rng.poisson(2.0, rows),
            "hits": rng.negative_binomial(1, 0.1, rows),
            "island": rng.choice(["x", "y", "z"], rows),
        }
    )
    if missing:
        frame.loc[::7, "mass"] = np.nan
        frame.loc[::5, "species"] = None
    return frame


def by_hand(wrap: Any = lambda likelihood: likelihood) -> pv.MixedTable:
    parts = {
        (3,): pv.Gaussian(scale="per_feature"),
        (1, 2): pv.Bernoulli(),
        (0, 7): pv.Categorical(levels=3),
        (4,): pv.Categorical(levels=5),
        (5,): pv.Poisson(),
        (6,): pv.NegativeBinomial(),
    }
    return pv.MixedTable(groups=tuple(pv.ColumnGroup(columns=c, likelihood=wrap(part)) for c, part in parts.items()))


def test_auto_is_the_table_that_is_written_by_hand() -> None:
    assert MODEL.settled(pv.load_data(mixed())).likelihood == by_hand()
    data = pv.load_data(mixed(missing=True), missing="ignore")
    assert MODEL.settled(data).likelihood == by_hand(lambda part: pv.Masked(likelihood=part))
    proposed, written = (pv.fit(model, data, method=ONE_EPOCH) for model in (MODEL, MODEL.settled(data)))
    assert proposed.model == written.model
    assert proposed.history[-1]["elbo"] == written.history[-1]["elbo"]
    assert proposed.transform.scale.tolist()[3] == pytest.approx(float(np.nanstd(data.train.x[:, 3].double())), rel=1e-5)
    assert proposed.transform.scale[torch.arange(8) != 3].tolist() == [1.0] * 7


def test_an_array_of_numbers_is_told_apart_column_by_column() -> None:
    rng = np.random.default_rng(1)
    x = np.column_stack([rng.normal(size=200), rng.integers(0, 2, 200), rng.poisson(1.0, 200), rng.integers(1990, 2000, 200)])
    groups = MODEL.settled(pv.load_data(x)).likelihood.groups
    assert {group.columns: type(group.likelihood).__name__ for group in groups} == {
        (0, 3): "Gaussian",
        (1,): "Bernoulli",
        (2,): "Poisson",
    }


def scipy_mean(train: Any, rows: Any, r: float | None = None) -> float:
    """Mean log-likelihood of rows under independent columns that are fitted to training rows, by scipy."""
    stats = pytest.importorskip("scipy.stats")
    found = 0.0
    for name in ("species", "sex", "alive", "month", "island"):
        shares = train[name].value_counts(normalize=True)
        found += float(np.log(rows[name].map(shares).astype(float)).mean())
    mean, scale = train["mass"].mean(), train["mass"].std(ddof=0)
    found += stats.norm(mean, scale).logpdf(rows["mass"]).mean()
    found += stats.poisson(train["visits"].mean()).logpmf(rows["visits"]).mean()
    r = likeliest_r(train["hits"]) if r is None else r
    return found + stats.nbinom(r, r / (r + train["hits"].mean())).logpmf(rows["hits"]).mean()


def likeliest_r(counts: Any) -> float:
    optimize, stats = pytest.importorskip("scipy.optimize"), pytest.importorskip("scipy.stats")

    def loss(log_r: float) -> float:
        r = np.exp(log_r)
        return -stats.nbinom(r, r / (r + counts.mean())).logpmf(counts).mean()

    return float(np.exp(optimize.minimize_scalar(loss, bounds=(-5, 5), method="bounded", options={"xatol": 1e-12}).x))


def test_independent_columns_reach_what_scipy_says() -> None:
    frame = mixed()
    data = pv.load_data(frame)
    train = frame_of(data.train.x, data.spec.table)
    fit = pv.fit(MODEL, data, method=ONE_EPOCH)
    assert fit.without_latents == pytest.approx(scipy_mean(train, train), abs=1e-6)


def frame_of(x: torch.Tensor, table: tuple[pv.Column, ...]) -> Any:
    from ppl_vae.data.frames import Form

    return Form(kind="frame", backend="pandas").rows(x, table=table)


def test_test_rows_have_the_likelihood_that_scipy_says() -> None:
    """Features and parameters of independent columns put in by hand; the Jacobian of the scale is counted."""
    data = place(MODEL, pv.load_data(mixed()), "cpu").to(dtype=torch.float64)
    train, test = (frame_of(part.x, data.spec.table) for part in (data.train, data.test))
    likelihood = settled(MODEL, data).likelihood
    h = torch.zeros(1, likelihood.features, 8, dtype=torch.float64)
    for place_, name in enumerate(data.spec.columns):
        column = data.spec.table[place_]
        if column.kind == "category":
            shares = train[name].value_counts(normalize=True)[list(column.categories)]
            h[0, : len(shares), place_] = torch.tensor(np.log(shares.to_numpy()))
        elif column.kind == "binary":
            share = float((data.train.x[:, place_]).double().mean())
            h[0, 0, place_] = np.log(share / (1 - share))
        elif column.kind == "count":
            h[0, 0, place_] = np.log(train[name].mean())
    built = likelihood.build((8,)).double()
    loc, scale = data.train.transform.constants
    h[0, 0, 3] = (train["mass"].mean() - float(loc[3])) / float(scale[3])
    parameters = dict(built.named_parameters())
    r, spread = likeliest_r(train["hits"]), train["mass"].std(ddof=0) / float(scale[3])
    with torch.no_grad():
        next(value for name, value in parameters.items() if name.startswith("likelihoods.0")).fill_(np.log(spread - 1e-3))
        next(value for name, value in parameters.items() if name.startswith("likelihoods.5")).fill_(np.log(r - 1e-3))
    seen = data.test.transform(data.test.x)
    found = float(built(h).log_prob(seen).mean().detach()) + data.test.transform.log_jacobian
    assert found == pytest.approx(scipy_mean(train, test, r), abs=1e-6)


def test_columns_are_named_in_groups() -> None:
    groups = (
        pv.ColumnGroup(columns=("species", "island"), likelihood=pv.Categorical(levels=3)),
        pv.ColumnGroup(columns=("month",), likelihood=pv.Categorical(levels=5)),
        pv.ColumnGroup(),
    )
    model = pv.VAE(likelihood=pv.MixedTable(groups=groups), **SMALL)
    assert pv.VAE.from_yaml(model.to_yaml()) == model
    found = pv.fit(model, mixed(), method=ONE_EPOCH).model
    assert [group.columns for group in found.likelihood.groups] == [(0, 7), (4,), ()]
    with pytest.raises(ValueError, match="the names species, island, month: fit a model"):
        model.likelihood.build((8,))
    wrong = dataclasses.replace(model, likelihood=pv.MixedTable(groups=(pv.ColumnGroup(columns=("specie",)), pv.ColumnGroup())))
    with pytest.raises(ValueError, match=r"got 'specie': did you mean species\?"):
        pv.fit(wrong, mixed(), method=ONE_EPOCH)


REFUSED = {
    "GMM": pv.GMM(components=2),
    "FactorAnalysis": pv.FactorAnalysis(latent_dim=1),
    "PPCA": pv.PPCA(latent_dim=1),
    "PCA": pv.PCA(latent_dim=1),
    "Gaussian": pv.VAE(likelihood=pv.Gaussian()),
    "StudentT": pv.AutoEncoder(likelihood=pv.StudentT()),
}


@pytest.mark.parametrize("name", REFUSED)
def test_models_of_numbers_refuse_categories_and_take_two_levels(name: str) -> None:
    told = rf"{name} is a density of numbers, but there are columns of categories \(species, month, island\): leave them out"
    with pytest.raises(ValueError, match=told):
        REFUSED[name].check(pv.load_data(mixed()).spec)
    data = pv.load_data(mixed(), drop=("species", "month"), label="island")
    assert data.spec.classes == ("x", "y", "z")
    REFUSED[name].check(data.spec)


def test_a_table_refuses_categories_among_numbers_and_more_than_it_has_levels() -> None:
    data = pv.load_data(mixed())
    with pytest.raises(ValueError, match=r"Gaussian is a density of numbers, .* \(species, month, island\)"):
        pv.MixedTable().check(data.spec)
    few = pv.MixedTable(groups=(pv.ColumnGroup(columns=(0, 4, 7), likelihood=pv.Categorical(levels=3)), pv.ColumnGroup()))
    with pytest.raises(ValueError, match="at most 3 categories in column 'month', got 5: declare levels=5"):
        few.check(data.spec)


def test_auto_is_a_word_of_yaml() -> None:
    for name in ("auto", "Auto", "ppl_vae.Auto"):
        assert pv.Likelihood.from_dict(name) == pv.Auto()
        assert pv.Model.from_dict({"class_path": "VAE", "init_args": {"likelihood": name}}) == pv.VAE(likelihood=pv.Auto())
    assert yaml.safe_load(pv.Auto().to_yaml()) == {"class_path": "ppl_vae.Auto", "init_args": {}}
    assert type(ALIASES["auto"]()) is pv.Auto
    with pytest.raises(ValueError, match="settled where a fit begins"):
        pv.Auto().build((3,))


@pytest.mark.parametrize(
    "model", [MODEL, pv.CVAE(likelihood=pv.Auto(), **SMALL), pv.AutoEncoder(likelihood=pv.Auto(), **SMALL)]
)
def test_every_model_with_a_likelihood_settles_it(model: pv.Model) -> None:
    data = pv.load_data(mixed(80), label="island")
    found = pv.fit(model, data, method=ONE_EPOCH)
    assert isinstance(found.model.likelihood, pv.MixedTable)
    assert type(found.model) is type(model)


def test_a_run_keeps_what_was_settled_and_the_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mixed(120, missing=True).to_csv(tmp_path / "a.csv", index=False)
    words = [
        "fit",
        "--data",
        str(tmp_path / "a.csv"),
        "--data.missing",
        "ignore",
        "--data.drop",
        "hits",
        "month",
        "--device",
        "cpu",
    ]
    words += [
        "--model.likelihood",
        "auto",
        "--model.latent_dim",
        "1",
        "--model.decoder",
        "Linear",
        "--out",
        str(tmp_path / "run"),
    ]
    assert cli.main([*words, "--method.epochs", "1"]) == 0
    told = capsys.readouterr().out
    lines = told.splitlines()
    assert lines[1].split() == ["column", "kind", "dtype", "levels", "missing", "values"]
    assert next(line for line in lines if line.startswith("species")).split()[:5] == ["species", "category", "text", "3", "18"]
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["model"]["init_args"]["likelihood"]["class_path"] == "ppl_vae.MixedTable"
    assert config["data"]["drop"] == ["hits", "month"]
    loaded = pv.load_run(tmp_path / "run")
    assert loaded.spec.columns == ("species", "sex", "alive", "mass", "visits", "island")
    assert [column.dtype for column in loaded.spec.table] == ["text", "text", "boolean", "float", "integer", "text"]
    again = [*words[: words.index("--out")], "--resume", str(tmp_path / "run"), "--method.epochs", "2", "--json"]
    assert cli.main(again) == 0
    assert json.loads(capsys.readouterr().out)["iterations"] == 2


def test_encoders_see_categories_apart() -> None:
    from ppl_vae.nn.inputs import shown_of

    spec = pv.load_data(mixed(missing=True), missing="ignore").spec
    shown, shape = shown_of(spec)
    assert shape == (5 + 3 + 5 + 3,)
    x = torch.tensor([[1.0, 1, 0, 4200, 2, 7, 9, torch.nan]])
    assert shown(x).tolist() == [[1, 0, 4200, 7, 9, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0]]
