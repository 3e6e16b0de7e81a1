from .base import Condition
from .columns import Columns
from .covariates import Covariates
from .labels import Labels
from .quadrants import Quadrants

__all__ = ["Columns", "Condition", "Covariates", "Labels", "Quadrants"]
