"""The catalogue as a table of constructors, and the sizes, seeds and tolerances of its laws."""

from __future__ import annotations

import dataclasses
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

import ppl_vae as pv
from ppl_vae.guides.base import latent_kind, lone_site
from ppl_vae.program.capabilities import (
    CoordinateAscent,
    Hierarchical,
    KnownPosterior,
    MadeOfPosteriors,
    Noised,
    SemiSupervised,
    StackedSemiSupervised,
)
from ppl_vae.program.facts import model_facts, posterior_prior
from ppl_vae.program.hooks import Start
from ppl_vae.types import Field, Kind

EVENT = (1, 3, 4)
LATENT = 3
ROWS = 24
LEVELS = 6
SEED = 0

TINY = pv.MLP(hidden=(7,))

PRIORS: dict[str, pv.Prior] = {
    "StandardNormal": pv.StandardNormal(),
    "GaussianMixture": pv.GaussianMixture(components=4),
    "Normal": pv.Normal(loc=0.5, scale=2.0),
    "Normal-learned": pv.Normal(loc=0.5, scale=2.0, learned=True),
    "MultivariateNormal": pv.MultivariateNormal(loc=-1.0, covariance=2.0),
    "MultivariateNormal-learned": pv.MultivariateNormal(loc=1.0, covariance=0.5, learned=True),
    "LaplacePrior": pv.LaplacePrior(scale=0.5),
    "Logistic": pv.Logistic(loc=0.5, scale=0.7),
    "StudentTPrior": pv.StudentTPrior(df=3.0, scale=1.5),
    "GaussianGrid": pv.GaussianGrid(points=3),
    "VampPrior": pv.VampPrior(components=4),
    "VampPrior-learned": pv.VampPrior(components=4, start="noise", weights="learned"),
    "ExemplarPrior": pv.ExemplarPrior(components=4),
    "CouplingFlow": pv.CouplingFlow(layers=2, hidden=(7,)),
    "AutoregressiveFlow": pv.AutoregressiveFlow(layers=2, hidden=(7, 5)),
    "SplineFlow": pv.SplineFlow(layers=2, hidden=(7,), bins=4, bound=3.0),
    "LogNormal": pv.LogNormal(loc=0.5, scale=0.5),
    "HalfNormal": pv.HalfNormal(scale=2.0),
    "RootInverseGamma": pv.RootInverseGamma(concentration=3.0),
    "Uniform": pv.Uniform(low=-1.0, high=2.0),
    "Dirichlet": pv.Dirichlet(concentration=2.0),
    "LogisticNormal": pv.LogisticNormal(scale=1.5),
    "ProjectedNormal": pv.ProjectedNormal(),
    "ProjectedNormal-concentrated": pv.ProjectedNormal(loc=1.5),
    "OneHotCategorical": pv.OneHotCategorical(),
    "OneHotCategorical-learned": pv.OneHotCategorical(learned=True),
    "FactorizedCategorical": pv.FactorizedCategorical(groups=3, learned=True),
}

LIKELIHOODS: dict[str, pv.Likelihood] = {
    "Bernoulli": pv.Bernoulli(),
    "Gaussian-fixed": pv.Gaussian(scale="fixed"),
    "Gaussian-shared": pv.Gaussian(scale="shared"),
    "Gaussian-per_feature": pv.Gaussian(scale="per_feature"),
    "Gaussian-amortized": pv.Gaussian(scale="amortized"),
    "LowRankGaussian": pv.LowRankGaussian(rank=2),
    "LowRankGaussian-amortized": pv.LowRankGaussian(rank=2, covariance="amortized"),
    "Laplace": pv.Laplace(),
    "Laplace-amortized": pv.Laplace(scale="amortized"),
    "StudentT": pv.StudentT(scale="per_feature"),
    "StudentT-learned": pv.StudentT(scale="amortized", df=3.0, learned=True),
    "MixtureDensity": pv.MixtureDensity(components=2),
    "ContinuousBernoulli": pv.ContinuousBernoulli(),
    "Beta": pv.Beta(margin=0.0),
    "LogitNormal": pv.LogitNormal(margin=0.0),
    "LogitNormal-amortized": pv.LogitNormal(scale="amortized", margin=0.0),
    "Categorical": pv.Categorical(levels=LEVELS),
    "Tokens": pv.Tokens(levels=LEVELS),
    "DiscretizedLogistic": pv.DiscretizedLogistic(levels=LEVELS),
    "DiscretizedLogisticMixture": pv.DiscretizedLogisticMixture(levels=LEVELS, components=3),
    "Binomial": pv.Binomial(total=10),
    "Poisson": pv.Poisson(),
    "NegativeBinomial": pv.NegativeBinomial(),
    "NegativeBinomial-amortized": pv.NegativeBinomial(dispersion="amortized"),
    "Multinomial": pv.Multinomial(),
    "ZeroInflated-Poisson": pv.ZeroInflated(),
    "ZeroInflated-NegativeBinomial": pv.ZeroInflated(likelihood=pv.NegativeBinomial(dispersion="shared")),
    "Masked-Gaussian": pv.Masked(likelihood=pv.Gaussian(scale="amortized")),
    "Masked-Beta": pv.Masked(likelihood=pv.Beta(margin=0.0)),
    "Masked-ZeroInflated": pv.Masked(likelihood=pv.ZeroInflated()),
    "MixedTable": pv.MixedTable(groups=(pv.ColumnGroup(columns=(1,), likelihood=pv.Bernoulli()), pv.ColumnGroup())),
}

PRIOR_SPEC = pv.DataSpec(event_shape=EVENT, kind="binary", size=10 * ROWS)

NETWORKS: dict[str, pv.Network] = {
    "Linear": pv.Linear(),
    "Linear-no-bias": pv.Linear(bias=False),
    "Linear-batch": pv.Linear(bias=False, batch_norm=True),
    "MLP": TINY,
    "MLP-deep": pv.MLP(hidden=(5, 6), activation="tanh"),
    "MLP-none": pv.MLP(hidden=()),
    "MLP-gated": pv.MLP(hidden=(7, 5), activation="gated"),
    "MLP-residual": pv.MLP(hidden=(5, 5), activation="elu", residual=True, norm="layer"),
    "MLP-batch": pv.MLP(hidden=(7,), activation="tanh", norm="batch"),
    "MLP-dropout": pv.MLP(hidden=(9,), activation="tanh", dropout=0.3),
    "Conv": pv.Conv(channels=(4, 5), activation="tanh"),
    "Conv-residual": pv.Conv(channels=(4,), kernel=3, blocks=2, activation="gated", norm="layer"),
    "Conv-batch": pv.Conv(channels=(4, 5), activation="silu", norm="batch"),
    "Conv-spatial": pv.Conv(channels=(4, 5), activation="softplus", spatial=True),
    "UNet": pv.UNet(channels=(3, 4), attention=True),
    "LSTM": pv.LSTM(hidden=5),
    "CausalConv": pv.CausalConv(hidden=5, layers=2),
    "Transformer": pv.Transformer(hidden=8, heads=2, layers=1),
    "PixelCNN": pv.PixelCNN(channels=4, layers=2),
    "MADE": pv.MADE(hidden=(7,)),
}


def tiny_flow(**changes: Any) -> pv.AmortizedFlow:
    """A small flow with the named parts replaced."""
    flow = pv.AmortizedFlow(base=pv.AmortizedNormal(encoder=TINY), encoder=TINY, hidden=(7,), context=5)
    return dataclasses.replace(flow, **changes)


GUIDES: dict[str, pv.Guide] = {
    "AmortizedNormal-diagonal": pv.AmortizedNormal(encoder=TINY),
    "AmortizedNormal-full": pv.AmortizedNormal(encoder=TINY, covariance="full"),
    "AmortizedLinear-diagonal": pv.AmortizedLinear(covariance="diagonal"),
    "AmortizedLinear-full": pv.AmortizedLinear(),
    "AmortizedNormal-low_rank": pv.AmortizedNormal(encoder=TINY, covariance="low_rank"),
    "AmortizedMixture": pv.AmortizedMixture(encoder=TINY, components=3),
    "AmortizedFlow-iaf": tiny_flow(),
    "AmortizedFlow-coupling": tiny_flow(transform="coupling", base=pv.AmortizedMixture(encoder=TINY, components=2)),
    "AmortizedFlow-spline": tiny_flow(transform="spline", layers=1, base=pv.AmortizedLinear()),
    "AmortizedDelta": pv.AmortizedDelta(encoder=TINY),
    "SemiAmortized": pv.SemiAmortized(base=pv.AmortizedNormal(encoder=TINY), steps=2),
    "SemiAmortized-stopped": pv.SemiAmortized(
        base=pv.AmortizedNormal(encoder=TINY, covariance="full"), steps=2, differentiate=False
    ),
    "AmortizedGumbel": pv.AmortizedGumbel(encoder=TINY),
    "AmortizedProjectedNormal": pv.AmortizedProjectedNormal(encoder=TINY),
    "AmortizedCategorical": pv.AmortizedCategorical(encoder=TINY),
    "ExactPosterior": pv.ExactPosterior(),
}

OBJECTIVES: dict[str, pv.Objective] = {
    "ELBO-analytic": pv.ELBO(),
    "ELBO-sampled": pv.ELBO(kl="sampled"),
    "ELBO-particles": pv.ELBO(particles=3),
    "ELBO-particles-sampled": pv.ELBO(particles=3, kl="sampled"),
    "ELBO-landing": pv.ELBO(particles=2, gradient="sticking_the_landing"),
    "ELBO-score_function": pv.ELBO(gradient="score_function"),
    "ELBO-baseline": pv.ELBO(particles=2, gradient="score_function", baseline="moving_average"),
    "BetaELBO": pv.BetaELBO(beta=4.0),
    "BetaELBO-linear": pv.BetaELBO(warm_up=pv.LinearWarmUp(epochs=4), free_bits=0.5, particles=2),
    "BetaELBO-sites": pv.BetaELBO(warm_up=(pv.LinearWarmUp(epochs=4),), free_bits=(0.5,)),
    "BetaELBO-cyclical": pv.BetaELBO(warm_up=pv.CyclicalWarmUp(epochs=4, cycles=2), kl="sampled"),
    "BetaELBO-capacity": pv.BetaELBO(beta=10.0, capacity=5.0, warm_up=pv.LinearWarmUp(epochs=2)),
    "IWAE": pv.IWAE(),
    "IWAE-doubly": pv.IWAE(gradient="doubly_reparameterized"),
    "IWAE-landing": pv.IWAE(samples=3, gradient="sticking_the_landing"),
    "Renyi": pv.Renyi(alpha=0.5),
    "Renyi-doubly": pv.Renyi(alpha=-1.0, samples=3, gradient="doubly_reparameterized"),
    "InfoVAE": pv.InfoVAE(),
    "InfoVAE-rbf": pv.InfoVAE(kl_weight=0.5, kernel="rbf", bandwidth=2.0, particles=2, kl="sampled"),
}

# Gradients that go through the draws and have no other way.
REPARAMETERIZED = ("sticking_the_landing", "doubly_reparameterized")

WARM_UPS: dict[str, pv.WarmUp] = {
    "NoWarmUp": pv.NoWarmUp(),
    "LinearWarmUp": pv.LinearWarmUp(epochs=3),
    "CyclicalWarmUp": pv.CyclicalWarmUp(epochs=4, cycles=3, rise=0.25),
}

METHODS: dict[str, pv.Method] = {
    "SVI": pv.SVI(),
    "SVI-alternating": pv.SVI(alternate="epochs"),
    "SVI-other": pv.SVI(optimizer="sgd", schedule="exponential", clip_norm=1.0, patience=2, restore_best=True, seed=3),
    "EM": pv.EM(),
    "EM-other": pv.EM(max_iterations=7, tolerance=1e-3, n_init=2, acceleration="none", seed=3),
    "ClosedForm": pv.ClosedForm(),
    "Stages": pv.Stages(methods=(pv.SVI(epochs=2, only=("guide", "model.prior")), pv.SVI(epochs=3))),
    "CAVI": pv.CAVI(),
    "CAVI-other": pv.CAVI(sweeps=7, batch_size=20, forgetting=0.9, delay=3.0, seed=3),
}


def vae(**changes: Any) -> pv.VAE:
    """A small VAE with the named parts replaced."""
    return dataclasses.replace(pv.VAE(latent_dim=LATENT, decoder=TINY), **changes)


def vae_of(prior: pv.Prior, **changes: Any) -> pv.VAE:
    """A small VAE with this prior, of a latent dimension that it takes."""
    return vae(prior=prior, latent_dim=2 * LATENT if isinstance(prior, pv.FactorizedCategorical) else LATENT, **changes)


MODELS: dict[str, pv.Model] = {
    **{f"VAE-{name}": vae_of(prior) for name, prior in PRIORS.items()},
    **{f"VAE-{name}": vae(likelihood=likelihood) for name, likelihood in LIKELIHOODS.items()},
    # Those that run along rows have laws of their own, for the first axis here has one place.
    **{
        f"VAE-{name}": vae(decoder=each)
        for name, each in NETWORKS.items()
        if not isinstance(each, pv.CausalNetwork) or each.grids
    },
    "FactorAnalysis": pv.FactorAnalysis(latent_dim=LATENT),
    "FactorAnalysis-isotropic": pv.FactorAnalysis(latent_dim=LATENT, noise="isotropic"),
    "FactorAnalysis-Normal": pv.FactorAnalysis(latent_dim=LATENT, prior=pv.Normal(loc=(0.5, -1.0, 2.0), scale=(1.0, 2.0, 0.5))),
    "PPCA": pv.PPCA(latent_dim=LATENT),
    "LDA": pv.LDA(topics=LATENT, words=None),
    "AutoEncoder": pv.AutoEncoder(latent_dim=LATENT, decoder=TINY),
    "PCA": pv.PCA(latent_dim=LATENT),
    **{
        f"GMM-{covariance}": pv.GMM(components=LATENT, covariance=covariance)
        for covariance in ("full", "tied", "diagonal", "spherical")
    },
}

EXACT = {name: model for name, model in MODELS.items() if model.posterior_family in ("linear", "discrete")}

DECLARATIONS: dict[str, pv.Declaration] = {
    **PRIORS,
    **LIKELIHOODS,
    **NETWORKS,
    **GUIDES,
    **OBJECTIVES,
    **WARM_UPS,
    **METHODS,
    **MODELS,
    "SequenceModel": pv.SequenceModel(network=pv.LSTM(hidden=5, projection=2), likelihood=pv.Tokens(levels=4, end=0)),
    "SequenceModel-grids": pv.SequenceModel(network=pv.PixelCNN(channels=4, layers=2), likelihood=pv.Bernoulli()),
    "UniformCodes": pv.UniformCodes(),
    "VAE-rows": vae(decoder=pv.Transformer(hidden=8, heads=2), likelihood=pv.Tokens()),
    "LDA-words": pv.LDA(topics=4, words=pv.Dirichlet(concentration=0.05), steps=3),
    "CVAE": pv.CVAE(condition=pv.Quadrants(observed=2), enters=("encoder",), baseline=pv.Baseline(network=TINY, epochs=2)),
    "CVAE-labels": pv.CVAE(prior=pv.ConditionalNormal(network=TINY)),
    "CVAE-rows": pv.CVAE(decoder=pv.LSTM(hidden=5), likelihood=pv.Tokens(), prior=pv.ConditionalNormal(network=TINY)),
    "ConditionalNormal": pv.ConditionalNormal(network=TINY),
    "Ising": pv.Ising(shape=(4, 5), coupling=(0.3, 0.2), field=0.1, torus=(True, False)),
    "Ising-observed": pv.Ising(shape=(2, 2), field=((0.1, 0.2), (0.3, 0.4)), observed=pv.Flip(rate=0.2)),
    "Potts": pv.Potts(states=4, shape=(5,), field=(0.1, 0.0, 0.2, 0.0), observed=pv.GaussianNoise(scale=0.3, high=3.0)),
    "Flip": pv.Flip(rate=0.2),
    "GaussianNoise": pv.GaussianNoise(scale=0.3),
    "Columns": pv.Columns(columns=(2, 0)),
    "Covariates": pv.Covariates(categories=("batch",), numbers=("mito",), size_factors="total"),
    "Labels": pv.Labels(),
    "Baseline": pv.Baseline(network=TINY, learning_rate=1e-2),
    "HierarchicalVAE": pv.HierarchicalVAE(
        groups=(pv.Group(latent_dim=2), pv.Group(size=(2, 3), network=pv.Conv())), skip=False
    ),
    "HierarchicalVAE-default": pv.HierarchicalVAE(),
    "Diffusion": pv.Diffusion(steps=5, denoiser=TINY, likelihood=pv.Categorical(levels=LEVELS), fourier=True),
    "Diffusion-density": pv.Diffusion(
        noise=pv.LearnedNoise(high=7.0), predicts="velocity", variance="learned", likelihood=pv.Gaussian()
    ),
    "Diffusion-labels": pv.Diffusion(steps=None, denoiser=TINY, condition=pv.Labels(), label_dropout=0.1),
    "LinearNoise": pv.LinearNoise(low=-3.0),
    "CosineNoise": pv.CosineNoise(high=4.0),
    "LearnedNoise": pv.LearnedNoise(),
    "Noising": pv.Noising(),
    "TopDown": pv.TopDown(merge="residual"),
    "AmortizedNormal-floors": pv.AmortizedNormal(encoder=TINY, batch_norm_mean=0.6, min_kl=0.5),
    "BottomUp": pv.BottomUp(encoder=TINY),
    "SemiSupervisedVAE": pv.SemiSupervisedVAE(classes=3, latent_dim=2, decoder=TINY),
    "AmortizedClassifier": pv.AmortizedClassifier(classifier=TINY, weight=1.0),
    "VQVAE": pv.VQVAE(codebook=pv.Codebook(size=8, dim=4, grid=(1, 2), update=pv.Gradient()), decoder=TINY),
    "VQVAE-levels": pv.VQVAE(
        codebook=(pv.Codebook(grid=(2, 2), restart=None), pv.Codebook(grid=(4, 4), start="uniform")), prior=pv.LSTM(hidden=5)
    ),
    "VQVAE-labels": pv.VQVAE(prior=pv.PixelCNN(channels=4, layers=2), condition=pv.Labels()),
    "NearestCode": pv.NearestCode(encoder=TINY),
    "Codebook": pv.Codebook(commitment=0.5),
    "EMA": pv.EMA(decay=0.9),
    "Gradient": pv.Gradient(),
    "StackedSemiSupervisedVAE": pv.StackedSemiSupervisedVAE(classes=3, rest_dim=2, network=TINY, decoder=TINY),
    "StackedClassifier": pv.StackedClassifier(classifier=TINY, rest=TINY, weight=1.0),
    "ColumnGroup": pv.ColumnGroup(columns=(0, 2), likelihood=pv.Categorical(levels=3)),
    "Strokes": pv.Strokes(components=3),
    "Characters": pv.Characters(),
    "Bytes": pv.Bytes(),
    "Words": pv.Words(lower=False, minimum=2),
    "BPE": pv.BPE(size=300, merges=("a b", "ab c")),
    "AIS": pv.AIS(temperatures=100, schedule="sigmoid"),
    "Gaps": pv.Gaps(samples=4, tolerance=0.1),
    "DataSource": pv.DataSource(source="mnist", binarize="dynamic", valid=0.05),
}


def fits(model: pv.Model, guide: pv.Guide) -> bool:
    """Whether the guide is one of the model's posterior; :func:`ppl_vae.build` refuses every other pair."""
    if isinstance(guide, pv.MeanField):
        return isinstance(program(model), CoordinateAscent)
    bayesian = isinstance(guide, pv.BayesianGuide)
    if bayesian != bool(model.parameter_priors):
        return False
    guide = guide.latents if isinstance(guide, pv.BayesianGuide) else guide
    if isinstance(guide, (pv.TopDown, pv.BottomUp)):
        return isinstance(program(model), Hierarchical)
    if isinstance(guide, pv.Noising) or isinstance(program(model), Noised):
        return isinstance(guide, pv.Noising) and isinstance(program(model), Noised)
    if isinstance(guide, pv.AmortizedClassifier):
        return isinstance(program(model), SemiSupervised)
    if isinstance(guide, pv.StackedClassifier):
        return isinstance(program(model), StackedSemiSupervised)
    if len(model_facts(program(model)).sites) > 1:
        return False
    if isinstance(guide, pv.ExactPosterior):
        return isinstance(program(model), KnownPosterior)
    if posterior_prior(program(model)) and not guide.makes_priors:
        return False
    return latent_kind(program(model)) in guide.serves


def follows(objective: pv.Objective, guide: pv.Guide) -> bool:
    """Whether the objective can follow the guide's draws; one that must be refuses those that are not reparameterized."""
    must = isinstance(objective, pv.InfoVAE) or getattr(objective, "gradient", "") in REPARAMETERIZED
    return not (must and isinstance(guide, pv.AmortizedCategorical))


@cache
def program(model: pv.Model) -> torch.nn.Module:
    """The built model, whose parameters are of no account, and use up no random numbers."""
    with torch.random.fork_rng(devices=[]):
        return model.build(dataclasses.replace(spec_for(model), classes=("a", "b", "c")))


def latent_site(model: pv.Model) -> tuple[str, tuple[int, ...]]:
    """Name and event shape of what the program draws at the model's only latent site."""
    site = lone_site(program(model))
    return site.name, () if site.index else site.event_shape


def guide_for(model: pv.Model) -> pv.Guide:
    """An amortized guide of the model's latent variable."""
    special = {"component": "AmortizedCategorical", "one_hot": "AmortizedGumbel", "sphere": "AmortizedProjectedNormal"}
    special["code"] = "AmortizedDelta"
    return GUIDES[special.get(latent_kind(program(model)) or "", "AmortizedNormal-diagonal")]


def start_of(data: pv.Split | Tensor, *, model: Any = None, guide: Any = None) -> Start:
    """What start hooks are given of a split, or of what the model sees alone."""
    x = data if isinstance(data, Tensor) else data.transformed()
    return Start(model=model, guide=guide, split=data, rows=[x.flatten(1)], sample=x, seed=SEED)


def rows(kind: Kind, n: int = ROWS, *, dtype: torch.dtype = torch.float32, event: tuple[int, ...] = EVENT) -> Tensor:
    """Random data of a kind, ``(n, *event)``."""
    generator = torch.Generator().manual_seed(SEED)
    uniform = torch.rand(n, *event, generator=generator, dtype=dtype)
    draws: dict[Kind, Tensor] = {
        "binary": (uniform < 0.4).to(dtype),
        "unit_interval": uniform,
        "real": torch.randn(n, *event, generator=generator, dtype=dtype),
        "count": (10 * uniform).floor(),
        "categorical": (LEVELS * uniform).floor(),
    }
    return draws[kind]


def kind_for(model: pv.Model) -> Kind:
    """A kind of data that the model is a density of, the most particular one first."""
    if isinstance(getattr(model, "likelihood", None), pv.MixedTable):
        return "binary"  # zeros and ones lie in the support of every column
    kinds: tuple[Kind, ...] = ("real", "binary", "unit_interval", "count", "categorical")
    return next(kind for kind in kinds if kind in model.accepts)


def built_prior(
    prior: pv.Prior,
    shape: tuple[int, ...] = (LATENT,),
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> torch.nn.Module:
    """A prior's module with reproducible parameters that do not stand at their start, met with a guide if it needs one."""
    torch.manual_seed(SEED)
    module = prior.build(shape)
    if isinstance(module, MadeOfPosteriors):
        guide = pv.AmortizedNormal(encoder=pv.Linear()).build(SimpleNamespace(latent_shape=shape), PRIOR_SPEC)
        module.attach(guide.to(device, dtype).posterior, PRIOR_SPEC)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module.to(device, dtype)


def spec_for(model: pv.Model, *, size: int = 10 * ROWS) -> pv.DataSpec:
    """What the table's data look like to a model, as a batch of a larger set."""
    kind = kind_for(model)
    levels = LEVELS if kind == "categorical" else None
    return pv.DataSpec(event_shape=EVENT, kind=kind, size=size, levels=levels, fields=fields_for(model))


def fields_for(model: pv.Model) -> tuple[Field, ...]:
    """What the table's data have beside x for a model that reads it, after x: categories of two levels."""
    x = Field(name="x", event_shape=EVENT, kind="real")
    category = Field(name="", event_shape=(), kind="integer", levels=2, vocabulary=("even", "odd"))
    return (x, *(dataclasses.replace(category, name=name) for name in model.fields)) if model.fields else ()


def built(model: pv.Model, guide: pv.Guide | None = None, *, seed: int = SEED) -> pv.Pair:
    """A pair with reproducible parameters."""
    torch.manual_seed(seed)
    return pv.build(model, guide or guide_for(model), spec_for(model))
