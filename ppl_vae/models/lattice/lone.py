"""A lattice by itself, without data, and the mean field that bounds its log Z.

    s ~ Uniform(all configurations);   a factor of exp(log-weight of s) times their number

so that the evidence of the program is Z itself. Its ELBO, sum over q of q log-weight plus entropy, bounds log Z from below.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pyro
import torch
from torch import Tensor

from ppl_vae.exact import Problem, Sweep
from ppl_vae.exact.lattice import Field, energy
from ppl_vae.exact.lattice import mean_field as ascent
from ppl_vae.models.lattice.built import SITE, BuiltLattice
from ppl_vae.models.lattice.distribution import SiteProduct, drawn
from ppl_vae.models.lattice.solutions import Solution, begun, solutions, told
from ppl_vae.models.lattice.values import SPINS
from ppl_vae.program.base import GuideProgram
from ppl_vae.program.rows import data_plate
from ppl_vae.scores import Score
from ppl_vae.types import ELBOTerms

__all__ = ["LOG_Z", "LOG_Z_BOUND", "LoneLattice", "LoneMeanField", "SummedLoneLattice"]

FLAT = 1e-8  # nats per site that a sweep gains where probabilities may yet be on their way

LOG_Z_BOUND = Score(
    "log_z_bound",
    "lower bound on log Z",
    "lower",
    target="log Z",
    note="expected log-weight and entropy, in nats of the whole lattice",
)

LOG_Z = Score("log_z", "log Z", "exact", target="log Z", note="in nats of the whole lattice")


class LoneLattice(BuiltLattice):
    """The program: its batch is one empty row, which is looked at for its size alone."""

    score = LOG_Z_BOUND
    drawn_from = "the lattice"

    def forward(self, x: Tensor) -> None:
        """The story; nothing of x ``(1, *shape)`` is seen."""
        even = self.even()
        constant = len(self.unary) * math.log(len(self.table))
        with data_plate(self.size, x):
            s = pyro.sample(SITE, even)
            shares = self.encoding.shares(s.double(), self.shape)
            pyro.factor("log_weight", energy(self.field, shares) + constant)

    @torch.no_grad()
    def ancestral(self, n: int) -> Tensor:
        """So many configurations ``(n, *shape)``, told as the declaration tells them: exact where sums are, else by Gibbs."""
        states = drawn(self.field, n, exact=self.summed)
        told = 2 * states - 1 if self.encoding is SPINS else states
        return told.reshape(n, *self.shape).to(torch.get_default_dtype())

    def mean_field(self, spec: Any) -> LoneMeanField:
        """The guide that keeps the probabilities of all sites."""
        return LoneMeanField(self)

    def cavi(self, guide: Any, rows: Any, sweep: Sweep) -> Problem:
        """Sweeps over the sites, one after the other or all at once; without a generator from where the field leans.

        Where the bound hardly rises any more, sweeps go on until no probability moves: near the critical point a bound that is
        right to many digits tells little of q.
        """
        sweep.refuse("a lattice", "parallel", "damping")
        field = self.field

        def step(q: Tensor) -> tuple[Tensor, Tensor]:
            before = ascent.bound(field, q)
            new = ascent.climbed(field, q, sweep.damping) if sweep.parallel else ascent.sweep(field, q, sweep.damping)
            if float(ascent.bound(field, new) - before) <= FLAT * len(q):  # the bound is flatter than q is settled
                new, _ = ascent.settled(field, new)
            return new, before

        def compare(ends: Sequence[tuple[Tensor, float]]) -> str | None:
            found = torch.stack([q for q, _ in ends])
            found, _ = ascent.settled(field, found)
            own = [Solution(float(value), q) for value, q in zip(ascent.bound(field, found), found, strict=True)]
            return told([*own, *solutions(field)], self.encoding, self.shape)

        start = begun(field, sweep.generator)
        return Problem(step, start, None, guide.assign, lambda q: None, compare)


class SummedLoneLattice(LoneLattice):
    """Of lattices that are narrow enough to sum over their states."""

    exact_score = LOG_Z

    def closed_form(self, rows: Any) -> None:
        """Nothing: it has no parameters."""

    def assign(self, parameters: None) -> None:
        """Nothing."""

    def posterior(self, x: Tensor) -> Any:
        """p(s) itself, of each row."""
        return self.lattice.expand((len(x),))


class LoneMeanField(GuideProgram):
    """q(s) = prod_i q_i(s_i), the same for every row; ``probs (n, q)``."""

    site = SITE

    probs: Tensor

    def __init__(self, model: BuiltLattice) -> None:
        super().__init__()
        self.size = model.size
        self._model = (model,)  # in a tuple, so that it is no part of this module
        self.register_buffer("probs", begun(model.field, None))

    @property
    def field(self) -> Field:
        """The model's."""
        return self._model[0].field

    def assign(self, probs: Tensor) -> None:
        """Keep the probabilities of all sites."""
        self.probs.copy_(probs)

    def posterior(self, x: Tensor) -> SiteProduct:
        """q(s), of each row."""
        model = self._model[0]
        return SiteProduct(self.probs, model.shape, model.encoding).expand((len(x),))

    @torch.no_grad()
    def bound(self, x: Tensor) -> ELBOTerms:
        """Expected log-weight and entropy, of each row ``(B,)``; the KL is that from all configurations alike."""
        field, q = self.field, self.probs.double()
        value = ascent.bound(field, q)
        kl = len(q) * math.log(q.shape[-1]) + torch.special.xlogy(q, q).sum()
        return ELBOTerms(*(term.expand(len(x)) for term in (value, value + kl, kl)))
