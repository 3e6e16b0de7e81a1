"""New rows meet a fit by the names of their columns and classes and under its transform, and what leaves it has the units of
the source."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.datasets import load_iris, load_wine

import ppl_vae as pv
from ppl_vae import cli
from ppl_vae.data import Split, Transform
from ppl_vae.data.seeds import seeded_generator
from ppl_vae.types import FitWarning
from tests.table import rows

NAMES = ("a", "b", "c", "d")
TINY = pv.MLP(hidden=(5,))


def table(n: int = 300, seed: int = 0) -> np.ndarray:
    """Columns of different places and sizes, two of which go together."""
    z = np.random.default_rng(seed).normal(size=(n, 4))
    z[:, 1] += z[:, 0]
    return z * [1, 0.1, 3, 0.5] + [0, 10, -50, 400]


def write(path: Path, names: tuple[str, ...], x: np.ndarray, labels: np.ndarray | None = None) -> str:
    """A csv file of columns a, b, c, d and whatever else, in the order of the names."""
    place = {name: NAMES.index(name) if name in NAMES else 0 for name in names}
    with path.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow([*names, *(["species"] if labels is not None else [])])
        for i, row in enumerate(x):
            lines.writerow([*(row[place[name]] for name in names), *([labels[i]] if labels is not None else [])])
    return str(path)


def factors(data: pv.Data) -> pv.inference.Fit:
    return pv.fit(pv.FactorAnalysis(latent_dim=1), data, method=pv.EM())


def exact(fit: pv.inference.Fit, x: np.ndarray) -> float:
    """The mean log-density of rows in their own units under a factor analysis of scaled data."""
    with torch.no_grad():
        model = fit.pair.model
        normal = model.decode(torch.zeros(1, *model.latent_shape))
        loadings = model.decoder.layers.weight.double().numpy()
        loc, noise = normal.mean[0].double().numpy(), normal.variance[0].double().numpy()
    at, scale = (np.broadcast_to(value.double().numpy(), loc.shape) for value in (fit.transform.loc, fit.transform.scale))
    covariance = (loadings @ loadings.T + np.diag(noise)) * np.outer(scale, scale)
    return float(stats.multivariate_normal(loc * scale + at, covariance).logpdf(x).mean())


def log_likelihood(fit: pv.inference.Fit, data: pv.Data | pv.Split | torch.Tensor) -> float:
    return fit.evaluate(data)["log_likelihood"]


# --- transforms -----------------------------------------------------------------------------------------------------------


def test_rows_are_scored_under_the_fits_own_moments_whatever_they_were_scaled_by() -> None:
    wine = load_wine().data
    held = wine[::3]
    data = pv.load_data(np.delete(wine, np.s_[::3], 0), scale="standardize")
    fit = pv.fit(pv.FactorAnalysis(latent_dim=2), data, method=pv.EM())
    truth = exact(fit, held)
    whole = {"valid": 0.0, "test": 0.0}
    for scale in ("standardize", "none", "unit"):
        split = pv.load_data(held, scale=scale, **whole).train
        assert log_likelihood(fit, split) == pytest.approx(truth, abs=1e-3), scale
        torch.testing.assert_close(fit.encode(split), fit.encode(torch.tensor(held)))
        torch.testing.assert_close(fit.reconstruct(split), fit.reconstruct(torch.tensor(held)))
    assert log_likelihood(fit, torch.tensor(held)) == pytest.approx(truth, abs=1e-3)
    assert log_likelihood(fit, pv.load_data(held * 2, scale="standardize", **whole).train) == pytest.approx(
        exact(fit, held * 2), rel=1e-4
    )


def test_rows_that_went_through_the_transform_say_so() -> None:
    fit = factors(pv.load_data(table(), scale="standardize"))
    raw = torch.tensor(table(50, seed=1))
    seen = fit.seen(raw)
    applied = pv.Split(seen, None, fit.transform.applied())
    assert torch.equal(fit.seen(applied), seen)
    assert log_likelihood(fit, applied) == log_likelihood(fit, raw)
    other = pv.Split(seen, None, pv.Transform((4,), 1.0, 2.0).applied())
    with pytest.raises(ValueError, match="went through another: give them in the units of their source"):
        fit.evaluate(other)


def test_what_leaves_a_fit_has_the_units_of_the_source() -> None:
    raw = torch.tensor(table(2000))
    fit = factors(pv.load_data(raw, scale="standardize"))
    new = fit.sample(4000)
    torch.testing.assert_close(new.std(0).double(), raw.std(0), rtol=0.05, atol=0)
    torch.testing.assert_close(new.mean(0).double(), raw.mean(0), rtol=0.02, atol=0.1)
    torch.testing.assert_close(fit.seen(new), fit.sample(4000, seen=True), rtol=1e-4, atol=1e-3)
    back, z = fit.reconstruct(raw), fit.encode(raw)
    torch.testing.assert_close(back, fit.decode(z))
    torch.testing.assert_close(back, fit.transform.inverse(fit.reconstruct(raw, seen=True)))
    assert (back - raw)[:, 2].std() < 3.2  # a column that no factor tells: its own deviation, about its own mean


def test_draws_are_what_sample_gives() -> None:
    iris = load_iris().data
    fit = pv.fit(pv.GMM(components=1), pv.load_data(iris, valid=0.0, test=0.0), method=pv.EM())
    assert iris.std(0)[0] == pytest.approx(0.83, abs=0.005)
    np.testing.assert_allclose(fit.sample(4000).std(0), iris.std(0), rtol=0.05)
    means = fit.sample(100, means=True)
    assert means.std(0).max() < 1e-3
    for draws in (True, False):
        with pytest.warns(FutureWarning, match="gives draws unless it is told means=True"):
            assert torch.equal(fit.sample(100, draws=draws), fit.sample(100, means=not draws))


def dequantized(scale: str, **options: object) -> tuple[pv.Data, pv.inference.Fit]:
    levels = torch.randint(3, 13, (200, 6), generator=torch.Generator().manual_seed(0)).float()
    data = pv.load_data(levels, dequantize=True, scale=scale, **options)
    likelihood = pv.LogitNormal() if scale == "unit" else pv.Gaussian(scale="per_feature")
    model = pv.VAE(latent_dim=1, likelihood=likelihood, decoder=TINY)
    return data, pv.fit(model, data, guide=pv.AmortizedNormal(encoder=TINY), method=pv.SVI(epochs=100, learning_rate=0.02))


@pytest.mark.parametrize("scale", ["unit", "standardize"])
def test_draws_of_dequantized_data_are_levels_and_means_are_theirs(scale: str) -> None:
    data, fit = dequantized(scale)
    new, raw = fit.sample(3000), data.test.x.floor()
    assert torch.equal(new, new.floor())
    assert new.mean().item() == pytest.approx(7.5, abs=0.3)
    assert fit.reconstruct(raw).mean().item() == pytest.approx(7.5, abs=0.5 if scale == "standardize" else 1.5)
    if scale == "unit":
        assert new.min() >= 3
        assert new.max() <= 12
    # whole numbers get their noise once, by the seed; rows with noise keep theirs
    assert fit.evaluate(raw) == fit.evaluate(raw)
    assert fit.evaluate(raw)["elbo"] == pytest.approx(fit.evaluate(data.test)["elbo"], abs=0.5)
    again = pv.load_data(raw, scale="none", valid=0.0, test=0.0).train
    assert fit.evaluate(again) == fit.evaluate(raw)
    with pytest.raises(ValueError, match="expected whole numbers in the units of the source"):
        fit.evaluate(raw + 0.5)


def test_noise_drawn_under_another_scaling_is_kept_or_taken_off() -> None:
    data, fit = dequantized("standardize")
    noisy = pv.load_data(data.test.x.floor(), dequantize=True, scale="unit", valid=0.0, test=0.5).test
    torch.testing.assert_close(fit.seen(noisy), fit.transform.affine(noisy.x))
    plain = factors(pv.load_data(data.train.x, scale="standardize"))
    torch.testing.assert_close(plain.seen(noisy), plain.transform(noisy.x.floor()))


@pytest.mark.filterwarnings("ignore:the fit ends at an ELBO:UserWarning")
def test_patterns_are_drawn_under_the_fits_scaling_or_refused() -> None:
    gray = torch.randint(17, (60, 1, 3, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    gray[0, 0, 0, 0], gray[0, 0, 0, 1] = 0, 255
    data = pv.load_data(gray, binarize="dynamic")
    model, guide = pv.VAE(latent_dim=2, decoder=TINY), pv.AmortizedNormal(encoder=TINY)
    fit = pv.fit(model, data, guide=guide, method=pv.SVI(epochs=1))
    drawn = fit.seen(data.test)
    assert torch.equal(fit.seen(drawn), drawn)  # zeros and ones are patterns already
    assert fit.evaluate(drawn) == fit.evaluate(data.test)
    assert set(fit.sample(9).unique().tolist()) <= {0.0, 1.0}
    raw = fit.seen(gray)
    assert torch.equal(fit.seen(gray), raw)
    assert 0 < raw.mean() < 0.2
    other = pv.load_data(gray.float(), scale="unit", binarize="dynamic").test  # another range, another probability
    with pytest.raises(ValueError, match="drawn from them under another scaling: load them with binarize='none'"):
        fit.evaluate(other)
    levels = pv.fit(pv.VAE(latent_dim=2, decoder=TINY, likelihood=pv.Gaussian()), pv.load_data(gray), method=pv.SVI(epochs=1))
    with pytest.raises(ValueError, match="drawn from them under another scaling"):
        levels.evaluate(data.test)


@pytest.mark.filterwarnings("ignore:the fit ends at an ELBO:UserWarning")
def test_black_and_white_images_are_so_to_a_fit_of_gray_ones() -> None:
    gray = torch.randint(256, (60, 1, 3, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    white = (gray > 127).to(torch.uint8) * 255
    model = pv.VAE(latent_dim=2, decoder=TINY, likelihood=pv.Gaussian())
    for scale in ("unit", "standardize", "none"):
        fit = pv.fit(model, pv.load_data(gray, scale=scale), method=pv.SVI(epochs=1))
        split = pv.load_data(white, valid=0.0, test=0.0).train
        assert split.x.max() == 1
        torch.testing.assert_close(fit.seen(split), fit.seen(white))
    unit = pv.fit(model, pv.load_data(gray), method=pv.SVI(epochs=1))
    with pytest.warns(FitWarning, match="give rows that were scaled already as a split under"):
        unit.encode(gray / 255)


def test_levels_given_to_a_fit_of_black_and_white_images_are_told_how_these_are_held() -> None:
    levels = 255 * torch.randint(2, (60, 1, 3, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    fit = pv.fit(pv.VAE(latent_dim=2, decoder=TINY), pv.load_data(levels), method=pv.SVI(epochs=1))
    with pytest.raises(ValueError, match=r"got 0 to 255: give zeros and ones \(divided by 255\), as black and white"):
        fit.evaluate(levels)
    assert fit.evaluate(levels / 255)["n"] == 60


def test_rows_of_a_source_take_its_declaration() -> None:
    fit = pv.fit(pv.VAE(latent_dim=2, decoder=TINY), "digits", method=pv.SVI(epochs=1))
    with pytest.raises(ValueError, match=r"declaration such as DataSource\(source='new.csv'\), got str: give one, or load"):
        fit.rows("digits", "test")


def test_streams_and_frozen_splits_meet_it_alike(tmp_path: Path) -> None:
    fit = factors(pv.load_data(table(), scale="standardize"))
    new = table(80, seed=1).astype(np.float32)
    np.save(tmp_path / "new.npy", new)
    streamed = pv.load_data(str(tmp_path / "new.npy"), stream=1, scale="unit", valid=0.0, test=0.0).train
    assert log_likelihood(fit, streamed) == pytest.approx(exact(fit, new), abs=1e-4)
    frozen = streamed.fixed(seeded_generator(0, 1))
    assert log_likelihood(fit, frozen[:20]) == pytest.approx(exact(fit, new[:20]), abs=1e-4)


# --- columns --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def by_column(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pv.inference.Fit]:
    folder = tmp_path_factory.mktemp("columns")
    data = pv.load_data(write(folder / "train.csv", NAMES, table()), scale="standardize")
    fit = factors(data)
    pv.save_run(fit, data, folder / "run")
    return folder, fit


def test_columns_are_matched_by_name(by_column: tuple[Path, pv.inference.Fit]) -> None:
    folder, fit = by_column
    assert fit.spec.columns == NAMES
    loaded = pv.load_run(folder / "run")
    assert loaded.spec.columns == NAMES
    new, order = table(100, seed=1), ("c", "a", "d", "b")
    truth = exact(fit, new)
    path = write(folder / "permuted.csv", order, new)
    np.savez(folder / "permuted.npz", **{name: new[:, NAMES.index(name)] for name in order})
    from pyarrow import parquet
    from pyarrow import table as arrow

    parquet.write_table(arrow({name: new[:, NAMES.index(name)] for name in order}), folder / "permuted.parquet")
    for one in (fit, loaded):
        for file in (path, str(folder / "permuted.npz"), str(folder / "permuted.parquet")):
            split = pv.load_data(file, scale="standardize", valid=0.0, test=0.0).train
            assert split.columns == order
            assert log_likelihood(one, split) == pytest.approx(truth, abs=1e-4)
            torch.testing.assert_close(one.encode(split), one.encode(torch.tensor(new)), rtol=1e-4, atol=1e-4)
            assert log_likelihood(one, one.rows(pv.DataSource(source=file), "all")) == pytest.approx(truth, abs=1e-4)


def test_the_command_line_matches_columns_and_writes_their_names(
    by_column: tuple[Path, pv.inference.Fit], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, fit = by_column
    new = table(100, seed=1)
    path = write(folder / "asked.csv", ("c", "a", "d", "b"), new)
    assert cli.main(["evaluate", str(folder / "run"), "--data", path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["all"]["log_likelihood"] == pytest.approx(exact(fit, new), abs=1e-4)
    assert cli.main(["sample", str(folder / "run"), "--n", "2000", "--out", str(folder / "new.csv")]) == 0
    with (folder / "new.csv").open() as file:
        head, *lines = csv.reader(file)
    assert tuple(head) == NAMES
    np.testing.assert_allclose(np.array(lines, float).std(0), table(2000).std(0), rtol=0.15)
    np.testing.assert_allclose(np.array(lines, float), fit.sample(2000).numpy(), rtol=1e-6)
    assert cli.main(["encode", str(folder / "run"), "--data", path, "--out", str(folder / "codes.csv")]) == 0
    codes = np.genfromtxt(folder / "codes.csv", names=True)
    assert codes.dtype.names == ("z1",)
    np.testing.assert_allclose(codes["z1"], fit.encode(torch.tensor(new))[:, 0], rtol=1e-3, atol=1e-4)


def test_missing_columns_are_named_and_extra_ones_left_out(by_column: tuple[Path, pv.inference.Fit]) -> None:
    folder, fit = by_column
    new = table(50, seed=1)
    lacking = pv.load_data(write(folder / "lacking.csv", ("d", "x", "a", "y"), new))
    with pytest.raises(ValueError, match="expected the columns a, b, c, d, got d, x, a, y: b, c missing, x, y not known"):
        fit.evaluate(lacking)
    more = pv.load_data(write(folder / "more.csv", ("d", "x", "c", "b", "a"), new), valid=0.0, test=0.0).train
    with pytest.warns(FitWarning, match="columns that the fit does not know are left out: x"):
        assert log_likelihood(fit, more) == pytest.approx(exact(fit, new), abs=1e-4)
    twice = Split(torch.from_numpy(new), None, Transform((4,)), columns=("a", "a", "c", "d"))
    with pytest.raises(ValueError, match="expected columns of different names to match them by, got a twice"):
        fit.evaluate(twice)


def test_columns_without_names_on_one_side_are_remarked_on(by_column: tuple[Path, pv.inference.Fit], tmp_path: Path) -> None:
    fit = by_column[1]
    new = table(50, seed=1)
    with pytest.warns(FitWarning, match="these data have no names of columns: they are taken in their order, as a, b, c, d"):
        assert log_likelihood(fit, pv.load_data(new, valid=0.0, test=0.0).train) == pytest.approx(exact(fit, new), abs=1e-4)
    unnamed = factors(pv.load_data(table(), scale="standardize"))
    split = pv.load_data(write(tmp_path / "named.csv", NAMES, new), valid=0.0, test=0.0).train
    with pytest.warns(FitWarning, match="the fit knows no names of its columns: they are taken in their order, as a, b, c, d"):
        assert log_likelihood(unnamed, split) == pytest.approx(exact(unnamed, new), abs=1e-4)


def test_runs_of_before_columns_had_names_are_read(by_column: tuple[Path, pv.inference.Fit]) -> None:
    folder, fit = by_column
    described = json.loads((folder / "run" / "data.json").read_text())
    del described["spec"]["columns"], described["spec"]["table"]
    (folder / "older").mkdir()
    for file in (folder / "run").iterdir():
        if file.is_file():
            (folder / "older" / file.name).write_bytes(file.read_bytes())
    (folder / "older" / "data.json").write_text(json.dumps(described))
    older = pv.load_run(folder / "older")
    assert older.spec.columns == ()
    assert log_likelihood(older, torch.tensor(table())) == log_likelihood(fit, torch.tensor(table()))


# --- classes --------------------------------------------------------------------------------------------------------------

RNG = np.random.default_rng(1)
LETTERS = np.repeat(["a", "b", "c"], 100)
CLUSTERS = RNG.normal(size=(300, 4)) + np.repeat([[-5.0], [0.0], [5.0]], 100, 0)


def conditional(y: np.ndarray, epochs: int = 40) -> pv.inference.Fit:
    model = pv.CVAE(latent_dim=1, likelihood=pv.Gaussian(), decoder=pv.Linear())
    guide = pv.AmortizedNormal(encoder=TINY)
    return pv.fit(model, pv.load_data(CLUSTERS, y=y), guide=guide, method=pv.SVI(epochs=epochs, learning_rate=0.05))


@pytest.fixture(scope="module")
def lettered() -> pv.inference.Fit:
    return conditional(LETTERS)


@pytest.fixture(scope="module")
def counted() -> pv.inference.Fit:
    return conditional(np.repeat([1, 2, 3], 100))


def alone(letter: str) -> pv.Split:
    return pv.load_data(CLUSTERS[letter == LETTERS], y=LETTERS[letter == LETTERS], valid=0.0, test=0.0).train


def test_a_file_of_one_class_is_scored_as_that_class(lettered: pv.inference.Fit) -> None:
    x = torch.tensor(CLUSTERS[100:200])
    assert alone("b").classes == ("b",)
    assert lettered.evaluate(alone("b")) == lettered.evaluate(x, y="b") == lettered.evaluate(x, y=["b"] * 100)
    assert lettered.evaluate(alone("b"))["elbo"] > lettered.evaluate(x, y="a")["elbo"] + 2
    torch.testing.assert_close(lettered.encode(alone("b")), lettered.posterior(x, y="b").mean)
    torch.testing.assert_close(lettered.reconstruct(alone("c")), lettered.reconstruct(alone("c").x, y="c"))
    shuffled = pv.load_data(CLUSTERS[::-1].copy(), y=LETTERS[::-1].copy(), valid=0.0, test=0.0).train[:200]
    assert lettered.evaluate(shuffled)["elbo"] == pytest.approx(
        np.mean([lettered.evaluate(alone(letter))["elbo"] for letter in "cb"]),
        abs=0.3,  # other draws
    )


def test_a_class_that_the_fit_never_met_is_refused_by_name(lettered: pv.inference.Fit) -> None:
    for names in (["d"] * 100, ["a"] * 50 + ["e"] * 50):
        strange = pv.load_data(CLUSTERS[:100], y=np.array(names), valid=0.0, test=0.0).train
        for call in (lettered.evaluate, lettered.encode, lettered.reconstruct, lettered.latents, lettered.sample_quality):
            with pytest.raises(ValueError, match=f"expected labels of the classes a, b, c, got {names[-1]}"):
                call(strange)
    more = pv.Split(torch.tensor(CLUSTERS[:2]), torch.tensor([0, 3]), lettered.transform)
    with pytest.raises(ValueError, match="expected labels from 0 to 2, got 3"):
        lettered.evaluate(more)


def test_numbers_that_are_names_are_names(counted: pv.inference.Fit) -> None:
    assert counted.spec.classes == ("1", "2", "3")
    x = torch.tensor(CLUSTERS[100:200])
    by_data = pv.load_data(CLUSTERS[100:], y=np.repeat([2, 3], 100), valid=0.0, test=0.0).train[:100]
    for y in (2, "2", np.full(100, 2), torch.full((100,), 2), [2] * 100, np.int32(2)):
        assert counted.evaluate(x, y=y) == counted.evaluate(by_data)
    assert torch.equal(counted.sample(9, y=2), counted.sample(9, y="2"))
    assert counted.sample(99, y=3).mean() > 3 > 1.5 > counted.sample(99, y=2).mean() > -1.5
    assert torch.equal(counted.sample(9), counted.sample(9, y=[1, 2, 3] * 3))
    assert counted.by_class(50).mean((0, 2)).tolist() == sorted(counted.by_class(50).mean((0, 2)).tolist())
    for y in (0, [0, 1], 4, True, 1.0, "one"):
        with pytest.raises(ValueError, match="expected classes of 1, 2, 3, got"):
            counted.sample(2, y=y)


def test_numbers_are_places_where_no_class_is_named_by_one_and_refused_where_some_are(lettered: pv.inference.Fit) -> None:
    assert torch.equal(lettered.sample(9, y=1), lettered.sample(9, y="b"))
    with pytest.raises(ValueError, match="expected classes of a, b, c, or their numbers from 0, got 3"):
        lettered.sample(9, y=3)
    mixed = conditional(np.repeat(["1", "b", "c"], 100), epochs=1)
    assert mixed.sample(2, y="1").shape == (2, 4)
    with pytest.raises(ValueError, match="expected classes of 1, b, c as text, got 1"):
        mixed.sample(2, y=1)


def test_truths_are_names_too() -> None:
    fit = conditional(np.repeat([True, False, True], 100), epochs=1)
    assert fit.spec.classes == ("False", "True")
    assert torch.equal(fit.sample(9, y=True), fit.sample(9, y="True"))
    torch.testing.assert_close(fit.sample(9, y=np.array([True] * 9)), fit.sample(9, y=1))


def test_probes_match_classes_by_name(lettered: pv.inference.Fit) -> None:
    data = pv.load_data(CLUSTERS, y=LETTERS)
    model = pv.VAE(latent_dim=2, likelihood=pv.Gaussian(), decoder=TINY)
    fit = pv.fit(model, data, guide=pv.AmortizedNormal(encoder=TINY), method=pv.SVI(epochs=40, learning_rate=0.02))
    two = pv.load_data(CLUSTERS[100:], y=LETTERS[100:], valid=0.0, test=0.0).train
    assert fit.probe(data.train, two)["accuracy"] > 0.9
    with pytest.raises(ValueError, match="expected test data of at least 2 classes, got only 'b'"):
        fit.probe(data.train, alone("b"))
    strange = pv.load_data(CLUSTERS[:100], y=np.repeat(["a", "d"], 50), valid=0.0, test=0.0).train
    with pytest.raises(ValueError, match="expected labels of the classes a, b, c, got d"):
        fit.probe(data.train, strange)
    assert fit.evaluate(strange)["n"] == 100  # a model without labels scores any
    known = data.train[data.train.y < 2]
    with pytest.warns(FitWarning, match="classes without a row of training data, which the classifier cannot guess: c"):
        fit.probe(known, data.test)


def test_a_class_of_held_out_rows_alone_is_remarked_on() -> None:
    data = pv.load_data(CLUSTERS, y=LETTERS)
    kept = pv.Data(source=data.source, spec=data.spec, train=data.train[data.train.y != 2], valid=data.valid, test=data.test)
    model = pv.CVAE(latent_dim=1, likelihood=pv.Gaussian(), decoder=pv.Linear())
    with pytest.warns(FitWarning, match="learns nothing of classes without a row of training data, .*: c"):
        pv.fit(model, kept, method=pv.SVI(epochs=1))


def test_folders_of_images_have_the_classes_of_the_run(tmp_path: Path) -> None:
    from PIL import Image

    pixels = rows("unit_interval", 60).mul(255).to(torch.uint8)[:, 0].numpy()
    for i, image in enumerate(pixels):
        for root, names in (("three", ("cat", "dog", "owl")), ("one", ("dog",))):
            name = names[i % len(names)]
            (tmp_path / root / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(tmp_path / root / name / f"{i:02}.png")
    model = pv.CVAE(latent_dim=1, likelihood=pv.Gaussian(), decoder=TINY)
    fit = pv.fit(model, pv.load_data(tmp_path / "three"), method=pv.SVI(epochs=1))
    dogs = pv.load_data(tmp_path / "one", valid=0.0, test=0.0).train
    assert fit.evaluate(dogs) == fit.evaluate(dogs.x, y="dog")
    assert fit.rows(pv.DataSource(source=str(tmp_path / "one")), "all").y.unique().tolist() == [1]


def test_the_command_line_takes_rows_without_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "train.csv", NAMES, CLUSTERS, LETTERS)
    bare = write(tmp_path / "bare.csv", NAMES, CLUSTERS[100:200])
    data = pv.load_data(path, label="species")
    model = pv.CVAE(latent_dim=1, likelihood=pv.Gaussian(), decoder=pv.Linear())
    fit = pv.fit(model, data, method=pv.SVI(epochs=2))
    pv.save_run(fit, data, tmp_path / "run")
    codes = str(tmp_path / "codes.npz")

    def refused(*words: str) -> str:
        assert cli.main(["encode", str(tmp_path / "run"), "--data", bare, "--out", codes, *words]) == 2
        assert not Path(codes).exists()
        return capsys.readouterr().err

    assert "got 'species': name another with label (--label), or none" in refused()
    assert "rows without labels: name their column (label=..., --label)" in refused("--label", "none")
    assert "expected classes of a, b, c, or their numbers from 0, got d" in refused("--label", "none", "--y", "d")
    assert cli.main(["encode", str(tmp_path / "run"), "--data", bare, "--out", codes, "--label", "none", "--y", "b"]) == 0
    arrays = np.load(codes)
    assert arrays["classes"][arrays["y"]].tolist() == ["b"] * 100
    np.testing.assert_allclose(arrays["z"], fit.encode(torch.tensor(CLUSTERS[100:200]), y="b"), rtol=1e-5, atol=1e-6)
    np.savez(tmp_path / "columns.npz", **dict(zip(NAMES, CLUSTERS.T, strict=True)))
    assert cli.main(["encode", str(tmp_path / "run"), "--data", str(tmp_path / "columns.npz"), "--out", codes]) == 2
    assert "expected labels among the arrays a, b, c, d, got 'species': name another" in capsys.readouterr().err
    one = write(tmp_path / "one.csv", NAMES, CLUSTERS[100:200], LETTERS[100:200])
    assert cli.main(["evaluate", str(tmp_path / "run"), "--data", one, "--probe"]) == 2
    assert "expected test data of at least 2 classes, got only 'b'" in capsys.readouterr().err
    assert cli.main(["sample", str(tmp_path / "run"), "--n", "4", "--y", "c", "--out", str(tmp_path / "new.csv")]) == 0
    with (tmp_path / "new.csv").open() as file:
        head, *lines = csv.reader(file)
    assert head == [*NAMES, "species"]
    assert [line[-1] for line in lines] == ["c"] * 4


def test_data_frames_bring_the_names_of_their_columns() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(table(), columns=list(NAMES))
    fit = factors(pv.load_data(frame, scale="standardize"))
    assert fit.spec.columns == NAMES
    new = table(50, seed=1)
    permuted = pandas.DataFrame(new, columns=list(NAMES))[["d", "b", "a", "c"]]
    split = pv.load_data(permuted, valid=0.0, test=0.0).train
    assert log_likelihood(fit, split) == pytest.approx(exact(fit, new), abs=1e-4)
    numbered = pv.load_data(pandas.DataFrame(new), valid=0.0, test=0.0).train
    with pytest.warns(FitWarning, match="these data have no names of columns"):
        assert log_likelihood(fit, numbered) == log_likelihood(fit, split)


def test_a_warm_start_from_other_columns_is_refused() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(table(), columns=list(NAMES))
    start = factors(pv.load_data(frame, scale="standardize"))
    turned = pv.load_data(frame[["d", "b", "a", "c"]], scale="standardize")
    with pytest.raises(ValueError, match="columns of the earlier fit in their order: expected a, b, c, d, got d, b, a, c"):
        pv.fit(pv.FactorAnalysis(latent_dim=1), turned, method=pv.EM(), warm_start=start)
