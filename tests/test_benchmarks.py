"""Benchmarks run as documented; what they measure is not judged here."""

import argparse
import dataclasses
import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

import ppl_vae as pv
from benchmarks import catalogue, exact, overhead, series, svi, table_peers, table_sources, trend
from benchmarks.peers import ours, torch_loop
from benchmarks.peers.catalogue import ENTRIES, WITHOUT
from benchmarks.peers.task import SIZES, rows
from ppl_vae.cli.catalogue import declared

PEERS = ("ours_eager", "numpyro", "floor")


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    kept = tmp_path_factory.mktemp("series") / "series.jsonl"
    command = [sys.executable, "-m", "benchmarks.svi", "--sizes", "toy", "--peers", *PEERS, "--rounds", "1", "--json"]
    command += ["--series", str(kept)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    (entry,) = series.read(kept)
    assert entry["found"] == json.loads(done.stdout)
    assert entry["command"] == f"svi --sizes toy --peers {' '.join(PEERS)} --rounds 1 --json"
    assert entry["versions"]["torch"] == importlib.metadata.version("torch")
    assert entry["machine"]["cores"] >= 1
    return entry["found"]["toy"]


@pytest.mark.slow
def test_a_peer_is_measured_or_said_to_be_absent(toy):
    assert set(toy["ms_per_step"]) == set(PEERS)
    for peer, ms in toy["ms_per_step"].items():
        if ms is None:
            assert peer == "numpyro"
            assert "ppl_vae[bench]" in toy["absent"][peer]
        else:
            assert ms > 0
            assert toy["peak_mib"][peer] > 0
            assert toy["seconds_to_first_step"][peer] >= 0


def test_the_parts_of_the_exact_benchmark_can_be_measured():
    for module in exact.PARTS.values():
        assert callable(importlib.import_module(module).measure)
    found = {"alarm": {"ms": {"ours": 0.12345, "peer": None}}}
    assert list(exact.lines(found)) == ["alarm: ms: ours 0.1235, peer absent"]


def test_ratios_pair_the_rounds():
    assert svi.ratio([1.0, 20.0, 3.0], [2.0, 40.0, 3.0]) == 0.5


def test_sides_that_do_other_work_are_found_out():
    svi.check({"ours": (10, 100.0), "torch": (10, 100.5), "floor": (12, float("nan"))})
    with pytest.raises(RuntimeError, match="same work"):
        svi.check({"ours": (10, 100.0), "torch": (11, 100.0)})
    with pytest.raises(RuntimeError, match="same work"):
        svi.check({"ours": (10, 100.0), "torch": (10, 105.0)})
    with pytest.raises(RuntimeError, match="same work"):
        svi.check({"ours": (10, 100.0), "torch": (10, float("nan"))})


@pytest.mark.parametrize("name", SIZES)
def test_both_sides_train_networks_of_one_size(name):
    assert ours.parameters(SIZES[name]) == torch_loop.parameters(SIZES[name])


@pytest.mark.parametrize("samples", [1, 3])
def test_both_sides_climb_the_same_bound(samples):
    size = dataclasses.replace(SIZES["iwae"], data=16, hidden=5, latent=2, samples=samples)
    pair = pv.build(*ours.declared(size), ours.loaded(size, rows(size)).spec)
    theirs = torch_loop.program(size)
    for mine, other in ((pair.guide, theirs.encoder), (pair.model, theirs.decoder)):
        for value, source in zip(mine.parameters(), other.parameters(), strict=True):
            value.data.copy_(source)
    x = torch.from_numpy(rows(size)[:8]).float()
    objective = ours.objective(size).build(pair)
    with torch.no_grad():
        losses = torch.tensor([[objective(x).loss, theirs(x)] for _ in range(500)])
    error = losses.std(0).norm() / 500**0.5
    assert (losses.mean(0).diff().abs() < 4 * error).all()


@pytest.mark.parametrize("name", ["text", "sketch", "hvae", "vq", "unet"])
def test_both_sides_have_the_same_loss(name):
    """All weights alike, so that neither their order nor their names matter."""
    size = dataclasses.replace(SIZES[name], batch=8, rows=8, shortest=SIZES[name].longest)
    x = rows(size)
    data = ours.loaded(size, x)
    pair, theirs = pv.build(*ours.declared(size), data.spec), torch_loop.program(size)
    for weight in (*pair.parameters(), *theirs.parameters()):
        weight.data.fill_(0.005)
    codes = dict(theirs.named_buffers()).get("vectors", torch.empty(0))
    for vectors in (held for held in pair.buffers() if held.shape == codes.shape):
        vectors.copy_(codes)
    objective = pv.ELBO().build(pair)
    batch, raw = next(data.train.read(pair.reads, 8)), next(iter(torch_loop.InMemory(torch_loop.Task(size, x, "cpu", 1))))
    count = 2 if name in ("text", "vq") else 20  # no code matters where the weights are alike
    with torch.no_grad():
        mine = torch.stack([objective(*batch).loss for _ in range(count)])
        losses = torch.stack([mine, torch.stack([theirs(*raw) for _ in range(count)])])
    error = losses.std(1).norm().item() / count**0.5
    found, expected = (losses[:, 0] if name == "vq" else losses.mean(1)).tolist()  # theirs learns its codes as it goes
    assert found == pytest.approx(expected, rel=1e-5, abs=0.0 if name == "vq" else 4 * error)


def test_an_epoch_is_whole_batches():
    assert all(size.rows % size.batch == 0 for size in SIZES.values())


def test_the_overhead_is_that_of_one_fit(monkeypatch):
    monkeypatch.setattr(overhead, "SIZE", dataclasses.replace(SIZES["toy"], rows=64 * 4))
    found = overhead.measure(pairs=2, compile=False)
    assert found["pairs"] == 2
    assert found["guarded ms a step"] > 0
    assert found["overhead"] > found["of which the guard"]  # by what a kept state takes


# --- every likelihood, guide and prior --------------------------------------------------------------------------------------

CHEAP = ("Poisson", "Beta", "GaussianMixture", "AmortizedFlow-iaf")
EVERY = {name: entry for entries in ENTRIES.values() for name, entry in entries.items()}


@pytest.mark.parametrize("family", ["Likelihood", "Guide", "Prior"])
def test_each_of_a_family_is_measured_or_a_reason_is_told(family):
    public = {cls.__name__ for cls in declared()[family] if cls.__module__.startswith("ppl_vae.")}
    of_family = {"Likelihood": lambda entry: entry.model.likelihood, "Guide": lambda entry: entry.guide, "Prior": prior_of}[
        family
    ]
    measured = {name.partition("-")[0]: of_family(entry) for name, entry in ENTRIES[family].items()}
    assert {name: type(declaration).__name__ for name, declaration in measured.items()} == {name: name for name in measured}
    assert set(measured) | set(WITHOUT[family]) == public
    assert not set(measured) & set(WITHOUT[family])
    assert all(WITHOUT[family].values())


def prior_of(entry):
    return entry.model.prior


@pytest.mark.parametrize("name", [*CHEAP, *(pytest.param(name, marks=pytest.mark.slow) for name in EVERY if name not in CHEAP)])
def test_a_hand_written_loss_is_ours_and_so_are_its_gradients(name):
    loss, gradients = catalogue.agreement(EVERY[name])
    assert loss < catalogue.AGREE
    assert gradients < catalogue.AGREE_GRADIENTS


def test_the_catalogue_tells_what_is_slow():
    found = {"a": {"ratio": 0.5}, "b": {"ratio": 2.0}, "c": {"ratio": 1.0}}
    told = catalogue.summary(found)
    assert told == {"geometric_mean": pytest.approx(1.0), "worst": "b", "worst_ratio": 2.0, "slow": ["b"]}
    assert [name for _, name, _ in catalogue.chosen(["Poi*"])] == ["Poisson"]
    assert {family for family, _, _ in catalogue.chosen(["Prior"])} == {"Prior"}


# --- tables ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def iris():
    return table_sources.scaled(table_sources.table("iris"), "raw")


def test_the_tables_of_scikit_learn_need_no_other_package():
    for name in table_sources.SKLEARN:
        x = table_sources.table(name)
        assert len(x) <= table_sources.ROWS
        assert (x.std(0) > 0).all()
    raw, thousandth = (table_sources.scaled(table_sources.table("wine"), name) for name in ("raw", "times 1e-3"))
    np.testing.assert_allclose(thousandth, raw / 1000, rtol=1e-6)
    np.testing.assert_allclose(table_sources.scaled(raw, "standardized").std(0), 1, rtol=1e-6)


def test_the_density_is_scipys_whatever_the_units(iris):
    spread = np.cov(iris.T)
    unit = np.array([1e-6, 1.0, 1e3, 1e6])
    found = table_peers._log_normal(iris * unit, iris.mean(0) * unit, spread * np.outer(unit, unit))
    expected = multivariate_normal(iris.mean(0), spread).logpdf(iris) - np.log(unit).sum()
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("kind", table_peers.COVARIANCES)
def test_both_sides_of_a_mixture_are_at_one_optimum(iris, kind):
    found = table_peers.gmm(iris, kind, components=2, seed=0, unit=1.0)
    assert found.ours == pytest.approx(found.theirs, abs=1e-3)
    assert found.nearby == pytest.approx(found.ours, abs=1e-3)
    assert (found.refused, found.raised, found.lifted) == ("", "", False)


def test_both_sides_of_linear_models_are_at_one_optimum(iris):
    found = table_peers.ppca(iris, 2)
    assert found.ours == pytest.approx(found.theirs, abs=1e-6)
    found = table_peers.factor_analysis(iris, 1)
    assert found.nearby - found.ours < 1e-3


def test_what_scikit_learn_gains_from_a_lower_floor_is_not_held_against_us(iris):
    doubled = table_sources.scaled(np.c_[iris, iris.sum(1)], "raw")
    found = table_peers.gmm(doubled, "full", components=2, seed=0, unit=0.1)
    assert found.theirs > found.ours + 1
    assert found.bounded <= found.ours + 1e-3
    assert found.lifted


def test_refusals_and_shortfalls_are_counted():
    tables = pytest.importorskip("benchmarks.tables", reason="statsmodels comes with ppl_vae[bench]", exc_type=ImportError)
    fits = [
        table_peers.Compared(ours=-1.0, theirs=-2.0, bounded=-2.0, nearby=-1.0),
        table_peers.Compared(ours=-3.0, theirs=-2.0, bounded=-2.0, nearby=-2.9, lifted=True),
        table_peers.Compared(theirs=-2.0, bounded=-2.0, refused="why"),
        table_peers.Compared(ours=-1.0, nearby=-1.0, raised="their why"),
    ]
    row = tables.summary(fits)
    assert (row["fits"], row["refused"], row["scikit_learn_raised"], row["short"]) == (4, 1, 1, 1)
    assert (row["at_least_as_good"], row["off_the_floor"], row["at_least_as_good_off_the_floor"]) == (2, 3, 2)
    assert row["difference"] == [-1.0, 0.0, 1.0]
    assert row["reasons"] == ["why"]
    assert tables.total([{"model": "PPCA", **row}])["PPCA"]["share_at_least_as_good"] == 0.5


def test_a_trend_is_of_one_command_on_one_machine_against_the_median_before(tmp_path, monkeypatch, capsys):
    options = argparse.Namespace(json=True, series=str(tmp_path / "series.jsonl"))
    monkeypatch.setattr(series, "_git", lambda *words: None)
    for cores, ms, rate in ((2, 1.0, 50.0), (2, 2.0, 40.0), (4, 9.0, 1.0), (2, 9.0, 60.0), (2, 3.0, 20.0)):
        monkeypatch.setattr(series, "_machine", lambda cores=cores: {"cores": cores})
        series.tell({"toy": {"ms_per_step": {"ours": ms}, "rows_per_second": rate, "peak_mib": 7.0 * ms}}, options)
    found = {
        change.name: (change.before, change.now, change.earlier, change.ratio)
        for change in trend.changes(series.read(tmp_path / "series.jsonl"))
    }
    assert found == {"toy.ms_per_step.ours": (2.0, 3.0, 3, 1.5), "toy.rows_per_second": (50.0, 20.0, 3, 2.5)}
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["trend", str(tmp_path / "series.jsonl"), "--factor", "2"])
    trend.main()
    told = capsys.readouterr().out
    assert "2.50x" in told
    assert "1 of 2 times are above 2 times" in told


@pytest.mark.slow
def test_two_processes_are_measured_beside_one():
    command = [
        sys.executable,
        "-m",
        "benchmarks.processes",
        "--size",
        "toy",
        "--epochs",
        "2",
        "--rounds",
        "1",
        "--json",
        "--series",
        "",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    found = json.loads(done.stdout)["svi"]
    assert found["ratio"]["one process, one thread"] == 1.0
    assert len(found["rows per second"]) == 3
    assert min(found["rows per second"].values()) > 0
