"""What hears of a fit: in which order, what of, what it may add, and that a fit survives what it raises."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import ppl_vae as pv
from ppl_vae.fitting.callbacks import loggers as loggers_module
from ppl_vae.fitting.callbacks import progress as progress_module
from ppl_vae.fitting.callbacks.arguments import all_callbacks
from ppl_vae.fitting.callbacks.base import CallbackList
from ppl_vae.fitting.callbacks.history import HistoryWriter
from ppl_vae.fitting.callbacks.loggers import Logger
from ppl_vae.fitting.callbacks.progress import DurationMonitor, ProgressBar
from ppl_vae.runs import SavedRun
from ppl_vae.storage import Checkpointer
from tests.table import TINY, rows, vae

DATA = pv.load_data(rows("binary", 60), y=[0, 1] * 30, valid=0.3)
GUIDE = pv.AmortizedNormal(encoder=TINY)
METHOD = pv.SVI(epochs=3, batch_size=21, compile=False)


def fitted(method: pv.Method = METHOD, **options: Any) -> pv.Fit:
    return pv.fit(vae(), DATA, guide=GUIDE, method=method, device="cpu", **options)


class Notes(pv.Callback):
    """Notes which hook was called, under its name."""

    def __init__(self, name: str, calls: list[tuple[str, str]]) -> None:
        self.name, self.calls = name, calls

    def begin(self, context: pv.FitContext) -> None:
        self.calls.append((self.name, "begin"))

    def record(self, row: dict) -> None:
        self.calls.append((self.name, f"record {row['epoch']}"))

    def end(self, error: BaseException | None = None) -> None:
        self.calls.append((self.name, f"end {type(error).__name__}" if error else "end"))


class Sum(pv.Callback):
    """Adds the sum of the ELBOs so far."""

    def begin(self, context: pv.FitContext) -> None:
        self.total = 0.0

    def record(self, row: dict) -> None:
        self.total += row["elbo"]
        row["elbo_sum"] = self.total


class Fails(pv.Callback):
    """Raises at an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def record(self, row: dict) -> None:
        if row["epoch"] == self.epoch:
            raise RuntimeError(f"no more after {self.epoch}")


def written(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]


def without_seconds(history: list[dict]) -> list[dict]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


# --- order ----------------------------------------------------------------------------------------------------------------


def test_each_hears_in_its_place_and_ends_in_the_reverse_order() -> None:
    calls: list[tuple[str, str]] = []
    fitted(pv.SVI(epochs=2), callbacks=[Notes("a", calls), Notes("b", calls)], loggers=[Notes("logger", calls)])
    names = ["a", "b", "logger"]
    hooks = ["begin", "record 1", "record 2"]
    assert calls == [(name, hook) for hook in hooks for name in names] + [(name, "end") for name in reversed(names)]


def test_a_row_is_added_to_then_shown_then_written_then_logged(tmp_path: Path) -> None:
    order: list[str] = []
    run = tmp_path / "run"

    class Own(pv.Callback):
        def record(self, row: dict) -> None:
            order.append("own with metrics" if "valid_active_units" in row else "own without")
            row["own"] = row["epoch"]

    class Shown(Logger):
        def record(self, row: dict) -> None:
            order.append("logger after file" if written(run)[-1:] == [row] else "logger before file")

    def progress(row: dict) -> None:
        there = [line for line in written(run) if line["epoch"] == row["epoch"]] if run.exists() else []
        order.append("progress before file" if "own" in row and not there else "progress elsewhere")

    fit = fitted(out=run, track=["active_units"], callbacks=[Own()], progress=progress, loggers=[Shown()])
    assert order == ["own with metrics", "progress before file", "logger after file"] * 3
    assert [row["own"] for row in fit.history] == [1, 2, 3]
    assert written(run) == fit.history


def test_the_list_is_the_same_for_every_way_in() -> None:
    kinds = [type(each).__name__ for each in all_callbacks(callbacks=[Sum()], loggers=[Logger()], progress=print).callbacks]
    assert kinds == ["Metrics", "Sum", "ProgressFunction", "HistoryWriter", "Logger", "CollapseMonitor"]


# --- contents -------------------------------------------------------------------------------------------------------------


def test_a_callback_meets_the_fit_and_its_steps() -> None:
    seen: list[pv.FitContext] = []
    steps: list[tuple[int, int]] = []

    class Looks(pv.Callback):
        def begin(self, context: pv.FitContext) -> None:
            seen.append(context)

        def step(self, taken: int, of: int, seconds: float) -> None:
            assert 0 < seconds < 3600
            steps.append((taken, of))

    fit = fitted(callbacks=[Looks()])
    (context,) = seen
    assert (context.model, context.guide, context.method) == (fit.model, fit.guide, fit.method)
    assert context.pair is fit.pair
    assert context.done == 0
    assert len(context.data.train) == fit.spec.size
    assert steps == [(1, 2), (2, 2)] * 3
    with pytest.raises(AttributeError):
        context.done = 3  # type: ignore[misc]


def test_steps_are_told_only_where_somebody_listens() -> None:
    assert CallbackList([Sum(), Logger(), HistoryWriter(Checkpointer)]).report.__self__  # a bound method, of rows alone
    assert not hasattr(CallbackList([Sum()]).report, "step")
    for listening in (ProgressBar(), DurationMonitor()):
        assert hasattr(CallbackList([Sum(), listening]).report, "step")


def test_a_row_shows_the_parameters_as_they_are() -> None:
    elbos: list[float] = []

    class Evaluates(pv.Callback):
        def begin(self, context: pv.FitContext) -> None:
            self.context = context

        def record(self, row: dict) -> None:
            elbos.append(pv.evaluate(self.context.pair, self.context.data.valid)["elbo"] - row["valid_elbo"])

    fit = fitted(callbacks=[Evaluates()])
    assert elbos == pytest.approx([0.0] * 3, abs=1e-4)
    same = fitted()
    assert without_seconds(fit.history) == without_seconds(same.history)
    for ours, theirs in zip(fit.pair.state_dict().values(), same.pair.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("model", "method"), [(pv.FactorAnalysis(latent_dim=1), pv.EM(max_iterations=3)), (pv.PPCA(latent_dim=1), pv.ClosedForm())]
)
def test_every_method_reports_to_the_same_callbacks(model: pv.Model, method: pv.Method, tmp_path: Path) -> None:
    calls: list[tuple[str, str]] = []
    fit = pv.fit(model, rows("real", 40), method=method, callbacks=[Notes("a", calls), Sum()], out=tmp_path / "run")
    assert [hook for _, hook in calls] == ["begin", *(f"record {row['epoch']}" for row in fit.history), "end"]
    assert [row["elbo_sum"] for row in fit.history] == pytest.approx(torch.tensor([r["elbo"] for r in fit.history]).cumsum(0))
    assert written(tmp_path / "run") == fit.history


def test_what_a_file_cannot_hold_is_refused() -> None:
    class Adds(pv.Callback):
        def record(self, row: dict) -> None:
            row["norm"] = torch.tensor(1.0)

    with pytest.raises(ValueError, match=r"Adds added 'norm' to a row: expected a plain number.*got tensor\(1.\): add float"):
        fitted(callbacks=[Adds()])


# --- exceptions -----------------------------------------------------------------------------------------------------------


def test_all_that_began_hear_of_a_failure() -> None:
    calls: list[tuple[str, str]] = []
    with pytest.raises(RuntimeError, match="no more after 2"):
        fitted(callbacks=[Notes("a", calls), Fails(2), Notes("b", calls)])
    assert calls[-2:] == [("b", "end RuntimeError"), ("a", "end RuntimeError")]
    assert ("b", "record 2") not in calls


def test_who_has_not_begun_is_not_ended() -> None:
    calls: list[tuple[str, str]] = []

    class Never(Notes):
        def begin(self, context: pv.FitContext) -> None:
            raise ValueError("not with this data")

    with pytest.raises(ValueError, match="not with this data"):
        fitted(callbacks=[Notes("a", calls), Never("b", calls), Notes("c", calls)])
    assert calls == [("a", "begin"), ("a", "end ValueError")]


def test_an_end_that_fails_does_not_keep_the_others_from_ending() -> None:
    calls: list[tuple[str, str]] = []

    class Breaks(pv.Callback):
        def end(self, error: BaseException | None = None) -> None:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fitted(callbacks=[Notes("a", calls), Breaks()])
    assert calls[-1] == ("a", "end OSError")


@pytest.mark.parametrize("every", [0.0, 60.0])
def test_a_callback_that_raises_leaves_a_run_that_goes_on_to_the_same_bits(tmp_path: Path, every: float) -> None:
    run = tmp_path / "run"
    with pytest.raises(RuntimeError, match="no more after 2"):
        fitted(callbacks=[Fails(2)], out=Checkpointer(run, every=every))
    assert [row["epoch"] for row in written(run)] == [1]
    fit, whole = pv.resume_run(run, data=DATA, device="cpu"), fitted()
    assert without_seconds(fit.history) == without_seconds(whole.history)
    assert written(run) == fit.history
    for ours, theirs in zip(fit.pair.state_dict().values(), whole.pair.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


# --- resuming -------------------------------------------------------------------------------------------------------------


def test_a_resumed_fit_passes_through_the_same_callbacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    fitted(out=Checkpointer(run, every=0.0))
    calls: list[tuple[str, str]] = []
    contexts: list[pv.FitContext] = []
    longer = pv.SVI(epochs=5, batch_size=21, compile=False)

    class Done(pv.Callback):
        def begin(self, context: pv.FitContext) -> None:
            contexts.append(context)

    fit = pv.resume_run(
        run,
        method=longer,
        data=DATA,
        track=["active_units"],
        callbacks=[Notes("own", calls), Done(), Sum()],
        loggers=[Notes("logger", calls)],
        progress=lambda row: calls.append(("progress", f"record {row['epoch']}")),
    )
    recorded = [(name, f"record {epoch}") for epoch in (4, 5) for name in ("own", "progress", "logger")]
    assert calls == [("own", "begin"), ("logger", "begin"), *recorded, ("logger", "end"), ("own", "end")]
    assert contexts[0].done == 3
    assert ["elbo_sum" in row for row in fit.history] == [False] * 3 + [True] * 2
    assert ["valid_active_units" in row for row in fit.history] == [False] * 3 + [True] * 2
    assert written(run) == fit.history
    assert SavedRun.open(run).experiment.method == longer


# --- names that were changed ----------------------------------------------------------------------------------------------


class OldBoard:
    """A board as they were: a context that is called with rows."""

    def __init__(self) -> None:
        self.calls: list[object] = []

    def __enter__(self) -> OldBoard:
        self.calls.append("enter")
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.calls.append(kind)

    def __call__(self, row: dict) -> None:
        self.calls.append(row["epoch"])


def test_boards_are_called_loggers_now() -> None:
    board, calls = OldBoard(), []
    with pytest.warns(DeprecationWarning, match=r"fit\(boards=...\) is called fit\(loggers=...\) now") as caught:
        fitted(pv.SVI(epochs=2), boards=[board, Notes("logger", calls)])
    assert board.calls == ["enter", 1, 2, None]
    assert [hook for _, hook in calls] == ["begin", "record 1", "record 2", "end"]
    assert caught[0].filename == __file__
    with pytest.warns(DeprecationWarning, match="loggers"), pytest.raises(RuntimeError):
        fitted(boards=[board], callbacks=[Fails(1)])
    assert board.calls[-2:] == ["enter", RuntimeError]
    with pytest.warns(DeprecationWarning, match="loggers"), pytest.raises(ValueError, match="expected a list of boards, got 3"):
        fitted(boards=3)
    with (
        pytest.warns(DeprecationWarning, match="loggers"),
        pytest.raises(ValueError, match="<built-in function print> in"),
    ):
        fitted(boards=[print])


def test_a_logger_is_still_called(tmp_path: Path) -> None:
    seen: list[dict] = []

    class Lists(Logger):
        def record(self, row: dict) -> None:
            seen.append(row)

    with pytest.warns(DeprecationWarning, match=r"Lists.__call__ is called Lists.record now"):
        Lists()({"epoch": 1})
    assert seen == [{"epoch": 1}]


# --- the ones of the library ----------------------------------------------------------------------------------------------


LIBRARY: dict[str, Callable[[Path], pv.Callback]] = {
    "ProgressFunction": lambda folder: progress_module.ProgressFunction(lambda row: None),
    "DurationMonitor": lambda folder: DurationMonitor(),
    "ProgressBar": lambda folder: ProgressBar(),
    "TensorBoard": lambda folder: loggers_module.TensorBoard(folder / "curves"),
}


@pytest.mark.parametrize("name", LIBRARY)
def test_one_object_serves_one_fit_after_another(name: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    if name == "TensorBoard":
        pytest.importorskip("tensorboard", reason="the extra `track` is not installed")
    callback = LIBRARY[name](tmp_path)
    for _ in range(2):
        assert math.isfinite(fitted(pv.SVI(epochs=1), callbacks=[callback]).history[-1]["elbo"])
