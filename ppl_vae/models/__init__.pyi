from .autoencoder import AutoEncoder
from .base import Model
from .baseline import Baseline
from .chains import HMM, LinearDynamicalSystem, MarkovChain
from .codes import EMA, VQVAE, Codebook, CodebookUpdate, Gradient
from .conditions import Columns, Condition, Covariates, Labels, Quadrants
from .cvae import CVAE
from .diffusion import CosineNoise, Diffusion, LearnedNoise, LinearNoise, NoiseSchedule
from .gmm import GMM
from .group import Group
from .hierarchical import HierarchicalVAE
from .lattice import Flip, GaussianNoise, Ising, Lattice, Noise, Potts
from .linear_gaussian import PPCA, FactorAnalysis
from .network import BayesianNetwork, LinearGaussian, LogisticRegression, Neural, Node, NoisyOr, Table
from .pca import PCA
from .semi_supervised import SemiSupervisedVAE
from .sequence_model import SequenceModel
from .stacked import StackedSemiSupervisedVAE
from .topics import LDA
from .vae import VAE

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
    "StackedSemiSupervisedVAE",
    "Table",
]
