"""The command line: what each verb prints and writes, and how it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import ppl_vae as pv
from ppl_vae import cli
from ppl_vae.cli import catalogue
from ppl_vae.declaration import family_members
from tests.table import rows

ROOT = Path(__file__).parents[1]
SMALL_MODEL = ["--model.latent_dim", "2", "--model.decoder.hidden", "[5]"]
SMALL = ["--method.epochs", "1", *SMALL_MODEL, "--guide", "AmortizedNormal", "--guide.encoder.hidden", "[5]"]
VERBS = ("fit", "compare", "evaluate", "sample", "encode", "export", "list")
N = 40

OWN = """
import dataclasses
import ppl_vae as pv

@dataclasses.dataclass(frozen=True, kw_only=True)
class MyPrior(pv.StandardNormal):
    width: float = 1.0

    def story(self, shape):
        return f"Mine({self.width:g})"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a user stands: data files good and bad, YAML files good and bad, a run."""
    folder = tmp_path_factory.mktemp("cwd")
    gray = rows("unit_interval", N).numpy()
    np.savez(folder / "binary.npz", x=rows("binary", N).numpy(), y=np.arange(N) % 2)
    np.save(folder / "gray.npy", gray)
    np.save(folder / "real.npy", rows("real", N).numpy())
    np.save(folder / "other.npy", rows("binary", N)[:, :, :2].numpy())
    gray[3, 0, 0, 0] = np.nan
    np.save(folder / "nan.npy", gray)
    texts = {
        "empty.csv": "",
        "empty.yaml": "",
        "broken.yaml": "class_path: [",
        "prior.yaml": "class_path: VAE\ninit_args: {prior: Nope}\n",
        "dim.yaml": "class_path: VAE\ninit_args: {latent_dim: x}\n",
        "guide.yaml": "class_path: AmortizedNormal\n",
        "data.yaml": "source: binary.npz\nvalid: 0.2\n",
        "nodata.yaml": "sources: binary.npz\n",
        "mine.py": OWN,
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "project").mkdir()
    (folder / "project" / "config.yaml").write_text("title: mine\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert cli.main(["fit", *SMALL, "--data", "binary.npz", "--seed", "3", "--out", "run", "--quiet"]) == 0
    return folder


@pytest.fixture(autouse=True)
def _stand(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def say(capsys: pytest.CaptureFixture) -> Callable[..., dict]:
    """Run a verb in this process with --json: the one object on stdout."""

    def run(*arguments: str) -> dict:
        assert cli.main([*arguments, "--json"]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        assert out.count("\n") == 1
        return json.loads(out)

    return run


def process(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "ppl_vae", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


# --- real processes -------------------------------------------------------------------------------------------------------


def test_a_session_by_real_processes(folder: Path, say: Callable[..., dict]) -> None:
    fit = process("fit", *SMALL, "--data", "binary.npz", "--seed", "3", "--out", "session", "--json")
    assert (fit.returncode, fit.stderr) == (0, "")
    metrics = json.loads(fit.stdout)
    assert {"valid", "test", "unit", "out"} <= set(metrics)
    on_disk = json.loads((folder / "session" / "metrics.json").read_text())
    assert metrics == {**on_disk, "out": "session"}
    for name in ("valid", "test"):  # another process, the same seed
        assert on_disk[name] == json.loads((folder / "run" / "metrics.json").read_text())[name]

    evaluate = process("evaluate", "session", "--json")
    assert (evaluate.returncode, evaluate.stderr) == (0, "")
    assert json.loads(evaluate.stdout) == {"test": metrics["test"], "unit": "nats per datum"}

    # This one reads what the first has written, too.
    assert say("sample", "session", "--n", "5", "--out", "sample.png") == {"n": 5, "shape": [5, 1, 3, 4], "out": "sample.png"}
    assert (folder / "sample.png").read_bytes().startswith(b"\x89PNG")

    assert say("encode", "session", "--out", "codes.npz")["arrays"] == {"z": [N, 2], "y": [N], "classes": [2]}

    assert "VAE" in say("list")["Model"]

    refused = process("fit", "--model.prior", "Nope", "--out", "never")
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
    assert "unknown prior 'Nope': choose from " in refused.stderr
    assert not (folder / "never").exists()


# --- fit ------------------------------------------------------------------------------------------------------------------


def splits(numbers: dict) -> dict:
    return {name: numbers[name] for name in ("valid", "test")}


def test_a_runs_config_runs_again_to_the_same_numbers(folder: Path, say: Callable) -> None:
    first = splits(json.loads((folder / "run" / "metrics.json").read_text()))
    assert splits(say("fit", "--config", "run/config.yaml")) == first
    assert splits(say("fit", "--config", "run/config.yaml", "--seed", "4")) != first
    again = say("fit", "--config=run/config.yaml", "--method.epochs", "2", "--out", "longer")
    assert again["iterations"] == 2
    config = yaml.safe_load((folder / "longer" / "config.yaml").read_text())
    assert config["method"]["init_args"]["seed"] == 3
    assert config["model"]["init_args"]["decoder"]["init_args"]["hidden"] == [5]


def test_short_spellings_come_after_what_would_reset_them(folder: Path, say: Callable) -> None:
    whole = say("fit", *SMALL, "--data.source", "binary.npz", "--method.seed", "3")
    for words in (["--seed", "3", "--data", "binary.npz"], ["--seed=3", "--data=binary.npz", "--method", "SVI"]):
        assert splits(say("fit", *words, *SMALL)) == splits(whole)
    say("fit", *SMALL, "--data", "data.yaml", "--data-root", "somewhere", "--out", "by_file")
    data = yaml.safe_load((folder / "by_file" / "config.yaml").read_text())["data"]
    assert (data["source"], data["valid"], data["root"]) == ("binary.npz", 0.2, "somewhere")


def test_declared_files_and_options_on_top_of_them(folder: Path, say: Callable) -> None:
    files = ["--model", str(ROOT / "models" / "vae.yaml"), "--guide", str(ROOT / "guides" / "full_covariance.yaml")]
    options = ["--model.prior", "GaussianMixture", "--model.prior.components", "3", "--method.epochs", "1"]
    say("fit", *files, *options, "--data", "binary.npz", "--out", "by_files")
    fit = pv.load_run(folder / "by_files")
    assert fit.model == pv.VAE(latent_dim=8, prior=pv.GaussianMixture(components=3))
    assert fit.guide == pv.AmortizedNormal(covariance="full")


def test_a_users_own_prior_from_where_the_user_stands(folder: Path, say: Callable, capsys: pytest.CaptureFixture) -> None:
    say("fit", *SMALL, "--model.prior", "mine.MyPrior", "--model.prior.width", "2", "--data", "binary.npz", "--out", "mine_run")
    assert say("evaluate", "mine_run", "--trust", "mine")["unit"] == "nats per datum"
    assert "'mine.MyPrior' is not part of ppl_vae: if you trust its code" in refused(["evaluate", "mine_run"], folder, capsys)
    config = yaml.safe_load((folder / "mine_run" / "config.yaml").read_text())
    assert config["model"]["init_args"]["prior"] == {"class_path": "mine.MyPrior", "init_args": {"width": 2.0}}


def test_what_a_person_reads(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["fit", *SMALL, "--data", "binary.npz", "--out", "spoken"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for text in (
        "z ~ Normal(0, I_2); x | z ~ Bernoulli(logits = MLP(z))",
        "q(z | x) = ",
        "nats per datum",
        "ELBO",
        " ± ",
        "spoken",
    ):
        assert text in out
    assert cli.main(["fit", *SMALL, "--data", "binary.npz", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert cli.main(["evaluate", "run", "--samples", "3"]) == 0
    assert "iwae" in capsys.readouterr().out
    assert cli.main(["list", "VAE"]) == 0
    out = capsys.readouterr().out
    assert "z ~ Normal(0, I_8); x | z ~ Bernoulli(logits = MLP(z))" in out
    assert cli.main(["list", "AmortizedNormal"]) == 0
    assert "q(z | x) = Normal(mu(x), diag(sigma(x)^2))" in capsys.readouterr().out
    assert cli.main(["list"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Model:\n")
    assert "GaussianMixture" in out
    assert ":class:" not in out


# --- evaluate, sample, encode ---------------------------------------------------------------------------------------------


def test_evaluate_speaks_of_the_rows_it_was_given(say: Callable) -> None:
    fit = pv.load_run("run")
    assert list(say("evaluate", "run")) == ["test", "unit"]
    assert say("evaluate", "run", "--split", "valid")["valid"]["n"] == 4
    assert say("evaluate", "run", "--data", "binary.npz")["all"]["n"] == N
    assert say("evaluate", "run", "--data", "data.yaml", "--split", "test")["test"]["n"] == 8
    several = say("evaluate", "run", "--samples", "3", "--seed", "5")["test"]
    assert several == fit.evaluate(pv.load_data(fit.data).test, samples=3, seed=5)


def test_sample_writes_pictures_and_arrays(folder: Path, say: Callable) -> None:
    say("sample", "run", "--n", "5", "--seed", "2", "--means", "--out", "deep/means.npy")
    say("sample", "run", "--n", "5", "--seed", "2", "--out", "draws.npy")
    fit = pv.load_run("run")
    means, draws = np.load("deep/means.npy"), np.load("draws.npy")
    assert np.array_equal(means, fit.sample(5, seed=2, means=True))
    assert np.array_equal(draws, fit.sample(5, seed=2))
    assert not list(folder.glob("**/*partial*"))


def test_encode_writes_means_draws_and_labels(say: Callable) -> None:
    told = say("encode", "run", "--samples", "3", "--out", "z.npz")["arrays"]
    assert told == {"z": [N, 2], "samples": [3, N, 2], "y": [N], "classes": [2]}
    arrays = np.load("z.npz")
    x = rows("binary", N)
    torch.testing.assert_close(torch.from_numpy(arrays["z"]), pv.load_run("run").encode(x))
    assert arrays["y"].tolist() == [0, 1] * (N // 2)
    assert say("encode", "run", "--split", "valid", "--out", "z.npz")["n"] == 4


# --- refused --------------------------------------------------------------------------------------------------------------

FIT = ["fit", *SMALL, "--out", "never", "--data", "binary.npz"]
REFUSED: dict[str, tuple[list[str], str]] = {
    # the list of the issue
    "unknown prior": ([*FIT, "--model.prior", "Nope"], "unknown prior 'Nope': choose from "),
    "gray under Bernoulli": ([*FIT, "--data", "gray.npy"], "binarize the data (binarize='dynamic'), or use a likelihood on"),
    "NaN": ([*FIT, "--data", "nan.npy"], "nan.npy: expected complete data, got NaN in 1 entries of 1 rows, first in row 3"),
    "wrong shape": (["evaluate", "run", "--data", "other.npy"], "expected data of shape (n, 1, 3, 4), got (40, 1, 2, 4)"),
    "empty file": ([*FIT, "--data", "empty.csv"], "empty.csv: expected data, got an empty file"),
    "missing set": ([*FIT, "--data", "kmnist", "--data-root", "nowhere"], "expected kmnist in nowhere, got no such files"),
    "run there": (["fit", *SMALL, "--out", "run"], "run already holds a run: choose another folder, or overwrite it"),
    # names
    "unknown verb": (["fti"], "unknown verb 'fti': did you mean fit?"),
    "no near verb": (["frobnicate"], "unknown verb 'frobnicate': choose from fit, compare, divergence, select, evaluate"),
    "unknown option": ([*FIT, "--epochs", "3"], "--epochs"),
    "misspelt option": ([*FIT, "--overwrit_e"], "did you mean --overwrite?"),
    "unknown field": ([*FIT, "--model.priors", "Nope"], "VAE (--model) has no field 'priors': did you mean prior?"),
    "no near field": (
        [*FIT, "--model.zzz", "1"],
        "VAE (--model) has no field 'zzz': it has latent_dim, prior, likelihood, decoder",
    ),
    "misspelt prior": ([*FIT, "--model.prior", "GausianMixture"], "of your own class; did you mean GaussianMixture?"),
    "stray word": ([*FIT, "stray"], "stray"),
    "unknown model": ([*FIT, "--model", "Nope"], "unknown model 'Nope': choose from"),
    "unknown guide": ([*FIT, "--guide", "Nope"], "unknown guide 'Nope': choose from"),
    "unknown method": ([*FIT, "--method", "Nope"], "unknown method 'Nope': choose from"),
    "unknown objective": ([*FIT, "--method.objective", "Nope"], "unknown objective 'Nope': choose from BetaELBO"),
    "unknown likelihood": (
        [*FIT, "--model.likelihood", "Nope"],
        "unknown likelihood 'Nope': choose from Auto, Bernoulli, Beta",
    ),
    "unknown decoder": (
        [*FIT, "--model.decoder", "Nope"],
        "unknown decoder 'Nope': choose from CausalConv, Conv, LSTM, Linear, MADE, MLP",
    ),
    "unknown encoder": (
        [*FIT, "--guide.encoder", "Nope"],
        "unknown encoder 'Nope': choose from CausalConv, Conv, LSTM, Linear, MADE, MLP",
    ),
    "field of no guide": (["fit", "--guide.encoder", "MLP"], "--guide.encoder is a field of a guide: name its class before it"),
    "another family": ([*FIT, "--model.prior", "MLP"], "unknown prior 'MLP': choose from "),
    "no module": ([*FIT, "--model.prior", "nomodule.Thing"], "No module named 'nomodule'"),
    "no declaration": ([*FIT, "--model.prior", "mine.pv"], "mine.pv"),
    "unknown set": ([*FIT, "--data", "mnits"], "did you mean 'mnist'"),
    "unknown device": ([*FIT, "--device", "nope"], "the device 'nope' does not work here"),
    "unknown name to list": (["list", "Nope"], "unknown declaration 'Nope': choose from"),
    # values
    "text": ([*FIT, "--model.latent_dim", "two"], "expected latent_dim: int, got 'two'"),
    "out of range": ([*FIT, "--model.latent_dim", "0"], "expected a latent_dim of at least 1, got 0"),
    "null": ([*FIT, "--model.latent_dim", "null"], "expected latent_dim: int, got None"),
    "null prior": ([*FIT, "--model.prior", "null"], "expected prior: Prior, got None"),
    "epochs": ([*FIT, "--method.epochs", "0"], "expected at least 1 epoch, got 0"),
    "learning rate": ([*FIT, "--method.learning_rate", "-1"], "expected a positive learning_rate, got -1.0"),
    "optimizer": ([*FIT, "--method.optimizer", "lbfgs"], "'adam', 'adamw', 'sgd'"),
    "hidden": ([*FIT, "--model.decoder.hidden", "[0]"], "hidden widths of at least 1, got (0,)"),
    "seed": ([*FIT, "--seed", "x"], "expected seed: int, got 'x'"),
    "negative seed": ([*FIT, "--seed", "-1"], "expected a seed of 0 to 2^63 - 1, got -1"),
    "valid": ([*FIT, "--data.valid", "1.5"], "expected valid: a fraction in [0, 1), got 1.5"),
    "binarize": ([*FIT, "--data.binarize", "perhaps"], "'auto', 'none', 'static', 'dynamic'"),
    "no value": ([*FIT, "--data"], "expected source: a name or a path"),
    # files
    "missing data": ([*FIT, "--data", "nope.npy"], "'nope.npy', which does not exist"),
    "missing YAML": ([*FIT, "--model", "nope.yaml"], "error: --model: there is no file 'nope.yaml': check the path\n"),
    "missing guide YAML": (["fit", "--guide", "a/nope.yml"], "error: --guide: there is no file 'a/nope.yml': check the path\n"),
    "missing text": (["fit", "--data", "nope.txt"], "error: expected a file or a folder, got 'nope.txt', which does not exist"),
    "broken YAML": ([*FIT, "--model", "broken.yaml"], "broken.yaml"),
    "empty YAML": ([*FIT, "--model", "empty.yaml"], "empty.yaml: expected a Model, by its class name or its fields, got None"),
    "unknown in YAML": ([*FIT, "--model", "prior.yaml"], "unknown prior 'Nope': choose from "),
    "text in YAML": ([*FIT, "--model", "dim.yaml"], "Expected a <class 'int'>. Got value: x"),
    "family in YAML": ([*FIT, "--model", "guide.yaml"], "unknown model 'AmortizedNormal': choose from"),
    "missing data YAML": ([*FIT, "--data", "nope.yaml"], "nope.yaml"),
    "empty data YAML": ([*FIT, "--data", "empty.yaml"], "empty.yaml: expected a DataSource"),
    "field in data YAML": ([*FIT, "--data", "nodata.yaml"], "sources"),
    "missing config": ([*FIT, "--config", "nope.yaml"], "nope.yaml"),
    "empty config": ([*FIT, "--config", "empty.yaml"], "expected a YAML file of model, guide, method, data after --config"),
    "no config": ([*FIT, "--config", "data.yaml"], "source"),
    "out is a file": (["fit", *SMALL, "--out", "gray.npy", "--overwrite"], "gray.npy exists and is not a run"),
    "out is a project": (["fit", *SMALL, "--out", "project", "--overwrite"], "project exists and is not a run"),
    "out in a file": (["fit", *SMALL, "--out", "gray.npy/run"], "gray.npy is a file: choose another folder"),
    # the other verbs
    "no run named": (["evaluate"], "run"),
    "no run": (["evaluate", "nowhere"], "there is no run in nowhere: expected a folder with config.yaml"),
    "split": (["evaluate", "run", "--split", "dev"], "expected a split of train, valid, test, all, got 'dev'"),
    "samples": (["evaluate", "run", "--samples", "0"], "expected at least 1 sample, got 0"),
    "gray at evaluate": (["evaluate", "run", "--data", "gray.npy"], "expected binary values as the model sees them"),
    "NaN at evaluate": (["evaluate", "run", "--data", "nan.npy"], "expected complete data, got NaN"),
    "seed at evaluate": (["evaluate", "run", "--seed", "-1"], "expected a seed of 0 to 2^63 - 1, got -1"),
    "set at evaluate": (["evaluate", "run", "--data", "kmnist", "--data-root", "nowhere"], "expected kmnist in nowhere"),
    "no out": (["sample", "run"], "out"),
    "suffix": (["sample", "run", "--out", "s.jpg"], "expected --out to end in .png or .npy or .csv or .parquet, got 's.jpg'"),
    "no draws": (["sample", "run", "--n", "0", "--out", "never"], "expected --out to end in"),
    "n": (["sample", "run", "--n", "0", "--out", "never.npy"], "expected to draw at least 1 datum, got n = 0"),
    "n of text": (["sample", "run", "--n", "x", "--out", "never.npy"], "expected n: int, got 'x'"),
    "out below a file": (["sample", "run", "--out", "gray.npy/s.npy"], "gray.npy"),
    "encode suffix": (
        ["encode", "run", "--out", "never.npy"],
        "expected --out to end in .npz or .csv or .parquet, got 'never.npy'",
    ),
    "encode samples": (["encode", "run", "--samples", "0", "--out", "never.npz"], "expected at least 1 sample, got 0"),
    "encode shape": (["encode", "run", "--data", "other.npy", "--out", "never.npz"], "expected data of shape (n, 1, 3, 4)"),
}


def refused(arguments: list[str], folder: Path, capsys: pytest.CaptureFixture) -> str:
    """The one line, after nothing was written."""
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if "__pycache__" not in path.parts}
    code = cli.main(arguments)
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (1 if "1e30" in arguments else 2, "", 1), err
    assert err.startswith("ppl-vae: error: ")
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if "__pycache__" not in path.parts}
    assert before == after
    assert "Union" not in err
    assert "Namespace(" not in err
    return err


def test_every_declaration_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    for cls in (cls for members in catalogue.declared().values() for cls in members):
        for json_too in (False, True):
            catalogue.run(name=cls.__name__, json=json_too)
        assert capsys.readouterr().err == "", cls
    catalogue.run(name="Ising", json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["required"] == ["shape"]
    assert told["defaults"]["coupling"] == pv.Ising(shape=(2, 2)).coupling
    catalogue.run(name="BayesianNetwork", json=False)
    assert "\nnodes: required\n" in capsys.readouterr().out


def test_an_unknown_name_lists_every_valid_one(folder: Path, capsys: pytest.CaptureFixture) -> None:
    line = refused([*FIT, "--model.prior", "Nope"], folder, capsys)
    assert {"GaussianMixture", "StandardNormal"} <= {cls.__name__ for cls in family_members(pv.Prior)}
    assert all(cls.__name__ in line for cls in family_members(pv.Prior))


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture
) -> None:
    assert message in refused(arguments, folder, capsys)


def test_a_fit_that_diverges_is_one_line_and_exit_code_1(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    diverge = ["--data", "real.npy", "--model.likelihood", "Gaussian", "--method.optimizer", "sgd", "--method.batch_size", "4"]
    run = tmp_path / "run"
    line = refused([*FIT, *diverge, "--method.learning_rate", "1e30", "--out", str(run)], folder, capsys)
    assert "lower the learning rate" in line
    assert f"see {run / 'postmortem'}" in line
    assert len(list((run / "postmortem").glob("*.txt"))) == 1


OPTIONS = {
    "fit": ("--model", "--guide", "--method", "--data", "--config", "--out", "--resume", "--overwrite", "--device", "--json"),
    "compare": ("--model", "--methods", "--guides", "--data", "--seeds", "--out", "--overwrite", "--device", "--json"),
    "evaluate": ("run", "--data", "--split", "--samples", "--seed", "--device", "--trust", "--json"),
    "sample": ("run", "--n", "--out", "--draws", "--seed", "--device", "--trust", "--json"),
    "encode": ("run", "--data", "--split", "--samples", "--out", "--seed", "--device", "--trust", "--json"),
    "export": ("run", "--out", "--part", "--device", "--trust", "--json"),
    "list": ("name", "--json"),
}


def test_no_verb_shows_the_help(capsys: pytest.CaptureFixture) -> None:
    assert cli.main([]) == 0
    shown = capsys.readouterr()
    assert all(verb in shown.out for verb in cli.VERBS)
    assert shown.err == ""


def test_a_reader_that_leaves_is_no_error() -> None:
    command = f"set -o pipefail; {sys.executable} -m ppl_vae list --json | head -c 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=300)
    assert done.stdout == "{"
    assert done.stderr == ""
    assert done.returncode in (0, 141)  # all was written before the reader left, or not


@pytest.mark.parametrize("verb", cli.VERBS)
def test_help_is_read_without_scrolling_much(verb: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        cli.main([verb, "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= (100 if verb == "fit" else 50)
    assert max(map(len, lines)) <= 100
    assert lines[0].startswith(f"usage: ppl-vae {verb} ")


@pytest.mark.parametrize("verb", VERBS)
def test_help_exits_0_and_names_every_option(verb: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([verb, "--help"])
    assert caught.value.code in (0, None)
    out, err = capsys.readouterr()
    assert err == ""
    assert all(option in out for option in OPTIONS[verb])
