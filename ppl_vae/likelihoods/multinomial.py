"""The multinomial likelihood: documents as counts of words."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppl_vae.likelihoods.base import Likelihood
from ppl_vae.program.hooks import Start
from ppl_vae.stable import log_multinomial
from ppl_vae.types import COUNT, Kind

__all__ = ["LENGTH", "Multinomial", "MultinomialDistribution", "MultinomialModule", "typical_total"]

LENGTH = 100.0  # of new data before a fit has seen any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Multinomial(Likelihood):
    r"""p(x | h, n) = n! / prod_d x_d! prod_d p_d^x_d, p = softmax(h) over all elements, n = sum_d x_d, for counts x.

    How long a document is stands outside the model: every number is given its total. New data are drawn with the mean total of
    the training data. Of topic models Srivastava and Sutton 2017, "Autoencoding variational inference for topic models".

    Examples:
        >>> p = Multinomial().build((3,))(torch.zeros(1, 3))
        >>> p.log_prob(torch.tensor([1.0, 1.0, 0.0])).exp()
        tensor(0.2222)
    """

    accepts: ClassVar[frozenset[Kind]] = frozenset({COUNT})
    factorizes: ClassVar[bool] = False
    discrete: ClassVar[bool] = True

    @property
    def features(self) -> int:
        """One logit per element."""
        return 1

    def build(self, event_shape: tuple[int, ...]) -> nn.Module:
        """A module from logits ``(..., 1, *event_shape)`` to the distribution."""
        return MultinomialModule(len(event_shape))

    def story(self, features: str) -> str:
        """The density as text."""
        return f"Multinomial(total of x, softmax {features})"


class MultinomialModule(nn.Module):
    """Logits to the distribution of a datum; ``total`` is the length of new data, 100 before a fit."""

    total: Tensor

    def __init__(self, event_dim: int) -> None:
        super().__init__()
        self.event_dim = event_dim
        self.register_buffer("total", torch.tensor(LENGTH))

    def forward(self, features: Tensor) -> dist.Distribution:
        """p(x | h) for features h ``(..., P, *event)``."""
        logits = features.squeeze(-1 - self.event_dim)
        log = logits.flatten(-self.event_dim).log_softmax(-1)
        return MultinomialDistribution(log.unflatten(-1, logits.shape[-self.event_dim :]), self.total, self.event_dim)

    def start_fit(self, context: Start) -> None:
        """Take the mean total."""
        self.total.copy_(typical_total(context.sample))


def typical_total(x: Tensor) -> Tensor:
    """The mean total of data ``(N, *event)``, a whole number of at least 1."""
    return x.flatten(1).sum(1).double().mean().round().clamp_min(1)


class MultinomialDistribution(dist.TorchDistribution):
    """Counts of an event of any shape, given their total.

    Args:
        log_probs: logarithms of probabilities ``(*batch, *event)`` that sum to one over the event.
        total: how many are drawn, and what the mean sums to; the log-probability takes the total of what it is asked of.
        event_dim: how many axes an event has.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, log_probs: Tensor, total: Tensor, event_dim: int = 1, validate_args: bool | None = None) -> None:
        self.log_probs, self.total = log_probs, total
        split = log_probs.dim() - event_dim
        super().__init__(log_probs.shape[:split], log_probs.shape[split:], validate_args=validate_args)

    @property
    def support(self) -> Any:
        """Whole numbers of at least 0."""
        return dist.constraints.independent(dist.constraints.nonnegative_integer, self.event_dim)

    @property
    def probs(self) -> Tensor:
        """Of one word, ``(*batch, *event)``."""
        return self.log_probs.exp()

    @property
    def mean(self) -> Tensor:
        """The total times the probabilities."""
        return self.total * self.probs

    @property
    def variance(self) -> Tensor:
        """Of each element, n p (1 - p)."""
        return self.mean * (1 - self.probs)

    def expand(self, batch_shape: Any, _instance: Any = None) -> MultinomialDistribution:
        """The same distribution with a larger batch shape."""
        log_probs = self.log_probs.expand(torch.Size(batch_shape) + self.event_shape)
        return MultinomialDistribution(log_probs, self.total, self.event_dim, validate_args=self._validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-probability of counts given their total, with its coefficient: of the counts, in whatever order they came."""
        if self._validate_args:
            self._validate_sample(value)
        log_probs = self.log_probs.flatten(-self.event_dim)
        return log_multinomial(value.flatten(-self.event_dim).to(log_probs.dtype), log_probs)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Counts of as many words as the total."""
        with torch.no_grad():
            shape = self._extended_shape(torch.Size(sample_shape))
            probs = self.probs.expand(shape).flatten(-self.event_dim)
            batch, total = probs.shape[:-1], int(self.total)
            words = probs.reshape(-1, probs.shape[-1]).multinomial(total, replacement=True)
            counts = probs.new_zeros(math.prod(batch), probs.shape[-1])
            return counts.scatter_add_(1, words, torch.ones_like(words, dtype=probs.dtype)).reshape(shape)
