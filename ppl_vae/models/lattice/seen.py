"""A lattice whose states are the data, of which coupling and field are learned.

    x_n ~ exp(log-weight of x) / Z

Where sums over all states can be done, log p(x) is exact, and so is its gradient: SVI climbs the likelihood itself. Elsewhere
it climbs the pseudo-likelihood sum_i log p(x_i | all others) (Besag 1975), which is consistent and bounds nothing.
"""

from __future__ import annotations

from typing import Any, ClassVar

import pyro
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints

from ppl_vae.exact.lattice import Field, energy, log_partition, one_hot
from ppl_vae.exact.lattice.mean_field import logits
from ppl_vae.models.lattice.built import BuiltLattice
from ppl_vae.models.lattice.distribution import drawn
from ppl_vae.models.lattice.values import Encoding
from ppl_vae.program.quantities import Quantity
from ppl_vae.program.rows import data_plate
from ppl_vae.program.sites import Site
from ppl_vae.scores import Score

__all__ = ["PSEUDO_LIKELIHOOD", "SeenLattice", "SummedSeenLattice"]

PSEUDO_LIKELIHOOD = Score("pseudo_likelihood", "log pseudo-likelihood", note="sum_i log p(x_i | all others)")


class States(TorchDistribution):
    """Of states ``(*event)`` as 0, 1, ...: the log-density that is climbed.

    Args:
        field: of the lattice.
        event_shape: of a datum.
        log_z: log Z; without it the pseudo-likelihood is told.
        batch: the batch shape.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, field: Field, event_shape: tuple[int, ...], log_z: Tensor | None, batch: Any = ()) -> None:
        self.field, self.log_z = field, log_z
        super().__init__(torch.Size(batch), torch.Size(event_shape), validate_args=False)

    @constraints.dependent_property
    def support(self) -> Any:
        """Whole numbers."""
        return constraints.independent(constraints.integer_interval(0, len(self.field.table) - 1), len(self.event_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> States:
        """As many copies."""
        return States(self.field, tuple(self.event_shape), self.log_z, batch_shape)

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws by torch's global generator, exact where sums are, else by Gibbs sampling."""
        shape = torch.Size(sample_shape) + self.batch_shape
        states = drawn(self.field, shape.numel(), exact=self.log_z is not None)
        return states.reshape(shape + self.event_shape).to(torch.get_default_dtype())

    def log_prob(self, value: Tensor) -> Tensor:
        """In nats, ``(*batch,)``."""
        states = value.reshape(*value.shape[: value.dim() - len(self.event_shape)], -1).long()
        shares = one_hot(states, len(self.field.table), self.field.unary)
        if self.log_z is not None:
            return energy(self.field, shares) - self.log_z
        return (logits(self.field, shares).log_softmax(-1) * shares).sum((-2, -1))


class SeenLattice(BuiltLattice):
    """The program of configurations ``(B, *event)``, by their pseudo-likelihood.

    Args:
        field: where the parameters start.
        encoding: how states are told.
        size: N.
        event_shape: of a datum.
        couplings: J to start from, of all bonds ``(1,)`` or of each axis ``(d,)``.
        unary: u to start from, of all sites ``(1, q)`` or of each ``(n, q)``.
    """

    score = PSEUDO_LIKELIHOOD
    learning_rate = 5e-2
    drawn_from = "the lattice"

    def __init__(
        self, field: Field, encoding: Encoding, size: int, event_shape: tuple[int, ...], couplings: Tensor, unary: Tensor
    ) -> None:
        super().__init__(field, encoding, size)
        self.event_shape = event_shape
        self.J, self.u = nn.Parameter(couplings.float()), nn.Parameter(unary.float())

    @property
    def field(self) -> Field:
        """At the present parameters."""
        of_axes = self.J.double().expand(len(self.shape))
        unary = self.u.double().expand(len(self.unary), -1)
        return Field(self.grid, of_axes[self.axis] * self.times, self.table.double(), unary)

    @property
    def free_parameters(self) -> int:
        """Couplings, and of each field one less than there are states."""
        return self.J.numel() + self.u[:, 1:].numel()

    def quantities(self) -> dict[str, Quantity]:
        """The coupling, and of how much more weight each state is than the mean of all."""
        field = (self.u - self.u.mean(-1, keepdim=True)).detach()
        sites = ["-".join(map(str, torch.unravel_index(torch.tensor(at), self.shape))) for at in range(len(field))]
        along = (tuple(map(str, range(self.J.numel()))) if self.J.numel() > 1 else ("all",),)
        where = (tuple(sites) if len(field) > 1 else ("all",), tuple(map(str, range(field.shape[-1]))))
        return {
            "coupling": Quantity(values=self.J.detach(), axes=("axis",), labels=along),
            "field": Quantity(values=field, axes=("site", "state"), labels=where),
        }

    def ancestral(self, n: int) -> Tensor:
        """So many configurations ``(n, *event)``, states as 0, 1, ..."""
        return self.states.sample((n,))

    def posterior(self, x: Tensor) -> Any:
        """Of nothing.

        Raises:
            ValueError: always.
        """
        raise ValueError("all states are seen, so that rows have no codes: declare observed=Flip(...) for hidden ones")

    @property
    def sites(self) -> dict[str, Site]:
        """None: all is seen."""
        return {}

    def forward(self, x: Tensor) -> Any:
        """The story, with the batch x ``(B, *event)`` observed."""
        with data_plate(self.size, x):
            return pyro.sample("x", self.states, obs=x)

    @property
    def states(self) -> States:
        """p(x), or what stands for it."""
        return States(self.field, self.event_shape, None)


class SummedSeenLattice(SeenLattice):
    """The same where sums over all states can be done: log p(x) itself."""

    score = None  # type: ignore[assignment]

    @property
    def states(self) -> States:
        """p(x)."""
        return States(self.field, self.event_shape, log_partition(self.field))

    @torch.no_grad()
    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log p of each datum in nats, ``(B,)``."""
        return self.states.log_prob(x)
