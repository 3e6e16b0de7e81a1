"""Networks along the raster of a grid, priors of codes, and the models of images that they make: laws, exactly."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch
from torch import Tensor

import ppl_vae as pv
import ppl_vae.inference.training.step
from ppl_vae.fitting.build import build
from ppl_vae.fitting.callbacks.collapse import CollapseMonitor
from ppl_vae.inference.training.clock import Stopwatch
from ppl_vae.inference.training.loop import Training
from ppl_vae.nn.causal import Elements
from ppl_vae.nn.raster import Raster
from ppl_vae.priors import build_codes_prior
from ppl_vae.storage import NULL_CHECKPOINTER

LEVELS, GRID = 3, (3, 4)

NETWORKS: dict[str, pv.PixelCNN] = {
    "PixelCNN": pv.PixelCNN(channels=6, layers=3),
    "PixelCNN-wide": pv.PixelCNN(channels=5, layers=2, kernel=5, gates=7),
    "PixelCNN-plain": pv.PixelCNN(channels=6, layers=3, gated=False, dropout=0.3, word_dropout=0.3),
}
PRIORS: dict[str, Any] = {
    **NETWORKS,
    "MADE": pv.MADE(hidden=(9, 7)),
    "LSTM": pv.LSTM(hidden=5),
    "CausalConv": pv.CausalConv(hidden=5, layers=2),
    "Transformer": pv.Transformer(hidden=8, heads=2, layers=1),
}
CONTEXTS: dict[str, tuple[int, ...]] = {"none": (), "vector": (3,), "map": (2, *GRID)}
RASTERS: dict[str, Any] = {**NETWORKS, "MADE": pv.MADE(hidden=(40, 30))}
networks = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
rasters = pytest.mark.parametrize("network", RASTERS.values(), ids=RASTERS)
priors = pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS)
contexts = pytest.mark.parametrize("shape", CONTEXTS.values(), ids=CONTEXTS)


def made(module: Any) -> Any:
    """In float64, far from its start, as it is evaluated."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        parameter.data.normal_(0.0, 0.5)
    return module.double().eval()


def context_of(shape: tuple[int, ...], *batch: int) -> Tensor | None:
    return torch.randn(*batch, *shape, generator=torch.Generator().manual_seed(2)).double() if shape else None


def codes_of(*batch: int, grid: tuple[int, int] = GRID) -> Tensor:
    return torch.randint(LEVELS, (*batch, *grid), generator=torch.Generator().manual_seed(1))


def all_grids(grid: tuple[int, int] = (2, 2)) -> Tensor:
    return torch.tensor(list(itertools.product(range(LEVELS), repeat=math.prod(grid)))).reshape(-1, *grid)


# --- networks -------------------------------------------------------------------------------------------------------------


@contexts
@rasters
def test_one_pass_is_step_by_step(network: Any, shape: tuple[int, ...]) -> None:
    module = made(network.build_on_grid(Elements(levels=LEVELS, grid=GRID), (LEVELS,), shape))
    x, context = codes_of(2).flatten(-2), context_of(shape, 2)
    context = None if context is None else context.flatten(1)
    features, state = module.start(context, 2)
    found = [features]
    for place in range(math.prod(GRID) - 1):
        features, state = module.step(x[:, place], state)
        found.append(features)
    torch.testing.assert_close(torch.stack(found, 1), module(x, context), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("grid", [(4, 5), (1, 6), (5, 1)])
@rasters
def test_a_place_hangs_on_all_before_it_and_on_no_other(network: Any, grid: tuple[int, int]) -> None:
    """No blind spot: the far corner sees the near one, with as many layers as that takes."""
    network = dataclasses.replace(network, layers=max(grid)) if isinstance(network, pv.PixelCNN) else network
    module = made(network.build_causal(Elements((2,), grid=grid), (1, 2)))
    for parameter in module.parameters():
        parameter.data.abs_().mul_(0.3)  # so that no rectified unit is off
    x = torch.rand(math.prod(grid), 2).double()
    depends = torch.autograd.functional.jacobian(lambda row: module(row).sum((-1, -2)), x).abs().amax(-1)
    assert not depends.triu().any()  # exactly
    assert (depends[torch.ones_like(depends).tril(-1).bool()] > 0).all()


@pytest.mark.parametrize("shape", [CONTEXTS["vector"], CONTEXTS["map"]])
def test_a_context_enters_from_the_first_place_on(shape: tuple[int, ...]) -> None:
    module = made(NETWORKS["PixelCNN"].build_on_grid(Elements(levels=LEVELS, grid=GRID), (LEVELS,), shape))
    context = context_of(shape)
    assert context is not None
    x = codes_of().flatten()
    slopes = torch.autograd.functional.jacobian(lambda c: module(x, c.flatten()).square().sum(-1), context).abs()
    assert (slopes.flatten(1).amax(1) > 0).all()
    if len(shape) == 3:
        assert (slopes.sum(1).flatten(1).diagonal() > 0).all()  # a place sees what the map says there
    several = context_of(shape, 3, 2)
    assert several is not None
    found = module(x.expand(2, -1), several.flatten(2))
    assert found.shape == (3, 2, math.prod(GRID), LEVELS)
    torch.testing.assert_close(found[1, 0], module(x, several[1, 0].flatten()))


@rasters
def test_every_parameter_has_a_gradient(network: Any) -> None:
    module = made(network.build_on_grid(Elements(levels=LEVELS, grid=GRID), (LEVELS,), (2,))).train()
    module(codes_of(8).flatten(-2), context_of((2,), 8)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in module.parameters())


# --- priors of codes ------------------------------------------------------------------------------------------------------


@priors
def test_probabilities_of_all_grids_sum_to_one(prior: Any) -> None:
    module = made(build_codes_prior(prior, levels=LEVELS, grid=(2, 2), context=2))
    p = module(context_of((2,)))
    assert p.log_prob(all_grids()).exp().sum().item() == pytest.approx(1.0, abs=1e-12)
    torch.testing.assert_close(p.log_probs(all_grids()).sum((-1, -2)), p.log_prob(all_grids()))


@pytest.mark.parametrize("shape", [0, 2, (2, 2, 2)], ids=["none", "vector", "map"])
@pytest.mark.parametrize("prior", [pv.UniformCodes(), *PRIORS.values()], ids=["UniformCodes", *PRIORS])
def test_before_it_is_trained_a_prior_of_codes_is_uniform(prior: Any, shape: Any) -> None:
    module = build_codes_prior(prior, levels=LEVELS, grid=(2, 2), context=shape)
    lead = (5,) if shape else ()
    p = module(torch.randn(5, *((shape,) if isinstance(shape, int) else shape))) if shape else module()
    assert (p.batch_shape, p.event_shape, p.support.event_dim) == (lead, (2, 2), 2)
    assert torch.equal(p.log_prob(all_grids()[:5]), torch.full((5,), LEVELS).double().log().mul(-4).float())
    assert p.expand((7, *lead)).sample((2,)).shape == (2, 7, *lead, 2, 2)
    with pyro.plate("data", 5):
        k = pyro.sample("k", p)
    assert k.dtype == torch.int64
    assert p.support.check(k).all()
    assert not p.support.check(k + LEVELS).any()


@pytest.mark.parametrize("prior", [PRIORS["PixelCNN"], PRIORS["LSTM"]])
def test_draws_follow_their_probabilities(prior: Any) -> None:
    p = made(build_codes_prior(prior, levels=LEVELS, grid=(2, 2)))()
    torch.manual_seed(0)
    drawn, expected = p.sample((20_000,)), p.log_prob(all_grids()).exp()
    index = (drawn.flatten(-2) * LEVELS ** torch.arange(3, -1, -1)).sum(-1)
    shares = torch.bincount(index, minlength=len(expected)).double() / len(drawn)
    assert ((shares - expected) / (expected * (1 - expected) / len(drawn)).sqrt()).abs().max() < 4
    likeliest = p.point_prediction
    assert likeliest.dtype == torch.int64
    before = p.rows.network(likeliest.flatten(-2))
    assert torch.equal(before.argmax(-1), likeliest.flatten(-2))


# --- images ---------------------------------------------------------------------------------------------------------------


def images(channels: tuple[int, ...] = (1,), n: int = 40) -> Tensor:
    x = torch.rand(n, *channels, *GRID, generator=torch.Generator().manual_seed(0))
    return (x > 0.6).float()


@pytest.mark.parametrize("event", [GRID, (1, *GRID), (2, *GRID)])
def test_a_grid_of_pixels_is_the_chain_of_its_places(event: tuple[int, ...]) -> None:
    spec = pv.DataSpec(event_shape=event, kind="binary", size=4)
    program = made(pv.SequenceModel(network=NETWORKS["PixelCNN"], likelihood=pv.Bernoulli()).build(spec))
    x = torch.bernoulli(torch.full((5, *event), 0.5, dtype=torch.float64))
    p = program.grids(None, (5,))
    network, likelihood = p.rows.network, p.rows.likelihood
    features, state = network.start(None, 5)
    total = torch.zeros(5).double()
    for line, column in itertools.product(*map(range, GRID)):
        element = x[..., line, column].reshape(5, *p.element)
        total += likelihood(features).log_prob(element)
        torch.testing.assert_close(p.log_probs(x)[:, : line + 1, : column + 1].shape, torch.Size((5, line + 1, column + 1)))
        if (line, column) != (GRID[0] - 1, GRID[1] - 1):
            features, state = network.step(element, state)
    torch.testing.assert_close(program.log_prob(x), total)
    assert program.ancestral(3).shape == (3, *event)


def test_a_model_of_images_knows_its_log_likelihood(tmp_path: Path) -> None:
    data = pv.load_data(images(), kind="binary", valid=0.0, test=0.25)
    model = pv.SequenceModel(network=NETWORKS["PixelCNN"], likelihood=pv.Bernoulli())
    fit = pv.fit(model, data, method=pv.SVI(epochs=2, batch_size=10), out=tmp_path / "run", device="cpu")
    numbers = fit.evaluate(data.test)
    x = data.test.x
    expected = fit.pair.model.log_prob(x)
    assert numbers["log_likelihood"] == numbers["elbo"] == pytest.approx(expected.mean().item(), rel=1e-5)
    assert fit.sample(3).shape == (3, 1, *GRID)
    upper = x[:3, :, :2]
    whole = fit.sample(3, given=upper)
    assert torch.equal(whole[:, :, :2], upper)
    assert fit.sample(4, given=upper[0], seed=1)[:, :, 2:].std(0).any()
    program = fit.pair.model
    with torch.no_grad():
        torch.manual_seed(0)
        features, state = program.grids.network.start(None, 1)
        for element in upper[:1].flatten(1)[0]:
            features, state = program.grids.network.step(element[None], state)
        chance = program.grids.likelihood(features).mean
    share = fit.sample(2000, given=upper[0])[:, 0, 2, 0].mean()
    assert share.item() == pytest.approx(chance.item(), abs=0.04)
    for wrong in (x[:1], x[:2, :, :1], x[:1, :, :1, :2]):
        with pytest.raises(ValueError, match="expected the first lines, fewer than"):
            fit.sample(3, given=wrong)
    again = pv.load_run(tmp_path / "run", device="cpu")
    assert again.evaluate(data.test) == numbers
    assert torch.equal(again.sample(3), fit.sample(3))


def test_vectors_have_an_exact_density_by_masks() -> None:
    data = pv.load_data(torch.randn(40, 4).numpy(), valid=0.0, test=0.0)
    model = pv.SequenceModel(network=pv.MADE(hidden=(8,)), likelihood=pv.Gaussian(scale="amortized"))
    fit = pv.fit(model, data, method=pv.SVI(epochs=1, batch_size=20), device="cpu")
    program, x = fit.pair.model, torch.randn(6, 4)
    slopes = torch.autograd.functional.jacobian(lambda rows: program.grids(None, (6,)).log_probs(rows)[0], x)[:, 0]
    assert not slopes.triu(1).any()
    assert (slopes.diagonal().abs() > 0).all()
    assert fit.sample(5).shape == (5, 4)


def test_grey_levels_are_embedded_each() -> None:
    data = pv.load_data((images() * 4).long().numpy(), kind="categorical", valid=0.0, test=0.0)
    model = pv.SequenceModel(network=NETWORKS["PixelCNN"], likelihood=pv.Categorical(levels=5))
    fit = pv.fit(model, data, method=pv.SVI(epochs=1, batch_size=20), device="cpu")
    assert fit.sample(2).shape == (2, 1, *GRID)
    assert fit.pair.model.grids.network.elements == Elements((), 5, GRID)


def test_as_a_decoder_without_z_it_is_the_model_without_one() -> None:
    spec = pv.DataSpec(event_shape=(1, *GRID), kind="binary", size=40)
    vae = pv.VAE(latent_dim=2, decoder=NETWORKS["PixelCNN"], likelihood=pv.Bernoulli())
    pair = made(build(vae, pv.AmortizedNormal(encoder=pv.MLP(hidden=(4,))), spec))
    lone = made(pv.SequenceModel(network=vae.decoder, likelihood=vae.likelihood).build(spec))  # type: ignore[arg-type]
    state = pair.model.likelihood.network.state_dict()
    told = state.pop("told.weight").clone()
    lone.grids.network.load_state_dict(state)
    x, z = images()[:5].double(), torch.randn(3, 5, 2).double()
    found = pair.model.decode(z)
    assert isinstance(found, Raster)
    assert (found.log_prob(x) - lone.log_prob(x)).abs().min() > 1e-6
    with torch.no_grad():
        pair.model.likelihood.network.told.weight.zero_()
    assert told.any()
    torch.testing.assert_close(pair.model.decode(z).log_prob(x), lone.log_prob(x).expand(3, 5))


def test_recorded_steps_are_the_eager_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ppl_vae.inference.training.step, "WORTH_RECORDING", 1)
    data = pv.load_data(images(n=20), kind="binary", valid=0.0, test=0.0)
    vae = pv.VAE(latent_dim=2, decoder=NETWORKS["PixelCNN-plain"], likelihood=pv.Bernoulli())
    ends = []
    for compile in (False, "auto"):
        torch.manual_seed(0)
        pair = build(vae, pv.AmortizedNormal(encoder=pv.MLP(hidden=(4,))), data.spec)
        pair.plates(*next(data.train.read(pair.reads, 20)))
        method = pv.SVI(epochs=3, batch_size=10, learning_rate=0.01, compile=compile)  # type: ignore[arg-type]
        training = Training(method.plan(pair), pair, data, Stopwatch(lambda row: None), NULL_CHECKPOINTER)
        training.run()
        assert training.stepper.steps[0].way == ("eager" if compile is False else "recorded")
        ends.append(torch.cat([parameter.detach().flatten() for parameter in pair.parameters()]))
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-5, atol=1e-6)


def test_the_remark_on_collapse_says_that_the_decoder_sees_the_elements() -> None:
    data = pv.load_data(images(), kind="binary", valid=0.0, test=0.0)
    vae = pv.VAE(latent_dim=2, decoder=NETWORKS["PixelCNN"], likelihood=pv.Bernoulli())
    guide, method = pv.AmortizedNormal(encoder=pv.MLP(hidden=(4,))), pv.SVI(batch_size=1)
    monitor = CollapseMonitor()
    monitor.begin(pv.FitContext(pair=build(vae, guide, data.spec), model=vae, guide=guide, method=method, data=data, done=0))
    for epoch in range(1, 13):
        monitor.record({"epoch": epoch, "kl": 0.01})
    with pytest.warns(pv.FitWarning, match=r"collapsed: .*word_dropout"):
        monitor.record({"epoch": 13, "kl": 0.01})


def test_what_is_no_grid_is_refused() -> None:
    rows = pv.DataSpec(event_shape=(5,), kind="binary", size=4)
    model = pv.SequenceModel(network=pv.PixelCNN(), likelihood=pv.Bernoulli())
    with pytest.raises(ValueError, match=r"expected data of 2 or 3 axes for PixelCNN, got data of shape \(5,\)"):
        model.check(rows)
    with pytest.raises(ValueError, match="expected grids"):
        pv.PixelCNN().build_causal(Elements(), (1,))
    with pytest.raises(ValueError, match="rows that all have one length for MADE"):
        pv.MADE().build_causal(Elements(), (1,))
    with pytest.raises(ValueError, match="expected hidden widths"):
        pv.MADE(hidden=())
    with pytest.raises(ValueError, match="network that sees a whole datum, got PixelCNN"):
        pv.PixelCNN().build((1, 3, 4), (2,))
    for wrong in ({"channels": 0}, {"layers": 0}, {"kernel": 4}, {"kernel": 1}, {"gates": 0}, {"dropout": 1.0}):
        with pytest.raises(ValueError, match="expected"):
            pv.PixelCNN(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"no pool .* as a prior of codes"):
        build_codes_prior(pv.LSTM(pool="max"), levels=3, grid=(2, 2))
