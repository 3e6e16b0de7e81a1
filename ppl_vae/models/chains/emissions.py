"""p(x_t | s_t) of any likelihood, and the M-steps of those that have one: weighted shares of counts, means and variances.

Each state has features of its own, ``(K, P, *element)``, as a decoder would give them.
"""

from __future__ import annotations

import abc
from functools import singledispatchmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from ppl_vae.likelihoods import Bernoulli, Categorical, Gaussian, Likelihood, Poisson
from ppl_vae.likelihoods.scales import LEAST, AmortizedScale, GlobalScale
from ppl_vae.program.quantities import COLUMN, COMPONENT, TOKEN, Quantity

__all__ = ["Emission", "Steps"]

SMALLEST = 1e-12  # a mean of counts, and how far a probability stays from 0 and 1
SMOOTH = 5.0  # pseudo-counts of random tables, so that no state starts without a token

Parameters = tuple[Tensor, ...]


class Emission(nn.Module):
    """The densities of an element, one for each state.

    Args:
        likelihood: declared.
        states: K.
        element: the shape of an element.
    """

    def __init__(self, likelihood: Likelihood, states: int, element: tuple[int, ...]) -> None:
        super().__init__()
        self.filler = likelihood.filler
        self.features = nn.Parameter(0.5 * torch.randn(states, likelihood.features, *element))
        self.likelihood = likelihood.build(element)
        self.steps = Dispatch().of(likelihood)
        self.element_dim = len(element)

    def forward(self, states: Tensor) -> Any:
        """p(x_t | s_t) for states ``(...)``."""
        return self.likelihood(self.features[states])

    def log_prob(self, x: Tensor, inside: Tensor) -> Tensor:
        """Log p(x_t | s_t) of every state ``(B, T, K)``; in float64 where x is."""
        if not x.shape[1]:
            return self.features.new_zeros(*inside.shape, len(self.features))
        if self.steps is not None and self.steps.counted:
            return embedding(x, self.log_table.mT)
        x = torch.where(inside.reshape(*inside.shape, *[1] * self.element_dim), x, self.filler)
        features = self.features.double() if x.dtype == torch.float64 else self.features
        rows = x.to(features)[(..., None, *[slice(None)] * self.element_dim)]
        found: Tensor = self.likelihood(features).log_prob(rows)
        return found

    @property
    def log_table(self) -> Tensor:
        """Log p(token | state), ``(K, V)``."""
        return self.features.log_softmax(1)


class Steps(abc.ABC):
    """What EM needs of a likelihood whose weighted maximum is a formula; parameters are the field's own, in float64."""

    counted = False
    """Whether parameters are one table of probabilities of tokens."""

    @abc.abstractmethod
    def current(self, emission: Emission) -> Parameters:
        """The parameters of a module."""

    @abc.abstractmethod
    def told(self, parameters: Parameters) -> dict[str, Quantity]:
        """What they are, by name, of each state."""

    @abc.abstractmethod
    def assign(self, emission: Emission, parameters: Parameters) -> None:
        """Write parameters into it."""

    @abc.abstractmethod
    def log_prob(self, parameters: Parameters, x: Tensor) -> Tensor:
        """Log p(x_t | s_t) ``(B, T, K)`` of x ``(B, T, *element)``."""

    @abc.abstractmethod
    def statistics(self, x: Tensor, weight: Tensor) -> Tensor:
        """Weighted sums over elements x ``(M, *element)`` for each state, of weights ``(M, K)``: ``(K, S, *element)``."""

    @abc.abstractmethod
    def maximized(self, found: Tensor, before: Parameters) -> Parameters:
        """The likeliest parameters of these sums; of a state without elements those before."""

    @abc.abstractmethod
    def initial(self, x: Tensor, states: int, generator: torch.Generator) -> Parameters:
        """A random start about elements x ``(M, *element)``, different for each state."""


class TokenSteps(Steps):
    """p(x | s) = table[s, x]: the log-table ``(K, V)`` and shares of expected counts."""

    counted = True

    def __init__(self, levels: int) -> None:
        self.levels = levels

    def current(self, emission: Emission) -> Parameters:
        """The log-table."""
        return (emission.features.double().log_softmax(1),)

    def told(self, parameters: Parameters) -> dict[str, Quantity]:
        """The table."""
        return {"emission": Quantity(values=parameters[0].exp(), axes=(COMPONENT, TOKEN), note="p(token | state)")}

    def assign(self, emission: Emission, parameters: Parameters) -> None:
        """As logits."""
        emission.features.copy_(parameters[0])

    def log_prob(self, parameters: Parameters, x: Tensor) -> Tensor:
        """Looked up."""
        return embedding(x, parameters[0].mT)

    def statistics(self, x: Tensor, weight: Tensor) -> Tensor:
        """Counts ``(K, V)``."""
        return weight.new_zeros(self.levels, weight.shape[1]).index_add_(0, x, weight).mT

    def maximized(self, found: Tensor, before: Parameters) -> Parameters:
        """Their shares, never quite 0, so that no new row is impossible."""
        total = found.sum(1, keepdim=True)
        return (torch.where(total > 0, (found / total.clamp_min(LEAST)).clamp_min(SMALLEST).log(), before[0]),)

    def initial(self, x: Tensor, states: int, generator: torch.Generator) -> Parameters:
        """Shares in the data, each disturbed."""
        shares = torch.bincount(x.flatten(), minlength=self.levels).double() + SMALLEST
        noise = torch.rand(states, self.levels, dtype=torch.float64, device=x.device, generator=generator)
        table = shares * (noise + 0.2)
        return ((table / table.sum(1, keepdim=True)).log(),)


class GaussianSteps(Steps):
    """Means ``(K, *element)`` and variances, of each state or all alike as is declared; sums of 1, x, x squared."""

    def __init__(self, declared: Gaussian) -> None:
        self.declared = declared

    def current(self, emission: Emission) -> Parameters:
        """Means and variances, ``(K, *element)`` each."""
        normal = emission.likelihood(emission.features.double())
        return normal.mean, normal.variance

    def told(self, parameters: Parameters) -> dict[str, Quantity]:
        """Means and standard deviations."""
        loc, variance = (_columns(part, 1) for part in parameters)
        axes = (COMPONENT, COLUMN)
        scale = Quantity(values=variance.sqrt(), axes=axes, power=1, note="standard deviation of an element of a state")
        return {"mean": Quantity(values=loc, axes=axes, power=1, located=True), "scale": scale}

    def assign(self, emission: Emission, parameters: Parameters) -> None:
        """As features, and the scale that states share."""
        loc, variance = parameters
        emission.features[:, 0] = loc.to(emission.features)
        above = (variance.sqrt() - self._floor).clamp_min(SMALLEST)
        if isinstance(emission.likelihood, AmortizedScale):
            raw = above + torch.log(-torch.expm1(-above))  # the inverse of softplus
            emission.features[:, 1] = (raw - emission.likelihood.shift).to(emission.features)
        elif isinstance(emission.likelihood, GlobalScale) and emission.likelihood.learned:
            log_scale = emission.likelihood.log_scale
            log_scale.copy_(above[0].log() if log_scale.dim() else above.flatten()[0].log())

    def log_prob(self, parameters: Parameters, x: Tensor) -> Tensor:
        """A normal density, elements independent."""
        loc, variance = (_columns(part, 1) for part in parameters)
        rows = _columns(x, 2)[:, :, None]
        found = -0.5 * ((rows - loc).square() / variance + (2 * torch.pi * variance).log())
        return found.sum(-1)

    def statistics(self, x: Tensor, weight: Tensor) -> Tensor:
        """Of 1, x and its square."""
        powers = torch.stack([torch.ones_like(x), x, x.square()], 1)
        return (weight.mT @ powers.flatten(1)).reshape(-1, *powers.shape[1:])

    def maximized(self, found: Tensor, before: Parameters) -> Parameters:
        """Weighted means and variances."""
        n, first, second = found.unbind(1)
        there = n > 0
        loc = torch.where(there, first / n.clamp_min(LEAST), before[0])
        squares = second - 2 * loc * first + n * loc.square()
        if self.declared.scale == "fixed":
            return loc, before[1]
        if self.declared.scale == "amortized":
            variance = torch.where(there, squares / n.clamp_min(LEAST), before[1])
        else:
            over = tuple(range(squares.dim())) if self.declared.scale == "shared" else (0,)
            variance = (squares.sum(over) / n.sum(over)).expand_as(loc)
        return loc, variance.clamp_min((self._floor + SMALLEST) ** 2)

    def initial(self, x: Tensor, states: int, generator: torch.Generator) -> Parameters:
        """Random elements, each half-way to the mean, and the variance of all."""
        mean, variance = x.mean(0), x.var(0, correction=0).clamp_min((self._floor + SMALLEST) ** 2)
        loc = 0.5 * (mean + _chosen(x, states, generator))
        loc = loc + 0.1 * variance.sqrt() * torch.randn(loc.shape, dtype=x.dtype, device=x.device, generator=generator)
        if self.declared.scale == "fixed":
            variance = torch.full_like(variance, self.declared.value**2)
        elif self.declared.scale == "shared":
            variance = variance.mean().expand_as(variance)
        return loc, variance.expand_as(loc).clone()

    @property
    def _floor(self) -> float:
        return 0.0 if self.declared.scale == "fixed" else self.declared.floor


class MeanSteps(Steps):
    """One mean for each state and element ``(K, *element)``; sums of 1 and x."""

    most: float = torch.inf
    name = "mean"

    @abc.abstractmethod
    def feature(self, mean: Tensor) -> Tensor:
        """The likelihood's feature of a mean."""

    def current(self, emission: Emission) -> Parameters:
        """The means."""
        return (emission.likelihood(emission.features.double()).mean,)

    def told(self, parameters: Parameters) -> dict[str, Quantity]:
        """The means."""
        return {self.name: Quantity(values=_columns(parameters[0], 1), axes=(COMPONENT, COLUMN), power=1)}

    def assign(self, emission: Emission, parameters: Parameters) -> None:
        """As the feature."""
        emission.features[:, 0] = self.feature(parameters[0]).to(emission.features)

    def statistics(self, x: Tensor, weight: Tensor) -> Tensor:
        """Of 1 and x."""
        powers = torch.stack([torch.ones_like(x), x], 1)
        return (weight.mT @ powers.flatten(1)).reshape(-1, *powers.shape[1:])

    def maximized(self, found: Tensor, before: Parameters) -> Parameters:
        """Weighted means."""
        n, first = found.unbind(1)
        mean = torch.where(n > 0, first / n.clamp_min(LEAST), before[0])
        return (mean.clamp(SMALLEST, self.most),)

    def initial(self, x: Tensor, states: int, generator: torch.Generator) -> Parameters:
        """Half-way from the mean to random elements."""
        noise = torch.rand(states, *x.shape[1:], dtype=x.dtype, device=x.device, generator=generator)
        mean = x.mean(0) * (0.6 + 0.3 * noise) + 0.2 * _chosen(x, states, generator)
        return (mean.clamp(SMALLEST, self.most),)


class PoissonSteps(MeanSteps):
    """Rates."""

    name = "rate"

    def feature(self, mean: Tensor) -> Tensor:
        """The log-rate."""
        return mean.log()

    def log_prob(self, parameters: Parameters, x: Tensor) -> Tensor:
        """Log of rate^x exp(-rate) / x!."""
        rate, rows = _columns(parameters[0], 1), _columns(x, 2)
        found = rows @ rate.log().mT - rate.sum(1)
        return found - torch.lgamma(rows + 1).sum(-1, keepdim=True)


class BernoulliSteps(MeanSteps):
    """Probabilities of 1."""

    most = 1 - SMALLEST
    name = "probability"

    def feature(self, mean: Tensor) -> Tensor:
        """The logit."""
        return mean.logit()

    def log_prob(self, parameters: Parameters, x: Tensor) -> Tensor:
        """Log of p^x (1 - p)^(1 - x)."""
        p, rows = _columns(parameters[0], 1), _columns(x, 2)
        return rows @ p.log().mT + (1 - rows) @ (-p).log1p().mT


class Dispatch:
    """The M-steps of a declared likelihood, by its class; ``None`` of one that has no formula."""

    @singledispatchmethod
    def of(self, likelihood: Likelihood) -> Steps | None:
        """None."""
        return None

    @of.register
    def _(self, likelihood: Categorical) -> Steps:
        return TokenSteps(likelihood.levels)

    @of.register
    def _(self, likelihood: Gaussian) -> Steps:
        return GaussianSteps(likelihood)

    @of.register
    def _(self, likelihood: Poisson) -> Steps:
        return PoissonSteps()

    @of.register
    def _(self, likelihood: Bernoulli) -> Steps:
        return BernoulliSteps()


def _chosen(x: Tensor, states: int, generator: torch.Generator) -> Tensor:
    """A random element for each state."""
    return x[torch.randint(len(x), (states,), device=x.device, generator=generator)]


def _columns(values: Tensor, dims: int) -> Tensor:
    """Elements as one axis after these."""
    return values.reshape(*values.shape[:dims], -1)
