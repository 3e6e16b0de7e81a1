"""What the latent variables hold, against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Independent, MultivariateNormal, Normal

import ppl_vae as pv
from ppl_vae.evaluate.latents import latents
from ppl_vae.evaluate.surgery import _log_weights, marginals, surgery
from tests.table import GUIDES, MODELS, PRIORS, built, guide_for, kind_for, rows, spec_for, vae

PARTS = ("mutual_information", "marginal_kl", "total_correlation", "dimension_wise_kl")


def normals(loc: torch.Tensor, scale: float) -> Independent:
    return Independent(Normal(loc, torch.full_like(loc, scale)), 1)


def standard(latent_dim: int) -> Independent:
    return normals(torch.zeros(latent_dim, dtype=torch.float64), 1.0)


def means(parts: dict[str, torch.Tensor]) -> dict[str, float]:
    return {name: values.mean().item() for name, values in parts.items()}


def gaussian_codes(covariance: torch.Tensor, n: int) -> torch.Tensor:
    torch.manual_seed(0)
    return MultivariateNormal(covariance.new_zeros(len(covariance)), covariance).sample((n,))


# --- the parts of the KL --------------------------------------------------------------------------------------------------


def test_collapsed_posteriors_tell_nothing() -> None:
    torch.manual_seed(0)
    parts = surgery(normals(torch.zeros(50, 3, dtype=torch.float64), 1.0), standard(3), samples=2)
    assert set(parts) == set(PARTS)
    for values in parts.values():
        assert values.shape == (100,)
        assert values.abs().max() < 1e-12


def test_codes_apart_tell_all_that_there_is() -> None:
    loc = 100.0 * torch.arange(8, dtype=torch.float64)[:, None].expand(8, 2)
    q = normals(loc, 0.1)
    information = surgery(q, standard(2))["mutual_information"]
    assert torch.allclose(information, torch.full_like(information, math.log(8)))
    # Of 1000 data whose posteriors are all apart 8 were drawn: each draw falls under its own alone.
    information = surgery(q, standard(2), size=1000)["mutual_information"]
    assert torch.allclose(information, torch.full_like(information, math.log(1000)))


def test_a_gaussian_aggregate_posterior_has_closed_forms() -> None:
    covariance = torch.tensor([[1.0, 0.6], [0.6, 0.8]], dtype=torch.float64)
    q = normals(gaussian_codes(covariance, 1500), 0.5)
    found = means(surgery(q, standard(2), samples=4))
    whole = covariance + 0.25 * torch.eye(2)
    aggregate = MultivariateNormal(torch.zeros(2, dtype=torch.float64), whole)
    expected = {
        "mutual_information": 0.5 * torch.logdet(whole / 0.25).item(),
        "marginal_kl": (whole.trace() - 2 - whole.logdet()).item() / 2,
        "total_correlation": (whole.diagonal().log().sum() - whole.logdet()).item() / 2,
        "dimension_wise_kl": ((whole.diagonal() - 1 - whole.diagonal().log()).sum() / 2).item(),
    }
    assert aggregate.entropy() == pytest.approx(1.5 + math.log(2 * math.pi) + whole.logdet().item() / 2 - 0.5)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=0.06), name


def test_the_parts_add_up_at_every_draw() -> None:
    torch.manual_seed(1)
    q = MultivariateNormal(torch.randn(30, 3, dtype=torch.float64), torch.eye(3, dtype=torch.float64) * 0.3 + 0.1)
    torch.manual_seed(2)
    parts = surgery(q, standard(3))
    torch.manual_seed(2)
    z = q.sample((1,))[0]
    kl = q.log_prob(z) - standard(3).log_prob(z)
    assert torch.allclose(parts["mutual_information"] + parts["marginal_kl"], kl)
    assert torch.allclose(parts["total_correlation"] + parts["dimension_wise_kl"], parts["marginal_kl"])


def test_some_of_the_data_estimate_what_all_of_them_give() -> None:
    loc = gaussian_codes(torch.eye(1, dtype=torch.float64), 3000)
    whole = means(surgery(normals(loc, 0.3), standard(1)))
    some = means(surgery(normals(loc[:300], 0.3), standard(1), size=3000))
    assert some["mutual_information"] == pytest.approx(whole["mutual_information"], abs=0.1)
    assert whole["mutual_information"] == pytest.approx(0.5 * math.log(1 + 1 / 0.09), abs=0.05)


def test_the_density_of_the_aggregate_is_unbiased() -> None:
    """Every choice of 3 of 4 data, each weighted alike, averages to q(z) of the four."""
    loc = torch.tensor([[0.0], [0.5], [1.5], [2.0]], dtype=torch.float64)
    torch.manual_seed(3)
    q = normals(loc, 1.0)
    z = torch.tensor([[0.2]], dtype=torch.float64)
    exact = q.log_prob(z).exp().mean()
    subsets = [[0, *pair] for pair in ((1, 2), (1, 3), (2, 3))]
    weights = _log_weights(torch.tensor([0]), 3, 4, z).exp()[0]
    assert weights[0] == pytest.approx(1 / 4)
    assert weights.sum() == pytest.approx(1.0)
    average = torch.stack([(weights * normals(loc[s], 1.0).log_prob(z).exp()).sum() for s in subsets]).mean()
    assert average == pytest.approx(exact.item())


def test_marginals() -> None:
    covariance = torch.tensor([[2.0, 0.5], [0.5, 1.0]])
    found = marginals(MultivariateNormal(torch.zeros(2), covariance))
    assert torch.allclose(found.variance, covariance.diagonal())
    assert marginals(normals(torch.zeros(4, 2), 2.0)).batch_shape == (4, 2)
    nested = Independent(Independent(Normal(torch.zeros(4, 2, 3), torch.ones(4, 2, 3)), 1), 1)
    assert marginals(nested).batch_shape == (4, 2, 3)
    assert marginals(torch.distributions.Dirichlet(torch.ones(3))) is None


# --- of a fit -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def linear() -> tuple[pv.Fit, pv.Data]:
    """Factor analysis of its own data by its exact posterior: q(z) is p(z) up to the number of data."""
    torch.manual_seed(0)
    loadings = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    x = torch.randn(3000, 2) @ loadings.T + 0.7 * torch.randn(3000, 3)
    data = pv.load_data(x, valid=0.0, test=0.5)
    return pv.fit(pv.PPCA(latent_dim=2), data, method=pv.EM()), data


def test_the_exact_posterior_of_a_linear_model(linear: tuple[pv.Fit, pv.Data]) -> None:
    fit, data = linear
    found = latents(fit.pair, data.test, samples=3)
    W, noise = fit.pair.model.loadings, fit.pair.model.parameters_em.noise[0]
    information = 0.5 * torch.logdet(torch.eye(2) + W.T @ W / noise).item()
    assert found["mutual_information"] == pytest.approx(information, abs=0.06)
    assert found["kl"] == pytest.approx(information, abs=0.06)
    for name in ("marginal_kl", "total_correlation", "dimension_wise_kl"):
        assert found[name] == pytest.approx(0.0, abs=0.03), name
    assert found["active_units"] == found["units"] == 2
    assert found["mutual_information"] <= found["log_n"] == math.log(1500)
    variance = fit.encode(data.test).var(0, correction=0)
    assert found["mean_variance"] == pytest.approx(variance.tolist(), rel=1e-4)


def test_the_kl_of_dimensions_sums_to_the_kl_of_a_factorized_posterior() -> None:
    pair = built(vae(), GUIDES["AmortizedNormal-diagonal"])
    split = pv.load_data(rows("binary", 60), valid=0.0, test=0.0).train
    found = latents(pair, split)
    assert sum(found["kl_per_dimension"]) == pytest.approx(found["kl"], rel=1e-5)
    assert found["kl"] == pytest.approx(pv.evaluate(pair, split)["kl"], rel=1e-5)


def test_a_unit_that_ignores_the_data_is_not_active() -> None:
    pair = built(vae(), GUIDES["AmortizedLinear-diagonal"])
    split = pv.load_data(rows("binary", 200), valid=0.0, test=0.0).train
    with torch.no_grad():
        pair.guide.weight[1:] *= 0
        pair.guide.weight[0] *= 5
    found = latents(pair, split)
    assert found["active_units"] == 1
    assert found["mean_variance"][1:] == pytest.approx([0.0, 0.0], abs=1e-10)


def test_evaluating_changes_nothing() -> None:
    pair = built(vae())
    pair.train()
    split = pv.load_data(rows("binary", 40), valid=0.0, test=0.0).train
    state = {name: value.clone() for name, value in pair.state_dict().items()}
    noise = torch.get_rng_state()
    first = latents(pair, split)
    assert torch.equal(torch.get_rng_state(), noise)
    assert latents(pair, split) == first
    assert latents(pair, split, seed=1) != first
    assert pair.training
    assert all(torch.equal(value, state[name]) for name, value in pair.state_dict().items())


LATENT_CASES = {f"VAE-{name}": (MODELS[f"VAE-{name}"], None) for name in PRIORS} | {
    name: (vae(), guide)
    for name, guide in GUIDES.items()
    if name.startswith(("AmortizedN", "AmortizedL", "AmortizedF", "Semi"))
}
LATENT_CASES |= {name: (MODELS[name], None) for name in ("GMM-full", "AutoEncoder", "FactorAnalysis")}
LATENT_CASES |= {"AmortizedDelta": (vae(), GUIDES["AmortizedDelta"]), "AmortizedMixture": (vae(), GUIDES["AmortizedMixture"])}


@pytest.mark.parametrize(("model", "guide"), LATENT_CASES.values(), ids=LATENT_CASES)
def test_every_pair_gives_what_it_can_and_says_what_it_cannot(model: pv.Model, guide: pv.Guide | None) -> None:
    pair = built(model, guide or guide_for(model))
    data = pv.load_data(rows(kind_for(model), 30), valid=0.0, test=0.0, kind=spec_for(model).kind)
    found = latents(pair, data.train)
    notes = found.get("notes", {})
    assert 0 <= found["active_units"] <= found["units"]
    for name, value in found.items():
        for number in [] if name == "notes" else value if isinstance(value, list) else [value]:
            assert math.isfinite(number), name
    if "mutual_information" in found:
        assert found["mutual_information"] <= found["log_n"] + 1e-6
    else:
        assert notes["mutual_information"]
    assert "kl_per_dimension" in found or notes.keys() & {"kl_per_dimension", "kl"}
    assert "total_correlation" in found or notes.keys() & {"total_correlation", "mutual_information"}


def test_bad_input() -> None:
    pair = built(vae())
    split = pv.load_data(rows("binary", 10), valid=0.0, test=0.0).train
    with pytest.raises(ValueError, match="at least 2 data"):
        latents(pair, split[:1])
    with pytest.raises(ValueError, match="at least 2 data"):
        latents(pair, split, rows=1)
