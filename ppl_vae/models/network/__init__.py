"""Bayesian networks: :class:`~ppl_vae.BayesianNetwork` and the nodes that it is made of."""

from ppl_vae.models.network.linear import LinearGaussian
from ppl_vae.models.network.logistic import LogisticRegression
from ppl_vae.models.network.network import BayesianNetwork
from ppl_vae.models.network.neural import Neural
from ppl_vae.models.network.nodes import Node
from ppl_vae.models.network.noisy_or import NoisyOr
from ppl_vae.models.network.table import Table

__all__ = ["BayesianNetwork", "LinearGaussian", "LogisticRegression", "Neural", "Node", "NoisyOr", "Table"]
