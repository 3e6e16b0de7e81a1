"""Priors of parameters, guides over them and NUTS: against scipy, conjugate closed forms and each other."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO
from scipy import stats
from torch import Tensor
from torch.distributions import MultivariateNormal

import ppl_vae as pv
from ppl_vae.evaluate import elbo_terms, log_weights
from ppl_vae.priors.inverse_wishart import CovarianceTransform
from ppl_vae.program.context import local_params
from ppl_vae.types import FitWarning

ROOT = Path(__file__).parents[1]
KINDS = ("map", "mean_field", "full_rank")

FACTORS = pv.FactorAnalysis(latent_dim=1, weights=pv.Normal(scale=2.0), loc=pv.Normal(scale=3.0), scale=pv.LogNormal())
MIXTURES = {
    covariance: pv.GMM(
        components=2,
        covariance=covariance,
        weights=pv.Dirichlet(concentration=2.0),
        locs=pv.Normal(scale=5.0),
        **spread,
    )
    for covariance, spread in {
        "full": {"covariances": pv.InverseWishart()},
        "tied": {"covariances": pv.InverseWishart(excess=4.0)},
        "diagonal": {"scales": pv.HalfNormal(scale=2.0)},
        "spherical": {"scales": pv.LogNormal()},
    }.items()
}
MODELS: dict[str, pv.Model] = {
    "FactorAnalysis": FACTORS,
    "FactorAnalysis-isotropic": pv.FactorAnalysis(latent_dim=2, noise="isotropic", scale=pv.HalfNormal(), weights=pv.Normal()),
    "FactorAnalysis-loc": pv.FactorAnalysis(latent_dim=1, loc=pv.Normal(scale=3.0)),
    **{f"GMM-{name}": model for name, model in MIXTURES.items()},
    "GMM-weights": pv.GMM(components=3, weights=pv.Dirichlet()),
}
# One Gaussian in one column: its mean is conjugate given its scale, so that a sum over a grid of scales is exact.
ONE = pv.GMM(components=1, covariance="spherical", weights=pv.Dirichlet(), locs=pv.Normal(scale=2.0), scales=pv.LogNormal())


def entries(table: dict) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("entry", table.values(), ids=table.keys())


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def all_of(x: Tensor) -> pv.Data:
    return pv.load_data(x.numpy(), valid=0.0, test=0.0)


@pytest.fixture(scope="module")
def factors() -> pv.Data:
    """Fifty rows of one strong factor."""
    return all_of(1 + randn(50, 1) @ torch.tensor([[1.0, -0.8, 0.6]]) + 0.5 * randn(50, 3, seed=1))


@pytest.fixture(scope="module")
def blobs() -> pv.Data:
    """Two clusters in two columns."""
    return all_of(torch.cat([randn(20, 2) / 2 - 2, randn(30, 2, seed=1) / 2 + 2]))


def data_for(model: pv.Model, factors: pv.Data, blobs: pv.Data) -> pv.Data:
    return blobs if isinstance(model, pv.GMM) else factors


def built(model: pv.Model, data: pv.Data, kind: str, seed: int = 0, latents: pv.Guide | None = None) -> pv.Pair:
    torch.manual_seed(seed)
    return pv.build(model, pv.BayesianGuide(parameters=kind, latents=latents or pv.ExactPosterior()), data.spec)  # type: ignore[arg-type]


# --- priors ---------------------------------------------------------------------------------------------------------------


SCIPY = {
    "HalfNormal": (pv.HalfNormal(scale=1.5), (), stats.halfnorm(scale=1.5)),
    "LogNormal": (pv.LogNormal(loc=0.3, scale=0.7), (), stats.lognorm(0.7, scale=math.exp(0.3))),
    "Normal": (pv.Normal(loc=0.3, scale=0.7), (), stats.norm(0.3, 0.7)),
    "Dirichlet": (pv.Dirichlet(concentration=(0.5, 2.0, 3.0)), (3,), stats.dirichlet([0.5, 2.0, 3.0])),
    "InverseWishart": (pv.InverseWishart(excess=3.0, scale=1.5), (3, 3), stats.invwishart(6, 2.25 * np.eye(3))),
}


@entries(SCIPY)
def test_a_prior_has_scipys_density(entry: tuple) -> None:
    prior, shape, scipys = entry
    p = prior.build(shape).double()()
    assert (p.event_shape, p.batch_shape) == (shape, ())
    torch.manual_seed(0)
    for draw in p.sample((5,)):
        assert p.log_prob(draw).item() == pytest.approx(float(scipys.logpdf(draw.numpy())), abs=1e-6)


def test_many_of_a_prior_are_independent_and_read_the_same_after_yaml() -> None:
    for prior, shape, _ in SCIPY.values():
        many = prior.build((4, *shape)).double()()
        one = prior.build(shape).double()()
        draws = many.sample()
        assert many.event_shape == (4, *shape)
        torch.testing.assert_close(many.log_prob(draws), one.log_prob(draws).sum())
        assert pv.Prior.from_yaml(prior.to_yaml()) == prior
        assert type(prior).__name__.removeprefix("Standard") in prior.story(())


def test_draws_of_the_inverse_wishart_have_its_mean() -> None:
    torch.manual_seed(0)
    draws = pv.InverseWishart(excess=8.0, scale=1.5).build((2, 2)).double()().sample((20000,))
    torch.testing.assert_close(draws.mean(0), 2.25 / 7 * torch.eye(2, dtype=torch.float64), atol=0.01, rtol=0)


def test_the_coordinates_of_covariances_invert_and_have_their_volume() -> None:
    transform, x = CovarianceTransform(), randn(2, 6).double()
    y = transform(x)
    torch.testing.assert_close(transform.inv(y), x)
    rows, columns = torch.tril_indices(3, 3)
    for i in range(2):
        jacobian = torch.autograd.functional.jacobian(lambda v: transform(v)[rows, columns], x[i])
        torch.testing.assert_close(transform.log_abs_det_jacobian(x, y)[i], jacobian.det().abs().log())


def exact(x: Tensor) -> tuple[float, float, float]:
    """Log evidence per datum of ``ONE``, and mean and standard deviation of the posterior of its mean; x ``(N, 1)``."""
    x, n = x.flatten().double(), len(x)
    log_s = torch.linspace(-1.5, 1.5, 301, dtype=torch.float64)
    s2 = (2 * log_s).exp()
    covariance = s2[:, None, None] * torch.eye(n, dtype=torch.float64) + 4
    joint = torch.distributions.Normal(0, 1).log_prob(log_s) + MultivariateNormal(torch.zeros_like(x), covariance).log_prob(x)
    weights, variance = joint.softmax(0), 1 / (n / s2 + 1 / 4)
    means = variance * x.sum() / s2
    mean = (weights * means).sum()
    spread = ((weights * (variance + means.square())).sum() - mean.square()).sqrt()
    return (joint.logsumexp(0) + math.log(log_s[1] - log_s[0])).item() / n, mean.item(), spread.item()


# --- declarations ---------------------------------------------------------------------------------------------------------


@entries(MODELS)
def test_a_bayesian_declaration_survives_yaml_and_tells_its_priors(entry: pv.Model) -> None:
    assert pv.Model.from_yaml(entry.to_yaml()) == entry
    assert all(prior.story(()) in str(entry) for prior in entry.parameter_priors.values())


@pytest.mark.parametrize(
    "path", sorted([*ROOT.glob("*/bayesian_*.yaml"), *ROOT.glob("guides/*_parameters.yaml")]), ids=lambda p: p.stem
)
def test_a_ready_declaration_fits(path: Path) -> None:
    declared = (pv.Model if path.parent.name == "models" else pv.Guide).from_yaml(path)
    model = declared if isinstance(declared, pv.Model) else MIXTURES["spherical"]
    guide = declared if isinstance(declared, pv.Guide) else None
    fitted = pv.fit(model, all_of(randn(60, 12)), guide=guide, method=pv.SVI(epochs=1))
    assert math.isfinite(fitted.history[-1][fitted.pair.score])


def test_what_cannot_be_is_refused_with_the_remedy(factors: pv.Data) -> None:
    plain = pv.FactorAnalysis(latent_dim=1)
    spec = pv.DataSpec(event_shape=(3,), kind="real", size=10, missing=True)
    partly = pv.FactorAnalysis(latent_dim=1, loc=pv.Normal())
    refusals: dict[str, Any] = {
        "weights: expected a simplex prior .Dirichlet, LogisticNormal.": lambda: pv.GMM(weights=pv.Normal()),
        "scale: expected a positive prior .HalfNormal, LogNormal.": lambda: pv.FactorAnalysis(scale=pv.Normal()),
        "no prior of scales for a covariance that is full": lambda: pv.GMM(scales=pv.HalfNormal()),
        "no prior of covariances for .* diagonal": lambda: pv.GMM(covariance="diagonal", covariances=pv.InverseWishart()),
        "StandardNormal": lambda: pv.FactorAnalysis(prior=pv.Normal(scale=2.0), loc=pv.Normal()),
        "a prior of vectors": lambda: pv.VAE(prior=pv.InverseWishart()),
        "positive concentrations": lambda: pv.Dirichlet(concentration=()),
        "an excess above -1": lambda: pv.InverseWishart(excess=-1.0),
        "parameters of map, mean_field, full_rank": lambda: pv.BayesianGuide(parameters="diagonal"),  # type: ignore[arg-type]
        "at least 4 samples": lambda: pv.NUTS(samples=3),
        "need complete data": lambda: pv.build(FACTORS, pv.BayesianGuide(), spec),
        "no parameter of this model carries a prior": lambda: pv.build(plain, pv.BayesianGuide(), factors.spec),
        "weights, loc, scale of this model carry priors": lambda: pv.fit(FACTORS, factors, method=pv.EM()),
        "parameters carry no priors.*SVI can fit": lambda: pv.fit(plain, factors, method=pv.NUTS()),
        "weights, scale carry no prior": lambda: pv.fit(partly, factors, method=pv.NUTS()),
        "9 numbers .* more than max_parameters = 8": lambda: pv.fit(FACTORS, factors, method=pv.NUTS(max_parameters=8)),
        "fits no guide over them": lambda: pv.fit(
            FACTORS, factors, guide=pv.BayesianGuide(latents=pv.AmortizedLinear()), method=pv.NUTS()
        ),
    }
    for message, attempt in refusals.items():
        with pytest.raises(ValueError, match=message):
            attempt()


# --- pairs ----------------------------------------------------------------------------------------------------------------


@entries(MODELS)
def test_every_parameter_of_a_bayesian_pair_gets_a_gradient_and_survives_its_state_dict(
    entry: pv.Model, factors: pv.Data, blobs: pv.Data
) -> None:
    data = data_for(entry, factors, blobs)
    x = data.train.transformed()
    for kind in KINDS:
        pair, other = built(entry, data, kind), built(entry, data, kind, seed=1)
        with local_params():
            loss, *_ = pv.ELBO(particles=2).build(pair)(x)
        loss.backward()
        assert [n for n, p in pair.named_parameters() if p.grad is None or not p.grad.any()] == []
        other.load_state_dict(pair.state_dict())
        torch.manual_seed(0)
        with torch.no_grad():
            one = elbo_terms(pair, (x,), samples=2).elbo
            torch.manual_seed(0)
            torch.testing.assert_close(elbo_terms(other, (x,), samples=2).elbo, one, rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_given_its_parameters_the_exact_posterior_gives_their_whole_weight(kind: str, factors: pv.Data, blobs: pv.Data) -> None:
    """log w summed over the data is log p(x | theta) + log p(theta) - log q(theta), whatever z was drawn."""
    for entry in (FACTORS, MIXTURES["full"]):
        data = data_for(entry, factors, blobs)
        x = data.train.transformed().double()
        pair = built(entry, data, kind).double()
        with pair.model.given({name: p.point for name, p in pair.model.drawn.items()}), torch.no_grad():
            values = {name: value.double() for name, value in pair.model.values.items()}
            torch.testing.assert_close(pair.model.log_likelihood([x])(values), pair.model.log_prob(x).sum())
        torch.manual_seed(0)
        weights = log_weights(pair, (x,), samples=3)
        torch.manual_seed(0)
        with local_params(), torch.no_grad():
            draws, totals = [], []
            for _ in range(60 if kind != "map" else 1):
                trace = pyro.poutine.trace(pair.guide.theta).get_trace()
                values = {name: trace.nodes[name]["value"] for name in pair.model.parameter_sites}
                prior = sum(pair.model.drawn[name].prior().log_prob(value) for name, value in values.items())
                draws.append(values)
                totals.append(pair.model.log_likelihood([x])({**pair.model.values, **values}) + prior - trace.log_prob_sum())
        if kind == "map":
            torch.testing.assert_close(weights.sum(1), totals[0].expand(3))
        else:
            spread = torch.stack(totals)
            assert (weights.sum(1) - spread.mean()).abs().max() < 6 * spread.std() + 1


def test_a_bayesian_pair_works_in_pyros_own_svi(factors: pv.Data) -> None:
    pyro.clear_param_store()
    x = factors.train.transformed()
    pair = built(FACTORS, factors, "full_rank", latents=pv.AmortizedLinear())
    svi = pyro.infer.SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": 2e-2}), Trace_ELBO())
    torch.manual_seed(0)
    losses = [svi.step(x) for _ in range(40)]
    pyro.clear_param_store()
    assert np.mean(losses[-10:]) < np.mean(losses[:10])
    before = pair.model.values["loc"].clone()
    pair.guide.write_medians()
    assert not torch.equal(pair.model.values["loc"], before)


# --- fits -----------------------------------------------------------------------------------------------------------------


def test_map_under_flat_priors_is_maximum_likelihood(factors: pv.Data, blobs: pv.Data) -> None:
    flat = pv.Normal(scale=1e3)
    cases = [
        (pv.FactorAnalysis(latent_dim=1), {"weights": flat, "loc": flat, "scale": pv.HalfNormal(scale=1e3)}, factors),
        (
            pv.GMM(components=2, covariance="diagonal"),
            {"weights": pv.Dirichlet(), "locs": flat, "scales": pv.HalfNormal(scale=1e3)},
            blobs,
        ),
    ]
    for plain, priors, data in cases:
        best = pv.fit(plain, data, method=pv.EM()).evaluate(data.train)["log_likelihood"]
        method = pv.SVI(epochs=80, batch_size=50, learning_rate=0.05, objective=pv.ELBO(particles=8))
        model = type(plain)(**{**vars(plain), **priors})
        fitted = pv.fit(model, data, guide=pv.BayesianGuide(parameters="map"), method=method)
        assert best - 0.01 < fitted.evaluate(data.train)["log_likelihood"] <= best + 1e-5


@pytest.mark.parametrize("kind", ["mean_field", "full_rank"])
def test_the_posterior_is_the_exact_one_and_the_elbo_just_below_the_evidence(kind: str) -> None:
    x = 0.7 + randn(40, 1)
    data = all_of(x)
    evidence, mean, spread = exact(x)
    method = pv.SVI(epochs=70, batch_size=40, learning_rate=0.1, objective=pv.ELBO(particles=16))
    fitted = pv.fit(ONE, data, guide=pv.BayesianGuide(parameters=kind), method=method)  # type: ignore[arg-type]
    with torch.no_grad(), local_params():
        draws = torch.stack([fitted.pair.guide.theta()["locs"] for _ in range(1000)])
    assert fitted.pair.model.values["locs"].item() == pytest.approx(mean, abs=0.2 * spread)
    assert draws.std().item() == pytest.approx(spread, rel=0.2)
    assert evidence - 0.01 < fitted.evaluate(data.train, samples=1000)["elbo"] < evidence + 1e-3


def test_a_run_of_a_bayesian_pair_is_read_back_whole(tmp_path: Path) -> None:
    data = all_of(0.7 + randn(40, 1))
    fitted = pv.fit(ONE, data, guide=pv.BayesianGuide(parameters="full_rank"), method=pv.SVI(epochs=2))
    loaded = pv.load_run(pv.save_run(fitted, data, tmp_path / "run"), device="cpu")
    assert (loaded.model, loaded.guide) == (fitted.model, fitted.guide)
    assert loaded.evaluate(data.train, samples=3) == fitted.evaluate(data.train, samples=3)
    torch.testing.assert_close(loaded.sample(3), fitted.sample(3))


def test_a_fit_offers_what_a_point_estimate_offers(factors: pv.Data) -> None:
    fitted = pv.fit(FACTORS, factors, method=pv.SVI(epochs=2, batch_size=50))
    assert isinstance(fitted.guide, pv.BayesianGuide)
    assert fitted.encode(factors.train).shape == (50, 1)
    assert fitted.reconstruct(factors.train).shape == fitted.sample(50).shape == (50, 3)
    numbers = fitted.evaluate(factors.train, samples=20)
    assert numbers["gap"] > 0
    torch.testing.assert_close(fitted.pair.model.values["loc"], fitted.pair.guide.theta.median()["loc"])


@pytest.mark.filterwarnings("ignore::ppl_vae.types.FitWarning")
def test_nuts_finds_the_exact_posterior_twice_the_same_and_leaves_nothing_behind() -> None:
    x, seen = 0.7 + randn(40, 1), []
    data = all_of(x)
    evidence, mean, spread = exact(x)
    method = pv.NUTS(samples=50, warmup=30, chains=2)
    state, store = torch.get_rng_state(), set(pyro.get_param_store())
    fitted = pv.fit(ONE, data, method=method, progress=seen.append)
    assert torch.equal(torch.get_rng_state(), state)
    assert set(pyro.get_param_store()) == store
    assert seen == fitted.history
    assert len(seen) == method.iterations == 160
    last = seen[-1]
    assert last["r_hat"] < 1.1
    assert last["ess"] > 20
    assert fitted.pair.model.values["locs"].item() == pytest.approx(mean, abs=4 * spread / last["ess"] ** 0.5)
    # q(theta) got the draws' moments, so its ELBO is near the evidence too.
    assert evidence - 0.02 < fitted.evaluate(data.train, samples=1000)["elbo"] < evidence + 1e-3
    short = pv.NUTS(samples=8, warmup=6, chains=1, seed=3)
    once, again = (pv.fit(ONE, data, method=short).pair.model.values["locs"] for _ in range(2))
    assert torch.equal(once, again)


@pytest.mark.filterwarnings("ignore::ppl_vae.types.FitWarning")
@pytest.mark.parametrize("name", ["FactorAnalysis", "GMM-spherical"])
def test_nuts_and_the_full_rank_guide_agree(name: str, factors: pv.Data, blobs: pv.Data) -> None:
    model = MODELS[name]
    data = factors if name == "FactorAnalysis" else all_of(blobs.train.transformed()[:, :1])
    guide = pv.BayesianGuide(parameters="full_rank")
    sampled = pv.fit(model, data, guide=guide, method=pv.NUTS(samples=40, warmup=30, chains=1))
    climbed = pv.fit(model, data, guide=guide, method=pv.SVI(epochs=80, batch_size=50, objective=pv.ELBO(particles=8)))
    ess = max(sampled.history[-1]["ess"], 4.0)
    with torch.no_grad(), local_params():
        spread = [sampled.pair.guide.theta() for _ in range(300)]
    for site, value in sampled.pair.model.values.items():
        sd = torch.stack([draw[site] for draw in spread]).std(0)
        assert ((value - climbed.pair.model.values[site]).abs() < 4 * sd * (1 / ess**0.5 + 0.1)).all(), site


def test_chains_that_have_not_mixed_are_told() -> None:
    assert issubclass(FitWarning, UserWarning)
    with pytest.warns(FitWarning, match="have not mixed"):
        pv.fit(MIXTURES["spherical"], all_of(randn(12, 1)), method=pv.NUTS(samples=4, warmup=1, chains=2))


@pytest.mark.filterwarnings("ignore::ppl_vae.types.FitWarning")
def test_standard_errors_after_nuts_are_those_of_its_draws(blobs: pv.Data) -> None:
    data = all_of(blobs.train.transformed()[:, :1])
    fit = pv.fit(MODELS["GMM-spherical"], data, method=pv.NUTS(samples=60, warmup=20, chains=2))
    chains = fit.pair.model.coordinates().unpack(fit.pair.guide.chains)
    drawn = chains["locs"].flatten(0, 1).std(0)
    np.testing.assert_allclose(fit.parameters()["mean"].se, drawn.numpy(), rtol=1e-4)
