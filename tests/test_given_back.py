"""Rows of tables come back as they were, and rows that are not what a fit knows are told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ppl_vae as pv
from ppl_vae.cli import main
from ppl_vae.types import FitWarning

pd = pytest.importorskip("pandas")
LACKING = [0, 7, 14]


def table(seed: int = 0, rows: int = 60) -> pd.DataFrame:
    """Values of which float32 has not all digits: money, names of things, and numbers."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=rows)
    frame = pd.DataFrame({"money": np.exp(14 + z).round(2), "id": rng.integers(10**8, 10**9, rows)})
    return frame.assign(g=z + rng.normal(size=rows))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of a table, and a run that was fitted to one of them."""
    found = tmp_path_factory.mktemp("given")
    frame = table()
    frame.loc[LACKING, "g"] = np.nan
    frame.to_csv(found / "m.csv", index=False)
    frame.to_csv(found / "nameless.csv", index=False, header=False)
    frame.rename(columns={"g": "G"}).to_csv(found / "renamed.csv", index=False)
    frame.assign(extra="text").to_csv(found / "more.csv", index=False)
    source = pv.DataSource(source=str(found / "m.csv"), missing="ignore", scale="standardize")
    fit = pv.fit(pv.FactorAnalysis(latent_dim=1), pv.load_data(source), method=pv.EM(), out=found / "run")
    assert len(fit.history)
    return found


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("own", [True, False])
def test_impute_leaves_what_was_observed_in_a_file_to_the_last_digit(folder: Path, suffix: str, own: bool) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    given, out = folder / f"given{suffix}", folder / f"out{suffix}"
    frame = pd.read_csv(folder / "m.csv", float_precision="round_trip")
    frame.to_csv(given, index=False) if suffix == ".csv" else frame.to_parquet(given)
    assert main(["impute", str(folder / "run"), *([] if own else ["--data", str(given)]), "--out", str(out)]) == 0
    found = pd.read_csv(out, float_precision="round_trip") if suffix == ".csv" else pd.read_parquet(out)
    assert found["g"].notna().all()

    for name in frame:
        assert found[name].dtype == frame[name].dtype
        there = frame[name].notna()
        np.testing.assert_array_equal(found[name][there], frame[name][there])


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e200])
@pytest.mark.parametrize("verb", ["score_samples", "encode", "impute", "outliers", "reconstruct"])
def test_infinity_is_no_missing_entry(folder: Path, verb: str, value: float) -> None:
    fit = pv.load_run(folder / "run")
    rows = table(1, 2).assign(g=[value, np.nan])
    with pytest.raises(ValueError, match=r"^expected finite values, or NaN where an entry is missing, got infinity [^\n]*$"):
        getattr(fit, verb)(rows)


def test_columns_of_a_file_meet_a_fit_as_those_of_a_frame(folder: Path) -> None:
    fit = pv.load_run(folder / "run")
    known = fit.score_samples(str(folder / "m.csv"))[0]
    with pytest.warns(FitWarning, match="have no names of columns: they are taken in their order, as money, id, g"):
        nameless = fit.score_samples(str(folder / "nameless.csv"))[0]
    with pytest.warns(FitWarning, match="columns that the fit does not know are left out: extra$"):
        more = fit.score_samples(str(folder / "more.csv"))[0]
    np.testing.assert_array_equal(nameless, known)
    np.testing.assert_array_equal(more, known)
    with pytest.raises(ValueError, match=r"^expected the columns money, id, g, got money, id, G: g missing, G not known: "):
        fit.score_samples(str(folder / "renamed.csv"))


def test_data_that_changed_since_the_fit_are_told(folder: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    path = tmp_path / "t.csv"
    table(2).to_csv(path, index=False)
    data = pv.load_data(pv.DataSource(source=str(path), scale="standardize"))
    pv.fit(pv.FactorAnalysis(latent_dim=1), data, method=pv.EM(), out=tmp_path / "run")
    fit = pv.load_run(tmp_path / "run")
    recwarn.clear()
    fit.rows(fit.data, "test")
    assert not [each for each in recwarn if "has changed" in str(each.message)]
    table(2).sample(frac=1.0, random_state=1).to_csv(path, index=False)
    with pytest.warns(FitWarning, match=r"t\.csv has changed since this was fitted to it: its train and valid and test"):
        fit.rows(fit.data, "test")
    recwarn.clear()
    fit.rows(fit.data, "all")
    assert not [each for each in recwarn if "has changed" in str(each.message)]


def test_what_only_python_takes_for_numbers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "u.csv"
    path.write_text("a,b\n" + "1_000,.5\n25,1.5\n" * 10)
    with pytest.raises(
        ValueError, match=r"expected numbers in column 'a', got '1_000': write numbers without _ between digits"
    ):
        pv.load_data(path)
    dates = table().assign(when=pd.date_range("2020-01-01", periods=60))
    with pytest.raises(ValueError, match="expected weights as numbers, got dtype datetime64"):
        pv.load_data(dates, weights="when")


def test_times_of_a_frame_come_back_to_the_nanosecond() -> None:
    rng = np.random.default_rng(0)
    times = pd.Timestamp("2021-05-05") + pd.to_timedelta(rng.integers(0, 86_400 * 10**9, 40), unit="ns")
    frame = pd.DataFrame({"when": times, "v": rng.normal(size=40)}, index=[*range(39), 0])
    frame.iloc[::5, 1] = np.nan
    frame.iloc[1::7, 0] = pd.NaT
    data = pv.load_data(frame, missing="ignore", scale="standardize")
    fit = pv.fit(pv.FactorAnalysis(latent_dim=1), data, method=pv.EM())
    for found in (fit.impute(frame), *fit.impute(frame, draws=2)):
        there = frame["when"].notna().to_numpy()
        assert found["when"].notna().all()
        assert found.index.equals(frame.index)
        np.testing.assert_array_equal(found["when"].to_numpy()[there], frame["when"].to_numpy()[there])


@pytest.mark.parametrize("scale", ["none", "standardize"])
def test_values_whose_squares_are_nothing_are_refused(scale: str) -> None:
    frame = table().assign(small=lambda found: found["g"] * 1e-300)
    with pytest.raises(
        ValueError, match=r"got up to \S+e-300 in feature 3 \(from 0\), whose squares are 0 in float64: give it"
    ):
        pv.load_data(frame[["g", "g", "g", "small"]].set_axis(list("abcd"), axis=1), scale=scale)
