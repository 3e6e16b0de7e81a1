from .above import upper_bound
from .bethe import Beliefs, beliefs
from .gibbs import gibbs
from .grid import Field, Grid, energy, grid, one_hot
from .plan import LIMIT, plan
from .sums import Marginals, draws, log_partition, marginals, mode

__all__ = [
    "LIMIT",
    "Beliefs",
    "Field",
    "Grid",
    "Marginals",
    "beliefs",
    "draws",
    "energy",
    "gibbs",
    "grid",
    "log_partition",
    "marginals",
    "mode",
    "one_hot",
    "plan",
    "upper_bound",
]
