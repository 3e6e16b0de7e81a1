"""What every method owes to a fit: one signature, and what it says of itself."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ppl_vae as pv
from ppl_vae.inference.methods.base import run_method
from ppl_vae.storage import NULL_CHECKPOINTER, Checkpointer, NullCheckpointer, Snapshot
from ppl_vae.types import Record
from tests.table import OBJECTIVES, rows

DATA = pv.load_data(rows("real", 30).flatten(1), valid=0.0, test=0.0, scale="none")
PPCA = pv.PPCA(latent_dim=1)
BAYESIAN = pv.FactorAnalysis(latent_dim=1, weights=pv.Normal(), loc=pv.Normal(), scale=pv.LogNormal())
METHODS: dict[str, tuple[pv.Model, pv.Guide, pv.Method]] = {
    "SVI": (PPCA, pv.AmortizedLinear(), pv.SVI(epochs=2, batch_size=15, compile=False)),
    "EM": (PPCA, pv.ExactPosterior(), pv.EM(max_iterations=3)),
    "ClosedForm": (PPCA, pv.ExactPosterior(), pv.ClosedForm()),
    "NUTS": (BAYESIAN, pv.BayesianGuide(), pv.NUTS(samples=4, warmup=2, chains=1)),
}


class Due(NullCheckpointer):
    """Wants a snapshot after every step."""

    def __init__(self) -> None:
        self.kept: list[Snapshot] = []

    def due(self) -> bool:
        return True

    def keep(self, snapshot: Snapshot) -> None:
        self.kept.append(snapshot)


@pytest.mark.filterwarnings("ignore::ppl_vae.types.FitWarning")
@pytest.mark.parametrize(("model", "guide", "method"), METHODS.values(), ids=METHODS)
def test_every_method_runs_with_a_checkpointer_and_without(model: pv.Model, guide: pv.Guide, method: pv.Method) -> None:
    names = ["pair", "data", "report", "checkpointer"]
    parameters = inspect.signature(method.run).parameters
    assert list(parameters) == names
    assert parameters["checkpointer"].default is NULL_CHECKPOINTER
    checkpointer = Due()
    told: list[Record] = []
    history = method.run(pv.build(model, guide, DATA.spec), DATA, told.append, checkpointer=checkpointer)
    assert len(history) == len(told) <= method.iterations + 1  # EM tells its start too
    assert bool(checkpointer.kept) == (method.length is not None)
    assert method.run(pv.build(model, guide, DATA.spec), DATA, lambda row: None)


def test_a_method_says_how_many_steps_it_takes() -> None:
    assert pv.SVI(batch_size=7).steps_per_epoch(30) == 5
    assert pv.EM().steps_per_epoch(30) == 1
    assert pv.SVI(objective=pv.IWAE()).objective == pv.IWAE()
    assert pv.EM().objective is None


@pytest.mark.parametrize(("name", "objective"), OBJECTIVES.items(), ids=OBJECTIVES)
def test_an_objective_says_how_many_draws_it_takes(name: str, objective: pv.Objective) -> None:
    fields = {field.name: getattr(objective, field.name) for field in dataclasses.fields(objective)}
    assert objective.draws == fields.get("samples", fields.get("particles"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Old(pv.Method):
    """A user's method of the release before, whose ``run`` takes no checkpointer."""

    @property
    def iterations(self) -> int:
        return 1

    def run(self, pair: pv.Pair, data: pv.Data, report: Callable[[Record], None]) -> list[Record]:  # type: ignore[override]
        row: Record = {"epoch": 1, "objective": -1.0, "elbo": -1.0, "seconds": 0.0}
        report(row)
        return [row]


def test_a_run_of_three_arguments_still_works_and_warns() -> None:
    with pytest.warns(
        DeprecationWarning, match=r"Old\.run takes a checkpointer besides now: run\(self, pair, data, report, check"
    ):
        fit = pv.fit(PPCA, DATA, guide=pv.ExactPosterior(), method=Old())
    assert fit.history[-1]["objective"] == -1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Named(Old):
    """One whose fourth argument has a name of its own."""

    length = "seed"

    def run(self, pair: pv.Pair, data: pv.Data, report: Callable[[Record], None], keeper: Any = None) -> list[Record]:  # type: ignore[override]
        return [{"keeper": keeper}]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optional(Old):
    """One with an option of its own, which is no checkpointer."""

    def run(self, pair: pv.Pair, data: pv.Data, report: Callable[[Record], None], option: int = 3) -> list[Record]:  # type: ignore[override]
        return [{"option": option}]


def test_an_option_of_its_own_stays_as_it_is() -> None:
    pair = pv.build(PPCA, pv.ExactPosterior(), DATA.spec)
    with pytest.warns(DeprecationWarning, match=r"Optional.run takes a checkpointer besides now"):
        assert run_method(Optional(), pair, DATA, lambda row: None, NULL_CHECKPOINTER) == [{"option": 3}]


def test_a_fourth_argument_is_the_checkpointer_whatever_it_is_called(tmp_path: Path) -> None:
    checkpointer = Checkpointer(tmp_path / "run")
    [row] = run_method(Named(), pv.build(PPCA, pv.ExactPosterior(), DATA.spec), DATA, lambda row: None, checkpointer)
    assert row["keeper"] is checkpointer
