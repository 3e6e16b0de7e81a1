"""Posterior collapse: what keeps the KL up is exact, and the remark names what is left to try."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import kl_divergence

import ppl_vae as pv
from ppl_vae.evaluate.latents import latents
from ppl_vae.fitting.build import build
from ppl_vae.fitting.callbacks.collapse import CollapseMonitor
from ppl_vae.guides.floors import EPS, NormalizedMeans, largest_scale
from ppl_vae.inference.training.optimizers import OPTIMIZERS
from ppl_vae.inference.training.step import WORTH_RECORDING, Step
from tests.table import TINY

SENTENCES = ["the cat sat", "a dog ran off", "the dog sat", "a cat ran"] * 10
SPEC = pv.DataSpec(event_shape=(6,), kind="real", size=200)
GAMMA, DELTA = 0.7, 2.0


def x(seed: int = 0, rows: int = 200) -> Tensor:
    return torch.randn(rows, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def built(**options: Any) -> pv.Pair:
    torch.manual_seed(0)
    vae = pv.VAE(latent_dim=3, likelihood=pv.Gaussian(), decoder=TINY)
    return build(vae, pv.AmortizedNormal(encoder=TINY, **options), SPEC).double()


def kl(found: pv.Pair, rows: Tensor) -> Tensor:
    return kl_divergence(found.guide.posterior(rows), found.model.prior())


# --- batch-normalized means -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("covariance", ["diagonal", "low_rank", "full"])
def test_normalized_means_keep_the_mean_kl_above_their_floor(covariance: str) -> None:
    found = built(covariance=covariance, batch_norm_mean=GAMMA)
    found.train()
    mean = found.guide.posterior(x()).mean
    torch.testing.assert_close(mean.std(0, correction=0), torch.full((3,), GAMMA, dtype=torch.float64), rtol=1e-5, atol=0)
    found.eval()  # by the running moments, which are those of the one batch so far
    torch.testing.assert_close(found.guide.posterior(x()).mean, mean)
    assert kl(found, x()).mean() >= 3 * GAMMA**2 / 2


def test_the_floor_is_reached_where_scales_and_locations_are_the_priors() -> None:
    module = NormalizedMeans(3, GAMMA).double()
    mean = module(x()[:, :3])
    q = torch.distributions.Independent(torch.distributions.Normal(mean, torch.ones_like(mean)), 1)
    p = torch.distributions.Independent(torch.distributions.Normal(torch.zeros_like(mean[0]), torch.ones_like(mean[0])), 1)
    variance = x()[:, :3].var(0, correction=0)
    floor = (GAMMA**2 / 2 * variance / (variance + EPS)).sum()
    torch.testing.assert_close(kl_divergence(q, p).mean(), floor)


def test_the_running_moments_are_those_of_batches_that_differ() -> None:
    """Rows sorted by length: what is between the batches counts as well, in training as in evaluation."""
    module = NormalizedMeans(2, 1.0).double()
    batches = [x(seed, 50)[:, :2] + 10 * (seed % 2) for seed in range(2)]
    for _ in range(150):
        last = [module(batch) for batch in batches]
    module.eval()
    torch.testing.assert_close(module(batches[1]), last[1])
    whole = torch.cat([module(batch) for batch in batches])
    torch.testing.assert_close(whole.mean(0), torch.zeros(2).double(), atol=0.06, rtol=0)  # the last one weighs a little more
    torch.testing.assert_close(whole.std(0, correction=0), torch.ones(2).double(), atol=0.02, rtol=0)


def test_no_gradient_shifts_or_shrinks_the_means() -> None:
    module = NormalizedMeans(3, GAMMA).double()
    for seed in (1, 2, 0):
        numbers = x(seed, 40).requires_grad_()
        found = module(numbers)
    assert torch.equal(found[:, 3:], numbers[:, 3:])
    (gradient,) = torch.autograd.grad((found[:, :3] * x(5, 40)[:, :3]).sum(), [numbers])
    gradient, means = gradient[:, :3], numbers[:, :3]
    assert gradient.abs().max() > 0.01
    torch.testing.assert_close(gradient.sum(0), torch.zeros(3).double(), atol=1e-9, rtol=0)
    along = (gradient * (means - means.mean(0))).sum(0)  # what is left is the EPS in the variance
    torch.testing.assert_close(along, torch.zeros(3).double(), atol=1e-6, rtol=0)


def test_running_moments_weigh_rows_whatever_the_batches_are_and_wherever_the_means_lie() -> None:
    rows = 1e4 + torch.randn(600, 2, generator=torch.Generator().manual_seed(0))
    found = []
    for size in (1, 4, 200):
        module = NormalizedMeans(2, 1.0)
        for batch in rows.split(size):
            module(batch)
        found.append(module.moments())
    for loc, scale in found:
        torch.testing.assert_close(loc, rows.mean(0), atol=0.1, rtol=0)
        torch.testing.assert_close(scale, rows.std(0, correction=0), atol=0.05, rtol=0)


@pytest.mark.parametrize("size", [1, 2])
def test_a_last_batch_of_a_row_or_two_is_normalized_by_the_running_moments_and_has_a_gradient(size: int) -> None:
    module = NormalizedMeans(3, GAMMA).double()
    module(x(0)[:, :3])
    few = x(1, size)[:, :3].requires_grad_()
    found = module(few)
    loc, scale = module.moments()
    torch.testing.assert_close(found, GAMMA * (few - loc) / scale)
    (gradient,) = torch.autograd.grad(found.sum(), [few])
    torch.testing.assert_close(gradient, (GAMMA / scale).expand(size, 3))


def test_a_fit_by_batches_that_tell_no_moments_is_refused() -> None:
    vae = pv.VAE(latent_dim=2, likelihood=pv.Gaussian(), decoder=TINY)
    guide = pv.AmortizedNormal(encoder=TINY, batch_norm_mean=GAMMA)
    with pytest.raises(ValueError, match=r"batches of at least 3 rows for a guide with batch_norm_mean.* got 2: raise batch"):
        pv.fit(vae, x(0, 20), guide=guide, method=pv.SVI(batch_size=2))


def test_a_recorded_step_moves_the_running_moments_as_an_eager_one() -> None:
    found = []
    for options in ({"compile": False}, {"ahead": WORTH_RECORDING}):
        each = built(batch_norm_mean=GAMMA, min_kl=DELTA).float()
        each.train()
        module = pv.ELBO().build(each)
        step = Step(module, pv.Transform(SPEC.event_shape), OPTIMIZERS["adam"](module.parameters(), 1e-2), **options)
        torch.manual_seed(0)
        for seed in range(3):
            step(x(seed, 20).float())
        assert (step.way == "recorded") == ("ahead" in options)
        found.append(each.guide.state_dict())
    eager, recorded = found
    assert 0 < eager["normalized.seen"] < 1
    for name, value in recorded.items():
        torch.testing.assert_close(value, eager[name], rtol=1e-5, atol=1e-6)


# --- a floor of every datum -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_every_datum_has_at_least_the_committed_kl(covariance: str) -> None:
    found = built(covariance=covariance, min_kl=DELTA)
    with torch.no_grad():
        for width in (0.0, 1.0, 30.0):  # of weights so small and so large that scales end at their bounds
            for parameter in found.guide.parameters():
                parameter.normal_(0, width, generator=torch.Generator().manual_seed(1))
            assert (kl(found, x()) >= DELTA * (1 - 1e-9)).all()
    widest = torch.zeros(3, dtype=torch.float64), torch.full((3,), 50.0, dtype=torch.float64)
    if covariance == "diagonal":
        q = found.guide.at(torch.stack(widest)[None])
        assert kl_divergence(q, found.model.prior()).item() == pytest.approx(DELTA, rel=1e-9)
    else:
        entries = torch.where(torch.tensor([True, False, True, False, False, True]), widest[1].repeat(2), 0.0)
        q = found.guide.at(torch.cat([widest[0], entries])[None])
        assert kl_divergence(q, found.model.prior()).item() == pytest.approx(DELTA, rel=1e-9)


@pytest.mark.parametrize("rate", [1e-6, 0.1, 3.0])
def test_the_largest_scale_has_just_the_rate(rate: float) -> None:
    s = largest_scale(rate)
    assert 0 < s < 1
    assert (s**2 - 1 - math.log(s**2)) / 2 == pytest.approx(rate, rel=1e-6)


# --- the number that tells of it ------------------------------------------------------------------------------------------


def test_the_information_in_codes_of_rows_is_a_part_of_their_kl_and_zero_where_they_tell_nothing() -> None:
    data = pv.load_data(SENTENCES, tokens="words", valid=0.0, test=0.0)
    vae = pv.VAE(latent_dim=2, decoder=pv.LSTM(hidden=4), likelihood=pv.Tokens()).settled(data)
    torch.manual_seed(0)
    found = build(vae, pv.AmortizedNormal(encoder=pv.LSTM(hidden=4)), data.spec)
    with torch.no_grad():
        found.guide.encoder.output.weight.mul_(20)
    numbers = latents(found, data.train)
    assert 0.1 < numbers["mutual_information"] < numbers["kl"]
    error = 4 * (numbers["mutual_information_se"] + numbers["marginal_kl_se"])
    assert numbers["mutual_information"] + numbers["marginal_kl"] == pytest.approx(numbers["kl"], abs=error)
    with torch.no_grad():
        found.guide.encoder.output.weight.zero_()
    assert abs(latents(found, data.train)["mutual_information"]) < 1e-5


# --- the remark -----------------------------------------------------------------------------------------------------------


def remark(vae: pv.VAE, guide: pv.Guide, method: pv.SVI, kl: float = 0.01) -> str:
    data = pv.load_data(SENTENCES, tokens="words", valid=0.0, test=0.0)
    model = vae.settled(data)
    monitor = CollapseMonitor()
    monitor.begin(
        pv.FitContext(pair=build(model, guide, data.spec), model=model, guide=guide, method=method, data=data, done=0)
    )
    for epoch in range(1, 13):  # 500 steps of 40 in an epoch
        monitor.record({"epoch": epoch, "kl": kl})
    with pytest.warns(pv.FitWarning, match="collapsed") as warned:
        monitor.record({"epoch": 13, "kl": kl})
    return str(warned[0].message)


def test_the_remark_names_what_helps_a_model_of_rows_and_is_not_in_use() -> None:
    vae = pv.VAE(latent_dim=2, decoder=pv.LSTM(hidden=4), likelihood=pv.Tokens())
    guide, method = pv.AmortizedNormal(encoder=pv.LSTM(hidden=4)), pv.SVI(batch_size=1)
    told = remark(vae, guide, method)
    for remedy in ("LinearWarmUp", "free_bits", "batch_norm_mean", "min_kl", "word_dropout", "encoder_steps=10", "Stages"):
        assert remedy in told
    assert "weaken" not in told
    used = remark(
        dataclasses.replace(vae, prior=pv.Normal(scale=2.0), decoder=pv.LSTM(hidden=4, word_dropout=0.5)),
        dataclasses.replace(guide, batch_norm_mean=0.5),
        dataclasses.replace(method, alternate="steps", encoder_steps=2, objective=pv.BetaELBO(free_bits=0.1)),
    )
    assert "LinearWarmUp" in used
    assert "2 of them its min_kl" in remark(vae, dataclasses.replace(guide, min_kl=DELTA), method, kl=DELTA + 0.01)
    for remedy in ("free_bits", "batch_norm_mean", "min_kl", "word_dropout", "encoder_steps"):
        assert remedy not in used


# --- what is refused ------------------------------------------------------------------------------------------------------


def test_floors_that_would_not_hold_are_refused() -> None:
    for options, told in (
        ({"batch_norm_mean": 0.0}, "positive batch_norm_mean, got 0"),
        ({"min_kl": -1.0}, "min_kl of at least 0 nats"),
        ({"min_kl": 1.0, "covariance": "low_rank"}, "no min_kl with covariance='low_rank'"),
    ):
        with pytest.raises(ValueError, match=told):
            pv.AmortizedNormal(**options)
    vae = pv.VAE(latent_dim=3, prior=pv.GaussianMixture(components=2), likelihood=pv.Gaussian(), decoder=TINY)
    with pytest.raises(ValueError, match=r"expected StandardNormal\(\) as the prior .* min_kl, got GaussianMixture\("):
        build(vae, pv.AmortizedNormal(encoder=TINY, min_kl=1.0), SPEC)
    with pytest.raises(
        ValueError, match=r"at most 13\.3 nats for each of K = 3 .* 39\.95 in all, got 500, .* raise the latent"
    ):
        built(min_kl=500.0)


def test_the_largest_floor_is_finite_in_single_precision() -> None:
    found = built(min_kl=39.9).float()
    for parameter in found.guide.encoder.parameters():
        parameter.data.fill_(-30.0)  # the smallest scales
    rows = x().float()
    loss = found.guide.posterior(rows).rsample().sum() - kl(found, rows).sum()
    loss.backward()
    assert loss.isfinite()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in found.guide.encoder.parameters())
