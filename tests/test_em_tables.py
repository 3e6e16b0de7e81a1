"""EM on ordinary tables: any distance from zero, any unit, degenerate columns, and what is said of a floor."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_wine
from sklearn.decomposition import PCA
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

import ppl_vae as pv
from ppl_vae import exact
from ppl_vae.exact import distances, floors, linear_gaussian, mixture, mixture_start, moments, posterior, profile
from ppl_vae.exact.covariances import COVARIANCES
from ppl_vae.models.linear_gaussian_program import LinearGaussianModel
from ppl_vae.types import FitWarning

KINDS = list(COVARIANCES)
FACTORS: dict[str, pv.Model] = {"FA": pv.FactorAnalysis(latent_dim=2), "PPCA": pv.PPCA(latent_dim=2)}
MIXTURES: dict[str, pv.Model] = {f"GMM {kind}": pv.GMM(components=3, covariance=kind) for kind in KINDS}  # type: ignore[arg-type]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def fitted(model: pv.Model, x: Any, method: pv.Method | None = None, *, scale: Any = "none", **how: Any) -> pv.Fit:
    data = pv.load_data(x, valid=0.0, test=0.0, scale=scale, **how)
    return pv.fit(model, data, method=method or pv.EM(), device="cpu")


def remarks(model: pv.Model, x: Any, method: pv.Method | None = None) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fitted(model, x, method)
    return [str(one.message) for one in caught if issubclass(one.category, FitWarning)]


# --- distance from zero -----------------------------------------------------------------------------------------------


def far_mixture(kind: str, distance: float) -> tuple[mixture.Parameters, Tensor]:
    """Two narrow components at a distance and one between them, and rows of each."""
    root = randn(3, 3, 3, seed=1)
    full = (root @ root.mT + torch.eye(3)) * torch.tensor([1e-4, 1.0, 1e-2]).double()[:, None, None]
    spread = {"full": full, "tied": full[1], "diagonal": full.diagonal(dim1=1, dim2=2).clone(), "spherical": full[:, 0, 0]}
    locs = distance * torch.tensor([[0.0, 0, 0], [1, 1, -1], [0.4, 0.6, 0.2]]).double()
    p = mixture.Parameters(torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), locs, spread[kind].clone())
    scale = torch.linalg.cholesky(COVARIANCES[kind].expand(p.covariances, locs))
    x = torch.cat([locs[c] + randn(40, 3, seed=c + 2) @ scale[c].T for c in range(3)])
    return p, x


@pytest.mark.parametrize("distance", [1.0, 1e3, 1e5, 1e8])
@pytest.mark.parametrize("kind", KINDS)
def test_a_mixture_is_exact_at_any_distance(kind: str, distance: float) -> None:
    p, x = far_mixture(kind, distance)
    cov = COVARIANCES[kind]
    full = cov.expand(p.covariances, p.locs)
    exact = MixtureSameFamily(Categorical(p.weights), MultivariateNormal(p.locs, full))
    torch.testing.assert_close(mixture.log_prob(p, x, cov), exact.log_prob(x), rtol=1e-8, atol=1e-8)
    sums = mixture.e_step(p, x, cov)
    assert (sums.log_likelihood / len(x)).item() == pytest.approx(exact.log_prob(x).mean().item(), rel=1e-8)
    # The M-step by hand, about each component's own new mean.
    r = (p.weights.log() + exact.component_distribution.log_prob(x[:, None])).softmax(1)
    new = mixture.m_step(sums, p, cov, floor=0.0)
    locs = r.T @ x / r.sum(0)[:, None]
    gaps = x[:, None] - locs
    scatter = torch.einsum("nc,nci,ncj->cij", r, gaps, gaps)
    own = scatter / r.sum(0)[:, None, None]
    expected = {
        "full": own,
        "tied": scatter.sum(0) / len(x),
        "diagonal": own.diagonal(dim1=1, dim2=2),
        "spherical": own.diagonal(dim1=1, dim2=2).mean(1),
    }[kind]
    # Of the data themselves, 1e8 + 1e-2, float64 keeps the deviations to 1e-6.
    torch.testing.assert_close(new.covariances, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(new.locs, locs, rtol=1e-12, atol=1e-12 * distance)


@pytest.mark.parametrize("kind", KINDS)
def test_far_statistics_add_up_over_blocks_and_shards(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    p, x = far_mixture(kind, 1e6)
    cov = COVARIANCES[kind]
    whole = mixture.e_step(p, x, cov)
    shards = mixture.add(mixture.e_step(p, x[:50], cov), mixture.e_step(p, x[50:], cov))
    monkeypatch.setattr(mixture, "_BLOCK_NUMBERS", 1)
    for other in (shards, mixture.e_step(p, x.split(7), cov)):
        for a, b in zip(whole, other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def zeros_and_thousands(factor: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    x = np.zeros((200, 3))
    x[:100, :2] = np.abs(rng.normal(2, 0.5, (100, 2))) * factor
    x[:, 2] = rng.normal(50, 10, 200)
    return x.astype(np.float32).astype(np.float64)


@pytest.mark.filterwarnings("ignore:components :UserWarning")
@pytest.mark.parametrize("factor", [1e3, 5e4, 1e7])
@pytest.mark.parametrize("kind", KINDS)
def test_a_column_that_is_mostly_zero_is_fitted_and_its_number_is_exact(kind: Any, factor: float) -> None:
    x = zeros_and_thousands(factor)
    for seed in range(2):
        fit = fitted(pv.GMM(components=2, covariance=kind), x, pv.EM(seed=seed))
        weights, locs, spread = fit.pair.model.gaussians
        exact = MixtureSameFamily(Categorical(weights), MultivariateNormal(locs, spread)).log_prob(torch.from_numpy(x)).mean()
        assert fit.history[-1]["log_likelihood"] == pytest.approx(exact.item(), rel=1e-5)


def test_squared_distances_are_exact_far_from_zero() -> None:
    for columns in (2, 40):
        near, other = randn(30, columns), randn(20, columns, seed=1)
        a, b = torch.cat([near, near + 1e7]), torch.cat([other, other + 1e7, -other])
        exact = (a[:, None] - b).square().sum(-1)
        torch.testing.assert_close(distances.squared_distances(a, b), exact, rtol=1e-9, atol=0)
    labels, squared = mixture_start.assign(a, b[:40])
    assert torch.equal(labels, exact[:, :40].argmin(1))
    torch.testing.assert_close(squared, exact[:, :40].min(1).values, rtol=1e-9, atol=0)


def test_a_linear_models_density_is_exact_where_the_noise_is_tiny() -> None:
    p = linear_gaussian.Parameters(randn(5), 1e4 * randn(5, 2, seed=1), torch.full((5,), 1e-6).double())
    z, noise = randn(50, 2, seed=2), randn(50, 5, seed=3)
    x = p.loc + z @ p.loadings.T + 1e-3 * noise
    # In the basis of the loadings: a normal within their span, and the noise across.
    U, s, _ = torch.linalg.svd(p.loadings)
    inside = (x - p.loc) @ U[:, :2]
    across = (x - p.loc) @ U[:, 2:]
    variance = s.square() + 1e-6
    expected = -0.5 * ((2 * math.pi * variance).log().sum() + (inside.square() / variance).sum(1))
    expected = expected - 0.5 * (3 * math.log(2 * math.pi * 1e-6) + across.square().sum(1) / 1e-6)
    torch.testing.assert_close(posterior.log_prob(p, x), expected, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(exact.missing.log_prob(p, x), expected, rtol=1e-4, atol=1e-3)


# --- units and floors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*FACTORS, *MIXTURES])
def test_units_of_a_table_do_not_matter(name: str) -> None:
    wine = load_wine().data
    wine = (wine - wine.mean(0)) / wine.std(0)
    found = []
    for unit in (1.0, 1e-3, 1e-6, 1e6):
        fit = fitted((FACTORS | MIXTURES)[name], unit * wine)
        assert fit.evaluate(pv.load_data(unit * wine, valid=0.0, test=0.0).train)["log_likelihood"] == pytest.approx(
            fit.history[-1]["log_likelihood"], abs=1e-3
        )
        found.append(fit.history[-1]["log_likelihood"] + 13 * math.log(unit))
    assert found == pytest.approx([found[0]] * 4, abs=1e-3)


def strong_factors(seed: int = 0) -> np.ndarray:
    """Three columns of deviation 455, 0.48 and 8.8 that two factors nearly explain."""
    rng = np.random.default_rng(seed)
    W = np.array([[1.0, 0.2], [0.1, 1.0], [0.8, -0.6]])
    W /= np.linalg.norm(W, axis=1, keepdims=True)
    x = (rng.normal(size=(300, 2)) @ W.T + 0.05 * rng.normal(size=(300, 3))) * np.array([455, 0.48, 8.8])
    return x.astype(np.float32).astype(np.float64)


@pytest.mark.filterwarnings("ignore:column 0 .* nearly all that the score sees")
@pytest.mark.parametrize("method", [pv.EM(), pv.ClosedForm()], ids=repr)
@pytest.mark.parametrize("unit", [1.0, 1e-6])
def test_isotropic_noise_reaches_the_maximum_likelihood_of_unequal_columns(method: pv.Method, unit: float) -> None:
    x = unit * strong_factors()
    values = np.linalg.eigvalsh(np.cov(x.astype(np.float32).astype(np.float64).T, bias=True))
    best = -0.5 * (3 * math.log(2 * math.pi) + np.log(values).sum() + 3)
    fit = fitted(pv.PPCA(latent_dim=2), x, method)
    assert fit.history[-1]["log_likelihood"] == pytest.approx(best, abs=1e-5)
    assert fit.history[-1]["log_likelihood"] >= PCA(2).fit(x).score(x) - 1e-5


def test_em_of_isotropic_noise_keeps_digits_that_differences_lose() -> None:
    x = randn(500, 4) @ torch.linalg.qr(randn(4, 4, seed=1)).Q.T * torch.tensor([1e6, 1, 1, 1]).double()
    x[:, 1] += x[:, 0] / 1e6
    m = moments.rooted(moments.moments(x))
    floor = linear_gaussian.noise_floor(m)
    start = profile.initial(m, 3, generator=generator())
    start = start._replace(noise=start.noise.mean().expand(4))
    step = partial(profile.profile_step, moments=m, isotropic=True, floor=floor)
    found = exact.run(step, start, max_iterations=500, tolerance=1e-12, slack=1e-12)
    best = -0.5 * (4 * math.log(2 * math.pi) + torch.linalg.eigvalsh(m.covariance).log().sum().item() + 4)
    assert found.history[-1].log_likelihood == pytest.approx(best, abs=1e-6)


def test_floors_are_shares_of_each_columns_deviation() -> None:
    x = randn(100, 3) * torch.tensor([1e-6, 1.0, 1e6]).double()
    seen = moments.columns(torch.cat([x, torch.full((100, 1), 0.1).double()], 1))
    unit = floors.units(seen.mean, seen.variance)
    torch.testing.assert_close(unit[:3], x.std(0, correction=0))
    assert unit[3].item() == pytest.approx(unit[:3].log().mean().exp().item())
    assert floors.constant(seen.mean, seen.variance).tolist() == [False, False, False, True]
    assert floors.common(torch.tensor([4.0, 9.0])) == 4
    assert floors.common(torch.tensor([1e-20, 1.0])) == pytest.approx(1e-8)


@pytest.mark.parametrize("kind", ["full", "tied"])
def test_a_bounded_covariance_is_the_constrained_maximizer(kind: str) -> None:
    """No covariance above the floor has a higher expected log-likelihood than the clamped one."""
    cov, floor = COVARIANCES[kind], torch.tensor([1e-6, 1.0, 1e4]).double()
    sample = randn(2, 3) * floor.sqrt()
    empirical = sample.T @ sample / 2  # of rank 2
    batch = empirical if kind == "tied" else empirical[None]
    best = cov.bound(batch, floor).reshape(3, 3)

    def value(covariance: Tensor) -> float:
        return -(covariance.logdet() + torch.linalg.solve(covariance, empirical).trace()).item()

    whitened = best / torch.outer(floor.sqrt(), floor.sqrt())
    assert torch.linalg.eigvalsh(whitened).min() >= 1
    for seed in range(20):
        other = randn(3, 3, seed=seed)
        trial = cov.bound(
            (best + 0.3 * floor.sqrt().diag() @ (other + other.T) @ floor.sqrt().diag()).reshape(batch.shape), floor
        )
        assert value(trial.reshape(3, 3)) <= value(best) + 1e-6


def test_weights_saved_before_floors_were_relative_give_the_same_model() -> None:
    fit = fitted(pv.FactorAnalysis(latent_dim=1), strong_factors())
    model = fit.pair.model
    assert isinstance(model, LinearGaussianModel)
    old = {name: value.clone() for name, value in model.state_dict().items() if name != "likelihood.unit"}
    model.load_state_dict(old)
    expected = old["likelihood.log_scale"].exp() + 1e-3
    torch.testing.assert_close(model.likelihood.scale.detach(), expected)


# --- what is said -----------------------------------------------------------------------------------------------------


def with_constant(x: np.ndarray) -> np.ndarray:
    return np.c_[x, np.full(len(x), 0.1)]


DEGENERATE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "a constant column": with_constant,
    "collinear columns": lambda x: np.c_[x, x[:, 0] - 2 * x[:, 1]],
    "n < d": lambda x: x.reshape(10, -1)[:6],
}


@pytest.mark.parametrize("unit", [1.0, 1e-5])
@pytest.mark.parametrize("kind", ["full", "tied"])
@pytest.mark.parametrize("name", DEGENERATE)
def test_a_mixture_on_its_floor_in_some_direction_says_so(name: str, kind: Any, unit: float) -> None:
    x = unit * DEGENERATE[name](np.random.default_rng(0).normal(size=(100, 3)))
    (message,) = remarks(pv.GMM(components=2, covariance=kind), x)
    assert "stand on the floor in some direction; the log-likelihood is then the floor's" in message
    assert ("columns (3) are constant" in message) == (name == "a constant column")


def test_a_diagonal_mixture_on_its_floor_says_so() -> None:
    (message,) = remarks(
        pv.GMM(components=2, covariance="diagonal"), with_constant(np.random.default_rng(0).normal(size=(99, 2)))
    )
    assert "stand on the floor in some direction" in message


@pytest.mark.parametrize("name", MIXTURES)
def test_small_units_are_no_reason_for_a_remark(name: str) -> None:
    x = np.random.default_rng(0).normal(size=(300, 3)) + np.repeat([[-5.0], [0], [5]], 100, 0)
    assert remarks(MIXTURES[name], 1e-7 * x) == []
    assert (
        remarks(FACTORS["FA"], 1e-7 * strong_factors()[:, [0, 1, 2, 0]] + 1e-7 * np.random.default_rng(1).normal(size=(300, 4)))
        == []
    )


def test_a_remark_tells_constant_columns_from_explained_ones_and_advises_no_ppca_to_ppca() -> None:
    x = strong_factors()
    copied = np.c_[x, 3 * x[:, 0]]
    (message,) = remarks(pv.FactorAnalysis(latent_dim=1), with_constant(copied))
    assert "columns (4) are constant" in message
    assert "columns (0, 3) entirely (a Heywood case)" in message
    low_rank = np.random.default_rng(0).normal(size=(50, 2)) @ np.random.default_rng(1).normal(size=(2, 4))
    (message,) = remarks(pv.PPCA(latent_dim=2), low_rank)
    assert message.startswith("the noise variance of all columns stands on its floor")
    assert "PPCA" not in message


@pytest.mark.parametrize("model", [pv.FactorAnalysis(latent_dim=1), *MIXTURES.values()], ids=repr)
def test_a_column_without_any_entry_is_refused_in_one_line(model: pv.Model) -> None:
    x = np.random.default_rng(0).normal(size=(60, 3))
    x[:, 1] = np.nan
    with pytest.raises(ValueError, match=r"columns \[1\] have no observed entry, .*: drop them") as refused:
        fitted(model, x, missing="ignore")
    assert "\n" not in str(refused.value)


# --- starts that fail -------------------------------------------------------------------------------------------------


def failing(monkeypatch: pytest.MonkeyPatch, *, starts: set[int]) -> None:
    """Let the log-likelihood of some starts, counted from 1, fall at their third iteration."""
    step, seen = mixture.em_step, {"start": 0, "iteration": 0}
    initial = mixture_start.initial

    def begin(*args: Any, **options: Any) -> Any:
        seen.update(start=seen["start"] + 1, iteration=0)
        return initial(*args, **options)

    def stepped(*args: Any, **options: Any) -> Any:
        seen["iteration"] += 1
        state, value = step(*args, **options)
        fallen = seen["start"] in starts and seen["iteration"] == 3
        return state, value - 100 if fallen else value

    monkeypatch.setattr(mixture_start, "initial", begin)
    monkeypatch.setattr(mixture, "em_step", stepped)


def test_a_start_that_fails_is_dropped_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).normal(size=(90, 2)) + np.repeat([[-5.0], [0], [5]], 30, 0)
    model = pv.GMM(components=3)
    failing(monkeypatch, starts={1, 3})
    with pytest.warns(FitWarning, match=r"start 1, 3 of 4 failed and was dropped: a variance has probably collapsed"):
        fit = fitted(model, x, pv.EM(n_init=4))
    monkeypatch.undo()
    both = [fitted(model, x, pv.EM(n_init=n)).history[-1]["log_likelihood"] for n in (1, 4)]
    assert min(both) - 1e-6 <= fit.history[-1]["log_likelihood"] <= max(both) + 1e-6


def test_a_fit_fails_where_all_starts_do(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).normal(size=(90, 2))
    failing(monkeypatch, starts={1, 2})
    with pytest.raises(exact.EMError, match=r"^a variance has probably collapsed .* at iteration 2: "):
        fitted(pv.GMM(components=2), x, pv.EM(n_init=2))


def test_an_error_of_a_callback_is_not_a_failed_start() -> None:
    def refuse(row: Any) -> None:
        raise ValueError("no more rows")

    data = pv.load_data(np.random.default_rng(0).normal(size=(90, 2)), valid=0.0, test=0.0)
    with pytest.raises(ValueError, match="no more rows"):
        pv.fit(pv.GMM(components=2), data, method=pv.EM(n_init=2), device="cpu", progress=refuse)


def test_a_fit_goes_on_behind_a_start_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state kept after a failed start holds no rows of it, and the best of the others is found."""
    x = np.random.default_rng(0).normal(size=(90, 2)) + np.repeat([[-5.0], [0], [5]], 30, 0)
    failing(monkeypatch, starts={2})
    with pytest.warns(FitWarning, match="start 2 of 2 failed"):
        fit = fitted(pv.GMM(components=3), x, pv.EM(n_init=2))
    monkeypatch.undo()
    assert fit.history[-1]["log_likelihood"] == pytest.approx(
        fitted(pv.GMM(components=3), x).history[-1]["log_likelihood"], abs=1e-9
    )


# --- hostile tables ---------------------------------------------------------------------------------------------------


def hostile(seed: int) -> np.ndarray:
    """Integer codes, ties, duplicated rows, few rows, an offset and columns of very different scale, by chance."""
    rng = np.random.default_rng(seed)
    rows, columns = int(rng.integers(12, 60)), int(rng.integers(2, 7))
    x = rng.normal(size=(rows, columns)) @ rng.normal(size=(columns, columns))
    codes = rng.random(columns) < 0.4
    x[:, codes] = rng.integers(0, 4, (rows, int(codes.sum())))
    x = x * 10.0 ** rng.integers(-6, 6, columns) + 10.0 ** rng.integers(-2, 3)
    return x[rng.integers(0, rows, rows)] if rng.random() < 0.3 else x


@pytest.mark.filterwarnings("ignore::ppl_vae.types.FitWarning")
@pytest.mark.parametrize("seed", range(6))
def test_hostile_tables_are_fitted(seed: int) -> None:
    x = hostile(seed)
    x = x[:, x.astype(np.float32).std(0) > 0]
    models = [pv.GMM(components=2, covariance=kind) for kind in KINDS]  # type: ignore[arg-type]
    for model in (*models, pv.FactorAnalysis(latent_dim=1)):
        fit = fitted(model, x, scale="standardize")  # float32 does not tell the values of some of these columns apart
        assert math.isfinite(fit.history[-1]["log_likelihood"])
