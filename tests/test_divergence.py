"""Divergences are those of the formulas: closed forms, sums over finite supports, integrals, and their laws."""

import json
import math

import numpy as np
import pandas
import pyro.distributions as dist
import pytest
import torch
from scipy import integrate, stats

import ppl_vae as pv
from ppl_vae.cli import main
from ppl_vae.evaluate.divergence import LawOfDistribution, divergence_of

CHANCE = 5.0  # standard errors
FEW = 4000


def normal(*loc, scale=1.0):
    return dist.Normal(torch.tensor(loc), scale).to_event(1)


def integrated(p, q):
    """KL(p || q), KL(q || p) and JS of two densities of scipy on the real line, by quadrature."""
    m = lambda x: (p.pdf(x) + q.pdf(x)) / 2  # noqa: E731
    kl = lambda a, b: integrate.quad(lambda x: stats_xlogy(a.pdf(x), a.logpdf(x) - b.logpdf(x)), -40, 40, limit=400)[0]  # noqa: E731
    mixed = lambda a: integrate.quad(lambda x: stats_xlogy(a.pdf(x), a.logpdf(x) - math.log(m(x))), -30, 30, limit=400)[0]  # noqa: E731
    return kl(p, q), kl(q, p), (mixed(p) + mixed(q)) / 2


def stats_xlogy(weight, log_ratio):
    return weight * log_ratio if weight > 0 else 0.0


def test_normals_are_those_of_quadrature():
    found = pv.divergence(dist.Normal(0.0, 1.0), dist.Normal(1.0, 2.0), samples=FEW)
    forward, reverse, js = integrated(stats.norm(0, 1), stats.norm(1, 2))
    assert found.forward.value == pytest.approx(forward, rel=1e-6)
    assert found.reverse.value == pytest.approx(reverse, rel=1e-6)
    assert (found.forward.how, found.reverse.how, found.js.how) == ("closed form", "closed form", "sampling")
    assert abs(found.js.value - js) < CHANCE * found.js.se < 0.02


def test_what_has_no_formula_is_sampled_with_its_standard_error():
    found = pv.divergence(dist.StudentT(5.0, 0.0, 1.0), dist.Normal(0.5, 1.5), samples=FEW)
    expected = integrated(stats.t(5), stats.norm(0.5, 1.5))
    for each, value in zip((found.forward, found.reverse, found.js), expected, strict=True):
        assert each.how == "sampling"
        assert abs(each.value - value) < CHANCE * each.se < 0.2


def test_an_infinite_mean_is_told():
    found = pv.divergence(dist.Cauchy(0.0, 1.0), dist.Normal(0.0, 1.0), samples=FEW)
    assert "may be infinite" in found.forward.remark
    assert not found.reverse.remark


@pytest.mark.parametrize(
    ("p", "q"),
    [
        (normal(0.0, 1.0), dist.MultivariateNormal(torch.zeros(2), torch.tensor([[1.0, 0.5], [0.5, 1.0]]))),
        (
            dist.LowRankMultivariateNormal(torch.zeros(2), torch.ones(2, 1), torch.ones(2)),
            dist.MultivariateNormal(torch.ones(2), torch.tensor([[2.0, -0.5], [-0.5, 1.0]])),
        ),
    ],
)
def test_normals_of_any_form_have_the_formula(p, q):
    S, T = (d.base_dist.variance.diag() if isinstance(d, dist.Independent) else d.covariance_matrix for d in (p, q))
    gap = q.mean - p.mean
    expected = 0.5 * (torch.linalg.solve(T, S).trace() + gap @ torch.linalg.solve(T, gap) - 2 + T.logdet() - S.logdet())
    found = pv.divergence(p, q, samples=2).forward
    assert (found.value, found.how) == (pytest.approx(expected.item(), rel=1e-5), "closed form")


def test_finite_supports_are_summed_over():
    a, b = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.2, 0.2, 0.2, 0.4])
    found = pv.divergence(dist.Categorical(a), dist.Categorical(b))
    assert found.forward.value == pytest.approx(math.log(0.5 / 0.2), rel=1e-5)
    assert found.reverse.value == math.inf
    assert "has mass where the second has none" in found.reverse.remark
    p, q = [0.5, 0.5, 0, 0], b.tolist()
    m = [(x + y) / 2 for x, y in zip(p, q, strict=True)]
    assert found.js.value == pytest.approx((stats.entropy(p, m) + stats.entropy(q, m)) / 2, rel=1e-5)
    assert {each.how for each in (found.forward, found.reverse, found.js)} == {"enumeration"}


def test_a_probability_of_zero_is_none_though_torch_clamps_it():
    for p, q in (
        (dist.Categorical(torch.tensor([0.5, 0.5])), dist.Categorical(torch.tensor([1.0, 0.0]))),
        (dist.OneHotCategorical(torch.tensor([0.5, 0.5])), dist.OneHotCategorical(torch.tensor([0.0, 1.0]))),
        (dist.Bernoulli(torch.tensor([0.5, 0.1])).to_event(1), dist.Bernoulli(torch.tensor([0.5, 0.0])).to_event(1)),
    ):
        found = pv.divergence(p, q)
        assert (found.forward.value, found.forward.how) == (math.inf, "enumeration")
        assert math.isfinite(found.reverse.value)


def test_products_of_discrete_elements_are_summed_over_together():
    p, q = (dist.Bernoulli(torch.tensor(probs)).to_event(1) for probs in ([0.2, 0.3, 0.9], [0.5, 0.3, 0.8]))
    found = pv.divergence(p, q)
    each = [stats.entropy([1 - a, a], [1 - b, b]) for a, b in ((0.2, 0.5), (0.3, 0.3), (0.9, 0.8))]
    assert (found.forward.value, found.forward.how) == (pytest.approx(sum(each), rel=1e-5), "enumeration")


def test_binomials_of_other_counts_and_mixtures_of_coins():
    p, q = dist.Binomial(3, torch.tensor(0.4)), dist.Binomial(5, torch.tensor(0.4))
    found = pv.divergence(p, q)
    k = range(6)
    assert found.forward.value == pytest.approx(stats.entropy(stats.binom.pmf(k, 3, 0.4), stats.binom.pmf(k, 5, 0.4)), rel=1e-5)
    assert found.reverse.value == math.inf
    coins = dist.Bernoulli(torch.tensor([[0.1, 0.2], [0.8, 0.9]])).to_event(1)
    mixture = dist.MixtureSameFamily(dist.Categorical(torch.tensor([0.5, 0.5])), coins)
    independent = dist.Bernoulli(torch.tensor([0.45, 0.55])).to_event(1)
    pmf = torch.tensor([0.5 * (0.9 * 0.8 + 0.2 * 0.1), 0.5 * (0.9 * 0.2 + 0.2 * 0.9), 0.5 * (0.1 * 0.8 + 0.8 * 0.1)])
    pmf = torch.cat([pmf, 1 - pmf.sum()[None]])
    flat = torch.tensor([0.55 * 0.45, 0.55 * 0.55, 0.45 * 0.45, 0.45 * 0.55])
    found = pv.divergence(mixture, independent)
    assert (found.forward.value, found.forward.how) == (pytest.approx(stats.entropy(pmf, flat), rel=1e-5), "enumeration")


def test_supports_that_differ_are_told_and_js_is_at_most_log_2():
    found = pv.divergence(dist.Uniform(0.0, 1.0), dist.Uniform(2.0, 3.0), samples=100)
    assert found.forward.value == found.reverse.value == math.inf
    assert found.js.value == pytest.approx(math.log(2))
    sampled = pv.divergence(dist.LogNormal(0.0, 1.0), dist.StudentT(4.0), samples=FEW)
    assert math.isfinite(sampled.forward.value)
    assert sampled.reverse.value == math.inf
    assert json.loads(json.dumps(sampled.to_dict(), allow_nan=False))["reverse"]["value"] == "inf"


@pytest.mark.parametrize("shift", [0.0, 1.0, 8.0])
def test_js_is_symmetric_and_bounded(shift):
    p, q = normal(0.0, 0.0), normal(shift, 0.0, scale=0.5)
    one, two = pv.divergence(p, q, samples=FEW), pv.divergence(q, p, samples=FEW, seed=1)
    assert abs(one.js.value - two.js.value) <= CHANCE * math.hypot(one.js.se, two.js.se)
    assert 0 <= one.js.value <= math.log(2)
    assert (one.forward.value, one.reverse.value) == pytest.approx((two.reverse.value, two.forward.value))


def test_formulas_of_priors_are_what_draws_give():
    pairs = [
        (pv.Dirichlet(concentration=(1.0, 2.0, 3.0)), pv.Dirichlet(), (3,)),
        (pv.HalfNormal(scale=1.0), pv.HalfNormal(scale=2.0), (2,)),
        (pv.Normal(loc=(0.0, 1.0)), pv.LaplacePrior(), (2,)),
        (pv.MultivariateNormal(covariance=((2.0, 0.5), (0.5, 1.0))), pv.StandardNormal(), (2,)),
        (pv.InverseWishart(excess=3.0), pv.InverseWishart(excess=4.0, scale=1.2), (2, 2)),
    ]
    for p, q, shape in pairs:
        found = pv.divergence(p, q, shape=shape, samples=FEW).forward
        a, b = (prior.build(shape)() for prior in (p, q))
        torch.manual_seed(1)
        x = a.sample((FEW,))
        terms = a.log_prob(x) - b.log_prob(x)
        spread = (terms.std() / FEW**0.5).item()
        assert abs(found.value - terms.mean().item()) < CHANCE * math.hypot(spread, found.se), p


def test_fits_of_one_data_set():
    torch.manual_seed(0)
    x = torch.randn(400, 2) @ torch.tensor([[1.0, 0.8], [0.0, 0.6]]) * 5 + 3
    one = pv.fit(pv.GMM(components=1), pv.load_data(x, test=0.0, valid=0.0, scale="standardize"), method=pv.EM())
    two = pv.fit(pv.GMM(components=1, covariance="diagonal"), pv.load_data(x, test=0.0, valid=0.0), method=pv.EM())
    found = pv.divergence(one, two, samples=FEW)
    r2 = torch.corrcoef(x.T)[0, 1].square().item()
    assert abs(found.forward.value - -0.5 * math.log(1 - r2)) < CHANCE * found.forward.se < 0.1
    assert abs(found.reverse.value - (r2 / (1 - r2) + 0.5 * math.log(1 - r2))) < CHANCE * found.reverse.se


def test_fits_of_discrete_data_are_summed_over():
    rows = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 1.0]]).repeat(25, 1)
    nodes = {name: pv.Table(states=("no", "yes")) for name in "ab"}
    joined = {"a": nodes["a"], "b": pv.Table(states=("no", "yes"), parents=("a",))}
    table = pandas.DataFrame({name: ["yes" if v else "no" for v in rows[:, i]] for i, name in enumerate("ab")})
    data = pv.load_data(table, test=0.0, valid=0.0)
    one, two = (pv.fit(pv.BayesianNetwork(nodes=each), data, method=pv.ClosedForm()) for each in (joined, nodes))
    found = pv.divergence(one, two)
    p = torch.tensor([0.25, 0.25, 0.0, 0.5])
    q = torch.tensor([0.5 * 0.25, 0.5 * 0.75, 0.5 * 0.25, 0.5 * 0.75])
    assert (found.forward.value, found.forward.how) == (pytest.approx(stats.entropy(p, q), abs=1e-5), "enumeration")
    assert found.reverse.value == math.inf


def towns(levels, probs=(0.6, 0.3, 0.1), order=None, seed=0):
    """A fit of one column of categories, numbered in this order, or as the texts sort."""
    column = pandas.Series(np.random.default_rng(seed).choice(list(levels), 300, p=probs))
    frame = pandas.DataFrame({"town": column if order is None else column.astype(pandas.CategoricalDtype(order))})
    return pv.fit(pv.BayesianNetwork(nodes={"town": pv.Table()}), frame, method=pv.ClosedForm())


def test_categories_are_compared_by_their_texts_whatever_their_order():
    p, q, turned = towns("ABC"), towns("ABC", (0.2, 0.2, 0.6), seed=1), towns("ABC", (0.2, 0.2, 0.6), list("CAB"), seed=1)
    assert pv.divergence(p, turned).to_dict() == pv.divergence(p, q).to_dict()
    assert pv.divergence(turned, p).forward == pv.divergence(q, p).forward
    assert pv.divergence(turned, q).forward.value == pytest.approx(0.0, abs=1e-9)


def test_draws_meet_the_other_fits_categories():
    frame = pandas.DataFrame({"a": np.random.default_rng(0).choice(list("xyz"), 200), "b": np.linspace(0, 1, 200)})
    turned = frame.assign(a=frame["a"].astype(pandas.CategoricalDtype(list("zyx"))))
    model = pv.BayesianNetwork(nodes={"a": pv.Table(), "b": pv.LinearGaussian(parents=("a",))})
    data = [pv.load_data(each, test=0.0, valid=0.0) for each in (frame, turned)]
    p, q = (pv.fit(model, each, method=pv.ClosedForm()) for each in data)
    found = pv.divergence(p, q, samples=500)
    assert found.forward.how == "sampling"
    assert max(found.forward.value, found.reverse.value) == pytest.approx(0.0, abs=1e-5)


def gaussian_fit(**columns):
    return pv.fit(pv.PPCA(latent_dim=1), pandas.DataFrame(columns), method=pv.ClosedForm())


def test_fits_of_other_data_are_refused():
    with pytest.raises(ValueError, match=r"in column 'town' the categories A, B, C and X, Y, Z: fit both to"):
        pv.divergence(towns("ABC"), towns("XYZ"))
    days = pandas.date_range("2024-01-01", periods=100)
    x = np.random.default_rng(0).normal(scale=30.0, size=100)
    with pytest.raises(ValueError, match="got numbers and dates in column 'b'"):
        pv.divergence(gaussian_fit(a=x, b=np.linspace(1, 100, 100)), gaussian_fit(a=x, b=days))


def test_a_probability_and_a_density_have_no_divergence():
    counts = {name: np.random.default_rng(place).poisson(3.0, 200) for place, name in enumerate("ab")}
    poisson = pv.fit(pv.VAE(latent_dim=1, likelihood=pv.Poisson()), pandas.DataFrame(counts), method=pv.SVI(epochs=1))
    told = "in column 'a' probabilities of VAE.*and a density of PPCA"
    for pair in ((gaussian_fit(**counts), poisson), (poisson, gaussian_fit(**counts))):
        with pytest.raises(ValueError, match=told):
            pv.divergence(*pair)
    with pytest.raises(ValueError, match="got probabilities of Poisson and a density of Normal"):
        pv.divergence(dist.Normal(0.0, 1.0), dist.Poisson(2.0))


def test_a_bound_in_place_of_a_density_is_told():
    p, q = LawOfDistribution(dist.Normal(0.0, 1.0)), LawOfDistribution(dist.Normal(0.0, 1.0))
    q.exact = False
    found = divergence_of(p, q, samples=10, seed=0)
    assert (found.forward.bound, found.reverse.bound, found.js.value) == ("upper", "lower", None)
    p.exact = False
    with pytest.raises(ValueError, match="two lower bounds bounds nothing"):
        divergence_of(p, q, samples=10, seed=0)


@pytest.mark.parametrize(
    ("p", "q", "told"),
    [
        (3, dist.Normal(0.0, 1.0), "expected a fit, a distribution, a declared prior"),
        (dist.Normal(torch.zeros(2), 1.0), dist.Normal(0.0, 1.0), r"to_event\(1\)"),
        (normal(0.0, 0.0), dist.Normal(0.0, 1.0), "one event shape"),
        (dist.Delta(torch.tensor(0.0)), dist.Normal(0.0, 1.0), "a point"),
        (pv.Dirichlet(), pv.Dirichlet(concentration=2.0), r"shape of a draw of Dirichlet, got none: give one by shape="),
    ],
)
def test_what_has_no_divergence_is_refused(p, q, told):
    with pytest.raises(ValueError, match=told):
        pv.divergence(p, q)


def test_drawing_leaves_the_random_state_and_the_caller_alone():
    before = torch.get_rng_state()
    pv.divergence(dist.Normal(0.0, 1.0), dist.Laplace(0.0, 1.0), samples=100)
    assert torch.equal(before, torch.get_rng_state())


def test_the_verb_prints_json(tmp_path, capsys):
    path = tmp_path / "x.csv"
    path.write_text("a,b\n" + "\n".join(f"{a},{b}" for a, b in torch.randn(60, 2).tolist()) + "\n")
    for covariance in ("full", "spherical"):
        pv.fit(pv.GMM(components=1, covariance=covariance), str(path), method=pv.EM(), out=tmp_path / covariance)
    assert main(["divergence", str(tmp_path / "full"), str(tmp_path / "spherical"), "--samples", "500", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["unit"] == "nats"
    assert 0 <= found["js"]["value"] <= math.log(2)


def test_lattices_alone_are_compared_by_their_states() -> None:
    first, second = pv.Ising(shape=(2, 3), coupling=0.2, field=0.1), pv.Ising(shape=(2, 3), coupling=-0.1)
    found = pv.divergence(pv.fit(first), pv.fit(second, method=pv.CAVI()))
    s = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 6).double().reshape(-1, 2, 3)
    bonds = (s[:, :, 1:] * s[:, :, :-1]).sum((1, 2)) + (s[:, 1:] * s[:, :-1]).sum((1, 2))
    p, q = ((J * bonds + h * s.sum((1, 2))).log_softmax(0) for J, h in ((0.2, 0.1), (-0.1, 0.0)))
    assert found.forward.how == "enumeration"
    assert found.forward.value == pytest.approx(float((p.exp() * (p - q)).sum()), abs=1e-6)
    wide = pv.fit(pv.Ising(shape=(16, 16), coupling=0.1))
    with pytest.raises(ValueError, match="compare its log Z by log_partition"):
        pv.divergence(wide, wide)
