"""Values that float32 cannot tell apart are centred and scaled in float64, or refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

import ppl_vae as pv
from ppl_vae.data import Transform, load_data
from tests.test_data import shards

WHOLE = {"valid": 0, "test": 0}
rng = np.random.default_rng(0)
NEAR = rng.normal(size=(2000, 2)) * [20, 0.1]
FAR = NEAR + np.array([1.7e9, 5.8e6])  # unix seconds within a minute, metres within a room


def quiet(row):
    return None


def log_likelihood(data):
    """Of a Gaussian with the maximum-likelihood covariance, which a factor and two noises are."""
    fit = pv.fit(pv.FactorAnalysis(latent_dim=1), data, method=pv.EM(), progress=quiet)
    return fit.evaluate(data.train)["log_likelihood"]


def exact(x):
    return stats.multivariate_normal(x.mean(0), np.cov(x.T, bias=True)).logpdf(x).mean()


@pytest.mark.parametrize("values", [FAR, np.round(FAR * 1000).astype(np.int64), np.round(FAR[:, [0, 0]] * [1, -1]).astype(int)])
def test_numbers_far_from_zero_are_those_near_zero(values):
    data = load_data(values, scale="standardize", **WHOLE)
    seen = data.train.transformed()
    assert seen.dtype == torch.float32
    expected = (values - values.mean(0)) / values.std(0)
    torch.testing.assert_close(seen, torch.tensor(expected, dtype=torch.float32), rtol=1e-5, atol=1e-5)
    assert np.array_equal(data.train.x, values)
    independent = sum(stats.norm(x.mean(), x.std()).logpdf(x).mean() for x in values.T)
    noise = pv.fit(pv.PPCA(latent_dim=1), data, method=pv.ClosedForm(), progress=quiet).evaluate(data.train)
    assert noise["log_likelihood"] >= independent - 1e-4
    if len(np.unique(np.abs(values[:9]))) > 9:
        assert log_likelihood(data) == pytest.approx(exact(values), abs=1e-4)


def test_the_way_back_has_all_digits(tmp_path):
    data = load_data(FAR, scale="standardize")
    transform = data.train.transform
    back = transform.inverse(data.test.transformed())
    assert back.dtype == torch.float64
    np.testing.assert_allclose(back, data.test.x, rtol=0, atol=1e-5)
    for other in (transform.to(torch.float64).to(torch.float32), transform.applied(), transform.rescaling()):
        assert torch.equal(other.inverse(data.test.transformed()), back)
    assert data.part("test", transform).transformed().equal(data.test.transformed())
    fit = pv.fit(pv.VAE(latent_dim=1, likelihood=pv.Gaussian()), data, method=pv.SVI(epochs=1), progress=quiet)
    pv.save_run(fit, data, tmp_path / "run")
    again = pv.load_run(tmp_path / "run")
    assert torch.equal(again.transform.exact, transform.exact)
    assert again.evaluate(data.test) == fit.evaluate(data.test)


@pytest.mark.parametrize("compile", [False, "auto"])
def test_training_is_that_of_values_near_zero(compile):
    ends = []
    for values in (FAR, NEAR):
        data = load_data(values, scale="standardize", **WHOLE)
        method = pv.SVI(epochs=20, batch_size=100, compile=compile)
        fit = pv.fit(pv.VAE(latent_dim=1, likelihood=pv.Gaussian(scale="per_feature")), data, method=method, progress=quiet)
        ends.append(fit.evaluate(data.train)["elbo"])
    assert ends[0] == pytest.approx(ends[1], abs=1e-3)


@pytest.mark.parametrize("scale", ["standardize", "unit"])
@pytest.mark.parametrize("values", [FAR, np.round(FAR).astype(np.int64)], ids=["float64", "int64"])
def test_streams_are_as_exact(tmp_path, scale, values):
    source = shards(tmp_path / "shards", values)
    held, streamed = (load_data(source, scale=scale, stream=stream) for stream in (None, 1))
    assert torch.equal(streamed.train.x, held.train.x)
    torch.testing.assert_close(streamed.train.transformed(), held.train.transformed(), rtol=0, atol=1e-6)
    low = 0 if scale == "unit" else -5
    assert low <= held.train.transformed().min() < held.train.transformed().max() <= 5
    assert len(held.train.transformed().unique()) > 0.9 * len(np.unique(values[: len(held.train)]))


def test_values_that_float32_holds_keep_their_dtypes():
    for values, dtype in (
        (NEAR, torch.float32),
        (FAR.astype(np.float32), torch.float32),
        (rng.integers(0, 9, (40, 2)), torch.int32),
        (rng.integers(1990, 2020, (40, 2)).astype(float), torch.float32),
        (300 + NEAR, torch.float32),
        (np.full((40, 2), 2**40), torch.int64),
        (np.full((40, 2), 1.7e9 + 0.1), torch.float32),
    ):
        data = load_data(values, scale="standardize", **WHOLE)
        assert data.train.x.dtype == dtype
        assert data.train.transform.exact is None
        assert "exact" not in data.train.transform.state_dict()


def test_what_float32_would_merge_is_refused_without_scaling(tmp_path):
    for values in (FAR, np.round(FAR).astype(np.int64), shards(tmp_path / "shards", FAR)):
        with pytest.raises(
            ValueError, match=r"feature 0 .* mean 1699999999\S* and standard deviation 20\S*: use scale='standard"
        ):
            load_data(values)
    assert load_data(np.round(FAR[:, :1] * 1e-3)).spec.kind == "count"  # thousands of seconds are exact


def test_noise_of_large_integers_keeps_its_digits():
    values = rng.integers(0, 4, (4000, 1)) + 2**24
    data = load_data(values, dequantize="static", scale="standardize", **WHOLE)
    noise = data.train.x - torch.tensor(values[:, :1], dtype=torch.float64)
    assert 0 <= noise.min() < noise.max() < 1
    assert abs(float(noise.mean()) - 0.5) < 4 * math.sqrt(1 / 12 / 4000)
    assert data.train.transformed().std().item() == pytest.approx(1, abs=0.01)


def test_an_exact_transform_is_of_the_shape_of_the_data():
    assert Transform((2, 3), 1.7e9 + 0.25, 0.5, exact=True).exact.shape == (2, 2, 3)
    assert Transform((2,), 1.7e9 + 0.25, 0.5, exact=True)(torch.tensor([[1.7e9, 1.7e9 + 1]], dtype=torch.float64)).tolist() == [
        [-0.5, 1.5]
    ]


def test_rows_that_lost_their_digits_are_refused_and_one_row_keeps_them():
    data = load_data(FAR, scale="standardize", **WHOLE)
    fit = pv.fit(pv.FactorAnalysis(latent_dim=1), data, method=pv.EM(), progress=quiet)
    one = fit.evaluate(torch.tensor(FAR[:1]))["elbo"]
    for scale in ("auto", "standardize"):
        assert fit.evaluate(load_data(FAR[:1], scale=scale, **WHOLE).train)["elbo"] == pytest.approx(one, abs=1e-6)
    beside_zero = load_data(np.concatenate([FAR[:9], 0 * FAR[:1]]), **WHOLE).train  # whose deviations float32 does hold
    for rows in (torch.tensor(FAR[:9], dtype=torch.float32), beside_zero):
        with pytest.raises(ValueError, match=r"got float32, which moves feature 0 .* float64 tensor"):
            fit.evaluate(rows)
