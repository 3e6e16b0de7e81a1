"""One rule for the terms of plain Pyro programs: in the history, in `evaluate` and in `iwae`, beside Pyro's own loss."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, config_enumerate
from pyro.infer.autoguide import AutoDelta
from torch import Tensor, nn

import ppl_vae as pv
from ppl_vae.evaluate.bounds import bounds, elbo_terms
from ppl_vae.program.context import local_params
from ppl_vae.program.terms import auxiliary
from ppl_vae.types import SCORES, FitWarning
from tests.plain_programs import PROGRAMS, ROWS, SUMMED, Case, N, Programs, conjugate, data, mixture, mixture_prior

ALONE = ("PyroSample",)  # torch's linear layers take one weight
STACKED = {name: case for name, case in PROGRAMS.items() if name not in ALONE}
FROZEN = pv.SVI(epochs=1, learning_rate=1e-12, compile=False)


@pytest.fixture(autouse=True)
def store() -> Iterator[None]:
    """An empty parameter store before and after."""
    pyro.clear_param_store()
    yield
    pyro.clear_param_store()


def pair_of(case: Case) -> pv.Pair:
    torch.manual_seed(0)
    pair = pv.Pair(*case.programs(), mean_field=False)
    pair.plates(data())
    return pair


def everything(x: Tensor) -> pv.Data:
    return pv.load_data(x.numpy(), valid=0.0, test=0.0, scale="none")


def seeded(run: Callable[[], Tensor | float], seed: int = 0) -> float:
    torch.manual_seed(seed)
    with torch.no_grad(), local_params():
        return float(run())


def pyros(pair: pv.Pair, size: int) -> float:
    """The ELBO that Pyro's own loss is minus of, per datum."""
    plates = pair.plates(data())
    loss = TraceEnum_ELBO if plates.summed or plates.enumerated else Trace_ELBO
    return -loss(max_plate_nesting=plates.nesting).loss(pair.model, pair.guide, data()) / size


# --- the law ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", PROGRAMS.values(), ids=PROGRAMS)
def test_history_evaluation_and_pyro_agree_to_the_digit(case: Case) -> None:
    pair = pair_of(case)
    plates = pair.plates(data())
    assert pair.score == case.score
    objective = pv.ELBO().build(pair)
    for seed in range(3):
        theirs = seeded(lambda: pyros(pair, plates.size), seed)
        climbed = seeded(lambda: -objective(data()).loss, seed)
        assert climbed == pytest.approx(theirs, rel=1e-5, abs=1e-5)
        if not plates.enumerated:  # whose sum `evaluate` estimates from draws
            told = seeded(lambda: objective(data()).elbo, seed)
            evaluated = seeded(lambda: elbo_terms(pair, (data(),)).elbo.mean(), seed)
            assert evaluated == pytest.approx(told, rel=1e-5, abs=1e-5)
            halves = seeded(lambda: objective(data()).reconstruction, seed)
            of_terms = seeded(lambda: elbo_terms(pair, (data(),)).reconstruction.mean(), seed)
            assert of_terms == pytest.approx(halves, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("case", STACKED.values(), ids=STACKED)
def test_several_samples_have_the_mean_of_single_ones(case: Case) -> None:
    pair = pair_of(case)
    torch.manual_seed(0)
    with torch.no_grad():
        several = torch.stack([elbo_terms(pair, (data(),), samples=20).elbo.mean() for _ in range(12)])
        single = torch.stack([elbo_terms(pair, (data(),)).elbo.mean() for _ in range(100)])
    error = math.sqrt(several.var() / 12 + single.var() / 100)
    assert several.mean() == pytest.approx(single.mean().item(), abs=4 * error + 1e-5)


@pytest.mark.filterwarnings("ignore:samples are drawn one after the other")
@pytest.mark.parametrize("case", PROGRAMS.values(), ids=PROGRAMS)
def test_fit_and_evaluate_tell_the_number_under_its_name(case: Case) -> None:
    torch.manual_seed(0)
    model, guide = case.programs()
    rows = everything(data())
    fitted = pv.fit(model, rows, guide=guide, method=FROZEN)
    row, numbers = fitted.history[0], fitted.evaluate(rows.train, samples=30)
    for found in (row, numbers):
        assert [name for name in SCORES if name in found and name != "reconstruction"] == [case.score]
        assert "kl" not in found or case.score == "elbo"
    assert ("iwae" in numbers) == case.weighted
    if case.weighted:
        assert numbers["iwae"] > numbers["elbo"] - 1e-6
    assert SCORES[case.score].label in str(fitted)


@pytest.mark.parametrize("name", ["loss in the guide", "observed in the guide"])
def test_a_loss_beside_the_guide_is_climbed_and_no_part_of_the_elbo(name: str) -> None:
    plain, pair = pair_of(PROGRAMS["conjugate"]), pair_of(PROGRAMS[name])
    guide = poutine.trace(pair.guide).get_trace(data())
    (beside,) = auxiliary(guide)
    guide.compute_log_prob()
    loss = guide.nodes[beside]["unscaled_log_prob"].mean().item()
    found = pv.ELBO().build(plain), pv.ELBO().build(pair)
    elbos = [seeded(lambda one=one: one(data()).elbo) for one in found]
    climbed = [seeded(lambda one=one: -one(data()).loss) for one in found]
    assert elbos[0] == pytest.approx(elbos[1], abs=1e-6)
    assert climbed[0] - climbed[1] == pytest.approx(loss, abs=1e-5)


def test_the_importance_weighted_bound_knows_no_loss_of_the_guide() -> None:
    def exact(x: Tensor) -> None:
        with pv.data_plate(N, x):
            pyro.factor("auxiliary loss", torch.full((len(x),), -3.0), has_rsample=False)
            pyro.sample("z", dist.Normal(x[:, 0] / 2 + pyro.param("b", torch.tensor(0.0)), 0.5**0.5))

    rows = everything(data())
    fitted = pv.fit(conjugate().model, rows, guide=exact, method=FROZEN)
    log_p = dist.Normal(0.0, 2**0.5).log_prob(data()[:, 0]).mean().item()
    numbers = fitted.evaluate(rows.train, samples=100)
    for value in (fitted.history[0]["elbo"], numbers["elbo"], numbers["iwae"]):
        assert value == pytest.approx(log_p, abs=1e-5)
    assert fitted.history[0]["objective"] == pytest.approx(log_p + 3, abs=1e-5)


def test_a_program_may_say_what_its_sum_is() -> None:
    model, guide = PROGRAMS["factor in the model"].programs()
    model.score = "elbo"  # type: ignore[attr-defined]
    rows = everything(data())
    numbers = pv.fit(model, rows, guide=guide, method=FROZEN).evaluate(rows.train, samples=20)
    assert numbers["iwae"] > numbers["elbo"]
    model.score = "evidence"  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"expected a score of elbo, log_joint, .*, got 'evidence'"):
        pv.fit(model, rows, guide=guide, method=FROZEN)


# --- sums over discrete variables ------------------------------------------------------------------------------------------


def test_a_summed_mixture_is_exact() -> None:
    pair = pair_of(PROGRAMS["mixture"])
    log_p = dist.MixtureSameFamily(
        dist.Categorical(torch.tensor([0.3, 0.7])), dist.Normal(torch.tensor([-1.0, 1.5]), 1.0)
    ).log_prob(data()[:, 0])
    with torch.no_grad():
        for samples in (1, 3):
            found = bounds(pair, (data(),), samples=samples, weighted=True)
            torch.testing.assert_close(found.terms.elbo, log_p)
            torch.testing.assert_close(found.terms.reconstruction, log_p)
            assert found.log_weights is not None
            torch.testing.assert_close(found.log_weights, log_p.expand(samples, -1))


def test_a_summed_mixture_is_the_declared_one() -> None:
    declared = pv.build(pv.GMM(components=3, covariance="diagonal"), pv.ExactPosterior(), everything(data()).spec)
    program = declared.model

    def model(x: Tensor) -> None:
        with pv.data_plate(ROWS, x):
            k = pyro.sample("k", dist.Categorical(program.prior().probs), infer=SUMMED)
            pyro.sample("x", dist.Normal(locs[k], scales[k]).to_event(1), obs=x)

    with torch.no_grad():
        components = program.decode(torch.eye(3))
        locs, scales = components.mean, components.variance.sqrt()
        pair = pv.Pair(model, lambda x: None, mean_field=False)
        torch.testing.assert_close(elbo_terms(pair, (data(),)).elbo, program.log_prob(data()).float(), rtol=0, atol=1e-4)


def test_a_summed_chain_is_the_sum_over_its_paths() -> None:
    pair = pair_of(PROGRAMS["hidden Markov"])
    loc, stay = torch.tensor([-1.0, 1.5]), torch.tensor([[0.8, 0.2], [0.4, 0.6]])
    total = torch.zeros(ROWS)
    for c in (0, 1):
        for a in range(2):
            for b in range(2):
                weight = (0.3 if c else 0.7) * stay[0, a] * stay[a, b]
                emitted = dist.Normal(torch.stack([loc[a], loc[b]]) + c, 1.0).log_prob(data()).sum(-1)
                total += weight * emitted.exp()
    with torch.no_grad():
        torch.testing.assert_close(elbo_terms(pair, (data(),)).elbo, total.log())


def test_the_weights_of_sampled_variables_have_the_summed_ones_summed() -> None:
    pair = pair_of(PROGRAMS["mixture prior"])
    prior = dist.MixtureSameFamily(dist.Categorical(torch.tensor([0.3, 0.7])), dist.Normal(torch.tensor([-1.0, 1.5]), 0.5))
    marginal = dist.MixtureSameFamily(
        dist.Categorical(torch.tensor([0.3, 0.7])), dist.Normal(torch.tensor([-1.0, 1.5]), 1.25**0.5)
    )
    torch.manual_seed(0)
    with torch.no_grad():
        found = bounds(pair, (data(),), samples=20000, weighted=True)
        z = torch.randn(400000, 1) * 0.6 + 0.4 * data()[:, 0]
        kl = (dist.Normal(0.4 * data()[:, 0], 0.6).log_prob(z) - prior.log_prob(z)).mean(0)
    assert found.log_weights is not None
    iwae = found.log_weights.logsumexp(0) - math.log(20000)
    torch.testing.assert_close(iwae, marginal.log_prob(data()[:, 0]), rtol=0, atol=0.05)
    torch.testing.assert_close(found.terms.kl, kl, rtol=0, atol=0.05)


def test_every_objective_climbs_a_summed_model_or_says_why_not() -> None:
    for objective in (pv.ELBO(particles=2), pv.IWAE(samples=3), pv.ELBO(gradient="score_function"), pv.Renyi(samples=3)):
        pair = pv.Pair(*mixture_prior(), mean_field=False)
        pair.plates(data())
        loss, elbo, _ = objective.build(pair)(data())
        loss.backward()
        assert elbo.isfinite()
        assert all(parameter.grad is not None and parameter.grad.any() for parameter in pair.parameters())
    with pytest.raises(ValueError, match=r"prior of z hangs on k, which the model sums out.*use objective=ELBO"):
        pv.BetaELBO().build(pair)(data())


def test_a_summed_model_is_recorded() -> None:
    rows, (model, guide) = everything(data()), mixture()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fits = [
            pv.fit(model, rows, guide=guide, method=pv.SVI(epochs=300, learning_rate=1e-2, compile=compile))
            for compile in ("auto", False)
        ]
    for ours, theirs in zip(*(fitted.pair.parameters() for fitted in fits), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert fits[0].evaluate(rows.train)["elbo"] == pytest.approx(fits[1].evaluate(rows.train)["elbo"], abs=1e-4)


def everybodys_component(x: Tensor) -> None:
    loc = pyro.param("loc", torch.tensor([-1.0, 1.5]))
    k = pyro.sample("k", dist.Categorical(torch.tensor([0.3, 0.7])), infer=SUMMED)
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(loc[k], 1.0), obs=x[:, 0])


def test_a_sum_over_what_all_data_share_is_fitted_and_not_told_of_a_datum() -> None:
    rows = everything(data())
    fitted = pv.fit(everybodys_component, rows, guide=lambda x: None, method=FROZEN)
    weights = torch.tensor([0.3, 0.7]).log()
    log_p = (weights + dist.Normal(torch.tensor([-1.0, 1.5]), 1.0).log_prob(data()[:, :1]).sum(0)).logsumexp(0).item()
    assert fitted.history[0]["elbo"] == pytest.approx(log_p / ROWS, abs=1e-5)
    with pytest.raises(ValueError, match=r"sums out k, which all data share, so that log p.* is no mean over the data: move"):
        fitted.evaluate(rows.train)
    halved = pv.load_data(data().numpy(), valid=0.5, test=0.0)
    with pytest.warns(FitWarning, match="validation rows have no ELBO of their own, so none is told: the model sums out k"):
        fitted = pv.fit(everybodys_component, halved, guide=lambda x: None, method=FROZEN)
    assert "valid_elbo" not in fitted.history[0]


def test_a_discrete_site_without_a_twin_is_told_how_it_is_summed() -> None:
    def model(x: Tensor) -> None:
        with pv.data_plate(N, x):
            k = pyro.sample("k", dist.Categorical(torch.ones(2)))
            pyro.sample("x", dist.Normal(k.float(), 1.0), obs=x[:, 0])

    with pytest.raises(ValueError, match=r"k stands in only one of them.*or let Pyro sum k out, by infer={'enumerate'"):
        pv.fit(model, everything(data()), guide=lambda x: None, method=FROZEN)


# --- programs that count dimensions from the left --------------------------------------------------------------------------


def normalized(features: int) -> Programs:
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(2, features), nn.BatchNorm1d(features))
    encoder = nn.Linear(features, 2)

    def model(x: Tensor) -> None:
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), 1.0).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(encoder(x), 1.0).to_event(1))

    return Programs(model, guide)


@pytest.mark.parametrize("features", [6, ROWS])  # as many features as rows are normalized in silence along the wrong axis
def test_batch_normalization_is_evaluated_one_sample_after_the_other(features: int) -> None:
    model, guide = normalized(features)
    x = torch.randn(40, features, generator=torch.Generator().manual_seed(1))
    rows = pv.load_data(x.numpy(), valid=0.3, test=0.0, scale="none")
    fitted = pv.fit(model, rows, guide=guide, method=pv.SVI(epochs=2))
    assert math.isfinite(fitted.history[-1]["valid_elbo"])
    split = rows.valid
    assert len(split) == ROWS
    with pytest.warns(FitWarning, match="samples are drawn one after the other, since the programs do not take several"):
        several = fitted.evaluate(split, samples=300)
    assert fitted.evaluate(split, samples=300) == several  # and is told once
    assert several["iwae"] > several["elbo"]
    pair = fitted.pair.eval()
    torch.manual_seed(0)
    with torch.no_grad():
        single = torch.stack([elbo_terms(pair, (split.raw,)).elbo.mean() for _ in range(300)])
    assert several["elbo"] == pytest.approx(single.mean().item(), abs=6 * single.std().item() / 300**0.5)


def test_several_particles_of_such_programs_are_run_one_after_the_other() -> None:
    rows = pv.load_data(torch.randn(40, 6).numpy(), valid=0.0, test=0.0)
    model, guide = normalized(6)
    with pytest.warns(FitWarning, match="one after the other"):
        fitted = pv.fit(model, rows, guide=guide, method=pv.SVI(epochs=1, objective=pv.ELBO(particles=3)))
    assert math.isfinite(fitted.history[-1]["elbo"])
    with pytest.raises(ValueError, match=r"takes 5 samples at once, .* which the programs do not .*use objective=ELBO\(\)"):
        pv.fit(model, rows, guide=guide, method=pv.SVI(epochs=1, objective=pv.IWAE(samples=5)))


# --- where the name goes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (
            "scale of the KL",
            "a weighted objective: terms with scales of their own bounds nothing, so there is no iwae",
        ),
        ("nested plate in part", "the plates inner show a sample of themselves, which leaves weights that bound nothing"),
        ("AutoDelta", "a point has no bound to track as iwae: its log_joint is in every row"),
    ],
)
def test_an_importance_weighted_bound_that_is_none_is_not_tracked(case: str, message: str) -> None:
    model, guide = PROGRAMS[case].programs()
    rows = pv.load_data(data().numpy(), valid=0.5, test=0.0)
    with pytest.raises(ValueError, match=message):
        pv.fit(model, rows, guide=guide, method=FROZEN, track=["iwae:5"])


def test_objectives_made_of_densities_refuse_other_terms() -> None:
    refused = {
        "scale of the KL": "made of densities, but poutine.scale or a mask of one program alone weighs some: use",
        "loss in the guide": "made of densities, but loss of the guide is a loss beside them",
        "nested plate in part": "needs all of log p.*, of which the plates inner show a sample: use objective=ELBO",
    }
    for case, message in refused.items():
        with pytest.raises(ValueError, match=message):
            pv.IWAE(samples=2).build(pair_of(PROGRAMS[case]))(data())


def test_fits_of_weighed_terms_are_not_compared() -> None:
    model, guide = PROGRAMS["scale of the KL"].programs()
    with pytest.raises(ValueError, match=r"compared by log p\(x\), of which a weighted objective.* gives no bound: use"):
        pv.compare(model, everything(data()), methods=[FROZEN], guides=[guide])


def test_chains_anneal_densities_only() -> None:
    for case in ("scale of the likelihood", "factor in the model"):
        model, guide = PROGRAMS[case].programs()
        rows = everything(data())
        fitted = pv.fit(model, rows, guide=guide, method=FROZEN)
        with pytest.raises(ValueError, match=r"annealed importance sampling goes to p\(z \| x\).*x of the model"):
            fitted.evaluate(rows.train, ais=pv.AIS(temperatures=4, chains=2, simulated=0))


# --- plates beside that over the data, in its dimension ---------------------------------------------------------------------


def grouped(groups: int, *, dim: int) -> Programs:
    """Normal(0, 1) locations of groups and data around the first of them; its plate may stand in the data's dimension."""

    def model(x: Tensor) -> None:
        with pyro.plate("groups", groups, dim=dim):
            m = pyro.sample("m", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x), dim=-1):  # counted from the right, for many samples
            first = m[..., :1] if dim == -1 else m[..., :1, :]
            pyro.sample("x", dist.Normal(first, 1.0), obs=x[:, 0])

    def guide(x: Tensor) -> None:
        loc = pyro.param("loc", torch.linspace(-1.0, 1.0, groups))
        with pyro.plate("groups", groups, dim=dim):
            pyro.sample("m", dist.Normal(loc if dim == -1 else loc[:, None], 0.01))

    return Programs(model, guide)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("dim", [-1, -2])
def test_a_plate_in_the_dimension_of_the_data_is_another_plate(groups: int, dim: int) -> None:
    programs, split = grouped(groups, dim=dim), everything(data())
    fit = pv.fit(programs.model, split, guide=programs.guide, method=pv.SVI(epochs=1, batch_size=6, learning_rate=1e-12))
    loc = torch.linspace(-1.0, 1.0, groups)
    kl = torch.distributions.kl_divergence(dist.Normal(loc, 0.01), dist.Normal(0.0, 1.0)).sum().item() / ROWS
    likelihood = dist.Normal(loc[0], 1.0).log_prob(data()[:, 0]).mean().item()
    for samples, noise in ((1, 0.4), (400, 0.03)):  # log q of a single draw
        numbers = fit.evaluate(split.train, samples=samples)
        assert numbers["kl"] == pytest.approx(kl, abs=noise)
        assert numbers["reconstruction"] == pytest.approx(likelihood, abs=noise / 2)
        assert "iwae" not in numbers  # a group is no latent variable of a datum
    assert fit.history[0]["kl"] == pytest.approx(kl, abs=0.4)
    assert fit.pair.plates(data()).shared == ("m",)


def mixture_of_shared_components() -> Programs:
    """As Pyro's tutorial writes it: components and data stand in plates of one dimension."""

    @config_enumerate
    def model(x: Tensor) -> None:
        weights = pyro.sample("weights", dist.Dirichlet(torch.ones(2)))
        with pyro.plate("components", 2):
            locs = pyro.sample("locs", dist.Normal(0.0, 10.0))
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(weights))
            pyro.sample("x", dist.Normal(locs[k], 1.0), obs=x[:, 0])

    return Programs(model, AutoDelta(poutine.block(model, expose=["weights", "locs"])))


def test_components_in_a_plate_are_no_data() -> None:
    programs, split = mixture_of_shared_components(), everything(data())
    fit = pv.fit(programs.model, split, guide=programs.guide, method=FROZEN)
    loss = TraceEnum_ELBO(max_plate_nesting=1)
    expected = -seeded(lambda: loss.loss(*fit.pair.programs, data())) / ROWS
    assert fit.pair.score == "log_joint"
    assert fit.evaluate(split.train)["log_joint"] == pytest.approx(expected, abs=1e-4)


def test_samples_count_where_a_guide_has_points_of_some_variables_and_draws_others() -> None:
    def model(x: Tensor) -> None:
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(m, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])

    def guide(x: Tensor) -> None:
        pyro.sample("m", dist.Delta(pyro.param("loc", torch.tensor(0.5))))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((x[:, 0] + 0.5) / 2, 0.3))

    fit = pv.fit(model, everything(data()), guide=guide, method=FROZEN)
    q = dist.Normal((data()[:, 0] + 0.5) / 2, 0.3)
    noise = -0.5 * math.log(2 * math.pi) - 0.5 * ((data()[:, 0] - q.loc) ** 2 + 0.3**2)
    kl = torch.distributions.kl_divergence(q, dist.Normal(0.5, 1.0))
    expected = (noise - kl).mean() + dist.Normal(0.0, 1.0).log_prob(torch.tensor(0.5)) / ROWS
    numbers = fit.evaluate(everything(data()).train, samples=2000)
    assert fit.pair.score == "log_joint"
    assert numbers["log_joint"] == pytest.approx(expected.item(), abs=0.01)
