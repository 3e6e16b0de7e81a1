"""The program of grids of codes, its levels from the top to the bottom."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppl_vae.likelihoods import Likelihood
from ppl_vae.models.codes.codebook import Codebook, Quantizer
from ppl_vae.models.conditions import Condition
from ppl_vae.models.starts import start_decoder
from ppl_vae.nn import CausalNetwork, Network
from ppl_vae.priors.codes import CodesPrior, build_codes_prior
from ppl_vae.program.base import ModelProgram
from ppl_vae.program.capabilities import attribute
from ppl_vae.program.hooks import Start
from ppl_vae.program.joint import Joint
from ppl_vae.program.sites import Site, by_name
from ppl_vae.types import DataSpec

__all__ = ["QuantizedProgram"]


class QuantizedProgram(ModelProgram):
    """The program of one or several grids of codes.

    Attributes:
        network: the declaration of those that lead from level to level.
        codebooks: by the names of their codes, from the top to the bottom.
        down: of each level but the top, the network from what is above ``(D + P, H, W)`` to what is told it.
        prior: p(k), or p(k | y) of columns of y.
        condition: from a batch to columns of y ``(..., C)``, if it is conditioned on such.
    """

    latent = "quantized"
    decoder: Any
    likelihood: Any

    def __init__(
        self,
        *,
        spec: DataSpec,
        codebooks: Mapping[str, Codebook],
        prior: CodesPrior | CausalNetwork,
        likelihood: Likelihood,
        network: Network,
        condition: Condition | None = None,
    ) -> None:
        super().__init__()
        self.size = spec.size
        self.network = network
        self._names = tuple(codebooks)
        self.condition = None if condition is None else condition.build(spec)
        self.given_prior = condition is not None
        self.reads = ("x",) if condition is None else ("x", "y")
        self.codebooks = nn.ModuleDict({name: book.build() for name, book in codebooks.items()})
        self.down = nn.ModuleDict()
        above: tuple[int, ...] = ()
        for name, book in codebooks.items():
            if above:
                self.down[name] = network.build(above, book.shape)
            above = (book.dim * (2 if above else 1), *book.grid)  # vectors, and what is told of those above them
        self.prior = CodesPriors(self, codebooks, prior, 0 if self.condition is None else self.condition.columns)
        self.decoder = network.build(above, (likelihood.features, *spec.event_shape))
        self.likelihood = likelihood.build(spec.event_shape)

    @property
    def sites(self) -> dict[str, Site]:
        """The grids, from the top to the bottom."""
        return {name: Site(name, book.grid, book.support) for name, book in self._books.items()}

    @property
    def takes_missing(self) -> bool:
        """Whether the likelihood leaves missing entries out."""
        return bool(attribute(self.likelihood, "missing", False))

    def codebook(self, name: str) -> Quantizer:
        """That of a level."""
        return self._books[name]

    def told(self, name: str, values: Mapping[str, Tensor]) -> Tensor:
        """What a level below the top is told ``(..., D, H, W)`` of the codes above it."""
        return self.down[name](self._handed_on(self._names[self._names.index(name) - 1], values))

    @torch.no_grad()
    def costs(self, name: str, values: Mapping[str, Tensor], *batch: Tensor) -> Tensor | None:
        """``-log p`` of every code of a level ``(..., H, W, K)``, given those above it and those before it in its own grid.

        ``None`` while all cost the same.
        """
        return self.prior.costs(name, values, *self.known(*batch))

    def known(self, *batch: Tensor) -> tuple[Tensor, ...]:
        """The columns of y ``(..., C)`` of a batch, or of labels alone, if it is conditioned on them."""
        return () if self.condition is None else (self.condition(*batch),)

    def prior_given(self, *known: Tensor) -> Any:
        """p(k), or p(k | y)."""
        return self.prior(*known)

    def decode(self, z: Any, *known: Tensor) -> dist.Distribution:
        """p(x | k) for grids of codes ``(..., H, W)``, or several by name, whatever is known beside them."""
        return self.likelihood(self.decoder(self._handed_on(self._names[-1], by_name(self._names_of_sites, z))))

    def start_fit(self, context: Start) -> None:
        """Let the decoder, if it can, start at the features under which the training data are likeliest, as a VAE's does."""
        start_decoder(self.decoder, self.likelihood, context)

    def _handed_on(self, name: str, values: Mapping[str, Tensor]) -> Tensor:
        """A level's vectors, and behind them what it was told, ``(..., D, H, W)`` at the top and ``(..., 2 D, H, W)`` below."""
        vectors = self._books[name](values[name])
        if name == self._names[0]:
            return vectors
        told = self.told(name, values)
        leading = torch.broadcast_shapes(vectors.shape[:-3], told.shape[:-3])
        return torch.cat([part.expand(*leading, *part.shape[-3:]) for part in (vectors, told)], dim=-3)

    @property
    def _books(self) -> dict[str, Any]:
        return dict(self.codebooks.items())

    @property
    def _names_of_sites(self) -> dict[str, None]:
        return dict.fromkeys(self._names)


class CodesPriors(nn.Module):
    """p(k), or p(k | y) of columns of y, of several levels a joint from the top to the bottom.

    Args:
        program: whose prior it is.
        codebooks: by the names of their codes, from the top to the bottom.
        declared: the prior of each.
        columns: C of y, 0 without.
    """

    def __init__(
        self,
        program: QuantizedProgram,
        codebooks: Mapping[str, Codebook],
        declared: CodesPrior | CausalNetwork,
        columns: int = 0,
    ) -> None:
        super().__init__()
        self._program = (program,)  # in a tuple, so that its parameters are not listed twice
        top, *below = codebooks
        self.levels = nn.ModuleDict()
        for name, book in codebooks.items():
            context: Any = (book.dim + columns, *book.grid) if name in below else columns
            self.levels[name] = build_codes_prior(declared, levels=book.size, grid=book.grid, context=context)
        self.top, self.below = top, below

    def forward(self, *known: Tensor) -> Any:
        """The distribution, or the joint, given columns of y ``(..., C)`` if there are such."""
        first = self.levels[self.top](*known)
        if not self.below:
            return first
        return Joint({self.top: first, **{name: partial(self._given, name, known) for name in self.below}})

    def costs(self, name: str, values: Mapping[str, Tensor], *known: Tensor) -> Tensor | None:
        """``-log p`` of every code of a level ``(..., H, W, K)``, given those above it and those before it in its own grid.

        ``None`` while all cost the same.
        """
        told = known if name == self.top else (self._context(name, known, values),)
        level: Any = self.levels[name]
        found: Tensor | None = level.costs(values[name], *told)
        return found

    def _given(self, name: str, known: tuple[Tensor, ...], values: Mapping[str, Tensor]) -> dist.Distribution:
        """A level's, given those above it."""
        found: dist.Distribution = self.levels[name](self._context(name, known, values))
        return found

    def _context(self, name: str, known: tuple[Tensor, ...], values: Mapping[str, Tensor]) -> Tensor:
        """What a level's prior is told of those above it, which learn nothing by it, and columns of y as planes."""
        with torch.no_grad():
            maps = [self._program[0].told(name, values)]
        maps += [c[..., None, None].expand(*c.shape, *maps[0].shape[-2:]) for c in known]
        leading = torch.broadcast_shapes(*(each.shape[:-3] for each in maps))
        return torch.cat([each.expand(*leading, *each.shape[-3:]) for each in maps], dim=-3)
