"""A distribution over a tree of sites.

    p(z_1, ..., z_L) = prod_l p(z_l | z_1, ..., z_(l-1))

Its factors stand in the order of the story, and each may depend on the draws before it. It answers as a distribution of torch
does, with mappings by name where that has tensors, after ``distrax.Joint`` (Babuschkin et al. 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyro
import torch
from pyro.distributions import MaskedDistribution
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    TransformedDistribution,
    kl_divergence,
    register_kl,
)

from ppl_vae.program.sites import by_name

__all__ = ["Factor", "Joint", "central_value", "draw"]

Values = dict[str, Tensor]
Factor = Distribution | Callable[[Values], Distribution]
"""A factor: a distribution, or a function of the draws before it, by name."""


class Joint:
    """A distribution over several sites.

    Args:
        factors: by name and in the order of the story, each a distribution or a function of the values before it, all of one
            batch shape.

    Raises:
        ValueError: no factor.

    Examples:
        >>> import pyro.distributions as dist
        >>> p = Joint({"z2": dist.Normal(torch.zeros(2), 1.0).to_event(1),
        ...            "z1": lambda z: dist.Normal(z["z2"].sum(-1, keepdim=True), 1.0).to_event(1)})
        >>> {name: tuple(value.shape) for name, value in p.sample((5,)).items()}
        {'z2': (5, 2), 'z1': (5, 1)}
        >>> p.mean["z1"]
        tensor([0.])
    """

    def __init__(self, factors: Mapping[str, Factor]) -> None:
        if not factors:
            raise ValueError("expected at least one factor, got none: a program without latent variables has no joint of them")
        self._factors = dict(factors)
        self._walked: tuple[Values, dict[str, Distribution]] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Of the sites, in the order of the story."""
        return tuple(self._factors)

    @property
    def batch_shape(self) -> torch.Size:
        """Shape of a ``log_prob``."""
        first = next(iter(self._factors.values()))
        return (first if isinstance(first, Distribution) else first({})).batch_shape

    @property
    def event_shape(self) -> dict[str, torch.Size]:
        """Shape of one value of each site."""
        return {name: factor.event_shape for name, factor in self._anywhere().items()}

    @property
    def support(self) -> dict[str, Any]:
        """Where each site lies."""
        return {name: factor.support for name, factor in self._anywhere().items()}

    @property
    def mean(self) -> Values:
        """The mean of each factor at the means before it, ``(*batch, *event)``; the mode of what is discrete."""
        return self._at_means()[0]

    @property
    def stddev(self) -> Values:
        """Standard deviations of each factor at the means before it."""
        return {name: factor.stddev for name, factor in self._at_means()[1].items()}

    def walk(self, take: Callable[[str, Distribution], Tensor]) -> tuple[Values, dict[str, Distribution]]:
        """Values and factors, where ``take`` gives each value from its name and its factor, in the order of the story."""
        values: Values = {}
        found: dict[str, Distribution] = {}
        for name, factor in self._factors.items():
            found[name] = factor if isinstance(factor, Distribution) else factor(values)
            values = {**values, name: take(name, found[name])}
        return values, found

    def given(self, values: Mapping[str, Tensor]) -> dict[str, Distribution]:
        """The factors at these values, ``(..., *event)`` by name.

        Raises:
            ValueError: values of other names.
        """
        values = by_name(self._factors, values)
        return self.walk(lambda name, factor: values[name])[1]

    def sample(self, sample_shape: tuple[int, ...] = ()) -> Values:
        """Draws ``(*sample_shape, *batch, *event)`` by name, without gradients."""
        with torch.no_grad():
            return self._drawn(sample_shape, lambda factor, shape: factor.sample(shape))

    def rsample(self, sample_shape: tuple[int, ...] = ()) -> Values:
        """Draws with gradients, of factors that have such."""
        return self._drawn(sample_shape, lambda factor, shape: factor.rsample(shape))

    def log_prob(self, values: Mapping[str, Tensor]) -> Tensor:
        """Log-density at these values, the sum over the factors."""
        found = self.given(values)
        return torch.stack(torch.broadcast_tensors(*(factor.log_prob(values[name]) for name, factor in found.items()))).sum(0)

    def expand(self, batch_shape: Any) -> Joint:
        """As many independent copies; factors that depend on earlier ones follow their draws."""
        return Joint(
            {
                name: factor.expand(torch.Size(batch_shape)) if isinstance(factor, Distribution) else factor
                for name, factor in self._factors.items()
            }
        )

    def follows(self, other: Joint) -> bool:
        """Whether each site is drawn after those that its factor of ``other`` may depend on."""
        return all(self._may_be_integrated(other, name) for name in self._factors)

    def kl(self, other: Joint, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """KL from ``other`` site by site at draws of this joint; their expectation sums to KL(self || other).

        A site's is in closed form given the draws before it where torch knows one and nothing that its factor of ``other``
        depends on is drawn later, else ``log q - log p`` at its own draw.
        """
        mine, theirs = self.given(values), other.given(values)
        return {
            name: _kl(mine[name], theirs[name], values[name], closed=self._may_be_integrated(other, name))
            for name in self._factors
        }

    def _may_be_integrated(self, other: Joint, name: str) -> bool:
        before = set(other.names[: other.names.index(name)])
        return isinstance(other._factors[name], Distribution) or before <= set(self.names[: self.names.index(name)])

    def _drawn(self, shape: tuple[int, ...], draw: Callable[[Distribution, torch.Size], Tensor]) -> Values:
        if not shape:
            return self.walk(lambda name, factor: draw(factor, torch.Size()))[0]
        return self.expand((*shape, *self.batch_shape)).walk(lambda name, factor: draw(factor, torch.Size()))[0]

    def _at_means(self) -> tuple[Values, dict[str, Distribution]]:
        if self._walked is None:
            self._walked = self.walk(lambda name, factor: central_value(factor))
        return self._walked

    def _anywhere(self) -> dict[str, Distribution]:
        return self.walk(lambda name, factor: _any_value(factor))[1]


def central_value(distribution: Any) -> Tensor:
    """The value that stands for a distribution, ``(*batch, *event)``: its mean, or of what is discrete its mode.

    Means of categories are probabilities, which are no values. Where there is no mean, as of a flow or of what an automatic
    guide makes of a normal, it is the image of the mean of what was transformed.

    Raises:
        NotImplementedError: a distribution with neither.
    """
    support: Any = distribution.support
    if support is not None and support.is_discrete:
        return _mode(distribution)
    try:
        mean: Tensor = distribution.mean
        return mean
    except NotImplementedError:
        if not isinstance(distribution, TransformedDistribution):
            raise NotImplementedError(f"{type(distribution).__name__} has no mean to take: draw from it instead") from None
        value = central_value(distribution.base_dist)
        for transform in distribution.transforms:
            value = transform(value)
        return value


def _mode(distribution: Any) -> Tensor:
    """The most probable value, also of what masks, expands or reshapes a distribution."""
    inner = distribution
    while True:
        try:
            mode: Tensor = inner.mode.nan_to_num()  # torch has none of a fair coin
            return mode.expand(distribution.shape())
        except NotImplementedError:
            if not isinstance(inner, Independent | MaskedDistribution):
                told = f"{type(distribution).__name__} has no most probable value to take: draw from it instead"
                raise NotImplementedError(told) from None
            inner = inner.base_dist


def _any_value(distribution: Any) -> Tensor:
    try:
        return central_value(distribution)
    except NotImplementedError:
        drawn: Tensor = distribution.sample()
        return drawn


def _kl(q: Distribution, p: Distribution, value: Tensor, *, closed: bool) -> Tensor:
    if closed:
        try:
            return kl_divergence(q, p)
        except NotImplementedError:
            pass
    return q.log_prob(value) - p.log_prob(value)


@register_kl(MultivariateNormal, Independent)  # type: ignore[untyped-decorator]
@register_kl(LowRankMultivariateNormal, Independent)  # type: ignore[untyped-decorator]
def _kl_normal_diagonal(q: Distribution, p: Any) -> Tensor:
    """KL(Normal(m, Sigma) || Normal(mu, diag(s^2))) = -H(q) - log p(m) + tr(diag(s^-2) Sigma) / 2.

    Neither torch nor Pyro has it.
    """
    if not isinstance(p.base_dist, Normal) or p.reinterpreted_batch_ndims != 1:
        raise NotImplementedError
    trace = (q.variance / p.base_dist.scale.square()).sum(-1)
    kl: Tensor = trace / 2 - q.entropy() - p.log_prob(q.mean)
    return kl


def draw(name: str, q: Any, **options: Any) -> Any:
    """Inside a program, a ``pyro.sample`` statement for each site of ``q``; their values as a tree.

    Args:
        name: of a lone site.
        q: its distribution, or a :class:`Joint`, whose sites have their own names.
        options: of ``pyro.sample``, such as ``infer``.
    """
    if isinstance(q, Joint):
        return q.walk(lambda site, factor: pyro.sample(site, factor, **options))[0]
    return pyro.sample(name, q, **options)
