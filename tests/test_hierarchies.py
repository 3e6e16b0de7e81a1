"""Groups of latent variables: a lone one is the VAE, linear ones are exact, and every guide keeps the contract."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal

import ppl_vae as pv
from ppl_vae.evaluate import elbo_terms, log_weights
from ppl_vae.evaluate.temperature import cooled
from ppl_vae.inference.objectives.beta import KLWeights
from ppl_vae.inference.training.optimizers import OPTIMIZERS
from ppl_vae.inference.training.step import WORTH_RECORDING, Step
from ppl_vae.program.levels import MIN_SCALE, joined
from tests.table import EVENT, ROWS, SEED, TINY, rows

VECTORS = (
    pv.Group(latent_dim=1, network=TINY),
    pv.Group(latent_dim=2, features=3, network=TINY),
    pv.Group(features=5, network=TINY),
)
MAPS = (
    pv.Group(latent_dim=2, network=TINY),
    pv.Group(latent_dim=1, size=(1, 1), features=3),
    pv.Group(size=(2, 2), features=3),
)
MODELS = {
    "vectors": pv.HierarchicalVAE(groups=VECTORS),
    "chain": pv.HierarchicalVAE(groups=VECTORS, skip=False),
    "maps": pv.HierarchicalVAE(groups=MAPS),
}
GUIDES = {
    "precision": pv.TopDown(),
    "residual": pv.TopDown(merge="residual"),
    "bottom_up": pv.BottomUp(),
    "one_encoder": pv.TopDown(encoder=TINY),
}
PAIRS = {f"{m}--{g}": (model, guide) for m, model in MODELS.items() for g, guide in GUIDES.items()}
pairs = pytest.mark.parametrize("entry", PAIRS.values(), ids=PAIRS.keys())
SPEC = pv.DataSpec(event_shape=EVENT, kind="binary", size=10 * ROWS)


def built(model: pv.Model, guide: pv.Guide, spec: pv.DataSpec = SPEC) -> pv.Pair:
    torch.manual_seed(SEED)
    return pv.build(model, guide, spec)


# --- one group is the VAE -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guide", list(GUIDES.values())[:3], ids=list(GUIDES)[:3])
def test_one_group_is_the_vae_bit_for_bit(guide: pv.Guide) -> None:
    data = pv.load_data(rows("binary").numpy(), valid=0.25, test=0.0)
    method = pv.SVI(epochs=2, batch_size=10, compile=False)
    one = pv.HierarchicalVAE(groups=(pv.Group(latent_dim=3, network=TINY),), prior=pv.Normal(scale=1.5))
    flat = pv.VAE(latent_dim=3, decoder=TINY, prior=pv.Normal(scale=1.5))
    ours = pv.fit(one, data, guide=guide, method=method)
    theirs = pv.fit(flat, data, guide=pv.AmortizedNormal(encoder=TINY), method=method)
    for mine, other in zip(ours.history, theirs.history, strict=True):
        assert all(mine[name] == other[name] for name in ("objective", "elbo", "valid_elbo"))
    assert torch.equal(ours.encode(data.train), theirs.encode(data.train))
    assert torch.equal(ours.sample(5), theirs.sample(5))
    assert list(ours.pair.model.sites) == ["z"]


# --- linear groups --------------------------------------------------------------------------------------------------------

DOUBLE: Any = {"dtype": torch.float64}
SLOPE = torch.tensor([[0.8], [-0.5]], **DOUBLE)
LOADING = torch.tensor([[0.9, -0.56], [1.2, 0.42], [0.0, 0.0]], **DOUBLE)  # columns at right angles
OFFSET = torch.tensor([0.3, -0.2, 0.1], **DOUBLE)
SPREAD = 0.6


def raw(scale: float) -> float:
    """What becomes this scale."""
    return math.log(math.expm1(scale - MIN_SCALE))


def put(layer: nn.Module, weight: Tensor, bias: Tensor) -> None:
    """Parameters of an affine map in place of those it started with."""
    (linear,) = [module for module in layer.modules() if isinstance(module, nn.Linear)]
    with torch.no_grad():
        linear.weight.copy_(weight)
        linear.bias.copy_(bias)


def linear_pair() -> tuple[pv.Pair, float]:
    """z2 ~ Normal(0, 1), z1 ~ Normal(A z2, t^2), x ~ Normal(W z1 + b, s^2), W with orthogonal columns; the exact q."""
    groups = (pv.Group(latent_dim=1, network=pv.Linear()), pv.Group(latent_dim=2, features=1, network=pv.Linear()))
    model = pv.HierarchicalVAE(groups=groups, likelihood=pv.Gaussian(scale="fixed", value=0.5), skip=False)
    pair = built(model, pv.TopDown(), pv.DataSpec(event_shape=(3,), kind="real", size=50)).double()
    zeros, scales = torch.zeros(2, 1, **DOUBLE), torch.full((2,), raw(SPREAD), **DOUBLE)
    noise = pair.model.likelihood.scale.item()  # 0.5 to the precision of float32
    put(pair.model.down[0], torch.cat([SLOPE, zeros]), torch.cat([zeros[:, 0], scales]))
    put(pair.model.decoder, LOADING, OFFSET)
    lengths = LOADING.square().sum(0)
    back = LOADING.T / lengths[:, None]  # of z1, as p(x | z1) alone tells it
    slope = LOADING @ SLOPE
    spread = SPREAD**2 * LOADING @ LOADING.T + noise**2 * torch.eye(3, **DOUBLE)
    weighted = torch.linalg.solve(spread, slope).T
    variance = 1 / (1 + (weighted @ slope).item())
    own = torch.tensor([raw(noise / length.sqrt().item()) for length in lengths], **DOUBLE)
    rows_up = torch.cat([back, torch.zeros(2, 3, **DOUBLE), variance * weighted])
    put(pair.guide.ascent.steps[0], rows_up, torch.cat([-back @ OFFSET, own, -variance * weighted @ OFFSET]))
    put(pair.guide.ascent.steps[1], torch.tensor([[1.0], [0.0]]), torch.tensor([0.0, raw(math.sqrt(variance))], **DOUBLE))
    return pair, noise


def test_with_the_exact_posterior_every_sample_gives_log_p_of_x() -> None:
    pair, noise = linear_pair()
    x = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    slope = LOADING @ SLOPE
    spread = slope @ slope.T + SPREAD**2 * LOADING @ LOADING.T + noise**2 * torch.eye(3, **DOUBLE)
    exact = MultivariateNormal(OFFSET, spread).log_prob(x)
    with torch.no_grad():
        torch.testing.assert_close(log_weights(pair, (x,), samples=5), exact.expand(5, -1), rtol=0, atol=1e-10)


# --- what x says meets the prior ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_precisions_add_up_as_in_a_product_of_normals(model: pv.Model) -> None:
    pair = built(model, pv.TopDown()).double()
    x = rows("binary", 4, dtype=torch.float64)
    with torch.no_grad():
        local = pair.guide.local(x)
        q, p = pair.guide.at(*local), pair.model.prior()
        z, others = q.sample(), q.sample()
        for level, mine in zip(pair.model.levels[1:], local[1:], strict=True):
            loc, raw_scale = level.split(mine)
            own = Normal(loc, nn.functional.softplus(raw_scale) + MIN_SCALE)

            def constant(value: Tensor, level: Any = level, own: Normal = own) -> Tensor:
                at = {**z, level.name: value}
                product = p.given(at)[level.name].base_dist.log_prob(value) + own.log_prob(value)
                return q.given(at)[level.name].base_dist.log_prob(value) - product

            torch.testing.assert_close(constant(z[level.name]), constant(others[level.name]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_the_kl_of_a_residual_is_its_formula(model: pv.Model) -> None:
    pair = built(model, pv.TopDown(merge="residual")).double()
    x = rows("binary", 4, dtype=torch.float64)
    with torch.no_grad():
        local = pair.guide.local(x)
        q, p = pair.guide.at(*local), pair.model.prior()
        z = q.sample()
        kl, descent = q.kl(p, z), pair.model.descent()
        for place, level in enumerate(pair.model.levels[1:], 1):
            numbers = descent(place, z)
            head = pair.guide.heads[level.name](joined(level, local[place], numbers))
            dm, raw_ds = level.split(head)
            ds = nn.functional.softplus(raw_ds + math.log(math.e - 1)) + MIN_SCALE
            s = nn.functional.softplus(level.split(numbers, level.passed)[1]) + MIN_SCALE
            formula = (dm.square() / s.square() + ds.square() - ds.square().log() - 1) / 2
            torch.testing.assert_close(kl[level.name], formula.flatten(1).sum(1))


# --- every pair -----------------------------------------------------------------------------------------------------------


@pairs
def test_the_kl_of_the_groups_sum_to_the_kl(entry: tuple) -> None:
    pair, x = built(*entry), rows("binary")
    with torch.no_grad():
        torch.manual_seed(0)
        terms = elbo_terms(pair, (x,))
        torch.manual_seed(0)
        q, p = pair.guide.posterior(x), pair.model.prior()
        z = q.rsample()
        kl = q.kl(p, z)
    assert pair.follows == isinstance(entry[1], pv.TopDown)
    if pair.follows:  # in closed form, given the draws above
        torch.testing.assert_close(sum(kl.values()), terms.kl, rtol=1e-5, atol=1e-5)
        assert all(bool((values >= 0).all()) for values in kl.values())
    else:
        torch.testing.assert_close(q.log_prob(z) - p.log_prob(z), terms.kl, rtol=1e-4, atol=1e-4)


@pairs
def test_every_parameter_gets_a_gradient_and_q_is_of_its_family(entry: tuple) -> None:
    pair, x = built(*entry), rows("binary")
    loss, *_ = pv.ELBO(particles=3).build(pair)(x)
    loss.backward()
    assert [name for name, parameter in pair.named_parameters() if parameter.grad is None or not parameter.grad.any()] == []
    with torch.no_grad():
        local = pair.guide.local(x)
        assert all(len(numbers) == ROWS for numbers in local)
        torch.manual_seed(0)
        z = pair.guide.posterior(x).sample()
        torch.manual_seed(0)
        for name, value in pair.guide.at(*local).sample().items():
            torch.testing.assert_close(value, z[name])
            assert value.shape == (ROWS, *pair.model.sites[name].event_shape)


@pytest.mark.parametrize("name", ["vectors--precision", "chain--residual"])
def test_the_recorded_step_is_the_eager_step(name: str) -> None:
    found = []
    for options in ({"compile": False}, {"ahead": WORTH_RECORDING}):
        pair = built(*PAIRS[name]).train()
        module = pv.BetaELBO(free_bits=0.1, warm_up=pv.LinearWarmUp(epochs=5)).build(pair)
        step = Step(module, pv.Transform(EVENT), OPTIMIZERS["adam"](module.parameters(), 1e-2), **options)
        torch.manual_seed(0)
        for _ in range(3):
            step(rows("binary"))
        found.append(module.state_dict())
        assert (step.way == "recorded") == ("ahead" in options)
    for key, value in found[1].items():
        torch.testing.assert_close(value, found[0][key], rtol=1e-5, atol=1e-6)


def test_free_bits_are_of_a_group() -> None:
    pair, x = built(MODELS["vectors"], pv.TopDown()), rows("binary")
    with torch.no_grad():
        torch.manual_seed(0)
        loss = pv.BetaELBO(free_bits=50.0).build(pair)(x).loss
        torch.manual_seed(0)
        reconstruction = elbo_terms(pair, (x,)).reconstruction.mean()
    torch.testing.assert_close(-loss, reconstruction - 3 * 50.0)


def test_draws_from_the_prior_give_the_integral_over_the_groups() -> None:
    groups = (pv.Group(latent_dim=1, network=TINY), pv.Group(latent_dim=1, features=3, network=TINY))
    pair = built(pv.HierarchicalVAE(groups=groups), pv.TopDown(), pv.DataSpec(event_shape=(2,), kind="binary", size=9)).double()
    x = torch.tensor([[0.0, 1.0], [1.0, 1.0]], **DOUBLE)
    line = torch.linspace(-8, 8, 401, **DOUBLE)
    z = {"z2": line.expand(401, 401).reshape(-1, 1), "z1": line[:, None].expand(401, 401).reshape(-1, 1)}
    with torch.no_grad():
        p, likelihood = pair.model.prior().log_prob(z), pair.model.decode(z)
        exact = torch.stack([(p + likelihood.log_prob(row)).logsumexp(0) for row in x]) + 2 * math.log(line[1] - line[0])
        torch.manual_seed(0)
        drawn = pair.model.decode(pair.model.prior().sample((20000,)))
        sampled = torch.stack([drawn.log_prob(row).exp().mean() for row in x]).log()
    torch.testing.assert_close(sampled, exact, rtol=0, atol=0.01)


# --- what a fit is asked --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fit() -> pv.inference.Fit:
    data = pv.load_data(rows("binary").numpy(), valid=0.0, test=0.0)
    return pv.fit(MODELS["maps"], data, method=pv.SVI(epochs=2, compile=False))


def test_the_default_guide_is_top_down_and_each_group_has_its_numbers(fit: pv.inference.Fit) -> None:
    assert fit.guide == pv.TopDown()
    found = fit.latents(rows("binary"), rows=ROWS, samples=2)
    assert list(found["sites"]) == ["z3", "z2", "z1"]
    assert found["kl"] == pytest.approx(sum(site["kl"] for site in found["sites"].values()))
    assert [site["units"] for site in found["sites"].values()] == [2, 1, 32]


def test_data_come_from_the_upper_groups_alone(fit: pv.inference.Fit) -> None:
    codes = fit.encode(rows("binary"))
    top = {"z3": codes["z3"]}
    with torch.no_grad():
        prior = fit.pair.model.prior()
        filled, _ = prior.walk(lambda name, factor: top.get(name, factor.mean))
    torch.testing.assert_close(fit.decode(top), fit.decode(filled))
    torch.testing.assert_close(fit.decode(codes), fit.reconstruct(rows("binary")))
    assert (fit.decode(top) - fit.decode(codes)).abs().max() > 1e-3


def test_a_temperature_multiplies_the_scales(fit: pv.inference.Fit) -> None:
    cold = fit.sample(3, temperature=0.0, means=True)
    torch.testing.assert_close(cold, fit.decode({"z3": torch.zeros(3, 2)}))
    flat = pv.fit(pv.VAE(latent_dim=2, decoder=pv.Linear(), likelihood=pv.Gaussian()), rows("real"), method=pv.SVI(epochs=1))
    spread = [flat.sample(50, means=True, seed=1, temperature=t).flatten(1) for t in (0.0, 0.5, 1.0)]
    torch.testing.assert_close(spread[1] - spread[0], (spread[2] - spread[0]) / 2)
    torch.testing.assert_close(spread[2], flat.sample(50, means=True, seed=1).flatten(1))
    with pytest.raises(ValueError, match="expected a temperature of at least 0, got -1"):
        fit.sample(1, temperature=-1.0)


def test_a_vector_of_any_length_stands_above_maps() -> None:
    groups = (pv.Group(latent_dim=3), pv.Group(latent_dim=1, size=7, features=2), pv.Group(latent_dim=1, size=14, features=2))
    spec = pv.DataSpec(event_shape=(1, 28, 28), kind="binary", size=4)
    pair = built(pv.HierarchicalVAE(groups=groups), pv.TopDown(), spec)
    with torch.no_grad():
        codes = pair.guide.posterior(torch.zeros(2, 1, 28, 28)).sample()
        assert [tuple(code.shape) for code in codes.values()] == [(2, 3), (2, 1, 7, 7), (2, 1, 14, 14)]
        assert pair.model.decode(codes).mean.shape == (2, 1, 28, 28)


def test_each_group_has_a_temperature_of_its_own(fit: pv.inference.Fit) -> None:
    names = list(fit.pair.model.sites)
    same, cold = fit.sample(3, temperature=dict.fromkeys(names, 0.3)), fit.sample(3, temperature=0.3)
    assert torch.equal(same, cold)
    assert torch.equal(fit.sample(3, temperature=dict.fromkeys(names, 1.0)), fit.sample(3))
    with torch.no_grad():
        drawn = cooled(fit.pair.model.prior().expand((20,)), {names[0]: 0.0})
    assert not drawn[names[0]].std(0).any()
    assert all(drawn[name].std(0).all() for name in names[1:])
    with pytest.raises(ValueError, match=f"expected temperatures of {', '.join(names)}, got one of z9"):
        fit.sample(1, temperature={"z9": 0.5})
    with pytest.raises(ValueError, match="expected a temperature of at least 0, got -1"):
        fit.sample(1, temperature={names[0]: 0.5, names[1]: -1.0})


def test_each_group_has_a_warm_up_and_free_bits_of_its_own() -> None:
    each = pv.BetaELBO(beta=2.0, warm_up=(pv.NoWarmUp(), pv.LinearWarmUp(epochs=4)), free_bits=(0.5, 3.0))
    weigh = KLWeights(each, steps_per_epoch=1)
    kl = torch.tensor([1.0, 1.0])
    weigh(kl)
    weights, offset = weigh(kl)  # 2 (1 KL_1 + 1/4 max(3, KL_2))
    torch.testing.assert_close(weights, torch.tensor([2.0, 0.0]))
    torch.testing.assert_close(offset, torch.tensor(2 * 3 / 4))
    weights, offset = weigh(torch.tensor([0.2, 4.0]))
    torch.testing.assert_close(weights, torch.tensor([0.0, 2 * 2 / 4]))
    torch.testing.assert_close(offset, torch.tensor(2 * 0.5))
    with pytest.raises(ValueError, match="expected warm_up of each of 3 latent sites, or one for all, got 2"):
        weigh(torch.ones(3))
    with pytest.raises(ValueError, match="one warm_up with a capacity"):
        pv.BetaELBO(warm_up=(pv.NoWarmUp(),), capacity=3.0)
    pair = built(MODELS["vectors"], pv.TopDown())
    with pytest.raises(ValueError, match="expected free_bits of each of 3 latent sites, or one for all, got 2"):
        pv.BetaELBO(free_bits=(1.0, 2.0)).build(pair)(rows("binary"))


# --- bad input ------------------------------------------------------------------------------------------------------------


def test_groups_that_do_not_fit_are_refused() -> None:
    image = pv.DataSpec(event_shape=(1, 28, 28), kind="binary", size=9)
    maps = tuple(pv.Group(size=size) for size in (4, 7, 14))
    pv.HierarchicalVAE(groups=(pv.Group(), *maps)).check(image)
    with pytest.raises(ValueError, match="14 x 14 above 28 x 28, got 7 x 7"):
        pv.HierarchicalVAE(groups=maps[:2]).check(image)
    with pytest.raises(ValueError, match="7 x 7 above 14 x 14, got 4 x 4"):
        pv.HierarchicalVAE(groups=(maps[0], maps[2])).check(image)
    with pytest.raises(ValueError, match="no maps, since these are no images, got 4 x 4"):
        pv.HierarchicalVAE(groups=maps[:1]).check(pv.DataSpec(event_shape=(5,), kind="binary", size=9))
    with pytest.raises(ValueError, match="got a vector below maps"):
        pv.HierarchicalVAE(groups=(maps[2], pv.Group())).check(image)
    with pytest.raises(ValueError, match="expected at least one group"):
        pv.HierarchicalVAE(groups=())
    with pytest.raises(ValueError, match="expected a prior of real vectors"):
        pv.HierarchicalVAE(prior=pv.Dirichlet())
    with pytest.raises(ValueError, match="made of the guide's posteriors"):
        built(pv.HierarchicalVAE(prior=pv.VampPrior()), pv.TopDown())
    with pytest.raises(ValueError, match=r"TopDown is a guide of groups .* use AmortizedNormal"):
        built(pv.VAE(), pv.TopDown())
    with pytest.raises(ValueError, match="AmortizedNormal is a guide of one latent variable, but this model has z2, z1"):
        built(pv.HierarchicalVAE(), pv.AmortizedNormal())
