"""Noise taken out of images: against the Wiener filter and sums over components, without noise, and what is refused."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import ppl_vae as pv
from ppl_vae import cli
from ppl_vae.data.patches import contrasts
from ppl_vae.evaluate.image_quality import noise_level, psnr, ssim
from ppl_vae.evaluate.patch_prior import PatchPrior, filled, half_quadratic, schedule
from ppl_vae.exact import mixture
from ppl_vae.exact.covariances import covariance
from ppl_vae.exact.mixture import Parameters
from ppl_vae.exact.noisy_mixture import choose, filtered, spectra
from ppl_vae.models.gmm import MixtureModel

FULL = covariance("full")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_mixture(components: int, columns: int) -> Parameters:
    roots = normal(components, columns, columns) * torch.logspace(-1, 1, columns, dtype=torch.float64)
    return Parameters(normal(components).softmax(0), 5 * normal(components, columns, seed=1), roots @ roots.mT)


def waves(height: int, width: int) -> Tensor:
    """An image of smooth waves, 0 to 255."""
    i, j = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return (127.5 + 127.5 * torch.sin(i / 5.0 + j / 9.0)).double()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gray pictures of different sizes."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, shape in enumerate([(40, 50), (33, 29), (60, 20)]):
        pixels = (waves(*shape) + 3 * normal(*shape)).round().clamp(0, 255)
        Image.fromarray(pixels.numpy().astype(np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a mixture of patches without their means."""
    data = pv.load_data(folder, patches=pv.Patches(size=4, count=1500, remove_mean=True))
    path = tmp_path_factory.mktemp("runs") / "patches"
    pv.fit(pv.GMM(components=3), data, method=pv.EM(max_iterations=10), out=path)
    return path


@pytest.fixture(scope="module")
def fit(run: Path) -> pv.Fit:
    """The fit of that run."""
    return pv.load_run(run)


def test_patches_of_pictures_stay_whole_and_with_their_picture(folder):
    data = pv.load_data(folder, patches=pv.Patches(size=4, count=500), valid=0.34, test=0.34)
    assert data.spec.event_shape == (1, 4, 4)
    assert len(data.train) + len(data.valid) + len(data.test) == 500
    places = [37 * 47, 30 * 26, 57 * 17]
    assert sorted(map(len, (data.train, data.valid, data.test))) == sorted(
        int(sum(places[: k + 1]) * 500 // sum(places)) - int(sum(places[:k]) * 500 // sum(places)) for k in range(3)
    )
    pictures = [np.asarray(Image.open(file)) for file in sorted(folder.glob("*.png"))]
    held = [{window.tobytes() for window in windows(picture)} for picture in pictures]
    for part in (data.train, data.valid, data.test):
        found = {row.numpy().tobytes() for row in part.raw}
        assert any(found <= those for those in held)
    assert torch.equal(data.train.raw, pv.load_data(data.source).train.raw)
    assert pv.DataSource.from_yaml(data.source.to_yaml()) == data.source


def windows(picture: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(picture, (4, 4)).reshape(-1, 4, 4))


def test_all_patches_of_an_array_are_cut_and_their_means_removed_in_each_channel():
    images = (255 * torch.rand(2, 6, 5, 3, generator=torch.Generator().manual_seed(0))).byte().numpy()
    declared = pv.Patches(size=3, count=10**6)
    whole = pv.load_data(images, patches=declared, valid=0, test=0).train.raw.double()
    assert whole.shape == (2 * 4 * 3, 3, 3, 3)
    rows = pv.load_data(images, patches=pv.Patches(size=3, count=10**6, remove_mean=True), valid=0, test=0).train.raw.double()
    back = rows @ pv.Patches(size=3, remove_mean=True).basis(3)
    torch.testing.assert_close(back.reshape(whole.shape), whole - whole.mean((2, 3), keepdim=True), atol=1e-4, rtol=0)
    B = contrasts(5)
    torch.testing.assert_close(B @ B.T, torch.eye(24, dtype=torch.float64))


def test_components_behind_noise_are_chosen_as_their_densities_say():
    parameters = random_mixture(5, 11)
    k = torch.arange(400) % 5
    drawn = torch.linalg.cholesky(parameters.covariances)[k] @ normal(400, 11, 1, seed=2)
    x = parameters.locs[k] + drawn[..., 0] + 0.7**0.5 * normal(400, 11, seed=3)
    noisy = parameters._replace(covariances=parameters.covariances + 0.7 * torch.eye(11))
    exact = mixture.component_log_prob(noisy, x, FULL)
    held = spectra(parameters, FULL)
    assert torch.equal(choose(held, x, 0.7, candidates=5), exact.argmax(1))
    assert torch.equal(choose(held, x, 0.7, head=10, candidates=1), exact.argmax(1))  # one eigenvalue is its own mean
    short = choose(held, x, 0.7, head=4, candidates=2)
    assert float((exact.amax(1) - exact.gather(1, short[:, None])[:, 0]).mean()) < 0.01


def test_a_row_is_filtered_by_its_component():
    parameters = random_mixture(3, 6)
    x, k = normal(50, 6), torch.arange(50) % 3
    S = parameters.covariances[k]
    gain = S @ torch.linalg.inv(S + 2.5 * torch.eye(6))
    wiener = parameters.locs[k] + ((gain @ (x - parameters.locs[k])[..., None])[..., 0])
    torch.testing.assert_close(filtered(spectra(parameters, FULL), x, k, 2.5), wiener, atol=1e-9, rtol=1e-9)


def test_one_component_and_one_patch_are_the_wiener_filter():
    weights, locs, S = random_mixture(1, 30)
    prior = PatchPrior(spectra(Parameters(weights, locs, S), FULL), torch.eye(30, dtype=torch.float64), (1, 5, 6))
    y = 10 * normal(1, 5, 6, seed=3)
    wiener = locs[0] + S[0] @ torch.linalg.solve(S[0] + 4.0 * torch.eye(30), y.flatten() - locs[0])
    found = half_quadratic(prior, y, 4.0, schedule(prior, 4.0, (1, 4, 8, 16, 32), gaps=False))
    torch.testing.assert_close(found.flatten(), wiener, atol=1e-8, rtol=1e-8)


def test_steps_at_one_variance_solve_the_sum_over_patches():
    weights, locs, S = random_mixture(1, 4)
    prior = PatchPrior(spectra(Parameters(weights, locs, S), FULL), torch.eye(4, dtype=torch.float64), (1, 2, 2))
    y = 10 * normal(1, 3, 4, seed=3)
    v, w = 4.0, 3.0
    P = [
        torch.eye(12, dtype=torch.float64)[[4 * i + j, 4 * i + j + 1, 4 * i + j + 4, 4 * i + j + 5]]
        for i in range(2)
        for j in range(3)
    ]
    inner = torch.linalg.inv(S[0] + w * torch.eye(4))
    cover = torch.stack([each.sum(0) for each in P]).sum(0)
    A = torch.diag(cover / v) + torch.stack([each.T @ inner @ each for each in P]).sum(0)
    b = cover * y.flatten() / v + torch.stack([each.T @ inner @ locs[0] for each in P]).sum(0)
    found = half_quadratic(prior, y, v, [w] * 300)
    torch.testing.assert_close(found.flatten(), torch.linalg.solve(A, b), atol=1e-9, rtol=1e-9)


def test_without_noise_the_image_stays(fit):
    y = waves(20, 24) + normal(20, 24)
    torch.testing.assert_close(fit.denoise(y, 1e-4), y, atol=1e-3, rtol=0)


def test_noise_is_taken_out_and_estimated(fit):
    truth = waves(48, 64)
    y = truth + 20 * normal(48, 64)
    told, found = fit.denoise(y, 20.0), fit.denoise(y.numpy())
    assert psnr(told, truth) > psnr(y, truth) + 5
    assert isinstance(found, np.ndarray)
    assert psnr(torch.from_numpy(found), truth) > psnr(y, truth) + 5
    assert abs(noise_level(waves(300, 300) + 25 * normal(300, 300)) / 25 - 1) < 0.05


def test_bands_of_an_image_are_one_image(fit, monkeypatch):
    y = waves(30, 22) + 20 * normal(30, 22)
    whole = fit.denoise(y, 20.0)
    monkeypatch.setattr(sys.modules[half_quadratic.__module__], "_PATCHES", 50)
    torch.testing.assert_close(fit.denoise(y, 20.0), whole, atol=1e-9, rtol=0)


def test_known_pixels_stay_and_missing_ones_are_filled(fit):
    truth = waves(40, 40)
    mask = torch.rand(40, 40, generator=torch.Generator().manual_seed(0)) < 0.5
    y = truth.masked_fill(mask, torch.nan)
    found = fit.denoise(y, mask=mask)
    assert torch.equal(found[~mask], truth[~mask])
    start = filled(y[None])[0]
    assert (found - truth)[mask].square().mean() < (start - truth)[mask].square().mean() / 2
    noisy = fit.denoise(y + 5 * normal(40, 40), 5.0, mask=mask)
    assert psnr(noisy, truth) > 25
    lone = torch.full((1, 40, 40), torch.nan, dtype=torch.float64)
    lone[0, 0, 0] = 3.0
    torch.testing.assert_close(filled(lone), torch.full_like(lone, 3.0))


def test_images_as_wide_as_a_patch_are_denoised_as_others():
    truth = waves(40, 60)
    windows = truth.unfold(1, 8, 1).movedim(1, 0) + normal(53, 40, 8)
    data = pv.load_data(windows.numpy(), patches=pv.Patches(size=8, count=400), scale="none", valid=0, test=0)
    fit = pv.fit(pv.GMM(components=1), data, method=pv.EM(max_iterations=5))
    for shape in ((40, 8), (8, 40), (8, 8), (40, 9)):
        true = waves(*shape)
        y = true + 20 * normal(*shape)
        before = y.clone()
        assert psnr(fit.denoise(y, 20.0), true) > psnr(y, true) + 3, shape
        assert torch.equal(y, before)


@pytest.mark.parametrize("model", [pv.GMM(components=2), pv.FactorAnalysis(latent_dim=8)])
def test_known_pixels_of_whole_images_stay(model):
    digits = pv.load_data("digits", dequantize="static")
    fit = pv.fit(model, digits, method=pv.EM(max_iterations=10))
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[2:5, 2:5] = True
    apart = []
    for x in digits.test.raw[:20, 0].double():
        found = fit.denoise(x.masked_fill(mask, torch.nan), mask=mask)
        assert torch.equal(found[~mask], x[~mask])
        apart.append((found - x)[mask])
    spread = digits.test.raw.double().std(0)[0][mask]
    assert torch.cat(apart).square().mean() < spread.square().mean()


def test_channels_are_denoised_alike(fit):
    truth = waves(24, 30)
    y = truth + 20 * normal(3, 24, 30)
    each = fit.denoise(y, 20.0, channels="each")
    torch.testing.assert_close(each[1], fit.denoise(y[1], 20.0), atol=1e-9, rtol=0)
    last = fit.denoise(y.movedim(0, 2).numpy(), 20.0, channels="each")
    np.testing.assert_allclose(last, each.movedim(0, 2).numpy(), atol=1e-9)


def test_colour_patches_and_patches_with_their_means_and_whole_images_are_denoised():
    truth = torch.stack([waves(20, 20), waves(20, 20).flip(0), waves(20, 20).T])
    images = (truth + 3 * normal(3, 20, 20)).round().clamp(0, 255).byte()[None].movedim(1, 3).numpy()
    colour = pv.load_data(images, patches=pv.Patches(size=4, count=200), valid=0, test=0)
    fit = pv.fit(pv.GMM(components=1), colour, method=pv.EM(max_iterations=5))
    y = truth + 20 * normal(3, 20, 20)
    assert psnr(fit.denoise(y, 20.0), truth) > psnr(y, truth) + 3
    digits = pv.load_data("digits")
    factors = pv.fit(pv.PPCA(latent_dim=20), digits)
    x = digits.test.raw[0].double()
    prior = factors.patch_prior()
    _, locs, S = factors.pair.model.normal_components()
    W = torch.linalg.solve(256 * S[0] + 9 * torch.eye(64), 256 * S[0])
    wiener = 16 * locs[0] + W.T @ (x.flatten() - 16 * locs[0])
    torch.testing.assert_close(factors.denoise(x, 3.0).flatten(), wiener, atol=1e-6, rtol=0)
    assert prior.shape == (1, 8, 8)


def test_a_code_explains_an_image_behind_noise():
    digits = pv.load_data("digits")
    fit = pv.fit(pv.VAE(latent_dim=2, decoder=pv.Linear(), likelihood=pv.Gaussian()), digits, method=pv.SVI(epochs=2))
    x = digits.test.raw[3, 0].double()
    y = x + 3 * normal(8, 8)
    # Of a linear decoder E[x | z] = W z + b the most probable code solves (W^T W / v + I) z = W^T (y - b) / v.
    b = fit.decode(torch.zeros(1, 2)).double().flatten()
    W = (fit.decode(torch.eye(2)).double().flatten(1) - b).T
    z = torch.linalg.solve(W.T @ W / 9 + torch.eye(2), W.T @ (y.flatten() - b) / 9)
    torch.testing.assert_close(fit.denoise(y, 3.0, steps=100).flatten(), W @ z + b, atol=2e-2, rtol=0)
    hole = torch.zeros(8, 8, dtype=torch.bool)
    hole[2:4] = True
    keep = ~hole.flatten()
    z = torch.linalg.solve(W[keep].T @ W[keep] / 9 + torch.eye(2), W[keep].T @ (y.flatten() - b)[keep] / 9)
    torch.testing.assert_close(fit.denoise(y, 3.0, mask=hole, steps=100).flatten(), W @ z + b, atol=2e-2, rtol=0)
    found = fit.denoise(x, mask=hole)
    assert torch.equal(found[~hole], x[~hole])
    assert (found - x)[hole].abs().max() > 0
    flat = fit.denoise(torch.full((8, 8), 3.0), mask=hole)  # without any texture to find noise in
    assert bool(flat.isfinite().all())
    assert torch.equal(flat[~hole], torch.full((8, 8), 3.0)[~hole])


def test_a_lattice_gives_each_pixel_its_more_probable_state():
    model = pv.Ising(shape=(4, 5), coupling=0.4, observed=pv.GaussianNoise(scale=30.0, low=10.0, high=200.0))
    truth = (pv.Ising(shape=(4, 5), coupling=0.4).sample(6) + 1) / 2 * 190 + 10
    y = truth + 30 * normal(6, 4, 5).float()
    fit = pv.fit(model, y)
    found = fit.denoise(y[0].double())
    torch.testing.assert_close(found, torch.where(fit.encode(y[:1])[0] > 0, 200.0, 10.0).double())
    flipped = pv.fit(pv.Ising(shape=(4, 5), coupling=0.4, observed=pv.Flip(rate=0.1)), (truth > 100).float())
    hole = torch.zeros(4, 5)
    hole[1, 1] = 1
    assert set(flipped.denoise((truth[0] > 100).double(), mask=hole).unique().tolist()) <= {0.0, 1.0}


def test_a_mixture_decodes_covariances_that_float32_takes_for_singular():
    turn = torch.linalg.qr(normal(5, 5)).Q
    S = turn @ torch.diag(torch.tensor([4e4, 1e3, 1.0, 1e-2, 1e-4], dtype=torch.float64)) @ turn.T
    program = MixtureModel(size=1, columns=5, declared=pv.GMM(components=1))
    program.assign(Parameters(torch.ones(1).double(), torch.zeros(1, 5).double(), ((S + S.T) / 2)[None]))
    torch.testing.assert_close(program.decode(torch.ones(1, 1)).variance[0].double(), S.diagonal(), rtol=1e-4, atol=0)


def test_quality_is_as_published():
    x, y = waves(14, 12), waves(14, 12) + 10 * normal(14, 12)
    w = torch.exp(-((torch.arange(11.0).double() - 5) ** 2) / 4.5)
    w = torch.outer(w, w) / w.sum() ** 2
    terms = []
    for i in range(4):
        for j in range(2):
            a, b = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
            ma, mb = (w * a).sum(), (w * b).sum()
            va, vb, vab = (w * (a - ma) ** 2).sum(), (w * (b - mb) ** 2).sum(), (w * (a - ma) * (b - mb)).sum()
            c1, c2 = 2.55**2, 7.65**2
            terms.append((2 * ma * mb + c1) * (2 * vab + c2) / (ma**2 + mb**2 + c1) / (va + vb + c2))
    assert ssim(y, x) == pytest.approx(float(torch.stack(terms).mean()), abs=1e-12)
    assert psnr(x + 5, x) == pytest.approx(20 * math.log10(51))


def test_ssim_is_that_of_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    x, y = waves(40, 50), waves(40, 50) + 10 * normal(40, 50)
    told = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    assert ssim(y, x) == pytest.approx(metrics.structural_similarity(x.numpy(), y.numpy(), **told), abs=1e-10)


@pytest.mark.parametrize(
    ("image", "options", "told"),
    [
        (normal(3, 20, 20), {"sigma": 5.0}, "1 channel"),
        (normal(3, 3), {"sigma": 5.0}, "at least 4 x 4"),
        (normal(20, 20), {"sigma": 0.0}, "positive sigma"),
        (normal(20, 20), {"sigma": -1}, "positive sigma"),
        (normal(20, 20), {"sigma": math.nan}, "positive sigma"),
        (normal(20, 20).fill_(math.nan), {"sigma": 5.0}, "finite pixels"),
        (normal(20, 20), {"mask": torch.ones(20, 20)}, "known pixels"),
        (normal(20, 20), {"mask": torch.zeros(20, 21)}, "mask of the image's shape"),
        (normal(20), {"sigma": 5.0}, r"an image \(H, W\)"),
        (normal(2, 20, 20), {"sigma": 5.0}, "1 or 3 channels"),
        (torch.zeros(20, 20), {}, "expected noise"),
        (normal(20, 20), {"channels": "both"}, "joint, each"),
        (normal(20, 20), {"sigma": 5.0, "betas": ()}, "positive betas"),
    ],
)
def test_what_is_no_image_or_no_noise_is_refused(fit, image, options, told):
    with pytest.raises(ValueError, match=told):
        fit.denoise(image, **options)


def test_models_that_cannot_and_patches_that_do_not_fit_are_refused(folder):
    with pytest.raises(ValueError, match="at least 25 x 25"):
        pv.load_data(folder, patches=pv.Patches(size=25))
    with pytest.raises(ValueError, match="expected images"):
        pv.load_data(np.zeros((5, 3)), patches=pv.Patches(size=2))
    with pytest.raises(ValueError, match="fit of images"):
        pv.fit(pv.GMM(components=1), np.random.default_rng(0).normal(size=(20, 3))).denoise(torch.zeros(8, 8), 1.0)
    digits = pv.fit(pv.VAE(latent_dim=2), "digits", method=pv.SVI(epochs=1))
    with pytest.raises(ValueError, match="crop it"):
        digits.denoise(torch.zeros(9, 8), 1.0)


def test_the_verb_writes_a_picture_and_tells_how_near_it_is(run, folder, tmp_path, capsys):
    truth = waves(40, 50)
    np.save(tmp_path / "noisy.npy", (truth + 20 * normal(40, 50)).numpy())
    mask = np.zeros((40, 50), np.uint8)
    mask[10:12] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    verb = ["denoise", str(run), str(tmp_path / "noisy.npy"), "--sigma", "20", "--json"]
    verb += ["--truth", str(folder / "0.png"), "--mask", str(tmp_path / "mask.png"), "--out", str(tmp_path / "clean.png")]
    assert cli.main(verb) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["psnr"] > told["psnr_before"] + 5
    assert told["ssim"] > told["ssim_before"]
    written = torch.from_numpy(np.asarray(Image.open(tmp_path / "clean.png")).astype(np.float64))
    assert psnr(written, truth) > psnr(truth + 20 * normal(40, 50), truth) + 5
    np.save(tmp_path / "small.npy", waves(8, 9).numpy())  # smaller than a window of SSIM, and equal to its truth
    small = [*verb[:2], str(tmp_path / "small.npy"), "--sigma", "20", "--json", "--out", str(tmp_path / "small.png")]
    assert cli.main([*small, "--truth", str(tmp_path / "small.npy")]) == 0
    told = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert told["psnr_before"] is None
    assert "ssim" not in told
    assert cli.main([*verb[:3], "--sigma", "0", "--out", str(tmp_path / "x.png")]) == 2
    assert "positive sigma" in capsys.readouterr().err
