"""Nodes of a network that neural networks of their parents give: densities, sums over what is hidden, fits and questions."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import ppl_vae as pv
from ppl_vae.program.traces import log_joint, traces

TINY = pv.MLP(hidden=(5,), activation="tanh")

NUMBERS: dict[str, pv.Likelihood] = {
    "Gaussian": pv.Gaussian(scale="amortized"),
    "Gaussian-fixed": pv.Gaussian(scale="fixed"),
    "StudentT": pv.StudentT(),
    "Laplace": pv.Laplace(),
    "MixtureDensity": pv.MixtureDensity(components=2),
    "Beta": pv.Beta(),
    "LogitNormal": pv.LogitNormal(),
    "ContinuousBernoulli": pv.ContinuousBernoulli(),
    "Poisson": pv.Poisson(),
    "NegativeBinomial": pv.NegativeBinomial(dispersion="amortized"),
    "ZeroInflated": pv.ZeroInflated(),
    "Binomial": pv.Binomial(total=12),
}


def network(y: pv.Likelihood, **fields: Any) -> pv.BayesianNetwork:
    """A hidden or known cause, a number, and under both a number, a state and a state of two."""
    return pv.BayesianNetwork(
        nodes={
            "c": pv.Table(states=("no", "yes"), probs=(0.3, 0.7)),
            "t": pv.LinearGaussian(parents=("c",), intercepts=(20.0, 14.0), scales=(2.0, 1.0)),
            "y": pv.Neural(parents=("c", "t"), network=TINY, likelihood=y),
            "s": pv.Neural(parents=("t", "c"), states=("a", "b", "d"), network=TINY),
            "b": pv.Neural(parents=("c",), states=("0", "1"), likelihood=pv.Bernoulli(), network=TINY),
        },
        **fields,
    )


def rows(y: pv.Likelihood, n: int, seed: int = 0) -> np.ndarray:
    """Columns c, t, y, s, b."""
    generator = np.random.default_rng(seed)
    c, s, b = (generator.integers(0, levels, n) for levels in (2, 3, 2))
    t = generator.normal(20 - 6 * c, 2 - c)
    if "real" in y.accepts:
        values = generator.normal(100 + 40 * c, 7)
    else:
        values = generator.integers(0, 9, n) if "count" in y.accepts else generator.uniform(0.05, 0.95, n)
    return np.stack([c, t, values, s, b], -1).astype(np.float64)


def by_definition(program: Any, x: torch.Tensor, hidden: bool) -> torch.Tensor:
    """log p of rows, from the distributions of the nodes, in the units of what the model sees."""
    place, unit = program.numbers.index("t"), program.unit[program.numbers.index("t")]
    t = (x[:, 1] - program.loc[place]) / unit
    joint = []
    for c in (0, 1):
        values = {"c": torch.full_like(x[:, 0], c).long(), "t": t}
        of = {name: program.nodes[name].distribution(values) for name in ("t", "y", "s", "b")}
        total = torch.tensor((0.3, 0.7)[c]).log() + of["t"].log_prob(x[:, 1]) + of["y"].log_prob(x[:, 2].float())
        joint.append(total + of["s"].log_prob(x[:, 3]) + of["b"].log_prob(x[:, 4]))
    table = torch.stack(joint, -1)
    return table.logsumexp(-1) if hidden else table.gather(-1, x[:, :1].long()).squeeze(-1)


@pytest.mark.parametrize("name", NUMBERS)
def test_log_p_sums_hidden_states_out_of_any_likelihood(name: str) -> None:
    likelihood = NUMBERS[name]
    x = rows(likelihood, 30)
    for hidden in (False, True):
        declared = network(likelihood, hidden=("c",) if hidden else ())
        data = pv.load_data(x[:, 1:] if hidden else x, valid=0.0, test=0.0)
        pair = pv.build(declared, pv.ExactPosterior(), data.spec)
        pair.model._measured([data.train.transformed().double()])
        batch = (data.train.transformed(),)
        expected = by_definition(pair.model, torch.from_numpy(x), hidden).detach()
        torch.testing.assert_close(pair.model.log_prob(*batch), expected.double(), rtol=1e-5, atol=1e-4)
        with torch.no_grad():
            summed = log_joint(traces(pair, batch, 1))[0]
        torch.testing.assert_close(summed.double(), expected.double(), rtol=1e-5, atol=1e-4)


def test_a_density_is_one_of_the_columns_own_units() -> None:
    data = pv.load_data(rows(pv.Gaussian(), 30), valid=0.0, test=0.0)
    program = network(pv.MixtureDensity(components=3)).build(data.spec)
    program._measured([data.train.transformed().double()])
    grid = torch.linspace(-400.0, 700.0, 8001, dtype=torch.float64)
    p = program.nodes["y"].distribution({"c": torch.tensor(1), "t": torch.tensor(0.5)})
    density = p.log_prob(grid).exp()
    assert torch.trapezoid(density, grid).item() == pytest.approx(1.0, abs=1e-4)
    assert torch.trapezoid(density * grid, grid).item() == pytest.approx(p.mean.item(), rel=1e-4)
    spread = torch.trapezoid(density * (grid - p.mean) ** 2, grid)
    assert spread.item() == pytest.approx(p.variance.item(), rel=1e-3)


def test_a_mixture_density_is_a_mixture_of_normals() -> None:
    p = pv.MixtureDensity(components=2, value=0.5, floor=0.1).build(())(torch.tensor([0.3, -0.2, 1.0, 2.0, 0.4, -1.0]))
    weight = np.exp([0.3, -0.2]) / np.exp([0.3, -0.2]).sum()
    mean = np.array([1.0, 2.0]) + stats.norm.ppf([0.25, 0.75])
    scale = 0.1 + np.log1p(np.exp(np.array([0.4, -1.0]) + np.log(np.expm1(0.4))))
    for x in (-1.0, 0.5, 3.0):
        assert p.log_prob(torch.tensor(x)).exp().item() == pytest.approx(
            (weight * stats.norm(mean, scale).pdf(x)).sum(), rel=1e-5
        )
    with pytest.raises(ValueError, match="at least 1 component, got 0"):
        pv.MixtureDensity(components=0)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[pv.Fit, Path, pv.Data]:
    """A curve of two branches, which no regression has."""
    pd = pytest.importorskip("pandas")
    generator = np.random.default_rng(0)
    c = generator.integers(0, 2, 200)
    t = generator.normal(0.0, 1.0, 200)
    y = np.where(c == 1, 50 + 10 * t**2, 20 - 5 * t) + generator.normal(0, 1.0, 200)
    table = pd.DataFrame({"c": np.where(c == 1, "yes", "no"), "t": t, "y": y})
    table.loc[::10, "y"] = np.nan
    declared = pv.BayesianNetwork(
        nodes={
            "c": pv.Table(),
            "t": pv.LinearGaussian(),
            "y": pv.Neural(parents=("c", "t"), network=pv.MLP(hidden=(16,)), likelihood=pv.Gaussian(scale="amortized")),
        }
    )
    out = tmp_path_factory.mktemp("runs") / "curve"
    data = pv.load_data(table, valid=0.1, test=0.1, missing="ignore")
    return pv.fit(declared, data, method=pv.SVI(epochs=40, batch_size=40), out=out), out, data


def test_a_curve_is_fitted_that_no_regression_has(fitted: tuple[pv.Fit, Path, pv.Data]) -> None:
    fit, out, data = fitted
    linear = dict(fit.model.nodes) | {"y": pv.LinearGaussian(parents=("c", "t"))}
    straight = pv.fit(pv.BayesianNetwork(nodes=linear), data, method=pv.EM(max_iterations=20))
    ours, theirs = (each.evaluate(data.test)["log_likelihood"] for each in (fit, straight))
    assert ours > theirs + 0.3
    again = pv.load_run(out)
    assert again.query("c", {"t": 0.0, "y": 21.0})["c"] == fit.query("c", {"t": 0.0, "y": 21.0})["c"]
    assert fit.query("c", {"t": 0.0, "y": 21.0})["c"]["no"] > 0.9
    assert list(fit.parameters()) == ["c", "t"]


def test_what_is_exact_agrees_with_sampling(fitted: tuple[pv.Fit, Path, pv.Data]) -> None:
    fit, *_ = fitted
    given = {"t": [0.5, -1.0], "y": [40.0, 30.0]}
    exact, sampled = fit.query("c", given), fit.query("c", given, method="sampling", draws=4000)
    assert bool(((exact.table - sampled.table).abs() <= 4 * sampled.table_error + 1e-6).all())
    assert bool(((exact.log_evidence - sampled.log_evidence).abs() <= 4 * sampled.log_evidence_error + 1e-5).all())
    nodes, values = fit.pair.model.nodes, {"c": torch.tensor([1]), "t": torch.zeros(1)}
    done = fit.query("y", do={"c": "yes", "t": float(fit.pair.model.loc[0])}, method="sampling", draws=4000)
    assert abs(done["y"].mean.item() - nodes["y"].distribution(values).mean.item()) < 4 * done.error("y")
    assert fit.explain({"t": 0.0, "y": 21.0}).values == {"c": "no"}


def test_missing_values_are_filled_in_by_means_and_draws(fitted: tuple[pv.Fit, Path, pv.Data]) -> None:
    fit, *_ = fitted
    program = fit.pair.model
    x = torch.tensor([[1.0, 0.5, torch.nan], [torch.nan, 0.5, torch.nan]])
    place = {"t": (x[:1, 1] - program.loc[0]) / program.unit[0]}
    means = [program.nodes["y"].distribution({"c": torch.tensor([c]), **place}).mean.item() for c in (0, 1)]
    share = program.nodes["c"].probs.tolist()
    filled = program.impute(x)
    assert filled[0, 2].item() == pytest.approx(means[1], rel=1e-5)
    assert filled[1, 2].item() == pytest.approx(share[0] * means[0] + share[1] * means[1], rel=1e-5)
    torch.manual_seed(0)
    drawn = program.impute(x, draws=2000)
    assert drawn[:, 0, 2].mean().item() == pytest.approx(means[1], abs=4 * drawn[:, 0, 2].std().item() / 2000**0.5)


def test_what_cannot_be_summed_is_refused_with_its_remedy(fitted: tuple[pv.Fit, Path, pv.Data]) -> None:
    fit, _, data = fitted
    for ask, told in (
        (lambda: fit.query("y", {"c": "yes"}), "is no mixture of normals: query with method='sampling'"),
        (lambda: fit.query("t", {"y": 21.0}), "expected values of t, on which y hangs by a network"),
        (lambda: fit.explain({"c": "yes"}), "expected a value of y"),
        (lambda: fit.model.filled(fit.pair.model), r"the node y \(Neural\) has weights"),
        (lambda: pv.fit(fit.model, data, method=pv.EM()), "the nodes y are networks, which EM has no step for: use SVI"),
        (lambda: fit.model.query("c"), "expected numbers of all nodes, got none of"),
    ):
        with pytest.raises(ValueError, match=told):
            ask()
    complete = rows(pv.Poisson(), 20)
    counts = network(pv.Poisson())
    with pytest.raises(ValueError, match=r"y \(NeuralNumber\) has no closed form: use SVI"):
        pv.fit(counts, pv.load_data(complete), method=pv.ClosedForm())
    complete[3, 2] = -1.0
    with pytest.raises(ValueError, match="node y: Poisson: expected every value in the support"):
        pv.fit(counts, pv.load_data(complete, valid=0.0), method=pv.SVI(epochs=1))


def test_declarations_that_cannot_be_are_refused(tmp_path: Path) -> None:
    for make, told in (
        (lambda: pv.Neural(likelihood=pv.LowRankGaussian(rank=1)), "a likelihood of one value"),
        (lambda: pv.Neural(likelihood=pv.Masked(likelihood=pv.Gaussian())), "may not be missing"),
        (lambda: pv.Neural(states=("a", "b"), likelihood=pv.Gaussian()), "no states under a likelihood of numbers"),
        (lambda: pv.Neural(states=("a", "a")), "every state once"),
        (lambda: pv.Neural(learned=False), "learned=False"),
        (lambda: pv.BayesianNetwork(nodes={"a": pv.Neural(states=tuple("abc"), likelihood=pv.Bernoulli())}), "two states of a"),
        (lambda: pv.BayesianNetwork(nodes={"y": pv.Neural(), "a": pv.Table(parents=("y",), states=("u", "v"))}), "are numbers"),
    ):
        with pytest.raises(ValueError, match=told):
            make()
    declared = network(pv.MixtureDensity(components=2))
    assert pv.BayesianNetwork.from_yaml(declared.to_yaml()) == declared
    assert "y ~ sum_c pi_c(c, t) Normal" in str(declared)
    assert "s ~ Categorical(MLP(t, c))" in str(declared)


def test_counts_stay_counts_where_columns_are_standardized() -> None:
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame(rows(pv.Poisson(), 40), columns=["c", "t", "y", "s", "b"])
    data = pv.load_data(table, valid=0.0, test=0.0, scale="standardize")
    resolved = network(pv.Poisson()).resolve(data)
    x = resolved.train.transformed()
    assert bool((x[:, 2] == x[:, 2].round()).all())
    assert abs(x[:, 1].mean().item()) < 1e-5
    program = network(pv.Poisson()).build(resolved.spec)
    program._measured([x.double()])
    start = program.nodes["y"].distribution({"c": torch.zeros(40, dtype=torch.long), "t": torch.zeros(40)}).mean
    assert start.mean().item() == pytest.approx(x[:, 2].mean().item(), rel=0.8)
    for c, t in itertools.product(("no", "yes"), (14.0, 20.0)):
        assert program.query("s", {"c": c, "t": t, "y": 3}, {}).table.sum().item() == pytest.approx(1.0)


def test_values_are_checked_by_the_names_of_columns() -> None:
    draws = np.random.default_rng(0)
    table = pd.DataFrame({"r": draws.normal(size=60), "k": draws.poisson(3, 60)})
    nodes = {"k": pv.Neural(likelihood=pv.Poisson()), "r": pv.LinearGaussian(parents=("k",))}
    fit = pv.fit(pv.BayesianNetwork(nodes=nodes), table, method=pv.SVI(epochs=1))
    assert np.isfinite(fit.score_samples(table[["k", "r"]])["log_prob"]).all()
    with pytest.raises(ValueError, match=r"node k: Poisson: expected .* whole numbers from 0 on.*'k'"):
        fit.score_samples(table.assign(k=table["k"] + 0.5))
