"""Markov chains, hidden Markov models and linear dynamical systems against sums over all paths, and against normal vectors."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import TraceEnum_ELBO, config_enumerate
from torch import Tensor

import ppl_vae as pv
from ppl_vae.exact import forward_backward as fb
from ppl_vae.exact import kalman
from ppl_vae.models.chains.hmm_program import HMMState

K, LEVELS = 3, 4


def tokens(n: int = 30, seed: int = 0, longest: int = 6) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, LEVELS, rng.integers(1, longest + 1)) for _ in range(n)]


def loaded(rows: list[np.ndarray], kind: str | None = "categorical", **options: Any) -> pv.Data:
    return pv.load_data(pv.Ragged.from_list(rows), kind=kind, **{"valid": 0.0, "test": 0.0, **options})


def fitted(model: pv.Model, data: Any, **method: Any) -> pv.Fit:
    declared = pv.SVI(**method) if "epochs" in method else pv.EM(**{"max_iterations": 3, **method})
    return pv.fit(model, data, method=declared, device="cpu")


def all_paths(chain: fb.Chain, log_emission: Tensor, length: int) -> tuple[Tensor, list[tuple[int, ...]]]:
    """log p(x, path) of every path of states, and the paths."""
    paths = list(itertools.product(range(len(chain.log_initial)), repeat=length))
    found = []
    for path in paths:
        value = chain.log_initial[path[0]] + log_emission[0, path[0]]
        for t in range(1, length):
            value = value + chain.log_transition[path[t - 1], path[t]] + log_emission[t, path[t]]
        found.append(value)
    return torch.stack(found), paths


def random_chain(states: int = K) -> fb.Chain:
    generator = torch.Generator().manual_seed(0)
    options: dict[str, Any] = {"generator": generator, "dtype": torch.float64}
    return fb.Chain(torch.randn(states, **options).log_softmax(0), torch.randn(states, states, **options).log_softmax(1))


# --- forward-backward -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spread", [1.0, 2000.0], ids=["scaled", "underflowing"])
def test_the_scan_sums_over_all_paths(spread: float) -> None:
    chain, lengths = random_chain(), [5, 3, 1]
    if spread > 1:  # so that a state which only another state leads to has the whole density
        chain = fb.Chain(chain.log_initial, chain.log_transition - torch.tensor([0.0, 0.0, 1000.0]).double())
    log_emission = spread * torch.randn(3, 5, K, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    inside = pv.sequence_mask(torch.tensor(lengths), 5)
    weights = torch.tensor([1.0, 2.0, 0.5])
    found = fb.smooth(chain, log_emission, inside, weights)
    best, best_log_prob = fb.viterbi(chain, log_emission, inside)
    transitions = torch.zeros(K, K, dtype=torch.float64)
    for row, length in enumerate(lengths):
        joint, paths = all_paths(chain, log_emission[row], length)
        if spread == 1:
            torch.testing.assert_close(found.log_prob[row], joint.logsumexp(0))
        posterior = joint.softmax(0)
        states = torch.zeros(length, K, dtype=torch.float64)
        for weight, path in zip(posterior, paths, strict=True):
            states[range(length), path] += weight
            for one, other in itertools.pairwise(path):
                transitions[one, other] += weight * weights[row]
        if spread == 1:
            torch.testing.assert_close(found.states[row, :length], states)
        torch.testing.assert_close(best_log_prob[row], joint.max())
        assert tuple(best[row, :length].tolist()) == paths[int(joint.argmax())]
    if spread == 1:
        torch.testing.assert_close(found.transitions, transitions)


def test_products_that_underflow_are_summed_in_logs() -> None:
    """A state that can only be reached through one of probability 1e-200 holds all that is possible later."""
    rare = 1e-200
    chain = fb.Chain(torch.tensor([1.0, 0.0]).double().log(), torch.tensor([[1 - rare, rare], [0.5, 0.5]]).double().log())
    log_emission = torch.tensor([[[0.0, -900.0], [-900.0, 0.0], [-2000.0, -1.0]]]).double()
    inside = torch.ones(1, 3, dtype=torch.bool)
    found = fb.smooth(chain, log_emission, inside)
    joint, paths = all_paths(chain, log_emission[0], 3)
    torch.testing.assert_close(found.log_prob[0], joint.logsumexp(0))
    states = torch.zeros(3, 2).double()
    for weight, path in zip(joint.softmax(0), paths, strict=True):
        states[range(3), path] += weight
    torch.testing.assert_close(found.states[0], states)


def test_gradients_are_expected_counts() -> None:
    chain = random_chain()
    log_emission = torch.randn(2, 4, K, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    inside = pv.sequence_mask(torch.tensor([4, 2]), 4)

    def log_prob(initial: Tensor, transition: Tensor, emission: Tensor) -> Tensor:
        return fb.log_likelihood(fb.Chain(initial.log_softmax(0), transition.log_softmax(1)), emission, inside)

    leaves = [part.clone().requires_grad_() for part in (*chain, log_emission)]
    assert torch.autograd.gradcheck(log_prob, leaves)
    table = torch.randn(K, LEVELS, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).log_softmax(1)
    x = torch.tensor([[0, 1, 2, 3], [1, 1, 0, 0]])
    weights = torch.tensor([2.0, 0.5])
    counts = fb.token_counts(chain, table, x, inside, weights)
    leaves = [part.clone().requires_grad_() for part in (*chain, table)]
    value = fb.log_likelihood(fb.Chain(*leaves[:2]), leaves[2].mT[x], inside) @ weights.double()
    torch.testing.assert_close(counts.log_prob, value.detach())
    for ours, gradient in zip(counts[1:], torch.autograd.grad(value, leaves), strict=True):
        torch.testing.assert_close(ours, gradient)


def test_paths_are_drawn_as_often_as_they_are_probable() -> None:
    chain = random_chain(2)
    log_emission = torch.randn(1, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(4)).expand(20_000, 3, 2)
    torch.manual_seed(0)
    drawn = fb.draw_paths(chain, log_emission, torch.ones(20_000, 3, dtype=torch.bool))
    joint, paths = all_paths(chain, log_emission[0], 3)
    shares = torch.bincount(drawn @ torch.tensor([4, 2, 1]), minlength=8).double() / 20_000
    assert paths[1] == (0, 0, 1)
    torch.testing.assert_close(shares, joint.softmax(0), atol=0.015, rtol=0)


# --- hidden Markov models -------------------------------------------------------------------------------------------------


def hmm_of(data: pv.Data, chain: fb.Chain, table: Tensor, model: pv.HMM | None = None) -> pv.Fit:
    """A fit with these parameters."""
    fit = fitted(model or pv.HMM(states=len(table)), data, max_iterations=1)
    fit.pair.model.double().assign(HMMState(*chain, (table,)))
    return fit


def test_the_program_is_pyros_own_enumerated_one() -> None:
    rows = [np.array([0, 1, 3]), np.array([2, 2]), np.array([1])]
    data, chain = loaded(rows), random_chain()
    table = torch.randn(K, LEVELS, dtype=torch.float64, generator=torch.Generator().manual_seed(5)).log_softmax(1)
    fit = hmm_of(data, chain, table)

    @config_enumerate
    def model() -> None:
        for place, row in enumerate(rows):
            state = pyro.sample(f"s{place}_0", dist.Categorical(logits=chain.log_initial))
            for t in pyro.markov(range(len(row))):
                if t:
                    state = pyro.sample(f"s{place}_{t}", dist.Categorical(logits=chain.log_transition[state]))
                pyro.sample(f"x{place}_{t}", dist.Categorical(logits=table[state]), obs=torch.tensor(int(row[t])))

    with pyro.validation_enabled(False):
        enumerated = -TraceEnum_ELBO(max_plate_nesting=0).loss(model, lambda: None)
    assert fit.evaluate(data.train)["log_likelihood"] * 3 == pytest.approx(enumerated, rel=1e-9)
    assert fit.evaluate(data.train)["elbo"] * 3 == pytest.approx(enumerated, rel=1e-9)


def test_states_paths_and_forecasts_are_those_of_all_paths() -> None:
    rows = tokens(6, longest=4)
    data, chain = loaded(rows), random_chain()
    table = torch.randn(K, LEVELS, dtype=torch.float64, generator=torch.Generator().manual_seed(5)).log_softmax(1)
    fit = hmm_of(data, chain, table)
    smoothed, best = fit.encode(data.train), fit.encode(data.train, path=True)
    drawn = fit.encode(data.train, samples=2)
    assert len(drawn) == 2
    assert drawn[0].lengths.tolist() == [len(row) for row in rows]
    for place, row in enumerate(rows):
        joint, paths = all_paths(chain, table.mT[torch.from_numpy(row)], len(row))
        states = torch.zeros(len(row), K, dtype=torch.float64)
        for weight, path in zip(joint.softmax(0), paths, strict=True):
            states[range(len(row)), path] += weight
        torch.testing.assert_close(smoothed[place].double(), states)
        assert tuple(best[place].tolist()) == paths[int(joint.argmax())]
    posterior = fit.posterior(pv.Ragged.from_list([rows[0]]))
    path = posterior.sample()
    joint, paths = all_paths(chain, table.mT[torch.from_numpy(rows[0])], len(rows[0]))
    index = paths.index(tuple(path[0].argmax(-1).tolist()))
    torch.testing.assert_close(posterior.log_prob(path)[0], joint.log_softmax(0)[index])
    # p(x_3 | x_1, x_2) = p(x_1, x_2, x_3) / p(x_1, x_2), against draws
    found = fit.sample(20_000, given=[1, 2], length=3)
    shares = torch.bincount(found.values.reshape(-1, 3)[:, 2].long(), minlength=LEVELS).double() / 20_000

    def log_prob(row: list[int]) -> Tensor:
        return all_paths(chain, table.mT[torch.tensor(row)], len(row))[0].logsumexp(0)

    expected = torch.stack([(log_prob([1, 2, token]) - log_prob([1, 2])).exp() for token in range(LEVELS)])
    torch.testing.assert_close(shares, expected, atol=0.015, rtol=0)


def test_states_that_are_seen_are_a_markov_chain() -> None:
    rows = tokens(200, seed=3)
    data = loaded(rows)
    markov = pv.fit(pv.MarkovChain(order=1), data, device="cpu")
    shares = markov.pair.model.charts()["transitions"].values
    first = torch.bincount(torch.tensor([row[0] for row in rows]), minlength=LEVELS).double()
    chain = fb.Chain((first / first.sum()).log(), shares.log())
    fit = hmm_of(data, chain, torch.eye(LEVELS, dtype=torch.float64).log())
    expected = markov.evaluate(data.train)["log_likelihood"]
    assert fit.evaluate(data.train)["log_likelihood"] == pytest.approx(expected, rel=1e-9)
    assert [row.tolist() for row in map(fit.encode(data.train, path=True).__getitem__, range(5))] == [
        row.tolist() for row in rows[:5]
    ]


def test_baum_welch_takes_the_steps_of_hmmlearn() -> None:
    """Of ``CategoricalHMM(2, n_iter=3, tol=-inf, init_params="", implementation="log")`` of hmmlearn 0.3.3."""
    rows = [[0, 1, 2, 0], [2, 2, 1], [0, 0], [1]]
    data = loaded([np.array(row) for row in rows])
    shares = ([0.6, 0.4], [[0.7, 0.3], [0.2, 0.8]], [[0.5, 0.3, 0.2], [0.1, 0.4, 0.5]])
    initial, transition, table = (torch.tensor(part, dtype=torch.float64).log() for part in shares)
    chain = fb.Chain(initial, transition)
    fit = hmm_of(data, chain, table)
    model = fit.pair.model
    problem = model.em(matrices(data))
    state, totals = HMMState(*chain, (table,)), []
    for _ in range(3):
        state, value = problem.step(state)
        totals.append(float(value) * 4)
    assert totals == pytest.approx(HMMLEARN["log_prob"], rel=1e-9)
    for ours, theirs in zip((state.log_initial, state.log_transition, state.emission[0]), HMMLEARN["parameters"], strict=True):
        torch.testing.assert_close(ours.exp(), torch.tensor(theirs, dtype=torch.float64), atol=1e-9, rtol=1e-8)


def matrices(data: pv.Data) -> Any:
    from ppl_vae.data.matrices import Matrices

    return Matrices(data.train, relative=True)


HMMLEARN: dict[str, Any] = {
    "log_prob": [-10.937254711629086, -10.736885309104526, -10.729541948055674],
    "parameters": (
        [0.6404304310583959, 0.3595695689416042],
        [[0.7284658249318057, 0.27153417506819433], [0.22471561630099549, 0.7752843836990045]],
        [
            [0.6308174558494798, 0.22836548495023506, 0.140817059200285],
            [0.12183484773873629, 0.38632893778611743, 0.49183621447514625],
        ],
    ),
}

EMISSIONS = {
    "tokens": (None, "categorical"),
    "counts": (None, "count"),
    "bits": (None, "binary"),
    "numbers": (None, "real"),
    "shared": (pv.Gaussian(), "real"),
    "per_feature": (pv.Gaussian(scale="per_feature"), "real"),
    "fixed": (pv.Gaussian(scale="fixed", value=1.0), "real"),
}


def series(kind: str, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 8, 25)
    if kind == "categorical":
        return [rng.integers(0, LEVELS, length) for length in lengths]
    draw = {"count": lambda n: rng.poisson(3, (n, 2)), "binary": lambda n: rng.integers(0, 2, (n, 2))}
    return [draw.get(kind, lambda n: rng.normal(size=(n, 2)))(length) for length in lengths]


@pytest.mark.parametrize(("emission", "kind"), EMISSIONS.values(), ids=EMISSIONS)
def test_em_climbs_whatever_is_emitted_and_svi_climbs_the_same(emission: pv.Likelihood | None, kind: str) -> None:
    data = loaded(series(kind), kind)
    fit = fitted(pv.HMM(states=2, emission=emission), data, max_iterations=8, tolerance=0.0, n_init=2)
    climbed = [row["log_likelihood"] for row in fit.history]
    assert all(after >= before - 1e-9 * abs(before) for before, after in itertools.pairwise(climbed))
    assert climbed[-1] > climbed[0]
    numbers = fit.evaluate(data.train)
    assert numbers["log_likelihood"] == pytest.approx(climbed[-1], rel=1e-5)  # parameters are kept in float32
    longer = loaded(series(kind), kind, buckets=1)
    assert fit.evaluate(longer.train)["log_likelihood"] == pytest.approx(numbers["log_likelihood"], rel=1e-6)
    start = pv.fit(
        pv.HMM(states=2, emission=emission), data, warm_start=fit, method=pv.SVI(epochs=1, learning_rate=1e-8), device="cpu"
    )
    assert start.history[-1]["elbo"] == pytest.approx(climbed[-1], rel=1e-4)


@pytest.mark.parametrize(("declared", "kind"), EMISSIONS.values(), ids=EMISSIONS)
def test_no_emission_is_likelier_than_the_m_steps(declared: pv.Likelihood | None, kind: str) -> None:
    """Its gradient of the expected log p(x | s) is zero; and what EM writes into the module has the same density."""
    rows = torch.from_numpy(np.concatenate(series(kind)))
    x = rows if kind == "categorical" else rows.double()
    data = loaded(series(kind), kind)
    emission = pv.HMM(states=2, emission=declared).build(data.spec).emission.double()
    weight = torch.rand(len(x), 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    steps = emission.steps
    found = steps.maximized(steps.statistics(x, weight), steps.current(emission))
    with torch.no_grad():
        steps.assign(emission, found)
    log_prob = emission.log_prob(x[None], torch.ones(1, len(x), dtype=torch.bool))[0]
    torch.testing.assert_close(log_prob, steps.log_prob(found, x[None])[0])
    for now, written in zip(steps.current(emission), found, strict=True):
        torch.testing.assert_close(now, written)
    value = (weight * log_prob).sum()
    parameters = [part for part in emission.parameters() if part.requires_grad]
    for gradient in torch.autograd.grad(value, parameters):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-8, rtol=0)


def test_any_likelihood_emits_by_svi_alone() -> None:
    data = loaded(series("real"), "real")
    model = pv.HMM(states=2, emission=pv.StudentT(scale="amortized"))
    fit = fitted(model, data, epochs=3, batch_size=25)
    assert math.isfinite(fit.evaluate(data.train)["log_likelihood"])
    with pytest.raises(ValueError, match="M-step of an emission StudentT has no formula: use SVI"):
        fitted(model, data)


def test_pseudo_counts_climb_the_posterior_and_tell_the_likelihood_apart() -> None:
    data = loaded(tokens(40, seed=1))
    model = pv.HMM(states=2, pseudo_counts=0.5, stickiness=3.0)
    fit = fitted(model, data, max_iterations=20, tolerance=0.0)
    objective = [row["objective"] for row in fit.history]
    assert all(after >= before - 1e-9 * abs(before) for before, after in itertools.pairwise(objective))
    last = fit.history[-1]
    initial, transition, table = (part.detach().double() for part in (*fit.pair.model.chain, fit.pair.model.emission.log_table))
    prior = 0.5 * (initial.sum() + transition.sum() + table.sum()) + 3.0 * transition.trace()
    assert last["objective"] - last["log_likelihood"] == pytest.approx(float(prior) / 40, rel=1e-4)
    assert fit.evaluate(data.train)["log_likelihood"] == pytest.approx(last["log_likelihood"], rel=1e-5)
    with pytest.raises(ValueError, match="no pseudo_counts and no stickiness for SVI"):
        fitted(model, data, epochs=1)
    plain = fitted(pv.HMM(states=2), data, max_iterations=20, tolerance=0.0)
    assert transition.exp().trace() > plain.pair.model.chain.log_transition.exp().trace()


def test_rows_of_weights_count_as_often() -> None:
    rows, weights = tokens(12, seed=2), np.array([2.0, 1.0, 0.0, 3.0] * 3)
    repeated = loaded([row for row, weight in zip(rows, weights, strict=True) for _ in range(int(weight))])
    weighted = loaded(rows, weights=weights)
    problems = [fitted(pv.HMM(states=2), each).pair.model.em(matrices(each)) for each in (weighted, repeated)]
    ours, theirs = (problem.step(problems[0].start) for problem in problems)
    torch.testing.assert_close(ours[0], theirs[0])
    torch.testing.assert_close(ours[1], theirs[1])
    chains = [pv.fit(pv.MarkovChain(pseudo_counts=1e-9), each, device="cpu") for each in (weighted, repeated)]
    found = [chain.evaluate(repeated.train)["log_likelihood"] for chain in chains]
    assert found[0] == pytest.approx(found[1], rel=1e-6)


# --- Markov chains --------------------------------------------------------------------------------------------------------


def test_a_chain_is_shares_of_counts() -> None:
    rows = tokens(50, seed=4)
    data = loaded(rows)
    for order in (0, 1, 2, 9):
        counts, totals = Counter[Any](), Counter[Any]()
        for row in rows:
            padded = [None] * order + row.tolist()
            for place in range(len(row)):
                context = tuple(padded[place : place + order])
                counts[context, padded[place + order]] += 1
                totals[context] += 1
        expected = sum(count * math.log(count / totals[context]) for (context, _), count in counts.items()) / len(rows)
        fit = pv.fit(pv.MarkovChain(order=order), data, device="cpu")
        assert isinstance(fit.method, pv.ClosedForm)
        assert fit.evaluate(data.train)["log_likelihood"] == pytest.approx(expected, rel=1e-12)
        smooth = pv.fit(pv.MarkovChain(order=order, pseudo_counts=0.5), data, device="cpu")
        expected = sum(
            count * math.log((count + 0.5) / (totals[context] + 0.5 * LEVELS)) for (context, _), count in counts.items()
        )
        assert smooth.evaluate(data.train)["log_likelihood"] == pytest.approx(expected / len(rows), rel=1e-12)


def test_shorter_contexts_say_how_pseudo_counts_are_spread() -> None:
    data = loaded([np.array([0, 1, 0]), np.array([1, 1])])
    fit = pv.fit(pv.MarkovChain(order=1, pseudo_counts=0.5, spread="shorter"), data, device="cpu")
    even = {0: (2 + 1.0 / 2) / (5 + 1), 1: (3 + 1.0 / 2) / (5 + 1)}  # order 0, V = 2, a V = 1
    first = (1 + even[0]) / 3  # after the start: 0 once, 1 once
    after = (1 + even[1]) / 2  # after 0: 1 once
    found = fit.evaluate(pv.Ragged.from_list([np.array([0, 1])]))["log_likelihood"]
    assert found == pytest.approx(math.log(first * after), rel=1e-12)


def test_a_chain_goes_on_from_what_is_given(tmp_path: Path) -> None:
    texts = ["abab", "abb", "ba"] * 20
    data = pv.load_data(texts, tokens="characters")
    fit = pv.fit(pv.MarkovChain(order=2), data, device="cpu")
    after = Counter(text[2:3] for text in fit.sample(4000, given="ab"))
    seen = Counter(text[place + 2 : place + 3] for text in _texts(data) for place in range(4) if text[place:].startswith("ab"))
    for token, count in seen.items():
        assert after[token] / 4000 == pytest.approx(count / sum(seen.values()), abs=0.03)
    pv.save_run(fit, data, tmp_path / "run")
    again = pv.load_run(tmp_path / "run", device="cpu")
    assert again.sample(5, given="ab", seed=3) == fit.sample(5, given="ab", seed=3)
    assert again.evaluate(data.test) == fit.evaluate(data.test)
    with pytest.raises(ValueError, match="no hidden states, so that rows have no codes"):
        fit.encode(data.test)
    with pytest.raises(ValueError, match="path"):
        fit.encode(data.test, path=True)
    with pytest.raises(ValueError, match="nothing that SVI could climb: use ClosedForm"):
        fitted(pv.MarkovChain(order=2), data, epochs=1)


def _texts(data: pv.Data) -> list[str]:
    raw = data.train.raw
    return ["".join(raw.vocabulary[int(token)] for token in raw[place]).replace("<end>", "") for place in range(len(raw))]


def test_what_never_followed_is_impossible_and_told() -> None:
    data = loaded([np.array([0, 1, 2, 3])] * 8, test=0.5)
    fit = pv.fit(pv.MarkovChain(order=1), data, device="cpu")
    with pytest.raises(FloatingPointError, match=r"minus infinity.*pseudo_counts"):
        fit.evaluate(pv.Ragged.from_list([np.array([3, 0])]))


# --- linear dynamical systems ---------------------------------------------------------------------------------------------


def system(seed: int = 0) -> kalman.Parameters:
    generator = torch.Generator().manual_seed(seed)
    options: dict[str, Any] = {"generator": generator, "dtype": torch.float64}

    def covariance() -> Tensor:
        root = torch.randn(2, 2, **options)
        return root @ root.mT + 0.3 * torch.eye(2)

    return kalman.Parameters(
        torch.randn(2, **options),
        covariance(),
        0.6 * torch.randn(2, 2, **options),
        covariance(),
        torch.randn(3, 2, **options),
        torch.randn(3, **options),
        torch.rand(3, **options) + 0.2,
    )


def as_normal(p: kalman.Parameters, length: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean and covariance of all latent vectors of a row, the loadings of all elements, and the noise of these."""
    means, spreads = [p.initial_loc], [p.initial_covariance]
    for _ in range(length - 1):
        means.append(p.transition @ means[-1])
        spreads.append(p.transition @ spreads[-1] @ p.transition.mT + p.noise)
    whole = torch.zeros(2 * length, 2 * length, dtype=torch.float64)
    for t, spread in enumerate(spreads):
        for later in range(t, length):
            whole[2 * later : 2 * later + 2, 2 * t : 2 * t + 2] = spread
            whole[2 * t : 2 * t + 2, 2 * later : 2 * later + 2] = spread.mT
            spread = p.transition @ spread
    return torch.cat(means), whole, torch.block_diag(*[p.loadings] * length), p.variances.repeat(length).diag()


def test_the_filter_and_the_smoother_are_a_normal_vector() -> None:
    p, lengths = system(), [5, 3, 5, 1]
    x = torch.randn(4, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    inside = pv.sequence_mask(torch.tensor(lengths), 5)
    found = kalman.filtered(p, x, inside)
    smooth = kalman.smoothed(p, found, inside)
    for row, length in enumerate(lengths):
        mean, spread, loadings, noise = as_normal(p, length)
        seen = loadings @ mean + p.offset.repeat(length)
        covariance = loadings @ spread @ loadings.mT + noise
        values = x[row, :length].flatten()
        expected = dist.MultivariateNormal(seen, covariance).log_prob(values)
        torch.testing.assert_close(found.log_prob[row], expected)
        gain = spread @ loadings.mT @ torch.linalg.inv(covariance)
        torch.testing.assert_close(smooth.locs[row, :length].flatten(), mean + gain @ (values - seen))
        left = (spread - gain @ loadings @ spread).unflatten(0, (length, 2)).unflatten(2, (length, 2))
        for t in range(length):
            torch.testing.assert_close(smooth.covariances[smooth.kind[row], t], left[t, :, t])
            if t + 1 < length:
                torch.testing.assert_close(smooth.lagged[smooth.kind[row], t], left[t + 1, :, t])


def dynamical_rows(n: int = 30) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [np.cumsum(rng.normal(size=(rng.integers(1, 7), 2)), 0) for _ in range(n)]


def test_em_of_a_dynamical_system_climbs_what_its_gradient_climbs() -> None:
    data = loaded(dynamical_rows(), "real")
    fit = fitted(pv.LinearDynamicalSystem(latent_dim=1), data, max_iterations=12, tolerance=0.0)
    climbed = [row["log_likelihood"] for row in fit.history]
    assert all(after >= before - 1e-9 * abs(before) for before, after in itertools.pairwise(climbed))
    assert climbed[-1] > climbed[0] + 0.1
    assert fit.evaluate(data.train)["log_likelihood"] == pytest.approx(climbed[-1], rel=1e-5)
    warm = pv.fit(fit.model, data, warm_start=fit, method=pv.SVI(epochs=1, learning_rate=1e-8), device="cpu")
    assert warm.history[-1]["elbo"] == pytest.approx(climbed[-1], rel=1e-4)


def test_the_m_step_has_the_most_probable_moments() -> None:
    """No other parameters have a higher expected log p(x, z): its gradient at those of the M-step is zero."""
    before = system()
    x = torch.randn(4, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    inside = pv.sequence_mask(torch.tensor([5, 3, 5, 1]), 5)
    weights = torch.tensor([1.0, 2.0, 0.5, 1.0])
    total = kalman.sums(kalman.smoothed(before, kalman.filtered(before, x, inside), inside), x, inside, weights)
    after = kalman.maximized(total, before, torch.zeros(3, dtype=torch.float64))
    p = kalman.Parameters(*(part.clone().requires_grad_() for part in after))

    def expected(count: Tensor, covariance: Tensor, squares: Tensor) -> Tensor:
        return -0.5 * (count * torch.logdet(covariance) + torch.trace(torch.linalg.solve(covariance, squares)))

    m, A, W = p.initial_loc, p.transition, torch.cat([p.loadings, p.offset[:, None]], 1)
    first = total.first_squares - torch.outer(m, total.first) - torch.outer(total.first, m) + total.rows * torch.outer(m, m)
    moved = total.after - A @ total.moved.mT - total.moved @ A.mT + A @ total.before @ A.mT
    left = total.squares - 2 * (W * total.seen).sum(1) + (W @ total.one_squares * W).sum(1)
    value = expected(total.rows, p.initial_covariance, first) + expected(total.moves, p.noise, moved)
    value = value - 0.5 * (total.elements * p.variances.log() + left / p.variances).sum()
    for gradient in torch.autograd.grad(value, list(p)):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-8, rtol=0)


def test_a_dynamical_system_forecasts_as_its_normal_vector_does() -> None:
    data = loaded(dynamical_rows(), "real")
    fit = fitted(pv.LinearDynamicalSystem(latent_dim=2), data, max_iterations=5)
    p = fit.pair.model.parameters_em
    mean, spread, loadings, noise = as_normal(p, 4)
    seen = loadings @ mean + p.offset.repeat(4)
    covariance = loadings @ spread @ loadings.mT + noise
    given = torch.tensor([[0.5, -1.0], [0.2, 0.3]])
    gain = covariance[4:, :4] @ torch.linalg.inv(covariance[:4, :4])
    expected = seen[4:] + gain @ (given.double().flatten() - seen[:4])
    left = covariance[4:, 4:] - gain @ covariance[:4, 4:]
    n = 20_000
    drawn = fit.sample(n, given=given, length=4).values.reshape(n, 8).double()
    torch.testing.assert_close(drawn[:, :4], given.double().flatten().expand(n, 4))
    torch.testing.assert_close(drawn[:, 4:].mean(0), expected, atol=0.06, rtol=0)
    torch.testing.assert_close(torch.cov(drawn[:, 4:].mT), left, atol=0.25, rtol=0.05)
    q = fit.posterior(data.train)
    path = q.sample((2000,))
    inside = pv.sequence_mask(data.train.raw.lengths, path.shape[2])
    torch.testing.assert_close(path.mean(0)[inside], q.mean[inside], atol=0.12, rtol=0)
    # log p(x, z) - log p(z | x) is log p(x) for every z
    log_prob = q.log_prob(path)
    assert log_prob.shape == (2000, 30)
    assert bool(log_prob.isfinite().all())


# --- rows of one length, runs, the command line, what is refused ------------------------------------------------------------


@pytest.mark.parametrize("model", [pv.HMM(states=2), pv.LinearDynamicalSystem(latent_dim=1)], ids=["hmm", "dynamical"])
def test_rows_of_one_length_are_rows(model: pv.Model) -> None:
    x = np.random.default_rng(0).normal(size=(20, 5))
    fit = fitted(model, pv.load_data(x, valid=0.0, test=0.0))
    ragged = fitted(model, loaded(list(x), "real"))
    assert fit.history[-1]["log_likelihood"] == pytest.approx(ragged.history[-1]["log_likelihood"], rel=1e-6)
    assert fit.sample(3).shape == (3, 5)
    begun = fit.sample(3, given=x[:3, :2])
    torch.testing.assert_close(begun[:, :2], torch.from_numpy(x[:3, :2]).float())
    assert fit.encode(x).shape[:2] == (20, 5)
    with pytest.raises(ValueError, match="rows longer than what is given"):
        fit.sample(1, given=x[0])
    with pytest.raises(ValueError, match="no decoder of codes"):
        fit.reconstruct(x)


@pytest.mark.parametrize("scale", ["none", "standardize"])
def test_parameters_of_rows_of_one_length_are_those_of_their_elements(scale: str) -> None:
    x = np.random.default_rng(0).normal(size=(15, 6, 2)).cumsum(1)
    fit = fitted(pv.LinearDynamicalSystem(latent_dim=1), pv.load_data(x, valid=0.0, test=0.0, scale=scale))
    found, program = fit.parameters(), fit.pair.model.parameters_em
    loc, unit = (part.double().expand(6, 2).flatten().numpy() for part in fit.transform.constants)
    times = 1 if scale == "none" else 6
    offset = np.tile(program.offset.numpy(), times)
    np.testing.assert_allclose(found["offset"].values, offset * unit[: 2 * times] + loc[: 2 * times])
    assert found["loading"].values.shape == (2 * times, 1)
    assert "noise_variance" in fit.summary()


def test_what_states_emit_is_told_in_the_units_of_the_source() -> None:
    texts = pv.load_data(["abab", "ab ", "ba", "aabb"] * 5, tokens="characters", valid=0.0, test=0.0)
    fit = fitted(pv.HMM(states=2), texts)
    found, words = fit.parameters()["emission"], fit.spec.fields[0].vocabulary
    np.testing.assert_allclose(found.values, fit.pair.model.emission.log_table.exp().detach(), rtol=1e-6)
    assert found.labels[1] == tuple(repr(word) if word == " " else word for word in words)
    x = np.random.default_rng(0).normal(loc=50.0, scale=7.0, size=(30, 6))
    raw, scaled = (fitted(pv.HMM(states=1), loaded(list(x), "real", scale=scale)) for scale in ("none", "standardize"))
    for fit in (raw, scaled):
        found = fit.parameters()
        assert found["mean"].values.item() == pytest.approx(x.mean(), rel=1e-4)
        assert found["scale"].values.item() == pytest.approx(x.std(), rel=1e-3)
    counts = np.random.default_rng(0).poisson(3.0, size=(20, 4))
    rates = fitted(pv.HMM(states=1), pv.load_data(counts, kind="count", valid=0, test=0)).parameters()["rate"]
    assert rates.values.item() == pytest.approx(counts.mean(), rel=1e-5)


def test_the_tables_of_a_chain_are_told() -> None:
    texts = pv.load_data(["abb", "bab", "aab"], tokens="characters", valid=0.0, test=0.0)
    found = pv.fit(pv.MarkovChain(), texts, device="cpu").parameters()
    share = {(row["token"], row["other_token"]): row["value"] for row in found["transition"].rows()}
    assert (share["a", "a"], share["a", "b"]) == pytest.approx((1 / 4, 3 / 4))  # a is before a once, before b three times
    first = {row["token"]: row["value"] for row in found["initial"].rows()}
    assert (first["a"], first["b"]) == pytest.approx((2 / 3, 1 / 3))
    even = pv.fit(pv.MarkovChain(order=0), texts, device="cpu").parameters()["probability"]
    assert even.values.sum() == pytest.approx(1.0)
    contexts = pv.fit(pv.MarkovChain(order=2, spread="shorter", pseudo_counts=0.1), texts, device="cpu").parameters()[
        "contexts"
    ]
    assert contexts.labels == (("order 0", "order 1", "order 2"),)
    assert contexts.values[0] == 1.0


def test_runs_of_rows_have_pictures_and_verbs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ppl_vae import cli

    (tmp_path / "a.txt").write_text("\n".join(["abab", "abb", "ba", "aabb"] * 10))
    source = ["--data", str(tmp_path / "a.txt"), "--data.tokens", "characters", "--device", "cpu"]
    model = str(Path(__file__).parents[1] / "models" / "hmm.yaml")
    run = str(tmp_path / "run")
    method = ["--method", "EM", "--method.max_iterations", "3", "--model.states", "2"]
    assert cli.main(["fit", "--model", model, *method, *source, "--out", run, "--json"]) == 0
    pictures = {path.stem for path in (tmp_path / "run").glob("*.png")}
    assert pictures == {"data", "samples", "learning_curve", "transitions", "emissions", "states"}
    capsys.readouterr()
    assert cli.main(["sample", run, "--n", "2", "--given", "ab", "--device", "cpu"]) == 0
    assert all(line.startswith("ab") for line in capsys.readouterr().out.splitlines())
    assert cli.main(["sample", run, "--n", "2", "--out", str(tmp_path / "new.txt"), "--device", "cpu"]) == 0
    assert len((tmp_path / "new.txt").read_text().splitlines()) == 2
    assert cli.main(["encode", run, "--path", "--out", str(tmp_path / "codes.npz"), "--device", "cpu"]) == 0
    with np.load(tmp_path / "codes.npz") as codes:
        assert codes["offsets"][-1] == len(codes["z"])
    assert cli.main(["encode", run, "--out", str(tmp_path / "codes.csv"), "--device", "cpu"]) == 0
    assert (tmp_path / "codes.csv").read_text().splitlines()[0] == "row,z1,z2"
    assert cli.main(["report", run]) == 0


REFUSED = {
    "no state": (lambda: pv.HMM(states=0), "at least 1 state"),
    "order": (lambda: pv.MarkovChain(order=-1), "order of at least 0"),
    "latent": (lambda: pv.LinearDynamicalSystem(latent_dim=0), "latent_dim of at least 1"),
    "spread": (lambda: pv.MarkovChain(spread="odd"), "a spread of even or shorter"),  # type: ignore[arg-type]
    "spread of nothing": (lambda: pv.MarkovChain(spread="shorter"), "pseudo_counts above 0, which are spread, got 0"),
    "drawn states": (
        lambda: pv.fit(pv.HMM(states=2), loaded(tokens()), guide=pv.AmortizedNormal(), method=pv.EM()),
        "sums its own out exactly: use ExactPosterior",
    ),
    "counts by EM": (lambda: pv.fit(pv.MarkovChain(), loaded(tokens()), method=pv.EM()), "fit it by ClosedForm$"),
    "states by formula": (lambda: pv.fit(pv.HMM(), loaded(tokens()), method=pv.ClosedForm()), "fit it by EM or SVI$"),
    "states by factors": (lambda: pv.fit(pv.HMM(), loaded(tokens()), method=pv.CAVI()), "fit it by EM or SVI$"),
    "empty row": (lambda: fitted(pv.HMM(states=2), loaded([np.array([1, 0]), np.array([], int)])), "none in row 1"),
    "empty row of a chain": (
        lambda: pv.fit(pv.MarkovChain(), loaded([np.array([1]), np.array([], int)]), device="cpu"),
        "none in row 1",
    ),
    "long order": (
        lambda: pv.fit(pv.MarkovChain(order=90), loaded(tokens()), device="cpu"),
        "order of at most 25 for 4 tokens, got 90",
    ),
    "numbers": (lambda: pv.fit(pv.MarkovChain(), loaded(dynamical_rows(), "real"), device="cpu"), "a model of tokens"),
    "tokens": (lambda: fitted(pv.LinearDynamicalSystem(), loaded(tokens())), "a model of numbers"),
    "emission": (lambda: fitted(pv.HMM(emission=pv.Poisson()), loaded(dynamical_rows(), "real")), "Poisson"),
    "levels": (lambda: fitted(pv.HMM(emission=pv.Categorical(levels=2)), loaded(tokens())), "at most 2 levels, got 4"),
    "images": (lambda: fitted(pv.HMM(), pv.load_data(np.ones((4, 1, 2, 2)))), "a model of rows whose elements"),
}


@pytest.mark.parametrize(("make", "told"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(make: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make()


def test_tokens_outside_and_states_without_elements_are_told() -> None:
    fit = pv.fit(pv.MarkovChain(), loaded(tokens()), device="cpu")
    with pytest.raises(ValueError, match=r"in \[0, 3\]"):
        fit.evaluate(pv.Ragged([7], [0, 1]))
    data = loaded(tokens())
    program = fitted(pv.HMM(states=2), data, max_iterations=1).pair.model
    problem = program.em(matrices(data))
    alone = torch.tensor([1.0, 0.0]).double().log()
    state = problem.start._replace(log_initial=alone, log_transition=alone.expand(2, 2))
    assert problem.remark(problem.start) is None
    assert problem.remark(state) == "states without any element, which stay as they were (2): fewer states"
    after, _ = problem.step(state)
    torch.testing.assert_close(after.log_transition[1], alone)
    torch.testing.assert_close(after.emission[0][1], problem.start.emission[0][1])
