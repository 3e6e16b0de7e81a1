"""Frames into every verb of a fit and frames out of it: names, dtypes, index; and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm

import ppl_vae as pv
from ppl_vae.types import FitWarning
from tests.two_levels import Exact, TwoLevels, drawn

pd = pytest.importorskip("pandas")
N = 120
RNG = np.random.default_rng(0)
GROUP = RNG.integers(0, 2, N)


def whole() -> Any:
    """Reals, text, booleans and counts that hang together, under an index of their own."""
    return pd.DataFrame(
        {
            "size": RNG.normal(size=N) + 3 * GROUP,
            "colour": np.where(RNG.random(N) < 0.8, np.where(GROUP, "red", "blue"), "green"),
            "old": RNG.random(N) < 0.3 + 0.4 * GROUP,
            "count": RNG.poisson(3, N),
            "width": RNG.normal(size=N) - GROUP,
        },
        index=[f"row {place}" for place in range(N)],
    )


FRAME = whole()
HOLES = FRAME.astype({"old": "boolean", "count": "Int64"})
for row, column in ((3, "size"), (4, "colour"), (5, "old"), (6, "count"), (6, "width")):
    HOLES.loc[f"row {row}", column] = None


@pytest.fixture(scope="module")
def fit() -> pv.Fit:
    model = pv.VAE(latent_dim=2, likelihood=pv.Auto(), decoder=pv.Linear())
    data = pv.load_data(HOLES, missing="ignore")
    return pv.fit(model, data, guide=pv.AmortizedNormal(encoder=pv.Linear()), method=pv.SVI(epochs=10))


@pytest.fixture(scope="module")
def factors() -> pv.Fit:
    data = pv.load_data(FRAME[["size", "width"]], scale="standardize")
    return pv.fit(pv.PPCA(latent_dim=1), data, method=pv.EM())


@pytest.mark.filterwarnings("ignore:the weights of")
def test_missing_cells_are_filled_with_what_the_columns_hold(fit: pv.Fit) -> None:
    found = fit.impute(HOLES)
    assert found.dtypes.to_dict() == HOLES.dtypes.to_dict()
    assert found.index.equals(HOLES.index)
    assert not found.isna().any().any()
    known = HOLES.notna()
    assert found[known].equals(HOLES[known].astype(found.dtypes.to_dict()))
    assert found.loc["row 4", "colour"] in {"red", "green", "blue"}
    draws = fit.impute(HOLES, draws=3)
    assert len(draws) == 3
    for each in draws:
        assert each.dtypes.to_dict() == HOLES.dtypes.to_dict()
        assert each[known].equals(found[known])
    assert len({each.loc["row 3", "size"] for each in draws}) == 3


def test_scores_codes_probabilities_and_reconstructions_keep_the_index(fit: pv.Fit) -> None:
    some = HOLES.iloc[[5, 2, 0]]
    for found, names in (
        (fit.score_samples(some), ["log_prob", "se"]),
        (fit.outliers(some), ["log_prob", "rank", "p_value", "score"]),
        (fit.encode(some), ["z1", "z2"]),
        (fit.reconstruct(some), list(FRAME)),
        (fit.decode(fit.encode(some)), list(FRAME)),
    ):
        assert list(found.columns) == names
        assert found.index.tolist() == ["row 5", "row 2", "row 0"]
    split = pv.load_data(HOLES, missing="ignore", valid=0.0, test=0.0).train
    np.testing.assert_allclose(fit.score_samples(HOLES)["log_prob"], fit.score_samples(split).log_prob, atol=1e-6)
    np.testing.assert_allclose(fit.encode(some), fit.encode(split)[[5, 2, 0]], atol=1e-6)
    assert fit.evaluate(HOLES)["n"] == N
    assert fit.latents(HOLES)["active_units"] >= 0


def test_columns_are_matched_by_name_and_categories_by_text(fit: pv.Fit) -> None:
    expected = fit.encode(HOLES)
    turned = HOLES[list(HOLES)[::-1]].assign(colour=HOLES["colour"].astype(pd.CategoricalDtype(["red", "green", "blue"])))
    np.testing.assert_allclose(fit.encode(turned), expected, atol=1e-6)
    np.testing.assert_allclose(fit.encode(HOLES.iloc[:1]), expected.iloc[:1], atol=1e-6)
    numbers = HOLES.assign(old=HOLES["old"].astype("Int64"), count=HOLES["count"].astype(float))
    np.testing.assert_allclose(fit.encode(numbers), expected, atol=1e-6)
    with pytest.warns(FitWarning, match="columns that the fit does not know are left out: note, id"):
        found = fit.encode(HOLES.assign(note="words", id=range(N)))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_what_does_not_fit_is_told_by_the_name_of_its_column(fit: pv.Fit) -> None:
    for wrong, told in (
        (HOLES.drop(columns="width"), "got size, colour, old, count: width missing"),
        (HOLES.assign(colour="pink"), "expected in column 'colour' one of blue, green, red, got 'pink'"),
        (HOLES.assign(size="a"), "expected numbers in column 'size', as they were when it was fitted, got text"),
    ):
        with pytest.raises(ValueError, match=told):
            fit.encode(wrong)


def test_text_is_what_it_was_whatever_a_few_rows_of_it_look_like() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"when": ["2020-01-01", "later", "true"] * 20, "size": np.arange(60.0)})
    fit = pv.fit(pv.VAE(latent_dim=1, likelihood=pv.Auto()), frame, method=pv.SVI(epochs=1, seed=0))
    together = fit.encode(frame)
    for text in ("2020-01-01", "true", "later"):
        rows = frame[frame["when"] == text]
        pandas.testing.assert_frame_equal(fit.encode(rows), together.loc[rows.index], rtol=1e-5)


def test_frames_of_one_row_and_of_none(fit: pv.Fit) -> None:
    none = HOLES.iloc[:0]
    assert fit.impute(none).dtypes.to_dict() == HOLES.dtypes.to_dict()
    assert list(fit.score_samples(none).columns) == ["log_prob", "se"]
    one = fit.impute(HOLES.iloc[3:4])
    assert one.shape == (1, 5)
    assert math.isfinite(one["size"].item())


def test_samples_as_frames_have_the_columns_of_the_source(fit: pv.Fit) -> None:
    found = fit.sample(30, frame="pandas")
    assert list(found.columns) == list(FRAME)
    assert found["colour"].isin(["red", "green", "blue"]).all()
    kinds = {name: found[name].dtype.kind for name in ("size", "old", "count")}
    assert kinds == {"size": "f", "old": "b", "count": "i"}
    numbers = fit.sample(30)
    np.testing.assert_allclose(found["size"], numbers[:, 0])
    with pytest.raises(ValueError, match="expected data of rows of columns for a frame"):
        pv.fit(pv.VAE(latent_dim=1), "digits", method=pv.SVI(epochs=1, compile=False)).sample(2, frame="pandas")


def test_the_independent_baseline_is_scipys() -> None:
    single = pv.GMM(components=1, covariance="diagonal")
    data = pv.load_data(FRAME[["size", "width"]], scale="standardize")
    found = pv.fit(single, data, method=pv.EM()).score_samples(FRAME[["size", "width"]])["log_prob"]
    train = data.train.x.double().numpy()
    expected = sum(norm(train[:, k].mean(), train[:, k].std()).logpdf(FRAME[name]) for k, name in enumerate(("size", "width")))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_components_and_classes_leave_by_name() -> None:
    table = FRAME[["size", "width"]].assign(kind=np.where(GROUP, "b", "a"))
    mixture = pv.fit(pv.GMM(components=2), pv.load_data(table, label="kind", scale="standardize"), method=pv.EM())
    probabilities = mixture.predict_proba(table)
    assert list(probabilities.columns) == ["0", "1"]
    predicted = mixture.predict(table)
    assert predicted.name == "component"
    assert predicted.index.equals(table.index)
    assert np.array_equal(predicted, probabilities.to_numpy().argmax(1))
    assert mixture.clusters(table)["clusters"] == 2
    assert mixture.probe(table, table)["accuracy"] > 0.5
    model = pv.CVAE(latent_dim=1, likelihood=pv.Gaussian(scale="per_feature"), decoder=pv.Linear())
    data = pv.load_data(table, label="kind", scale="standardize")
    classes = pv.fit(model, data, method=pv.SVI(epochs=5, compile=False))
    assert list(classes.predict_proba(table.drop(columns="kind"), samples=5).columns) == ["a", "b"]
    assert set(classes.predict(table.drop(columns="kind"), samples=5)) <= {"a", "b"}
    assert list(classes.sample(4, frame="pandas").columns) == ["size", "width", "kind"]
    assert classes.sample(4, frame="pandas")["kind"].tolist() == ["a", "b", "a", "b"]
    np.testing.assert_allclose(classes.encode(table), classes.encode(table.drop(columns="kind"), y=table["kind"].to_numpy()))


@pytest.mark.filterwarnings("ignore:the weights of")
def test_polars_and_pyarrow_come_back_as_such(fit: pv.Fit) -> None:
    pl = pytest.importorskip("polars")
    given = pl.from_pandas(HOLES.reset_index(drop=True))
    found = fit.impute(given)
    assert isinstance(found, pl.DataFrame)
    assert found.schema == given.schema
    assert found.null_count().sum_horizontal().item() == 0
    assert fit.encode(given).columns == ["z1", "z2"]
    assert fit.sample(3, frame="polars").columns == list(FRAME)
    pytest.importorskip("pyarrow")
    arrow = fit.score_samples(given.to_arrow())
    assert arrow.column_names == ["log_prob", "se"]
    np.testing.assert_allclose(arrow["log_prob"].to_numpy(), fit.score_samples(given)["log_prob"].to_numpy())


def test_codes_of_several_variables_have_columns_for_each() -> None:
    frame = pd.DataFrame(drawn(60).numpy(), columns=list("abc"), index=range(100, 160))
    fit = pv.fit(TwoLevels(), frame, guide=Exact(), method=pv.SVI(epochs=1, compile=False))
    codes = fit.encode(frame)
    tensors = fit.encode(torch.from_numpy(frame.to_numpy()))
    assert list(codes.columns) == [f"{name}_{k}" for name, code in tensors.items() for k in range(1, code.shape[1] + 1)]
    assert codes.index.equals(frame.index)
    np.testing.assert_allclose(fit.decode(codes), fit.decode(tensors), rtol=1e-5, atol=1e-6)
    assert len(fit.encode(frame, samples=2)) == 2
    assert isinstance(fit.encode(frame.to_numpy())["z2"], np.ndarray)


def test_paths_and_declarations(factors: pv.Fit, tmp_path: Path) -> None:
    rows = FRAME[["width", "size"]].reset_index(drop=True)
    rows.to_csv(tmp_path / "new.csv", index=False)
    expected = factors.score_samples(rows)["log_prob"]
    for given in (tmp_path / "new.csv", str(tmp_path / "new.csv"), pv.DataSource(source=str(tmp_path / "new.csv"))):
        np.testing.assert_allclose(factors.score_samples(given).log_prob, expected, atol=1e-6)
    rows.iloc[::3, 0] = np.nan
    rows.to_csv(tmp_path / "holes.csv", index=False)
    filled = factors.impute(tmp_path / "holes.csv")
    np.testing.assert_allclose(filled, factors.impute(rows)[["size", "width"]], rtol=1e-6)
    with pytest.raises(ValueError, match=r"expected a file or a folder, got 'none\.csv', which does not exist"):
        factors.encode("none.csv")


def test_a_fit_to_an_array_takes_a_frame_in_its_order() -> None:
    x = FRAME[["size", "width"]].to_numpy()
    fit = pv.fit(pv.PPCA(latent_dim=1), x, method=pv.EM())
    with pytest.warns(FitWarning, match="the fit knows no names of its columns: they are taken in their order, as size, width"):
        found = fit.score_samples(FRAME[["size", "width"]])
    np.testing.assert_allclose(found["log_prob"], fit.score_samples(x).log_prob)
    with pytest.raises(ValueError, match="expected numbers in column 'colour'"):
        fit.encode(FRAME[["size", "colour"]])


def test_samples_are_like_a_frame_that_is_given() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {
            "at": pandas.date_range("2024-03-01", periods=60, freq="7h", tz="Europe/Berlin"),
            "code": pandas.Categorical([10, 20, 30] * 20),
            "seen": pandas.array([True, False, None] * 20, dtype="boolean"),
            "many": pandas.array([0, 3, 9] * 20, dtype="Int64"),
            "size": np.linspace(0, 1, 60, dtype=np.float32),
        }
    )
    data = pv.load_data(frame, missing="ignore")
    fit = pv.fit(pv.VAE(latent_dim=1, likelihood=pv.Auto()), data, method=pv.SVI(epochs=1, seed=0))
    found = fit.sample(5, frame=frame)
    assert list(found.dtypes) == list(frame.dtypes)
    assert set(found["code"]) <= {10, 20, 30}
    assert list(found.index) == list(range(5))
    plain = fit.sample(5, frame="pandas")
    assert (plain["at"].dt.tz_localize("UTC") - found["at"]).abs().max() < pandas.Timedelta("1s")


def test_rows_outside_of_the_support_are_refused() -> None:
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    frame = pandas.DataFrame({"b": rng.integers(0, 2, 60), "n": np.arange(60) % 7, "r": rng.normal(size=60)})
    fit = pv.fit(pv.VAE(latent_dim=1, likelihood=pv.Auto()), frame, method=pv.SVI(epochs=1, seed=0))
    for bad in (frame.assign(b=2), frame.assign(n=0.5), frame.assign(n=-1)):
        for verb in (fit.score_samples, fit.encode, fit.evaluate, fit.outliers):
            with pytest.raises(ValueError, match=r"MixedTable, columns [\d, ]+: .*expected every value in the support"):
                verb(bad)
    assert np.isfinite(fit.score_samples(frame.assign(r=100.0))["log_prob"]).all()
    for value in (2.5, -1):
        odd = frame.astype(float)
        odd.loc[3, "n"] = value
        told = rf"whole numbers from 0 on, got 1 of 60 rows .* row 3, which holds {value} in column 'n'"
        with pytest.raises(ValueError, match=told):
            fit.score_samples(odd)
        odd.loc[1, "r"] = np.nan  # a row of which the support is not checked
        with pytest.raises(ValueError, match="row 3, which holds"):
            fit.impute(odd)
        with pytest.raises(ValueError, match=r"row \d+, which holds .* in column 'n'"):
            pv.fit(pv.VAE(latent_dim=1, likelihood=fit.model.likelihood), frame.assign(n=value), method=pv.SVI(epochs=1))


def test_values_that_are_not_finite_are_named() -> None:
    pandas = pytest.importorskip("pandas")
    x = np.random.default_rng(0).normal(size=(5000, 2))
    fit = pv.fit(pv.PPCA(latent_dim=1), pandas.DataFrame(x, columns=["a", "b"]), method=pv.ClosedForm())
    for value in (np.nan, np.inf):
        x[4500, 1] = value
        told = "got NaN or infinity, first in row 4500, column 'b'"
        with pytest.raises(ValueError, match=told):
            fit.score_samples(pandas.DataFrame(x, columns=["a", "b"]))
    counts = pandas.DataFrame({"k": [1.0, 0.0, 2.0, 4.0] * 20, "l": [0.0, 3.0, 1.0, 5.0] * 20})
    poisson = pv.fit(pv.VAE(latent_dim=1, likelihood=pv.Poisson()), counts, method=pv.SVI(epochs=1))
    counts.loc[7, "l"] = 0.5
    with pytest.raises(ValueError, match=r"in \[0, inf\] and whole, got 0 to 5, first in row 7, column 'l'"):
        poisson.encode(counts)


@pytest.mark.parametrize("labels", [[0, 1, 2], [("a", 1), ("a", 2), ("b", 1)]], ids=["numbers", "levels"])
def test_columns_keep_names_that_are_no_text(labels: list[Any]) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(np.random.default_rng(0).normal(size=(60, 3)))
    frame.columns = pandas.Index(labels)
    fit = pv.fit(pv.FactorAnalysis(latent_dim=1), pv.load_data(frame, missing="ignore"), method=pv.EM())
    lost = frame.copy()
    lost.iloc[0, 0] = np.nan
    filled = fit.impute(lost)
    pandas.testing.assert_index_equal(filled.columns, frame.columns)
    assert filled[labels[1]].equals(frame[labels[1]])


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_booleans_meet_a_fit_that_knew_them_as_categories(library: str) -> None:
    pandas, module = pytest.importorskip("pandas"), pytest.importorskip(library)
    frame = pandas.DataFrame({"c": pandas.Categorical([True, False] * 30), "r": np.linspace(0, 1, 60)})
    fit = pv.fit(pv.VAE(latent_dim=1, likelihood=pv.Auto()), frame, method=pv.SVI(epochs=1, seed=0))
    rows: Any = frame.assign(c=pandas.array([True, False] * 30, dtype="boolean"))
    if library != "pandas":
        rows = module.from_pandas(rows) if library == "polars" else module.Table.from_pandas(rows)
    assert list(fit.impute(rows)["c"])[:2] == list(rows["c"])[:2]


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_means_are_no_booleans_whatever_the_rows_were(library: str) -> None:
    pandas, module = pytest.importorskip("pandas"), pytest.importorskip(library)
    numbers = pandas.DataFrame(np.random.default_rng(0).normal(size=(60, 3)), columns=[*"abc"])
    fit = pv.fit(pv.FactorAnalysis(latent_dim=1), pv.load_data(numbers, missing="ignore"), method=pv.EM())
    rows: Any = pandas.DataFrame({"a": pandas.array([True, None], dtype="boolean"), "b": [0.5, 1.5], "c": [0.1, 0.2]})
    if library != "pandas":
        rows = module.from_pandas(rows) if library == "polars" else module.Table.from_pandas(rows)
    assert float(np.asarray(fit.impute(rows)["a"])[0]) == 1.0


def test_auto_is_of_tables() -> None:
    with pytest.raises(
        ValueError, match=r"expected a table, rows of columns, for likelihood: auto, got data of shape \(1, 8, 8\)"
    ):
        pv.fit(pv.VAE(latent_dim=1, likelihood=pv.Auto()), "digits")


@pytest.mark.filterwarnings("ignore:columns that the fit does not know")
def test_a_filled_frame_has_the_columns_that_came_in_their_order(factors: pv.Fit) -> None:
    given = FRAME[["width", "colour", "size"]].assign(number=range(N))
    given.loc["row 3", "width"] = np.nan
    found = factors.impute(given)
    assert list(found) == list(given)
    assert found.index.equals(given.index)
    assert found["number"].tolist() == list(range(N))
    assert found["colour"].equals(given["colour"])
    assert not found["width"].isna().any()
    assert found.drop("row 3")[["width", "size"]].equals(given.drop("row 3")[["width", "size"]])
    for each in factors.impute(given, draws=2):
        assert list(each) == list(given)
    polars = pytest.importorskip("polars")
    assert factors.impute(polars.from_pandas(given.reset_index(drop=True))).columns == list(given)


def test_means_lie_between_whole_numbers_and_draws_do_not() -> None:
    draws = np.random.default_rng(0)
    z = draws.normal(size=300)
    table = pd.DataFrame(
        {
            "few": draws.poisson(np.exp(0.5 * z - 1)),
            "age": (60 + 10 * z + draws.normal(size=300)).round().astype(int),
            "yes": z + draws.normal(size=300) > 0.5,
            "town": np.where(z > 0, "north", "south"),
        }
    )
    data = pv.load_data(table, valid=0.0, test=0.0)
    fit = pv.fit(pv.VAE(latent_dim=1, likelihood=pv.Auto()), data, method=pv.SVI(epochs=3))
    numbers = fit.reconstruct(data.train).numpy()
    codes = pd.DataFrame(fit.encode(data.train).numpy(), columns=["z1"])
    for found in (fit.reconstruct(table), fit.decode(codes)):
        np.testing.assert_allclose(found[["few", "age", "yes"]].to_numpy(float), numbers[:, :3], rtol=1e-5)
        assert set(found["town"]) <= {"north", "south"}
    means, drawn = fit.sample(50, frame=table, means=True), fit.sample(50, frame=table)
    assert all(dtype.kind == "f" for dtype in means[["few", "age", "yes"]].dtypes)
    assert drawn.dtypes.equals(table.dtypes)


@pytest.mark.parametrize("empty_before", [False, True])
def test_conditional_means_of_whole_columns_are_filled_in_as_they_are(empty_before: bool) -> None:
    draws = np.random.default_rng(0)
    z = draws.normal(size=200)
    answers = pd.DataFrame({f"i{k}": np.clip((3 + z + draws.normal(size=200)).round(), 1, 5).astype(int) for k in range(4)})
    seen = answers.astype("Int64") if empty_before else answers
    if empty_before:
        seen.loc[5, "i2"] = None
    data = pv.load_data(seen, valid=0.0, test=0.0, missing="ignore" if empty_before else "error")
    fit = pv.fit(pv.FactorAnalysis(latent_dim=1), data)
    lacking = answers.astype(float)
    lacking.loc[:9, "i0"] = np.nan
    expected, several = fit.impute(lacking.to_numpy()), fit.impute(lacking.to_numpy(), draws=2)
    for form in (lacking, lacking.astype("Int64")):
        filled = fit.impute(form)
        np.testing.assert_allclose(filled.to_numpy(float), expected)
        np.testing.assert_allclose(np.stack([each.to_numpy(float) for each in fit.impute(form, draws=2)]), several)
        assert filled["i1"].dtype == form["i1"].dtype
    assert (expected[:10, 0] != expected[:10, 0].round()).all()
