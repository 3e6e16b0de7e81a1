"""Distributions over the states of a lattice: with bonds, and with independent sites.

    p(s) = exp(sum_bonds J T(s_i, s_j) + sum_i u_i(s_i)) / Z,     q(s) = prod_i q_i(s_i)

KL(q || p) = log Z - (E_q[log-weight] + H(q)) is in closed form.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints, register_kl

from ppl_vae.exact.lattice import Field, draws, energy, gibbs, log_partition, marginals, mode, one_hot, upper_bound
from ppl_vae.exact.lattice.mean_field import bound
from ppl_vae.exact.lattice.plan import planned
from ppl_vae.models.lattice.values import Encoding

__all__ = ["EXACT", "SWEEPS", "LatticeDistribution", "SiteProduct", "drawn", "sums_fit"]

EXACT = 2**14  # entries that sums carry for one row: more are not summed for every datum
SWEEPS = 200  # of Gibbs, where draws are not exact
MOST = 2**16  # configurations that are enumerated


def sums_fit(field: Field, entries: int = EXACT) -> bool:
    """Whether sums over all states carry no more than so many entries."""
    return bool(len(field.table) ** len(planned(field.grid.shape, field.grid.bonds).widest) <= entries)


def drawn(field: Field, n: int, *, exact: bool) -> Tensor:
    """So many states of all sites ``(n, *batch, sites)`` by torch's global generator: exact where sums are, else by Gibbs."""
    if exact:
        return draws(field, n)
    begun = torch.randint(len(field.table), (n, *field.unary.shape[:-1]), device=field.unary.device)
    return gibbs(field, begun, SWEEPS)


class _OfSites(TorchDistribution):
    """What both have in common."""

    arg_constraints: ClassVar[dict[str, Any]] = {}
    has_enumerate_support = True

    def __init__(
        self, shape: tuple[int, ...], levels: int, encoding: Encoding, batch: Size, dtype: torch.dtype | None, like: Tensor
    ) -> None:
        self.shape_of_lattice, self.levels, self.encoding = shape, levels, encoding
        self.dtype, self._device = dtype or torch.get_default_dtype(), like.device
        super().__init__(batch, Size(encoding.event_shape(shape, levels)), validate_args=False)

    @constraints.dependent_property
    def support(self) -> Any:
        """Values of all sites."""
        return self.encoding.support(self.shape_of_lattice)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All configurations of a small lattice, ``(q^n, *batch, *event)``.

        Raises:
            ValueError: there are too many.
        """
        sites = math.prod(self.shape_of_lattice)
        if self.levels**sites > MOST:
            raise ValueError(f"expected at most {MOST} configurations, got {self.levels}^{sites}: use MeanField()")
        every = torch.cartesian_prod(*[torch.arange(self.levels)] * sites).reshape(-1, sites)
        values = self._value(every).reshape(-1, *[1] * len(self.batch_shape), *self.event_shape)
        return values.expand(-1, *self.batch_shape, *self.event_shape) if expand else values

    def _spread(self, log_prob: Tensor) -> Tensor:
        """Values that all of the batch share have a log-density for each."""
        return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))

    def _value(self, states: Tensor) -> Tensor:
        """Of states ``(..., n)``."""
        like = torch.empty((), dtype=self.dtype, device=self._device)
        return self.encoding.value(one_hot(states.to(like.device), self.levels, like), self.shape_of_lattice)


class SiteProduct(_OfSites):
    """Independent sites.

    Args:
        probs: of the states of each, ``(*batch, n, q)``.
        shape: of the lattice.
        encoding: how states are told.
        dtype: of values, by default torch's own.
    """

    def __init__(self, probs: Tensor, shape: tuple[int, ...], encoding: Encoding, *, dtype: torch.dtype | None = None) -> None:
        self.probs = probs
        super().__init__(shape, probs.shape[-1], encoding, probs.shape[:-2], dtype, probs)

    def expand(self, batch_shape: Any, _instance: Any = None) -> SiteProduct:
        """As many copies."""
        probs = self.probs.expand(*batch_shape, *self.probs.shape[-2:])
        return SiteProduct(probs, self.shape_of_lattice, self.encoding, dtype=self.dtype)

    @property
    def mean(self) -> Tensor:
        """Magnetisations, or probabilities."""
        return self.encoding.value(self.probs, self.shape_of_lattice).to(self.dtype)

    @property
    def variance(self) -> Tensor:
        """Of each number of a value."""
        second = self.encoding.value(torch.eye(self.levels).to(self.probs)[:, None], (1,)).square()[:, 0]
        expected = self.probs @ second.reshape(self.levels, -1)
        mean = self.encoding.value(self.probs, self.shape_of_lattice)
        return (expected.reshape(self.batch_shape + self.event_shape) - mean.square()).to(self.dtype)

    @property
    def mode(self) -> Tensor:
        """Each site at its most probable state."""
        return self._value(self.probs.argmax(-1))

    def entropy(self) -> Tensor:
        """In nats, ``(*batch,)``."""
        return -torch.special.xlogy(self.probs, self.probs).sum((-2, -1))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws by torch's global generator."""
        probs = self.probs.detach().expand(*sample_shape, *self.probs.shape)
        return self._value(torch.multinomial(probs.reshape(-1, self.levels), 1).reshape(probs.shape[:-1]))

    def log_prob(self, value: Tensor) -> Tensor:
        """In nats."""
        shares = self.encoding.shares(value.to(self.probs), self.shape_of_lattice)
        return self._spread(torch.special.xlogy(shares, self.probs).sum((-2, -1)))


class LatticeDistribution(_OfSites):
    """Sites with bonds.

    Where the lattice is too wide to sum over its states, its log-density has an upper bound in place of log Z, so that it is a
    lower bound itself; draws come from Gibbs sampling then.

    Args:
        field: its ``unary (*batch, n, q)``, or ``(n, q)`` of one that is the same for a whole ``batch``.
        encoding: how states are told.
        log_z: log Z or what stands for it, where that is known.
        batch: the batch shape, of a field that is the same for all of it.
        dtype: of values, by default torch's own.
    """

    def __init__(
        self,
        field: Field,
        encoding: Encoding,
        *,
        log_z: Tensor | None = None,
        batch: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.field, self._known = field, log_z
        shape = field.unary.shape[:-2] if batch is None else Size(batch)
        super().__init__(field.grid.shape, len(field.table), encoding, shape, dtype, field.unary)

    def expand(self, batch_shape: Any, _instance: Any = None) -> LatticeDistribution:
        """As many copies."""
        kept: dict[str, Any] = {"encoding": self.encoding, "dtype": self.dtype}
        if self.field.unary.dim() == 2:
            return LatticeDistribution(self.field, log_z=self.log_z, batch=batch_shape, **kept)
        unary = self.field.unary.expand(*batch_shape, *self.field.unary.shape[-2:])
        return LatticeDistribution(self.field._replace(unary=unary), log_z=self.log_z.expand(batch_shape), **kept)

    @property
    def exact(self) -> bool:
        """Whether sums over its states are done."""
        return sums_fit(self.field)

    @cached_property
    def log_z(self) -> Tensor:
        """Log Z, ``(*batch,)`` or of one field ``()``; an upper bound where it is not summed."""
        if self._known is not None:
            return self._known
        return log_partition(self.field) if self.exact else upper_bound(self.field)

    @property
    def mean(self) -> Tensor:
        """Magnetisations, or probabilities.

        Raises:
            ValueError: a lattice that is too wide.
        """
        probs = marginals(self.field).sites
        probs = probs.expand(*self.batch_shape, *probs.shape[-2:])
        return self.encoding.value(probs, self.shape_of_lattice).to(self.dtype)

    @property
    def mode(self) -> Tensor:
        """The most probable configuration.

        Raises:
            ValueError: a lattice that is too wide.
        """
        return self._value(mode(self.field)[0]).expand(self.batch_shape + self.event_shape)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws by torch's global generator, exact where sums are."""
        lone = self.field.unary.dim() == 2
        each = Size(sample_shape) + (self.batch_shape if lone else Size())
        n = math.prod(each)
        states = drawn(self.field, n, exact=self.exact)
        return self._value(states).reshape(Size(sample_shape) + self.batch_shape + self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """In nats; of a wide lattice a lower bound."""
        shares = self.encoding.shares(value.to(self.field.unary), self.shape_of_lattice)
        return self._spread(energy(self.field, shares) - self.log_z)


@register_kl(SiteProduct, LatticeDistribution)
def _kl_to_lattice(q: SiteProduct, p: LatticeDistribution) -> Tensor:
    return p.log_z - bound(p.field, q.probs)


@register_kl(SiteProduct, SiteProduct)
def _kl_of_sites(q: SiteProduct, p: SiteProduct) -> Tensor:
    return (torch.special.xlogy(q.probs, q.probs) - torch.special.xlogy(q.probs, p.probs)).sum((-2, -1))


@register_kl(LatticeDistribution, LatticeDistribution)
def _kl_of_lattices(q: LatticeDistribution, p: LatticeDistribution) -> Tensor:
    """In closed form where both have the same bonds."""
    if not (q.exact and torch.equal(q.field.coupling, p.field.coupling)):
        raise NotImplementedError
    expected = (marginals(q.field).sites * (q.field.unary - p.field.unary)).sum((-2, -1))
    return expected - q.log_z + p.log_z
