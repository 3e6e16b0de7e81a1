"""The benchmark of SVI runs as documented; what it measures is not judged here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import svi
from benchmarks.peers.task import SIZES

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


def test_an_epoch_is_whole_batches():
    assert all(size.rows % size.batch == 0 for size in SIZES.values())
