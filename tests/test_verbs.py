"""What a fit is asked about rows: scores, components and classes, outliers, missing entries, parameters."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import logsumexp, softmax
from scipy.stats import multivariate_normal, norm
from torch import nn

import ppl_vae as pv
from ppl_vae.exact import conditional as conditional_module
from ppl_vae.fitting.parameters import Parameter, Parameters
from ppl_vae.types import FitWarning

D = 4
RNG = np.random.default_rng(0)
# Rounded to float32, so that every side sees the same numbers.
X = (RNG.normal(size=(240, D)) @ RNG.normal(size=(D, D)) + np.array([1.0, 10.0, -3.0, 0.0])).astype(np.float32).astype(float)
X[:120] += np.array([4.0, 0.0, 2.0, 0.0])
HOLES = RNG.random(X.shape) < 0.35
HOLES[0], HOLES[1] = True, False  # a row without entries, and one with all
INCOMPLETE = np.where(HOLES, np.nan, X)
COVARIANCES = ("full", "tied", "diagonal", "spherical")
MODELS = {
    "FactorAnalysis": pv.FactorAnalysis(latent_dim=2),
    "a prior of its own": pv.FactorAnalysis(latent_dim=2, prior=pv.Normal(loc=1.0, scale=2.0)),
    "PPCA": pv.PPCA(latent_dim=2),
    **{kind: pv.GMM(components=3, covariance=kind) for kind in COVARIANCES},
}
FITS: dict[str, pv.Fit] = {}


def fitted(name: str, *, missing: bool = False, scale: str = "standardize") -> pv.Fit:
    key = f"{name} {missing} {scale}"
    if key not in FITS:
        data = pv.load_data(INCOMPLETE[2:] if missing else X, missing="ignore" if missing else "error", scale=scale)
        FITS[key] = pv.fit(MODELS[name], data, method=pv.EM(max_iterations=20))
    return FITS[key]


def components(fit: pv.Fit) -> list[tuple[float, np.ndarray, np.ndarray]]:
    """Weight, mean and covariance of each Gaussian of p(x), in the units of the source."""
    found = fit.parameters()
    if "loading" in found:
        W, noise = found["loading"].values, found["noise_variance"].values
        return [(1.0, found["mean"].values, W @ W.T + np.diag(noise))]
    weights, means = found["weight"].values, found["mean"].values
    spread = found["covariance"].values if "covariance" in found else np.stack([np.diag(v) for v in found["variance"].values])
    return list(zip(weights, means, np.broadcast_to(spread, (len(weights), D, D)), strict=True))


def conditional(parts: list[tuple[float, np.ndarray, np.ndarray]], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean and covariance of a row given its observed entries, by numpy and scipy."""
    o, m = ~np.isnan(x), np.isnan(x)
    logs, means, covariances = [], [], []
    for weight, loc, S in parts:
        gain = S[np.ix_(m, o)] @ np.linalg.pinv(S[np.ix_(o, o)])
        mean, covariance = x.copy(), np.zeros((D, D))
        mean[m] = loc[m] + gain @ (x[o] - loc[o])
        covariance[np.ix_(m, m)] = S[np.ix_(m, m)] - gain @ S[np.ix_(o, m)]
        logs.append(math.log(weight) + (multivariate_normal(loc[o], S[np.ix_(o, o)]).logpdf(x[o]) if o.any() else 0.0))
        means.append(mean)
        covariances.append(covariance)
    r = softmax(logs)
    mean = sum(p * each for p, each in zip(r, means, strict=True))
    spread = sum(p * (S + np.outer(each - mean, each - mean)) for p, each, S in zip(r, means, covariances, strict=True))
    return mean, np.asarray(spread)


# --- imputation, exactly --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_missing_entries_are_at_their_exact_conditional_means(name: str, missing: bool) -> None:
    fit = fitted(name, missing=missing, scale="none")
    found, parts = fit.impute(INCOMPLETE), components(fit)
    assert found.dtype == np.float64
    assert np.array_equal(found[~HOLES], X[~HOLES])
    np.testing.assert_allclose(found, [conditional(parts, row)[0] for row in INCOMPLETE], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", ["FactorAnalysis", "PPCA", "full", "diagonal"])
def test_draws_have_the_moments_of_the_conditional(name: str) -> None:
    fit = fitted(name)
    rows = INCOMPLETE[[0, 2, 3, 5]]
    draws, parts = fit.impute(rows, draws=20000, seed=1), components(fit)
    assert draws.shape == (20000, 4, D)
    holes = np.isnan(rows)
    assert (draws[:, ~holes] == rows[~holes]).all()
    for place, row in enumerate(rows):
        mean, covariance = conditional(parts, row)
        error = np.sqrt(np.diag(covariance)) / math.sqrt(20000)
        assert (abs(draws[:, place].mean(0) - mean) <= 5 * error + 1e-5 * abs(mean)).all()
        np.testing.assert_allclose(np.cov(draws[:, place].T), covariance, atol=0.06 * max(covariance.max(), 1e-9))
    assert np.array_equal(draws, fit.impute(rows, draws=20000, seed=1))
    assert not np.array_equal(draws, fit.impute(rows, draws=20000, seed=2))


def test_units_are_those_of_the_source_and_observed_entries_stay_to_the_bit() -> None:
    fit, odd = fitted("full"), INCOMPLETE * (1 + 1e-13)  # no float32
    tensor = torch.from_numpy(odd)
    found, parts = fit.impute(tensor), components(fit)
    assert torch.equal(found[~tensor.isnan()], tensor[~tensor.isnan()])
    np.testing.assert_allclose(found, [conditional(parts, row)[0] for row in odd], rtol=2e-5, atol=2e-5)
    complete = torch.arange(8).reshape(2, D)
    assert torch.equal(fit.impute(complete), complete)
    assert fit.impute(INCOMPLETE[:0]).shape == (0, D)


def test_a_bayesian_fit_fills_at_its_point_estimates() -> None:
    model = pv.FactorAnalysis(latent_dim=1, weights=pv.Normal(), loc=pv.Normal(scale=10.0), scale=pv.HalfNormal())
    data = pv.load_data(X, scale="standardize")
    fit = pv.fit(model, data, guide=pv.BayesianGuide(), method=pv.SVI(compile=False, epochs=3))
    found, parts = fit.impute(INCOMPLETE[:20]), components(fit)
    np.testing.assert_allclose(found, [conditional(parts, row)[0] for row in INCOMPLETE[:20]], rtol=1e-4, atol=1e-4)
    mixture = pv.fit(
        pv.GMM(components=2, weights=pv.Dirichlet()), data, guide=pv.BayesianGuide(), method=pv.SVI(compile=False, epochs=3)
    )
    found = mixture.impute(INCOMPLETE[:2])
    np.testing.assert_allclose(
        found, [conditional(components(mixture), row)[0] for row in INCOMPLETE[:2]], rtol=1e-4, atol=1e-4
    )


# --- imputation, by the guide ---------------------------------------------------------------------------------------------

LEVELS = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])  # p(category | z)
COIN = torch.tensor([0.2, 0.9])
REAL = torch.tensor([-1.0, 2.0])
PRIOR = torch.tensor([0.5, 0.5])
MIXED = pv.MixedTable(
    groups=(
        pv.ColumnGroup(columns=(0,), likelihood=pv.Masked(likelihood=pv.Categorical(levels=3))),
        pv.ColumnGroup(columns=(1,), likelihood=pv.Masked(likelihood=pv.Bernoulli())),
        pv.ColumnGroup(columns=(2,), likelihood=pv.Masked(likelihood=pv.Gaussian(scale="fixed", value=1.0))),
    )
)
TABLE = np.array([[2.0, 1.0, 1.9], [0.0, 0.0, -1.1], [1.0, 1.0, 0.3], [2.0, 0.0, 0.2]] * 5)


class Tiny(nn.Module):
    """The features of the table for z one-hot."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        logits = z @ LEVELS.log()
        h = torch.zeros(*z.shape[:-1], 3, 3)
        h[..., :, 0] = logits
        h[..., 0, 1] = z @ torch.logit(COIN)
        h[..., 0, 2] = z @ REAL
        return h


def enumerated(row: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, float]:
    """p(z | observed), and given it p(category), p(coin = 1), the mean of the real column."""
    joint = PRIOR.double().log().numpy().copy()
    for z in range(2):
        if not np.isnan(row[0]):
            joint[z] += math.log(LEVELS[z, int(row[0])])
        if not np.isnan(row[1]):
            joint[z] += math.log(COIN[z] if row[1] else 1 - COIN[z])
        if not np.isnan(row[2]):
            joint[z] += norm(REAL[z], 1.0).logpdf(row[2])
    p = softmax(joint)
    return p, p @ LEVELS.double().numpy(), float(p @ COIN.double().numpy()), float(p @ REAL.double().numpy())


def discrete(*, missing: bool) -> pv.Fit:
    """A tiny discrete model whose every probability is known, with a guide that is not p(z | x)."""
    plain = tuple(
        pv.ColumnGroup(columns=group.columns, likelihood=group.likelihood.likelihood)  # type: ignore[attr-defined]
        for group in MIXED.groups
    )
    likelihood = MIXED if missing else pv.MixedTable(groups=plain)
    model = pv.VAE(latent_dim=2, prior=pv.OneHotCategorical(), likelihood=likelihood, decoder=pv.Linear())
    x = TABLE.copy()
    if missing:
        x[::3, 1] = np.nan
    data = pv.load_data(x, missing="ignore" if missing else "error", scale="none", kind="real", valid=0.0, test=0.2)
    fit = pv.fit(
        model,
        data,
        guide=pv.AmortizedCategorical(encoder=pv.Linear()),
        method=pv.SVI(compile=False, epochs=1, learning_rate=1e-9),
    )
    program: Any = fit.pair.model
    program.decoder = Tiny()
    return fit


@pytest.mark.parametrize("missing", [True, False])
def test_a_table_is_filled_by_the_guide_as_enumeration_says(missing: bool) -> None:
    fit = discrete(missing=missing)
    nan = math.nan
    rows = np.array([[nan, nan, 1.5], [nan, 1.0, nan], [2.0, nan, nan], [nan, 0.0, -0.5], [0.0, nan, 0.4]])
    prior = fit.pair.model.prior().probs  # type: ignore[union-attr,operator]
    assert prior.flatten().tolist() == PRIOR.tolist()
    means = fit.impute(rows, samples=6000)
    draws = fit.impute(rows, draws=8000, samples=6000)
    for place, row in enumerate(rows):
        _, category, coin, real = enumerated(row)
        drawn = draws[:, place]
        if np.isnan(row[0]):
            assert means[place, 0] == category.argmax()
            np.testing.assert_allclose([(drawn[:, 0] == k).mean() for k in range(3)], category, atol=0.03)
        if np.isnan(row[1]):
            assert means[place, 1] == round(coin)
            assert drawn[:, 1].mean() == pytest.approx(coin, abs=0.03)
        if np.isnan(row[2]):
            assert means[place, 2] == pytest.approx(real, abs=0.06)
            assert drawn[:, 2].mean() == pytest.approx(real, abs=0.08)
    assert set(np.unique(draws[..., 0])) <= {0.0, 1.0, 2.0}
    assert set(np.unique(draws[..., 1])) <= {0.0, 1.0}


def linear_vae(guide: Any = None) -> pv.Fit:
    """A VAE that is PPCA, so that the conditional is known, with an encoder of complete rows."""
    model = pv.VAE(latent_dim=1, likelihood=pv.Gaussian(scale="per_feature"), decoder=pv.Linear())
    data = pv.load_data(X, scale="standardize")
    guide = guide or pv.AmortizedNormal(encoder=pv.Linear())
    return pv.fit(model, data, guide=guide, method=pv.SVI(compile=False, epochs=30, learning_rate=2e-2))


def of_linear(fit: pv.Fit) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of a linear VAE's p(x) in the units of the source."""
    program: Any = fit.pair.model
    linear, scale = program.decoder.layers, fit.transform.scale.double().numpy()
    W = scale[:, None] * linear.weight.detach().double().numpy()
    loc = fit.transform.loc.double().numpy() + scale * linear.bias.detach().double().numpy()
    return loc, W @ W.T + np.diag((scale * program.likelihood.scale.detach().double().numpy()) ** 2)


def test_chains_before_an_encoder_of_complete_rows_reach_the_conditional() -> None:
    fit = linear_vae()
    loc, S = of_linear(fit)
    row = X[5].copy()
    row[[0, 2]] = np.nan
    m, o = [0, 2], [1, 3]
    gain = S[np.ix_(m, o)] @ np.linalg.inv(S[np.ix_(o, o)])
    mean, covariance = loc[m] + gain @ (row[o] - loc[o]), S[np.ix_(m, m)] - gain @ S[np.ix_(o, m)]
    spread = np.sqrt(np.diag(covariance))
    found = fit.impute(row[None], samples=6000)
    draws = fit.impute(row[None], draws=8000, samples=6000)
    assert (abs(found[0, m] - mean) < 0.06 * spread).all()
    assert (abs(draws[:, 0][:, m].mean(0) - mean) < 0.08 * spread).all()
    np.testing.assert_allclose(draws[:, 0][:, m].std(0), spread, rtol=0.08)
    assert np.array_equal(found[0, o], row[o])


def test_scores_of_a_linear_vae_bound_its_log_density_within_their_errors() -> None:
    fit = linear_vae()
    loc, S = of_linear(fit)
    found = fit.score_samples(X, samples=500)
    exact = multivariate_normal(loc, S).logpdf(X)
    assert not found.exact
    assert (found.se > 0).all()
    assert abs(found.log_prob - exact).max() < 0.2
    assert (abs(found.log_prob - exact) < 5 * found.se + 1e-4).mean() > 0.97
    loose = fit.score_samples(X, samples=1).log_prob
    assert np.isfinite(loose).all()
    assert loose.mean() < found.log_prob.mean()
    assert fit.evaluate(X, samples=500)["iwae"] == pytest.approx(found.log_prob.mean(), abs=1e-6)


def test_binarized_images_are_filled_in_the_units_of_the_source() -> None:
    data = pv.load_data("digits")
    fit = pv.fit(pv.VAE(latent_dim=2), data, method=pv.SVI(epochs=1))
    x = data.test.x[:4].float()
    for scale, rows in ((1.0, (x > 8).float()), (16.0, 16 * (x > 8).float())):
        holes = rows.clone()
        holes[..., :3] = math.nan
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FitWarning)  # of weights, and of values from 0 to 1
            found = fit.impute(holes, draws=2)
        assert torch.equal(found[..., 3:], rows[..., 3:].expand(2, -1, -1, -1, -1))
        assert set(found.unique().tolist()) == {0.0, scale}
    labelled = pv.fit(pv.CVAE(latent_dim=2), data, method=pv.SVI(epochs=1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        assert not labelled.impute(holes, y=3).isnan().any()


def test_a_condition_that_is_missing_is_refused() -> None:
    model = pv.CVAE(latent_dim=1, condition=pv.Columns(columns=(0, 1)), likelihood=pv.Gaussian(), decoder=pv.Linear())
    fit = pv.fit(model, X, method=pv.SVI(epochs=1))
    with pytest.raises(ValueError, match="expected all entries that the model is conditioned on"):
        fit.impute(INCOMPLETE)
    holes = X.copy()
    holes[::2, 3] = math.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        assert np.isfinite(fit.impute(holes[:8])).all()


@pytest.mark.parametrize("name", ["FactorAnalysis", "full"])
def test_blocks_of_any_size_fill_alike(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fit = fitted(name)
    expected = fit.impute(INCOMPLETE)
    monkeypatch.setattr(conditional_module, "_BLOCK_NUMBERS", 40)
    np.testing.assert_allclose(fit.impute(INCOMPLETE), expected, rtol=1e-12, atol=1e-12)
    assert fit.impute(INCOMPLETE[:9], draws=5).shape == (5, 9, D)


def test_what_cannot_be_filled_is_said() -> None:
    with pytest.raises(ValueError, match=r"models that say p\(z\) and p\(x . z\), with guides that say q"):
        pv.fit(pv.PCA(latent_dim=2), X, method=pv.ClosedForm()).impute(INCOMPLETE)
    model = pv.VAE(latent_dim=1, likelihood=pv.LowRankGaussian(rank=1), decoder=pv.Linear())
    fit = pv.fit(model, X, method=pv.SVI(compile=False, epochs=1))
    with pytest.raises(ValueError, match="likelihoods whose elements are independent given z, not of LowRankNormal"):
        fit.impute(INCOMPLETE)
    for wrong in ({"draws": 0}, {"samples": 0}):
        with pytest.raises(ValueError, match="at least 1 of draws and of samples"):
            fitted("full").impute(X, **wrong)
    with pytest.raises(ValueError, match="expected finite values"):
        fitted("full").score_samples(INCOMPLETE)


def test_weights_that_are_not_to_be_trusted_are_told() -> None:
    model = pv.VAE(latent_dim=2, likelihood=pv.Gaussian(scale="fixed", value=0.001), decoder=pv.Linear())
    fit = pv.fit(model, pv.load_data(X, scale="standardize"), method=pv.SVI(compile=False, epochs=1))
    with pytest.warns(FitWarning, match="the weights of .* % of the rows with missing entries are not to be trusted"):
        fit.impute(INCOMPLETE[2:12])


# --- scores, components, classes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_scores_are_scipys_log_density_in_the_units_of_the_source(name: str) -> None:
    fit = fitted(name)
    found = fit.score_samples(X)
    logs = [math.log(w) + multivariate_normal(loc, S).logpdf(X) for w, loc, S in components(fit)]
    np.testing.assert_allclose(found.log_prob, logsumexp(logs, axis=0), rtol=0, atol=2e-4)
    assert found.exact
    assert not found.se.any()
    assert fit.evaluate(torch.from_numpy(X))["log_likelihood"] == pytest.approx(found.log_prob.mean(), abs=1e-9)
    tensor = fit.score_samples(torch.from_numpy(X))
    assert isinstance(tensor.log_prob, torch.Tensor)
    assert np.array_equal(tensor.log_prob.numpy(), found.log_prob)


def test_scores_of_incomplete_rows_are_of_their_observed_entries() -> None:
    fit = fitted("full", missing=True)
    found = fit.score_samples(INCOMPLETE).log_prob
    parts = components(fit)
    for row, score in zip(INCOMPLETE[:30], found, strict=False):
        o = ~np.isnan(row)
        logs = [
            math.log(w) + (multivariate_normal(loc[o], S[np.ix_(o, o)]).logpdf(row[o]) if o.any() else 0.0)
            for w, loc, S in parts
        ]
        assert score == pytest.approx(logsumexp(logs), abs=2e-4)


def test_no_bound_is_no_score() -> None:
    fit = pv.fit(pv.PCA(latent_dim=2), X, method=pv.ClosedForm())
    with pytest.raises(ValueError, match=r"terms bound log p\(x\), got a "):
        fit.score_samples(X)


@pytest.mark.parametrize("kind", COVARIANCES)
def test_components_are_predicted_by_their_responsibilities(kind: str) -> None:
    fit = fitted(kind)
    logs = np.stack([math.log(w) + multivariate_normal(loc, S).logpdf(X) for w, loc, S in components(fit)], axis=1)
    found = fit.predict_proba(X)
    np.testing.assert_allclose(found, softmax(logs, axis=1), atol=2e-4)
    assert np.array_equal(fit.predict(X), found.argmax(1))
    assert fit.predict(torch.from_numpy(X)).dtype == torch.int64


def test_components_of_a_mixture_prior_and_of_a_discrete_code() -> None:
    model = pv.VAE(latent_dim=2, prior=pv.GaussianMixture(components=3), likelihood=pv.Gaussian(), decoder=pv.Linear())
    fit = pv.fit(model, X, method=pv.SVI(compile=False, epochs=2))
    found = fit.predict_proba(X, samples=4000)
    q, prior = fit.posterior(torch.from_numpy(X)), fit.pair.model.prior()  # type: ignore[operator]
    z = q.sample((4000,))
    parts = prior.component_distribution.log_prob(z.unsqueeze(-2)) + prior.mixture_distribution.logits
    np.testing.assert_allclose(found, parts.softmax(-1).mean(0).detach(), atol=0.03)
    table = discrete(missing=True)
    probabilities = table.predict_proba(TABLE)
    np.testing.assert_allclose(probabilities, table.encode(TABLE), atol=1e-6)
    assert probabilities.shape == (20, 2)


def test_what_has_nothing_discrete_is_said() -> None:
    with pytest.raises(ValueError, match="this model has nothing discrete to predict: fit GMM"):
        fitted("PPCA").predict(X)
    with pytest.raises(ValueError, match="expected no priors of classes"):
        fitted("full").predict(X, priors=[0.5, 0.5])


def test_classes_are_predicted_by_their_bounds() -> None:
    y = np.array(["high"] * 120 + ["low"] * 120)
    model = pv.CVAE(latent_dim=1, likelihood=pv.Gaussian(scale="per_feature"), decoder=pv.Linear())
    data = pv.load_data(X, y=y, scale="standardize")
    fit = pv.fit(model, data, method=pv.SVI(compile=False, epochs=30, learning_rate=2e-2))
    found = fit.predict_proba(X, samples=50)
    scores = np.stack([fit.score_samples(X, y=name, samples=50).log_prob for name in fit.spec.classes], axis=1)
    np.testing.assert_allclose(found, softmax(scores, axis=1), atol=1e-9)
    weighted = fit.predict_proba(X, samples=50, priors=[1e-9, 1.0])
    np.testing.assert_allclose(weighted, softmax(scores + np.log([1e-9, 1.0]), axis=1), atol=1e-9)
    predicted = fit.predict(X, samples=50)
    assert (predicted == y).mean() > 0.8
    assert fit.predict(torch.from_numpy(X), samples=50).tolist() == [fit.spec.classes.index(name) for name in predicted]
    with pytest.raises(ValueError, match="expected a positive prior for each of high, low"):
        fit.predict(X, priors=[1.0])


# --- outliers ---------------------------------------------------------------------------------------------------------------


def test_outliers_have_ranks_and_conformal_p_values() -> None:
    data = pv.load_data(X, scale="standardize")
    fit = pv.fit(MODELS["full"], data, method=pv.EM())
    strange = np.vstack([X[:5], X[:1] + 100.0])
    found = fit.outliers(strange)
    kept = fit.score_samples(data.test).log_prob.numpy()
    expected = [(1 + (kept <= score).sum()) / (len(kept) + 1) for score in found.log_prob]
    np.testing.assert_allclose(found.p_value, expected)
    assert found.rank[-1] == 1
    assert sorted(found.rank) == [1, 2, 3, 4, 5, 6]
    assert found.p_value[-1] == pytest.approx(1 / (len(kept) + 1))
    given = fit.outliers(strange, held_out=X[:50])
    assert given.p_value[-1] == pytest.approx(1 / 51)


def test_held_out_rows_are_loaded_or_asked_for(tmp_path: Any) -> None:
    np.savetxt(tmp_path / "x.csv", X, delimiter=",", header="a,b,c,d", comments="")
    data = pv.load_data(tmp_path / "x.csv", scale="standardize")
    fit = pv.fit(MODELS["PPCA"], data, method=pv.EM())
    pv.save_run(fit, data, tmp_path / "run")
    loaded = pv.load_run(tmp_path / "run")
    np.testing.assert_allclose(loaded.outliers(X).p_value, fit.outliers(X).p_value)
    memory = pv.load_data(X)
    pv.save_run(pv.fit(MODELS["PPCA"], memory, method=pv.EM()), memory, tmp_path / "other")
    with pytest.raises(ValueError, match="cannot be loaded again: give some as held_out="):
        pv.load_run(tmp_path / "other").outliers(X)
    with pytest.raises(ValueError, match="expected held-out rows to compare with, got none"):
        fit.outliers(X, held_out=X[:0])


# --- parameters -----------------------------------------------------------------------------------------------------------


def test_parameters_of_factors_give_the_covariance_and_name_the_columns() -> None:
    frame = pytest.importorskip("pandas").DataFrame(X, columns=list("abcd"))
    fit = pv.fit(MODELS["FactorAnalysis"], pv.load_data(frame, scale="standardize"), method=pv.EM())
    found = fit.parameters()
    assert found["loading"].labels == (("a", "b", "c", "d"), ("z1", "z2"))
    W, noise = found["loading"].values, found["noise_variance"].values
    program: Any = fit.pair.model
    S = program.loadings.double() @ program.loadings.double().T + program.parameters_em.noise.diag()
    scale = fit.transform.scale.double().numpy()
    np.testing.assert_allclose(W @ W.T + np.diag(noise), np.outer(scale, scale) * S.detach().numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["communality"].values, (W**2).sum(1) / ((W**2).sum(1) + noise))
    scaled = W / np.sqrt(noise)[:, None]
    assert abs((scaled.T @ scaled)[0, 1]) < 1e-3 * (scaled.T @ scaled).max()  # canonical
    assert all(each.se is None for each in found.values())
    text = str(found)
    assert text.splitlines()[0].split() == ["column", "mean", "loading", "z1", "loading", "z2", "noise_variance", "communality"]
    assert "canonical rotation" in text


def test_parameters_are_rows_columns_and_json() -> None:
    found = fitted("tied").parameters()
    rows = found.rows()
    assert len(rows) == 3 + 12 + 16
    assert set(rows[0]) == {"parameter", "component", "column", "other_column", "value", "se"}
    covariance = next(row for row in rows if row["parameter"] == "covariance" and row["other_column"] == "x2")
    assert covariance["value"] == found["covariance"].values[0, 1]
    assert [row["value"] for row in rows] == found.columns()["value"]
    assert found.to_dict()["mean"]["labels"] == [["0", "1", "2"], ["x1", "x2", "x3", "x4"]]
    assert "covariance" in str(found)
    assert repr(found).startswith("Parameters(weight: 3 components, mean: 3 components x 4 columns")


def test_a_square_table_is_printed_as_it_is() -> None:
    A = np.array([[0.1, 0.9], [0.3, 0.7]])
    found = Parameters({"A": Parameter(values=A, axes=("component",) * 2, labels=(("0", "1"),) * 2)})
    assert [line.split() for line in str(found).splitlines()] == [
        ["A", "0", "1"],
        ["0", "0.100", "0.900"],
        ["1", "0.300", "0.700"],
    ]


def test_standard_errors_of_a_posterior_over_parameters() -> None:
    model = pv.FactorAnalysis(latent_dim=1, weights=pv.Normal(), loc=pv.Normal(scale=10.0), scale=pv.HalfNormal())
    data = pv.load_data(X, scale="standardize")
    fit = pv.fit(model, data, guide=pv.BayesianGuide(), method=pv.SVI(compile=False, epochs=5))
    found = fit.parameters()
    theta: Any = fit.pair.guide.theta  # type: ignore[union-attr]
    expected = theta.scales.loc.detach().numpy() * fit.transform.scale.numpy()
    np.testing.assert_allclose(found["mean"].se, expected, rtol=0.15)
    assert (found["loading"].se > 0).all()
    assert "(" in str(found).splitlines()[1]
    point = pv.fit(model, data, guide=pv.BayesianGuide(parameters="map"), method=pv.SVI(compile=False, epochs=1))
    assert all(each.se is None for each in point.parameters().values())


def test_a_summary_tells_what_was_fitted_how_and_what_came_of_it() -> None:
    text = fitted("full").summary()
    for told in (
        "k ~ Categorical",
        "EM",
        "training rows of 4 real values",
        "log-likelihood, training",
        "covariance, component 2",
    ):
        assert told in text
    network = pv.fit(
        pv.VAE(latent_dim=1, prior=pv.VampPrior(components=4)), "digits", method=pv.SVI(compile=False, epochs=1)
    ).summary()
    assert "numbers in model and guide" in network
    assert "log p" not in network


def test_weights_of_networks_are_no_parameters_to_name() -> None:
    model = pv.VAE(latent_dim=2, prior=pv.Logistic())
    fit = pv.fit(model, "digits", method=pv.SVI(compile=False, epochs=1))
    with pytest.raises(ValueError, match=r"as a tensor, got ndarray: .* codes of rows in any form are fit.encode\(rows\)"):
        fit.transform(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="no parameters beside those of its networks"):
        fit.parameters()


# --- arrays in, arrays out -------------------------------------------------------------------------------------------------


def test_arrays_come_back_as_arrays_and_tensors_as_tensors() -> None:
    fit, tensor = fitted("PPCA"), torch.from_numpy(X)
    for given, kind in ((X, np.ndarray), (X.astype(np.float32), np.ndarray), (tensor, torch.Tensor)):
        z = fit.encode(given)
        assert isinstance(z, kind)
        assert isinstance(fit.decode(z), kind)
        assert isinstance(fit.reconstruct(given), kind)
        assert isinstance(fit.score_samples(given).log_prob, kind)
        assert isinstance(fit.impute(given), kind)
    np.testing.assert_allclose(fit.encode(X), fit.encode(tensor), rtol=1e-6)
    with pytest.raises(ValueError, match=r"expected data of shape \(n, 4\), got \(240, 3\)"):
        fit.encode(X[:, :3])
    with pytest.raises(ValueError, match="expected numbers in column '0', as they were when it was fitted, got text"):
        fit.encode(np.array([["a"] * D]))


def test_a_read_only_array_and_one_with_steps_backwards() -> None:
    fit, locked = fitted("PPCA"), X.copy()
    locked.flags.writeable = False
    np.testing.assert_allclose(fit.encode(locked), fit.encode(X))
    np.testing.assert_allclose(fit.encode(X[::-1]), fit.encode(X)[::-1], rtol=1e-6, atol=1e-6)


def test_what_has_no_number_and_no_rows_is_refused() -> None:
    fit = pv.fit(pv.PPCA(latent_dim=1), torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), device="cpu")
    for ask, told in (
        (lambda: fit.encode(torch.zeros(0, 3)), "at least 1 row to encode, got none"),
        (lambda: fit.sample(2, temperature="a"), "a number for temperature, got 'a'"),  # type: ignore[arg-type]
        (lambda: fit.sample(2, top_p=None), "a number for top_p, got None"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValueError, match=told):
            ask()
    assert torch.equal(fit.sample(2, temperature=np.float32(1)), fit.sample(2))  # type: ignore[arg-type]


def test_codes_of_a_hierarchy_are_as_many_of_each_variable() -> None:
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    model = pv.HierarchicalVAE(likelihood=pv.Gaussian())
    fit = pv.fit(model, x, method=pv.SVI(epochs=1, compile=False), device="cpu")
    codes = {name: torch.zeros(2 + place, *site.event_shape) for place, (name, site) in enumerate(fit.pair.model.sites.items())}
    with pytest.raises(ValueError, match=r"as many codes of each latent variable, or one, got z2 of \(2,\), z1 of \(3,\)"):
        fit.decode(codes)
