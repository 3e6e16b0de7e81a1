"""The categorical prior of a one-hot code, and the distribution of several codes side by side."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints, kl_divergence

from ppl_vae.priors.base import Prior, Support

__all__ = ["GroupedOneHot", "OneHotCategorical", "OneHotGroups", "OneHotModule"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class OneHotCategorical(Prior):
    """z = e_k with k ~ Categorical(pi): one of as many classes as there are latent dimensions.

    Args:
        learned: whether pi is learned; otherwise the classes are equally likely.

    Examples:
        >>> OneHotCategorical().build((10,))().mean[0]
        tensor(0.1000)
    """

    support: ClassVar[Support] = "one_hot"
    categorical: ClassVar[bool] = True

    learned: bool = False

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """A module whose call returns the distribution on ``shape``, one-hot along the last axis."""
        return OneHotModule(dist.OneHotCategorical, torch.zeros(shape), learned=self.learned)

    def story(self, shape: tuple[int, ...]) -> str:
        """The density as text."""
        return "OneHot(Categorical(pi))" if self.learned else f"OneHot(Uniform{{1..{shape[-1] if shape else 'K'}}})"


class OneHotModule(nn.Module):
    """``logits`` of the classes along the last axis, a parameter if they are learned."""

    logits: Tensor

    def __init__(self, family: Any, logits: Tensor, *, learned: bool) -> None:
        super().__init__()
        self.family = family
        if learned:
            self.logits = nn.Parameter(logits)
        else:
            self.register_buffer("logits", logits, persistent=False)

    def forward(self) -> dist.Distribution:
        """p(z)."""
        codes = self.family(logits=self.logits)
        return codes.to_event(len(codes.batch_shape))


class OneHotGroups(constraints.Constraint):
    """Vectors that are ``groups`` one-hot vectors of one length side by side."""

    is_discrete = True
    event_dim = 1

    def __init__(self, groups: int) -> None:
        self.groups = groups

    def check(self, value: Tensor) -> Tensor:
        """Whether each vector ``(..., D)`` is one."""
        return constraints.one_hot.check(value.unflatten(-1, (self.groups, -1))).all(-1)


class GroupedOneHot(dist.TorchDistribution):
    """Independent one-hot codes as one vector; ``logits (..., G, K)`` give events ``(G K,)``."""

    arg_constraints: ClassVar[dict[str, Any]] = {"logits": constraints.independent(constraints.real, 2)}
    has_enumerate_support = True

    def __init__(self, logits: Tensor, validate_args: bool | None = None) -> None:
        self.logits = logits
        self.codes = dist.OneHotCategorical(logits=logits, validate_args=validate_args).to_event(1)
        self.groups, self.values = logits.shape[-2:]
        super().__init__(logits.shape[:-2], torch.Size((self.groups * self.values,)), validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=1)
    def support(self) -> Any:
        """One-hot codes side by side."""
        return OneHotGroups(self.groups)

    @property
    def mean(self) -> Tensor:
        """Probabilities of each code's values, ``(..., G K)``."""
        return self.codes.mean.flatten(-2)

    def expand(self, batch_shape: Any, _instance: Any = None) -> GroupedOneHot:
        """The same distribution over a larger batch."""
        return GroupedOneHot(self.logits.expand(*batch_shape, self.groups, self.values), validate_args=False)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws ``(*sample_shape, ..., G K)``."""
        return self.codes.sample(torch.Size(sample_shape)).flatten(-2)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-probability in nats."""
        if self._validate_args:
            self._validate_sample(value)
        return self.codes.log_prob(value.unflatten(-1, (self.groups, self.values)))

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All K^G values."""
        choices = torch.arange(self.values, device=self.logits.device).repeat(self.groups, 1)
        chosen = torch.cartesian_prod(*choices).reshape(-1, self.groups)
        values = torch.eye(self.values, dtype=self.logits.dtype, device=chosen.device)[chosen].flatten(-2)
        values = values.reshape(-1, *(1,) * len(self.batch_shape), *self.event_shape)
        return values.expand(-1, *self.batch_shape, *self.event_shape) if expand else values


@torch.distributions.register_kl(GroupedOneHot, GroupedOneHot)
def _kl_grouped(q: GroupedOneHot, p: GroupedOneHot) -> Tensor:
    """The sum of the groups' KLs."""
    if (q.groups, q.values) != (p.groups, p.values):
        raise NotImplementedError
    return kl_divergence(q.codes, p.codes)
