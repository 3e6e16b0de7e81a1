"""The catalogue as a table of constructors, and the sizes, seeds and tolerances of its laws."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

import ppl_vae as pv
from ppl_vae.types import Kind

EVENT = (1, 3, 4)
LATENT = 3
ROWS = 24
SEED = 0

TINY = pv.MLP(hidden=(7,))

PRIORS: dict[str, pv.Prior] = {
    "StandardNormal": pv.StandardNormal(),
    "GaussianMixture": pv.GaussianMixture(components=4),
    "Normal": pv.Normal(loc=0.5, scale=2.0),
}

LIKELIHOODS: dict[str, pv.Likelihood] = {
    "Bernoulli": pv.Bernoulli(),
    "Gaussian-fixed": pv.Gaussian(scale="fixed"),
    "Gaussian-shared": pv.Gaussian(scale="shared"),
    "Gaussian-per_feature": pv.Gaussian(scale="per_feature"),
    "Gaussian-amortized": pv.Gaussian(scale="amortized"),
}

NETWORKS: dict[str, pv.Network] = {
    "Linear": pv.Linear(),
    "Linear-no-bias": pv.Linear(bias=False),
    "MLP": TINY,
    "MLP-deep": pv.MLP(hidden=(5, 6), activation="tanh"),
    "MLP-none": pv.MLP(hidden=()),
}

GUIDES: dict[str, pv.Guide] = {
    "AmortizedNormal-diagonal": pv.AmortizedNormal(encoder=TINY),
    "AmortizedNormal-full": pv.AmortizedNormal(encoder=TINY, covariance="full"),
    "AmortizedLinear-diagonal": pv.AmortizedLinear(covariance="diagonal"),
    "AmortizedLinear-full": pv.AmortizedLinear(),
    "AmortizedCategorical": pv.AmortizedCategorical(encoder=TINY),
    "ExactPosterior": pv.ExactPosterior(),
}

OBJECTIVES: dict[str, pv.Objective] = {
    "ELBO-analytic": pv.ELBO(),
    "ELBO-sampled": pv.ELBO(kl="sampled"),
    "ELBO-particles": pv.ELBO(particles=3),
    "ELBO-particles-sampled": pv.ELBO(particles=3, kl="sampled"),
}

METHODS: dict[str, pv.Method] = {
    "SVI": pv.SVI(),
    "SVI-other": pv.SVI(optimizer="sgd", schedule="exponential", clip_norm=1.0, patience=2, restore_best=True, seed=3),
    "EM": pv.EM(),
    "EM-other": pv.EM(max_iterations=7, tolerance=1e-3, n_init=2, acceleration="none", seed=3),
    "ClosedForm": pv.ClosedForm(),
}


def vae(**changes: Any) -> pv.VAE:
    """A small VAE with the named parts replaced."""
    return dataclasses.replace(pv.VAE(latent_dim=LATENT, decoder=TINY), **changes)


MODELS: dict[str, pv.Model] = {
    **{f"VAE-{name}": vae(prior=prior) for name, prior in PRIORS.items()},
    **{f"VAE-{name}": vae(likelihood=likelihood) for name, likelihood in LIKELIHOODS.items()},
    **{f"VAE-{name}": vae(decoder=network) for name, network in NETWORKS.items()},
    "FactorAnalysis": pv.FactorAnalysis(latent_dim=LATENT),
    "FactorAnalysis-isotropic": pv.FactorAnalysis(latent_dim=LATENT, noise="isotropic"),
    "FactorAnalysis-Normal": pv.FactorAnalysis(latent_dim=LATENT, prior=pv.Normal(loc=(0.5, -1.0, 2.0), scale=(1.0, 2.0, 0.5))),
    "PPCA": pv.PPCA(latent_dim=LATENT),
    **{
        f"GMM-{covariance}": pv.GMM(components=LATENT, covariance=covariance)
        for covariance in ("full", "tied", "diagonal", "spherical")
    },
}

EXACT = {name: model for name, model in MODELS.items() if model.posterior_family != "unknown"}

DECLARATIONS: dict[str, pv.Declaration] = {
    **PRIORS,
    **LIKELIHOODS,
    **NETWORKS,
    **GUIDES,
    **OBJECTIVES,
    **METHODS,
    **MODELS,
    "DataSource": pv.DataSource(source="mnist", binarize="dynamic", valid=0.05),
}


def fits(model: pv.Model, guide: pv.Guide) -> bool:
    """Whether the guide is one of the model's posterior; :func:`ppl_vae.build` refuses every other pair."""
    bayesian = isinstance(guide, pv.BayesianGuide)
    if bayesian != bool(model.parameter_priors):
        return False
    guide = guide.latents if isinstance(guide, pv.BayesianGuide) else guide
    if isinstance(guide, pv.ExactPosterior):
        return model.posterior_family != "unknown"
    return isinstance(guide, pv.AmortizedCategorical) == (model.posterior_family == "discrete")


def latent_site(model: pv.Model) -> tuple[str, tuple[int, ...]]:
    """Name and event shape of the model's latent site."""
    return ("k", ()) if model.posterior_family == "discrete" else ("z", (LATENT,))


def guide_for(model: pv.Model) -> pv.Guide:
    """An amortized guide of the model's latent variable."""
    return GUIDES["AmortizedCategorical" if model.posterior_family == "discrete" else "AmortizedNormal-diagonal"]


def rows(kind: Kind, n: int = ROWS, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Random data of a kind, ``(n, *EVENT)``."""
    generator = torch.Generator().manual_seed(SEED)
    uniform = torch.rand(n, *EVENT, generator=generator, dtype=dtype)
    draws: dict[Kind, Tensor] = {
        "binary": (uniform < 0.4).to(dtype),
        "unit_interval": uniform,
        "real": torch.randn(n, *EVENT, generator=generator, dtype=dtype),
        "count": (10 * uniform).floor(),
    }
    return draws[kind]


def kind_for(model: pv.Model) -> Kind:
    """A kind of data that the model is a density of, the most particular one first."""
    return "real" if "real" in model.accepts else "binary"


def spec_for(model: pv.Model, *, size: int = 10 * ROWS) -> pv.DataSpec:
    """What the table's data look like to a model, as a batch of a larger set."""
    return pv.DataSpec(event_shape=EVENT, kind=kind_for(model), size=size)


def built(model: pv.Model, guide: pv.Guide | None = None, *, seed: int = SEED) -> pv.Pair:
    """A pair with reproducible parameters."""
    torch.manual_seed(seed)
    return pv.build(model, guide or guide_for(model), spec_for(model))
