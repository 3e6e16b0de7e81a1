"""Tables that verbs write: names and dtypes kept, missing entries as such, csv and parquet alike."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import ppl_vae as pv
from ppl_vae import cli
from ppl_vae.cli.output import save_table, writer

pandas = pytest.importorskip("pandas")
parquet = pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow (extra `parquet`) is not installed")

COLUMNS = {
    "length, cm": np.array([1.5, np.nan, 3.0], dtype=np.float32),
    "count": np.array([1, 2, 3]),
    "known": np.array([True, False, True]),
    "town": np.array(["Bonn", None, "Köln, am Rhein"], dtype=object),
    "day": np.array(["2024-02-29", "NaT", "1969-12-31"], dtype="datetime64[D]"),
}


def read(path: Path) -> pandas.DataFrame:
    return pandas.read_csv(path) if path.suffix == ".csv" else pandas.read_parquet(path)


@parquet
def test_parquet_keeps_names_dtypes_and_what_is_missing(tmp_path: Path) -> None:
    save_table(tmp_path / "t.parquet", COLUMNS)
    found = read(tmp_path / "t.parquet")
    assert list(found) == list(COLUMNS)
    assert found["length, cm"].dtype == np.float32
    assert found["count"].dtype == np.int64
    assert found["known"].dtype == bool
    assert found.isna().sum().tolist() == [1, 0, 0, 1, 1]
    assert found["town"].tolist()[2] == "Köln, am Rhein"
    assert str(found["day"].tolist()[0])[:10] == "2024-02-29"


def test_csv_has_empty_cells_where_entries_are_missing(tmp_path: Path) -> None:
    save_table(tmp_path / "t.csv", COLUMNS)
    text = (tmp_path / "t.csv").read_text(encoding="utf-8").splitlines()
    assert text == [
        '"length, cm",count,known,town,day',
        "1.5,1,True,Bonn,2024-02-29",
        ",2,False,,",
        '3.0,3,True,"Köln, am Rhein",1969-12-31',
    ]
    save_table(tmp_path / "whole.csv", {"x": np.array([2.0, np.nan])})
    assert (tmp_path / "whole.csv").read_text() == 'x\n2\n""\n'


def test_columns_of_different_lengths_leave_no_file(tmp_path: Path) -> None:
    for suffix in (".csv", ".parquet"):
        with pytest.raises(ValueError, match=r"longer|length"):
            save_table(tmp_path / f"t{suffix}", {"a": np.zeros(2), "b": np.zeros(3)})
    assert not list(tmp_path.iterdir())


def test_a_missing_pyarrow_is_told_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"writing parquet needs pyarrow: pip install 'ppl_vae\[parquet\]', or write .csv"):
        writer("codes.parquet", ".parquet")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mixture of counts by name, fitted to a csv."""
    folder = tmp_path_factory.mktemp("tables")
    draws = np.random.default_rng(0).poisson([3.0, 8.0], (40, 2))
    save_table(folder / "counts.csv", {"calls": draws[:, 0], "visits": draws[:, 1]})
    model, method = pv.VAE(latent_dim=2, likelihood=pv.Poisson(), decoder=pv.Linear()), pv.SVI(epochs=1)
    data = pv.load_data(str(folder / "counts.csv"), kind="count")
    pv.save_run(pv.fit(model, data, method=method, device="cpu"), data, folder / "run")
    return folder / "run"


@pytest.mark.parametrize("suffix", [".csv", pytest.param(".parquet", marks=parquet)])
def test_encode_and_sample_write_tables(run: Path, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    for verb, more in (("sample", ["--n", "5"]), ("encode", ["--split", "all"])):
        out = run.parent / f"{verb}{suffix}"
        assert cli.main([verb, str(run), *more, "--out", str(out), "--json", "--device", "cpu"]) == 0
        assert json.loads(capsys.readouterr().out)["out"] == str(out)
    new, codes = (read(run.parent / f"{verb}{suffix}") for verb in ("sample", "encode"))
    fitted = pv.load_run(run, device="cpu")
    assert list(new) == ["calls", "visits"]
    assert [dtype.kind for dtype in new.dtypes] == ["i", "i"]
    torch.testing.assert_close(torch.tensor(new.to_numpy()).float(), fitted.sample(5))
    assert list(codes) == ["z1", "z2"]
    wanted = fitted.encode(fitted.rows(fitted.data, "all"))
    torch.testing.assert_close(torch.tensor(codes.to_numpy()).float(), wanted)


@pytest.mark.parametrize("suffix", [".csv", pytest.param(".parquet", marks=parquet)])
def test_samples_have_the_texts_and_booleans_of_the_data(
    suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = pandas.DataFrame({"sex": ["f", "m", "m", "f"] * 5, "smokes": [True, False] * 10})
    save_table(tmp_path / f"data{suffix}", {name: column.to_numpy() for name, column in frame.items()})
    data = pv.load_data(str(tmp_path / f"data{suffix}"))
    fit = pv.fit(pv.VAE(latent_dim=1), data, method=pv.SVI(epochs=1), device="cpu")
    pv.save_run(fit, data, tmp_path / "run")
    for more, kinds in (([], ({"f", "m"}, {True, False})), (["--means"], ({"f", "m"}, None))):
        out = tmp_path / f"new{suffix}"
        arguments = ["sample", str(tmp_path / "run"), "--n", "30", "--out", str(out), "--device", "cpu", *more]
        assert cli.main(arguments) == 0, capsys.readouterr().err
        new = read(out)
        assert list(new) == ["sex", "smokes"]
        assert set(new["sex"]) <= kinds[0]
        assert set(new["smokes"]) == kinds[1] if kinds[1] else new["smokes"].between(0, 1, inclusive="neither").all()


def test_draws_have_no_place_in_a_table(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run.parent / "never.parquet"
    assert cli.main(["encode", str(run), "--samples", "2", "--out", str(out)]) == 2
    assert "expected --out to end in .npz for --samples" in capsys.readouterr().err
    assert not out.exists()
