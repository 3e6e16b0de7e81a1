"""The equivalences of the literature, through the public API: what different methods make of one declaration."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from torch.distributions import MultivariateNormal

import ppl_vae as pv
from ppl_vae import exact
from ppl_vae.exact.rotations import principal_angle

N, D, K, C = 400, 8, 3, 3
EXACT = 1e-6  # nats per datum
LENGTHS = torch.tensor([3.0, 2.0, 1.2])  # of the loadings' columns


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed))


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    """Rows of a factor model with orthogonal loadings and unequal noise, ``(N, D)``."""
    axes = torch.linalg.qr(randn(D, K, seed=1)).Q
    noise = torch.linspace(0.3, 0.7, D)
    return (0.2 + randn(N, K, seed=2) * LENGTHS @ axes.T + randn(N, D, seed=3) * noise).numpy()


@pytest.fixture(scope="module")
def data(x: np.ndarray) -> pv.Data:
    return whole(x)


@pytest.fixture(scope="module")
def best(data: pv.Data) -> float:
    """The maximum log-likelihood of PPCA."""
    return log_likelihood(pv.fit(pv.PPCA(latent_dim=K), data, method=pv.ClosedForm()), data)


@pytest.fixture(scope="module")
def blobs() -> np.ndarray:
    parts = [randn(120, 3, seed=i) @ randn(3, 3, seed=i + 10) + 4 * randn(3, seed=i + 20) for i in range(C)]
    return torch.cat(parts).numpy()


def whole(x: np.ndarray, **options: object) -> pv.Data:
    return pv.load_data(x, valid=0.0, test=0.0, **options)


def log_likelihood(fit: pv.Fit, data: pv.Data) -> float:
    return fit.evaluate(data.train)["log_likelihood"]


def covariance(fit: pv.Fit) -> torch.Tensor:
    """Cov[x] of a fitted linear-Gaussian model, whatever its prior is."""
    parameters = exact.posterior.fold_prior(fit.pair.model.parameters_em, fit.pair.model.prior_em)
    return (parameters.loadings @ parameters.loadings.T + parameters.noise.diag()).detach()


# --- PPCA, factor analysis, the linear VAE --------------------------------------------------------------------------------


def test_ppca_by_em_is_the_closed_form_is_scikit_learns_score(x: np.ndarray, data: pv.Data, best: float) -> None:
    peer = PCA(K, svd_solver="full").fit(x.astype(np.float64))
    # scikit-learn divides by N - 1, maximum likelihood by N.
    peer.explained_variance_ *= (N - 1) / N
    peer.noise_variance_ *= (N - 1) / N
    fitted = pv.fit(pv.PPCA(latent_dim=K), data, method=pv.EM(tolerance=1e-13))
    assert log_likelihood(fitted, data) == pytest.approx(best, abs=EXACT)
    assert best == pytest.approx(peer.score(x.astype(np.float64)), abs=EXACT)
    axes = torch.from_numpy(peer.components_.T.copy())
    assert principal_angle(fitted.pair.model.loadings.double(), axes) < math.radians(0.05)
    lengths = fitted.pair.model.rotated_loadings().norm(dim=0)
    expected = torch.from_numpy(peer.explained_variance_ - peer.noise_variance_).sqrt()
    torch.testing.assert_close(lengths, expected, rtol=1e-3, atol=0)


def test_factor_analysis_with_isotropic_noise_is_ppca(data: pv.Data, best: float) -> None:
    fitted = pv.fit(pv.FactorAnalysis(latent_dim=K, noise="isotropic"), data, method=pv.EM(tolerance=1e-13))
    closed = pv.fit(pv.FactorAnalysis(latent_dim=K, noise="isotropic"), data, method=pv.ClosedForm())
    assert log_likelihood(fitted, data) == pytest.approx(best, abs=EXACT)
    assert log_likelihood(closed, data) == pytest.approx(best, abs=EXACT)


def test_factor_analysis_is_never_below_ppca(data: pv.Data, best: float) -> None:
    assert log_likelihood(pv.fit(pv.FactorAnalysis(latent_dim=K), data, method=pv.EM()), data) > best


def test_the_linear_vae_reaches_ppcas_maximum_with_a_tight_elbo(data: pv.Data, best: float) -> None:
    vae = pv.VAE(latent_dim=K, decoder=pv.Linear(), likelihood=pv.Gaussian(scale="shared"))
    method = pv.SVI(epochs=350, batch_size=N, learning_rate=5e-2)
    fitted = pv.fit(vae, data, guide=pv.AmortizedLinear(), method=method)
    # ELBO <= log-likelihood <= PPCA's: near the last one it must be tight.
    elbo = fitted.evaluate(data.train, samples=200)["elbo"]
    assert best - 0.02 < elbo < best + 0.005
    assert fitted.pair.model.likelihood.scale.item() == pytest.approx(
        pv.fit(pv.PPCA(latent_dim=K), data, method=pv.ClosedForm()).pair.model.likelihood.scale.item(), rel=0.02
    )


@pytest.mark.parametrize("model", [pv.PPCA(latent_dim=K), pv.FactorAnalysis(latent_dim=K)], ids=["PPCA", "FactorAnalysis"])
def test_svi_with_the_linear_guide_reaches_em(data: pv.Data, model: pv.Model) -> None:
    method = pv.SVI(epochs=60, batch_size=100)
    numbers = pv.fit(model, data, guide=pv.AmortizedLinear(), method=method).evaluate(data.train)
    exact = log_likelihood(pv.fit(model, data, method=pv.EM(tolerance=1e-12)), data)
    assert exact - 0.02 < numbers["log_likelihood"] <= exact + EXACT
    assert 0 <= numbers["gap"] < 0.02


@pytest.mark.parametrize("variance", [0.6, 2.5, 6.5])
def test_active_dimensions_of_the_linear_vae_are_the_eigenvalues_above_its_variance(
    x: np.ndarray, data: pv.Data, variance: float
) -> None:
    eigenvalues = np.linalg.eigvalsh(np.cov(x.T, bias=True))[::-1]
    active = int((eigenvalues > variance).sum())
    assert np.abs(eigenvalues - variance).min() > 0.1 * variance  # none is near the border
    vae = pv.VAE(latent_dim=5, decoder=pv.Linear(), likelihood=pv.Gaussian(scale="fixed", value=variance**0.5))
    method = pv.SVI(epochs=200, batch_size=N, learning_rate=5e-2)
    fitted = pv.fit(vae, data, guide=pv.AmortizedLinear(covariance="diagonal"), method=method)
    spread = fitted.encode(data.train).var(0).sort(descending=True).values
    assert int((spread > 0.05).sum()) == active
    # The posterior means' variances are 1 - sigma^2 / eigenvalue (Tipping and Bishop 1999; Lucas et al. 2019).
    expected = torch.from_numpy((1 - variance / eigenvalues[:5]).clip(0)).float()
    torch.testing.assert_close(spread, expected, rtol=0, atol=0.12)


def test_a_general_prior_gives_the_same_density(data: pv.Data) -> None:
    prior = pv.Normal(loc=(0.5, -1.0, 2.0), scale=(1.0, 2.0, 0.5))
    plain, other = (
        pv.fit(model, data, method=pv.EM(tolerance=1e-12))
        for model in (pv.FactorAnalysis(latent_dim=K), pv.FactorAnalysis(latent_dim=K, prior=prior))
    )
    assert log_likelihood(other, data) == pytest.approx(log_likelihood(plain, data), abs=EXACT)
    torch.testing.assert_close(covariance(other), covariance(plain), rtol=0, atol=1e-5)
    # The codes are the same up to that change of coordinates.
    codes = (other.encode(data.train) - torch.tensor(prior.loc)) / torch.tensor(prior.scale)
    torch.testing.assert_close(codes, plain.encode(data.train), rtol=0, atol=1e-4)


def test_the_exact_log_likelihood_is_the_multivariate_normals(data: pv.Data) -> None:
    fitted = pv.fit(pv.FactorAnalysis(latent_dim=K), data, method=pv.EM())
    loc = fitted.pair.model.parameters_em.loc.detach()
    marginal = MultivariateNormal(loc, covariance(fitted)).log_prob(data.train.x.double()).mean().item()
    assert log_likelihood(fitted, data) == pytest.approx(marginal, abs=EXACT)


# --- EM's decomposition ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [pv.FactorAnalysis(latent_dim=K), pv.PPCA(latent_dim=K), pv.GMM(components=C)], ids=repr)
def test_after_em_the_sampled_elbo_is_the_log_likelihood(model: pv.Model, data: pv.Data) -> None:
    fitted = pv.fit(model, data, method=pv.EM(max_iterations=20))
    loss, *_ = pv.ELBO(kl="sampled").build(fitted.pair.double())(data.train.x.double())
    assert -loss.item() == pytest.approx(log_likelihood(fitted, data), abs=EXACT)
    assert fitted.evaluate(data.train)["gap"] == 0


@pytest.mark.parametrize("kind", ["full", "tied", "diagonal", "spherical"])
def test_em_of_a_mixture_has_scikit_learns_log_likelihood_at_every_iteration(blobs: np.ndarray, kind: str) -> None:
    data, model = whole(blobs), pv.GMM(components=C, covariance=kind)
    fitted = pv.fit(model, data, method=pv.EM(tolerance=0.0, max_iterations=25))
    start = fitted.pair.model.em(data.train.x, generator=generator()).start
    rows = data.train.x.double().numpy()
    precisions = {
        "full": torch.linalg.inv,
        "tied": torch.linalg.inv,
        "diagonal": torch.reciprocal,
        "spherical": torch.reciprocal,
    }
    peer = GaussianMixture(
        C,
        covariance_type={"diagonal": "diag"}.get(kind, kind),
        max_iter=1,
        tol=0.0,
        reg_covar=0.0,
        warm_start=True,
        weights_init=start.weights.numpy(),
        means_init=start.locs.numpy(),
        precisions_init=precisions[kind](start.covariances).numpy(),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one iteration does not converge
        theirs = [peer.fit(rows).lower_bound_ for _ in fitted.history]
    ours = [row["log_likelihood"] for row in fitted.history]
    assert ours == pytest.approx(theirs, abs=EXACT)
    assert log_likelihood(fitted, data) == pytest.approx(ours[-1], abs=1e-5)  # through float32 modules


def test_svi_of_a_mixture_reaches_em(blobs: np.ndarray) -> None:
    data, model = whole(blobs), pv.GMM(components=C)
    exact = log_likelihood(pv.fit(model, data, method=pv.EM()), data)
    numbers = pv.fit(model, data, method=pv.SVI(epochs=40)).evaluate(data.train)
    assert exact - 0.05 < numbers["log_likelihood"] < exact + 0.05
    assert numbers["gap"] == 0


# --- hard data ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "degrees"), [(pv.FactorAnalysis(latent_dim=K), 6), (pv.PPCA(latent_dim=K), 3)])
def test_a_fifth_missing_recovers_the_subspace(x: np.ndarray, data: pv.Data, model: pv.Model, degrees: float) -> None:
    complete = pv.fit(model, data, method=pv.EM())
    gaps = np.where(torch.rand(N, D, generator=generator(7)).numpy() < 0.2, np.nan, x)
    holed = whole(gaps, missing="ignore")
    fitted = pv.fit(model, holed, method=pv.EM())
    assert principal_angle(fitted.pair.model.loadings, complete.pair.model.loadings) < math.radians(degrees)
    assert math.isfinite(log_likelihood(fitted, holed))
    with pytest.raises(ValueError, match=r"complete data.*EM"):
        pv.fit(model, holed, method=pv.SVI(epochs=1))


def test_a_mixture_with_missing_entries_finds_the_components(blobs: np.ndarray) -> None:
    gaps = np.where(torch.rand(*blobs.shape, generator=generator(7)).numpy() < 0.2, np.nan, blobs)
    complete = pv.fit(pv.GMM(components=C), whole(blobs), method=pv.EM(n_init=3))
    fitted = pv.fit(pv.GMM(components=C), whole(gaps, missing="ignore"), method=pv.EM(n_init=3))
    distances = torch.cdist(fitted.pair.model.loc.detach(), complete.pair.model.loc.detach())
    assert distances.min(1).values.max() < 0.5
    assert sorted(distances.argmin(1).tolist()) == list(range(C))


HARD = {
    "constant columns": lambda x: np.concatenate([x, np.full((N, 2), 0.1, np.float32)], 1),
    "duplicated rows": lambda x: np.tile(x[:9], (20, 1)),
    "fewer rows than columns": lambda x: x[:6],
    "two rows": lambda x: x[:2],
    "all constant": lambda x: np.full_like(x, 3.0),
    "scales": lambda x: x * np.logspace(-4, 4, D).astype(np.float32),
    "a copied column": lambda x: np.concatenate([x, x[:, :1]], 1),
    "far from zero": lambda x: x + 1e4,
}
MODELS = {"FactorAnalysis": pv.FactorAnalysis(latent_dim=K), "PPCA": pv.PPCA(latent_dim=K), "GMM": pv.GMM(components=5)}


@pytest.mark.filterwarnings(
    "ignore:the noise variance of:UserWarning",
    "ignore:components :UserWarning",
    "ignore:the fit ends at:UserWarning",
    "ignore:column ",
)
@pytest.mark.parametrize("method", [pv.EM(max_iterations=100), pv.ClosedForm(), pv.SVI(epochs=2)], ids=repr)
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("name", HARD)
def test_hard_data_give_a_finite_fit_or_a_clear_error(x: np.ndarray, name: str, model: pv.Model, method: pv.Method) -> None:
    if isinstance(method, pv.ClosedForm) and not isinstance(model, pv.PPCA):
        pytest.skip("no closed form")
    hard = whole(HARD[name](x))
    refused = isinstance(model, pv.GMM) and len(np.unique(hard.train.x.numpy(), axis=0)) < 5
    if refused:
        with pytest.raises(ValueError, match=r"distinct points among .* use fewer components"):
            pv.fit(model, hard, method=method)
        return
    fitted = pv.fit(model, hard, method=method)
    assert all(parameter.isfinite().all() for parameter in fitted.pair.parameters())
    numbers = fitted.evaluate(hard.train)
    assert all(math.isfinite(value) for value in numbers.values())
    assert fitted.encode(hard.train).isfinite().all()


def test_the_floor_is_reported(x: np.ndarray) -> None:
    hard = whole(HARD["constant columns"](x))
    with pytest.warns(UserWarning, match=r"2 of 10 columns \(8, 9\) stands on its floor"):
        pv.fit(pv.FactorAnalysis(latent_dim=K), hard, method=pv.EM())


# --- data in a file -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [pv.FactorAnalysis(latent_dim=K), pv.GMM(components=C)], ids=repr)
def test_a_file_gives_the_same_fit_as_memory(x: np.ndarray, data: pv.Data, model: pv.Model, tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, x)
    method = pv.EM(max_iterations=15)
    loaded = pv.fit(model, pv.load_data(path, valid=0.0, test=0.0), method=method)
    memory = pv.fit(model, data, method=method)
    for name, value in memory.pair.state_dict().items():
        assert torch.equal(value, loaded.pair.state_dict()[name]), name
    problems = [
        memory.pair.model.em(rows, generator=generator()) for rows in (np.load(path, mmap_mode="c"), torch.from_numpy(x))
    ]
    mapped, held = (exact.run(p.step, p.start, max_iterations=15, acceleration=p.acceleration) for p in problems)
    assert mapped.history[-1].log_likelihood == pytest.approx(held.history[-1].log_likelihood, abs=1e-10)
    assert mapped.history[-1].log_likelihood == pytest.approx(memory.history[-1]["log_likelihood"], abs=1e-3)


@pytest.mark.parametrize("model", [pv.FactorAnalysis(latent_dim=2), pv.PPCA(latent_dim=2), pv.GMM(components=3)], ids=str)
def test_a_warm_start_goes_on_where_the_earlier_fit_stopped(model: pv.Model) -> None:
    x = np.random.default_rng(0).normal(size=(200, 5)) @ np.random.default_rng(1).normal(size=(5, 5))
    data = pv.load_data(x.astype(np.float32), valid=0.0, test=0.0)
    short = pv.fit(model, data, method=pv.EM(max_iterations=5, acceleration="none"))
    going_on = pv.fit(model, data, method=pv.EM(), warm_start=short)
    log_likelihood = short.evaluate(data.train)["log_likelihood"]
    assert going_on.history[0]["log_likelihood"] == pytest.approx(log_likelihood, abs=1e-5)
    assert going_on.history[-1]["log_likelihood"] > log_likelihood
    done = pv.fit(model, data, method=pv.EM(), warm_start=going_on)
    assert len(done.history) <= len(going_on.history)
    by_gradients = pv.fit(model, data, method=pv.SVI(epochs=1, learning_rate=1e-6), warm_start=done)
    assert by_gradients.evaluate(data.train)["log_likelihood"] == pytest.approx(done.history[-1]["log_likelihood"], abs=1e-3)


def test_a_warm_start_from_another_model_is_refused() -> None:
    data = pv.load_data(np.random.default_rng(0).normal(size=(50, 5)).astype(np.float32))
    fitted = pv.fit(pv.PPCA(latent_dim=1), data, method=pv.EM())
    with pytest.raises(ValueError, match="a warm start needs an earlier fit of the same model"):
        pv.fit(pv.PPCA(latent_dim=2), data, method=pv.EM(), warm_start=fitted)
