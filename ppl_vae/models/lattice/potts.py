"""The Potts model (Potts 1952): any number of states, of which neighbours would have the same.

s ~ exp(sum_bonds J [s_i = s_j] + sum_i h_(s_i)) / Z,   s_i in {0, ..., q - 1}
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import torch
from torch import Tensor

from ppl_vae.declaration import require
from ppl_vae.models.lattice.base import Lattice
from ppl_vae.models.lattice.values import ONE_HOT, Encoding

__all__ = ["Potts"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Potts(Lattice):
    """States on a grid: p(s) = exp(sum_bonds J [s_i = s_j] + sum_i h_(s_i)) / Z, s_i in {0, ..., q - 1} (Potts 1952).

    Of two states it is the Ising model of half the coupling. Asked and fitted as :class:`Ising`; codes are one-hot.

    Args:
        states: q, how many states a site has.
        shape: sites along each axis, of which there may be any number; exact where states ** (sites of a row) <= 2^20.
        coupling: J, of all bonds, or of those along each axis; above zero neighbours are alike. On the square grid order begins
            at ln(1 + sqrt q).
        field: h of each state, alike at all sites; none for zeros.
        torus: whether the axes, all of them or each, are closed to rings; on a ring of two sites both bonds count.
        observed: the noise that data show the states through, such as ``Flip(rate=0.1)``; without it there are no data.
        learned: whether the states are the data, 0, 1, ..., and coupling and field, as many numbers as declared, are learned
            from them: by the likelihood where sums can be done, else by the pseudo-likelihood (Besag 1975).

    Raises:
        ValueError: fewer than two states, lengths below 1, a number that is not finite, or not one for each axis or state.

    Examples:
        >>> two = Potts(states=2, shape=(3, 3), coupling=1.0)
        >>> ising = Ising(shape=(3, 3), coupling=0.5)
        >>> torch.allclose(two.marginals(), ising.marginals())
        True
    """

    encoding: ClassVar[Encoding] = ONE_HOT

    states: int = 3
    field: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "field", tuple(self.field))
        require(self.states >= 2, "at least 2 states", self.states)
        require(len(self.field) in (0, self.states), f"a field of each of {self.states} states, or none", self.field)
        require(all(map(math.isfinite, self.field)), "a finite field", self.field)

    @property
    def levels(self) -> int:
        """As declared."""
        return self.states

    @property
    def table(self) -> Tensor:
        """One where both states are the same."""
        return torch.eye(self.states)

    @property
    def unary(self) -> Tensor:
        """As declared, alike at all sites."""
        return torch.tensor(self.field or (0.0,) * self.states, dtype=torch.float64).expand(self.sites, -1)

    def _density(self) -> str:
        h = f", h = ({', '.join(f'{value:g}' for value in self.field)})" if self.field else ""
        return f"Potts({self.states} states, {self._grid()}, J = {self._couplings()}{h})"
