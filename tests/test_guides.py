"""Guides against what is exact about them: changes of variables, integrals, closed forms, enumeration."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace
from typing import Any

import pyro
import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence
from torch.func import functional_call

import ppl_vae as pv
from ppl_vae.evaluate import elbo_terms, log_weights
from ppl_vae.guides.coordinates import POINTS, Pushforward, standard_points
from ppl_vae.guides.gumbel import Concrete
from ppl_vae.guides.mixture import PathwiseMixture
from ppl_vae.nn.curves import Affine, RationalQuadraticSpline
from ppl_vae.nn.masked import MaskedNetwork, MaskedTransform
from ppl_vae.program.capture import capture, check_agreement
from ppl_vae.program.context import local_params
from ppl_vae.simplex import of_logarithms
from tests.table import EVENT, GUIDES, LATENT, PRIORS, TINY, built, fits, guide_for, kind_for, rows, tiny_flow, vae

MC = 4.5  # standard errors of a Monte Carlo mean that are allowed

FLOWS = {name: guide for name, guide in GUIDES.items() if isinstance(guide, pv.AmortizedFlow)}
DENSITIES = {name: guide for name, guide in GUIDES.items() if fits(vae(), guide) and not isinstance(guide, pv.AmortizedDelta)}
CONSTRAINED = {
    "positive": pv.HalfNormal(),
    "interval": pv.Uniform(low=-1.0, high=2.0),
    "simplex": pv.Dirichlet(concentration=2.0),
}


def cases(table: dict) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("entry", table.values(), ids=table.keys())


def shaken(pair: pv.Pair, size: float = 0.3) -> pv.Pair:
    """The pair in float64, away from its start, where flows are nearly the identity."""
    torch.manual_seed(1)
    pair = pair.double()
    with torch.no_grad():
        for parameter in pair.guide.parameters():
            parameter.add_(size * torch.randn_like(parameter))
    return pair


def data(model: pv.Model, n: int = 24) -> Tensor:
    return rows(kind_for(model), n, dtype=torch.float64)


def climb(pair: pv.Pair, x: Tensor, steps: int) -> None:
    """Bring the guide near the posterior, so that importance weights have a variance."""
    optimizer = torch.optim.Adam(pair.guide.parameters(), 2e-2)
    objective = pv.ELBO().build(pair)
    for _ in range(steps):
        optimizer.zero_grad()
        with local_params(), pyro.validation_enabled(False):
            objective(x)[0].backward()
        optimizer.step()


def through(q: Pushforward, u: Tensor) -> Tensor:
    for transform in q.transforms:
        u = transform(u)
    return u


def base_of(q: Any) -> Any:
    return base_of(q.base_dist) if isinstance(q, Pushforward) else q


def image(q: Any, u: Tensor) -> Tensor:
    return through(q, image(q.base_dist, u)) if isinstance(q, Pushforward) else u


# --- densities ------------------------------------------------------------------------------------------------------------


@cases(DENSITIES)
@pytest.mark.parametrize("prior", [pv.StandardNormal(), *CONSTRAINED.values()], ids=["real", *CONSTRAINED])
def test_the_density_of_own_draws_is_the_change_of_variables(entry: pv.Guide, prior: pv.Prior) -> None:
    model = vae(prior=prior)
    guide = shaken(built(model, entry)).guide
    x = data(model, 1)
    torch.manual_seed(3)
    u = base_of(guide.posterior(x)).sample()
    q = guide.posterior(x)
    torch.manual_seed(3)
    z = q.rsample()
    torch.testing.assert_close(z, image(q, u))
    # A simplex has one coordinate less than entries: the last one follows from the others.
    jacobian = torch.autograd.functional.jacobian(lambda u: image(q, u), u).reshape(LATENT, -1)[: u.numel()]
    expected = base_of(q).log_prob(u) - torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(q.log_prob(z), expected)


@cases(DENSITIES)
@pytest.mark.parametrize("prior", [pv.StandardNormal(), *CONSTRAINED.values()], ids=["real", *CONSTRAINED])
def test_the_density_of_any_other_value_is_the_same_one(entry: pv.Guide, prior: pv.Prior) -> None:
    model = vae(prior=prior)
    guide = shaken(built(model, entry)).guide
    x = data(model, 5)
    torch.manual_seed(0)
    q = guide.posterior(x)
    z = q.sample((4,))
    torch.testing.assert_close(guide.posterior(x).log_prob(z.clone()), q.log_prob(z), rtol=1e-6, atol=1e-6)
    assert model.prior.build((LATENT,)).double()().support.check(z).all()


@cases(DENSITIES)
def test_a_density_integrates_to_one_in_the_plane(entry: pv.Guide) -> None:
    model = vae(latent_dim=2)
    guide = shaken(built(model, entry)).guide
    x = data(model, 1)
    with torch.no_grad():
        q = guide.posterior(x)
        draws = q.sample((2000,))
        centre, reach = draws.mean(0), 12 * draws.std(0)
        t = torch.linspace(-1, 1, 401, dtype=torch.float64)
        grid = centre + reach * torch.cartesian_prod(t, t)
        total = q.log_prob(grid[:, None]).exp().sum() * (t[1] - t[0]) ** 2 * reach.prod()
    torch.testing.assert_close(total.item(), 1.0, atol=2e-4, rtol=0)


def test_the_projected_normal_integrates_to_one_on_the_circle() -> None:
    model = vae(latent_dim=2, prior=pv.ProjectedNormal())
    guide = shaken(built(model, guide_for(model)), size=1.0).guide
    angle = torch.linspace(0, 2 * math.pi, 1001, dtype=torch.float64)
    q = guide.posterior(data(model, 3))
    density = q.log_prob(torch.stack([angle.cos(), angle.sin()], -1)[:, None]).exp()
    torch.testing.assert_close(torch.trapezoid(density, angle, dim=0), torch.ones(3, dtype=torch.float64))


def test_the_relaxed_density_integrates_to_one_on_the_simplex() -> None:
    model = vae(latent_dim=2, prior=pv.Dirichlet())
    guide = built(model, pv.AmortizedGumbel(encoder=TINY, temperature=0.7)).double().guide
    t = torch.linspace(-40, 40, 4001, dtype=torch.float64)
    s = torch.sigmoid(t)
    density = guide.posterior(data(model, 3)).log_prob(torch.stack([s, torch.sigmoid(-t)], -1)[:, None]).exp()
    total = torch.trapezoid(density * (s * (1 - s))[:, None], t, dim=0)
    # Torch's density is per length along the first coordinate.
    torch.testing.assert_close(total, torch.ones(3, dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.parametrize("temperature", [0.7, 0.1, 0.01])
def test_the_relaxed_density_of_two_classes_integrates_to_one_at_low_temperatures(temperature: float) -> None:
    q = Concrete(temperature, torch.tensor([0.3, -0.8], dtype=torch.float64))
    t = torch.linspace(-40, 40, 20001, dtype=torch.float64) / min(temperature, 1.0)  # log-odds
    log_s = torch.stack([t, torch.zeros_like(t)], -1).log_softmax(-1)
    log_density = q.log_prob(of_logarithms(log_s)) + log_s.sum(-1)  # ds = s (1 - s) dt
    assert torch.trapezoid(log_density.exp(), t).item() == pytest.approx(1, abs=1e-9)


def test_the_relaxed_density_is_that_of_torch_where_torch_has_one() -> None:
    logits = torch.randn(7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ours, theirs = (
        Concrete(0.5, logits),
        torch.distributions.RelaxedOneHotCategorical(torch.tensor(0.5).double(), logits=logits),
    )
    s = ours.sample((11,))
    torch.testing.assert_close(ours.log_prob(s), theirs.log_prob(s.clone()), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(ours.log_prob(s), ours.log_prob(s.clone()), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("gradient", ["pathwise", "sticking_the_landing", "doubly_reparameterized"])
@pytest.mark.parametrize("prior", [pv.Dirichlet(), pv.Dirichlet(concentration=0.3), pv.LogisticNormal()], ids=str)
def test_relaxed_draws_that_underflow_have_finite_densities_and_gradients(prior: pv.Prior, gradient: str) -> None:
    model = vae(latent_dim=20, prior=prior)
    pair = built(model, pv.AmortizedGumbel(encoder=TINY, temperature=0.01))
    x = data(model, 16).float()
    s = pair.guide.posterior(x).rsample((5,))
    assert (s == 0).float().mean() > 0.5  # they do underflow
    assert pair.guide.posterior(x).log_prob(s).isfinite().all()
    assert pair.model.prior().log_prob(s).isfinite().all()
    loss = pv.IWAE(samples=3, gradient=gradient).build(pair, 1)(x).loss
    loss.backward()
    gradients = [parameter.grad for parameter in pair.guide.parameters() if parameter.grad is not None]
    assert len(gradients) > 3
    assert all(bool(found.isfinite().all()) for found in gradients)


def test_the_gradient_through_draws_that_are_cut_off_follows_their_logarithms() -> None:
    """At a temperature where nothing underflows it is that of the same draws without a memory."""
    model = vae(latent_dim=3, prior=pv.Dirichlet(concentration=2.0))
    found = []
    for remember in (True, False):
        pair = built(model, pv.AmortizedGumbel(encoder=TINY, temperature=0.8)).double()
        x = data(model, 6)
        with pytest.MonkeyPatch.context() as patch:
            if not remember:
                patch.setattr("ppl_vae.guides.gumbel.of_logarithms", lambda log: log.softmax(-1))
            torch.manual_seed(0)
            pv.IWAE(samples=4, gradient="doubly_reparameterized").build(pair, 1)(x).loss.backward()
        found.append(torch.cat([p.grad.flatten() for p in pair.parameters() if p.grad is not None]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-8, atol=1e-10)


def test_a_vae_on_the_simplex_trains_at_a_low_temperature() -> None:
    method = pv.SVI(epochs=2, batch_size=8)
    x = rows("binary", 40).flatten(1).numpy()
    fit = pv.fit(vae(latent_dim=20, prior=pv.Dirichlet()), x, guide=pv.AmortizedGumbel(temperature=0.01), method=method)
    assert math.isfinite(fit.history[-1]["elbo"])


@cases({name: guide for name, guide in DENSITIES.items() if not isinstance(guide, pv.SemiAmortized)})
def test_a_latent_variable_of_several_axes(entry: pv.Guide) -> None:
    shape = (2, 1, 2)
    model = SimpleNamespace(latent_shape=shape)
    guide = entry.build(model, pv.DataSpec(event_shape=EVENT, kind="binary", size=10))
    q = guide.posterior(rows("binary", 5))
    z = q.rsample((3,))
    assert z.shape == (3, 5, *shape)
    assert q.log_prob(z).shape == (3, 5)
    assert q.mean.shape == (5, *shape)


# --- means ----------------------------------------------------------------------------------------------------------------


@cases(DENSITIES)
@pytest.mark.parametrize("prior", [pv.StandardNormal(), *CONSTRAINED.values()], ids=["real", *CONSTRAINED])
def test_the_mean_is_that_of_the_draws(entry: pv.Guide, prior: pv.Prior) -> None:
    model = vae(prior=prior)
    guide = shaken(built(model, entry), size=0.1).guide
    x = data(model, 6)
    torch.manual_seed(0)
    with torch.no_grad():
        q = guide.posterior(x)
        draws = q.sample((20000,))
    noise = MC * draws.std(0) / 20000**0.5
    assert ((q.mean - draws.mean(0)).abs() < noise + 0.05 * draws.std(0)).all()
    torch.testing.assert_close(guide.posterior(x[2:4]).mean, q.mean[2:4], msg="a datum's mean depends on its neighbours")


def test_fixed_points_have_the_moments_of_a_standard_normal() -> None:
    e = standard_points(5, POINTS)
    torch.testing.assert_close(e.mean(0), torch.zeros(5, dtype=torch.float64))
    torch.testing.assert_close(e.square().mean(0), torch.ones(5, dtype=torch.float64))


# --- normals --------------------------------------------------------------------------------------------------------------


def test_the_low_rank_kl_is_torchs() -> None:
    q = shaken(built(vae(), pv.AmortizedNormal(encoder=TINY, covariance="low_rank"))).guide.posterior(data(vae()))
    loc, scale = torch.randn(LATENT, dtype=torch.float64), torch.rand(LATENT, dtype=torch.float64) + 0.5
    ours = kl_divergence(q, Independent(Normal(loc, scale), 1))
    theirs = kl_divergence(MultivariateNormal(q.mean, q.covariance_matrix), MultivariateNormal(loc, scale.square().diag()))
    torch.testing.assert_close(ours, theirs)


def test_a_real_support_adds_nothing_to_a_guide() -> None:
    for prior in (pv.StandardNormal(), pv.GaussianMixture(components=2), pv.CouplingFlow(), pv.LaplacePrior()):
        q = built(vae(prior=prior)).guide.posterior(rows("binary"))
        assert isinstance(q, Independent)


# --- flows ----------------------------------------------------------------------------------------------------------------


@cases({"affine": Affine(), "spline": RationalQuadraticSpline(bins=5, bound=2.0)})
def test_a_curve_is_increasing_and_knows_its_slope_and_inverse(entry: Any) -> None:
    torch.manual_seed(0)
    theta = 2 * torch.randn(entry.size, dtype=torch.float64)
    x = torch.linspace(-4, 4, 401, dtype=torch.float64, requires_grad=True)
    y, log_slope = entry.forward(x, theta.expand(401, -1))
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert (y.diff() > 0).all()
    torch.testing.assert_close(log_slope, slope.log())
    torch.testing.assert_close(entry.inverse(y, theta.expand(401, -1)), x)
    same, zero = entry.forward(x, torch.zeros_like(theta).expand(401, -1))
    torch.testing.assert_close(same, x)
    torch.testing.assert_close(zero, torch.zeros_like(x))


@pytest.mark.parametrize("levels", [(0, 1, 2, 3), (3, 2, 1, 0), (0, 1, 0, 1), (0,)], ids=str)
@pytest.mark.parametrize("hidden", [(9,), (2, 5)], ids=str)
def test_a_masked_map_sees_lower_levels_alone(levels: tuple[int, ...], hidden: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    level = torch.tensor(levels)
    network = MaskedNetwork(level, 3, hidden, 2).double()
    torch.nn.init.normal_(network.last.weight)
    transform = MaskedTransform(network, Affine(), torch.randn(3, dtype=torch.float64))
    x = torch.randn(30, len(levels), dtype=torch.float64)
    jacobian = torch.stack([torch.autograd.functional.jacobian(transform, row) for row in x])
    earlier = level[:, None] > level
    assert (jacobian[:, ~earlier & ~torch.eye(len(levels), dtype=torch.bool)] == 0).all()
    if hidden == (9,):
        assert (jacobian[:, earlier] != 0).any(0).all()
    torch.testing.assert_close(MaskedTransform(network, Affine(), transform.context).inv(transform(x)), x)


@cases(FLOWS)
def test_a_flow_starts_near_its_base(entry: pv.AmortizedFlow) -> None:
    guide = built(vae(), entry).guide
    x = rows("binary")
    q = guide.posterior(x)
    u = q.base_dist.sample((50,))
    assert (through(q, u) - u).abs().max() < 0.2


def test_own_draws_are_scored_without_another_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    guide = built(vae(), tiny_flow(layers=3)).guide
    q = guide.posterior(rows("binary"))
    calls: list[int] = []
    forward = MaskedNetwork.forward
    monkeypatch.setattr(MaskedNetwork, "forward", lambda self, *args: calls.append(1) or forward(self, *args))
    q.log_prob(q.rsample())
    assert len(calls) == 3


# --- mixtures -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [1, 3])
def test_draws_of_a_mixture_carry_its_gradient(columns: int) -> None:
    torch.manual_seed(0)
    logits, loc, raw = (torch.randn(3, n, dtype=torch.float64) for n in (1, columns, columns))
    weight = torch.randn(columns, columns, dtype=torch.float64)
    parameters = [t.requires_grad_() for t in (logits[:, 0], loc, raw)]

    def mixture(n: int) -> PathwiseMixture:
        logits, loc, raw = (t.expand(n, *t.shape) for t in parameters)
        components = pyro.distributions.Normal(loc, raw.exp()).to_event(1)
        return PathwiseMixture(pyro.distributions.Categorical(logits=logits), components)

    pi, scale = parameters[0].softmax(0), parameters[2].exp()
    second = torch.einsum("c,ci,cj->ij", pi, loc, loc) + (pi @ scale.square()).diag()
    expected = torch.autograd.grad((weight * second).sum() + (pi @ loc).sum(), parameters)
    batches = []
    for _ in range(40):
        z = mixture(5000).rsample()
        value = torch.einsum("ni,ij,nj->n", z, weight, z) + z.sum(-1)
        batches.append(torch.autograd.grad(value.mean(), parameters))
    for exact, *found in zip(expected, *batches, strict=True):
        values = torch.stack(found)
        assert ((values.mean(0) - exact).abs() < MC * values.std(0) / 40**0.5 + 1e-9).all()


def test_draws_of_a_mixture_have_its_moments() -> None:
    guide = shaken(built(vae(), GUIDES["AmortizedMixture"]), size=0.5).guide
    torch.manual_seed(0)
    with torch.no_grad():
        q = guide.posterior(data(vae(), 5))
        z = q.sample((40000,))
    assert ((z.mean(0) - q.mean).abs() < MC * (q.variance / 40000).sqrt()).all()
    torch.testing.assert_close(z.var(0), q.variance, rtol=0.05, atol=0)


# --- one-hot codes --------------------------------------------------------------------------------------------------------

CODES = {"one": pv.OneHotCategorical(learned=True), "several": pv.FactorizedCategorical(groups=2, learned=True)}


def code_pair(prior: pv.Prior, guide: pv.Guide) -> pv.Pair:
    pair = built(vae(prior=prior, latent_dim=6), guide).double()
    with torch.no_grad():
        pair.model.prior.logits.copy_(torch.linspace(-1, 1, 6).reshape(pair.model.prior.logits.shape))
    return pair


@cases(CODES)
def test_straight_through_draws_are_one_hot_and_unbiased(entry: pv.Prior) -> None:
    q = code_pair(entry, pv.AmortizedGumbel(encoder=TINY)).guide.posterior(data(vae(), 4))
    torch.manual_seed(0)
    z = q.rsample((20000,))
    assert q.support.check(z).all()
    error = (z.mean(0) - q.mean).abs()
    assert (error < MC * (q.mean * (1 - q.mean) / 20000).sqrt()).all()
    torch.testing.assert_close(q.log_prob(z), q.expand((4,)).log_prob(z))


def test_straight_through_gradients_are_those_of_the_relaxation() -> None:
    q = code_pair(CODES["one"], pv.AmortizedGumbel(encoder=TINY, temperature=0.3)).guide.posterior(data(vae(), 4))
    logits = q.logits.detach().requires_grad_()
    weight = torch.randn(4, 6, dtype=torch.float64)
    torch.manual_seed(0)
    z = type(q)(0.3, logits).rsample()
    torch.manual_seed(0)
    soft = ((logits - torch.empty_like(logits).exponential_().log()) / 0.3).softmax(-1)
    found = torch.autograd.grad((weight * z).sum(), logits)
    torch.testing.assert_close(found, torch.autograd.grad((weight * soft).sum(), logits))
    torch.testing.assert_close(z.argmax(-1), soft.argmax(-1))


@cases(CODES)
def test_straight_through_and_enumeration_report_one_elbo(entry: pv.Prior) -> None:
    drawn = code_pair(entry, pv.AmortizedGumbel(encoder=TINY))
    summed = code_pair(entry, pv.AmortizedCategorical(encoder=TINY))
    summed.load_state_dict(drawn.state_dict())
    x = data(vae(), 8)
    with torch.no_grad(), local_params():
        loss, *_ = pv.ELBO().build(summed)(x)
        q, p = summed.guide.posterior(x), summed.model.prior()
        z = q.enumerate_support()
        log_q = q.log_prob(z)
        by_hand = (log_q.exp() * (p.log_prob(z) + summed.model.decode(z).log_prob(x) - log_q)).sum(0)
        torch.manual_seed(0)
        weights = log_weights(drawn, (x,), samples=4000)
        terms = elbo_terms(drawn, (x,), samples=4000)
    torch.testing.assert_close(-loss, by_hand.mean())
    assert ((weights.mean(0) - by_hand).abs() < MC * weights.std(0) / 4000**0.5).all()
    assert ((terms.elbo - by_hand).abs() < MC * weights.std(0) / 4000**0.5).all()


# --- bounds ---------------------------------------------------------------------------------------------------------------


@cases({name: guide for name, guide in GUIDES.items() if isinstance(guide, (pv.AmortizedFlow, pv.AmortizedMixture))})
def test_sampled_bounds_stay_below_log_p_of_x_and_reach_it(entry: pv.Guide) -> None:
    pair = shaken(built(pv.FactorAnalysis(latent_dim=LATENT), entry), size=0.1)
    x = rows("real", dtype=torch.float64)
    climb(pair, x, 200)
    with torch.no_grad():
        torch.manual_seed(0)
        weights = log_weights(pair, (x,), samples=8000)
        terms, exact = elbo_terms(pair, (x,), samples=8000), pair.model.log_prob(x)
    error = MC * weights.std(0) / 8000**0.5
    assert (terms.elbo < exact + error).all()
    assert ((terms.elbo - weights.mean(0)).abs() < 2 * error).all()
    torch.testing.assert_close(terms.reconstruction - terms.kl, terms.elbo)
    tighter = weights.logsumexp(0) - math.log(8000)
    assert (tighter > weights.mean(0)).all()
    relative = (weights - exact).exp()
    assert ((relative.mean(0) - 1).abs() < MC * relative.std(0) / 8000**0.5).all()


def test_a_points_elbo_is_the_log_joint_there() -> None:
    for model in (vae(), vae(prior=pv.Uniform()), pv.FactorAnalysis(latent_dim=LATENT)):
        pair = built(model, GUIDES["AmortizedDelta"]).double()
        x = data(model)
        with torch.no_grad():
            z = pair.guide.posterior(x).mean
            joint = pair.model.prior().log_prob(z) + pair.model.decode(z).log_prob(x)
            torch.testing.assert_close(elbo_terms(pair, (x,)).elbo, joint)
            torch.testing.assert_close(log_weights(pair, (x,), samples=1)[0], joint)


def test_richer_guides_close_the_gap_of_a_posterior_that_is_not_normal() -> None:
    """A bimodal posterior: |z| is seen, its sign is not. The KL to it falls with the family's reach."""
    grid = torch.linspace(-6, 6, 2401, dtype=torch.float64)[:, None]

    def log_joint(z: Tensor) -> Tensor:
        return -z.square().sum(-1) / 2 - 2 * (z.square().sum(-1) - 1).square()

    log_p = torch.logsumexp(log_joint(grid), 0) + math.log(12 / 2400)
    gaps = {}
    for name in ("AmortizedNormal-diagonal", "AmortizedMixture", "AmortizedFlow-spline"):
        torch.manual_seed(0)
        model = SimpleNamespace(latent_shape=(1,))
        guide = GUIDES[name].build(model, pv.DataSpec(event_shape=(1,), kind="real", size=1)).double()
        x = torch.zeros(64, 1, dtype=torch.float64)
        optimizer = torch.optim.Adam(guide.parameters(), 2e-2)
        for _ in range(400):
            q = guide.posterior(x)
            z = q.rsample()
            loss = (q.log_prob(z) - log_joint(z)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            q = guide.posterior(x[:1])
            z = q.sample((4000,))
            gaps[name] = (log_p - (log_joint(z) - q.log_prob(z)).mean()).item()
    assert gaps["AmortizedNormal-diagonal"] > 0.5
    assert 0 < gaps["AmortizedMixture"] < 0.1
    assert 0 < gaps["AmortizedFlow-spline"] < 0.3


# --- local steps ----------------------------------------------------------------------------------------------------------


def local_pair(**changes: Any) -> pv.Pair:
    guide = dataclasses.replace(pv.SemiAmortized(base=pv.AmortizedNormal(encoder=TINY), samples=2), **changes)
    return built(pv.FactorAnalysis(latent_dim=LATENT), guide).double()


def test_local_steps_climb_to_the_best_normal_of_each_datum() -> None:
    x = rows("real", dtype=torch.float64)
    elbos = []
    for steps in (1, 10, 800):
        pair = local_pair(steps=steps, learning_rate=0.05, clip_norm=10.0, differentiate=False, samples=64)
        with torch.no_grad():
            elbos.append(elbo_terms(pair, (x,)).elbo)
            base = elbo_terms(pv.Pair(pair.model, pair.guide.base), (x,)).elbo
            exact, posterior = pair.model.log_prob(x), pair.model.posterior(x)
    assert (elbos[0] > base).all()
    assert (elbos[1] > elbos[0]).all()
    best = Normal(posterior.mean, posterior.precision_matrix.diagonal(dim1=-2, dim2=-1).rsqrt())
    limit = exact - kl_divergence(Independent(best, 1), posterior)
    torch.testing.assert_close(elbos[2], limit, atol=1e-2, rtol=0)


@pytest.mark.parametrize("clip_norm", [0.5, 100.0])
def test_gradients_flow_through_local_steps(clip_norm: float) -> None:
    pair = local_pair(steps=3, clip_norm=clip_norm)
    x = rows("real", 3, dtype=torch.float64)
    for parameter in (pair.guide.base.encoder.network.layers[-1].bias, pair.model.decoder.layers.bias):

        def objective(value: Tensor, parameter: torch.nn.Parameter = parameter) -> Tensor:
            with torch.no_grad():
                before = parameter.clone()
                parameter.copy_(value)
                found = pair.guide.posterior(x).mean.square().sum()
                parameter.copy_(before)
            return found

        (found,) = torch.autograd.grad(pair.guide.posterior(x).mean.square().sum(), parameter)
        step = 1e-6 * torch.randn_like(parameter)
        numeric = (objective(parameter + step) - objective(parameter - step)) / 2
        torch.testing.assert_close((found * step).sum(), numeric, rtol=1e-5, atol=1e-12)


def test_stopped_local_steps_give_the_encoder_the_gradient_at_their_end() -> None:
    pair = local_pair(steps=3, differentiate=False)
    through = local_pair(steps=3)
    x = rows("real", dtype=torch.float64)
    torch.testing.assert_close(pair.guide.posterior(x).mean, through.guide.posterior(x).mean)
    bias = pair.guide.base.encoder.network.layers[-1].bias
    (found,) = torch.autograd.grad(pair.guide.posterior(x).mean.sum(), bias)
    torch.testing.assert_close(found, torch.cat([torch.full((LATENT,), 24.0), torch.zeros(LATENT)]).double())
    decoder = pair.model.decoder.layers.weight
    assert torch.autograd.grad(pair.guide.posterior(x).mean.sum(), decoder, allow_unused=True) == (None,)


def test_local_steps_need_no_gradients_around_them() -> None:
    pair = local_pair(steps=2)
    x = rows("real", dtype=torch.float64)
    expected = pair.guide.posterior(x).mean.detach()
    with torch.no_grad():
        found = pair.guide.posterior(x).mean
    torch.testing.assert_close(found, expected)
    assert not found.requires_grad
    assert all(parameter.grad is None for parameter in pair.parameters())


# --- programs -------------------------------------------------------------------------------------------------------------

RECORDED = {
    **{f"real-{name}": (vae(), guide) for name, guide in GUIDES.items() if fits(vae(), guide)},
    **{f"{name}-normal": (vae(prior=prior), guide_for(vae())) for name, prior in CONSTRAINED.items()},
    **{
        name: (model, guide_for(model))
        for name in ("ProjectedNormal", "OneHotCategorical", "FactorizedCategorical")
        for model in [vae(prior=PRIORS[name], latent_dim=6)]
    },
    "relaxed": (vae(prior=pv.Dirichlet()), pv.AmortizedGumbel(encoder=TINY)),
}


@cases(RECORDED)
def test_a_recorded_step_is_the_eager_one(entry: tuple) -> None:
    pair = built(*entry)
    x = rows(kind_for(entry[0]))
    pair.plates(x)
    objective = pv.ELBO().build(pair)
    names = [name for name, _ in objective.named_parameters()]
    state = [parameter.detach() for parameter in objective.parameters()]

    def gradients(*tensors: Tensor) -> list[Tensor]:
        values = {name: value.detach().requires_grad_() for name, value in zip(names, tensors[:-1], strict=True)}
        with local_params(), pyro.validation_enabled(False):
            loss, *_ = functional_call(objective, values, (tensors[-1],))
        return [loss.detach(), *torch.autograd.grad(loss, list(values.values()))]

    check_agreement(gradients, capture(gradients, state, [x]), state, [x])


BAD_VALUES = {
    "covariance": (pv.AmortizedNormal, {"covariance": "low rank"}),
    "rank": (pv.AmortizedNormal, {"rank": 0}),
    "components": (pv.AmortizedMixture, {"components": 0}),
    "transform": (pv.AmortizedFlow, {"transform": "maf"}),
    "layers": (pv.AmortizedFlow, {"layers": 0}),
    "hidden": (pv.AmortizedFlow, {"hidden": ()}),
    "hidden width": (pv.AmortizedFlow, {"hidden": (0,)}),
    "context": (pv.AmortizedFlow, {"context": 0}),
    "temperature": (pv.AmortizedGumbel, {"temperature": 0.0}),
    "temperature nan": (pv.AmortizedGumbel, {"temperature": float("nan")}),
    "steps": (pv.SemiAmortized, {"steps": 0}),
    "learning_rate": (pv.SemiAmortized, {"learning_rate": -1.0}),
    "clip_norm": (pv.SemiAmortized, {"clip_norm": 0.0}),
    "samples": (pv.SemiAmortized, {"samples": 3}),
}


@pytest.mark.parametrize(("cls", "fields"), BAD_VALUES.values(), ids=BAD_VALUES)
def test_bad_constructor_values(cls: type[pv.Guide], fields: dict) -> None:
    with pytest.raises(ValueError, match=r"expected .*, got "):
        cls(**fields)


def test_what_cannot_be_built_is_refused_with_the_remedy() -> None:
    codes = vae(prior=pv.FactorizedCategorical(groups=20), latent_dim=200)
    refusals: dict[str, tuple[pv.Model, pv.Guide]] = {
        "rank of at most the latent dimension 3, got 4.*full": (vae(), pv.AmortizedNormal(covariance="low_rank", rank=4)),
        "a flow needs a base.*AmortizedDelta.*use AmortizedNormal": (vae(), pv.AmortizedFlow(base=pv.AmortizedDelta())),
        "local steps start from.*AmortizedLinear.*use AmortizedNormal": (vae(), pv.SemiAmortized(base=pv.AmortizedLinear())),
        "made of the guide's own posteriors": (vae(prior=pv.VampPrior(components=2)), pv.SemiAmortized()),
        "AmortizedDelta cannot go with a prior": (vae(prior=pv.VampPrior(components=2)), pv.AmortizedDelta()),
        "variable is sphere: use AmortizedProjectedNormal": (vae(prior=pv.ProjectedNormal()), pv.AmortizedNormal()),
        "variable is one_hot: use AmortizedGumbel": (vae(prior=pv.OneHotCategorical()), pv.AmortizedFlow()),
        "variable is component: use ExactPosterior": (pv.GMM(components=2), pv.AmortizedGumbel()),
        r"1e\+20 values is too large.*use AmortizedGumbel": (codes, pv.AmortizedCategorical()),
    }
    for message, (model, guide) in refusals.items():
        with pytest.raises(ValueError, match=message):
            built(model, guide)


@pytest.mark.parametrize("guide", [pv.AmortizedLinear(), GUIDES["AmortizedFlow-iaf"]], ids=["linear", "flow"])
def test_a_guide_that_starts_from_data_takes_noisy_ones(guide: pv.Guide) -> None:
    data = pv.load_data(rows("unit_interval").numpy(), binarize="dynamic", valid=0.0, test=0.0)
    assert data.train.transform.noisy
    fitted = pv.fit(pv.VAE(latent_dim=2, decoder=TINY), data, guide=guide, method=pv.SVI(epochs=1))
    assert math.isfinite(fitted.history[-1]["elbo"])
