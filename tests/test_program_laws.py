"""The laws of programs of several sites and fields; those of one latent variable are in test_laws.py."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pyro
import pytest
import torch
from pyro import poutine
from torch import Tensor

import ppl_vae as pv
from ppl_vae.evaluate import elbo_terms, log_weights
from ppl_vae.inference.training.optimizers import OPTIMIZERS
from ppl_vae.inference.training.step import WORTH_RECORDING, Step
from ppl_vae.program.context import local_params
from ppl_vae.program.traces import Substitute, guide_sites, log_joint, log_q, per_datum, reconstruction, site_kl, traces
from tests.programs import PROGRAMS, ROWS, SIZE, Case, batch_of, data_of, pair_of


def cases(**only: bool) -> Any:
    found = {name: case for name, case in PROGRAMS.items() if all(getattr(case, key) == value for key, value in only.items())}
    return pytest.mark.parametrize("case", found.values(), ids=found.keys())


@cases()
def test_sites_plates_and_shapes_agree(case: Case) -> None:
    pair, batch = pair_of(case), batch_of(case)
    ran = traces(pair, batch, 1)
    latent = {name for name in ran.model.stochastic_nodes if name not in ran.plates.summed}
    assert latent <= set(ran.guide.stochastic_nodes)
    assert bool(ran.plates.summed) == case.summed
    assert bool(ran.plates.shared) == case.shared
    assert ran.plates.size == SIZE
    assert pair.sizes == [ROWS]
    for name in ran.model.observation_nodes:
        assert ran.model.nodes[name]["scale"] == SIZE / ROWS
        assert per_datum(ran.model.nodes[name], "log_prob", ran.plates).shape[-1] == ROWS


@cases()
def test_the_sites_that_a_program_tells_are_those_of_its_trace(case: Case) -> None:
    pair, batch = pair_of(case), batch_of(case)
    told = pair.model_facts.sites
    if not told:
        pytest.skip("a plain program tells its sites by its traces")
    trace = traces(pair, batch, 1).model
    local = [name for name in trace.stochastic_nodes if name not in pair.model_facts.parameter_sites]
    assert list(told) == local
    for name, site in told.items():
        assert tuple(trace.nodes[name]["fn"].event_shape) == (() if site.index else site.event_shape)


@cases()
def test_every_parameter_gets_a_gradient(case: Case) -> None:
    pair, batch = pair_of(case), batch_of(case)
    pair.plates(*batch)
    with local_params():
        loss, *_ = pv.ELBO(particles=3).build(pair)(*batch)
    loss.backward()
    without = [name for name, value in pair.named_parameters() if value.grad is None or not value.grad.any()]
    assert without == []


@cases()
def test_a_pair_survives_its_state_dict(case: Case) -> None:
    pair, other, batch = pair_of(case), pair_of(case, seed=1), batch_of(case)
    for each in (pair, other):
        each.plates(*batch)
    with torch.no_grad():
        for value in pair.parameters():
            value.add_(0.1)
    other.load_state_dict(pair.state_dict())
    values = []
    for each in (pair, other):
        torch.manual_seed(0)
        with torch.no_grad():
            values.append(elbo_terms(each, batch, samples=2).elbo)
    torch.testing.assert_close(*values, rtol=0, atol=0)


@cases()
def test_the_recorded_step_is_the_eager_step(case: Case) -> None:
    found = []
    for options in ({"compile": False}, {"ahead": WORTH_RECORDING}):
        pair, batch = pair_of(case), batch_of(case)
        pair.plates(*batch)
        pair.train()
        objective = pv.ELBO().build(pair)
        step = Step(
            objective,
            data_of(case).as_given().train.transform,
            OPTIMIZERS["adam"](list(objective.parameters()), 1e-2),
            **options,
        )
        torch.manual_seed(0)
        for _ in range(3):
            step(*batch)
        found.append((step.way, {**pair.state_dict(), "totals": step.totals}))
    (_, eager), (way, recorded) = found
    assert way == "recorded"
    for name, value in recorded.items():
        torch.testing.assert_close(value, eager[name], rtol=1e-5, atol=1e-6)


@cases()
def test_evaluating_changes_nothing(case: Case) -> None:
    pair, data = pair_of(case, size=ROWS).train(), data_of(case).as_given()
    pair.plates(*batch_of(case))
    before, state = copy.deepcopy(pair.state_dict()), torch.get_rng_state()
    first = pv.evaluate(pair, data.train, samples=3)
    assert pv.evaluate(pair, data.train, samples=3) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert pair.training
    assert all(torch.equal(value, before[name]) for name, value in pair.state_dict().items())


@cases(shared=False)
def test_the_elbo_of_the_history_is_that_of_evaluate(case: Case) -> None:
    """At a learning rate that moves nothing the mean of many passes is what is evaluated from many samples."""
    method = pv.SVI(epochs=150, batch_size=ROWS, learning_rate=1e-12, schedule="constant", compile=False)
    fit = pv.fit(case.model(), data_of(case), guide=case.guide(), method=method)
    history = torch.tensor([row["elbo"] for row in fit.history], dtype=torch.float64)
    numbers = fit.evaluate(data_of(case).train, samples=400)
    error = 5 * history.std() / len(history) ** 0.5 + 5 * numbers["elbo_se"] / 400**0.5 + 1e-4
    assert abs(history.mean() - numbers["elbo"]) < error


@cases(shared=False, summed=False)
def test_ancestral_samples_have_the_density_of_the_trace(case: Case) -> None:
    """log p(z) + log p(x | z) of draws, by prior and decoder, is the sum of the trace's terms."""
    pair, batch = pair_of(case), batch_of(case)
    model = pair.can.generate
    if model is None:
        pytest.skip("a plain program has no prior and decoder of its own")
    with torch.no_grad(), local_params():
        trace = poutine.trace(pair.programs.model).get_trace(*batch)
    trace.compute_log_prob()
    values = {name: trace.nodes[name]["value"] for name in model.sites}
    z = values if len(values) > 1 else next(iter(values.values()))
    known = model.known(*batch)
    with torch.no_grad():
        terms = model.prior_given(*known).log_prob(z) + model.decode(z, *known).log_prob(batch[0])
    expected = sum(trace.nodes[name]["log_prob"] for name in (*model.sites, "x")) / (SIZE / ROWS)
    torch.testing.assert_close(terms, expected)


@cases(summed=False)
def test_the_kl_of_sites_sums_to_the_kl(case: Case) -> None:
    pair, batch = pair_of(case), batch_of(case)
    pair.plates(*batch)
    with torch.no_grad():
        torch.manual_seed(0)
        terms = elbo_terms(pair, batch, samples=4)
        torch.manual_seed(0)
        ran = traces(pair, batch, 4)
    if not pair.mean_field:
        total = log_q(ran) - (log_joint(ran) - reconstruction(ran))
        torch.testing.assert_close(terms.kl, total.mean(0), rtol=1e-4, atol=1e-4)
    sites = [site["name"] for site in guide_sites(ran.guide)]
    parts = sum(site_kl(ran.model, ran.guide, name, ran.plates, pair.mean_field).expand(4, ROWS) for name in sites)
    torch.testing.assert_close(terms.kl, parts.mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(terms.reconstruction - terms.kl, terms.elbo, rtol=1e-5, atol=1e-5)


@cases(shared=False)
def test_permuting_the_plate_of_the_data_changes_nothing(case: Case) -> None:
    pair, batch = pair_of(case), batch_of(case)
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(2))
    pair.plates(*batch)
    ran = traces(pair, batch, 1)
    values = {site["name"]: site["value"] for site in guide_sites(ran.guide)}
    moved = tuple(part[order] for part in batch)
    places = {name: partial(_given, value[order]) for name, value in values.items()}
    with Substitute(places), torch.no_grad():
        again = traces(pair, moved, 1)
    torch.testing.assert_close(log_joint(again), log_joint(ran)[:, order])
    torch.testing.assert_close(log_q(again), log_q(ran)[:, order])


def _given(value: Tensor, fn: Any) -> Tensor:
    return value


@cases(exact=True)
def test_a_bound_that_is_exact_is_so_for_every_sample(case: Case) -> None:
    pair, batch = pair_of(case), batch_of(case)
    weights = log_weights(pair, batch, samples=3)
    torch.testing.assert_close(weights, weights[:1].expand(3, -1))


@cases(shared=False)
def test_float64_is_all_it_takes(case: Case) -> None:
    pair, batch = pair_of(case), batch_of(case)
    pair.plates(*batch)
    pair.double()
    double = tuple(part.double() if part.is_floating_point() else part for part in batch)
    with torch.no_grad():
        assert elbo_terms(pair, double).elbo.dtype == torch.float64


@cases()
def test_two_fits_in_one_process_both_move(case: Case) -> None:
    method = pv.SVI(epochs=2, batch_size=ROWS, learning_rate=1e-2, compile=False)
    ends = []
    for _ in range(2):
        pyro.clear_param_store()
        fit = pv.fit(case.model(), data_of(case), guide=case.guide(), method=method)
        ends.append([row["objective"] for row in fit.history])
    assert ends[0][0] != ends[0][1]
    assert ends[1][0] != ends[1][1]


@cases(shared=False)
def test_the_loss_falls_on_the_models_own_samples(case: Case) -> None:
    method = pv.SVI(epochs=40, batch_size=ROWS, learning_rate=2e-2, compile=False)
    fit = pv.fit(case.model(), data_of(case), guide=case.guide(), method=method)
    # What is climbed beside it, as a codebook's commitment, has no fixed target.
    first, last = ([row[fit.pair.score.name] for row in fit.history[part]] for part in (slice(0, 8), slice(-8, None)))
    assert sum(last) > sum(first)


def test_a_summed_site_is_the_mixture_that_it_stands_for() -> None:
    pair, (x,) = pair_of(PROGRAMS["summed"]), batch_of(PROGRAMS["summed"])
    pair.plates(x)
    parts = torch.stack([torch.distributions.Normal(loc, 1.0).log_prob(x).sum(-1) for loc in (-1.0, 1.0)])
    exact: Tensor = parts.logsumexp(0) - torch.tensor(2.0).log()
    torch.testing.assert_close(log_weights(pair, (x,), samples=1)[0], exact)
