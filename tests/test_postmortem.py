"""A fit that does not stay finite says at which site, why, and where; and goes on if it is asked to."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import signal
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import ppl_vae as pv
import ppl_vae.inference.training.nonfinite
import ppl_vae.inference.training.step
from benchmarks import faults
from ppl_vae.inference.training.checks import CAUSES, FAULTS, Evidence, guilty, look_at
from ppl_vae.inference.training.inspection import RanSite
from ppl_vae.inference.training.postmortem import Postmortem
from ppl_vae.inference.training.stepper import Stepper
from ppl_vae.storage import RunFolder
from ppl_vae.storage.snapshot import read_snapshot
from ppl_vae.types import FitWarning

SVI = pv.SVI(epochs=3, batch_size=16, compile=False)


def data_of(x: Tensor) -> pv.Data:
    return pv.load_data(x.numpy(), valid=0.0, test=0.0, scale="none")


@pytest.mark.parametrize("name", faults.FAULTS)
def test_a_post_mortem_names_the_site_and_the_cause(name: str) -> None:
    error = faults.injected(name)
    assert error is not None
    assert faults.named(name, error), error.postmortem.text()
    assert "\n" not in str(error)


def test_a_learning_rate_of_1000_in_words(tmp_path: Path) -> None:
    method = dataclasses.replace(SVI, learning_rate=1e3)
    with pytest.raises(pv.NonFiniteError, match=r"site 'x' of the model: .*lower the learning rate \(it is 1000\)") as caught:
        pv.fit(faults.VAE, data_of(faults._rows()), guide=faults.AMORTIZED, method=method, out=tmp_path / "run")
    assert isinstance(caught.value, FloatingPointError)
    found = caught.value.postmortem
    assert (found.epoch, found.step, found.site, found.program) == (1, 2, "x", "model")
    assert found.parameter["before"] == pytest.approx(1e3, rel=1e-2)
    assert found.parameter["earlier"] < 2
    assert found.ranges["scale"][1] > 1e3
    folder = tmp_path / "run" / "postmortem"
    assert {path.name for path in folder.iterdir()} == {f"epoch-1-step-2.{end}" for end in ("txt", "json", "safetensors")}
    text = (folder / "epoch-1-step-2.txt").read_text()
    for words in ("the learning rate is too large", "site 'x' of the model", found.parameter["name"], "Rows", "scale from"):
        assert words in text
    told = json.loads((folder / "epoch-1-step-2.json").read_text())
    assert told["site"] == "x"
    values = load_file(folder / "epoch-1-step-2.safetensors")
    data = data_of(faults._rows())
    torch.testing.assert_close(values["x"], data.train.x[values["rows"]])
    assert set(found.rows) <= set(values["rows"].tolist())


class Model(faults.Model):
    """A likelihood whose scale is zero for rows whose first entry is 9."""

    def __init__(self) -> None:
        super().__init__(spread=lambda w, x: (1 + w) * (x[:, :1] != 9.0).float())


@pytest.fixture(params=["eager", "recorded"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(ppl_vae.inference.training.step, "WORTH_RECORDING", 1 if request.param == "recorded" else 10**9)
    return request.param


@pytest.mark.parametrize("look", [1, 2, 100])
def test_the_guilty_step_is_found_whenever_it_is_looked_for(look: int, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ppl_vae.inference.training.nonfinite, "LOOK", look)
    order = torch.randperm(faults.N, generator=torch.Generator().manual_seed(0))
    step = 1 + int((order == 7).nonzero()) // 16
    with pytest.raises(pv.NonFiniteError) as caught:
        pv.fit(Model(), data_of(faults._rows(9.0)), guide=faults.Guide(), method=dataclasses.replace(SVI, compile="auto"))
    found = caught.value.postmortem
    assert (found.epoch, found.step, found.rows, found.site) == (1, step, [7], "x")


def skipping(**options: object) -> pv.Fit:
    torch.manual_seed(0)
    method = dataclasses.replace(SVI, on_nonfinite="skip", **options)
    return pv.fit(Model(), data_of(faults._rows(9.0)), guide=faults.Guide(), method=method)


@pytest.mark.slow
def test_a_compiled_step_is_found_guilty_too() -> None:
    with pytest.raises(pv.NonFiniteError) as caught:
        pv.fit(Model(), data_of(faults._rows(9.0)), guide=faults.Guide(), method=dataclasses.replace(SVI, compile=True))
    assert (caught.value.postmortem.rows, caught.value.postmortem.site) == ([7], "x")


def test_a_step_that_is_skipped_changes_nothing(way: str) -> None:
    compile = False if way == "eager" else "auto"
    with pytest.warns(FitWarning, match=r"step \d of epoch \d is left out: site 'x' of the model: its scale has run to zero"):
        fit = skipping(compile=compile)
    assert all(bool(value.isfinite().all()) for value in fit.pair.state_dict().values())
    assert all(math.isfinite(row["objective"]) for row in fit.history)
    assert [row["epoch"] for row in fit.history] == [1, 2, 3]


def test_what_does_not_help_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ppl_vae.inference.training.nonfinite.MOST, "skip", 0)
    with pytest.raises(pv.NonFiniteError, match="no longer finite: site 'x'"):
        skipping()


def rewinding(**options: object) -> pv.Fit:
    torch.manual_seed(0)
    method = dataclasses.replace(SVI, learning_rate=0.1, on_nonfinite="rewind", schedule="constant", **options)
    return pv.fit(Drifting(), data_of(faults._rows()), guide=faults.Guide(), method=method)


class Drifting(faults.Model):
    """A likelihood that has no value when its offset has gone further than a step of 0.05."""

    def __init__(self) -> None:
        super().__init__(shift=lambda w, x: w + (0.05 - w.abs()).detach().sqrt() * 0.0)


def test_a_rewound_fit_goes_on_with_a_tenth_of_the_learning_rate() -> None:
    with pytest.warns(FitWarning, match="back to step 0 of epoch 1 with a tenth of the learning rate: site 'x' of the model"):
        fit = rewinding(epochs=1)
    assert all(bool(value.isfinite().all()) for value in fit.pair.state_dict().values())
    assert math.isfinite(fit.history[0]["objective"])


def test_rewinding_has_an_end() -> None:
    model = faults.Model(shift=lambda w, x: (x[:, :1] - 9.0) / (x[:, 1:2] - 9.0))
    method = dataclasses.replace(SVI, on_nonfinite="rewind")
    with (
        pytest.warns(FitWarning, match="with a tenth of the learning rate"),
        pytest.raises(pv.NonFiniteError, match="no longer finite after 5 tries to go on"),
    ):
        pv.fit(model, data_of(faults._rows(9.0)), guide=faults.Guide(), method=method)


def test_going_on_after_a_rewind_is_the_same_after_a_resume(tmp_path: Path) -> None:
    method = dataclasses.replace(SVI, learning_rate=1e3, on_nonfinite="rewind", epochs=2)
    data = data_of(faults._rows())
    with pytest.warns(FitWarning, match="with a tenth of the learning rate"):
        fit = pv.fit(faults.VAE, data, guide=faults.AMORTIZED, method=method, out=tmp_path / "run")
    assert fit.history[0]["learning_rate"] == 1e3
    assert fit.history[1]["learning_rate"] < 1e2
    assert read_snapshot(tmp_path / "run" / RunFolder.SNAPSHOT).metadata["rate_factor"] <= 0.1


SPOILT = data_of(faults._rows())


def spoiling(monkeypatch: pytest.MonkeyPatch, *places: int) -> None:
    """Let the steps before these places of the first epoch leave NaN."""
    step = Stepper.step

    def spoil(self: Stepper, block: list[Tensor], rows: Tensor) -> None:
        step(self, block, rows)
        if self.rate_factor == 1.0 and self.epoch == 0 and self.batch_index in places:
            with torch.no_grad():
                self.parameters[0].view(-1)[0] = math.nan

    monkeypatch.setattr(Stepper, "step", spoil)


def stopped(folder: Path, left: int, method: pv.SVI) -> None:
    """A run folder whose fit was asked to stop after so many states."""

    class Impatient(pv.Checkpointer):
        def keep(self, state: Any) -> None:
            self.asked = signal.SIGTERM if state.metadata["batch_index"] >= left else None
            super().keep(state)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        with pytest.raises(pv.Interrupted):
            pv.fit(faults.VAE, SPOILT, guide=faults.AMORTIZED, method=method, out=Impatient(folder, every=0.0))


def test_a_resume_remembers_the_tries_of_its_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ppl_vae.inference.training.nonfinite.MOST, "skip", 1)
    spoiling(monkeypatch, 2, 4)
    stopped(tmp_path / "run", 3, dataclasses.replace(SVI, learning_rate=1e-3, on_nonfinite="skip"))
    with pytest.raises(pv.NonFiniteError, match="after 1 tries"):
        pv.resume_run(tmp_path / "run", data=SPOILT)


def test_a_resume_after_a_rewind_tells_the_learning_rate_that_the_epoch_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoiling(monkeypatch, 2)
    stopped(tmp_path / "run", 3, dataclasses.replace(SVI, learning_rate=1e-3, on_nonfinite="rewind", epochs=2))
    first, second = (row["learning_rate"] for row in pv.resume_run(tmp_path / "run", data=SPOILT).history)
    assert first == 1e-3
    assert second <= 1e-4


def test_a_full_disk_does_not_hide_why_training_is_not_finite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Postmortem, "save", full)
    method = dataclasses.replace(SVI, learning_rate=1e3)
    with (
        pytest.warns(FitWarning, match="no post-mortem is written: .*No space left on device"),
        pytest.raises(pv.NonFiniteError) as caught,
    ):
        pv.fit(faults.VAE, SPOILT, guide=faults.AMORTIZED, method=method, out=tmp_path / "run")
    assert "; see " not in str(caught.value)


def test_a_post_mortem_of_the_first_step_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / "run" / "postmortem").mkdir(parents=True)
    (tmp_path / "run" / "postmortem" / "epoch-1-step-1.txt").touch()
    pv.fit(faults.VAE, SPOILT, guide=faults.AMORTIZED, method=pv.SVI(epochs=1, compile=False), out=tmp_path / "run")
    assert not (tmp_path / "run" / "postmortem").exists()
    (tmp_path / "mine" / "postmortem").mkdir(parents=True)
    (tmp_path / "mine" / "postmortem" / "report.tex").touch()
    with pytest.raises(ValueError, match="exists and is not a run"):
        pv.Checkpointer(tmp_path / "mine")


def test_a_parameter_that_is_not_finite_is_seen_though_no_objective_is(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Stepper.step

    def spoil(self: Stepper, block: list[Tensor], rows: Tensor) -> None:
        step(self, block, rows)
        if (self.epoch, self.batch_index) == (0, 4):
            with torch.no_grad():
                self.parameters[0].view(-1)[0] = math.inf

    monkeypatch.setattr(Stepper, "step", spoil)
    with pytest.raises(pv.NonFiniteError) as caught:
        pv.fit(faults.Model(), data_of(faults._rows()), guide=faults.Guide(), method=SVI)
    found = caught.value.postmortem
    assert (found.epoch, found.step, found.stage) == (1, 4, "update")
    assert found.parameter["after"] == math.inf
    assert math.isfinite(found.parameter["before"])


def test_a_state_is_never_kept_of_what_is_not_finite(tmp_path: Path) -> None:
    method = dataclasses.replace(SVI, learning_rate=1e3)
    keeper = pv.Checkpointer(tmp_path / "run", every=0.0)
    with pytest.raises(pv.NonFiniteError):
        pv.fit(faults.VAE, data_of(faults._rows()), guide=faults.AMORTIZED, method=method, out=keeper)
    kept = read_snapshot(tmp_path / "run" / RunFolder.SNAPSHOT)
    assert kept.metadata["batch_index"] == 1
    assert all(bool(value.isfinite().all()) for name, value in kept.tensors.items() if name.startswith("pair."))


def test_data_of_several_sites_and_plates() -> None:
    """The rows are those of the data's plate, whatever stands around it."""

    def model(x: Tensor) -> None:
        w = pyro.param("w", torch.zeros(()))
        with pyro.plate("features", 3, dim=-2), pv.data_plate(20, x):
            pyro.sample("x", dist.Normal(w, (x.T != 9.0).float()), obs=x.T)

    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    x[4, 1] = 9.0
    with pytest.raises(pv.NonFiniteError, match="site 'x' of the model: its scale has run to zero") as caught:
        pv.fit(model, data_of(x), guide=lambda x: None, method=dataclasses.replace(SVI, batch_size=5))
    assert caught.value.postmortem.rows == [4]


def test_the_command_line_says_it_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from ppl_vae import cli

    monkeypatch.chdir(tmp_path)
    np.save("x.npy", faults._rows().numpy())
    vae = ["--model.likelihood", "Gaussian", "--model.likelihood.scale", "amortized", "--model.latent_dim", "2"]
    fit = ["fit", "--data", "x.npy", *vae, "--method.learning_rate", "1000", "--method.batch_size", "16", "--out", "run"]
    assert cli.main([*fit, "--quiet"]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "the learning rate is too large" in err
    assert "see run/postmortem" in err
    with pytest.raises(ValueError, match="run was broken off before a state was kept: fit it again"):
        pv.load_run("run")


# --- the table of checks --------------------------------------------------------------------------------------------------

NAN, INF = torch.tensor(math.nan), torch.tensor(math.inf)


def evidence(**changes: Any) -> Evidence:
    """Of a step at which nothing is odd, but for what is given."""
    site = {"parameters": {"loc": torch.zeros(3), "scale": torch.ones(3)}, "value": torch.zeros(3), "observed": False}
    site |= {"log_prob": torch.zeros(3)} | {name: changes.pop(name) for name in (*site, "log_prob") if name in changes}
    good = {
        "site": RanSite(name="z", program="guide", **site),
        "x": torch.ones(3),
        "loss": torch.ones(()),
        "gradients": [torch.ones(2), None],
        "after": [torch.ones(2), torch.ones(1)],
        "objectives": [-3.0, -2.0],
        "learning_rate": 1e-3,
        "parameter": {"name": "w", "moved": None},
    }
    return Evidence(**(good | changes))


BAD_FAULTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "arguments": ({"parameters": {"loc": NAN, "scale": torch.ones(3)}}, "its loc is NaN in 1 of 1 entries", "objective"),
    "scales": ({"parameters": {"scale": torch.tensor([1.0, 0.0])}}, "its scale has run to zero", "objective"),
    "draws": ({"value": torch.stack([INF, torch.ones(())])}, "its draw is infinite in 1 of 2 entries", "objective"),
    "log-probabilities": ({"log_prob": -INF}, "its log-probability is infinite in 1 of 1 entries", "objective"),
    "objective": ({"loss": NAN}, "the objective is not finite, though every site is", "objective"),
    "gradients": ({"gradients": [NAN, None]}, "the objective is finite, but a gradient is not", "gradient"),
    "update": ({"after": [torch.ones(2), INF]}, "a parameter is not after the step", "update"),
}
BAD_CAUSES: dict[str, tuple[dict[str, Any], str]] = {
    "data": ({"x": torch.tensor([1.0, 2e4])}, r"the data reach 2e\+04 where networks expect values around 1"),
    "learning rate": ({"learning_rate": 0.5}, r"the learning rate is too large: lower the learning rate \(it is 0.5\)"),
    "small scales": ({"parameters": {"scale": torch.tensor([1e-7])}}, "the scale of this site runs to zero"),
    "domain": ({}, "a logarithm, a root or a quotient at the edge of its domain"),
}


def test_every_check_has_a_row_below_those_that_it_needs() -> None:
    for table, cases in ((FAULTS, BAD_FAULTS), (CAUSES, BAD_CAUSES)):
        names = [check.name for check in table]
        assert names == list(cases)
        assert all(need in names[:place] for place, check in enumerate(table) for need in check.needs)


def test_a_good_step_is_good_in_every_row_of_faults() -> None:
    verdicts, bad = look_at(FAULTS, evidence())
    assert {verdict.found for verdict in verdicts} == {"good"}
    assert bad == {}


@pytest.mark.parametrize("name", BAD_FAULTS)
def test_a_fault_is_bad_in_its_row_and_hides_what_hangs_on_it(name: str) -> None:
    changes, words, stage = BAD_FAULTS[name]
    verdicts, bad = look_at(FAULTS, evidence(**changes))
    found = {verdict.check: verdict.found for verdict in verdicts}
    assert list(bad) == [name]
    assert re.search(words, bad[name])
    names = list(found)
    place = names.index(name)
    assert [found[other] for other in names[:place]] == ["good"] * place
    assert [found[other] for other in names[place + 1 :]] == ["not looked at"] * (len(names) - place - 1)
    assert next(check.stage for check in FAULTS if check.name == name) == stage


@pytest.mark.parametrize("name", BAD_CAUSES)
def test_a_cause_is_told_in_its_row(name: str) -> None:
    changes, words = BAD_CAUSES[name]
    verdicts, likely = look_at(CAUSES, evidence(**changes))
    assert list(likely) == [name]
    assert re.search(words, likely[name])
    assert ("domain", "not looked at" if name != "domain" else "bad") in verdicts


def test_the_first_guilty_site_is_found_though_later_ones_suffer() -> None:
    bad = evidence(log_prob=NAN).site
    worse = evidence(parameters={"loc": NAN}).site
    assert bad is not None
    assert worse is not None
    site, fault = guilty([evidence().site, bad, worse]) or (None, None)  # type: ignore[list-item]
    assert site is bad
    assert fault is not None
    assert "log-probability" in fault.told


def test_a_post_mortem_says_what_was_looked_at(tmp_path: Path) -> None:
    with pytest.raises(pv.NonFiniteError) as caught:
        pv.fit(Model(), data_of(faults._rows(9.0)), guide=faults.Guide(), method=SVI)
    found = caught.value.postmortem
    assert found.checks[:3] == (("arguments", "good"), ("scales", "bad"), ("draws", "not looked at"))
    assert {verdict.check for verdict in found.checks} == {*BAD_FAULTS, *BAD_CAUSES}
    assert "scales             bad" in found.text()
    found.save(tmp_path)
    [told] = (tmp_path / "postmortem").glob("*.json")
    assert json.loads(told.read_text())["checks"]["scales"] == "bad"


# --- killed, and again and again ------------------------------------------------------------------------------------------


def test_a_fit_survives_kills(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ppl_vae.inference.training.step, "WORTH_RECORDING", 1)
    found = faults.kills(6)
    assert found["kills survived"] == 6
    assert found["fits with equal bits"] == found["fits"]


@pytest.mark.slow
def test_a_fit_leaves_little_in_memory() -> None:
    assert faults.leaks(30)["bytes per fit"] < 2**16


@pytest.mark.slow
def test_a_fit_survives_many_kills() -> None:
    found = faults.kills(40, seed=1)
    assert found["fits with equal bits"] == found["fits"]


@pytest.mark.slow
def test_memory_stays_flat_over_many_fits() -> None:
    assert faults.leaks(300)["bytes per fit"] < 4096
