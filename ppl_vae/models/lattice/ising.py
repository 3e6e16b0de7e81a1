"""The Ising model (Ising 1925): spins that would be like their neighbours, or unlike.

s ~ exp(sum_bonds J s_i s_j + sum_i h_i s_i) / Z,   s_i in {-1, 1}
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ppl_vae.declaration import require
from ppl_vae.models.lattice.base import Approximation, Lattice
from ppl_vae.models.lattice.values import SPINS, Encoding

__all__ = ["Ising"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ising(Lattice):
    """Spins on a grid: p(s) = exp(sum_bonds J s_i s_j + sum_i h_i s_i) / Z, s_i in {-1, 1} (Ising 1925).

    Alone it has no data: ``fit(Ising(...), method=CAVI())`` finds the mean field, whose number bounds log Z, and
    ``log_partition``, ``marginals``, ``sample`` need no fit. With ``observed`` it is the prior of black and white images, 1 for
    spin up.

    Args:
        shape: sites along each axis, of which there may be any number; exact where at most 20 sites are carried from row to
            row.
        coupling: J, of all bonds, or of those along each axis; above zero neighbours are alike. On the square grid order begins
            at ln(1 + sqrt 2) / 2 = 0.4407 (Onsager 1944), in mean field at 0.25.
        field: h, of all sites, or of each in the order of the rows, ``n`` numbers or rows of them.
        torus: whether the axes, all of them or each, are closed to rings; on a ring of two sites both bonds count.
        observed: the noise that data show the spins through, such as ``Flip(rate=0.1)``; without it there are no data.
        learned: whether the states are the data, 0, 1, ..., and coupling and field, as many numbers as declared, are learned
            from them: by the likelihood where sums can be done, else by the pseudo-likelihood (Besag 1975).

    Raises:
        ValueError: lengths below 1, a number that is not finite, or not one for each axis or site.

    Examples:
        >>> print(Ising(shape=(4, 5), coupling=0.3, field=0.1, torus=True))
        s ~ Ising(4 x 5 torus, J = 0.3, h = 0.1)
    """

    encoding: ClassVar[Encoding] = SPINS

    field: float | tuple[float, ...] | tuple[tuple[float, ...], ...] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.field, Sequence):
            rows = tuple(tuple(row) if isinstance(row, Sequence) else row for row in self.field)
            object.__setattr__(self, "field", rows)
        values = flat(self.field)
        require(len(values) in (1, self.sites), f"one field, or one for each of {self.sites} sites", self.field)
        require(all(map(math.isfinite, values)), "a finite field", self.field)

    @property
    def levels(self) -> int:
        """Two: down and up."""
        return 2

    @property
    def table(self) -> Tensor:
        """Of two spins their product."""
        return torch.tensor([[1.0, -1.0], [-1.0, 1.0]])

    @property
    def unary(self) -> Tensor:
        """Of a spin h times it."""
        h = torch.tensor(flat(self.field), dtype=torch.float64).expand(self.sites)
        return torch.stack([-h, h], -1)

    def magnetization(self, method: Approximation = "exact") -> Tensor:
        """E[s_i] of all spins, ``(*shape)``.

        Args:
            method: as for :meth:`marginals`.

        Raises:
            ValueError: ``exact`` of a lattice that is too wide; the sites that a sum would hold are named.

        Examples:
            >>> torus = Ising(shape=(4, 5), coupling=0.3, field=0.1, torus=True)
            >>> [round(float(torus.magnetization(method)[0, 0]), 4) for method in ("exact", "mean_field")]
            [0.5029, 0.7729]
        """
        down, up = self.marginals(method).unbind(-1)
        return up - down

    def _of_each_site(self) -> bool:
        return isinstance(self.field, tuple)

    def _told(self, states: Tensor) -> Tensor:
        return 2.0 * super()._told(states) - 1.0

    def _density(self) -> str:
        h = f"{self.field:g}" if isinstance(self.field, float | int) else "(h_i)"
        return f"Ising({self._grid()}, J = {self._couplings()}, h = {h})"


def flat(field: Any) -> tuple[float, ...]:
    """The numbers of a field, row after row."""
    if not isinstance(field, tuple):
        return (field,)
    return tuple(value for part in field for value in flat(part))
