"""A lattice behind noise: the true image of every datum is latent.

    s_n ~ exp(log-weight of s) / Z;   x_ni | s_ni ~ noise

The posterior of s is a lattice again, whose field has log p(x_i | s_i) besides: log p(x) = log Z(x) - log Z.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyro
import torch
from torch import Tensor

from ppl_vae.exact import Problem, Sweep
from ppl_vae.exact.lattice import Field, log_partition
from ppl_vae.exact.lattice import mean_field as ascent
from ppl_vae.models.lattice.built import SITE, BuiltLattice
from ppl_vae.models.lattice.distribution import LatticeDistribution, SiteProduct
from ppl_vae.models.lattice.noise import BuiltNoise
from ppl_vae.models.lattice.values import Encoding
from ppl_vae.program.base import GuideProgram
from ppl_vae.program.rows import data_plate
from ppl_vae.scores import Score
from ppl_vae.types import ELBOTerms

__all__ = ["BELOW", "NoisyLattice", "NoisyMeanField", "SummedNoisyLattice"]

BELOW = Score(
    "lower_bound",
    "lower bound on log p(x)",
    "lower",
    parts=("reconstruction", "kl"),
    note="reconstruction - KL, with an upper bound in place of the lattice's log Z, which is too wide to be summed",
)
SETTLED, SWEEPS = 1e-10, 1000


class NoisyLattice(BuiltLattice):
    """The program of images ``(*event)`` whose elements are the sites; missing ones (NaN) are left out.

    Args:
        field: of the lattice.
        encoding: how states are told.
        size: N.
        noise: p(x_i | s_i).
        event_shape: of a datum.
        log_z: log Z of the lattice, or an upper bound on it.
    """

    takes_missing = True  # type: ignore[assignment]

    log_z: Tensor

    def __init__(
        self,
        field: Field,
        encoding: Encoding,
        size: int,
        noise: BuiltNoise,
        event_shape: tuple[int, ...],
        log_z: Tensor,
    ) -> None:
        super().__init__(field, encoding, size)
        self.noise, self.event_shape = noise, event_shape
        self.register_buffer("log_z", log_z, persistent=False)
        if not self.summed:
            self.score = BELOW

    def forward(self, x: Tensor) -> Any:
        """The story, with the batch x ``(B, *event)`` observed."""
        seen = ~x.isnan()
        with data_plate(self.size, x):
            s = pyro.sample(SITE, self.prior())
            noise = self._noise(s.double()).mask(seen).to_event(len(self.event_shape))
            return pyro.sample("x", noise, obs=torch.where(seen, x, 0.0).double())

    def prior(self) -> LatticeDistribution:
        """p(s)."""
        return LatticeDistribution(self.field, self.encoding, log_z=self.log_z)

    def decode(self, z: Tensor, *known: Tensor) -> Any:
        """p(x | s), for states ``(..., *shape)``, or the mean over their probabilities."""
        return self._noise(z).to_event(len(self.event_shape))

    def restored(self, q: Any) -> Tensor:
        """What each site's more probable state would show without noise, ``(B, *event)``."""
        states = self.encoding.shares(q.mean, self.shape).argmax(-1)
        return self.noise.values[states].reshape(-1, *self.event_shape)

    def given(self, x: Tensor) -> Field:
        """The lattice of p(s | x), x ``(B, *event)``."""
        field = self.field
        return field._replace(unary=field.unary + self.noise.evidence(x.flatten(1).double()))

    def _noise(self, s: Tensor) -> Any:
        """p(x_i | s_i) for states ``(..., *shape)``, of batch shape ``(..., *event)``."""
        shares = self.encoding.shares(s, self.shape)
        return self.noise(shares.reshape(*shares.shape[:-2], *self.event_shape, shares.shape[-1]))

    def mean_field(self, spec: Any) -> NoisyMeanField:
        """The guide, which has nothing of its own: the best q of each image follows from it."""
        return NoisyMeanField(self)

    def cavi(self, guide: Any, rows: Iterable[Tensor], sweep: Sweep) -> Problem:
        """Sweeps over the sites of all images.

        Raises:
            ValueError: options or random starts: an image starts from what is seen of it.
        """
        sweep.refuse("a lattice behind noise")
        if sweep.generator is not None:
            raise ValueError("expected an n_init of 1, since images start from what is seen of them, got more: leave it out")
        fields = [self.given(x.reshape(len(x), *self.event_shape)) for x in rows]
        total = sum(len(field.unary) for field in fields)

        def step(states: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Tensor]:
            pairs = list(zip(fields, states, strict=True))
            value = sum((ascent.bound(field, q).sum() for field, q in pairs), self.log_z.new_zeros(()))
            return tuple(ascent.sweep(field, q) for field, q in pairs), value / total - self.log_z

        start = tuple(field.unary.softmax(-1) for field in fields)
        return Problem(step, start, None, lambda states: None, lambda states: None)


class SummedNoisyLattice(NoisyLattice):
    """Of lattices that are narrow enough to sum over their states: log p(x) and p(s | x) are exact."""

    def closed_form(self, rows: Any) -> None:
        """Nothing: it has no parameters."""

    def assign(self, parameters: None) -> None:
        """Nothing."""

    @torch.no_grad()
    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log p of the elements of each datum that are there, in nats ``(B,)``."""
        return log_partition(self.given(x)) - self.log_z

    @torch.no_grad()
    def posterior(self, x: Tensor) -> LatticeDistribution:
        """The exact p(s | x) of each datum."""
        return LatticeDistribution(self.given(x), self.encoding, dtype=x.dtype)


class NoisyMeanField(GuideProgram):
    """q(s | x) = prod_i q_i(s_i | x), the best of each datum."""

    site = SITE

    def __init__(self, model: NoisyLattice) -> None:
        super().__init__()
        self.size = model.size
        self._model = (model,)

    @torch.no_grad()
    def posterior(self, x: Tensor) -> SiteProduct:
        """q(s | x) for x ``(B, *event)``, by sweeps from what is seen of each."""
        return self._found(x)[1]

    @torch.no_grad()
    def bound(self, x: Tensor) -> ELBOTerms:
        """The ELBO of each datum ``(B,)`` in closed form."""
        field, q = self._found(x)
        model = self._model[0]
        evidence = field.unary - model.field.unary
        elbo = ascent.bound(field, q.probs) - model.log_z
        reconstruction = (q.probs * evidence).sum((-2, -1))
        return ELBOTerms(elbo, reconstruction, reconstruction - elbo)

    def _found(self, x: Tensor) -> tuple[Field, SiteProduct]:
        model = self._model[0]
        field = model.given(x)
        q, _ = ascent.settled(field, field.unary.softmax(-1), sweeps=SWEEPS, tolerance=SETTLED)
        return field, SiteProduct(q, model.shape, model.encoding, dtype=x.dtype)
