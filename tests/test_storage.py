"""The format of a run folder: one file knows it, old runs are read, newer ones are refused, and a run keeps its id."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

import ppl_vae as pv
from ppl_vae import cli, declaration
from ppl_vae.data.fingerprint import is_of
from ppl_vae.fitting.experiment import Experiment
from ppl_vae.runs import SavedRun, archive, save_evaluation
from ppl_vae.storage import Checkpointer, RunFolder, atomic
from ppl_vae.storage.folder import COMPARISON_FILES, FORMAT
from tests.table import TINY, rows, vae

DATA = pv.load_data(rows("binary", 40), y=[0, 1] * 20)
GUIDE = pv.AmortizedNormal(encoder=TINY)
METHOD = pv.SVI(epochs=1, batch_size=20, compile=False)
FORMATS = Path(__file__).parent / "formats"
LONGER = pv.SVI(epochs=4, batch_size=256, schedule="constant")
LATER_ELBO = -27.708  # of the validation data after four epochs, by the versions that wrote the runs
TEST_IWAE = -27.1089  # of the test data by 20 samples, likewise


def fitted(out: Any = None) -> pv.Fit:
    return pv.fit(vae(), DATA, guide=GUIDE, method=METHOD, out=out)


def without_new_fields(written: Any, was: Any) -> Any:
    """What is written now, without the fields that declarations gained since."""
    if not isinstance(was, dict):
        return written
    return {name: without_new_fields(written[name], value) for name, value in was.items()}


def identity(path: Path) -> dict[str, Any]:
    return json.loads((path / "run.json").read_text())


@pytest.fixture(scope="module", autouse=True)
def without_pictures() -> Iterator[None]:
    """Runs without their pictures, which take longer than all else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive, "run_pictures", lambda fit, data: iter(()))
        yield


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("storage") / "run"
    return pv.save_run(fitted(path), DATA, path)


@pytest.fixture
def run(saved: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be changed."""
    return Path(shutil.copytree(saved, tmp_path / "run"))


@pytest.fixture(params=["0", "1"])
def before(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a run of the digits as it was written by the version before each change of the format, or of this one."""
    return Path(shutil.copytree(FORMATS / request.param, tmp_path / request.param))


def original(before: Path) -> Path:
    """What a copy is of."""
    return FORMATS / before.name


# --- one place ------------------------------------------------------------------------------------------------------------


def texts(path: Path) -> list[str]:
    """The texts in a file of code but for docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    constants = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in docstrings)
    return [constant.value for constant in constants if isinstance(constant.value, str)]


def test_one_file_knows_the_names_of_the_files_in_a_run() -> None:
    names = {value for name, value in vars(RunFolder).items() if name.isupper() and isinstance(value, str)}
    assert len(names) == 10
    package = Path(pv.__file__).parent
    knowing = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        for text in texts(path)
        if any(name in text for name in names | set(COMPARISON_FILES))
    }
    assert knowing == {"storage/folder.py"}


def parses(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often a declaration of each part is parsed, and ``config.yaml`` read, from now on."""
    counts = dict.fromkeys(("Model", "Guide", "Method", "DataSource", "config.yaml"), 0)
    parse, read = declaration.parse, RunFolder.config

    def counting(cls: type, config: Any) -> Any:
        counts[cls.__name__] += 1
        return parse(cls, config)

    def reading(self: RunFolder) -> dict[str, Any]:
        counts["config.yaml"] += 1
        return read(self)

    monkeypatch.setattr(declaration, "parse", counting)
    monkeypatch.setattr(RunFolder, "config", reading)
    return counts


ONCE = {"Model": 1, "Guide": 1, "Method": 1, "DataSource": 1, "config.yaml": 1}


def test_a_resume_parses_the_declaration_once(before: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        counts = parses(patch)
        pv.resume_run(before, device="cpu")
        assert counts == ONCE
    with monkeypatch.context() as patch:
        counts = parses(patch)
        assert cli.main(["fit", "--resume", str(before), "--quiet", "--device", "cpu"]) == 0
        assert counts == ONCE


def test_comparing_anew_parses_each_declaration_once(run: Path, before: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = shutil.copytree(before, before.parent / "other")
    counts = parses(monkeypatch)
    assert len(pv.compare_runs([before, other], samples=2).rows) == 2
    assert counts == dict.fromkeys(ONCE, 2)


# --- the version ----------------------------------------------------------------------------------------------------------


def test_a_run_from_before_is_read_and_evaluates_to_its_digits(before: Path) -> None:
    assert RunFolder.open(before).identity().format == int(before.name)
    fit = pv.load_run(before, device="cpu")
    numbers = json.loads((original(before) / "metrics.json").read_text())["test"]
    found = fit.evaluate(fit.rows(fit.data, "test"))
    assert {name: found[name] for name in numbers} == pytest.approx(numbers, rel=1e-5)
    assert fit.evaluate(fit.rows(fit.data, "test"), samples=20)["iwae"] == pytest.approx(TEST_IWAE, rel=1e-5)
    assert f"{numbers['elbo']:.2f}".removeprefix("-") in pv.report(before).read_text()
    assert pv.compare_runs([before, shutil.copytree(before, before.parent / "twin")]).rows[0]["elbo"] == numbers["elbo"]


def test_a_run_from_before_goes_on_and_is_of_the_new_format_then(before: Path) -> None:
    was = RunFolder.open(before).identity().id
    fit = pv.resume_run(before, method=LONGER, device="cpu")
    assert fit.history[:2] == [json.loads(line) for line in (original(before) / "history.jsonl").read_text().splitlines()]
    assert fit.history[-1]["valid_elbo"] == pytest.approx(LATER_ELBO, abs=0.01)
    assert identity(before)["format"] == FORMAT
    assert was in ("", identity(before)["id"])
    assert pv.load_run(before).method == LONGER


def test_what_is_written_is_what_was_before_and_its_identity(before: Path, tmp_path: Path) -> None:
    old = pv.load_run(before, device="cpu")
    new = pv.fit(old.model, old.data, guide=old.guide, method=old.method, out=tmp_path / "new", device="cpu")
    assert {path.name for path in (tmp_path / "new").iterdir()} | {"metrics.json"} == {
        path.name for path in original(before).iterdir()
    } | {"run.json"}
    assert SavedRun.open(tmp_path / "new").experiment == SavedRun.open(before).experiment
    for name, read in (("config.yaml", yaml.safe_load), ("data.json", json.loads)):
        was, written = (read((folder / name).read_text()) for folder in (original(before), tmp_path / "new"))
        if name == "data.json":  # which told rows from others by 256 of them
            data = pv.load_data(old.data)
            assert is_of(was.pop("fingerprint"), data.test if len(data.test) else data.train)
            assert written.pop("fingerprint").startswith("all-")
        assert without_new_fields(written, was) == was
    kept = load_file(original(before) / "model.safetensors")
    written = load_file(tmp_path / "new" / "model.safetensors")
    assert {name: value.shape for name, value in written.items()} == {name: value.shape for name, value in kept.items()}
    assert all(torch.allclose(value, kept[name], atol=1e-4) for name, value in written.items())
    assert len(new.history) == len(old.history)


def newer(path: Path) -> Path:
    (path / "run.json").write_text(json.dumps({"format": FORMAT + 1, "id": {"of": "another kind"}, "more": []}))
    return path


VERBS: dict[str, Callable[[Path], object]] = {
    "load": pv.load_run,
    "resume": lambda run: pv.resume_run(run, data=DATA),
    "compare": lambda run: pv.compare_runs([run, shutil.copytree(run, run.parent / "other")]),
    "report": pv.report,
    "go on": lambda run: Checkpointer(run, resume=True).__enter__(),
}


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
def test_a_run_of_a_newer_format_is_refused_in_words(verb: Callable[[Path], object], run: Path) -> None:
    files = {path: path.read_bytes() for path in newer(run).iterdir()}
    message = rf"run.json cannot be read: expected a run of format {FORMAT} or less, got {FORMAT + 1}, .*: update ppl_vae"
    with pytest.raises(ValueError, match=message) as caught:
        verb(run)
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in run.iterdir()} == files


def test_the_command_line_refuses_a_newer_format(run: Path, capsys: pytest.CaptureFixture) -> None:
    newer(run)
    for words in (["evaluate"], ["fit", "--resume"], ["report"], ["sample", "--out", "x.png"]):
        assert cli.main([*words, str(run)]) == 2
        assert capsys.readouterr().err.count("update ppl_vae\n") == 1


# --- the id ---------------------------------------------------------------------------------------------------------------


def test_a_run_keeps_its_id_as_long_as_it_goes_on(run: Path) -> None:
    first = identity(run)
    assert first.keys() == {"format", "id"}
    longer = pv.SVI(epochs=2, batch_size=20, compile=False)
    fit = pv.resume_run(run, method=longer, data=DATA)
    assert identity(run) == first
    pv.save_run(fit, DATA, run)
    save_evaluation(run, {"test": {}})
    assert identity(run) == first
    assert first["id"] in pv.report(run).read_text()


def test_a_run_that_is_run_again_has_another_id(run: Path, tmp_path: Path) -> None:
    first = identity(run)["id"]
    fit = fitted(Checkpointer(run, overwrite=True))
    second = identity(run)["id"]
    pv.save_run(fit, DATA, tmp_path / "elsewhere")
    pv.save_run(fit, DATA, tmp_path / "elsewhere", overwrite=True)
    assert len({first, second, identity(tmp_path / "elsewhere")["id"]}) == 3


def test_an_id_hangs_on_no_seed_and_draws_no_random_number(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = identity(pv.save_run(fitted(), DATA, tmp_path / "run"))["id"]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(0)
    assert identity(pv.save_run(fitted(), DATA, tmp_path / "other"))["id"] != first


def test_a_folder_whose_process_died_while_it_wrote_its_first_files_is_free(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("history.jsonl", "run.json", "data.json"):
        (run / name).touch()
        Checkpointer(run)
    (run / "config.yaml").touch()
    with pytest.raises(ValueError, match="already holds a run"):
        Checkpointer(run)


# --- the experiment -------------------------------------------------------------------------------------------------------


def test_the_configuration_is_the_experiment(run: Path) -> None:
    saved = SavedRun.open(run)
    assert saved.experiment == Experiment(model=vae(), guide=GUIDE, method=METHOD, data=DATA.resolve(vae().accepts).source)
    assert saved.experiment.to_yaml() == (run / "config.yaml").read_text()
    assert Experiment.from_yaml(run / "config.yaml") == saved.experiment


def test_the_parts_of_an_experiment_are_the_arguments_of_its_fit(before: Path) -> None:
    saved = SavedRun.open(before)
    again = pv.fit(**saved.experiment.parts, device="cpu")
    assert again.history[-1]["valid_elbo"] == pytest.approx(saved.folder.history()[-1]["valid_elbo"], abs=0.01)
    assert {name.partition(".")[0] for name in saved.experiment.fixed} == {"model", "guide", "method", "data"}
    assert "method.epochs" not in saved.experiment.fixed
    assert "method.learning_rate" in saved.experiment.fixed


def test_an_experiment_of_fewer_parts_is_refused(run: Path) -> None:
    (run / "config.yaml").write_text("model: VAE\nguide: AmortizedNormal\n")
    with pytest.raises(ValueError, match=r"run: expected the declarations model, guide, method, data, got model, guide$"):
        pv.load_run(run)


def test_a_run_is_resumed_with_a_guide_that_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_guide_of_mine.py").write_text(
        "import dataclasses\nimport ppl_vae as pv\n\n"
        "@dataclasses.dataclass(frozen=True, kw_only=True)\nclass Mine(pv.AmortizedNormal):\n    note: str = 'a'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    small = ["--method.epochs", "1", "--model.decoder.hidden", "[5]", "--guide.encoder.hidden", "[5]", "--quiet"]
    assert cli.main(["fit", "--guide", "own_guide_of_mine.Mine", "--out", "run", *small]) == 0
    assert cli.main(["fit", "--resume", "run", "--quiet"]) == 2
    assert cli.main(["fit", "--resume", "run", "--trust", "own_guide_of_mine", "--quiet"]) == 0


# --- names that were changed ----------------------------------------------------------------------------------------------


def test_the_old_names_work_and_say_so(tmp_path: Path) -> None:
    with pytest.warns(DeprecationWarning, match=r"ppl_vae.Keeper is called ppl_vae.Checkpointer now; the old name goes"):
        assert pv.Keeper is Checkpointer
    checkpointer = Checkpointer(tmp_path / "run")
    with pytest.warns(DeprecationWarning, match=r"Checkpointer.kept is called Checkpointer.restored now"):
        assert checkpointer.kept is None
    with pytest.warns(DeprecationWarning, match=r"Checkpointer.wants is called Checkpointer.due now"):
        assert checkpointer.wants == checkpointer.due
    comparison = pv.Comparison(model=vae(), data=DATA, rows=[], trajectories=[], fits=[])
    with pytest.warns(DeprecationWarning, match=r"Comparison.climbs is called Comparison.trajectories now"):
        assert comparison.climbs is comparison.trajectories
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = pv.Nothing
    assert "Keeper" not in pv.__all__


def test_transposed_and_sliced_tensors_are_written_as_they_read(tmp_path: Path) -> None:
    # safetensors.numpy 0.8.0 writes the memory of such an array as it lies; tensors go through a copy in order.
    x = torch.arange(12.0).reshape(3, 4)
    views = {
        "transposed": x.T,
        "sliced": x[:, ::2],
        "of numpy": torch.from_numpy(x.numpy().T[::2]),
        "expanded": x[:1].expand(3, 4),
    }
    assert not any(view.is_contiguous() for view in views.values())
    atomic.write_tensors(views, tmp_path / "views.safetensors")
    read = load_file(tmp_path / "views.safetensors")
    assert all(torch.equal(read[name], view) for name, view in views.items())
