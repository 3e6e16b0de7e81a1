"""Numbers tracked while a fit goes on, where they are shown, and what is remarked on."""

from __future__ import annotations

import importlib
import json
import math
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pyro
import pyro.distributions as dist
import pytest
import torch

import ppl_vae as pv
from ppl_vae.cli import main
from ppl_vae.cli.evaluate import _few
from ppl_vae.fitting.callbacks.base import FitContext
from ppl_vae.fitting.callbacks.collapse import CollapseMonitor
from ppl_vae.fitting.callbacks.loggers import MLflow, TensorBoard, open_logger
from ppl_vae.types import FitWarning
from tests.table import GUIDES, TINY, built, rows, vae

DATA = pv.load_data(rows("binary", 60), y=[0, 1] * 30, valid=0.3)
ALL = (
    "active_units",
    "mutual_information",
    "marginal_kl",
    "total_correlation",
    "dimension_wise_kl",
    "kl_per_dimension",
    "iwae:5",
    "probe",
)


def fitted(track: tuple[str, ...] = (), epochs: int = 2, **options) -> pv.Fit:
    guide = GUIDES["AmortizedNormal-diagonal"]
    return pv.fit(vae(), DATA, guide=guide, method=pv.SVI(epochs=epochs, batch_size=16), track=track, **options)


# --- track ----------------------------------------------------------------------------------------------------------------


def test_every_row_has_the_tracked_numbers_of_its_epoch() -> None:
    fit = fitted(ALL)
    for row in fit.history:
        assert len(row["valid_kl_per_dimension"]) == 3
        assert sum(row["valid_kl_per_dimension"]) == pytest.approx(row["valid_kl"], rel=1e-4)
        assert row["valid_iwae_5"] >= row["valid_elbo"] - 1.0
        assert 0 <= row["valid_active_units"] <= 3
        assert 0 <= row["valid_probe"] <= 1
        assert math.isfinite(row["valid_mutual_information"] + row["valid_marginal_kl"])
    # The last row is of the parameters that the fit ended with.
    assert fit.history[-1]["valid_iwae_5"] == fit.evaluate(DATA.valid, samples=5)["iwae"]
    assert fit.history[-1]["valid_active_units"] == fit.latents(DATA.valid)["active_units"]


def test_tracking_changes_nothing() -> None:
    plain, tracked = fitted(), fitted(ALL)
    for name, value in plain.pair.state_dict().items():
        assert torch.equal(value, tracked.pair.state_dict()[name]), name
    for before, after in zip(plain.history, tracked.history, strict=True):
        assert before.items() - {("seconds", before["seconds"])} <= {k: v for k, v in after.items() if "dim" not in k}.items()


def test_tracked_numbers_are_in_the_history_of_the_run(tmp_path: Path) -> None:
    fit = fitted(("active_units",), out=tmp_path / "run")
    written = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert written == fit.history
    assert "valid_active_units" in written[0]


@pytest.mark.parametrize("name", ["units", "iwae", "iwae:0", "iwae:x", "active_units:3", "iwae:"])
def test_unknown_numbers_are_refused_with_the_valid_ones(name: str) -> None:
    with pytest.raises(ValueError, match=f"unknown number to track '{name}': choose from active_units, .*iwae:NUMBER, probe"):
        fitted((name,))


def test_what_cannot_be_tracked_is_refused() -> None:
    with pytest.raises(ValueError, match="EM writes into the modules when it is done"):
        pv.fit(pv.PPCA(latent_dim=2), rows("real", 40), method=pv.EM(), track=("active_units",))
    with pytest.raises(ValueError, match="track needs validation data"):
        pv.fit(vae(), pv.load_data(rows("binary", 40), valid=0.0), method=pv.SVI(epochs=1), track=("active_units",))
    model = vae(prior=pv.GaussianMixture(components=2))
    with pytest.raises(ValueError, match="dimension_wise_kl cannot be tracked: the prior is not independent"):
        pv.fit(model, DATA, method=pv.SVI(epochs=1), track=("dimension_wise_kl",))


POINTS = {
    "AmortizedDelta": (vae(), pv.AmortizedDelta(encoder=TINY), "log_joint"),
    "AutoEncoder": (pv.AutoEncoder(latent_dim=3, decoder=TINY), None, "reconstruction"),
    "map": (pv.FactorAnalysis(latent_dim=1, weights=pv.Normal()), pv.BayesianGuide(parameters="map"), "log_joint"),
}


def refused(told: str, name: str, model: object, data: pv.Data, **options) -> None:
    """The fit ends before its first row."""
    rows: list[dict] = []
    with pytest.raises(ValueError, match=told):
        pv.fit(model, data, method=pv.SVI(epochs=1), progress=rows.append, track=(name,), **options)
    assert not rows


@pytest.mark.parametrize("samples", [1, 5])
@pytest.mark.parametrize("case", POINTS)
def test_a_point_has_no_bound_to_track(case: str, samples: int) -> None:
    model, guide, score = POINTS[case]
    data = pv.load_data(rows("real", 60), valid=0.3) if case == "map" else DATA
    refused(f"a point has no bound .*{score}", f"iwae:{samples}", model, data, guide=guide)


def test_a_probe_needs_codes_and_classes_from_the_start() -> None:
    def model(x: torch.Tensor) -> None:
        with pyro.plate("data", 60, subsample=x):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z[:, None, None, None], 1.0).expand(x.shape).to_event(3), obs=x)

    def guide(x: torch.Tensor) -> None:
        loc = pyro.param("loc", torch.tensor(0.0))
        with pyro.plate("data", 60, subsample=x):
            pyro.sample("z", dist.Normal(loc, 1.0).expand([len(x)]))

    refused("has no codes to track a probe of", "probe", model, DATA, guide=guide)
    refused("expected labelled data", "probe", vae(), pv.load_data(rows("binary", 60), valid=0.3))
    refused("only one", "probe", vae(), pv.load_data(rows("binary", 60), y=[1] * 60, valid=0.3))


def test_a_bound_of_data_that_share_a_latent_variable_is_not_tracked() -> None:
    data = pv.load_data(rows("real", 60), valid=0.3)
    model = pv.FactorAnalysis(latent_dim=1, weights=pv.Normal())
    refused("weights is shared by all data", "iwae:5", model, data, guide=pv.BayesianGuide())


# --- loggers ---------------------------------------------------------------------------------------------------------------


def test_tensorboard_has_a_curve_for_each_column(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra `track` is not installed")
    fit = fitted(("active_units", "kl_per_dimension"), loggers=[TensorBoard(tmp_path / "tensorboard")])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    tags = set(events.Tags()["scalars"])
    assert {"elbo", "valid_elbo", "valid_active_units", "valid_kl_per_dimension/0", "learning_rate"} <= tags
    points = events.Scalars("elbo")
    assert [point.step for point in points] == [1, 2]
    assert [point.value for point in points] == pytest.approx([row["elbo"] for row in fit.history], rel=1e-6)


def test_loggers_say_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for package in ("tensorboard", "mlflow"):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ValueError, match=f"{package} is not installed: pip install"):
            open_logger(package, tmp_path, {})
    with pytest.raises(ValueError, match="unknown logger 'wandb': choose from tensorboard, mlflow"):
        open_logger("wandb", tmp_path, {})
    assert importlib.util.find_spec("ppl_vae")  # nothing else was touched


class FakeMLflow(SimpleNamespace):
    """Notes what it is told, as the module would be."""

    def __init__(self) -> None:
        super().__init__(calls=[])

    def __getattr__(self, name: str):
        return lambda *arguments, **named: self.calls.append((name, arguments, named))


def test_mlflow_gets_declaration_and_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeMLflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    logger = MLflow("vae", {"model": vae().to_dict()})
    fit = fitted(loggers=[logger])
    names = [name for name, _, _ in fake.calls]
    assert names == ["start_run", "log_params", "log_metrics", "log_metrics", "end_run"]
    assert fake.calls[0][2] == {"run_name": "vae"}
    parameters = fake.calls[1][1][0]
    assert parameters["model"] == "VAE"
    assert parameters["model.prior"] == "StandardNormal"
    assert parameters["model.decoder.hidden"] == list(TINY.hidden)
    assert fake.calls[2][1][0]["elbo"] == fit.history[0]["elbo"]
    assert fake.calls[2][2] == {"step": 1}
    assert fake.calls[-1][2] == {"status": "FINISHED"}


def test_mlflow_is_told_of_a_fit_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeMLflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    with pytest.raises(RuntimeError), MLflow("vae", {}):
        raise RuntimeError
    assert fake.calls[-1] == ("end_run", (), {"status": "FAILED"})


# --- collapse -------------------------------------------------------------------------------------------------------------


def remarks(kls: list[float], model: pv.Model | None = None, method: pv.SVI | None = None, **columns: list[float]) -> list[str]:
    """What is remarked on over rows with these KLs, of a fit of 300 steps an epoch."""
    model, method = model or vae(), method or pv.SVI()
    data = SimpleNamespace(train=pv.load_data(0.1 * torch.randn(300, 1, 3, 4), valid=0.0, test=0.0).train)
    method = pv.SVI(batch_size=1, objective=method.objective)
    pair = built(model)
    warning = CollapseMonitor()
    warning.begin(FitContext(pair=pair, model=model, guide=pair.guide, method=method, data=data))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for place, kl in enumerate(kls):
            warning.record({"epoch": place + 1, "kl": kl, "learning_rate": 0.02, **{k: v[place] for k, v in columns.items()}})
    assert all(issubclass(one.category, FitWarning) for one in caught)
    return [str(one.message) for one in caught]


def test_a_kl_that_never_rises_is_told_once() -> None:
    (message,) = remarks([0.01] * 10)
    assert "KL from the prior is 0.010 nats per datum" in message
    assert "from the first epochs on" in message
    assert "LinearWarmUp" in message
    assert "free_bits" in message


def test_no_collapse_no_remark() -> None:
    assert remarks([0.01, 0.02, 5.0, 6.0, 7.0]) == []
    assert remarks([0.0, 0.01]) == []  # too early to tell
    assert remarks([4.0, 0.01, 4.0, 0.01, 4.0]) == []


def test_the_cause_that_is_seen_is_named() -> None:
    (message,) = remarks([6.3, 0.0, 0.0, 0.0])
    assert "The KL was 6.3 and fell by epoch 2" in message
    assert "learning_rate (now 0.02)" in message
    (message,) = remarks([0.01] * 4, method=pv.SVI(objective=pv.BetaELBO(beta=8.0)))
    assert "beta = 8 weighs the KL" in message
    (message,) = remarks([0.01] * 4, model=vae(likelihood=pv.Gaussian(scale="fixed", value=1.0)))
    assert "fixed scale of 1 covers the data's standard deviation of 0.099" in message
    (message,) = remarks([5.0] * 4, valid_active_units=[0, 0, 0, 0])
    assert "0 of 3 latent dimensions vary with the data" in message


def test_a_warm_up_is_waited_for() -> None:
    method = pv.SVI(objective=pv.BetaELBO(warm_up=pv.LinearWarmUp(epochs=6)))
    assert remarks([0.0] * 8, method=method) == []
    assert len(remarks([0.0] * 9, method=method)) == 1


def test_models_without_a_code_to_lose_are_left_alone() -> None:
    assert remarks([0.0] * 10, model=pv.AutoEncoder(latent_dim=3, decoder=TINY)) == []
    assert remarks([0.0] * 10, model=pv.GMM(components=3)) == []


@pytest.mark.filterwarnings("ignore:the ELBO still climbs")
def test_a_fit_that_collapses_says_so() -> None:
    data = pv.load_data(rows("binary", 340), valid=0.0, test=0.0)
    method = pv.SVI(epochs=5, batch_size=2, objective=pv.BetaELBO(beta=100.0), learning_rate=0.03)
    with pytest.warns(FitWarning, match="the posterior has collapsed.*beta = 100"):
        pv.fit(vae(), data, method=method)


# --- the verbs ------------------------------------------------------------------------------------------------------------


def test_fit_and_evaluate_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("tensorboard", reason="the extra `track` is not installed")
    run = str(tmp_path / "run")
    words = ["--model.latent_dim", "3", "--method.epochs", "2", "--method.batch_size", "256"]
    assert main(["fit", *words, "--track", "active_units,iwae:3", "--log", "tensorboard", "--out", run, "--json"]) == 0
    history = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert {"valid_active_units", "valid_iwae_3"} <= history[0].keys()
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    assert (tmp_path / "run" / "tracked.png").is_file()
    capsys.readouterr()
    assert main(["evaluate", run, "--latents", "--sample-quality", "--probe", "--limit", "100", "--json"]) == 0
    numbers = json.loads(capsys.readouterr().out)["test"]
    assert {"active_units", "mutual_information", "kl_per_dimension"} <= numbers["latents"].keys()
    assert numbers["latents"]["n"] == numbers["sample_quality"]["n"] == numbers["n"] == 100
    assert {"accuracy", "accuracy_1", "accuracy_10", "accuracy_100_se"} <= numbers["probe"].keys()
    assert main(["evaluate", run, "--latents", "--limit", "20"]) == 0
    assert "mutual_information" in capsys.readouterr().out


def test_a_class_without_training_data_leaves_the_others_their_labels() -> None:
    assert _few(torch.tensor([0, 2, 3]).repeat(12)) == [1, 10]


def test_loggers_need_a_folder(capsys: pytest.CaptureFixture) -> None:
    assert main(["fit", "--log", "tensorboard", "--json"]) == 2
    assert "give --out" in capsys.readouterr().err
    assert main(["fit", "--track", "units", "--json"]) == 2
    assert "choose from active_units" in capsys.readouterr().err
