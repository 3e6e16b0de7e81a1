"""Several latent variables: every verb, by abilities and by runs, against closed forms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions import kl_divergence

import ppl_vae as pv
from ppl_vae import cli
from ppl_vae.evaluate.bounds import bounds
from tests.two_levels import A, B, Exact, S, T, TwoLevels, W, drawn, log_marginal, plain, z1_given, z2_given

SIZE = 40
FROZEN = pv.SVI(epochs=1, learning_rate=1e-12, compile=False)


def rows() -> pv.Data:
    return pv.load_data(drawn(SIZE).numpy(), valid=0.0, test=0.0, scale="none")


def declared(*, known: bool = False, exact: bool = True, start: float = 0.0) -> pv.inference.Fit:
    return pv.fit(TwoLevels(known=known), rows(), guide=Exact(exact=exact, start=start), method=FROZEN)


@pytest.fixture(scope="module")
def told() -> pv.inference.Fit:
    """By abilities."""
    return declared()


@pytest.fixture(scope="module")
def run() -> pv.inference.Fit:
    """By runs of the programs."""
    model, guide = plain(SIZE)
    return pv.fit(model, rows(), guide=guide, method=FROZEN)


@pytest.fixture(scope="module", params=["told", "run"])
def fit(request: pytest.FixtureRequest) -> pv.inference.Fit:
    return request.getfixturevalue(request.param)


def exact_means(x: Tensor) -> dict[str, Tensor]:
    z2 = z2_given(x).mean
    return {"z2": z2, "z1": z1_given(z2, x).mean}


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4)


# --- codes and data --------------------------------------------------------------------------------------------------------


def test_codes_are_the_exact_means_by_name(fit: pv.inference.Fit) -> None:
    same(fit.encode(drawn(7)), exact_means(drawn(7)))


def test_draws_have_the_moments_of_the_exact_posterior(fit: pv.inference.Fit) -> None:
    x = drawn(5)
    z = fit.encode(x, samples=4000, seed=1)
    assert {name: tuple(value.shape) for name, value in z.items()} == {"z2": (4000, 5, 1), "z1": (4000, 5, 2)}
    means = exact_means(x)
    q2, q1 = z2_given(x), z1_given(torch.zeros(1), torch.zeros(3))
    slope = z1_given(torch.ones(1), torch.zeros(3)).mean - q1.mean
    across = torch.outer(slope, slope) * q2.covariance_matrix[..., 0, 0].mean() + q1.covariance_matrix
    for name, spread in (("z2", q2.covariance_matrix[0]), ("z1", across)):
        assert (z[name].mean(0) - means[name]).abs().max() < 0.06
        torch.testing.assert_close(torch.cov(z[name][:, 0].T).reshape(spread.shape), spread, atol=0.03, rtol=0.1)
    same(fit.encode(x, samples=3, seed=4), fit.encode(x, samples=3, seed=4))


def test_reconstructions_and_decoded_codes_are_exact(fit: pv.inference.Fit) -> None:
    x = drawn(7)
    means = exact_means(x)
    torch.testing.assert_close(fit.reconstruct(x), means["z1"] @ W.T + B, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(fit.decode(means), means["z1"] @ W.T + B, atol=1e-5, rtol=1e-4)
    top = torch.randn(2, 3, 1)
    torch.testing.assert_close(fit.decode({"z2": top}), top @ A.T @ W.T + B, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(fit.decode({"z2": [1.0]}), (A.T @ W.T + B)[0], atol=1e-5, rtol=1e-4)
    both = {"z2": torch.zeros(1), "z1": torch.ones(4, 2)}
    assert fit.decode(both).shape == (4, 3)


@pytest.mark.parametrize(
    ("z", "expected"),
    [
        ({"z1": torch.zeros(3, 2)}, "expected a value for z2, which the later ones follow: give it, or z2 alone"),
        ({"z2": torch.zeros(3, 1), "z9": torch.zeros(1)}, "expected values for z2, z1, got one for z9 as well: leave it out"),
        ({"z2": torch.zeros(3, 4)}, r"expected latent codes of z2 of shape \(\.\.\., 1\), got \(3, 4\)"),
        (torch.zeros(3, 1), r"expected a mapping \{'z2': \.\.\., 'z1': \.\.\.\} of the 2 latent variables, got Tensor"),
        ({"z2": torch.tensor([float("nan")])}, "expected finite latent codes"),
    ],
)
def test_other_codes_are_refused(fit: pv.inference.Fit, z: object, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        fit.decode(z)


def test_new_data_have_the_moments_of_the_model(fit: pv.inference.Fit) -> None:
    x = fit.sample(20000, seed=3)
    assert x.shape == (20000, 3)
    covariance = torch.cov(x.T)
    loc, truth = x.mean(0), _marginal_covariance()
    torch.testing.assert_close(loc, torch.tensor([0.3, -0.2, 0.1]), atol=0.05, rtol=0)
    torch.testing.assert_close(covariance, truth, atol=0.06, rtol=0.03)
    means = torch.cov(fit.sample(20000, seed=3, means=True).T)
    torch.testing.assert_close(means, truth - 0.25 * torch.eye(3), atol=0.06, rtol=0.03)


def _marginal_covariance() -> Tensor:
    slope = W @ A
    return slope @ slope.T + T**2 * W @ W.T + S**2 * torch.eye(3)


# --- numbers ---------------------------------------------------------------------------------------------------------------


def test_the_exact_posterior_makes_every_bound_log_p(fit: pv.inference.Fit) -> None:
    log_p = log_marginal(drawn(SIZE))
    batch = (drawn(SIZE),)
    with torch.no_grad():
        found = bounds(fit.pair, batch, samples=3, weighted=True)
    assert found.log_weights is not None
    torch.testing.assert_close(found.log_weights, log_p.expand(3, -1), atol=1e-4, rtol=1e-4)
    numbers = fit.evaluate(rows().train, samples=30)
    for name in ("elbo", "iwae"):
        assert numbers[name] == pytest.approx(log_p.mean().item(), abs=1e-4)
    assert fit.history[0]["elbo"] == pytest.approx(log_p.mean().item(), abs=1e-4)


@pytest.mark.parametrize("known", [False, True])
def test_an_exact_guide_has_no_gaps(known: bool) -> None:
    numbers = declared(known=known).evaluate(rows().train, samples=1 if known else 30, gaps=True)
    assert numbers["approximation_gap"] == pytest.approx(0.0, abs=1e-4)
    assert numbers["amortization_gap"] == pytest.approx(0.0, abs=1e-4)
    if known:
        assert numbers["log_likelihood"] == pytest.approx(log_marginal(drawn(SIZE)).mean().item(), abs=1e-5)


def test_the_best_of_a_family_of_joints_is_found_for_each_datum() -> None:
    numbers = declared(known=True, exact=False, start=0.3).evaluate(rows().train, samples=200, gaps=True)
    log_p = log_marginal(drawn(SIZE)).mean().item()
    assert numbers["amortization_gap"] > 0.2
    assert numbers["local_elbo"] == pytest.approx(log_p, abs=0.03)
    assert numbers["approximation_gap"] == pytest.approx(0.0, abs=0.03)


@pytest.mark.parametrize("known", [False, True])
def test_annealing_ends_at_log_p_between_both_ends_of_its_sandwich(known: bool) -> None:
    ais = pv.AIS(temperatures=100, chains=8, simulated=20)
    numbers = declared(known=known).evaluate(rows().train, ais=ais)
    log_p = log_marginal(drawn(SIZE)).mean().item()
    assert numbers["ais"] == pytest.approx(log_p, abs=0.05)
    ends = numbers if known else numbers["simulated"]
    assert 0 <= ends["bdmc_upper"] - ends["bdmc_lower"] < 0.3
    if known:
        assert numbers["bdmc_lower"] <= log_p <= numbers["bdmc_upper"]


def test_the_kl_of_the_sites_sum_to_the_kl(fit: pv.inference.Fit) -> None:
    found = fit.latents(rows().train, rows=SIZE, samples=20)
    sites = found["sites"]
    x = drawn(SIZE)
    q2 = z2_given(x)
    kl2 = kl_divergence(q2, torch.distributions.MultivariateNormal(torch.zeros(1), torch.eye(1))).mean().item()
    assert found["kl"] == pytest.approx(sum(site["kl"] for site in sites.values()), rel=1e-6)
    assert sites["z2"]["kl"] == pytest.approx(kl2, abs=1e-4)
    evaluated = [fit.evaluate(rows().train, samples=400, seed=seed)["kl"] for seed in range(3)]
    assert found["kl"] == pytest.approx(float(np.mean(evaluated)), abs=0.05)
    assert found["units"] == 3
    assert found["active_units"] == sum(site["active_units"] for site in sites.values()) == 3
    assert [*sites["z2"]["mean_variance"], *sites["z1"]["mean_variance"]] == pytest.approx(found["mean_variance"])
    torch.testing.assert_close(torch.tensor(sites["z1"]["mean_variance"]), exact_means(x)["z1"].var(0, correction=0))


def test_the_kl_of_a_joint_is_information_and_distance_of_the_aggregate(told: pv.inference.Fit, run: pv.inference.Fit) -> None:
    found = told.latents(rows().train, rows=SIZE, samples=400)
    error = 4 * (found["mutual_information_se"] + found["marginal_kl_se"])
    assert found["mutual_information"] + found["marginal_kl"] == pytest.approx(found["kl"], abs=error)
    assert 0 < found["mutual_information"] <= found["log_n"]
    assert "total_correlation" in found["notes"]
    assert "mutual_information" in run.latents(rows().train)["notes"]


# --- a guide that draws from below ------------------------------------------------------------------------------------------


def test_a_closed_form_is_taken_only_in_the_order_of_the_story() -> None:
    """q(z1 | x) q(z2 | z1): given z2, which is drawn later, the closed KL of z1 would be too large."""
    model, _ = plain(SIZE)

    def guide(x: Tensor) -> None:
        q2, below = z2_given(x), z1_given(torch.zeros(1), x)
        slope = z1_given(torch.ones(1), torch.zeros(3)).mean - z1_given(torch.zeros(1), torch.zeros(3)).mean
        v2 = q2.covariance_matrix[..., 0, 0].unsqueeze(-1)
        spread = below.covariance_matrix + slope[:, None] * slope * v2[..., None]
        with pv.data_plate(SIZE, x):
            z1 = pyro.sample("z1", dist.MultivariateNormal(below.mean + q2.mean * slope, spread))
            gain = torch.linalg.solve(spread, slope * v2)
            loc = q2.mean + ((z1 - below.mean - q2.mean * slope) * gain).sum(-1, keepdim=True)
            variance = v2 - (gain * slope * v2).sum(-1, keepdim=True)
            pyro.sample("z2", dist.Normal(loc, variance.sqrt()).to_event(1))

    pair = pv.Pair(model, guide, mean_field=True)
    batch = (drawn(SIZE),)
    pair.plates(*batch)
    assert not pair.mean_field
    torch.manual_seed(0)
    with torch.no_grad():
        torch.testing.assert_close(bounds(pair, batch, samples=2).terms.elbo, log_marginal(batch[0]), atol=1e-3, rtol=1e-3)


# --- runs and the command line ----------------------------------------------------------------------------------------------


def test_a_run_keeps_and_encodes_both(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", drawn(60).numpy())
    data = pv.load_data(str(tmp_path / "rows.npy"))
    fitted = pv.fit(TwoLevels(), data, guide=Exact(exact=False), method=pv.SVI(epochs=1))
    folder = pv.save_run(fitted, data, tmp_path / "run")
    assert {"latent_z1.png", "aggregate_z1.png", "aggregate_z2.png"} <= {path.name for path in folder.glob("*.png")}
    trusted = ["--trust", "tests.two_levels", "--device", "cpu"]
    assert cli.main(["encode", str(folder), "--out", str(tmp_path / "codes.npz"), "--samples", "2", *trusted]) == 0
    codes = np.load(tmp_path / "codes.npz")
    assert {name: codes[name].shape for name in codes} == {
        "z2": (60, 1),
        "z1": (60, 2),
        "samples_z2": (2, 60, 1),
        "samples_z1": (2, 60, 2),
    }
    loaded = pv.load_run(folder, trust=["tests.two_levels"], device="cpu")
    np.testing.assert_allclose(codes["z1"], loaded.encode(loaded.rows(loaded.data, "all"))["z1"], rtol=1e-5)
    assert cli.main(["encode", str(folder), "--out", str(tmp_path / "codes.csv"), *trusted]) == 0
    assert (tmp_path / "codes.csv").read_text().splitlines()[0] == "z2_1,z1_1,z1_2"
    assert cli.main(["sample", str(folder), "--n", "5", "--out", str(tmp_path / "new.csv"), *trusted]) == 0
    words = ["evaluate", str(folder), "--samples", "30", "--gaps", "--latents", "--save", "--search.max_steps", "50", *trusted]
    assert cli.main(words) == 0
    page = pv.report(folder, tmp_path / "report.html", trust=["tests.two_levels"]).read_text()
    assert "latents z1" in page
    assert "a panel for each dimension: z2." in page
