"""The guide of grids of codes: at each place the vector that is nearest to the encoder's output.

    q(k | x) = prod_ij 1[k_ij = argmin_k |z_ij(x) - e_k|]

A point, but of a discrete variable: its probability is one. Of several levels, from the top to the bottom (Razavi, van den Oord
and Vinyals 2019), the outputs of each hang on the codes above it, through the model's own features of these.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from ppl_vae.guides.base import Guide, Latent, remedy
from ppl_vae.nn import Network, inputs
from ppl_vae.nn.pointwise import Pointwise
from ppl_vae.program.base import GuideProgram
from ppl_vae.program.capabilities import Quantized
from ppl_vae.program.context import evaluating
from ppl_vae.program.hooks import Start
from ppl_vae.program.joint import Joint
from ppl_vae.program.rows import data_plate
from ppl_vae.types import DataSpec

__all__ = ["NearestCode"]

OUTPUTS = 50_000  # that codebooks start from, at most, unless they have so many vectors


@dataclasses.dataclass(frozen=True, kw_only=True)
class NearestCode(Guide):
    """q(k | x), certain of the codes nearest to the encoder's outputs, for :class:`~ppl_vae.VQVAE`.

    What is climbed is the ELBO less what the codebooks ask for beside it: commitment, the loss of vectors with gradients, and
    with a ``rate`` what codes cost (:class:`~ppl_vae.Codebook`). The history's ``elbo`` and every evaluation leave these out,
    and ``objective`` has them.

    Args:
        encoder: the network from the data to the outputs ``(D, H, W)`` of the bottom level, and from each level to the next
            above; by default the model's decoder mirrored.

    Raises:
        ValueError: on building, a model without codebooks, or a grid that the encoder's maps do not match.

    Examples:
        >>> print(NearestCode())
        q(k | x) = 1 at k = argmin |z(x) - e_k|
    """

    serves: ClassVar[frozenset[Latent]] = frozenset({"quantized"})

    encoder: Network | None = None

    def build(self, model: Any, spec: DataSpec) -> nn.Module:
        """The Pyro program for the codes of ``model``."""
        if not isinstance(model, Quantized):
            raise ValueError(
                f"NearestCode is a guide of grids of codes, but {type(model).__name__} has no codebook: use {remedy(model)}, "
                "or the model VQVAE"
            )
        return NearestCodeGuide(self, model, spec)

    def story(self) -> str:
        """The factorization, as mathematics."""
        network = "" if self.encoder is None else f", z(x) = {self.encoder.story('x')}"
        return f"q(k | x) = 1 at k = argmin |z(x) - e_k|{network}"


class PointCodes(dist.Delta):
    """A grid of codes, certain.

    Args:
        codes: ``(*batch, H, W)``.
        outputs: the encoder's, of which these are the codes, ``(*batch, D, H, W)``.
        support: of the grid.
        above: the codes of the levels above it, by name.
    """

    def __init__(
        self, codes: Tensor, outputs: Tensor, support: constraints.Constraint, above: Mapping[str, Tensor] | None = None
    ) -> None:
        super().__init__(codes, outputs.new_zeros(codes.shape[:-2]), event_dim=2, validate_args=False)
        self.outputs = outputs
        self.of = support
        self.above = above or {}

    @property
    def support(self) -> Any:
        """Whole numbers."""
        return self.of

    @property
    def mode(self) -> Tensor:
        """The codes."""
        return self.v

    def expand(self, batch_shape: Any, _instance: Any = None) -> PointCodes:
        """As many copies."""
        shape = torch.Size(batch_shape)
        outputs = self.outputs.expand(*shape, *self.outputs.shape[-3:])
        return PointCodes(self.v.expand(*shape, *self.event_shape), outputs, self.of, self.above)

    def log_prob(self, x: Tensor) -> Tensor:
        """Zero at these codes, else minus infinity, ``(*batch)``."""
        there = (x == self.v).all(-1).all(-1)
        return torch.where(there, self.log_density, -torch.inf)


class NearestCodeGuide(GuideProgram):
    """The encoder gives outputs ``(..., D, H, W)`` of each level; below the top a head makes them of these and those above."""

    certain = True

    def __init__(self, declared: NearestCode, model: Quantized, spec: DataSpec) -> None:
        super().__init__()
        self.size = spec.size
        self._model: tuple[Any] = (model,)  # in a tuple, so that its parameters are not listed twice
        self._names: tuple[str, ...] = tuple(self._model[0].sites)
        self.site = self._names[0]
        network = declared.encoder or model.network
        self.encoders, self.heads = nn.ModuleDict(), nn.ModuleDict()
        shape: tuple[int, ...] = ()
        for name in reversed(self._names):
            book = model.codebook(name)
            own = (book.dim, *book.grid)
            self.encoders[name] = network.build(shape, own) if shape else inputs.encoder(network, spec, own)
            if name != self.site:
                self.heads[name] = Pointwise(2 * book.dim, book.dim, book.dim, event_dim=3)
            shape = own

    def forward(self, *batch: Tensor, **fields: Tensor) -> Any:
        """Draw the codes of each datum of the batch, and lose what the codebooks ask for."""
        batch = (*batch, *fields.values())
        q = self.posterior(*batch)
        losses: list[Tensor] = []
        with data_plate(self.size, batch[0]):
            if isinstance(q, Joint):
                drawn: Any = q.walk(lambda name, factor: self._drawn(name, factor, batch, losses))[0]
            else:
                drawn = self._drawn(self.site, q, batch, losses)
            loss = torch.stack(torch.broadcast_tensors(*losses)).sum(0)
            # Like pyro.factor, of which TraceMeanField_ELBO takes only what is a part of log q.
            beside = dist.Delta(torch.zeros_like(loss), log_density=loss)
            pyro.sample("codebook_loss", beside, obs=beside.v, infer={"is_auxiliary": True})
        return drawn

    def posterior(self, *batch: Tensor) -> Any:
        """Certain codes ``(..., H, W)`` of x ``(..., *event)``; of several levels their joint."""
        features = self._features(batch[0])
        if len(self._names) == 1:
            return self._point(features, self.site, {})
        below = {name: partial(self._point, features, name) for name in self._names[1:]}
        return Joint({self.site: self._point(features, self.site, {}), **below})

    def start_fit(self, context: Start) -> None:
        """Let each codebook that is not started, from the top to the bottom, begin at what the encoder gives for it.

        Raises:
            ValueError: a codebook has more vectors than there are outputs.
        """
        books = {name: self._model[0].codebook(name) for name in self._names}
        waiting = {name for name, book in books.items() if book.training and not bool(book.started)}
        if not waiting:
            return
        cells = min(book.grid[0] * book.grid[1] for book in books.values())
        wanted = max(OUTPUTS, *(book.size for book in books.values()))
        x, generator = context.sample, context.generator()
        x = x[:: max(1, len(x) * cells // wanted)]
        with evaluating(self._model[0]), evaluating(self), torch.no_grad():
            features = self._features(x)
            values: dict[str, Tensor] = {}
            for name, book in books.items():
                outputs = self._outputs(name, features, values)
                if name in waiting:
                    book.begin(outputs, generator)
                values[name] = book.nearest(outputs)

    def _features(self, x: Tensor) -> dict[str, Tensor]:
        """What the encoder gives of each level, from the bottom to the top."""
        found = {}
        for name in reversed(self._names):
            found[name] = x = self.encoders[name](x)
        return found

    def _outputs(self, name: str, features: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> Tensor:
        """The outputs of a level, given the codes above it."""
        own = features[name]
        if name == self.site:
            return own
        told = self._model[0].told(name, values)
        own = own.expand(*torch.broadcast_shapes(own.shape[:-3], told.shape[:-3]), *own.shape[-3:])
        return own + self.heads[name](torch.cat([own, told.expand_as(own)], dim=-3))

    def _point(self, features: Mapping[str, Tensor], name: str, values: Mapping[str, Tensor]) -> PointCodes:
        """Those of a level, given the codes above it."""
        book, outputs = self._model[0].codebook(name), self._outputs(name, features, values)
        return PointCodes(book.nearest(outputs), outputs, book.support, values)

    def _drawn(self, name: str, factor: Any, batch: tuple[Tensor, ...], losses: list[Tensor]) -> Tensor:
        """Draw codes through which gradients reach their outputs, and let the vectors follow these in training."""
        codes: Tensor = pyro.sample(name, factor)
        book = self._model[0].codebook(name)
        book.remember(codes, factor.outputs)
        losses.append(book.loss(factor.v, factor.outputs))
        if book.rate and book.training:
            costs = self._model[0].costs(name, {**factor.above, name: factor.v}, *batch)
            if costs is not None:
                losses.append(book.rate_loss(factor.outputs, costs))
        if book.training and torch.is_grad_enabled():
            book.learn(factor.v, factor.outputs)
        return codes
