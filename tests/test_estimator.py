"""`Estimator`: scikit-learn's own checks, its pipelines and searches, and the numbers of the fit underneath."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn
from scipy.stats import multivariate_normal
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import ppl_vae as pv

X = load_iris().data[np.random.default_rng(0).permutation(150)]
NAMES = load_iris().feature_names
SMALL = pv.MLP(hidden=(4,))
VAE = pv.VAE(latent_dim=1, likelihood=pv.Gaussian(scale="shared"), decoder=SMALL)
OF_VAE = {"method": pv.SVI(epochs=1), "guide": pv.AmortizedNormal(encoder=SMALL), "samples": 2}
# The bound on log p(x) of a row has draws of its own, whose noise goes by its place among the rows.
SAMPLED = {
    "check_methods_sample_order_invariance": "score_samples is a bound by random draws, which differ from place to place",
    "check_methods_subset_invariance": "score_samples is a bound by random draws, which differ from place to place",
}
CHECKED: dict[str, tuple[pv.Estimator, dict[str, str]]] = {
    "GMM": (pv.Estimator(pv.GMM(components=2), pv.EM()), {}),
    "FactorAnalysis": (pv.Estimator(pv.FactorAnalysis(latent_dim=1), pv.EM()), {}),
    "PPCA": (pv.Estimator(pv.PPCA(latent_dim=1)), {}),
    "VAE": (pv.Estimator(VAE, **OF_VAE), SAMPLED),
}


@pytest.mark.parametrize(("estimator", "expected"), CHECKED.values(), ids=CHECKED)
def test_scikit_learn_takes_it_for_one_of_its_own(estimator: pv.Estimator, expected: dict[str, str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its checks warn of what they try
        done = check_estimator(estimator, expected_failed_checks=expected, on_skip=None, on_fail="raise")
    status = [check["status"] for check in done]
    assert status.count("xfail") == len(expected)
    assert status.count("passed") >= 44


def test_only_the_scores_of_a_vae_depend_on_the_place_of_a_row() -> None:
    estimator = pv.Estimator(VAE, **OF_VAE).fit(X)
    order = np.random.default_rng(0).permutation(len(X))
    np.testing.assert_allclose(estimator.transform(X)[order], estimator.transform(X[order]), rtol=1e-9)
    np.testing.assert_allclose(estimator.transform(X)[:7], np.concatenate([estimator.transform(X[[i]]) for i in range(7)]))
    assert np.array_equal(estimator.score_samples(X), estimator.score_samples(X))


# --- the numbers ----------------------------------------------------------------------------------------------------------


def test_all_rows_are_training_rows_and_scores_are_exact() -> None:
    estimator = pv.Estimator(pv.FactorAnalysis(latent_dim=1)).fit(X)
    assert isinstance(estimator.fit_.method, pv.EM)
    assert estimator.fit_.spec.size == len(X)
    assert estimator.fit_.data.valid == estimator.fit_.data.test == 0
    alone = pv.fit(pv.FactorAnalysis(latent_dim=1), pv.load_data(X, valid=0.0, test=0.0, kind="real"), method=pv.EM())
    assert estimator.score(X) == pytest.approx(alone.history[-1]["log_likelihood"], rel=1e-6)
    W, psi = alone.pair.model.parameters_em.loadings.detach().numpy(), alone.pair.model.parameters_em.noise.detach().numpy()
    exact = multivariate_normal(X.mean(0), W @ W.T + np.diag(psi)).logpdf(X)
    np.testing.assert_allclose(estimator.score_samples(X), exact, rtol=1e-5)
    assert estimator.n_iter_ == len(alone.history)
    assert pv.Estimator(pv.GMM(components=2), valid=0.2).fit(X).fit_.spec.size == 120


def test_mixtures_predict_as_scikit_learns() -> None:
    estimator = pv.Estimator(pv.GMM(components=3)).fit(X)
    weights, means, covariances = (value.numpy() for value in estimator.fit_.pair.model.gaussians)
    peer = GaussianMixture(3)
    peer.weights_, peer.means_, peer.covariances_ = weights, means, covariances
    peer.precisions_cholesky_ = np.linalg.inv(np.linalg.cholesky(covariances)).transpose(0, 2, 1)
    np.testing.assert_allclose(estimator.predict_proba(X), peer.predict_proba(X), atol=1e-6)
    np.testing.assert_array_equal(estimator.predict(X), peer.predict(X))
    np.testing.assert_allclose(estimator.score_samples(X), peer.score_samples(X), rtol=1e-6)
    np.testing.assert_allclose(estimator.transform(X), estimator.predict_proba(X), atol=1e-6)
    np.testing.assert_allclose(estimator.inverse_transform(np.eye(3)), means, rtol=1e-6)


def test_codes_go_back_to_rows_in_their_own_units() -> None:
    estimator = pv.Estimator(pv.PPCA(latent_dim=3), scale="standardize").fit(X)
    back = estimator.inverse_transform(estimator.transform(X))
    assert np.abs(back - X).mean() < 0.2
    np.testing.assert_allclose(back, estimator.fit_.reconstruct(pv.load_data(X, valid=0.0, test=0.0).train), rtol=1e-6)
    assert estimator.sample(500, random_state=0).mean(0) == pytest.approx(X.mean(0), abs=0.3)
    assert np.array_equal(estimator.sample(3, random_state=1), estimator.sample(3, random_state=1))
    assert not np.array_equal(estimator.sample(3, random_state=1), estimator.sample(3, random_state=2))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_codes_come_in_the_precision_of_the_rows(dtype: type) -> None:
    estimator = pv.Estimator(pv.FactorAnalysis(latent_dim=1)).fit(X.astype(dtype))
    assert estimator.transform(X.astype(dtype)).dtype == dtype
    assert estimator.inverse_transform(np.zeros((2, 1), dtype)).dtype == dtype


def test_new_rows_may_leave_the_range_of_the_training_rows() -> None:
    unit = (X - X.min(0)) / np.ptp(X, axis=0)
    estimator = pv.Estimator(pv.GMM(components=2)).fit(unit)
    assert np.isfinite(estimator.score(3 * unit - 1))
    counts = np.round(10 * unit)
    assert np.isfinite(pv.Estimator(pv.GMM(components=2)).fit(counts).score(counts + 0.5))


def test_missing_entries_are_taken_where_that_is_asked_for() -> None:
    holes = X.copy()
    holes[::7, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        pv.Estimator(pv.FactorAnalysis(latent_dim=1)).fit(holes)
    estimator = pv.Estimator(pv.FactorAnalysis(latent_dim=1), missing="ignore").fit(holes)
    assert np.isfinite(estimator.transform(holes)).all()
    assert estimator.__sklearn_tags__().input_tags.allow_nan


def test_a_model_of_labels_predicts_their_classes() -> None:
    names = np.array(load_iris().target_names)[load_iris().target[np.random.default_rng(0).permutation(150)]]
    cvae = pv.CVAE(latent_dim=1, likelihood=pv.Gaussian(scale="shared"), decoder=SMALL)
    estimator = pv.Estimator(cvae, pv.SVI(epochs=60, learning_rate=1e-2), scale="standardize", samples=20).fit(X, names)
    assert list(estimator.classes_) == sorted(set(names))
    both = clone(estimator).fit(X, names == names[0])
    assert both.classes_.dtype == bool
    assert both.predict(X).dtype == bool
    assert (estimator.predict(X) == names).mean() > 0.8
    assert estimator.predict_proba(X).shape == (150, 3)
    assert not hasattr(estimator, "transform")
    assert not hasattr(estimator, "score_samples")
    assert estimator.__sklearn_tags__().target_tags.required


# --- what there is --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "has", "lacks"),
    [
        (pv.GMM(), ("predict", "predict_proba", "transform", "score"), ()),
        (pv.FactorAnalysis(), ("transform", "score"), ("predict", "predict_proba")),
        (pv.PCA(), ("transform", "fit_transform", "inverse_transform"), ("predict", "score", "score_samples")),
        (pv.AutoEncoder(), ("transform",), ("score",)),
        (pv.VAE(prior=pv.GaussianMixture(components=3)), ("predict", "transform", "score"), ()),
        (pv.VAE(prior=pv.OneHotCategorical()), ("predict",), ()),
        (pv.VAE(), ("transform",), ("predict",)),
        (None, ("transform",), ("predict",)),
        ("no model", (), ("transform", "predict", "score")),
    ],
)
def test_what_a_model_cannot_do_is_no_method(model: pv.Model | None, has: tuple[str, ...], lacks: tuple[str, ...]) -> None:
    estimator = pv.Estimator(model)
    assert [hasattr(estimator, name) for name in has] == [True] * len(has)
    assert [hasattr(estimator, name) for name in lacks] == [False] * len(lacks)


def test_components_of_a_mixture_prior_are_predicted() -> None:
    vae = pv.VAE(latent_dim=2, prior=pv.GaussianMixture(components=3), likelihood=pv.Gaussian(scale="shared"), decoder=SMALL)
    estimator = pv.Estimator(vae, **OF_VAE).fit(X)
    assert estimator.predict_proba(X).shape == (150, 3)
    np.testing.assert_allclose(estimator.predict_proba(X).sum(1), 1)


def test_nothing_is_known_before_the_fit() -> None:
    estimator = pv.Estimator(pv.GMM())
    for verb in (estimator.transform, estimator.predict, estimator.score_samples, estimator.inverse_transform):
        with pytest.raises(NotFittedError):
            verb(X)
    with pytest.raises(NotFittedError):
        estimator.sample()
    with pytest.raises(NotFittedError):
        estimator.get_feature_names_out()


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (pv.Estimator(pv.GMM), "expected a declared model, got the class GMM"),
        (pv.Estimator(pv.GMM(), "EM"), "expected a declared method, got 'EM'"),
        (pv.Estimator(pv.FactorAnalysis(latent_dim=9)), "expected at most 4 factors .* .n_samples=150, n_features=4."),
        (pv.Estimator(pv.GMM(), scale="log"), "scale: one of auto"),
        (pv.Estimator(pv.CVAE(likelihood=pv.Gaussian())), "needs labelled data"),
    ],
)
def test_what_does_not_go_together_is_refused_by_fit(estimator: pv.Estimator, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        estimator.fit(X)


# --- parameters -----------------------------------------------------------------------------------------------------------


def test_fields_of_declarations_are_parameters() -> None:
    estimator = pv.Estimator(pv.VAE(prior=pv.GaussianMixture(components=4)), pv.SVI(epochs=3))
    params = estimator.get_params()
    assert (params["model__prior__components"], params["method__epochs"], params["model__latent_dim"]) == (4, 3, 8)
    assert "model__prior" not in estimator.get_params(deep=False)
    assert estimator.set_params(model__prior__components=7, method__epochs=1, valid=0.1) is estimator
    assert estimator.model.prior == pv.GaussianMixture(components=7)
    assert (estimator.method.epochs, estimator.valid) == (1, 0.1)
    estimator.set_params(model=pv.GMM(), model__components=3)
    assert estimator.model == pv.GMM(components=3)
    assert pv.Estimator().set_params(model__latent_dim=2).model == pv.VAE(latent_dim=2)
    copied = clone(estimator)
    assert copied.get_params() == estimator.get_params()
    for name, message in {
        "model__x": "expected a field of GMM",
        "guide__x": "give guide itself",
        "x__y": "expected fields of model",
    }.items():
        with pytest.raises(ValueError, match=message):
            estimator.set_params(**{name: 1})
    with pytest.raises(ValueError, match="Invalid parameter 'x'"):
        estimator.set_params(x=1)


def test_its_text_and_page_show_the_declarations() -> None:
    estimator = pv.Estimator(pv.GMM(components=2), pv.EM(n_init=3))
    assert "GMM(components=2" in repr(estimator)
    assert "n_init=3" in estimator._repr_html_()


def test_random_states_are_seeds() -> None:
    noisy = pv.Estimator(pv.GMM(components=4), pv.EM(max_iterations=1))
    seeds = [clone(noisy).set_params(random_state=state).fit(X).score(X) for state in (None, 1, 1, 2, np.random.RandomState(1))]
    assert seeds[1] == seeds[2] == seeds[4]
    assert len(set(seeds)) == 3
    assert seeds[0] == clone(noisy).set_params(method__seed=0).fit(X).score(X)


def test_it_goes_through_pickle_as_estimators_do() -> None:
    estimator = pv.Estimator(VAE, **OF_VAE).fit(X)
    again = pickle.loads(pickle.dumps(estimator))
    assert np.array_equal(again.transform(X), estimator.transform(X))
    assert np.array_equal(again.score_samples(X), estimator.score_samples(X))


# --- in scikit-learn ------------------------------------------------------------------------------------------------------


def test_it_stands_in_pipelines_and_searches() -> None:
    pipeline = make_pipeline(StandardScaler(), pv.Estimator(pv.GMM(), pv.EM()))
    search = GridSearchCV(
        pipeline, {"estimator__model__components": [1, 2], "estimator__model__covariance": ["full", "tied"]}, cv=3
    )
    search.fit(X)
    assert search.best_params_["estimator__model__components"] == 2
    assert search.best_score_ == pytest.approx(np.max(search.cv_results_["mean_test_score"]))
    assert search.predict(X).shape == (150,)
    scores = cross_val_score(pv.Estimator(pv.FactorAnalysis(latent_dim=1), pv.EM()), X, cv=3)
    parts = np.split(X, 3)
    alone = [
        pv.Estimator(pv.FactorAnalysis(latent_dim=1)).fit(np.concatenate(parts[:i] + parts[i + 1 :])).score(parts[i])
        for i in range(3)
    ]
    np.testing.assert_allclose(scores, alone, rtol=1e-12)


def test_frames_go_in_and_come_out_by_their_names() -> None:
    frame = pd.DataFrame(X, columns=NAMES, index=[f"flower {i}" for i in range(len(X))])
    estimator = pv.Estimator(pv.FactorAnalysis(latent_dim=2)).set_output(transform="pandas")
    codes = estimator.fit_transform(frame)
    assert list(codes.columns) == list(estimator.get_feature_names_out()) == ["factoranalysis0", "factoranalysis1"]
    assert list(codes.index) == list(frame.index)
    assert list(estimator.feature_names_in_) == NAMES
    assert estimator.fit_.spec.columns == tuple(NAMES)
    with pytest.raises(ValueError, match="feature names"):
        estimator.transform(frame[NAMES[::-1]])
    with sklearn.config_context(transform_output="default"):
        assert isinstance(clone(estimator).fit(frame).transform(frame), pd.DataFrame)
