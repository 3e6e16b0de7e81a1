from .auto import Auto
from .base import Likelihood
from .bernoulli import Bernoulli
from .beta import Beta
from .binomial import Binomial
from .categorical import Categorical
from .continuous_bernoulli import ContinuousBernoulli
from .discretized_logistic import DiscretizedLogistic, DiscretizedLogisticMixture
from .gaussian import Gaussian
from .laplace import Laplace
from .logit_normal import LogitNormal
from .low_rank_gaussian import LowRankGaussian
from .masked import Masked
from .mixed_table import ColumnGroup, MixedTable
from .mixture_density import MixtureDensity
from .multinomial import Multinomial
from .negative_binomial import NegativeBinomial
from .poisson import Poisson
from .strokes import Strokes
from .student_t import StudentT
from .tokens import Tokens
from .zero_inflated import ZeroInflated

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
