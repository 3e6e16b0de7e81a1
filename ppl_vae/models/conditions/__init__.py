"""What a conditional model is given: labels or covariates beside the data, or a part of the data, one kind a file."""

from ppl_vae.models.conditions.base import Condition
from ppl_vae.models.conditions.columns import Columns
from ppl_vae.models.conditions.covariates import Covariates
from ppl_vae.models.conditions.labels import Labels
from ppl_vae.models.conditions.quadrants import Quadrants

__all__ = ["Columns", "Condition", "Covariates", "Labels", "Quadrants"]
