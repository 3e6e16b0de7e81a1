"""Two-sample checks against known answers."""

from __future__ import annotations

import math

import pytest
import scipy.linalg
import scipy.stats
import torch

import ppl_vae as pv
from ppl_vae.evaluate import samples
from ppl_vae.evaluate.samples import (
    _binomial_tail,
    classifier_test,
    features_of,
    frechet_distance,
    mmd,
    precision_recall,
    sample_quality,
)


def normal(n: int, columns: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- MMD ------------------------------------------------------------------------------------------------------------------


def test_mmd_is_the_unbiased_sum_over_pairs() -> None:
    x, y = normal(7), normal(5, seed=1) + 0.5

    def k(a: torch.Tensor, b: torch.Tensor) -> float:
        return math.exp(-float((a - b).square().sum()) / (2 * 1.3**2))

    within = sum(k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j) / (7 * 6)
    others = sum(k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j) / (5 * 4)
    between = sum(k(a, b) for a in x for b in y) / 35
    assert mmd(x, y, bandwidth=1.3)["mmd2"] == pytest.approx(within + others - 2 * between)


def test_mmd_of_two_normals_has_a_closed_form() -> None:
    """E k(x, y) = (b^2 / (b^2 + 2))^(d/2) exp(-|m|^2 / (2 (b^2 + 2))) for unit normals with means m apart."""
    found = mmd(normal(2000), normal(2000, seed=1) + 1.0, bandwidth=1.0, permutations=1)["mmd2"]
    assert found == pytest.approx(2 / 3 * (1 - math.exp(-2 / 6)), abs=0.02)


def test_the_bandwidth_is_the_median_distance() -> None:
    x = torch.tensor([[0.0], [1.0], [3.0]])
    assert mmd(x[:2], x[1:], permutations=1)["bandwidth"] == pytest.approx(1.0)  # the lower one of 0, 1, 1, 2, 2, 3
    assert mmd(x[:2] * 0, x[:2] * 0, permutations=1)["bandwidth"] == 1.0


def test_p_values_are_small_for_different_and_uniform_for_equal_distributions() -> None:
    assert mmd(normal(100), normal(100, seed=1) + 1.0)["p_value"] == pytest.approx(1 / 201)
    values = [mmd(normal(40, seed=2 * i), normal(40, seed=2 * i + 1), permutations=39)["p_value"] for i in range(60)]
    assert scipy.stats.kstest(values, "uniform").pvalue > 0.01


def test_mmd_of_many_rows_never_holds_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = normal(130), normal(90, seed=1) + 0.5
    whole = mmd(x, y)
    held: list[int] = []

    def distances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        held.append(len(a) * len(b))
        return (a[:, None] - b).square().sum(-1)

    monkeypatch.setattr(samples, "ROWS_AT_ONCE", 7)
    monkeypatch.setattr(samples, "squared_distances", distances)
    assert mmd(x, y) == pytest.approx(whole)
    assert max(held) == 7 * 220
    monkeypatch.setattr(samples, "BANDWIDTH_ROWS", 100)
    assert mmd(x, y)["bandwidth"] == pytest.approx(whole["bandwidth"], rel=0.2)
    assert mmd(x, y)["bandwidth"] != whole["bandwidth"]


# --- classifier -----------------------------------------------------------------------------------------------------------


def test_the_binomial_tail() -> None:
    for successes, trials in ((0, 10), (5, 10), (10, 10), (560, 1000)):
        assert _binomial_tail(successes, trials) == pytest.approx(scipy.stats.binom.sf(successes - 1, trials, 0.5))


@pytest.mark.parametrize("classifier", ["logistic", "boosting"])
def test_a_classifier_tells_shifted_normals_apart_and_no_equal_ones(classifier: str) -> None:
    found = classifier_test(normal(1000), normal(1000, seed=1) + 1.0, classifier=classifier)
    bayes = scipy.stats.norm.cdf(math.sqrt(2) / 2)
    assert found["accuracy"] == pytest.approx(bayes, abs=0.07)
    assert found["p_value"] < 1e-6
    assert classifier_test(normal(1000), normal(1000, seed=1), classifier=classifier)["p_value"] > 0.01


def test_boosting_sees_what_a_line_cannot() -> None:
    x = normal(500)
    ring = 2 * x / x.norm(dim=1, keepdim=True)
    assert classifier_test(normal(500, seed=1), ring, classifier="boosting")["accuracy"] > 0.85
    assert classifier_test(normal(500, seed=1), ring)["accuracy"] < 0.6


# --- precision, recall, Fréchet distance ----------------------------------------------------------------------------------


def test_precision_and_recall_of_one_mode_of_two() -> None:
    real = torch.cat([normal(200), normal(200, seed=1) + 50.0])
    found = precision_recall(real, normal(300, seed=2))
    assert found["precision"] > 0.9
    assert found["recall"] == pytest.approx(0.5, abs=0.05)
    back = precision_recall(normal(300, seed=2), real)
    assert back == pytest.approx({"precision": found["recall"], "recall": found["precision"]})


@pytest.mark.parametrize("columns", [3, 40])
def test_numbers_far_from_zero_are_those_near_it(columns: int) -> None:
    """Two clusters far apart, within which alone the sets differ: distances there must not drown in the distance between."""
    x, y = (torch.round(normal(60, columns, seed=seed) * 1024) / 1024 for seed in (1, 2))
    near = [torch.cat([x, x + 64]), torch.cat([y, 1.25 * y + 64])]
    shifted = [rows + 2.0**26 for rows in near]
    for found, expected in zip(
        *([mmd(*sets, bandwidth=3.0), precision_recall(*sets)] for sets in (shifted, near)), strict=True
    ):
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)
    apart = [torch.cat([x, x + 2.0**30]), torch.cat([y, 1.25 * y + 2.0**30])]
    kernel = (-torch.cdist(*[torch.cat(apart)] * 2, compute_mode="donot_use_mm_for_euclid_dist").square() / 18).exp()
    same = torch.arange(240) < 120
    off = kernel - torch.eye(240, dtype=torch.float64)
    expected = (off[same][:, same].sum() + off[~same][:, ~same].sum()) / (120 * 119) - 2 * off[same][:, ~same].mean()
    assert mmd(*apart, bandwidth=3.0)["mmd2"] == pytest.approx(expected.item(), rel=1e-9)


def test_precision_by_hand() -> None:
    """With k = 1 the balls around 0 and 1 reach to each other, and that around 10 reaches to 1."""
    real = torch.tensor([[0.0], [1.0], [10.0]])
    assert precision_recall(real, torch.tensor([[-0.5], [-1.5], [18.0], [30.0]]), neighbours=1)["precision"] == 0.5


def test_the_frechet_distance_is_scipys() -> None:
    x, y = normal(100, 4), normal(80, 4, seed=1) @ normal(4, 4, seed=2) + 1.0
    S_x, S_y = torch.cov(x.T).numpy(), torch.cov(y.T).numpy()
    cross = scipy.linalg.sqrtm(S_x @ S_y).real.trace()
    expected = float((x.mean(0) - y.mean(0)).square().sum()) + S_x.trace() + S_y.trace() - 2 * cross
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(x, x) == pytest.approx(0.0, abs=1e-9)
    assert frechet_distance(x, x + 2.0) == pytest.approx(16.0)


def test_singular_covariances_have_a_distance() -> None:
    x = normal(3, 20)
    assert math.isfinite(frechet_distance(x, normal(4, 20, seed=1)))


# --- of a fit -------------------------------------------------------------------------------------------------------------


def test_features_of_a_network() -> None:
    x = normal(30, 4).reshape(30, 2, 2)
    assert torch.equal(features_of(x), x.flatten(1))
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3, dtype=torch.float64))
    assert features_of(x, network).shape == (30, 3)
    assert not features_of(x, network).requires_grad
    with pytest.raises(ValueError, match="a row for each of 30"):
        features_of(x, lambda batch: batch.sum()[None])


@pytest.mark.filterwarnings("ignore:column 0 .from 0. has 95 % of the squared deviations")
def test_a_fit_of_the_truth_passes_and_a_bad_one_does_not() -> None:
    torch.manual_seed(0)
    x = torch.randn(1200, 2) @ torch.tensor([[2.0, 0.0], [1.0, 0.5]])
    data = pv.load_data(x, valid=0.0, test=0.5)
    good = pv.fit(pv.GMM(components=1), data, method=pv.EM())
    found = good.sample_quality(data.test)
    assert found["n"] == 600
    assert min(found["mmd_p_value"], found["classifier_p_value"]) > 0.01
    assert min(found["precision"], found["recall"]) > 0.9
    bad = pv.fit(pv.PPCA(latent_dim=1), pv.load_data(x + 3.0, valid=0.0, test=0.5), method=pv.EM())
    found = bad.sample_quality(data.test)
    assert max(found["mmd_p_value"], found["classifier_p_value"]) < 0.01
    assert found["frechet_distance"] > 10


def test_samples_of_a_conditional_model_have_the_classes_of_the_data() -> None:
    x, y = normal(200).float(), (torch.arange(200) % 10 == 0).long()
    data = pv.load_data(x, y=y, valid=0.0, test=0.5)
    model = pv.CVAE(latent_dim=1, likelihood=pv.Gaussian(), decoder=pv.Linear())
    fit = pv.fit(model, data, method=pv.SVI(epochs=1))
    seen, labels = fit.seen(data.test), data.test.labels
    generated = fit.sample(len(seen), y=labels)
    assert fit.sample_quality(data.test) == fit.sample_quality(seen, y=labels) == sample_quality(seen, generated)
    with pytest.raises(ValueError, match="rows without labels"):
        fit.sample_quality(seen)


def test_two_samples_refuse() -> None:
    x = normal(30)
    with pytest.raises(ValueError, match="two sets of features"):
        mmd(x, normal(30, 3))
    for bandwidth in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="a positive bandwidth"):
            mmd(x, x, bandwidth=bandwidth)
    with pytest.raises(ValueError, match="at least 10 data"):
        classifier_test(x[:5], x)
    with pytest.raises(ValueError, match="logistic, boosting"):
        classifier_test(x, x, classifier="tree")
    with pytest.raises(ValueError, match="neighbours from 1"):
        precision_recall(x, x, neighbours=30)
    with pytest.raises(ValueError, match="at least 2 data"):
        sample_quality(x[:1], x)
