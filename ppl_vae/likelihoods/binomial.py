"""The binomial likelihood."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import pyro.distributions as dist
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from ppl_vae.declaration import require
from ppl_vae.likelihoods.base import Likelihood
from ppl_vae.stable import log_binomial
from ppl_vae.types import CATEGORICAL, COUNT, DataSpec, Kind

__all__ = ["Binomial", "LogitBinomial"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Binomial(Likelihood):
    """p(x | h) = prod_d (total choose x_d) sigmoid(h_d)^x_d (1 - sigmoid(h_d))^(total - x_d), for x in {0, ..., total}^D.

    For numbers of successes, or gray levels taken for the sum of ``total`` equal bits.

    Args:
        total: the number of trials behind each element.

    Raises:
        ValueError: a total below 1.

    Examples:
        >>> Binomial(total=16).build((2,))(torch.zeros(1, 2)).mean
        tensor([8., 8.])
    """

    accepts: ClassVar[frozenset[Kind]] = frozenset({COUNT, CATEGORICAL})
    discrete: ClassVar[bool] = True

    total: int = 255

    def __post_init__(self) -> None:
        require(isinstance(self.total, int) and self.total >= 1, "a total of at least 1", self.total)

    @property
    def features(self) -> int:
        """One logit per element."""
        return 1

    def check(self, spec: DataSpec) -> None:
        """Raise ``ValueError`` if the data are of another kind, or known to have values above the total."""
        super().check(spec)
        if spec.levels is not None and spec.levels > self.total + 1:
            raise ValueError(
                f"expected values of at most the total {self.total}, got values up to {spec.levels - 1}: "
                f"use Binomial(total={spec.levels - 1})"
            )

    def build(self, event_shape: tuple[int, ...]) -> nn.Module:
        """A module from logits ``(..., 1, *event_shape)`` to the distribution."""
        return BinomialModule(len(event_shape), self.total)

    def story(self, features: str) -> str:
        """The density as text."""
        return f"Binomial({self.total}, logits = {features})"


class BinomialModule(nn.Module):
    """Logits to the distribution of a datum."""

    def __init__(self, event_dim: int, total: int) -> None:
        super().__init__()
        self.event_dim = event_dim
        self.total = total

    def forward(self, features: Tensor) -> dist.Distribution:
        """p(x | h) for features h ``(..., P, *event)``."""
        logits = features.squeeze(-1 - self.event_dim)
        return LogitBinomial(logits.new_full((), self.total), logits).to_event(self.event_dim)


class LogitBinomial(dist.Binomial):
    """Pyro's, with a log-probability that keeps its digits for many trials."""

    def __init__(self, total: Tensor, logits: Tensor, validate_args: bool | None = None) -> None:
        self.total = total  # in as few elements as it has
        super().__init__(total, logits=logits, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> LogitBinomial:
        """The same distribution with a larger batch shape."""
        return LogitBinomial(self.total, self.logits.expand(batch_shape), validate_args=self._validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-probability of numbers of successes."""
        if self._validate_args:
            self._validate_sample(value)
        log_p, log_q = logsigmoid(self.logits), logsigmoid(-self.logits)
        return log_binomial(value, self.total - value, log_p, log_q, n=self.total)
