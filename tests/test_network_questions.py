"""Questions to networks: the most probable explanation, answers by sampling, and rows of a table, against all joint states."""

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
from scipy.stats import multivariate_normal

import ppl_vae as pv
from ppl_vae import cli
from ppl_vae.exact import marginals
from ppl_vae.exact.elimination import ROWS, Factor, log_sum
from ppl_vae.exact.marginals import posteriors
from ppl_vae.exact.maximization import maximum
from ppl_vae.models.network.answers import Answer
from ppl_vae.models.network.estimates import Estimate
from tests.network_cases import ASIA, bare, causes, data_of, frame, joint_of, mixed, random_network


@pytest.fixture
def asia(tmp_path: Path) -> pv.BayesianNetwork:
    path = tmp_path / "asia.bif"
    path.write_text(ASIA)
    return pv.BayesianNetwork.from_bif(path)


def random_factors(seed: int) -> tuple[list[Factor], dict[str, int]]:
    """Factors of four variables, some of which have rows."""
    generator = torch.Generator().manual_seed(seed)
    sizes = {"a": 2, "b": 3, "c": 2, "d": 2}
    names = [("a", "b"), (ROWS, "b", "c"), ("c", "d"), (ROWS, "d"), ("a",), (ROWS,)]
    shape = {**sizes, ROWS: 5}
    factors = [torch.rand([shape[name] for name in each], generator=generator, dtype=torch.float64) for each in names]
    return [Factor(values, each) for values, each in zip(factors, names, strict=True)], sizes


def product_of(factors: list[Factor], sizes: dict[str, int]) -> torch.Tensor:
    """All products ``(n, *sizes)``."""
    letters = dict(zip((ROWS, *sizes), "nabcd", strict=True))
    words = ["".join(letters[name] for name in names) for _, names in factors]
    return torch.einsum(f"{','.join(words)}->nabcd", *(values for values, _ in factors))


# --- all marginals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_marginals_of_factors_are_those_of_all_products(seed: int) -> None:
    factors, sizes = random_factors(seed)
    whole = product_of(factors, sizes)
    total, found = posteriors(factors, sizes, 5)
    torch.testing.assert_close(total, whole.flatten(1).sum(-1).log())
    torch.testing.assert_close(total, log_sum(factors))
    for place, name in enumerate(sizes, start=1):
        others = [axis for axis in range(1, 5) if axis != place]
        torch.testing.assert_close(found[name], whole.sum(others) / whole.flatten(1).sum(-1, keepdim=True))


def test_many_rows_are_asked_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    factors, sizes = random_factors(0)
    total, found = posteriors(factors, sizes, 5)
    monkeypatch.setattr(marginals, "AT_ONCE", 60)
    again, parts = posteriors(factors, sizes, 5)
    torch.testing.assert_close(again, total)
    for name in sizes:
        torch.testing.assert_close(parts[name], found[name])


def test_a_table_that_is_too_large_for_every_row_is_asked_by_ones() -> None:
    wide = Factor(torch.rand(2, 4096, dtype=torch.float64), ("a", "b"))
    seen = Factor(torch.rand(3, 2, dtype=torch.float64), (ROWS, "a"))
    _, found = posteriors([wide, seen], {"b": 4096}, 3)
    whole = seen.values @ wide.values
    torch.testing.assert_close(found["b"], whole / whole.sum(-1, keepdim=True))


# --- the most probable explanation ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_the_largest_product_is_that_of_all_joint_states(seed: int) -> None:
    factors, sizes = random_factors(seed)
    whole = product_of(factors, sizes).flatten(1)
    log_p, places = maximum(factors, 5)
    torch.testing.assert_close(log_p, whole.amax(-1).log())
    at = torch.zeros(5, dtype=torch.int64)
    for name, size in sizes.items():
        at = at * size + places[name]
    assert torch.equal(at, whole.argmax(-1))


def test_values_that_are_as_good_as_others_belong_together() -> None:
    same = Factor(torch.eye(2), ("a", "b"))
    _, places = maximum([same, Factor(torch.tensor([0.5, 0.5]), ("a",))], 1)
    assert places["a"] == places["b"]


@pytest.mark.parametrize("seed", range(6))
def test_an_explanation_is_the_most_probable_joint_state(seed: int) -> None:
    network = random_network(seed)
    names, joint = joint_of(network)
    states = {name: network.nodes[name].declared_states for name in names}
    seen = [states[names[1]][0], None, states[names[1]][1]]
    found = network.explain({names[1]: seen})
    for row, state in enumerate(seen):
        kept = joint if state is None else joint.select(1, states[names[1]].index(state)).unsqueeze(1)
        place = torch.unravel_index(kept.argmax(), kept.shape)
        expected = {name: states[name][int(at)] for name, at in zip(names, place, strict=True)}
        expected[names[1]] = expected[names[1]] if state is None else state
        assert {name: found[name][row] for name in names} == expected
        assert found.log_probability[row].item() == pytest.approx((kept.max() / kept.sum()).log().item(), abs=1e-6)
        assert found.log_evidence[row].item() == pytest.approx(kept.sum().log().item(), abs=1e-6)


def test_an_explanation_of_numbers_weighs_densities_at_their_means() -> None:
    network = mixed()
    found = network.explain({"ice": 3.0})
    best: list[tuple[float, dict[str, Any]]] = []
    for cloudy, rain in itertools.product((0, 1), (0, 1)):
        p = (0.4, 0.6)[cloudy] * ((0.9, 0.1), (0.3, 0.7))[cloudy][rain]
        mean, sd = (20.0, 12.0)[cloudy], (3.0, 2.0)[cloudy]
        b, w, s = (1.0, 0.0)[rain], (0.5, 0.2)[rain], (1.0, 0.7)[rain]
        joint = multivariate_normal([mean, b + w * mean], [[sd**2, w * sd**2], [w * sd**2, w**2 * sd**2 + s**2]])
        temp = mean + w * sd**2 / (w**2 * sd**2 + s**2) * (3.0 - b - w * mean)
        values = {"cloudy": ("no", "yes")[cloudy], "rain": ("no", "yes")[rain], "temp": temp}
        best.append((math.log(p) + joint.logpdf([temp, 3.0]), values))
    highest, values = max(best, key=lambda each: each[0])
    assert (found.log_probability + found.log_evidence).item() == pytest.approx(highest, abs=1e-5)
    assert found.values == {**values, "temp": pytest.approx(values["temp"], rel=1e-5)}
    cut = network.explain({"ice": 3.0}, do={"temp": 15.0})
    assert list(cut.values) == ["cloudy", "rain"]
    assert cut["cloudy"] == "yes"


# --- by sampling ----------------------------------------------------------------------------------------------------------


def agree(exact: Answer, sampled: Estimate) -> None:
    """Within four standard errors."""
    assert bool(((sampled.table - exact.table).abs() <= 4 * sampled.table_error + 1e-9).all())
    assert bool(((sampled.log_evidence - exact.log_evidence).abs() <= 4 * sampled.log_evidence_error + 1e-6).all())
    for name in exact.numbers:
        error = np.array(sampled.error(name))
        assert np.all(np.abs((sampled[name].mean - exact[name].mean).numpy()) <= 4 * error)
        assert np.all(error < 0.1 * exact[name].variance.sqrt().numpy())


def test_sampling_agrees_with_what_is_exact_within_its_standard_errors() -> None:
    options: dict[str, Any] = {"method": "sampling", "draws": 4000}
    given = {"ice": [3.0, None, 5.0], "rain": ["yes", "no", None]}
    agree(mixed().query(["cloudy", "temp"], given), mixed().query(["cloudy", "temp"], given, **options))
    done = {"do": {"temp": [15.0, 20.0, 10.0]}}
    agree(mixed().query("cloudy", given, **done), mixed().query("cloudy", given, **done, **options))
    names, given = ["cold", "flu"], {"cough": "yes", "ward": "night", "age": 60.0}
    agree(causes().query(names, given), causes().query(names, given, **options))
    first, again = (causes().query(names, given, **options).table for _ in range(2))
    assert torch.equal(first, again)


def test_standard_errors_are_the_spread_of_estimates() -> None:
    given = {"cough": "yes", "cold": "no"}
    runs = [causes().query("flu", given, method="sampling", draws=500, seed=seed) for seed in range(60)]
    spread = torch.stack([run.table for run in runs]).std(0)
    torch.testing.assert_close(spread, torch.stack([run.table_error for run in runs]).mean(0), rtol=0.35, atol=0)
    evidence = torch.stack([run.log_evidence for run in runs]).std()
    torch.testing.assert_close(evidence, torch.stack([run.log_evidence_error for run in runs]).mean(), rtol=0.35, atol=0)
    exact = causes().query("flu", given)
    assert runs[0].effective < 500
    assert runs[0].error("flu")["yes"] == pytest.approx(runs[0].table_error[1].item())
    pooled = torch.stack([run.table for run in runs]).mean(0)
    torch.testing.assert_close(pooled, exact.table, atol=4 * spread.max().item() / math.sqrt(60), rtol=0)


def test_sampling_answers_where_exact_sums_are_refused() -> None:
    with pytest.raises(ValueError, match="query with method='sampling'"):
        causes().query("flu", {"ward": "night"})
    found = causes().query("flu", {"ward": "night"}, method="sampling", draws=20_000)
    age = np.linspace(-25.0, 125.0, 4001)
    weight = np.exp(-((age - 50.0) ** 2) / 450.0)
    night = []
    for day, other in (((-3.0, 0.02), (-5.0, 0.03)), ((-2.0, 0.02), (-4.0, 0.06))):
        odds = np.exp([day[0] + day[1] * age, other[0] + other[1] * age])
        night.append((weight * odds[1] / (1 + odds.sum(0))).sum() / weight.sum())
    expected = 0.3 * night[1] / (0.7 * night[0] + 0.3 * night[1])
    assert abs(found["flu"]["yes"] - expected) < 4 * found.error("flu")["yes"]


def test_a_network_that_is_too_wide_for_sums_is_sampled() -> None:
    causes_of = tuple(f"c{place}" for place in range(30))
    nodes: dict[str, Any] = {name: pv.Table(states=("no", "yes"), probs=(0.9, 0.1)) for name in causes_of}
    nodes["ill"] = pv.NoisyOr(parents=causes_of[:20], states=("no", "yes"), probs=(0.5,) * 20, leak=0.0)
    nodes["sick"] = pv.NoisyOr(parents=causes_of[10:], states=("no", "yes"), probs=(0.5,) * 20, leak=0.0)
    network = pv.BayesianNetwork(nodes={**nodes})
    found = network.query("c0", {"ill": "yes"}, method="sampling", draws=4000)
    none = 0.95**20  # of twenty causes, each there and turning it on with probability 0.1 * 0.5
    expected = (0.1 - 0.1 * 0.5 * 0.95**19) / (1 - none)
    assert abs(found["c0"]["yes"] - expected) < 4 * found.error("c0")["yes"]
    assert abs(found.log_evidence.item() - math.log(1 - none)) < 4 * found.log_evidence_error.item()


# --- rows of a table ------------------------------------------------------------------------------------------------------


def test_a_frame_is_asked_row_by_row_in_one_call(asia: pv.BayesianNetwork) -> None:
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame({"xray": ["yes", None, "no"], "smoke": pd.array(["no", "yes", pd.NA], dtype="string")})
    done = pd.DataFrame({"asia": ["yes", "no", "yes"], "bronc": ["no", "no", "yes"]})
    together = asia.query(["lung", "dysp"], table, do=done)
    explained, all_of_them = asia.explain(table, do=done), asia.marginals(table, do=done)
    for row in range(3):
        given = {name: value for name, value in table.iloc[row].items() if not pd.isna(value)}
        alone = asia.query(["lung", "dysp"], given, do=dict(done.iloc[row]))
        torch.testing.assert_close(together.table[row], alone.table)
        torch.testing.assert_close(together.log_evidence[row], alone.log_evidence)
        torch.testing.assert_close(all_of_them["lung"][row], alone.table.sum(-1))
        one = asia.explain(given, do=dict(done.iloc[row]))
        assert one.values == {name: explained[name][row] for name in one.values}
        assert one.log_probability.item() == pytest.approx(explained.log_probability[row].item())


def test_questions_of_other_kinds_are_refused_as_well(asia: pv.BayesianNetwork) -> None:
    impossible = {"either": "no", "lung": "yes"}
    for ask, told in (
        (lambda: asia.explain(impossible), "probability zero"),
        (lambda: asia.marginals(impossible), "probability zero"),
        (lambda: asia.query("smoke", impossible, method="sampling"), "none of 10000 draws agrees"),
        (lambda: asia.query("smoke", method="guess"), "a method of exact or sampling, got 'guess'"),
        (lambda: asia.query("smoke", method="sampling", draws=1), "at least 2 draws, got 1"),
        (lambda: asia.query("smoke", method="sampling", draws=2.5), r"whole number"),
        (lambda: asia.query("smoke", draws=100), "no draws for method='exact', which sums, got 100"),
        (lambda: asia.sample(0), "at least 1 draw, got 0"),
        (lambda: asia.sample(-1), "at least 1 draw, got -1"),
        (lambda: asia.query("lung", do={"smoke": ["yes", None]}), "a value of smoke, which is set, in every row"),
        (lambda: asia.query("lung", {"smoke": []}), "got none: leave it out"),
        (lambda: asia.explain({"lungs": "yes"}), "did you mean lung"),
        (lambda: asia.query("smoke", method="sampling")["lung"], "one of the names that were asked for, smoke"),
    ):
        with pytest.raises(ValueError, match=told):
            ask()


def test_the_command_line_explains_and_samples(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    network = bare(mixed())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = pv.fit(network, data_of(mixed(), 200), method=pv.ClosedForm(), out=tmp_path / "run")
    run = str(tmp_path / "run")
    assert cli.main(["query", run, "--map", "--given", "ice=3.0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == fit.explain({"ice": 3.0}).to_dict()
    assert cli.main(["query", run, "rain", "--map", "--given", "ice=3.0"]) == 0
    shown = capsys.readouterr().out
    assert "most probable: rain=" in shown
    assert f"{', '.join(found['most_probable'])} together | given) = {found['log_probability']:.4f}" in shown
    assert cli.main(["query", run, "rain", "temp", "--given", "ice=3.0", "--method", "sampling", "--draws", "500"]) == 0
    shown = capsys.readouterr().out
    assert "+-" in shown
    assert "estimated by 500 draws" in shown
    assert cli.main(["query", run, "rain", "--given", "ice=3.0", "--method", "sampling", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rain"]["yes"] == fit.query("rain", {"ice": 3.0}, method="sampling")["rain"]["yes"]
    for ignored in (["--method", "sampling"], ["--draws", "100"]):
        capsys.readouterr()
        assert cli.main(["query", run, "--map", "--given", "ice=3.0", *ignored]) == 2
        assert f"--map by itself, which is found exactly, got {' '.join(ignored)}: leave it out" in capsys.readouterr().err
    assert cli.main(["query", run, "rain", "--draws", "100"]) == 2
    assert "expected no draws for method='exact'" in capsys.readouterr().err
    assert cli.main(["query", run]) == 2
    assert "or --map for the most probable state" in capsys.readouterr().err
    assert cli.main(["query", run, "ice", "--map", "--given", "ice=3.0"]) == 2
    assert "nodes that are not given" in capsys.readouterr().err


def test_what_a_network_found_has_the_names_of_its_nodes(tmp_path: Path) -> None:
    table = frame(mixed(), 300)
    plain = pv.fit(bare(mixed()), pv.load_data(table), method=pv.ClosedForm())
    found = plain.parameters()
    rows = table[table["cloudy"] == "yes"]
    assert found["rain"].axes == ("state", "given")
    assert found["rain"].labels == (("no", "yes"), ("cloudy=no", "cloudy=yes"))
    assert found["temp"].labels == (("intercept", "sd"), ("cloudy=no", "cloudy=yes"))
    assert found["ice"].labels[0] == ("intercept", "temp", "sd")
    seen = pv.load_data(table).train.x[:, 2].numpy()
    assert found["temp"].values[0].min() > seen.min()
    scaled = pv.fit(bare(mixed()), pv.load_data(table, scale="standardize"), method=pv.ClosedForm()).parameters()
    for name, each in found.items():
        np.testing.assert_allclose(scaled[name].values, each.values, atol=2e-5)
    assert len(rows)
    assert "ice       intercept" in str(found)
    noisy = pv.fit(bare(causes()), data_of(causes(), 200), method=pv.EM(max_iterations=2)).parameters()
    assert noisy["cough"].labels == (("leak", "cold", "flu"),)
    assert noisy["ward"].axes == ("term", "state", "given")
    assert noisy["ward"].labels[1] == ("day", "night")


def test_states_of_a_hidden_node_are_predicted_by_name(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    table = frame(mixed(), 100).drop(columns="cloudy")
    network = pv.BayesianNetwork(nodes=mixed().nodes, hidden=("cloudy",))
    fit = pv.fit(network, pv.load_data(table), method=pv.EM(max_iterations=2))
    predicted, shares = fit.predict(table.head(5)), fit.predict_proba(table.head(5))
    assert predicted.name == "cloudy"
    assert list(shares.columns) == ["no", "yes"]
    assert list(predicted) == [("no", "yes")[int(share > 0.5)] for share in shares["yes"]]
    table.head(5).to_csv(tmp_path / "new.csv", index=False)
    pv.save_run(fit, pv.load_data(table), tmp_path / "run")
    where = ["--data", str(tmp_path / "new.csv"), "--out", str(tmp_path / "found.csv")]
    assert cli.main(["predict", str(tmp_path / "run"), *where]) == 0
    lines = [line.split(",") for line in (tmp_path / "found.csv").read_text().splitlines()]
    assert lines[0] == ["cloudy", "p_no", "p_yes"]
    assert [line[0] for line in lines[1:]] == list(predicted)


# --- graphs ---------------------------------------------------------------------------------------------------------------


def test_a_bare_graph_is_declared_by_its_edges() -> None:
    pairs = pv.BayesianNetwork.from_edges(
        [("cloudy", "rain"), ("cloudy", "temp"), ("temp", "ice"), ("rain", "ice")], numbers=["temp", "ice"]
    )
    parents = pv.BayesianNetwork.from_edges(
        {"cloudy": (), "rain": "cloudy", "temp": ["cloudy"], "ice": ["temp", "rain"]}, numbers=["temp", "ice"]
    )
    assert pairs == parents == bare_without_states(mixed())
    given = pv.BayesianNetwork.from_edges({"b": ["x"]}, numbers=["x"], states={"b": ["no", "yes"]}, hidden=["b"])
    assert given.nodes["b"] == pv.LogisticRegression(parents=("x",), states=("no", "yes"))
    with pytest.raises(ValueError, match=r"expected edges as pairs \(parent, child\) of names, got 'ab'"):
        pv.BayesianNetwork.from_edges(["ab"])
    with pytest.raises(ValueError, match="expected nodes of a, b, got"):
        pv.BayesianNetwork.from_edges([("a", "b")], numbers=["c"])
    with pytest.raises(ValueError, match="without cycles, got a <- b <- a"):
        pv.BayesianNetwork.from_edges([("a", "b"), ("b", "a")])


def bare_without_states(network: pv.BayesianNetwork) -> pv.BayesianNetwork:
    return pv.BayesianNetwork(nodes={name: type(node)(parents=node.parents) for name, node in network.nodes.items()})


def test_a_regression_of_as_many_rows_as_coefficients_has_a_standard_deviation() -> None:
    # pgmpy 1.1.2 divides by n - p - 1, which is zero here.
    x = np.array([[0.0, 1.0, 2.0], [1.0, 0.5, 1.0], [2.0, 3.0, 0.0]])
    network = pv.BayesianNetwork.from_edges({"a": [], "b": [], "c": ["a", "b"]}, numbers=["a", "b", "c"])
    with pytest.warns(pv.FitWarning, match=r"on their floor: c \(that is 0\.001 of the column's own: lower floor="):
        fit = pv.fit(network, pv.load_data(x, valid=0.0, test=0.0), method=pv.ClosedForm())
    found = fit.parameters()
    assert found["a"].values[-1] == pytest.approx(x[:, 0].std(), rel=1e-5)  # divided by n
    assert 0 < found["c"].values[-1] <= 1e-3 * x[:, 2].std() * 1.01  # the plane through all three, on the floor


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (ASIA.replace("table 0.5, 0.5;", "table nan, nan;"), "probabilities"),
        (ASIA.replace("table 0.5, 0.5;", "table 1.5, -0.5;"), r"probabilities that sum to 1 .* got \[1\.5, -0\.5\]"),
        (ASIA.replace("{ yes, no }; }\nvariable tub", "{ yes, yes }; }\nvariable tub"), "every state once"),
    ],
)
def test_numbers_of_bif_that_are_no_probabilities_are_refused(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.bif"
    path.write_text(text)
    with pytest.raises(ValueError, match=told):
        pv.BayesianNetwork.from_bif(path)


def test_bif_that_is_huge_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.bif"
    with path.open("wb") as file:
        file.truncate(2**26)
    with pytest.raises(ValueError, match=r"huge\.bif"):
        pv.BayesianNetwork.from_bif(path)
    names = [f"n{place}" for place in range(24)]
    variables = "".join(f"variable {name} {{ type discrete [ 2 ] {{ a, b }}; }}\n" for name in names)
    tables = "".join(f"probability ( {name} ) {{ table 0.5, 0.5; }}\n" for name in names[1:])
    path.write_text(f"{variables}{tables}probability ( n0 | {', '.join(names[1:])} ) {{ default 0.5, 0.5; }}")
    with pytest.raises(ValueError, match=r"a table of at most 4,194,304 entries, got 16,777,216 for n0"):
        pv.BayesianNetwork.from_bif(path)
