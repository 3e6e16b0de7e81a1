"""The likelihoods against scipy and brute force, at the edges of their supports and at extreme features."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from scipy import stats
from scipy.special import expit, logit, softmax
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

import ppl_vae as pv
from ppl_vae import plots
from ppl_vae.evaluate import elbo_terms
from ppl_vae.likelihoods.low_rank_gaussian import LowRankNormal
from ppl_vae.likelihoods.negative_binomial import NegativeBinomialDistribution
from ppl_vae.nn.inputs import encoder
from ppl_vae.program.context import seeded
from tests.table import EVENT, LEVELS, LIKELIHOODS, ROWS, TINY, rows, vae

NAN = float("nan")
FAR = (-50.0, -20.0, 0.0, 20.0, 50.0)

# What lies in the support, its edges included.
EDGES: dict[str, tuple[float, ...]] = {
    "binary": (0.0, 1.0),
    "unit_interval": (0.0, 1e-6, 0.5, 1.0),
    "real": (-10.0, 0.0, 0.5, 10.0),
    "count": (0.0, 1.0, 10.0),
    "categorical": tuple(map(float, range(LEVELS))),
}
OPEN = tuple(x for x in EDGES["unit_interval"] if 0 < x < 1)


def cases(table: dict) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("entry", table.values(), ids=table.keys())


def values(likelihood: pv.Likelihood) -> tuple[float, ...]:
    """Values in the support of a likelihood."""
    inner = getattr(likelihood, "likelihood", likelihood)
    if getattr(inner, "margin", None) == 0:
        return OPEN
    kinds = ("real", "binary", "unit_interval", "count", "categorical")
    kind = next(kind for kind in kinds if kind in likelihood.accepts)
    return EDGES["binary" if isinstance(likelihood, pv.MixedTable) else kind]


def distribution(likelihood: pv.Likelihood, *features: float, shape: tuple[int, ...] = (1,)) -> Any:
    """p(x | h) in float64 with the same P features for each element."""
    h = torch.tensor(features, dtype=torch.float64).reshape(-1, *(1 for _ in shape)).expand(-1, *shape)
    return likelihood.build(shape).double()(h)


def softplus(x: float) -> float:
    return float(np.logaddexp(0, x))


def inverse_softplus(y: float) -> float:
    return math.log(math.expm1(y))


# --- against scipy ---------------------------------------------------------------------------------------------------------


def beta(h: tuple[float, ...]) -> Any:
    c = softplus(h[1] + inverse_softplus(2.0))
    return stats.beta(c * expit(h[0]), c * expit(-h[0]), loc=-0.1, scale=1.2)


def negative_binomial(h: tuple[float, ...]) -> Any:
    r = softplus(h[1] + inverse_softplus(2.0 - 1e-3)) + 1e-3
    return stats.nbinom(r, r / (r + math.exp(h[0])))


REAL, UNIT, COUNT = np.linspace(-7, 7, 15), np.linspace(0.01, 0.99, 15), np.arange(15.0)
SCIPY: dict[str, tuple[pv.Likelihood, Callable[[tuple[float, ...]], Any], tuple[float, ...], np.ndarray]] = {
    "Bernoulli": (pv.Bernoulli(), lambda h: stats.bernoulli(expit(h[0])), (0.7,), np.arange(2.0)),
    "Gaussian": (pv.Gaussian(scale="fixed", value=0.7), lambda h: stats.norm(h[0], 0.7), (0.3,), REAL),
    "Laplace": (pv.Laplace(scale="fixed", value=0.7), lambda h: stats.laplace(h[0], 0.7), (0.3,), REAL),
    "Laplace-amortized": (
        pv.Laplace(scale="amortized", value=0.7, floor=0.1),
        lambda h: stats.laplace(h[0], 0.1 + softplus(h[1] + inverse_softplus(0.6))),
        (0.3, -0.4),
        REAL,
    ),
    "StudentT": (pv.StudentT(scale="fixed", value=0.7, df=2.5), lambda h: stats.t(2.5, h[0], 0.7), (0.3,), REAL),
    "Beta": (pv.Beta(margin=0.1), beta, (0.4, -0.3), UNIT),
    "Poisson": (pv.Poisson(), lambda h: stats.poisson(math.exp(h[0])), (1.3,), COUNT),
    "NegativeBinomial": (pv.NegativeBinomial(dispersion="amortized"), negative_binomial, (1.3, 0.2), COUNT),
    "Binomial": (pv.Binomial(total=14), lambda h: stats.binom(14, expit(h[0])), (0.6,), COUNT),
    "Categorical": (
        pv.Categorical(levels=3),
        lambda h: stats.rv_discrete(values=(np.arange(3), softmax(h))),
        (0.1, -0.4, 0.9),
        np.arange(3.0),
    ),
}


@pytest.mark.parametrize(("likelihood", "peer", "features", "x"), SCIPY.values(), ids=SCIPY)
def test_a_likelihood_is_scipys(likelihood: pv.Likelihood, peer: Callable, features: tuple, x: np.ndarray) -> None:
    ours, theirs = distribution(likelihood, *features), peer(features)
    expected = theirs.logpmf(x) if hasattr(theirs, "logpmf") else theirs.logpdf(x)
    # A fixed scale is held with the digits of float32.
    np.testing.assert_allclose(ours.log_prob(torch.tensor(x)[:, None]).detach(), expected, rtol=1e-7)
    np.testing.assert_allclose(ours.mean.item(), theirs.mean(), rtol=1e-9)


@pytest.mark.parametrize("name", ["Bernoulli", "Gaussian", "Laplace-amortized", "NegativeBinomial", "Binomial", "Categorical"])
def test_a_variance_is_scipys(name: str) -> None:
    likelihood, peer, features, _ = SCIPY[name]
    np.testing.assert_allclose(distribution(likelihood, *features).variance.item(), peer(features).var(), rtol=1e-7)


def test_the_logit_normal_is_the_normal_distribution_of_logits() -> None:
    ours = distribution(pv.LogitNormal(scale="fixed", value=1.0, margin=0.0), 0.6)
    expected = stats.norm(0.6, 1.0).logpdf(logit(UNIT)) - np.log(UNIT) - np.log1p(-UNIT)
    np.testing.assert_allclose(ours.log_prob(torch.tensor(UNIT)[:, None]), expected, rtol=1e-9)


@pytest.mark.parametrize(("loc", "scale"), [(0.6, 1.7), (-3.0, 0.1), (0.0, 5.0), (4.0, 20.0)])
def test_the_mean_of_a_logit_normal_is_its_integral(loc: float, scale: float) -> None:
    mean = distribution(pv.LogitNormal(scale="fixed", value=scale, margin=0.0), loc).mean.item()
    grid = np.linspace(-12, 12, 400_001)
    expected = np.trapezoid(expit(loc + scale * grid) * stats.norm.pdf(grid), grid)
    assert mean == pytest.approx(expected, abs=1e-6)


def test_zero_inflation_adds_zeros() -> None:
    ours = distribution(pv.ZeroInflated(), -0.4, 1.1)
    gate, poisson = expit(-0.4), stats.poisson(math.exp(1.1))
    expected = (1 - gate) * poisson.pmf(COUNT) + gate * (COUNT == 0)
    np.testing.assert_allclose(ours.log_prob(torch.tensor(COUNT)[:, None]).exp(), expected, rtol=1e-9)
    assert ours.mean.item() == pytest.approx((1 - gate) * math.exp(1.1))


@pytest.mark.parametrize("covariance", ["shared", "amortized"])
def test_the_low_rank_gaussian_is_the_multivariate_normal(covariance: str) -> None:
    torch.manual_seed(0)
    likelihood = pv.LowRankGaussian(rank=2, covariance=covariance)
    ours = likelihood.build((2, 3)).double()(torch.randn(4, likelihood.features, 2, 3, dtype=torch.float64))
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    S, G = ours.scale.detach().diag_embed(), ours.factor.detach()
    covariances = (S @ (torch.eye(6) + G @ G.mT) @ S).expand(4, 6, 6)
    for i in range(4):
        peer = stats.multivariate_normal(ours.mean[i].flatten().numpy(), covariances[i].numpy())
        assert ours.log_prob(x)[i].item() == pytest.approx(peer.logpdf(x[i].flatten().numpy()))
        np.testing.assert_allclose(ours.variance[i].flatten().detach(), covariances[i].diagonal())


def test_a_low_rank_gaussian_of_large_factors_keeps_its_digits_in_float32() -> None:
    """The factors explain data a thousand deviations away, and what they explain is not the difference of two squares."""
    generator = torch.Generator().manual_seed(0)
    loc, factor = torch.zeros(6), 1000 * torch.randn(6, 2, generator=generator)
    x = (factor @ torch.randn(2, 1, generator=generator)).squeeze(1) + torch.randn(6, generator=generator)
    ours, exact = (
        LowRankNormal(loc.to(dtype), torch.ones(6, dtype=dtype), factor.to(dtype), torch.Size([6])).log_prob(x.to(dtype))
        for dtype in (torch.float32, torch.float64)
    )
    covariance = torch.eye(6).double() + factor.double() @ factor.double().T
    peer = torch.distributions.MultivariateNormal(loc.double(), covariance).log_prob(x.double())
    assert exact.item() == pytest.approx(peer.item(), rel=1e-6)
    assert ours.item() == pytest.approx(exact.item(), rel=1e-3)


def test_draws_of_the_low_rank_gaussian_have_its_covariance() -> None:
    torch.manual_seed(0)
    ours = pv.LowRankGaussian(rank=2, covariance="amortized").build((3,))(torch.randn(4, 3))
    draws = ours.sample((100_000,))
    S, G = ours.scale.diag_embed(), ours.factor
    torch.testing.assert_close(draws.T.cov(), S @ (torch.eye(3) + G @ G.mT) @ S, rtol=0.03, atol=0.03)


# --- the continuous Bernoulli ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("h", [*FAR, 0.0, 1e-8, -1e-4, 1e-3, -0.1, 0.49999, 0.50001, 0.6, -5.0])
def test_the_continuous_bernoulli_integrates_to_one_and_has_its_mean(h: float) -> None:
    ours = distribution(pv.ContinuousBernoulli(), h)
    # In y = |h| x the density is exp(-y) on a grid that resolves it, or its mirror image.
    nodes, weights = np.polynomial.legendre.leggauss(200)
    x = torch.tensor((nodes + 1) / 2)
    density = ours.log_prob(x[:, None]).exp().numpy() * weights / 2
    assert density.sum() == pytest.approx(1, abs=1e-12)
    assert ours.mean.item() == pytest.approx(density @ x.numpy(), abs=1e-12)


def test_the_continuous_bernoulli_is_torchs_away_from_one_half() -> None:
    p = torch.tensor([0.01, 0.3, 0.49, 0.51, 0.9], dtype=torch.float64)
    ours = pv.ContinuousBernoulli().build((5,))(p.logit()[None])
    theirs = torch.distributions.ContinuousBernoulli(p)
    x = torch.tensor([0.0, 0.2, 0.5, 0.9, 1.0], dtype=torch.float64)
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x).sum())
    torch.testing.assert_close(ours.mean, theirs.mean)


def test_the_continuous_bernoulli_is_smooth_at_one_half_in_float32() -> None:
    h = torch.linspace(-1.5, 1.5, 3001).requires_grad_()
    ours = pv.ContinuousBernoulli().build((3001,))(h[None])
    exact = pv.ContinuousBernoulli().build((3001,))(h.detach().double()[None])
    (slope,) = torch.autograd.grad(ours.log_prob(torch.full((3001,), 0.25)), h)
    torch.testing.assert_close(slope.double(), 0.25 - exact.mean, rtol=0, atol=5e-7)
    torch.testing.assert_close(ours.mean.double(), exact.mean, rtol=0, atol=5e-7)


# --- whole numbers: sums to one and bits per dimension --------------------------------------------------------------------


@pytest.mark.parametrize("levels", [2, 3, 17, 256])
@pytest.mark.parametrize("features", list(itertools.product(FAR, FAR)), ids=str)
def test_a_discretized_logistic_sums_to_one_and_has_its_mean(levels: int, features: tuple[float, float]) -> None:
    ours = distribution(pv.DiscretizedLogistic(levels=levels), *features)
    x = torch.arange(levels, dtype=torch.float64)
    p = ours.log_prob(x[:, None]).exp()
    assert p.sum().item() == pytest.approx(1, abs=1e-12)
    assert ours.mean.item() == pytest.approx((p @ x).item(), abs=1e-9)
    assert ours.variance.item() == pytest.approx((p @ x.square() - (p @ x) ** 2).item(), abs=1e-7)


@cases({name: entry for name, entry in LIKELIHOODS.items() if "categorical" in entry.accepts})
def test_probabilities_of_all_levels_sum_to_one_in_float32(entry: pv.Likelihood) -> None:
    torch.manual_seed(0)
    size = getattr(entry, "total", LEVELS - 1) + 1
    ours = entry.build((1,))(10 * torch.randn(200, entry.features, 1))
    total = ours.log_prob(torch.arange(float(size))[:, None, None]).exp().sum(0)
    torch.testing.assert_close(total, torch.ones(200), rtol=0, atol=1e-5)


def digits(levels: int) -> np.ndarray:
    """The digits as whole numbers of so many levels."""
    x = pv.load_data("digits", kind="categorical", valid=0.0, test=0.0).train.transformed()
    return (x * (levels - 1) / 16).round().numpy()


def brute_force(u: np.ndarray, loc: np.ndarray, scale: np.ndarray, levels: int) -> np.ndarray:
    """Probabilities of levels as plain differences of the logistic's distribution function, in float64."""
    w = 1 / (levels - 1)
    upper = np.where(u >= levels - 1, 1.0, expit((2 * u * w - 1 + w - loc) / scale))
    return upper - np.where(u <= 0, 0.0, expit((2 * u * w - 1 - w - loc) / scale))


@pytest.mark.parametrize("levels", [17, 256])
@pytest.mark.parametrize("components", [None, 4])
def test_bits_per_dimension_of_digits_are_those_of_brute_force(levels: int, components: int | None) -> None:
    torch.manual_seed(0)
    x = digits(levels)
    likelihood = (
        pv.DiscretizedLogistic(levels=levels)
        if components is None
        else pv.DiscretizedLogisticMixture(levels=levels, components=components)
    )
    h = torch.randn(len(x), likelihood.features, 1, 8, 8) / 3  # further out a plain difference has no digits left
    ours = -likelihood.build((1, 8, 8))(h).log_prob(torch.tensor(x)).double().mean() / (64 * math.log(2))
    C = components or 1
    parts = h.double().numpy().reshape(len(x), -1, C, 1, 8, 8)  # (N, [pi,] mu and s, C, *event)
    centers = (2 * np.arange(C) + 1).reshape(C, 1, 1, 1) / C - 1
    scale = np.exp(np.logaddexp(0, parts[:, -1] + math.log(0.25) + 7) - 7)
    p = brute_force(x[:, None].astype(float), parts[:, -2] + centers, scale, levels)
    weights = softmax(parts[:, 0], axis=1) if components else 1.0
    expected = -np.log2((weights * p).sum(1)).mean()
    assert ours.item() == pytest.approx(expected, abs=1e-5)


def test_a_fit_to_levels_is_evaluated_as_probabilities_of_the_levels_themselves() -> None:
    data = pv.load_data("digits", kind="categorical")
    assert data.spec.levels == 17
    model = pv.VAE(latent_dim=2, likelihood=pv.DiscretizedLogistic(levels=17), decoder=TINY)
    fit = pv.fit(model, data, method=pv.SVI(epochs=1))
    x = data.test.transformed()
    assert x.unique().tolist() == list(range(17))
    with torch.no_grad(), seeded(0):
        expected = elbo_terms(fit.pair, (x,)).reconstruction.mean().item()
    assert fit.evaluate(data.test)["reconstruction"] == pytest.approx(expected, abs=1e-4)
    levels = torch.arange(17.0).reshape(-1, 1, 1, 1, 1).expand(-1, 50, 1, 8, 8)
    p = fit.pair.model.decode(fit.encode(x[:50])).base_dist.log_prob(levels).exp().sum(0)
    torch.testing.assert_close(p, torch.ones_like(p), rtol=0, atol=1e-5)


# --- stability ------------------------------------------------------------------------------------------------------------


@cases(LIKELIHOODS)
@pytest.mark.parametrize("shape", [(2,), EVENT], ids=str)
def test_extreme_features_give_finite_numbers_and_gradients_in_float32(entry: pv.Likelihood, shape: tuple[int, ...]) -> None:
    module = entry.build(shape)
    for far, x in itertools.product(itertools.product(FAR, repeat=min(2, entry.features)), values(entry)):
        h = torch.zeros(entry.features, *shape)
        h[0], h[-1] = far[0], far[-1]
        h.requires_grad_()
        log_prob = module(h).log_prob(torch.full(shape, x))
        log_prob.backward()
        assert log_prob.isfinite(), (far, x)
        assert h.grad.isfinite().all(), (far, x)
        assert all(p.grad is None or p.grad.isfinite().all() for p in module.parameters()), (far, x)


@cases(LIKELIHOODS)
def test_float32_is_near_float64(entry: pv.Likelihood) -> None:
    torch.manual_seed(0)
    h = 5 * torch.randn(20, entry.features, 2)
    module = entry.build((2,))
    for x in values(entry):
        single = module.float()(h).log_prob(torch.full((2,), x)).double()
        double = module.double()(h.double()).log_prob(torch.full((2,), x, dtype=torch.float32).double())
        torch.testing.assert_close(single, double, rtol=1e-4, atol=1e-4)


@cases(LIKELIHOODS)
def test_features_of_zero_are_a_sensible_start(entry: pv.Likelihood) -> None:
    torch.manual_seed(0)
    start = entry.build((2,))(torch.zeros(entry.features, 2))
    assert start.support.check(start.sample((50,))).all()
    assert start.mean.isfinite().all()
    assert all(-20 < start.log_prob(torch.full((2,), x)).item() < 5 for x in values(entry) if x == 0 or 0.1 < x < 6)


def test_counts_of_a_negative_binomial_keep_their_digits_in_float32() -> None:
    for r, count in itertools.product((0.01, 1.0, 60.0, 1e4, 1e6), (0.0, 3.0, 100.0, 1e4, 1e5)):
        for log_mean in (0.0, 5.0, 9.0):
            single, double = (
                NegativeBinomialDistribution(torch.tensor(log_mean, dtype=dtype), torch.tensor(r).to(dtype))
                .log_prob(torch.tensor(count, dtype=dtype))
                .item()
                for dtype in (torch.float32, torch.float64)
            )
            r32 = torch.tensor(r).item()
            theirs = stats.nbinom(r32, r32 / (r32 + math.exp(log_mean))).logpmf(count)
            assert double == pytest.approx(theirs, rel=1e-7, abs=1e-6), (r, count, log_mean)
            assert single == pytest.approx(double, rel=1e-5, abs=0.05), (r, count, log_mean)


def test_a_large_dispersion_is_a_poisson() -> None:
    ours = distribution(pv.NegativeBinomial(dispersion="fixed", value=1e12), 1.0)
    poisson = stats.poisson(math.e).logpmf(COUNT)
    np.testing.assert_allclose(ours.log_prob(torch.tensor(COUNT)[:, None]), poisson, atol=1e-9)


@cases(LIKELIHOODS)
def test_a_likelihood_is_traced_to_one_static_graph(entry: pv.Likelihood) -> None:
    torch.manual_seed(0)
    module = entry.build((2,))

    def step(h: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        h = h.detach().requires_grad_()
        log_prob = module(h).log_prob(x).sum()
        return log_prob, torch.autograd.grad(log_prob, h)[0]

    known = torch.tensor(values(entry))
    x = known[torch.arange(10) % len(known)].reshape(5, 2)
    h, other = torch.randn(2, 5, entry.features, 2)
    with pyro.validation_enabled(False):
        graph = make_fx(step)(other, x.flip(0))
        for ours, theirs in zip(graph(h, x), step(h, x), strict=True):
            torch.testing.assert_close(ours, theirs)


# --- the margin at the ends of the unit interval --------------------------------------------------------------------------


@pytest.mark.parametrize("likelihood", [pv.Beta(margin=0.05), pv.LogitNormal(margin=0.05)], ids=["Beta", "LogitNormal"])
def test_with_a_margin_zeros_and_ones_have_a_density_that_integrates_to_one(likelihood: pv.Likelihood) -> None:
    ours = distribution(likelihood, *(0.4, 1.5)[: likelihood.features])
    grid = torch.linspace(-0.05, 1.05, 200_001, dtype=torch.float64)[1:-1]
    density = ours.log_prob(grid[:, None]).exp().detach()
    assert torch.trapezoid(density, grid).item() == pytest.approx(1, abs=1e-6)
    assert torch.trapezoid(grid * density, grid).item() == pytest.approx(ours.mean.item(), abs=1e-6)
    ends = torch.tensor([[0.0], [1.0]])
    likelihood.check_values(ends)
    assert ours.log_prob(ends.double()).isfinite().all()


@pytest.mark.parametrize("likelihood", [pv.Beta(margin=0.0), pv.LogitNormal(margin=0.0)], ids=["Beta", "LogitNormal"])
def test_without_a_margin_zeros_and_ones_are_refused(likelihood: pv.Likelihood) -> None:
    for x in (0.0, 1.0):
        with pytest.raises(ValueError, match="1 of 2 rows with values outside it, the first of them row 1"):
            likelihood.check_values(torch.tensor([[0.5], [x]]))
        with pyro.validation_enabled(), pytest.raises(ValueError, match="support"):
            likelihood.build((1,))(torch.zeros(likelihood.features, 1)).log_prob(torch.tensor([x]))


# --- refusals -------------------------------------------------------------------------------------------------------------


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "levels": (lambda: pv.Categorical(levels=1), "at least 2 levels, got 1"),
    "components": (lambda: pv.DiscretizedLogisticMixture(components=0), "at least 1 component, got 0"),
    "total": (lambda: pv.Binomial(total=0), "total of at least 1, got 0"),
    "df": (lambda: pv.StudentT(df=1.0), "degrees of freedom above 1, got 1.0"),
    "margin": (lambda: pv.Beta(margin=-0.1), "margin of at least 0, got -0.1"),
    "logit margin": (lambda: pv.LogitNormal(margin=-0.1), "margin of at least 0, got -0.1"),
    "concentration": (lambda: pv.Beta(concentration=0.0), "positive concentration, got 0.0"),
    "scale": (lambda: pv.Laplace(scale="full"), "scale that is one of fixed, shared, per_feature, amortized, got 'full'"),
    "dispersion": (lambda: pv.NegativeBinomial(dispersion="x"), "dispersion that is one of fixed, shared"),
    "rank": (lambda: pv.LowRankGaussian(rank=0), "rank of at least 1, got 0"),
    "covariance": (lambda: pv.LowRankGaussian(covariance="full"), "shared or amortized, got 'full'"),
    "inflated density": (lambda: pv.ZeroInflated(likelihood=pv.Gaussian()), "a likelihood of counts"),
    "inflated mask": (lambda: pv.ZeroInflated(likelihood=pv.Masked(likelihood=pv.Poisson())), "a likelihood of counts"),
    "masked mask": (lambda: pv.Masked(likelihood=pv.Masked()), "a likelihood of independent elements"),
    "masked table": (lambda: pv.Masked(likelihood=pv.MixedTable()), "inside a MixedTable mask each group's own"),
    "masked low rank": (lambda: pv.Masked(likelihood=pv.LowRankGaussian()), "a likelihood of independent elements"),
    "column twice": (lambda: pv.ColumnGroup(columns=(0, 0)), "different columns"),
    "negative column": (lambda: pv.ColumnGroup(columns=(-1,)), "different columns"),
    "no group": (lambda: pv.MixedTable(groups=()), "at least one group"),
    "two groups": (
        lambda: pv.MixedTable(groups=(pv.ColumnGroup(columns=(0,)), pv.ColumnGroup(columns=(1, 0)))),
        "every column in one group",
    ),
    "two others": (lambda: pv.MixedTable(groups=(pv.ColumnGroup(), pv.ColumnGroup())), "one group at most for all other"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_a_bad_declaration_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def spec(kind: Any, levels: int | None = None, shape: tuple[int, ...] = (3,)) -> pv.DataSpec:
    return pv.DataSpec(event_shape=shape, kind=kind, size=10, levels=levels)


CHECKED: dict[str, tuple[pv.Likelihood, pv.DataSpec, str]] = {
    "levels": (pv.Categorical(levels=5), spec("categorical", 7), r"at most 5 levels, got 7: use Categorical\(levels=7\)"),
    "mixture": (
        pv.DiscretizedLogisticMixture(levels=5),
        spec("categorical", 7),
        r"use DiscretizedLogisticMixture\(levels=7\)",
    ),
    "total": (pv.Binomial(total=5), spec("categorical", 7), r"values up to 6: use Binomial\(total=6\)"),
    "masked levels": (pv.Masked(likelihood=pv.Categorical(levels=5)), spec("categorical", 7), r"Categorical\(levels=7\)"),
    "gray as counts": (pv.Poisson(), spec("unit_interval"), r"load images as counts \(kind='count'\), or use a likelihood on"),
    "bits as counts": (pv.ZeroInflated(), spec("binary"), r"declare them as counts \(kind='count'\)"),
    "counts as levels": (pv.Categorical(), spec("count"), r"declare them as categories \(kind='categorical'\).*Poisson"),
    "which fit": (pv.Poisson(), spec("unit_interval"), "ContinuousBernoulli, Gaussian|Gaussian.*ContinuousBernoulli"),
    "no such column": (
        pv.MixedTable(groups=(pv.ColumnGroup(columns=(0, 3)), pv.ColumnGroup())),
        spec("real"),
        r"take the columns 0 to 2 once, got \(0, 3\) and \(1, 2\)",
    ),
    "left out": (pv.MixedTable(groups=(pv.ColumnGroup(columns=(0, 1)),)), spec("real"), "take the columns 0 to 2 once"),
    "none left": (
        pv.MixedTable(groups=(pv.ColumnGroup(columns=(0, 1, 2)), pv.ColumnGroup())),
        spec("real"),
        "take the columns 0 to 2 once",
    ),
}


@pytest.mark.parametrize(("likelihood", "data", "message"), CHECKED.values(), ids=CHECKED)
def test_data_that_do_not_fit_are_refused(likelihood: pv.Likelihood, data: pv.DataSpec, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        likelihood.check(data)


OUTSIDE: dict[str, tuple[pv.Likelihood, float]] = {
    "Bernoulli": (pv.Bernoulli(), 0.5),
    "ContinuousBernoulli": (pv.ContinuousBernoulli(), 1.1),
    "Beta": (pv.Beta(), 1.01),
    "LogitNormal": (pv.LogitNormal(), -0.01),
    "Gaussian": (pv.Gaussian(), NAN),
    "LowRankGaussian": (pv.LowRankGaussian(), NAN),
    "Poisson": (pv.Poisson(), -1.0),
    "NegativeBinomial": (pv.NegativeBinomial(), 0.5),
    "ZeroInflated": (pv.ZeroInflated(), 0.5),
    "Binomial": (pv.Binomial(total=5), 6.0),
    "Categorical": (pv.Categorical(levels=3), 3.0),
    "DiscretizedLogistic": (pv.DiscretizedLogistic(levels=3), 3.0),
    "DiscretizedLogisticMixture": (pv.DiscretizedLogisticMixture(levels=3), -1.0),
    "Masked": (pv.Masked(likelihood=pv.Bernoulli()), 0.5),
    "MixedTable": (pv.MixedTable(groups=(pv.ColumnGroup(likelihood=pv.Poisson()),)), 0.5),
}


@pytest.mark.parametrize(("likelihood", "x"), OUTSIDE.values(), ids=OUTSIDE)
def test_values_outside_the_support_are_refused(likelihood: pv.Likelihood, x: float) -> None:
    data = torch.ones(4, 2)
    data = data if isinstance(likelihood, (pv.Gaussian, pv.LowRankGaussian)) else data.clone()
    if isinstance(likelihood, (pv.Beta, pv.LogitNormal, pv.ContinuousBernoulli)):
        data = data / 2
    likelihood.check_values(data)
    data[2, 1] = x
    with pytest.raises(ValueError, match="1 of 4 rows with values outside it, the first of them row 2"):
        likelihood.check_values(data)
    with pyro.validation_enabled(), pytest.raises(ValueError, match="support"):
        likelihood.build((2,))(torch.zeros(4, likelihood.features, 2)).log_prob(data)


# --- missing entries ------------------------------------------------------------------------------------------------------

MASKABLE = {
    name: entry for name, entry in LIKELIHOODS.items() if entry.factorizes and not entry.missing and entry.features <= 3
}


@cases(MASKABLE)
def test_missing_entries_contribute_nothing(entry: pv.Likelihood) -> None:
    torch.manual_seed(0)
    x = torch.tensor(values(entry)[:2] * 2)
    gaps = torch.tensor([False, True, False, True])
    h = torch.randn(entry.features, 4)
    module = pv.Masked(likelihood=entry).build((4,))
    values_of = module.likelihood(h).base_dist.log_prob(x)
    h.requires_grad_()
    with pyro.validation_enabled():
        log_prob = module(h).log_prob(torch.where(gaps, NAN, x))
    torch.testing.assert_close(log_prob, values_of[~gaps].sum())
    log_prob.backward()
    assert h.grad.isfinite().all()
    assert not h.grad[:, gaps].any()
    assert h.grad[:, ~gaps].any()
    assert all(p.grad is None or p.grad.isfinite().all() for p in module.parameters())
    assert module(h).sample((100,)).isfinite().all()


def test_a_datum_of_which_nothing_is_observed_has_the_log_probability_zero() -> None:
    assert pv.Masked().build(EVENT)(torch.randn(5, 1, *EVENT)).log_prob(torch.full((5, *EVENT), NAN)).tolist() == [0.0] * 5


@pytest.mark.parametrize(
    ("kind", "x", "seen"),
    [
        ("real", [0.5, NAN, -2.0], [0.5, 0.0, -2.0]),
        ("count", [0.0, NAN, math.e - 1], [0.0, 0.0, 1.0]),
        ("categorical", [0.0, NAN, 4.0], [-1.0, 0.0, 1.0]),
    ],
)
def test_a_network_sees_numbers_of_order_one_and_zeros_for_missing_entries(kind: Any, x: list, seen: list) -> None:
    data = pv.DataSpec(event_shape=(3,), kind=kind, size=4, levels=5 if kind == "categorical" else None, missing=True)
    torch.manual_seed(0)
    network = encoder(TINY, data, (2,))
    torch.manual_seed(0)
    plain = TINY.build((3,), (2,))
    torch.testing.assert_close(network(torch.tensor(x)), plain(torch.tensor(seen)))
    torch.manual_seed(0)
    whole = encoder(TINY, dataclasses.replace(data, missing=False, kind="real"), (2,))
    torch.testing.assert_close(whole(torch.tensor(seen)), plain(torch.tensor(seen)))  # other data as they are


def test_missing_entries_need_a_likelihood_that_leaves_them_out() -> None:
    data = pv.DataSpec(event_shape=(6,), kind="real", size=4, missing=True)
    for likelihood in (pv.Gaussian(), pv.MixedTable()):
        with pytest.raises(ValueError, match=f"{type(likelihood).__name__} is a likelihood of complete data.*Masked"):
            vae(likelihood=likelihood).check(data)
    vae(likelihood=pv.Masked()).check(data)
    vae(likelihood=TABLE).check(data)


# --- tables of mixed type -------------------------------------------------------------------------------------------------

TABLE = pv.MixedTable(
    groups=(
        pv.ColumnGroup(columns=(4, 0), likelihood=pv.Gaussian(scale="amortized")),
        pv.ColumnGroup(columns=(1,), likelihood=pv.Bernoulli()),
        pv.ColumnGroup(columns=(3,), likelihood=pv.Masked(likelihood=pv.Categorical(levels=4))),
        pv.ColumnGroup(likelihood=pv.ZeroInflated()),
    )
)


def table(n: int = 40) -> Tensor:
    """Columns: real, binary, count, categorical, real, count."""
    torch.manual_seed(0)
    count, code = torch.poisson(torch.full((n, 2), 2.0)), torch.randint(4, (n, 1))
    return torch.cat([torch.randn(n, 1), torch.rand(n, 1).round(), count[:, :1], code, torch.randn(n, 1), count[:, 1:]], 1)


def test_a_table_is_the_product_of_its_groups() -> None:
    torch.manual_seed(1)
    h, x = torch.randn(40, TABLE.features, 6), table()
    ours = TABLE.build((6,))(h)
    assert TABLE.features == 4
    expected = torch.zeros(40)
    for group, columns in zip(TABLE.groups, [(4, 0), (1,), (3,), (2, 5)], strict=True):
        part = group.likelihood.build((len(columns),))(h[:, : group.likelihood.features, columns])
        expected += part.log_prob(x[:, columns])
        torch.testing.assert_close(ours.mean[:, columns], part.mean)
    torch.testing.assert_close(ours.log_prob(x), expected)


def test_draws_of_a_table_lie_in_their_columns() -> None:
    ours = TABLE.build((6,))(torch.randn(10, TABLE.features, 6))
    draws = ours.sample((200,))
    assert draws.shape == (200, 10, 6)
    assert ours.support.check(draws).all()
    assert set(draws[..., 1].unique().tolist()) == {0.0, 1.0}
    assert set(draws[..., 3].unique().tolist()) == {0.0, 1.0, 2.0, 3.0}
    whole = draws == draws.floor()
    assert whole[..., [2, 5]].all()
    assert not whole[..., [0, 4]].any()


def test_a_table_of_two_columns_integrates_to_one() -> None:
    likelihood = pv.MixedTable(
        groups=(pv.ColumnGroup(columns=(1,), likelihood=pv.Bernoulli()), pv.ColumnGroup(likelihood=pv.Laplace()))
    )
    ours = distribution(likelihood, 0.3, shape=(2,))
    grid = torch.linspace(-30, 30, 60_001, dtype=torch.float64)
    rows_of = [torch.stack([grid, torch.full_like(grid, bit)], -1) for bit in (0, 1)]
    total = sum(torch.trapezoid(ours.log_prob(x).exp(), grid).item() for x in rows_of)
    assert total == pytest.approx(1, abs=1e-6)


def test_what_stands_in_the_columns_is_checked() -> None:
    x = table()
    TABLE.check(pv.load_data(x.numpy()).spec)
    TABLE.check_values(x)
    for column, wrong in ((1, 0.5), (2, -1.0), (3, 4.0), (2, NAN), (0, NAN)):
        bad = x.clone()
        bad[7, column] = wrong
        with pytest.raises(ValueError, match="1 of 40 rows with values outside it, the first of them row 7"):
            TABLE.check_values(bad)
    x[7, 3] = NAN  # this column is masked
    TABLE.check_values(x)


# --- with the rest of the library -----------------------------------------------------------------------------------------


@cases(LIKELIHOODS)
@pytest.mark.parametrize("shape", [pytest.param(EVENT, id="images"), pytest.param((12,), id="table", marks=pytest.mark.slow)])
def test_every_likelihood_is_fitted_sampled_and_drawn(entry: pv.Likelihood, shape: tuple[int, ...]) -> None:
    kinds = ("real", "binary", "unit_interval", "count", "categorical")
    kind = "binary" if isinstance(entry, pv.MixedTable) else next(kind for kind in kinds if kind in entry.accepts)
    data = pv.load_data(rows(kind).reshape(ROWS, *shape).numpy(), kind=kind)
    fit = pv.fit(vae(likelihood=entry), data, method=pv.SVI(epochs=1))
    assert math.isfinite(fit.evaluate(data)["elbo"])
    seen = data.test.transformed()
    reconstruction, draws = fit.reconstruct(seen), fit.sample(3)
    assert reconstruction.shape == seen.shape
    assert draws.shape == fit.sample(3, means=True).shape == (3, *shape)
    assert draws.dtype == torch.float32
    for x in (reconstruction, draws):
        assert x.isfinite().all()
        plots.grid(x, kind=kind)
    plots.comparison(seen, reconstruction, kind=kind)


@pytest.mark.parametrize("name", ["Categorical", "MixedTable", "ZeroInflated-Poisson", "LowRankGaussian", "Masked-Gaussian"])
def test_a_distribution_is_expanded_without_change(name: str) -> None:
    torch.manual_seed(0)
    ours = LIKELIHOODS[name].build((2,))(torch.randn(LIKELIHOODS[name].features, 2))
    wide = ours.expand(torch.Size((3, 4)))
    x = ours.sample((3, 4))
    assert wide.batch_shape == (3, 4)
    assert wide.sample((5,)).shape == (5, 3, 4, 2)
    assert wide.mean.shape == (3, 4, 2)
    torch.testing.assert_close(wide.log_prob(x), ours.log_prob(x))
