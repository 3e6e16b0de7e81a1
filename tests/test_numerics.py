"""Float32 against float64 where numbers are hard: large counts, tiny and huge scales, edges, nearly singular covariances."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from scipy import special, stats
from torch import Tensor

import ppl_vae as pv
from ppl_vae.likelihoods.low_rank_gaussian import LowRankNormal
from ppl_vae.likelihoods.negative_binomial import NegativeBinomialDistribution
from ppl_vae.stable import (
    LowRankMultivariateNormal,
    StudentT,
    log_beta,
    log_binomial,
    log_dirichlet,
    log_gamma_ratio,
    log_poisson,
)
from tests.table import LIKELIHOODS, built_prior

SCALES = (1e-6, 1e-3, 1.0, 1e3, 1e6)
COUNTS = (0.0, 1.0, 49.0, 50.0, 1e3, 1e6)


def both(density: Callable[..., Tensor], *arguments: float) -> tuple[np.ndarray, np.ndarray]:
    """A log-density in float32 and in float64, at arguments that float32 holds."""
    single = [torch.tensor(argument, dtype=torch.float32) for argument in arguments]
    return density(*single).double().numpy(), density(*(argument.double() for argument in single)).numpy()


# --- counts ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("x", COUNTS)
@pytest.mark.parametrize("ratio", [1e-6, 0.5, 0.999, 1.0, 1.001, 2.0, 1e3])
def test_a_poisson_keeps_its_digits(x: float, ratio: float) -> None:
    log_rate = math.log(max(x, 1.0) * ratio)
    single, double = both(log_poisson, x, log_rate)
    rate = torch.tensor(log_rate).double().exp().item()
    assert double == pytest.approx(stats.poisson(rate).logpmf(x), rel=1e-9, abs=1e-8)
    assert single == pytest.approx(double, rel=1e-5, abs=1e-2)


def test_probabilities_of_large_counts_sum_to_one_in_float32() -> None:
    million, deviation = 1e6, 1e3
    x = torch.arange(million - 8 * deviation, million + 8 * deviation)
    assert log_poisson(x, torch.tensor(million).log()).exp().sum().item() == pytest.approx(1, abs=2e-3)
    half = torch.tensor(-math.log(2))
    assert log_binomial(x, 2e6 - x, half, half).exp().sum().item() == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize(("x", "y"), list(itertools.combinations_with_replacement(COUNTS, 2)))
@pytest.mark.parametrize("logit", [-30.0, -14.0, 0.0, 0.001, 14.0])
def test_a_binomial_keeps_its_digits(x: float, y: float, logit: float) -> None:
    def density(x: Tensor, y: Tensor, logit: Tensor) -> Tensor:
        return log_binomial(x, y, torch.nn.functional.logsigmoid(logit), torch.nn.functional.logsigmoid(-logit))

    single, double = both(density, x, y, logit)
    h = torch.tensor(logit).double().item()
    expected = -np.log(x + y + 1) - special.betaln(x + 1, y + 1) + x * -np.logaddexp(0, -h) + y * -np.logaddexp(0, h)
    assert double == pytest.approx(expected, rel=1e-8, abs=1e-7)
    assert single == pytest.approx(double, rel=1e-5, abs=1e-2)


@pytest.mark.parametrize("r", [0.01, 2.0, 100.0, 1e6])
@pytest.mark.parametrize("x", COUNTS)
@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0])
def test_a_negative_binomial_keeps_its_digits(r: float, x: float, ratio: float) -> None:
    def density(x: Tensor, log_mean: Tensor, r: Tensor) -> Tensor:
        return NegativeBinomialDistribution(log_mean, r).log_prob(x)

    single, double = both(density, x, math.log(max(x, 1.0) * ratio), r)
    assert single == pytest.approx(double, rel=1e-5, abs=1e-2)


def test_gradients_of_large_counts_are_those_of_float64() -> None:
    for x, ratio in itertools.product(COUNTS, (0.5, 1.0, 2.0)):
        slopes = []
        for dtype in (torch.float32, torch.float64):
            h = torch.tensor(math.log(max(x, 1.0) * ratio), dtype=torch.float32).to(dtype).requires_grad_()
            log_poisson(torch.tensor(x, dtype=dtype), h).backward()
            slopes.append(h.grad.item())
        assert slopes[0] == pytest.approx(slopes[1], rel=1e-4, abs=1e-5 * max(x, 1.0))


@pytest.mark.parametrize("a", [0.5, 50.0, 1e6])
@pytest.mark.parametrize("b", [0.01, 1.0, 1e5])
def test_log_gamma_ratios_are_scipys(a: float, b: float) -> None:
    a64, b64 = torch.tensor(a).double(), torch.tensor(b).double()
    expected = special.gammaln((a64 + b64).item()) - special.gammaln(a64.item())
    assert log_gamma_ratio(a64 + b64, a64, b64).item() == pytest.approx(expected, rel=1e-9, abs=1e-8)
    a32, b32 = torch.tensor(a), torch.tensor(b)
    assert log_gamma_ratio(a32 + b32, a32, b32).item() == pytest.approx(expected, rel=1e-5, abs=1e-4)


# --- densities on an interval ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (0.3, 2.0), (49.0, 51.0), (60.0, 1e5), (1e6, 1e6)])
@pytest.mark.parametrize("t", [1e-6, 0.01, 0.5, 0.999])
def test_a_beta_keeps_its_digits(a: float, b: float, t: float) -> None:
    def density(t: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return log_dirichlet(torch.stack([t.log(), torch.log1p(-t)], -1), torch.stack([a, b], -1))

    def alone(t: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return log_beta(t.log(), torch.log1p(-t), a, b)

    single, double = both(density, t, a, b)
    for found, expected in zip(both(alone, t, a, b), (single, double), strict=True):
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-5)
    t64 = torch.tensor(t).double().item()
    assert double == pytest.approx(stats.beta(torch.tensor(a).item(), torch.tensor(b).item()).logpdf(t64), rel=1e-8, abs=1e-7)
    assert single == pytest.approx(double, rel=1e-5, abs=1e-3)


def test_the_dirichlet_of_large_concentrations_is_scipys() -> None:
    for a in ([60.0, 70.0, 80.0], [1e5, 2e5, 3e5], [1.0, 200.0, 0.5]):
        x = np.array(a) / np.sum(a)
        expected = stats.dirichlet(a).logpdf(x)
        for dtype, digits in ((torch.float64, 1e-7), (torch.float32, 1e-2)):
            found = log_dirichlet(torch.tensor(x, dtype=dtype).log(), torch.tensor(a, dtype=dtype))
            assert found.item() == pytest.approx(expected, rel=1e-5, abs=digits)


ON_THE_EDGE = {
    "ContinuousBernoulli": (pv.ContinuousBernoulli(), [(h,) for h in (-90.0, -1.0, -1e-7, 0.0, 1e-4, 0.5, 0.501, 90.0)]),
    "Beta": (pv.Beta(), [(h, c) for h in (-20.0, 0.0, 20.0) for c in (-50.0, 0.0, 1e5)]),
    "LogitNormal": (pv.LogitNormal(scale="amortized"), [(h, s) for h in (-30.0, 0.0, 30.0) for s in (-50.0, 0.0, 1e3)]),
    "Gaussian": (pv.Gaussian(scale="amortized"), [(0.0, s) for s in (-500.0, 0.0, 500.0)]),
}


@pytest.mark.parametrize("x", [0.0, 1e-7, 0.5, 1 - 1e-7, 1.0])
@pytest.mark.parametrize("name", ON_THE_EDGE)
def test_pixels_of_zero_and_one_have_a_finite_density(name: str, x: float) -> None:
    likelihood, features = ON_THE_EDGE[name]
    for h in features:
        parts = []
        for dtype in (torch.float32, torch.float64):
            leaf = torch.tensor(h, dtype=dtype).reshape(-1, 1).requires_grad_()
            found = likelihood.build((1,)).to(dtype)(leaf).log_prob(torch.full((1,), x, dtype=torch.float32).to(dtype))
            found.backward()
            assert leaf.grad.isfinite().all(), h
            parts.append(found.item())
        assert math.isfinite(parts[0]), h
        assert parts[0] == pytest.approx(parts[1], rel=1e-3, abs=1e-3), h


@pytest.mark.parametrize("logit", [-1e4, -100.0, -17.0, 0.0, 17.0, 100.0, 1e4])
def test_probabilities_near_zero_and_one(logit: float) -> None:
    for likelihood in (pv.Bernoulli(), pv.Binomial(total=1)):
        for x in (0.0, 1.0):
            found = likelihood.build((1,))(torch.full((1, 1), logit)).log_prob(torch.full((1,), x))
            assert found.item() == pytest.approx(-np.logaddexp(0, logit if x == 0 else -logit), rel=1e-5, abs=1e-6)
    categorical = pv.Categorical(levels=2).build((1,))(torch.tensor([[0.0], [logit]]))
    assert categorical.log_prob(torch.ones(1)).item() == pytest.approx(-np.logaddexp(0, -logit), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("raw", [-1e3, -100.0, 0.0, 30.0, 80.0])
@pytest.mark.parametrize("loc", [-1e3, -5.0, 0.0, 0.3, 5.0, 1e3])
def test_tails_of_a_discretized_logistic(raw: float, loc: float) -> None:
    module = pv.DiscretizedLogistic(levels=256).build((1,))
    levels = torch.tensor([0.0, 1.0, 128.0, 254.0, 255.0])[:, None]
    single, double = (
        module.to(dtype)(torch.tensor([[loc], [raw]], dtype=dtype)).log_prob(levels.to(dtype)).double()
        for dtype in (torch.float32, torch.float64)
    )
    assert single.isfinite().all()
    torch.testing.assert_close(single, double, rtol=1e-4, atol=1e-3)


# --- scales ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("declared", ["fixed", "shared", "per_feature", "amortized"])
@pytest.mark.parametrize("cls", [pv.Gaussian, pv.Laplace, pv.StudentT])
def test_scales_of_all_sizes(cls: Any, declared: str, scale: float) -> None:
    likelihood = cls(scale=declared, value=scale, floor=0.0)
    x = scale * torch.tensor([[0.0], [0.5], [-3.0], [30.0]])
    features = torch.zeros(likelihood.features, 1)
    single, double = (
        likelihood.build((1,)).to(dtype)(features.to(dtype)).log_prob(x.to(dtype)).double()
        for dtype in (torch.float32, torch.float64)
    )
    torch.testing.assert_close(single, double, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("raw", [-1e4, -200.0, -90.0])
@pytest.mark.parametrize("cls", [pv.Gaussian, pv.Laplace, pv.StudentT])
def test_an_amortized_scale_that_underflows_is_finite_without_a_floor(cls: Any, raw: float) -> None:
    features = torch.tensor([[0.0], [raw]], requires_grad=True)
    found = cls(scale="amortized", floor=0.0).build((1,))(features).log_prob(torch.zeros(1))
    found.backward()
    assert found.isfinite().all()
    assert features.grad.isfinite().all()


@pytest.mark.parametrize("df", [1.5, 5.0, 1e3, 1e6, 1e9])
@pytest.mark.parametrize("y", [0.0, 1.0, 30.0, 1e10, 1e25])
def test_a_student_t_keeps_its_digits(df: float, y: float) -> None:
    single, double = both(lambda y, df: StudentT(df, torch.zeros_like(y), torch.ones_like(y)).log_prob(y), y, df)
    assert math.isfinite(single)
    assert single == pytest.approx(double, rel=1e-5, abs=1e-4)
    if y < 1e6:
        assert double == pytest.approx(stats.t(torch.tensor(df).item()).logpdf(torch.tensor(y).item()), rel=1e-7, abs=1e-7)


def low_rank_likelihood(loc: Tensor, scale: Tensor, factor: Tensor) -> pyro.distributions.Distribution:
    return LowRankNormal(loc, scale, factor, loc.shape)


def low_rank_guide(loc: Tensor, scale: Tensor, factor: Tensor) -> pyro.distributions.Distribution:
    return LowRankMultivariateNormal(loc, scale[:, None] * factor, scale.square())


@pytest.mark.parametrize("normal", [low_rank_likelihood, low_rank_guide])
@pytest.mark.parametrize("noise", [1e-1, 1e-2, 3e-3])
def test_strong_factors_of_a_low_rank_covariance_cost_no_digits(normal: Callable[..., Any], noise: float) -> None:
    torch.manual_seed(0)
    scale, factor = torch.full((50,), noise), torch.randn(50, 3) / noise  # loadings of order one
    x = normal(torch.zeros(50), scale, factor).sample((100,))
    single, double = (normal(torch.zeros(50).to(x), scale.to(x), factor.to(x)).log_prob(x) for x in (x, x.double()))
    torch.testing.assert_close(single.double(), double, rtol=0, atol=2e-3)


@pytest.mark.parametrize("scale", SCALES)
def test_priors_of_all_scales(scale: float) -> None:
    for prior in (
        pv.Normal(scale=scale),
        pv.LaplacePrior(scale=scale),
        pv.Logistic(scale=scale),
        pv.StudentTPrior(scale=scale),
    ):
        z = scale * torch.tensor([0.5, -3.0, 20.0])
        single, double = (
            built_prior(prior, dtype=dtype)().log_prob(z.to(dtype)).item() for dtype in (torch.float32, torch.float64)
        )
        assert single == pytest.approx(double, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("gap", [1e-2, 1e-6, 1e-9])
def test_a_nearly_singular_prior_is_the_normal_distribution(gap: float) -> None:
    covariance = ((1.0, 1.0 - gap), (1.0 - gap, 1.0))
    z = torch.tensor([0.7, 0.7])
    expected = stats.multivariate_normal(cov=covariance, allow_singular=False).logpdf(z.double().numpy())
    prior = built_prior(pv.MultivariateNormal(covariance=covariance), (2,))
    assert prior().log_prob(z).item() == pytest.approx(expected, rel=1e-2)


def test_a_singular_covariance_is_refused() -> None:
    with pytest.raises(ValueError, match="a symmetric positive definite covariance"):
        pv.MultivariateNormal(covariance=((1.0, 1.0), (1.0, 1.0)))


# --- edges of supports ----------------------------------------------------------------------------------------------------

EDGES = {
    "Uniform, a corner": (pv.Uniform(low=0.0, high=2.0), (0.0, 2.0, 2.0), -3 * math.log(2)),
    "HalfNormal at zero": (pv.HalfNormal(), (0.0, 0.0, 0.0), 3 * (math.log(2) - math.log(2 * math.pi) / 2)),
    "Dirichlet, uniform, a corner": (pv.Dirichlet(), (1.0, 0.0, 0.0), math.log(2)),
    "Dirichlet above one, a corner": (pv.Dirichlet(concentration=2.0), (1.0, 0.0, 0.0), -math.inf),
}


@pytest.mark.parametrize(("prior", "z", "expected"), EDGES.values(), ids=EDGES)
def test_priors_on_the_edge_of_their_support(prior: pv.Prior, z: tuple[float, ...], expected: float) -> None:
    with pyro.validation_enabled(False):  # which would not let the edge through
        assert prior.build((3,))().log_prob(torch.tensor(z)).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("prior", [pv.LogNormal(), pv.LogisticNormal()], ids=repr)
def test_what_is_outside_of_an_open_support_is_refused(prior: pv.Prior) -> None:
    density = prior.build((3,))()
    with pytest.raises(ValueError, match="support"):
        density.log_prob(torch.tensor([2.0, 0.0, -1.0]))


# --- expectation maximization ---------------------------------------------------------------------------------------------


def lines(scale: float, spread: float) -> Tensor:
    """200 rows along a line in three dimensions, with noise of a relative size."""
    generator = torch.Generator().manual_seed(0)
    along = torch.randn(200, 1, generator=generator, dtype=torch.float64)
    noise = spread * torch.randn(200, 3, generator=generator, dtype=torch.float64)
    return scale * (along @ torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64) + noise)


EM_MODELS: dict[str, pv.Model] = {
    "FactorAnalysis": pv.FactorAnalysis(latent_dim=1),
    "PPCA": pv.PPCA(latent_dim=1),
    "GMM-full": pv.GMM(components=2),
    "GMM-tied": pv.GMM(components=2, covariance="tied"),
    "GMM-diagonal": pv.GMM(components=2, covariance="diagonal"),
    "GMM-spherical": pv.GMM(components=2, covariance="spherical"),
}


@pytest.mark.filterwarnings("ignore::ppl_vae.types.FitWarning")
@pytest.mark.parametrize("spread", [0.1, 1e-4])
@pytest.mark.parametrize("name", EM_MODELS)
def test_em_does_not_depend_on_the_units(name: str, spread: float) -> None:
    found = []
    for scale in SCALES:
        data = pv.load_data(lines(scale, spread).numpy(), valid=0.0, test=0.0)
        fit = pv.fit(EM_MODELS[name], data, method=pv.EM(max_iterations=20), device="cpu")
        elbo = [row["elbo"] for row in fit.history]
        assert all(map(math.isfinite, elbo)), scale
        assert all(later >= before - 1e-4 * abs(before) - 1e-4 for before, later in itertools.pairwise(elbo)), scale
        assert fit.evaluate(data.train)["elbo"] == pytest.approx(elbo[-1], abs=0.05), scale
        found.append(elbo[-1] + 3 * math.log(scale))
    assert found == pytest.approx([found[2]] * len(SCALES), abs=0.05)


# --- the catalogue --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_means_of_extreme_features_are_finite(name: str) -> None:
    likelihood = LIKELIHOODS[name]
    for far in (-30.0, 30.0):
        found = likelihood.build((2,))(torch.full((likelihood.features, 2), far))
        assert found.mean.isfinite().all(), far


def test_reconstructions_of_categories_in_no_order_are_categories() -> None:
    generator = torch.Generator().manual_seed(0)
    codes = 3 * torch.randint(2, (60, 1), generator=generator).float()  # 0 and 3: their mean is neither
    x = torch.cat([torch.randn(60, 1, generator=generator), codes], dim=1)
    groups = (pv.ColumnGroup(), pv.ColumnGroup(columns=(1,), likelihood=pv.Masked(likelihood=pv.Categorical(levels=4))))
    network = pv.MLP(hidden=(5,))
    model = pv.VAE(latent_dim=1, likelihood=pv.MixedTable(groups=groups), decoder=network)
    data = pv.load_data(x.numpy(), valid=0.0, test=0.0)
    fit = pv.fit(model, data, guide=pv.AmortizedNormal(encoder=network), method=pv.SVI(epochs=30), device="cpu")
    found = fit.reconstruct(x, seen=True)
    assert set(found[:, 1].tolist()) <= {0.0, 3.0}
    assert set(fit.sample(50)[:, 1].tolist()) <= {0.0, 1.0, 2.0, 3.0}
    torch.testing.assert_close(found[:, 0], fit.pair.model.decode(fit.encode(x)).mean[:, 0])


# --- thin mixtures --------------------------------------------------------------------------------------------------------


def test_gradient_steps_of_a_mixture_stay_finite_where_its_components_are_thin() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 3, generator=generator) @ torch.randn(3, 12, generator=generator)
    x = x + 1e-3 * torch.randn(200, 12, generator=generator)
    data = pv.load_data(x, valid=0.0, test=0.0)
    fit = pv.fit(pv.GMM(components=2), data, method=pv.SVI(epochs=3, compile=False))
    assert all(row["elbo"] > -1e3 for row in fit.history)


@pytest.mark.parametrize("covariance", ["full", "tied"])
def test_a_mixture_reads_the_factors_that_runs_of_before_wrote(covariance: str) -> None:
    spec = pv.DataSpec(event_shape=(3,), kind="real", size=5)
    model = pv.GMM(components=2, covariance=covariance).build(spec)
    torch.nn.init.normal_(model.factor)
    before = model.state_dict()
    L = model.scale_tril.detach() if covariance == "full" else model.scale_tril[0].detach()
    del before["factor"]
    before["raw"] = L.tril(-1) + L.diagonal(dim1=-2, dim2=-1).log().diag_embed()
    again = pv.GMM(components=2, covariance=covariance).build(spec)
    again.load_state_dict(before)
    assert torch.allclose(again.scale_tril, model.scale_tril)
