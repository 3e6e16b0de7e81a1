"""Baselines without a prior: the autoencoder, and PCA against scikit-learn and against its kin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn import decomposition

import ppl_vae as pv
from ppl_vae import cli
from tests.table import built, rows

K = 3
LINEAR = pv.AutoEncoder(latent_dim=K, likelihood=pv.Gaussian(scale="fixed", value=0.5), decoder=pv.Linear())


@pytest.fixture(scope="module")
def data() -> pv.Data:
    """Correlated columns of different sizes around a mean."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(5, 8, generator=generator) * torch.tensor([3.0, 2.0, 1.5, 0.6, 0.4])[:, None]
    x = torch.randn(600, 5, generator=generator) @ mixing + 0.2 * torch.randn(600, 8, generator=generator) + 2
    return pv.load_data(x.numpy(), valid=0.0, test=0.25)


@pytest.fixture(scope="module")
def peer(data: pv.Data) -> decomposition.PCA:
    return decomposition.PCA(K).fit(data.train.transformed().double().numpy())


@pytest.fixture(scope="module")
def pca(data: pv.Data) -> pv.inference.Fit:
    return pv.fit(pv.PCA(latent_dim=K), data, method=pv.ClosedForm())


@pytest.fixture(scope="module")
def autoencoder() -> pv.inference.Fit:
    data = pv.load_data("digits", binarize="static")
    return pv.fit(pv.AutoEncoder(latent_dim=4), data, method=pv.SVI(epochs=3, learning_rate=1e-2))


def squared_error(fitted: pv.inference.Fit, split: pv.Split) -> float:
    x = fitted.seen(split)
    return (fitted.reconstruct(split, seen=True) - x).square().mean().item()


# --- PCA ------------------------------------------------------------------------------------------------------------------


def test_principal_components_are_scikit_learns(data: pv.Data, pca: pv.inference.Fit, peer: decomposition.PCA) -> None:
    x = data.test.transformed()
    linear = pca.pair.model.decoder.layers
    axes = linear.weight.detach().T.double()
    theirs = torch.from_numpy(peer.components_).double()
    torch.testing.assert_close((axes * theirs).sum(1).abs(), torch.ones(K, dtype=torch.float64), rtol=0, atol=1e-5)
    torch.testing.assert_close(linear.bias.detach(), torch.from_numpy(peer.mean_).float())
    scores = torch.from_numpy(peer.transform(x.numpy())).float()
    torch.testing.assert_close(pca.encode(x).abs(), scores.abs(), rtol=1e-4, atol=1e-4)
    back = torch.from_numpy(peer.inverse_transform(peer.transform(x.numpy()))).float()
    torch.testing.assert_close(pca.reconstruct(x), back, rtol=1e-4, atol=1e-4)


def test_its_reconstruction_is_the_log_density_around_the_projection(
    data: pv.Data, pca: pv.inference.Fit, peer: decomposition.PCA
) -> None:
    x = data.train.transformed().double().numpy()
    error = np.square(x - peer.inverse_transform(peer.transform(x))).mean()
    expected = -0.5 * x.shape[1] * (np.log(2 * np.pi * error) + 1)
    numbers = pca.evaluate(data.train)
    assert set(numbers) == {"reconstruction", "reconstruction_se", "n"}
    assert numbers["reconstruction"] == pytest.approx(expected, abs=1e-4)
    assert pca.history[0]["reconstruction"] == pytest.approx(expected, abs=1e-4)
    assert "elbo" not in pca.history[0]
    assert "log_likelihood" not in pca.history[0]


def test_its_codes_are_drawn_from_the_normal_of_the_training_codes(
    data: pv.Data, pca: pv.inference.Fit, peer: decomposition.PCA
) -> None:
    prior = pca.pair.model.prior()
    torch.testing.assert_close(prior.loc, torch.zeros(K), atol=1e-4, rtol=0)
    variances = torch.from_numpy(peer.explained_variance_).float() * (len(data.train) - 1) / len(data.train)
    torch.testing.assert_close(prior.covariance_matrix, variances.diag(), rtol=1e-4, atol=1e-4)
    drawn = pca.sample(20000)
    torch.testing.assert_close(drawn.mean(0), data.train.transformed().mean(0), atol=0.2, rtol=0)


def test_it_is_the_limit_of_ppca(data: pv.Data, pca: pv.inference.Fit) -> None:
    ppca = pv.fit(pv.PPCA(latent_dim=K), data, method=pv.ClosedForm())
    theirs = ppca.pair.model.loadings.double()
    ours = pca.pair.model.decoder.layers.weight.detach().double()
    outside = theirs - ours @ (ours.T @ theirs)
    assert outside.abs().max() < 1e-5
    # PPCA shrinks towards the mean, which costs squared error.
    assert squared_error(pca, data.train) < squared_error(ppca, data.train)


def test_gradients_find_the_same_plane(data: pv.Data, pca: pv.inference.Fit) -> None:
    fitted = pv.fit(pv.PCA(latent_dim=K), data, method=pv.SVI(epochs=150, learning_rate=3e-2))
    assert fitted.guide == pv.ExactPosterior()
    assert squared_error(fitted, data.train) == pytest.approx(squared_error(pca, data.train), rel=0.01)


def test_a_constant_column_and_a_perfect_plane_are_no_trouble() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(50, 2, generator=generator) @ torch.randn(2, 4, generator=generator)
    x[:, 1] = 7
    data = pv.load_data(x.numpy(), valid=0.0, test=0.0)
    fitted = pv.fit(pv.PCA(latent_dim=3), data, method=pv.ClosedForm())
    assert squared_error(fitted, data.train) < 1e-8
    assert fitted.sample(5).isfinite().all()
    assert fitted.evaluate(data.train)["reconstruction"] > 0


# --- the linear autoencoder -----------------------------------------------------------------------------------------------


def test_a_linear_autoencoder_reaches_the_error_of_pca(data: pv.Data, pca: pv.inference.Fit) -> None:
    guide = pv.AmortizedDelta(encoder=pv.Linear())
    fitted = pv.fit(LINEAR, data, guide=guide, method=pv.SVI(epochs=150, learning_rate=0.1))
    least = squared_error(pca, data.train)
    assert least * (1 - 1e-6) <= squared_error(fitted, data.train) <= 1.01 * least


# --- the autoencoder ------------------------------------------------------------------------------------------------------


def test_an_autoencoder_climbs_its_reconstruction_and_nothing_else() -> None:
    pair = built(pv.AutoEncoder(latent_dim=K))
    x = rows("binary")
    loss, *_ = pv.ELBO(particles=2).build(pair)(x)
    with torch.no_grad():
        expected = pair.model.decode(pair.guide.posterior(x).mean).log_prob(x).mean()
    torch.testing.assert_close(-loss.detach(), expected)


def test_evaluate_reports_a_reconstruction_and_no_bound(autoencoder: pv.inference.Fit) -> None:
    data = pv.load_data("digits", binarize="static")
    x = autoencoder.seen(data.test)
    for samples in (1, 5):
        numbers = autoencoder.evaluate(x, samples=samples)
        assert set(numbers) == {"reconstruction", "reconstruction_se", "n"}
        with torch.no_grad():
            expected = autoencoder.pair.model.decode(autoencoder.encode(x)).log_prob(x)
        assert numbers["reconstruction"] == pytest.approx(expected.mean().item(), rel=1e-5)
        assert numbers["reconstruction_se"] == pytest.approx(expected.std(correction=0).item() / len(x) ** 0.5, rel=1e-4)


def test_new_data_come_from_the_normal_of_the_training_codes(autoencoder: pv.inference.Fit) -> None:
    codes = autoencoder.encode(pv.load_data("digits", binarize="static").train)
    prior = autoencoder.pair.model.prior()
    torch.testing.assert_close(prior.loc, codes.mean(0), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(prior.covariance_matrix, codes.T.cov(correction=0), rtol=1e-3, atol=1e-3)
    assert autoencoder.sample(6).shape == (6, 1, 8, 8)
    assert set(autoencoder.sample(3).unique().tolist()) <= {0.0, 1.0}


def test_a_guide_with_a_density_is_refused() -> None:
    for guide in (pv.AmortizedNormal(), pv.AmortizedLinear(), pv.SemiAmortized()):
        with pytest.raises(ValueError, match="latent variable is code: use AmortizedDelta"):
            built(pv.AutoEncoder(), guide)
    with pytest.raises(ValueError, match=r"no exact posterior.*use SVI"):
        pv.fit(pv.AutoEncoder(), "digits", method=pv.ClosedForm())


def test_the_verbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["--data", "digits", "--quiet"]
    assert cli.main(["fit", "--model", "AutoEncoder", "--method.epochs", "1", *small, "--out", "ae"]) == 0
    assert cli.main(["fit", "--model", "PCA", "--method", "ClosedForm", *small, "--out", "pca"]) == 0
    for run in ("ae", "pca"):
        capsys.readouterr()
        assert cli.main(["evaluate", run]) == 0
        printed = capsys.readouterr().out
        assert "reconstruction" in printed
        assert "elbo" not in printed
        assert cli.main(["sample", run, "--n", "4", "--out", f"{run}.npy"]) == 0
        assert np.load(f"{run}.npy").shape == (4, 1, 8, 8)
        assert cli.main(["encode", run, "--out", f"{run}.npz"]) == 0
        assert np.load(f"{run}.npz")["z"].shape[1] == 8


@pytest.mark.parametrize(
    ("model", "spec", "message"),
    [
        (pv.PCA(latent_dim=4), {}, "at most 3 components"),
        (pv.PCA(latent_dim=2), {"missing": True}, "PCA needs complete data.*PPCA"),
        (pv.PCA(latent_dim=2), {"kind": "categorical", "levels": 3}, "these data are categorical"),
        (pv.AutoEncoder(), {}, "Bernoulli is a likelihood of binary data"),
        (pv.AutoEncoder(), {"kind": "binary", "missing": True}, "Masked"),
    ],
)
def test_data_that_do_not_fit_are_refused(model: pv.Model, spec: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model.check(pv.DataSpec(**{"event_shape": (4,), "kind": "real", "size": 10, **spec}))


@pytest.mark.parametrize("declared", [pv.PCA, pv.AutoEncoder])
def test_bad_declarations(declared: type[pv.Model]) -> None:
    with pytest.raises(ValueError, match="latent_dim of at least 1"):
        declared(latent_dim=0)
