"""Wherever a closed form exists it is the test."""

from __future__ import annotations

import math

import pytest
import torch
from pyro.infer import Trace_ELBO
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

import ppl_vae as pv
from ppl_vae.evaluate import elbo_terms, log_weights
from ppl_vae.guides.normal import MIN_SCALE
from ppl_vae.program.context import local_params
from tests.table import EVENT, LATENT, built, rows, spec_for, vae

D = math.prod(EVENT)
SCALE = 0.7


@pytest.fixture
def linear() -> tuple[pv.Pair, torch.Tensor, torch.Tensor]:
    """A linear-Gaussian pair in float64 whose guide is set to the exact posterior; data; their exact log p(x)."""
    model = vae(likelihood=pv.Gaussian(scale="fixed", value=SCALE), decoder=pv.Linear())
    pair = built(model, pv.AmortizedNormal(encoder=pv.Linear(), covariance="full")).double()
    x = rows("real", dtype=torch.float64)
    decoder, encoder = pair.model.decoder.layers, pair.guide.encoder.network.layers
    W, mu = decoder.weight.detach(), decoder.bias.detach()
    covariance = torch.linalg.inv(torch.eye(LATENT) + W.T @ W / SCALE**2)
    L = torch.linalg.cholesky(covariance)
    diagonal = L.diagonal() - MIN_SCALE
    raw = L.tril(-1) + torch.diag(diagonal.expm1().log())
    with torch.no_grad():
        encoder.weight.zero_()
        encoder.weight[:LATENT] = covariance @ W.T / SCALE**2
        encoder.bias[:LATENT] = -encoder.weight[:LATENT] @ mu
        encoder.bias[LATENT:] = raw[*torch.tril_indices(LATENT, LATENT)]
    marginal = MultivariateNormal(mu, W @ W.T + SCALE**2 * torch.eye(D))
    return pair, x, marginal.log_prob(x.flatten(1))


def test_with_the_exact_posterior_every_sample_gives_log_p_of_x(linear: tuple) -> None:
    pair, x, exact = linear
    weights = log_weights(pair, (x,), samples=7)
    torch.testing.assert_close(weights, exact.expand(7, -1), rtol=0, atol=1e-5)


def test_with_the_exact_posterior_the_elbo_is_log_p_of_x(linear: tuple) -> None:
    pair, x, exact = linear
    with local_params():
        loss, *_ = pv.ELBO(kl="sampled").build(pair)(x)
    torch.testing.assert_close(-loss, exact.mean(), rtol=0, atol=1e-5)
    terms = elbo_terms(pair, (x,), samples=20000)
    torch.testing.assert_close(terms.elbo, exact, rtol=0, atol=0.2)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_analytic_kl_is_the_sampled_kl_in_expectation(covariance: str) -> None:
    pair = built(vae(), pv.AmortizedNormal(covariance=covariance))
    x = rows("binary")
    q, p = pair.guide.posterior(x), pair.model.prior().expand((len(x),))
    torch.manual_seed(0)
    z = q.sample((20000,))
    sampled = q.log_prob(z) - p.log_prob(z)
    error = (sampled.mean(0) - kl_divergence(q, p)).abs() / (sampled.std(0) / 20000**0.5)
    assert error.max() < 4.5


def test_the_full_normal_kl_is_torchs() -> None:
    torch.manual_seed(0)
    L = (torch.randn(5, 4, 4, dtype=torch.float64).tril(-1) + 2 * torch.eye(4, dtype=torch.float64)).contiguous()
    q = MultivariateNormal(torch.randn(5, 4, dtype=torch.float64), scale_tril=L)
    loc, scale = torch.randn(4, dtype=torch.float64), torch.rand(4, dtype=torch.float64) + 0.5
    ours = kl_divergence(q, Independent(Normal(loc, scale), 1))
    theirs = kl_divergence(q, MultivariateNormal(loc, scale_tril=torch.diag(scale)))
    torch.testing.assert_close(ours, theirs)


def test_the_elbo_of_bernoulli_data_summed_by_hand() -> None:
    pair = built(vae()).double()
    x = rows("binary", dtype=torch.float64)
    torch.manual_seed(3)
    with local_params():
        loss, _, reconstruction = pv.ELBO().build(pair)(x)
    torch.manual_seed(3)
    features = pair.guide.encoder(x)
    loc, scale = features[:, 0], torch.nn.functional.softplus(features[:, 1]) + MIN_SCALE
    z = loc + scale * torch.randn_like(loc)
    logits = pair.model.decoder(z)[:, 0]
    log_likelihood = (x * logits - torch.nn.functional.softplus(logits)).sum((1, 2, 3))
    kl = ((scale**2 + loc**2 - 1) / 2 - scale.log()).sum(1)
    torch.testing.assert_close(reconstruction, log_likelihood.mean().detach())
    torch.testing.assert_close(-loss, (log_likelihood - kl).mean())


def test_our_loss_is_pyros_over_n() -> None:
    pair = built(vae())
    x = rows("binary")
    torch.manual_seed(1)
    with local_params():
        ours, *_ = pv.ELBO(kl="sampled").build(pair)(x)
    torch.manual_seed(1)
    with local_params():
        pyros = Trace_ELBO().loss(pair.model, pair.guide, x)
    assert ours.item() == pytest.approx(pyros / spec_for(vae()).size)


def test_more_samples_tighten_the_importance_weighted_bound() -> None:
    pair = built(vae(likelihood=pv.Gaussian(scale="fixed", value=0.3), decoder=pv.Linear()))
    data = pv.load_data(rows("real").numpy(), valid=0.0, test=0.5)
    few, many = (pv.evaluate(pair, data.test, samples=samples)["iwae"] for samples in (2, 2000))
    decoder = pair.model.decoder.layers
    W, mu = decoder.weight.detach(), decoder.bias.detach()
    exact = MultivariateNormal(mu, W @ W.T + 0.3**2 * torch.eye(D)).log_prob(data.test.x.flatten(1)).mean().item()
    assert few < many < exact + 0.5
    assert abs(many - exact) < abs(few - exact)


@pytest.mark.parametrize("scale", ["unit", "standardize"])
def test_the_elbo_is_of_the_sources_own_units(scale: str) -> None:
    """Scaling the data and the model together must leave a density of the raw data where it was."""
    raw = 3 + 5 * rows("real").numpy()
    model = vae(likelihood=pv.Gaussian(scale="per_feature"), decoder=pv.Linear())
    elbos = []
    for scaling in ("none", scale):
        data = pv.load_data(raw, scale=scaling, valid=0.0, test=0.0)
        torch.manual_seed(0)
        pair = pv.build(model, pv.AmortizedNormal(), data.spec)
        transform = data.train.transform
        with torch.no_grad():
            decoder, likelihood = pair.model.decoder.layers, pair.model.likelihood
            decoder.weight.copy_(5 * torch.randn(D, LATENT) / transform.scale.expand(EVENT).reshape(D, 1))
            decoder.bias.copy_(((3 - transform.loc) / transform.scale).expand(EVENT).flatten())
            likelihood.log_scale.copy_((5 / transform.scale - likelihood.floor).log().expand(EVENT))
            for parameter in pair.guide.parameters():
                parameter.zero_()
        elbos.append(pv.evaluate(pair, data.train, samples=50)["elbo"])
    assert elbos[0] == pytest.approx(elbos[1], abs=1e-2)
