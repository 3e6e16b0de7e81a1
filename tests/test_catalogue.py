"""Every entry of the catalogue from the command line: ``list`` names it, and ``fit`` takes it by its bare name."""

from __future__ import annotations

import dataclasses
import json
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import yaml

import ppl_vae as pv
from ppl_vae import cli
from ppl_vae.cli.catalogue import FOLDERS, declared
from ppl_vae.priors import ConditionalPrior
from tests.table import LATENT, fits, kind_for, rows

ROOT = Path(__file__).parents[1]
N = 40
LIBRARY = {family: [cls for cls in found if cls.__module__.startswith("ppl_vae.")] for family, found in declared().items()}
SMALL = ["--model.latent_dim", "4", "--model.decoder.hidden", "[5]", "--data.valid", "0.2", "--method.epochs", "1", "--quiet"]

# Models for guides to choose from: one of each kind of latent variable, and one whose parameters have priors.
SERVED: tuple[pv.Model, ...] = (
    pv.VAE(latent_dim=4, decoder=pv.MLP(hidden=(5,))),
    pv.VAE(latent_dim=4, prior=pv.OneHotCategorical()),
    pv.VAE(latent_dim=4, prior=pv.ProjectedNormal()),
    pv.FactorAnalysis(latent_dim=LATENT),
    pv.FactorAnalysis(latent_dim=LATENT, weights=pv.Normal()),
    pv.SemiSupervisedVAE(latent_dim=2, decoder=pv.MLP(hidden=(5,))),
    pv.VQVAE(codebook=pv.Codebook(size=4, dim=2, grid=(1, 2)), decoder=pv.MLP(hidden=(5,))),
    pv.StackedSemiSupervisedVAE(latent_dim=2, rest_dim=2, decoder=pv.MLP(hidden=(5,))),
    pv.HierarchicalVAE(groups=(pv.Group(network=pv.MLP(hidden=(5,))),) * 2),
    pv.Diffusion(steps=3, denoiser=pv.MLP(hidden=(5,)), likelihood=pv.Bernoulli()),
)

# Models for stages that name their parts.
STAGED: dict[str, pv.Model] = {
    "codes_then_prior": pv.VQVAE(
        codebook=pv.Codebook(size=4, dim=2, grid=(1, 2)), decoder=pv.MLP(hidden=(5,)), prior=pv.LSTM(hidden=5)
    ),
    "m1_m2": pv.StackedSemiSupervisedVAE(),
}


@pytest.fixture(autouse=True)
def _stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in an empty folder, with a data file of each kind."""
    for kind in ("binary", "unit_interval", "real", "count", "categorical"):
        np.savez(tmp_path / f"{kind}.npz", x=rows(kind, N).numpy(), y=np.arange(N) % 3)
    monkeypatch.chdir(tmp_path)


def each(family: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("entry", LIBRARY[family], ids=lambda cls: cls.__name__)


def fitted(model: pv.Model, *words: str) -> int:
    """The exit code of a fit to data that the model is a density of."""
    kind = kind_for(model)
    return cli.main(["fit", "--data", f"{kind}.npz", "--data.kind", kind, "--data.scale", "none", *words])


# --- fit ------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@each("Prior")
def test_fit_takes_every_prior_by_its_name(entry: type[pv.Prior], capsys: pytest.CaptureFixture) -> None:
    model = pv.CVAE() if issubclass(entry, ConditionalPrior) else pv.VAE()
    code = fitted(model, "--model", type(model).__name__, "--model.prior", entry.__name__, *SMALL)
    of_vectors = entry.support != "covariance"
    assert code == (0 if of_vectors else 2)
    assert ("expected a prior of vectors" in capsys.readouterr().err) != of_vectors


@pytest.mark.slow
@each("Likelihood")
def test_fit_takes_every_likelihood_by_its_name(entry: type[pv.Likelihood], capsys: pytest.CaptureFixture) -> None:
    model = pv.VAE(likelihood=entry())
    if entry is pv.Auto:  # of tables
        assert fitted(model, "--model.likelihood", entry.__name__, *SMALL) == 2
        assert "expected a table, rows of columns, for likelihood: auto" in capsys.readouterr().err
        return
    if entry is pv.Strokes:  # of drawings
        words = ["--model", "VAE", "--model.likelihood", "Strokes", *SMALL]
        assert cli.main(["fit", "--data", "real.npz", *words]) == 2
        assert "Strokes is a likelihood of strokes data, but these data are real" in capsys.readouterr().err
        return
    assert fitted(model, "--model.likelihood", entry.__name__, *SMALL) == 0


@each("Guide")
def test_fit_takes_every_guide_by_its_name(entry: type[pv.Guide]) -> None:
    model = next(model for model in SERVED if fits(model, entry()))
    Path("model.yaml").write_text(model.to_yaml())
    brief = ["--method", "CAVI", "--method.sweeps", "2"] if entry is pv.MeanField else ["--method.epochs", "1"]
    method = [*brief, "--data.valid", "0.2", "--quiet"]
    assert fitted(model, "--model", "model.yaml", "--guide", entry.__name__, *method) == 0


@each("Objective")
def test_fit_takes_every_objective_by_its_name(entry: type[pv.Objective]) -> None:
    assert fitted(pv.VAE(), "--method.objective", entry.__name__, *SMALL) == 0


@pytest.mark.parametrize("file", sorted((ROOT / "methods").glob("*.yaml")), ids=lambda path: path.stem)
def test_fit_takes_every_declared_method(file: Path) -> None:
    method = pv.Method.from_yaml(file)
    if isinstance(method, pv.Stages):
        brief = pv.Stages(methods=tuple(dataclasses.replace(stage, epochs=1) for stage in method.methods))
        Path("method.yaml").write_text(brief.to_yaml())
        model = STAGED.get(file.stem, pv.VAE())
        Path("model.yaml").write_text(model.to_yaml())
        assert fitted(model, "--model", "model.yaml", "--method", "method.yaml", "--quiet") == 0
        return
    epochs = ["--method.epochs", str(max(2, round(method.objective.ramp)))]
    assert fitted(pv.VAE(), "--method", str(file), *SMALL, *epochs) == 0


# --- list -----------------------------------------------------------------------------------------------------------------


def test_list_names_every_entry_with_one_line_and_the_files_that_use_it(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert cli.main(["list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    families = {"Prior", "Likelihood", "Guide", "Objective", "Network", "Model", "Method", "WarmUp", "Condition"}
    assert families <= set(listed)
    for family, found in LIBRARY.items():
        assert set(listed[family]) >= {cls.__name__ for cls in found}
        assert all(entry["summary"] for entry in listed[family].values())
    files = {path for entries in listed.values() for entry in entries.values() for path in entry["files"]}
    there = chain.from_iterable(ROOT.glob(f"{folder}/*.yaml") for folder in FOLDERS)
    assert files == {path.relative_to(ROOT).as_posix() for path in there}
    assert "models/vamp_vae.yaml" in listed["Prior"]["VampPrior"]["files"]
    assert "guides/iaf.yaml" in listed["Guide"]["AmortizedFlow"]["files"]
    assert "methods/iwae.yaml" in listed["Objective"]["IWAE"]["files"]


def test_list_looks_where_the_user_stands(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert all(entry["files"] == [] for entries in listed.values() for entry in entries.values())
    folder = tmp_path / "guides"
    folder.mkdir()
    (folder / "mine.yaml").write_text(yaml.safe_dump({"class_path": "ppl_vae.AmortizedLinear"}))
    (folder / "broken.yaml").write_text("class_path: [")
    assert cli.main(["list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["Guide"]["AmortizedLinear"]["files"] == ["guides/mine.yaml"]
    assert cli.main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    place = next(i for i, line in enumerate(lines) if line.strip().startswith("AmortizedLinear "))
    assert lines[place + 1].strip() == "guides/mine.yaml"
    assert cli.main(["list", "AmortizedLinear"]) == 0
    assert capsys.readouterr().out.endswith("\nguides/mine.yaml\n")
