"""Walks through the space of codes: along p(z), along single dimensions, along attributes, from the upper levels."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import ppl_vae as pv
from ppl_vae import plots
from ppl_vae.cli import main
from ppl_vae.evaluate.directions import direction_between, told_apart
from ppl_vae.evaluate.disentanglement import dci, mig, modularity, mutual_information
from ppl_vae.evaluate.paths import path_through
from ppl_vae.evaluate.quantiles import along, codes_of, scores_of
from ppl_vae.program.joint import Joint
from tests.plain_programs import N, conjugate
from tests.table import PRIORS, TINY

PAIRS = 40_000

SCORED = {name for name in PRIORS if name.startswith(("Standard", "Normal", "MultivariateNormal", "Laplace", "Logistic"))}
SCORED |= {"CouplingFlow", "AutoregressiveFlow", "SplineFlow", "LogNormal", "HalfNormal", "Uniform"}
"""The priors that say what their normal scores are."""


def of(model: pv.Model, data: Any, guide: pv.Guide | None = None, epochs: int = 1) -> pv.Fit:
    return pv.fit(model, data, guide=guide, method=pv.SVI(epochs=epochs, compile=False), device="cpu")


@pytest.fixture(scope="module")
def patterns(tmp_path_factory: pytest.TempPathFactory) -> pv.Data:
    """Two classes, upper and lower halves mostly filled."""
    rows = torch.rand(80, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    upper = torch.arange(80) % 2 == 0
    rows[upper, :, :2] += 0.5
    rows[~upper, :, 2:] += 0.5
    path = tmp_path_factory.mktemp("patterns") / "rows.npz"
    np.savez(path, x=(rows > 0.6).float().numpy(), y=np.where(upper, "upper", "lower"))
    return pv.load_data(path)


@pytest.fixture(scope="module")
def images(patterns: pv.Data) -> pv.Fit:
    return of(pv.VAE(latent_dim=3, decoder=TINY), patterns, pv.AmortizedNormal(encoder=TINY), epochs=5)


@pytest.fixture(scope="module")
def levels(patterns: pv.Data) -> pv.Fit:
    groups = (pv.Group(latent_dim=2, network=TINY), pv.Group(latent_dim=3, network=TINY))
    return of(pv.HierarchicalVAE(groups=groups, decoder=TINY), patterns, pv.TopDown(encoder=TINY))


@pytest.fixture(scope="module")
def linear() -> tuple[pv.Fit, pv.Data]:
    """Factor analysis of two classes, in units far from those that the model sees."""
    torch.manual_seed(0)
    y = torch.arange(200) % 2
    z = torch.randn(200, 2) + 2.0 * y[:, None]
    x = (z @ torch.tensor([[1.0, 2.0, 0.5, -1.0], [0.0, 1.0, 3.0, 1.0]]) + 0.5 * torch.randn(200, 4)) * 10 + 100
    data = pv.load_data(x, y=y.numpy(), scale="standardize", valid=0.0)
    return pv.fit(pv.FactorAnalysis(latent_dim=2), data, method=pv.EM(max_iterations=30), device="cpu"), data


# --- normal scores ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in PRIORS if "Vamp" not in name and "Exemplar" not in name])
def test_scores_of_a_prior_are_standard_normal_or_refused(name: str) -> None:
    """A density changes under the map to u by its Jacobian, so p(z) = Normal(u; 0, I) |du / dz| says that u is standard."""
    torch.manual_seed(0)
    prior = PRIORS[name].build((3,)).double()()
    z = prior.sample((5,))
    if name not in SCORED:
        with pytest.raises(ValueError, match=r"expected a prior with .* or a flow, got"):
            codes_of(prior, scores_of(prior, z))
        return
    u = scores_of(prior, z)
    torch.testing.assert_close(codes_of(prior, u), z, rtol=1e-6, atol=1e-7)
    if name == "LogisticNormal":  # whose three entries have two degrees of freedom
        return
    rows = torch.stack([torch.autograd.functional.jacobian(lambda point: scores_of(prior, point), each) for each in z])
    base = dist.Normal(torch.zeros_like(u), 1.0).to_event(1).log_prob(u)
    torch.testing.assert_close(prior.log_prob(z), base + rows.slogdet().logabsdet, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("t", [1, 2])
def test_along_p_of_z_codes_between_independent_draws_are_draws(t: int) -> None:
    """Each element of one long code is a pair of its own, and z1 hangs on z2."""
    torch.manual_seed(0)
    prior = Joint(
        {
            "z2": dist.Laplace(torch.zeros(PAIRS, dtype=torch.float64), 2.0).to_event(1),
            "z1": lambda z: dist.Normal(3.0 * z["z2"], 0.5).to_event(1),
        }
    )
    a, b = prior.sample(), prior.sample()
    found = path_through(prior, a, b, 5)
    z2, z1 = found["z2"][t], found["z1"][t]
    moments = {"mean": (z2.mean(), 0.0), "variance": (z2.var(), 8.0), "fourth": (z2.pow(4).mean(), 24 * 16.0)}
    rest = z1 - 3 * z2
    moments |= {"noise": (rest.var(), 0.25), "apart": ((rest * z2).mean(), 0.0)}
    spread = {"mean": 8.0, "variance": 5 * 64.0, "fourth": 40320 * 256.0, "noise": 2 * 0.0625, "apart": 2.0}
    for name, (value, expected) in moments.items():
        assert abs(float(value) - expected) < 4.5 * math.sqrt(spread[name] / PAIRS), name
    for end, place in ((a, 0), (b, -1)):
        assert all(torch.equal(found[name][place], end[name]) for name in found)


def test_along_one_dimension_those_below_keep_their_scores() -> None:
    prior = Joint(
        {"z2": dist.Normal(torch.zeros(2), 1.0).to_event(1), "z1": lambda z: dist.Normal(10 * z["z2"], 2.0).to_event(1)}
    )
    z = {"z2": torch.tensor([1.0, -1.0]), "z1": torch.tensor([14.0, -10.0])}
    levels = torch.tensor([0.5, 0.975])
    upper = along(prior, z, "z2", 0, levels)
    torch.testing.assert_close(upper["z2"], torch.tensor([[0.0, -1.0], [1.959964, -1.0]]))
    torch.testing.assert_close(upper["z1"], torch.tensor([[4.0, -10.0], [23.59964, -10.0]]))
    lower = along(prior, z, "z1", 1, levels)
    assert torch.equal(lower["z2"], z["z2"].expand(2, 2))
    torch.testing.assert_close(lower["z1"], torch.tensor([[14.0, -10.0], [14.0, -10.0 + 2 * 1.959964]]))


# --- traversals ------------------------------------------------------------------------------------------------------------


def test_a_traversal_goes_through_quantiles_and_its_kl_sum_to_the_kl(images: pv.Fit, patterns: pv.Data) -> None:
    found = images.traverse(patterns.train, steps=4, active=False)
    assert found.kl is not None
    assert sorted(found.dimensions) == ["z1", "z2", "z3"]
    assert found.kl.tolist() == sorted(found.kl.tolist(), reverse=True)
    assert float(found.kl.sum()) == pytest.approx(images.latents(patterns.train)["kl"], rel=1e-6)
    quantiles = torch.special.ndtri((torch.arange(4) + 0.5) / 4)
    for name, codes in zip(found.dimensions, found.codes, strict=True):
        place = int(name[1:]) - 1
        torch.testing.assert_close(codes[:, place], quantiles)
        assert not codes[:, [k for k in range(3) if k != place]].any()
    torch.testing.assert_close(found.decoded, images.decode(found.codes))
    around = images.traverse(patterns.train, around=patterns.test[0], steps=3, dimensions=["z2"])
    code = images.encode(patterns.test[:1])[0]
    torch.testing.assert_close(around.codes[0][:, [0, 2]], code[[0, 2]].expand(3, 2))
    same = images.traverse(patterns.train, around=code, codes=True, steps=3, dimensions=["z2"])
    assert torch.equal(same.codes, around.codes)
    assert str(around).startswith("z2 ")


def test_a_traversal_of_levels_names_them(levels: pv.Fit, patterns: pv.Data) -> None:
    found = levels.traverse(patterns.test, steps=3, active=False)
    assert found.kl is not None
    assert sorted(found.dimensions) == ["z1_1", "z1_2", "z1_3", "z2_1", "z2_2"]
    assert float(found.kl.sum()) == pytest.approx(levels.latents(patterns.test)["kl"], rel=1e-5)
    assert found.codes["z2"].shape == (5, 3, 2)
    assert found.decoded.shape == (5, 3, 1, 4, 4)
    fixed = found.codes["z2"][found.dimensions.index("z1_2")]
    assert not fixed.any()  # the centre of the upper group


# --- attributes ------------------------------------------------------------------------------------------------------------


def classes_of(split: pv.Split) -> tuple[pv.Split, pv.Split]:
    return split[split.y == 1], split[split.y == 0]


@pytest.mark.parametrize("by", ["means", "probe"])
def test_an_attribute_of_a_linear_model_is_a_formula(linear: tuple[pv.Fit, pv.Data], by: Any) -> None:
    fit, data = linear
    attribute = fit.attribute(*classes_of(data.train), test=classes_of(data.test), by=by)
    W, psi = fit.pair.model.loadings.double(), fit.pair.model.parameters_em.noise.detach()
    if by == "means":
        means = [fit.seen(part).double().mean(0) for part in classes_of(data.train)]
        inverse = torch.linalg.inv(torch.eye(2) + W.T @ (W / psi[:, None]))
        expected = inverse @ (W / psi[:, None]).T @ (means[0] - means[1])
        torch.testing.assert_close(attribute.direction.double(), expected, rtol=1e-4, atol=1e-5)
    change = (W @ attribute.direction.double()) * fit.transform.scale.double()
    torch.testing.assert_close(attribute.change.double(), change, rtol=1e-5, atol=1e-6)
    base = fit.reconstruct(data.test)
    moved = fit.resynthesize(data.test, attribute, [-1.0, 0.0, 2.5]).decoded
    for place, strength in enumerate((-1.0, 0.0, 2.5)):
        torch.testing.assert_close(moved[place], base + strength * attribute.change, rtol=1e-5, atol=1e-3)
    assert attribute.accuracy > 0.85
    assert attribute.n == tuple(len(part) for part in classes_of(data.test))


def test_how_well_a_direction_tells_apart_has_closed_forms() -> None:
    """Of two normals of one covariance d' = |L^-1 m|, and its middle leaves Phi(d' / 2) on either side."""
    torch.manual_seed(0)
    S = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
    m = torch.tensor([1.5, 0.0], dtype=torch.float64)
    normal = dist.MultivariateNormal(torch.zeros(2, dtype=torch.float64), S)
    train, test = ([normal.sample((4000,)) + m, normal.sample((4000,))] for _ in range(2))
    for by, best in (("means", 1.5), ("probe", math.sqrt(m @ torch.linalg.solve(S, m)))):
        direction = direction_between(*train, by=by)  # type: ignore[arg-type]
        held = told_apart(direction, (train[0].mean(0) + train[1].mean(0)) / 2, *test)
        assert held.separation == pytest.approx(best, abs=0.1)
        assert held.accuracy == pytest.approx(float(torch.special.ndtr(torch.tensor(best / 2))), abs=4 * held.accuracy_se)
    torch.testing.assert_close(direction @ (direction / direction.norm()), direction.norm())
    assert float(direction @ (train[0].mean(0) - train[1].mean(0))) == pytest.approx(float(direction @ direction))


def test_no_strength_gives_the_reconstruction_and_two_attributes_a_grid(images: pv.Fit, patterns: pv.Data) -> None:
    upper = images.attribute(*classes_of(patterns.train))
    rows = patterns.test[:3]
    codes, decoded = images.resynthesize(rows, upper, 0.0)
    assert torch.equal(decoded, images.reconstruct(rows))
    assert torch.equal(codes, images.encode(rows))
    other = images.attribute(*classes_of(patterns.train), by="probe")
    codes, decoded = images.resynthesize(rows, (upper, other), ([-1, 0, 1], [0, 2]))
    assert codes.shape == (3, 2, 3, 3)
    assert decoded.shape == (3, 2, 3, 1, 4, 4)
    torch.testing.assert_close(codes[2, 1], images.encode(rows) + upper.direction + 2 * other.direction)
    torch.testing.assert_close(decoded[2, 1], images.decode(codes[2, 1]))
    assert images.resynthesize(rows, (upper, other), (0.5, [0, 2])).decoded.shape == (2, 3, 1, 4, 4)


def test_attributes_of_several_levels_and_of_texts(levels: pv.Fit, patterns: pv.Data) -> None:
    upper = levels.attribute(*classes_of(patterns.train))
    assert {name: tuple(part.shape) for name, part in upper.direction.items()} == {"z2": (2,), "z1": (3,)}
    assert torch.equal(levels.resynthesize(patterns.test, upper, 0.0).decoded, levels.reconstruct(patterns.test))
    texts = ["to be", "or not to be", "that is the question", "to suffer"] * 5
    model = pv.VAE(latent_dim=2, decoder=pv.LSTM(hidden=4), likelihood=pv.Tokens())
    fit = of(model, pv.load_data(texts, tokens="characters"), pv.AmortizedNormal(encoder=pv.LSTM(hidden=4)))
    longer = fit.attribute(["or not to be", "that is the question"] * 4, ["to be", "to suffer"] * 4)
    decoded = fit.resynthesize(texts[:2], longer, [0.0, 1.0]).decoded
    assert decoded[0] == fit.reconstruct(texts[:2])
    walked = fit.traverse(texts, steps=3, active=False).decoded
    assert [len(each) for each in walked] == [3, 3]
    assert all(isinstance(text, str) for each in walked for text in each)


# --- levels ----------------------------------------------------------------------------------------------------------------


def test_all_levels_give_the_reconstruction_and_fewer_those_of_their_codes(levels: pv.Fit, patterns: pv.Data) -> None:
    assert torch.equal(levels.reconstruct(patterns.test, from_levels=2), levels.reconstruct(patterns.test))
    upper = levels.decode({"z2": levels.encode(patterns.test)["z2"]})
    torch.testing.assert_close(levels.reconstruct(patterns.test, from_levels=1), upper)
    for wrong in (0, 3):
        with pytest.raises(ValueError, match=rf"expected 1 to 2 levels \(z2, z1\), got {wrong}"):
            levels.reconstruct(patterns.test, from_levels=wrong)


# --- disentanglement -------------------------------------------------------------------------------------------------------


def test_scores_of_known_codes() -> None:
    factors = torch.cartesian_prod(*(torch.arange(4) for _ in range(3))).repeat(4, 1)
    information = mutual_information(factors.float(), factors)
    torch.testing.assert_close(information, math.log(4) * torch.eye(3, dtype=torch.float64))
    assert mig(information, factors) == pytest.approx(1.0)
    assert modularity(information) == pytest.approx(1.0)
    assert dci(factors.float(), factors) == pytest.approx(
        dict.fromkeys(("disentanglement", "completeness", "informativeness"), 1.0)
    )
    twice = torch.cat([factors, factors[:, :1]], 1).float()
    assert mig(mutual_information(twice, factors), factors) == pytest.approx(2 / 3)  # of the first factor no dimension leads
    found = dci(twice, factors)
    assert found["disentanglement"] == pytest.approx(1.0)
    assert found["completeness"] < 0.95
    turned = torch.stack([factors[:, 0] + factors[:, 1], factors[:, 0] - factors[:, 1]], 1).float()
    information = mutual_information(turned, factors[:, :2])
    assert mig(information, factors[:, :2]) == pytest.approx(0.0)  # each dimension tells as much of either
    assert modularity(information) == pytest.approx(0.0)


def test_each_sprite_has_factors_of_its_own() -> None:
    names = ("shape", "scale", "orientation", "position_x", "position_y")
    data = pv.load_data("sprites", fields=names, valid=0.0, test=0.2)
    assert str(data) == "Data(sprites: 3072 train, 0 valid, 768 test; binary (1, 32, 32))"
    both = torch.cat([data.train.x, data.test.x]).flatten(1)
    assert len(both.unique(dim=0)) == 3840
    factors = [torch.cat([part.fields.columns[name] for part in (data.train, data.test)]) for name in names]
    assert [len(each.unique()) for each in factors] == [3, 4, 5, 8, 8]
    middle = (both.float() @ (torch.arange(1024) % 32 + 0.5)) / both.sum(1)
    across = torch.stack([middle[(factors[0] == 0) & (factors[3] == place)].mean() for place in range(8)])  # of squares
    torch.testing.assert_close(across, 16 + 16 * torch.linspace(-0.45, 0.45, 8), atol=0.1, rtol=0)
    assert data.source == pv.DataSource.from_yaml(data.source.to_yaml())
    few = pv.load_data("sprites", valid=0.0, test=0.98)
    fit = of(pv.VAE(latent_dim=2, decoder=TINY), few, pv.AmortizedNormal(encoder=TINY))
    some = data.test[torch.arange(0, 768, 16)]
    values = torch.stack([some.fields.columns[name] for name in names], 1)
    scores = fit.disentanglement(some)
    assert scores["mig"] == mig(mutual_information(fit.encode(some), values), values)
    assert scores["disentanglement"] == dci(fit.encode(some), values)["disentanglement"]
    with pytest.raises(ValueError, match=r"expected fields among shape, scale, .*, got colour"):
        pv.load_data("sprites", fields=("colour",))
    with pytest.raises(ValueError, match="at least 2 factors, as fields of whole numbers beside x, got 0"):
        fit.disentanglement(few.test)


# --- what is refused -------------------------------------------------------------------------------------------------------


def test_what_cannot_be_walked_is_refused(images: pv.Fit, levels: pv.Fit, patterns: pv.Data) -> None:
    mixture = of(pv.VAE(latent_dim=2, decoder=TINY, prior=pv.GaussianMixture(components=2)), patterns)
    with pytest.raises(ValueError, match="got Mixture: walk on the line or on an arc"):
        mixture.interpolate(patterns.test[0], patterns.test[1], path="prior")
    with pytest.raises(ValueError, match="known dimension by dimension, such as StandardNormal, got Mixture"):
        mixture.traverse(patterns.test, around=patterns.test[0], dimensions=["z1"])
    for options, told in (
        ({"steps": 1}, "at least 2 steps"),
        ({"dimensions": ["z9"]}, "dimensions among z1, z2, z3, got z9"),
        ({"dimensions": []}, "at least one, got none"),
        ({"codes": True}, "expected a code to walk around"),
        ({"around": patterns.test[:2]}, "one datum at each end, got 2"),
    ):
        with pytest.raises(ValueError, match=told):
            images.traverse(patterns.test, **options)  # type: ignore[arg-type]
    upper, lower = classes_of(patterns.train)
    attribute = images.attribute(upper, lower)
    for strengths, told in (
        (math.nan, "finite strengths"),
        ("much", "strengths as numbers"),
        ([], "finite strengths, at least one"),
        ([[1.0]], "finite strengths"),
    ):
        with pytest.raises(ValueError, match=told):
            images.resynthesize(patterns.test, attribute, strengths)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="for each of 2 attributes, got 1"):
        images.resynthesize(patterns.test, [attribute, attribute], 1.0)
    with pytest.raises(ValueError, match="expected an attribute of this fit"):
        levels.resynthesize(patterns.test, attribute, 1.0)
    with pytest.raises(ValueError, match="at least 4 data of each kind, got 1"):
        images.attribute(upper[:1], lower)
    with pytest.raises(ValueError, match="codes of one mean"):
        images.attribute(upper, upper, test=(upper, lower))
    with pytest.raises(ValueError, match="a direction by means, probe, got 'guess'"):
        images.attribute(upper, lower, by="guess")  # type: ignore[arg-type]
    programs = conjugate()
    plain = pv.fit(programs.model, torch.randn(N, 2), guide=programs.guide, method=pv.SVI(epochs=1, compile=False))
    for walk in (lambda x: plain.traverse(x), lambda x: plain.interpolate(x[0], x[1], path="prior")):
        with pytest.raises(ValueError, match=r"expected a model that says p\(z\), got programs that only run"):
            walk(torch.randn(5, 2))
    silent = of(pv.VAE(latent_dim=2, decoder=TINY), patterns)
    for parameter in silent.pair.guide.parameters():
        parameter.data.zero_()
    with pytest.raises(ValueError, match=r"collapsed; active=False \(--every\) walks along all"):
        silent.traverse(patterns.test)
    bounded = of(pv.VAE(latent_dim=2, decoder=TINY, prior=pv.Uniform()), patterns)
    with pytest.raises(ValueError, match="whose values a direction leaves"):
        bounded.attribute(upper, lower)
    walked = bounded.interpolate(patterns.test[0], patterns.test[1], path="prior").codes
    assert float(walked.abs().max()) <= 1


# --- commands --------------------------------------------------------------------------------------------------------------


def test_the_verbs_print_numbers_and_write_pictures(
    images: pv.Fit, patterns: pv.Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run, picture = patterns, str(tmp_path / "run"), tmp_path / "grid.png"
    pv.save_run(images, data, run)
    assert main(["traverse", run, "--every", "--steps", "3", "--out", str(tmp_path / "t.npz"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    found = images.traverse(data.test, steps=3, active=False)
    assert told["dimensions"] == list(found.dimensions)
    np.testing.assert_allclose(np.load(tmp_path / "t.npz")["x"], found.decoded.numpy(), atol=1e-6)
    words = ["attribute", run, "--positive", "upper", "--negative", "lower", "--strengths", "0", "1"]
    assert main([*words, "--rows", "0", "2", "--out", str(tmp_path / "a.npz"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    expected = images.attribute(*classes_of(data.train), test=classes_of(data.test))
    assert told["attributes"][0]["accuracy"] == pytest.approx(expected.accuracy)
    arrays = np.load(tmp_path / "a.npz")
    assert arrays["x"].shape == (2, 2, 1, 4, 4)
    rows = data.test[torch.tensor([0, 2])]
    np.testing.assert_allclose(arrays["x"][:, 0], images.reconstruct(rows).numpy(), atol=1e-6)
    assert main([*words, "--second", "lower", "--out", str(picture)]) == 0
    assert picture.stat().st_size > 1000
    assert "upper against lower: accuracy" in capsys.readouterr().out
    assert main(["attribute", run, "--positive", "7"]) == 2
    assert "expected classes of lower, upper" in capsys.readouterr().err


def test_walks_are_images_or_heat_maps() -> None:
    for x in (torch.rand(2, 3, 1, 4, 4), torch.rand(2, 3, 5)):
        figure = plots.walks(x, ["one", "two"], ["a", "b", "c"], kind="unit_interval", title="walks")
        assert len(figure.axes) >= 1
    with pytest.raises(ValueError, match="expected \\(1, steps, \\*event\\), got"):
        plots.walks(Tensor(2, 3, 5), ["one"], kind="real")
