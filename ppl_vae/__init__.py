"""Declared generative latent-variable models on Pyro: one declaration, any inference, honest numbers in nats per datum."""

from ppl_vae.data import Data, DataSource, Split, Transform, load_data
from ppl_vae.declaration import Declaration
from ppl_vae.evaluate import evaluate
from ppl_vae.guides import AmortizedCategorical, AmortizedLinear, AmortizedNormal, ExactPosterior, Guide
from ppl_vae.inference import ELBO, EM, SVI, ClosedForm, Fit, Method, Objective, build, fit
from ppl_vae.likelihoods import Bernoulli, Gaussian, Likelihood
from ppl_vae.models import GMM, PPCA, VAE, FactorAnalysis, Model
from ppl_vae.nn import MLP, Linear, Network
from ppl_vae.pair import Pair, data_plate
from ppl_vae.priors import GaussianMixture, Normal, Prior, StandardNormal
from ppl_vae.runs import load_run, save_run
from ppl_vae.types import DataSpec

__all__ = [
    "ELBO",
    "EM",
    "GMM",
    "MLP",
    "PPCA",
    "SVI",
    "VAE",
    "AmortizedCategorical",
    "AmortizedLinear",
    "AmortizedNormal",
    "Bernoulli",
    "ClosedForm",
    "Data",
    "DataSource",
    "DataSpec",
    "Declaration",
    "ExactPosterior",
    "FactorAnalysis",
    "Fit",
    "Gaussian",
    "GaussianMixture",
    "Guide",
    "Likelihood",
    "Linear",
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
    "data_plate",
    "evaluate",
    "fit",
    "load_data",
    "load_run",
    "save_run",
]

__version__ = "0.1.0"
