"""Diffusion against a literal chain of Pyro sites, closed forms, and data whose log p(x) is known."""

from __future__ import annotations

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence

import ppl_vae as pv
from ppl_vae.evaluate import elbo_terms, log_weights
from ppl_vae.evaluate.bounds import bounds
from ppl_vae.fitting import assessment
from ppl_vae.inference.training.optimizers import OPTIMIZERS
from ppl_vae.inference.training.step import WORTH_RECORDING, Step
from ppl_vae.models.diffusion.prediction import LevelMeans, denoised, predicted
from ppl_vae.models.diffusion.steps import SpreadTimes, alpha, sigma
from ppl_vae.models.diffusion.steps import Step as StepBack
from ppl_vae.runs.archive import measure
from ppl_vae.types import FitWarning
from tests.table import LEVELS, TINY

GAMMAS = torch.tensor([-6.0, -1.0, 0.0, 2.5, 5.0], dtype=torch.float64)
STEPS = StepBack(GAMMAS[:-1], GAMMAS[1:])


def built(shape: tuple[int, ...] = (2,), kind: str = "binary", size: int = 40, **fields: Any) -> pv.Pair:
    torch.manual_seed(0)
    model = pv.Diffusion(**{"steps": 3, "denoiser": TINY, "likelihood": pv.Bernoulli(), **fields})
    return pv.build(model, pv.Noising(), pv.DataSpec(event_shape=shape, kind=kind, size=size)).double()


def literal(pair: pv.Pair, x: Tensor) -> pv.Pair:
    """The same chain site by site: noise added from z_0 on, and taken off as DDPM writes it; only the networks are shared."""
    ours = pair.model
    T, (D,) = ours.steps, ours.event_shape
    gamma = ours.noise(torch.linspace(0, 1, T + 1, dtype=torch.float64)).detach()
    a2, s2 = torch.sigmoid(-gamma), torch.sigmoid(gamma)

    def guide(x: Tensor) -> None:
        with pv.data_plate(None, x):
            z = pyro.sample("z0", dist.Normal(a2[0].sqrt() * ours.centred(x), s2[0].sqrt()).to_event(1))
            for t in range(1, T + 1):
                kept = a2[t] / a2[t - 1]
                z = pyro.sample(f"z{t}", dist.Normal(kept.sqrt() * z, (s2[t] - kept * s2[t - 1]).sqrt()).to_event(1))

    def model(x: Tensor) -> None:
        with pv.data_plate(None, x):
            z = pyro.sample(f"z{T}", dist.Normal(torch.zeros(D).double(), 1.0).to_event(1))
            for t in range(T, 0, -1):
                kept = a2[t] / a2[t - 1]
                beta = s2[t] - kept * s2[t - 1]
                noise = ours.denoiser(z, torch.tensor(t / T, dtype=torch.float64)).squeeze(-2)
                data = (z - s2[t].sqrt() * noise) / a2[t].sqrt()
                mean = kept.sqrt() * s2[t - 1] / s2[t] * z + a2[t - 1].sqrt() * beta / s2[t] * data
                z = pyro.sample(f"z{t - 1}", dist.Normal(mean, (beta * s2[t - 1] / s2[t]).sqrt()).to_event(1))
            pyro.sample("x", ours.likelihood_at(z), obs=x)

    return pv.Pair(model, guide, mean_field=False, size=len(x))


FINE = pv.Gaussian(scale="fixed", value=0.01)
BITS = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)


def by_datum(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard error of each of the four, of values ``(..., 4 R)``."""
    found = values.reshape(-1, 4)
    return found.mean(0), found.std(0) / len(found) ** 0.5


@pytest.mark.parametrize("steps", [1, 3])
def test_the_bound_is_that_of_the_chain_site_by_site(steps: int) -> None:
    """Of one step it is that of a VAE with two groups of latent variables and a guide that adds noise."""
    pair = built(steps=steps, size=len(BITS) * 5000, noise=pv.LinearNoise(high=2.0))
    chain = literal(pair, BITS)
    many = BITS.repeat(5000, 1)
    torch.manual_seed(1)
    with torch.no_grad():
        expected, error = by_datum(log_weights(chain, (BITS,), samples=5000))
        summed, ours = by_datum(elbo_terms(pair, (many,)).elbo)
        sampled, noise = by_datum(bounds(pair, (many,), samples=1, summed=False).terms.elbo)
        history = pv.ELBO().build(pair)(many).elbo
    assert ((summed - expected).abs() < 4 * (error + ours)).all()
    assert ((sampled - expected).abs() < 4 * (error + noise)).all()
    assert (history - expected.mean()).abs() < 4 * (error + noise).mean()
    assert error.max() < 0.02 * expected.abs().min()


def test_probabilities_of_the_chain_sum_to_one_and_its_draws_have_them() -> None:
    """p(x) of one element by quadrature over the values of z_t, step by step; no bound is above its logarithm."""
    pair = built((1,), "categorical", steps=2, likelihood=pv.Categorical(levels=3), variance="upper", predicts="data")
    model, z = pair.model, torch.linspace(-12, 12, 1201, dtype=torch.float64)[:, None]
    weight = z[1, 0] - z[0, 0]
    with torch.no_grad():
        mass = model.standard.log_prob(z).exp()
        for place in torch.tensor([2.0, 1.0], dtype=torch.float64):
            back, step = model.reverse(z, place.expand(len(z))).base_dist, model.step(place)
            spread = step.back(torch.zeros_like(z), back.scale.expand(z.shape), 1)
            kernel = dist.Normal(step.back(z, back.loc, 1), spread).log_prob(z.T).exp()
            mass = weight * mass @ kernel
        levels = torch.arange(3, dtype=torch.float64)
        p = weight * mass @ model.likelihood_at(z).base_dist.log_prob(levels[:, None, None]).squeeze(-1).T.exp()
        drawn = model.ancestral(20_000)[:, 0]
        elbo = elbo_terms(pair, (levels.repeat(1000)[:, None],)).elbo.reshape(-1, 3).mean(0)
    torch.testing.assert_close(p.sum().item(), 1.0, atol=1e-6, rtol=0)
    shares = torch.stack([(drawn == level).double().mean() for level in levels])
    torch.testing.assert_close(shares, p, atol=0.02, rtol=0)
    assert (elbo < p.log()).all()


def test_steps_back_compose_to_the_noise_in_closed_form() -> None:
    x, nothing = torch.tensor([2.0], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    mean = STEPS.back(alpha(STEPS.gamma_t) * x, x.expand(4), 0)
    torch.testing.assert_close(mean, alpha(STEPS.gamma_s) * x)
    kept, new = STEPS.back(sigma(STEPS.gamma_t), nothing, 0), STEPS.back(nothing, STEPS.scale, 0)
    torch.testing.assert_close(kept.square() + new.square(), sigma(STEPS.gamma_s).square())


def test_the_kl_of_a_step_is_half_the_fall_of_the_signal_to_noise_ratio_times_the_squared_error() -> None:
    x, guess = torch.tensor(0.3).double(), torch.tensor(-0.4).double()
    z = torch.tensor(0.7).double()
    written = (torch.exp(-STEPS.gamma_s) - torch.exp(-STEPS.gamma_t)) * (x - guess).square() / 2
    nothing = torch.zeros_like(z)
    spread = STEPS.back(nothing, STEPS.scale, 0)
    q, p = (dist.Normal(STEPS.back(z, mean, 0), spread) for mean in (x, guess))
    torch.testing.assert_close(kl_divergence(q, p), written)
    torch.testing.assert_close(kl_divergence(dist.Normal(x, STEPS.scale), dist.Normal(guess, STEPS.scale)), written)


@pytest.mark.parametrize("predicts", ["noise", "data", "velocity"])
def test_what_is_predicted_tells_the_data(predicts: Any) -> None:
    x, noise = torch.randn(2, len(GAMMAS), dtype=torch.float64)
    z = alpha(GAMMAS) * x + sigma(GAMMAS) * noise
    torch.testing.assert_close(denoised(predicts, z, predicted(predicts, z, x, GAMMAS), GAMMAS), x)
    expected = {"noise": noise, "data": x, "velocity": alpha(GAMMAS) * noise - sigma(GAMMAS) * x}
    torch.testing.assert_close(predicted(predicts, z, x, GAMMAS), expected[predicts])


def test_level_means_are_bayes_rule_of_each_element() -> None:
    places, logits, z = torch.linspace(-1, 1, 5), torch.randn(5, 1), torch.tensor([0.3])
    gamma = torch.tensor(0.5)
    q = dist.Normal(alpha(gamma) * places, sigma(gamma)).log_prob(z) + logits[:, 0]
    torch.testing.assert_close(LevelMeans(places, 1)(z, logits, gamma), (q.softmax(0) @ places)[None])


class Exact(nn.Module):
    """What is known of x ~ Normal(0, v) given z_t: its mean, and how much wider the step back is than that of q."""

    def __init__(self, program: Any, variance: float) -> None:
        super().__init__()
        self.program = (program,)
        self.variance = variance

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        noise, steps = self.program[0].noise, self.program[0].steps
        step = StepBack(noise(t - 1 / steps), noise(t))
        a2, s2 = torch.sigmoid(-step.gamma_t), torch.sigmoid(step.gamma_t)
        total = a2 * self.variance + s2
        mean = (a2.sqrt() * self.variance / total)[..., None] * z
        wider = (1 + self.variance * s2 / total / step.scale.square()).log() / (2 * step.log_ratio)
        return torch.stack([mean, wider[..., None].expand(mean.shape)], -2)


@pytest.mark.parametrize("steps", [2, 10, 50, 200])
def test_with_the_exact_steps_back_the_bound_is_log_p(steps: int) -> None:
    variance, least = 0.36, 0.01
    noise = pv.LinearNoise(low=2 * math.log(least), high=14.0)
    fields: dict[str, Any] = {"likelihood": pv.Gaussian(scale="fixed", value=least), "predicts": "data", "variance": "learned"}
    pair = built((3,), "real", noise=noise, steps=steps, **fields)
    pair.model.denoiser = Exact(pair.model, variance)
    torch.manual_seed(0)
    x = variance**0.5 * torch.randn(2000, 3, dtype=torch.float64)
    with torch.no_grad():
        gap = elbo_terms(pair, (x,)).elbo - dist.Normal(0.0, variance**0.5).log_prob(x).sum(-1)
        drawn = pair.model.ancestral(4000)
    assert gap.mean().abs() < 4 * gap.std() / len(x) ** 0.5 + 1e-3
    assert drawn.square().mean().item() == pytest.approx(variance, rel=0.1)


def test_fewer_steps_without_noise_end_near_the_data() -> None:
    """The map of DDIM keeps z = Normal(0, I) on the way to the data exact for normal data, up to the size of its steps."""
    variance = 0.36
    pair = built((3,), "real", noise=pv.LinearNoise(low=-9.0, high=9.0), steps=200, likelihood=FINE, predicts="data")
    pair.model.denoiser = Exact(pair.model, variance)
    with torch.no_grad():
        errors = [abs(pair.model.drawn_in(4000, steps).var().item() - variance) for steps in (5, 100)]
    assert errors[1] < 0.25 * errors[0]


def test_the_kl_of_the_prior_vanishes_with_the_signal() -> None:
    values = [
        built(noise=pv.CosineNoise(high=high)).guide.summed_bound(BITS)[1][0].max().item() for high in (0.0, 5.0, 10.0, 14.0)
    ]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 1e-5


@pytest.mark.parametrize("noise", [pv.LinearNoise(), pv.CosineNoise(), pv.LearnedNoise()])
def test_a_schedule_rises_between_its_ends(noise: pv.NoiseSchedule) -> None:
    gamma = noise.build(-7.0).double()(torch.linspace(0, 1, 50, dtype=torch.float64))
    assert (gamma.diff() > 0).all()
    torch.testing.assert_close(gamma[[0, -1]].detach(), torch.tensor([-7.0, 5.0]).double(), rtol=1e-5, atol=1e-5)


def test_times_are_spread_over_a_batch() -> None:
    times = SpreadTimes(torch.zeros(())).expand((8,)).sample().sort().values
    torch.testing.assert_close(times.diff(), torch.full((7,), 1 / 8))


def test_every_parameter_is_trained_and_the_recorded_step_is_the_eager_step() -> None:
    fields: dict[str, Any] = {"noise": pv.LearnedNoise(), "variance": "learned", "likelihood": pv.Gaussian(), "fourier": True}
    x = (torch.rand(24, 1, 3, 4) < 0.4).float()

    def after(**options: Any) -> dict[str, Tensor]:
        pair = built((1, 3, 4), predicts="velocity", decoder=TINY, **fields).float()
        optimizer = OPTIMIZERS["adam"](pair.parameters(), 1e-2)
        step = Step(pv.ELBO().build(pair), pv.Transform((1, 3, 4)), optimizer, **options)
        before = {name: value.clone() for name, value in pair.state_dict().items()}
        torch.manual_seed(0)
        for _ in range(3):
            step(x)
        moved = {name for name, value in pair.state_dict().items() if not torch.equal(value, before[name])}
        assert moved == dict(pair.named_parameters()).keys()
        return {**pair.state_dict(), "totals": step.totals, "recorded": torch.tensor(step.way == "recorded")}

    eager, recorded = after(compile=False), after(ahead=WORTH_RECORDING)
    assert recorded.pop("recorded")
    for name, value in recorded.items():
        torch.testing.assert_close(value, eager[name], rtol=1e-5, atol=1e-6)


def test_a_fit_is_asked_for_all_that_a_diffusion_has(tmp_path: Any) -> None:
    x = (5.99 * torch.rand(40, 1, 4, 4)).floor()
    model = pv.Diffusion(steps=4, denoiser=TINY, likelihood=pv.Categorical(levels=LEVELS))
    data = pv.load_data(x.numpy(), kind="categorical", valid=0.2, test=0.2)
    fit = pv.fit(model, data, method=pv.SVI(epochs=2))
    assert fit.guide == pv.Noising()
    assert fit.history[-1]["valid_elbo"] == pytest.approx(fit.evaluate(data.valid)["elbo"], rel=1e-6)  # of few rows the sum
    numbers = fit.evaluate(x)
    assert numbers["kl"] == pytest.approx(numbers["kl_prior"] + numbers["kl_steps"])
    assert numbers["bits_per_dim"] == pytest.approx(-numbers["elbo"] / (16 * math.log(2)))
    assert numbers["elbo"] == pytest.approx(fit.score_samples(x).log_prob.mean().item(), rel=0.2)
    drawn = fit.sample(6)
    assert drawn.shape == (6, 1, 4, 4)
    assert set(drawn.unique().tolist()) <= set(range(LEVELS))
    assert fit.sample(6, steps=2).shape == drawn.shape
    with pytest.raises(ValueError, match="from 1 to 4 steps"):
        fit.sample(6, steps=5)
    with pytest.raises(ValueError, match="expected no temperature or frame for data that are drawn in steps, got one"):
        fit.sample(6, steps=2, temperature=0.5, frame="pandas")
    with pytest.raises(ValueError, match="one step of a diffusion"):
        fit.evaluate(x, gaps=True, samples=5)
    with pytest.raises(ValueError, match="one step of a diffusion"):
        fit.latents(x)
    for refused in (fit.encode, fit.reconstruct, fit.posterior):
        with pytest.raises(ValueError, match=r"no codes|no decoder"):
            refused(x)
    pv.save_run(fit, data, tmp_path / "run")
    assert (tmp_path / "run" / "samples.png").exists()
    assert pv.load_run(tmp_path / "run").evaluate(x) == numbers


def test_a_run_is_saved_with_an_estimate_where_the_sum_would_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    x = (torch.rand(400, 6) < 0.3).float()
    data = pv.load_data(x.numpy(), valid=0.0, test=0.5)
    fit = pv.fit(pv.Diffusion(steps=40, denoiser=TINY, likelihood=pv.Bernoulli()), data, method=pv.SVI(epochs=3))
    summed = fit.evaluate(data.test)
    assert measure(fit, data)["test"] == summed
    monkeypatch.setattr(assessment, "SUMMED", 200 * 40 * 6 - 1)
    with pytest.warns(FitWarning, match=r"ELBO of 200 rows is an estimate without bias, from 16 steps of each"):
        estimated = measure(fit, data)["test"]
    assert "kl_steps" not in estimated
    apart = estimated["elbo"] - summed["elbo"]
    assert 0 < abs(apart) < 4 * math.hypot(estimated["elbo_se"], summed["elbo_se"])
    assert fit.evaluate(data.test, samples=16, summed=False) == estimated


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pv.Diffusion(steps=0), "at least 1 step"),
        (lambda: pv.Diffusion(predicts="score"), "a prediction of noise, data, velocity, levels"),
        (lambda: pv.Diffusion(variance="wide"), "a variance of lower, upper, learned"),
        (lambda: pv.Diffusion(likelihood=pv.Laplace()), "expected a decoder for Laplace"),
        (lambda: pv.Diffusion(likelihood=pv.Poisson(), decoder=pv.MLP()), "a likelihood of levels, bits or numbers"),
        (lambda: pv.Diffusion(denoiser=pv.LSTM()), "a denoiser that sees all"),
        (lambda: pv.LinearNoise(low=6.0), "a low below high = 5"),
        (lambda: pv.CosineNoise(high=math.inf), "finite ends"),
        (lambda: built(noise=pv.LinearNoise(high=-9.0)), r"a high above gamma\(0\) = -2.2"),
        (lambda: built(kind="real"), "Bernoulli is a likelihood of .* these data are real"),
        (lambda: built(denoiser=Wrong()), r"output has the shape \(1, 2\) for data of shape \(2,\), got \(3,\) of Wrong"),
        (lambda: pv.build(pv.VAE(), pv.Noising(), pv.DataSpec(event_shape=(2,), kind="binary", size=9)), "use an amortized"),
    ],
)
def test_what_makes_no_diffusion_is_told_in_one_line(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("guide", [pv.AmortizedNormal(), pv.ExactPosterior(), pv.TopDown()])
def test_a_guide_of_codes_is_refused(guide: pv.Guide) -> None:
    model = pv.Diffusion(steps=2, denoiser=TINY, likelihood=pv.Bernoulli())
    with pytest.raises(ValueError, match="Noising"):
        pv.build(model, guide, pv.DataSpec(event_shape=(2,), kind="binary", size=9))


@pytest.mark.parametrize("objective", [pv.IWAE(), pv.InfoVAE()])
def test_objectives_that_need_whole_densities_or_codes_are_refused(objective: pv.Objective) -> None:
    with pytest.raises(ValueError, match=r"objective=(Beta)?ELBO"):
        objective.build(built())(BITS)


class Wrong(pv.Network):
    """Gives three numbers, whatever is asked for."""

    def build(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> nn.Module:
        return pv.MLP(hidden=()).build(in_shape, (3,))
