"""The words of every layer: scores and kinds of data are what they say, by themselves and wherever they are shown."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import json
import math
import pickle
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import yaml
from torch import Tensor

import ppl_vae as pv
from ppl_vae import cli, plots
from ppl_vae.fitting.callbacks import progress
from ppl_vae.report import report
from ppl_vae.storage import RunFolder
from ppl_vae.types import (
    BINARY,
    CATEGORICAL,
    COUNT,
    KINDS,
    REAL,
    SCORES,
    STROKES,
    UNIT_INTERVAL,
    FitWarning,
    Kind,
    KindName,
    Score,
    score_of,
)
from tests.bare import Observed, Silent

INF = math.inf
METHOD = pv.SVI(epochs=2, batch_size=20)

# --- kinds ----------------------------------------------------------------------------------------------------------------

FACTS: dict[str, tuple[Kind, float, float, bool, bool]] = {  # low, high, discrete, levelled
    "binary": (BINARY, 0, 1, True, False),
    "unit_interval": (UNIT_INTERVAL, 0, 1, False, False),
    "real": (REAL, -INF, INF, False, False),
    "count": (COUNT, 0, INF, True, False),
    "categorical": (CATEGORICAL, 0, INF, True, True),
    "strokes": (STROKES, -INF, INF, False, False),
}
DECLARABLE = {  # as what values may be declared, by the narrowest kind that they have
    "binary": {"binary", "unit_interval", "real", "count", "categorical"},
    "unit_interval": {"unit_interval", "real"},
    "count": {"count", "categorical", "real"},
    "real": {"real"},
    "strokes": {"strokes", "real"},
}


def spec(kind: Any, **others: Any) -> pv.DataSpec:
    return pv.DataSpec(event_shape=(2,), kind=kind, size=3, **others)


@pytest.mark.parametrize("name", FACTS)
def test_a_kind_is_what_it_says(name: str) -> None:
    kind, low, high, discrete, levelled = FACTS[name]
    assert (kind.name, kind.low, kind.high, kind.discrete, kind.levelled) == (name, low, high, discrete, levelled)
    assert kind.bounded == (high == 1)
    assert bool(kind.remedy) == (kind != REAL)  # of which all numbers are
    assert KINDS[name] is Kind.of(name) is Kind.of(kind) is kind


def test_kinds_are_those_that_declarations_name() -> None:
    assert tuple(KINDS) == tuple(FACTS) == get_args(KindName)
    with pytest.raises(dataclasses.FrozenInstanceError):
        REAL.low = 0.0  # type: ignore[misc]


@pytest.mark.parametrize("found", DECLARABLE)
def test_kinds_include_what_may_be_declared_as_them(found: str) -> None:
    assert {name for name, kind in KINDS.items() if kind.includes(KINDS[found])} == DECLARABLE[found]


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_equals_its_name_and_nothing_else(name: str) -> None:
    kind = KINDS[name]
    for twin in (name, np.str_(name), copy.deepcopy(kind), pickle.loads(pickle.dumps(kind))):
        assert kind == twin
        assert twin == kind
        assert hash(kind) == hash(twin)
    assert [other for other in KINDS if kind == other] == [name]
    assert kind != dataclasses.replace(kind, low=-1.0)
    assert kind in frozenset({name})
    assert name in frozenset({kind})
    assert f"{kind}" == name


@pytest.mark.parametrize("name", KINDS)
def test_a_name_becomes_the_kind_where_it_enters(name: str) -> None:
    levels = {"levels": 4} if name == "categorical" else {}
    assert spec(name, **levels).kind is spec(KINDS[name], **levels).kind is KINDS[name]
    assert spec(name, **levels) == spec(KINDS[name], **levels)
    assert spec(name, **levels).limits == (FACTS[name][1], 3 if levels else FACTS[name][2])
    declared = pv.DataSource(kind=name)  # type: ignore[arg-type]
    assert declared == pv.DataSource(kind=KINDS[name])  # type: ignore[arg-type]
    assert yaml.safe_load(declared.to_yaml())["kind"] == name
    assert pv.DataSource.from_yaml(declared.to_yaml()) == declared
    x = torch.eye(2)[None]
    figures = [plots.grid(x, kind=kind) for kind in (name, KINDS[name])]
    assert len(figures[0].axes) == len(figures[1].axes) == (1 if KINDS[name].bounded else 2)


@pytest.mark.parametrize(
    "kind", ["Binary", "", None, 1, ["binary"], {"name": "binary"}, dataclasses.replace(REAL, name="angle")]
)
def test_what_is_no_kind_is_refused_with_the_names(kind: Any) -> None:
    names = ", ".join(KINDS)
    with pytest.raises(ValueError, match=f"expected kind of data: one of {names}, got"):
        spec(kind)
    with pytest.raises(ValueError, match=f"kind: expected one of {names}, got"):
        Kind.of(kind)


def test_a_likelihood_of_ones_own_accepts_names() -> None:
    class Named(pv.Bernoulli):
        accepts = frozenset({"binary", "count"})  # type: ignore[assignment]
        declarable = False

    for kind in KINDS.values():
        if kind in (BINARY, COUNT):
            Named().check(spec(kind))
        else:
            with pytest.raises(ValueError, match=f"Named is a likelihood of binary or count data, but these data are {kind}: "):
                Named().check(spec(kind, levels=4))


# --- scores ---------------------------------------------------------------------------------------------------------------

OWN = Score("evidence", "log-evidence", "exact")


def test_scores_are_what_they_say() -> None:
    told = {name: (score.label, score.bound, score.parts, score.points) for name, score in SCORES.items()}
    assert told == {
        "elbo": ("ELBO", "lower", ("reconstruction", "kl"), False),
        "log_joint": ("log p(x, z)", None, ("reconstruction",), True),
        "reconstruction": ("reconstruction", None, ("reconstruction",), True),
        "weighted_objective": ("weighted objective", None, (), False),
        "unnormalized_objective": ("unnormalized objective", None, (), False),
    }
    assert [name for name, score in SCORES.items() if "ELBO" in score.label] == ["elbo"]
    assert SCORES["elbo"].meaning == "A lower bound on log p(x): reconstruction - KL. Higher is better."
    assert SCORES["weighted_objective"].title == "weighted objective: terms with scales of their own"
    assert OWN.meaning == "Log p(x) itself. Higher is better."
    assert Score("energy", "energy").meaning == "No bound on log p(x). Higher is better."


@pytest.mark.parametrize("score", [*SCORES.values(), OWN], ids=str)
def test_a_score_equals_its_name_and_comes_back_from_text(score: Score) -> None:
    assert score == score.name
    assert score.name == score
    assert {score.name: 1}[score] == 1  # type: ignore[index]
    assert score != dataclasses.replace(score, note="another")
    assert Score.from_dict(json.loads(json.dumps(score.to_dict()))) == score
    assert Score.of(score) is score
    assert copy.deepcopy(score) == score
    assert score_of({"epoch": 1, **dict.fromkeys(score.parts, 0.0), score.name: -1.0}, OWN) == score


def test_a_row_is_about_what_it_has() -> None:
    assert score_of({}) == score_of({"evidence": 1.0}) == "elbo"
    assert score_of({"evidence": 1.0}, OWN) is OWN
    assert score_of({"evidence": None, "log_joint": 1.0}, OWN) == "log_joint"
    assert score_of({"log_joint": 1.0, "reconstruction": 2.0}) == "log_joint"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "no name"}, "expected name of a score: a name of its own"),
        ({"name": "kl"}, "expected name of a score"),
        ({"name": "valid_evidence"}, "expected name of a score"),
        ({"name": "evidence_se"}, "expected name of a score"),
        ({"name": 3}, "expected name of a score"),
        ({"label": ""}, "expected label of a score: a line of text"),
        ({"label": "two\nlines"}, "expected label of a score"),
        ({"bound": "upper"}, "expected bound of a score: lower, exact or none, got 'upper'"),
        ({"parts": ("kl", "entropy")}, "expected parts of a score: some of reconstruction and kl"),
        ({"points": "no"}, "expected points of a score"),
        ({"label": "the ELBO of it"}, "a score that is no lower bound on log p.x. is no ELBO, got the label 'the ELBO of it'"),
        ({"name": "elbo"}, "expected a name of its own of a score, got 'elbo', which is the name of Score"),
    ],
)
def test_what_is_no_score_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Score.from_dict({"name": "evidence", "label": "log-evidence", "bound": None, **fields})


@pytest.mark.parametrize("said", ["evidence", "ELBO", 3, 1.0, ("elbo",)])
def test_a_name_that_is_none_lists_the_valid_ones(said: Any) -> None:
    with pytest.raises(ValueError, match=f"expected a score of {', '.join(SCORES)}, got .*: give the program's attribute one"):
        Score.of(said)
    for fields in (None, [], {}, {"name": "a", "label": "b", "more": 1}):
        with pytest.raises(ValueError, match="expected the fields of a score"):
            Score.from_dict(fields)


# --- a score of a program's own, wherever it is shown -------------------------------------------------------------------

X = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
DATA = pv.load_data(X.numpy(), valid=0.25, test=0.25)
TRUST = ["tests.bare"]


def log_p(loc: Tensor, x: Tensor) -> float:
    return dist.Normal(loc, 1.0).log_prob(x).sum(-1).mean().item()


def never_an_elbo(text: str) -> None:
    """But for the name of the objective that was climbed, in the declaration."""
    assert "log-evidence" in text
    assert not re.search(r"elbo", text.replace("ppl_vae.ELBO", ""), re.IGNORECASE)


@pytest.fixture(scope="module")
def fit() -> pv.Fit:
    return pv.fit(Observed(), DATA, guide=Silent(), method=METHOD)


@pytest.fixture(scope="module")
def run(fit: pv.Fit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pv.save_run(fit, DATA, tmp_path_factory.mktemp("runs") / "run")


def test_rows_and_numbers_have_it_under_its_name(fit: pv.Fit) -> None:
    exact = log_p(fit.pair.model.loc.detach(), DATA.valid.transformed())
    assert fit.score == fit.pair.score == OWN
    assert fit.history[-1]["valid_evidence"] == pytest.approx(exact, abs=1e-5)
    numbers = fit.evaluate(DATA.valid, samples=20)
    assert set(numbers) == {"evidence", "evidence_se", "n"}
    assert numbers["evidence"] == pytest.approx(exact, abs=1e-5)
    for row in fit.history:
        assert {"evidence", "valid_evidence"} <= set(row)
        assert not {"elbo", "kl", "reconstruction"} & set(row)
    with pytest.raises(ValueError, match="gaps are parts of an ELBO, which a log-evidence is not"):
        fit.evaluate(DATA.valid, gaps=True)
    with pytest.raises(ValueError, match="a log-evidence is no bound to make tighter, so there is no iwae to track"):
        pv.fit(Observed(), DATA, guide=Silent(), method=METHOD, track=("iwae:5",))


def test_a_fit_and_its_bar_say_the_label(fit: pv.Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    never_an_elbo(str(fit))
    assert f"; log-evidence {fit.history[-1]['valid_evidence']:.2f} nats per datum after 2 iterations" in str(fit)
    seen: list[dict[str, Any]] = []
    rich = SimpleNamespace(add_task=lambda name, **told: 0, start=lambda: None, update=lambda bar, **told: seen.append(told))
    monkeypatch.setattr(progress, "_rich_progress", lambda name: rich)
    bar = progress.ProgressBar()
    bar.begin(pv.FitContext(pair=fit.pair, model=None, guide=None, method=METHOD, data=None, done=0))
    bar.record(fit.history[-1])
    assert seen[0]["description"] == f"log-evidence {fit.history[-1]['valid_evidence']:.2f}"


def test_pictures_say_the_label(fit: pv.Fit) -> None:
    figure = plots.learning_curve(fit.history, score=fit.score)
    assert [ax.get_title() for ax in figure.axes] == ["log-evidence (higher is better)"]
    assert plots.tracked(fit.history, score=fit.score) is None
    rows = [{"run": name, "evidence": -4.0, "evidence_se": 0.1} for name in "ab"]
    figure = plots.runs(rows, [fit.history] * 2, [OWN] * 2)
    left, right = figure.axes
    assert left.get_title() == "log-evidence on the way (higher is better)"
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["log-evidence"]


def test_a_run_keeps_it(fit: pv.Fit, run: Path) -> None:
    assert RunFolder(run).score() == OWN
    loaded = pv.load_run(run, trust=TRUST)
    assert loaded.score == OWN
    assert str(loaded) == str(fit)
    numbers = json.loads((run / "metrics.json").read_text())["test"]
    assert numbers["evidence"] == pytest.approx(loaded.evaluate(DATA.test)["evidence"])


def test_a_report_says_the_label(run: Path, tmp_path: Path) -> None:
    page = report(run, tmp_path / "page.html", trust=TRUST).read_text()
    text = re.sub(r'src="[^"]*"', "", page)
    never_an_elbo(text)
    assert "Log p(x) itself. Higher is better." in text
    assert "The validation log-evidence goes from" in text


def test_the_command_line_says_the_label(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "x.npy", X.numpy())
    command = ["evaluate", str(run), "--data", str(tmp_path / "x.npy"), "--trust", "tests.bare"]
    assert cli.main(command) == 0
    never_an_elbo(capsys.readouterr().out)
    assert cli.main([*command, "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["all"]) == {"evidence", "evidence_se", "n"}


def test_runs_side_by_side_say_the_label(run: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(run, tmp_path / "other"))
    found = pv.compare_runs([run, other], trust=TRUST)
    never_an_elbo(str(found))
    pv.save_run_comparison(found, tmp_path / "comparison")
    never_an_elbo((tmp_path / "comparison" / "comparison.md").read_text())


def test_a_damaged_score_of_a_run_is_refused(run: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(run, tmp_path / "damaged"))
    content = json.loads((run / "data.json").read_text())
    for score in ("elbo", {"name": "elbo", "label": "energy"}, {"name": "energy", "label": "an ELBO"}, []):
        (damaged / "data.json").write_text(json.dumps({**content, "score": score}))
        with pytest.raises(ValueError, match=r"data\.json cannot be read: "):
            report(damaged, tmp_path / "page.html", trust=TRUST)


def test_a_run_of_before_has_no_word_of_a_score(tmp_path: Path) -> None:
    fit = pv.fit(pv.PPCA(latent_dim=1), DATA, method=pv.ClosedForm())
    run = pv.save_run(fit, DATA, tmp_path / "run")
    assert "score" not in json.loads((run / "data.json").read_text())
    assert RunFolder(run).score() is None
    assert "ELBO" in report(run, tmp_path / "page.html").read_text()
    assert f"; {fit.score.label} " in str(pv.load_run(run))


def test_fits_whose_score_is_exact_are_compared_by_it() -> None:
    found = pv.compare(Observed(), DATA, guides=[Silent()], methods=[METHOD])
    (row,) = found.rows
    fit = found.fits[0][0]
    assert row["exact"]
    assert row["elbo"] is None
    assert row["train_log_likelihood"] == pytest.approx(log_p(fit.pair.model.loc.detach(), DATA.train.transformed()), abs=1e-5)
    with pytest.raises(ValueError, match=r"fits are compared by log p\(x\), of which a energy gives no bound"):
        pv.compare(Observed(name="energy", label="energy", bound=None), DATA, guides=[Silent()], methods=[METHOD])


def test_a_lower_bound_of_ones_own_has_importance_weights() -> None:
    """A program of one's own whose factor is a density, and that says so."""

    def model(x: Tensor) -> None:
        with pv.data_plate(len(X), x):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.factor("x", dist.Normal(z[..., None], 1.0).log_prob(x).sum(-1))
            pyro.sample("seen", dist.Normal(0.0, 1.0), obs=torch.zeros(len(x)))

    def guide(x: Tensor) -> None:
        with pv.data_plate(len(X), x):
            pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))

    model.score = Score("surrogate", "surrogate ELBO", "lower", parts=("kl",))  # type: ignore[attr-defined]
    rows = pv.load_data(X.numpy(), valid=0.0, test=0.0)
    fit = pv.fit(model, rows, guide=guide, method=METHOD)
    numbers = fit.evaluate(rows.train, samples=30)
    assert numbers["iwae"] > numbers["surrogate"]
    assert {"surrogate", "surrogate_se", "kl"} <= set(numbers)
    assert {"surrogate", "kl"} <= set(fit.history[-1])
    assert "surrogate ELBO" in str(fit)


# --- names of before ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("ppl_vae.types", "Remark", "FitWarning"),
        ("ppl_vae.types", "Row", "Record"),
        ("ppl_vae.types", "Terms", "ELBOTerms"),
        ("ppl_vae.likelihoods.base", "central", "point_prediction"),
        ("ppl_vae.likelihoods.base", "elements", "unreduced"),
    ],
)
def test_a_name_of_before_is_the_same_thing_and_says_its_name_of_now(module: str, old: str, new: str) -> None:
    home = importlib.import_module(module)
    with pytest.warns(DeprecationWarning, match=f"{module}.{old} is called {module}.{new} now"):
        assert getattr(home, old) is getattr(home, new)
    assert old not in home.__all__
    assert new in home.__all__


def test_the_warning_of_odd_fits_stands_at_the_root() -> None:
    assert pv.FitWarning is FitWarning
    assert issubclass(FitWarning, UserWarning)
