"""Coordinate ascent of Bayesian mixtures and factor analysis: bounds against exact evidences, a peer, and their own samples."""

import itertools
import math

import pytest
import torch
from scipy import integrate, stats
from sklearn.mixture import BayesianGaussianMixture

import ppl_vae as pv
from ppl_vae.exact import covariances, mixture_start, moments, profile, variational_factors, variational_mixture
from ppl_vae.program.traces import log_joint, log_q, traces

PINNED = 1e-5  # the scale of a prior that leaves no doubt
SPREADS = {
    "full": {"covariances": pv.InverseWishart()},
    "tied": {"covariances": pv.InverseWishart(excess=3.0, scale=(1.0, 2.0))},
    "diagonal": {"scales": pv.RootInverseGamma(rate=(0.5, 1.5))},
    "spherical": {"scales": pv.RootInverseGamma(concentration=2.0)},
}


def rows(n=60, seed=0):
    """Two clusters in two dimensions."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 2, generator=generator, dtype=torch.float64) @ torch.tensor([[1.0, 0.4], [0.0, 0.5]]).double()
    x[: n // 3] += torch.tensor([5.0, -3.0])
    return x


def loaded(x, **options):
    return pv.load_data(x.numpy(), valid=0.0, test=0.0, **options)


def gmm(structure, components=3, locs=None, concentration=0.5):
    return pv.GMM(
        components=components,
        covariance=structure,
        weights=pv.Dirichlet(concentration=concentration),
        locs=locs or pv.Normal(scale=4.0),
        **SPREADS[structure],
    )


def factor_analysis(**options):
    priors = {"weights": pv.Normal(scale=2.0), "loc": pv.Normal(scale=3.0), "scale": pv.RootInverseGamma(), **options}
    return pv.FactorAnalysis(latent_dim=1, **priors)


def ascended(model, x, **options):
    return pv.fit(model, loaded(x), method=pv.CAVI(**options))


def wishart_evidence(x, nu, psi):
    """Log p(x) of rows about zero with an inverse-Wishart covariance."""
    n, d = x.shape
    posterior = psi + x.T @ x
    gamma = lambda a: torch.special.multigammaln(torch.tensor(a / 2).double(), d)  # noqa: E731
    found = gamma(nu + n) - gamma(nu) + nu / 2 * psi.logdet() - (nu + n) / 2 * posterior.logdet()
    return (found - n * d / 2 * math.log(math.pi)).item()


EVIDENCES = {
    "full": lambda x: wishart_evidence(x, 4.0, torch.eye(2).double()),
    "tied": lambda x: wishart_evidence(x, 5.0, torch.tensor([1.0, 4.0]).double().diag()),
    "diagonal": lambda x: sum(
        wishart_evidence(x[:, [d]], 3.0, torch.tensor([[2.0 * rate]]).double()) for d, rate in enumerate((0.5, 1.5))
    ),
    "spherical": lambda x: wishart_evidence(x.reshape(-1, 1), 4.0, torch.tensor([[1.0]]).double()),
}


@pytest.mark.parametrize("structure", SPREADS)
def test_with_one_component_and_a_known_mean_the_bound_is_the_evidence(structure):
    x = rows(20)
    fit = ascended(gmm(structure, components=1, locs=pv.Normal(scale=PINNED)), x)
    assert fit.history[-1]["elbo"] == pytest.approx(EVIDENCES[structure](x) / 20, abs=1e-6)


def test_of_an_unknown_mean_and_variance_it_is_a_little_below():
    x = torch.tensor([[0.3], [1.9], [-0.4], [2.2], [1.1], [0.8], [3.0]], dtype=torch.float64)
    spread = pv.RootInverseGamma(concentration=2.0, rate=1.5)
    model = pv.GMM(
        components=1, covariance="diagonal", weights=pv.Dirichlet(), locs=pv.Normal(loc=0.5, scale=1.5), scales=spread
    )

    def density(log_tau):
        tau = math.exp(log_tau)
        covariance = torch.eye(7).double() / tau + 1.5**2
        normal = torch.distributions.MultivariateNormal(torch.full((7,), 0.5).double(), covariance)
        return math.exp(normal.log_prob(x[:, 0]).item() + stats.gamma(2.0, scale=1 / 1.5).logpdf(tau) + log_tau + 12)

    evidence = (math.log(integrate.quad(density, -8, 5, epsabs=1e-12)[0]) - 12) / 7
    bound = ascended(model, x).history[-1]["elbo"]
    assert evidence - 0.01 < bound < evidence


def test_of_unknown_weights_it_is_below_the_sum_over_all_assignments():
    x = torch.tensor([[-1.3], [-0.4], [0.2], [1.5], [0.7]], dtype=torch.float64)
    model = pv.GMM(
        components=2,
        covariance="diagonal",
        weights=pv.Dirichlet(concentration=(1.5, 0.7)),
        locs=pv.Normal(loc=(-1.0, 1.0), scale=PINNED),
        scales=pv.RootInverseGamma(concentration=1e8, rate=1e8),
    )
    each = [stats.norm(m).logpdf(x[:, 0].numpy()) for m in (-1.0, 1.0)]
    terms = []
    for path in itertools.product((0, 1), repeat=5):
        counts = [1.5 + path.count(0), 0.7 + path.count(1)]
        dirichlet = sum(map(math.lgamma, counts)) - math.lgamma(sum(counts)) - math.lgamma(1.5) - math.lgamma(0.7)
        terms.append(dirichlet + math.lgamma(2.2) + sum(each[k][n] for n, k in enumerate(path)))
    evidence = torch.tensor(terms).logsumexp(0).item() / 5
    assert evidence - 0.1 < ascended(model, x).history[-1]["elbo"] < evidence


def check_against_own_samples(fit, x, draws=4000):
    """The bound is the mean of log p(x, z, theta) - log q, of the pair as the ordinary Pyro programs that it is."""
    batch = (x.to(torch.get_default_dtype()),)
    fit.pair.plates(*batch)
    torch.manual_seed(0)
    ran = traces(fit.pair, batch, draws)
    weights = (log_joint(ran) - log_q(ran)).double().mean(1)
    assert abs(weights.mean().item() - fit.history[-1]["elbo"]) < 5 * weights.std().item() / draws**0.5 < 0.02


@pytest.mark.parametrize("structure", SPREADS)
def test_it_climbs_to_what_evaluate_and_samples_tell(structure):
    x = rows()
    fit = ascended(gmm(structure, concentration=2.0), x)
    values = [row["elbo"] for row in fit.history]
    assert all(after >= before - 1e-12 for before, after in itertools.pairwise(values))
    assert len(values) > 3
    found = fit.evaluate(x)
    assert found["elbo"] == pytest.approx(values[-1], abs=1e-6)
    assert found["reconstruction"] - found["kl"] == pytest.approx(found["elbo"], abs=1e-9)
    check_against_own_samples(fit, x)


@pytest.mark.parametrize("noise", ["diagonal", "isotropic"])
def test_factor_analysis_climbs_to_what_evaluate_and_samples_tell(noise):
    x = rows()
    fit = ascended(factor_analysis(noise=noise), x)
    values = [row["elbo"] for row in fit.history]
    assert all(after >= before - 1e-12 for before, after in itertools.pairwise(values))
    assert fit.evaluate(x)["elbo"] == pytest.approx(values[-1], abs=1e-6)
    check_against_own_samples(fit, x)


def test_of_known_parameters_the_bound_of_factor_analysis_is_log_p():
    x = torch.randn(10, 3, generator=torch.Generator().manual_seed(1)).double()
    W, noise = torch.tensor([[0.5], [-1.0], [2.0]]).double(), 0.25
    model = factor_analysis(
        weights=pv.Normal(loc=(0.5, -1.0, 2.0), scale=PINNED),
        loc=pv.Normal(scale=PINNED),
        scale=pv.RootInverseGamma(concentration=1e8, rate=1e8 * noise),
    )
    expected = torch.distributions.MultivariateNormal(torch.zeros(3).double(), W @ W.T + noise * torch.eye(3).double())
    assert ascended(model, x).history[-1]["elbo"] == pytest.approx(expected.log_prob(x).mean().item(), abs=1e-6)


def test_of_known_loadings_it_is_the_evidence():
    x = rows(20)
    model = factor_analysis(weights=pv.Normal(scale=PINNED), loc=pv.Normal(scale=PINNED), scale=pv.RootInverseGamma())
    expected = sum(wishart_evidence(x[:, [d]], 3.0, torch.tensor([[1.0]]).double()) for d in range(2))
    assert ascended(model, x).history[-1]["elbo"] == pytest.approx(expected / 20, abs=1e-5)


def test_where_means_are_known_it_is_scikit_learns():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 2, generator=generator, dtype=torch.float64)
    x[:150] *= 6
    ours = ascended(gmm("full", components=2, locs=pv.Normal(scale=PINNED), concentration=0.7), x, tolerance=1e-13, sweeps=5000)
    theirs = BayesianGaussianMixture(
        n_components=2,
        weight_concentration_prior_type="dirichlet_distribution",
        weight_concentration_prior=0.7,
        mean_precision_prior=1e10,
        mean_prior=[0.0, 0.0],
        degrees_of_freedom_prior=4.0,
        covariance_prior=torch.eye(2).numpy(),
        reg_covar=0.0,
        tol=1e-12,
        max_iter=5000,
        random_state=1,
    ).fit(x.numpy())
    q = ours.pair.guide.factors
    order, other = q.concentration.argsort(), torch.from_numpy(theirs.weight_concentration_).argsort()
    assert torch.allclose(q.concentration[order], torch.from_numpy(theirs.weight_concentration_)[other], rtol=1e-3)
    assert torch.allclose(q.freedom[order], torch.from_numpy(theirs.degrees_of_freedom_)[other], rtol=1e-3)
    covariance = q.scatter / q.freedom[:, None, None]
    assert torch.allclose(covariance[order], torch.from_numpy(theirs.covariances_)[other], rtol=1e-2, atol=1e-3)


def test_components_that_the_data_do_not_need_are_switched_off():
    x = rows(150)
    with pytest.warns(pv.FitWarning, match="the priors have switched them off, 2 are in use"):
        fit = ascended(gmm("full", components=6, concentration=1e-3), x, tolerance=1e-10)
    assert fit.pair.guide.effective_components == 2
    assert (fit.pair.model.parameters_em.weights > 0.01).sum() == 2


def test_factors_that_the_data_do_not_need_are_switched_off():
    generator = torch.Generator().manual_seed(0)
    z, W = torch.randn(200, 1, generator=generator), torch.randn(1, 6, generator=generator)
    x = (z @ W + 0.3 * torch.randn(200, 6, generator=generator)).double()
    model = pv.FactorAnalysis(
        latent_dim=3, weights=pv.AutomaticRelevance(), loc=pv.Normal(scale=5.0), scale=pv.RootInverseGamma()
    )
    with pytest.warns(pv.FitWarning, match="1 are in use"):
        fit = ascended(model, x)
    lengths = fit.pair.model.loadings.square().sum(0)
    assert fit.pair.guide.effective_factors == 1
    assert lengths.sort().values[-2] < 1e-2 * lengths.max()


def test_the_density_of_automatic_relevance_is_the_integral_over_its_precisions():
    W = torch.tensor([[0.3], [-1.2]], dtype=torch.float64)
    density = pv.AutomaticRelevance(concentration=1.3, rate=0.8).build((2, 1)).double()()

    def joint(alpha):
        return stats.gamma(1.3, scale=1 / 0.8).pdf(alpha) * stats.norm(scale=alpha**-0.5).pdf(W.numpy()).prod()

    assert density.log_prob(W).exp().item() == pytest.approx(integrate.quad(joint, 0, 60)[0], rel=1e-6)


def test_root_inverse_gamma_is_that_of_variances():
    density = pv.RootInverseGamma(concentration=2.5, rate=1.2).build((1,)).double()()
    s = torch.tensor([0.7], dtype=torch.float64)
    assert density.log_prob(s).item() == pytest.approx(stats.invgamma(2.5, scale=1.2).logpdf(0.49) + math.log(2 * 0.7))


def test_weights_count_rows():
    x = rows(30)
    counts = torch.arange(30) % 3 + 1
    model = gmm("full", components=2)
    weighted = pv.fit(model, pv.load_data(x.numpy(), weights=counts.numpy(), valid=0.0, test=0.0), method=pv.CAVI())
    repeated = ascended(model, x.repeat_interleave(counts, 0))
    assert weighted.history[-1]["elbo"] == pytest.approx(repeated.history[-1]["elbo"], abs=1e-6)
    assert weighted.evaluate(pv.load_data(x.numpy(), weights=counts.numpy(), valid=0.0, test=0.0).train)[
        "elbo"
    ] == pytest.approx(weighted.history[-1]["elbo"], abs=1e-6)


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (pv.GMM(components=2, weights=pv.LogisticNormal()), r"conjugate to weights: Dirichlet, got weights=LogisticNormal"),
        (pv.GMM(components=2, locs=pv.LaplacePrior()), "conjugate to locs: Normal, StandardNormal, got locs=LaplacePrior"),
        (pv.GMM(components=2, covariance="diagonal", scales=pv.HalfNormal()), "conjugate to scales: RootInverseGamma"),
        (pv.FactorAnalysis(latent_dim=1, weights=pv.LaplacePrior()), "weights: Normal, StandardNormal, AutomaticRelevance"),
    ],
)
@pytest.mark.filterwarnings("ignore:no priors of")
def test_priors_that_are_not_conjugate_are_refused_by_name(model, told):
    with pytest.raises(ValueError, match=told):
        ascended(model, rows(12))


def test_models_without_priors_get_declared_ones_of_the_datas_scale(tmp_path):
    x = rows(40) * torch.tensor([1.0, 3.0]) + 7
    for model, names in (
        (pv.GMM(components=2), ["weights", "locs", "covariances"]),
        (pv.GMM(components=2, covariance="spherical"), ["weights", "locs", "scales"]),
        (pv.FactorAnalysis(latent_dim=1), ["weights", "loc", "scale"]),
    ):
        with pytest.warns(pv.FitWarning, match=r"no priors of .* are declared"):
            fit = pv.fit(model, loaded(x, scale="none"), method=pv.CAVI(), out=tmp_path / f"{names[-1]}-{type(model).__name__}")
        assert list(fit.model.parameter_priors) == names
        loaded_again = pv.load_run(tmp_path / f"{names[-1]}-{type(model).__name__}")
        assert loaded_again.model == fit.model
        assert loaded_again.evaluate(x)["elbo"] == pytest.approx(fit.history[-1]["elbo"], abs=1e-6)


def test_a_prior_that_is_declared_is_kept_and_missing_entries_are_told():
    with pytest.warns(pv.FitWarning, match="no priors of locs, covariances"):
        fit = ascended(pv.GMM(components=2, weights=pv.Dirichlet(concentration=3.0)), rows(30))
    assert fit.model.weights == pv.Dirichlet(concentration=3.0)
    x = rows(30)
    x[0, 0] = math.nan
    with (
        pytest.warns(pv.FitWarning, match="no priors of"),
        pytest.raises(ValueError, match=r"priors of parameters .* need complete data"),
    ):
        pv.fit(pv.GMM(components=2), loaded(x, missing="ignore"), method=pv.CAVI())


@pytest.mark.filterwarnings("ignore:no priors of")
def test_point_estimates_and_the_bayesian_treatment_stand_in_one_table():
    data = loaded(rows(80))
    found = pv.compare(pv.GMM(components=2), data, methods=[pv.EM(), pv.CAVI(), pv.SVI(epochs=3)])
    em, cavi, svi = found.rows
    assert "integrated" not in em
    assert "integrated" not in svi
    assert cavi["integrated"] == ["weights", "locs", "covariances"]
    assert cavi["elbo"] < cavi["train_log_likelihood"] <= em["train_log_likelihood"] + 1e-9
    assert cavi["distance"] < 0.2
    assert "CAVI: the ELBO bounds log p(x_1, ..., x_N) / N with weights, locs, covariances integrated out" in str(found)
    declared = pv.compare(gmm("full", components=2), data, methods=[pv.EM(), pv.CAVI()])
    assert [row.get("integrated") for row in declared.rows] == [None, ["weights", "locs", "covariances"]]


def test_steps_are_monotone_far_from_zero_and_from_random_starts():
    x = rows(50) + 1e4
    for name, structure in covariances.COVARIANCES.items():
        matrices = name in ("full", "tied")
        scatter = (
            torch.eye(2).double() if matrices else torch.ones(2).double() if name == "diagonal" else torch.tensor(1.0).double()
        )
        locs = torch.full((4, 2), 1e4).double()
        priors = variational_mixture.Priors(
            torch.full((4,), 0.3).double(), locs, torch.full_like(locs, 9.0), torch.tensor(4.0).double(), scatter
        )
        begun = mixture_start.initial(x, 4, structure, generator=torch.Generator().manual_seed(3), method="random")
        factors = variational_mixture.initial(begun, x, priors, structure)
        values = []
        for _ in range(30):
            factors, value = variational_mixture.cavi_step(factors, x, priors, structure)
            values.append(value.item())
        assert all(after >= before - 1e-8 for before, after in itertools.pairwise(values)), name


def test_a_random_start_of_factor_analysis_comes_to_the_same_bound():
    x = torch.randn(50, 1, generator=torch.Generator().manual_seed(0)).double() * torch.tensor([1.0, -2.0, 0.5, 3.0])
    x = x + torch.randn(50, 4, generator=torch.Generator().manual_seed(1)).double()
    seen = moments.moments(x)
    ones = torch.ones(4, 2).double()
    priors = variational_factors.Priors(0 * ones, ones / 4, (ones[:, 0] * 1.5, ones[:, 0] * 0.5), None)
    ends = []
    for generator in (None, torch.Generator().manual_seed(5)):
        factors = variational_factors.initial(profile.initial(seen, 1, generator=generator), seen, priors)
        for _ in range(100):
            factors, value = variational_factors.cavi_step(factors, seen, priors)
        ends.append(value.item())
    assert ends[0] == pytest.approx(ends[1], abs=1e-8)
