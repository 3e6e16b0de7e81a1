"""EM against exact densities, closed forms and scikit-learn: tiny problems, seeds and tolerances in one place."""

from __future__ import annotations

import itertools
import math
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.decomposition import FactorAnalysis as SklearnFactorAnalysis
from sklearn.mixture import GaussianMixture
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from ppl_vae.exact import (
    Squarem,
    best_of,
    floors,
    linear_gaussian,
    missing,
    mixture,
    mixture_missing,
    mixture_start,
    posterior,
    profile,
    rotations,
    run,
)
from ppl_vae.exact import moments as em_moments
from ppl_vae.exact.covariances import COVARIANCES, covariance
from ppl_vae.exact.moments import merge, moments

N, D, K, C = 400, 10, 3, 3
EXACT = 1e-8
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"))]
SKLEARN = {"full": "full", "tied": "tied", "diagonal": "diag", "spherical": "spherical"}
KINDS = list(COVARIANCES)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def factors():
    """Rows of a factor model with unequal noise, far from zero."""
    noise = torch.linspace(0.3, 1.5, D, dtype=torch.float64)
    truth = linear_gaussian.Parameters(randn(D, seed=1) * 5, 2 * randn(D, K, seed=2), noise.square())
    x = truth.loc + randn(N, K, seed=3) @ truth.loadings.T + randn(N, D, seed=4) * noise
    return truth, x


@pytest.fixture(scope="module")
def blobs():
    parts = [randn(150, 4, seed=i) @ randn(4, 4, seed=i + 10) + 3 * randn(4, seed=i + 20) + 20 for i in range(C)]
    return torch.cat(parts)


def step_of(m, *, isotropic=False, step=profile.profile_step, floor=None):
    return partial(step, moments=m, isotropic=isotropic, floor=linear_gaussian.noise_floor(m) if floor is None else floor)


def squarem_of(m):
    floor = linear_gaussian.noise_floor(m)
    return Squarem(profile.to_vector, partial(profile.from_vector, moments=m, floor=floor))


def constant_of(m):
    return floors.constant(m.mean, m.covariance.diagonal())


def values(result):
    return [line.log_likelihood for line in result.history]


def covariance_of(p):
    return p.loadings @ p.loadings.T + torch.diag(p.noise)


def some_mixture(kind, columns=4, seed=0):
    root = randn(C, columns, columns, seed=seed)
    full = root @ root.mT + torch.eye(columns)
    shapes = {
        "full": full,
        "tied": full[0],
        "diagonal": full.diagonal(dim1=1, dim2=2).clone(),
        "spherical": full[:, 0, 0].clone(),
    }
    return mixture.Parameters(torch.tensor([0.5, 0.3, 0.2]).double(), 3 * randn(C, columns, seed=seed + 1) + 20, shapes[kind])


def exact_mixture(p, kind):
    full = COVARIANCES[kind].expand(p.covariances, p.locs)
    return MixtureSameFamily(Categorical(p.weights), MultivariateNormal(p.locs, full))


# --- driver -----------------------------------------------------------------------------------------------------------


def test_a_fall_is_an_error_that_names_the_iteration():
    with pytest.raises(ValueError, match=r"iteration 3: -2 -> -5 nats.*Usual cause.*Remedies"):
        run(lambda s: (s + 1, [-4.0, -3.0, -2.0, -5.0][s]), 0, tolerance=0.0)
    with pytest.raises(ValueError, match="not finite"):
        run(lambda s: (s, math.nan), 0)


def test_driver_reports_progress_and_stops_at_the_last_iteration():
    seen = []
    result = run(
        lambda s: (s / 2, -s), 1.0, max_iterations=4, tolerance=0.0, on_iteration=lambda line, s: seen.append((line, s))
    )
    assert (result.iterations, result.converged, result.state) == (4, False, 1 / 16)
    assert values(result) == [-1, -1 / 2, -1 / 4, -1 / 8, -1 / 16]
    assert [line for line, _ in seen] == result.history
    assert seen[-1][1] == result.state
    assert run(lambda s: (s, -s), 1.0).converged


def test_squarem_is_monotone_faster_and_falls_back(factors):
    m = moments(factors[1][:60])
    start = profile.initial(m, K)
    plain = run(step_of(m, step=linear_gaussian.em_step), start, tolerance=1e-11, max_iterations=5000)
    fast = run(step_of(m), start, tolerance=1e-11, max_iterations=5000, acceleration=squarem_of(m))
    assert fast.converged
    assert fast.iterations < plain.iterations / 3
    assert values(fast)[-1] >= values(plain)[-1] - 1e-8
    # An extrapolation that always lands on a bad point must be refused every time and cost only its evaluation.
    bad = Squarem(lambda s: s, lambda v, like: torch.full_like(v, 100.0))
    refused = run(lambda t: (t / 2, -t.square().sum()), torch.ones(2), tolerance=1e-8, acceleration=bad)
    assert refused.converged
    assert refused.state.norm() < 1e-3


# --- moments ----------------------------------------------------------------------------------------------------------


def test_moments_are_the_same_in_batches_from_a_file_and_merged(factors, tmp_path):
    x = factors[1].float()
    whole = moments(x)
    np.save(tmp_path / "x.npy", x.numpy())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="c")
    others = [moments(mapped, rows=33), moments(x.split(7)), moments(iter(x.split(64))), merge(*map(moments, x.split(90)))]
    for other in others:
        for ours, theirs in zip(other, whole, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(whole.covariance, torch.cov(x.double().T, correction=0))


def test_moments_refuse_what_has_none():
    with pytest.raises(ValueError, match="NaN or infinite"):
        moments(torch.tensor([[1.0, math.nan]]))
    with pytest.raises(ValueError, match="at least one row"):
        moments([])
    with pytest.raises(ValueError, match="flatten"):
        moments(torch.zeros(2, 3, 4))


# --- factor analysis and PPCA -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("general_prior", [False, True])
def test_log_prob_and_posterior_are_exact(factors, general_prior):
    p, x = factors
    root = randn(K, K, seed=5)
    prior = posterior.Prior(randn(K, seed=6), root @ root.T + torch.eye(K)) if general_prior else None
    loc0, cov0 = prior or (torch.zeros(K).double(), torch.eye(K).double())
    marginal = MultivariateNormal(p.loc + p.loadings @ loc0, p.loadings @ cov0 @ p.loadings.T + torch.diag(p.noise))
    ours = posterior.log_prob(p, x, prior)
    torch.testing.assert_close(ours, marginal.log_prob(x), rtol=0, atol=EXACT)
    # Bayes: log p(x) = log p(x | z) + log p(z) - log q(z | x) at any z.
    q = posterior.posterior(p, x, prior)
    z = randn(N, K, seed=7)
    joint = MultivariateNormal(p.loc + z @ p.loadings.T, torch.diag(p.noise)).log_prob(x) + MultivariateNormal(
        loc0, cov0
    ).log_prob(z)
    torch.testing.assert_close(joint - MultivariateNormal(q.mean, q.covariance).log_prob(z), ours, rtol=0, atol=EXACT)
    if not general_prior:
        torch.testing.assert_close(linear_gaussian.log_likelihood(p, moments(x)), ours.mean(), rtol=0, atol=EXACT)


def test_a_prior_that_is_not_a_covariance_is_refused(factors):
    with pytest.raises(ValueError, match="not positive definite"):
        posterior.posterior(*factors, posterior.Prior(torch.zeros(K).double(), -torch.eye(K).double()))


@pytest.mark.parametrize("isotropic", [False, True])
@pytest.mark.parametrize("step", [linear_gaussian.em_step, profile.profile_step])
def test_the_gap_is_zero_after_the_e_step_and_the_m_step_climbs(factors, isotropic, step):
    """EM's decomposition: log p = ELBO + KL(q || p(z|x)), and the KL vanishes for the E-step's q."""
    m = moments(factors[1])
    p = profile.initial(m, K, generator=generator())
    p = p._replace(noise=p.noise.mean().expand(D)) if isotropic else p
    latent = linear_gaussian.e_step(p, m)
    second = (
        m.covariance.diagonal() - 2 * (p.loadings * latent.cross).sum(1) + ((p.loadings @ latent.second) * p.loadings).sum(1)
    )
    reconstruction = -0.5 * ((2 * math.pi * p.noise).log() + second / p.noise).sum()
    q = posterior.posterior(p, factors[1]).covariance
    kl = 0.5 * (latent.second.trace() - K - q.logdet())
    torch.testing.assert_close(reconstruction - kl, latent.log_likelihood, rtol=0, atol=EXACT)
    result = run(step_of(m, isotropic=isotropic, step=step), p, max_iterations=40, tolerance=0.0, slack=1e-12)
    assert values(result)[-1] > values(result)[0] + 1


def test_ppca_em_is_the_closed_form_is_scikit_learns_pca(factors):
    x = factors[1]
    m = moments(x)
    closed = profile.closed_form(m, K)
    start = profile.initial(m, K, generator=generator())
    start = start._replace(noise=start.noise.mean().expand(D))
    squarem = Squarem(missing.to_vector, partial(missing.from_vector, floor=linear_gaussian.noise_floor(m)))
    step = step_of(m, isotropic=True, step=linear_gaussian.em_step)
    em = run(step, start, tolerance=-1.0, max_iterations=600, acceleration=squarem)
    scores = torch.from_numpy(PCA(K, svd_solver="full").fit(x.numpy()).score_samples(x.numpy()))
    # scikit-learn divides by N - 1: so do we here, to compare every row.
    unbiased = profile.closed_form(m._replace(covariance=m.covariance * N / (N - 1)), K)
    torch.testing.assert_close(posterior.log_prob(unbiased, x), scores, rtol=0, atol=EXACT)
    torch.testing.assert_close(posterior.log_prob(em.state, x), posterior.log_prob(closed, x), rtol=0, atol=EXACT)
    assert values(em)[-1] == pytest.approx(linear_gaussian.log_likelihood(closed, m).item(), abs=EXACT)
    assert rotations.principal_angle(em.state.loadings, closed.loadings) < 1e-6
    torch.testing.assert_close(rotations.canonical(closed.loadings), rotations.canonical(em.state.loadings), atol=1e-5, rtol=0)


def test_vanishing_noise_gives_the_subspace_of_pca(factors):
    x = factors[1]
    axes = torch.from_numpy(PCA(K).fit(x.numpy()).components_.T.copy())
    m = moments(x)
    p = profile.initial(m, K, generator=generator())
    for _ in range(200):  # EM for the loadings alone, sigma^2 -> 0: power iteration
        p = linear_gaussian.em_step(p._replace(noise=torch.full((D,), 1e-8).double()), m, isotropic=True, floor=p.noise)[0]
    assert rotations.principal_angle(p.loadings, axes) < 1e-6


def test_factor_analysis_with_isotropic_noise_is_ppca(factors):
    m = moments(factors[1])
    result = run(step_of(m, isotropic=True), profile.initial(m, K), tolerance=1e-14)
    closed = profile.closed_form(m, K)
    torch.testing.assert_close(covariance_of(result.state), covariance_of(closed), rtol=0, atol=1e-5)
    diagonal = run(step_of(m), closed, tolerance=1e-10)  # a warm start; the larger model cannot be worse
    assert values(diagonal)[-1] > values(result)[-1]


def test_factor_analysis_reaches_scikit_learn_and_the_truth(factors):
    truth, x = factors
    sklearn = SklearnFactorAnalysis(K, svd_method="lapack", tol=1e-8, max_iter=5000).fit(x.numpy())
    m = moments(x)
    result = run(step_of(m), profile.initial(m, K), tolerance=1e-12, acceleration=squarem_of(m))
    assert values(result)[-1] >= sklearn.score(x.numpy()) - 1e-6
    torch.testing.assert_close(posterior.log_prob(result.state, x).numpy().mean(), sklearn.score(x.numpy()), rtol=0, atol=1e-3)
    assert rotations.principal_angle(result.state.loadings, truth.loadings) < math.radians(5)


# --- hard data: a sound fit or a clear error, never NaN ---------------------------------------------------------------

HARD = {
    "constant columns": lambda x: torch.cat([x, torch.full((N, 2), 0.1).double()], 1),
    "duplicated rows": lambda x: x[:8].repeat(20, 1),
    "n < d": lambda x: x[:5],
    "one row": lambda x: x[:1],
    "all constant": lambda x: torch.full_like(x, 3.0),
    "scales": lambda x: x * torch.logspace(-6, 6, D).double(),
}


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("isotropic", [False, True])
def test_hard_data_give_finite_monotone_fits(factors, name, isotropic):
    x = HARD[name](factors[1])
    m = em_moments.rooted(moments(x)) if isotropic else moments(x)
    floor = linear_gaussian.noise_floor(m)
    acceleration = None if isotropic else squarem_of(m)
    start = profile.initial(m, K)
    start = start._replace(noise=start.noise.mean().expand_as(start.noise)) if isotropic else start
    result = run(step_of(m, isotropic=isotropic), start, max_iterations=60, acceleration=acceleration)
    for p in (result.state, profile.closed_form(m, K)):
        assert all(t.isfinite().all() for t in p)
        assert posterior.log_prob(p, x).isfinite().all()
    if name == "constant columns" and not isotropic:
        message = linear_gaussian.floor_message(result.state, floor, constant_of(m), isotropic=False)
        assert "2 of 12 columns (10, 11) stands on its floor: columns (10, 11) are constant" in message
        assert result.state.loadings[10:].abs().max() < 1e-6


def test_no_message_where_the_floor_does_not_act(factors):
    m = moments(factors[1])
    for isotropic in (False, True):
        floor = linear_gaussian.noise_floor(m)
        assert linear_gaussian.floor_message(profile.initial(m, K), floor, constant_of(m), isotropic=isotropic) is None


def test_too_many_factors_are_refused(factors):
    m = moments(factors[1])
    for call in (partial(profile.initial, m, D + 1), partial(profile.closed_form, m, D), partial(profile.initial, m, 0)):
        with pytest.raises(ValueError, match="expected 1 <= latent_dim"):
            call()


# --- rotations --------------------------------------------------------------------------------------------------------


def test_rotations_keep_the_model_and_are_canonical(factors):
    p = factors[0]
    turned = p.loadings @ torch.linalg.qr(randn(K, K, seed=8)).Q
    for rotated in (rotations.varimax(turned), rotations.canonical(turned), rotations.canonical(turned, p.noise)):
        torch.testing.assert_close(rotated @ rotated.T, p.loadings @ p.loadings.T)
    gram = rotations.canonical(turned, p.noise).T @ (rotations.canonical(turned, p.noise) / p.noise[:, None])
    torch.testing.assert_close(gram, torch.diag(gram.diagonal()), atol=1e-9, rtol=0)
    torch.testing.assert_close(rotations.canonical(turned), rotations.canonical(p.loadings))
    simple = torch.block_diag(*[torch.ones(3, 1).double() * (i + 1) for i in range(K)])
    found = rotations.varimax(simple @ torch.linalg.qr(randn(K, K, seed=9)).Q)
    assert ((found.abs() > 1e-5).sum(1) == 1).all()


def test_principal_angle_is_accurate_when_small():
    a = torch.eye(D, K).double()
    b = a.clone()
    b[K, 0] = 1e-9
    assert rotations.principal_angle(a, b).item() == pytest.approx(1e-9, rel=1e-6)
    assert rotations.principal_angle(a, torch.eye(D).double()[:, 1 : K + 1]).item() == pytest.approx(math.pi / 2)
    with pytest.raises(ValueError, match="one shape"):
        rotations.principal_angle(a, a[:, :1])


# --- missing entries --------------------------------------------------------------------------------------------------


def with_gaps(x, share, seed=0):
    return torch.where(torch.rand(x.shape, generator=generator(seed)) < share, math.nan, x)


@pytest.mark.parametrize("isotropic", [False, True])
def test_missing_with_nothing_missing_is_complete(factors, isotropic):
    p, x = factors
    p = p._replace(noise=p.noise.mean().expand(D)) if isotropic else p
    m = moments(x)
    torch.testing.assert_close(missing.log_prob(p, x), posterior.log_prob(p, x))
    floor = linear_gaussian.noise_floor(m)
    optimum = run(step_of(m, isotropic=isotropic), p, tolerance=1e-14, max_iterations=5000)
    step = partial(missing.em_step, data=x, isotropic=isotropic, floor=floor)
    climbed = values(run(step, p, tolerance=-1.0, max_iterations=30))
    assert climbed[0] < climbed[-1] <= values(optimum)[-1] + EXACT
    stayed = run(step, optimum.state, tolerance=-1.0, max_iterations=3)
    assert values(stayed) == pytest.approx([values(optimum)[-1]] * 4, abs=EXACT)
    torch.testing.assert_close(stayed.state.loc, m.mean, rtol=0, atol=1e-6)


def test_missing_is_exact_and_batched(factors):
    p, x = factors
    gaps = with_gaps(x[:50], 0.4)
    gaps[0] = math.nan
    for n in range(50):
        o = ~gaps[n].isnan()
        exact = (
            MultivariateNormal(p.loc[o], covariance_of(p)[o][:, o]).log_prob(gaps[n, o])
            if o.any()
            else torch.zeros(()).double()
        )
        torch.testing.assert_close(missing.log_prob(p, gaps)[n], exact, rtol=0, atol=EXACT)
    mean, cov = missing.posterior(p, gaps)
    torch.testing.assert_close(mean[0], torch.zeros(K).double())
    torch.testing.assert_close(cov[0], torch.eye(K).double())
    whole, parts = missing.e_step(p, gaps), missing.e_step(p, gaps.split(7))
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b)


def test_a_fifth_missing_recovers_the_subspace_of_the_complete_data(factors):
    x = factors[1]
    m = moments(x)
    complete = run(step_of(m), profile.initial(m, K), tolerance=1e-10)
    gaps = with_gaps(x, 0.2)
    floor = linear_gaussian.noise_floor(missing.observed_moments(gaps))
    squarem = Squarem(missing.to_vector, partial(missing.from_vector, floor=floor))
    step = partial(missing.em_step, data=gaps, isotropic=False, floor=floor)
    result = run(step, missing.initial(gaps, K), tolerance=1e-9, acceleration=squarem)
    assert result.converged
    assert rotations.principal_angle(result.state.loadings, complete.state.loadings) < math.radians(3)


def test_a_column_never_observed_is_refused(factors):
    x = factors[1].clone()
    x[:, 2] = math.nan
    with pytest.raises(ValueError, match=r"columns \[2\] have no observed entry"):
        missing.initial(x, K)


# --- mixtures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_mixture_densities_are_exact(blobs, kind):
    p = some_mixture(kind)
    exact = exact_mixture(p, kind)
    torch.testing.assert_close(mixture.log_prob(p, blobs, COVARIANCES[kind]), exact.log_prob(blobs), rtol=1e-9, atol=EXACT)
    joint = p.weights.log() + exact.component_distribution.log_prob(blobs[:, None])
    torch.testing.assert_close(mixture.component_log_prob(p, blobs, COVARIANCES[kind]), joint, rtol=1e-9, atol=EXACT)
    torch.testing.assert_close(mixture.responsibilities(p, blobs, COVARIANCES[kind]), joint.softmax(1), rtol=0, atol=EXACT)


@pytest.mark.parametrize("kind", KINDS)
def test_every_iteration_has_scikit_learns_log_likelihood(blobs, kind):
    x = blobs.numpy()
    peer = GaussianMixture(
        C, covariance_type=SKLEARN[kind], max_iter=1, tol=0, warm_start=True, random_state=0, init_params="random_from_data"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer.fit(x)
        start = mixture.Parameters(*(torch.from_numpy(a.copy()) for a in (peer.weights_, peer.means_, peer.covariances_)))
        bounds = [peer.fit(x).lower_bound_ for _ in range(20)]
    step = partial(mixture.em_step, data=blobs, covariance=COVARIANCES[kind], floor=0.0, ridge=1e-6)
    ours = values(run(step, start, max_iterations=19, tolerance=-1.0, slack=1e-6))
    assert max(abs(a - b) for a, b in zip(ours, bounds, strict=True)) < 1e-9


@pytest.mark.parametrize("kind", KINDS)
def test_mixtures_climb_and_their_gap_is_zero(blobs, kind):
    cov = COVARIANCES[kind]
    start = mixture_start.initial(blobs, C, cov, generator=generator())
    result = run(partial(mixture.em_step, data=blobs, covariance=cov), start, tolerance=1e-10, slack=1e-12)
    p = result.state
    r = mixture.responsibilities(p, blobs, cov)
    elbo = (r * (mixture.component_log_prob(p, blobs, cov) - r.clamp_min(1e-300).log())).sum(1)
    torch.testing.assert_close(elbo, mixture.log_prob(p, blobs, cov), rtol=0, atol=EXACT)
    assert elbo.mean().item() == pytest.approx(values(result)[-1], abs=EXACT)
    truth = GaussianMixture(C, covariance_type=SKLEARN[kind], n_init=3, random_state=0).fit(blobs.numpy())
    assert values(result)[-1] > truth.score(blobs.numpy()) - 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_mixture_statistics_are_the_same_in_batches_and_in_float32(blobs, kind, monkeypatch, tmp_path):
    cov, p, x = COVARIANCES[kind], some_mixture(kind), blobs.float()
    whole = mixture.e_step(p, x, cov)
    np.save(tmp_path / "x.npy", x.numpy())
    monkeypatch.setattr(mixture, "_BLOCK_NUMBERS", 1)
    for data in (x.split(100), np.load(tmp_path / "x.npy", mmap_mode="c"), x.double()):
        for a, b in zip(whole, mixture.e_step(p, data, cov), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-8)


def test_starts_are_reproducible_and_restarts_keep_the_best(blobs):
    cov, rng = COVARIANCES["full"], generator(3)
    fit = lambda start: run(partial(mixture.em_step, data=blobs, covariance=cov), start, tolerance=1e-7)  # noqa: E731
    results = [fit(mixture_start.initial(blobs, C, cov, generator=rng, method=m)) for m in ("random", "kmeans++", "random")]
    assert values(best_of(results))[-1] == max(values(r)[-1] for r in results)
    a, b = (mixture_start.initial(blobs, C, cov, generator=generator(5), sample=100) for _ in range(2))
    torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_more_components_than_distinct_points_is_refused():
    x = randn(5, 2).repeat(10, 1)
    with pytest.raises(ValueError, match="5 distinct points among 50 rows, got 6"):
        mixture_start.initial(x, 6, COVARIANCES["full"], generator=generator())
    with pytest.raises(ValueError, match="kmeans"):
        mixture_start.initial(x, 2, COVARIANCES["full"], generator=generator(), method="k")
    with pytest.raises(ValueError, match="full, tied, diagonal, spherical"):
        covariance("diag")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [name for name in HARD if name not in ("one row", "all constant", "scales")])
def test_mixtures_of_hard_data_are_finite_and_monotone(factors, kind, name):
    x, cov = HARD[name](factors[1]), COVARIANCES[kind]
    start = mixture_start.initial(x, C + 1, cov, generator=generator())
    p = run(partial(mixture.em_step, data=x, covariance=cov), start, max_iterations=40).state
    assert all(t.isfinite().all() for t in p)
    assert mixture.log_prob(p, x, cov).isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_dead_component_keeps_its_place_and_is_named(blobs, kind):
    cov, p = COVARIANCES[kind], some_mixture(kind)
    far = p._replace(locs=torch.cat([p.locs[:2], p.locs[2:] + 1e4]))
    result = run(partial(mixture.em_step, data=blobs, covariance=cov), far, max_iterations=50)
    assert torch.equal(result.state.locs[2], far.locs[2])
    assert all(t.isfinite().all() for t in result.state)
    message = mixture.dead_message(result.state, blobs.shape[0], cov)
    assert "components [2] hold no data" in message
    assert "fewer components" in message
    assert mixture.dead_message(p, blobs.shape[0], cov) is None


def test_a_collapsed_component_is_named():
    x = torch.cat([randn(50, 2), torch.full((10, 2), 9.0).double()])
    cov = COVARIANCES["full"]
    start = mixture_start.initial(x, 2, cov, generator=generator())
    result = run(partial(mixture.em_step, data=x, covariance=cov), start)
    assert "shrunk onto single points" in mixture.dead_message(result.state, 60, cov)
    with pytest.raises(ValueError, match="collapsed"):
        run(partial(mixture.em_step, data=x, covariance=cov, floor=0.0), start)


def test_data_that_are_not_numbers_are_refused(blobs):
    with pytest.raises(ValueError, match="declare NaN as missing"):
        mixture.e_step(some_mixture("full"), with_gaps(blobs, 0.1), COVARIANCES["full"])


@pytest.mark.parametrize("kind", KINDS)
def test_mixture_with_nothing_missing_is_complete(blobs, kind):
    cov, p = COVARIANCES[kind], some_mixture(kind)
    found, complete = mixture_missing.e_step(p, blobs, cov), mixture.e_step(p, blobs, cov)
    for name in ("rows", "log_likelihood", "counts"):
        torch.testing.assert_close(getattr(found, name), getattr(complete, name), rtol=1e-9, atol=1e-7)
    for a, b in zip(*(mixture.m_step(sums, p, cov) for sums in (found, complete)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_mixture_with_missing_entries_is_exact_and_climbs(blobs, kind):
    cov, p = COVARIANCES[kind], some_mixture(kind)
    x = with_gaps(blobs, 0.25)
    full = cov.expand(p.covariances, p.locs)
    ours, resp = mixture_missing.log_prob(p, x, cov), mixture_missing.responsibilities(p, x, cov)
    for n in range(20):
        o = ~x[n].isnan()
        if o.any():
            joint = p.weights.log() + MultivariateNormal(p.locs[:, o], full[:, o][:, :, o]).log_prob(x[n, o])
            torch.testing.assert_close(ours[n], joint.logsumexp(0), rtol=0, atol=EXACT)
            torch.testing.assert_close(resp[n], joint.softmax(0), rtol=0, atol=EXACT)
    start = mixture_start.initial(x, C, cov, generator=generator())
    result = run(partial(mixture_missing.em_step, data=x, covariance=cov), start, max_iterations=20, slack=1e-12)
    assert values(result)[-1] > values(result)[0]


# --- devices ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
def test_runs_where_the_data_are(factors, blobs, device):
    x, y = factors[1].to(device), blobs.to(device)
    rng = torch.Generator(device).manual_seed(0)
    m = moments(x)
    result = run(step_of(m), profile.initial(m, K), acceleration=squarem_of(m))
    gaps = with_gaps(factors[1], 0.1).to(device)
    gapped = missing.em_step(missing.initial(gaps, K), gaps, isotropic=False, floor=linear_gaussian.noise_floor(m))[0]
    states = [result.state, gapped, profile.closed_form(m, K)]
    for cov in COVARIANCES.values():
        start = mixture_start.initial(y, C, cov, generator=rng)
        states.append(run(partial(mixture.em_step, data=y, covariance=cov), start, max_iterations=5).state)
        states.append(mixture_missing.em_step(start, y, cov)[0])
    assert all(t.device.type == device for state in states for t in state)
    assert em_moments.Moments._fields == ("rows", "mean", "covariance", "root")


def test_a_run_goes_on_over_a_plateau() -> None:
    """Logistic growth of the log-likelihood after a slow beginning: gains fall below the tolerance, then grow again."""
    gains = [10.0 ** -(2 + 4 * math.sin(math.pi * k / 40)) for k in range(40)] + [1e-3 * 0.5**k for k in range(60)]
    values = list(itertools.accumulate(gains))
    result = run(lambda k: (k + 1, values[min(int(k), len(values) - 1)]), torch.tensor(0), tolerance=1e-5)
    assert min(gains[:40]) < 1e-5
    assert result.converged
    assert result.history[-1].log_likelihood == pytest.approx(values[-1], abs=1e-4)
