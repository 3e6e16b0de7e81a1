from .base import Guide
from .bayesian import BayesianGuide
from .bottom_up import BottomUp
from .categorical import AmortizedCategorical
from .classifier import AmortizedClassifier
from .delta import AmortizedDelta
from .exact import ExactPosterior
from .flow import AmortizedFlow
from .gumbel import AmortizedGumbel
from .linear import AmortizedLinear
from .mean_field import MeanField
from .mixture import AmortizedMixture
from .nearest_code import NearestCode
from .noising import Noising
from .normal import AmortizedNormal
from .projected_normal import AmortizedProjectedNormal
from .semi_amortized import SemiAmortized
from .stacked import StackedClassifier
from .top_down import TopDown

__all__ = [
    "AmortizedCategorical",
    "AmortizedClassifier",
    "AmortizedDelta",
    "AmortizedFlow",
    "AmortizedGumbel",
    "AmortizedLinear",
    "AmortizedMixture",
    "AmortizedNormal",
    "AmortizedProjectedNormal",
    "BayesianGuide",
    "BottomUp",
    "ExactPosterior",
    "Guide",
    "MeanField",
    "NearestCode",
    "Noising",
    "SemiAmortized",
    "StackedClassifier",
    "TopDown",
]
