"""What the programs of lattices share: the field, whose constants are buffers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ppl_vae.exact.lattice import Field, Grid
from ppl_vae.models.lattice.distribution import LatticeDistribution, SiteProduct, sums_fit
from ppl_vae.models.lattice.values import Encoding
from ppl_vae.program.base import ModelProgram
from ppl_vae.program.sites import Site

__all__ = ["SITE", "BuiltLattice"]

SITE = "s"
TENSORS = ("axis", "times", "ends", "neighbours", "incident")


class BuiltLattice(ModelProgram):
    """A lattice of which the states are latent, or seen.

    Args:
        field: of the declaration, on the CPU.
        encoding: how states are told.
        size: N, the number of training data.
    """

    latent = "lattice"

    coupling: Tensor
    unary: Tensor
    table: Tensor

    def __init__(self, field: Field, encoding: Encoding, size: int) -> None:
        super().__init__()
        self.size, self.encoding = size, encoding
        self.shape, self.bonds = field.grid.shape, field.grid.bonds
        grid = field.grid
        for name in TENSORS:
            self.register_buffer(name, getattr(grid, name), persistent=False)
        for place, colour in enumerate(grid.colours):
            self.register_buffer(f"colour_{place}", colour, persistent=False)
        self.colours = len(grid.colours)
        for name, value in (("coupling", field.coupling), ("unary", field.unary), ("table", field.table)):
            self.register_buffer(name, value.clone(), persistent=False)

    @property
    def grid(self) -> Grid:
        """On the program's device."""
        parts: dict[str, Any] = {name: self.get_buffer(name) for name in TENSORS}
        colours = tuple(self.get_buffer(f"colour_{place}") for place in range(self.colours))
        return Grid(shape=self.shape, bonds=self.bonds, colours=colours, **parts)

    @property
    def field(self) -> Field:
        """What the density is made of, in float64."""
        return Field(self.grid, self.coupling.double(), self.table.double(), self.unary.double())

    @property
    def lattice(self) -> LatticeDistribution:
        """p(s)."""
        return LatticeDistribution(self.field, self.encoding)

    @property
    def summed(self) -> bool:
        """Whether sums over all states are done for every datum."""
        return sums_fit(self.field)

    @property
    def sites(self) -> dict[str, Site]:
        """The states."""
        shape = self.encoding.event_shape(self.shape, len(self.table))
        return {SITE: Site(SITE, tuple(shape), self.encoding.support(self.shape))}

    def even(self) -> SiteProduct:
        """All configurations alike."""
        unary = torch.zeros_like(self.unary, dtype=torch.float64)
        return SiteProduct(unary.softmax(-1), self.shape, self.encoding)
