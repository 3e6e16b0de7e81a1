"""Student's t likelihood."""

from __future__ import annotations

import dataclasses
import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppl_vae import stable
from ppl_vae.declaration import require
from ppl_vae.likelihoods.scales import Family, LocationScale

__all__ = ["StudentT"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudentT(LocationScale):
    """p(x | h) = prod_d t_df((x_d - h_d) / scale_d) / scale_d: tails that outliers do not pull.

        t_df(y) = Gamma((df + 1) / 2) / (Gamma(df / 2) sqrt(pi df)) (1 + y^2 / df)^(-(df + 1) / 2)

    Lange, Little and Taylor 1989, "Robust statistical modeling using the t distribution".

    Args:
        scale: ``fixed``, ``shared``, ``per_feature`` or ``amortized``, as for ``Gaussian``; the standard deviation is larger,
            ``scale sqrt(df / (df - 2))``.
        value: the fixed scale, or where a learned one starts, in the units of the data the model sees.
        floor: a learned scale stays above it.
        df: degrees of freedom, above 1 so that the mean exists; infinitely many are the Gaussian.
        learned: whether ``df``, one for all elements, is learned from there.

    Raises:
        ValueError: degrees of freedom of 1 or less, or what ``Gaussian`` raises.

    Examples:
        >>> StudentT(df=3.0).build((2,))(torch.zeros(1, 2)).base_dist.df
        tensor([3., 3.])
    """

    df: float = 5.0
    learned: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(1 < self.df < math.inf, "finite degrees of freedom above 1", self.df)

    def family(self) -> Family:
        """Student's t distribution, with its degrees of freedom."""
        return StudentTFamily(self.df, learned=self.learned)


class StudentTFamily(nn.Module):
    """Locations and scales to distributions; ``df = 1 + exp(log_excess)``."""

    log_excess: Tensor

    def __init__(self, df: float, *, learned: bool) -> None:
        super().__init__()
        log_excess = torch.tensor(math.log(df - 1))
        if learned:
            self.log_excess = nn.Parameter(log_excess)
        else:
            self.register_buffer("log_excess", log_excess, persistent=False)

    def forward(self, loc: Tensor, scale: Tensor) -> dist.Distribution:
        """The distribution of each element."""
        return stable.StudentT(1 + self.log_excess.exp(), loc, scale)
