"""EM, coordinate ascent, closed forms and evaluation shared by two processes give what one process does."""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

import ppl_vae as pv
from benchmarks import processes_cost
from ppl_vae.data.matrices import Matrices
from ppl_vae.evaluate.batches import layout
from ppl_vae.evaluate.scores import row_bounds, row_scores
from ppl_vae.exact import covariances, mixture, mixture_start, moments
from ppl_vae.fitting.fit import place
from ppl_vae.program.processes import Processes
from tests.table import TINY
from tests.test_processes import in_processes

N = 61
ROWS = 31  # of a batch of an evaluation
CLOSE = 1e-10


def clusters(rows: int = N, *, missing: bool = False) -> np.ndarray:
    """Two clusters in three dimensions, far from zero."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.tensor([[1.0, 0.4, 0.2], [0.0, 0.5, 0.1], [0.0, 0.0, 0.3]], dtype=torch.float64)
    x = 100 + torch.randn(rows, 3, generator=generator, dtype=torch.float64) @ mixing
    x[: rows // 3] += torch.tensor([4.0, -3.0, 1.0])
    if missing:
        x[torch.rand(rows, 3, generator=generator) < 0.2] = math.nan
    return x.numpy()


def loaded(x: Any, **options: Any) -> pv.Data:
    return pv.load_data(x, valid=0.0, test=0.0, **options)


def series(elements: np.ndarray) -> pv.data.Ragged:
    """Rows of lengths 1 to 4."""
    ends = np.cumsum(1 + np.arange(len(elements) // 3) % 4)
    return pv.data.Ragged.from_list(np.split(elements, ends[ends < len(elements)]))


COUNTS = torch.poisson(torch.ones(N, 5), generator=torch.Generator().manual_seed(1)).numpy()
UNCOUNTED = np.where(np.arange(N) < N // 2, 0.0, 1.0 + np.arange(N) % 3)  # none of the first process's rows counts
EM = pv.EM(max_iterations=12, n_init=2)
FEW = pv.EM(max_iterations=3)
FITS: dict[str, tuple[pv.Model, pv.Method, Any]] = {
    "factor analysis": (pv.FactorAnalysis(latent_dim=1), EM, partial(loaded, clusters())),
    "factor analysis, missing": (
        pv.FactorAnalysis(latent_dim=1),
        EM,
        partial(loaded, clusters(missing=True), missing="ignore"),
    ),
    "PPCA by formula": (pv.PPCA(latent_dim=1), pv.ClosedForm(), partial(loaded, clusters())),
    "mixture": (pv.GMM(components=3), EM, partial(loaded, clusters())),
    "mixture, missing": (pv.GMM(components=2), EM, partial(loaded, clusters(missing=True), missing="ignore")),
    "mixture, weighted": (pv.GMM(components=2), EM, partial(loaded, clusters(), weights=UNCOUNTED)),
    "Bayesian mixture": (
        pv.GMM(components=2, weights=pv.Dirichlet(), locs=pv.Normal(scale=4.0), covariances=pv.InverseWishart()),
        pv.CAVI(sweeps=5),
        partial(loaded, clusters()),
    ),
    "topics": (pv.LDA(topics=2), pv.CAVI(sweeps=3), partial(loaded, COUNTS, kind="count")),
    "hidden states": (pv.HMM(states=2), FEW, lambda: loaded(series(COUNTS[:, 0] > 0), kind="categorical")),
    "dynamics": (pv.LinearDynamicalSystem(latent_dim=1), FEW, lambda: loaded(series(clusters()))),
}


def fitted(name: str) -> dict[str, Any]:
    """What is in the modules after a fit, in float64, and its history."""
    model, method, load = FITS[name]
    data = place(model, load(), "cpu").to(dtype=torch.float64)
    pair = pv.build(model, pv.MeanField() if isinstance(method, pv.CAVI) else pv.ExactPosterior(), data.spec).double()
    history = method.run(pair, data, lambda row: None)
    return {**pair.state_dict(), "objective": torch.tensor([row["objective"] for row in history], dtype=torch.float64)}


def evaluated() -> dict[str, Any]:
    """Numbers of a VAE of noisy data, of a model with missing entries, and of rows of different lengths."""
    torch.manual_seed(0)
    data = loaded(np.floor(clusters()), dequantize=True)
    vae = pv.build(
        pv.VAE(latent_dim=2, decoder=TINY, likelihood=pv.Gaussian()), pv.AmortizedNormal(encoder=TINY), data.spec
    ).double()
    split = data.train.to(dtype=torch.float64)
    gaps, ais = pv.Gaps(samples=2, window=5, max_steps=10), pv.AIS(temperatures=2, chains=2, leapfrog=1, simulated=11)
    tight = pv.evaluate(vae, split, samples=2, gaps=gaps, ais=ais, compile=False)
    found = {"vae": pv.evaluate(vae, split, samples=30), "tight": {**tight.pop("simulated"), **tight}}
    found["rows"] = row_bounds(vae, split, samples=3)
    held = loaded(clusters(missing=True), missing="ignore").to(dtype=torch.float64)
    gmm, incomplete = pv.build(pv.GMM(components=2), pv.ExactPosterior(), held.spec).double(), held.train
    found["mixture"] = pv.evaluate(gmm, incomplete)
    found["scores"] = row_scores(gmm, incomplete, samples=1).log_prob
    ragged = loaded(series(COUNTS[:, 0] > 0), kind="categorical", buckets=2)
    chain = pv.build(pv.HMM(states=2), pv.ExactPosterior(), ragged.spec).double()
    found["chain"] = pv.evaluate(chain, ragged.train)
    return found


def worked() -> dict[str, Any]:
    """All that a process does."""
    few, many = (Matrices(loaded(clusters(rows)).train) for rows in (1, N))
    sample = mixture_start.sample_rows(many, 20, torch.Generator().manual_seed(0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(layout.__globals__, "MOST_ROWS", ROWS)
        numbers = evaluated()
    return {
        "fits": {name: fitted(name) for name in FITS},
        "numbers": numbers,
        "sample": sample,
        "parts": [few.processes.count, len(many.own.split), len(next(iter(many.own)))],
    }


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What one process finds, and each of two that share the rows."""
    return [worked(), *in_processes(tmp_path_factory.mktemp("processes"), worked)]


@pytest.mark.parametrize("name", FITS)
def test_a_fit_of_two_processes_is_that_of_one(found: list[dict[str, Any]], name: str) -> None:
    alone, *others = (each["fits"][name] for each in found)
    assert len(alone["objective"]) > 1 or name == "PPCA by formula"
    for other in others:
        torch.testing.assert_close(other, alone, rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize("name", ["vae", "tight", "mixture", "chain"])
def test_numbers_of_two_processes_are_those_of_one(found: list[dict[str, Any]], name: str) -> None:
    alone, *others = (each["numbers"][name] for each in found)
    numbers = {key: value for key, value in alone.items() if isinstance(value, float)}
    assert numbers
    for other in others:
        assert {key: other[key] for key in numbers} == pytest.approx(numbers, rel=CLOSE, abs=CLOSE, nan_ok=True)
        assert {key: other[key] for key in other if key not in numbers} == {
            key: alone[key] for key in alone if key not in numbers
        }


@pytest.mark.parametrize("name", ["rows", "scores"])
def test_rows_of_two_processes_have_the_numbers_of_one(found: list[dict[str, Any]], name: str) -> None:
    alone, *others = (each["numbers"][name] for each in found)
    for other in others:
        torch.testing.assert_close(other, alone, rtol=CLOSE, atol=CLOSE)


def test_each_process_reads_its_part_and_all_start_from_the_same_rows(found: list[dict[str, Any]]) -> None:
    alone, first, second = found
    assert alone["parts"] == [1, N, N]
    assert [first["parts"], second["parts"]] == [[1, N // 2, N // 2], [1, N - N // 2, N - N // 2]]
    for other in (first, second):
        torch.testing.assert_close(other["sample"], alone["sample"], rtol=0, atol=0)


@dataclasses.dataclass
class Told:
    """A lone process that counts the bytes of its sums."""

    bytes: int = 0
    part = Processes().part
    count = 1

    def sum_(self, tensors: list[torch.Tensor]) -> None:
        self.bytes += sum(tensor.numel() * tensor.itemsize for tensor in tensors)


def test_a_pass_sends_what_the_cost_model_counts() -> None:
    rows, told = Matrices(loaded(clusters()).train), Told()
    rows.processes = told  # type: ignore[assignment]
    moments.moments(rows)
    assert told.bytes == processes_cost.moment_bytes(3)
    parameters = mixture_start.initial(rows, 2, covariances.Full(), generator=torch.Generator().manual_seed(0))
    told.bytes = 0
    mixture.e_step(parameters, rows, covariances.Full())
    assert told.bytes == processes_cost.mixture_bytes(2, 3)


def test_a_ring_of_two_exchanges_halves_twice() -> None:
    link = {"bandwidth": 1e9, "latency": 1e-5}
    assert processes_cost.ring_seconds(1, 8e6, **link) == 0
    assert processes_cost.ring_seconds(2, 8e6, **link) == pytest.approx(8e-3 + 2e-5)
