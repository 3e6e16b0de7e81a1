"""The questions about rows on the command line: files in, files with names out."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ppl_vae as pv
from ppl_vae import cli
from ppl_vae.data.rows import loaded
from ppl_vae.fitting.inputs import Entrance

RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 3)) @ RNG.normal(size=(3, 3)) + np.repeat([[0.0, 5.0, -5.0], [9.0, 0.0, 2.0], [-9.0, 2.0, 0.0]], 30, 0)
NAMES = ["long", "wide", "deep"]
KINDS = np.repeat(["ash", "oak", "yew"], 30)


def write(path: Path, x: np.ndarray, kinds: np.ndarray | None = None) -> Path:
    """A table with text in place of a number where it is missing."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow([*NAMES, *([] if kinds is None else ["kind"])])
        for place, row in enumerate(x):
            cells = ["" if np.isnan(value) else repr(float(value)) for value in row]
            rows.writerow([*cells, *([] if kinds is None else [kinds[place]])])
    return path


def read(path: Path) -> dict[str, list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    return dict(zip(head, map(list, zip(*rows, strict=True)), strict=True))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a mixture on a table with a label, new rows without it, and such with holes."""
    home = tmp_path_factory.mktemp("verbs")
    data = pv.load_data(write(home / "trees.csv", X, KINDS), label="kind", scale="standardize")
    fit = pv.fit(pv.GMM(components=3), data, method=pv.EM())
    pv.save_run(fit, data, home / "run")
    write(home / "new.csv", X[::10] + 0.1)
    holes = X[::10].copy()
    holes[::2, 1] = np.nan
    write(home / "holes.csv", holes)
    return home


def ask(capsys: pytest.CaptureFixture[str], *words: Any) -> dict[str, Any]:
    assert cli.main([*map(str, words), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_score_writes_log_densities(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = ask(capsys, "score", home / "run", "--data", home / "new.csv", "--out", home / "scores.csv")
    fit = pv.load_run(home / "run")
    expected = fit.score_samples(home / "new.csv").log_prob
    found = read(home / "scores.csv")
    np.testing.assert_allclose(np.array(found["log_prob"], float), expected)
    assert set(found["se"]) == {"0"}
    assert told["exact"]
    assert told["log_prob"] == pytest.approx(float(expected.mean()))
    ask(capsys, "score", home / "run", "--out", home / "own.npz", "--split", "test")
    assert len(np.load(home / "own.npz")["log_prob"]) == 18


def test_predict_writes_components_and_their_probabilities(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = ask(capsys, "predict", home / "run", "--data", home / "new.csv", "--out", home / "predicted.csv")
    found = read(home / "predicted.csv")
    assert list(found) == ["component", "p_0", "p_1", "p_2"]
    probabilities = np.array([found[f"p_{k}"] for k in range(3)], float)
    assert np.array_equal(probabilities.argmax(0), np.array(found["component"], int))
    assert sum(told["predicted"].values()) == 9


def test_impute_keeps_what_is_there_and_fills_the_rest(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = ask(capsys, "impute", home / "run", "--data", home / "holes.csv", "--out", home / "full.csv")
    found, given = read(home / "full.csv"), read(home / "holes.csv")
    assert told["shape"] == [9, 3]
    assert told["filled"] == sum(cell == "" for name in NAMES for cell in given[name]) > 0
    assert list(found) == NAMES
    for name in NAMES:
        kept = [place for place, cell in enumerate(given[name]) if cell]
        np.testing.assert_allclose([float(found[name][p]) for p in kept], [float(given[name][p]) for p in kept], rtol=1e-6)
        assert all(found[name])
    ask(capsys, "impute", home / "run", "--data", home / "holes.csv", "--draws", 4, "--out", home / "draws.npy")
    draws = np.load(home / "draws.npy")
    assert draws.shape == (4, 9, 3)
    assert (draws.std(0)[::2, 1] > 0).all()
    ask(capsys, "impute", home / "run", "--data", home / "holes.csv", "--draws", 2, "--out", home / "draws.csv")
    assert read(home / "draws.csv")["draw"] == ["1"] * 9 + ["2"] * 9


@pytest.mark.parametrize("verb", ["impute", "score", "predict", "outliers", "encode", "parameters"])
def test_no_file_of_data_is_written_over(verb: str, home: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Neither that of --data, under whatever name, nor that which the run was fitted to."""
    rows = write(tmp_path / "rows.csv", X[:5])
    (tmp_path / "linked.csv").symlink_to(rows)
    (tmp_path / "rows.yaml").write_text(f"source: {rows}\n")
    own = [("the run", home / "trees.csv", [])]
    given = [("--data", tmp_path / "linked.csv", ["--data", str(each)]) for each in (rows, tmp_path / "rows.yaml")]
    for what, out, words in own if verb == "parameters" else own + given:
        before = out.read_bytes()
        assert cli.main([verb, str(home / "run"), *words, "--out", str(out)]) == 2
        assert f"expected --out to be another file than the data of {what}, got '{out}'" in capsys.readouterr().err
        assert out.read_bytes() == before


def test_rows_to_fill_are_read_once(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    read_once = []
    monkeypatch.setitem(Entrance._split.__globals__, "loaded", lambda *a, **k: read_once.append(1) or loaded(*a, **k))
    ask(capsys, "impute", home / "run", "--data", home / "holes.csv", "--out", home / "once.csv")
    assert len(read_once) == 1


def test_parameters_are_printed_or_written_by_the_names_of_columns(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = ask(capsys, "parameters", home / "run", "--out", home / "parameters.csv")
    assert told["mean"]["labels"] == [["0", "1", "2"], NAMES]
    found = read(home / "parameters.csv")
    assert list(found) == ["parameter", "component", "column", "other_column", "value", "se"]
    assert len(found["value"]) == 3 + 9 + 27
    assert cli.main(["parameters", str(home / "run")]) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == ["weight", "0", "1", "2"]


def test_a_fit_says_how_many_turns_it_took_and_that_it_was_allowed_no_more(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "fit",
        "--model",
        "GMM",
        "--model.components",
        "2",
        "--data",
        str(home / "new.csv"),
        "--data.valid",
        "0",
        "--data.test",
        "0",
    ]
    assert cli.main([*words, "--method", "EM", "--method.max_iterations", "1", "--method.tolerance", "0"]) == 0
    out = capsys.readouterr().out
    assert "\n1 iteration in " in out
    assert " nats per datum, of the training data: no others were kept" in out  # in place of an empty table
    assert "--method.max_iterations allows no more; the last one gained " in out


def test_outliers_are_counted_by_their_p_values(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(home / "odd.csv", np.vstack([X[:5], [[500.0, 500.0, 500.0]]]))
    told = ask(capsys, "outliers", home / "run", "--data", home / "odd.csv", "--level", 0.06, "--out", home / "odd_out.csv")
    found = read(home / "odd_out.csv")
    assert found["rank"][-1] == "1"
    assert told["outliers"] == sum(float(p) <= 0.06 for p in found["p_value"]) >= 1
    assert told["held_out"] == 18
    assert told["strangest"][0] == 5
    assert cli.main(["outliers", str(home / "run"), "--data", str(home / "odd.csv"), "--out", str(home / "odd_out.csv")]) == 0
    printed = capsys.readouterr()
    assert "p-values of 18 held-out rows are 0.053 or more, so none is up to 0.01" in printed.err
    assert printed.out.startswith("n: 6, score: log_prob, outliers: 0, level: 0.01, held_out: 18, strangest: [5, ")
    told = ask(capsys, "outliers", home / "run", "--data", home / "odd.csv", "--score", "typicality", "--out", home / "far.csv")
    assert told["score"] == "typicality"
    assert list(read(home / "far.csv")) == ["log_prob", "rank", "p_value", "score"]


def test_parquet_and_what_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = {"score": "s.txt", "predict": "p.txt", "impute": "i.npz", "outliers": "o.npy", "parameters": "p.npy"}
    for verb, out in wrong.items():
        assert cli.main([verb, str(home / "run"), "--out", str(home / out)]) == 2
        assert "expected --out to end in .csv" in capsys.readouterr().err
    assert cli.main(["impute", str(home / "run"), "--split", "test", "--out", str(home / "i.csv")]) == 2
    assert "unrecognized arguments: --split test" in capsys.readouterr().err
    assert cli.main(["outliers", str(home / "run"), "--level", "2", "--out", str(home / "o.csv")]) == 2
    assert "expected a level between 0 and 1, got 2.0" in capsys.readouterr().err
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    ask(capsys, "impute", home / "run", "--data", home / "holes.csv", "--out", home / "full.parquet")
    assert list(pandas.read_parquet(home / "full.parquet").columns) == NAMES


def test_classes_of_a_conditional_model_are_predicted_by_name(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = pv.load_data(home / "trees.csv", label="kind", scale="standardize")
    model = pv.CVAE(latent_dim=1, likelihood=pv.Gaussian(scale="per_feature"), decoder=pv.Linear())
    fit = pv.fit(model, data, method=pv.SVI(epochs=30, learning_rate=3e-2, compile=False))
    pv.save_run(fit, data, home / "conditional")
    ask(capsys, "predict", home / "conditional", "--data", home / "new.csv", "--samples", 20, "--out", home / "kinds.csv")
    found = read(home / "kinds.csv")
    assert list(found) == ["class", "p_ash", "p_oak", "p_yew"]
    assert np.mean(np.array(found["class"]) == KINDS[::10]) > 0.8
    write(home / "empty.csv", X[::10] + 0.1, np.array([""] * 9))
    again = ask(capsys, "predict", home / "conditional", "--data", home / "empty.csv", "--samples", 20, "--out", home / "e.csv")
    assert again["predicted"] == {name: found["class"].count(name) for name in again["predicted"]}
    assert cli.main(["score", str(home / "conditional"), "--data", str(home / "new.csv"), "--out", str(home / "s.csv")]) == 2
    assert "got 'kind': name another with label (--label), or none" in capsys.readouterr().err
    told = ask(capsys, "score", home / "conditional", "--data", home / "new.csv", "--y", "oak", "--out", home / "s.csv")
    assert np.isfinite(told["log_prob"])
