"""Generative stories p(x, z)."""

from ppl_vae.models.autoencoder import AutoEncoder
from ppl_vae.models.base import Model
from ppl_vae.models.baseline import Baseline
from ppl_vae.models.chains import HMM, LinearDynamicalSystem, MarkovChain
from ppl_vae.models.codes import EMA, VQVAE, Codebook, CodebookUpdate, Gradient
from ppl_vae.models.conditions import Columns, Condition, Covariates, Labels, Quadrants
from ppl_vae.models.cvae import CVAE
from ppl_vae.models.diffusion import CosineNoise, Diffusion, LearnedNoise, LinearNoise, NoiseSchedule
from ppl_vae.models.gmm import GMM
from ppl_vae.models.group import Group
from ppl_vae.models.hierarchical import HierarchicalVAE
from ppl_vae.models.lattice import Flip, GaussianNoise, Ising, Lattice, Noise, Potts
from ppl_vae.models.linear_gaussian import PPCA, FactorAnalysis
from ppl_vae.models.network import BayesianNetwork, LinearGaussian, LogisticRegression, Neural, Node, NoisyOr, Table
from ppl_vae.models.pca import PCA
from ppl_vae.models.semi_supervised import SemiSupervisedVAE
from ppl_vae.models.sequence_model import SequenceModel
from ppl_vae.models.topics import LDA
from ppl_vae.models.vae import VAE

__all__ = [
    "CVAE",
    "EMA",
    "GMM",
    "HMM",
    "LDA",
    "PCA",
    "PPCA",
    "VAE",
    "VQVAE",
    "AutoEncoder",
    "Baseline",
    "BayesianNetwork",
    "Codebook",
    "CodebookUpdate",
    "Columns",
    "Condition",
    "CosineNoise",
    "Covariates",
    "Diffusion",
    "FactorAnalysis",
    "Flip",
    "GaussianNoise",
    "Gradient",
    "Group",
    "HierarchicalVAE",
    "Ising",
    "Labels",
    "Lattice",
    "LearnedNoise",
    "LinearDynamicalSystem",
    "LinearGaussian",
    "LinearNoise",
    "LogisticRegression",
    "MarkovChain",
    "Model",
    "Neural",
    "Node",
    "Noise",
    "NoiseSchedule",
    "NoisyOr",
    "Potts",
    "Quadrants",
    "SemiSupervisedVAE",
    "SequenceModel",
    "Table",
]
