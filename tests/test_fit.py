"""`fit` and the fitted object."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

import ppl_vae as pv
from ppl_vae.fitting.callbacks import progress
from ppl_vae.inference.training import loop as training
from ppl_vae.inference.training.step import Step
from ppl_vae.models.starts import likeliest_features
from ppl_vae.nn import inputs
from ppl_vae.types import SCORES, DataSpec, FitWarning
from tests.table import EVENT, GUIDES, LATENT, ROWS, TINY, rows, start_of, vae

GUIDE = GUIDES["AmortizedNormal-diagonal"]
COLUMNS = ["epoch", "objective", "elbo", "reconstruction", "kl", "learning_rate", "seconds"]
VALID = ["valid_elbo", "valid_reconstruction", "valid_kl"]
N = 40


def fitted(model: Any = None, data: Any = None, **method: Any) -> pv.Fit:
    data = rows("binary", N) if data is None else data
    return pv.fit(model or vae(), data, guide=GUIDE, method=pv.SVI(**{"epochs": 1, "batch_size": 16, **method}))


@pytest.fixture(scope="module")
def fit() -> pv.Fit:
    return fitted()


def scores(history: list[dict]) -> list[dict]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


# --- training -------------------------------------------------------------------------------------------------------------


def test_the_seed_decides_every_number() -> None:
    first, again, other = (fitted(seed=seed, epochs=2) for seed in (3, 3, 4))
    assert scores(first.history) == scores(again.history)
    assert all(torch.equal(a, b) for a, b in zip(first.pair.parameters(), again.pair.parameters(), strict=True))
    assert torch.equal(first.sample(3), again.sample(3))
    assert first.history[-1]["elbo"] != other.history[-1]["elbo"]
    state = torch.get_rng_state()
    fitted()
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("seed", [-1, 2**63, 10**30])
def test_a_seed_that_torch_does_not_take_is_refused(seed: int, fit: pv.Fit) -> None:
    for attempt in (
        lambda: fitted(seed=seed),
        lambda: fit.sample(1, seed=seed),
        lambda: fit.evaluate(rows("binary"), seed=seed),
    ):
        with pytest.raises(ValueError, match=r"expected a seed of 0 to 2\^63 - 1"):
            attempt()


def test_history_has_a_row_an_epoch_with_its_columns() -> None:
    seen: list[dict] = []
    method = pv.SVI(epochs=3, batch_size=16)
    data = pv.load_data(rows("binary", N), valid=0.2)
    found = pv.fit(vae(), data, guide=GUIDE, method=method, progress=seen.append)
    assert seen == found.history
    assert [row["epoch"] for row in seen] == [1, 2, 3]
    for row in seen:
        assert sorted(row) == sorted(COLUMNS + VALID)
        assert row["elbo"] == pytest.approx(row["reconstruction"] - row["kl"], abs=1e-4)
        assert row["valid_elbo"] == pytest.approx(row["valid_reconstruction"] - row["valid_kl"], abs=1e-4)
        assert row["seconds"] > 0
    assert found.history[-1]["valid_elbo"] == found.evaluate(data.valid)["elbo"]
    without = pv.fit(vae(), pv.load_data(rows("binary", N), valid=0.0), guide=GUIDE, method=method)
    assert sorted(without.history[0]) == sorted(COLUMNS)
    assert f"ELBO {found.history[-1]['valid_elbo']:.2f} nats per datum after 3 iterations" in str(found)


def test_early_stopping_waits_for_as_many_epochs_as_it_says() -> None:
    history = fitted(epochs=200, patience=2, learning_rate=0.3, schedule="constant").history
    values = [row["valid_elbo"] for row in history]
    best = values.index(max(values))
    assert len(history) == best + 1 + 2 < 200
    worse = [max(values[: i + 1]) for i in range(len(values))]
    assert all(any(worse[i] > worse[i - 2] for i in (j,)) for j in range(2, len(values) - 1))


def test_the_best_epoch_is_restored() -> None:
    data = pv.load_data(rows("binary", N), valid=0.2)
    method = pv.SVI(epochs=40, batch_size=16, learning_rate=0.3, schedule="constant")
    last = pv.fit(vae(), data, guide=GUIDE, method=method)
    best = pv.fit(vae(), data, guide=GUIDE, method=dataclasses.replace(method, restore_best=True))
    values = [row["valid_elbo"] for row in last.history]
    assert scores(best.history) == scores(last.history)
    assert max(values) > values[-1]
    assert last.evaluate(data.valid)["elbo"] == values[-1]
    assert best.evaluate(data.valid)["elbo"] == max(values)


@pytest.mark.parametrize("option", [{"patience": 1}, {"restore_best": True}])
def test_early_stopping_needs_validation_data(option: dict) -> None:
    with pytest.raises(ValueError, match="need validation data: give load_data a `valid` fraction above 0"):
        fitted(data=pv.load_data(rows("binary"), valid=0.0), **option)


CLIMBS = {
    **{name: {"optimizer": name} for name in ("adam", "adamw", "sgd")},
    **{name: {"schedule": name} for name in ("constant", "cosine", "exponential")},
    "clipped": {"clip_norm": 0.5},
    "clipped sgd": {"clip_norm": 0.5, "optimizer": "sgd", "learning_rate": 1e-1},
    "sampled": {"objective": pv.ELBO(kl="sampled", particles=2)},
}


@pytest.mark.parametrize("options", CLIMBS.values(), ids=CLIMBS)
def test_every_way_to_climb_climbs(options: dict) -> None:
    history = fitted(**{"epochs": 12, "learning_rate": 2e-2, **options}).history
    assert history[-1]["objective"] > history[0]["objective"] + 0.05


def test_the_learning_rate_follows_its_schedule() -> None:
    rates = {
        name: [row["learning_rate"] for row in fitted(epochs=4, schedule=name, learning_rate=1e-3).history]
        for name in ("constant", "cosine", "exponential")
    }
    assert rates["constant"] == [1e-3] * 4
    assert rates["cosine"] == pytest.approx([1e-3 * (1 + math.cos(math.pi * k / 4)) / 2 for k in range(4)])
    assert rates["exponential"] == pytest.approx([1e-3 * 0.01 ** (k / 4) for k in range(4)])


def test_clipping_bounds_the_step() -> None:
    data = pv.load_data(rows("binary", N), valid=0.0, test=0.0)
    norms = {}
    for clip in (None, 1e-3):
        start, end = (
            fitted(
                data=data, epochs=epochs, optimizer="sgd", schedule="constant", learning_rate=rate, batch_size=N, clip_norm=clip
            )
            for epochs, rate in ((1, 1e-12), (1, 1.0))
        )
        pairs = zip(start.pair.parameters(), end.pair.parameters(), strict=True)
        norms[clip] = math.sqrt(sum(float((a - b).detach().square().sum()) for a, b in pairs))
    assert norms[1e-3] == pytest.approx(1e-3, rel=1e-2)
    assert norms[None] > 1e-2


def test_steps_with_too_large_gradients_are_not_taken_and_counted() -> None:
    data = pv.load_data(rows("binary", N), valid=0.0, test=0.0)
    with pytest.warns(pv.FitWarning, match=r"3 of the 3 steps of epoch 1 were skipped.*above skip_norm = 1e-06: raise it"):
        skipped = fitted(data=data, batch_size=16, epochs=2, skip_norm=1e-6)
    assert [row["skipped"] for row in skipped.history] == [3, 3]
    start = fitted(data=data, batch_size=16, epochs=1, learning_rate=1e-30)
    assert all(map(torch.equal, skipped.pair.parameters(), start.pair.parameters()))
    taken = fitted(data=data, batch_size=16, epochs=2, skip_norm=1e6)
    assert [row["skipped"] for row in taken.history] == [0, 0]
    plain = fitted(data=data, batch_size=16, epochs=2)
    assert all(map(torch.equal, taken.pair.parameters(), plain.pair.parameters()))


def test_the_smaller_last_batch_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    step = Step.__call__
    monkeypatch.setattr(Step, "__call__", lambda self, raw: (sizes.append(len(raw)), step(self, raw))[1])
    fitted(data=pv.load_data(rows("binary", N), valid=0.0, test=0.0), batch_size=16, epochs=2)
    assert sizes == [16, 16, 8] * 2
    sizes.clear()
    fitted(data=pv.load_data(rows("binary", N), valid=0.0, test=0.0), batch_size=1000)
    assert sizes == [N]


@pytest.mark.parametrize("valid", [0.0, 0.2])
@pytest.mark.parametrize("batch_size", [4, 1000])
def test_a_fit_that_diverges_says_so(valid: float, batch_size: int) -> None:
    data = pv.load_data(rows("real", N), valid=valid)
    with pytest.raises(FloatingPointError, match=r"lower the learning rate.*, clip the gradients") as caught:
        fitted(vae(likelihood=pv.Gaussian()), data, learning_rate=1e30, optimizer="sgd", batch_size=batch_size).evaluate(data)
    assert "\n" not in str(caught.value)


# --- data -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [np.asarray, torch.as_tensor, lambda x: pv.load_data(x), lambda x: x.double()])
def test_data_come_in_every_form(source) -> None:
    found = fitted(data=source(rows("binary", N)))
    assert found.spec.event_shape == EVENT
    assert found.spec.size == 28


def test_what_is_left_to_the_model_is_settled_by_it() -> None:
    data = pv.load_data("digits")
    assert data.source.binarize == "auto"
    subset = dataclasses.replace(data, train=data.train[:N], valid=data.valid[:N], test=data.test[:N])
    binary = fitted(data=subset)
    assert (binary.data.binarize, binary.spec.kind, binary.transform.binarize) == ("dynamic", "binary", True)
    gray = fitted(vae(likelihood=pv.Gaussian()), subset)
    assert (gray.data.binarize, gray.spec.kind) == ("none", "unit_interval")
    for each in (binary, gray):
        assert each.evaluate(subset) == each.evaluate(subset.test) == each.evaluate(subset.resolve(each.model.accepts))
    assert set(binary.seen(subset.test).unique().tolist()) == {0.0, 1.0}
    assert binary.seen(subset.train).shape == (N, 1, 8, 8)


REFUSED = {
    "gray": ({}, rows("unit_interval"), "Bernoulli is a likelihood of binary data, but these data are unit_interval: binarize"),
    "real": ({}, rows("real"), "Bernoulli is a likelihood of binary data, but these data are real"),
    "NaN": ({}, rows("binary").masked_fill(rows("binary") == 1, math.nan), "NaN"),
    "device": ({"device": "nope"}, rows("binary"), "the device 'nope' does not work here"),
    "guide": ({"guide": lambda x: None}, rows("binary"), "a declared model goes with a declared guide"),
}


@pytest.mark.parametrize(("options", "data", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_fitted_is_refused(options: dict, data: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        pv.fit(vae(), data, **{"guide": GUIDE, "method": pv.SVI(epochs=1), **options})
    assert "\n" not in str(caught.value)


# --- the fitted object ----------------------------------------------------------------------------------------------------


def test_shapes_of_what_comes_out(fit: pv.Fit) -> None:
    x = rows("binary", 5)
    posterior = fit.posterior(x)
    assert (posterior.batch_shape, posterior.event_shape) == ((5,), (LATENT,))
    z = fit.encode(x)
    assert z.shape == (5, LATENT)
    torch.testing.assert_close(z, posterior.mean)
    draws = fit.encode(x, samples=7)
    assert draws.shape == (7, 5, LATENT)
    assert torch.equal(draws, fit.encode(x, samples=7))
    assert not torch.equal(draws, fit.encode(x, samples=7, seed=1))
    for shape in ((5,), (), (2, 3)):
        assert fit.decode(torch.zeros(*shape, LATENT)).shape == (*shape, *EVENT)
    torch.testing.assert_close(fit.reconstruct(x), fit.decode(z))
    assert fit.sample(6).shape == fit.sample(6, means=True).shape == (6, *EVENT)
    assert set(fit.sample(6).unique().tolist()) <= {0.0, 1.0}
    assert not any(out.requires_grad for out in (z, draws, fit.decode(z), fit.sample(2), posterior.mean))


def test_codes_of_many_rows_are_those_of_the_parts(fit: pv.Fit) -> None:
    x = rows("binary", 2500)
    parts = torch.cat([fit.encode(part) for part in x.split(700)])
    torch.testing.assert_close(fit.encode(x), parts)
    assert fit.reconstruct(x).shape == x.shape


def test_a_split_and_its_tensor_are_the_same_data(fit: pv.Fit) -> None:
    data = pv.load_data(rows("binary", N))
    x = data.test.transformed()
    assert fit.evaluate(data) == fit.evaluate(data.test) == fit.evaluate(x)
    assert torch.equal(fit.encode(data.test), fit.encode(x))
    numbers = fit.evaluate(x)
    assert sorted(numbers) == ["bits_per_dim", "bits_per_dim_se", "elbo", "elbo_se", "kl", "n", "reconstruction"]
    assert numbers["n"] == len(x)


def test_the_importance_weighted_bound_lies_above_the_elbo(fit: pv.Fit) -> None:
    numbers = fit.evaluate(rows("binary", N), samples=50)
    assert numbers["iwae"] >= numbers["elbo"]
    assert "log_likelihood" not in numbers
    assert numbers["samples"] == 50


@pytest.mark.filterwarnings("ignore:the fit ends at an ELBO:UserWarning")
@pytest.mark.parametrize("scale", ["unit", "standardize", "none"])
def test_dequantized_data_give_bits_per_dim_in_the_units_of_the_source(scale: str) -> None:
    counts = rows("count", N).to(torch.uint8)
    found = fitted(vae(likelihood=pv.Gaussian(scale="per_feature")), pv.load_data(counts, dequantize=True, scale=scale))
    data = pv.load_data(counts, dequantize=True, scale=scale)
    numbers, tight = found.evaluate(data), found.evaluate(data, samples=20)
    D = math.prod(EVENT)
    assert numbers["bits_per_dim"] == pytest.approx(-numbers["elbo"] / D / math.log(2))
    assert tight["bits_per_dim"] == pytest.approx(-tight["iwae"] / D / math.log(2))
    assert tight["bits_per_dim_se"] == pytest.approx(tight["iwae_se"] / D / math.log(2))
    assert numbers["bits_per_dim"] >= tight["bits_per_dim"] > 0
    assert "bits_per_dim" not in fitted(vae(likelihood=pv.Gaussian()), rows("real")).evaluate(rows("real"))


def test_exact_methods_reach_bits_per_dim_by_static_noise(tmp_path: Path) -> None:
    """The best Gaussian of integers and their noise, in closed form; a rerun of the saved declaration draws the same noise."""
    counts = torch.distributions.Poisson(torch.tensor([3.0, 50.0, 9.0])).sample((300,)).int()
    for method, model in ((pv.EM(), pv.GMM(components=1, covariance="full")), (pv.ClosedForm(), pv.PPCA(latent_dim=2))):
        data = pv.load_data(counts, dequantize="static", scale="standardize", test=0.5)
        found = pv.fit(model, data, method=method, progress=lambda row: None)
        x = data.train.x.double().numpy()
        assert ((x >= np.floor(x)) & (x < np.floor(x) + 1)).all()
        assert np.isin(np.floor(x), counts.numpy()).all()
        numbers = found.evaluate(data.train)
        if method == pv.EM():
            best = stats.multivariate_normal(x.mean(0), np.cov(x.T, bias=True)).logpdf(x).mean()
            assert numbers["log_likelihood"] == pytest.approx(best, abs=1e-4)
        assert numbers["bits_per_dim"] == pytest.approx(-numbers["log_likelihood"] / 3 / math.log(2))
        pv.save_run(found, data, tmp_path / type(method).__name__)
        again = pv.load_run(tmp_path / type(method).__name__)
        assert again.evaluate(pv.load_data(counts, dequantize="static", scale="standardize", test=0.5).train) == numbers
    with pytest.raises(ValueError, match=r"draw their noise once .*dequantize='static'"):
        pv.fit(model, pv.load_data(counts, dequantize="dynamic"), method=method, progress=lambda row: None)


@pytest.mark.filterwarnings("ignore:the fit ends at an ELBO:UserWarning")
@pytest.mark.parametrize("scale", ["unit", "standardize"])
@pytest.mark.parametrize("dequantize", [True, False, "static"])
def test_what_the_model_sees_is_scored_as_the_split_it_is_of(scale: str, dequantize: bool) -> None:
    data = pv.load_data(rows("count", N).to(torch.uint8), dequantize=dequantize, scale=scale)
    found = fitted(vae(likelihood=pv.Gaussian(scale="per_feature")), data)
    seen = pv.Split(found.seen(data.test), None, found.transform.applied())
    assert torch.equal(found.seen(seen), seen.x)
    assert found.evaluate(seen, samples=20) == pytest.approx(found.evaluate(data.test, samples=20))


def test_binary_draws_have_no_scale() -> None:
    data = pv.load_data("digits", binarize="dynamic")
    found = fitted(vae(), data)
    assert found.evaluate(found.seen(data.test)) == found.evaluate(data.test)


BAD_INPUT = {
    "shape": (lambda fit: fit.encode(torch.zeros(2, 3, 4)), r"expected data of shape \(n, 1, 3, 4\), got \(2, 3, 4\)"),
    "one datum": (lambda fit: fit.encode(torch.zeros(EVENT)), r"expected data of shape \(n, 1, 3, 4\), got \(1, 3, 4\)"),
    "shape, evaluate": (lambda fit: fit.evaluate(torch.zeros(5, 12)), r"expected data of shape \(n, 1, 3, 4\), got \(5, 12\)"),
    "shape, split": (lambda fit: fit.evaluate(pv.load_data(torch.zeros(9, 2))), r"expected data of shape"),
    "latent": (lambda fit: fit.decode(torch.zeros(5, 2)), r"expected latent codes of shape \(..., 3\), got \(5, 2\)"),
    "latent scalar": (lambda fit: fit.decode(torch.zeros(())), r"expected latent codes of shape"),
    "no draws": (lambda fit: fit.sample(0), "at least 1 datum, got n = 0"),
    "no codes": (lambda fit: fit.encode(rows("binary"), samples=0), "at least 1 sample, got 0"),
    "no samples": (lambda fit: fit.evaluate(rows("binary"), samples=0), "at least 1 sample, got 0"),
    "no data": (lambda fit: fit.evaluate(rows("binary")[:0]), "at least one datum"),
    "NaN": (lambda fit: fit.evaluate(torch.full((2, *EVENT), math.nan)), "expected finite values, got NaN or infinity"),
    "infinite": (lambda fit: fit.encode(torch.full((2, *EVENT), math.inf)), "expected finite values, got NaN or infinity"),
    "gray": (lambda fit: fit.evaluate(rows("unit_interval")), r"expected binary values as the model sees them, in \[0, 1\]"),
    "bytes": (lambda fit: fit.reconstruct(torch.full((2, *EVENT), 255, dtype=torch.uint8)), "expected binary values"),
    "negative": (lambda fit: fit.posterior(torch.full((2, *EVENT), -1.0)), "expected binary values"),
}


@pytest.mark.parametrize(("attempt", "message"), BAD_INPUT.values(), ids=BAD_INPUT)
def test_bad_input_is_refused(fit: pv.Fit, attempt, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        attempt(fit)
    assert "\n" not in str(caught.value)


def test_the_rest_of_the_defaults() -> None:
    found = pv.fit(vae(decoder=TINY), rows("binary", ROWS), method=pv.SVI(epochs=1))
    assert found.guide == pv.AmortizedNormal()
    assert found.device.type in ("cpu", "cuda", "mps")


def test_discrete_levels_have_bits_per_dim() -> None:
    data = pv.load_data("digits", kind="categorical")
    model = pv.VAE(latent_dim=2, likelihood=pv.DiscretizedLogistic(levels=data.spec.levels))
    numbers = pv.fit(model, data, method=pv.SVI(epochs=1)).evaluate(data.test)
    assert numbers["bits_per_dim"] == pytest.approx(-numbers["elbo"] / (64 * math.log(2)))


def test_threads_are_chosen_by_the_multiplications_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []

    def cpu_threads(multiplications: int, **others: Any) -> contextlib.nullcontext:
        told.append(multiplications)
        return contextlib.nullcontext()

    monkeypatch.setattr(training, "cpu_threads", cpu_threads)
    conv, samples, batch, latent = pv.Conv(channels=(5,)), 3, 20, 4
    method = pv.SVI(epochs=1, batch_size=batch, objective=pv.IWAE(samples=samples))
    pv.fit(pv.VAE(latent_dim=latent, decoder=conv), "digits", guide=pv.AmortizedNormal(encoder=conv), method=method)
    image, code = 4 * 4 * (4 * 4 * 5), 4 * 4 * 5  # a 4 x 4 kernel at 4 x 4 places, and what it leaves
    assert told == [batch * (image + code * 2 * latent) + samples * batch * (latent * code + image)]


@pytest.mark.parametrize("kind", ["binary", "count", "real"])
def test_encoders_are_centred_on_the_training_data(kind: str) -> None:
    x = rows(kind, 40).flatten(1)
    data = pv.load_data(x.numpy(), valid=0.2, test=0.2, scale="none")
    likelihood = {"binary": pv.Bernoulli(), "count": pv.Poisson(), "real": pv.Gaussian()}[kind]
    model = pv.VAE(latent_dim=2, decoder=TINY, likelihood=likelihood)
    fit = pv.fit(model, data, guide=pv.AmortizedNormal(encoder=TINY), method=pv.SVI(epochs=1))
    seen = fit.seen(data.train)
    shown = fit.pair.guide.encoder.shown(seen)
    torch.testing.assert_close(shown.mean(0), torch.zeros(12), atol=1e-5, rtol=0.0)
    fresh = pv.build(model, pv.AmortizedNormal(encoder=TINY), fit.spec).guide.encoder.shown(seen)
    torch.testing.assert_close(fresh, seen.log1p() if kind == "count" else seen)  # no centre was told


def test_a_centre_leaves_missing_entries_out() -> None:
    shown = inputs.standardized(DataSpec(event_shape=(2,), kind="real", size=4, missing=True), centred=True)
    shown.start_fit(start_of(torch.tensor([[1.0, math.nan], [3.0, math.nan]])))
    torch.testing.assert_close(shown(torch.tensor([[5.0, math.nan]])), torch.tensor([[3.0, 0.0]]))


@pytest.mark.parametrize(("kind", "likelihood"), [("binary", pv.Bernoulli()), ("count", pv.Poisson()), ("real", pv.Laplace())])
def test_decoders_start_at_the_likeliest_features(kind: str, likelihood: pv.Likelihood) -> None:
    x = rows(kind, 200).flatten(1)
    model = vae(likelihood=likelihood)
    pair = pv.build(model, GUIDE, pv.load_data(x.numpy(), scale="none").resolve(model.accepts).spec)
    pair.model.start_fit(start_of(x))
    h = pair.model.decoder.layers[-1].bias[None]
    at = pair.model.likelihood(h).log_prob(x).mean()
    others = torch.stack([pair.model.likelihood(h + step).log_prob(x).mean() for step in (-0.05, 0.05)])
    assert (at > others).all()


def test_an_element_that_never_varies_has_a_finite_start() -> None:
    h = likeliest_features(pv.Bernoulli().build((2,)), torch.tensor([[0.0, 1.0]] * 50), (1, 2))
    assert h.isfinite().all()
    assert -10 < h[0, 0] < -5
    assert 5 < h[0, 1] < 10


# --- how far a fit is ----------------------------------------------------------------------------------------------------


def test_a_first_epoch_that_takes_long_tells_what_is_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LONG", 0.0)
    x = (np.arange(240).reshape(60, 4) % 2).astype(np.float32)
    with pytest.warns(
        FitWarning, match=r"1 of the \d+ steps of an epoch took .* each: an epoch takes about .*, and the 3 epochs "
    ):
        pv.fit(pv.VAE(latent_dim=1), x, method=pv.SVI(epochs=3, batch_size=10))


def test_a_step_that_is_compiled_says_nothing_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 50.0, 51.0, 52.0, 90.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    monitor = progress.DurationMonitor()
    pair: Any = SimpleNamespace()
    monitor.begin(pv.FitContext(pair=pair, model=None, guide=None, method=pv.SVI(epochs=2), data=None, done=0))
    for taken in (1, 2, 3):
        monitor.step(taken, 4, 0.0)
    with pytest.warns(FitWarning, match=r"^3 of the 4 steps .* took 40 s, 13.3 s each: .* about 53.3 s, .* 2 epochs 1.78 min"):
        monitor.step(4, 4, 0.0)


def test_what_is_compiled_says_nothing_of_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 2.0, 60.0, 120.0, 122.0, 170.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    compiled = iter([0.0, 0.0, 55.0, 110.0, 110.0, 110.0])
    monkeypatch.setattr(progress.compiling, "spent", lambda: next(compiled))
    monitor = progress.DurationMonitor()
    pair: Any = SimpleNamespace()
    monitor.begin(pv.FitContext(pair=pair, model=None, guide=None, method=pv.SVI(epochs=2), data=None, done=0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for taken in (1, 2, 3, 4, 5):
            monitor.step(taken, 6, 0.0)


def test_a_bar_moves_by_steps_before_there_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict] = []
    monkeypatch.setattr(progress, "MOMENT", 0.0)
    rich = SimpleNamespace(add_task=lambda name, **told: 0, start=lambda: None, update=lambda bar, **told: seen.append(told))
    monkeypatch.setattr(progress, "_rich_progress", lambda name: rich)
    bar = progress.ProgressBar()
    pair: Any = SimpleNamespace(score=SCORES["elbo"])
    began = time.monotonic()
    monkeypatch.setattr(progress.time, "monotonic", lambda: began)
    bar.begin(pv.FitContext(pair=pair, model=None, guide=None, method=pv.SVI(), data=None, done=2))
    for taken, at in ((1, 40.0), (2, 42.0), (3, 44.0)):  # the first step was compiled
        monkeypatch.setattr(progress.time, "monotonic", lambda at=at: began + at)
        bar.step(taken, 12, at)
    assert {"completed": 2.25} in seen
    assert seen[-1]["description"] == "step 3 of 12, 2 s each"
    bar.record({"elbo": -1.0})
    assert seen[-1] == {"completed": 3, "description": "ELBO -1.00"}
