"""Priors against scipy, closed forms, quadrature and autograd."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import biject_to, kl_divergence
from torch.fx.experimental.proxy_tensor import make_fx

import ppl_vae as pv
from ppl_vae.evaluate import elbo_terms
from ppl_vae.priors.mixture import Mixture
from ppl_vae.priors.one_hot import GroupedOneHot
from ppl_vae.priors.projected_normal import ProjectedNormalDistribution
from tests.table import EVENT, PRIOR_SPEC, PRIORS, ROWS, SEED, built_prior, rows, start_of, vae

FLOWS = {
    name: prior for name, prior in PRIORS.items() if isinstance(prior, (pv.CouplingFlow, pv.AutoregressiveFlow, pv.SplineFlow))
}
LOC, SCALE = (0.5, -1.0, 2.0), (0.5, 1.0, 3.0)
COVARIANCE = ((2.0, 0.5, 0.0), (0.5, 1.0, -0.25), (0.0, -0.25, 0.5))
FULL = pv.MultivariateNormal(loc=LOC, covariance=COVARIANCE)


def doubles(prior: pv.Prior, shape: tuple[int, ...] = (3,)) -> Any:
    """The distribution in float64, with reproducible parameters."""
    return built_prior(prior, shape, dtype=torch.float64)()


def points(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)


def flow(prior: Any, shape: tuple[int, ...], strength: float = 10.0) -> torch.nn.Module:
    """A flow whose maps bend strongly."""
    module = built_prior(prior, shape, dtype=torch.float64)
    with torch.no_grad():
        for network in module.networks:
            network.last.weight.mul_(strength)
    return module


# --- against scipy --------------------------------------------------------------------------------------------------------

REFERENCES: dict[str, tuple[pv.Prior, Any]] = {
    "Normal": (pv.Normal(loc=LOC, scale=SCALE), stats.norm(LOC, SCALE)),
    "LaplacePrior": (pv.LaplacePrior(loc=LOC, scale=SCALE), stats.laplace(LOC, SCALE)),
    "Logistic": (pv.Logistic(loc=LOC, scale=SCALE), stats.logistic(LOC, SCALE)),
    "StudentTPrior": (pv.StudentTPrior(df=3.5, loc=LOC, scale=SCALE), stats.t(3.5, LOC, SCALE)),
    "Uniform": (pv.Uniform(low=-4.0, high=(4.0, 5.0, 6.0)), stats.uniform(-4, (8, 9, 10))),
}


@pytest.mark.parametrize(("prior", "reference"), REFERENCES.values(), ids=REFERENCES)
def test_independent_dimensions_are_scipys(prior: pv.Prior, reference: Any) -> None:
    z = points(50, 3)
    np.testing.assert_allclose(doubles(prior).log_prob(z), reference.logpdf(z).sum(-1), atol=1e-12)


@pytest.mark.parametrize(("prior", "reference"), REFERENCES.values(), ids=REFERENCES)
def test_draws_are_those_of_the_density(prior: pv.Prior, reference: Any) -> None:
    torch.manual_seed(SEED)
    uniform = reference.cdf(prior.build((3,))().sample((4000,)).numpy())
    assert all(stats.kstest(column, "uniform").pvalue > 1e-3 for column in uniform.T)


def test_the_full_normal_is_scipys() -> None:
    z, reference = points(50, 3), stats.multivariate_normal(LOC, COVARIANCE)
    np.testing.assert_allclose(doubles(FULL).log_prob(z), reference.logpdf(z), rtol=1e-6)


@pytest.mark.parametrize("given", [pv.Normal(loc=LOC, scale=SCALE), FULL])
def test_a_learned_normal_starts_at_the_given_moments(given: Any) -> None:
    z, learned = torch.randn(5, 3), dataclasses.replace(given, learned=True)
    torch.testing.assert_close(learned.build((3,))().log_prob(z), given.build((3,))().log_prob(z))
    assert not list(given.build((3,)).parameters())


def test_the_upper_bound_of_a_box_has_density() -> None:
    prior = pv.Uniform(low=0.0, high=2.0).build((2,))()
    torch.testing.assert_close(prior.log_prob(torch.tensor([[2.0, 0.0], [1.0, 1.0]])), torch.full((2,), -2 * math.log(2)))
    with pyro.validation_enabled(False):
        assert pv.Uniform(low=0.0, high=2.0).build((2,))().log_prob(torch.tensor([1.0, 2.1])) == -math.inf
    with pyro.validation_enabled(), pytest.raises(ValueError, match="support"):
        pv.Uniform(low=0.0, high=2.0).build((2,))().log_prob(torch.tensor([1.0, 2.1]))


def test_the_grid_is_the_mixture_over_all_its_points() -> None:
    grid = pv.GaussianGrid(points=3, extent=2.0, scale=0.5)
    axis = torch.tensor([-2.0, 0.0, 2.0], dtype=torch.float64)
    centres = torch.cartesian_prod(axis, axis)
    mixture = dist.MixtureSameFamily(dist.Categorical(torch.ones(9).double()), dist.Normal(centres, 0.5).to_event(1))
    z = 2 * points(40, 2)
    torch.testing.assert_close(doubles(grid, (2,)).log_prob(z), mixture.log_prob(z))
    assert not list(grid.build((2,)).parameters())


# --- integrals in two dimensions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, prior in PRIORS.items() if prior.support not in ("sphere", "one_hot")])
def test_a_density_integrates_to_one_in_two_dimensions(name: str) -> None:
    columns = 3 if PRIORS[name].support == "simplex" else 2
    reach = 15 if PRIORS[name].support == "real" else math.asinh(40)
    prior = doubles(PRIORS[name], (columns,))
    t = torch.linspace(-reach, reach, 1201, dtype=torch.float64)
    bijection = biject_to(prior.support)
    u = torch.stack(torch.meshgrid(t.sinh(), t.sinh(), indexing="ij"), -1)
    with torch.no_grad():
        z = bijection(u)
        density = (prior.log_prob(z) + bijection.log_abs_det_jacobian(u, z)).exp() * t.cosh() * t.cosh()[:, None]
    torch.testing.assert_close(torch.trapezoid(torch.trapezoid(density, t), t).item(), 1.0, atol=1e-3, rtol=0)


@pytest.mark.parametrize("loc", [0.0, (1.0, -0.5, 2.0), (3.0, 0.0, 0.0)])
def test_a_density_on_the_sphere_integrates_to_one(loc: Any) -> None:
    prior = doubles(pv.ProjectedNormal(loc=loc))
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(60))
    angle = torch.linspace(0, 2 * math.pi, 121, dtype=torch.float64)[:-1]
    height, angle = torch.meshgrid(nodes, angle, indexing="ij")
    ring = (1 - height.square()).sqrt()
    density = prior.log_prob(torch.stack([ring * angle.cos(), ring * angle.sin(), height], -1)).exp()
    torch.testing.assert_close((density.mean(-1) * weights).sum().item() * 2 * math.pi, 1.0, atol=1e-9, rtol=0)


# --- the sphere and the simplex -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [2, 3, 4])
def test_the_projected_normal_is_pyros_where_pyro_has_it(columns: int) -> None:
    loc, z = points(5, columns), torch.nn.functional.normalize(points(7, 1, columns), dim=-1)
    torch.testing.assert_close(ProjectedNormalDistribution(loc).log_prob(z), dist.ProjectedNormal(loc).log_prob(z))


@pytest.mark.parametrize("columns", [2, 5, 40, 300])
def test_without_a_location_the_sphere_is_uniform(columns: int) -> None:
    prior = pv.ProjectedNormal().build((columns,))()
    z = prior.sample((6,))
    area = math.log(2) + columns / 2 * math.log(math.pi) - math.lgamma(columns / 2)
    torch.testing.assert_close(prior.log_prob(z), torch.full((6,), -area), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("strength", [-30.0, -3.0, 0.0, 3.0, 30.0])
def test_the_projected_normals_density_is_finite_and_smooth_however_concentrated(strength: float) -> None:
    loc = torch.zeros(10, dtype=torch.float64)
    loc[0] = strength
    loc.requires_grad_()
    z = torch.nn.functional.normalize(points(10), dim=-1)
    assert torch.autograd.gradcheck(lambda m: ProjectedNormalDistribution(m).log_prob(z), loc)


def test_the_logistic_normal_is_the_softmax_of_normals() -> None:
    prior = doubles(pv.LogisticNormal(loc=LOC, scale=SCALE))
    torch.manual_seed(SEED)
    h = torch.tensor(LOC) + torch.tensor(SCALE) * torch.randn(20000, 3)
    ours, theirs = prior.sample((20000,)).numpy(), h.softmax(-1).numpy()
    assert all(stats.ks_2samp(a, b).pvalue > 1e-3 for a, b in zip(ours.T, theirs.T, strict=True))
    pi = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    # By hand: the normal density of the two log-ratios, and their Jacobian in the first two entries of pi.
    ratios = (pi[:2] / pi[2]).log()
    covariance = np.diag(np.square(SCALE[:2])) + SCALE[2] ** 2
    volume = torch.autograd.functional.jacobian(lambda p: (p / (1 - p.sum())).log(), pi[:2]).logdet()
    expected = stats.multivariate_normal(np.array(LOC[:2]) - LOC[2], covariance).logpdf(ratios) + volume.item()
    assert prior.log_prob(pi).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("offset", "apart", "scale"), [(1e6, 1.0, 1e-1), (0.0, 1e4, 1e-3), (1e6, 1e4, 1e-2)])
def test_a_mixture_of_normals_is_exact_far_from_zero(dtype: torch.dtype, offset: float, apart: float, scale: float) -> None:
    loc = (offset + apart * points(5, 3)).to(dtype)
    normals = dist.Normal(loc, torch.full_like(loc, scale)).to_event(1)
    weights = dist.Categorical(logits=torch.zeros(5, dtype=dtype))
    z = loc + (scale * points(5, 3)).to(dtype)
    exact = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=torch.zeros(5, dtype=torch.float64)),
        torch.distributions.Independent(torch.distributions.Normal(loc.double(), normals.base_dist.scale.double()), 1),
    )
    torch.testing.assert_close(
        Mixture(weights, normals).log_prob(z), exact.log_prob(z.double()).to(dtype), rtol=1e-6, atol=1e-6
    )


# --- flows ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prior", FLOWS.values(), ids=FLOWS)
@pytest.mark.parametrize("shape", [(4,), (2, 3)])
def test_a_flows_density_is_the_change_of_variables(prior: pv.Prior, shape: tuple[int, ...]) -> None:
    module = flow(prior, shape)

    def to_noise(z: Tensor) -> Tensor:
        for transform in reversed(module().transforms):
            z = transform.inv(z)
        return z

    for z in 2 * points(5, *shape):
        jacobian = torch.autograd.functional.jacobian(to_noise, z).reshape(z.numel(), -1)
        noise = -to_noise(z).square().sum() / 2 - z.numel() / 2 * math.log(2 * math.pi)
        torch.testing.assert_close(module().log_prob(z), noise + torch.linalg.slogdet(jacobian).logabsdet)
        assert (jacobian - torch.eye(z.numel())).abs().max() > 0.1


@pytest.mark.parametrize("prior", FLOWS.values(), ids=FLOWS)
def test_a_flows_draws_come_from_its_density(prior: pv.Prior) -> None:
    module = flow(prior, (4,))
    torch.manual_seed(SEED)
    z = module().sample((200,))
    drawn = module()
    again = drawn.rsample((200,))
    torch.testing.assert_close(drawn.log_prob(again), module().log_prob(again))  # from the cache, and afresh
    noise = z
    for transform in reversed(module().transforms):
        noise = transform.inv(noise)
    torch.manual_seed(SEED)
    torch.testing.assert_close(noise, torch.randn(200, 4, dtype=torch.float64), atol=1e-7, rtol=0)


@pytest.mark.parametrize("prior", FLOWS.values(), ids=FLOWS)
def test_a_flows_density_follows_its_parameters(prior: pv.Prior) -> None:
    module = flow(prior, (3,))
    z = points(6, 3)
    before = module().log_prob(z).sum()
    before.backward()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * parameter.grad.sign())
    module.zero_grad()
    after = module().log_prob(z).sum()  # of the very same tensor, which a stale cache would take for known
    after.backward()
    assert after != before
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters())


@pytest.mark.parametrize("prior", FLOWS.values(), ids=FLOWS)
def test_a_flow_learns_a_density_that_is_not_normal(prior: Any) -> None:
    torch.manual_seed(SEED)
    z = torch.stack([torch.randn(2000), 2 * torch.randn(2000)], 1)
    z[:, 1] += z[:, 0].square()
    entropy = 1 + math.log(2 * math.pi) + math.log(2)
    normal = torch.distributions.MultivariateNormal(z.mean(0), z.T.cov()).log_prob(z).mean()
    module = dataclasses.replace(prior, hidden=(32,), layers=4).build((2,))
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        loss = -module().log_prob(z).mean()
        loss.backward()
        optimizer.step()
    assert loss.item() == pytest.approx(entropy, abs=0.1)
    assert -normal > entropy + 0.2


# --- one-hot codes --------------------------------------------------------------------------------------------------------


def test_grouped_codes_are_independent_categoricals() -> None:
    logits = points(5, 2, 3)
    ours = GroupedOneHot(logits)
    theirs = dist.OneHotCategorical(logits=logits).to_event(1)
    values = ours.enumerate_support()
    assert values.shape == (9, 5, 6)
    assert len(values[:, 0].unique(dim=0)) == 9
    torch.testing.assert_close(ours.log_prob(values), theirs.log_prob(values.unflatten(-1, (2, 3))))
    torch.testing.assert_close(ours.log_prob(values).exp().sum(0), torch.ones(5, dtype=torch.float64))
    torch.testing.assert_close(ours.mean, (ours.log_prob(values).exp().unsqueeze(-1) * values).sum(0))
    p = GroupedOneHot(points(2, 3).roll(1)).expand((5,))
    enumerated = (ours.log_prob(values).exp() * (ours.log_prob(values) - p.log_prob(values))).sum(0)
    torch.testing.assert_close(kl_divergence(ours, p), enumerated)


def test_what_is_not_a_code_is_refused() -> None:
    prior = pv.FactorizedCategorical(groups=2).build((4,))()
    assert prior.log_prob(torch.tensor([0.0, 1.0, 1.0, 0.0])) == pytest.approx(-2 * math.log(2))
    for wrong in ([1.0, 1.0, 0.0, 0.0], [0.5, 0.5, 1.0, 0.0]):
        with pyro.validation_enabled(), pytest.raises(ValueError, match="support"):
            pv.FactorizedCategorical(groups=2).build((4,))().log_prob(torch.tensor(wrong))


# --- divergences ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prior", [pv.LaplacePrior(loc=LOC, scale=SCALE), pv.MultivariateNormal(loc=LOC, covariance=COVARIANCE)]
)
@pytest.mark.parametrize("full", [False, True])
def test_closed_divergences_are_the_sampled_ones(prior: pv.Prior, full: bool) -> None:
    loc, scale = points(3), points(3).exp()
    q = dist.MultivariateNormal(loc, scale_tril=scale.diag()) if full else dist.Normal(loc, scale).to_event(1)
    p = doubles(prior)
    if full and isinstance(prior, pv.LaplacePrior):
        with pytest.raises(NotImplementedError):
            kl_divergence(q, p)
        return
    torch.manual_seed(SEED)
    z = q.sample((40000,))
    sampled = q.log_prob(z) - p.log_prob(z)
    assert abs(sampled.mean() - kl_divergence(q, p)) < 4 * sampled.std() / 200


# --- mixtures of the guide's posteriors -----------------------------------------------------------------------------------


def met(prior: pv.Prior, spec: pv.DataSpec = PRIOR_SPEC, seed: int = SEED) -> pv.Pair:
    """A pair whose prior has met the guide."""
    torch.manual_seed(seed)
    pair = pv.build(vae(prior=prior), pv.AmortizedNormal(encoder=pv.MLP(hidden=(7,))), spec)
    pair.model.prior.attach(pair.guide.posterior, spec)
    return pair


def split(n: int = ROWS) -> pv.Split:
    return pv.load_data(rows("binary", n).numpy(), valid=0.0, test=0.0).train


POSTERIOR_MIXTURES = {name: prior for name, prior in PRIORS.items() if isinstance(prior, (pv.VampPrior, pv.ExemplarPrior))}


def test_vamp_is_the_mixture_of_posteriors_at_its_pseudo_inputs() -> None:
    pair = met(pv.VampPrior(components=5, weights="learned"))
    prior = pair.model.prior
    with torch.no_grad():
        prior.logits.copy_(torch.arange(5.0))
        prior.pseudo_inputs.add_(1.0)
    z = torch.randn(8, 3)
    posteriors = [pair.guide.posterior(u[None].clamp(0, 1)).log_prob(z) for u in prior.pseudo_inputs]
    expected = (torch.stack(posteriors) + torch.arange(5.0).log_softmax(0)[:, None]).logsumexp(0)
    torch.testing.assert_close(prior().log_prob(z), expected)


def test_exemplars_are_training_data_and_share_one_scale() -> None:
    pair, data = met(pv.ExemplarPrior(components=6, scale=0.5)), split()
    prior = pair.model.prior
    prior.start_fit(start_of(data))
    seen = data.transformed()
    assert ((prior.exemplars[:, None] == seen).flatten(2).all(-1).sum(1) == 1).all()
    assert len(prior.exemplars.unique(dim=0)) == 6
    z = torch.randn(8, 3)
    kernels = torch.stack(
        [dist.Normal(pair.guide.posterior(x[None]).mean, 0.5).to_event(1).log_prob(z) for x in prior.exemplars]
    )
    torch.testing.assert_close(prior().log_prob(z), kernels.logsumexp(0) - math.log(6))


def test_there_are_no_more_exemplars_than_data() -> None:
    pair = met(pv.ExemplarPrior(components=500), dataclasses.replace(PRIOR_SPEC, size=ROWS))
    assert len(pair.model.prior.exemplars) == ROWS


def test_pseudo_inputs_start_from_data_inside_their_range() -> None:
    pair, data = met(pv.VampPrior(components=2 * ROWS)), split()
    prior = pair.model.prior
    prior.start_fit(start_of(data))
    nearest = torch.cdist(prior.pseudo_inputs.detach().flatten(1), data.transformed().flatten(1)).min(1)
    assert nearest.values.max() < 0.01 * 5 * math.prod(EVENT) ** 0.5
    assert (nearest.indices.bincount(minlength=ROWS) == 2).all()
    assert len(prior.pseudo_inputs.unique(dim=0)) == 2 * ROWS
    assert prior.pseudo_inputs.min() >= 0
    assert prior.pseudo_inputs.max() <= 1
    prior().log_prob(torch.randn(3, 3)).sum().backward()
    assert (prior.pseudo_inputs.grad != 0).float().mean() > 0.8  # not behind a dead unit


def test_pseudo_inputs_from_noise_stay_where_they_are() -> None:
    pair = met(pv.VampPrior(components=5, start="noise"))
    before = pair.model.prior.pseudo_inputs.clone()
    pair.model.prior.start_fit(start_of(split()))
    assert torch.equal(pair.model.prior.pseudo_inputs, before)


@pytest.mark.parametrize(
    ("kind", "levels", "low", "high"),
    [
        ("binary", None, 0, 1),
        ("unit_interval", None, 0, 1),
        ("categorical", 5, 0, 4),
        ("count", None, 0, math.inf),
        ("real", None, -math.inf, math.inf),
    ],
)
def test_pseudo_inputs_are_seen_in_the_range_of_the_data(kind: Any, levels: int | None, low: float, high: float) -> None:
    module = pv.VampPrior(components=50).build((3,))
    shown: list[Tensor] = []

    def posterior(x: Tensor) -> Any:
        shown.append(x)
        return dist.Normal(x.flatten(1)[:, :3], 1.0).to_event(1)

    module.attach(posterior, pv.DataSpec(event_shape=EVENT, kind=kind, size=10, levels=levels))
    assert low <= module.pseudo_inputs.min()
    assert module.pseudo_inputs.max() <= high
    assert module.pseudo_inputs.std() > 0.1
    with torch.no_grad():
        module.pseudo_inputs.add_(10 * torch.randn_like(module.pseudo_inputs))
    module()
    assert low <= shown[-1].min()
    assert shown[-1].max() <= high


@pytest.mark.parametrize("prior", POSTERIOR_MIXTURES.values(), ids=POSTERIOR_MIXTURES)
def test_the_guides_parameters_stay_the_guides(prior: pv.Prior) -> None:
    pair = met(prior)
    assert not any("encoder" in name for name in pair.model.state_dict())
    names = [name for name, _ in pair.named_parameters()]
    assert len(names) == len(set(names)) == len({id(parameter) for parameter in pair.parameters()})
    pair.model.prior().log_prob(torch.randn(4, 3)).sum().backward()
    assert all(parameter.grad is not None for parameter in pair.guide.parameters() if parameter.dim() == 2)


@pytest.mark.parametrize("prior", POSTERIOR_MIXTURES.values(), ids=POSTERIOR_MIXTURES)
def test_a_saved_state_is_loaded_after_meeting_the_guide(prior: pv.Prior) -> None:
    pair, other = met(prior), met(prior, seed=SEED + 1)
    pair.model.prior.start_fit(start_of(split()))
    z = torch.randn(5, 3)
    assert not torch.allclose(pair.model.prior().log_prob(z), other.model.prior().log_prob(z))
    other.load_state_dict(pair.state_dict())
    torch.testing.assert_close(pair.model.prior().log_prob(z), other.model.prior().log_prob(z), rtol=0, atol=0)


@pytest.mark.parametrize("prior", POSTERIOR_MIXTURES.values(), ids=POSTERIOR_MIXTURES)
def test_a_copied_pair_asks_its_own_guide(prior: pv.Prior) -> None:
    pair = met(prior)
    copied = copy.deepcopy(pair).double()
    z = torch.randn(5, 3)
    expected = pair.model.prior().log_prob(z)
    torch.testing.assert_close(copied.model.prior().log_prob(z.double()).float(), expected, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        for parameter in copied.guide.parameters():
            parameter.add_(1.0)
    torch.testing.assert_close(pair.model.prior().log_prob(z), expected, rtol=0, atol=0)
    assert not torch.allclose(copied.model.prior().log_prob(z.double()).float(), expected)


@pytest.mark.parametrize("prior", POSTERIOR_MIXTURES.values(), ids=POSTERIOR_MIXTURES)
def test_meeting_another_guide_keeps_what_was_learned(prior: pv.Prior) -> None:
    pair, other = met(prior), met(prior, seed=SEED + 1)
    module = pair.model.prior
    state = {name: value.clone() for name, value in module.state_dict().items()}
    module.attach(other.guide.posterior, PRIOR_SPEC)
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    module().log_prob(torch.randn(4, 3)).sum().backward()
    assert all(parameter.grad is None for parameter in pair.guide.parameters())


@pytest.mark.parametrize("prior", POSTERIOR_MIXTURES.values(), ids=POSTERIOR_MIXTURES)
def test_before_it_meets_a_guide_such_a_prior_tells_its_support_alone(prior: pv.Prior) -> None:
    module = prior.build((3,))
    assert module.support.check(torch.zeros(3))
    with pytest.raises(ValueError, match=r"has not met a guide: build model and guide together"):
        module()


@pytest.mark.parametrize("prior", POSTERIOR_MIXTURES.values(), ids=POSTERIOR_MIXTURES)
def test_a_pair_with_the_guides_own_posteriors_as_prior_learns(prior: pv.Prior) -> None:
    data = pv.load_data(rows("binary", 4).repeat_interleave(50, 0).numpy(), valid=0.0, test=0.0)
    pair = met(prior, data.spec)
    torch.manual_seed(SEED)
    pair.model.prior.start_fit(start_of(data.train))
    history = pv.SVI(epochs=40, learning_rate=1e-2).run(pair, data, lambda row: None)
    assert history[-1]["elbo"] > history[0]["elbo"] + 0.1
    terms = elbo_terms(pair, (data.train.transformed(),), samples=5)
    assert terms.elbo.isfinite().all()


def test_a_flow_that_would_be_inverted_for_every_pseudo_input_is_refused_before_training() -> None:
    model = pv.VAE(latent_dim=40, prior=pv.VampPrior(components=500))
    iwae = pv.SVI(objective=pv.IWAE(samples=50))
    x = torch.zeros(100, 4).numpy()
    with pytest.raises(ValueError, match=r"3200 draws of a step .* 500 posteriors .* by 80 passes .*: 1.28e\+08 passes a step"):
        pv.fit(model, x, guide=pv.AmortizedFlow(), method=iwae)


# --- graphs, stories, refusals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRIORS)
def test_a_density_can_be_captured_as_a_graph(name: str) -> None:
    with pyro.validation_enabled(False):
        module = built_prior(PRIORS[name])

        def density(z: Tensor) -> Tensor:
            return module().log_prob(z)

        torch.manual_seed(SEED)
        # Copies: what a graph is given are numbers, without the logarithms that points on a simplex remember.
        first, second = module().sample((5,)).clone(), module().sample((5,)).clone()
        graph = make_fx(density)(first)
        torch.testing.assert_close(graph(second), density(second))


STORIES: dict[str, Callable[[], str]] = {
    "Normal(mu0, diag(sigma0^2)), learned": lambda: pv.Normal(learned=True).story((3,)),
    "Normal(0, 2 I)": lambda: pv.MultivariateNormal(covariance=2.0).story((3,)),
    "Normal(0, Sigma0)": lambda: pv.MultivariateNormal(covariance=COVARIANCE).story((3,)),
    "Normal(mu0, Sigma0), learned": lambda: pv.MultivariateNormal(learned=True).story((3,)),
    "StudentT(5, 0, 1)": lambda: pv.StudentTPrior().story((3,)),
    "Laplace(0, 1)": lambda: pv.LaplacePrior().story((3,)),
    "Logistic(0, 1)": lambda: pv.Logistic().story((3,)),
    "Uniform(-1, 1)": lambda: pv.Uniform().story((3,)),
    "(1/5) sum_c q(z | u_c)": lambda: pv.VampPrior(components=5).story((3,)),
    "sum_c pi_c q(z | u_c)": lambda: pv.VampPrior(weights="learned").story((3,)),
    "CouplingFlow^4(Normal(0, I_3))": lambda: pv.CouplingFlow().story((3,)),
    "OneHot(Uniform{1..3})": lambda: pv.OneHotCategorical().story((3,)),
    "OneHot(Uniform{1..K})": lambda: pv.OneHotCategorical().story(()),
    "OneHot(Categorical(pi))": lambda: pv.OneHotCategorical(learned=True).story((3,)),
    "OneHot(Uniform{1..2}), g = 1..3": lambda: pv.FactorizedCategorical(groups=3).story((6,)),
    "Uniform(sphere)": lambda: pv.ProjectedNormal().story((3,)),
    "ProjectedNormal((1, 0), I)": lambda: pv.ProjectedNormal(loc=(1.0, 0.0)).story((2,)),
    "softmax(Normal(0, 1^2))": lambda: pv.LogisticNormal().story((3,)),
}


@pytest.mark.parametrize(("expected", "story"), STORIES.items())
def test_a_story_is_the_density(expected: str, story: Callable[[], str]) -> None:
    assert story() == expected


REFUSALS: dict[str, Callable[[], Any]] = {
    "positive scales": lambda: pv.LaplacePrior(scale=0.0),
    "a finite loc": lambda: pv.Logistic(loc=(0.0, math.nan)),
    "expected one scale or 3": lambda: pv.LaplacePrior(scale=(1.0, 2.0)).build((3,)),
    "positive degrees of freedom df": lambda: pv.StudentTPrior(df=0.0),
    "a low below high": lambda: pv.Uniform(low=1.0, high=1.0),
    "every low below its high": lambda: pv.Uniform(low=(0.0, 2.0), high=1.0).build((2,)),
    "a finite high": lambda: pv.Uniform(high=math.inf),
    "at least 2 points": lambda: pv.GaussianGrid(points=1),
    "a positive extent": lambda: pv.GaussianGrid(extent=0.0),
    "symmetric positive definite covariance": lambda: pv.MultivariateNormal(covariance=((1.0, 2.0), (2.0, 1.0))),
    "symmetric positive definite covariance, got ..1.0": lambda: pv.MultivariateNormal(covariance=((1.0, 0.1), (0.2, 1.0))),
    "symmetric positive definite covariance, got -1": lambda: pv.MultivariateNormal(covariance=-1.0),
    "symmetric positive definite covariance, got ..1.0, 0.0.,.": lambda: pv.MultivariateNormal(covariance=((1.0, 0.0),)),
    "a covariance of 3 rows": lambda: pv.MultivariateNormal(covariance=((1.0, 0.0), (0.0, 1.0))).build((3,)),
    "a latent vector for a full covariance": lambda: pv.MultivariateNormal().build((2, 2)),
    "at least 1 component": lambda: pv.VampPrior(components=0),
    "at least 1 component, got -1": lambda: pv.ExemplarPrior(components=-1),
    "a start of data or noise": lambda: pv.VampPrior(start="zeros"),  # type: ignore[arg-type]
    "weights that are uniform or learned": lambda: pv.VampPrior(weights="given"),  # type: ignore[arg-type]
    "at least 1 layer": lambda: pv.CouplingFlow(layers=0),
    "hidden widths of at least 1": lambda: pv.AutoregressiveFlow(hidden=()),
    "2 to 100 bins": lambda: pv.SplineFlow(bins=1),
    "a positive bound": lambda: pv.SplineFlow(bound=0.0),
    "at least 2 components": lambda: pv.LogisticNormal().build((1,)),
    "at least 2 dimensions for a sphere": lambda: pv.ProjectedNormal().build((1,)),
    "divides into 3 groups": lambda: pv.FactorizedCategorical(groups=3).build((4,)),
    "at least 1 group,": lambda: pv.FactorizedCategorical(groups=0),
    "a normal prior with given moments .StandardNormal, Normal.*learned=True": lambda: pv.PPCA(prior=pv.Normal(learned=True)),
    "a normal prior with given moments .*MultivariateNormal": lambda: pv.FactorAnalysis(prior=pv.MultivariateNormal()),
    "a prior of vectors": lambda: pv.VAE(prior=pv.InverseWishart()),
}


@pytest.mark.parametrize(("message", "attempt"), REFUSALS.items(), ids=range(len(REFUSALS)))
def test_what_cannot_be_is_refused(message: str, attempt: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=message):
        attempt()


@pytest.mark.parametrize("scale", [1e-3, 0.1, 10.0])
def test_a_sum_over_normals_by_products_is_that_of_torch(scale):
    """Centres far from zero against their scale are where multiplying out would lose digits in float32."""
    torch.manual_seed(0)
    loc, logits = 3 * torch.randn(7, 2, 3), torch.randn(7)
    z = (loc[torch.arange(20) % 7] + scale * torch.randn(20, 2, 3)).requires_grad_()
    mixture = Mixture(dist.Categorical(logits=logits), dist.Normal(loc, scale).to_event(2))
    components = dist.Normal(loc.double(), scale).to_event(2)
    exact = dist.MixtureSameFamily(dist.Categorical(logits=logits.double()), components)
    shared = mixture.expand((4, 20)).log_prob(z.expand(4, 20, 2, 3))
    reference = exact.log_prob(z.double())
    torch.testing.assert_close(shared, reference.float().expand(4, 20), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(mixture.log_prob(z), shared[0])
    gradients = (torch.autograd.grad(log_prob.sum(), z)[0] for log_prob in (mixture.log_prob(z), reference))
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4 / scale)
