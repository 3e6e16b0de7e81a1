"""Approximate posteriors q(z | x)."""

from ppl_vae.guides.base import Guide
from ppl_vae.guides.bayesian import BayesianGuide
from ppl_vae.guides.bottom_up import BottomUp
from ppl_vae.guides.categorical import AmortizedCategorical
from ppl_vae.guides.classifier import AmortizedClassifier
from ppl_vae.guides.delta import AmortizedDelta
from ppl_vae.guides.exact import ExactPosterior
from ppl_vae.guides.flow import AmortizedFlow
from ppl_vae.guides.gumbel import AmortizedGumbel
from ppl_vae.guides.linear import AmortizedLinear
from ppl_vae.guides.mean_field import MeanField
from ppl_vae.guides.mixture import AmortizedMixture
from ppl_vae.guides.nearest_code import NearestCode
from ppl_vae.guides.noising import Noising
from ppl_vae.guides.normal import AmortizedNormal
from ppl_vae.guides.projected_normal import AmortizedProjectedNormal
from ppl_vae.guides.semi_amortized import SemiAmortized
from ppl_vae.guides.top_down import TopDown

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
    "TopDown",
]
