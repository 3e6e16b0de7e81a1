"""A fit that was stopped goes on to the same bits; what it keeps is whole at every moment, and nobody else's."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError

import ppl_vae as pv
import ppl_vae.inference.training.step
from ppl_vae import cli
from ppl_vae.runs import archive, resume
from ppl_vae.storage import Checkpointer, RunFolder, Snapshot, atomic, signals, snapshot
from ppl_vae.storage.snapshot import read_snapshot, write_snapshot
from ppl_vae.types import FitWarning, Record
from tests.table import TINY, rows, vae

STATE = RunFolder.SNAPSHOT
N = 46
DATA = pv.load_data(rows("binary", N), y=[0, 1] * (N // 2), valid=0.2, test=0.1)
REAL = pv.load_data(rows("real", N), valid=0.2, test=0.1)
GUIDE = pv.AmortizedNormal(encoder=TINY)


class KilledError(Exception):
    """The end of a process."""


class Mortal(Checkpointer):
    """Keeps a state after every step, and dies after so many."""

    def __init__(self, folder: Path, left: int, every: float = 0.0, **options: Any) -> None:
        super().__init__(folder, every=0.0, **options)
        self.left = left

    def keep(self, state: Snapshot) -> None:
        super().keep(state)
        self.left -= 1
        if not self.left:
            raise KilledError


def bits(fit: pv.Fit) -> dict[str, list]:
    """Everything that must be the same."""
    return {name: value.tolist() for name, value in fit.pair.state_dict().items()}


def told(history: list[Record]) -> list[Record]:
    """A history without the times."""
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


def broken(folder: Path, left: int, model: Any, data: Any, **options: Any) -> Path:
    """A run folder whose fit died after so many states."""
    with pytest.raises(KilledError):
        pv.fit(model, data, out=Mortal(folder, left), **options)
    return folder


def same(fit: pv.Fit, other: pv.Fit) -> None:
    assert bits(fit) == bits(other)
    assert told(fit.history) == told(other.history)


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compiled graphs of these tests, none from before; recording pays from the first step on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PPL_VAE_CACHE", str(tmp_path_factory.mktemp("compiled")))
        patch.setattr(ppl_vae.inference.training.step, "WORTH_RECORDING", 1)
        yield


# --- the same bits --------------------------------------------------------------------------------------------------------

SVI = pv.SVI(epochs=2, batch_size=9, compile=False, seed=3)
WARM = pv.BetaELBO(warm_up=pv.LinearWarmUp(epochs=2))
REINFORCE = pv.ELBO(gradient="score_function", baseline="moving_average")
NORMED = pv.MLP(hidden=(7,), norm="batch", dropout=0.2)
CASES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "eager": (vae(), DATA, {"method": SVI}),
    "recorded": (vae(), DATA, {"method": dataclasses.replace(SVI, compile="auto")}),
    "sgd, clipped": (vae(), DATA, {"method": dataclasses.replace(SVI, optimizer="sgd", clip_norm=1.0, schedule="constant")}),
    "by turns, steps": (vae(), DATA, {"method": dataclasses.replace(SVI, alternate="steps")}),
    "by turns, epochs": (vae(), DATA, {"method": dataclasses.replace(SVI, alternate="epochs", schedule="exponential")}),
    "stopped early": (vae(), DATA, {"method": dataclasses.replace(SVI, patience=1, restore_best=True, learning_rate=0.5)}),
    "drawn by codes": (
        vae(),
        DATA,
        {"method": dataclasses.replace(SVI, sampling=pv.LatentDensity(alpha=1e-3), learning_rate=0.1)},
    ),
    "warm-up": (vae(), DATA, {"method": dataclasses.replace(SVI, objective=WARM)}),
    "baseline": (vae(), DATA, {"method": dataclasses.replace(SVI, objective=REINFORCE)}),
    "batch norm, dropout": (vae(decoder=NORMED), DATA, {"method": SVI, "guide": pv.AmortizedNormal(encoder=NORMED)}),
    "VampPrior": (vae(prior=pv.VampPrior(components=4)), DATA, {"method": SVI}),
    "noisy data": (vae(), pv.load_data(rows("unit_interval", N), binarize="dynamic"), {"method": SVI}),
    "labels": (pv.CVAE(latent_dim=2, decoder=TINY), DATA, {"method": SVI, "guide": None}),
    "priors of parameters": (pv.FactorAnalysis(latent_dim=2, weights=pv.Normal()), REAL, {"method": SVI, "guide": None}),
    "EM": (pv.FactorAnalysis(latent_dim=2), REAL, {"method": pv.EM(max_iterations=12), "guide": None}),
    "EM, plain": (pv.PPCA(latent_dim=2), REAL, {"method": pv.EM(acceleration="none", max_iterations=9), "guide": None}),
    "EM, starts": (pv.GMM(components=3), REAL, {"method": pv.EM(n_init=3, max_iterations=5, tolerance=0.0), "guide": None}),
}


@pytest.mark.filterwarnings("ignore::ppl_vae.types.FitWarning")
@pytest.mark.parametrize(("model", "data", "options"), CASES.values(), ids=CASES)
def test_a_fit_that_was_broken_off_goes_on_to_the_same_bits(
    model: Any, data: pv.Data, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"guide": GUIDE, **options}
    whole = pv.fit(model, data, **options)
    first, second = (1, 5) if isinstance(options["method"], pv.SVI) else (2, 2)
    run = broken(tmp_path / "run", first, model, data, **options)
    with monkeypatch.context() as patch:
        patch.setattr(resume, "Checkpointer", partial(Mortal, left=second))
        with pytest.raises(KilledError):
            pv.resume_run(run, data=data)
    same(pv.resume_run(run, data=data), whole)
    same(pv.load_run(run), whole)


def test_a_compiled_fit_is_the_eager_fit_and_goes_on_compiled(tmp_path: Path) -> None:
    method = dataclasses.replace(SVI, compile=True, clip_norm=0.5, skip_norm=1.2)
    whole = pv.fit(vae(), DATA, guide=GUIDE, method=method)
    eager = pv.fit(vae(), DATA, guide=GUIDE, method=dataclasses.replace(method, compile=False))
    assert bits(whole) != bits(eager)
    skipped = [[row["skipped"] for row in fit.history] for fit in (whole, eager)]
    assert skipped[0] == skipped[1]
    assert 0 < sum(skipped[0]) < 8
    torch.testing.assert_close(whole.pair.state_dict(), eager.pair.state_dict(), rtol=2e-3, atol=2e-4)
    run = broken(tmp_path / "run", 7, vae(), DATA, guide=GUIDE, method=method)
    same(pv.resume_run(run, data=DATA), whole)


def test_streamed_data_are_met_in_the_same_order(tmp_path: Path) -> None:
    x = rows("binary", 4 * N).reshape(4 * N, -1).repeat_interleave(800, dim=1)
    for place, shard in enumerate(x.split(N)):
        np.save(tmp_path / f"{place}.npy", shard.numpy().astype(np.float32))
    data = pv.load_data(str(tmp_path), stream=1)
    assert len(list(data.train.blocks(16, generator=torch.Generator()))) > 1
    method = dataclasses.replace(SVI, batch_size=16)
    whole = pv.fit(vae(), data, guide=GUIDE, method=method)
    run = broken(tmp_path / "run", 13, vae(), data, guide=GUIDE, method=method)
    same(pv.resume_run(run), whole)


def test_the_strides_of_a_state_come_back(tmp_path: Path) -> None:
    kept = {"turned": torch.arange(6.0).reshape(2, 3).T, "repeated": torch.tensor([[2.0]]).expand(3, 4), "none": torch.zeros(0)}
    facts = {"place": math.inf, "seconds": 1.0}
    write_snapshot(Snapshot(kept, facts, [{"epoch": 1, "elbo": math.nan}]), tmp_path / STATE)
    found = read_snapshot(tmp_path / STATE)
    assert all(torch.equal(value, kept[name]) for name, value in found.tensors.items())
    assert {name: value.stride() for name, value in found.tensors.items()} == {n: v.stride() for n, v in kept.items()}
    assert found.metadata == facts
    assert math.isnan(found.history[0]["elbo"])


# --- longer, other, elsewhere ---------------------------------------------------------------------------------------------


def test_more_epochs_than_first_asked(tmp_path: Path) -> None:
    method = dataclasses.replace(SVI, schedule="constant")
    longer = dataclasses.replace(method, epochs=4)
    pv.fit(vae(), DATA, guide=GUIDE, method=method, out=tmp_path / "run")
    found = pv.resume_run(tmp_path / "run", method=longer, data=DATA)
    same(found, pv.fit(vae(), DATA, guide=GUIDE, method=longer))
    assert pv.load_run(tmp_path / "run").method == longer
    same(pv.resume_run(tmp_path / "run", data=DATA), found)


def test_the_learning_rate_of_a_longer_fit_is_that_of_the_longer_schedule(tmp_path: Path) -> None:
    rate = lambda part: (1 + math.cos(math.pi * part)) / 2 * 1e-2  # noqa: E731
    method = dataclasses.replace(SVI, learning_rate=1e-2)
    pv.fit(vae(), DATA, guide=GUIDE, method=method, out=tmp_path / "run")
    found = pv.resume_run(tmp_path / "run", method=dataclasses.replace(method, epochs=5), data=DATA).history
    assert [row["learning_rate"] for row in found] == pytest.approx([rate(p) for p in (0, 1 / 2, 2 / 5, 3 / 5, 4 / 5)])


def test_more_iterations_of_em(tmp_path: Path) -> None:
    model, short, long = pv.FactorAnalysis(latent_dim=2), pv.EM(max_iterations=7, tolerance=0.0), pv.EM(max_iterations=16)
    pv.fit(model, REAL, method=short, out=tmp_path / "run")
    with pytest.raises(ValueError, match=r"method.tolerance was 0.0, now 1e-08"):
        pv.resume_run(tmp_path / "run", method=long, data=REAL)
    long = dataclasses.replace(long, tolerance=0.0)
    same(pv.resume_run(tmp_path / "run", method=long, data=REAL), pv.fit(model, REAL, method=long))


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was broken off in its second epoch."""
    return broken(tmp_path_factory.mktemp("begun") / "run", 7, vae(), DATA, guide=GUIDE, method=SVI)


OTHER = pv.load_data(rows("binary", N).flip(0), y=[0, 1] * (N // 2), valid=0.2, test=0.1)
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "learning rate": ({"method": dataclasses.replace(SVI, learning_rate=0.1)}, "learning_rate was None, now 0.1"),
    "another method": ({"method": pv.EM()}, r"only as it was declared \(.*class_path|method was '.*SVI', now '.*EM'"),
    "fewer epochs": (
        {"method": dataclasses.replace(SVI, epochs=1)},
        "declared with epochs = 2, got 1: resume it with at least",
    ),
    "other data": ({"data": OTHER}, r"was begun with other data: .*so that it cannot go on to the same numbers"),
    "other split": ({"data": pv.load_data(rows("binary", N), valid=0.3)}, "data.valid was 0.2, now 0.3"),
    "interval": ({"every": -1.0}, "at least 0, got -1.0"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_the_same_fit_is_refused(begun: Path, options: dict[str, Any], message: str) -> None:
    before = {path: path.read_bytes() for path in begun.iterdir()}
    with pytest.raises(ValueError, match=message) as caught:
        pv.resume_run(begun, **{"data": DATA, **options})
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in begun.iterdir()} == before


def test_a_run_whose_data_were_moved_goes_on_with_them(tmp_path: Path) -> None:
    first, second = tmp_path / "first.npy", tmp_path / "second.npy"
    np.save(first, rows("binary", N))
    method = pv.SVI(epochs=1, batch_size=16)
    pv.fit(vae(), str(first), guide=GUIDE, method=method, out=tmp_path / "run")
    first.rename(second)
    longer = dataclasses.replace(method, epochs=2)
    went_on = pv.resume_run(tmp_path / "run", method=longer, data=str(second))
    assert len(went_on.history) == 2
    assert pv.load_run(tmp_path / "run").data.source == str(second)
    np.save(second, 1 - rows("binary", N))
    with pytest.raises(ValueError, match=r"was begun with other data: a value"):
        pv.resume_run(tmp_path / "run", method=dataclasses.replace(method, epochs=3))
    np.save(first, 1 - rows("binary", N))
    with pytest.raises(ValueError, match=r"was begun with other data \(.*second.npy, now .*first.npy\): a value"):
        pv.resume_run(tmp_path / "run", method=dataclasses.replace(method, epochs=3), data=str(first))


def test_the_same_codes_under_other_names_are_other_data(tmp_path: Path) -> None:
    def table(columns: list[str], classes: list[str]) -> str:
        x = rows("real", N)
        lines = [f"{a:.3f},{b:.3f},{classes[place % 2]}" for place, (a, b) in enumerate(x.reshape(N, -1)[:, :2].tolist())]
        (tmp_path / f"{columns[0]}.csv").write_text("\n".join([",".join([*columns, "y"]), *lines]))
        return str(tmp_path / f"{columns[0]}.csv")

    first = pv.load_data(table(["age", "income"], ["healthy", "ill"]), label="y")
    model, method = pv.FactorAnalysis(latent_dim=1), pv.SVI(epochs=1)
    pv.fit(model, first, method=method, out=tmp_path / "run")
    other = pv.load_data(table(["income", "age"], ["ill", "sick"]), label="y")
    longer = dataclasses.replace(method, epochs=2)
    with pytest.raises(ValueError, match=r"another list of columns, .* \(age, income, of classes healthy, ill, now inc"):
        pv.resume_run(tmp_path / "run", method=longer, data=other)
    assert len(pv.resume_run(tmp_path / "run", method=longer, data=first).history) == 2


def test_methods_without_a_state_are_not_resumed(tmp_path: Path) -> None:
    fit = pv.fit(pv.PPCA(latent_dim=2), REAL, method=pv.ClosedForm(), out=tmp_path / "run")
    assert bits(pv.load_run(tmp_path / "run")) == bits(fit)
    with pytest.raises(ValueError, match="ClosedForm keeps no state to go on from: fit again"):
        pv.resume_run(tmp_path / "run", data=REAL)


def test_plain_programs_have_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="plain Pyro programs have no declaration to save"):
        pv.fit(lambda x: None, DATA, guide=lambda x: None, out=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


# --- the folder -----------------------------------------------------------------------------------------------------------


def test_a_run_that_is_not_finished_is_loaded_as_it_is(begun: Path) -> None:
    with pytest.warns(
        FitWarning, match=r"is not finished: this is its state after 1 iterations; ppl-vae fit --resume .* goes on"
    ):
        fit = pv.load_run(begun)
    kept = read_snapshot(begun / STATE)
    assert all(torch.equal(value, kept.tensors[f"pair.{name}"]) for name, value in fit.pair.state_dict().items())
    assert told(fit.history) == told(kept.history)
    (begun / "history.jsonl").write_text((begun / "history.jsonl").read_text() + '{"epoch": 2, "ob')
    with pytest.warns(FitWarning):
        assert len(pv.load_run(begun).history) == 1


def test_a_finished_run_gets_its_pictures_in_place(tmp_path: Path) -> None:
    fit = pv.fit(vae(), DATA, guide=GUIDE, method=SVI, out=tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        *("run.json", "config.yaml", "data.json", "history.jsonl"),
        *("model.safetensors", STATE),
    }
    pv.save_run(fit, DATA, tmp_path / "run")
    assert {"metrics.json", "samples.png", STATE} <= {path.name for path in (tmp_path / "run").iterdir()}
    other = pv.fit(vae(), DATA, guide=GUIDE, method=dataclasses.replace(SVI, seed=9))
    with pytest.raises(ValueError, match=r"already holds a run: .* go on with it \(--resume\)"):
        pv.save_run(other, DATA, tmp_path / "run")
    longer = pv.resume_run(tmp_path / "run", method=dataclasses.replace(SVI, epochs=4), data=DATA)
    assert not (tmp_path / "run" / "metrics.json").exists()
    pv.save_run(longer, DATA, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["iterations"] == 4


def test_nothing_is_written_before_the_first_step(begun: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="need validation data"):
        pv.fit(vae(), pv.load_data(rows("binary"), valid=0.0), method=pv.SVI(patience=1), out=tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
    before = (begun / STATE).read_bytes()
    with pytest.raises(ValueError, match="need validation data"):
        pv.fit(
            vae(), pv.load_data(rows("binary"), valid=0.0), method=pv.SVI(patience=1), out=Checkpointer(begun, overwrite=True)
        )
    assert (begun / STATE).read_bytes() == before


def test_a_run_is_replaced_only_when_asked(tmp_path: Path) -> None:
    run = broken(tmp_path / "run", 2, vae(), DATA, guide=GUIDE, method=SVI)
    with pytest.raises(ValueError, match=r"already holds a run: choose another folder, or overwrite it .* \(--resume\)"):
        pv.fit(vae(), DATA, out=run)
    (run / "left.over").touch()
    fit = pv.fit(vae(), DATA, guide=GUIDE, method=SVI, out=Checkpointer(run, overwrite=True))
    assert bits(pv.load_run(run)) == bits(fit)
    assert not (run / "left.over").exists()


@pytest.mark.parametrize("left", [[], ["history.jsonl"], ["history.jsonl", "data.json", ".config.yaml.partial-7"]])
def test_a_fit_that_died_at_once_is_in_nobodys_way(left: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in left:
        (run / name).touch()
    pv.fit(vae(), DATA, guide=GUIDE, method=SVI, out=run)
    assert {path.name for path in run.iterdir()} >= {"model.safetensors", STATE}
    assert not list(run.glob(".*"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "data.json").touch()
    with pytest.raises(ValueError, match="exists and is not a run"):
        pv.fit(vae(), DATA, out=tmp_path / "mine")


def test_two_do_not_write_one_folder(begun: Path) -> None:
    program = (
        "import fcntl, os, sys; folder = os.open(sys.argv[1], os.O_RDONLY); fcntl.flock(folder, fcntl.LOCK_EX); "
        "print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(begun)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(ValueError, match=r"another process fits to .*run: wait for its end"):
            pv.resume_run(begun, data=DATA)
        other.kill()
        other.wait()
    with Checkpointer(begun, resume=True) as keeper:
        assert keeper.restored is not None


def full_disk(*_: object) -> None:
    raise SafetensorError("Error while serializing: No space left on device (os error 28)")


def not_allowed(*_: object) -> None:
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize(("fail", "reason"), [(full_disk, "No space left on device"), (not_allowed, "Permission denied")])
def test_a_state_that_cannot_be_kept_leaves_the_last_one(
    fail: Callable, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pv.fit(vae(), DATA, guide=GUIDE, method=SVI)
    run = broken(tmp_path / "run", 4, vae(), DATA, guide=GUIDE, method=SVI)
    before = (run / STATE).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(safetensors.torch, "save_file", fail)
        with pytest.raises(OSError, match=rf"{STATE} could not be written \(.*{reason}") as caught:
            pv.resume_run(run, data=DATA, every=0.0)
    assert "\n" not in str(caught.value)
    assert (run / STATE).read_bytes() == before
    assert not list(run.glob(".*partial*"))
    same(pv.resume_run(run, data=DATA), whole)


def test_a_damaged_state_is_refused_in_one_line(begun: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for path in begun.iterdir():
        (run / path.name).write_bytes(path.read_bytes()[: 100 if path.name == STATE else None])
    with pytest.raises(ValueError, match=rf"{STATE} is no training state") as caught:
        pv.resume_run(run, data=DATA)
    assert "\n" not in str(caught.value)


def test_a_run_without_a_state_is_not_resumed(tmp_path: Path) -> None:
    """It would begin anew, and remove what is finished."""
    run = pv.save_run(pv.fit(vae(), DATA, guide=GUIDE, method=SVI), DATA, tmp_path / "run")
    before = {path: path.read_bytes() for path in run.iterdir()}
    for longer in (SVI, dataclasses.replace(SVI, epochs=5)):
        with pytest.raises(ValueError, match=r"is finished, and keeps no state to go on from: fit again \(--overwrite\)"):
            pv.resume_run(run, method=longer, data=DATA)
    assert {path: path.read_bytes() for path in run.iterdir()} == before
    with Checkpointer(tmp_path / "run", overwrite=True):  # the refused ones left no lock
        pass


def test_the_second_of_two_keepers_does_not_replace_what_the_first_finished(tmp_path: Path) -> None:
    first, second = Checkpointer(tmp_path / "run"), Checkpointer(tmp_path / "run")
    fit = pv.fit(vae(), DATA, guide=GUIDE, method=SVI, out=first)
    with pytest.raises(ValueError, match="already holds a run"):
        pv.fit(vae(), DATA, guide=GUIDE, method=dataclasses.replace(SVI, seed=9), out=second)
    assert bits(pv.load_run(tmp_path / "run")) == bits(fit)


def test_a_longer_fit_that_died_at_once_is_not_finished(tmp_path: Path) -> None:
    whole = pv.fit(vae(), DATA, guide=GUIDE, method=SVI, out=tmp_path / "run")
    pv.save_run(whole, DATA, tmp_path / "run")

    def die(row: Record) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        pv.resume_run(tmp_path / "run", method=dataclasses.replace(SVI, epochs=4), data=DATA, progress=die)
    assert not {"model.safetensors", "metrics.json"} & {path.name for path in (tmp_path / "run").iterdir()}
    with pytest.warns(FitWarning, match="is not finished: this is its state after 2 iterations"):
        assert bits(pv.load_run(tmp_path / "run")) == bits(whole)


def test_the_history_of_an_unfinished_run_is_that_of_its_weights(begun: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(begun, tmp_path / "run"))
    with (run / "history.jsonl").open("a") as history:
        history.write('{"epoch": 2, "objective": -1.0, "elbo": -1.0, "seconds": 2.0}\n')
    with pytest.warns(FitWarning):
        assert told(pv.load_run(run).history) == told(read_snapshot(run / STATE).history)


def test_a_folder_that_was_replaced_meanwhile_is_told(tmp_path: Path) -> None:
    def replace(row: Record) -> None:
        (tmp_path / "run").rename(tmp_path / "elsewhere")
        (tmp_path / "run").mkdir()

    with pytest.raises(OSError, match=r"run was replaced or removed while a fit wrote it"):
        pv.fit(vae(), DATA, guide=GUIDE, method=dataclasses.replace(SVI, epochs=1), out=tmp_path / "run", progress=replace)
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full")
def test_a_row_that_a_full_disk_does_not_take_is_told_in_words(tmp_path: Path) -> None:
    class Full(Checkpointer):
        def _begin(self) -> None:
            super()._begin()
            assert self._history is not None
            self._history.close()
            self._history = Path("/dev/full").open("a")  # noqa: SIM115

    with pytest.raises(OSError, match=r"history.jsonl could not be written \(No space left on device\); the last state"):
        pv.fit(vae(), DATA, guide=GUIDE, method=SVI, out=Full(tmp_path / "run"))


def test_what_numpy_counted_is_kept(tmp_path: Path) -> None:
    method = dataclasses.replace(SVI, epochs=np.int64(1), batch_size=np.int64(23), learning_rate=np.float64(0.01))
    pv.fit(vae(), DATA, guide=GUIDE, method=method, out=tmp_path / "svi")
    assert pv.load_run(tmp_path / "svi").method == method
    method = pv.EM(max_iterations=np.int64(2), tolerance=np.float32(0.0))
    pv.fit(pv.FactorAnalysis(latent_dim=np.int64(2)), REAL, method=method, out=tmp_path / "em")
    assert read_snapshot(tmp_path / "em" / STATE).metadata["max_iterations"] == 2


@pytest.mark.parametrize(
    ("before", "after"), [("learning_rate: null", "learning_rate: 0.5"), ("optimizer: adam", "optimizer: sgd")]
)
def test_an_edited_declaration_is_refused(before: str, after: str, begun: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(begun, tmp_path / "run"))
    config = (run / "config.yaml").read_text()
    assert before in config
    (run / "config.yaml").write_text(config.replace(before, after))
    with pytest.raises(ValueError, match=rf"goes on only as it was begun \(method.{after.split(':')[0]} was .*, now") as caught:
        pv.resume_run(run, data=DATA)
    assert "\n" not in str(caught.value)


def test_a_state_larger_than_the_memory_is_refused_before_it_is_read(begun: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(begun, tmp_path / "run"))
    os.truncate(run / STATE, 2**43)
    with pytest.raises(ValueError, match=r"expected at most .* GiB, the free memory, got 8.19e\+03 GiB"):
        pv.resume_run(run, data=DATA)


def test_a_state_that_memory_does_not_take_is_told(begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(snapshot, "safe_open", exhausted)
    with pytest.raises(ValueError, match="is no training state: MemoryError"):
        pv.resume_run(begun, data=DATA)


def test_a_planted_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    (tmp_path / f".it.partial-{os.getpid()}").symlink_to(tmp_path / "mine")
    with atomic.replaced(tmp_path / "it") as partial:
        partial.write_text("new")
    assert ((tmp_path / "it").read_text(), (tmp_path / "mine").read_text()) == ("new", "precious")


# --- signals --------------------------------------------------------------------------------------------------------------


LONG_OPERATION = """
import hashlib, importlib.util, signal, sys
spec = importlib.util.spec_from_file_location("signals", sys.argv[1])
signals = importlib.util.module_from_spec(spec)
spec.loader.exec_module(signals)
signal.signal(signal.SIGTERM, lambda number, frame: None)
with signals.ending_at_second([signal.SIGTERM]):
    print("begun", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # minutes in which the interpreter hears of no signal
"""


def test_a_second_signal_ends_a_long_operation_at_once() -> None:
    command = [sys.executable, "-c", LONG_OPERATION, signals.__file__]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143
        assert process.stderr is not None
        assert "a second signal ends it at once" in process.stderr.read()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_waits_for_the_end_of_the_step(number: signal.Signals, code: int, tmp_path: Path) -> None:
    whole = pv.fit(vae(), DATA, guide=GUIDE, method=SVI)
    before = signal.getsignal(number)
    with pytest.raises(pv.Interrupted, match=rf"stopped by {number.name}; .* go on with: ppl-vae fit --resume .*run") as caught:
        pv.fit(vae(), DATA, guide=GUIDE, method=SVI, out=tmp_path / "run", progress=lambda row: os.kill(os.getpid(), number))
    assert caught.value.code == code
    assert signal.getsignal(number) == before
    assert len(read_snapshot(tmp_path / "run" / STATE).history) == 1
    same(pv.resume_run(tmp_path / "run", data=DATA), whole)


def test_the_line_that_says_how_to_go_on_is_for_a_shell() -> None:
    told = str(pv.Interrupted(Path("my runs/lr=0.1"), signal.SIGTERM))
    assert told.endswith("ppl-vae fit --resume 'my runs/lr=0.1'")


# --- the command line -----------------------------------------------------------------------------------------------------

SMALL = ["--method.epochs", "2", "--model.latent_dim", "2", "--model.decoder.hidden", "[5]", "--guide.encoder.hidden", "[5]"]


def test_fit_out_and_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(archive, "run_pictures", lambda fit, data: iter(()))
    np.savez("x.npz", x=rows("binary", N).numpy())
    fit = ["fit", "--data", "x.npz", "--quiet", "--guide", "AmortizedNormal", *SMALL]
    assert cli.main([*fit, "--out", "whole"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(Checkpointer, "keep", lambda self, state: (keep(self, state), os.kill(os.getpid(), signal.SIGTERM)))
        assert cli.main([*fit, "--out", "half", "--keep_every", "0"]) == 143
    line = capsys.readouterr().err
    assert line == "ppl-vae: error: stopped by SIGTERM; the state is kept, go on with: ppl-vae fit --resume half\n"
    assert cli.main(["fit", "--resume", "half", "--quiet"]) == 0
    assert Path("half/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()
    assert {path.name for path in Path("half").iterdir()} == {path.name for path in Path("whole").iterdir()}
    Path("half").rename("lr=0.1")
    assert cli.main(["fit", "--resume", "lr=0.1", "--quiet"]) == 0
    Path("lr=0.1").rename("half")
    assert cli.main(["fit", "--resume", "half", "--method.epochs", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["iterations"] == 3
    for arguments, message in {
        ("--resume", "half", "--model.latent_dim", "3"): "(model.latent_dim was 2, now 3)",
        ("--resume", "half", "--out", "other"): "leave --out and --overwrite away",
        ("--resume", "nowhere"): "there is no run in nowhere",
    }.items():
        assert cli.main(["fit", *arguments]) == 2
        assert message in capsys.readouterr().err


keep = Checkpointer.keep


def test_a_run_is_resumed_only_with_classes_that_are_trusted(tmp_path: Path, begun: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text((begun / "config.yaml").read_text().replace("ppl_vae.VAE", "own_model_of_mine.VAE"))
    with pytest.raises(ValueError, match="is not part of ppl_vae"):
        pv.resume_run(run)
    assert cli.main(["fit", "--resume", str(run)]) == 2
