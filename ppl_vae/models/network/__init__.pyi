from .linear import LinearGaussian
from .logistic import LogisticRegression
from .network import BayesianNetwork
from .neural import Neural
from .nodes import Node
from .noisy_or import NoisyOr
from .table import Table

__all__ = ["BayesianNetwork", "LinearGaussian", "LogisticRegression", "Neural", "Node", "NoisyOr", "Table"]
