"""Rows that are drawn by the density of their codes: the weights, the draws, and fits by them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

import ppl_vae as pv
import ppl_vae.inference.training.step
from ppl_vae.data.weights import effective_number
from ppl_vae.inference.training.draws import RowDraws, systematic
from ppl_vae.types import FitWarning
from tests.table import TINY, rows, vae

CODES = torch.randn(300, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
DATA = pv.load_data(rows("binary", 46), valid=0.2, test=0.1)
GUIDE = pv.AmortizedNormal(encoder=TINY)
SVI = pv.SVI(epochs=3, batch_size=9, learning_rate=0.05, compile=False, seed=3)
DRAWN = dataclasses.replace(SVI, sampling=pv.LatentDensity(alpha=0.05, bins=4))


def bits(fit: pv.Fit) -> dict[str, list]:
    return {name: value.tolist() for name, value in fit.pair.state_dict().items()}


@pytest.fixture(scope="module")
def drawn() -> pv.Fit:
    return pv.fit(vae(), DATA, guide=GUIDE, method=DRAWN)


def test_weights_are_those_of_numpys_histograms() -> None:
    shares = np.empty(CODES.shape)
    for k, z in enumerate(CODES.T.numpy()):
        counts, edges = np.histogram(z, bins=7)
        shares[:, k] = counts[np.clip(np.searchsorted(edges, z, side="right") - 1, 0, 6)] / 300
    product = np.prod(1 / (shares + 0.02), axis=1)
    found = pv.LatentDensity(alpha=0.02, bins=7).weights(CODES)
    np.testing.assert_allclose(found, product / product.mean())
    each = 1 / (shares + 0.02)
    largest = (each / each.sum(0)).max(1)
    found = pv.LatentDensity(alpha=0.02, bins=7, combined="largest").weights(CODES)
    np.testing.assert_allclose(found, largest / largest.mean())


@pytest.mark.parametrize("combined", ["product", "largest"])
def test_weights_average_one_and_a_large_alpha_makes_them_equal(combined: Any) -> None:
    few = [effective_number(pv.LatentDensity(alpha=a, combined=combined).weights(CODES)) for a in (1e-3, 0.1, 1.0, 1e9)]
    assert few == sorted(few)
    assert pv.LatentDensity(alpha=1e-3, combined=combined).weights(CODES).mean() == pytest.approx(1)
    torch.testing.assert_close(pv.LatentDensity(alpha=1e9, combined=combined).weights(CODES), torch.ones(300).double())


def test_dimensions_that_hold_nothing_have_no_say() -> None:
    idle = torch.cat([CODES, 0.05 * CODES.flip(0)], 1)
    torch.testing.assert_close(pv.LatentDensity().weights(idle), pv.LatentDensity().weights(CODES))
    assert (pv.LatentDensity().weights(0.05 * CODES) == 1).all()


def test_a_row_is_drawn_as_often_as_its_weight_says() -> None:
    weights = pv.LatentDensity(alpha=0.05).weights(CODES)
    generator = torch.Generator().manual_seed(0)
    counts = torch.stack([systematic(weights, generator).bincount(minlength=300) for _ in range(500)]).double()
    assert (counts.sum(1) == 300).all()
    assert ((counts - weights).abs() < 1).all()
    torch.testing.assert_close(counts.mean(0), weights, rtol=0, atol=0.1)


def test_equal_weights_leave_a_fit_as_it_is() -> None:
    even = pv.fit(vae(), DATA, guide=GUIDE, method=dataclasses.replace(SVI, sampling=pv.LatentDensity(alpha=1e9)))
    assert bits(even) == bits(pv.fit(vae(), DATA, guide=GUIDE, method=SVI))
    assert even.history[-1]["effective_rows"] == pytest.approx(len(DATA.train))


def test_the_history_tells_the_elbo_of_the_data_and_the_effective_rows(drawn: pv.Fit) -> None:
    last = drawn.history[-1]
    numbers = drawn.evaluate(DATA.train)
    for name in ("elbo", "reconstruction", "kl"):
        assert last[name] == pytest.approx(numbers[name], rel=1e-6)
    assert 1 < last["effective_rows"] < 0.99 * len(DATA.train)
    assert "effective_rows" not in pv.fit(vae(), DATA, guide=GUIDE, method=dataclasses.replace(SVI, epochs=1)).history[-1]


def test_recorded_steps_take_the_rows_that_eager_ones_take(drawn: pv.Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ppl_vae.inference.training.step, "WORTH_RECORDING", 1)
    recorded = pv.fit(vae(), DATA, guide=GUIDE, method=dataclasses.replace(DRAWN, compile="auto"))
    assert bits(recorded) == bits(drawn)


def test_draws_of_a_few_rows_are_told() -> None:
    draws = RowDraws(pv.LatentDensity(), pv.build(vae(), GUIDE, DATA.spec), DATA.train, seed=0)
    draws.restore({"weights": torch.eye(len(DATA.train), dtype=torch.float64)[3]})
    assert (draws.rows(epoch=1) == 3).all()
    with pytest.warns(FitWarning, match=r"tell as much as 1\.0 of 32 rows.*raise alpha"):
        assert draws.row() == {"effective_rows": 1.0}
    with pytest.raises(ValueError, match="expected 32 weights, got"):
        draws.restore({"weights": torch.ones(2)})


def test_a_class_beside_the_code_is_no_part_of_the_histograms() -> None:
    data = pv.load_data(rows("binary", 46), y=[0, 1] * 23, valid=0.0, test=0.0)
    fit = pv.fit(pv.SemiSupervisedVAE(latent_dim=2, decoder=TINY), data, method=dataclasses.replace(DRAWN, epochs=1))
    assert 1 <= fit.history[-1]["effective_rows"] <= 46


REFUSED: dict[str, tuple[Any, Any, Any, str]] = {
    "weights": (vae(), pv.load_data(rows("binary", 46), weights=np.ones(46)), GUIDE, "rows without weights"),
    "without codes": (pv.SequenceModel(network=pv.MADE(hidden=(7,)), likelihood=pv.Bernoulli()), DATA, None, "real numbers"),
    "discrete": (vae(prior=pv.OneHotCategorical()), DATA, pv.AmortizedCategorical(encoder=TINY), "real numbers"),
    "lengths": (
        pv.VAE(latent_dim=2, decoder=pv.LSTM(hidden=4), likelihood=pv.Tokens()),
        pv.load_data(["to be", "or not", "that is the question"] * 9, tokens="characters", buckets=3),
        pv.AmortizedNormal(encoder=pv.LSTM(hidden=4)),
        "several kinds",
    ),
}


@pytest.mark.parametrize(("model", "data", "guide", "told"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_drawn_by_codes_is_refused(model: Any, data: pv.Data, guide: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        pv.fit(model, data, guide=guide, method=DRAWN)


def test_a_stream_is_refused(tmp_path: Any) -> None:
    np.save(tmp_path / "x.npy", rows("binary", 46).numpy().astype(np.float32))
    data = pv.load_data(str(tmp_path / "x.npy"), stream=1)
    with pytest.raises(ValueError, match="got a stream: load fewer"):
        pv.fit(vae(), data, guide=GUIDE, method=DRAWN)


@pytest.mark.parametrize(("field", "value"), [("alpha", 0.0), ("alpha", float("inf")), ("bins", 1), ("combined", "sum")])
def test_numbers_out_of_range_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        pv.LatentDensity(**{field: value})
