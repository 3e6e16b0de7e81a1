"""Lattices: sums against all configurations, bounds on both sides, mean field, beliefs, draws, images behind noise."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import TraceEnum_ELBO, config_enumerate
from torch import Tensor
from torch.distributions import kl_divergence

import ppl_vae as pv
from ppl_vae import cli
from ppl_vae.evaluate import elbo_terms
from ppl_vae.exact.lattice import (
    Field,
    beliefs,
    draws,
    energy,
    gibbs,
    grid,
    log_partition,
    marginals,
    mode,
    one_hot,
    upper_bound,
)
from ppl_vae.exact.lattice import mean_field as ascent
from ppl_vae.exact.lattice.plan import planned

SPINS = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
SHAPES = {
    "site": ((1,), (True,)),
    "ring of two": ((2,), (True,)),
    "ring": ((5,), (True,)),
    "open": ((3, 4), (False, False)),
    "cylinder": ((3, 4), (False, True)),
    "torus": ((2, 4), (True, True)),
    "wide torus": ((3, 3), (True, True)),
    "cube": ((2, 2, 3), (False, True, False)),
}


def random_field(name: str, levels: int = 2, rows: tuple[int, ...] = ()) -> Field:
    """A coupling of each bond and a field of each site, with a symmetric table of interactions."""
    torch.manual_seed(0)
    where = grid(*SHAPES[name])
    table = SPINS if levels == 2 else (lambda found: found + found.mT)(torch.randn(levels, levels, dtype=torch.float64))
    unary = torch.randn(*rows, math.prod(where.shape), levels, dtype=torch.float64)
    return Field(where, torch.randn(len(where.bonds), dtype=torch.float64) * where.times, table, unary)


def every(field: Field) -> tuple[Tensor, Tensor]:
    """All configurations one-hot ``(q^n, n, q)``, and their log-weights."""
    sites, levels = field.unary.shape[-2:]
    states = torch.tensor(list(itertools.product(range(levels), repeat=sites)))
    shares = one_hot(states, levels, field.unary)
    return shares, energy(field, shares)


# --- sums -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [2, 3])
@pytest.mark.parametrize("name", SHAPES)
def test_sums_are_those_over_all_configurations(name: str, levels: int) -> None:
    if levels ** math.prod(SHAPES[name][0]) > 3**10:
        pytest.skip("too many configurations")
    field = random_field(name, levels)
    shares, weights = every(field)
    found, p = marginals(field), weights.softmax(0)
    torch.testing.assert_close(log_partition(field), weights.logsumexp(0))
    torch.testing.assert_close(found.sites, torch.einsum("c,cnq->nq", p, shares))
    i, j = field.grid.ends.unbind(-1)
    torch.testing.assert_close(found.bonds, torch.einsum("c,cea,ceb->eab", p, shares[:, i], shares[:, j]))
    states, highest = mode(field)
    torch.testing.assert_close(highest, weights.max())
    torch.testing.assert_close(one_hot(states, levels, shares), shares[weights.argmax()])


def test_bonds_are_counted_as_the_trace_of_the_transfer_matrix_counts_them() -> None:
    T = torch.tensor([[0.3, -0.3], [-0.3, 0.3]], dtype=torch.float64).exp()
    for length in (2, 3, 6):
        ring = pv.Ising(shape=(length,), coupling=0.3, torus=True)
        assert ring.log_partition() == pytest.approx(math.log(torch.linalg.matrix_power(T, length).trace()), abs=1e-12)
    assert pv.Ising(shape=(1, 4), coupling=0.3, torus=True).log_partition() == pytest.approx(
        pv.Ising(shape=(4,), coupling=0.3, torus=True).log_partition(), abs=1e-12
    )


def test_rows_are_summed_together_as_one_by_one() -> None:
    field = random_field("cylinder", rows=(2, 3))
    each = [log_partition(field._replace(unary=unary)) for unary in field.unary.flatten(0, 1)]
    torch.testing.assert_close(log_partition(field), torch.stack(each).reshape(2, 3))
    assert mode(field)[0].shape == (2, 3, 12)
    assert draws(field, 5).shape == (5, 2, 3, 12)


def test_the_torus_of_the_lectures_has_its_numbers() -> None:
    torus = pv.Ising(shape=(4, 5), coupling=0.3, field=0.1, torus=True)
    assert torus.log_partition() / 20 == pytest.approx(0.823809, abs=1e-6)
    assert torus.log_partition("mean_field") / 20 == pytest.approx(0.789588, abs=1e-6)
    torch.testing.assert_close(torus.magnetization(), torch.full((4, 5), 0.5029, dtype=torch.float64), atol=5e-5, rtol=0)
    torch.testing.assert_close(torus.magnetization("mean_field"), torch.full((4, 5), 0.7729).double(), atol=5e-5, rtol=0)


def test_long_strips_have_the_free_energy_that_is_known() -> None:
    """Of a cylinder ten spins wide, each further ring adds the largest eigenvalue; at infinite width Onsager's (1944)."""
    short, long = (pv.Ising(shape=(length, 10), coupling=0.3, torus=(False, True)).log_partition() for length in (29, 30))
    assert (long - short) / 10 == pytest.approx(0.7905789, abs=1e-7)
    assert (long - short) / 10 == pytest.approx(0.7905590710, abs=3e-5)


def test_strong_couplings_and_fields_do_not_overflow() -> None:
    cold = pv.Ising(shape=(6, 6), coupling=500.0, field=30.0)
    assert cold.log_partition() == pytest.approx(60 * 500 + 36 * 30, rel=1e-12)
    assert cold.magnetization().min() == 1
    assert (pv.Ising(shape=(6, 6), coupling=500.0).sample(20).flatten(1).mean(1).abs() == 1).all()


def test_a_lattice_that_is_too_wide_is_refused_by_the_sites_of_its_clique() -> None:
    wide = pv.Ising(shape=(25, 30), coupling=0.2)
    with pytest.raises(
        ValueError, match=r"at most 1,048,576 entries, got 2\^25 for the 25 sites \(24, 0\), \(0, 1\), .* mean field"
    ):
        wide.log_partition()
    assert len(planned((10, 40), grid((10, 40), (False, False)).bonds).widest) == 10  # along the short axis


@pytest.mark.parametrize("name", ["open", "cylinder", "wide torus", "cube"])
@pytest.mark.parametrize("entries", [2, 4, 8])
def test_log_z_lies_between_its_bounds(name: str, entries: int) -> None:
    field = random_field(name)
    exact, above = log_partition(field), upper_bound(field, entries=entries)
    below, _ = ascent.settled(field, field.unary.softmax(-1))
    assert ascent.bound(field, below) <= exact <= above + 1e-12
    assert 2 ** len(planned(field.grid.shape, field.grid.bonds).widest) <= entries or above > exact
    torch.testing.assert_close(upper_bound(field), exact)


# --- mean field -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["open", "torus", "wide torus", "cube"])
@pytest.mark.parametrize("levels", [2, 3])
def test_no_sweep_lowers_the_bound_and_a_colour_is_one_site_after_the_other(name: str, levels: int) -> None:
    field = random_field(name, levels)
    q = torch.rand_like(field.unary).log().softmax(-1)
    for damping in (0.0, 0.5):
        path = [q]
        for _ in range(20):
            path.append(ascent.sweep(field, path[-1], damping))
        values = torch.stack([ascent.bound(field, each) for each in path])
        assert (values.diff() >= -1e-12).all()
    one_by_one = q.clone()
    for site in torch.cat(field.grid.colours):
        one_by_one[site] = ascent.logits(field, one_by_one)[site].softmax(-1)
    torch.testing.assert_close(ascent.sweep(field, q), one_by_one)


def test_the_bound_of_mean_field_is_log_z_less_the_divergence() -> None:
    field = random_field("open")
    q, _ = ascent.settled(field, field.unary.softmax(-1))
    shares, weights = every(field)
    log_q = (shares * q.log()).sum((-2, -1))
    gap = (log_q.exp() * (log_q - weights.log_softmax(0))).sum()
    torch.testing.assert_close(weights.logsumexp(0) - ascent.bound(field, q), gap)


def test_all_at_once_swings_where_one_after_the_other_settles_and_damping_helps() -> None:
    field = pv.Ising(shape=(4, 4), coupling=-0.6, torus=True).weights
    q = torch.tensor([0.3, 0.7], dtype=torch.float64).expand(16, 2)
    swinging = [q]
    for _ in range(50):
        swinging.append(ascent.parallel(field, swinging[-1]))
    assert (swinging[-1] - swinging[-2]).abs().max() > 0.5  # for ever
    path = [torch.rand(16, 2, dtype=torch.float64).log().softmax(-1)]
    for _ in range(200):
        path.append(ascent.climbed(field, path[-1], 0.5))
    values = torch.stack([ascent.bound(field, each) for each in path])
    assert (values.diff() >= -1e-12).all()
    assert (path[-1] - ascent.sweep(field, path[-1])).abs().max() < 1e-6


def test_of_independent_spins_mean_field_is_exact() -> None:
    field = torch.linspace(-2, 2, 12).tolist()
    free = pv.Ising(shape=(3, 4), coupling=0.0, field=tuple(field))
    assert free.log_partition("mean_field") == pytest.approx(free.log_partition(), abs=1e-12)
    assert free.log_partition() == pytest.approx(sum(math.log(2 * math.cosh(h)) for h in field), abs=1e-5)
    torch.testing.assert_close(free.magnetization("mean_field"), torch.tensor(field).double().tanh().reshape(3, 4))


def test_below_the_critical_temperature_of_mean_field_there_are_two_solutions() -> None:
    """On the square grid z J = 1 is the critical point, J = 1/4; above it m = tanh(4 J m) has both signs."""
    (only,) = pv.Ising(shape=(4, 4), coupling=0.2, torus=True).mean_field(starts=3)
    assert (only.probs - 0.5).abs().max() < 1e-6
    up, down = sorted(
        (2 * float(found.probs[0, 1]) - 1 for found in pv.Ising(shape=(4, 4), coupling=0.4, torus=True).mean_field(starts=3)),
        reverse=True,
    )
    assert up == pytest.approx(math.tanh(1.6 * up), abs=1e-8)
    assert down == pytest.approx(-up, abs=1e-8)


# --- belief propagation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [2, 3])
def test_belief_propagation_is_exact_on_chains_and_rings_of_two(levels: int) -> None:
    for where in (grid((7,), (False,)), grid((2,), (True,)), grid((1, 4), (True, False))):
        torch.manual_seed(1)
        table = (lambda found: found + found.mT)(torch.randn(levels, levels, dtype=torch.float64))
        coupling = torch.randn(len(where.bonds), dtype=torch.float64)
        field = Field(where, coupling, table, torch.randn(3, math.prod(where.shape), levels, dtype=torch.float64))
        found, exact = beliefs(field), marginals(field)
        assert found.settled
        torch.testing.assert_close(found.log_partition, exact.log_partition)
        torch.testing.assert_close(found.sites, exact.sites)
        torch.testing.assert_close(found.bonds.sum(0), exact.bonds)


def test_beliefs_that_do_not_settle_are_told() -> None:
    strange = pv.Ising(shape=(3, 3), coupling=-4.0, field=0.1, torus=True)
    with pytest.warns(pv.FitWarning, match="did not settle"):
        beliefs_of = strange.marginals("bethe")
    assert beliefs_of.shape == (3, 3, 2)


def test_bethe_is_nearer_than_mean_field_on_a_torus() -> None:
    torus = pv.Ising(shape=(4, 5), coupling=0.3, field=0.1, torus=True)
    exact = torus.magnetization()
    assert (torus.magnetization("bethe") - exact).abs().max() < 0.3 * (torus.magnetization("mean_field") - exact).abs().max()


# --- draws ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["exact", "gibbs"])
def test_draws_have_the_marginals_of_sites_and_bonds(method: str) -> None:
    field = random_field("cylinder", 3)
    n, exact, generator = 4_000, marginals(field), torch.Generator().manual_seed(0)
    states = draws(field, n, generator)
    if method == "gibbs":  # which leaves the distribution that it starts from as it is, if that is p
        before, states = states, gibbs(field, states, 5, generator)
        assert (before != states).any(0).all()
    shares = one_hot(states, 3, field.unary)
    i, j = field.grid.ends.unbind(-1)
    pairs = torch.einsum("cea,ceb->eab", shares[:, i], shares[:, j]) / n
    for found, p in ((shares.mean(0), exact.sites), (pairs, exact.bonds)):
        assert ((found - p).abs() <= 5 * (p * (1 - p) / n).sqrt() + 1e-9).all()


def test_draws_are_spins_and_states_by_seed() -> None:
    ising, potts = pv.Ising(shape=(3, 5), coupling=0.3), pv.Potts(states=4, shape=(3, 5), coupling=0.3)
    assert ising.sample(6).shape == potts.sample(6).shape == (6, 3, 5)
    assert ising.sample(50).unique().tolist() == [-1, 1]
    assert potts.sample(50).unique().tolist() == [0, 1, 2, 3]
    assert ising.sample(6, seed=1).equal(ising.sample(6, seed=1))
    assert pv.Ising(shape=(20, 20), coupling=0.3).sample(2, sweeps=3).shape == (2, 20, 20)
    assert pv.Ising(shape=(2, 2), coupling=-3.0).mode().tolist() in ([[1, -1], [-1, 1]], [[-1, 1], [1, -1]])


# --- alone ----------------------------------------------------------------------------------------------------------------


def test_a_lattice_alone_is_fitted_without_data() -> None:
    torus = pv.Ising(shape=(4, 5), coupling=0.3, field=0.1, torus=True)
    fit = pv.fit(torus, method=pv.CAVI())
    rows = pv.load_data(fit.data).train
    assert fit.score == "log_z_bound"
    assert fit.history[-1]["log_z_bound"] / 20 == pytest.approx(0.789588, abs=1e-6)
    assert fit.evaluate(rows)["log_z_bound"] == pytest.approx(fit.history[-1]["log_z_bound"], abs=1e-6)
    assert not {"elbo", "log_likelihood"} & {*fit.history[-1], *fit.evaluate(rows)}
    assert "lower bound on log Z" in str(fit)
    assert fit.score.meaning.startswith("A lower bound on log Z: ")
    torch.testing.assert_close(fit.encode(rows)[0].double(), torus.magnetization("mean_field"), atol=1e-4, rtol=0)
    assert fit.sample(3).shape == (3, 4, 5)


def test_a_run_of_a_lattice_alone_is_kept_and_asked_again(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["--model.shape", "[2,3]", "--model.coupling", "0.3", "--method", "CAVI", "--out", str(tmp_path / "run")]
    assert cli.main(["fit", "--model", "Ising", *words, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    below = pv.Ising(shape=(2, 3), coupling=0.3).log_partition("mean_field")
    assert printed["unit"] == "nats of the whole lattice"
    assert printed["train"]["log_z_bound"] == pytest.approx(below, abs=1e-6)
    assert cli.main(["evaluate", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["all"]["log_z_bound"] == pytest.approx(below, abs=1e-6)
    assert {path.stem for path in (tmp_path / "run").glob("*.png")} == {"samples", "learning_curve", "marginals"}
    assert pv.load_run(tmp_path / "run").model == pv.Ising(shape=(2, 3), coupling=0.3)


@pytest.mark.parametrize("options", [{}, {"damping": 0.3}, {"parallel": True}, {"parallel": True, "damping": 0.5}])
def test_sweeps_of_either_kind_find_the_same_solution(options: dict[str, Any]) -> None:
    torus = pv.Ising(shape=(4, 5), coupling=0.3, field=0.1, torus=True)
    fit = pv.fit(torus, method=pv.CAVI(**options))
    path = [row["log_z_bound"] for row in fit.history]
    assert all(after >= before - 1e-9 for before, after in itertools.pairwise(path))
    assert path[-1] / 20 == pytest.approx(0.789588, abs=1e-6)


def test_a_fit_tells_of_both_ferromagnetic_solutions() -> None:
    cold = pv.Ising(shape=(4, 4), coupling=0.4, torus=True)
    both = r"several solutions.*magnetisation [+-]0\.8906 \(bound 13\.5466\).*magnetisation [+-]0\.8906 \(bound 13\.5466\)"
    with pytest.warns(pv.FitWarning, match=both):
        pv.fit(cold, method=pv.CAVI(n_init=3))


def test_near_the_critical_point_a_fit_is_settled_and_told_once() -> None:
    warm = pv.Ising(shape=(4, 5), coupling=0.3)
    with pytest.warns(pv.FitWarning, match="several solutions") as told:
        fit = pv.fit(warm, method=pv.CAVI())
    assert str(told[0].message).count("bound 13.8632") == 2
    q = fit.pair.guide.probs.double()
    best = warm.mean_field()[0]
    assert fit.history[-1]["log_z_bound"] == pytest.approx(best.bound, abs=1e-12)
    assert abs(2 * float(q[:, 1].mean()) - 1) == pytest.approx(0.09391, abs=1e-5)


def test_where_sums_can_be_done_the_default_is_exact() -> None:
    torus = pv.Ising(shape=(4, 5), coupling=0.3, field=0.1, torus=True)
    fit = pv.fit(torus)
    assert (type(fit.method), fit.guide) == (pv.ClosedForm, pv.ExactPosterior())
    assert fit.history[-1]["log_z"] == pytest.approx(torus.log_partition(), abs=1e-9)
    assert (fit.score, fit.score.bound, fit.score.meaning[:16]) == ("log_z", "exact", "Log Z itself: in")
    rows = pv.load_data(fit.data).train
    assert fit.evaluate(rows)["log_z"] == pytest.approx(torus.log_partition(), abs=1e-6)
    with pytest.raises(ValueError, match="score is log Z, whatever the rows"):
        fit.score_samples(rows)  # log Z is no log p(x) of a row
    assert "nats of the whole lattice after 1 iterations" in str(fit)
    assert type(pv.fit(pv.Ising(shape=(16, 16), coupling=0.1)).method) is pv.CAVI


@pytest.mark.parametrize("model", [pv.Ising(shape=(2, 3), coupling=0.4, field=0.2), pv.Potts(shape=(2, 3), coupling=0.7)])
def test_pyro_sums_the_program_to_log_z(model: Any) -> None:
    spec = pv.load_data(model.no_data()).spec
    program, x = model.build(spec), torch.zeros(1, *model.shape)
    with pyro.validation_enabled():
        loss = TraceEnum_ELBO(max_plate_nesting=1).loss(config_enumerate(program), lambda x: None, x)
    assert -loss == pytest.approx(model.log_partition(), abs=1e-10)


# --- images ---------------------------------------------------------------------------------------------------------------


def images(n: int = 6, *shape: int, missing: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(n, *shape, generator=generator) < 0.4).float()
    return x.masked_fill(torch.rand(x.shape, generator=generator) < missing, torch.nan)


NOISY: dict[str, tuple[Any, bool]] = {
    "Flip": (pv.Ising(shape=(3, 4), coupling=0.4, field=-0.1, observed=pv.Flip(rate=0.2)), False),
    "missing": (pv.Ising(shape=(3, 4), coupling=0.4, torus=True, observed=pv.Flip(rate=0.2)), True),
    "GaussianNoise": (pv.Ising(shape=(3, 4), coupling=0.4, observed=pv.GaussianNoise(scale=0.5)), False),
    "Potts": (pv.Potts(states=3, shape=(2, 4), coupling=0.8, observed=pv.GaussianNoise(scale=0.7, high=2.0)), True),
}


@pytest.mark.parametrize("name", NOISY)
def test_images_behind_noise_are_as_all_configurations_say(name: str) -> None:
    model, missing = NOISY[name]
    x = images(6, 1, *model.shape, missing=0.2 if missing else 0.0)
    data = pv.load_data(x, valid=0, test=0, missing="ignore")
    pair = pv.build(model, pv.ExactPosterior(), data.spec)
    shares, weights = every(model.weights)
    evidence = pair.model.noise.evidence(x.flatten(1).double())
    joint = weights.log_softmax(0) + torch.einsum("cnq,bnq->bc", shares, evidence)
    torch.testing.assert_close(pair.model.log_prob(x), joint.logsumexp(-1))
    q = pair.guide.posterior(x)
    values = model.encoding.value(shares, model.shape)
    torch.testing.assert_close(q.log_prob(values[:, None]), joint.log_softmax(-1).T)
    torch.testing.assert_close(q.mean.double(), torch.einsum("bc,c...->b...", joint.softmax(-1), values), check_dtype=False)
    best = joint.log_softmax(-1).max(-1).values  # of several likeliest configurations any will do
    torch.testing.assert_close(q.log_prob(q.mode), best, check_dtype=False)
    program = config_enumerate(pair.model)
    if len(shares) <= 4096:
        loss = TraceEnum_ELBO(max_plate_nesting=1).loss(program, lambda x: None, x)
        assert -loss == pytest.approx(float(joint.logsumexp(-1).sum()), rel=1e-5)


def test_mean_field_of_images_bounds_their_log_p_in_closed_form() -> None:
    model, x = NOISY["Flip"][0], images(6, 1, 3, 4)
    fit = pv.fit(model, pv.load_data(x, valid=0, test=0), method=pv.CAVI())
    numbers = fit.evaluate(x)
    assert numbers["elbo"] == pytest.approx(fit.history[-1]["elbo"], abs=1e-6)
    assert 0 < numbers["gap"] < 1
    model, guide = fit.pair.model, fit.pair.guide
    q, terms = guide.posterior(x), guide.bound(x)
    torch.testing.assert_close(terms.elbo, model.log_prob(x) - kl_divergence(q, model.posterior(x)))
    torch.testing.assert_close(terms.kl, kl_divergence(q, model.prior()))
    s = q.sample((20_000,))
    sampled = model.prior().log_prob(s) - q.log_prob(s) + model.decode(s).log_prob(x)
    assert ((sampled.mean(0) - terms.elbo).abs() < 5 * sampled.std(0) / math.sqrt(len(s))).all()
    exact = pv.build(fit.model, pv.ExactPosterior(), fit.spec)
    torch.testing.assert_close(elbo_terms(exact, (x,)).elbo, model.log_prob(x))


def test_a_wide_prior_has_a_lower_bound_by_strips_under_a_name_of_its_own() -> None:
    model = pv.Potts(states=4, shape=(8, 8), coupling=0.8, observed=pv.Flip(rate=0.1))
    x = torch.randint(4, (3, 8, 8), generator=torch.Generator().manual_seed(0))
    fit = pv.fit(model, pv.load_data(x, valid=0, test=0, kind="categorical"), method=pv.CAVI())
    numbers = fit.evaluate(x)
    assert "elbo" not in numbers
    assert "log_likelihood" not in numbers
    assert "upper bound in place of the lattice's log Z" in fit.score.meaning
    exact = log_partition(fit.pair.model.given(x.double())) - model.log_partition()
    assert numbers["lower_bound"] < float(exact.mean())
    with pytest.raises(ValueError, match=r"no exact posterior.*use CAVI with MeanField"):
        pv.build(model, pv.ExactPosterior(), fit.spec)
    with pytest.raises(ValueError, match="this model's latent variable is lattice: use MeanField"):
        pv.build(model, pv.AmortizedGumbel(), fit.spec)


def test_denoising_mends_more_pixels_than_it_spoils() -> None:
    truth = pv.Ising(shape=(8, 8), coupling=0.6).sample(60, seed=2)
    model = pv.Ising(shape=(8, 8), coupling=0.6, observed=pv.Flip(rate=0.15))
    noise = torch.rand(truth.shape, generator=torch.Generator().manual_seed(1)) < 0.15
    x = (torch.where(noise, -truth, truth) > 0).float()
    fit = pv.fit(model, pv.load_data(x, valid=0, test=0))
    wrong = ((fit.encode(x) > 0) != (truth > 0)).float().mean()
    assert wrong < 0.5 * noise.float().mean()
    assert fit.reconstruct(x).shape == x.shape
    assert fit.sample(4).unique().tolist() == [0, 1]


# --- learned --------------------------------------------------------------------------------------------------------------


def test_coupling_and_field_are_learned_from_states() -> None:
    truth = pv.Ising(shape=(3, 4), coupling=0.3, field=0.1)
    x = (truth.sample(2000, seed=3) + 1) / 2
    model, data = pv.Ising(shape=(3, 4), coupling=0.0, learned=True), pv.load_data(x, valid=0, test=0)
    fit = pv.fit(model, data, method=pv.SVI(epochs=120, batch_size=2000, compile=False))
    numbers, field = fit.evaluate(data.train), fit.pair.model.field
    assert numbers["gap"] == 0
    # At the maximum the expected interactions and magnetisations are the observed ones.
    shares = one_hot(x.flatten(1).long(), 2, field.unary)
    found, i, j = marginals(field), *field.grid.ends.unbind(-1)
    spins = shares[..., 1] - shares[..., 0]
    torch.testing.assert_close((found.bonds * SPINS).sum(), (spins[:, i] * spins[:, j]).mean(0).sum(), atol=5e-2, rtol=0)
    torch.testing.assert_close((found.sites[:, 1] - found.sites[:, 0]).sum(), spins.mean(0).sum(), atol=5e-2, rtol=0)
    assert fit.pair.model.J.item() == pytest.approx(0.3, abs=0.03)
    assert fit.pair.model_facts.free_parameters == 2


@pytest.mark.parametrize("wide", [False, True])
def test_learned_lattices_tell_their_parameters_and_draw(wide: bool) -> None:
    shape = (16, 16) if wide else (3, 4)
    x = (pv.Ising(shape=shape, coupling=0.2, field=0.3).sample(200, sweeps=50) + 1) / 2
    model = pv.Ising(shape=shape, coupling=0.2, field=0.3, learned=True)
    fit = pv.fit(model, pv.load_data(x, valid=0, test=0), method=pv.SVI(epochs=1, batch_size=200, compile=False))
    told = fit.parameters()
    assert told["coupling"].labels == (("all",),)
    assert told["field"].labels == (("all",), ("0", "1"))
    assert "coupling" in fit.summary()
    drawn = fit.sample(200)
    assert drawn.unique().tolist() == [0, 1]
    assert drawn.mean().item() == pytest.approx(x.mean().item(), abs=0.06)


def test_each_axis_that_is_learned_has_a_name() -> None:
    x = torch.randint(3, (60, 2, 3), generator=torch.Generator().manual_seed(0))
    model = pv.Potts(shape=(2, 3), states=3, coupling=(0.1, 0.2), learned=True)
    fit = pv.fit(model, pv.load_data(x, valid=0, test=0), method=pv.SVI(epochs=1, batch_size=60, compile=False))
    assert fit.parameters()["coupling"].labels == (("0", "1"),)
    assert fit.parameters()["field"].labels == (("all",), ("0", "1", "2"))
    assert sorted(fit.sample(50).unique().tolist()) == [0, 1, 2]


def test_a_fit_without_data_draws_what_the_declaration_draws() -> None:
    model = pv.Ising(shape=(2, 2), coupling=0.1, field=2.0)
    assert pv.fit(model).sample(2000).mean().item() == pytest.approx(model.magnetization().mean().item(), abs=0.02)
    assert set(pv.fit(pv.Potts(shape=(2, 2), states=3, coupling=0.1)).sample(200).unique().tolist()) == {0, 1, 2}


def test_where_sums_cannot_be_done_the_pseudo_likelihood_is_climbed_and_told() -> None:
    truth = pv.Ising(shape=(16, 16), coupling=0.3)
    x = (truth.sample(40, sweeps=100, seed=3) + 1) / 2
    model = pv.Ising(shape=(16, 16), coupling=0.0, learned=True)
    fit = pv.fit(model, pv.load_data(x, valid=0, test=0), method=pv.SVI(epochs=100, batch_size=40, compile=False))
    assert fit.score == "pseudo_likelihood"
    assert fit.score.bound is None
    assert fit.pair.model.J.item() == pytest.approx(0.3, abs=0.03)
    log_p = fit.pair.model.states.log_prob(x)
    states, field = x.flatten(1).long(), fit.pair.model.field
    flipped = one_hot(states, 2, field.unary)
    each = []
    for site in range(0, 256, 51):
        other = states.clone()
        other[:, site] = 1 - other[:, site]
        both = torch.stack([energy(field, flipped), energy(field, one_hot(other, 2, field.unary))])
        each.append(both.log_softmax(0)[0] - (ascent.logits(field, flipped).log_softmax(-1) * flipped).sum(-1)[:, site])
    assert torch.stack(each).abs().max() < 1e-9
    assert log_p.shape == (40,)


# --- bad input ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: pv.Ising(shape=()), "a shape of whole numbers"),
        (lambda: pv.Ising(shape=(3, 0)), "a shape of whole numbers"),
        (lambda: pv.Ising(shape=(3, 3), coupling=(0.1, 0.2, 0.3)), "one coupling, or one for each of 2 axes"),
        (lambda: pv.Ising(shape=(3, 3), coupling=math.inf), "a finite coupling"),
        (lambda: pv.Ising(shape=(3, 3), field=(0.1,) * 4), "one field, or one for each of 9 sites"),
        (lambda: pv.Ising(shape=(3, 3), observed=pv.Flip(), learned=True), "states that are seen to learn from, without noise"),
        (lambda: pv.Potts(states=1, shape=(3, 3)), "at least 2 states"),
        (lambda: pv.Potts(states=3, shape=(3, 3), field=(0.1,)), "a field of each of 3 states"),
        (lambda: pv.Flip(rate=1.0), "a rate above 0 and below 1"),
        (lambda: pv.GaussianNoise(scale=0.0), "a positive scale"),
        (lambda: pv.Ising(shape=(3, 3)).log_partition("guess"), "a method of exact, mean_field, bethe, upper"),
        (lambda: pv.Ising(shape=(3, 3)).sample(0), "at least 1 draw"),
        (lambda: pv.fit(pv.Ising(shape=(3, 3)), "digits"), "a lattice alone has no data"),
        (lambda: pv.fit(pv.Ising(shape=(3, 3), observed=pv.Flip()), images(9, 8, 8)), "data of the shape of the lattice"),
        (lambda: pv.fit(pv.Ising(shape=(8, 8), observed=pv.Flip()), torch.rand(9, 8, 8)), "expected binary data"),
        (lambda: pv.fit(pv.Ising(shape=(3, 3)), method=pv.CAVI(collapsed=True)), "knows no collapsed"),
        (lambda: pv.fit(pv.Ising(shape=(3, 3)), method=pv.EM()), "fit it by ClosedForm or CAVI$"),
        (lambda: pv.fit(pv.Ising(shape=(3, 3)), method=pv.SVI(epochs=1)), "could train: fit it by ClosedForm or CAVI$"),
        (lambda: pv.fit(pv.Ising(shape=(3, 3)), method=pv.CAVI(batch_size=8)), "from all rows at once, got 8: leave it out"),
        (lambda: pv.fit(NOISY["Flip"][0], images(9, 3, 4), method=pv.CAVI(n_init=2)), "an n_init of 1"),
        (lambda: pv.load_data("empty:0x3"), "lengths of an empty row"),
    ],
)
def test_bad_input_is_told_with_a_remedy(make: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        make()


def test_declarations_survive_yaml() -> None:
    for model in (
        pv.Ising(shape=(2, 2), coupling=(0.1, 0.2), field=((0.1, 0.2), (0.3, 0.4)), torus=(True, False), observed=pv.Flip()),
        pv.Potts(states=3, shape=(4,), field=(0.1, 0.2, 0.3), observed=pv.GaussianNoise()),
    ):
        assert pv.Model.from_yaml(model.to_yaml()) == model
        assert hash(model) == hash(pv.Model.from_yaml(model.to_yaml()))


def test_methods_are_compared_on_a_lattice_alone(capsys: pytest.CaptureFixture) -> None:
    words = ["--model.shape", "[2,3]", "--model.coupling", "0.2", "--methods", "[CAVI,ClosedForm]"]
    assert cli.main(["compare", "--model", "Ising", *words]) == 0
    shown = capsys.readouterr().out
    assert "nats of the whole lattice; s: seconds" in shown
    assert f"{pv.Ising(shape=(2, 3), coupling=0.2).log_partition():.3f}" in shown
