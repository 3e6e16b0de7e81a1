"""Conditional models: labels and known parts reach prior, decoder and guide, and only what is not known is scored."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch

import ppl_vae as pv
from ppl_vae import cli, plots
from ppl_vae.evaluate import elbo_terms
from ppl_vae.inference.training.optimizers import OPTIMIZERS
from ppl_vae.inference.training.step import WORTH_RECORDING, Step
from ppl_vae.models.conditions.completed import Completed
from ppl_vae.types import FitWarning
from tests.table import EVENT, GUIDES, LATENT, PRIORS, ROWS, TINY, guide_for, kind_for, rows

CLASSES = ("cat", "dog", "owl")
CONDITIONS: dict[str, pv.Condition] = {"labels": pv.Labels(), "quadrants": pv.Quadrants(observed=2)}


def cvae(**changes: Any) -> pv.CVAE:
    """A small CVAE with the named parts replaced."""
    model = pv.CVAE(latent_dim=LATENT, prior=pv.ConditionalNormal(network=TINY), decoder=TINY)
    return dataclasses.replace(model, **changes)


def built(model: pv.CVAE, guide: pv.Guide | None = None) -> tuple[pv.Pair, tuple[torch.Tensor, ...]]:
    """A pair and a batch for it."""
    kind = kind_for(model)
    spec = pv.DataSpec(event_shape=EVENT, kind=kind, size=10 * ROWS, classes=CLASSES)
    torch.manual_seed(0)
    pair = pv.build(model, guide or guide_for(model), spec)
    x = rows(kind)
    return pair, (x, torch.arange(ROWS) % 3) if pair.model.labelled else (x,)


def stripes(n: int = 240) -> pv.Data:
    """Binary 4 x 4 images whose class is the row that is set, with a little noise; all labelled."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(3, (n,), generator=generator)
    x = torch.zeros(n, 1, 4, 4)
    x[torch.arange(n), 0, y] = 1.0
    flips = torch.rand(x.shape, generator=generator) < 0.02
    names = np.array(CLASSES)[y.numpy()]
    return pv.load_data((x.bool() ^ flips).float().numpy(), y=names, valid=0.1, test=0.2)


def trained(model: pv.Model, data: pv.Data, **options: Any) -> pv.Fit:
    method = pv.SVI(epochs=60, batch_size=32, learning_rate=1e-2, **options)
    return pv.fit(model, data, guide=pv.AmortizedNormal(encoder=TINY), method=method)


@pytest.mark.parametrize("condition", CONDITIONS.values(), ids=CONDITIONS)
def test_the_decoder_starts_where_the_data_are(condition: pv.Condition) -> None:
    x = rows("binary")[:1].expand(60, *EVENT)  # all alike, so that a start at the data explains them
    data = pv.load_data(x.numpy(), y=np.array(CLASSES)[np.arange(60) % 3], valid=0.0, test=0.0)
    fit = pv.fit(cvae(condition=condition), data, method=pv.SVI(epochs=1, learning_rate=1e-30))
    assert fit.evaluate(data.train)["reconstruction"] > -0.2 * math.log(2) * math.prod(EVENT)


@pytest.mark.parametrize("condition", CONDITIONS.values(), ids=CONDITIONS)
@pytest.mark.parametrize("guide", GUIDES.values(), ids=GUIDES)
def test_every_amortized_guide_serves_a_conditional_model(guide: pv.Guide, condition: pv.Condition) -> None:
    for prior in (pv.ConditionalNormal(network=TINY), pv.OneHotCategorical(), pv.Dirichlet(), pv.ProjectedNormal()):
        model = cvae(condition=condition, prior=prior)
        try:
            pair, batch = built(model, guide)
        except ValueError:
            continue
        loss = pv.ELBO(particles=3).build(pair)(*batch)[0]
        loss.backward()
        without = [name for name, parameter in pair.named_parameters() if parameter.grad is None or not parameter.grad.any()]
        assert without == []
        assert elbo_terms(pair, batch, samples=2).elbo.shape == (ROWS,)
        with torch.no_grad():
            assert pair.guide.posterior(*batch).batch_shape == (ROWS,)
        return
    assert type(guide) in (pv.ExactPosterior, pv.BayesianGuide)


@pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS)
def test_every_prior_serves_a_conditional_model(prior: pv.Prior) -> None:
    latent_dim = 2 * LATENT if isinstance(prior, pv.FactorizedCategorical) else LATENT
    model = cvae(prior=prior, latent_dim=latent_dim)
    if isinstance(prior, (pv.VampPrior, pv.ExemplarPrior)):
        with pytest.raises(ValueError, match=r"made of posteriors .* need labels of their own: use ConditionalNormal"):
            built(model)
        model = dataclasses.replace(model, condition=pv.Quadrants())
    pair, batch = built(model)
    assert pv.ELBO().build(pair)(*batch)[0].isfinite()


@pytest.mark.parametrize("encoder", [TINY, pv.Linear(), pv.Conv(channels=(3,), kernel=2)], ids=["MLP", "Linear", "Conv"])
def test_labels_reach_networks_of_every_kind(encoder: pv.Network) -> None:
    pair, (x, y) = built(cvae(), pv.AmortizedNormal(encoder=encoder))
    with torch.no_grad():
        means = [pair.guide.posterior(x, torch.full_like(y, place)).mean for place in range(3)]
    assert (means[0] - means[1]).abs().min(0).values.max() > 0


def test_the_condition_enters_where_it_is_declared() -> None:
    for enters in ((), ("decoder",), ("encoder",), ("encoder", "decoder")):
        for prior in (pv.StandardNormal(), pv.ConditionalNormal(network=TINY)):
            pair, (x, y) = built(cvae(enters=enters, prior=prior))
            other = (y + 1) % 3
            z = torch.randn(ROWS, LATENT)
            with torch.no_grad():
                known, changed = pair.model.known(y), pair.model.known(other)
                moved = [
                    not torch.equal(pair.model.decode(z, *known).mean, pair.model.decode(z, *changed).mean),
                    not torch.equal(pair.guide.posterior(x, y).mean, pair.guide.posterior(x, other).mean),
                    not torch.equal(*(pair.model.prior_given(*k).expand((ROWS,)).mean for k in (known, changed))),
                ]
            assert moved == ["decoder" in enters, "encoder" in enters, isinstance(prior, pv.ConditionalNormal)]


@pytest.mark.parametrize("condition", CONDITIONS.values(), ids=CONDITIONS)
def test_the_recorded_step_is_the_eager_step(condition: pv.Condition) -> None:
    ends = []
    for options in ({"compile": False}, {"ahead": WORTH_RECORDING}):
        pair, batch = built(cvae(condition=condition))
        module = pv.ELBO().build(pair)
        step = Step(module, pv.Transform(EVENT), OPTIMIZERS["adam"](module.parameters(), 1e-2), **options)
        torch.manual_seed(0)
        for _ in range(3):
            step(*batch)
        ends.append({**module.state_dict(), "totals": step.totals})
    assert step.way == "recorded"
    for name, value in ends[0].items():
        torch.testing.assert_close(value, ends[1][name], rtol=1e-5, atol=1e-6)


def test_labels_move_the_samples_and_raise_the_log_likelihood() -> None:
    data = stripes()
    told, plain = trained(cvae(), data), trained(pv.VAE(latent_dim=LATENT, decoder=TINY), data)
    for place, name in enumerate(CLASSES):
        bright = told.sample(6, y=name, means=True).mean((0, 1, 3))
        assert bright.argmax() == place
        assert bright[place] > 0.6
    numbers, others = (fitted.evaluate(data.test, samples=50) for fitted in (told, plain))
    assert numbers["iwae"] > others["iwae"] + 0.5 * math.log(3)  # at most log 3 is to be gained
    grid = told.by_class(4)
    assert grid.shape == (4, 3, 1, 4, 4)
    assert torch.equal(grid[:, 1], told.sample(4, y=1))
    assert torch.equal(told.sample(6)[4], told.sample(6, y=torch.arange(6) % 3)[4])


def test_labels_of_a_call_are_as_good_as_those_of_the_data() -> None:
    data = stripes(90)
    fitted = trained(cvae(), data)
    x, names = fitted.seen(data.test), [CLASSES[label] for label in data.test.y]
    assert fitted.evaluate(data.test) == fitted.evaluate(x, y=names) == fitted.evaluate(x, y=data.test.y.numpy())
    torch.testing.assert_close(fitted.encode(data.test), fitted.posterior(x, y=names).mean)
    torch.testing.assert_close(fitted.reconstruct(data.test), fitted.decode(fitted.encode(data.test), y=names))
    for call in (fitted.evaluate, fitted.encode, fitted.posterior, fitted.reconstruct):
        with pytest.raises(ValueError, match=r"expected labelled data, got rows without labels: .*y=\.\.\."):
            call(x)
    with pytest.raises(ValueError, match="expected classes of cat, dog, owl, or their numbers from 0, got cow"):
        fitted.sample(2, y="cow")
    with pytest.raises(ValueError, match="conditioned on labels: give y and no x"):
        fitted.decode(torch.zeros(2, LATENT))
    with pytest.raises(ValueError, match="expected one class for each of"):
        fitted.evaluate(x, y=[0])


def test_rows_without_labels_are_refused_before_training() -> None:
    data = stripes(60)
    with pytest.raises(ValueError, match="these have no labels: name their column"):
        pv.fit(cvae(), pv.load_data(data.train.x.numpy(), valid=0.0, test=0.0))
    some = pv.Split(data.train.x, torch.where(torch.arange(len(data.train)) == 3, -1, data.train.y), data.train.transform)
    with pytest.raises(ValueError, match="got 1 rows without: drop or label them"):
        pv.fit(cvae(), dataclasses.replace(data, train=some))
    with pytest.raises(ValueError, match="is conditioned on nothing: leave x and y out"):
        trained(pv.VAE(latent_dim=2, decoder=TINY), data).sample(2, y=0)


def test_streamed_rows_keep_their_labels(tmp_path: Path) -> None:
    x = np.repeat(np.arange(90, dtype=np.float32)[:, None], 3, 1)
    np.save(tmp_path / "x.npy", x)
    data = pv.load_data(tmp_path / "x.npy", y=np.arange(90) % 7, stream=1, valid=0.0, test=0.1)
    raws, labels = [], []
    for raw, y, order in data.train.blocks(4, generator=torch.Generator().manual_seed(0), reads=("x", "y")):
        raws.append(raw[order])
        labels.append(y[order])
    raw, y = torch.cat(raws)[:, 0], torch.cat(labels)
    assert torch.equal(raw.long() % 7, y)
    assert len(raw.unique()) == len(data.train) == len(y)
    for x_, y_ in data.train.labelled_batches(10):
        assert torch.equal(data.train.transform.inverse(x_)[:, 0].round().long() % 7, y_)


def test_only_what_is_not_known_is_scored() -> None:
    base = dist.Bernoulli(logits=torch.randn(5, 2, 2))
    known = torch.tensor([[True, False], [False, False]])
    values = torch.full((5, 2, 2), 7.0)  # outside the base's support
    completed = Completed(base, known, values, filler=0.0).to_event(2)
    x = torch.tensor([[7.0, 1.0], [0.0, 1.0]])
    expected = base.log_prob(x.clamp(max=1)).masked_fill(known, 0.0).sum((1, 2))
    torch.testing.assert_close(completed.log_prob(x), expected)
    assert bool(completed.support.check(x).all())
    assert not bool(completed.support.check(x.flip(1)).any())
    assert (completed.sample((3,))[..., 0, 0] == 7).all()
    torch.testing.assert_close(completed.mean[..., 1, :], base.mean[:, 1])


@pytest.mark.parametrize("observed", [1, 2, 3])
def test_quadrants_are_lower_left_then_upper_left_then_upper_right(observed: int) -> None:
    known = pv.Quadrants(observed=observed).known((1, 4, 6))[0]
    corners = [known[2:, :3], known[:2, :3], known[:2, 3:], known[2:, 3:]]
    assert [bool(corner.all()) for corner in corners] == [place < observed for place in range(4)]
    assert known.sum() == 6 * observed


def test_completion_keeps_what_is_known_and_finds_the_rest() -> None:
    data = stripes()
    model = cvae(
        condition=pv.Quadrants(observed=2), baseline=pv.Baseline(network=TINY, epochs=30, batch_size=32, learning_rate=1e-2)
    )
    fitted = trained(model, data)
    x, known = fitted.seen(data.test), fitted.pair.model.known_entries
    found = fitted.sample(len(x), x=data.test, means=True)
    assert torch.equal(found[:, known], x[:, known])
    agreement = ((found > 0.5) == (x > 0.5))[:, ~known].float().mean()
    assert agreement > 0.9  # chance is 0.75
    numbers = fitted.evaluate(data.test, samples=20)
    assert numbers["elbo"] > -8 * math.log(2) / 2
    with torch.no_grad():
        guess = fitted.pair.model.guessed(x)
    assert guess.log_prob(x).mean() > -8 * math.log(2) / 2
    assert not any(parameter.requires_grad for parameter in fitted.pair.model.guess.parameters())
    one = fitted.sample(5, x=data.test[:1])
    assert one.shape == (5, 1, 4, 4)
    with pytest.raises(ValueError, match="conditioned on a part of the data: give x and no y"):
        fitted.sample(3)
    with pytest.raises(ValueError, match="expected one condition or 3, got 2"):
        fitted.sample(3, x=data.test[:2])


def test_columns_are_conditioned_on_and_not_modelled() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(400, 1, generator=generator)
    x = torch.cat([y, 100 * (3 * y + 0.1 * torch.randn(400, 1, generator=generator))], 1)
    model = pv.CVAE(condition=pv.Columns(columns=(0,)), latent_dim=1, likelihood=pv.Gaussian(), decoder=pv.MLP(hidden=(20,)))
    data = pv.load_data(x.numpy(), scale="standardize", valid=0.0, test=0.25)
    with pytest.warns(FitWarning, match="posterior has collapsed"):  # given y there is nothing left to encode
        fitted = pv.fit(model, data, method=pv.SVI(epochs=150, learning_rate=1e-2))
    exact = dist.Normal(300 * data.test.x[:, 0], 10.0).log_prob(data.test.x[:, 1]).mean().item()
    assert exact - 0.5 < fitted.evaluate(data.test, samples=20)["iwae"] < exact + 0.2
    for shape, columns in (((3,), (3,)), ((2,), (0, 1)), ((1, 2, 2), (0,))):
        with pytest.raises(ValueError, match="expected a table with the columns"):
            pv.build(
                pv.CVAE(condition=pv.Columns(columns=columns), likelihood=pv.Gaussian()),
                pv.AmortizedNormal(),
                pv.DataSpec(event_shape=shape, kind="real", size=3),
            )
    model = pv.CVAE(condition=pv.Columns(), likelihood=pv.LowRankGaussian(rank=1))
    with pytest.raises(ValueError, match="likelihoods of independent elements only"):
        pv.build(model, pv.AmortizedNormal(), pv.DataSpec(event_shape=(3,), kind="real", size=3))


def test_a_prior_given_a_condition_is_no_prior_of_a_vae() -> None:
    with pytest.raises(ValueError, match="ConditionalNormal is a prior given a condition: declare it in a CVAE"):
        pv.fit(pv.VAE(prior=pv.ConditionalNormal()), stripes(30))


def test_values_outside_the_support_are_refused_before_training() -> None:
    x = np.random.default_rng(0).integers(0, 30, (40, 3)).astype(np.float32)
    with pytest.raises(ValueError, match=r"Binomial: expected every value in the support .* correct those rows"):
        pv.fit(pv.VAE(latent_dim=1, likelihood=pv.Binomial(total=10)), x)
    model = pv.CVAE(condition=pv.Columns(columns=(0,)), latent_dim=1, likelihood=pv.Binomial(total=10))
    x[:, 1:] %= 10
    pv.fit(model, x, method=pv.SVI(epochs=1))


@pytest.mark.parametrize("condition", CONDITIONS.values(), ids=CONDITIONS)
def test_a_prior_given_a_condition_has_no_components(condition: pv.Condition) -> None:
    data = stripes(60)
    fitted = pv.fit(cvae(condition=condition), data, method=pv.SVI(epochs=1))
    with pytest.raises(ValueError, match=r"without components .*GaussianMixture\(\)"):
        fitted.clusters(data.test)


@pytest.mark.parametrize("condition", CONDITIONS.values(), ids=CONDITIONS)
def test_a_run_survives_the_disk_with_its_picture(condition: pv.Condition, tmp_path: Path) -> None:
    data = stripes(60)
    model = cvae(condition=condition, baseline=pv.Baseline(network=TINY, epochs=1))
    fitted = pv.fit(model, data, method=pv.SVI(epochs=1))
    path = pv.save_run(fitted, data, tmp_path / "run")
    loaded = pv.load_run(path)
    assert loaded.evaluate(data.test) == fitted.evaluate(data.test)
    given = {"y": "dog"} if fitted.pair.model.labelled else {"x": data.test[:3]}
    torch.testing.assert_close(loaded.sample(3, **given), fitted.sample(3, **given))
    picture = "samples" if fitted.pair.model.labelled else "completions"
    assert (path / f"{picture}.png").stat().st_size > 1000


def test_the_command_line_samples_a_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["fit", "--model", "CVAE", "--data", "digits", "--method.epochs", "1", "--out", "run", "--quiet"]) == 0
    assert "ConditionalNormal" in Path("run/config.yaml").read_text(encoding="utf-8")
    assert cli.main(["sample", "run", "--y", "3", "--n", "4", "--out", "three.npy"]) == 0
    expected = pv.load_run("run").sample(4, y=3).numpy()
    np.testing.assert_allclose(np.load("three.npy"), expected, rtol=1e-5)
    assert cli.main(["sample", "run", "--y", "three", "--out", "three.npy"]) == 2


def test_pictures_check_their_shapes() -> None:
    x = torch.rand(2, 3, 1, 4, 4)
    axes = plots.by_class(x, CLASSES, kind="unit_interval").axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == list(CLASSES)
    with pytest.raises(ValueError, match=r"expected \(rows, 2, \*event\)"):
        plots.by_class(x, CLASSES[:2], kind="unit_interval")
    with pytest.raises(ValueError, match="expected samples"):
        plots.completions(x[0], torch.ones(4, 4, dtype=torch.bool), x, kind="unit_interval")
