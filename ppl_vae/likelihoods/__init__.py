"""Likelihoods p(x | h), one family a file."""

from ppl_vae.likelihoods.auto import Auto
from ppl_vae.likelihoods.base import Likelihood
from ppl_vae.likelihoods.bernoulli import Bernoulli
from ppl_vae.likelihoods.beta import Beta
from ppl_vae.likelihoods.binomial import Binomial
from ppl_vae.likelihoods.categorical import Categorical
from ppl_vae.likelihoods.continuous_bernoulli import ContinuousBernoulli
from ppl_vae.likelihoods.discretized_logistic import DiscretizedLogistic, DiscretizedLogisticMixture
from ppl_vae.likelihoods.gaussian import Gaussian
from ppl_vae.likelihoods.laplace import Laplace
from ppl_vae.likelihoods.logit_normal import LogitNormal
from ppl_vae.likelihoods.low_rank_gaussian import LowRankGaussian
from ppl_vae.likelihoods.masked import Masked
from ppl_vae.likelihoods.mixed_table import ColumnGroup, MixedTable
from ppl_vae.likelihoods.mixture_density import MixtureDensity
from ppl_vae.likelihoods.multinomial import Multinomial
from ppl_vae.likelihoods.negative_binomial import NegativeBinomial
from ppl_vae.likelihoods.poisson import Poisson
from ppl_vae.likelihoods.strokes import Strokes
from ppl_vae.likelihoods.student_t import StudentT
from ppl_vae.likelihoods.tokens import Tokens
from ppl_vae.likelihoods.zero_inflated import ZeroInflated

__all__ = [
    "Auto",
    "Bernoulli",
    "Beta",
    "Binomial",
    "Categorical",
    "ColumnGroup",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "Gaussian",
    "Laplace",
    "Likelihood",
    "LogitNormal",
    "LowRankGaussian",
    "Masked",
    "MixedTable",
    "MixtureDensity",
    "Multinomial",
    "NegativeBinomial",
    "Poisson",
    "Strokes",
    "StudentT",
    "Tokens",
    "ZeroInflated",
]
