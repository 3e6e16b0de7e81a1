"""Run folders: what is written, what comes back, and what is refused."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
import yaml
from safetensors import SafetensorError

import ppl_vae as pv
from ppl_vae import plots
from ppl_vae.runs import archive
from ppl_vae.storage import check_free
from tests.bare import Bare, BareGuide
from tests.table import GUIDES, rows, vae

DATA = pv.load_data(rows("binary", 40), y=[0, 1] * 20)
PICTURES = {"data.png", "reconstructions.png", "samples.png", "learning_curve.png", "latent.png", "aggregate.png"}
TEXTS = {"run.json", "config.yaml", "data.json", "model.safetensors", "history.jsonl", "metrics.json", "environment.json"}


def fitted(data: pv.Data = DATA, **changes) -> pv.Fit:
    return pv.fit(vae(**changes), data, guide=GUIDES["AmortizedNormal-full"], method=pv.SVI(epochs=2, batch_size=16))


@pytest.fixture(scope="module")
def fit() -> pv.Fit:
    return fitted()


@pytest.fixture(scope="module")
def saved(fit: pv.Fit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pv.save_run(fit, DATA, tmp_path_factory.mktemp("runs") / "deep" / "run")


@pytest.fixture
def run(saved: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be damaged."""
    return Path(shutil.copytree(saved, tmp_path / "run"))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def refused(attempt: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        attempt()
    assert "\n" not in str(caught.value)


# --- round trip -----------------------------------------------------------------------------------------------------------


def test_a_run_comes_back_as_it_was(fit: pv.Fit, saved: Path) -> None:
    loaded = pv.load_run(saved)
    for name in ("model", "guide", "method", "data", "spec", "history"):
        assert getattr(loaded, name) == getattr(fit, name)
    assert loaded.evaluate(DATA, samples=3) == fit.evaluate(DATA, samples=3)
    assert torch.equal(loaded.encode(DATA.test), fit.encode(DATA.test))
    assert torch.equal(loaded.sample(4), fit.sample(4))
    assert str(loaded) == str(fit)
    assert loaded.spec.classes == ("0", "1")


TRANSFORMS = {
    "standardize": ("real", {"scale": "standardize"}),
    "dequantize": ("count", {"dequantize": True, "scale": "standardize"}),
    "unit": ("count", {"scale": "unit"}),
}


@pytest.mark.parametrize(("kind", "options"), TRANSFORMS.values(), ids=TRANSFORMS)
def test_the_transform_comes_back(kind: str, options: dict, tmp_path: Path) -> None:
    data = pv.load_data(rows(kind, 40), **options)
    fit = fitted(data, likelihood=pv.Gaussian(scale="per_feature"))
    loaded = pv.load_run(pv.save_run(fit, data, tmp_path / "run"))
    assert loaded.evaluate(data) == fit.evaluate(data)
    assert loaded.transform.log_jacobian == fit.transform.log_jacobian
    assert loaded.transform.dequantize == fit.transform.dequantize


def test_what_a_run_holds(fit: pv.Fit, saved: Path) -> None:
    assert names(saved) == PICTURES | TEXTS
    assert names(saved.parent) == {"run"}
    for name in PICTURES:
        content = (saved / name).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) > 3000
    metrics = json.loads((saved / "metrics.json").read_text())
    assert set(metrics) == {"valid", "test", "unit", "without_latents", "iterations", "seconds"}
    assert metrics["unit"] == "nats per datum"
    for name in ("valid", "test"):
        assert {"elbo", "reconstruction", "kl", "n"} <= set(metrics[name])
        assert metrics[name] == fit.evaluate(getattr(DATA, name))
    assert [json.loads(line) for line in (saved / "history.jsonl").read_text().splitlines()] == fit.history
    environment = json.loads((saved / "environment.json").read_text())
    assert torch.__version__.startswith(environment["versions"]["torch"])
    assert environment["threads"] == torch.get_num_threads()
    config = yaml.safe_load((saved / "config.yaml").read_text())
    assert list(config) == ["model", "guide", "method", "data"]
    assert pv.VAE.from_dict(config["model"]) == fit.model


@pytest.mark.parametrize(("latent_dim", "pictures"), [(1, PICTURES - {"latent.png"}), (2, PICTURES | {"manifold.png"})])
def test_the_pictures_follow_the_latent_dimension(latent_dim: int, pictures: set[str], tmp_path: Path) -> None:
    folder = pv.save_run(fitted(latent_dim=latent_dim), DATA, tmp_path / "run")
    assert {name for name in names(folder) if name.endswith(".png")} == pictures
    assert all(len((folder / name).read_bytes()) > 3000 for name in pictures)


def test_a_table_with_two_latent_dimensions_is_saved(tmp_path: Path) -> None:
    data = pv.load_data(rows("real", 40).flatten(1))
    folder = pv.save_run(fitted(data, likelihood=pv.Gaussian(), latent_dim=2), data, tmp_path / "run")
    assert {name for name in names(folder) if name.endswith(".png")} == PICTURES


def test_data_without_held_out_rows_are_saved(tmp_path: Path) -> None:
    data = pv.load_data(rows("binary", 40), valid=0.0, test=0.0)
    folder = pv.save_run(fitted(data), data, tmp_path / "run")
    assert set(json.loads((folder / "metrics.json").read_text())) == {"unit", "without_latents", "iterations", "seconds"}


def test_a_model_that_only_runs_is_saved_with_what_there_is_to_see(tmp_path: Path) -> None:
    data = pv.load_data(rows("real").numpy())
    fitted = pv.fit(Bare(), data, guide=BareGuide(), method=pv.SVI(epochs=1))
    run = pv.save_run(fitted, data, tmp_path / "run")
    pictured = {"data.png", "learning_curve.png", "reconstructions.png", "samples.png"}
    assert {path.name for path in run.glob("*.png")} == pictured
    loaded = pv.load_run(run, trust=["tests.bare"], device="cpu")
    assert loaded.evaluate(data.test, samples=3) == fitted.evaluate(data.test, samples=3)
    assert pv.report(run, tmp_path / "report.html", trust=["tests.bare"]).exists()
    x = loaded.seen(data.test)
    torch.testing.assert_close(loaded.encode(data.test), loaded.pair.guide.slope.detach() * x.flatten(1).mean(1))
    assert loaded.sample(3).shape == (3, *data.spec.event_shape)
    with pytest.raises(ValueError, match=r"plain Pyro program, which has no `posterior`: .*give the program `posterior`"):
        loaded.posterior(data.test)
    with pytest.raises(ValueError, match=r"asks the built model for its `latent_shape`, which BareProgram does not .* guide="):
        pv.fit(Bare(), data, method=pv.SVI(epochs=1))


def test_a_users_own_prior_comes_back_with_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_prior_of_mine.py").write_text(
        "import dataclasses\nimport ppl_vae as pv\n\n"
        "@dataclasses.dataclass(frozen=True, kw_only=True)\nclass Mine(pv.StandardNormal):\n    note: str = 'a.b'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    own = importlib.import_module("own_prior_of_mine")
    fit = fitted(prior=own.Mine())
    folder = pv.save_run(fit, DATA, tmp_path / "run")
    refused(lambda: pv.load_run(folder), "'own_prior_of_mine.Mine' is not part of ppl_vae: if you trust its code")
    del sys.modules["own_prior_of_mine"]
    loaded = pv.load_run(folder, trust=["own_prior_of_mine"])
    assert loaded.evaluate(DATA) == fit.evaluate(DATA)
    assert loaded.model.to_dict() == fit.model.to_dict()


# --- writing --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("existing", [False, True])
def test_a_failure_leaves_nothing_behind(existing: bool, fit: pv.Fit, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left")

    path = run if existing else run.parent / "new"
    before = {name: (run / name).read_bytes() for name in names(run)}
    monkeypatch.setattr(plots, "save", fail)
    with pytest.raises(OSError, match="no space left"):
        pv.save_run(fit, DATA, path, overwrite=True)
    assert names(run.parent) == {"run"}
    assert {name: (run / name).read_bytes() for name in names(run)} == before


def test_a_run_is_replaced_only_when_asked(fit: pv.Fit, run: Path) -> None:
    refused(lambda: pv.save_run(fit, DATA, run), r"already holds a run: choose another folder, or overwrite it")
    (run / "left.over").touch()
    assert pv.save_run(fit, DATA, run, overwrite=True) == run
    assert names(run) == PICTURES | TEXTS


def test_what_came_first_meanwhile_is_not_replaced(fit: pv.Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = archive.measure

    def slow(fit: pv.Fit, data: pv.Data) -> dict:
        pv.fit(vae(), DATA, guide=GUIDES["AmortizedNormal-full"], method=pv.SVI(epochs=1, seed=5), out=tmp_path / "run")
        return measure(fit, data)

    monkeypatch.setattr(archive, "measure", slow)
    refused(lambda: pv.save_run(fit, DATA, tmp_path / "run"), "already holds a run")
    assert names(tmp_path) == {"run"}
    assert pv.load_run(tmp_path / "run").method.seed == 5


def test_a_folder_that_a_fit_writes_is_not_replaced(fit: pv.Fit, run: Path) -> None:
    with pv.Checkpointer(run, overwrite=True):
        refused(lambda: pv.save_run(fit, DATA, run, overwrite=True), "another process fits to .*run: wait for its end")
    assert names(run) == PICTURES | TEXTS
    assert names(run.parent) == {"run"}


@pytest.mark.parametrize("back", [True, False])
def test_one_of_two_runs_is_always_there(back: bool, fit: pv.Fit, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run / "old").touch()
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if Path(target) == run and (".partial-" in self.name or not back):
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="Permission denied") as caught:
        pv.save_run(fit, DATA, run, overwrite=True)
    if back:
        assert (run / "old").exists()
        assert names(run.parent) == {"run"}
    else:
        old, new = sorted(run.parent.iterdir())
        assert names(old) == PICTURES | TEXTS | {"old"}
        assert names(new) == PICTURES | TEXTS
        assert all(str(path) in str(caught.value) for path in (old, new))


def test_weights_that_a_full_disk_does_not_take_are_told(fit: pv.Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise SafetensorError("Error while serializing: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(OSError, match=r"model.safetensors could not be written \(.*No space left on device"):
        pv.save_run(fit, DATA, tmp_path / "run")
    assert names(tmp_path) == set()


def a_file(path: Path) -> None:
    path.write_text("mine")


def a_folder(path: Path) -> None:
    path.mkdir()
    (path / "thesis.tex").write_text("mine")


def a_project_with_a_config(path: Path) -> None:
    a_folder(path)
    (path / "config.yaml").write_text("title: mine\n")


@pytest.mark.parametrize("make", [a_file, a_folder, a_project_with_a_config])
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_run_is_never_replaced(make: Callable, overwrite: bool, fit: pv.Fit, tmp_path: Path) -> None:
    path = tmp_path / "taken"
    make(path)
    before = sorted(path.rglob("*")) if path.is_dir() else path.read_text()
    refused(lambda: pv.save_run(fit, DATA, path, overwrite=overwrite), "exists and is not a run: choose another folder")
    assert (sorted(path.rglob("*")) if path.is_dir() else path.read_text()) == before
    assert names(tmp_path) == {"taken"}


def test_an_empty_folder_is_free_and_a_file_is_no_folder(fit: pv.Fit, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert names(pv.save_run(fit, DATA, tmp_path / "empty")) == PICTURES | TEXTS
    (tmp_path / "file").touch()
    refused(lambda: check_free(tmp_path / "file" / "deep" / "run", overwrite=True), "is a file: choose another folder")


def test_plain_programs_have_no_declaration_to_save(fit: pv.Fit, tmp_path: Path) -> None:
    plain = pv.Fit(**{**{name: getattr(fit, name) for name in pv.Fit.__dataclass_fields__}, "model": lambda x: None})
    refused(lambda: pv.save_run(plain, DATA, tmp_path / "run"), r"has no declaration to save: keep fit.pair.state_dict\(\)")
    assert names(tmp_path) == set()


# --- reading --------------------------------------------------------------------------------------------------------------

ESSENTIAL = ("config.yaml", "data.json", "model.safetensors", "history.jsonl")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: len(path.read_bytes()) * 2 // 3 + 5])


DAMAGE: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut": cut,
    "garbage": lambda path: path.write_bytes(bytes(range(256)) * 4),
    "a number": lambda path: path.write_text("3"),
    "a list": lambda path: path.write_text("[1, 2]"),
    "null": lambda path: path.write_text("null"),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("name", ESSENTIAL)
def test_a_damaged_run_is_refused(name: str, damage: Callable, run: Path) -> None:
    damage(run / name)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        pv.load_run(run)
    assert "\n" not in str(caught.value)
    assert str(run) in str(caught.value)


CHANGED = {
    "no model": ("config.yaml", lambda c: c.pop("model")),
    "no data": ("config.yaml", lambda c: c.pop("data")),
    "null data": ("config.yaml", lambda c: c.update(data=None)),
    "unknown class": ("config.yaml", lambda c: c["model"].update(class_path="ppl_vae.Nope")),
    "unknown field": ("config.yaml", lambda c: c["model"]["init_args"].update(nope=1)),
    "other sizes": ("config.yaml", lambda c: c["model"]["init_args"].update(latent_dim=2)),
    "out of range": ("config.yaml", lambda c: c["model"]["init_args"].update(latent_dim=0)),
    "other prior": ("config.yaml", lambda c: c["model"]["init_args"].update(prior="GaussianMixture")),
    "no spec": ("data.json", lambda c: c.pop("spec")),
    "no transform": ("data.json", lambda c: c.pop("transform")),
    "unknown spec": ("data.json", lambda c: c["spec"].update(nope=1)),
    "other kind": ("data.json", lambda c: c["spec"].update(kind="real")),
    "unknown kind": ("data.json", lambda c: c["spec"].update(kind="nope")),
    "other shape": ("data.json", lambda c: c["spec"].update(event_shape=[5])),
    "shape of text": ("data.json", lambda c: c["spec"].update(event_shape="abc")),
    "negative shape": ("data.json", lambda c: c["spec"].update(event_shape=[-1, 3])),
    "null shape": ("data.json", lambda c: c["spec"].update(event_shape=None)),
}


@pytest.mark.parametrize(("name", "change"), CHANGED.values(), ids=CHANGED)
def test_a_run_whose_parts_do_not_fit_is_refused(name: str, change: Callable, run: Path) -> None:
    read, write = (yaml.safe_load, yaml.safe_dump) if name.endswith("yaml") else (json.loads, json.dumps)
    content = read((run / name).read_text())
    change(content)
    (run / name).write_text(write(content))
    refused(lambda: pv.load_run(run), ".")


HOSTILE = ["os.system", "subprocess.Popen", "builtins.eval", "hostile.Thing", "{class_path: hostile.Thing}"]


@pytest.mark.parametrize("where", ["model", "guide", "method", "data", "prior", "by text"])
@pytest.mark.parametrize("path", HOSTILE)
def test_a_hostile_config_executes_nothing(path: str, where: str, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run / "hostile.py").write_text("from pathlib import Path\nPath('pwned').touch()\nclass Thing: pass\n")
    monkeypatch.chdir(run)
    monkeypatch.syspath_prepend(run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    thing = {"class_path": path, "init_args": {"args": "touch pwned", "command": "touch pwned", "shell": True}}
    if where == "prior":
        config["model"]["init_args"]["prior"] = thing
    elif where == "by text":
        config["model"]["init_args"]["prior"] = path
    else:
        config[where] = thing
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    refused(lambda: pv.load_run(run), "is not part of ppl_vae|expected the name of a class")
    assert not (run / "pwned").exists()
    assert "hostile" not in sys.modules


def test_yaml_tags_execute_nothing(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run)
    (run / "config.yaml").write_text("model: !!python/object/apply:os.system ['touch pwned']\n")
    refused(lambda: pv.load_run(run), "config.yaml cannot be read")
    assert not (run / "pwned").exists()


def test_there_must_be_a_run(tmp_path: Path, saved: Path) -> None:
    for path in (tmp_path, tmp_path / "nope", saved / "config.yaml"):
        refused(lambda path=path: pv.load_run(path), "there is no run in .*: expected a folder with config.yaml")
    refused(lambda: pv.load_run(saved, device="nope"), "the device 'nope' does not work here")
