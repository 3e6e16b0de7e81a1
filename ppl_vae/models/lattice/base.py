"""What every declared lattice is asked: sums, marginals, draws, with or without a fit."""

from __future__ import annotations

import abc
import dataclasses
import math
import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ppl_vae.data import DataSource
from ppl_vae.declaration import require
from ppl_vae.exact.lattice import (
    Beliefs,
    Field,
    beliefs,
    draws,
    gibbs,
    grid,
    log_partition,
    marginals,
    mode,
    upper_bound,
)
from ppl_vae.models.base import Model
from ppl_vae.models.lattice.distribution import SWEEPS, sums_fit
from ppl_vae.models.lattice.lone import LoneLattice, SummedLoneLattice
from ppl_vae.models.lattice.noise import Flip, Noise
from ppl_vae.models.lattice.noisy import NoisyLattice, SummedNoisyLattice
from ppl_vae.models.lattice.seen import SeenLattice, SummedSeenLattice
from ppl_vae.models.lattice.solutions import Solution, solutions
from ppl_vae.models.lattice.values import Encoding
from ppl_vae.types import REAL, DataSpec, FitWarning, Kind

__all__ = ["Approximation", "Lattice"]

Approximation = Literal["exact", "mean_field", "bethe"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lattice(Model, abc.ABC):
    """Sites on a grid, each in one of a few states, with bonds between neighbours.

        log p(s) = sum_bonds J T(s_i, s_j) + sum_i u_i(s_i) - log Z

    Alone it has no data: what is fitted to it bounds log Z. With ``observed`` it is the prior of images.

    Class attributes:
        encoding: how states are told, in codes and draws.

    Args:
        shape: sites along each axis.
        coupling: J, of all bonds, or of those along each axis.
        torus: whether the axes, all of them or each, are closed to rings; on a ring of two sites both bonds count.
        observed: the noise that data show the states through; without it there are no data.
        learned: whether the states are the data, and coupling and field are learned from them.
    """

    posterior_family: ClassVar[Literal["unknown", "linear", "discrete"]] = "discrete"
    encoding: ClassVar[Encoding]

    shape: tuple[int, ...]
    coupling: float | tuple[float, ...] = 1.0
    torus: bool | tuple[bool, ...] = False
    observed: Noise | None = None
    learned: bool = False

    def __post_init__(self) -> None:
        for name in ("shape", "coupling", "torus"):
            value = getattr(self, name)
            object.__setattr__(self, name, tuple(value) if isinstance(value, Sequence) else value)
        whole = self.shape and all(isinstance(length, int) and length >= 1 for length in self.shape)
        require(bool(whole), "a shape of whole numbers of at least 1", self.shape)
        axes = len(self.shape)
        for name in ("coupling", "torus"):
            value = getattr(self, name)
            require(not isinstance(value, tuple) or len(value) == axes, f"one {name}, or one for each of {axes} axes", value)
        require(all(map(math.isfinite, self.couplings)), "a finite coupling", self.coupling)
        require(not (self.learned and self.observed), "states that are seen to learn from, without noise", self.observed)

    @property
    @abc.abstractmethod
    def levels(self) -> int:
        """How many states a site has."""

    @property
    @abc.abstractmethod
    def table(self) -> Tensor:
        """T, ``(q, q)``."""

    @property
    @abc.abstractmethod
    def unary(self) -> Tensor:
        """u, ``(n, q)``."""

    @property
    def couplings(self) -> tuple[float, ...]:
        """J along each axis."""
        return self.coupling if isinstance(self.coupling, tuple) else (self.coupling,) * len(self.shape)

    @property
    def rings(self) -> tuple[bool, ...]:
        """Which axes are closed."""
        return self.torus if isinstance(self.torus, tuple) else (self.torus,) * len(self.shape)

    @property
    def sites(self) -> int:
        """n, the number of sites."""
        return math.prod(self.shape)

    @property
    def weights(self) -> Field:
        """What the density is made of."""
        where = grid(self.shape, self.rings)
        of_axes = torch.tensor(self.couplings, dtype=torch.float64)
        return Field(where, of_axes[where.axis] * where.times, self.table.double(), self.unary.double())

    def log_partition(self, method: Literal["exact", "mean_field", "bethe", "upper"] = "exact") -> float:
        """Log Z, in nats of the whole lattice.

        Args:
            method: ``exact``; ``mean_field``, the best lower bound of the solutions that are found; ``upper``, an upper bound
                by strips; ``bethe``, which bounds nothing and is exact on chains.

        Raises:
            ValueError: ``exact`` of a lattice that is too wide; the sites that a sum would hold are named.

        Examples:
            >>> torus = Ising(shape=(4, 5), coupling=0.3, field=0.1, torus=True)
            >>> [round(torus.log_partition(method) / 20, 6) for method in ("mean_field", "exact")]
            [0.789588, 0.823809]
        """
        check_method(method, ("exact", "mean_field", "bethe", "upper"))
        if method == "mean_field":
            return self.mean_field()[0].bound
        field = self.weights
        if method == "bethe":
            return float(self._beliefs().log_partition)
        return float(log_partition(field) if method == "exact" else upper_bound(field))

    def marginals(self, method: Approximation = "exact") -> Tensor:
        """p(s_i) of all sites, ``(*shape, q)``.

        Args:
            method: ``exact``; ``mean_field``, of the best solution that is found; ``bethe``, by belief propagation.

        Raises:
            ValueError: ``exact`` of a lattice that is too wide; the sites that a sum would hold are named.

        Examples:
            >>> chain = Ising(shape=(3,), coupling=0.5, field=0.2)
            >>> torch.allclose(chain.marginals("bethe"), chain.marginals())
            True
        """
        check_method(method, ("exact", "mean_field", "bethe"))
        if method == "mean_field":
            found = self.mean_field()[0].probs
        else:
            found = marginals(self.weights).sites if method == "exact" else self._beliefs().sites
        return found.reshape(*self.shape, self.levels)

    def _beliefs(self) -> Beliefs:
        """Where belief propagation comes to rest, damped if it does not do so by itself."""
        found = beliefs(self.weights)
        found = found if found.settled else beliefs(self.weights, damping=0.5)
        if not found.settled:
            told = "belief propagation did not settle, so that what it tells of this lattice is of no account: take mean field"
            warnings.warn(told, FitWarning, stacklevel=3)
        return found

    def mean_field(self, starts: int = 0, *, sweeps: int = 1000, seed: int = 0) -> list[Solution]:
        """The different solutions of mean field, the one of the highest bound first.

        Sweeps begin leaning to each state in turn, and at random ``starts`` besides.

        Args:
            starts: of random ones.
            sweeps: at most.
            seed: of the random starts.

        Returns:
            Of each its ``bound`` on log Z in nats and the probabilities ``probs (n, q)``.

        Examples:
            >>> cold = Ising(shape=(4, 4), coupling=0.4, torus=True)
            >>> sorted(round(float(found.probs[0, 1]), 3) for found in cold.mean_field())
            [0.055, 0.945]
        """
        return solutions(self.weights, starts, sweeps=sweeps, seed=seed)

    def sample(
        self, n: int, method: Literal["auto", "exact", "gibbs"] = "auto", *, sweeps: int = SWEEPS, seed: int = 0
    ) -> Tensor:
        """Configurations ``(n, *shape)``: spins as -1 and 1, other states as 0, 1, ...

        Args:
            n: how many.
            method: ``exact``, site by site backwards through the sums; ``gibbs``, n chains of so many sweeps from random
                states; ``auto``, exact where sums carry at most 2^14 entries.
            sweeps: of Gibbs.
            seed: of the draws.

        Raises:
            ValueError: fewer than one, or ``exact`` of a lattice that is too wide.

        Examples:
            >>> Ising(shape=(2, 3), coupling=5.0).sample(4).flatten(1).std(1)
            tensor([0., 0., 0., 0.])
        """
        require(n >= 1, "at least 1 draw", n)
        check_method(method, ("auto", "exact", "gibbs"))
        generator, field = torch.Generator().manual_seed(seed), self.weights
        if method == "exact" or (method == "auto" and sums_fit(field)):
            states = draws(field, n, generator)
        else:
            first = torch.randint(self.levels, (n, self.sites), generator=generator)
            states = gibbs(field, first, sweeps, generator)
        return self._told(states)

    def mode(self) -> Tensor:
        """The most probable configuration, ``(*shape)``.

        Raises:
            ValueError: a lattice that is too wide; the sites that a sum would hold are named.
        """
        return self._told(mode(self.weights)[0])

    def _told(self, states: Tensor) -> Tensor:
        return states.reshape(*states.shape[:-1], *self.shape)

    @property
    def unit(self) -> str:
        """Nats of the whole lattice where there are no data."""
        return "nats of the whole lattice" if self.data_free else super().unit

    @property
    def data_free(self) -> bool:
        """Whether it is a lattice alone."""
        return self.observed is None and not self.learned

    def no_data(self) -> DataSource:
        """One empty row, which stands for no data."""
        return DataSource(source=f"empty:{'x'.join(map(str, self.shape))}", kind="real", valid=0.0, test=0.0)

    @property
    def accepts(self) -> frozenset[Kind]:
        """The kinds of data that the noise is a density of, or of states."""
        if self.data_free:
            return frozenset({REAL})
        return (self.observed or Flip()).accepts(self.levels)

    def check(self, spec: DataSpec) -> None:
        """Raise ``ValueError`` if there are data of a lattice alone, or they have other sites or values."""
        if self.data_free:
            if spec.size != 1 or spec.event_shape != self.shape:
                raise ValueError(
                    f"a lattice alone has no data, got {spec.size} of shape {spec.event_shape}: leave the data out, or declare "
                    "observed=Flip(rate=0.1), the noise that they show the states through, or learned=True if they are states"
                )
            return
        if _long(spec.event_shape) != _long(self.shape):
            raise ValueError(f"expected data of the shape of the lattice, {self.shape}, got {spec.event_shape}: declare it so")
        if not any(kind.includes(spec.kind) for kind in self.accepts):
            kinds = " or ".join(sorted(map(str, self.accepts)))
            raise ValueError(f"expected {kinds} data for {self}, got {spec.kind} data: {next(iter(self.accepts)).remedy}")
        if spec.levels is not None and spec.levels > self.levels:
            raise ValueError(f"expected data of {self.levels} levels, got {spec.levels}: declare states={spec.levels}")
        if spec.missing and self.learned:
            raise ValueError("expected states of all sites to learn from, got missing ones: drop those rows")

    def build(self, spec: DataSpec) -> nn.Module:
        """The Pyro program."""
        weights, summed = self.weights, sums_fit(self.weights)
        if self.data_free:
            return (SummedLoneLattice if summed else LoneLattice)(weights, self.encoding, spec.size)
        if self.observed is not None:
            log_z = _log_z(dataclasses.replace(self, observed=None)).clone()
            of_images = SummedNoisyLattice if summed else NoisyLattice
            noise = self.observed.build(self.levels)
            return of_images(weights, self.encoding, spec.size, noise, spec.event_shape, log_z)
        couplings = torch.tensor(self.coupling if isinstance(self.coupling, tuple) else [self.coupling])
        unary = weights.unary if self._of_each_site() else weights.unary[:1]
        of_states = SummedSeenLattice if summed else SeenLattice
        return of_states(weights, self.encoding, spec.size, spec.event_shape, couplings, unary)

    def _of_each_site(self) -> bool:
        """Whether sites have fields of their own."""
        return False

    def story(self) -> str:
        """The sites from top to bottom, as mathematics."""
        return f"s ~ {self._density()}" + (f"; x_i | s_i ~ {self.observed}" if self.observed is not None else "")

    def _grid(self) -> str:
        closed = self.rings
        end = " torus" if all(closed) else "" if not any(closed) else " cylinder"
        return " x ".join(map(str, self.shape)) + end

    def _couplings(self) -> str:
        value = self.coupling
        return f"({', '.join(f'{one:g}' for one in value)})" if isinstance(value, tuple) else f"{value:g}"

    @abc.abstractmethod
    def _density(self) -> str:
        """p(s), as mathematics."""


@lru_cache(maxsize=16)
def _log_z(declared: Lattice) -> Tensor:
    """Log Z, or an upper bound where it is not summed, found once for each lattice."""
    return log_partition(declared.weights) if sums_fit(declared.weights) else upper_bound(declared.weights)


def _long(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(length for length in shape if length > 1)


def check_method(method: str, known: Sequence[str]) -> None:
    """Raise ``ValueError`` for a method that there is not."""
    require(method in known, f"a method of {', '.join(known)}", method)
