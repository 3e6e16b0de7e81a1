"""Bayesian networks: what is exact about them against sums over all joint states, formulas, and other models."""

from __future__ import annotations

import itertools
import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import ppl_vae as pv
from ppl_vae import cli
from ppl_vae.exact import elimination
from ppl_vae.exact.elimination import ROWS, Factor
from ppl_vae.models.network import steps
from ppl_vae.program.traces import log_joint, traces
from ppl_vae.types import FitWarning
from tests.network_cases import ASIA, bare, causes, data_of, frame, joint_of, mixed, random_network

EM = pv.EM(max_iterations=30, tolerance=0.0)


@pytest.fixture
def asia(tmp_path: Path) -> pv.BayesianNetwork:
    path = tmp_path / "asia.bif"
    path.write_text(ASIA)
    return pv.BayesianNetwork.from_bif(path)


# --- the contraction ------------------------------------------------------------------------------------------------------


def test_a_contraction_is_the_sum_over_all_products() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b, c = (torch.rand(*shape, generator=generator, dtype=torch.float64) for shape in ((2, 3), (3, 4), (5, 4)))
    factors = [Factor(a, ("x", "y")), Factor(b, ("y", "z")), Factor(c, (ROWS, "z"))]
    expected = torch.einsum("xy,yz,nz->n", a, b, c)
    torch.testing.assert_close(elimination.log_sum(factors), expected.log())
    values, log_scale = elimination.sums(factors, (ROWS, "x"))
    torch.testing.assert_close(values * log_scale.exp(), torch.einsum("xy,yz,nz->nx", a, b, c))
    weight = torch.arange(1.0, 6.0, dtype=torch.float64)
    _, (_, counts, _) = elimination.expectations(factors, weight)
    torch.testing.assert_close(counts, torch.einsum("n,xy,yz,nz->yz", weight / expected, a, b, c))


def test_products_of_very_many_small_numbers_do_not_vanish() -> None:
    chain = [Factor(torch.full((2, 2), 1e-30, dtype=torch.float64), (f"x{i}", f"x{i + 1}")) for i in range(100)]
    found = elimination.log_sum([*chain, Factor(torch.ones(3, 2, dtype=torch.float64), (ROWS, "x100"))])
    torch.testing.assert_close(found, torch.full_like(found, 101 * math.log(2) - 100 * 30 * math.log(10)))


def test_the_order_is_found_once_whatever_the_number_of_rows(asia: pv.BayesianNetwork) -> None:
    program = asia.declared()
    elimination._contraction.cache_clear()
    for n in (1, 7, 300):
        program.log_prob(program.ancestral(n))
    assert elimination._contraction.cache_info().misses == 1


def test_sums_that_are_too_large_name_their_clique() -> None:
    pairs = [Factor(torch.ones(9, 9), (f"v{i}", f"v{j}")) for i in range(6) for j in range(i)]
    with pytest.raises(ValueError, match=r"at most 1,000 entries, got [\d,]+ for the variables v\d, v\d") as refused:
        elimination.contraction(pairs, (), limit=1000)
    assert "\n" not in str(refused.value)


# --- networks of states ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_log_p_posteriors_and_evidence_are_those_of_all_joint_states(seed: int) -> None:
    network = random_network(seed)
    names, joint = joint_of(network)
    program = network.declared()
    rows = torch.tensor(list(itertools.product(*map(range, joint.shape))), dtype=torch.float32)
    torch.testing.assert_close(program.log_prob(rows).exp(), joint.flatten(), rtol=1e-5, atol=1e-9)
    answer = network.query(names[0], {names[-1]: "s1"})
    expected = joint[..., 1].flatten(1).sum(-1)
    torch.testing.assert_close(answer.table, expected / expected.sum(), rtol=1e-6, atol=0)
    assert answer.log_evidence.item() == pytest.approx(expected.sum().log().item(), rel=1e-6)
    both = network.query([names[2], names[0]], {names[-1]: ["s0", None]})
    order = joint.sum((1, 3)).permute(1, 0, 2)  # n2, n0, n4
    torch.testing.assert_close(both.table[0], order[..., 0] / order[..., 0].sum(), rtol=1e-6, atol=0)
    torch.testing.assert_close(both.table[1], order.sum(-1), rtol=1e-6, atol=0)
    best = np.unravel_index(int(order.sum(-1).argmax()), order.shape[:2])
    assert both.most_probable[names[2]][1] == f"s{best[0]}"
    assert both.most_probable[names[0]][1] == f"s{best[1]}"


@pytest.mark.parametrize("seed", range(3))
def test_expected_counts_are_those_of_all_joint_states(seed: int) -> None:
    network = random_network(seed)
    names, joint = joint_of(network)
    program = network.declared()
    rows = program.ancestral(20)
    rows[torch.rand(rows.shape, generator=torch.Generator().manual_seed(seed)) < 0.4] = torch.nan
    _, counts = steps.gathered(program.nodes, program.em_state(), [program.evidence(rows)])
    expected = torch.zeros_like(joint)
    for row in rows.tolist():
        seen = torch.ones_like(joint)
        for axis, value in enumerate(row):
            if not math.isnan(value):
                one = torch.zeros(joint.shape[axis], dtype=joint.dtype)
                one[int(value)] = 1
                seen = seen * one.reshape([-1 if dim == axis else 1 for dim in range(joint.dim())])
        expected += joint * seen / (joint * seen).sum()
    for name, node in network.nodes.items():
        axes = [names.index(each) for each in (*node.parents, name)]
        marginal = expected.sum([dim for dim in range(joint.dim()) if dim not in axes])
        order = [sorted(axes).index(axis) for axis in axes]
        torch.testing.assert_close(sum(counts[name]), marginal.permute(order), rtol=1e-5, atol=1e-6)


def test_asia_has_the_posteriors_that_are_known(asia: pv.BayesianNetwork) -> None:
    assert asia.query("dysp")["dysp"]["yes"] == pytest.approx(0.4359706, abs=1e-6)
    assert asia.query("lung")["lung"]["yes"] == pytest.approx(0.055, abs=1e-7)
    assert asia.query("either")["either"]["yes"] == pytest.approx(0.064828, abs=1e-6)
    assert asia.query("xray")["xray"]["yes"] == pytest.approx(0.11029004, abs=1e-6)
    _, joint = joint_of(asia)
    seen = joint[0, :, :, :, :, :, :, 0]  # asia=yes, dysp=yes
    answer = asia.query("lung", {"asia": "yes", "dysp": "yes"})
    assert answer["lung"]["yes"] == pytest.approx(float(seen[:, :, 0].sum() / seen.sum()), rel=1e-6)
    assert answer.log_evidence.item() == pytest.approx(math.log(seen.sum()), rel=1e-6)


def test_evidence_that_is_separated_and_nodes_that_nothing_hangs_on_change_nothing(asia: pv.BayesianNetwork) -> None:
    torch.testing.assert_close(asia.query("smoke", {"asia": "yes"}).table, asia.query("smoke").table)
    known = {"either": "yes"}
    torch.testing.assert_close(asia.query("xray", known).table, asia.query("xray", {**known, "smoke": "no"}).table)
    pruned = pv.BayesianNetwork(nodes={name: node for name, node in asia.nodes.items() if name not in ("xray", "dysp")})
    given = {"smoke": "yes", "asia": "no"}
    torch.testing.assert_close(asia.query("lung", given).table, pruned.query("lung", given).table)
    assert asia.query("lung", given).log_evidence == pytest.approx(pruned.query("lung", given).log_evidence)


def test_an_intervention_cuts_the_parents(asia: pv.BayesianNetwork) -> None:
    torch.testing.assert_close(asia.query("smoke", do={"lung": "yes"}).table, asia.query("smoke").table)
    assert asia.query("smoke", {"lung": "yes"})["smoke"]["yes"] == pytest.approx(0.1 / 0.11)
    assert asia.query("smoke", do={"lung": "yes"}).log_evidence == pytest.approx(0.0, abs=1e-12)
    cut = pv.BayesianNetwork(nodes={**asia.nodes, "lung": pv.Table(states=("yes", "no"), probs=(1.0, 0.0))})
    done = asia.query(["dysp", "smoke"], {"xray": "no"}, do={"lung": "yes"})
    torch.testing.assert_close(done.table, cut.query(["dysp", "smoke"], {"xray": "no"}).table)
    assert done.log_evidence == pytest.approx(cut.query("dysp", {"xray": "no"}).log_evidence)
    # A root that is set is a root that is seen, but for its own probability.
    torch.testing.assert_close(asia.query("dysp", do={"smoke": "yes"}).table, asia.query("dysp", {"smoke": "yes"}).table)


def test_rows_of_a_table_are_asked_at_once(asia: pv.BayesianNetwork) -> None:
    seen = {"xray": ["yes", "no", None], "smoke": ["no", "yes", "yes"]}
    together = asia.query("lung", seen, do={"asia": ["yes", "no", "no"]})
    for row in range(3):
        given = {name: values[row] for name, values in seen.items() if values[row] is not None}
        alone = asia.query("lung", given, do={"asia": ("yes", "no", "no")[row]})
        torch.testing.assert_close(together.table[row], alone.table)
        assert together.log_evidence[row].item() == pytest.approx(alone.log_evidence.item())


def test_all_marginals_come_from_one_sweep(asia: pv.BayesianNetwork) -> None:
    given = {"xray": ["yes", "no"], "dysp": ["yes", None]}
    together = asia.marginals(given, do={"smoke": "no"})
    assert set(together) == set(asia.nodes)
    for name in ("lung", "tub", "bronc", "either"):
        torch.testing.assert_close(together[name], asia.query(name, given, do={"smoke": "no"}).table, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(together["smoke"], torch.tensor([[0.0, 1.0]] * 2).double())
    rain = mixed().marginals({"ice": 3.0})["rain"]
    torch.testing.assert_close(rain, mixed().query("rain", {"ice": 3.0}).table)


def test_evidence_that_cannot_be_is_said(asia: pv.BayesianNetwork) -> None:
    with pytest.raises(ValueError, match="probability zero"):
        asia.query("smoke", {"either": "no", "lung": "yes"})
    with pytest.raises(ValueError, match="probability zero in row 1"):
        asia.query("smoke", {"either": "no", "lung": ["no", "yes"]})


# --- numbers --------------------------------------------------------------------------------------------------------------


def normal_of(network: pv.BayesianNetwork) -> tuple[Tensor, Tensor]:
    """Mean and covariance of a network of numbers, by forward substitution."""
    names = list(network.nodes)
    mean, cov = torch.zeros(len(names), dtype=torch.float64), torch.zeros(len(names), len(names), dtype=torch.float64)
    for i, (_, node) in enumerate(network.nodes.items()):
        w = torch.zeros(len(names), dtype=torch.float64)
        for parent, slope in zip(node.parents, (node.slopes or ((),))[0], strict=True):
            w[names.index(parent)] = slope
        mean[i] = node.intercepts[0] + w @ mean
        cov[i] = cov[:, i] = cov @ w
        cov[i, i] = node.scales[0] ** 2 + w @ cov @ w
    return mean, cov


@pytest.fixture
def numbers() -> pv.BayesianNetwork:
    linear = pv.LinearGaussian
    return pv.BayesianNetwork(
        nodes={
            "a": linear(intercepts=(5.0,), scales=(2.0,)),
            "b": linear(parents=("a",), intercepts=(-1.0,), slopes=((0.5,),), scales=(1.0,)),
            "c": linear(intercepts=(100.0,), scales=(10.0,)),
            "d": linear(parents=("b", "c"), intercepts=(0.0,), slopes=((2.0, -0.1),), scales=(0.5,)),
        }
    )


def test_a_network_of_numbers_is_its_multivariate_normal(numbers: pv.BayesianNetwork) -> None:
    mean, cov = normal_of(numbers)
    program = numbers.declared()
    x = program.ancestral(50)
    whole = torch.distributions.MultivariateNormal(mean, cov)
    torch.testing.assert_close(program.log_prob(x), whole.log_prob(x.double()), rtol=1e-5, atol=1e-5)
    x[torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.4] = torch.nan
    for row, found in zip(x.double(), program.log_prob(x), strict=True):
        seen = ~row.isnan()
        part = torch.distributions.MultivariateNormal(mean[seen], cov[seen][:, seen]) if seen.any() else None
        assert found.item() == pytest.approx(part.log_prob(row[seen]).item() if part else 0.0, rel=1e-5, abs=1e-5)
    answer = numbers.query(["a", "c"], {"d": 3.0})
    gain = cov[[0, 2], 3] / cov[3, 3]
    torch.testing.assert_close(answer.means[0], mean[[0, 2]] + gain * (3.0 - mean[3]), rtol=1e-5, atol=1e-5)
    expected = cov[[0, 2]][:, [0, 2]] - torch.outer(gain, cov[[0, 2], 3])
    torch.testing.assert_close(answer.covariances[0], expected, rtol=1e-5, atol=1e-5)
    assert answer.log_evidence.item() == pytest.approx(
        torch.distributions.Normal(mean[3], cov[3, 3].sqrt()).log_prob(torch.tensor(3.0)).item(), rel=1e-5
    )


def test_em_of_a_network_of_numbers_finds_its_multivariate_normal(numbers: pv.BayesianNetwork) -> None:
    data = data_of(numbers, 3000, missing=0.1)
    fit = pv.fit(bare(numbers), data, method=pv.EM(max_iterations=100))
    answer = fit.query(list(numbers.nodes))
    mean, cov = normal_of(numbers)
    scale = cov.diagonal().sqrt()
    torch.testing.assert_close(answer.means[0] / scale, mean / scale, atol=0.1, rtol=0)
    torch.testing.assert_close(
        answer.covariances[0] / torch.outer(scale, scale), cov / torch.outer(scale, scale), atol=0.1, rtol=0
    )
    climbed = [row["log_likelihood"] for row in fit.history]
    assert all(after >= before - 1e-9 for before, after in itertools.pairwise(climbed))


def test_a_number_that_is_set_moves_what_hangs_on_it_and_nothing_else(numbers: pv.BayesianNetwork) -> None:
    done = numbers.query(["a", "d"], do={"b": 7.0})
    torch.testing.assert_close(done.means[0], torch.tensor([5.0, 4.0], dtype=torch.float64), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(done.covariances[0], torch.tensor([[4.0, 0.0], [0.0, 1.25]]).double(), rtol=1e-5, atol=1e-5)
    assert done.log_evidence == pytest.approx(0.0, abs=1e-12)


def test_numbers_given_states_are_mixtures_of_all_joint_states() -> None:
    network, program = mixed(), mixed().declared()
    x = program.ancestral(40)
    x[torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < 0.4] = torch.nan
    normal = torch.distributions.MultivariateNormal
    log_p = torch.full((40,), -math.inf, dtype=torch.float64)
    for cloudy, rain in itertools.product((0, 1), (0, 1)):
        weight = math.log((0.4, 0.6)[cloudy] * ((0.9, 0.1), (0.3, 0.7))[cloudy][rain])
        slope, variance = (0.5, 0.2)[rain], (9.0, 4.0)[cloudy]
        mean = torch.tensor([(20.0, 12.0)[cloudy], (1.0, 0.0)[rain] + slope * (20.0, 12.0)[cloudy]], dtype=torch.float64)
        cov = torch.tensor([[variance, slope * variance], [slope * variance, slope**2 * variance + (1.0, 0.49)[rain]]]).double()
        for n, row in enumerate(x.double()):
            if any(float(row[i]) == 1 - place for i, place in ((0, cloudy), (1, rain))):
                continue
            seen = ~row[2:].isnan()
            value = normal(mean[seen], cov[seen][:, seen]).log_prob(row[2:][seen]).item() if seen.any() else 0.0
            log_p[n] = torch.logaddexp(log_p[n], torch.tensor(weight + value).double())
    torch.testing.assert_close(program.log_prob(x), log_p, rtol=1e-5, atol=1e-5)
    answer = network.query(["rain", "ice"], {"temp": 15.0})
    clear, dull = (torch.distributions.Normal(m, s).log_prob(torch.tensor(15.0)).exp() for m, s in ((20.0, 3.0), (12.0, 2.0)))
    p_rain = (0.4 * clear * 0.1 + 0.6 * dull * 0.7) / (0.4 * clear + 0.6 * dull)
    assert answer["rain"]["yes"] == pytest.approx(p_rain.item(), rel=1e-5)
    assert answer["ice"].mean.item() == pytest.approx((p_rain * 3.0 + (1 - p_rain) * 8.5).item(), rel=1e-5)
    assert answer.log_evidence.item() == pytest.approx((0.4 * clear + 0.6 * dull).log().item(), rel=1e-5)


def test_what_is_missing_is_imputed_from_its_exact_conditional() -> None:
    network = mixed(("rain",))
    program = network.declared()
    x = torch.tensor([[1.0, torch.nan, 4.0], [torch.nan, 13.0, torch.nan], [0.0, torch.nan, torch.nan], [1.0, 15.0, 2.0]])
    filled = program.impute(x)
    names = list(program.columns)
    for row, found in zip(x.tolist(), filled.tolist(), strict=True):
        given = {name: value for name, value in zip(names, row, strict=True) if not math.isnan(value)}
        for name, value, was in zip(names, found, row, strict=True):
            if not math.isnan(was):
                assert value == was
            elif name == "cloudy":
                assert ("no", "yes")[int(value)] == network.query(name, given).most_probable[name]
            else:
                assert value == pytest.approx(network.query(name, given)[name].mean.item(), rel=1e-5)
    torch.manual_seed(0)
    draws = program.impute(x, draws=4000)
    assert torch.equal(draws[:, ~x.isnan()], x[~x.isnan()].expand(4000, -1))
    found = network.query("temp", {"cloudy": "yes", "ice": 4.0})["temp"]
    assert draws[:, 0, 1].mean().item() == pytest.approx(found.mean.item(), abs=0.15)
    assert draws[:, 0, 1].std().item() == pytest.approx(found.variance.sqrt().item(), rel=0.06)
    assert draws[:, 1, 0].mean().item() == pytest.approx(network.query("cloudy", {"temp": 13.0})["cloudy"]["yes"], abs=0.03)
    both = draws[:, 2, 1:]
    cov = network.query(["temp", "ice"], {"cloudy": "no"})
    weights = cov.weights[:, None]
    mean = (weights * cov.means).sum(0)
    across = (weights[..., None] * (cov.covariances + (cov.means - mean)[:, :, None] * (cov.means - mean)[:, None])).sum(0)
    torch.testing.assert_close(torch.cov(both.T.double()), across, rtol=0.12, atol=0.1)


# --- the Pyro program -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("hidden", [(), ("cloudy",), ("temp",), ("cloudy", "temp")])
def test_the_pyro_program_sums_to_the_contraction(hidden: tuple[str, ...], missing: float) -> None:
    network = mixed(hidden)
    data = data_of(network, 60, missing=missing)
    pair = pv.build(network, pv.ExactPosterior(), data.spec)
    batch = (data.train.transformed(),)
    with torch.no_grad():
        summed = log_joint(traces(pair, batch, 1))[0]
    torch.testing.assert_close(summed.double(), pair.model.log_prob(*batch), rtol=1e-5, atol=1e-5)


def test_the_pyro_program_of_asia_sums_to_the_contraction(asia: pv.BayesianNetwork) -> None:
    data = data_of(asia, 50, missing=0.4)
    pair = pv.build(asia, pv.ExactPosterior(), data.spec)
    batch = (data.train.transformed(),)
    with torch.no_grad():
        summed = log_joint(traces(pair, batch, 1))[0]
    torch.testing.assert_close(summed.double(), pair.model.log_prob(*batch), rtol=1e-5, atol=1e-5)


def test_draws_have_the_declared_distribution(asia: pv.BayesianNetwork) -> None:
    columns = asia.sample(20_000, seed=1)
    assert np.mean(columns["dysp"] == "yes") == pytest.approx(0.43597, abs=0.015)
    assert columns["dysp"].tolist() == asia.sample(20_000, seed=1)["dysp"].tolist()


@pytest.mark.parametrize("states", [("0", "1", "2"), ("1", "2"), ("0.5", "1.5"), ("no", "yes")])
def test_draws_are_a_table_that_a_fit_reads(states: tuple[str, ...]) -> None:
    shares = (1 / len(states),) * len(states)
    network = pv.BayesianNetwork(
        nodes={"a": pv.Table(states=("u", "v"), probs=(0.5, 0.5)), "b": pv.Table(states=states, probs=shares)}
    )
    pd = pytest.importorskip("pandas")
    drawn = pd.DataFrame(network.sample(200))
    fit = pv.fit(bare(network), pv.load_data(drawn, test=0.0, valid=0.0), method=pv.ClosedForm())
    found = fit.marginals()["b"]
    expected = [(drawn["b"].astype(str) == state).mean() for state in states]
    np.testing.assert_allclose(found, expected, atol=1e-6)


# --- fits -----------------------------------------------------------------------------------------------------------------


def test_one_step_of_em_on_complete_data_is_counting_and_regression() -> None:
    network = mixed()
    data = data_of(network, 400)
    counted = pv.fit(bare(network), data, method=pv.ClosedForm())
    stepped = pv.fit(bare(network), data, method=pv.EM(max_iterations=1))
    other = pv.fit(bare(network), data, method=pv.EM(max_iterations=40, seed=3))
    for name, state in counted.pair.model.em_state().items():
        for one, two, three in zip(state, *(fit.pair.model.em_state()[name] for fit in (stepped, other)), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(one, three, rtol=1e-5, atol=1e-6)
    train = frame(network, 400).iloc[:0]  # columns alone
    rows = data.train.x.double()
    place = {name: list(train.columns).index(name) for name in train.columns}
    rain, cloudy, temp, ice = (rows[:, place[name]] for name in ("rain", "cloudy", "temp", "ice"))
    share = rain[cloudy == 1].mean().item()
    assert counted.pair.model.nodes["rain"].state[0][1, 1].item() == pytest.approx(share, rel=1e-5)
    here = rain == 1
    design = torch.stack([torch.ones(int(here.sum())).double(), temp[here]], -1)
    solved = torch.linalg.lstsq(design, ice[here].unsqueeze(-1)).solution[:, 0]
    coefficients, scales = counted.pair.model.nodes["ice"].natural
    torch.testing.assert_close(coefficients[1].detach(), solved, rtol=1e-4, atol=1e-4)
    left = ice[here] - design @ solved
    assert scales[1].item() == pytest.approx(left.square().mean().sqrt().item(), rel=1e-5)  # divided by n, not by n - 2


def test_pseudo_counts_are_added_to_each_count() -> None:
    data = pv.load_data(np.array([[0], [0], [1]]), kind="binary", valid=0.0, test=0.0)
    coin = pv.BayesianNetwork(nodes={"coin": pv.Table(states=("0", "1", "2"))}, pseudo_counts=0.5)
    fit = pv.fit(coin, data, method=pv.ClosedForm())
    assert list(fit.query("coin")["coin"].values()) == pytest.approx([2.5 / 4.5, 1.5 / 4.5, 0.5 / 4.5], rel=1e-6)
    with pytest.raises(ValueError, match="pseudo_counts of 0 for EM"):
        pv.fit(coin, data, method=pv.EM())


@pytest.mark.parametrize("hidden", [("cloudy",), ("cloudy", "temp")])
def test_em_climbs_with_hidden_nodes_and_missing_entries(hidden: tuple[str, ...]) -> None:
    network = mixed(hidden)
    data = data_of(network, 400, missing=0.2)
    fit = pv.fit(bare(network, hidden=hidden), data, method=EM)
    climbed = [row["log_likelihood"] for row in fit.history]
    assert all(after >= before - 1e-9 for before, after in itertools.pairwise(climbed))
    assert climbed[-1] > climbed[0] + 0.01
    truth = pv.build(network, pv.ExactPosterior(), data.spec).model.log_prob(data.train.transformed()).mean().item()
    assert climbed[-1] > truth - 0.05
    numbers = fit.evaluate(data.train)
    assert numbers["log_likelihood"] == pytest.approx(climbed[-1], rel=1e-5)
    assert numbers["kl"] == 0.0
    codes = fit.encode(data.test)
    assert codes.shape == (len(data.test), 2)
    torch.testing.assert_close(codes.sum(-1), torch.ones(len(codes)))


def test_numbers_that_hang_on_one_hidden_state_are_a_mixture_of_gaussians() -> None:
    generator = np.random.default_rng(0)
    x = np.concatenate([generator.normal(-3, 1, (150, 2)), generator.normal(3, 2, (100, 2))])
    data = pv.load_data(x, valid=0.0, test=0.0)
    nodes = {"k": pv.Table(states=("a", "b")), "x": pv.LinearGaussian(parents=("k",)), "y": pv.LinearGaussian(parents=("k",))}
    method = pv.EM(max_iterations=500, tolerance=1e-12)
    network = pv.fit(pv.BayesianNetwork(nodes=nodes, hidden=("k",)), data, method=method)
    mixture = pv.fit(pv.GMM(components=2, covariance="diagonal"), data, method=method)
    last = [fit.history[-1]["log_likelihood"] for fit in (network, mixture)]
    assert last[0] == pytest.approx(last[1], abs=1e-6)
    ours, theirs = network.encode(data.train), mixture.encode(data.train)
    ours = ours if (ours[0] - theirs[0]).abs().max() < 0.5 else ours.flip(-1)
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=0)


def test_several_hidden_nodes_have_a_joint_posterior(asia: pv.BayesianNetwork) -> None:
    hidden = ("tub", "lung", "either")
    network = pv.BayesianNetwork(nodes=asia.nodes, hidden=hidden)
    data = data_of(network, 30)
    with pytest.warns(FitWarning, match="rows of tables of which no data tell"):
        fit = pv.fit(network, data, method=pv.EM(max_iterations=1))
    program = fit.pair.model
    x = data.test.transformed()
    q = fit.posterior(data.test)
    for name in hidden:
        given = {other: x[:, place].tolist() for other, place in program.columns.items()}  # the codes of the column
        single = fit.query(name, given)
        torch.testing.assert_close(program.posterior(x).mean[name].double(), single.table, atol=1e-5, rtol=1e-4)
    drawn = q.sample((4000,))
    either = (drawn["tub"][..., 0] == 1) | (drawn["lung"][..., 0] == 1)
    assert torch.equal(either, drawn["either"][..., 0] == 1)


def test_svi_climbs_to_where_em_does() -> None:
    network = mixed(("cloudy",))
    data = data_of(network, 300)
    em = pv.fit(bare(network, hidden=("cloudy",)), data, method=pv.EM(max_iterations=200))
    svi = pv.fit(bare(network, hidden=("cloudy",)), data, method=pv.SVI(epochs=3, learning_rate=1e-3), warm_start=em)
    assert svi.evaluate(data.train)["elbo"] == pytest.approx(em.history[-1]["log_likelihood"], abs=0.02)
    cold = pv.fit(bare(network, hidden=("cloudy",)), data, method=pv.SVI(epochs=8, batch_size=60))
    assert cold.history[-1]["elbo"] > cold.history[0]["elbo"] + 0.02


def test_what_is_not_learned_stays() -> None:
    network = mixed()
    nodes = dict(bare(network).nodes)
    nodes["rain"] = pv.Table(parents=("cloudy",), states=("no", "yes"), probs=((0.5, 0.5), (0.25, 0.75)), learned=False)
    fit = pv.fit(pv.BayesianNetwork(nodes=nodes), data_of(network, 100, missing=0.1), method=pv.EM(max_iterations=5))
    torch.testing.assert_close(fit.pair.model.nodes["rain"].state[0], torch.tensor([[0.5, 0.5], [0.25, 0.75]]).double())
    assert not torch.equal(fit.pair.model.nodes["cloudy"].state[0], torch.full((2,), 0.5).double())


def test_a_fitted_network_is_declared_saved_and_asked_again(tmp_path: Path) -> None:
    network = mixed()
    data = data_of(network, 200)
    fit = pv.fit(bare(network), data, method=pv.ClosedForm())
    filled = fit.model.filled(fit.pair.model)
    assert pv.BayesianNetwork.from_yaml(filled.to_yaml()) == filled
    given = {"rain": "yes", "temp": 14.0}
    assert filled.query("cloudy", given)["cloudy"]["yes"] == pytest.approx(
        fit.query("cloudy", given)["cloudy"]["yes"], rel=1e-4
    )
    pv.save_run(fit, data, tmp_path / "run")
    again = pv.load_run(tmp_path / "run")
    torch.testing.assert_close(again.query("ice", given).means, fit.query("ice", given).means)


def test_standardized_columns_are_asked_in_the_units_of_the_source() -> None:
    network = mixed()
    table = frame(network, 300)
    plain = pv.fit(bare(network), pv.load_data(table, valid=0.1), method=pv.ClosedForm())
    scaled = pv.fit(bare(network), pv.load_data(table, valid=0.1, scale="standardize"), method=pv.ClosedForm())
    for fit in (plain, scaled):
        assert fit.sample(5).shape == (5, 4)
    one, two = (fit.query(["cloudy", "ice"], {"temp": 16.0}) for fit in (plain, scaled))
    torch.testing.assert_close(one.table, two.table, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(one.means, two.means, rtol=1e-4, atol=1e-3)
    assert one.log_evidence.item() == pytest.approx(two.log_evidence.item(), rel=1e-4)
    rows = pv.load_data(table, valid=0.1).test
    assert plain.evaluate(rows)["elbo"] == pytest.approx(scaled.evaluate(rows)["elbo"], rel=1e-4)


# --- other nodes ----------------------------------------------------------------------------------------------------------


def test_any_cause_by_itself_turns_a_noisy_or_on() -> None:
    network = causes()
    for cold, flu in itertools.product((0, 1), (0, 1)):
        off = 0.95 * 0.6**cold * 0.2**flu
        given = {"cold": ("no", "yes")[cold], "flu": ("no", "yes")[flu]}
        assert network.query("cough", given)["cough"]["no"] == pytest.approx(off, rel=1e-6)
    logits = np.array([0.0, -2.0 + 0.02 * 70, -4.0 + 0.06 * 70])
    expected = np.exp(logits) / np.exp(logits).sum()
    found = network.query("ward", {"flu": "yes", "age": 70.0})["ward"]
    assert list(found.values()) == pytest.approx(expected.tolist(), rel=1e-5)
    assert pv.BayesianNetwork.from_yaml(network.to_yaml()) == network


def test_em_fits_noisy_ors_and_regressions_of_states(tmp_path: Path) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    network = causes()
    table = frame(network, 1500)
    table.loc[::4, "cold"] = np.nan
    data = pv.load_data(table, valid=0.0, test=0.0, missing="ignore")
    fit = pv.fit(bare(network), data, method=pv.EM(max_iterations=25, tolerance=0.0))
    climbed = [row["log_likelihood"] for row in fit.history]
    assert all(after >= before - 1e-9 for before, after in itertools.pairwise(climbed))
    leak, cold, flu = fit.pair.model.nodes["cough"].state[0].tolist()
    assert (leak, cold, flu) == pytest.approx((0.05, 0.4, 0.8), abs=0.08)
    ill = (table["flu"] == "yes").to_numpy()
    order = ["home", "day", "night"]
    reference = linear.LogisticRegression(C=np.inf, tol=1e-10, max_iter=2000)
    age = (table["age"].to_numpy()[ill] - 50.0) / 15.0
    reference.fit(age[:, None], table["ward"].map(order.index).to_numpy()[ill].astype(int))
    seen = fit.query("ward", {"flu": ["yes"] * 3, "age": [20.0, 50.0, 80.0]}).table
    expected = reference.predict_proba((np.array([[20.0], [50.0], [80.0]]) - 50.0) / 15.0)
    assert np.allclose(seen.numpy(), expected, atol=2e-4)
    filled = fit.model.filled(fit.pair.model)
    again = filled.query("ward", {"flu": "yes", "age": 80.0})
    torch.testing.assert_close(again.table, seen[2], atol=1e-4, rtol=0)
    assert pv.BayesianNetwork.from_yaml(filled.to_yaml()) == filled


def test_the_pyro_program_of_other_nodes_sums_to_the_contraction() -> None:
    network = causes(hidden=("cold",))
    data = data_of(network, 60)
    pair = pv.build(network, pv.ExactPosterior(), data.spec)
    batch = (data.train.transformed(),)
    with torch.no_grad():
        summed = log_joint(traces(pair, batch, 1))[0]
    torch.testing.assert_close(summed.double(), pair.model.log_prob(*batch), rtol=1e-5, atol=1e-5)


def test_regressions_of_states_need_their_numbers() -> None:
    network = causes()
    with pytest.raises(ValueError, match="expected values of age, on which ward hangs"):
        network.query("flu", {"ward": "night"})
    data = data_of(network, 60)
    with pytest.raises(ValueError, match="has no closed form: use EM or SVI"):
        pv.fit(bare(network), data, method=pv.ClosedForm())
    with pytest.raises(ValueError, match="two states each"):
        pv.BayesianNetwork(nodes={"a": pv.Table(states=("x", "y", "z")), "b": pv.NoisyOr(parents=("a",), states=("0", "1"))})


# --- BIF ------------------------------------------------------------------------------------------------------------------


def test_bif_is_written_and_read_back(asia: pv.BayesianNetwork, tmp_path: Path) -> None:
    path = tmp_path / "again.bif"
    path.write_text(asia.to_bif())
    again = pv.BayesianNetwork.from_bif(path)
    assert list(again.nodes) == list(asia.nodes)
    for name, node in asia.nodes.items():
        assert again.nodes[name].parents == node.parents
        assert np.allclose(again.nodes[name].probs, node.probs, rtol=1e-15)
    assert asia.nodes["either"].probs == ((1.0, 0.0), (1.0, 0.0), (1.0, 0.0), (0.0, 1.0))
    assert asia.nodes["xray"].probs == ((0.98, 0.02), (0.05, 0.95))


def test_both_orders_of_a_table_are_read(tmp_path: Path) -> None:
    slow = "(xray | either) { table 0.98, 0.05, 0.02, 0.95; }"
    for text in (ASIA, ASIA.replace("table 0.98, 0.05, 0.02, 0.95", "table 0.98 0.02 0.05 0.95")):
        path = tmp_path / "table.bif"
        path.write_text(text)
        assert pv.BayesianNetwork.from_bif(path).nodes["xray"].probs == ((0.98, 0.02), (0.05, 0.95)), slow


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("default 1.0, 0.0; ", "(yes, no) 1, 0;", r"a row of either for lung=yes, tub=yes, got none"),
        ("(yes) 0.05, 0.95", "(yes) 0.05, 0.9", r"sum to 1 in the row asia=yes of tub, got .*0\.95: mend it"),
        ("table 0.5, 0.5;", "table 0.5, 0.2, 0.3;", "expected 2 numbers in the table of smoke, got 3"),
        ("table 0.5, 0.5;", "table 0.5, half;", "expected numbers in the table of smoke"),
        ("( lung | smoke )", "( lung | smokes )", "expected variables that were declared, got 'smokes'"),
        ("(yes) 0.1, 0.9", "(maybe) 0.1, 0.9", r"expected rows of lung by states of smoke, got \(maybe\)"),
        ("probability ( smoke ) { table 0.5, 0.5; }", "", "expected a table of every variable, got none of smoke"),
        ("variable dysp { type discrete [ 2 ]", "variable dysp { type discrete [ 3 ]", "expected 3 states of dysp, got 2"),
        ("network asia { }", "import os", "expected BIF: network, variable or probability, got 'import'"),
        ("(no, no) 0.1, 0.9; }", "", "breaks off in a block"),
        ("( tub | asia )", "( tub | dysp )", "without cycles, got tub <- dysp <- either <- tub"),
    ],
)
def test_bif_that_is_broken_is_refused_in_a_line(old: str, new: str, told: str, tmp_path: Path) -> None:
    assert old in ASIA
    path = tmp_path / "broken.bif"
    path.write_text(ASIA.replace(old, new))
    with pytest.raises(ValueError, match=told) as refused:
        pv.BayesianNetwork.from_bif(path)
    assert "\n" not in str(refused.value)


# --- bad input ------------------------------------------------------------------------------------------------------------


def two(**fields: Any) -> pv.BayesianNetwork:
    nodes = {"a": pv.Table(states=("x", "y")), "b": pv.Table(parents=("a",), states=("x", "y"))}
    return pv.BayesianNetwork(nodes={**nodes, **fields.pop("more", {})}, **fields)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: two(more={"a": pv.Table(parents=("b",), states=("x", "y"))}), "without cycles, got a <- b <- a"),
        (lambda: two(more={"c": pv.Table(parents=("aa",))}), "parents of c that are nodes, got 'aa'"),
        (lambda: pv.Table(states=("x", "y"), probs=(0.5, 0.4)), r"row 0 does not, got .*the sum 0\.9"),
        (lambda: pv.Table(probs=((0.5, 0.5), (1.5, -0.5))), "probabilities from 0 to 1 in row 1"),
        (lambda: two(more={"b": pv.Table(parents=("a",), states=("x", "y"), probs=(0.5, 0.5))}), "probs of b with 2 rows of 2"),
        (lambda: two(more={"a": pv.LinearGaussian()}), "declare it as LogisticRegression"),
        (lambda: two(hidden=("c",)), "hidden nodes among a, b"),
        (lambda: two(more={"c": pv.Table()}, hidden=("c",)), "states of the hidden node c"),
        (lambda: pv.Table(states=("x", "x")), "every state once"),
        (lambda: pv.LinearGaussian(intercepts=(1.0,)), "together, or none"),
        (lambda: pv.LinearGaussian(intercepts=(1.0,), scales=(0.0,)), "positive scales"),
        (lambda: pv.Table(learned=False), "learned=False"),
        (lambda: pv.BayesianNetwork(nodes={}), "at least one node"),
    ],
)
def test_what_is_no_network_is_refused(make: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told) as refused:
        make()
    assert "\n" not in str(refused.value)


def test_yaml_that_names_no_node_is_refused() -> None:
    yaml = two().to_yaml()
    assert pv.BayesianNetwork.from_yaml(yaml) == two()
    assert hash(pv.BayesianNetwork.from_yaml(yaml)) == hash(two())
    with pytest.raises(
        ValueError, match="unknown Node 'Tabel': choose from LinearGaussian, LogisticRegression, Neural, NoisyOr, Table"
    ):
        pv.BayesianNetwork.from_yaml(yaml.replace("ppl_vae.Table", "Tabel"))
    with pytest.raises(ValueError, match="is not part of ppl_vae: if you trust its code"):
        pv.BayesianNetwork.from_yaml(yaml.replace("ppl_vae.Table", "somebody.Table"))
    with pytest.raises(ValueError, match=r"states.*False"):  # which YAML reads for a bare no
        pv.BayesianNetwork.from_yaml(yaml.replace("- x", "- no"))


def test_columns_that_are_not_the_nodes_are_refused() -> None:
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame({"a": ["x", "y"] * 10, "c": ["x", "y"] * 10})
    with pytest.raises(ValueError, match="expected columns b, got a, c"):
        pv.fit(two(), pv.load_data(table), method=pv.ClosedForm())
    with pytest.raises(ValueError, match="columns that are nodes, got c: leave them out"):
        pv.fit(two(), pv.load_data(table.assign(b="x")), method=pv.ClosedForm())
    with pytest.raises(ValueError, match="in column b the states x, y, got z"):
        pv.fit(two(), pv.load_data(table.rename(columns={"c": "b"}).replace({"b": {"y": "z"}})), method=pv.ClosedForm())
    numbers = np.array([[0, 0], [1, 2]] * 5)
    with pytest.raises(ValueError, match=r"in column b one of 0 \(x\), 1 \(y\), got 2"):
        pv.fit(two(), pv.load_data(numbers), method=pv.EM(max_iterations=2))


def test_questions_that_have_no_answer_are_refused(asia: pv.BayesianNetwork) -> None:
    for ask, told in (
        (lambda: asia.query("lungs"), "did you mean lung"),
        (lambda: asia.query("lung", {"lung": "yes"}), "expected lung once"),
        (lambda: asia.query("lung", {"xray": "maybe"}), "a state of xray, yes, no, got 'maybe'"),
        (lambda: asia.query("lung", {"xray": ["yes"] * 2, "dysp": ["yes"] * 3}), "as many values"),
        (lambda: asia.query([]), "one name or several"),
        (lambda: mixed().query("rain", {"temp": "warm"}), "a number for temp"),
        (lambda: bare(asia).query("lung"), "numbers of all nodes"),
    ):
        with pytest.raises(ValueError, match=told):
            ask()
    fit = pv.fit(pv.GMM(components=2), np.random.default_rng(0).normal(size=(30, 2)), method=pv.EM(max_iterations=2))
    with pytest.raises(ValueError, match="answers no queries"):
        fit.query("x")


def test_rows_of_tables_without_data_are_told() -> None:
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame({"a": ["x"] * 10, "b": ["x", "y"] * 5})
    with pytest.warns(FitWarning, match=r"b: 1 of 2, such as a=y"):
        pv.fit(two(), pv.load_data(table, valid=0.0, test=0.0), method=pv.EM(max_iterations=3))


# --- the command line -----------------------------------------------------------------------------------------------------


def test_a_network_is_fitted_and_asked_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    network = mixed(("cloudy",))
    frame(network, 200, missing=0.1).to_csv(tmp_path / "weather.csv", index=False)
    (tmp_path / "net.yaml").write_text(bare(network, hidden=("cloudy",)).to_yaml())
    fit = ["fit", "--model", str(tmp_path / "net.yaml"), "--method", "EM", "--method.max_iterations", "20"]
    where = ["--data", str(tmp_path / "weather.csv"), "--data.missing", "ignore", "--out", str(tmp_path / "run"), "--quiet"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert cli.main([*fit, *where]) == 0
    capsys.readouterr()
    run = str(tmp_path / "run")
    assert cli.main(["query", run, "rain", "--given", "temp=12.5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["rain", "log_evidence"]
    assert sum(found["rain"].values()) == pytest.approx(1.0)
    assert found["rain"] == pv.load_run(run).query("rain", {"temp": 12.5})["rain"]
    assert cli.main(["query", run, "rain", "ice", "--given", "temp=12.5", "--do", "cloudy=yes"]) == 0
    told = capsys.readouterr().out
    assert "most probable" in told
    assert "log p(given) = " in told
    assert cli.main(["query", run, "rain", "--do", "cloudy=yes"]) == 0
    assert "log p(given)" not in capsys.readouterr().out  # nothing is given
    found = []
    for words in (["--given", "temp=12.5,cloudy=yes"], ["--given", "temp=12.5", "--given", "cloudy=yes"]):
        assert cli.main(["query", run, "rain", *words, "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0] == found[1]
    assert cli.main(["query", run, "rain", "--given", "temp"]) == 2
    assert "expected --given NAME=VALUE" in capsys.readouterr().err
