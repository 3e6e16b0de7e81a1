"""Declared generative latent-variable models on Pyro: one declaration, any inference, honest numbers in nats per datum."""

from ppl_vae.data import Data, DataSource, Split, Transform, load_data
from ppl_vae.declaration import Declaration
from ppl_vae.evaluate import evaluate
from ppl_vae.guides import AmortizedCategorical, AmortizedLinear, AmortizedNormal, BayesianGuide, ExactPosterior, Guide
from ppl_vae.inference import ELBO, EM, NUTS, SVI, ClosedForm, Comparison, Fit, Method, Objective, build, compare, fit
from ppl_vae.likelihoods import Bernoulli, Gaussian, Likelihood
from ppl_vae.models import GMM, PPCA, VAE, FactorAnalysis, Model
from ppl_vae.nn import MLP, Linear, Network
from ppl_vae.pair import Pair, data_plate
from ppl_vae.priors import Dirichlet, GaussianMixture, HalfNormal, InverseWishart, LogNormal, Normal, Prior, StandardNormal
from ppl_vae.runs import load_run, save_run
from ppl_vae.types import DataSpec

__all__ = [
    "ELBO",
    "EM",
    "GMM",
    "MLP",
    "NUTS",
    "PPCA",
    "SVI",
    "VAE",
    "AmortizedCategorical",
    "AmortizedLinear",
    "AmortizedNormal",
    "BayesianGuide",
    "Bernoulli",
    "ClosedForm",
    "Comparison",
    "Data",
    "DataSource",
    "DataSpec",
    "Declaration",
    "Dirichlet",
    "ExactPosterior",
    "FactorAnalysis",
    "Fit",
    "Gaussian",
    "GaussianMixture",
    "Guide",
    "HalfNormal",
    "InverseWishart",
    "Likelihood",
    "Linear",
    "LogNormal",
    "Method",
    "Model",
    "Network",
    "Normal",
    "Objective",
    "Pair",
    "Prior",
    "Split",
    "StandardNormal",
    "Transform",
    "build",
    "compare",
    "data_plate",
    "evaluate",
    "fit",
    "load_data",
    "load_run",
    "save_run",
]

__version__ = "0.1.0"
