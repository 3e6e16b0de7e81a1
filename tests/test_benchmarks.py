"""The benchmark of SVI runs as documented; what it measures is not judged here."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ppl_vae as pv
from benchmarks import overhead, svi
from benchmarks.peers import ours, torch_loop
from benchmarks.peers.task import SIZES, rows

PEERS = ("ours_eager", "numpyro", "floor")


@pytest.fixture(scope="module")
def toy():
    command = [sys.executable, "-m", "benchmarks.svi", "--sizes", "toy", "--peers", *PEERS, "--rounds", "1", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    return json.loads(done.stdout)["toy"]


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


def test_an_epoch_is_whole_batches():
    assert all(size.rows % size.batch == 0 for size in SIZES.values())


def test_the_overhead_is_that_of_one_fit(monkeypatch):
    monkeypatch.setattr(overhead, "SIZE", dataclasses.replace(SIZES["toy"], rows=64 * 4))
    found = overhead.measure(pairs=2, compile=False)
    assert found["pairs"] == 2
    assert found["guarded ms a step"] > 0
    assert found["overhead"] > found["of which the guard"]  # by what a kept state takes
