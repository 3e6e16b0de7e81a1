"""The Student-t prior."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from torch import Tensor

from ppl_vae import stable
from ppl_vae.declaration import require
from ppl_vae.priors.values import LocationScale, as_text

__all__ = ["StudentTPrior"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudentTPrior(LocationScale):
    """p(z) proportional to prod_k (1 + u_k^2 / df)^(-(df + 1) / 2), u_k = (z_k - loc_k) / scale_k.

    Its tails are heavy: codes far out cost little. df = 1 is the Cauchy distribution.

    Args:
        loc: median, one for all dimensions or one each.
        scale: likewise; above df = 2 the standard deviation is sqrt(df / (df - 2)) times as large.
        df: degrees of freedom; the normal distribution is the limit of many.

    Raises:
        ValueError: a loc that is not finite, a scale or df that is not positive; on building, a number of values that is not
            the number of dimensions.

    Examples:
        >>> StudentTPrior(df=4.0).build((3,))().variance
        tensor([2., 2., 2.])
    """

    df: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.df < math.inf, "positive degrees of freedom df", self.df)

    def family(self, loc: Tensor, scale: Tensor) -> Any:
        """StudentT(df, loc, scale)."""
        return stable.StudentT(loc.new_tensor(self.df), loc, scale)

    def story(self, shape: tuple[int, ...]) -> str:
        """The density as text."""
        return f"StudentT({self.df:g}, {as_text(self.loc)}, {as_text(self.scale)})"
