"""Disentanglement, clusters and probes of codes, on constructed cases with known answers."""

from __future__ import annotations

import math

import pytest
import torch

import ppl_vae as pv
from ppl_vae.evaluate.disentanglement import dci, disentanglement, mig, modularity, mutual_information, sap
from ppl_vae.evaluate.probes import cluster_scores, probe

FACTORS = torch.cartesian_prod(torch.arange(4), torch.arange(5)).repeat(60, 1)
SCORES = {"mig", "modularity", "sap", "disentanglement", "completeness", "informativeness"}


def noise(*shape: int, scale: float = 0.01) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(0))


# --- disentanglement ------------------------------------------------------------------------------------------------------


def test_one_dimension_for_one_factor_is_perfect() -> None:
    found = disentanglement(FACTORS.float() + noise(len(FACTORS), 2), FACTORS)
    assert set(found) == SCORES
    for name in ("mig", "modularity", "disentanglement", "completeness", "informativeness"):
        assert found[name] == pytest.approx(1.0, abs=0.02), name
    # A dimension that tells nothing of a factor is right by chance, 1/4 and 1/5; a line parts not all of the classes.
    assert found["sap"] > 0.3


def test_order_scale_and_sign_do_not_matter() -> None:
    codes = FACTORS.float() + noise(len(FACTORS), 2)
    first, second = disentanglement(codes, FACTORS), disentanglement(-3.0 * codes.flip(1) + 5.0, FACTORS)
    assert second == pytest.approx(first, abs=0.03)


def test_rotated_codes_have_no_gap_and_no_modularity() -> None:
    square = torch.cartesian_prod(torch.arange(4), torch.arange(4)).repeat(60, 1)
    z = square.float() + noise(len(square), 2)
    turned = torch.stack([z[:, 0] + z[:, 1], z[:, 0] - z[:, 1]], 1)
    information = mutual_information(turned, square)
    assert mig(information, square) == pytest.approx(0.0, abs=0.03)
    assert modularity(information) == pytest.approx(0.0, abs=0.1)
    found = dci(turned, square)
    assert found["disentanglement"] < 0.3
    assert found["informativeness"] > 0.95  # all is still there
    assert sap(turned, square) == pytest.approx(0.0, abs=0.05)


def test_noise_scores_nothing() -> None:
    found = disentanglement(noise(len(FACTORS), 3, scale=1.0), FACTORS)
    for name in ("mig", "sap", "disentanglement", "completeness"):
        assert found[name] == pytest.approx(0.0, abs=0.1), name
    assert found["informativeness"] == pytest.approx((1 / 4 + 1 / 5) / 2, abs=0.06)


def test_a_factor_in_two_dimensions_is_modular_without_a_gap() -> None:
    """Both copies depend on one factor alone; neither leads the other."""
    z = FACTORS.float()
    codes = torch.cat([z[:, :1], z[:, :1], z[:, 1:], z[:, 1:]], 1) + noise(len(z), 4)
    information = mutual_information(codes, FACTORS)
    assert modularity(information) == pytest.approx(1.0, abs=0.01)
    assert mig(information, FACTORS) == pytest.approx(0.0, abs=0.02)
    assert dci(codes, FACTORS)["disentanglement"] == pytest.approx(1.0, abs=0.02)
    assert dci(codes, FACTORS)["completeness"] < 0.6


def test_mutual_information_of_a_factor_with_itself_is_its_entropy() -> None:
    information = mutual_information(FACTORS.float(), FACTORS)
    assert information.diagonal().tolist() == pytest.approx([math.log(4), math.log(5)])
    assert information[0, 1] == pytest.approx(0.0, abs=1e-12)


def test_a_hand_computed_modularity() -> None:
    information = torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
    assert modularity(information) == pytest.approx(((1 - 1 / 8) + 1) / 2)


def test_disentanglement_refuses() -> None:
    codes = torch.randn(40, 2)
    with pytest.raises(ValueError, match="codes \\(N, K\\) and factors"):
        disentanglement(codes, torch.zeros(40, dtype=torch.int64))
    with pytest.raises(ValueError, match="factor 1"):
        disentanglement(codes, torch.stack([torch.arange(40), torch.zeros(40, dtype=torch.int64)], 1))
    with pytest.raises(ValueError, match="class numbers"):
        disentanglement(codes, torch.randn(40, 2))
    with pytest.raises(ValueError, match="at least 2 dimensions"):
        disentanglement(codes[:, :1], torch.arange(80).reshape(40, 2))


SINGLE = {
    "sap": lambda codes, factors: sap(codes, factors),
    "dci": lambda codes, factors: dci(codes, factors),
    "mig": lambda codes, factors: mig(mutual_information(codes, factors), factors),
    "modularity": lambda codes, factors: modularity(mutual_information(codes, factors)),
    "mutual_information": lambda codes, factors: mutual_information(codes, factors).tolist(),
}


@pytest.mark.parametrize("name", SINGLE)
def test_each_score_checks_what_it_is_given_and_takes_arrays(name: str) -> None:
    score, codes = SINGLE[name], FACTORS.float() + noise(len(FACTORS), 2)
    assert score(codes.numpy(), FACTORS.numpy()) == score(codes, FACTORS)
    if name in ("sap", "dci", "mig"):
        with pytest.raises(ValueError, match="at least 2 dimensions"):
            score(codes[:, :1], FACTORS)
    if name in ("dci", "modularity"):
        with pytest.raises(ValueError, match="and 2 factors, got 2 and 1"):
            score(codes, FACTORS[:, :1])
    with pytest.raises(ValueError, match="codes \\(N, K\\) and factors"):
        score(codes[:10], FACTORS)
    with pytest.raises(ValueError, match="only one value of factor 0, 1"):
        score(codes, 0 * FACTORS)


def test_information_is_of_these_factors_and_of_bins() -> None:
    information = mutual_information(FACTORS.float(), FACTORS)
    with pytest.raises(ValueError, match="information \\(K, 1\\)"):
        mig(information, FACTORS[:, :1])
    for bins in (0, 1):
        with pytest.raises(ValueError, match="at least 2 bins"):
            disentanglement(FACTORS.float(), FACTORS, bins=bins)


# --- clusters and probes --------------------------------------------------------------------------------------------------


def test_clusters_at_random_score_nothing_and_equal_ones_all() -> None:
    generator = torch.Generator().manual_seed(0)
    true = torch.randint(5, (2000,), generator=generator)
    assert cluster_scores((true + 3) % 5, true) == {"ari": 1.0, "nmi": pytest.approx(1.0), "clusters": 5}
    found = cluster_scores(torch.randint(5, (2000,), generator=generator), true)
    assert found["ari"] == pytest.approx(0.0, abs=0.01)
    assert found["nmi"] == pytest.approx(0.0, abs=0.02)
    assert cluster_scores(torch.zeros(2000, dtype=torch.int64), true) == {"ari": 0.0, "nmi": 0.0, "clusters": 1}


def test_a_mixture_finds_the_blobs() -> None:
    torch.manual_seed(0)
    y = torch.arange(3).repeat(100)
    x = 10.0 * torch.eye(3)[y] + torch.randn(300, 3)
    data = pv.load_data(x, y=y, valid=0.0, test=0.3)
    fit = pv.fit(pv.GMM(components=3), data, method=pv.EM())
    assert fit.clusters(data.test)["ari"] == pytest.approx(1.0, abs=0.05)


def test_a_probe_of_separated_and_of_empty_codes() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(4, (800,), generator=generator)
    codes = 5.0 * torch.eye(4)[y] + torch.randn(800, 4, generator=generator)
    halves = [(codes[s], y[s]) for s in (slice(0, 400), slice(400, 800))]
    found = probe(*halves, labels_per_class=(2, 20), draws=4)
    assert set(found) == {"accuracy", "accuracy_se", "accuracy_2", "accuracy_2_se", "accuracy_20", "accuracy_20_se"}
    assert found["accuracy"] > 0.99
    assert found["accuracy_2"] < found["accuracy_20"] <= found["accuracy"] + 0.01
    empty = [(torch.randn(400, 4, generator=generator), part) for _, part in halves]
    found = probe(*empty)
    assert found["accuracy"] == pytest.approx(0.25, abs=0.08)
    assert found["accuracy_se"] == pytest.approx(math.sqrt(found["accuracy"] * (1 - found["accuracy"]) / 400))


def test_probes_refuse() -> None:
    z, y = torch.randn(10, 2), torch.tensor([0] * 7 + [1] * 3)
    with pytest.raises(ValueError, match="1 to 3 labels per class"):
        probe((z, y), (z, y), labels_per_class=(4,))
    with pytest.raises(ValueError, match="at least 2 classes"):
        probe((z, 0 * y), (z, y))
    with pytest.raises(ValueError, match="a cluster and a class"):
        cluster_scores(y, y[:3])


def test_a_fits_codes_are_probed() -> None:
    data = pv.load_data("digits", binarize="none")
    fit = pv.fit(pv.PPCA(latent_dim=8), data, method=pv.ClosedForm())
    found = fit.probe(data.train, data.test, labels_per_class=(5,))
    assert found["accuracy"] > 0.85
    assert 0.4 < found["accuracy_5"] < found["accuracy"]
    with pytest.raises(ValueError, match="no components"):
        fit.clusters(data.test)
