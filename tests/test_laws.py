"""One table, many laws: every entry of the catalogue keeps the contract of its kind."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import pytest
import torch
import yaml
from pyro import poutine
from torch.distributions import Distribution, biject_to, constraints

import ppl_vae as pv
from ppl_vae.evaluate import elbo_terms, log_weights
from ppl_vae.inference.training.optimizers import OPTIMIZERS
from ppl_vae.inference.training.step import WORTH_RECORDING, Step
from ppl_vae.program.context import local_params
from tests.table import (
    DECLARATIONS,
    EVENT,
    EXACT,
    GUIDES,
    LATENT,
    LIKELIHOODS,
    MODELS,
    NETWORKS,
    OBJECTIVES,
    PRIORS,
    ROWS,
    built,
    built_prior,
    fits,
    guide_for,
    kind_for,
    latent_site,
    rows,
    vae,
)


def cases(table: dict) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("entry", table.values(), ids=table.keys())


def integral(prior: Distribution, reach: float = math.asinh(40)) -> torch.Tensor:
    """The integral of a density of one real coordinate z = T(sinh t), |t| <= reach, T the bijection to its support."""
    bijection = biject_to(prior.support)
    t = torch.linspace(-reach, reach, 30001, dtype=torch.float64)
    z = bijection(t.sinh()[:, None])
    volume = bijection.log_abs_det_jacobian(t.sinh()[:, None], z)
    return torch.trapezoid((prior.log_prob(z) + volume).exp() * t.cosh(), t)


def circle_integral(prior: Distribution) -> torch.Tensor:
    """The integral of a density on the unit circle, per length."""
    angle = torch.linspace(0, 2 * math.pi, 1001, dtype=torch.float64)
    return torch.trapezoid(prior.log_prob(torch.stack([angle.cos(), angle.sin()], -1)).exp(), angle)


def enumerated_sum(prior: Distribution) -> torch.Tensor:
    """The sum of all probabilities."""
    return prior.log_prob(prior.enumerate_support()).exp().sum()


# The smallest event of each support, and how its density is summed.
TOTALS: dict[str, tuple[int, Callable[[Distribution], torch.Tensor]]] = {
    "real": (1, partial(integral, reach=15)),
    "positive": (1, integral),
    "interval": (1, integral),
    "simplex": (2, integral),
    "sphere": (2, circle_integral),
    "one_hot": (6, enumerated_sum),
}

# A likelihood or a decoder meets a guide through z alone, so there one guide is enough.
ONE_GUIDE = {f"VAE-{name}" for name in (*LIKELIHOODS, *NETWORKS)}
ALL_PAIRS = {
    f"{m}--{g}": (model, guide)
    for m, model in MODELS.items()
    for g, guide in GUIDES.items()
    if m not in ONE_GUIDE or guide == guide_for(model)
}
PAIRS = {name: pair for name, pair in ALL_PAIRS.items() if fits(*pair)}
ENCODED = {name: pair for name, pair in PAIRS.items() if not isinstance(pair[1], (pv.ExactPosterior, pv.BayesianGuide))}
MISFITS = {name: pair for name, pair in ALL_PAIRS.items() if not fits(*pair)}
# A point is no density, and the KL of a mixture or a flow has no closed form: see test_guides.py.
SAMPLED = (pv.AmortizedDelta, pv.AmortizedFlow, pv.AmortizedMixture)
EXACT_PAIRS = {name: pair for name, pair in PAIRS.items() if pair[0] in EXACT.values() and not isinstance(pair[1], SAMPLED)}


# Every model with its own guide, and every guide with one model: for what takes long, or asks each of the two for itself.
EACH_ONCE = {f"{m}--own": (model, guide_for(model)) for m, model in MODELS.items() if not model.parameter_priors}
EACH_ONCE |= {f"{g}": next(pair for pair in PAIRS.values() if pair[1] is guide) for g, guide in GUIDES.items()}


def pairs(table: dict[str, tuple]) -> pytest.MarkDecorator:
    """Every pair; those whose model and guide each have another one go by ``-m slow``."""
    once = list(EACH_ONCE.values())
    marked = {name: () if pair in once else pytest.mark.slow for name, pair in table.items()}
    return pytest.mark.parametrize("entry", [pytest.param(pair, id=name, marks=marked[name]) for name, pair in table.items()])


@pytest.fixture
def device(request: pytest.FixtureRequest) -> torch.device:
    name = request.config.getoption("--device")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    return torch.device(name)


@pytest.fixture
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return getattr(torch, request.config.getoption("--dtype"))


def traces(pair: pv.Pair, x: torch.Tensor) -> tuple[poutine.Trace, poutine.Trace]:
    with local_params():
        guide = poutine.trace(pair.guide).get_trace(x)
        model = poutine.trace(poutine.replay(pair.model, trace=guide)).get_trace(x)
    guide.compute_log_prob()
    model.compute_log_prob()
    return model, guide


# --- declarations ---------------------------------------------------------------------------------------------------------


@cases(DECLARATIONS)
def test_a_declaration_survives_yaml(entry: pv.Declaration) -> None:
    text = entry.to_yaml()
    again = type(entry).from_yaml(text)
    assert again == entry
    assert hash(again) == hash(entry)
    assert yaml.safe_load(text) == entry.to_dict()


@cases(DECLARATIONS)
def test_repr_is_the_constructor_call(entry: pv.Declaration) -> None:
    assert eval(repr(entry), {name: getattr(pv, name) for name in pv.__all__}) == entry


@cases(DECLARATIONS)
def test_a_declaration_is_immutable(entry: pv.Declaration) -> None:
    with pytest.raises(AttributeError):
        entry.anything = 1  # type: ignore[attr-defined]


@cases(DECLARATIONS)
def test_every_field_is_documented(entry: pv.Declaration) -> None:
    documented = "\n".join(cls.__doc__ or "" for cls in type(entry).__mro__)
    for name in entry.__dataclass_fields__:
        assert f"{name}:" in documented, f"{type(entry).__name__}.{name} has no line in the docstring"


def quadrature(support: constraints.Constraint) -> tuple[torch.Tensor, torch.Tensor]:
    """Nodes and weights of a sum over all of a discrete support, or of an integral over all of a continuous one."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    if support.is_discrete:
        low, high = {constraints.boolean: (0, 1), constraints.nonnegative_integer: (0, 5000)}.get(support) or (
            support.lower_bound,
            support.upper_bound,
        )
        x = torch.arange(int(low), int(high) + 1, dtype=torch.float64)
        return x, torch.ones_like(x)
    if support is constraints.real:  # out to 1e8 on either side, for heavy tails
        t = torch.linspace(-20, 20, 60001, dtype=torch.float64)
        return t.sinh(), t.cosh() * (t[1] - t[0])
    t = torch.linspace(-2.9, 2.9, 2001, dtype=torch.float64)  # tanh-sinh, for densities that are infinite at an end
    unit, slope = torch.sigmoid(torch.pi * t.sinh()), torch.pi * t.cosh()
    width = support.upper_bound - support.lower_bound
    return support.lower_bound + width * unit, width * unit * (1 - unit) * slope * (t[1] - t[0])


# --- components -----------------------------------------------------------------------------------------------------------


@cases(PRIORS)
def test_a_prior_is_a_density_on_the_latent_shape(entry: pv.Prior, device: torch.device, dtype: torch.dtype) -> None:
    prior = built_prior(entry, dtype=dtype, device=device)()
    assert isinstance(prior, Distribution)
    assert prior.event_shape == (LATENT,)
    assert prior.batch_shape == ()
    assert prior.expand((5,)).batch_shape == (5,)
    z = prior.sample((5,))
    assert z.dtype == dtype
    assert z.shape == (5, LATENT)
    assert prior.support.check(z).all()
    assert prior.log_prob(z).isfinite().all()
    torch.testing.assert_close(prior.expand((5,)).log_prob(z), prior.log_prob(z))


@cases(PRIORS)
def test_a_prior_says_where_it_has_its_mass(entry: pv.Prior) -> None:
    constraint = built_prior(entry)().support
    assert constraint.is_discrete == (entry.support == "one_hot")
    z = torch.full((LATENT,), -7.0)
    assert bool(constraint.check(z).all()) == (entry.support == "real")


@cases(PRIORS)
def test_a_prior_integrates_to_one_over_its_support(entry: pv.Prior) -> None:
    columns, total = TOTALS[entry.support]
    with torch.no_grad():
        prior = built_prior(entry, (columns,), dtype=torch.float64)()
        torch.testing.assert_close(total(prior).item(), 1.0, atol=1e-6, rtol=0)


@cases(LIKELIHOODS)
def test_a_likelihood_is_a_density_on_the_event_shape(entry: pv.Likelihood, device: torch.device, dtype: torch.dtype) -> None:
    features = torch.randn(5, entry.features, *EVENT, device=device, dtype=dtype)
    likelihood = entry.build(EVENT).to(device, dtype)(features)
    assert likelihood.event_shape == EVENT
    assert likelihood.batch_shape == (5,)
    draw = likelihood.sample()
    assert draw.shape == likelihood.mean.shape == (5, *EVENT)
    assert likelihood.log_prob(draw).isfinite().all()


# Counts given their total sum to one for each total, see test_topics.py.
@cases({name: entry for name, entry in LIKELIHOODS.items() if not isinstance(entry, (pv.MixedTable, pv.Multinomial))})
def test_a_likelihood_sums_or_integrates_to_one(entry: pv.Likelihood) -> None:
    likelihood = entry.build((1,)).double()(torch.full((entry.features, 1), 0.3, dtype=torch.float64))
    x, weights = quadrature(likelihood.support)
    total = weights @ likelihood.log_prob(x[:, None]).exp()
    torch.testing.assert_close(total.item(), 1.0, atol=1e-6, rtol=0)


@cases(LIKELIHOODS)
def test_draws_have_the_likelihoods_mean(entry: pv.Likelihood) -> None:
    torch.manual_seed(0)
    likelihood = entry.build((2,))(torch.randn(entry.features, 2) / 2)  # not so far out that all draws are one value
    draws = likelihood.sample((20000,))
    error = (draws.mean(0) - likelihood.mean).abs() / (draws.std(0) / 20000**0.5)
    assert error.max() < 4


@cases(LIKELIHOODS)
def test_data_outside_the_support_are_refused_with_the_remedy(entry: pv.Likelihood) -> None:
    refused = {"binary", "unit_interval", "real", "count", "categorical"} - entry.accepts
    assert refused
    for kind in refused:
        with pytest.raises(ValueError, match=f"{type(entry).__name__} is a likelihood of .* these data are {kind}"):
            entry.check(pv.DataSpec(event_shape=EVENT, kind=kind, size=1))


@cases({name: each for name, each in NETWORKS.items() if not isinstance(each, pv.CausalNetwork) or each.reads_back})
def test_a_network_maps_shape_to_shape(entry: pv.Network) -> None:
    network = entry.build(EVENT, (2, 3))
    assert network(torch.zeros(6, 5, *EVENT)).shape == (6, 5, 2, 3)
    assert network(torch.zeros(EVENT)).shape == (2, 3)


# --- pairs ----------------------------------------------------------------------------------------------------------------


@pairs(ENCODED)
def test_a_guide_is_a_member_of_its_family_at_local_parameters(entry: tuple) -> None:
    pair = built(*entry)
    x = rows(kind_for(entry[0]))
    draws = []
    with torch.no_grad():
        local = pair.guide.local(x)
        assert all(len(parameter) == ROWS for parameter in local)
        for q in (pair.guide.posterior(x), pair.guide.at(*local)):
            torch.manual_seed(0)
            draws.append(q.sample())
            draws.append(q.log_prob(draws[-1]))
            torch.manual_seed(0)
            draws.append(pair.guide.draw(q, x))
    for ours, theirs in zip(draws[:3], draws[3:], strict=True):
        torch.testing.assert_close(ours, theirs)


@pairs(PAIRS)
def test_sites_plates_and_shapes_of_model_and_guide_agree(entry: tuple, device: torch.device, dtype: torch.dtype) -> None:
    pair = built(*entry).to(device, dtype)
    x = rows(kind_for(entry[0]), dtype=dtype).to(device)
    model, guide = traces(pair, x)
    assert set(model.stochastic_nodes) == set(guide.stochastic_nodes)
    for trace in (model, guide):
        frames = {frame for site in trace.nodes.values() for frame in site.get("cond_indep_stack", ())}
        assert [(frame.name, frame.size, frame.full_size) for frame in frames] == [("data", ROWS, 10 * ROWS)]
    latent, shape = latent_site(entry[0])
    assert model.nodes[latent]["fn"].event_shape == guide.nodes[latent]["fn"].event_shape == shape
    for trace in (model, guide):
        for name in (*trace.stochastic_nodes, *trace.observation_nodes):
            if name != "data":
                assert trace.nodes[name]["log_prob"].shape == (ROWS,)
                assert trace.nodes[name]["log_prob"].isfinite().all()
                assert trace.nodes[name]["scale"] == 10


@cases(MISFITS)
def test_a_guide_of_another_kind_of_latent_variable_is_refused(entry: tuple) -> None:
    with pytest.raises(ValueError, match=r": use .*(Exact|Amortized)|: use an amortized guide"):
        built(*entry)


@pairs(PAIRS)
def test_every_parameter_gets_a_gradient(entry: tuple) -> None:
    pair = built(*entry)
    loss, *_ = pv.ELBO(particles=5).build(pair)(rows(kind_for(entry[0])))
    loss.backward()
    without = [name for name, parameter in pair.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert without == []


def after_three_steps(pair: pv.Pair, objective: pv.Objective, x: torch.Tensor, **options: Any) -> dict[str, torch.Tensor]:
    pair.train()
    module = objective.build(pair)
    optimizer = OPTIMIZERS["adam"]((p for p in module.parameters() if p.requires_grad), 1e-2)
    step = Step(module, pv.Transform(EVENT), optimizer, **options)
    torch.manual_seed(0)
    for _ in range(3):
        step(x)
    return {**module.state_dict(), "totals": step.totals, "recorded": torch.tensor(step.way == "recorded")}


@cases(EACH_ONCE)
def test_the_recorded_step_is_the_eager_step(entry: tuple) -> None:
    x = rows(kind_for(entry[0]))
    eager = after_three_steps(built(*entry), pv.ELBO(), x, compile=False)
    recorded = after_three_steps(built(*entry), pv.ELBO(), x, ahead=WORTH_RECORDING)
    assert recorded.pop("recorded")
    for name, value in recorded.items():
        torch.testing.assert_close(value, eager[name], rtol=1e-5, atol=1e-6, equal_nan=True)


@cases(OBJECTIVES)
def test_the_recorded_objective_is_the_eager_objective(entry: pv.Objective) -> None:
    model = vae(prior=pv.GaussianMixture(components=3))
    eager = after_three_steps(built(model), entry, rows("binary"), compile=False)
    recorded = after_three_steps(built(model), entry, rows("binary"), ahead=WORTH_RECORDING)
    assert recorded.pop("recorded")
    for name, value in recorded.items():
        torch.testing.assert_close(value, eager[name], rtol=1e-5, atol=1e-6, equal_nan=True)


@cases(EACH_ONCE)
def test_a_pair_survives_its_state_dict(entry: tuple) -> None:
    pair, other = built(*entry), built(*entry, seed=1)
    other.load_state_dict(pair.state_dict())
    x = rows(kind_for(entry[0]))
    values = []
    for each in (pair, other):
        torch.manual_seed(0)
        values.append(elbo_terms(each, (x,), samples=2).elbo)
    torch.testing.assert_close(*values, rtol=0, atol=0)


@cases(EACH_ONCE)
def test_evaluating_changes_nothing(entry: tuple) -> None:
    pair = built(*entry).train()
    data = pv.load_data(rows(kind_for(entry[0])).numpy(), valid=0.0, test=0.5)
    before = {name: value.clone() for name, value in pair.state_dict().items()}
    state = torch.get_rng_state()
    first = pv.evaluate(pair, data.test, samples=3)
    assert pv.evaluate(pair, data.test, samples=3) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert pair.training
    assert all(torch.equal(value, before[name]) for name, value in pair.state_dict().items())
    assert all(parameter.grad is None for parameter in pair.parameters())


@cases(MODELS)
def test_the_loss_falls_on_the_models_own_samples(entry: pv.Model) -> None:
    source = built(entry, seed=5)
    with torch.no_grad():
        torch.manual_seed(0)
        z = source.model.prior().sample((200,))
        x = source.model.decode(z if entry.posterior_family == "discrete" else 2 * z).sample()
    method = pv.SVI(epochs=6, learning_rate=1e-2, batch_size=50)
    kind = "categorical" if kind_for(entry) == "categorical" else None  # codes look like counts
    data = pv.load_data(x.numpy(), kind=kind, valid=0.2, test=0.0)
    fitted = pv.fit(entry, data, guide=guide_for(entry), method=method)
    assert fitted.history[-1]["objective"] > fitted.history[0]["objective"]
    fitted.pair.eval()
    with torch.no_grad():
        kl = torch.stack([elbo_terms(fitted.pair, (x,)).kl.mean() for _ in range(12)]).double()
    assert kl.mean() >= -4 * kl.std() / 12**0.5 - 1e-5  # its mean is no less than zero, a draw of it may be
    # In closed form; an enumerated bound is told apart into its halves only when it is evaluated.
    if kl.std() == 0 and fitted.pair.score == "elbo":
        name = "valid_kl" if entry.posterior_family == "discrete" else "kl"
        assert all(row[name] >= -1e-3 for row in fitted.history)


# --- what is exact --------------------------------------------------------------------------------------------------------


@cases(EXACT)
def test_an_exact_density_integrates_to_one_in_one_dimension(entry: pv.Model) -> None:
    if isinstance(entry, (pv.FactorAnalysis, pv.PPCA)):
        entry = pv.FactorAnalysis(latent_dim=1)  # PPCA needs two columns to see its noise
    torch.manual_seed(0)
    model = entry.build(pv.DataSpec(event_shape=(1,), kind="real", size=10)).double()
    grid = torch.linspace(-60, 60, 120001, dtype=torch.float64)
    with torch.no_grad():
        total = torch.trapezoid(model.log_prob(grid[:, None]).exp(), grid)
    torch.testing.assert_close(total.item(), 1.0, atol=1e-6, rtol=0)


@cases(EXACT)
def test_with_the_exact_posterior_every_sample_gives_log_p_of_x(entry: pv.Model) -> None:
    pair = built(entry, pv.ExactPosterior()).double()
    x = rows(kind_for(entry), dtype=torch.float64)
    with torch.no_grad():
        exact = pair.model.log_prob(x)
        torch.testing.assert_close(log_weights(pair, (x,), samples=4), exact.expand(4, -1), rtol=0, atol=1e-8)
        torch.testing.assert_close(elbo_terms(pair, (x,)).elbo, exact, rtol=0, atol=1e-8)
    loss, *_ = pv.ELBO(particles=3).build(pair)(x)
    torch.testing.assert_close(-loss.detach(), exact.mean(), rtol=0, atol=1e-8)


@cases(EXACT_PAIRS)
def test_the_reported_elbo_and_its_gap_are_exact(entry: tuple) -> None:
    pair = built(*entry).double()
    x = rows(kind_for(entry[0]), dtype=torch.float64)
    with torch.no_grad():
        torch.manual_seed(0)
        weights = log_weights(pair, (x,), samples=4000)
        terms, exact = elbo_terms(pair, (x,)), pair.model.log_prob(x)
    error = (weights.mean(0) - terms.elbo).abs()
    assert (error <= 4.5 * weights.std(0) / 4000**0.5 + 1e-8).all()
    assert (terms.elbo <= exact + 1e-8).all()
    assert (terms.kl >= -1e-8).all()
    torch.testing.assert_close(terms.reconstruction - terms.kl, terms.elbo)


@cases(EXACT)
def test_em_climbs_and_ends_with_the_exact_numbers_in_the_modules(entry: pv.Model) -> None:
    data = pv.load_data(rows(kind_for(entry), 200).numpy(), valid=0.0, test=0.0)
    fitted = pv.fit(entry, data, method=pv.EM(max_iterations=30))
    values = [row["log_likelihood"] for row in fitted.history]
    assert all(b >= a - 1e-9 * abs(a) for a, b in itertools.pairwise(values))
    numbers = fitted.evaluate(data.train)
    assert numbers["log_likelihood"] == pytest.approx(values[-1], abs=1e-4)
    assert numbers["gap"] == pytest.approx(0.0, abs=1e-12)


@cases(EACH_ONCE)
def test_the_history_has_the_elbo_that_evaluate_reports(entry: tuple) -> None:
    """Of the same draws to the digit, unless one of the two needs none."""
    pair = built(*entry).eval()
    x = rows(kind_for(entry[0]))
    objective = pv.ELBO().build(pair)
    summed = pair.plates(x).enumerated or hasattr(pair.model, "log_prob")

    def values(run: Callable[[], Any], count: int) -> torch.Tensor:
        found = []
        for seed in range(count):
            torch.manual_seed(seed)
            found.append(torch.stack([value.mean() for value in run()[-2:]]))
        return torch.stack(found).double()

    count = 30 if summed else 1
    with local_params(), torch.no_grad():
        history = values(lambda: objective(x), count)
        evaluated = values(lambda: elbo_terms(pair, (x,))[:2], count)
    if summed:
        error = (history - evaluated).std(0) / count**0.5
        assert ((history - evaluated).mean(0).abs() <= 4.5 * error + 1e-4).all()
    else:
        torch.testing.assert_close(history, evaluated, rtol=1e-5, atol=1e-4)


@cases(OBJECTIVES)
def test_an_objective_shows_the_elbo_that_evaluate_reports(entry: pv.Objective) -> None:
    pair = built(vae(prior=pv.GaussianMixture(components=3)))
    x = rows("binary")
    objective = entry.build(pair)
    torch.manual_seed(0)
    with local_params(), torch.no_grad():
        _, elbos, reconstructions = torch.tensor([objective(x) for _ in range(100)]).T
        terms = elbo_terms(pair, (x,), samples=2000)
    for values, expected in ((elbos, terms.elbo.mean()), (reconstructions, terms.reconstruction.mean())):
        assert (values.mean() - expected).abs() < 4 * values.std() / 100**0.5


def test_the_whole_pair_follows_to_another_precision() -> None:
    pair = built(vae(prior=pv.GaussianMixture())).double()
    assert elbo_terms(pair, (rows("binary", dtype=torch.float64),)).elbo.dtype == torch.float64


def test_samples_come_from_the_declared_prior() -> None:
    method = pv.SVI(epochs=1)
    fitted = pv.fit(vae(prior=pv.GaussianMixture(components=2)), rows("binary").numpy(), method=method)
    with torch.no_grad():
        fitted.pair.model.prior.loc.fill_(50.0)
    torch.manual_seed(0)
    far = fitted.decode(torch.full((1, LATENT), 50.0))
    assert (fitted.sample(3, means=True) - far).abs().max() < 0.2
    assert set(fitted.sample(3).unique().tolist()) <= {0.0, 1.0}


def test_a_component_is_a_function_of_its_support() -> None:
    assert pv.Bernoulli().build((2,))(torch.zeros(1, 2)).support.base_constraint == constraints.boolean
    with pyro.validation_enabled(), pytest.raises(ValueError, match="support"):
        pv.Bernoulli().build((2,))(torch.zeros(1, 2)).log_prob(torch.tensor([0.5, 0.5]))
