"""Generative stories p(x, z)."""

from ppl_vae.models.autoencoder import AutoEncoder
from ppl_vae.models.base import Model
from ppl_vae.models.baseline import Baseline
from ppl_vae.models.conditions import Columns, Condition, Covariates, Labels, Quadrants
from ppl_vae.models.cvae import CVAE
from ppl_vae.models.gmm import GMM
from ppl_vae.models.group import Group
from ppl_vae.models.hierarchical import HierarchicalVAE
from ppl_vae.models.linear_gaussian import PPCA, FactorAnalysis
from ppl_vae.models.network import BayesianNetwork, LinearGaussian, LogisticRegression, Node, NoisyOr, Table
from ppl_vae.models.pca import PCA
from ppl_vae.models.semi_supervised import SemiSupervisedVAE
from ppl_vae.models.vae import VAE

__all__ = [
    "CVAE",
    "GMM",
    "PCA",
    "PPCA",
    "VAE",
    "AutoEncoder",
    "Baseline",
    "BayesianNetwork",
    "Columns",
    "Condition",
    "Covariates",
    "FactorAnalysis",
    "Group",
    "HierarchicalVAE",
    "Labels",
    "LinearGaussian",
    "LogisticRegression",
    "Model",
    "Node",
    "NoisyOr",
    "Quadrants",
    "SemiSupervisedVAE",
    "Table",
]
