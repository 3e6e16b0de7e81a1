"""Scores of strange rows, against closed forms of linear-Gaussian models, and the areas below their curves."""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score, roc_curve

import ppl_vae as pv
from ppl_vae.evaluate.complexity import compressed_nats
from ppl_vae.evaluate.finite import check_numbers
from ppl_vae.evaluate.outliers import OUTLIER_SCORES
from ppl_vae.types import FitWarning

D = 4
RNG = np.random.default_rng(0)
X = (RNG.normal(size=(120, 2)) @ RNG.normal(size=(2, D)) + 0.5 * RNG.normal(size=(120, D)) + 3.0).astype(np.float32)
STRANGE = X[:20] + np.float32(2.0) * RNG.normal(size=(20, D)).astype(np.float32)


@pytest.fixture(scope="module")
def fit() -> pv.Fit:
    """A linear-Gaussian model, whose log p(x) and posterior are known, and an encoder that is no more than begun."""
    data = pv.load_data(X, scale="standardize")
    guide = pv.AmortizedNormal(encoder=pv.MLP(hidden=(7,)))
    return pv.fit(pv.FactorAnalysis(latent_dim=2), data, guide=guide, method=pv.SVI(epochs=20, batch_size=20, compile=False))


@pytest.fixture(scope="module")
def digits() -> tuple[pv.Fit, pv.Data]:
    data = pv.load_data("digits", binarize="static")
    model = pv.VAE(latent_dim=2, decoder=pv.MLP(hidden=(8,)))
    return pv.fit(model, data, guide=pv.AmortizedNormal(encoder=pv.MLP(hidden=(8,))), method=pv.SVI(epochs=1)), data


def test_the_importance_weighted_score_is_that_of_log_p(fit: pv.Fit) -> None:
    exact = fit.outliers(STRANGE)
    np.testing.assert_allclose(exact.score, -fit.score_samples(STRANGE).log_prob)
    drawn = fit.outliers(STRANGE, score="iwae", samples=4000)
    np.testing.assert_allclose(drawn.log_prob, exact.log_prob)
    np.testing.assert_allclose(drawn.score, exact.score, atol=0.15)
    assert abs((drawn.score - exact.score).mean()) < 0.02


def test_the_halves_of_the_elbo_are_scores(fit: pv.Fit) -> None:
    found = {name: fit.outliers(STRANGE, score=name).score for name in ("elbo", "reconstruction", "kl")}
    np.testing.assert_allclose(found["elbo"], found["reconstruction"] + found["kl"], rtol=1e-5)
    assert found["elbo"].mean() == pytest.approx(-fit.evaluate(STRANGE)["elbo"], rel=1e-5)


def test_regret_is_the_distance_to_the_best_posterior_of_the_family(fit: pv.Fit) -> None:
    """Of a Gaussian posterior the best independent q has its mean, and the diagonal of its precision."""
    gaps = pv.Gaps(samples=1, window=50, max_steps=1500, learning_rate=0.05)
    found = fit.outliers(STRANGE, score="regret", gaps=gaps).score
    model: Any = fit.pair.model
    posterior = model.posterior(fit.seen(torch.from_numpy(STRANGE)))
    best = 0.5 * (posterior.precision_matrix.diagonal(dim1=-2, dim2=-1).log().sum(-1) + posterior.covariance_matrix.logdet())
    elbo = -fit.outliers(STRANGE, score="elbo").score
    expected = fit.score_samples(STRANGE).log_prob + best.detach().numpy() - elbo
    np.testing.assert_allclose(found, expected, atol=0.02)
    assert found.min() > 0


def test_an_exact_posterior_has_nothing_to_regret() -> None:
    exact = pv.fit(pv.PPCA(latent_dim=2), pv.load_data(X), method=pv.ClosedForm())
    assert (exact.outliers(STRANGE, score="regret").score == 0).all()


@pytest.mark.parametrize("score", ["log_prob", "typicality"])
def test_a_held_out_row_of_weight_w_is_w_rows(fit: pv.Fit, score: Any) -> None:
    weights = np.arange(30) % 4  # 0 of some
    held_out = fit.as_split(X[:30]).to("cpu")
    held_out.weights = torch.from_numpy(weights).double()
    weighted = fit.outliers(STRANGE, score=score, held_out=held_out)
    repeated = fit.outliers(STRANGE, score=score, held_out=np.repeat(X[:30], weights, axis=0))
    for one, other in zip(weighted, repeated, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    held_out.weights = torch.zeros(30, dtype=torch.float64)
    with pytest.raises(ValueError, match="got 30 rows of weight 0"):
        fit.outliers(STRANGE, held_out=held_out)


def test_rows_far_outside_of_what_was_fitted_are_named(fit: pv.Fit) -> None:
    """Log p(x) of what is less probable than float32 has numbers is minus infinity; where it is NaN, nobody knows it."""
    data = pv.load_data(X, scale="standardize")
    method = pv.SVI(epochs=1, batch_size=20, compile=False)
    vae = pv.fit(pv.VAE(latent_dim=1, likelihood=pv.Gaussian(), decoder=pv.MLP(hidden=(4,))), data, method=method)
    rows = X[:3].copy()
    rows[1, 2] = 1e19
    with pytest.warns(FitWarning, match="minus infinity for 1 of 3 rows, the first of them row 1"):
        found = vae.score_samples(rows)
    assert found.log_prob[1] == -math.inf
    assert found.se[1] == 0
    assert np.isfinite(found.log_prob[[0, 2]]).all()
    with pytest.warns(FitWarning, match="minus infinity for 1 of 3 rows"):
        assert vae.outliers(rows, held_out=X[:10]).rank[1] == 1
    with pytest.raises(ValueError, match=r"expected held-out rows of positive probability for score='typicality'"):
        vae.outliers(X[:3], held_out=rows, score="typicality")
    with pytest.raises(
        FloatingPointError, match=r"iwae of 1 of 3 data is not finite: row 1 holds 1e\+19 in column '2'.*leave those rows out$"
    ):
        vae.evaluate(rows, samples=2)
    rows[1, 2] = 1e30
    for score in (vae.score_samples, vae.outliers):
        with pytest.raises(ValueError, match=r"NaN for 1 of 3 rows, the first of them row 1: row 1 holds 1e\+30 in column '2'"):
            score(rows)
    nan = torch.full((3,), math.nan)
    with pytest.raises(ValueError, match=r"got NaN for 3 of 3 rows.*if the fit diverged, lower the learning rate"):
        check_numbers(fit.pair, fit.as_split(X[:3]), nan, "a score")


def test_typicality_is_the_distance_from_the_mean_of_held_out_rows(fit: pv.Fit) -> None:
    found = fit.outliers(STRANGE, score="typicality", held_out=X[:30])
    own = fit.score_samples(X[:30]).log_prob
    np.testing.assert_allclose(found.score, np.abs(found.log_prob - own.mean()))
    beside = np.abs(own - own.mean())
    expected = [(1 + (beside >= score).sum()) / 31 for score in found.score]
    np.testing.assert_allclose(found.p_value, expected)
    assert found.rank[found.score.argmax()] == 1


def test_complexity_is_the_length_that_deflate_leaves(digits: tuple[pv.Fit, pv.Data]) -> None:
    def length(row: np.ndarray) -> int:
        deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
        return len(deflate.compress(row.tobytes()) + deflate.flush())

    x = torch.tensor([[[9, 9, 9], [9, 9, 9]], [[0, 7, 250], [1, 2, 255]]], dtype=torch.uint8)
    left = np.array([[[9, 0, 0], [9, 0, 0]], [[0, 7, 243], [1, 1, 253]]], dtype=np.uint8)
    above = np.array([[[9, 9, 9], [0, 0, 0]], [[0, 7, 250], [1, 251, 5]]], dtype=np.uint8)
    expected = [8 * math.log(2) * min(map(length, rows)) for rows in zip(x.numpy(), left, above, strict=True)]
    np.testing.assert_allclose(compressed_nats(x), expected)
    assert compressed_nats(x.int() * 100)[1] > compressed_nats(x)[1]  # two bytes each
    assert compressed_nats(x[:0], binary=True).shape == (0,)
    fit, data = digits
    first, again = (fit.outliers(data.test[:9], score="complexity", samples=5) for _ in range(2))
    torch.testing.assert_close(first.score, again.score, rtol=0, atol=0)
    levels = data.test[:9].x
    torch.testing.assert_close(first.score, -first.log_prob - compressed_nats(levels, binary=True))


def test_what_a_fit_cannot_score_is_refused(fit: pv.Fit, digits: tuple[pv.Fit, pv.Data]) -> None:
    with pytest.raises(ValueError, match=r"expected a score of log_prob, elbo, .*got 'strangeness'"):
        fit.outliers(X, score="strangeness")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected whole numbers of 0 to 65535"):
        fit.outliers(X, score="complexity")
    with pytest.raises(ValueError, match="at least 2, for score='iwae'"):
        digits[0].outliers(digits[1].test[:3], score="iwae", samples=1)
    with pytest.raises(ValueError, match="bound log p"):
        pv.fit(pv.PCA(latent_dim=1), pv.load_data(X), method=pv.ClosedForm()).outliers(X, score="elbo")


@pytest.mark.parametrize("score", OUTLIER_SCORES)
def test_every_score_ranks_the_rows_of_a_digits_fit(score: Any, digits: tuple[pv.Fit, pv.Data]) -> None:
    fit, data = digits
    gaps = pv.Gaps(samples=1, window=5, max_steps=10)
    found = fit.outliers(data.test[:12], score=score, held_out=data.valid[:20], samples=4, gaps=gaps)
    assert found.score.isfinite().all()
    assert found.rank[found.score.argsort(descending=True, stable=True)].tolist() == list(range(1, 13))
    assert ((found.p_value >= 1 / 21) & (found.p_value <= 1)).all()


def test_the_area_is_that_of_scikit_learn() -> None:
    own, foreign = RNG.normal(size=60).round(1), RNG.normal(0.7, size=45).round(1)  # with ties
    found = pv.roc(own, torch.from_numpy(foreign))
    truth, scores = np.repeat([0, 1], [60, 45]), np.concatenate([own, foreign])
    assert found.auroc == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
    false, true, _ = roc_curve(truth, scores, drop_intermediate=False)
    np.testing.assert_allclose(found.false_positive_rate, false)
    np.testing.assert_allclose(found.true_positive_rate, true)
    areas = [
        roc_auc_score(truth, np.concatenate([RNG.choice(own, 60), RNG.choice(foreign, 45)])) for _ in range(200)
    ]  # of the bootstrap
    assert found.se == pytest.approx(np.std(areas), rel=0.15)
    with pytest.raises(ValueError, match="at least 2 scores"):
        pv.roc(own, foreign[:1])
    with pytest.raises(ValueError, match="got NaN"):
        pv.roc(own, np.array([0.0, np.nan]))
