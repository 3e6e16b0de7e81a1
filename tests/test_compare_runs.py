"""Saved runs side by side."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import ppl_vae as pv
from ppl_vae import plots
from ppl_vae.cli import main
from ppl_vae.runs import compare_runs, save_run_comparison
from tests.table import TINY


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A VAE and a PPCA of the same digits, and each of others."""
    folder = tmp_path_factory.mktemp("runs")
    method = pv.SVI(epochs=2, batch_size=256)
    real = pv.load_data("digits", binarize="none")
    made = {
        "vae": (pv.VAE(latent_dim=3, decoder=TINY, likelihood=pv.Gaussian()), real, method),
        "fa": (pv.PPCA(latent_dim=3), real, pv.EM(tolerance=1e-3)),
        "scaled": (pv.PPCA(latent_dim=3), pv.load_data("digits", binarize="none", scale="standardize"), pv.EM(tolerance=1e-3)),
        "seed": (pv.PPCA(latent_dim=2), pv.load_data("digits", binarize="none", seed=1), pv.ClosedForm()),
        "static": (pv.PPCA(latent_dim=2), pv.load_data("digits", binarize="static"), pv.ClosedForm()),
        "dynamic": (pv.VAE(latent_dim=2, decoder=TINY), pv.load_data("digits", binarize="dynamic"), method),
    }
    for name, (model, data, how) in made.items():
        pv.save_run(pv.fit(model, data, method=how), data, folder / name)
    return {name: folder / name for name in made}


def test_any_models_and_methods_in_one_table(runs: dict[str, Path]) -> None:
    chosen = [runs[name] for name in ("vae", "fa", "scaled")]
    found = compare_runs(chosen)
    assert found.split == "test"
    assert [row["run"] for row in found.rows] == [str(run) for run in chosen]
    assert found.rows[0]["model"].startswith("VAE(latent_dim=3")
    assert found.rows[1]["method"] == "EM(tolerance=0.001)"
    for row, run in zip(found.rows, chosen, strict=True):
        saved = json.loads((run / "metrics.json").read_text())
        assert row["elbo"] == saved["test"]["elbo"]
        assert row["iterations"] == saved["iterations"]
    lines = str(found).splitlines()
    assert len(lines) == 5
    assert len({len(line) for line in lines}) == 1
    assert "log-lik." in lines[0]
    assert "±" in lines[2]
    assert "data" not in found.rows[0]
    assert found.to_dict()["unit"] == "nats per datum"


@pytest.mark.parametrize(
    ("one", "other", "difference"),
    [
        ("fa", "seed", "seed: .* has 0, .* has 1"),
        ("static", "dynamic", "binarize: .* has static, .* has dynamic"),
        ("fa", "dynamic", "binarize: .* has none, .* has dynamic"),
    ],
)
def test_other_data_are_refused_unless_asked_for(runs: dict[str, Path], one: str, other: str, difference: str) -> None:
    with pytest.raises(ValueError, match=f"the runs differ in {difference}, so their numbers do not compare.*--across-data"):
        compare_runs([runs[one], runs[other]])
    found = compare_runs([runs[one], runs[other]], across_data=True)
    assert found.rows[0]["data"] != found.rows[1]["data"]
    assert "data" in str(found).splitlines()[0]


def test_arrays_are_told_apart_by_their_content(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(60, 3)
    for name, rows in (("a", x), ("b", x), ("c", x + 1)):
        data = pv.load_data(rows)
        pv.save_run(pv.fit(pv.PPCA(latent_dim=1), data, method=pv.ClosedForm()), data, tmp_path / name)
    assert len(compare_runs([tmp_path / "a", tmp_path / "b"]).rows) == 2
    with pytest.raises(ValueError, match="may be of different data"):
        compare_runs([tmp_path / "a", tmp_path / "c"])


def test_static_and_fresh_noise_are_of_the_same_levels(tmp_path: Path) -> None:
    """Exact methods stand beside a VAE in bits per dimension: their held-out noise is the same."""
    counts = torch.distributions.Poisson(5.0).sample((60, 3)).int()
    for name, how, model, method in (
        ("em", "static", pv.GMM(components=1), pv.EM()),
        ("vae", "dynamic", pv.VAE(latent_dim=1, likelihood=pv.Gaussian()), pv.SVI(epochs=1)),
    ):
        data = pv.load_data(counts, dequantize=how, scale="standardize")
        pv.save_run(pv.fit(model, data, method=method, progress=lambda row: None), data, tmp_path / name)
    rows = compare_runs([tmp_path / "em", tmp_path / "vae"]).rows
    assert all(row["bits_per_dim"] > 0 for row in rows)
    plain = pv.load_data(counts, scale="standardize")
    pv.save_run(pv.fit(pv.GMM(components=1), plain, method=pv.EM(), progress=lambda row: None), plain, tmp_path / "density")
    with pytest.raises(ValueError, match=r"the runs differ in kind: .* probabilities of levels, .* densities"):
        compare_runs([tmp_path / "em", tmp_path / "density"])


def test_numbers_can_be_computed_anew(runs: dict[str, Path]) -> None:
    found = compare_runs([runs["vae"], runs["fa"]], samples=3)
    assert [row["samples"] for row in found.rows] == [3, 3]
    fit = pv.load_run(runs["vae"])
    assert found.rows[0]["iwae"] == fit.evaluate(pv.load_data(fit.data), samples=3)["iwae"]


def only(run: Path, to: Path, *splits: str) -> Path:
    """A copy of a run with numbers of these splits alone."""
    others = {"test", "valid"} - set(splits)
    return damaged(run, to, "metrics.json", lambda content: [content.pop(split) for split in others])


def test_what_is_advised_for_runs_without_a_common_split_works(runs: dict[str, Path], tmp_path: Path) -> None:
    none, valid, test = (
        only(runs["fa"], tmp_path / "_".join(["fa", *splits]), *splits) for splits in ((), ("valid",), ("test",))
    )
    with pytest.raises(ValueError, match=rf"the same split.* none of {none}: evaluate them anew with samples"):
        compare_runs([runs["vae"], none])
    assert compare_runs([runs["vae"], none], samples=2).split == "test"
    assert compare_runs([valid, none], samples=2).split == "valid"
    for samples in (None, 2):
        with pytest.raises(ValueError, match=rf"the same split.* valid of {valid}, test of {test}: fit them to data"):
            compare_runs([valid, test], samples=samples)


def test_runs_without_test_data_are_evaluated_on_validation_data(tmp_path: Path) -> None:
    data = pv.load_data("digits", binarize="none", test=0.0, valid=0.5)
    for dim in (1, 2):
        pv.save_run(pv.fit(pv.PPCA(latent_dim=dim), data, method=pv.ClosedForm()), data, tmp_path / str(dim))
    found = compare_runs([tmp_path / "1", tmp_path / "2"], samples=2)
    assert found.split == "valid"
    assert found.rows[0]["n"] == len(data.valid)


def test_the_picture(runs: dict[str, Path]) -> None:
    found = compare_runs([runs["vae"], runs["fa"]])
    figure = plots.runs(found.rows, found.histories)
    assert len(figure.axes) == 2
    assert [label.get_text() for label in figure.axes[1].get_yticklabels()] != ["", ""]
    with pytest.raises(ValueError, match="a history for each"):
        plots.runs(found.rows, found.histories[:1])


def test_what_is_no_finished_run_is_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(runs["fa"], tmp_path / "copy"))
    with pytest.raises(ValueError, match="at least two runs"):
        compare_runs([copy])
    with pytest.raises(ValueError, match="at least two runs, each once"):
        compare_runs([copy, copy])
    with pytest.raises(ValueError, match="not a finished run"):
        compare_runs([copy, tmp_path / "nowhere"])
    metrics = json.loads((copy / "metrics.json").read_text())
    (copy / "metrics.json").write_text(json.dumps({"unit": metrics["unit"]}))
    with pytest.raises(ValueError, match="the same split"):
        compare_runs([runs["vae"], copy])
    (copy / "metrics.json").unlink()
    with pytest.raises(ValueError, match="not a finished run"):
        compare_runs([runs["vae"], copy])
    config = yaml.safe_load((runs["fa"] / "config.yaml").read_text())
    config["model"]["class_path"] = "evil.Model"
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    (copy / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(ValueError, match="not part of ppl_vae"):
        compare_runs([runs["vae"], copy])


def damaged(run: Path, to: Path, name: str, change: Callable[[Any], object]) -> Path:
    """A copy of a run, one of whose files was changed."""
    copy = Path(shutil.copytree(run, to))
    text = (copy / name).read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()] if name == "history.jsonl" else [json.loads(text)]
    change(lines[-1])
    (copy / name).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return copy


NO_NUMBERS = {"huge": 10**400, "list": [1.0], "names": {"a": 1}, "text": "many", "nan": math.nan}


@pytest.mark.parametrize("value", NO_NUMBERS.values(), ids=NO_NUMBERS)
def test_values_that_are_no_numbers_are_left_out(runs: dict[str, Path], tmp_path: Path, value: object) -> None:
    def change(content: dict[str, Any]) -> None:
        content["test"] |= {"elbo": value, "iwae": value, "kl_se": value}
        content |= {"seconds": value, "iterations": value}

    copy = damaged(runs["vae"], tmp_path / "copy", "metrics.json", change)
    other = damaged(runs["fa"], tmp_path / "other", "history.jsonl", lambda row: row.update(elbo=value, valid_elbo=value))
    found = compare_runs([other, copy])
    save_run_comparison(found, tmp_path / "out")
    whole = compare_runs([runs["fa"], runs["vae"]])
    kept = {name: number for name, number in whole.rows[1].items() if name not in ("elbo", "seconds")}
    assert found.rows[1] == {**kept, "run": str(copy), "seconds": None}
    assert found.rows[0] == {**whole.rows[0], "run": str(other)}


@pytest.mark.parametrize("value", [[1], [[1]], {"a": 1}], ids=str)
@pytest.mark.parametrize("where", ["size", "kind", "event_shape", "fingerprint"])
def test_lists_in_place_of_what_tells_data_apart(runs: dict[str, Path], tmp_path: Path, where: str, value: object) -> None:
    def change(content: dict[str, Any]) -> None:
        (content if where == "fingerprint" else content["spec"])[where] = value

    copy = damaged(runs["vae"], tmp_path / "copy", "data.json", change)
    with pytest.raises(ValueError, match=f"{copy}.* expected|runs differ in shape"):
        compare_runs([runs["fa"], copy])


@pytest.mark.parametrize("name", ["metrics.json", "history.jsonl"])
def test_values_without_names_are_no_run(runs: dict[str, Path], tmp_path: Path, name: str) -> None:
    copy = Path(shutil.copytree(runs["vae"], tmp_path / "copy"))
    (copy / name).write_text("[1]\n")
    with pytest.raises(ValueError, match=rf"not a finished run: .*{name} cannot be read: expected values by name"):
        compare_runs([runs["fa"], copy])


def test_the_verb(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["compare", str(runs["vae"]), str(runs["fa"]), "--out", str(tmp_path / "out"), "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert [row["guide"].partition("(")[0] for row in table["rows"]] == ["AmortizedNormal", "ExactPosterior"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"comparison.json", "comparison.md", "comparison.png"}
    assert json.loads((tmp_path / "out" / "comparison.json").read_text()) == table
    assert main(["compare", str(runs["vae"]), str(runs["seed"])]) == 2
    assert "--across-data" in capsys.readouterr().err
    assert main(["compare", str(runs["vae"]), str(runs["seed"]), "--across-data"]) == 0
    assert "standard error" in capsys.readouterr().out
    assert main(["compare", "--across-data"]) == 2
    assert "are for saved runs" in capsys.readouterr().err


def test_paths_are_told_as_they_are_written(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(40, 3))
    for name in ("A_b.csv", "ab.csv"):
        np.savetxt(tmp_path / name, x, delimiter=",", header="a,b,c", comments="")
        data = pv.load_data(tmp_path / name)
        pv.save_run(pv.fit(pv.PPCA(latent_dim=1), data, method=pv.ClosedForm()), data, tmp_path / name[:-4])
    with pytest.raises(ValueError, match=r"differ in source: .* has .*/A_b\.csv, .* has .*/ab\.csv"):
        compare_runs([tmp_path / "A_b", tmp_path / "ab"])
