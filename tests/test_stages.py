"""Parts of a pair that learn while the others stand still, and methods one after the other as one fit."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions import constraints

import ppl_vae as pv
import ppl_vae.inference.training.step
from ppl_vae import cli, plots
from ppl_vae.fitting.build import build
from ppl_vae.fitting.table import short
from ppl_vae.program.context import seeded
from ppl_vae.runs import resume
from tests.table import TINY, rows, vae
from tests.test_resume import KilledError, Mortal, broken, same

N = 46
DATA = pv.load_data(rows("binary", N), valid=0.2, test=0.1)
NORMED = pv.MLP(hidden=(7,), norm="batch", dropout=0.2)
MODEL, GUIDE = vae(decoder=NORMED), pv.AmortizedNormal(encoder=NORMED)
SVI = pv.SVI(epochs=2, batch_size=17, compile=False, seed=3)
ONLY_GUIDE, ONLY_MODEL = (dataclasses.replace(SVI, only=(half,)) for half in ("guide", "model"))
STAGES = pv.Stages(methods=(ONLY_GUIDE, SVI))
STEPS = 2  # of an epoch


def fitted(method: pv.Method, **options: Any) -> pv.Fit:
    return pv.fit(MODEL, DATA, guide=GUIDE, method=method, **options)


def changed(before: dict[str, Tensor], fit: pv.Fit) -> set[str]:
    return {name for name, value in fit.pair.state_dict().items() if not torch.equal(value, before[name])}


def untrained(model: pv.Model, guide: pv.Guide, data: pv.Data) -> dict[str, Tensor]:
    """The state of a pair as a fit would begin with it, before any module took its start."""
    with seeded(0):
        return {name: value.clone() for name, value in build(model, guide, data.spec).state_dict().items()}


@pytest.fixture(scope="module")
def whole() -> pv.Fit:
    return fitted(STAGES)


# --- only -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pays_from", [1, 10**9], ids=["recorded", "eager"])
def test_what_is_not_named_stands_still(pays_from: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ppl_vae.inference.training.step, "WORTH_RECORDING", pays_from)
    fit = fitted(dataclasses.replace(ONLY_GUIDE, compile="auto", seed=0))
    moved = changed(untrained(MODEL, GUIDE, DATA), fit)
    # All of the guide, the statistics of its batch norm too, and nothing of the model, whose start is left for later.
    assert moved == {name for name in fit.pair.state_dict() if name.startswith("guide.")}
    assert all(parameter.requires_grad for parameter in fit.pair.parameters())
    assert all(module.training for module in fit.pair.modules())
    assert fit.history[-1]["valid_elbo"] == pytest.approx(fit.evaluate(DATA.valid)["elbo"], abs=1e-9)


def test_both_halves_are_the_whole_to_the_same_bits() -> None:
    same(fitted(dataclasses.replace(SVI, only=("guide", "model"))), fitted(SVI))


def test_a_part_may_be_one_parameter_and_the_start_of_what_holds_it_leaves_the_rest_alone() -> None:
    real = pv.load_data(rows("real", N), valid=0.0, test=0.0)
    model, guide = vae(likelihood=pv.Gaussian(scale="shared")), pv.AmortizedNormal(encoder=TINY)
    method = dataclasses.replace(SVI, only=("model.likelihood.log_scale",), seed=0)
    fit = pv.fit(model, real, guide=guide, method=method)
    assert changed(untrained(model, guide, real), fit) == {"model.likelihood.log_scale"}


def test_by_turns_there_must_be_something_of_both_halves() -> None:
    turns = dataclasses.replace(ONLY_GUIDE, alternate="steps")
    with pytest.raises(ValueError, match="the model has no parameters to alternate with the other's"):
        fitted(turns)
    fit = fitted(dataclasses.replace(turns, only=("guide", "model.decoder"), seed=0))
    assert any(name.startswith("model.decoder") for name in changed(untrained(MODEL, GUIDE, DATA), fit))


def test_parts_of_plain_programs_go_by_their_names() -> None:
    def model(x: Tensor) -> None:
        loc = pyro.param("loc", torch.zeros(3))
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            scale = pyro.param("scale", torch.ones(()), constraint=constraints.positive)
            pyro.sample("x", dist.Normal(loc + z[:, None], scale).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        weight = pyro.param("weight", torch.zeros(3))
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(x @ weight, 1.0))

    data = pv.load_data(torch.randn(20, 3), valid=0.0, test=0.0, scale="none")
    fit = pv.fit(model, data, guide=guide, method=dataclasses.replace(SVI, only=("model.scale", "guide")))
    values = dict(fit.pair.named_parameters())
    still = [name for name, value in values.items() if name.endswith("loc")]
    assert not any(values[name].any() for name in still)
    assert still
    assert all(value.any() for name, value in values.items() if name not in still)
    with pytest.raises(ValueError, match=r"stage 2: expected parts of model and guide for only, got 'guide.w': choose from"):
        pv.fit(model, data, guide=guide, method=pv.Stages(methods=(SVI, dataclasses.replace(SVI, only=("guide.w",)))))


def test_after_an_error_everything_learns_again() -> None:
    pair: list[pv.Pair] = []

    class Ends(pv.Callback):
        def begin(self, context: Any) -> None:
            pair.append(context.pair)

        def record(self, row: dict[str, Any]) -> None:
            assert not any(module.training for module in pair[0].model.modules())
            raise KilledError

    with pytest.raises(KilledError):
        fitted(STAGES, callbacks=[Ends()])
    assert all(parameter.requires_grad for parameter in pair[0].parameters())
    assert all(module.training for module in pair[0].modules())
    assert not pair[0].learned


@pytest.mark.parametrize(
    ("only", "told"),
    [
        (("model.decodr",), "got 'model.decodr': choose from model.decoder, model.likelihood, model.prior"),
        (("guide.encoder.nothing",), "got 'guide.encoder.nothing': choose from guide.encoder.network"),
        (("decoder",), "names of parts for only that begin with model or guide"),
        ("guide", "expected only: tuple"),
    ],
)
def test_an_unknown_part_is_told_with_those_that_there_are(only: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        fitted(dataclasses.replace(SVI, only=only))


# --- stages ---------------------------------------------------------------------------------------------------------------


def test_one_stage_is_its_method_to_the_same_bits() -> None:
    alone, fit = fitted(SVI), fitted(pv.Stages(methods=(dataclasses.replace(SVI, seed=0),), seed=SVI.seed))
    assert not changed(alone.pair.state_dict(), fit)
    assert [row.pop("stage") for row in fit.history] == [1, 1]
    assert [row["elbo"] for row in fit.history] == [row["elbo"] for row in alone.history]


def test_the_history_goes_on_from_stage_to_stage(whole: pv.Fit) -> None:
    assert [(row["epoch"], row["stage"]) for row in whole.history] == [(1, 1), (2, 1), (3, 2), (4, 2)]
    seconds = [row["seconds"] for row in whole.history]
    assert seconds == sorted(seconds)
    assert [row["learning_rate"] for row in whole.history] == pytest.approx([2e-3, 1e-3] * 2)
    assert len(whole.history) == STAGES.iterations
    assert len(plots.learning_curve(whole.history).axes[0].lines) == 3  # training, validation, and where the second begins


def test_a_later_stage_keeps_what_an_earlier_one_learned_and_starts_the_rest() -> None:
    first = fitted(dataclasses.replace(ONLY_GUIDE, seed=0))
    both = fitted(pv.Stages(methods=(dataclasses.replace(ONLY_GUIDE, seed=0), dataclasses.replace(ONLY_MODEL, seed=0))))
    assert all(name.startswith("model.") for name in changed(first.pair.state_dict(), both))
    before = untrained(MODEL, GUIDE, DATA)["model.decoder.layers.4.bias"]
    assert (first.pair.model.decoder.layers[4].bias == before).all()
    assert ((both.pair.model.decoder.layers[4].bias - before).abs() > 0.1).any()  # at the likeliest features, far from there


@pytest.mark.parametrize("left", [1, 2 * STEPS + 2, 2 * STEPS + 4])
def test_a_fit_goes_on_in_the_stage_that_it_was_broken_off_in(left: int, whole: pv.Fit, tmp_path: Path) -> None:
    run = broken(tmp_path / "run", left, MODEL, DATA, guide=GUIDE, method=STAGES)
    same(pv.resume_run(run, data=DATA), whole)
    same(pv.load_run(run), whole)


def test_the_last_stage_may_become_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = [dataclasses.replace(method, schedule="constant") for method in STAGES.methods]
    longer = pv.Stages(methods=(stages[0], dataclasses.replace(stages[1], epochs=3)))
    fitted(pv.Stages(methods=tuple(stages)), out=tmp_path / "run")
    monkeypatch.setattr(resume, "Checkpointer", partial(Mortal, left=1))
    with pytest.raises(KilledError):
        pv.resume_run(tmp_path / "run", data=DATA, method=longer)
    monkeypatch.undo()
    same(pv.resume_run(tmp_path / "run", data=DATA, method=longer), fitted(longer))
    with pytest.raises(ValueError, match="was declared with Stages's last of its methods, of 3 epochs, got 2"):
        pv.resume_run(tmp_path / "run", data=DATA, method=pv.Stages(methods=tuple(stages)))
    earlier = pv.Stages(methods=(dataclasses.replace(stages[0], epochs=3), longer.last))
    with pytest.raises(ValueError, match=r"method\.methods\.1\.epochs was 2, now 3"):
        pv.resume_run(tmp_path / "run", data=DATA, method=earlier)


def test_an_unknown_part_of_a_later_stage_ends_the_fit_before_the_first() -> None:
    typo = dataclasses.replace(SVI, only=("guide.encodr",))
    told: list[Any] = []
    with pytest.raises(ValueError, match="stage 2: expected parts"):
        fitted(pv.Stages(methods=(SVI, typo)), progress=told.append)
    assert not told


@pytest.mark.parametrize("method", [STAGES, pv.EM()], ids=["Stages", "EM"])
def test_what_cannot_be_a_stage_is_refused(method: pv.Method) -> None:
    with pytest.raises(ValueError, match="expected methods that go on from one another, such as SVI, got"):
        pv.Stages(methods=(SVI, method))
    with pytest.raises(ValueError, match=r"^expected methods: tuple\[.*\], got SVI"):
        pv.Stages(methods=SVI)
    with pytest.raises(ValueError, match="at least one method"):
        pv.Stages(methods=())


def test_stages_are_told_in_short_and_compared() -> None:
    brief = pv.Stages(methods=(pv.SVI(epochs=1, only=("guide",)), pv.SVI(epochs=2)))
    assert short(brief) == "Stages(methods=(SVI(epochs=1, only=('guide',)), SVI(epochs=2)))"
    found = pv.compare(MODEL, DATA, guides=[GUIDE], methods=[brief, pv.SVI(epochs=1)], progress=lambda row: None)
    assert [row["iterations"] for row in found.rows] == [3, 1]


def test_stages_on_the_command_line(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=rows("binary", N).numpy())
    source = pv.DataSource(source=str(tmp_path / "x.npz"), valid=0.2, test=0.1)
    stages = pv.Stages(methods=(pv.SVI(epochs=1, only=("guide",)), pv.SVI(epochs=1)))
    run = tmp_path / "run"
    pv.fit(vae(), source, method=stages, out=run)
    longer = "[{class_path: SVI, init_args: {epochs: 1, only: [guide]}}, {class_path: SVI, init_args: {epochs: 2}}]"
    assert cli.main(["fit", "--resume", str(run), "--method.methods", longer, "--quiet"]) == 0
    assert [(row["epoch"], row["stage"]) for row in pv.load_run(run).history] == [(1, 1), (2, 2), (3, 2)]
