"""Bounds and gaps against what is exact: closed forms, enumeration, reference implementations."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.distributions import kl_divergence

import ppl_vae as pv
from ppl_vae import cli
from ppl_vae.data import Split
from ppl_vae.data.seeds import seeded_generator as noise
from ppl_vae.evaluate import metrics
from ppl_vae.evaluate.annealing import Annealed, _sandwich, annealed
from ppl_vae.evaluate.batches import bounds_of_batches, layout, pieces
from ppl_vae.evaluate.bounds import bounds, enumerated_elbo
from ppl_vae.evaluate.gaps import local_bounds
from ppl_vae.evaluate.importance import UNTRUSTED, importance_bound, pareto_k, tail_length
from ppl_vae.evaluate.numbers import numbers_of_gaps
from ppl_vae.evaluate.remarks import remarks
from ppl_vae.evaluate.schedule import spaced
from ppl_vae.evaluate.unconstrained import Latents
from ppl_vae.inference.training.start import start_pair
from ppl_vae.program import machine
from ppl_vae.program.context import local_params
from ppl_vae.types import FitWarning
from tests.table import EVENT, GUIDES, LATENT, MODELS, TINY, built, fits, guide_for, kind_for, rows, start_of, vae

CLOSE = 0.02  # nats
K, D, N = 3, 6, 40
FACTORS = pv.FactorAnalysis(latent_dim=K)
QUICK = pv.AIS(temperatures=60, chains=8, leapfrog=4)


@pytest.fixture(scope="module")
def data() -> pv.Data:
    """Rows of a factor model whose loadings are far from orthogonal."""
    generator = torch.Generator().manual_seed(1)
    mixing = torch.randn(K, D, generator=generator) + 0.7
    x = torch.randn(400, K, generator=generator) @ mixing + 0.5 * torch.randn(400, D, generator=generator)
    return pv.load_data(x.numpy(), valid=0.0, test=0.2)


@pytest.fixture(scope="module")
def factors(data: pv.Data) -> pv.inference.Fit:
    return pv.fit(FACTORS, data, method=pv.EM())


def pair_with(factors: pv.inference.Fit, guide: pv.Guide, *, angle: float = 0.3) -> pv.Pair:
    """EM's parameters in rotated coordinates, so that dimensions of the posterior depend on each other, and a fresh guide."""
    torch.manual_seed(0)
    pair = pv.build(FACTORS, guide, factors.spec)
    pair.model.load_state_dict(factors.pair.model.state_dict())
    turn = torch.linalg.matrix_exp(angle * torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]))
    with torch.no_grad():
        pair.model.decoder.layers.weight.copy_(pair.model.decoder.layers.weight @ turn)
    return pair


def closed_gap(pair: pv.Pair, x: Tensor) -> float:
    """KL of the best diagonal normal from the posterior: its precisions are the diagonal of the posterior's."""
    with torch.no_grad():
        precision = torch.linalg.inv(pair.model.posterior(x).covariance_matrix[0].double())
    return 0.5 * (precision.diagonal().log().sum() - torch.logdet(precision)).item()


# --- precision ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def noisy() -> tuple[pv.Fit, Split]:
    """A VAE of 240 dequantized rows, whose noise is drawn batch by batch, and these."""
    x = np.random.default_rng(0).integers(0, 5, (240, 8))
    data = pv.load_data(x, dequantize=True, valid=0.0, test=0.0)
    return pv.fit(pv.VAE(decoder=TINY, likelihood=pv.Gaussian()), data, method=pv.SVI(epochs=2)), data.train


def test_the_shift_of_a_precision_is_what_it_does_to_the_bound(
    noisy: tuple[pv.Fit, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    fit, rows = noisy
    monkeypatch.setattr(machine, "multiplies_bfloat16", lambda: True)
    monkeypatch.setitem(layout.__globals__, "MOST_ROWS", 60)
    exact, rounded = (fit.evaluate(rows, samples=30, precision=p) for p in ("32", "bf16"))
    monkeypatch.setattr(metrics, "SHIFT_ROWS", 240)
    of_all = fit.evaluate(rows, samples=30, precision="bf16")
    assert of_all["precision_shift"] == pytest.approx(rounded["iwae"] - exact["iwae"], abs=1e-9)
    assert 0 < abs(of_all["precision_shift"]) < 0.05
    assert 0 < abs(rounded["precision_shift"] - of_all["precision_shift"]) < 6 * rounded["precision_shift_se"]
    assert {*rounded} - {*exact} == {"precision_shift", "precision_shift_se"}


def test_a_precision_that_changes_nothing_shifts_nothing(noisy: tuple[pv.Fit, Split], monkeypatch: pytest.MonkeyPatch) -> None:
    fit, rows = noisy
    monkeypatch.setitem(layout.__globals__, "MOST_ROWS", 60)
    found = fit.evaluate(rows, precision="tf32")  # which this processor does not have
    assert found["precision_shift"] == found["precision_shift_se"] == 0.0


def test_a_cpu_without_bfloat16_products_evaluates_in_float32(
    noisy: tuple[pv.Fit, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    fit, rows = noisy
    monkeypatch.setattr(machine, "multiplies_bfloat16", lambda: False)
    exact = fit.evaluate(rows)
    with pytest.warns(FitWarning, match="no instructions for bfloat16"):
        assert fit.evaluate(rows, precision="bf16") == exact


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "16"}, "expected a precision of 32, bf16 or tf32, got '16'"),
        ({"precision": "bf16", "samples": 2, "gaps": True}, "leave them out, or precision at '32'"),
        ({"precision": "tf32", "ais": QUICK}, "leave them out, or precision at '32'"),
    ],
)
def test_precisions_that_make_no_sense_are_refused(noisy: tuple[pv.Fit, Split], options: dict, message: str) -> None:
    fit, rows = noisy
    with pytest.raises(ValueError, match=message):
        fit.evaluate(rows, **options)


# --- importance sampling --------------------------------------------------------------------------------------------------


def test_the_bound_of_many_samples_is_the_exact_log_likelihood(factors: pv.inference.Fit, data: pv.Data) -> None:
    pair = pair_with(factors, pv.AmortizedLinear(covariance="diagonal"), angle=0.1)
    start_pair(pair, data.train, seed=0, warm=["model"])
    numbers = pv.evaluate(pair, data.test, samples=1000)
    assert numbers["iwae"] == pytest.approx(numbers["log_likelihood"], abs=CLOSE)
    assert numbers["elbo"] < numbers["iwae"] - CLOSE
    assert numbers["iwae_se"] == pytest.approx(numbers["log_likelihood_se"], rel=0.05)
    assert numbers["samples"] == 1000


def test_the_bound_is_that_of_plain_log_weights() -> None:
    pair, x = built(vae()), rows("binary")
    with torch.no_grad():
        torch.manual_seed(0)
        found = bounds(pair, (x,), samples=50, weighted=True)
        torch.manual_seed(0)
        plain = bounds(pair, (x,), samples=50)
    assert found.log_weights is not None
    torch.testing.assert_close(found.terms.elbo, plain.terms.elbo)  # the same draws serve both
    expected = torch.stack([w.logsumexp(0) - math.log(50) for w in found.log_weights.double().T])
    torch.testing.assert_close(importance_bound(found.log_weights).double(), expected, rtol=1e-5, atol=1e-5)


def test_the_programs_run_once_for_all_bounds() -> None:
    pair, x = built(vae()), rows("binary")
    calls = []
    pair.guide.encoder.register_forward_hook(lambda *arguments: calls.append(1))
    with torch.no_grad():
        pair.plates(x)
        calls.clear()
        bounds(pair, (x,), samples=5, weighted=True)
    assert len(calls) == 1


def test_work_is_cut_into_even_pieces() -> None:
    split = pv.load_data(np.zeros((97 * 3, 784), np.float32), valid=0.0, test=0.0).train
    spec = pv.DataSpec(event_shape=(784,), kind="categorical", levels=1024, size=len(split))
    real = dataclasses.replace(spec, kind="real", levels=None)
    pairs = [
        pv.build(pv.VAE(decoder=pv.Linear(), likelihood=likelihood), pv.AmortizedNormal(), of)
        for likelihood, of in ((pv.Gaussian(), real), (pv.Categorical(levels=1024), spec))
    ]
    for pair, most in zip(pairs, (2**20, 2**25 // 1024), strict=True):
        for samples in (1, 7, 1000, 5001):
            cut = layout(pair, split, samples)
            assert sum(cut.draws) == samples
            assert max(cut.draws) - min(cut.draws) <= 1
            assert cut.rows * max(cut.draws) * 784 <= most
            assert sum(pieces(pair, split, samples, rows=50)) == samples
    assert len(split) % layout(pairs[0], split, 1).rows == 0


def test_pieces_do_not_change_the_bound(factors: pv.inference.Fit, data: pv.Data, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = pair_with(factors, pv.AmortizedLinear(covariance="diagonal"), angle=0.1)
    start_pair(pair, data.train, seed=0, warm=["model"])
    whole = pv.evaluate(pair, data.test, samples=300)
    monkeypatch.setitem(layout.__globals__["AT_ONCE"], "cpu", 100 * D)
    cut = pv.evaluate(pair, data.test, samples=300)
    assert layout(pair, data.test, 300).draws == (100, 100, 100)
    assert cut["elbo"] == pytest.approx(whole["elbo"], abs=1e-5)
    assert cut["iwae"] == pytest.approx(whole["iwae"], abs=CLOSE)


@pytest.mark.parametrize("k", [0.2, 0.5, 0.9, 1.4])
def test_k_hat_is_the_shape_of_the_weights_tail(k: float) -> None:
    weights = stats.genpareto(k).rvs((40000, 8), random_state=0)
    found = pareto_k(torch.from_numpy(np.log(weights)))
    expected = (tail_length(40000) * k + 5) / (tail_length(40000) + 10)
    assert found.mean().item() == pytest.approx(expected, abs=0.06)


def test_k_hat_is_that_of_the_reference_implementation() -> None:
    """Zhang and Stephens (2009) as written in Vehtari et al.'s own code, datum by datum."""
    log_weights = torch.from_numpy(2.0 * np.random.default_rng(0).standard_normal((600, 5)))
    tail = math.ceil(min(0.2 * 600, 3 * math.sqrt(600)))
    expected = []
    for column in log_weights.numpy().T:
        ordered = np.sort(column - column.max())
        x = np.exp(ordered[-tail:]) - np.exp(ordered[-tail - 1])
        grid = 30 + int(tail**0.5)
        b = 1 - np.sqrt(grid / (np.arange(1, grid + 1) - 0.5))
        b = b / (3 * x[int(tail / 4 + 0.5) - 1]) + 1 / x[-1]
        shapes = np.array([np.log1p(-one * x).mean() for one in b])
        lengths = tail * (np.log(-(b / shapes)) - shapes - 1)
        weights = 1 / np.exp(lengths - lengths[:, None]).sum(1)
        k = np.log1p(-(b * weights).sum() / weights.sum() * x).mean()
        expected.append((k * tail + 5) / (tail + 10))
    torch.testing.assert_close(pareto_k(log_weights), torch.tensor(expected, dtype=torch.float64))


def test_weights_that_are_equal_or_tied_have_no_tail() -> None:
    equal = torch.full((100, 2), -50.0) + 1e-6 * torch.randn(100, 2)
    assert (pareto_k(equal) == -math.inf).all()
    tied = torch.tensor([0.0, 1.0])[torch.arange(100) % 2][:, None]
    assert (pareto_k(tied) == -math.inf).all()
    with pytest.raises(ValueError, match="at least 25 samples"):
        pareto_k(torch.zeros(24, 1))


@pytest.mark.parametrize("spread", [10.0, 30.0, 1e3])
def test_weights_that_are_nothing_beside_the_largest_are_not_trusted(spread: float) -> None:
    generator = torch.Generator().manual_seed(0)
    assert (pareto_k(spread * torch.randn(1000, 20, generator=generator)) > UNTRUSTED).all()
    one = torch.full((100, 1), -math.inf)
    one[3] = 0.0
    assert (pareto_k(one) == math.inf).all()


def test_weights_that_are_not_to_be_trusted_are_remarked_on(data: pv.Data, factors: pv.inference.Fit) -> None:
    narrow = pair_with(factors, pv.AmortizedLinear(covariance="diagonal"))
    with torch.no_grad():
        narrow.guide.raw.fill_(-4.0)
    found = dataclasses.replace(factors, pair=narrow, guide=pv.AmortizedLinear(covariance="diagonal"))
    with pytest.warns(FitWarning, match="are not to be trusted"):
        numbers = found.evaluate(data.test, samples=1000)
    assert numbers["k_hat_bad"] > 0.5
    assert found.evaluate(data.test, samples=200)["k_hat_bad"] > 0.5  # a bound, and nothing more was asked for
    assert factors.evaluate(data.test, samples=1000)["k_hat_bad"] == 0


def shared_mean() -> pv.Pair:
    """th ~ Normal(0, 2), x_n ~ Normal(th, 1) for six data, and the exact posterior."""

    def model(x: Tensor) -> None:
        th = pyro.sample("th", dist.Normal(0.0, 2.0))
        with pyro.plate("data", 6, subsample=x):
            pyro.sample("x", dist.Normal(th, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        precision = 6 + 1 / 4
        pyro.sample("th", dist.Normal(SIX.sum() / precision, precision**-0.5))

    return pv.Pair(model, guide)


SIX = torch.tensor([4.0, 6.5, 3.0, 7.0, 5.0, 5.5])


def test_a_latent_variable_of_all_data_leaves_a_datum_no_importance_weights() -> None:
    split = pv.Split(SIX, None, pv.Transform(()))
    evidence = dist.MultivariateNormal(torch.zeros(6), 4.0 + torch.eye(6)).log_prob(SIX).item() / 6
    numbers = pv.evaluate(shared_mean(), split, samples=1000)
    assert numbers["elbo"] == pytest.approx(evidence, abs=0.01)
    assert not {"iwae", "iwae_se", "k_hat_bad", "samples"} & set(numbers)
    with pytest.raises(ValueError, match="no bound where a latent variable is shared by all data"):
        pv.evaluate(shared_mean(), split, samples=1000, gaps=True)
    parameters = pv.FactorAnalysis(latent_dim=1, loc=pv.Normal())
    data = pv.load_data(rows("real").flatten(1).numpy(), valid=0.0, test=0.5)
    pair = pv.build(parameters, pv.BayesianGuide(), data.spec)
    numbers = pv.evaluate(pair, data.test, samples=30)
    assert "log_likelihood" in numbers
    assert not {"iwae", "k_hat_bad"} & set(numbers)


# --- annealed importance sampling -----------------------------------------------------------------------------------------


def test_annealing_of_a_conjugate_model_in_one_dimension() -> None:
    """z ~ Normal(0, 1), x | z ~ Normal(z, 0.3^2): p(x) is normal."""
    scale = 0.3

    def model(x: Tensor) -> None:
        with pyro.plate("data", 5, subsample=x):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), torch.ones(())))
            pyro.sample("x", dist.Normal(z, scale), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", 5, subsample=x):
            pyro.sample("z", dist.Normal(torch.zeros(()), torch.ones(())))

    x = torch.tensor([-2.0, -0.5, 0.0, 1.0, 3.0])
    split = pv.Split(x, None, pv.Transform(()))
    exact = dist.Normal(0.0, math.sqrt(1 + scale**2)).log_prob(x).double()
    pair = pv.Pair(model, guide)
    for schedule in ("adaptive", "sigmoid", "linear"):
        ais = pv.AIS(temperatures=40, chains=200, leapfrog=3, schedule=schedule, simulated=5)  # type: ignore[arg-type]
        found = annealed(pair, split, ais)
        torch.testing.assert_close(found.columns["ais"], exact, rtol=0, atol=0.15)
        assert (found.columns["ais_acceptance"] > 0.5).all()
        assert found.sandwich["bdmc_lower"] < found.sandwich["bdmc_upper"] < found.sandwich["bdmc_lower"] + 0.5
    numbers = pv.evaluate(pair, split, ais=pv.AIS(temperatures=40, chains=200, leapfrog=3))
    assert numbers["ais"] == pytest.approx(exact.mean().item(), abs=0.05)


def test_annealing_is_within_the_sandwich_and_that_around_the_exact_value(factors: pv.inference.Fit, data: pv.Data) -> None:
    numbers = factors.evaluate(data.test, ais=pv.AIS(temperatures=200, chains=32, leapfrog=3))
    assert numbers["ais"] == pytest.approx(numbers["log_likelihood"], abs=CLOSE)
    assert numbers["bdmc_lower"] <= numbers["log_likelihood"] <= numbers["bdmc_upper"]
    assert numbers["bdmc_upper"] - numbers["bdmc_lower"] < 0.2


class Hidden(nn.Module):
    """A program that does not offer its posterior."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program

    def forward(self, x: Tensor) -> Tensor:
        return self.program(x)


def test_the_sandwich_of_simulated_data_is_around_their_log_likelihood(
    factors: pv.inference.Fit, data: pv.Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    simulated = Latents.simulated

    def remembered(self: Latents, batch: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Tensor]:
        seen.append(simulated(self, batch))
        return seen[-1]

    monkeypatch.setattr(Latents, "simulated", remembered)
    hidden = pv.Pair(Hidden(factors.pair.model), factors.pair.guide)
    found = annealed(hidden, data.test[:N], pv.AIS(temperatures=150, chains=32, leapfrog=3))
    ((x,), u), *_ = seen
    exact = factors.pair.model.log_prob(x).mean().item()
    assert found.sandwich["bdmc_lower"] <= exact <= found.sandwich["bdmc_upper"] < found.sandwich["bdmc_lower"] + 0.4
    assert u.shape == (1, N, K)


def test_a_sandwich_is_widened_by_the_spread_of_its_chains() -> None:
    """Two chains of weights 1 and 3: the mean is 2, and the variance of its logarithm 1/4."""
    log_weights = torch.tensor([[1.0], [3.0]], dtype=torch.float64).log()
    ends = _sandwich({"log_weights": log_weights, "backward": -log_weights})
    assert ends["bdmc_lower"] == pytest.approx(math.log(2) - 3 / 2)
    assert ends["bdmc_upper"] == pytest.approx(-math.log(2) + 3 / 2)


def test_colder_chains_give_looser_bounds(factors: pv.inference.Fit, data: pv.Data) -> None:
    cold, warm = (pv.AIS(temperatures=count, chains=4, leapfrog=3, simulated=0) for count in (8, 200))
    with pytest.warns(FitWarning, match="below the ELBO of .* its chains did not mix"):
        few = factors.evaluate(data.test, ais=cold, limit=N)
    many = factors.evaluate(data.test, ais=warm, limit=N)
    assert few["ais"] < many["ais"] < many["log_likelihood"] + CLOSE
    assert "bdmc_lower" not in many


@pytest.mark.parametrize("name", ["HalfNormal", "Dirichlet", "Uniform", "GaussianMixture", "LogNormal", "VampPrior"])
def test_coordinates_carry_the_prior(name: str) -> None:
    """Both halves of the tempered density, and its gradient, whatever the support of p(z)."""
    pair = built(MODELS[f"VAE-{name}"]).double()
    x = rows("binary", 5, dtype=torch.float64)
    latents = Latents(pair, (x,), 4)
    u = latents.draw((x,))
    found = latents.densities(u, x)
    values = latents.unpack(u)["z"]
    with torch.no_grad():
        prior = pair.model.prior()
        bijection = torch.distributions.biject_to(pv.guides.coordinates.unmixed(prior.support))
        z = bijection(values)
        volume = bijection.log_abs_det_jacobian(values, z)
        volume = volume.reshape(*u.shape[:2], -1).sum(-1)
        torch.testing.assert_close(found.prior, prior.log_prob(z) + volume)
        torch.testing.assert_close(found.likelihood, pair.model.decode(z).log_prob(x))
    step = 1e-5 * torch.randn_like(u)
    ahead, behind = latents.densities(u + step, x), latents.densities(u - step, x)
    for name, gradient in (("prior", found.prior_gradient), ("likelihood", found.likelihood_gradient)):
        change = (getattr(ahead, name) - getattr(behind, name)) / 2
        torch.testing.assert_close(change, (gradient * step).sum(-1), rtol=1e-4, atol=1e-8)


def test_powers_rise_from_nothing_to_one() -> None:
    for schedule in ("sigmoid", "linear", "adaptive"):
        powers = pv.AIS(schedule=schedule, temperatures=20).powers()  # type: ignore[arg-type]
        assert powers[0] == 0
        assert powers[-1] == pytest.approx(1)
        assert (np.diff(powers) > 0).all()
    even = spaced([0.0, 0.5, 1.0], [1.0, 1.0, 1.0], pv.AIS(temperatures=4))
    np.testing.assert_allclose(even, [0, 0.25, 0.5, 0.75, 1])
    dense = spaced([0.0, 0.5, 1.0], [3.0, 3.0, 1.0], pv.AIS(temperatures=100))
    assert np.diff(dense)[0] < np.diff(dense)[-1]
    assert spaced([0.0, 0.5, 1.0], [0.0, 0.0, 0.0], pv.AIS(temperatures=4)) == pv.AIS(temperatures=4).powers()


REFUSED: dict[str, tuple[pv.Model, str]] = {
    "one-hot": (MODELS["VAE-OneHotCategorical"], "z is discrete, and annealed importance sampling moves along gradients"),
    "component": (pv.GMM(components=2), "k is discrete"),
    "sphere": (MODELS["VAE-ProjectedNormal"], "no real coordinates to move in"),
    "code": (pv.AutoEncoder(latent_dim=2, decoder=TINY), "codes without p\\(z\\) have no log p\\(x\\)"),
    "parameters": (
        pv.FactorAnalysis(latent_dim=1, scale=pv.HalfNormal()),
        "is shared by all data, so log p\\(x\\) is not a mean over them",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_latent_variables_that_cannot_be_annealed(name: str) -> None:
    model, message = REFUSED[name]
    guide = pv.BayesianGuide() if name == "parameters" else None
    pair = built(model, guide)
    data = pv.load_data(rows(kind_for(model)).numpy(), valid=0.0, test=0.5)
    with pytest.raises(ValueError, match=message):
        pv.evaluate(pair, data.test, ais=QUICK)


# --- gaps -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
@pytest.mark.parametrize("kind", [pv.AmortizedLinear, pv.AmortizedNormal])
def test_gaps_are_those_of_the_closed_form(
    covariance: str, kind: type[pv.Guide], factors: pv.inference.Fit, data: pv.Data
) -> None:
    pair = pair_with(factors, kind(covariance=covariance))
    if kind is pv.AmortizedLinear:
        start_pair(pair, data.train, seed=0, warm=["model"])
        with torch.no_grad():  # an encoder that is off, and too wide
            pair.guide.bias.add_(0.2)
            pair.guide.raw.add_(torch.eye(K) * 0.3 if covariance == "full" else 0.3)
    x = data.test.transformed()
    numbers = pv.evaluate(pair, data.test, gaps=True)
    expected = closed_gap(pair, x) if covariance == "diagonal" else 0.0
    with torch.no_grad():
        total = kl_divergence(pair.guide.posterior(x), pair.model.posterior(x)).mean().item()
    assert (expected > 0.1) == (covariance == "diagonal")
    assert numbers["approximation_gap"] == pytest.approx(expected, abs=CLOSE)
    assert numbers["amortization_gap"] == pytest.approx(total - expected, abs=CLOSE)
    assert numbers["amortization_gap"] > 0.05
    assert numbers["gap"] == pytest.approx(numbers["approximation_gap"] + numbers["amortization_gap"], abs=1e-6)
    assert numbers["gap_reference"] == "log_likelihood"
    for name in ("approximation_gap", "amortization_gap", "local_elbo"):
        assert numbers[f"{name}_se"] >= 0


def test_the_exact_posterior_has_no_gaps(factors: pv.inference.Fit, data: pv.Data) -> None:
    numbers = factors.evaluate(data.test, gaps=True)
    assert numbers["approximation_gap"] == pytest.approx(0, abs=1e-9)
    assert numbers["amortization_gap"] == 0


GAPPED = {name: guide for name, guide in GUIDES.items() if fits(vae(), guide) and not isinstance(guide, pv.AmortizedDelta)}
QUICK_GAPS = pv.Gaps(samples=8, window=10, max_steps=30)


@pytest.mark.parametrize("name", GAPPED)
def test_the_best_local_q_is_better_than_the_encoders(name: str) -> None:
    pair = built(vae(likelihood=pv.Gaussian(scale="fixed", value=0.3)), GAPPED[name])
    data = pv.load_data(rows("real").numpy(), valid=0.0, test=0.5)
    numbers = pv.evaluate(pair, data.test, samples=200, gaps=QUICK_GAPS)
    assert numbers["amortization_gap"] > 0.5  # of an encoder that was never trained
    assert numbers["gap_reference"] in ("iwae", "local_iwae")
    assert numbers["local_elbo"] == pytest.approx(numbers["elbo"] + numbers["amortization_gap"])
    assert numbers["local_iwae"] > numbers["local_elbo"] - 0.05


def test_a_gap_is_counted_from_the_tightest_bound_or_not_told() -> None:
    """From an encoder that was never trained importance sampling finds less than the best q's ELBO."""
    pair = built(vae(likelihood=pv.Gaussian(scale="fixed", value=0.05)), pv.AmortizedNormal(encoder=TINY))
    data = pv.load_data(rows("real").numpy(), valid=0.0, test=0.5)
    numbers = pv.evaluate(pair, data.test, samples=100, gaps=pv.Gaps(max_steps=400))
    assert numbers["iwae"] < numbers["local_elbo"] - 1  # the gap from it would be negative
    assert numbers["gap_reference"] == "local_iwae"
    told = numbers["approximation_gap"]
    assert numbers["approximation_gap_at_least" if told is None else "approximation_gap"] > 0
    assert (told is None) == (numbers["local_k_hat_bad"] > 0.1)


K_HAT = {"trusted": (0.0, 0.2), "untrusted": (0.9, None)}


@pytest.mark.parametrize(("k_hat", "expected"), K_HAT.values(), ids=K_HAT)
def test_a_gap_from_weights_that_are_not_to_be_trusted_is_not_told(k_hat: float, expected: float | None) -> None:
    bounds = {"elbo": -3.0, "iwae": -2.5, "local_elbo": -2.0, "local_iwae": -1.8, "k_hat": 0.9, "local_k_hat": k_hat}
    columns = {name: torch.full((5,), value, dtype=torch.float64) for name, value in bounds.items()}
    numbers = numbers_of_gaps(columns, 0.0, {})
    assert numbers["approximation_gap"] == (None if expected is None else pytest.approx(expected))
    assert numbers["amortization_gap"] == pytest.approx(1.0)
    assert numbers["gap_reference"] == "local_iwae"
    told = list(remarks(numbers, samples=100))
    assert len(told) == (expected is None)
    if expected is None:
        assert numbers["approximation_gap_at_least"] == pytest.approx(0.2)
        assert "the weights of 100 % of the data are not to be trusted, so it is at least 0.20" in told[0]


def test_a_loose_sandwich_tells_no_gap() -> None:
    columns = {name: torch.full((5,), value) for name, value in {"elbo": -3.0, "local_elbo": -2.0, "ais": -1.5}.items()}
    tight, loose = ({"simulated": {"bdmc_lower": -2.0, "bdmc_upper": -2.0 + width, "n": 5}} for width in (0.1, 0.7))
    assert numbers_of_gaps(columns, 0.0, tight)["approximation_gap"] == pytest.approx(0.5)
    assert numbers_of_gaps(columns, 0.0, loose)["approximation_gap"] is None


SPECIAL = {
    "sphere": MODELS["VAE-ProjectedNormal"],
    "simplex": MODELS["VAE-Dirichlet"],
    "one-hot": MODELS["VAE-OneHotCategorical"],
}


@pytest.mark.parametrize("name", SPECIAL)
def test_local_qs_of_other_latent_variables(name: str) -> None:
    model = SPECIAL[name]
    pair = built(model, guide_for(model))
    data = pv.load_data(rows("binary").numpy(), valid=0.0, test=0.5)
    known = torch.zeros(len(data.test), dtype=torch.float64)
    found = local_bounds(pair, data.test, dataclasses.replace(QUICK_GAPS, learning_rate=0.1, max_steps=60), known=known)[
        "local_elbo"
    ]
    assert found.mean().item() > pv.evaluate(pair, data.test, samples=200)["elbo"]


def test_local_qs_of_labelled_data() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(60, 4, generator=generator).round(), torch.arange(60) % 3
    model = pv.CVAE(latent_dim=2, decoder=TINY)
    data = pv.load_data(x.numpy(), y=y.numpy(), valid=0.0, test=0.5)
    fitted = pv.fit(model, data, guide=pv.AmortizedNormal(encoder=TINY), method=pv.SVI(epochs=1))
    numbers = fitted.evaluate(data.test, samples=20, gaps=QUICK_GAPS, ais=dataclasses.replace(QUICK, simulated=10))
    assert numbers["gap_reference"] in ("iwae", "local_iwae", "ais")
    assert numbers["simulated"]["bdmc_lower"] < numbers["simulated"]["bdmc_upper"]
    assert numbers["simulated"]["n"] == 10


def test_a_categorical_q_is_found_by_summing_over_its_values() -> None:
    """All its values have the posterior as the best q, whose ELBO is log p(x)."""
    pair = built(MODELS["VAE-OneHotCategorical"], pv.AmortizedCategorical(encoder=TINY))
    x = rows("binary")
    with torch.no_grad(), local_params():
        z = torch.eye(LATENT)
        joint = pair.model.prior().log_prob(z) + pair.model.decode(z).log_prob(x[:, None])
        q = pair.guide.posterior(x).probs
        torch.testing.assert_close(enumerated_elbo(pair, (x,)), (q * (joint - q.log())).sum(1))
    split = pv.load_data(x.numpy(), valid=0.0, test=0.0).train
    gaps = pv.Gaps(learning_rate=0.3, tolerance=1e-4, window=30)
    found = local_bounds(pair, split, gaps, known=torch.zeros(len(split)), samples=1)["local_elbo"]
    torch.testing.assert_close(found.float(), joint.logsumexp(1)[: len(found)], atol=1e-3, rtol=0)


def test_gaps_need_a_log_p_of_x_and_a_density() -> None:
    data = pv.load_data(rows("binary").numpy(), valid=0.0, test=0.5)
    with pytest.raises(ValueError, match="gaps are counted from log p\\(x\\), which this model does not know"):
        pv.evaluate(built(vae()), data.test, gaps=True)
    with pytest.raises(ValueError, match="a point in place of a posterior has no gaps"):
        pv.evaluate(built(vae(), GUIDES["AmortizedDelta"]), data.test, gaps=True, samples=10)
    plain = pv.Pair(built(vae()).model, lambda x: None)
    plain.guide.posterior = None
    with pytest.raises(ValueError, match="a guide's `local` parameters, which this one does not tell"):
        local_bounds(plain, data.test, pv.Gaps(), known=torch.zeros(1))


# --- points ---------------------------------------------------------------------------------------------------------------


def test_points_have_no_elbo() -> None:
    data = pv.load_data(rows("binary").numpy(), valid=0.25, test=0.25)
    fitted = pv.fit(vae(), data, guide=GUIDES["AmortizedDelta"], method=pv.SVI(epochs=2, patience=2))
    assert {"log_joint", "reconstruction", "valid_log_joint"} <= set(fitted.history[-1])
    assert not {"elbo", "kl", "valid_elbo", "valid_kl"} & set(fitted.history[-1])
    for samples in (1, 50):
        numbers = fitted.evaluate(data.test, samples=samples)
        assert set(numbers) == {"log_joint", "log_joint_se", "reconstruction", "n"}
    with torch.no_grad():
        x = fitted.seen(data.test)
        z = fitted.pair.guide.posterior(x).mean
        expected = fitted.pair.model.prior().log_prob(z) + fitted.pair.model.decode(z).log_prob(x)
    assert numbers["log_joint"] == pytest.approx(expected.mean().item(), rel=1e-5)
    assert "log p(x, z)" in str(fitted)
    assert "ELBO" not in str(fitted)
    with pytest.raises(ValueError, match="fits are compared by log p"):
        pv.compare(vae(), data, methods=[pv.SVI(epochs=1)], guides=[GUIDES["AmortizedDelta"]])


def test_a_point_of_a_model_that_knows_log_p_of_x_keeps_it(factors: pv.inference.Fit, data: pv.Data) -> None:
    numbers = pv.evaluate(pair_with(factors, pv.AmortizedDelta(encoder=TINY)), data.test)
    assert numbers["log_likelihood"] == pytest.approx(factors.evaluate(data.test)["log_likelihood"], abs=1e-4)
    assert not {"elbo", "gap"} & set(numbers)


# --- missing entries ------------------------------------------------------------------------------------------------------

SCALES = torch.tensor([0.1, 1.0, 3.0, 20.0])


def gapped(n: int = 60, **options: object) -> pv.Data:
    """Correlated rows in which a third of the entries is missing, in units that differ by column."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(n, 1, generator=generator) + 0.5 * torch.randn(n, 4, generator=generator)
    x = (SCALES * x).masked_fill(torch.rand(n, 4, generator=generator) < 0.3, math.nan)
    return pv.load_data(x.numpy(), missing="ignore", test=0.3, **options)  # type: ignore[arg-type]


def jacobians(split: pv.Split) -> Tensor:
    """log |dx / dx_raw| of the observed entries of each datum, entry by entry."""
    scale = split.transform.scale.double().expand(split.event_shape)
    return torch.stack([-scale[~row.isnan()].log().sum() for row in split.x])


@pytest.mark.parametrize("scale", ["none", "standardize", "unit"])
def test_the_exact_log_likelihood_of_observed_entries_is_in_the_units_of_the_source(scale: str) -> None:
    data = gapped(scale=scale)
    fitted = pv.fit(pv.FactorAnalysis(latent_dim=1), data, method=pv.EM())
    model, transform = fitted.pair.model, data.test.transform
    with torch.no_grad():
        weights, loc = model.decode(torch.eye(1)).mean - model.decode(torch.zeros(1, 1)).mean, model.decode(torch.zeros(1)).mean
        variance = model.decode(torch.zeros(1)).variance
    unit = transform.scale.expand(4).double()
    covariance = unit[:, None] * (weights.T @ weights + variance.reshape(4).diag()).double() * unit
    mean = (transform.loc + unit * loc.reshape(4)).double()

    def exact(split: pv.Split) -> Tensor:
        seen = [~row.isnan() for row in split.x]
        parts = zip(split.x.double(), seen, strict=True)
        return torch.stack([dist.MultivariateNormal(mean[o], covariance[o][:, o]).log_prob(row[o]) for row, o in parts])

    expected = exact(data.test)
    numbers = fitted.evaluate(data.test)
    assert numbers["log_likelihood"] == pytest.approx(expected.mean().item(), abs=1e-4)
    assert numbers["log_likelihood_se"] == pytest.approx(expected.std(correction=0).item() / len(expected) ** 0.5, abs=1e-4)
    assert fitted.history[-1]["log_likelihood"] == pytest.approx(exact(data.train).mean().item(), abs=1e-3)
    climb = pv.compare(pv.FactorAnalysis(latent_dim=1), data, methods=[pv.EM(max_iterations=3)]).trajectories[0][0]
    assert climb[-1][1] == pytest.approx(climb[0][1], abs=1.0)


def test_every_bound_has_the_constant_of_the_entries_that_are_observed() -> None:
    """The model sees the same rows, once as they are and once scaled."""
    scaled = gapped(scale="standardize")
    model = pv.VAE(latent_dim=1, decoder=TINY, likelihood=pv.Masked())
    fitted = pv.fit(model, scaled, guide=pv.AmortizedNormal(encoder=TINY), method=pv.SVI(epochs=2))
    plain = scaled.test.under(pv.Transform((4,)))
    plain.raw = scaled.test.transformed()
    everything = {"samples": 30, "gaps": QUICK_GAPS, "ais": dataclasses.replace(QUICK, simulated=5)}
    numbers, seen = (pv.evaluate(fitted.pair, split, **everything) for split in (scaled.test, plain))  # type: ignore[arg-type]
    expected = jacobians(scaled.test)
    assert expected.std() > 0.5
    for name in ("elbo", "reconstruction", "iwae", "ais", "local_elbo"):
        assert numbers[name] == pytest.approx(seen[name] + expected.mean().item(), abs=1e-4), name
    for name in ("bdmc_lower", "bdmc_upper"):
        ends = numbers["simulated"][name], seen["simulated"][name] + expected[:5].mean().item()
        assert ends[0] == pytest.approx(ends[1], abs=1e-4), name
    for name in ("kl", "amortization_gap", "amortization_gap_se"):
        assert numbers[name] == pytest.approx(seen[name], abs=1e-6), name
    assert numbers["elbo_se"] != pytest.approx(seen["elbo_se"], rel=1e-2)
    assert fitted.history[-1]["valid_elbo"] == pytest.approx(pv.evaluate(fitted.pair, scaled.valid)["elbo"])


def test_the_history_has_the_constant_of_the_entries_that_are_observed() -> None:
    scaled = gapped(scale="standardize")
    seen = scaled.train.transformed()
    model = pv.VAE(latent_dim=1, decoder=TINY, likelihood=pv.Masked())
    rows = [
        pv.fit(model, data, guide=pv.AmortizedNormal(encoder=TINY), method=pv.SVI(epochs=1)).history[-1]
        for data in (
            dataclasses.replace(scaled, valid=scaled.valid[:0]),
            dataclasses.replace(scaled, valid=scaled.valid[:0], train=pv.Split(seen, None, pv.Transform((4,)))),
        )
    ]
    for name in ("objective", "elbo", "reconstruction"):
        assert rows[0][name] == pytest.approx(rows[1][name] + jacobians(scaled.train).mean().item(), abs=1e-4), name


def test_bits_per_dim_counts_the_entries_that_are_observed() -> None:
    gaps = torch.rand(N, *EVENT, generator=torch.Generator().manual_seed(0)) < 0.3
    x = rows("count", N).masked_fill(gaps, math.nan)
    data = pv.load_data(x.numpy(), dequantize=True, scale="standardize", missing="ignore")
    fitted = pv.fit(vae(likelihood=pv.Masked()), data, method=pv.SVI(epochs=1))
    numbers = fitted.evaluate(data.test)
    observed = (~data.test.x.isnan()).flatten(1).sum(1).double().mean().item()
    assert numbers["bits_per_dim"] == pytest.approx(-numbers["elbo"] / observed / math.log(2))


def test_the_sandwich_of_incomplete_data_is_of_data_that_miss_the_same_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a linear decoder p(x) of any entries is normal."""
    found = []
    simulated = Latents.simulated
    monkeypatch.setattr(Latents, "simulated", lambda *given: found.append(simulated(*given)) or found[-1])
    data = gapped(scale="standardize")
    likelihood = pv.Masked(likelihood=pv.Gaussian(scale="fixed", value=0.5))
    torch.manual_seed(0)
    pair = pv.build(pv.VAE(latent_dim=1, decoder=pv.Linear(), likelihood=likelihood), pv.AmortizedNormal(), data.spec)
    sandwich = annealed(pair, data.test, pv.AIS(temperatures=100, chains=32, leapfrog=3)).sandwich
    ((x,), _), *_ = found
    assert torch.equal(x.isnan(), data.test.x.isnan())
    with torch.no_grad():
        loc = pair.model.decode(torch.zeros(1)).mean
        weight = pair.model.decode(torch.ones(1)).mean - loc
    covariance = torch.outer(weight, weight) + 0.25 * torch.eye(4)
    parts = [(row[o], dist.MultivariateNormal(loc[o], covariance[o][:, o])) for row, o in zip(x, ~x.isnan(), strict=True)]
    exact = sum(p.log_prob(row).item() for row, p in parts if len(row)) / len(x)
    assert sandwich["bdmc_lower"] <= exact <= sandwich["bdmc_upper"] < sandwich["bdmc_lower"] + 0.3


# --- the whole ------------------------------------------------------------------------------------------------------------


def test_evaluating_with_everything_changes_nothing() -> None:
    pair = built(vae()).train()
    data = pv.load_data(rows("binary").numpy(), valid=0.0, test=0.5)
    before = {name: value.clone() for name, value in pair.state_dict().items()}

    def states() -> list[Tensor]:
        numpy = np.random.get_state()[1].astype(np.int64)  # type: ignore[index,union-attr]  # noqa: NPY002
        other = [torch.from_numpy(numpy), torch.tensor(random.getstate()[1])]
        cuda = [torch.cuda.get_rng_state()] if torch.cuda.is_available() else []
        return [torch.get_rng_state(), *other, *cuda]

    was = states()
    everything = {"samples": 30, "gaps": QUICK_GAPS, "ais": QUICK, "limit": 7}
    first = pv.evaluate(pair, data.test, **everything)  # type: ignore[arg-type]
    assert pv.evaluate(pair, data.test, **everything) == first  # type: ignore[arg-type]
    assert pv.evaluate(pair, data.test, **everything, seed=1) != first  # type: ignore[arg-type]
    assert all(torch.equal(a, b) for a, b in zip(states(), was, strict=True))
    assert pair.training
    assert all(torch.equal(value, before[name]) for name, value in pair.state_dict().items())
    assert all(parameter.grad is None for parameter in pair.parameters())
    assert first["n"] == 7


def test_recording_changes_no_number() -> None:
    pair = built(vae())
    data = pv.load_data(rows("binary").numpy(), valid=0.0, test=0.5)
    everything = {"samples": 30, "gaps": QUICK_GAPS, "ais": QUICK}
    eager = pv.evaluate(pair, data.test, **everything, compile=False)  # type: ignore[arg-type]
    recorded = pv.evaluate(pair, data.test, **everything)  # type: ignore[arg-type]
    for one, other in ((recorded, eager), (recorded.pop("simulated"), eager.pop("simulated"))):
        assert {name: value for name, value in one.items() if name != "gap_reference"} == pytest.approx(
            {name: value for name, value in other.items() if name != "gap_reference"}, rel=1e-3, abs=1e-3
        )


def test_every_bound_is_of_the_same_noise() -> None:
    """A family that holds the posterior has no gaps, unless their sides are of other draws of the noise."""
    data = pv.load_data(rows("count", N).flatten(1).numpy().astype(np.uint8), dequantize=True, valid=0.0, test=0.0)
    torch.manual_seed(0)
    pair = pv.build(pv.FactorAnalysis(latent_dim=1), pv.AmortizedLinear(), data.spec)
    pair.guide.start_fit(start_of(data.train, model=pair.model))
    numbers = pv.evaluate(pair, data.train, gaps=True, ais=QUICK, limit=6)
    assert numbers["approximation_gap"] == pytest.approx(0, abs=1e-2)
    assert numbers["amortization_gap"] == pytest.approx(0, abs=1e-2)
    assert numbers == pv.evaluate(pair, data.train[:6].fixed(noise(0, 3)), gaps=True, ais=QUICK)
    assert numbers["elbo"] != pv.evaluate(pair, data.train, gaps=True, limit=6, seed=1)["elbo"]


@pytest.mark.parametrize("name", ["iwae", "ais", "local ELBO"])
def test_a_bound_that_is_not_finite_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = pv.load_data(rows("binary").numpy(), valid=0.0, test=0.5)
    nan = torch.full((len(data.test),), math.nan, dtype=torch.float64)
    found = {"ais": ("annealed", Annealed({"ais": nan}, {}, 0)), "local ELBO": ("local_bounds", {"local_elbo": nan})}
    if name == "iwae":
        monkeypatch.setitem(bounds_of_batches.__globals__, "importance_bound", lambda log_weights: nan)
    for function, value in found.values():
        monkeypatch.setitem(pv.evaluate.__globals__, function, lambda *args, value=value, **options: value)
    with pytest.raises(FloatingPointError, match=f"the {name} of 12 of 12 data is not finite"):
        pv.evaluate(built(vae()), data.test, samples=2, ais=name == "ais", gaps=name == "local ELBO")


def test_a_table_is_read_by_its_names_and_texts() -> None:
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    frame = pandas.DataFrame({"town": rng.choice(list("ABC"), 60, p=[0.6, 0.3, 0.1]), "x": rng.normal(size=60)})
    fitted = pv.fit(pv.VAE(latent_dim=1, likelihood=pv.Auto()), frame, method=pv.SVI(epochs=1))
    other = frame.astype({"town": pandas.CategoricalDtype(list("CBA"))})[["x", "town"]]
    same, turned = (pv.load_data(each, valid=0.0, test=0.0).train for each in (frame, other))
    assert pv.evaluate(fitted.pair, turned) == pv.evaluate(fitted.pair, same)
    unknown = pv.load_data(frame.replace("A", "Z"), valid=0.0, test=0.0).train
    with pytest.raises(ValueError, match="expected in column 'town' one of A, B, C, got 'Z'"):
        pv.evaluate(fitted.pair, unknown)


def test_images_of_bits_levels_and_counts_have_bits_per_dim() -> None:
    x = rows("categorical", N)
    model = vae(likelihood=pv.Categorical(levels=6))
    fitted = pv.fit(model, pv.load_data(x.numpy(), kind="categorical"), method=pv.SVI(epochs=1))
    numbers = fitted.evaluate(x, samples=20)
    dimensions = math.prod(x.shape[1:])
    assert numbers["bits_per_dim"] == pytest.approx(-numbers["iwae"] / dimensions / math.log(2))
    counts = pv.fit(vae(likelihood=pv.Poisson()), pv.load_data(rows("count", N).numpy()), method=pv.SVI(epochs=1))
    numbers = counts.evaluate(rows("count", N))
    assert numbers["bits_per_dim"] == pytest.approx(-numbers["elbo"] / dimensions / math.log(2))
    assert numbers["bits_per_dim_se"] > 0
    bits = pv.fit(vae(), pv.load_data(rows("binary", N).numpy()), method=pv.SVI(epochs=1)).evaluate(rows("binary", N))
    assert bits["bits_per_dim"] == pytest.approx(-bits["elbo"] / dimensions / math.log(2))


def test_nothing_to_anneal_is_said() -> None:
    def model(x: Tensor) -> None:
        with pv.data_plate(N, x):
            pyro.sample("x", dist.Normal(0.0, 1.0).expand([3]).to_event(1), obs=x)

    data = pv.load_data(np.random.default_rng(0).standard_normal((N, 3)), valid=0.0, test=0.5)
    with pytest.raises(ValueError, match="no latent variable to anneal"):
        pv.evaluate(pv.Pair(model, lambda x: None, mean_field=False), data.test, ais=True)


def test_gaps_on_the_command_line_bring_the_samples_that_they_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("data.npy", rows("binary", 60).numpy())
    guide = ["--guide", "AmortizedNormal", "--guide.encoder.hidden", "[5]"]
    small = ["--model.latent_dim", "2", "--model.decoder.hidden", "[5]", *guide]
    assert cli.main(["fit", "--data", "data.npy", *small, "--method.epochs", "1", "--quiet", "--out", "run"]) == 0
    capsys.readouterr()
    assert cli.main(["evaluate", "run", "--gaps", "--search.max_steps", "50", "--json"]) == 0
    numbers = json.loads(capsys.readouterr().out)["test"]
    assert numbers["samples"] == 1000
    assert numbers["gap_reference"] in ("iwae", "local_iwae")
    assert numbers["approximation_gap"] > 0
    say = ["evaluate", "run", "--ais", "--annealing.temperatures", "8", "--annealing.simulated", "5", "--save", "--json"]
    assert cli.main(say) == 0
    content = json.loads(capsys.readouterr().out)
    assert "bdmc_lower" not in content["test"]  # which are of simulated data
    assert content["simulated"]["bdmc_lower"] < content["simulated"]["bdmc_upper"]
    assert content["simulated"]["n"] == 5
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["simulated"] == content["simulated"]


def test_a_limit_takes_the_first_data(factors: pv.inference.Fit, data: pv.Data) -> None:
    assert factors.evaluate(data.test, limit=5) == factors.evaluate(data.test[:5])
    with pytest.raises(ValueError, match="a limit of at least 1 datum, got 0"):
        factors.evaluate(data.test, limit=0)


def test_the_verb_prints_every_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, data: pv.Data
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("data.npy", data.train.x.numpy())
    fit = ["fit", "--model", "FactorAnalysis", "--model.latent_dim", "3", "--method", "EM", "--data", "data.npy", "--quiet"]
    assert cli.main([*fit, "--out", "run"]) == 0
    say = ["evaluate", "run", "--samples", "100", "--gaps", "--ais", "--n", "20", "--annealing.temperatures", "100"]
    capsys.readouterr()
    assert cli.main([*say, "--annealing.leapfrog", "3", "--json"]) == 0
    numbers = json.loads(capsys.readouterr().out)["test"]
    means = ("elbo", "iwae", "log_likelihood", "ais", "approximation_gap", "amortization_gap", "local_elbo")
    assert {*means, *(f"{name}_se" for name in means), "bdmc_lower", "bdmc_upper", "k_hat_bad"} <= set(numbers)
    assert numbers["n"] == 20
    assert cli.main(["evaluate", "run", "--samples", "100", "--gaps", "--search.max_steps", "100"]) == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("amortization_gap", "standard error", "iwae", "log_likelihood"))


DECLARATIONS: dict[str, tuple[Callable, str]] = {
    "no chain": (lambda: pv.AIS(chains=0), "at least 1 chain, got 0"),
    "one chain": (lambda: pv.AIS(chains=1), "at least 2 chains, whose spread widens the sandwich, or simulated=0, got 1"),
    "no leap": (lambda: pv.AIS(leapfrog=0), "at least 1 leapfrog step, got 0"),
    "one temperature": (lambda: pv.AIS(temperatures=1), "at least 2 temperatures, got 1"),
    "schedule": (lambda: pv.AIS(schedule="cosine"), "a schedule of adaptive, sigmoid, linear, got 'cosine'"),  # type: ignore[arg-type]
    "simulated": (lambda: pv.AIS(simulated=-1), "0 simulated data or more, got -1"),
    "no sample": (lambda: pv.Gaps(samples=0), "at least 1 sample, got 0"),
    "rate": (lambda: pv.Gaps(learning_rate=0.0), "a positive learning_rate, got 0.0"),
    "window": (lambda: pv.Gaps(window=0), "a window of at least 1 step, got 0"),
    "tolerance": (lambda: pv.Gaps(tolerance=-1.0), "a tolerance of at least 0, got -1.0"),
    "steps": (lambda: pv.Gaps(max_steps=3), "max_steps of at least one window, got 3"),
}


@pytest.mark.parametrize("name", DECLARATIONS)
def test_bad_declarations(name: str) -> None:
    build, message = DECLARATIONS[name]
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("model", [pv.GMM(components=2), pv.PPCA(latent_dim=1), pv.FactorAnalysis(latent_dim=1)])
def test_weights_under_an_exact_posterior_are_log_p_with_missing_entries_too(model: pv.Model) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(120, 3, generator=generator) @ torch.randn(3, 3, generator=generator)
    x[torch.rand(x.shape, generator=generator) < 0.1] = torch.nan
    data = pv.load_data(x, missing="ignore")
    found = pv.fit(model, data).evaluate(data.test, samples=3)
    assert found["iwae"] == found["log_likelihood"]
    assert found["iwae_se"] == pytest.approx(found["log_likelihood_se"])
